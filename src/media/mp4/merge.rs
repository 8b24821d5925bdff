//! Tracks that arrive apart, written as one fragmented MP4: a `moov` of all of them, and fragments that hold the
//! samples of several.
//!
//! PURE. Media bytes stay in the buffers they came in; `moov` and `moof` are copies with other track ids, times and
//! data offsets. Which fragments belong together is decided in [`super::align`].
//! Source: ISO/IEC 14496-12 §8.3, §8.8.

use super::arrival::Init;
use super::boxes::{BoxRef, Broken, be32, be64, children};
use super::write::Boxes;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::ops::Range;

const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
const BASE_DATA_OFFSET: u32 = 1;
const DATA_OFFSET: u32 = 1;
const MDAT_HEADER: u64 = 8;

impl Init {
    /// Tracks with pictures.
    pub(super) fn videos(&self) -> usize {
        (0..self.track_count()).filter(|track| self.is_video(*track)).count()
    }

    /// The boxes of its tracks.
    fn traks(&self) -> Result<Vec<&[u8]>, Broken> {
        let mut found = Vec::new();
        for child in children(&self.moov, 0..self.moov.len()) {
            let child = child?;
            if self.movie.traks.iter().any(|trak| child.body.contains(&trak.tkhd.start)) {
                found.extend(self.moov.get(child.start..child.body.end));
            }
        }
        Ok(found)
    }
}

/// A fragment that goes into a merged one.
pub(super) struct Member<'a> {
    /// `moof`, then the `mdat` in pieces.
    pub(super) rope: &'a [Bytes],
    /// (`track_ID` there, `track_ID` here, ticks that are added to its decode times).
    pub(super) tracks: &'a [(u32, u32, i64)],
}

/// `ftyp` and `moov` for the tracks of several init segments; `ids` are the new track ids of each.
pub(super) fn init<'a>(inits: impl Iterator<Item = (&'a Init, &'a [u32])> + Clone) -> Result<Bytes, Broken> {
    let scale = inits.clone().next().map_or(1000, |(init, _)| init.movie.timescale.get());
    let next_id = inits.clone().flat_map(|(_, ids)| ids).max().map_or(1, |id| id.saturating_add(1));
    let mut traks = Vec::new();
    for (init, ids) in inits.clone() {
        for (trak, id) in init.traks()?.into_iter().zip(ids) {
            traks.push(renumbered(trak, *id, (init.movie.timescale.get(), scale))?);
        }
    }
    let mut out = Boxes::new();
    out.boxed(b"ftyp", |b| b.raw(b"iso6\0\0\0\0iso6mp41"));
    out.boxed(b"moov", |b| {
        b.full(b"mvhd", 0, 0, |b| {
            b.zeros(8);
            b.u32(scale);
            b.u32(0);
            // Rate 1, volume 1.
            b.u32(0x0001_0000);
            b.u16(0x0100);
            b.zeros(10);
            b.matrix();
            b.zeros(24);
            b.u32(next_id);
        });
        traks.iter().for_each(|trak| b.raw(trak));
        b.boxed(b"mvex", |b| {
            for (init, ids) in inits {
                for (defaults, id) in init.movie.traks.iter().map(|trak| trak.defaults).zip(ids) {
                    let words = [*id, defaults.description, defaults.duration, defaults.size, defaults.flags];
                    b.full(b"trex", 0, 0, |b| words.iter().for_each(|word| b.u32(*word)));
                }
            }
        });
    });
    Ok(out.into_bytes().into())
}

/// A `trak` box with another id; the durations of its edits count in another timescale of the movie.
fn renumbered(trak: &[u8], id: u32, (from, to): (u32, u32)) -> Result<Vec<u8>, Broken> {
    let mut copy = trak.to_vec();
    let header = if be32(trak, 0) == 1 { 16 } else { 8 };
    for child in children(trak, header..trak.len()) {
        let BoxRef { kind, body, .. } = child?;
        match &kind {
            b"tkhd" => {
                let at = body.start + if be32(trak, body.start) >> 24 == 1 { 20 } else { 12 };
                patch(&mut copy, at, &id.to_be_bytes());
            }
            b"edts" if from != to => {
                for list in children(trak, body) {
                    let list = list?;
                    if &list.kind == b"elst" {
                        rescale_edits(trak, &list.body, &mut copy, (from, to));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(copy)
}

fn rescale_edits(trak: &[u8], list: &Range<usize>, copy: &mut [u8], (from, to): (u32, u32)) {
    let wide = be32(trak, list.start) >> 24 == 1;
    let row = if wide { 20 } else { 12 };
    let scaled = |duration: u64| u128::from(duration) * u128::from(to) / u128::from(from.max(1));
    for at in (list.start + 8..list.end).step_by(row).take_while(|at| at + row <= list.end) {
        if wide {
            let duration = u64::try_from(scaled(be64(trak, at))).unwrap_or(u64::MAX);
            patch(copy, at, &duration.to_be_bytes());
        } else {
            let duration = u32::try_from(scaled(u64::from(be32(trak, at)))).unwrap_or(u32::MAX);
            patch(copy, at, &duration.to_be_bytes());
        }
    }
}

fn patch(bytes: &mut [u8], at: usize, with: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + with.len()) {
        place.copy_from_slice(with);
    }
}

/// A `trun` whose data offset is filled in when the size of the `moof` is known: where the field is, and which byte of
/// the media it means.
struct Pending {
    field: usize,
    media: u64,
}

/// One fragment of several, in buffers.
pub(super) fn fragment(members: &[Member<'_>], sequence: u32) -> Result<Vec<Bytes>, Broken> {
    let mut media: VecDeque<Bytes> = VecDeque::new();
    let mut trafs = Vec::new();
    let mut pending = Vec::new();
    let mut before = 0;
    for member in members {
        let (moof, mdat) = member.rope.split_first().ok_or_else(|| Broken::new("an empty fragment", 0))?;
        let body = payload(mdat)?;
        let length: u64 = body.iter().map(|piece| piece.len() as u64).sum();
        let header = mdat.iter().map(|piece| piece.len() as u64).sum::<u64>() - length;
        let source = Source { moof, media_at: moof.len() as u64 + header, length, before };
        let header = if be32(moof, 0) == 1 { 16 } else { 8 };
        for child in children(moof, header..moof.len()) {
            let child = child?;
            if &child.kind == b"traf" {
                source.traf(child.body, member.tracks, (&mut trafs, &mut pending))?;
            }
        }
        before += length;
        media.extend(body);
    }
    let moof_size = 8 + 16 + trafs.len();
    let mdat_size = before + MDAT_HEADER;
    let size = |size: u64| u32::try_from(size).map_err(|_| Broken::new("more than 4 GiB in one fragment", 0));
    let mut out = Vec::with_capacity(moof_size + 8);
    out.extend_from_slice(&size(moof_size as u64)?.to_be_bytes());
    out.extend_from_slice(b"moof\0\0\0\x10mfhd\0\0\0\0");
    out.extend_from_slice(&sequence.to_be_bytes());
    let trafs_at = out.len();
    out.append(&mut trafs);
    for Pending { field, media } in pending {
        let offset = size(moof_size as u64 + MDAT_HEADER + media)?;
        patch(&mut out, trafs_at + field, &offset.to_be_bytes());
    }
    out.extend_from_slice(&size(mdat_size)?.to_be_bytes());
    out.extend_from_slice(b"mdat");
    Ok(std::iter::once(out.into()).chain(media).collect())
}

/// What is in an `mdat` box, without its header.
fn payload(mdat: &[Bytes]) -> Result<VecDeque<Bytes>, Broken> {
    let mut pieces: VecDeque<Bytes> = mdat.iter().cloned().collect();
    let first: Vec<u8> = mdat.iter().flat_map(|piece| piece.iter()).take(8).copied().collect();
    if first.len() < 8 || &first[4..] != b"mdat" {
        return Err(Broken::new("a fragment without media", 0));
    }
    let mut header = if be32(&first, 0) == 1 { 16 } else { 8 };
    while header > 0 {
        let Some(piece) = pieces.front_mut() else { return Err(Broken::new("an mdat shorter than its header", 0)) };
        let n = piece.len().min(header);
        piece.advance(n);
        header -= n;
        if piece.is_empty() {
            pieces.pop_front();
        }
    }
    Ok(pieces)
}

/// One of the fragments: its `moof`, where its media lies behind that and how much it is, and what is before it in the
/// merged one.
struct Source<'a> {
    moof: &'a Bytes,
    media_at: u64,
    length: u64,
    before: u64,
}

impl Source<'_> {
    /// Writes a `traf` under its new id and time.
    fn traf(
        &self,
        body: Range<usize>,
        tracks: &[(u32, u32, i64)],
        (out, pending): (&mut Vec<u8>, &mut Vec<Pending>),
    ) -> Result<(), Broken> {
        let moof = self.moof;
        let start = body.start;
        let all: Vec<BoxRef> = children(moof, body).collect::<Result<_, _>>()?;
        let header = all.iter().find(|child| &child.kind == b"tfhd" && child.body.len() >= 8);
        let Some(header) = header.map(|header| header.body.clone()) else {
            return Err(Broken::new("a traf without tfhd", start));
        };
        let (flags, id) = (be32(moof, header.start), be32(moof, header.start + 4));
        let Some((_, id, shift)) = tracks.iter().find(|(there, ..)| *there == id) else { return Ok(()) };
        let traf_at = out.len();
        let mut boxes = Boxes::new();
        let fields = header.start + 8 + if flags & BASE_DATA_OFFSET != 0 { 8 } else { 0 };
        let kept = flags & 0xff_ffff & !BASE_DATA_OFFSET | DEFAULT_BASE_IS_MOOF;
        boxes.full(b"tfhd", 0, kept, |b| {
            b.u32(*id);
            b.raw(moof.get(fields..header.end).unwrap_or_default());
        });
        for child in &all {
            match &child.kind {
                b"tfhd" | b"trun" => {}
                b"tfdt" if child.body.len() >= 8 => {
                    let at = child.body.start;
                    let wide = be32(moof, at) >> 24 == 1;
                    let time = if wide { be64(moof, at + 4) } else { u64::from(be32(moof, at + 4)) };
                    boxes.full(b"tfdt", 1, 0, |b| b.u64(time.saturating_add_signed(*shift)));
                }
                b"saio" | b"senc" => return Err(Broken::new("encrypted tracks cannot be merged", child.start)),
                _ => boxes.raw(moof.get(child.start..child.body.end).unwrap_or_default()),
            }
        }
        let mut content = boxes.into_bytes();
        let absolute = flags & BASE_DATA_OFFSET != 0;
        let mut origin = None;
        for run in all.iter().filter(|child| &child.kind == b"trun") {
            let field = self.run(run, absolute, &mut origin, &mut content)?;
            pending.extend(field.map(|Pending { field, media }| Pending { field: traf_at + 8 + field, media }));
        }
        let size = u32::try_from(content.len() + 8).map_err(|_| Broken::new("a traf of 4 GiB", start))?;
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(b"traf");
        out.append(&mut content);
        Ok(())
    }

    /// Writes a `trun`; says where its data offset stands, if it has one. `origin` is where the data of the first run
    /// was, where offsets count from somewhere in a file.
    fn run(
        &self,
        run: &BoxRef,
        absolute: bool,
        origin: &mut Option<i64>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Pending>, Broken> {
        let body = self.moof.get(run.body.clone()).unwrap_or_default();
        if body.len() < 8 {
            return Err(Broken::new("box trun is too short", run.start));
        }
        let flags = be32(body, 0);
        let has_offset = flags & DATA_OFFSET != 0;
        let first = origin.is_none();
        let offset = if has_offset { i64::from(be32(body, 8) as i32) } else { 0 };
        let from = *origin.get_or_insert(offset);
        // Runs without an offset follow each other; the first one begins with the media.
        let media = if absolute || !has_offset {
            u64::try_from(offset.saturating_sub(from)).ok()
        } else {
            u64::try_from(offset).ok().and_then(|offset| offset.checked_sub(self.media_at))
        };
        let media = media.filter(|media| *media <= self.length);
        let media = media.ok_or_else(|| Broken::new("trun data outside of its mdat", run.start))?;
        let written = has_offset || first;
        let size = body.len() + 8 + if written && !has_offset { 4 } else { 0 };
        let size = u32::try_from(size).map_err(|_| Broken::new("a trun of 4 GiB", run.start))?;
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(b"trun");
        let with_offset = if written { DATA_OFFSET } else { 0 };
        out.extend_from_slice(&(flags | with_offset).to_be_bytes());
        out.extend_from_slice(&body[4..8]);
        let field = out.len();
        if written {
            out.extend_from_slice(&[0; 4]);
        }
        out.extend_from_slice(body.get(if has_offset { 12 } else { 8 }..).unwrap_or_default());
        Ok(written.then_some(Pending { field, media: self.before + media }))
    }
}
