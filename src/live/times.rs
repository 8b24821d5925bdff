//! Where a publication's times lie in its stream, whose time never runs backwards. Microseconds, unless said otherwise.
//!
//! PURE.

use crate::media::mp4::arrival::{Fragment, Init, TrackRun};
use crate::media::time::ticks_to_us;

/// A clock that is further ahead than this is another one.
const AHEAD_US: i64 = 60_000_000;

/// What each track's times are moved by, so that the publication goes on where the stream stands. A stream's first
/// publication keeps its times.
pub(super) fn shifts(fragment: &Fragment, init: &Init, end_us: i64, first_of_all: bool) -> Vec<(u32, i64)> {
    let earliest_us = fragment.runs.iter().map(|run| ticks_to_us(run.start, run.timescale)).min().unwrap_or(0);
    let move_us = shift_us(earliest_us, end_us, first_of_all);
    init.timescales().map(|(id, timescale)| (id, us_to_ticks(move_us, timescale))).collect()
}

/// The same for parts of MPEG-TS, whose own timestamps stay as they are. A publication that is a little ahead was away
/// for so long.
pub(super) fn shift_us(start_us: i64, end_us: i64, first_of_all: bool) -> i64 {
    let on_time = (0..=AHEAD_US).contains(&start_us.saturating_sub(end_us));
    if first_of_all || on_time { 0 } else { end_us.saturating_sub(start_us) }
}

/// Start and end in the stream of what some tracks have in a fragment.
pub(super) fn span_us(runs: &[TrackRun], init: &Init, shifts: &[(u32, i64)]) -> (i64, i64) {
    let shifted = |track: usize, ticks: i64| {
        let id = init.track_id(track);
        ticks.saturating_add(shifts.iter().find(|(t, _)| *t == id).map_or(0, |(_, shift)| *shift))
    };
    let start = runs.iter().map(|run| ticks_to_us(shifted(run.track, run.start), run.timescale)).min().unwrap_or(0);
    let end = runs.iter().map(|run| ticks_to_us(shifted(run.track, run.end), run.timescale)).max().unwrap_or(0);
    (start, end)
}

fn us_to_ticks(us: i64, timescale: u32) -> i64 {
    // Rounded up: the first new sample may not begin before the last old one ends.
    let ticks = i128::from(us) * i128::from(timescale);
    i64::try_from(ticks.div_euclid(1_000_000) + i128::from(ticks.rem_euclid(1_000_000) > 0)).unwrap_or(i64::MAX)
}
