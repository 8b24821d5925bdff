//! The index of one video: maps time, frame and timecode to byte offsets, whatever the container.
//!
//! An index is one run of bytes: built once from the file ([`Index::build`]), kept in the index cache, and
//! searched where it lies ([`Index::open`] takes the bytes of a mapped cache entry and copies none of its tables).

use super::slices::Piece;
use super::still::Still;
use super::time::{Counting, DecimalTime, Label, Rate, Seconds};
use super::{ReadAt, entry, mp4, ts};
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;

/// Raised whenever the meaning of any byte of an entry changes, and whenever the parsers see something else in a file
/// than before, be it that it has an index at all: what other versions found is forgotten.
pub const VERSION: u32 = 5;

/// What a file is, as far as an index goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// ISO base media, progressive or fragmented (MP4, MOV, CMAF).
    Mp4,
    /// MPEG-TS, 188- or 192-byte packets.
    Ts,
}

/// What `GET /videos/{id}` says about a video; small, kept decoded.
#[derive(Clone, Debug)]
pub struct Summary {
    pub container: Container,
    pub fragmented: bool,
    /// Of the video track (of the longest track where there is none), after edit lists.
    pub duration: Option<Seconds>,
    /// Label of frame 0 and how the video counts; `None` without a picture.
    pub start_timecode: Option<(String, Counting)>,
    /// The start timecode comes from a `tmcd` track; otherwise it is 00:00:00:00 by convention.
    pub has_timecode_track: bool,
    pub tracks: Vec<Track>,
    /// `Content-Type` with codecs, e.g. `video/mp4; codecs="avc1.64001e, mp4a.40.2"`.
    pub content_type: String,
}

#[derive(Clone, Debug)]
pub struct Track {
    pub id: u32,
    pub kind: TrackKind,
    /// RFC 6381 codec string, or the sample entry's four characters where there is no rule for it.
    pub codec: String,
    /// Display size in pixels of a video track.
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub frame_rate: Option<Rate>,
    /// The frames are not equally spaced; `frame_rate` is nominal.
    pub variable_rate: bool,
    /// Video: frames shown (after edit lists). Others: samples.
    pub frames: u64,
    pub keyframes: u64,
    /// Audio.
    pub sample_rate: Option<u32>,
    pub channels: Option<u16>,
    pub language: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackKind {
    Video,
    Audio,
    Timecode,
    Text,
    Other,
}

/// A moment as a client asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// `drop` is an explicit `drop=0|1`, which overrides the separator.
    Timecode {
        label: Label,
        drop: Option<bool>,
    },
    Time(DecimalTime),
    Frame(u64),
}

/// A resolved moment. Frames count from 0 in presentation order after edit lists; times are relative to frame 0.
/// Audio only: `frame`, `timecode` and `keyframe.frame` are `None`.
#[derive(Clone, Debug)]
pub struct Seek {
    pub frame: Option<u64>,
    pub time: Seconds,
    pub timecode: Option<String>,
    pub frame_rate: Option<Rate>,
    pub drop_frame: bool,
    /// What a browser's `video.currentTime` shows for this frame.
    pub presentation_time: Seconds,
    pub keyframe: Keyframe,
    /// Where the sample itself lies.
    pub sample_offset: u64,
    pub sample_size: u64,
}

/// The sync sample from which a frame really decodes. Frame and time are negative when an edit list hides it.
#[derive(Clone, Debug)]
pub struct Keyframe {
    pub frame: Option<i64>,
    pub time: Seconds,
    pub timecode: Option<String>,
    /// Progressive MP4: the sample's first byte; fragmented: its `moof`; TS: the PAT before it if adjacent,
    /// else its first packet.
    pub offset: u64,
}

/// Why no index could be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Not a container that Weir indexes.
    #[error("no index for this kind of file: MP4/MOV and MPEG-TS have one")]
    Unsupported,
    /// Broken media; says what and at which byte.
    #[error("{what} at byte {offset}")]
    Malformed { what: String, offset: u64 },
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Why a moment could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum SeekError {
    /// The request is wrong in itself (an illegal label, a contradicting separator): 400. The text says what
    /// would be right.
    #[error("{0}")]
    Invalid(String),
    /// Well-formed but not in this video: 422. First and last legal value in the form that was asked.
    #[error("{what}; this video has {first} to {last}")]
    Outside { what: String, first: String, last: String },
    /// This video cannot answer that kind of question (no picture, for one): 422.
    #[error("{0}")]
    Unanswerable(String),
    /// A supported container, but not for this (e.g. fmp4 out of MPEG-TS): 501.
    #[error("{0}")]
    Unsupported(String),
    /// The file is not what it was when it was indexed, or is broken there: 422.
    #[error("the media is damaged: {0}")]
    Damaged(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// An index entry that is not one of ours, of another version, or damaged: rebuild it.
#[derive(Debug, thiserror::Error)]
#[error("index entry unusable: {0}")]
pub struct EntryError(pub String);

/// How far a chunk made by [`Index::fmp4`] reaches.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// At least this many bytes of output where the video has them, cut at a sample boundary.
    Size(u64),
    /// Until this much of the video track (from the resolved frame on) is covered.
    Duration(DecimalTime),
}

/// An opened index.
pub struct Index {
    entry: Bytes,
    summary: Summary,
    body: Body,
}

/// What the container keeps.
enum Body {
    Mp4(mp4::Parts),
    Ts(ts::Table),
}

impl Index {
    /// Reads a file once and makes its index entry.
    pub fn build(src: &dyn ReadAt) -> Result<Vec<u8>, BuildError> {
        let mut out = entry::begin();
        if !mp4::build::is_mp4(src)? {
            let built = ts::build(src)?;
            out.extend_from_slice(&built.table);
            entry::finish(&mut out, &built.summary);
            return Ok(out);
        }
        let (parts, built) = mp4::build::build(src, &mut out)?;
        let summary = mp4::describe::summary(&parts, &out, src, built.spread)?;
        entry::finish(&mut out, &summary);
        out.shrink_to_fit();
        Ok(out)
    }

    /// Opens an entry of unknown history: the checksum is verified.
    pub fn open(entry: Bytes) -> Result<Index, EntryError> {
        Self::open_with(entry, true)
    }

    /// Opens an entry that the caller has just built, without reading all of it.
    pub fn open_trusted(entry: Bytes) -> Result<Index, EntryError> {
        Self::open_with(entry, false)
    }

    fn open_with(entry: Bytes, verify: bool) -> Result<Index, EntryError> {
        let opened = entry::open(&entry, verify)?;
        let part = &entry[..opened.part_end];
        let body = match opened.summary.container {
            Container::Mp4 => {
                let parts = mp4::Parts::open(part, entry::HEADER_LEN);
                Body::Mp4(parts.map_err(|broken| EntryError(format!("{} at byte {}", broken.what, broken.at)))?)
            }
            Container::Ts => Body::Ts(ts::Table::open(entry.slice(entry::HEADER_LEN..opened.part_end))?),
        };
        Ok(Index { entry, summary: opened.summary, body })
    }

    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Bytes of the entry.
    pub fn entry(&self) -> &Bytes {
        &self.entry
    }

    /// Whether [`Index::resolve`] may read the source: in fragmented files, and where only a picture itself says
    /// whether it decodes from its keyframe.
    pub fn needs_source(&self) -> bool {
        match &self.body {
            Body::Mp4(parts) => parts.needs_source(&self.entry),
            // Where a chunk begins depends on the packets before the keyframe.
            Body::Ts(_) => true,
        }
    }

    /// Finds a moment. `src` is the file that the index was built from.
    pub fn resolve(&self, src: &dyn ReadAt, position: &Position) -> Result<Seek, SeekError> {
        match &self.body {
            Body::Mp4(parts) => mp4::seek::Seeker::new(parts, &self.summary, &self.entry, src)?.resolve(position),
            Body::Ts(table) => table.resolve(&self.summary, src, position),
        }
    }

    /// The tracks and samples of an MP4, for writing fragments out of it; `None` for other containers.
    pub fn tracks<'a>(&'a self, src: &'a dyn ReadAt) -> Option<mp4::Tracks<'a>> {
        match &self.body {
            Body::Mp4(parts) => Some(mp4::Tracks::new(parts, &self.entry, src)),
            Body::Ts(_) => None,
        }
    }

    /// The frames of an MPEG-TS file, for pacing its bytes; `None` for other containers.
    pub fn packets(&self) -> Option<&ts::Table> {
        match &self.body {
            Body::Ts(table) => Some(table),
            Body::Mp4(_) => None,
        }
    }

    /// Plans a chunk that plays on its own, from the keyframe of a moment on.
    pub fn fmp4(
        &self,
        src: &dyn ReadAt,
        position: &Position,
        until: Until,
        along: mp4::Along,
    ) -> Result<(Seek, mp4::Chunk), SeekError> {
        match &self.body {
            Body::Mp4(parts) => {
                let seeker = mp4::seek::Seeker::new(parts, &self.summary, &self.entry, src)?;
                mp4::Chunk::plan(&seeker, &self.tracks_of(parts, src), position, until, along)
            }
            Body::Ts(_) => Err(SeekError::Unsupported(
                "as=fmp4 is made from MP4; a chunk of MPEG-TS plays as it is, without as=".to_owned(),
            )),
        }
    }

    /// Bytes `range` of a planned chunk that lie in part `part` of it ([`mp4::Chunk::parts`]).
    pub fn fmp4_part(
        &self,
        src: &dyn ReadAt,
        chunk: &mp4::Chunk,
        part: usize,
        range: &Range<u64>,
    ) -> Result<VecDeque<Piece>, SeekError> {
        match &self.body {
            Body::Mp4(parts) => chunk.part(&self.tracks_of(parts, src), part, range),
            Body::Ts(_) => Ok(VecDeque::new()),
        }
    }

    /// Plans the decoding of the frame at a moment; what is read for it may have `bytes_max` bytes.
    pub fn still(&self, src: &dyn ReadAt, position: &Position, bytes_max: u64) -> Result<Still, SeekError> {
        match &self.body {
            Body::Mp4(parts) => {
                let seeker = mp4::seek::Seeker::new(parts, &self.summary, &self.entry, src)?;
                mp4::still::plan(&seeker, position, bytes_max)
            }
            Body::Ts(table) => table.still(&self.summary, src, position, bytes_max),
        }
    }

    fn tracks_of<'a>(&'a self, parts: &'a mp4::Parts, src: &'a dyn ReadAt) -> mp4::Tracks<'a> {
        mp4::Tracks::new(parts, &self.entry, src)
    }
}
