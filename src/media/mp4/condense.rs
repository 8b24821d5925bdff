//! A `moov` of tens of megabytes, copied without what an index has no use for, and with tables of one row per sample
//! at two or three bytes per row instead of four or eight.
//!
//! Day-long video with B-frames or a variable rate has such tables; a small `moov` is kept as it lies in the file.
//! Reads through a window; what it writes is again a `moov` body, with box types of its own for packed tables.

use super::boxes::be32;
use super::view::Header;
use crate::media::ReadAt;
use crate::media::index::BuildError;

/// Packed `stts` and `ctts`: version and flags, rows, scale, then one 16-bit number per sample (signed in `ctts`).
pub(crate) const PACKED_STTS: &[u8; 4] = b"wtts";
pub(crate) const PACKED_CTTS: &[u8; 4] = b"wctt";
/// Packed `stsz`: version and flags, rows, then 24 bits per sample.
pub(crate) const PACKED_STSZ: &[u8; 4] = b"wtsz";

/// Tables below this size stay as they are.
const PACKED_FROM: u64 = 256 * 1024;
const WINDOW: usize = 64 * 1024;
const BOXES_MAX: u32 = 1 << 20;
/// Containers that are copied child by child, by depth below the `moov`.
const DESCENT: [&[u8; 4]; 4] = [b"trak", b"mdia", b"minf", b"stbl"];
/// Nothing that an index or a written chunk needs.
const LEFT_OUT: [&[u8; 4]; 11] =
    [b"udta", b"meta", b"free", b"skip", b"uuid", b"sdtp", b"sbgp", b"sgpd", b"subs", b"saiz", b"saio"];

/// Copies the body of a `moov`, `start..end` of the file, to `out`, which may grow to `len_max`.
pub(crate) fn condense(
    src: &dyn ReadAt,
    (start, end): (u64, u64),
    out: &mut Vec<u8>,
    len_max: usize,
) -> Result<(), BuildError> {
    let mut copy = Copy { src, out, len_max, boxes_left: BOXES_MAX };
    copy.children(start, end, 0)
}

struct Copy<'a> {
    src: &'a dyn ReadAt,
    out: &'a mut Vec<u8>,
    len_max: usize,
    boxes_left: u32,
}

impl Copy<'_> {
    /// At most four levels deep: only the names of [`DESCENT`], in that order, are entered.
    fn children(&mut self, mut at: u64, end: u64, depth: usize) -> Result<(), BuildError> {
        while let Some(header) = Header::read(self.src, at, end)? {
            let broken = |what: &str| BuildError::Malformed { what: what.to_owned(), offset: at };
            self.boxes_left = self.boxes_left.checked_sub(1).ok_or_else(|| broken("too many boxes in the moov"))?;
            if header.cut {
                return Err(broken("a box does not fit its parent"));
            }
            let body = (at + header.len, at + header.size);
            if DESCENT.get(depth).is_some_and(|kind| **kind == header.kind) {
                let place = self.begin(header.kind);
                self.children(body.0, body.1, depth + 1)?;
                self.end(place);
            } else if !LEFT_OUT.contains(&&header.kind) {
                self.table(header.kind, body)?;
            }
            at = body.1;
        }
        Ok(())
    }

    fn begin(&mut self, kind: [u8; 4]) -> usize {
        let place = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        self.out.extend_from_slice(&kind);
        place
    }

    fn end(&mut self, place: usize) {
        // `len_max` is far below 4 GiB.
        let size = (self.out.len() - place) as u32;
        self.out[place..place + 4].copy_from_slice(&size.to_be_bytes());
    }

    fn reserve(&mut self, len: u64, at: u64) -> Result<(), BuildError> {
        let room = self.len_max.saturating_sub(self.out.len()) as u64;
        if len > room {
            let what = format!("the moov needs more than the {} bytes that are indexed", self.len_max);
            return Err(BuildError::Malformed { what, offset: at });
        }
        let out_of_memory = |_| std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        self.out.try_reserve_exact(len as usize).map_err(out_of_memory)?;
        Ok(())
    }

    fn table(&mut self, kind: [u8; 4], (start, end): (u64, u64)) -> Result<(), BuildError> {
        let packed = match &kind {
            _ if end - start < PACKED_FROM => false,
            b"stts" => self.pack_runs(PACKED_STTS, start, end, false)?,
            b"ctts" => self.pack_runs(PACKED_CTTS, start, end, true)?,
            b"stsz" => self.pack_sizes(start, end)?,
            _ => false,
        };
        if packed {
            return Ok(());
        }
        self.reserve(end - start + 8, start)?;
        let place = self.begin(kind);
        let from = self.out.len();
        self.out.resize(from + (end - start) as usize, 0);
        self.src.read_exact_at(start, &mut self.out[from..])?;
        self.end(place);
        Ok(())
    }

    /// `false`: it would not get smaller, or does not fit 16 bits.
    fn pack_runs(&mut self, kind: &[u8; 4], start: u64, end: u64, signed: bool) -> Result<bool, BuildError> {
        let mut head = [0; 8];
        self.src.read_exact_at(start, &mut head)?;
        let rows = u64::from(be32(&head, 4));
        if rows > (end - start - 8) / 8 {
            return Ok(false);
        }
        let (mut samples, mut scale) = (0u64, 0u32);
        let mut most = 0u32;
        let value = |row: &[u8]| if signed { be32(row, 4) as i32 as i64 } else { i64::from(be32(row, 4)) };
        self.rows(start + 8, rows, 8, |row| {
            samples = samples.saturating_add(u64::from(be32(row, 0)));
            // Magnitudes of 32-bit numbers fit 32 bits.
            let magnitude = value(row).unsigned_abs() as u32;
            most = most.max(magnitude);
            scale = gcd(scale, magnitude);
        })?;
        let scale = scale.max(1);
        let limit = if signed { i16::MAX as u32 } else { u32::from(u16::MAX) };
        if samples.saturating_mul(2) >= rows * 8 || most / scale > limit {
            return Ok(false);
        }
        self.reserve(samples * 2 + 20, start)?;
        let place = self.begin(*kind);
        self.out.extend_from_slice(&head[..4]);
        // Samples are fewer than four times the rows, which are 32-bit: bounded by the box that held them.
        self.out.extend_from_slice(&(samples as u32).to_be_bytes());
        self.out.extend_from_slice(&scale.to_be_bytes());
        let (src, out) = (self.src, &mut *self.out);
        windows(src, start + 8, rows, 8, |row| {
            let packed = (value(row) / i64::from(scale)) as u16;
            for _ in 0..be32(row, 0) {
                out.extend_from_slice(&packed.to_be_bytes());
            }
        })?;
        self.end(place);
        Ok(true)
    }

    fn pack_sizes(&mut self, start: u64, end: u64) -> Result<bool, BuildError> {
        let mut head = [0; 12];
        self.src.read_exact_at(start, &mut head)?;
        let rows = u64::from(be32(&head, 8));
        if be32(&head, 4) != 0 || rows > (end - start - 12) / 4 {
            return Ok(false);
        }
        let mut most = 0;
        self.rows(start + 12, rows, 4, |row| most = most.max(be32(row, 0)))?;
        if most >= 1 << 24 {
            return Ok(false);
        }
        self.reserve(rows * 3 + 16, start)?;
        let place = self.begin(*PACKED_STSZ);
        self.out.extend_from_slice(&head[..4]);
        self.out.extend_from_slice(&head[8..]);
        let (src, out) = (self.src, &mut *self.out);
        windows(src, start + 12, rows, 4, |row| out.extend_from_slice(&row[1..4]))?;
        self.end(place);
        Ok(true)
    }

    fn rows(&self, at: u64, rows: u64, width: usize, take: impl FnMut(&[u8])) -> Result<(), BuildError> {
        windows(self.src, at, rows, width, take)
    }
}

/// Calls `take` with each of `rows` rows of `width` bytes, reading a window at a time.
fn windows(
    src: &dyn ReadAt,
    mut at: u64,
    rows: u64,
    width: usize,
    mut take: impl FnMut(&[u8]),
) -> Result<(), BuildError> {
    let mut window = [0u8; WINDOW];
    let mut left = rows;
    while left > 0 {
        let count = left.min((WINDOW / width) as u64);
        let bytes = &mut window[..count as usize * width];
        src.read_exact_at(at, bytes)?;
        bytes.chunks_exact(width).for_each(&mut take);
        at += bytes.len() as u64;
        left -= count;
    }
    Ok(())
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
