//! Timecode tracks: which one counts for the picture, how it counts, and its samples as a piecewise map.
//!
//! Source: Apple QuickTime File Format, "Timecode media". Must not know frames or requests.

use super::Parts;
use super::boxes::{be32, kind_at};
use super::derived::{self, Section, Sections};
use super::moov::Trak;
use super::view::View;
use crate::media::ReadAt;
use crate::media::index::BuildError;
use crate::media::time::{Counting, Rate};

/// Breaks of one timecode track.
const PIECES_MAX: u64 = 65_536;
const DROP_FRAME: u32 = 1;

/// How a timecode track counts.
pub(crate) fn counting(moov: &[u8], trak: &Trak) -> Option<Counting> {
    // stsd: version and flags, count, then the entry: size, kind, 6 reserved, reference index, 4 reserved, flags,
    // timescale, frame duration, frames per second.
    let entry = trak.stsd.start + 8;
    if kind_at(moov, entry + 4) != *b"tmcd" || trak.stsd.len() < 8 + 34 {
        return None;
    }
    let (flags, timescale, duration) = (be32(moov, entry + 20), be32(moov, entry + 24), be32(moov, entry + 28));
    let per_second = u32::from(moov.get(entry + 32).copied().unwrap_or(0));
    let exact = Rate::new(timescale, duration).filter(|rate| per_second == 0 || rate.nominal() == per_second);
    // The byte holds at most 255; a rate from it alone has no fraction.
    let rate = exact.or_else(|| Rate::new(per_second, 1)).filter(|rate| rate.nominal() <= 1000)?;
    Some(Counting { rate, drop: flags & DROP_FRAME != 0 })
}

/// The timecode track of `main`: the one it refers to, else the first that counts.
pub(crate) fn track_of(view: View<'_>, main: usize) -> Option<usize> {
    let usable = |&track: &usize| {
        let trak = view.trak(track);
        &trak.handler == b"tmcd" && view.tracks[track].samples > 0 && counting(view.moov, trak).is_some()
    };
    let all = || (0..view.movie.traks.len()).filter(usable);
    let refs = &view.trak(main).timecode_refs;
    all().find(|&track| refs.contains(&view.trak(track).id)).or_else(|| all().next())
}

/// Reads the timecode samples of the main track's timecode track and appends them as rows (start in ticks of the
/// timecode track on the presentation clock, number of the label).
pub(crate) fn write_map(src: &dyn ReadAt, out: &mut Vec<u8>, parts: &mut Parts) -> Result<(), BuildError> {
    let mut rows = Vec::new();
    let view = parts.view(out);
    let main = parts.main.filter(|&main| &view.trak(main).handler == b"vide");
    let found = main.and_then(|main| track_of(view, main));
    if let Some(track) = found {
        let shift = view.trak(track).edits.iter().find_map(|edit| edit.media_time).unwrap_or(0);
        let shift = i64::try_from(shift).unwrap_or(0);
        for sample in view.cursor(src, track, 0).take(PIECES_MAX as usize) {
            let Ok(sample) = sample else { break };
            let mut value = [0; 4];
            if sample.size < 4 || src.read_exact_at(sample.offset, &mut value).is_err() {
                break;
            }
            rows.extend([sample.dts.saturating_sub(shift) as u64, i32::from_be_bytes(value) as i64 as u64]);
        }
    }
    parts.timecode = found.filter(|_| !rows.is_empty());
    let track = parts.timecode.map_or(0, |track| track as u64 + 1);
    let at = out.len();
    derived::write(out, 2, &rows);
    derived::write(out, 1, &[track]);
    let read = Sections::new(out, at).next(2);
    parts.pieces = read.map_err(|b| BuildError::Malformed { what: b.what, offset: 0 })?;
    Ok(())
}

/// Row of the piece that holds `ticks`, the first one before it all.
pub(crate) fn piece_at(entry: &[u8], pieces: Section, mut starts_by: impl FnMut(i64) -> bool) -> usize {
    pieces.partition(|row| starts_by(pieces.signed(entry, row, 0))).saturating_sub(1)
}
