//! A run of bytes that lies in several buffers: cut and patched without joining it.
//!
//! PURE. Must not know what the bytes mean, but for [`Marker`], which knows packet headers.

use super::packet::PACKET;
use bytes::{Bytes, BytesMut};

#[derive(Clone, Debug, Default)]
pub struct Rope {
    pieces: Vec<Bytes>,
    len: u64,
}

impl Rope {
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len() as u64;
            self.pieces.push(piece);
        }
    }

    pub fn append(&mut self, other: Self) {
        self.len += other.len;
        self.pieces.extend(other.pieces);
    }

    pub fn of(pieces: Vec<Bytes>) -> Self {
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces, len }
    }

    pub fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }

    /// Takes away what lies at and behind `at`.
    pub fn split_off(&mut self, at: u64) -> Self {
        let mut kept = 0;
        let Some(first) = self.pieces.iter().position(|piece| {
            let ends_behind = kept + piece.len() as u64 > at;
            kept += if ends_behind { 0 } else { piece.len() as u64 };
            ends_behind
        }) else {
            return Self::default();
        };
        let mut tail = self.pieces.split_off(first);
        // Less than the length of that piece.
        let front = tail[0].split_to((at - kept) as usize);
        let taken = self.len - at;
        if !front.is_empty() {
            self.pieces.push(front);
        }
        self.len = at;
        Self { pieces: tail, len: taken }
    }

    /// Where each whole packet begins, and its first six bytes.
    fn heads(&self) -> impl Iterator<Item = (u64, [u8; 6])> + '_ {
        let (mut piece, mut offset) = (0, 0);
        (0..self.len / PACKET as u64).map(move |n| {
            while self.pieces.get(piece).is_some_and(|p| offset >= p.len()) {
                offset -= self.pieces[piece].len();
                piece += 1;
            }
            let behind = self.pieces.get(piece + 1..).unwrap_or_default().iter().flat_map(|p| p.iter());
            let here = self.pieces.get(piece).and_then(|p| p.get(offset..)).unwrap_or_default();
            let mut head = [0; 6];
            head.iter_mut().zip(here.iter().chain(behind)).for_each(|(to, from)| *to = *from);
            offset += PACKET;
            (n * PACKET as u64, head)
        })
    }
}

/// Marks each stream of a program where it occurs first behind a gap.
#[derive(Default)]
pub struct Marker {
    unmarked: Vec<u16>,
    /// For how many parts more they are looked for.
    patience: u32,
}

impl Marker {
    pub fn new(pids: Vec<u16>) -> Self {
        /// Parts in which streams that send seldom are looked for.
        const PATIENCE: u32 = 20;
        Self { unmarked: pids, patience: PATIENCE }
    }

    /// Whether there is nothing more to mark.
    pub fn is_done(&self) -> bool {
        self.patience == 0 || self.unmarked.is_empty()
    }

    /// Marks what occurs in a part; gives the bytes that were written.
    pub fn mark(&mut self, rope: &mut Rope) -> u64 {
        if self.is_done() {
            return 0;
        }
        self.patience -= 1;
        mark_discontinuity(rope, &mut self.unmarked)
    }
}

/// Sets `discontinuity_indicator` (ISO/IEC 13818-1 §2.4.3.5) where each of `pids` occurs first in a rope of whole
/// packets, and takes it off the list. A packet with an adaptation field is replaced by a changed copy; in front of one
/// without, a packet is put that has nothing else. Gives the bytes that were written.
fn mark_discontinuity(rope: &mut Rope, pids: &mut Vec<u16>) -> u64 {
    let mut found = Vec::new();
    for (at, head) in rope.heads() {
        if pids.is_empty() {
            break;
        }
        let pid = u16::from(head[1] & 0x1f) << 8 | u16::from(head[2]);
        if let Some(place) = pids.iter().position(|p| *p == pid) {
            pids.swap_remove(place);
            found.push((at, head, pid));
        }
    }
    for (at, head, pid) in found.iter().rev() {
        let mut rest = rope.split_off(*at);
        if head[3] & 0x20 != 0 && head[4] > 0 {
            let behind = rest.split_off(PACKET as u64);
            let mut copy = BytesMut::with_capacity(PACKET);
            rest.pieces.iter().for_each(|piece| copy.extend_from_slice(piece));
            if let Some(flags) = copy.get_mut(5) {
                *flags |= 0x80;
            }
            rope.push(copy.freeze());
            rope.append(behind);
        } else {
            rope.push(Bytes::copy_from_slice(&bare_discontinuity(*pid, head[3])));
            rope.append(rest);
        }
    }
    (found.len() * PACKET) as u64
}

/// A packet with an adaptation field and no payload. Its counter is that of the packet before the one with `control`.
fn bare_discontinuity(pid: u16, control: u8) -> [u8; PACKET] {
    let mut packet = [0xff; PACKET];
    let [high, low] = pid.to_be_bytes();
    let has_payload = control >> 4 & 1;
    let counter = (control & 0x0f).wrapping_sub(has_payload) & 0x0f;
    packet[..6].copy_from_slice(&[super::packet::SYNC, high, low, 0x20 | counter, (PACKET - 5) as u8, 0x80]);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(rope: &Rope) -> Vec<u8> {
        rope.pieces.iter().flat_map(|piece| piece.to_vec()).collect()
    }

    fn rope_of(data: &[u8], step: usize) -> Rope {
        let mut rope = Rope::default();
        data.chunks(step).for_each(|piece| rope.push(Bytes::copy_from_slice(piece)));
        rope
    }

    #[test]
    fn cut_anywhere() {
        let data: Vec<u8> = (0..50).collect();
        for step in [1, 7, 50] {
            for at in 0..=50 {
                let mut rope = rope_of(&data, step);
                let tail = rope.split_off(at as u64);
                assert_eq!((joined(&rope), joined(&tail)), (data[..at].to_vec(), data[at..].to_vec()));
                assert_eq!((rope.len(), tail.len()), (at as u64, 50 - at as u64));
            }
        }
    }

    #[test]
    fn the_first_packet_of_each_pid_is_marked() {
        let packet = |pid: u8, control: u8, adaptation: u8| {
            let mut packet = [0x11; PACKET];
            packet[..6].copy_from_slice(&[0x47, 0x01, pid, control, adaptation, 0x40]);
            packet
        };
        // 0x100 with an adaptation field (counter 5), 0x101 without one (counter 0), then both again.
        let data = [packet(0, 0x35, 7), packet(1, 0x10, 0), packet(0, 0x36, 7), packet(1, 0x11, 0)].concat();
        for step in [1, 100, 188, 1000] {
            let mut rope = rope_of(&data, step);
            let mut pids = vec![0x101, 0x100, 0x102];
            assert_eq!(mark_discontinuity(&mut rope, &mut pids), 376);
            assert_eq!(pids, [0x102]);
            let out = joined(&rope);
            assert_eq!((out.len(), rope.len()), (5 * PACKET, 5 * PACKET as u64));
            assert_eq!(out[..6], [0x47, 0x01, 0x00, 0x35, 7, 0xc0]);
            assert_eq!(out[6..188], data[6..188]);
            // The counter of a packet without payload does not advance: 15 before 0.
            assert_eq!(out[188..195], [0x47, 0x01, 0x01, 0x2f, 183, 0x80, 0xff]);
            assert_eq!(out[376..], data[188..]);
        }
    }
}
