//! Builds the MP4 part of an index entry: reads the `moov`, walks the tables and fragments once, keeps what lookups
//! need.
//!
//! Reads box headers, `moov`, `moof` and timecode samples; never the rest of an `mdat`.

use super::boxes::Broken;
use super::condense::condense;
use super::derived;
use super::fragments::{self, Fragment, Place};
use super::moov::{self, Movie};
use super::order::{OrderBuilder, Spread, TooFar};
use super::sample::Sample;
use super::tables::{self, SKIP, Skips};
use super::view::{Header, MOOF_MAX, TrackIndex, View};
use super::{Parts, frames, nal, timecode};
use crate::media::ReadAt;
use crate::media::codec::avc;
use crate::media::index::BuildError;

/// A `moov` up to this size is kept as it lies in the file; a larger one is condensed.
const WHOLE_MAX: u64 = 32 << 20;
/// What is kept of a `moov`; all of it is in memory while the index is built.
const MOOV_MAX: usize = 48 << 20;
/// Top-level boxes of one file.
const BOXES_MAX: u64 = 64 << 20;
/// Samples of a group of fragments after which a new one begins.
const GROUP: u64 = 64;
/// Sync samples that are looked into: an encoder that refreshes gradually does so from the second one on.
const PROBES_MAX: usize = 4;

/// What the summary needs and the entry does not keep.
pub(crate) struct Built {
    pub(crate) spread: Spread,
}

/// What is known about a track while the file is walked.
struct Walk {
    index: TrackIndex,
    order: Option<OrderBuilder>,
    groups: Vec<u64>,
    in_group: u64,
    dts: i64,
    last_sync: Option<u64>,
    sync_cts: i64,
    /// The first few sync samples, to be looked into.
    probes: Vec<Sample>,
    /// A sample that is cut off by the end of the file was met: nothing after it counts.
    ended: bool,
}

/// True when the first box is one that ISO media begin with.
pub(crate) fn is_mp4(src: &dyn ReadAt) -> std::io::Result<bool> {
    let first = Header::read(src, 0, src.size())?;
    Ok(first.is_some_and(|header| {
        matches!(
            &header.kind,
            b"ftyp"
                | b"styp"
                | b"moov"
                | b"moof"
                | b"mdat"
                | b"free"
                | b"skip"
                | b"wide"
                | b"pnot"
                | b"sidx"
                | b"emsg"
                | b"prft"
                | b"uuid"
        )
    }))
}

/// Appends the MP4 part to `out`.
pub(crate) fn build(src: &dyn ReadAt, out: &mut Vec<u8>) -> Result<(Parts, Built), BuildError> {
    let (moov_offset, header) = find_moov(src)?;
    let body_len = header.size - header.len;
    let body_offset = moov_offset + header.len;
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&body_offset.to_le_bytes());
    let moov_at = out.len();
    let out_of_memory = |_| std::io::Error::from(std::io::ErrorKind::OutOfMemory);
    if body_len <= WHOLE_MAX {
        // With room for the skip tables, a ninth of the sample tables at most: to grow is to copy.
        let room = body_len + body_len / 8 + 64 * 1024;
        out.try_reserve_exact(room as usize).map_err(out_of_memory)?;
        out.resize(moov_at + body_len as usize, 0);
        src.read_exact_at(body_offset, &mut out[moov_at..])?;
    } else {
        condense(src, (body_offset, body_offset + body_len), out, MOOV_MAX)?;
    }
    let kept_len = (out.len() - moov_at) as u64;
    out[moov_at - 16..moov_at - 8].copy_from_slice(&kept_len.to_le_bytes());
    let broken = |broken: Broken| BuildError::Malformed { what: broken.what, offset: body_offset + broken.at as u64 };
    let movie = moov::parse(&out[moov_at..]).map_err(broken)?;
    let moov = moov_at..out.len();
    let mut sections = Vec::new();
    let mut walks = Vec::new();
    for trak in &movie.traks {
        let values = tables::measure(&out[moov.clone()], trak, src.size()).map_err(broken)?;
        let mut index = TrackIndex { table_samples: values.samples, samples: values.samples, ..TrackIndex::default() };
        for (width, values) in [(2, &values.stts), (1, &values.ctts), (1, &values.stsc), (1, &values.bytes)] {
            derived::write(&mut sections, width, values);
        }
        index.table_ticks = values.ticks;
        walks.push(Walk::new(index));
    }
    let skips_at = out.len();
    out.try_reserve_exact(sections.len() + 64 * 1024).map_err(out_of_memory)?;
    out.append(&mut sections);
    read_skips(out, skips_at, &mut walks).map_err(broken)?;
    let main = main_track(&movie, &walks, &out[moov.clone()]);
    let mut parts = Parts { moov, moov_offset: body_offset, movie, main, ..Parts::default() };
    walk_tables(src, out, &mut parts, &mut walks)?;
    parts.scan_end = walk_fragments(src, &mut parts, &mut walks)?;
    mark_gradual(src, out, &parts, &mut walks)?;
    let spread = finish_walks(out, &mut parts, walks);
    parts.rebase(out).map_err(broken)?;
    frames::write_spans(src, out, &mut parts)?;
    timecode::write_map(src, out, &mut parts)?;
    Ok((parts, Built { spread }))
}

/// Looks into the first sync samples of H.264 for recovery points.
fn mark_gradual(src: &dyn ReadAt, out: &[u8], parts: &Parts, walks: &mut [Walk]) -> Result<(), BuildError> {
    let Some(main) = parts.main else { return Ok(()) };
    let stsd = parts.movie.traks[main].stsd.clone();
    let Some(length_size) = avc::nal_length_size(&out[parts.moov.clone()], stsd) else { return Ok(()) };
    for &sync in &walks[main].probes {
        if nal::frames_to_recovery(src, sync, length_size)? > 0 {
            walks[main].index.gradual = true;
            break;
        }
    }
    Ok(())
}

/// The first `moov` and its header.
fn find_moov(src: &dyn ReadAt) -> Result<(u64, Header), BuildError> {
    let (end, mut offset) = (src.size(), 0);
    for _ in 0..BOXES_MAX {
        let Some(header) = Header::read(src, offset, end)? else { break };
        if &header.kind == b"moov" {
            if header.cut {
                let what = "the moov is cut off by the end of the file".to_owned();
                return Err(BuildError::Malformed { what, offset });
            }
            return Ok((offset, header));
        }
        offset += header.size;
    }
    Err(BuildError::Malformed { what: "no moov box".to_owned(), offset })
}

fn read_skips(entry: &[u8], at: usize, walks: &mut [Walk]) -> Result<(), Broken> {
    let mut sections = derived::Sections::new(entry, at);
    for walk in walks {
        walk.index.skips = Skips {
            stts: sections.next(2)?,
            ctts: sections.next(1)?,
            stsc: sections.next(1)?,
            bytes: sections.next(1)?,
        };
    }
    Ok(())
}

/// The track that counts: the first enabled video track with samples that is not a cover picture, else the first
/// video track with samples, else the longest audio track. In a fragmented file the samples are yet to come.
fn main_track(movie: &Movie, walks: &[Walk], moov: &[u8]) -> Option<usize> {
    let of = |handler: &'static [u8; 4]| {
        let with_samples = move |&t: &usize| walks[t].index.samples > 0 || movie.extends;
        (0..movie.traks.len()).filter(move |&t| &movie.traks[t].handler == handler).filter(with_samples)
    };
    let cover = |&t: &usize| {
        let kind = super::boxes::kind_at(moov, movie.traks[t].stsd.start + 12);
        matches!(&kind, b"jpeg" | b"png ") && walks[t].index.samples <= 1
    };
    let pictures = || of(b"vide").filter(|t| !cover(t));
    let longest = || {
        of(b"soun").max_by_key(|&t| {
            let seconds = walks[t].index.table_ticks as u64 / u64::from(movie.traks[t].timescale.get());
            (seconds, std::cmp::Reverse(t))
        })
    };
    pictures().find(|&t| movie.traks[t].enabled).or_else(|| pictures().next()).or_else(longest)
}

impl Walk {
    fn new(index: TrackIndex) -> Self {
        Walk {
            index,
            order: None,
            groups: Vec::new(),
            in_group: 0,
            dts: 0,
            last_sync: None,
            sync_cts: i64::MIN,
            probes: Vec::new(),
            ended: false,
        }
    }

    /// Takes the next sample; `false` when it is cut off by the end of the file.
    fn take(&mut self, sample: Sample, file_size: u64) -> Result<bool, TooFar> {
        if sample.offset.checked_add(u64::from(sample.size)).is_none_or(|end| end > file_size) {
            self.ended = true;
            return Ok(false);
        }
        let cts = sample.cts();
        if let Some(order) = &mut self.order {
            order.push(cts)?;
        }
        if sample.cts_offset < 0 {
            self.index.offset_shift = self.index.offset_shift.max(sample.cts_offset.unsigned_abs());
        }
        if sample.sync {
            (self.last_sync, self.sync_cts) = (Some(self.index.samples), cts);
            self.index.syncs += 1;
            if self.order.is_some() && self.probes.len() < PROBES_MAX {
                self.probes.push(sample);
            }
        } else if cts < self.sync_cts {
            self.index.leading = true;
        }
        self.index.samples += 1;
        self.dts = sample.dts.saturating_add(i64::from(sample.duration));
        self.index.end_ticks = self.index.end_ticks.max(self.dts);
        Ok(true)
    }
}

fn too_far(track: u32) -> impl Fn(TooFar) -> BuildError {
    move |TooFar { sample }| {
        let what = format!("track {track}: sample {sample} is presented too far from where it is decoded");
        BuildError::Malformed { what, offset: 0 }
    }
}

/// One pass over the samples in the `moov` of the main track; the others are only checked against the file's end.
fn walk_tables(src: &dyn ReadAt, out: &[u8], parts: &mut Parts, walks: &mut [Walk]) -> Result<(), BuildError> {
    parts.tracks = walks.iter().map(|walk| walk.index).collect();
    let view = parts.view(out);
    for (track, walk) in walks.iter_mut().enumerate() {
        let tables = view.tables(track);
        let (samples, main) = (walk.index.table_samples, parts.main == Some(track));
        if main {
            walk.order = Some(OrderBuilder::new(SKIP as u64));
        }
        let last = samples.checked_sub(1).and_then(|last| tables.cursor(last).next());
        let whole = last.is_none_or(|last| last.offset.saturating_add(u64::from(last.size)) <= src.size());
        if main || !whole {
            walk.index.samples = 0;
            for sample in tables.cursor(0) {
                if !walk.take(sample, src.size()).map_err(too_far(view.trak(track).id))? {
                    break;
                }
            }
            walk.index.table_samples = walk.index.samples;
        } else {
            walk.index.syncs = tables.syncs_before(samples) as u64;
            walk.dts = walk.index.table_ticks;
            walk.index.end_ticks = walk.index.table_ticks;
        }
        walk.index.table_ticks = walk.dts;
    }
    Ok(())
}

/// One pass over the top-level boxes of a fragmented file; returns where it ended.
fn walk_fragments(src: &dyn ReadAt, parts: &mut Parts, walks: &mut [Walk]) -> Result<u64, BuildError> {
    let end = src.size();
    if !parts.movie.extends {
        return Ok(end);
    }
    let view = View { tracks: &[], entry: &[], moov: &[], movie: &parts.movie, scan_end: end };
    let tracks: Vec<_> = (0..parts.movie.traks.len()).map(|track| view.fragment_track(track)).collect();
    // Runs without per-sample fields cost no bytes in their moof, but their samples cost bytes in the file.
    let mut unwritten_left = end.saturating_add(65_536);
    let mut offset = 0;
    for _ in 0..BOXES_MAX {
        let Some(header) = Header::read(src, offset, end)? else { break };
        if &header.kind == b"moof" {
            if header.cut {
                break;
            }
            if header.size > MOOF_MAX {
                let what = format!("a moof of {} bytes; up to {MOOF_MAX} are indexed", header.size);
                return Err(BuildError::Malformed { what, offset });
            }
            parts.fragmented = true;
            let mut moof = vec![0; (header.size - header.len) as usize];
            src.read_exact_at(offset + header.len, &mut moof)?;
            let broken = |broken: Broken| BuildError::Malformed {
                what: broken.what,
                offset: offset + header.len + broken.at as u64,
            };
            let found = fragments::parse(&moof, offset, &tracks).map_err(broken)?;
            for (track, fragment) in found.iter().enumerate() {
                let unwritten = fragment.claim().unwritten;
                unwritten_left = unwritten_left.checked_sub(unwritten).ok_or_else(|| BuildError::Malformed {
                    what: "fragments claim more samples than the file has bytes".to_owned(),
                    offset,
                })?;
                let video = tracks[track].video;
                walks[track].take_fragment((&moof, offset), fragment, video, end).map_err(too_far(tracks[track].id))?;
            }
        }
        offset += header.size;
    }
    Ok(offset.min(end))
}

impl Walk {
    fn take_fragment(
        &mut self,
        (moof, offset): (&[u8], u64),
        fragment: &Fragment,
        video: bool,
        file_size: u64,
    ) -> Result<(), TooFar> {
        if self.ended || fragment.is_empty() {
            return Ok(());
        }
        if self.groups.is_empty() || self.in_group >= GROUP {
            let sync = self.last_sync.map_or(0, |sync| sync + 1);
            self.groups.extend([offset, self.index.samples, self.dts as u64, sync]);
            self.in_group = 0;
        }
        for sample in fragment.cursor_at(moof, Place::start(self.dts), video) {
            if !self.take(sample, file_size)? {
                break;
            }
            self.in_group += 1;
        }
        Ok(())
    }
}

/// Writes what the walks found; returns the spread of the main track.
fn finish_walks(out: &mut Vec<u8>, parts: &mut Parts, walks: Vec<Walk>) -> Spread {
    let mut spread = Spread::default();
    parts.tracks.clear();
    for walk in walks {
        let (cuts, found) = walk.order.map(OrderBuilder::finish).unwrap_or_default();
        if found.count > 0 {
            spread = found;
        }
        derived::write(out, 2, &cuts);
        derived::write(out, 4, &walk.groups);
        let index = &walk.index;
        let facts = [
            index.table_samples,
            index.samples,
            index.table_ticks as u64,
            index.end_ticks as u64,
            index.syncs,
            u64::from(index.leading) | u64::from(index.gradual) << 1,
            u64::from(index.offset_shift),
        ];
        derived::write(out, 1, &facts);
        parts.tracks.push(walk.index);
    }
    let main = parts.main.map_or(0, |main| main as u64 + 1);
    derived::write(out, 1, &[main, u64::from(parts.fragmented), parts.scan_end]);
    spread
}
