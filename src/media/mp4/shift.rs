//! Moves the decode times of a `moof`, so that a publication goes on where its stream stands.
//!
//! PURE. Source: ISO/IEC 14496-12 §8.8.12 (`tfdt`).

use super::arrival::{ArrivalError, Wrong};
use super::boxes::{Broken, be32, be64, children, find};
use bytes::{Bytes, BytesMut};

/// Adds `shift` ticks per track to the decode times of a `moof`; a copy of the box with `tfdt` rewritten.
/// `shifts` are (track id, ticks).
pub fn shift_times(moof: &Bytes, shifts: &[(u32, i64)]) -> Result<Bytes, ArrivalError> {
    let failed = |broken: Broken| ArrivalError { what: broken.what, position: broken.at as u64, kind: Wrong::Broken };
    let mut copy = BytesMut::from(&moof[..]);
    let header = if be32(moof, 0) == 1 { 16 } else { 8 };
    for child in children(moof, header..moof.len()) {
        let child = child.map_err(failed)?;
        if &child.kind != b"traf" {
            continue;
        }
        let (Some(header), Some(time)) = (
            find(moof, child.body.clone(), b"tfhd").map_err(failed)?,
            find(moof, child.body.clone(), b"tfdt").map_err(failed)?,
        ) else {
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
            let moved = i64::from(be32(moof, time.start + 4)).saturating_add(shift);
            let Ok(moved) = u32::try_from(moved) else {
                return Err(ArrivalError {
                    what: "a 32-bit tfdt cannot hold the time of a stream this long".to_owned(),
                    position: time.start as u64,
                    kind: Wrong::Broken,
                });
            };
            copy[time.start + 4..time.start + 8].copy_from_slice(&moved.to_be_bytes());
        }
    }
    Ok(copy.freeze())
}
