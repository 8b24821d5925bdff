//! The `moov` box: which tracks there are and where their sample tables lie in it.
//!
//! Positions only, no copies of tables: the same code reads a `moov` fresh from a file and one kept in an index
//! entry. Must not know frames, timecode or edit semantics.

use super::boxes::{BoxRef, Broken, be16, be32, be64, children, find, kind_at};
use super::condense::{PACKED_CTTS, PACKED_STSZ, PACKED_STTS};
use std::num::NonZeroU32;
use std::ops::Range;

/// Tracks of one movie; real files have under a hundred.
const TRACKS_MAX: usize = 1024;
/// Edits of one track; each costs a search when the index is built.
const EDITS_MAX: u32 = 4096;

/// Rows of one width, as they lie in the `moov`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) at: usize,
    pub(crate) count: u32,
    /// Of `stts` and `ctts`: 0 for pairs (count, value) as in the file, else rows of one 16-bit number for one
    /// sample, to be multiplied by this; see `condense`.
    pub(crate) scale: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    Uniform {
        size: u32,
        count: u32,
    },
    /// `bits` per row: 4, 8, 16, 24 or 32.
    Table {
        rows: Rows,
        bits: u8,
    },
}

impl Sizes {
    pub(crate) fn count(self) -> u32 {
        match self {
            Sizes::Uniform { count, .. } => count,
            Sizes::Table { rows, .. } => rows.count,
        }
    }
}

/// One row of `elst`. The duration counts in the movie's timescale, the media time in the track's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) duration: u64,
    /// `None`: an empty edit.
    pub(crate) media_time: Option<u64>,
    /// 1x speed; anything else cannot be mapped to frames.
    pub(crate) normal_rate: bool,
}

/// Defaults of `trex`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Defaults {
    pub(crate) description: u32,
    pub(crate) duration: u32,
    pub(crate) size: u32,
    pub(crate) flags: u32,
}

/// One `trak`: decoded headers, and the positions of what stays where it is.
#[derive(Clone, Debug)]
pub(crate) struct Trak {
    pub(crate) id: u32,
    pub(crate) enabled: bool,
    /// Width and height of `tkhd`, whole pixels.
    pub(crate) display: (u32, u32),
    pub(crate) timescale: NonZeroU32,
    pub(crate) language: u16,
    pub(crate) handler: [u8; 4],
    pub(crate) tkhd: Range<usize>,
    pub(crate) mdhd: Range<usize>,
    pub(crate) hdlr: Range<usize>,
    pub(crate) stsd: Range<usize>,
    pub(crate) edits: Vec<Edit>,
    /// Tracks named by `tref` of type `tmcd`.
    pub(crate) timecode_refs: Vec<u32>,
    pub(crate) stts: Rows,
    pub(crate) ctts: Rows,
    pub(crate) stsc: Rows,
    pub(crate) sizes: Sizes,
    pub(crate) chunks: Rows,
    /// `co64` rather than `stco`.
    pub(crate) chunks_wide: bool,
    /// `None`: every sample is a sync sample.
    pub(crate) stss: Option<Rows>,
    pub(crate) defaults: Defaults,
}

/// A parsed `moov`.
#[derive(Clone, Debug)]
pub(crate) struct Movie {
    pub(crate) timescale: NonZeroU32,
    pub(crate) traks: Vec<Trak>,
    /// It has an `mvex`: fragments may follow.
    pub(crate) extends: bool,
}

/// Parses the body of a `moov`.
pub(crate) fn parse(bytes: &[u8]) -> Result<Movie, Broken> {
    let mut movie = Movie { timescale: NonZeroU32::MIN, traks: Vec::new(), extends: false };
    let (mut header_seen, mut defaults) = (false, Vec::new());
    for child in children(bytes, 0..bytes.len()) {
        let child = child?;
        match &child.kind {
            b"mvhd" if !header_seen => {
                movie.timescale = timescale_of(bytes, &child)?;
                header_seen = true;
            }
            b"trak" => {
                if movie.traks.len() == TRACKS_MAX {
                    return Err(Broken::new("more tracks than any file needs", child.start));
                }
                movie.traks.extend(parse_trak(bytes, child)?);
            }
            b"mvex" => {
                movie.extends = true;
                defaults = parse_mvex(bytes, child.body)?;
            }
            _ => {}
        }
    }
    if !header_seen {
        return Err(Broken::new("moov without mvhd", 0));
    }
    for trak in &mut movie.traks {
        if let Some((_, found)) = defaults.iter().find(|(id, _)| *id == trak.id) {
            trak.defaults = *found;
        }
    }
    Ok(movie)
}

fn parse_mvex(bytes: &[u8], range: Range<usize>) -> Result<Vec<(u32, Defaults)>, Broken> {
    let mut defaults = Vec::new();
    for child in children(bytes, range) {
        let child = child?;
        if &child.kind == b"trex" && defaults.len() < TRACKS_MAX {
            need(&child, 24)?;
            let word = |n: usize| be32(bytes, child.body.start + 4 + n * 4);
            let row = Defaults { description: word(1), duration: word(2), size: word(3), flags: word(4) };
            defaults.push((word(0), row));
        }
    }
    Ok(defaults)
}

/// `timescale` of `mvhd` or `mdhd`, which begin alike.
fn timescale_of(bytes: &[u8], header: &BoxRef) -> Result<NonZeroU32, Broken> {
    need(header, 20)?;
    let at = header.body.start;
    let version = bytes[at];
    if version == 1 {
        need(header, 32)?;
    }
    let timescale = be32(bytes, at + if version == 1 { 20 } else { 12 });
    NonZeroU32::new(timescale).ok_or_else(|| Broken::new("timescale 0", at))
}

fn need(header: &BoxRef, len: usize) -> Result<(), Broken> {
    if header.body.len() >= len {
        return Ok(());
    }
    let what = format!("box {} of {} bytes is too short", super::boxes::printable(header.kind), header.body.len());
    Err(Broken::new(what, header.start))
}

/// `None` for a track without media information, which nothing can be done with.
fn parse_trak(bytes: &[u8], trak: BoxRef) -> Result<Option<Trak>, Broken> {
    let (mut tkhd, mut mdia, mut edits, mut refs) = (None, None, Vec::new(), Vec::new());
    for child in children(bytes, trak.body) {
        let child = child?;
        match &child.kind {
            b"tkhd" if tkhd.is_none() => tkhd = Some(child),
            b"mdia" if mdia.is_none() => mdia = Some(child.body),
            b"edts" => {
                if let Some(elst) = find(bytes, child.body, b"elst")? {
                    edits = parse_elst(bytes, elst)?;
                }
            }
            b"tref" => {
                if let Some(ids) = find(bytes, child.body, b"tmcd")? {
                    refs = ids.step_by(4).take(TRACKS_MAX).map(|at| be32(bytes, at)).collect();
                }
            }
            _ => {}
        }
    }
    let (Some(tkhd), Some(mdia)) = (tkhd, mdia) else { return Ok(None) };
    need(&tkhd, 84)?;
    let version = bytes[tkhd.body.start];
    if version == 1 {
        need(&tkhd, 96)?;
    }
    let id = be32(bytes, tkhd.body.start + if version == 1 { 20 } else { 12 });
    let enabled = be32(bytes, tkhd.body.start) & 1 != 0;
    let pixels = tkhd.body.start + if version == 1 { 88 } else { 76 };
    let display = (be32(bytes, pixels) >> 16, be32(bytes, pixels + 4) >> 16);
    let Some(mut parsed) = parse_mdia(bytes, mdia)? else { return Ok(None) };
    parsed = Trak { id, enabled, display, tkhd: tkhd.body, edits, timecode_refs: refs, ..parsed };
    Ok(Some(parsed))
}

fn parse_mdia(bytes: &[u8], mdia: Range<usize>) -> Result<Option<Trak>, Broken> {
    let (mut mdhd, mut hdlr, mut minf) = (None, None, None);
    for child in children(bytes, mdia) {
        let child = child?;
        match &child.kind {
            b"mdhd" if mdhd.is_none() => mdhd = Some(child),
            b"hdlr" if hdlr.is_none() => hdlr = Some(child.body),
            b"minf" if minf.is_none() => minf = Some(child.body),
            _ => {}
        }
    }
    let (Some(mdhd), Some(hdlr), Some(minf)) = (mdhd, hdlr, minf) else { return Ok(None) };
    let Some(stbl) = find(bytes, minf, b"stbl")? else { return Ok(None) };
    let timescale = timescale_of(bytes, &mdhd)?;
    let language = be16(bytes, mdhd.body.start + if bytes[mdhd.body.start] == 1 { 32 } else { 20 });
    let mut trak = Trak {
        id: 0,
        enabled: false,
        display: (0, 0),
        timescale,
        language,
        handler: kind_at(bytes, hdlr.start + 8),
        tkhd: 0..0,
        mdhd: mdhd.body,
        hdlr,
        stsd: 0..0,
        edits: Vec::new(),
        timecode_refs: Vec::new(),
        stts: Rows::default(),
        ctts: Rows::default(),
        stsc: Rows::default(),
        sizes: Sizes::Uniform { size: 0, count: 0 },
        chunks: Rows::default(),
        chunks_wide: false,
        stss: None,
        defaults: Defaults::default(),
    };
    for child in children(bytes, stbl) {
        parse_table(bytes, child?, &mut trak)?;
    }
    Ok(Some(trak))
}

fn parse_table(bytes: &[u8], child: BoxRef, trak: &mut Trak) -> Result<(), Broken> {
    match &child.kind {
        b"stsd" => trak.stsd = child.body,
        b"stts" => trak.stts = rows(bytes, &child, 8)?,
        b"ctts" => trak.ctts = rows(bytes, &child, 8)?,
        b"stsc" => trak.stsc = rows(bytes, &child, 12)?,
        b"stss" => trak.stss = Some(rows(bytes, &child, 4)?),
        b"stco" => (trak.chunks, trak.chunks_wide) = (rows(bytes, &child, 4)?, false),
        b"co64" => (trak.chunks, trak.chunks_wide) = (rows(bytes, &child, 8)?, true),
        PACKED_STTS => trak.stts = packed_rows(bytes, &child)?,
        PACKED_CTTS => trak.ctts = packed_rows(bytes, &child)?,
        PACKED_STSZ => {
            need(&child, 8)?;
            let rows = fitting(&child, 8, be32(bytes, child.body.start + 4), 24)?;
            trak.sizes = Sizes::Table { rows, bits: 24 };
        }
        b"stsz" => {
            need(&child, 12)?;
            let (size, count) = (be32(bytes, child.body.start + 4), be32(bytes, child.body.start + 8));
            trak.sizes = if size != 0 {
                Sizes::Uniform { size, count }
            } else {
                Sizes::Table { rows: fitting(&child, 12, count, 32)?, bits: 32 }
            };
        }
        b"stz2" => {
            need(&child, 12)?;
            let bits = (be32(bytes, child.body.start + 4) & 0xff) as u8;
            if !matches!(bits, 4 | 8 | 16) {
                return Err(Broken::new(format!("stz2 with fields of {bits} bits"), child.start));
            }
            let count = be32(bytes, child.body.start + 8);
            trak.sizes = Sizes::Table { rows: fitting(&child, 12, count, u64::from(bits))?, bits };
        }
        _ => {}
    }
    Ok(())
}

/// The rows of a table whose count follows version and flags.
fn rows(bytes: &[u8], table: &BoxRef, width: u64) -> Result<Rows, Broken> {
    need(table, 8)?;
    fitting(table, 8, be32(bytes, table.body.start + 4), width * 8)
}

fn packed_rows(bytes: &[u8], table: &BoxRef) -> Result<Rows, Broken> {
    need(table, 12)?;
    let rows = fitting(table, 12, be32(bytes, table.body.start + 4), 16)?;
    Ok(Rows { scale: be32(bytes, table.body.start + 8).max(1), ..rows })
}

fn fitting(table: &BoxRef, header: usize, count: u32, bits: u64) -> Result<Rows, Broken> {
    let room = (table.body.len() - header) as u64;
    if (u64::from(count) * bits).div_ceil(8) > room {
        let what = format!("{} claims {count} entries in {room} bytes", super::boxes::printable(table.kind));
        return Err(Broken::new(what, table.start));
    }
    Ok(Rows { at: table.body.start + header, count, scale: 0 })
}

fn parse_elst(bytes: &[u8], elst: Range<usize>) -> Result<Vec<Edit>, Broken> {
    let start = elst.start;
    if elst.len() < 8 {
        return Err(Broken::new("box elst is too short", start));
    }
    let wide = bytes[start] == 1;
    let table = BoxRef { kind: *b"elst", start, body: elst };
    let rows = rows(bytes, &table, if wide { 20 } else { 12 })?;
    if rows.count > EDITS_MAX {
        return Err(Broken::new(format!("{} edits are more than the {EDITS_MAX} supported", rows.count), start));
    }
    let edit = |n: usize| {
        let at = rows.at + n * if wide { 20 } else { 12 };
        let (duration, time) = if wide {
            (be64(bytes, at), be64(bytes, at + 8) as i64)
        } else {
            (u64::from(be32(bytes, at)), i64::from(be32(bytes, at + 4) as i32))
        };
        // Rate is 16.16 fixed point.
        let normal_rate = be32(bytes, at + if wide { 16 } else { 8 }) == 0x0001_0000;
        Edit { duration, media_time: u64::try_from(time).ok(), normal_rate }
    };
    Ok((0..rows.count as usize).map(edit).collect())
}
