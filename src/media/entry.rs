//! The bytes of an index entry: a header, the container's own part, and the summary.
//!
//! Numbers are little-endian. Layout: magic (8), version u32, container u32, CRC-32 u32 of everything after the
//! header, zero u32, position of the summary u64; the container's part; the summary. Must not know containers.

use super::index::{Container, EntryError, Summary, Track, TrackKind, VERSION};
use super::time::{Counting, Rate, Seconds};

const MAGIC: &[u8; 8] = b"weir.idx";
pub(crate) const HEADER_LEN: usize = 32;

/// Tracks of one summary, as many as a `moov` may have.
const TRACKS_MAX: u32 = 1024;

/// An entry whose header and summary were read.
pub(crate) struct Opened {
    pub(crate) summary: Summary,
    /// The container's part is `HEADER_LEN..part_end`.
    pub(crate) part_end: usize,
}

/// Room for the header; the container's part is appended to it.
pub(crate) fn begin() -> Vec<u8> {
    vec![0; HEADER_LEN]
}

/// Appends the summary and fills the header in.
pub(crate) fn finish(out: &mut Vec<u8>, summary: &Summary) {
    let summary_at = out.len() as u64;
    let mut written = Vec::new();
    write_summary(&mut written, summary);
    out.reserve_exact(written.len());
    out.append(&mut written);
    let container: u32 = match summary.container {
        Container::Mp4 => 1,
        Container::Ts => 2,
    };
    let checksum = crc32fast::hash(&out[HEADER_LEN..]);
    let mut header = Vec::with_capacity(HEADER_LEN);
    header.extend_from_slice(MAGIC);
    for word in [VERSION, container, checksum, 0] {
        header.extend_from_slice(&word.to_le_bytes());
    }
    header.extend_from_slice(&summary_at.to_le_bytes());
    out[..HEADER_LEN].copy_from_slice(&header);
}

/// Reads header and summary; `verify` also holds the bytes against the checksum.
pub(crate) fn open(bytes: &[u8], verify: bool) -> Result<Opened, EntryError> {
    let unusable = |text: &str| EntryError(text.to_owned());
    let Some((header, rest)) = bytes.split_at_checked(HEADER_LEN) else {
        return Err(unusable("shorter than its header"));
    };
    let word = |at: usize| header[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
    if &header[..8] != MAGIC {
        return Err(unusable("not an index entry"));
    }
    if word(8) != VERSION {
        return Err(EntryError(format!("version {}, and this is version {VERSION}", word(8))));
    }
    if verify && crc32fast::hash(rest) != word(16) {
        return Err(unusable("the checksum does not match"));
    }
    let container = match word(12) {
        1 => Container::Mp4,
        2 => Container::Ts,
        _ => return Err(unusable("an unknown container")),
    };
    let summary_at = header[24..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
    let part_end = usize::try_from(summary_at).unwrap_or(usize::MAX);
    let summary = bytes.get(part_end..).filter(|_| part_end >= HEADER_LEN);
    let mut reader = Reader { bytes: summary.ok_or_else(|| unusable("the summary is missing"))? };
    let summary = reader.summary(container).ok_or_else(|| unusable("the summary is broken"))?;
    Ok(Opened { summary, part_end })
}

fn write_summary(out: &mut Vec<u8>, summary: &Summary) {
    put(out, u64::from(summary.fragmented));
    put(out, u64::from(summary.has_timecode_track));
    put(out, u64::from(summary.duration.is_some()));
    let duration = summary.duration.unwrap_or(Seconds::ZERO);
    out.extend_from_slice(&duration.num.to_le_bytes());
    put(out, duration.den);
    put(out, u64::from(summary.start_timecode.is_some()));
    if let Some((label, counting)) = &summary.start_timecode {
        put_text(out, label);
        put_rate(out, Some(counting.rate));
        put(out, u64::from(counting.drop));
    }
    put_text(out, &summary.content_type);
    put(out, summary.tracks.len() as u64);
    for track in &summary.tracks {
        write_track(out, track);
    }
}

fn write_track(out: &mut Vec<u8>, track: &Track) {
    let kind = match track.kind {
        TrackKind::Video => 0,
        TrackKind::Audio => 1,
        TrackKind::Timecode => 2,
        TrackKind::Text => 3,
        TrackKind::Other => 4,
    };
    put(out, u64::from(track.id));
    put(out, kind);
    put_text(out, &track.codec);
    put_optional(out, track.width.map(u64::from));
    put_optional(out, track.height.map(u64::from));
    put_rate(out, track.frame_rate);
    put(out, u64::from(track.variable_rate));
    put(out, track.frames);
    put(out, track.keyframes);
    put_optional(out, track.sample_rate.map(u64::from));
    put_optional(out, track.channels.map(u64::from));
    put(out, u64::from(track.language.is_some()));
    put_text(out, track.language.as_deref().unwrap_or_default());
}

fn put(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_optional(out: &mut Vec<u8>, value: Option<u64>) {
    put(out, u64::from(value.is_some()));
    put(out, value.unwrap_or(0));
}

fn put_rate(out: &mut Vec<u8>, rate: Option<Rate>) {
    put_optional(out, rate.map(|rate| u64::from(rate.num) << 32 | u64::from(rate.den)));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Takes what `write_summary` wrote apart, trusting none of it.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn summary(&mut self, container: Container) -> Option<Summary> {
        let (fragmented, has_timecode_track, has_duration) = (self.flag()?, self.flag()?, self.flag()?);
        let num = i128::from_le_bytes(self.take()?);
        let duration = Seconds::new(num, self.word()?)?;
        let start_timecode = if self.flag()? {
            let (label, rate, drop) = (self.text()?, self.rate()??, self.flag()?);
            Some((label, Counting { rate, drop }))
        } else {
            None
        };
        let content_type = self.text()?;
        let count = u32::try_from(self.word()?).ok().filter(|count| *count <= TRACKS_MAX)?;
        let tracks = (0..count).map(|_| self.track()).collect::<Option<Vec<_>>>()?;
        let duration = has_duration.then_some(duration);
        let whole =
            Summary { container, fragmented, duration, start_timecode, has_timecode_track, tracks, content_type };
        self.bytes.is_empty().then_some(whole)
    }

    fn track(&mut self) -> Option<Track> {
        let id = u32::try_from(self.word()?).ok()?;
        let kind = match self.word()? {
            0 => TrackKind::Video,
            1 => TrackKind::Audio,
            2 => TrackKind::Timecode,
            3 => TrackKind::Text,
            4 => TrackKind::Other,
            _ => return None,
        };
        let narrow = |value: Option<u64>| value.map(|value| u32::try_from(value).unwrap_or(u32::MAX));
        Some(Track {
            id,
            kind,
            codec: self.text()?,
            width: narrow(self.optional()?),
            height: narrow(self.optional()?),
            frame_rate: self.rate()?,
            variable_rate: self.flag()?,
            frames: self.word()?,
            keyframes: self.word()?,
            sample_rate: narrow(self.optional()?),
            channels: self.optional()?.map(|value| u16::try_from(value).unwrap_or(u16::MAX)),
            language: {
                let present = self.flag()?;
                let text = self.text()?;
                present.then_some(text)
            },
        })
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*taken)
    }

    fn word(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        self.word().map(|word| word != 0)
    }

    fn optional(&mut self) -> Option<Option<u64>> {
        let present = self.flag()?;
        let value = self.word()?;
        Some(present.then_some(value))
    }

    fn rate(&mut self) -> Option<Option<Rate>> {
        match self.optional()? {
            None => Some(None),
            Some(packed) => Rate::new((packed >> 32) as u32, packed as u32).map(Some),
        }
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.word()?).ok()?;
        let (text, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}
