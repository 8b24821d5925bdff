//! Answers: a time, a frame number or a timecode to a frame, its keyframe and their bytes.
//!
//! Must not know HTTP; the texts of errors are for the person who asked.

use super::Parts;
use super::fmp4::ChunkStart;
use super::frames::{Frame, Frames};
use super::nal::{self, Units};
use super::sample::Sample;
use super::timecode;
use crate::media::ReadAt;
use crate::media::codec::{avc, hevc};
use crate::media::index::{Keyframe, Position, Seek, SeekError, Summary, TrackKind};
use crate::media::time::{Counting, DecimalTime, Label, Rate, Seconds};

/// Sync samples that are tried, going back: a leading picture of one decodes from the one before it. Where the picture
/// is only ever refreshed gradually, so many refreshes are enough.
const SYNCS_TRIED_MAX: u32 = 16;

/// An open entry, ready to answer.
#[derive(Clone, Copy)]
pub(crate) struct Seeker<'a> {
    pub(crate) frames: Frames<'a>,
    pub(crate) parts: &'a Parts,
    pub(crate) summary: &'a Summary,
    /// How the picture counts; `None` without a picture.
    counting: Option<Counting>,
    origin: Seconds,
    count: u64,
}

impl<'a> Seeker<'a> {
    pub(crate) fn new(
        parts: &'a Parts,
        summary: &'a Summary,
        entry: &'a [u8],
        src: &'a dyn ReadAt,
    ) -> Result<Self, SeekError> {
        let nothing = || SeekError::Unanswerable("this video has no picture and no sound to seek in".to_owned());
        let track = parts.main.ok_or_else(nothing)?;
        let frames = Frames { view: parts.view(entry), src, track, spans: parts.spans };
        let count = frames.count();
        if count == 0 {
            return Err(nothing());
        }
        let counting = summary.start_timecode.as_ref().map(|(_, counting)| *counting);
        Ok(Seeker { frames, parts, summary, counting, origin: frames.origin()?, count })
    }

    pub(crate) fn resolve(&self, position: &Position) -> Result<Seek, SeekError> {
        self.resolve_number(position).map(|(_, seek)| seek)
    }

    /// The same, with the number of the frame (of the sample, where there is no picture).
    pub(crate) fn resolve_number(&self, position: &Position) -> Result<(u64, Seek), SeekError> {
        let (number, counting) = self.number(position)?;
        Ok((number, self.answer(number, counting)?))
    }

    /// Where a chunk that shows this frame begins, and where the edit that shows it ends.
    pub(crate) fn start_of(&self, number: u64) -> Result<ChunkStart, SeekError> {
        let frames = self.frames;
        let frame = frames.frame(number)?;
        let key = self.decode_start(frames.view.sample(frames.src, frames.track, frame.index)?)?;
        let shown = frames.span(frame.span, 2).saturating_add(frames.span(frame.span, 1));
        let last = frames.frame(shown.saturating_sub(1))?;
        let duration = frames.view.sample(frames.src, frames.track, last.index)?.duration;
        // A last sample without a duration is still shown.
        let end_cts = last.cts.saturating_add(i64::from(duration.max(1)));
        let in_last_edit = frame.span + 1 >= frames.spans.count;
        Ok(ChunkStart { frame, key, end_cts, in_last_edit, track: frames.track })
    }

    fn number(&self, position: &Position) -> Result<(u64, Option<Counting>), SeekError> {
        match position {
            Position::Time(time) => Ok((self.frame_at(*time)?, self.counting)),
            Position::Frame(number) => {
                self.need_picture("frame numbers")?;
                if *number >= self.count {
                    let what = format!("frame {number} is outside");
                    return Err(SeekError::Outside { what, first: "0".to_owned(), last: (self.count - 1).to_string() });
                }
                Ok((*number, self.counting))
            }
            Position::Timecode { label, drop } => {
                self.need_picture("timecode")?;
                let no_rate = || SeekError::Unanswerable("this video has no frame rate to count by".to_owned());
                let counting = self.reading(*label, *drop, self.counting.ok_or_else(no_rate)?)?;
                Ok((self.frame_of(*label, counting)?, Some(counting)))
            }
        }
    }

    /// See [`Frames::player_origin`].
    pub(crate) fn player_origin(&self) -> Seconds {
        self.frames.player_origin(self.origin)
    }

    fn is_video(&self) -> bool {
        &self.frames.view.trak(self.frames.track).handler == b"vide"
    }

    pub(crate) fn need_picture(&self, what: &str) -> Result<(), SeekError> {
        if self.is_video() {
            return Ok(());
        }
        Err(SeekError::Unanswerable(format!("this video has no picture, so it has no {what}: ask by time=")))
    }

    /// Time of a frame relative to frame 0.
    fn time_of(&self, frame: Frame) -> Seconds {
        self.frames.presentation(frame).checked_sub(self.origin).unwrap_or(Seconds::ZERO)
    }

    /// Number of frames that start before `time`, which counts from frame 0.
    fn count_before(&self, time: Seconds) -> Result<u64, SeekError> {
        self.frames.count_before(self.origin.checked_add(time).unwrap_or(time))
    }

    fn frame_at(&self, time: DecimalTime) -> Result<u64, SeekError> {
        let exact = time.seconds();
        // The frame before the first one that does not start before `time` is the one that contains it.
        let next = self.count_before(exact)?;
        let before = match next.checked_sub(1) {
            Some(before) => Some(self.time_of(self.frames.frame(before)?)),
            None => None,
        };
        if next < self.count {
            let start = self.time_of(self.frames.frame(next)?);
            if start <= exact || time.means_next(before, start) {
                return Ok(next);
            }
        } else if self.summary.duration.is_some_and(|end| exact >= end) {
            return Err(self.outside_time(time)?);
        }
        match next.checked_sub(1) {
            Some(before) => Ok(before),
            None => Err(self.outside_time(time)?),
        }
    }

    fn outside_time(&self, time: DecimalTime) -> Result<SeekError, SeekError> {
        let last = self.time_of(self.frames.frame(self.count - 1)?);
        let what = format!("time {time} is outside");
        Ok(SeekError::Outside { what, first: "0".to_owned(), last: last.to_string() })
    }

    /// How a label is to be read: drop-frame or not.
    fn reading(&self, label: Label, drop: Option<bool>, own: Counting) -> Result<Counting, SeekError> {
        if let Some(drop) = drop {
            return self.checked_drop(Counting { drop, ..own }, label);
        }
        if !self.summary.has_timecode_track {
            return self.checked_drop(Counting { drop: label.drop, ..own }, label);
        }
        if label.drop == own.drop {
            return Ok(own);
        }
        let describe = |drop: bool| {
            let (counting, label) = (Counting { drop, ..own }, Label { drop, ..label });
            match self.frame_of(label, counting) {
                Ok(frame) => format!("{label} is frame {frame}"),
                Err(SeekError::Outside { .. }) => format!("{label} is outside this video"),
                Err(error) => error.to_string(),
            }
        };
        let kind = |drop: bool| if drop { "drop-frame" } else { "non-drop" };
        let other = if own.rate.allows_drop_frame() || own.drop {
            format!("; read as {}, {}", kind(label.drop), describe(label.drop))
        } else {
            String::new()
        };
        Err(SeekError::Invalid(format!(
            "{label} is written as {} timecode, and this video counts {} at {}: {}{other}. Write the separator of \
             the reading you mean, or add drop={} to insist",
            kind(label.drop),
            kind(own.drop),
            own.rate,
            describe(own.drop),
            u8::from(label.drop),
        )))
    }

    fn checked_drop(&self, counting: Counting, label: Label) -> Result<Counting, SeekError> {
        let own = self.summary.has_timecode_track && self.counting.is_some_and(|own| own.drop);
        if !counting.drop || counting.rate.allows_drop_frame() || own {
            return Ok(counting);
        }
        let rate = counting.rate;
        let written = Label { drop: false, ..label };
        let written = Counting { drop: false, ..counting }.nearest_legal(written);
        Err(SeekError::Invalid(format!(
            "drop-frame timecode exists at 29.97, 59.94 and 119.88 frames per second, and this video has {rate}: \
             write {written}"
        )))
    }

    /// Label number at which piece `piece` of the timecode begins, and when, relative to frame 0.
    fn piece(&self, piece: usize, counting: Counting) -> Result<(u64, Seconds), SeekError> {
        let Some(track) = self.parts.timecode else { return Ok((0, Seconds::ZERO)) };
        let entry = self.frames.view.entry;
        let start =
            Seconds::from_ticks(self.parts.pieces.signed(entry, piece, 0), self.frames.view.trak(track).timescale);
        let number = self.parts.pieces.signed(entry, piece, 1);
        let own = self.counting.unwrap_or(counting);
        if own.drop == counting.drop {
            return Ok((number.rem_euclid(counting.labels_per_day().max(1) as i64) as u64, start));
        }
        // Another reading than the file's own: the same label, counted the other way.
        let label = own.label_of(number);
        let number = counting.number_of(label).map_err(|error| {
            SeekError::Invalid(format!("this video's start timecode does not exist in that count: {error}"))
        })?;
        Ok((number, start))
    }

    fn pieces(&self) -> usize {
        if self.parts.timecode.is_some() { self.parts.pieces.count } else { 1 }
    }

    /// The label of a frame that starts at `time`.
    pub(crate) fn label_at(&self, time: Seconds, counting: Counting) -> Result<Label, SeekError> {
        let late = time.checked_add(quarter_frame(counting.rate)).unwrap_or(time);
        let piece = match self.parts.timecode {
            Some(track) => {
                let timescale = self.frames.view.trak(track).timescale;
                let starts_by = |ticks| Seconds::from_ticks(ticks, timescale) <= late;
                timecode::piece_at(self.frames.view.entry, self.parts.pieces, starts_by)
            }
            None => 0,
        };
        let (number, start) = self.piece(piece, counting)?;
        let inside = time.checked_sub(start).unwrap_or(time);
        let frames = frames_floor(inside, counting.rate);
        Ok(counting.label_of((number as i64).saturating_add(frames)))
    }

    /// The first frame with this label; where the frames are not evenly spaced, the one shown at that moment.
    fn frame_of(&self, label: Label, counting: Counting) -> Result<u64, SeekError> {
        let number = counting.number_of(label).map_err(|error| SeekError::Invalid(error.0))?;
        let day = counting.labels_per_day();
        let mut shown = None;
        for piece in 0..self.pieces() {
            let (first, start) = self.piece(piece, counting)?;
            let offset = (number + day - first.min(day)) % day;
            let frame = counting.rate.start_of(i64::try_from(offset).unwrap_or(i64::MAX));
            let time = start.checked_add(frame).unwrap_or(frame);
            let next = if piece + 1 < self.pieces() { Some(self.piece(piece + 1, counting)?.1) } else { None };
            if next.or(self.summary.duration).is_some_and(|end| time >= end) {
                continue;
            }
            let early = time.checked_sub(quarter_frame(counting.rate)).unwrap_or(time);
            let candidate = self.count_before(early)?;
            if candidate < self.count {
                let found = self.label_at(self.time_of(self.frames.frame(candidate)?), counting)?;
                if found == (Label { drop: counting.drop, ..label }) {
                    return Ok(candidate);
                }
            }
            shown = shown.or(candidate.checked_sub(1));
        }
        match shown {
            Some(frame) => Ok(frame),
            None => Err(self.outside_label(label, counting)?),
        }
    }

    fn outside_label(&self, label: Label, counting: Counting) -> Result<SeekError, SeekError> {
        let last = self.time_of(self.frames.frame(self.count - 1)?);
        let first = self.label_at(Seconds::ZERO, counting)?.to_string();
        let last = self.label_at(last, counting)?.to_string();
        Ok(SeekError::Outside { what: format!("timecode {label} is outside"), first, last })
    }

    fn answer(&self, number: u64, counting: Option<Counting>) -> Result<Seek, SeekError> {
        let (frames, video) = (self.frames, self.is_video());
        let frame = frames.frame(number)?;
        let sample = frames.view.sample(frames.src, frames.track, frame.index)?;
        let time = self.time_of(frame);
        let counting = counting.filter(|_| video);
        let timecode = match counting {
            Some(counting) => Some(self.label_at(time, counting)?.to_string()),
            None => None,
        };
        let track = self.summary.tracks.get(frames.track).filter(|track| track.kind == TrackKind::Video);
        Ok(Seek {
            frame: video.then_some(number),
            time,
            timecode,
            frame_rate: track.and_then(|track| track.frame_rate),
            drop_frame: counting.is_some_and(|counting| counting.drop),
            presentation_time: self.player_origin().checked_add(time).unwrap_or(time),
            keyframe: self.keyframe(frame, sample, time, counting)?,
            sample_offset: sample.offset,
            sample_size: u64::from(sample.size),
        })
    }

    fn keyframe(
        &self,
        frame: Frame,
        sample: Sample,
        time: Seconds,
        counting: Option<Counting>,
    ) -> Result<Keyframe, SeekError> {
        let frames = self.frames;
        let key = self.decode_start(sample)?;
        let (rank, cts) = frames.rank_of_index(key.index)?;
        let first_rank = frames.span(frame.span, 0);
        let (number, key_time) = if rank >= first_rank {
            let back = frame.rank as i64 - rank as i64;
            let distance = Seconds::from_ticks(frame.cts.saturating_sub(cts), frames.timescale());
            (frame.number as i64 - back, time.checked_sub(distance).unwrap_or(time))
        } else {
            // Hidden: counted back from the first frame that this edit shows.
            let (_, first_cts) = frames.at_rank(first_rank)?;
            let distance = Seconds::from_ticks(cts.saturating_sub(first_cts), frames.timescale());
            (rank as i64 - first_rank as i64, distance)
        };
        let label = match counting {
            Some(counting) if number >= 0 || frame.span == 0 => Some(self.label_at(key_time, counting)?.to_string()),
            _ => None,
        };
        Ok(Keyframe {
            frame: self.is_video().then_some(number),
            time: key_time,
            timecode: label,
            offset: key.moof.unwrap_or(key.offset),
        })
    }

    /// The sample from which `sample` really decodes: the sync sample before it, unless it is a leading picture of
    /// that one and refers to pictures further back, or that one refreshes the picture gradually.
    fn decode_start(&self, sample: Sample) -> Result<Sample, SeekError> {
        let (view, src, track) = (self.frames.view, self.frames.src, self.frames.track);
        if sample.sync && !self.is_gradual(sample)? {
            return Ok(sample);
        }
        let mut from = view.sync_at_or_before(src, track, sample.index)?;
        for tried in 0..SYNCS_TRIED_MAX {
            let Some(index) = from else { break };
            let sync = view.sample(src, track, index)?;
            let follows = sync.cts() <= sample.cts() && !self.is_gradual(sync)?;
            if follows || tried + 1 == SYNCS_TRIED_MAX {
                return Ok(sync);
            }
            if tried == 0 && self.decodes_from_its_own_keyframe(sample)? {
                return Ok(sync);
            }
            from = match index.checked_sub(1) {
                Some(before) => view.sync_at_or_before(src, track, before)?,
                None => None,
            };
        }
        view.sample(src, track, 0)
    }

    /// Whether pictures are right only some time after a sync sample. Players differ in what they make of them even
    /// then, so decoding starts further back.
    fn is_gradual(&self, sync: Sample) -> Result<bool, SeekError> {
        let (view, src, track) = (self.frames.view, self.frames.src, self.frames.track);
        let length_size = avc::nal_length_size(view.moov, view.trak(track).stsd.clone());
        let Some(length_size) = length_size.filter(|_| view.tracks[track].gradual) else { return Ok(false) };
        Ok(nal::frames_to_recovery(src, sync, length_size)? > 0)
    }

    /// HEVC tells leading pictures that decode (RADL) from those that do not; others do not tell.
    fn decodes_from_its_own_keyframe(&self, sample: Sample) -> Result<bool, SeekError> {
        let view = self.frames.view;
        let Some(length_size) = hevc::nal_length_size(view.moov, view.trak(self.frames.track).stsd.clone()) else {
            return Ok(false);
        };
        for unit in Units::of(self.frames.src, sample, length_size) {
            let unit = hevc::unit(unit?.first);
            if hevc::is_picture(unit) {
                return Ok(hevc::is_decodable_leading(unit));
            }
        }
        Ok(false)
    }
}

/// Frames are counted with a tolerance of a quarter, so that times rounded to a coarse clock keep their frame.
fn quarter_frame(rate: Rate) -> Seconds {
    Seconds { num: i128::from(rate.den), den: u64::from(rate.num.max(1)) * 4 }
}

fn frames_floor(time: Seconds, rate: Rate) -> i64 {
    let time = time.checked_add(quarter_frame(rate)).unwrap_or(time);
    let frames = time
        .num
        .saturating_mul(i128::from(rate.num))
        .div_euclid(i128::from(time.den).saturating_mul(i128::from(rate.den.max(1))));
    i64::try_from(frames).unwrap_or(i64::MAX)
}
