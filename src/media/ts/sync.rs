//! Walks a file packet by packet: bounded buffer, large reads, resynchronisation.
//!
//! Must not know what packets contain beyond their sync byte.

use super::packet::{PACKET, PacketSize, SYNC, sync_run};
use crate::media::ReadAt;
use std::io;
use std::ops::ControlFlow;

/// Bytes per read.
const READ: usize = 1 << 20;
/// Sync bytes in a row that end a search, unless the file ends before.
const RESYNC_RUN: usize = 4;
/// Bytes behind a position that must be in the buffer to judge it.
const LOOKAHEAD: usize = (RESYNC_RUN + 1) * 192;

/// Calls `each` with the offset of every packet (prefix included) and its 188 bytes, in file order, until it breaks.
///
/// A packet whose successor is not in sync is dropped if another packet starts inside of it (the file was cut and
/// continued there); otherwise it counts, and the search goes on behind it.
pub fn for_each_packet(
    src: &dyn ReadAt,
    size: PacketSize,
    start: u64,
    mut each: impl FnMut(u64, &[u8; PACKET]) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut window = Window { buf: vec![0; READ + LOOKAHEAD], base: start, filled: 0, eof: false };
    let (mut at, mut lost) = (0, false);
    loop {
        at = window.refill(src, at)?;
        let limit = if window.eof { window.filled } else { window.filled - LOOKAHEAD.min(window.filled) };
        while at < limit {
            if lost {
                (at, lost) = match window.search(at, limit, size) {
                    Some(found) => (found, false),
                    None => (limit, true),
                };
                continue;
            }
            let Some(bytes) = window.packet(at, size) else {
                at = window.filled;
                break;
            };
            let mut next = at + size.stride();
            let follows = window.buf[..window.filled].get(next + size.prefix()).is_none_or(|&b| b == SYNC);
            let mut whole = bytes[0] == SYNC;
            if !follows || !whole {
                let found = window.search(at + 1, limit, size);
                whole &= found.is_none_or(|found| found >= next);
                lost = found.is_none();
                next = found.unwrap_or(limit.max(next));
            }
            if whole && each(window.base + at as u64, bytes).is_break() {
                return Ok(());
            }
            at = next;
        }
        if window.eof && at >= limit {
            return Ok(());
        }
    }
}

struct Window {
    buf: Vec<u8>,
    /// File offset of the first byte in the buffer.
    base: u64,
    filled: usize,
    eof: bool,
}

impl Window {
    /// Drops what lies before `at`, reads on, and returns the new position of `at`.
    fn refill(&mut self, src: &dyn ReadAt, at: usize) -> io::Result<usize> {
        let kept = at.min(self.filled);
        self.buf.copy_within(kept..self.filled, 0);
        self.base += kept as u64;
        self.filled -= kept;
        while self.filled < self.buf.len() && !self.eof {
            let n = src.read_at(self.base + self.filled as u64, &mut self.buf[self.filled..])?;
            self.filled += n;
            self.eof = n == 0;
        }
        Ok(at - kept)
    }

    fn packet(&self, at: usize, size: PacketSize) -> Option<&[u8; PACKET]> {
        let start = at + size.prefix();
        self.buf[..self.filled].get(start..start + PACKET)?.try_into().ok()
    }

    /// The first packet start at or after `from`, and before `limit`.
    fn search(&self, from: usize, limit: usize, size: PacketSize) -> Option<usize> {
        let data = &self.buf[..self.filled];
        (from..limit).find(|&at| {
            let sync = at + size.prefix();
            data.get(sync) == Some(&SYNC) && {
                let room = data.len().saturating_sub(sync).div_ceil(size.stride());
                let run = sync_run(data, sync, size.stride(), RESYNC_RUN);
                run == RESYNC_RUN || (self.eof && run == room && sync + PACKET <= data.len())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::ts::Memory;

    fn packets(range: std::ops::Range<u8>) -> Vec<u8> {
        range.flat_map(|n| [vec![SYNC, 0x1f, 0xff, 0x10, n], vec![0; PACKET - 5]].concat()).collect()
    }

    fn walk(data: &[u8]) -> Vec<(u64, u8)> {
        let mut seen = Vec::new();
        for_each_packet(&Memory(data.to_vec()), PacketSize::Ts188, 0, |offset, bytes| {
            seen.push((offset, bytes[4]));
            ControlFlow::Continue(())
        })
        .expect("memory");
        seen
    }

    #[test]
    fn a_cut_packet_is_dropped_and_the_next_file_kept() {
        let mut data = packets(0..10);
        data.truncate(9 * PACKET + 100);
        data.extend(packets(20..30));
        let seen: Vec<u8> = walk(&data).iter().map(|p| p.1).collect();
        assert_eq!(seen, (0..9).chain(20..30).collect::<Vec<u8>>());
    }

    #[test]
    fn garbage_between_packets_is_skipped() {
        let mut data = packets(0..10);
        data.extend([1; 77]);
        data.extend(packets(10..20));
        let seen = walk(&data);
        assert_eq!(seen.len(), 20);
        assert_eq!(seen[10], (10 * 188 + 77, 10));
    }

    #[test]
    fn a_damaged_sync_byte_costs_one_packet() {
        let mut data = packets(0..20);
        data[5 * PACKET] = 0;
        assert_eq!(walk(&data).len(), 19);
    }

    #[test]
    fn a_truncated_tail_is_tolerated() {
        let mut data = packets(0..7);
        data.truncate(6 * PACKET + 3);
        assert_eq!(walk(&data).len(), 6);
    }

    #[test]
    fn garbage_longer_than_the_buffer() {
        let mut data = packets(0..5);
        data.extend(vec![0; 3 * READ]);
        data.extend(packets(5..12));
        assert_eq!(walk(&data).len(), 12);
    }
}
