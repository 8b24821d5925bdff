//! Moves the decode times of a fragment, so that a publication goes on where its stream stands.
//!
//! PURE. Media bytes stay in the buffers they came in. Source: ISO/IEC 14496-12 §8.8.12 (`tfdt`).

use super::arrival::{ArrivalError, Wrong};
use super::boxes::{Broken, be32, be64, children, find};
use super::merge::{self, Member};
use bytes::{Bytes, BytesMut};

/// Adds `shift` ticks per track to the decode times of a fragment (`moof`, then the `mdat` in pieces), in a copy of its
/// `moof`. `shifts` are (track id, ticks). Gives the bytes that were written.
pub fn shift_times(rope: &mut Vec<Bytes>, shifts: &[(u32, i64)]) -> Result<u64, ArrivalError> {
    let failed = |broken: Broken| ArrivalError { what: broken.what, position: broken.at as u64, kind: Wrong::Broken };
    let Some(moof) = rope.first() else { return Ok(0) };
    match patched(moof, shifts).map_err(failed)? {
        Some(moof) => rope[0] = moof,
        None => *rope = written(rope, shifts).map_err(failed)?,
    }
    Ok(rope[0].len() as u64)
}

/// A copy of a `moof` with other times, unless one of them is too late for the 32 bits that it has.
fn patched(moof: &Bytes, shifts: &[(u32, i64)]) -> Result<Option<Bytes>, Broken> {
    let mut copy = BytesMut::from(&moof[..]);
    let header = if be32(moof, 0) == 1 { 16 } else { 8 };
    for child in children(moof, header..moof.len()) {
        let child = child?;
        if &child.kind != b"traf" {
            continue;
        }
        let (Some(header), Some(time)) =
            (find(moof, child.body.clone(), b"tfhd")?, find(moof, child.body.clone(), b"tfdt")?)
        else {
            continue;
        };
        if header.len() < 8 || time.len() < 8 {
            continue;
        }
        let id = be32(moof, header.start + 4);
        let shift = shifts.iter().find(|(track, _)| *track == id).map_or(0, |(_, shift)| *shift);
        if moof[time.start] == 1 && time.len() >= 12 {
            let moved = be64(moof, time.start + 4).saturating_add_signed(shift);
            copy[time.start + 4..time.start + 12].copy_from_slice(&moved.to_be_bytes());
        } else {
            let moved = u64::from(be32(moof, time.start + 4)).saturating_add_signed(shift);
            let Ok(moved) = u32::try_from(moved) else { return Ok(None) };
            copy[time.start + 4..time.start + 8].copy_from_slice(&moved.to_be_bytes());
        }
    }
    Ok(Some(copy.freeze()))
}

/// The fragment with a new `moof`, whose times have 64 bits.
fn written(rope: &[Bytes], shifts: &[(u32, i64)]) -> Result<Vec<Bytes>, Broken> {
    let moof = rope.first().map_or(&[][..], |moof| moof);
    let sequence = find(moof, 8..moof.len(), b"mfhd")?.filter(|body| body.len() >= 8);
    let sequence = sequence.map_or(0, |body| be32(moof, body.start + 4));
    let tracks: Vec<_> = shifts.iter().map(|(id, shift)| (*id, *id, *shift)).collect();
    merge::fragment(&[Member { rope, tracks: &tracks }], sequence)
}

#[cfg(test)]
mod tests {
    use super::super::arrival::{Arrival, Event};
    use super::super::merge_test::{fragment_of, init_of};
    use super::*;
    use crate::media::cadence::Targets;

    /// A fragment from a time on whose `tfdt` has 32 bits.
    fn narrow(start: u64) -> Vec<u8> {
        let mut bytes = fragment_of(1, start, 3, b'V');
        // The upper half of the time; sizes of `moof`, `traf` and `tfdt`, version of that, offset of the data.
        bytes.drain(60..64);
        for (at, size) in [(0, 88_u32), (24, 64), (48, 16), (80, 96)] {
            bytes[at..at + 4].copy_from_slice(&size.to_be_bytes());
        }
        bytes[56] = 0;
        bytes
    }

    fn start_of(fragment: &[u8]) -> i64 {
        let targets = Targets { part_us: 3_600_000_000, segment_us: 3_600_000_000 };
        let (mut arrival, mut events) = (Arrival::new(targets), Vec::new());
        arrival.push([&init_of(b"vide", 1, 1), fragment].concat().into(), &mut events).expect("valid");
        let Some(Event::Fragment(fragment)) = events.pop() else { panic!("no fragment") };
        fragment.runs[0].start
    }

    #[test]
    fn a_time_of_32_bits_becomes_one_of_64_when_it_must() {
        let whole = Bytes::from(narrow(1000));
        assert_eq!(start_of(&whole), 1000);
        let rope = || vec![whole.slice(..88), whole.slice(88..)];
        for (shift, length) in [(500, 88), (i64::from(u32::MAX) - 1000, 88), (i64::from(u32::MAX), 92)] {
            let mut moved = rope();
            assert_eq!(shift_times(&mut moved, &[(1, shift)]).expect("moved"), moved[0].len() as u64);
            let moved = moved.concat();
            assert_eq!((start_of(&moved), be32(&moved, 0)), (1000 + shift, length));
            assert!(moved.ends_with(b"mdatVVVVVVVVVVVV"));
        }
    }
}
