//! The table of one MPEG-TS file: frames in presentation order, eight bytes each, and the entry points for decoding.
//! Written once by [`Writer`], then searched where it lies by [`Table`].
//!
//! Layout, little-endian: header; frames (u64 each); blocks, wide frames and keys ([`BLOCK`], [`WIDE`], [`KEY`] bytes).
//! A frame is packed relative to its block: 26 bits of offset and 18 bits of size in packets, 20 bits of time. One that
//! does not fit is all ones and stands among the wide frames. Must not know how frames were found.

use crate::media::index::EntryError;
use bytes::Bytes;

const MAGIC: [u8; 8] = *b"weirts1\n";
const HEADER: usize = 40;
/// First frame u32, unused u32, offset u64, time u64.
const BLOCK: usize = 24;
/// Frame u32, unused u32, offset u64, size u64, time u64.
const WIDE: usize = 32;
/// Entry u64, sample u64, frame u32, first frame that decodes u32.
const KEY: usize = 24;
/// A table never grows beyond this many bytes; a day at 60 frames per second takes 44 MB.
const TABLE_MAX: usize = 60 << 20;
const WIDE_MARK: u64 = u64::MAX;

const OFFSET_BITS: u32 = 26;
const SIZE_BITS: u32 = 18;
const TIME_BITS: u32 = 20;
/// Frames are stored in presentation order: the one that opens a block need not be its first in the file.
const OFFSET_BIAS: i64 = 1 << 20;

/// One frame of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// First packet of its PES packet.
    pub offset: u64,
    /// Bytes up to the end of its last packet.
    pub size: u64,
    /// 90 kHz, relative to frame 0; never less than that of the frame before.
    pub time: u64,
}

/// One entry point, in decoding order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Where to start reading.
    pub entry: u64,
    /// `Frame::offset` of the keyframe.
    pub sample: u64,
    /// Number of the keyframe, in presentation order.
    pub frame: u32,
    /// The first frame, in presentation order, that decodes from here.
    pub clean_from: u32,
}

impl Key {
    /// Not yet known, or never shown.
    pub const UNKNOWN: u32 = u32::MAX;
}

/// The file has more frames than a table holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// Builds a table. Frames are pushed in presentation order.
pub struct Writer {
    stride: u64,
    frames: Vec<u8>,
    count: u32,
    blocks: Vec<u8>,
    block: Option<(u64, u64)>,
    wide: Vec<u8>,
    pub keys: Vec<Key>,
}

impl Writer {
    pub fn new(stride: usize) -> Self {
        let frames = vec![0; HEADER];
        Self { stride: stride as u64, frames, count: 0, blocks: vec![], block: None, wide: vec![], keys: vec![] }
    }

    /// Number the next frame will get.
    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn push(&mut self, frame: Frame) -> Result<(), Full> {
        let bytes = self.frames.len() + self.blocks.len() + self.wide.len() + self.keys.len() * KEY;
        if bytes + 8 + BLOCK + WIDE + KEY > TABLE_MAX || self.count == Key::UNKNOWN - 1 {
            return Err(Full);
        }
        let packed = self.block.and_then(|block| self.pack(block, frame)).unwrap_or_else(|| {
            let block = (frame.offset, frame.time);
            self.block = Some(block);
            self.blocks.extend(u64::from(self.count).to_le_bytes());
            self.blocks.extend(frame.offset.to_le_bytes());
            self.blocks.extend(frame.time.to_le_bytes());
            self.pack(block, frame).unwrap_or(WIDE_MARK)
        });
        if packed == WIDE_MARK {
            self.wide.extend(u64::from(self.count).to_le_bytes());
            for value in [frame.offset, frame.size, frame.time] {
                self.wide.extend(value.to_le_bytes());
            }
        }
        self.frames.extend(packed.to_le_bytes());
        self.count += 1;
        Ok(())
    }

    /// `None` if the frame does not fit into the block; the wide mark if it fits into none.
    fn pack(&self, (base, start): (u64, u64), frame: Frame) -> Option<u64> {
        let stride = self.stride as i64;
        if !frame.size.is_multiple_of(self.stride) || frame.size / self.stride >= 1 << SIZE_BITS {
            return Some(WIDE_MARK);
        }
        let delta = i64::try_from(frame.offset).ok()?.checked_sub(i64::try_from(base).ok()?)?;
        if delta % stride != 0 {
            return None;
        }
        let packets = u64::try_from(delta / stride + OFFSET_BIAS).ok()?;
        let time = frame.time.checked_sub(start)?;
        // One less than the largest, so that no frame looks like the mark.
        if packets >= 1 << OFFSET_BITS || time >= (1 << TIME_BITS) - 1 {
            return None;
        }
        Some(packets << (SIZE_BITS + TIME_BITS) | (frame.size / self.stride) << TIME_BITS | time)
    }

    /// The table. `duration`: 90 kHz, from frame 0 to the end of the last one.
    pub fn finish(mut self, duration: u64) -> Vec<u8> {
        let counts = [self.count as usize, self.blocks.len() / BLOCK, self.wide.len() / WIDE, self.keys.len()];
        let header = &mut self.frames[..HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&duration.to_le_bytes());
        header[16..20].copy_from_slice(&(self.stride as u32).to_le_bytes());
        for (n, count) in counts.iter().enumerate() {
            header[20 + 4 * n..24 + 4 * n].copy_from_slice(&(*count as u32).to_le_bytes());
        }
        let mut out = self.frames;
        out.reserve_exact(self.blocks.len() + self.wide.len() + self.keys.len() * KEY);
        out.extend(self.blocks);
        out.extend(self.wide);
        for key in &self.keys {
            out.extend(key.entry.to_le_bytes());
            out.extend(key.sample.to_le_bytes());
            out.extend(key.frame.to_le_bytes());
            out.extend(key.clean_from.to_le_bytes());
        }
        out
    }
}

/// A table, searched where it lies. Damaged contents give wrong answers or none, never a panic.
#[derive(Clone, Debug)]
pub struct Table {
    bytes: Bytes,
    stride: u64,
    duration: u64,
    frames: usize,
    blocks: usize,
    wide: usize,
    keys: usize,
}

impl Table {
    /// Checks version and lengths.
    pub fn open(bytes: Bytes) -> Result<Self, EntryError> {
        let error = |what: &str| EntryError(format!("MPEG-TS table: {what}"));
        if bytes.len() < HEADER || bytes[..8] != MAGIC {
            return Err(error("not one of this version"));
        }
        let count = |n: usize| u32_at(&bytes, 20 + 4 * n) as usize;
        let stride = u64::from(u32_at(&bytes, 16));
        let (duration, frames, blocks, wide, keys) = (u64_at(&bytes, 8), count(0), count(1), count(2), count(3));
        let parts = [(frames, 8), (blocks, BLOCK), (wide, WIDE), (keys, KEY)];
        let sum = parts.iter().try_fold(HEADER, |sum, (n, size)| sum.checked_add(n.checked_mul(*size)?));
        if sum != Some(bytes.len()) || !matches!(stride, 188 | 192) {
            return Err(error("lengths do not match"));
        }
        Ok(Self { bytes, stride, duration, frames, blocks, wide, keys })
    }

    /// Distance of two packet starts: 188 or 192.
    pub fn stride(&self) -> u64 {
        self.stride
    }

    pub fn frames(&self) -> u64 {
        self.frames as u64
    }

    /// 90 kHz.
    pub fn duration(&self) -> u64 {
        self.duration
    }

    /// Frame `n` in presentation order.
    pub fn frame(&self, n: u64) -> Option<Frame> {
        let at = usize::try_from(n).ok().filter(|&n| n < self.frames)?;
        let packed = u64_at(&self.bytes, HEADER + 8 * at);
        if packed == WIDE_MARK {
            let start = self.blocks_at() + self.blocks * BLOCK;
            let slot = self.search(start, WIDE, self.wide, |p| u64_at(&self.bytes, p) <= n)?;
            let value = |field: usize| u64_at(&self.bytes, slot + 8 * field);
            return (value(0) == n).then(|| Frame { offset: value(1), size: value(2), time: value(3) });
        }
        let block = self.search(self.blocks_at(), BLOCK, self.blocks, |p| u64_at(&self.bytes, p) <= n)?;
        let (base, start) = (u64_at(&self.bytes, block + 8), u64_at(&self.bytes, block + 16));
        let packets = (packed >> (SIZE_BITS + TIME_BITS)) as i64 - OFFSET_BIAS;
        let size = (packed >> TIME_BITS & ((1 << SIZE_BITS) - 1)) * self.stride;
        let time = start.checked_add(packed & ((1 << TIME_BITS) - 1))?;
        let offset = base.checked_add_signed(packets * self.stride as i64)?;
        Some(Frame { offset, size, time })
    }

    /// The last frame that starts at or before `time`, and `None` before frame 0.
    pub fn frame_at(&self, time: u64) -> Option<u64> {
        let (mut low, mut high) = (0, self.frames());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.frame(middle)?.time <= time { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1)
    }

    /// The entry point from which frame `n`, which lies at `offset`, decodes.
    pub fn key_for(&self, n: u64, offset: u64) -> Option<Key> {
        let start = self.keys_at();
        let slot = self.search(start, KEY, self.keys, |p| u64_at(&self.bytes, p + 8) <= offset)?;
        let last = (slot - start) / KEY;
        (0..=last).rev().filter_map(|at| self.key(at)).find(|key| u64::from(key.clean_from) <= n)
    }

    pub fn key(&self, at: usize) -> Option<Key> {
        let p = (at < self.keys).then(|| self.keys_at() + at * KEY)?;
        Some(Key {
            entry: u64_at(&self.bytes, p),
            sample: u64_at(&self.bytes, p + 8),
            frame: u32_at(&self.bytes, p + 16),
            clean_from: u32_at(&self.bytes, p + 20),
        })
    }

    fn blocks_at(&self) -> usize {
        HEADER + self.frames * 8
    }

    fn keys_at(&self) -> usize {
        self.blocks_at() + self.blocks * BLOCK + self.wide * WIDE
    }

    /// Position of the last record for which `before` holds; they are sorted so that it holds for the first ones.
    fn search(&self, start: usize, size: usize, count: usize, before: impl Fn(usize) -> bool) -> Option<usize> {
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if before(start + middle * size) { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1).map(|n| start + n * size)
    }
}

/// `at` lies inside: the caller has checked the lengths.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let mut writer = Writer::new(188);
        let mut frames = Vec::new();
        for n in 0..5000u64 {
            // Out of file order, sometimes misaligned, sometimes huge, with a long gap in time.
            let swap = if n % 3 == 1 { 2 * 188 } else { 0 };
            let garbage = if n > 3000 { 77 } else { 0 };
            let size = if n % 1000 == 500 {
                1 << 40
            } else if n == 7 {
                1
            } else {
                188 * (n % 90 + 1)
            };
            let time = n * 3600 + if n > 4000 { 1 << 33 } else { 0 };
            let frame = Frame { offset: n * 100 * 188 + 188 * 5 - swap + garbage, size, time };
            writer.push(frame).expect("room");
            frames.push(frame);
        }
        writer.keys.push(Key { entry: 1, sample: 940, frame: 0, clean_from: 0 });
        writer.keys.push(Key { entry: 2, sample: 94_940, frame: 6, clean_from: 6 });
        let bytes = Bytes::from(writer.finish(42));
        assert!(bytes.len() < 5000 * 8 + 2000, "eight bytes per frame: {}", bytes.len());
        let table = Table::open(bytes).expect("whole");
        for (n, frame) in frames.iter().enumerate() {
            assert_eq!(table.frame(n as u64), Some(*frame));
            assert_eq!(table.frame_at(frame.time), Some(n as u64));
        }
        assert_eq!((table.frame(5000), table.duration()), (None, 42));
        assert_eq!(table.key_for(5, 94_940).map(|k| k.entry), Some(1));
        assert_eq!(table.key_for(6, 94_940).map(|k| k.entry), Some(2));
        assert_eq!(table.key_for(0, 939), None);
    }

    #[test]
    fn lengths_are_checked() {
        let mut writer = Writer::new(192);
        writer.push(Frame { offset: 0, size: 192, time: 0 }).expect("room");
        let bytes = writer.finish(1);
        assert!(Table::open(Bytes::from(bytes.clone())).is_ok());
        for len in 0..bytes.len() {
            assert!(Table::open(Bytes::copy_from_slice(&bytes[..len])).is_err());
        }
        let mut huge = bytes;
        huge[20..24].fill(0xff);
        assert!(Table::open(Bytes::from(huge)).is_err());
    }
}
