//! What `GET /videos/{id}` says about an MP4: tracks, codecs, rate, duration, start timecode.
//!
//! Must not know how an entry is laid out.

use super::Parts;
use super::boxes::{be16, be32};
use super::frames::Frames;
use super::moov::Trak;
use super::order::Spread;
use super::seek::Seeker;
use super::timecode;
use super::view::View;
use crate::media::ReadAt;
use crate::media::codec;
use crate::media::index::{BuildError, Container, SeekError, Summary, Track, TrackKind};
use crate::media::time::{Counting, Rate, Seconds};

/// Rates in use; a measured average this close to one of them is that one.
const USUAL_RATES: [(u32, u32); 14] = [
    (24_000, 1001),
    (24, 1),
    (25, 1),
    (30_000, 1001),
    (30, 1),
    (48, 1),
    (50, 1),
    (60_000, 1001),
    (60, 1),
    (100, 1),
    (120_000, 1001),
    (120, 1),
    (15, 1),
    (12, 1),
];

/// The summary of a freshly built entry.
pub(crate) fn summary(parts: &Parts, entry: &[u8], src: &dyn ReadAt, spread: Spread) -> Result<Summary, BuildError> {
    let damaged = |error: SeekError| match error {
        SeekError::Io(error) => BuildError::Io(error),
        other => BuildError::Malformed { what: other.to_string(), offset: parts.moov_offset },
    };
    let view = parts.view(entry);
    let mut tracks: Vec<_> = (0..parts.tracks.len()).map(|track| describe(view, track)).collect();
    let mut summary = Summary {
        container: Container::Mp4,
        fragmented: parts.fragmented,
        duration: None,
        start_timecode: None,
        has_timecode_track: parts.timecode.is_some(),
        content_type: content_type(src, &tracks),
        tracks: Vec::new(),
    };
    let Some(main) = parts.main else {
        summary.tracks = tracks;
        return Ok(summary);
    };
    let frames = Frames { view, src, track: main, spans: parts.spans };
    let counting = parts.timecode.and_then(|track| timecode::counting(view.moov, view.trak(track)));
    let video = tracks[main].kind == TrackKind::Video;
    if video {
        let (rate, variable) = rate(view.trak(main), spread, counting, parts.tracks[main].end_ticks);
        tracks[main].frame_rate = rate;
        tracks[main].variable_rate = variable;
        tracks[main].frames = frames.count();
        if frames.count() != parts.tracks[main].samples {
            tracks[main].keyframes = shown_keyframes(frames).map_err(damaged)?;
        }
    }
    summary.tracks = tracks;
    if frames.count() == 0 {
        return Ok(summary);
    }
    summary.duration = Some(duration(frames, spread).map_err(damaged)?);
    let rate = summary.tracks[main].frame_rate;
    if let Some(counting) = counting.or(rate.map(|rate| Counting { rate, drop: false })).filter(|_| video) {
        summary.start_timecode = Some((String::new(), counting));
        let seeker = Seeker::new(parts, &summary, entry, src).map_err(damaged)?;
        let start = seeker.label_at(Seconds::ZERO, counting).map_err(damaged)?;
        summary.start_timecode = Some((start.to_string(), counting));
    }
    Ok(summary)
}

fn describe(view: View<'_>, track: usize) -> Track {
    let index = &view.tracks[track];
    Track { frames: index.samples, keyframes: index.syncs, ..self::track(view.moov, view.trak(track)) }
}

/// What the boxes of a track say, without its samples.
pub(super) fn track(moov: &[u8], trak: &Trak) -> Track {
    let kind = match &trak.handler {
        b"vide" => TrackKind::Video,
        b"soun" => TrackKind::Audio,
        b"tmcd" => TrackKind::Timecode,
        b"text" | b"sbtl" | b"subt" | b"clcp" => TrackKind::Text,
        _ => TrackKind::Other,
    };
    let entry = codec::SampleEntry::first(moov, trak.stsd.clone());
    let audio = entry.as_ref().filter(|_| kind == TrackKind::Audio).map(|entry| entry.audio(moov));
    let size = entry.as_ref().filter(|_| kind == TrackKind::Video).map(|entry| {
        let coded = (u32::from(be16(moov, entry.start + 32)), u32::from(be16(moov, entry.start + 34)));
        if trak.display.0 > 0 && trak.display.1 > 0 { trak.display } else { coded }
    });
    Track {
        id: trak.id,
        kind,
        codec: entry.as_ref().map_or_else(String::new, |entry| entry.codec(moov)),
        width: size.map(|size| size.0),
        height: size.map(|size| size.1),
        frame_rate: None,
        variable_rate: false,
        frames: 0,
        keyframes: 0,
        sample_rate: audio.map(|(rate, _)| if rate == 0 { trak.timescale.get() } else { rate }),
        channels: audio.map(|(_, channels)| channels),
        language: language(trak.language),
    }
}

/// Three letters of five bits each; `und` says nothing.
fn language(packed: u16) -> Option<String> {
    let letters = [10, 5, 0].map(|shift| (packed >> shift & 31) as u8 + 0x60);
    let text = String::from_utf8(letters.to_vec()).ok()?;
    (letters.iter().all(u8::is_ascii_lowercase) && text != "und").then_some(text)
}

/// The rate of a video track, and whether it is only nominal.
fn rate(trak: &Trak, spread: Spread, counting: Option<Counting>, end_ticks: i64) -> (Option<Rate>, bool) {
    let timescale = trak.timescale.get();
    let from_step = |step: u64| u32::try_from(step).ok().and_then(|step| Rate::new(timescale, step));
    let labelled = counting.map(|counting| counting.rate);
    if spread.count < 2 || spread.step == 0 {
        let one = u64::try_from(end_ticks).ok().filter(|_| spread.count == 1).and_then(from_step);
        return (labelled.or(one), false);
    }
    if spread.is_even() {
        return (from_step(spread.step), false);
    }
    let span = u128::from(spread.highest.abs_diff(spread.lowest)).max(1);
    // Frames per thousand seconds.
    let average = u128::from(spread.count - 1) * u128::from(timescale) * 1000 / span;
    let grid = from_step(spread.step).filter(|rate| {
        let grid = u128::from(rate.num) * 1000 / u128::from(rate.den.max(1));
        grid <= 120_500 && grid <= average * 10
    });
    (labelled.or(grid).or_else(|| usual(average)), true)
}

/// The rate in use that is meant by a measured one, in frames per thousand seconds; that one itself if there is none.
pub(crate) fn usual(average: u128) -> Option<Rate> {
    let distance =
        |&(num, den): &(u32, u32)| (average * u128::from(den)).abs_diff(u128::from(num) * 1000) / u128::from(den);
    let nearest = USUAL_RATES.into_iter().min_by_key(distance)?;
    if distance(&nearest) * 2000 <= average {
        return Rate::new(nearest.0, nearest.1);
    }
    u32::try_from(average).ok().and_then(|average| Rate::new(average, 1000))
}

/// From the start of frame 0 to the end of the last frame.
fn duration(frames: Frames<'_>, spread: Spread) -> Result<Seconds, SeekError> {
    let last = frames.frame(frames.count() - 1)?;
    let sample = frames.view.sample(frames.src, frames.track, last.index)?;
    let ticks = if spread.is_even() && spread.step > 0 { spread.step as i64 } else { i64::from(sample.duration) };
    let start = frames.presentation(last).checked_sub(frames.origin()?).unwrap_or(Seconds::ZERO);
    Ok(start.checked_add(Seconds::from_ticks(ticks, frames.timescale())).unwrap_or(start))
}

/// Sync samples among the frames that the edits show.
fn shown_keyframes(frames: Frames<'_>) -> Result<u64, SeekError> {
    let mut ranges = Vec::new();
    for span in 0..frames.spans.count {
        let (first, count) = (frames.span(span, 0), frames.span(span, 1));
        ranges.push((frames.at_rank(first)?.1, frames.at_rank(first + count - 1)?.1));
    }
    let mut shown = 0;
    for sample in frames.view.cursor(frames.src, frames.track, 0) {
        let sample = sample?;
        if sample.sync {
            shown += ranges.iter().filter(|(low, high)| (*low..=*high).contains(&sample.cts())).count() as u64;
        }
    }
    Ok(shown)
}

/// RFC 6381, with the codecs of pictures and sound.
fn content_type(src: &dyn ReadAt, tracks: &[Track]) -> String {
    let of = |kind| tracks.iter().filter(move |track| track.kind == kind);
    let mut codecs: Vec<&str> = Vec::new();
    for track in of(TrackKind::Video).chain(of(TrackKind::Audio)) {
        if !track.codec.is_empty() && !codecs.contains(&track.codec.as_str()) {
            codecs.push(&track.codec);
        }
    }
    let mut head = [0; 12];
    let quicktime =
        src.read_exact_at(0, &mut head).is_ok() && be32(&head, 4) == be32(b"ftyp", 0) && &head[8..] == b"qt  ";
    let kind = match (of(TrackKind::Video).next(), of(TrackKind::Audio).next()) {
        (Some(_), _) if quicktime => "video/quicktime",
        (None, Some(_)) => "audio/mp4",
        _ => "video/mp4",
    };
    if codecs.is_empty() { kind.to_owned() } else { format!("{kind}; codecs=\"{}\"", codecs.join(", ")) }
}
