//! The library under the server's feet: files that arrive, shrink, vanish or are replaced, also while they are read.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::client::Connection;
use crate::support::server::Server;

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

#[test]
fn a_file_that_arrives_later() {
    let mut server = Server::builder().bytes("b.bin", &[7; 1000]).start();
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
