//! Every route with broken, huge, negative, duplicate and missing parameters, hostile paths, hostile files and uploads
//! that stop or lie: the right 4xx with a problem that says what was wrong, never a panic, and a server that lives on.

use std::io::Write;
use std::time::{Duration, Instant};

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
    for value in [
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
    ] {
        refused.push((format!("seek?timecode={}", encode(value).replace("%2500", "%00")), &[400]));
    }
    for query in [
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
    ] {
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
        format!(
            "PUT /videos/x.bin HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {WRITE_KEY}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        ),
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

fn put(server: &Server, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let key = format!("Bearer {WRITE_KEY}");
    let mut all = vec![("Authorization", &*key)];
    all.extend_from_slice(headers);
    server.request("PUT", target, &all, body)
}

#[test]
fn uploads_need_the_key() {
    let mut server = with_video();
    for (method, target) in [("PUT", "/videos/new.bin"), ("DELETE", "/videos/b.bin")] {
        for headers in [
            vec![],
            vec![("Authorization", "Bearer wrong")],
            vec![("Authorization", "Bearer ")],
            vec![("Authorization", "Basic !!!")],
            vec![("Authorization", "Basic d2Vpcjp3cm9uZw==")],
            vec![("Authorization", "Digest x")],
            vec![("Authorization", WRITE_KEY)],
        ] {
            let got = server.request(method, target, &headers, b"");
            assert_eq!(got.status, 401, "{method} {headers:?}: {got:?}");
            let challenges = got.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
            let all = challenges.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ");
            assert!(all.contains("Basic realm=\"weir\"") && all.contains("Bearer"), "{all}");
            got.problem();
        }
    }
    // Before the body is read: the answer comes although the body never does.
    let mut connection = Connection::open(server.media);
    connection.set_timeout(Duration::from_secs(3));
    connection.send(b"PUT /videos/new.bin HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n").unwrap();
    assert_eq!(connection.read_response(false).unwrap().status, 401);
    assert_eq!(server.get("/videos/new.bin").status, 404);
    assert_eq!(server.get("/videos/b.bin/file").body, [7; 1000]);
    assert!(!server.log().contains(WRITE_KEY), "the key is in the log");
    server.assert_alive("uploads without a key");
}

#[test]
fn uploads_that_stop_or_lie() {
    let mut server = with_video();
    let head = |id: &str, rest: &str| {
        format!("PUT /videos/{id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {WRITE_KEY}\r\n{rest}\r\n\r\n")
            .into_bytes()
    };
    for (id, rest, body) in [
        ("stop.bin", "Content-Length: 1000", &b"only this"[..]),
        ("chunks.bin", "Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
        ("part.bin", "Content-Range: bytes 0-99/200\r\nContent-Length: 100", b"half of it"),
    ] {
        let mut connection = Connection::open(server.media);
        connection.send(&head(id, rest)).unwrap();
        connection.send(body).unwrap();
        connection.finish_sending();
        connection.set_timeout(Duration::from_secs(5));
        let answer = connection.read_response(false);
        assert!(!matches!(&answer, Ok(a) if a.status < 300 || a.status >= 500), "{id}: {answer:?}");
        assert_eq!(server.get(&format!("/videos/{id}")).status, 404, "{id} is visible though it is not whole");
        assert!(!server.get("/videos").text().contains(id), "{id} is listed though it is not whole");
    }
    for (headers, status) in [
        (vec![("Content-Range", "bytes 0-9/*")], 400),
        (vec![("Content-Range", "bytes 0-8/100")], 400), // the body has 10
        (vec![("Content-Range", "bytes 0-10/100")], 400),
        (vec![("Content-Range", "bytes 9-0/100")], 400),
        (vec![("Content-Range", "bytes 95-104/100")], 400),
        (vec![("Content-Range", "bytes -10/100")], 400),
        (vec![("Content-Range", "items 0-9/100")], 400),
        (vec![("Content-Range", "bytes 0-9/0")], 400),
        (vec![("Content-Range", "bytes 0-9/18446744073709551616")], 400),
        (vec![("Content-Range", "abc")], 400),
        (vec![("Content-Range", "")], 400),
        (vec![("Content-Range", "bytes */100")], 400),
    ] {
        let got = put(&server, "/videos/lie.bin", &headers, b"0123456789");
        let huge = headers[0].1.contains("18446744073709551616");
        assert!(got.status == status || huge && got.status == 413, "{headers:?}: {got:?}");
        got.problem();
        assert_eq!(server.get("/videos/lie.bin").status, 404);
    }
    for id in ["..", ".", "%2e%2e%2Fx", ".hidden", "-x", "a%2Fb", "a%00b", "a%20b", "%C3%A4", "x%0Ay", &"a".repeat(129)]
    {
        let got = put(&server, &format!("/videos/{id}"), &[], b"0123456789");
        assert!(matches!(got.status, 400 | 404 | 405), "{id}: {got:?}");
        got.problem();
    }
    assert_eq!(
        std::fs::read_dir(server.library().parent().unwrap()).unwrap().count(),
        2,
        "something beside the library"
    );
    assert_eq!(put(&server, &format!("/videos/{}", "a".repeat(128)), &[], b"0123456789").status, 201);
    server.assert_alive("uploads that lie");
}

#[test]
fn uploads_as_the_contract_says() {
    let mut server = with_video();
    let first = put(&server, "/videos/new.bin", &[], b"0123456789");
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(server.get("/videos/new.bin/file").body, b"0123456789");
    let etag = server.get("/videos/new.bin/file").header("etag").unwrap().to_owned();
    assert_eq!(put(&server, "/videos/new.bin", &[("If-None-Match", "*")], b"x").status, 412);
    assert_eq!(put(&server, "/videos/new.bin", &[], b"9876543210").status, 200);
    let replaced = server.get("/videos/new.bin/file");
    assert_eq!(replaced.body, b"9876543210");
    assert_ne!(replaced.header("etag"), Some(&*etag), "an ETag was used again for other bytes");

    // Parts in any order; what is missing is told, and survives SIGKILL.
    let part =
        |server: &Server, range: &str, body: &[u8]| put(server, "/videos/parts.bin", &[("Content-Range", range)], body);
    assert_eq!(server.request("HEAD", "/videos/parts.bin/upload", &[], b"").status, 404);
    assert_eq!(part(&server, "bytes 20-29/30", &[3; 10]).status, 202);
    assert_eq!(part(&server, "bytes 0-9/30", &[1; 10]).status, 202);
    assert_eq!(part(&server, "bytes 10-19/31", &[2; 10]).status, 409);
    let key = format!("Bearer {WRITE_KEY}");
    let missing = server.request("HEAD", "/videos/parts.bin/upload", &[("Authorization", &key)], b"");
    assert_eq!((missing.status, missing.header("upload-missing")), (200, Some("10-19")), "{missing:?}");
    server.kill();
    server.restart();
    let missing = server.request("HEAD", "/videos/parts.bin/upload", &[("Authorization", &key)], b"");
    assert_eq!((missing.status, missing.header("upload-missing")), (200, Some("10-19")), "{missing:?}");
    assert_eq!(server.get("/videos/parts.bin").status, 404);
    assert_eq!(part(&server, "bytes 10-19/30", &[2; 10]).status, 201);
    let whole = server.get("/videos/parts.bin/file").body;
    assert_eq!(whole, [[1; 10], [2; 10], [3; 10]].concat());

    let got = server.request("DELETE", "/videos/parts.bin", &[("Authorization", &key)], b"");
    assert_eq!(got.status, 204, "{got:?}");
    assert_eq!(server.get("/videos/parts.bin").status, 404);
    let got = server.request("DELETE", "/videos/parts.bin", &[("Authorization", &key)], b"");
    assert_eq!(got.status, 404, "{got:?}");
    server.assert_alive("uploads");
}

#[test]
fn a_file_that_changes_under_a_reader() {
    for change in ["truncate", "delete", "replace"] {
        let builder = Server::builder().bytes("big.bin", &vec![5; 64 << 20]).allow("big.bin");
        let mut server = builder.start();
        let path = server.library().join("big.bin");
        let mut connection = Connection::open(server.media);
        connection.set_timeout(Duration::from_secs(10));
        connection.send(b"GET /videos/big.bin/file HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        connection.skip(1 << 20).unwrap();
        match change {
            "truncate" => std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 20).unwrap(),
            "delete" => std::fs::remove_file(&path).unwrap(),
            _ => {
                let fresh = path.with_extension("new");
                std::fs::write(&fresh, vec![6; 32 << 20]).unwrap();
                std::fs::rename(&fresh, &path).unwrap();
            }
        }
        let rest = connection.skip(63 << 20);
        assert!(change == "truncate" || rest.is_ok(), "{change}: a reader in flight finishes: {rest:?}");
        server.assert_alive(change);
    }
}

fn boxed(kind: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32 + 8).to_be_bytes().to_vec();
    out.extend_from_slice(kind);
    out.extend_from_slice(payload);
    out
}

fn nested(kinds: &[&[u8; 4]], times: usize) -> Vec<u8> {
    (0..times).fold(Vec::new(), |inner, i| boxed(kinds[i % kinds.len()], &inner))
}

/// Files that are wrong in one place each, made from a good one or from nothing.
fn hostile() -> Vec<(String, Vec<u8>)> {
    let good = std::fs::read(oracle::vector("ntsc_film.mp4")).unwrap();
    let fragmented = std::fs::read(oracle::vector("frag.mp4")).unwrap();
    let transport = std::fs::read(oracle::vector("ndf25.ts")).unwrap();
    let ftyp = boxed(b"ftyp", b"isom\0\0\0\0isom");
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| files.push((name.to_owned(), bytes));
    add("empty.mp4", Vec::new());
    add("ftyp.mp4", ftyp.clone());
    add("zeros.mp4", [&ftyp[..], &[0; 1 << 20]].concat());
    add("ones.mp4", [&ftyp[..], &[0xFF; 1 << 20]].concat());
    for (name, head) in [
        ("size0", &b"\0\0\0\0moov"[..]),
        ("size1", b"\0\0\0\x01moov"),
        ("size7", b"\0\0\0\x07moov"),
        ("large0", b"\0\0\0\x01moov\0\0\0\0\0\0\0\0"),
        ("large15", b"\0\0\0\x01moov\0\0\0\0\0\0\0\x0f"),
        ("large63", b"\0\0\0\x01moov\x80\0\0\0\0\0\0\0"),
        ("large64", b"\0\0\0\x01moov\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"),
    ] {
        add(&format!("{name}.mp4"), [&ftyp[..], head].concat());
        add(&format!("{name}_tail.mp4"), [&ftyp[..], head, &good[ftyp.len()..]].concat());
    }
    add("deep_moov.mp4", [&ftyp[..], &nested(&[b"moov", b"trak", b"mdia", b"minf", b"stbl"], 20_000)].concat());
    add("deep_moof.mp4", [&ftyp[..], &nested(&[b"moof", b"traf"], 20_000)].concat());
    add("deep_meta.mp4", [&ftyp[..], &boxed(b"moov", &nested(&[b"meta", b"udta", b"edts"], 20_000))].concat());
    add("many_boxes.mp4", [&ftyp[..], &boxed(b"free", b"").repeat(100_000)].concat());
    add("many_traks.mp4", [&ftyp[..], &boxed(b"moov", &boxed(b"trak", b"").repeat(100_000))].concat());
    add("many_moofs.mp4", [&fragmented[..], &boxed(b"moof", b"").repeat(100_000)].concat());
    for kind in
        [b"stts", b"ctts", b"stss", b"stsc", b"stsz", b"stco", b"elst", b"mdhd", b"mvhd", b"tkhd", b"stsd", b"hdlr"]
    {
        let Some(at) = good.windows(4).position(|w| w == kind) else { continue };
        let name = String::from_utf8_lossy(kind).into_owned();
        // The count (or first field) after version and flags, and where stsz keeps its count.
        for (label, skip, value) in
            [("count", 8, u32::MAX), ("count31", 8, 1 << 31), ("zero", 8, 0), ("late", 12, u32::MAX)]
        {
            let mut bytes = good.clone();
            bytes[at + skip..at + skip + 4].copy_from_slice(&value.to_be_bytes());
            add(&format!("{name}_{label}.mp4"), bytes);
        }
        let mut bytes = good.clone();
        bytes[at + 4] = 0xFF;
        add(&format!("{name}_version.mp4"), bytes);
        let mut bytes = good.clone();
        bytes[at - 4..at].copy_from_slice(&[0x7F, 0xFF, 0xFF, 0xFF]);
        add(&format!("{name}_size.mp4"), bytes);
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(b"free");
        add(&format!("{name}_missing.mp4"), bytes);
    }
    for kind in [b"trun", b"tfhd", b"tfdt", b"trex", b"mfhd"] {
        let at = fragmented.windows(4).rposition(|w| w == kind).unwrap();
        let name = String::from_utf8_lossy(kind).into_owned();
        for (label, skip) in [("flags", 4), ("first", 8), ("second", 12)] {
            let mut bytes = fragmented.clone();
            bytes[at + skip..at + skip + 4].copy_from_slice(&[0xFF; 4]);
            add(&format!("{name}_{label}.mp4"), bytes);
        }
    }
    for cut in [1, 7, 9, 40, 1000, good.len() / 2, good.len() - 1] {
        add(&format!("cut_{cut}.mp4"), good[..cut].to_vec());
    }
    for cut in [5, 500, 3000, fragmented.len() / 2, fragmented.len() - 5] {
        add(&format!("fragcut_{cut}.mp4"), fragmented[..cut].to_vec());
    }
    add("sync.ts", b"\x47".repeat(1 << 20));
    add("null.ts", [&b"\x47\x1F\xFF\x10"[..], &[0xFF; 184]].concat().repeat(5000));
    add("cut.ts", transport[..1000].to_vec());
    add("no_sync.ts", transport.iter().map(|b| b ^ 0x55).collect());
    let mut lengths = transport.clone();
    for packet in lengths.chunks_mut(188) {
        if packet.len() > 4 && packet[3] & 0x20 != 0 {
            packet[4] = 0xFF; // the adaptation field is longer than the packet
        }
    }
    add("adaptation.ts", lengths);
    add(
        "pat.ts",
        transport.chunks(188).flat_map(|p| p.iter().enumerate().map(|(i, &b)| if i > 4 { 0xFF } else { b })).collect(),
    );
    files
}

#[test]
fn hostile_files() {
    let files = hostile();
    assert!(files.len() > 120, "{} files", files.len());
    let mut builder = Server::builder();
    let mut names = Vec::new();
    for (name, bytes) in files {
        builder = builder.bytes(&name, &bytes);
        names.push((name, bytes));
    }
    let mut server = builder.allow(".mp4").allow(".ts").start();
    for (name, bytes) in &names {
        // One connection each: a server that ends the connection on a bad file would be seen as such.
        let mut connection = Connection::open(server.media);
        let began = Instant::now();
        for rest in [
            "",
            "/seek?frame=0",
            "/seek?frame=999999999",
            "/seek?time=3",
            "/seek?timecode=00:00:01:00",
            "/chunk?frame=3",
            "/chunk?time=1&as=fmp4&duration=1",
            "/chunk?timecode=23:59:56:00&as=fmp4&size=100000",
            "/chunk?offset=0&size=10",
        ] {
            let target = format!("/videos/{name}{rest}");
            let got = connection.call("GET", &target, &[], b"").unwrap_or_else(|e| panic!("{target}: {e}"));
            assert!(matches!(got.status, 200 | 400 | 404 | 422), "{target}: {got:?}");
            assert!(got.complete, "{target}: {got:?}");
            if got.status >= 400 {
                got.problem();
            }
        }
        let limit = Duration::from_secs(1 + bytes.len() as u64 / (1 << 20)) * 2;
        assert!(began.elapsed() < limit, "{name}: {:?} for {} bytes", began.elapsed(), bytes.len());
        let whole = connection.get(&format!("/videos/{name}/file"));
        assert!(whole.status == 200 && whole.body == *bytes, "{name} by bytes: {whole:?}");
    }
    server.assert_alive("hostile files");
    let peak = peak_memory(server.pid());
    println!("{} hostile files, peak memory {} MiB", names.len(), peak >> 20);
    assert_eq!(server.get("/videos/ftyp.mp4/seek?frame=0").status, 422);
}

fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_file_that_arrives_later() {
    let mut server = with_video();
    let path = server.library().join("late.bin");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&[1; 1000]).unwrap();
    drop(file);
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.get("/videos/late.bin").status != 200 {
        assert!(Instant::now() < deadline, "a file that was written and closed is not listed");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::fs::remove_file(&path).unwrap();
    while server.get("/videos/late.bin").status != 404 {
        assert!(Instant::now() < deadline + Duration::from_secs(10), "a file that was deleted is still listed");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.assert_alive("a late file");
}
