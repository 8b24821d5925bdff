//! Fragmented MP4 that arrives in pieces: divided and joined fragments are whole boxes, and no byte of media is there
//! that was not sent.
//!
//! The first byte says how the input is cut into buffers.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use weir_fuzz::media::cadence::Targets;
use weir_fuzz::media::mp4::arrival::{Arrival, Event};

const TARGETS: Targets = Targets { part_us: 500_000, segment_us: 4_000_000 };

fuzz_target!(|data: &[u8]| {
    let Some((&step, bytes)) = data.split_first() else { return };
    let mut arrival = Arrival::new(TARGETS);
    let (mut events, mut received) = (Vec::new(), 0_u64);
    for piece in bytes.chunks(usize::from(step).max(1) * 7) {
        received += piece.len() as u64;
        if arrival.push(Bytes::copy_from_slice(piece), &mut events).is_err() {
            break;
        }
    }
    let mut sent = 0;
    for event in events {
        let Event::Fragment(fragment) = event else { continue };
        let whole: Vec<u8> = fragment.rope.iter().flat_map(|piece| piece.iter().copied()).collect();
        assert_eq!(whole.len() as u64, fragment.len);
        let size = |at: usize| u32::from_be_bytes([whole[at], whole[at + 1], whole[at + 2], whole[at + 3]]) as usize;
        // With 32-bit sizes, as everything is that is written here.
        if size(0) > 1 {
            assert_eq!(&whole[4..8], b"moof");
            assert_eq!(&whole[size(0) + 4..size(0) + 8], b"mdat");
            if size(size(0)) > 1 {
                assert_eq!(size(0) + size(size(0)), whole.len());
                sent += whole.len() as u64 - size(0) as u64 - 8;
            }
        }
    }
    assert!(sent <= received, "{sent} bytes of {received}");
});
