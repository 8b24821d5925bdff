//! What the edge does beyond answering well-formed requests: refusals that reach their clients, time limits, the drain,
//! limits of connections and requests, the admin listener, stages in `Server-Timing`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::client::{Connection, Response};
use crate::support::oracle;
use crate::support::server::{Server, WRITE_KEY};

const HOST: &str = "Host: x\r\n";

fn small() -> Server {
    Server::builder().bytes("b.bin", &[7; 1000]).start()
}

fn raw(server: &Server, request: &str) -> Response {
    let mut connection = Connection::open(server.media);
    let _ = connection.send(request.as_bytes());
    connection.read_response(false).unwrap_or_else(|e| panic!("{}: {e}", &request[..request.len().min(60)]))
}

/// Also where no service sees the request, because its head cannot be read.
#[test]
fn every_refusal_is_a_problem() {
    let mut server = small();
    let fields: String = (0..150).map(|n| format!("X-{n}: y\r\n")).collect();
    let get = "GET /videos HTTP/1.1\r\n";
    for (request, status) in [
        (format!("GET /videos/{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(70_000)), 414),
        (format!("GET /videos/{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(20_000)), 414),
        (format!("GET /videos?{} HTTP/1.1\r\n{HOST}\r\n", "a".repeat(40_000)), 431),
        (format!("{get}{HOST}{fields}\r\n"), 431),
        (format!("{get}{HOST}X: {}\r\n\r\n", "y".repeat(40_000)), 431),
        (format!("{get}{HOST}X: {}\r\n\r\n", "y".repeat(1_000_000)), 431),
        (format!("{get}{HOST}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), 400),
        (format!("{get}{HOST}Content-Length: 5, 5\r\n\r\nhello"), 400),
        (format!("{get}{HOST}Transfer-Encoding: gzip\r\n\r\n"), 400),
        (format!("{get}{HOST}Transfer-Encoding: chunked, gzip\r\n\r\n"), 400),
        (format!("{get}Host : x\r\n\r\n"), 400),
        (format!("{get}\r\n"), 400),
        (format!("{get}Host: x\r\nHost: y\r\n\r\n"), 400),
        ("GET /videos HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1}\u{2}\r\n\r\n".to_owned(), 400),
        (format!("CONNECT a:80 HTTP/1.1\r\n{HOST}\r\n"), 501),
    ] {
        let got = raw(&server, &request);
        assert_eq!(got.status, status, "{}: {got:?}", &request[..request.len().min(60)]);
        got.problem();
    }
    let mut old = TcpStream::connect(server.media).unwrap();
    old.write_all(b"GET /videos HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    old.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "HTTP/1.0 has no Host, and ends by closing: {answer}");
    assert_eq!(raw(&server, &format!("OPTIONS * HTTP/1.1\r\n{HOST}\r\n")).status, 204);
    server.assert_alive("heads that cannot be read");
}

/// Length and chunks in one request: the chunks count, and nothing that follows on the connection is taken for a
/// request (RFC 9112 §6.3).
#[test]
fn no_request_is_smuggled() {
    let server = small();
    let mut connection = Connection::open(server.media);
    let request = format!(
        "GET /videos HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n\
         GET /smuggled HTTP/1.1\r\n{HOST}\r\n"
    );
    connection.send(request.as_bytes()).unwrap();
    assert_eq!(connection.read_response(false).unwrap().header("connection"), Some("close"));
    assert!(connection.read_response(false).is_err(), "the rest was answered");
}

/// The client sends all of a large body before it reads: it must get the answer, not a reset.
#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let server = Server::builder().bytes("b.bin", &[7; 1000]).argument("--upload-bytes-max", "1 MiB").start();
    let body = vec![0; 8 << 20];
    let key = format!("Bearer {WRITE_KEY}");
    for (method, target, key, status) in [
        ("PUT", "/videos/a.bin", "Bearer wrong", 401),
        ("PUT", "/videos/a.bin", &*key, 413),
        ("PUT", "/videos/..", &*key, 400),
        ("POST", "/videos/a.bin", &*key, 405),
        ("PUT", "/nowhere", &*key, 404),
        ("DELETE", "/videos/none.bin", &*key, 404),
        ("GET", "/videos/b.bin", &*key, 200),
    ] {
        let mut connection = Connection::open(server.media);
        let head = format!(
            "{method} {target} HTTP/1.1\r\n{HOST}Authorization: {key}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.send(head.as_bytes()).unwrap();
        connection.send(&body).unwrap_or_else(|e| panic!("{method} {target}: reset while sending: {e}"));
        let got = connection.read_response(false).unwrap_or_else(|e| panic!("{method} {target}: {e}"));
        assert_eq!(got.status, status, "{method} {target}: {got:?}");
        assert_eq!(got.header("connection"), Some("close"), "{method} {target}: {got:?}");
    }
    // A body that was taken leaves the connection as it was.
    let mut connection = Connection::open(server.media);
    for _ in 0..2 {
        let got = connection.call("PUT", "/videos/c.bin", &[("Authorization", &key)], b"data").unwrap();
        assert!(matches!(got.status, 200 | 201), "{got:?}");
    }
}

#[test]
fn one_connection_too_many_is_told_so() {
    let server = Server::builder().bytes("b.bin", &[7; 1000]).argument("--connections-max", "3").start();
    let mut held: Vec<Connection> = (0..3).map(|_| Connection::open(server.media)).collect();
    for connection in &mut held {
        assert_eq!(connection.get("/videos").status, 200);
    }
    for _ in 0..20 {
        let got = server.get("/videos");
        assert_eq!((got.status, got.header("retry-after")), (503, Some("5")), "{got:?}");
        got.problem();
    }
    held.pop();
    let deadline = Instant::now() + Duration::from_secs(5);
    while server.get("/videos").status == 503 {
        assert!(Instant::now() < deadline, "a place that was left is not given again");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Seconds until the server closes the connection, having been sent `first` and then `more` every 100 ms.
fn held_for(server: &Server, first: &str, more: &str) -> f64 {
    let mut socket = TcpStream::connect(server.media).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket.write_all(first.as_bytes()).unwrap();
    let began = Instant::now();
    let mut last = began;
    loop {
        match socket.read(&mut [0; 4096]) {
            Ok(0) => return last.elapsed().as_secs_f64(),
            // The time is counted from the last answer.
            Ok(_) => last = Instant::now(),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                let _ = socket.write_all(more.as_bytes());
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return last.elapsed().as_secs_f64(),
        }
        assert!(began.elapsed() < Duration::from_secs(20), "never closed");
    }
}

#[test]
fn time_limits_hold() {
    let server = Server::builder()
        .bytes("b.bin", &[7; 1000])
        .argument("--idle-time", "3 s")
        .argument("--head-time", "1 s")
        .argument("--stall-limit", "2 s")
        .start();
    let get = format!("GET /videos/b.bin/file HTTP/1.1\r\n{HOST}");
    let put =
        format!("PUT /videos/n.bin HTTP/1.1\r\n{HOST}Authorization: Bearer {WRITE_KEY}\r\nContent-Length: 9\r\n\r\n");
    for (what, first, more, limit) in [
        ("nothing sent", String::new(), "", 3.0),
        ("idle after an answer", format!("{get}\r\n"), "", 3.0),
        ("half a head", get.clone(), "", 1.0),
        ("a head that never ends", get.clone(), "X: y\r\n", 1.0),
    ] {
        let held = held_for(&server, &first, more);
        assert!((limit - 0.3..limit + 1.5).contains(&held), "{what}: {held} s instead of {limit}");
    }
    let began = Instant::now();
    let got = raw(&server, &format!("{put}half"));
    assert_eq!(got.status, 408, "{got:?}");
    got.problem();
    assert!((1.7..4.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
}

#[test]
fn a_viewer_that_takes_nothing_is_dropped() {
    let builder = Server::builder().argument("--stall-limit", "1 s");
    std::fs::File::create(builder.library().join("large.bin")).unwrap().set_len(256 << 20).unwrap();
    let server = builder.start();
    let mut connection = Connection::open(server.media);
    connection.send(format!("GET /videos/large.bin/file HTTP/1.1\r\n{HOST}\r\n").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(server.metric("weir_connections_stalled_total"), 1.0);
    assert!(connection.skip(256 << 20).is_err(), "the response was finished all the same");
}

#[test]
fn requests_per_second_of_one_address() {
    let server = Server::builder().bytes("b.bin", &[7; 10]).argument("--peer-requests-per-second", "2").start();
    let answers: Vec<Response> = (0..12).map(|_| server.get("/videos/b.bin")).collect();
    let refused: Vec<_> = answers.iter().filter(|got| got.status == 429).collect();
    assert!(refused.len() >= 6, "12 requests at once, 4 to 6 of them allowed");
    for got in refused {
        assert!(got.header("retry-after").is_some() && got.problem().contains("2 requests per second"), "{got:?}");
        assert_eq!(got.header("access-control-allow-origin"), Some("*"), "a page must be able to read it");
    }
    assert_eq!(server.admin_get("/healthz").status, 200, "the admin listener is not limited");
}

#[test]
fn the_drain_finishes_what_is_in_flight() {
    let builder = Server::builder().bytes("b.bin", &[7; 1000]).argument("--drain-limit", "20 s");
    std::fs::File::create(builder.library().join("large.bin")).unwrap().set_len(64 << 20).unwrap();
    let mut server = builder.start();
    let (mut silent, mut idle) = (Connection::open(server.media), Connection::open(server.media));
    idle.get("/videos");
    let mut viewer = Connection::open(server.media);
    viewer.send(format!("GET /videos/large.bin/file HTTP/1.1\r\n{HOST}\r\n").as_bytes()).unwrap();
    viewer.skip(1000).unwrap();
    let mut uploader = Connection::open(server.media);
    let put =
        format!("PUT /videos/n.bin HTTP/1.1\r\n{HOST}Authorization: Bearer {WRITE_KEY}\r\nContent-Length: 8\r\n\r\n");
    uploader.send(format!("{put}half").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(server.admin_get("/readyz").status, 200);

    server.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    let ready = server.admin_get("/readyz");
    assert_eq!((ready.status, ready.header("retry-after").is_some()), (503, true), "{ready:?}");
    assert_eq!(server.admin_get("/healthz").status, 200);
    assert!(silent.is_closed_by_peer() && idle.is_closed_by_peer(), "idle connections are closed at once");
    assert!(TcpStream::connect(server.media).is_err(), "new connections are refused");
    uploader.send(b"half").unwrap();
    assert_eq!(uploader.read_response(false).unwrap().status, 201);
    // The rest of head and body, up to the end of the connection.
    viewer.skip((64 << 20) - 1000).unwrap();
    let status = server.wait(Duration::from_secs(10)).expect("ends when the last response does, not at the limit");
    assert_eq!(status.code(), Some(0));
    assert_eq!(std::fs::read(server.library().join("n.bin")).unwrap(), b"halfhalf");
}

#[test]
fn the_drain_ends_at_its_limit() {
    let builder = Server::builder().argument("--drain-limit", "1 s");
    std::fs::File::create(builder.library().join("large.bin")).unwrap().set_len(256 << 20).unwrap();
    let mut server = builder.start();
    let mut viewer = Connection::open(server.media);
    viewer.send(format!("GET /videos/large.bin/file HTTP/1.1\r\n{HOST}\r\n").as_bytes()).unwrap();
    viewer.skip(1000).unwrap();
    let began = Instant::now();
    server.signal("TERM");
    let status = server.wait(Duration::from_secs(10)).expect("ends at its limit");
    assert_eq!(status.code(), Some(0));
    assert!((0.8..4.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
}

#[test]
fn the_admin_listener_asks_for_its_token() {
    let server = Server::builder().argument("--admin-token", "sesame").start();
    let ask = |target: &str, headers: &[(&str, &str)]| {
        crate::support::client::request(server.admin, "GET", target, headers, b"")
    };
    for target in ["/healthz", "/readyz"] {
        assert_eq!(ask(target, &[]).status, 200, "{target}");
    }
    for target in ["/metrics", "/", "/debug/", "/nothing"] {
        for headers in [vec![], vec![("Authorization", "Bearer wrong")], vec![("Authorization", "sesame")]] {
            let got = ask(target, &headers);
            assert_eq!(got.status, 401, "{target}: {got:?}");
        }
    }
    assert_eq!(ask("/metrics", &[("Authorization", "Bearer sesame")]).status, 200);
    assert_eq!(ask("/metrics", &[("Authorization", "Basic eDpzZXNhbWU=")]).status, 200, "x:sesame");
    assert_eq!(ask("/nothing", &[("Authorization", "Bearer sesame")]).status, 404);
    // Refused while a large body is on its way.
    let mut connection = Connection::open(server.admin);
    let body = vec![0; 8 << 20];
    connection.send(format!("POST /x HTTP/1.1\r\n{HOST}Content-Length: {}\r\n\r\n", body.len()).as_bytes()).unwrap();
    connection.send(&body).expect("no reset while sending");
    assert_eq!(connection.read_response(false).unwrap().status, 401);
}

#[test]
fn server_timing_names_the_stages() {
    let video = oracle::vector("df2997.mp4");
    let server = Server::builder().video(&video, "a.mp4").argument("--server-timing", "true").start();
    for (target, stages) in [
        ("/videos/a.mp4/file", &["head", "route", "lookup", "open", "total"][..]),
        ("/videos/a.mp4/chunk?frame=30", &["head", "route", "lookup", "open", "resolve", "total"]),
        (
            "/videos/a.mp4/chunk?frame=30&duration=1&as=fmp4",
            &["head", "route", "lookup", "open", "resolve", "slice", "total"],
        ),
        (
            "/videos/a.mp4/frame.jpg?frame=3&width=64",
            &["head", "route", "lookup", "open", "resolve", "render", "total"],
        ),
        ("/", &["head", "route", "render", "total"]),
        ("/videos", &["head", "route", "render", "total"]),
        ("/videos/none.mp4", &["head", "route", "lookup", "total"]),
    ] {
        let got = server.get(target);
        let text = got.header("server-timing").unwrap_or_else(|| panic!("{target}: {got:?}"));
        let named: Vec<&str> = text.split(", ").map(|stage| stage.split(";dur=").next().unwrap()).collect();
        assert_eq!(named, stages, "{target}: {text}");
        for stage in text.split(", ") {
            let ms: f64 = stage.split(";dur=").nth(1).unwrap().parse().unwrap();
            assert!((0.0..10_000.0).contains(&ms), "{target}: {text}");
        }
    }
    drop(server);
    let server = Server::builder().video(&video, "a.mp4").start();
    assert_eq!(server.get("/videos/a.mp4/file").header("server-timing"), None);
}

#[test]
fn the_request_log_is_json_on_request_and_says_what_was_sent() {
    let mut server = Server::builder()
        .bytes("b.bin", &[7; 1000])
        .argument("--log-format", "json")
        .argument("--log", "warn,weir::request=info")
        .start();
    server.get("/videos/b.bin/file");
    server.request("HEAD", "/videos/b.bin/file", &[], b"");
    let id = server.get("/nothing").header("request-id").unwrap().to_owned();
    server.terminate();
    let log = server.log();
    let lines: Vec<serde_json::Value> =
        log.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(lines.len(), 3, "the levels leave only requests: {log}");
    for (line, (method, status, bytes)) in lines.iter().zip([("GET", 200, 1000), ("HEAD", 200, 0), ("GET", 404, 122)]) {
        assert_eq!(line["target"], "weir::request");
        assert_eq!((line["method"].as_str(), line["status"].as_u64()), (Some(method), Some(status)), "{line}");
        assert!(status == 404 || line["bytes"] == bytes, "{line}");
        assert_eq!(line["complete"], true, "{line}");
    }
    assert_eq!(lines[2]["id"], id.as_str());
}

#[test]
fn one_port_has_one_server() {
    let server = small();
    let dir = tempfile::tempdir().unwrap();
    for (listen, admin) in
        [(server.media.to_string(), "127.0.0.1:0".to_owned()), ("127.0.0.1:0".to_owned(), server.admin.to_string())]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["serve", "--listen", &listen, "--admin", &admin, "--library"])
            .arg(dir.path())
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("Address already in use") && text.contains("cannot listen on"), "{text}");
    }
}
