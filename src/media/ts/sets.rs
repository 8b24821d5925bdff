//! Parameter sets put in front of a picture that comes without, so that a part which begins with it can be decoded by
//! who knows nothing of what came before.
//!
//! PURE. The picture's first packet is replaced by seventeen: continuity counters have four bits, so with sixteen more
//! all that follow are right as they are (ISO/IEC 13818-1 §2.4.3.3).

use super::packet::{PACKET, Packet, SYNC};
use super::pes::{self, Header};
use bytes::{Bytes, BytesMut};

/// Packets more.
const MORE: usize = 16;
/// Bytes of a packet without adaptation field that are payload.
const ROOM: usize = PACKET - 4;

/// The packets in place of `head`, the first of a PES packet; `sets` go behind the delimiter, of which first byte and
/// length are given. `None` when the PES header, or a delimiter, does not lie in `head` whole.
pub(super) fn insert(head: &[u8; PACKET], delimiter: (u8, usize), sets: &[u8]) -> Option<Bytes> {
    if !(MORE..=MORE * ROOM).contains(&sets.len()) {
        return None;
    }
    let packet = Packet::parse(head)?;
    let Header::Complete { len, .. } = pes::parse(packet.payload) else { return None };
    let (front, behind) = packet.payload.split_at(len + delimiter_len(&packet.payload[len..], delimiter)?);
    let mut payload = [front, sets, behind].concat();
    // `PES_packet_length`: 0, no bound, is allowed for video (§2.4.3.7).
    let length = u16::from_be_bytes([payload[4], payload[5]]);
    let longer = if length == 0 { 0 } else { length.checked_add(sets.len() as u16).unwrap_or(0) };
    payload[4..6].copy_from_slice(&longer.to_be_bytes());

    let (first, mut rest) = payload.split_at(packet.payload.len());
    let mut out = BytesMut::with_capacity((1 + MORE) * PACKET);
    out.extend_from_slice(&head[..PACKET - first.len()]);
    out.extend_from_slice(first);
    for n in 1..=MORE {
        let (piece, later) = rest.split_at(rest.len().div_ceil(MORE + 1 - n));
        out.extend([SYNC, head[1] & 0x3f, head[2], 0x10 | (packet.counter + n as u8) & 15]);
        stuff(&mut out, ROOM - piece.len());
        out.extend_from_slice(piece);
        rest = later;
    }
    Some(out.freeze())
}

/// Bytes of the access unit delimiter at the start, with its start code.
fn delimiter_len(stream: &[u8], (first, len): (u8, usize)) -> Option<usize> {
    let zeros = stream.iter().take_while(|&&byte| byte == 0).count();
    let unit = stream.get(zeros + 1..)?;
    let is_delimiter = zeros >= 2 && stream[zeros] == 1 && *unit.first()? == first;
    match is_delimiter {
        false => Some(0),
        true => (unit.len() >= len).then_some(zeros + 1 + len),
    }
}

/// Fills a packet behind its header with an adaptation field of this many bytes (§2.4.3.5).
fn stuff(out: &mut BytesMut, bytes: usize) {
    let Some(length) = bytes.checked_sub(1) else { return };
    let control = out.len() - 1;
    out[control] |= 0x20;
    out.extend([length as u8]);
    out.extend((0..length).map(|n| if n == 0 { 0 } else { 0xff }));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of PID 0x100 with counter 14, a PCR, and a picture of `pes_length`; what its stream begins with.
    fn head(pes_length: u16, stream: &[u8]) -> [u8; PACKET] {
        let mut packet = [0x55; PACKET];
        packet[..12].copy_from_slice(&[SYNC, 0x41, 0, 0x3e, 7, 0x10, 0, 0, 0, 0, 0x7e, 0]);
        packet[12..26].copy_from_slice(&[0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21, 0, 1, 0, 1]);
        packet[16..18].copy_from_slice(&pes_length.to_be_bytes());
        packet[26..26 + stream.len()].copy_from_slice(stream);
        packet
    }

    const DELIMITED: [u8; 10] = [0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x41];

    fn payloads(packets: &[u8]) -> Vec<u8> {
        packets
            .chunks(PACKET)
            .flat_map(|packet| Packet::parse(packet.try_into().unwrap()).unwrap().payload.to_vec())
            .collect()
    }

    #[test]
    fn the_picture_is_whole_behind_them() {
        let sets: Vec<u8> = (100..150).collect();
        let packets = insert(&head(0, &DELIMITED), (9, 2), &sets).expect("room");
        assert_eq!(packets.len(), 17 * PACKET);
        assert_eq!(packets[..12], head(0, &[])[..12], "the header and the clock stay");
        let counters: Vec<u8> = packets.chunks(PACKET).map(|packet| packet[3] & 15).collect();
        assert_eq!(counters[..4], [14, 15, 0, 1]);
        assert_eq!(counters[16], 14, "15 comes next, as without");
        assert!(packets.chunks(PACKET).skip(1).all(|packet| packet[1..3] == [1, 0]));
        let before = head(0, &DELIMITED)[12..].to_vec();
        let expected = [&before[..20], &sets, &before[20..]].concat();
        assert_eq!(payloads(&packets), expected);
    }

    #[test]
    fn without_a_delimiter_they_come_first() {
        let packets = insert(&head(0, &[0, 0, 1, 0x41]), (9, 2), &[7; 16]).expect("room");
        assert_eq!(payloads(&packets)[14..30], [7; 16]);
        // HEVC: its delimiter has three bytes.
        let packets = insert(&head(0, &[0, 0, 1, 0x46, 1, 0x50, 0, 0, 1]), (70, 3), &[7; 16]).expect("room");
        assert_eq!(payloads(&packets)[14..22], [0, 0, 1, 0x46, 1, 0x50, 7, 7]);
    }

    #[test]
    fn lengths_say_what_follows() {
        let length = |length| {
            let packets = insert(&head(length, &DELIMITED), (9, 2), &[7; 100]).expect("room");
            u16::from_be_bytes([packets[16], packets[17]])
        };
        assert_eq!((length(0), length(1000), length(65_435), length(65_436)), (0, 1100, 65_535, 0));
    }

    #[test]
    fn what_does_not_fit_is_left_as_it_is() {
        let sets = vec![7; 16 * 184];
        assert!(insert(&head(0, &DELIMITED), (9, 2), &sets).is_some());
        assert!(insert(&head(0, &DELIMITED), (9, 2), &[7; 16 * 184 + 1]).is_none());
        assert!(insert(&head(0, &DELIMITED), (9, 2), &[7; 15]).is_none());
        // A PES header, or a delimiter, that goes on in the next packet.
        let mut short = head(0, &[]);
        short[4] = 183 - 8;
        assert!(insert(&short, (9, 2), &[7; 50]).is_none());
        short[4] = 183 - 19;
        short[5 + 183 - 19..].copy_from_slice(&[&head(0, &[])[12..26], &[0, 0, 0, 1, 9][..]].concat());
        assert!(insert(&short, (9, 2), &[7; 50]).is_none());
    }
}
