//! Invariant 1 over the wire: what the server says it copied in user space is the heads it sent, and no media byte.

use crate::support::client::Connection;
use crate::support::server::Server;

const LENGTH: u64 = 256 << 20;
const TO_SEND: u64 = 1 << 30;
const SIZES: [u64; 6] = [4 << 10, 256 << 10, 1 << 20, 20 << 20, 3, 64 << 20];

/// The file's byte at an offset: cheap to compute on both sides, different in every page.
fn fill(offset: u64, block: &mut [u8]) {
    for (i, word) in block.chunks_mut(8).enumerate() {
        let value = (offset / 8 + i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        word.copy_from_slice(&value[..word.len()]);
    }
}

fn assert_bytes(body: &[u8], offset: u64) {
    // Whole words inside the body; a shift by one byte already fails here.
    let first = offset.next_multiple_of(8);
    let mut expected = vec![0; 8];
    for at in (first..(offset + body.len() as u64).saturating_sub(8)).step_by(4096) {
        fill(at, &mut expected);
        let here = (at - offset) as usize;
        assert!(body[here..here + 8] == expected[..], "other bytes at {at}");
    }
}

#[test]
fn a_gibibyte_is_sent_without_a_copy() {
    let builder = Server::builder();
    let mut block = vec![0; 1 << 20];
    let file = std::fs::File::create(builder.library().join("big.bin")).unwrap();
    for offset in (0..LENGTH).step_by(block.len()) {
        fill(offset, &mut block);
        std::io::Write::write_all(&mut &file, &block).unwrap();
    }
    drop(file);
    let server = builder.start();
    let mut connection = Connection::open(server.media);
    // The first request opens and maps the file; what it may copy for that is not the matter here.
    connection.get("/videos/big.bin/chunk?offset=0&size=1");
    let (sent_before, copied_before) = (counter(&server, "sent"), counter(&server, "copied"));

    let (mut bodies, mut heads, mut step) = (0, 0, 0_u64);
    while bodies < TO_SEND {
        let size = SIZES[step as usize % SIZES.len()];
        let offset = step.wrapping_mul(0x2545_F491_4F6C_DD1D) % (LENGTH - size);
        let response = if step.is_multiple_of(2) {
            let range = format!("bytes={offset}-{}", offset + size - 1);
            connection.call("GET", "/videos/big.bin/file", &[("Range", &range)], b"").unwrap()
        } else {
            connection.get(&format!("/videos/big.bin/chunk?offset={offset}&size={size}"))
        };
        assert!(matches!(response.status, 200 | 206) && response.complete, "{response:?}");
        assert_eq!(response.body.len() as u64, size);
        assert_bytes(&response.body, offset);
        bodies += size;
        heads += response.head_bytes as u64;
        step += 1;
    }

    let sent = counter(&server, "sent") - sent_before;
    let copied = counter(&server, "copied") - copied_before;
    assert_eq!(sent, bodies + heads, "weir_bytes_sent_total against what the client received");
    assert_eq!(copied, heads, "weir_bytes_copied_total against the heads that the client received");
    assert!(copied * 100 < sent);
    println!("{sent} bytes sent in {step} responses, {copied} copied");
}

/// The metrics may be a moment behind the socket.
fn counter(server: &Server, what: &str) -> u64 {
    let name = format!("weir_bytes_{what}_total");
    let mut last = server.metric(&name) as u64;
    for _ in 0..50 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let now = server.metric(&name) as u64;
        if now == last {
            break;
        }
        last = now;
    }
    last
}
