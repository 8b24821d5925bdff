//! Shows what opening an index and finding a moment in it cost, for a day of 60 frames per second: the largest moov box
//! that Weir is measured with (DESIGN.md section 9: a seek within 1 ms).
//!
//! The file is generated here: its sample tables are whole, its media is zeros that take no memory.

use bytes::Bytes;
use divan::{Bencher, black_box};
use std::io;
use std::sync::OnceLock;
use weir::media::ReadAt;
use weir::media::index::{Index, Position, Seek};
use weir::media::time::{DecimalTime, Label};

const FRAMES: u32 = 24 * 3600 * FRAME_RATE;
const FRAME_RATE: u32 = 60;
/// Frames of one chunk of the file, and from one keyframe to the next.
const GROUP: u32 = 60;
const SAMPLE_BYTES: u32 = 15;
/// Where the samples begin, and where the file ends.
const MEDIA_START: u32 = 32_000_000;
const FILE_BYTES: u32 = MEDIA_START + FRAMES * (SAMPLE_BYTES + 1);

fn main() {
    divan::main();
}

fn mp4_box(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(8 + content.len()).expect("a small box");
    [&size.to_be_bytes()[..], name, content].concat()
}

/// A box of 32-bit fields.
fn table(name: &[u8; 4], fields: impl IntoIterator<Item = u32>) -> Vec<u8> {
    mp4_box(name, &fields.into_iter().flat_map(u32::to_be_bytes).collect::<Vec<_>>())
}

/// `stsd` with one AVC sample entry of 16 x 16 pixels, Baseline, whose parameter sets are left out.
fn stsd() -> Vec<u8> {
    let avc_c = mp4_box(b"avcC", &[1, 66, 0, 30, 0xff, 0xe0, 0]);
    let mut entry = vec![0; 78];
    entry[7] = 1;
    entry[25] = 16;
    entry[27] = 16;
    entry.extend_from_slice(&avc_c);
    mp4_box(b"stsd", &[&[0, 0, 0, 0, 0, 0, 0, 1][..], &mp4_box(b"avc1", &entry)].concat())
}

/// The file: what stands before its media, then zeros.
struct Day(&'static [u8]);

impl ReadAt for Day {
    fn size(&self) -> u64 {
        FILE_BYTES.into()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = self.size().saturating_sub(offset).min(buf.len() as u64) as usize;
        buf[..wanted].fill(0);
        self.0.read_at(offset, &mut buf[..wanted])?;
        Ok(wanted)
    }
}

fn day() -> Day {
    Day(head())
}

/// `ftyp`, a `moov` of 21 MB, and the header of an `mdat`.
fn head() -> &'static [u8] {
    static DAY: OnceLock<Vec<u8>> = OnceLock::new();
    DAY.get_or_init(|| {
        let chunks = FRAMES / GROUP;
        let offsets = (0..chunks).map(|chunk| MEDIA_START + chunk * GROUP * SAMPLE_BYTES);
        let tables = [
            stsd(),
            table(b"stts", [0, 1, FRAMES, 1]),
            table(b"stss", [0, chunks].into_iter().chain((0..chunks).map(|chunk| chunk * GROUP + 1))),
            table(b"stsc", [0, 1, 1, GROUP, 1]),
            table(b"stsz", [0, 0, FRAMES].into_iter().chain((0..FRAMES).map(|n| SAMPLE_BYTES + n % 2))),
            table(b"stco", [0, chunks].into_iter().chain(offsets)),
        ];
        let minf = mp4_box(b"minf", &mp4_box(b"stbl", &tables.concat()));
        let handler = mp4_box(b"hdlr", b"\0\0\0\0\0\0\0\0vide\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let header = table(b"mdhd", [0, 0, 0, FRAME_RATE, FRAMES, 0x55c4_0000]);
        let mdia = mp4_box(b"mdia", &[header, handler, minf].concat());
        let mut tkhd = vec![0u32; 21];
        (tkhd[0], tkhd[3], tkhd[5], tkhd[19], tkhd[20]) = (3, 1, FRAMES, 16 << 16, 16 << 16);
        let trak = mp4_box(b"trak", &[table(b"tkhd", tkhd), mdia].concat());
        let mut mvhd = vec![0u32; 25];
        (mvhd[3], mvhd[4], mvhd[24]) = (FRAME_RATE, FRAMES, 2);
        let moov = mp4_box(b"moov", &[table(b"mvhd", mvhd), trak].concat());
        let before = [mp4_box(b"ftyp", b"isom\0\0\0\0isom"), moov].concat();
        let rest = FILE_BYTES - u32::try_from(before.len()).expect("21 MB");
        [before, [rest, u32::from_be_bytes(*b"mdat")].map(u32::to_be_bytes).concat()].concat()
    })
}

fn entry() -> Bytes {
    static ENTRY: OnceLock<Bytes> = OnceLock::new();
    ENTRY.get_or_init(|| Index::build(&day()).expect("an index").into()).clone()
}

fn opened() -> Index {
    Index::open(entry()).expect("our own entry")
}

/// The first index: every table is walked once.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn build() -> Vec<u8> {
    Index::build(&black_box(day())).expect("an index")
}

/// From the index cache: the checksum of all of it is verified.
#[divan::bench]
fn open(bencher: Bencher<'_, '_>) {
    let entry = entry();
    bencher.bench_local(|| Index::open(black_box(&entry).clone()).expect("our own entry"));
}

/// Just built: nothing is verified.
#[divan::bench]
fn open_trusted(bencher: Bencher<'_, '_>) {
    let entry = entry();
    bencher.bench_local(|| Index::open_trusted(black_box(&entry).clone()).expect("our own entry"));
}

fn resolve(bencher: Bencher<'_, '_>, positions: impl Fn(u32) -> Position) {
    let index = opened();
    // An odd step visits frames all over the day, so that no look-up finds the tables of the one before in the caches.
    let mut frame = 0;
    bencher.bench_local(move || -> Seek {
        frame = (frame + 1_234_567) % FRAMES;
        index.resolve(&day(), black_box(&positions(frame))).expect("a frame of the day")
    });
}

#[divan::bench]
fn frame_to_offset(bencher: Bencher<'_, '_>) {
    resolve(bencher, |frame| Position::Frame(frame.into()));
}

#[divan::bench]
fn timecode_to_offset(bencher: Bencher<'_, '_>) {
    resolve(bencher, |frame| {
        let seconds = frame / FRAME_RATE;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let text = format!("{hours:02}:{minutes:02}:{:02}:{:02}", seconds % 60, frame % FRAME_RATE);
        Position::Timecode { label: Label::parse(&text).expect("a label"), drop: None }
    });
}

#[divan::bench]
fn time_to_offset(bencher: Bencher<'_, '_>) {
    resolve(bencher, |frame| {
        let text = format!("{}.5", frame / FRAME_RATE);
        Position::Time(DecimalTime::parse(&text).expect("a time"))
    });
}
