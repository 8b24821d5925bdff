//! Connections over time: idle ones give their buffers back and still serve, time limits close, a drain ends.

use crate::support::client::Connection;
use crate::support::server::Server;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longer than a connection keeps its buffers while nothing comes.
const PAUSE: Duration = Duration::from_millis(400);
const REQUEST: &[u8] = b"GET /videos/a.bin/file HTTP/1.1\r\nHost: x\r\nRange: bytes=2-4\r\n\r\n";

fn server(idle: &str) -> Server {
    Server::builder().bytes("a.bin", b"0123456789").argument("--idle-time", idle).argument("--head-time", "1 s").start()
}

#[test]
fn an_idle_connection_serves_again_and_again() {
    let server = server("60 s");
    let mut connection = Connection::open(server.media);
    sleep(PAUSE);
    for _ in 0..3 {
        let response = connection.call("GET", "/videos/a.bin/file", &[("Range", "bytes=2-4")], b"").unwrap();
        assert_eq!((response.status, &response.body[..]), (206, &b"234"[..]));
        sleep(PAUSE);
    }
}

/// What came behind a request, cut off within the next one's head, is not lost over a pause.
#[test]
fn half_a_pipelined_head_survives_a_pause() {
    let server = server("60 s");
    for cut in [1, 10, REQUEST.len() - 1] {
        let mut connection = Connection::open(server.media);
        connection.send(&[REQUEST, &REQUEST[..cut]].concat()).unwrap();
        assert_eq!(connection.read_response(false).unwrap().body, b"234");
        sleep(PAUSE);
        connection.send(&REQUEST[cut..]).unwrap();
        assert_eq!(connection.read_response(false).unwrap().body, b"234", "cut at {cut}");
    }
}

#[test]
fn the_idle_limit_counts_from_the_last_answer() {
    let server = server("1 s");
    for requests in [0, 1] {
        let mut connection = Connection::open(server.media);
        for _ in 0..requests {
            connection.get("/videos/a.bin/file");
        }
        let began = Instant::now();
        assert!(connection.is_closed_by_peer());
        let took = began.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&took), "{requests}: {took:?}");
    }
}

#[test]
fn a_head_that_does_not_end_is_cut_at_its_limit() {
    let server = server("60 s");
    let mut connection = Connection::open(server.media);
    sleep(PAUSE);
    connection.send(&REQUEST[..20]).unwrap();
    let began = Instant::now();
    assert!(connection.is_closed_by_peer());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}
