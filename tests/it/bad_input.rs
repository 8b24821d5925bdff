//! Every route with broken, huge, negative, duplicate and missing parameters, hostile paths and malformed requests: the
//! right 4xx with a problem that says what was wrong, never a panic, and a server that lives on.

use std::time::Duration;

use crate::support::client::{Connection, Response, encode};
use crate::support::oracle;
use crate::support::server::{Server, WRITE_KEY};

const HUGE: &str = "340282366920938463463374607431768211456";

fn with_video() -> Server {
    Server::builder().video(&oracle::vector("df2997.mp4"), "a.mp4").bytes("b.bin", &[7; 1000]).start()
}

fn assert_refused(shown: &str, got: &Response, allowed: &[u16]) {
    assert!(allowed.contains(&got.status), "{shown}: wanted {allowed:?}, got {got:?}");
    if got.status >= 400 {
        got.problem();
    }
}

/// Not labels, or labels that the drop-frame video of 29.97 frames per second cannot have.
const NO_TIMECODES: [&str; 16] = [
    "",
    "01",
    "01:00",
    "01:00:00",
    "1:2:3:4:5",
    "aa:bb:cc:dd",
    "01:00:00;30",
    "25:00:00;00",
    "-1:00:00;00",
    "01:00:00;",
    ":::",
    "01-00-00-00",
    "99999999999999999999:00:00;00",
    "%00",
    "01:00:00;0x",
    "０1:00:00;00",
];

/// Missing, doubled, contradicting and meaningless parameters of /chunk.
const WRONG_QUERIES: [&str; 20] = [
    "",
    "?",
    "?size=5",
    "?as=fmp4",
    "?offset=0&frame=0",
    "?offset=0&time=0",
    "?frame=0&timecode=01:00:00;00",
    "?offset=0&offset=0",
    "?offset=0&offset=5",
    "?frame=0&frame=1",
    "?offset=0&size=0",
    "?offset=0&size=5&size=6",
    "?offset=0&as=avi",
    "?offset=0&as=fmp4&as=fmp4",
    "?frame=0&as=fmp4&duration=abc",
    "?frame=0&as=fmp4&duration=-1",
    "?frame=0&as=fmp4&duration=0",
    "?frame=0&as=fmp4&duration=NaN",
    "?timecode=01:00:00;00&drop=2",
    "?timecode=01:00:00;00&drop=",
];

#[test]
fn parameters_of_chunk_and_seek() {
    let mut server = with_video();
    let mut connection = Connection::open(server.media);
    let long = "1".repeat(5000);
    let values =
        ["", "-1", "abc", "1e9", "0x10", "1_000", "%00", "%FF", "+1", " 1", "1.5.5", "NaN", "inf", "-0", HUGE, &long];
    let mut refused: Vec<(String, &[u16])> = Vec::new();
    for value in values {
        let value = value.replace(' ', "%20");
        // For a number that is well-formed and outside: 422. NaN, inf and the like are no numbers.
        let outside: &[u16] = if value == HUGE || value == long { &[400, 422] } else { &[400] };
        for key in ["offset", "frame"] {
            if value != "-0" {
                refused.push((format!("chunk?{key}={value}"), outside));
            }
        }
        refused.push((format!("chunk?offset=0&size={value}"), if outside.len() > 1 { &[200, 400] } else { &[400] }));
    }
    for value in ["", "-1", "abc", "NaN", "inf", "1.5.5", "%00", "01:60:00.000", "01:00:60.000", "::", "1e300", HUGE] {
        refused.push((format!("seek?time={value}"), &[400, 422]));
    }
    for value in NO_TIMECODES {
        refused.push((format!("seek?timecode={}", encode(value).replace("%2500", "%00")), &[400]));
    }
    for query in WRONG_QUERIES {
        refused.push((format!("chunk{query}"), &[400]));
    }
    refused.push(("chunk?offset=18446744073709551615&size=18446744073709551615".to_owned(), &[422]));
    refused.push(("chunk?offset=9223372036854775807&size=9223372036854775807".to_owned(), &[422]));
    refused.push(("seek?offset=-5".to_owned(), &[400]));
    refused.push(("seek".to_owned(), &[400]));
    for (rest, allowed) in refused {
        // Characters that no request line may hold are sent in their encoded form.
        let target = format!("/videos/a.mp4/{}", rest.replace('０', "%EF%BC%90"));
        let shown = &target[..target.len().min(90)];
        let got = connection.call("GET", &target, &[], b"").unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert_refused(shown, &got, allowed);
    }
    server.assert_alive("broken parameters");
}

#[test]
fn large_sizes_are_clipped() {
    let server = with_video();
    for size in ["1001", "18446744073709551615"] {
        let got = server.get(&format!("/videos/b.bin/chunk?offset=0&size={size}"));
        assert_eq!((got.status, got.body.len()), (200, 1000), "size={size}: {got:?}");
    }
    let got = server.get("/videos/b.bin/chunk?offset=999&size=18446744073709551615");
    assert_eq!((got.status, got.body.len()), (200, 1), "{got:?}");
}

/// Files that must never be seen: beside the library, and reached by a link from inside it.
#[test]
fn paths_that_leave_the_library() {
    let builder = Server::builder().bytes("b.bin", &[7; 1000]).bytes("sub/c.bin", &[8; 500]);
    let library = builder.library();
    let outside = library.parent().unwrap().join("secret.bin");
    std::fs::write(&outside, b"TOP SECRET").unwrap();
    std::fs::create_dir(library.parent().unwrap().join("private")).unwrap();
    std::fs::write(library.parent().unwrap().join("private/d.bin"), b"TOP SECRET").unwrap();
    std::os::unix::fs::symlink(&outside, library.join("link.bin")).unwrap();
    std::os::unix::fs::symlink("../secret.bin", library.join("relative.bin")).unwrap();
    std::os::unix::fs::symlink(library.parent().unwrap().join("private"), library.join("linked")).unwrap();
    std::os::unix::fs::symlink("loop", library.join("loop")).unwrap();
    std::os::unix::fs::symlink(".", library.join("sub/self")).unwrap();
    std::fs::write(library.join(".hidden.bin"), b"TOP SECRET").unwrap();
    let mut server = builder.start();

    assert_eq!(server.get("/videos/sub%2Fc.bin/file").body, [8; 500]);
    assert!(!server.get("/videos").text().contains("secret"));
    let paths = [
        "/videos/../secret.bin/file",
        "/videos/..%2Fsecret.bin/file",
        "/videos/%2e%2e%2fsecret.bin/file",
        "/videos/..%252Fsecret.bin/file",
        "/videos/sub%2F..%2F..%2Fsecret.bin/file",
        "/videos/sub/../../secret.bin/file",
        "/videos/%2Fetc%2Fpasswd/file",
        "//etc/passwd",
        "/videos//etc/passwd/file",
        "/videos/%2e/file",
        "/videos/./file",
        "/videos/../file",
        "/videos/%2e%2e/file",
        "/videos/b.bin%00/file",
        "/videos/%00/file",
        "/videos/b.bin%00.mp4/file",
        "/videos/..%5Csecret.bin/file",
        "/videos/link.bin/file",
        "/videos/relative.bin/file",
        "/videos/linked%2Fd.bin/file",
        "/videos/loop/file",
        "/videos/%FF%FE/file",
        "/videos/b.bin%2F/file",
        "/videos/%2Fb.bin/file",
        "/videos/sub/file",
        "/videos/%C0%AE%C0%AE%2Fsecret.bin/file",
        "/videos/.hidden.bin/file",
        "/videos/b.bin/../../secret.bin",
        "/videos/b.bin%2e%2e/file",
        "/videos/file:%2F%2F%2Fetc%2Fpasswd/file",
        "/videos//file",
        "/videos/%/file",
        "/videos/%2/file",
        "/videos/%zz/file",
        "/../secret.bin",
        "/videos/proc%2Fself%2Fenviron/file",
    ];
    for path in paths {
        let got = server.get(path);
        assert!(!got.text().contains("SECRET") && !got.text().contains("root:"), "{path} leaks: {got:?}");
        assert_refused(path, &got, &[400, 404]);
    }
    server.assert_alive("hostile paths");
}

#[test]
fn routes_and_methods() {
    let mut server = with_video();
    let mut connection = Connection::open(server.media);
    for target in [
        "/nothing",
        "/videos/none.mp4",
        "/videos/none.mp4/file",
        "/videos/none.mp4/seek?frame=0",
        "/videos/a.mp4/nothing",
        "/videos/none.mp4/chunk?offset=0",
        "/debug",
        "/debug/",
        "/debug/profile",
        "/debug/pprof/profile",
        "/metrics",
        "/healthz",
        "/readyz",
        "/videos/a.mp4/file/more",
        "/favicon.icon",
    ] {
        let got = connection.get(target);
        assert_refused(target, &got, &[404]);
    }
    for (method, target) in [
        ("POST", "/videos/a.mp4/file"),
        ("DELETE", "/videos/a.mp4/file"),
        ("PATCH", "/videos"),
        ("PUT", "/videos"),
        ("DELETE", "/"),
        ("POST", "/videos/a.mp4/seek?frame=0"),
        ("PUT", "/videos/a.mp4/chunk?offset=0"),
    ] {
        let key = format!("Bearer {WRITE_KEY}");
        let got = server.request(method, target, &[("Authorization", &key)], b"");
        assert_eq!(got.status, 405, "{method} {target}: {got:?}");
        assert!(got.header("allow").is_some_and(|allow| allow.contains("GET")), "{method} {target}: {got:?}");
        got.problem();
    }
    let long = format!("/videos/{}", "a".repeat(70_000));
    let got = Connection::open(server.media).call("GET", &long, &[], b"").unwrap();
    assert!(matches!(got.status, 404 | 414 | 431), "{got:?}");
    server.assert_alive("wrong routes");
}

#[test]
fn malformed_requests() {
    const NEW: &str = "/videos/x.bin";
    const KEY: &str = "Authorization: Bearer ";
    let mut server = with_video();
    let many: String = (0..5000).map(|i| format!("X-{i}: y\r\n")).collect();
    let wide = format!("X: {}\r\n", "y".repeat(200_000));
    let head = "GET /videos HTTP/1.1\r\nHost: x\r\n";
    for request in [
        "\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        "GET /videos\r\n\r\n".to_owned(),
        "GET /videos HTTP/9.9\r\n\r\n".to_owned(),
        "GET /videos HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
        "GET /vid eos HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "\u{0}\u{1}\u{2}\u{3}\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("{head}{many}\r\n"),
        format!("{head}{wide}\r\n"),
        format!("{head}Content-Length: -1\r\n\r\n"),
        format!("{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        format!("{head}Content-Length: {HUGE}\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: gzip\r\n\r\n"),
        format!("PUT {NEW} HTTP/1.1\r\nHost: x\r\n{KEY}{WRITE_KEY}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    ] {
        let shown: String = request.chars().take(60).collect();
        let mut connection = Connection::open(server.media);
        connection.set_timeout(Duration::from_secs(3));
        let _ = connection.send(request.as_bytes());
        connection.finish_sending();
        // An answer of 4xx, 501 or 505, or a closed connection; a request whose length is ambiguous must not be served.
        if let Ok(got) = connection.read_response(false) {
            let fine = (400..500).contains(&got.status) || matches!(got.status, 501 | 505);
            let served = got.status == 200 && shown.starts_with("GET /videos HTTP/1.1");
            assert!(fine || served, "{shown:?}: {got:?}");
        }
    }
    server.assert_alive("malformed requests");
}

#[test]
fn a_slow_or_silent_peer_costs_nothing() {
    let mut server = with_video();
    let mut silent: Vec<Connection> = (0..50).map(|_| Connection::open(server.media)).collect();
    for connection in &mut silent {
        connection.send(b"GET /videos/a.mp4/fi").unwrap();
    }
    server.assert_alive("fifty half requests");
    drop(silent);
    // A reader that leaves in the middle of a response.
    for _ in 0..20 {
        let mut connection = Connection::open(server.media);
        connection.send(b"GET /videos/a.mp4/file HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        connection.skip(10_000).unwrap();
    }
    server.assert_alive("readers that leave");
}
