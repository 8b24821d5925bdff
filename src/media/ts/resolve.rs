//! A moment of an MPEG-TS video to the bytes it decodes from.
//!
//! Frames count in presentation order; times are those of the PES headers, relative to frame 0. There is no timecode
//! in a transport stream that players agree on: labels count frames from 00:00:00:00 at the nominal rate (nominal time,
//! where frames are unequally spaced). Must not know how the table was made.

use super::packet::{PACKET, SYNC};
use super::table::{Frame, Key, Table};
use super::timeline::CLOCK;
use crate::media::ReadAt;
use crate::media::index::{Keyframe, Position, Seek, SeekError, Summary, TrackKind};
use crate::media::time::{Counting, DecimalTime, Label, Rate, Seconds};

impl Table {
    /// Resolves `position`; reads two bytes of `src` to see that the file is still the one that was indexed.
    pub fn resolve(&self, summary: &Summary, src: &dyn ReadAt, position: &Position) -> Result<Seek, SeekError> {
        let video = summary.tracks.first().filter(|track| track.kind == TrackKind::Video);
        let context = Context {
            table: self,
            rate: video.and_then(|track| track.frame_rate),
            variable: video.is_some_and(|track| track.variable_rate),
            picture: video.is_some(),
        };
        if self.frames() == 0 {
            return Err(SeekError::Unanswerable("this file has no frame that can be shown".into()));
        }
        let drop = match position {
            Position::Timecode { label, drop } => drop.unwrap_or(label.drop),
            _ => summary.start_timecode.as_ref().is_some_and(|(_, counting)| counting.drop),
        };
        let counting = context.rate.map(|rate| Counting { rate, drop });
        let number = match position {
            Position::Frame(number) => context.frame(*number)?,
            Position::Time(time) => context.time(*time)?,
            Position::Timecode { label, .. } => context.timecode(*label, counting)?,
        };
        context.seek(number, counting, src)
    }
}

struct Context<'a> {
    table: &'a Table,
    rate: Option<Rate>,
    variable: bool,
    picture: bool,
}

impl Context<'_> {
    fn at(&self, number: u64) -> Result<Frame, SeekError> {
        self.table.frame(number).ok_or_else(|| SeekError::Damaged(format!("no entry for frame {number} in the index")))
    }

    fn frame(&self, number: u64) -> Result<u64, SeekError> {
        if !self.picture {
            return Err(SeekError::Unanswerable("this file has no picture and so no frames: ask for a time".into()));
        }
        let last = self.table.frames() - 1;
        if number > last {
            let what = format!("frame {number} is past the end");
            return Err(SeekError::Outside { what, first: "0".into(), last: last.to_string() });
        }
        Ok(number)
    }

    fn time(&self, time: DecimalTime) -> Result<u64, SeekError> {
        let wanted = time.seconds();
        let ticks = (wanted.num * i128::from(CLOCK)).div_euclid(i128::from(wanted.den));
        if ticks >= i128::from(self.table.duration()) || ticks < 0 && !time.means_next(None, Seconds::ZERO) {
            let what = format!("time {time} is {}", if ticks < 0 { "before the start" } else { "past the end" });
            let last = seconds(self.at(self.table.frames() - 1)?.time);
            return Err(SeekError::Outside { what, first: "0".into(), last: last.to_string() });
        }
        let Ok(ticks) = u64::try_from(ticks) else { return Ok(0) };
        let number = self.table.frame_at(ticks).unwrap_or(0);
        let Some(next) = self.table.frame(number + 1) else { return Ok(number) };
        let start = self.at(number)?;
        let rounded =
            time.means_next(Some(seconds(start.time)), seconds(next.time)) || self.within_tick(wanted, start, next);
        Ok(if rounded { number + 1 } else { number })
    }

    /// At rates such as 60000/1001 no tick falls on the start of every frame: what is written in the stream may be
    /// half a tick late.
    fn within_tick(&self, wanted: Seconds, start: Frame, next: Frame) -> bool {
        let whole =
            self.rate.is_none_or(|rate| u64::from(CLOCK) * u64::from(rate.den) % u64::from(rate.num.max(1)) == 0);
        let half = Seconds { num: 1, den: 2 * u64::from(CLOCK) };
        let distance = seconds(next.time).checked_sub(wanted);
        !whole && next.time.saturating_sub(start.time) > 8 && distance.is_some_and(|distance| distance <= half)
    }

    fn timecode(&self, label: Label, counting: Option<Counting>) -> Result<u64, SeekError> {
        let Some(counting) = counting else {
            let what =
                if self.picture { "the frame rate of this video is unknown" } else { "this file has no picture" };
            return Err(SeekError::Unanswerable(format!("{what} and so no timecode: ask for a time")));
        };
        if counting.drop && !counting.rate.allows_drop_frame() {
            let nearest = Counting { drop: false, ..counting }.nearest_legal(label);
            return Err(SeekError::Invalid(format!(
                "{label} is drop-frame, which exists at 29.97 and 59.94 frames per second only; this video has {}: \
                 write {nearest}",
                counting.rate
            )));
        }
        let number = counting.number_of(label).map_err(|error| SeekError::Invalid(error.to_string()))?;
        let last = self.table.frames() - 1;
        let found = if self.variable {
            let ticks = ticks_of(counting.rate, number);
            // Nominal time is met by timestamps that are rounded: half a frame is never meant.
            let slack = ticks_of(counting.rate, 1) / 4;
            (ticks < self.table.duration()).then(|| self.table.frame_at(ticks.saturating_add(slack)).unwrap_or(0))
        } else {
            (number <= last).then_some(number)
        };
        found.map_or_else(
            || {
                let what = format!("{label} is past the end");
                let first = counting.label_of(0).to_string();
                Err(SeekError::Outside { what, first, last: self.label(last, self.at(last)?, counting) })
            },
            Ok,
        )
    }

    fn label(&self, number: u64, frame: Frame, counting: Counting) -> String {
        let number = if self.variable {
            counting.rate.frames_in(seconds(frame.time))
        } else {
            i64::try_from(number).unwrap_or(i64::MAX)
        };
        counting.label_of(number).to_string()
    }

    fn seek(&self, number: u64, counting: Option<Counting>, src: &dyn ReadAt) -> Result<Seek, SeekError> {
        let frame = self.at(number)?;
        let itself = Key { entry: frame.offset, sample: frame.offset, frame: number as u32, clean_from: number as u32 };
        let key = self.table.key_for(number, frame.offset).or_else(|| self.table.key(0)).unwrap_or(itself);
        let keyframe = self.at(u64::from(key.frame))?;
        for offset in [key.entry, frame.offset] {
            self.check(src, offset)?;
        }
        let timecode = |number: u64, frame: Frame| counting.map(|counting| self.label(number, frame, counting));
        Ok(Seek {
            frame: self.picture.then_some(number),
            time: seconds(frame.time),
            timecode: timecode(number, frame),
            frame_rate: self.rate,
            drop_frame: counting.is_some_and(|counting| counting.drop),
            presentation_time: seconds(frame.time),
            keyframe: Keyframe {
                frame: self.picture.then_some(i64::from(key.frame)),
                time: seconds(keyframe.time),
                timecode: timecode(u64::from(key.frame), keyframe),
                offset: key.entry,
            },
            sample_offset: frame.offset,
            sample_size: frame.size,
        })
    }

    /// A packet must start there.
    fn check(&self, src: &dyn ReadAt, offset: u64) -> Result<(), SeekError> {
        let mut byte = [0];
        let at = offset.checked_add(self.table.stride() - PACKET as u64);
        let n = at.map_or(Ok(0), |at| src.read_at(at, &mut byte))?;
        if n == 1 && byte[0] == SYNC {
            return Ok(());
        }
        Err(SeekError::Damaged(format!("no transport packet at byte {offset}, where the index has one")))
    }
}

fn seconds(ticks: u64) -> Seconds {
    Seconds { num: i128::from(ticks), den: u64::from(CLOCK) }.reduced()
}

/// Nominal start of frame `number`, to the nearest tick.
fn ticks_of(rate: Rate, number: u64) -> u64 {
    let num = u128::from(rate.num.max(1));
    let ticks = (u128::from(number) * u128::from(CLOCK) * u128::from(rate.den) * 2 + num) / (num * 2);
    u64::try_from(ticks).unwrap_or(u64::MAX)
}
