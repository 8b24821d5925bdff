//! Tables of the worst shape: one row per sample in `stts`, `ctts` and `stsz`, and all samples in one chunk, in a file
//! far larger than the memory of a test. Expected values are worked out from how the tables were made.

use std::io;

use bytes::Bytes;
use weir::media::ReadAt;
use weir::media::index::{Index, Position};
use weir::media::time::Seconds;

/// A file that begins with some bytes and goes on with nothing that anyone reads.
pub struct Sparse {
    head: Vec<u8>,
    size: u64,
}

impl ReadAt for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.head.as_slice().read_at(offset, buf)
    }
}

fn boxed(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(len + 8);
    bytes.extend_from_slice(&(len as u32 + 8).to_be_bytes());
    bytes.extend_from_slice(kind);
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

fn words(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_be_bytes).collect()
}

/// What the tables say, sample by sample.
pub struct Tables {
    /// In decode order.
    sizes: Vec<u32>,
    deltas: Vec<u32>,
    offsets: Vec<i32>,
    keyframe_every: u32,
}

impl Tables {
    /// Frames of 250, 253 or 256 ticks of 1/15360 s in the pattern P B B, so that no two rows next to each other
    /// are alike.
    pub fn new(samples: usize) -> Tables {
        let delta = |n: usize| 250 + (n % 7 % 3) as u32 * 3;
        let starts: Vec<u64> = (0..=samples + 3)
            .scan(0, |at, n| {
                let start = *at;
                *at += u64::from(delta(n));
                Some(start)
            })
            .collect();
        // Decode position to presentation position: 0, then 3 1 2, 6 4 5, ...
        let shown = |n: usize| match n {
            0 => 0,
            n if n % 3 == 1 => n + 2,
            n => n - 1,
        };
        let offset = |n: usize| (starts[shown(n)] + 1024 - starts[n]) as i64 as i32;
        Tables {
            sizes: (0..samples).map(|n| (n * 7919 % 3000 + 10) as u32).collect(),
            deltas: (0..samples).map(delta).collect(),
            offsets: (0..samples).map(offset).collect(),
            keyframe_every: 60,
        }
    }

    pub fn file(&self) -> Sparse {
        let count = self.sizes.len() as u32;
        let bytes: u64 = self.sizes.iter().map(|size| u64::from(*size)).sum();
        let visual = [[0; 70].as_slice(), &[0; 8]].concat();
        let stsd = boxed(b"stsd", &[&words([0, 1]), &boxed(b"mp4v", &[&visual])]);
        let pairs = |values: &mut dyn Iterator<Item = u32>| words(values.flat_map(|value| [1, value]));
        let stts = boxed(b"stts", &[&words([0, count]), &pairs(&mut self.deltas.iter().copied())]);
        let ctts =
            boxed(b"ctts", &[&words([1 << 24, count]), &pairs(&mut self.offsets.iter().map(|offset| *offset as u32))]);
        let stsz = boxed(b"stsz", &[&words([0, 0, count]), &words(self.sizes.iter().copied())]);
        let stsc = boxed(b"stsc", &[&words([0, 1, 1, count, 1])]);
        // The first keyframe is sample 1; the others stand where a P frame stands.
        let keys: Vec<u32> =
            (0..count).step_by(self.keyframe_every as usize).map(|n| n + 1 + u32::from(n > 0)).collect();
        let stss = boxed(b"stss", &[&words([0, keys.len() as u32]), &words(keys)]);
        let place = 1 << 33;
        let co64 = boxed(b"co64", &[&words([0, 1, (place >> 32) as u32, 0])]);
        let stbl = boxed(b"stbl", &[&stsd, &stts, &ctts, &stsz, &stsc, &stss, &co64]);
        let mdhd = boxed(b"mdhd", &[&words([0, 0, 0, 15_360, 0, 0])]);
        let hdlr = boxed(b"hdlr", &[&words([0, 0]), b"vide", &[0; 13]]);
        let mdia = boxed(b"mdia", &[&mdhd, &hdlr, &boxed(b"minf", &[&stbl])]);
        let tkhd = boxed(b"tkhd", &[&words([7, 0, 0, 1]), &[0; 68]]);
        let mvhd = boxed(b"mvhd", &[&words([0, 0, 0, 1000]), &[0; 84]]);
        let junk = boxed(b"udta", &[&vec![7; 1 << 20]]);
        let moov = boxed(b"moov", &[&mvhd, &junk, &boxed(b"trak", &[&tkhd, &mdia])]);
        let mut head = boxed(b"ftyp", &[b"isom", &[0; 4]]);
        head.extend(moov);
        head.extend(boxed(b"mdat", &[]));
        let at = head.len() - 8;
        head[at..at + 4].copy_from_slice(&[0; 4]);
        Sparse { head, size: place + bytes }
    }

    /// Offset, size and time of the frame presented at `shown`, and its keyframe's.
    fn expected(&self, shown: usize) -> (u64, u64, Seconds, u64) {
        let decoded = match shown {
            0 => 0,
            n if n % 3 == 0 => n - 2,
            n => n + 1,
        };
        let offset = |n: usize| (1 << 33) + self.sizes[..n].iter().map(|size| u64::from(*size)).sum::<u64>();
        let time: u64 = (0..shown).map(|n| 250 + (n % 7 % 3) as u64 * 3).sum();
        // Keyframes decode at 0 and at 60 k + 1, and are presented at 60 k + 3: of the two frames before each in
        // presentation that follow it in decoding, neither decodes from it.
        let key = match shown.checked_sub(3) {
            Some(n) if n >= 60 => n / 60 * 60 + 1,
            _ => 0,
        };
        let time = Seconds::new(i128::from(time), 15_360).expect("a timescale");
        (offset(decoded), u64::from(self.sizes[decoded]), time, offset(key))
    }
}

#[test]
fn a_row_per_sample_everywhere_and_one_chunk() {
    // 1.8 million samples: 36 MB of tables, beyond what is kept as it lies; and a small one that is.
    for samples in [10_000, 1_800_000] {
        let tables = Tables::new(samples);
        let file = tables.file();
        let entry = Index::build(&file).expect("well-formed");
        assert!(entry.capacity() < entry.len() + 128 * 1024, "{} of {} bytes", entry.len(), entry.capacity());
        assert!(samples < 100_000 || entry.len() < samples * 8, "{} bytes for {samples} samples", entry.len());
        let index = Index::open(Bytes::from(entry)).expect("its own entry");
        assert!(!index.needs_source());
        // The last two frames' decode positions do not exist when the pattern is cut.
        for shown in [0, 1, 2, 3, 59, 60, 61, 62, 63, 64, 1023, 1024, 1025, samples / 2, samples / 3 * 2, samples - 5] {
            let seek = index.resolve(&file, &Position::Frame(shown as u64)).expect("inside");
            let (offset, size, time, key) = tables.expected(shown);
            assert_eq!((seek.sample_offset, seek.sample_size), (offset, size), "frame {shown}");
            assert_eq!(seek.time, time, "frame {shown}");
            assert_eq!(seek.keyframe.offset, key, "keyframe of frame {shown}");
        }
        let track = &index.summary().tracks[0];
        assert!(track.variable_rate && track.frames == samples as u64);
    }
}
