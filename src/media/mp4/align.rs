//! Tracks that arrive on requests of their own, aligned by decode time into one muxed publication.
//!
//! PURE: init segments and fragments of each source in, buffers of one fragmented MP4 out; the time of day is an
//! argument. A source is what one encoder sends under one name: a track as a rule, or several that are muxed. Media
//! that a source sent before is left out; a source whose time begins anew goes on where the others stand.

use super::arrival::{ArrivalError, Fragment, Init, TrackRun, Wrong};
use super::boxes::Broken;
use super::merge::{self, Member};
use crate::media::time::ticks_to_us;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How long a fragment waits for those of other sources that belong to it.
const HOLD: Duration = Duration::from_secs(1);
/// Bytes that may wait.
pub const WAITING_MAX: u64 = 64 << 20;
/// A gap between two requests that another one may still fill, in microseconds: what is longer is a clock that was set.
const GAP_US: std::ops::Range<i64> = 100_000..10_000_000;
/// What is left of one that is filled.
const ROUNDING_US: i64 = 1000;
/// Sources of one stream.
pub(super) const SOURCES_MAX: usize = 16;
/// What was sent before is known this far back, in microseconds.
const KNOWN_US: i64 = 60_000_000;
/// Sources that begin anew within this time of each other go on from the same moment.
const TOGETHER: Duration = Duration::from_secs(10);

/// Why a source is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the stream has a video track already; one is supported")]
    SecondVideo,
    #[error("more than {SOURCES_MAX} tracks in one stream")]
    TooMany,
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    New,
    /// It was there already.
    Again,
}

pub struct Aligner {
    sources: Vec<Source>,
    /// How long the first source waits for others before anything comes out.
    patience: Duration,
    began: Option<Duration>,
    /// The init segment is out, and is the right one.
    fixed: bool,
    /// Where sources go on that begin anew, and when that was found out.
    base: Option<(i64, Duration)>,
    next_id: u32,
    sequence: u32,
    waiting_bytes: u64,
    /// Bytes of boxes that were written anew.
    pub copied_bytes: u64,
}

struct Source {
    name: String,
    init: Arc<Init>,
    /// New track id of each of its tracks.
    ids: Vec<u32>,
    /// It is connected, or will send more as far as is known.
    open: bool,
    queue: VecDeque<Waiting>,
    /// What its times are moved by, in microseconds.
    shift_us: i64,
    /// First and last decode time of its main track that came, in its own time, and the last that went out moved.
    first: Option<i64>,
    end: i64,
    end_us: i64,
    /// An init segment came and no fragment behind it.
    renewed: bool,
    /// The request that sent last, and how far it came.
    request: (u64, i64),
    gap: Option<Gap>,
}

/// Time between two requests of which nothing came: one on another connection may have been overtaken.
struct Gap {
    /// In the source's own time.
    missing: std::ops::Range<i64>,
    start_us: i64,
    since: Duration,
}

struct Waiting {
    fragment: Fragment,
    shift_us: i64,
    start_us: i64,
    end_us: i64,
    since: Duration,
    /// Time begins anew here.
    anew: bool,
}

impl Aligner {
    pub fn new(patience: Duration) -> Self {
        Self {
            sources: Vec::new(),
            patience,
            began: None,
            fixed: false,
            base: None,
            next_id: 1,
            sequence: 0,
            waiting_bytes: 0,
            copied_bytes: 0,
        }
    }

    /// Bytes of fragments that wait for others.
    pub fn held_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// The init segment of a source.
    pub fn init(&self, name: &str) -> Option<&Arc<Init>> {
        self.sources.iter().find(|source| source.name == name).map(|source| &source.init)
    }

    /// A source sends its init segment, for the first time or again. What waits goes out first if it is another one.
    pub fn take_init(
        &mut self,
        name: &str,
        init: Arc<Init>,
        now: Duration,
        out: &mut Vec<Bytes>,
    ) -> Result<(), ArrivalError> {
        self.began.get_or_insert(now);
        let known = self.sources.iter().position(|source| source.name == name);
        if let Some(known) = known
            && self.sources[known].init.same_coding(&init)
        {
            // Its ids are told from those of others anyway.
            let source = &mut self.sources[known];
            (source.init, source.renewed, source.open) = (init, true, true);
            return Ok(());
        }
        if self.fixed {
            self.flush(out)?;
        }
        self.fixed = false;
        let ids: Vec<u32> = (self.next_id..).take(init.track_count()).collect();
        self.next_id = ids.last().map_or(self.next_id, |last| last.saturating_add(1));
        match known {
            Some(known) => {
                let source = &mut self.sources[known];
                (source.init, source.ids, source.renewed, source.open) = (init, ids, true, true);
            }
            None => self.sources.push(Source::new(name, init, ids)),
        }
        Ok(())
    }

    /// Whether a source may send this init segment.
    pub fn admits(&self, name: &str, init: &Init) -> Result<(), Refused> {
        let others = || self.sources.iter().filter(|source| source.name != name);
        let videos = init.videos() + others().map(|source| source.init.videos()).sum::<usize>();
        if videos > 1 {
            return Err(Refused::SecondVideo);
        }
        if others().count() >= SOURCES_MAX {
            return Err(Refused::TooMany);
        }
        Ok(())
    }

    /// A source sends a fragment in a request.
    pub fn take(&mut self, name: &str, request: u64, fragment: Fragment, now: Duration) -> Taken {
        let newest_us = self.sources.iter().map(|source| source.end_us).max().unwrap_or(0);
        let base = self.base.filter(|(_, since)| now.saturating_sub(*since) < TOGETHER);
        let Some(source) = self.sources.iter_mut().find(|source| source.name == name) else { return Taken::Again };
        let main = source.init.main();
        let run = fragment.runs.iter().find(|run| run.track == main).or(fragment.runs.first());
        let Some(run) = run.copied() else { return Taken::Again };
        let renewed = std::mem::take(&mut source.renewed);
        source.open = true;
        let mut anew = false;
        match source.judge(run.start, run.timescale, request, renewed) {
            Judged::Again => {
                source.request = (request, run.end);
                return Taken::Again;
            }
            Judged::Fills => {}
            Judged::Follows => source.note_gap(&run, request, now),
            Judged::Anew => {
                let start_us = ticks_to_us(run.start, run.timescale);
                let shift = match base {
                    Some((base, _)) if start_us.saturating_add(base) >= source.end_us => base,
                    _ => {
                        let base = newest_us.saturating_sub(start_us);
                        self.base = Some((base, now));
                        anew = true;
                        base
                    }
                };
                (source.shift_us, source.first, source.gap) = (shift, None, None);
                source.end = run.start;
            }
        }
        let shift_us = source.shift_us;
        let (start_us, end_us) = (
            ticks_to_us(run.start, run.timescale).saturating_add(shift_us),
            ticks_to_us(run.end, run.timescale).saturating_add(shift_us),
        );
        source.first.get_or_insert(run.start);
        source.fill_gap(&run, end_us);
        (source.end, source.request) = (source.end.max(run.end), (request, run.end));
        source.end_us = source.end_us.max(end_us);
        self.waiting_bytes += fragment.len;
        let place = source.queue.partition_point(|waiting| waiting.start_us <= start_us);
        source.queue.insert(place, Waiting { fragment, shift_us, start_us, end_us, since: now, anew });
        Taken::New
    }

    /// A source's last request has ended: nobody waits for it until it sends again.
    pub fn leave(&mut self, name: &str) {
        if let Some(source) = self.sources.iter_mut().find(|source| source.name == name) {
            source.open = false;
        }
    }

    /// Gives what is due: fragments that every source has come past, or that have waited for long.
    pub fn poll(&mut self, now: Duration, out: &mut Vec<Bytes>) -> Result<(), ArrivalError> {
        if !self.is_complete(now) {
            return Ok(());
        }
        while let Some(leading) = self.due(now) {
            self.put(leading, out)?;
        }
        Ok(())
    }

    /// Gives all that waits.
    pub fn flush(&mut self, out: &mut Vec<Bytes>) -> Result<(), ArrivalError> {
        while let Some(leading) = self.next() {
            self.put(leading, out)?;
        }
        Ok(())
    }

    /// Whether there are all tracks, as far as can be known.
    fn is_complete(&self, now: Duration) -> bool {
        let waited = self.began.is_some_and(|began| now.saturating_sub(began) >= self.patience);
        let video = self.sources.iter().any(|source| source.init.videos() > 0);
        let sound = self.sources.iter().any(|source| source.init.track_count() > source.init.videos());
        let all_sent = self.sources.iter().all(|source| !source.queue.is_empty());
        self.began.is_some()
            && (waited || self.waiting_bytes > WAITING_MAX || (video && sound && all_sent) || self.fixed)
    }

    /// The source whose fragment comes next: the pictures' one sets the pace.
    fn next(&self) -> Option<usize> {
        let waits = |n: &usize| !self.sources[*n].queue.is_empty();
        let all = || (0..self.sources.len()).filter(waits);
        all()
            .find(|n| self.sources[*n].init.videos() > 0)
            .or_else(|| all().min_by_key(|n| self.sources[*n].queue.front().map(|waiting| waiting.start_us)))
    }

    /// The same, if it is due.
    fn due(&self, now: Duration) -> Option<usize> {
        let leading = self.next()?;
        let front = self.sources[leading].queue.front()?;
        let has_video = self.sources[leading].init.videos() > 0;
        let is_past = |(n, source): (usize, &Source)| {
            let came_past = source.end_us >= front.end_us && source.first.is_some();
            n == leading || !source.open || if has_video { came_past } else { source.end_us >= front.start_us }
        };
        let too_much = self.waiting_bytes > WAITING_MAX;
        let long = now.saturating_sub(front.since) >= HOLD || too_much;
        let misses = !too_much && self.sources.iter().any(|source| source.misses_before(front.end_us, now));
        (!misses && (long || self.sources.iter().enumerate().all(is_past))).then_some(leading)
    }

    /// Writes the leading source's next fragment and what others have until its end.
    fn put(&mut self, leading: usize, out: &mut Vec<Bytes>) -> Result<(), ArrivalError> {
        let Some(end_us) = self.sources[leading].queue.front().map(|front| front.end_us) else { return Ok(()) };
        let mut group: Vec<(usize, Waiting)> = Vec::new();
        let order = std::iter::once(leading).chain((0..self.sources.len()).filter(|n| *n != leading));
        for n in order {
            let Source { queue, gap, .. } = &mut self.sources[n];
            let alone = n == leading;
            while let Some(waiting) = queue.pop_front_if(|waiting| alone || waiting.start_us < end_us) {
                // What is missing before it comes too late now.
                gap.take_if(|gap| gap.start_us < waiting.start_us);
                group.push((n, waiting));
                if alone {
                    break;
                }
            }
        }
        self.waiting_bytes -= group.iter().map(|(_, waiting)| waiting.fragment.len).sum::<u64>();
        if !self.fixed || group.iter().any(|(_, waiting)| waiting.anew) {
            let inits = self.sources.iter().map(|source| (&*source.init, &source.ids[..]));
            out.push(merge::init(inits).map_err(broken)?);
            self.fixed = true;
        }
        let tracks: Vec<Vec<(u32, u32, i64)>> =
            group.iter().map(|(n, w)| self.sources[*n].tracks(w.shift_us)).collect();
        let members: Vec<Member<'_>> = group
            .iter()
            .zip(&tracks)
            .map(|((_, waiting), tracks)| Member { rope: &waiting.fragment.rope, tracks })
            .collect();
        // One `traf` for each track in a `moof`: what has several goes out as several.
        for members in rounds(&group, members) {
            self.sequence = self.sequence.wrapping_add(1);
            let fragment = merge::fragment(&members, self.sequence).map_err(broken)?;
            self.copied_bytes += fragment.first().map_or(0, |head| head.len() as u64);
            out.extend(fragment);
        }
        Ok(())
    }
}

fn broken(broken: Broken) -> ArrivalError {
    ArrivalError { what: broken.what, position: broken.at as u64, kind: Wrong::Broken }
}

/// Members of a group so that no source occurs twice in a round, in order.
fn rounds<'a>(group: &[(usize, Waiting)], members: Vec<Member<'a>>) -> Vec<Vec<Member<'a>>> {
    let mut rounds: Vec<(Vec<usize>, Vec<Member<'a>>)> = Vec::new();
    for ((source, _), member) in group.iter().zip(members) {
        // Behind the last round that has the source.
        let at = rounds.iter().rposition(|(sources, _)| sources.contains(source)).map_or(0, |last| last + 1);
        if at == rounds.len() {
            rounds.push((Vec::new(), Vec::new()));
        }
        rounds[at].0.push(*source);
        rounds[at].1.push(member);
    }
    rounds.into_iter().map(|(_, members)| members).collect()
}

enum Judged {
    Follows,
    /// It was there already.
    Again,
    /// It was overtaken by what comes behind it.
    Fills,
    /// Time begins anew.
    Anew,
}

impl Source {
    fn new(name: &str, init: Arc<Init>, ids: Vec<u32>) -> Self {
        Self {
            name: name.to_owned(),
            init,
            ids,
            open: true,
            queue: VecDeque::new(),
            shift_us: 0,
            first: None,
            end: 0,
            end_us: i64::MIN,
            renewed: false,
            request: (0, 0),
            gap: None,
        }
    }

    /// Where a decode time lies among what was sent before.
    fn judge(&self, start: i64, timescale: u32, request: u64, renewed: bool) -> Judged {
        let Some(first) = self.first else { return Judged::Follows };
        if start >= self.end {
            return Judged::Follows;
        }
        let known = first.max(self.end.saturating_sub(KNOWN_US / 1_000_000 * i64::from(timescale)));
        // A request that goes back behind itself sends nothing again, nor does an encoder that begins where it began.
        let behind_itself = self.request.0 == request && start < self.request.1;
        let from_the_start = renewed && start <= first;
        if start < known || behind_itself || from_the_start {
            Judged::Anew
        } else if self.gap.as_ref().is_some_and(|gap| gap.missing.contains(&start)) {
            Judged::Fills
        } else {
            Judged::Again
        }
    }

    /// Notes what is missing before the first fragment of a request.
    fn note_gap(&mut self, run: &TrackRun, request: u64, now: Duration) {
        let missing = self.end..run.start;
        let length_us = ticks_to_us(run.start.saturating_sub(self.end), run.timescale);
        let between_requests = self.first.is_some() && self.request.0 != request;
        if between_requests && self.gap.is_none() && GAP_US.contains(&length_us) {
            self.gap = Some(Gap { missing, start_us: self.end_us, since: now });
        }
    }

    /// Notes that a part of what was missing is there.
    fn fill_gap(&mut self, run: &TrackRun, end_us: i64) {
        let Some(gap) = self.gap.as_mut().filter(|gap| gap.missing.contains(&run.start)) else { return };
        (gap.missing.start, gap.start_us) = (run.end, end_us);
        let left_us = ticks_to_us(gap.missing.end.saturating_sub(run.end), run.timescale);
        self.gap.take_if(|_| left_us < ROUNDING_US);
    }

    /// Whether something may still come that belongs before this time.
    fn misses_before(&self, end_us: i64, now: Duration) -> bool {
        self.gap.as_ref().is_some_and(|gap| gap.start_us < end_us && now.saturating_sub(gap.since) < HOLD)
    }

    fn tracks(&self, shift_us: i64) -> Vec<(u32, u32, i64)> {
        let ticks = |timescale: u32| {
            let ticks = i128::from(shift_us) * i128::from(timescale);
            // Rounded up, so that time does not run backwards.
            i64::try_from(-(-ticks).div_euclid(1_000_000)).unwrap_or(0)
        };
        self.init.timescales().zip(&self.ids).map(|((id, timescale), new)| (id, *new, ticks(timescale))).collect()
    }
}
