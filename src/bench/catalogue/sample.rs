//! Media made for benchmarks: an MP4 file of any number of frames whose tables are whole and whose media is zeros that
//! take no memory; an MPEG-TS file of pictures that are empty; and files in memory that are mapped like any other.

use crate::media::ReadAt;
use crate::store::MappedFile;
use std::fs::File;
use std::io::{self, Write};

pub const FRAME_RATE: u32 = 60;
/// Frames of a day: the largest moov box that Weir is measured with.
pub const DAY: u32 = 24 * 3600 * FRAME_RATE;
/// Frames of one chunk of the file, and from one keyframe to the next.
const GROUP: u32 = 60;
const SAMPLE_BYTES: u32 = 15;
/// Where the samples begin.
const MEDIA_START: u32 = 32_000_000;

/// A mapped file of these pieces whose pages are in memory.
pub fn in_memory<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> io::Result<MappedFile> {
    let mut file = File::from(rustix::fs::memfd_create("weir-bench", rustix::fs::MemfdFlags::CLOEXEC)?);
    for piece in pieces {
        file.write_all(piece)?;
    }
    MappedFile::from_file(file)
}

/// An MP4 file.
pub struct Mp4 {
    head: Vec<u8>,
    bytes: u64,
    frames: u32,
}

impl Mp4 {
    pub fn frames(&self) -> u64 {
        self.frames.into()
    }
}

impl ReadAt for Mp4 {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = self.size().saturating_sub(offset).min(buf.len() as u64) as usize;
        buf[..wanted].fill(0);
        self.head.as_slice().read_at(offset, &mut buf[..wanted])?;
        Ok(wanted)
    }
}

fn mp4_box(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(8 + content.len()).unwrap_or(u32::MAX);
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

/// `ftyp`, a `moov` (21 MB for a day), the header of an `mdat`; then zeros. At least one second, at most a day.
pub fn mp4(frames: u32) -> Mp4 {
    let frames = frames.clamp(GROUP, DAY) / GROUP * GROUP;
    let file_bytes = MEDIA_START + frames * (SAMPLE_BYTES + 1);
    let chunks = frames / GROUP;
    let offsets = (0..chunks).map(|chunk| MEDIA_START + chunk * GROUP * SAMPLE_BYTES);
    let tables = [
        stsd(),
        table(b"stts", [0, 1, frames, 1]),
        table(b"stss", [0, chunks].into_iter().chain((0..chunks).map(|chunk| chunk * GROUP + 1))),
        table(b"stsc", [0, 1, 1, GROUP, 1]),
        table(b"stsz", [0, 0, frames].into_iter().chain((0..frames).map(|n| SAMPLE_BYTES + n % 2))),
        table(b"stco", [0, chunks].into_iter().chain(offsets)),
    ];
    let minf = mp4_box(b"minf", &mp4_box(b"stbl", &tables.concat()));
    let handler = mp4_box(b"hdlr", b"\0\0\0\0\0\0\0\0vide\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let header = table(b"mdhd", [0, 0, 0, FRAME_RATE, frames, 0x55c4_0000]);
    let mdia = mp4_box(b"mdia", &[header, handler, minf].concat());
    let mut tkhd = vec![0u32; 21];
    (tkhd[0], tkhd[3], tkhd[5], tkhd[19], tkhd[20]) = (3, 1, frames, 16 << 16, 16 << 16);
    let trak = mp4_box(b"trak", &[table(b"tkhd", tkhd), mdia].concat());
    let mut mvhd = vec![0u32; 25];
    (mvhd[3], mvhd[4], mvhd[24]) = (FRAME_RATE, frames, 2);
    let moov = mp4_box(b"moov", &[table(b"mvhd", mvhd), trak].concat());
    let before = [mp4_box(b"ftyp", b"isom\0\0\0\0isom"), moov].concat();
    let rest = file_bytes - u32::try_from(before.len()).unwrap_or(MEDIA_START);
    let head = [before, [rest, u32::from_be_bytes(*b"mdat")].map(u32::to_be_bytes).concat()].concat();
    Mp4 { head, bytes: file_bytes.into(), frames }
}

const PMT_PID: u16 = 0x100;
const VIDEO_PID: u16 = 0x101;

/// An MPEG-TS file of H.264: a keyframe each second of `GROUP` frames, each frame one packet.
pub fn ts(frames: u32) -> Vec<u8> {
    let mut file = Vec::with_capacity(frames as usize * 190 + 400);
    for frame in 0..frames {
        let is_keyframe = frame % GROUP == 0;
        if is_keyframe {
            file.extend(packet(0, true, frame, &section(0, &[0, 1, 0xe1, 0])));
            // PCR on the video's PID; stream type 0x1b.
            file.extend(packet(PMT_PID, true, frame, &section(2, &[0xe1, 1, 0xf0, 0, 0x1b, 0xe1, 1, 0xf0, 0])));
        }
        file.extend(packet(VIDEO_PID, true, frame, &pes(frame, is_keyframe)));
    }
    file
}

/// One packet (ISO/IEC 13818-1 §2.4.3.2), filled up by an adaptation field for PES and by 0xff for sections.
fn packet(pid: u16, starts: bool, count: u32, payload: &[u8]) -> Vec<u8> {
    let [high, low] = pid.to_be_bytes();
    let counter = (count % 16) as u8;
    let mut packet = vec![0x47, high | if starts { 0x40 } else { 0 }, low];
    if pid == VIDEO_PID {
        packet.push(0x30 | counter);
        let fill = 188 - 4 - 1 - payload.len();
        packet.push(fill as u8);
        packet.push(0);
        packet.resize(5 + fill, 0xff);
        packet.extend_from_slice(payload);
    } else {
        packet.push(0x10 | counter);
        packet.extend_from_slice(payload);
        packet.resize(188, 0xff);
    }
    packet
}

/// A section of a program table, with its pointer field and checksum (§2.4.4).
fn section(table_id: u8, content: &[u8]) -> Vec<u8> {
    let length = (5 + content.len() + 4) as u8;
    let mut section = vec![table_id, 0xb0, length, 0, 1, 0xc1, 0, 0];
    section.extend_from_slice(content);
    section.extend_from_slice(&crc(&section).to_be_bytes());
    [&[0], section.as_slice()].concat()
}

/// CRC-32 of ISO/IEC 13818-1 annex A.
fn crc(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _: u8| if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
    bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte) << 24, bit))
}

/// A PES packet with a time, an access unit delimiter and the first byte of a slice.
fn pes(frame: u32, is_keyframe: bool) -> Vec<u8> {
    let pts = u64::from(frame) * 90_000 / u64::from(FRAME_RATE) + 90_000;
    let mut bytes = vec![0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5];
    bytes.extend_from_slice(&[
        0x21 | (pts >> 29 & 0xe) as u8,
        (pts >> 22) as u8,
        (pts >> 14) as u8 | 1,
        (pts >> 7) as u8,
        (pts << 1) as u8 | 1,
    ]);
    bytes.extend_from_slice(&[0, 0, 0, 1, 9, if is_keyframe { 0x10 } else { 0x30 }]);
    let unit = if is_keyframe { [0x65, 0x88, 0x84] } else { [0x41, 0x9a, 0x24] };
    bytes.extend_from_slice(&[0, 0, 0, 1]);
    bytes.extend_from_slice(&unit);
    bytes.extend_from_slice(&[0xa5; 40]);
    bytes
}
