//! PUT and DELETE as the contract says: keys, parts in any order, uploads that stop or lie, and nothing visible before
//! it is whole.

use std::time::Duration;

use crate::support::client::{Connection, Response};
use crate::support::server::{Server, WRITE_KEY};

fn with_video() -> Server {
    // Whoever replaces a video while it is indexed makes the entry stale, and is told so.
    Server::builder().bytes("b.bin", &[7; 1000]).allow("index cache entry is stale").start()
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

/// `curl -X PUT` without `-T` or `-d` sends neither a length nor chunks; with `-d ''` it says that the body is empty.
#[test]
fn a_put_without_a_body_makes_no_video() {
    let server = with_video();
    let url = |id: &str| format!("http://{}/videos/{id}", server.media);
    let curl = |arguments: &[&str]| {
        let key = format!("Authorization: Bearer {WRITE_KEY}");
        let fixed = ["-s", "-X", "PUT", "-o", "/dev/null", "-w", "%{http_code}", "-H", &key];
        let output = std::process::Command::new("curl").args(fixed).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl(&[&url("none.bin")]), "411");
    assert_eq!(curl(&["-H", "Content-Range: bytes 0-4/10", &url("none.bin")]), "411");
    assert_eq!(server.get("/videos/none.bin").status, 404);
    assert_eq!(curl(&["-d", "", &url("empty.bin")]), "201");
    assert_eq!(curl(&["-H", "Transfer-Encoding: chunked", "-T", "/dev/null", &url("chunked.bin")]), "201");
    assert_eq!(server.get("/videos/empty.bin/file").body, b"");
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

/// ffmpeg sends its last chunk and closes, without waiting for the answer: what arrived whole is kept.
#[test]
fn an_upload_from_ffmpeg_is_kept() {
    let mut server = with_video();
    for (format, key) in
        [("mpegts", format!("x:{WRITE_KEY}@")), ("mpegts", String::new()), ("mp4", format!("x:{WRITE_KEY}@"))]
    {
        let id = if key.is_empty() { "by-header".to_owned() } else { format!("up.{format}") };
        let mut command = std::process::Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-i"]).arg(crate::support::oracle::vector("df2997.mp4"));
        command.args(["-c", "copy", "-f", format, "-movflags", "frag_keyframe+empty_moov", "-method", "PUT"]);
        if key.is_empty() {
            command.args(["-headers", &format!("Authorization: Bearer {WRITE_KEY}\r\n")]);
        }
        let status = command.arg(format!("http://{key}{}/videos/{id}", server.media)).status().unwrap();
        assert!(status.success(), "{id}");
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while server.get(&format!("/videos/{id}")).status != 200 {
            assert!(std::time::Instant::now() < deadline, "{id} was not kept");
            std::thread::sleep(Duration::from_millis(20));
        }
        let size = server.get(&format!("/videos/{id}/file")).body.len();
        assert!(size > 2_000_000, "{id}: {size} bytes");
    }
    // Cut inside its body, it is not kept, however it is cut.
    let mut connection = Connection::open(server.media);
    let head = format!(
        "PUT /videos/cut.ts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {WRITE_KEY}\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n"
    );
    connection.send(head.as_bytes()).unwrap();
    drop(connection);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.get("/videos/cut.ts").status, 404);
    server.assert_alive("uploads from ffmpeg");
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
