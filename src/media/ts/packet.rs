//! One transport packet: sizes, sync, header and adaptation field (ISO/IEC 13818-1 §2.4.3).
//!
//! Pure functions of bytes. Must not know what a PID carries, nor where packets come from.

use crate::media::ReadAt;

/// `sync_byte` of every packet.
pub const SYNC: u8 = 0x47;
/// Bytes of a transport packet without prefix.
pub const PACKET: usize = 188;
/// Bytes that may precede the first packet of a file.
const GARBAGE_MAX: usize = 64 * 1024;
/// Sync bytes in a row that make a stream.
const SYNC_RUN: usize = 5;

/// How packets follow each other in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketSize {
    /// Plain transport packets.
    Ts188,
    /// M2TS: each packet is preceded by four bytes of copy permission and arrival time.
    M2ts192,
}

impl PacketSize {
    /// Distance of two packet starts in bytes.
    pub fn stride(self) -> usize {
        self.prefix() + PACKET
    }

    /// Bytes before the sync byte.
    pub fn prefix(self) -> usize {
        match self {
            PacketSize::Ts188 => 0,
            PacketSize::M2ts192 => 4,
        }
    }
}

/// Tells whether `src` is MPEG-TS, and with which packet size.
pub fn sniff(src: &dyn ReadAt) -> Option<PacketSize> {
    sniff_start(src).map(|(size, _)| size)
}

/// Packet size and offset of the first packet (its prefix included).
pub fn sniff_start(src: &dyn ReadAt) -> Option<(PacketSize, u64)> {
    let mut head = vec![0; GARBAGE_MAX + SYNC_RUN * 192 + 4];
    let mut filled = 0;
    while filled < head.len() {
        match src.read_at(filled as u64, &mut head[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(_) => return None,
        }
    }
    let whole = filled < head.len();
    find_start(&head[..filled], whole)
}

fn find_start(head: &[u8], whole: bool) -> Option<(PacketSize, u64)> {
    let end = head.len().min(GARBAGE_MAX);
    for at in 0..end {
        if head[at] != SYNC {
            continue;
        }
        for size in [PacketSize::Ts188, PacketSize::M2ts192] {
            if at < size.prefix() && at != 0 {
                continue;
            }
            let run = sync_run(head, at, size.stride(), SYNC_RUN);
            // A short file is a stream if it is in sync from its first packet to its end.
            let short = whole && run >= 3 && at == size.prefix() && at + run * size.stride() >= head.len();
            if run >= SYNC_RUN || short {
                let start = if at >= size.prefix() { at - size.prefix() } else { at + PACKET };
                return Some((size, start as u64));
            }
        }
    }
    None
}

/// Sync bytes at `at`, `at + stride` and so on, counted up to `max`.
pub fn sync_run(data: &[u8], at: usize, stride: usize, max: usize) -> usize {
    (0..max).take_while(|n| data.get(at + n * stride) == Some(&SYNC)).count()
}

/// The header of a packet and its payload.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub pid: u16,
    /// `payload_unit_start_indicator`.
    pub unit_start: bool,
    /// `transport_scrambling_control` is not 0: the payload cannot be read.
    pub scrambled: bool,
    pub counter: u8,
    /// `discontinuity_indicator` of the adaptation field.
    pub discontinuity: bool,
    /// `random_access_indicator` of the adaptation field.
    pub random_access: bool,
    /// Empty when the packet has none.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet that starts with its sync byte. `None` if its fields contradict each other.
    pub fn parse(bytes: &'a [u8; PACKET]) -> Option<Self> {
        let control = bytes[3] >> 4 & 3;
        let mut packet = Packet {
            pid: u16::from(bytes[1] & 0x1f) << 8 | u16::from(bytes[2]),
            unit_start: bytes[1] & 0x40 != 0,
            scrambled: bytes[3] & 0xc0 != 0,
            counter: bytes[3] & 0x0f,
            discontinuity: false,
            random_access: false,
            payload: &[],
        };
        let mut at = 4;
        if control & 2 != 0 {
            let len = usize::from(bytes[4]);
            if len > PACKET - 5 {
                return None;
            }
            if len > 0 {
                packet.discontinuity = bytes[5] & 0x80 != 0;
                packet.random_access = bytes[5] & 0x40 != 0;
            }
            at = 5 + len;
        }
        if control & 1 != 0 {
            packet.payload = &bytes[at..];
        }
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::ts::Memory;

    fn stream(prefix: usize, packets: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..packets {
            out.extend(vec![0x11; prefix]);
            out.push(SYNC);
            out.extend([0x1f, 0xff, 0x10]);
            out.extend([0xaa; PACKET - 4]);
        }
        out
    }

    #[test]
    fn both_packet_sizes_are_told_apart() {
        assert_eq!(sniff_start(&Memory(stream(0, 8))), Some((PacketSize::Ts188, 0)));
        assert_eq!(sniff_start(&Memory(stream(4, 8))), Some((PacketSize::M2ts192, 0)));
        assert_eq!(sniff_start(&Memory(stream(0, 3))), Some((PacketSize::Ts188, 0)));
        assert_eq!(sniff(&Memory(stream(0, 2))), None);
        assert_eq!(sniff(&Memory(vec![])), None);
        assert_eq!(sniff(&Memory(b"....ftypisom".to_vec())), None);
    }

    #[test]
    fn leading_garbage_is_bounded() {
        let mut data = vec![0x47; 1];
        data.resize(1000, 0);
        data.extend(stream(0, 8));
        assert_eq!(sniff_start(&Memory(data)), Some((PacketSize::Ts188, 1000)));
        let mut data = vec![0; GARBAGE_MAX + 1];
        data.extend(stream(0, 8));
        assert_eq!(sniff(&Memory(data)), None);
    }

    #[test]
    fn header_fields() {
        let mut bytes = [0xff; PACKET];
        bytes[..7].copy_from_slice(&[SYNC, 0x41, 0x00, 0x35, 2, 0xc0, 0xff]);
        let packet = Packet::parse(&bytes).expect("well-formed");
        assert_eq!((packet.pid, packet.counter, packet.payload.len()), (0x100, 5, 181));
        assert!(packet.unit_start && packet.discontinuity && packet.random_access && !packet.scrambled);
        bytes[4] = 184;
        assert!(Packet::parse(&bytes).is_none());
        bytes[4] = 183;
        assert_eq!(Packet::parse(&bytes).expect("a full adaptation field").payload.len(), 0);
    }
}
