//! MPEG-TS as it arrives: finds packets in a run of buffers and cuts parts at keyframes, without joining buffers.
//!
//! PURE. Buffers in, events out; packets stay in the buffers they came in. What is copied: packets that straddle two
//! buffers (to be read; they go out as they came), what is searched for lost sync, and program tables.
//! Source: ISO/IEC 13818-1 §2.4.3.

use super::audio;
use super::cutter::{Cut, Cutter, Ended, Sets};
use super::packet::{PACKET, SYNC, sync_run};
use super::picture::Format;
use super::psi::Program;
use super::rope::Rope;
use super::scan;
use crate::media::cadence::{Mark, Targets};
use crate::media::index::{Track, TrackKind};
use bytes::{Bytes, BytesMut};
use std::sync::{Arc, OnceLock};

/// What is searched for sync at once, and the sync bytes in a row that end the search.
const HUNT: usize = 5 * PACKET;
const HUNT_RUN: usize = 4;
/// Bytes without sync that are passed over.
const GARBAGE_MAX: u64 = 64 << 10;
/// A program table must have come by then, and a keyframe.
const TABLES_MAX: u64 = 4 << 20;
const KEYFRAME_MAX: u64 = 64 << 20;
/// A part ends here at the latest.
const PART_MAX: u64 = 16 << 20;
/// A packet in more pieces than these becomes a piece of its own.
const PIECES_MAX: usize = 2;

/// How a publication is coded: players start anew when it changes. Nothing has to be sent first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Init {
    pub program: Program,
    /// The sequence parameters of the video, as they came.
    pub parameters: Vec<u8>,
    pub format: Option<Format>,
    /// What each sound's first frame says, by its PID, once that has come.
    pub(super) sound: Vec<(u16, OnceLock<audio::Format>)>,
}

impl Init {
    /// Whether a player may go on.
    pub fn same_coding(&self, other: &Self) -> bool {
        let streams = |init: &Self| -> Vec<_> { init.program.streams.iter().map(|s| (s.pid, s.coding)).collect() };
        self.parameters == other.parameters && streams(self) == streams(other)
    }

    /// What the tables and the first video's parameters say of the streams.
    pub fn described(&self) -> Vec<Track> {
        let mut tracks: Vec<Track> = self.program.streams.iter().map(scan::track).collect();
        if let (Some(video), Some(format)) = (tracks.iter_mut().find(|t| t.kind == TrackKind::Video), &self.format) {
            video.codec.clone_from(&format.codec);
            (video.width, video.height) = (Some(format.width), Some(format.height));
            video.frame_rate = format.rate;
        }
        for (pid, format) in &self.sound {
            let track = tracks.iter_mut().find(|track| track.id == u32::from(*pid));
            if let (Some(track), Some(format)) = (track, format.get()) {
                track.codec.clone_from(&format.codec);
                (track.sample_rate, track.channels) = (Some(format.sample_rate), Some(format.channels));
            }
        }
        tracks
    }

    /// PIDs whose time and counters begin anew when a publisher does.
    pub fn pids(&self) -> Vec<u16> {
        let mut pids: Vec<u16> = self.program.streams.iter().map(|stream| stream.pid).collect();
        pids.push(self.program.pcr_pid);
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

/// Whole packets, from one picture's first to another's.
pub struct Part {
    pub rope: Rope,
    /// Program tables and a keyframe stand in front.
    pub keyframe: bool,
    /// What begins with it; program tables stand in front of that. And what ends with it.
    pub begins: Mark,
    pub ends: Mark,
    /// Decode times in microseconds: of the first picture, and of the first one behind.
    pub start_us: i64,
    pub end_us: i64,
    /// The publisher's clock jumped right before.
    pub jump: bool,
    /// Bytes of packets of each PID that were seen meanwhile.
    pub shares: Vec<(u16, u64)>,
}

pub enum Event {
    Init(Arc<Init>),
    Part(Part),
}

/// Why a publication ends: what is wrong, and at which of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {position}")]
pub struct Broken {
    pub what: &'static str,
    pub position: u64,
}

/// The parser of one publication.
pub struct Arrival {
    cutter: Cutter,
    /// Bytes that were pushed, and those of them in packets.
    position: u64,
    kept: u64,
    /// The open part, and where it begins among the kept bytes.
    rope: Rope,
    part_at: u64,
    /// A packet whose end has not come.
    carry: [u8; PACKET],
    carried: usize,
    pieces: Vec<Bytes>,
    hunt: BytesMut,
    /// Where sync was lost, while it is.
    lost_at: Option<u64>,
    /// Bytes that were copied on the way, and bytes that lay in no packet.
    pub copied_bytes: u64,
    pub skipped_bytes: u64,
}

impl Arrival {
    /// Parts keep to the targets where pictures are shorter than these.
    pub fn new(targets: Targets) -> Self {
        Self {
            cutter: Cutter::new(targets),
            position: 0,
            kept: 0,
            rope: Rope::default(),
            part_at: 0,
            carry: [0; PACKET],
            carried: 0,
            pieces: Vec::new(),
            hunt: BytesMut::new(),
            lost_at: None,
            copied_bytes: 0,
            skipped_bytes: 0,
        }
    }

    /// Takes the next bytes of the publication and reports what became whole.
    pub fn push(&mut self, bytes: Bytes, events: &mut Vec<Event>) -> Result<(), Broken> {
        let begin = self.position;
        self.walk(&bytes, begin, events)?;
        self.position = begin + bytes.len() as u64;
        Ok(())
    }

    /// Bytes that are here and in no part yet.
    pub fn held_bytes(&self) -> u64 {
        self.rope.len() + (self.carried + self.hunt.len()) as u64
    }

    /// `begin` is the position of the first of the bytes.
    fn walk(&mut self, bytes: &Bytes, begin: u64, events: &mut Vec<Event>) -> Result<(), Broken> {
        let (mut at, mut run) = (0, 0);
        while at < bytes.len() {
            self.position = begin + at as u64;
            if let Some(lost_at) = self.lost_at {
                at += self.search(&bytes[at..], lost_at, events)?;
                run = at;
                continue;
            }
            if self.carried == 0 && bytes[at] != SYNC {
                self.rope.push(bytes.slice(run..at));
                self.lost_at = Some(self.position);
                continue;
            }
            if let Some(packet) = bytes[at..].first_chunk::<PACKET>().filter(|_| self.carried == 0) {
                let cut = self.cutter.packet(packet, self.kept);
                self.kept += PACKET as u64;
                at += PACKET;
                if cut.is_some() || self.is_too_long() {
                    self.rope.push(bytes.slice(run..at));
                    run = at;
                    self.cut(cut, events)?;
                }
                continue;
            }
            self.rope.push(bytes.slice(run..at));
            let n = (PACKET - self.carried).min(bytes.len() - at);
            self.carry[self.carried..self.carried + n].copy_from_slice(&bytes[at..at + n]);
            self.carried += n;
            self.pieces.push(bytes.slice(at..at + n));
            at += n;
            run = at;
            if self.carried == PACKET {
                self.straddler(events)?;
            }
        }
        self.rope.push(bytes.slice(run..at));
        Ok(())
    }

    /// The packet that is carried has become whole.
    fn straddler(&mut self, events: &mut Vec<Event>) -> Result<(), Broken> {
        let packet = self.carry;
        self.carried = 0;
        self.copied_bytes += PACKET as u64;
        let pieces = std::mem::take(&mut self.pieces);
        if pieces.len() <= PIECES_MAX {
            pieces.into_iter().for_each(|piece| self.rope.push(piece));
        } else {
            self.rope.push(Bytes::copy_from_slice(&packet));
        }
        let cut = self.cutter.packet(&packet, self.kept);
        self.kept += PACKET as u64;
        if cut.is_some() || self.is_too_long() {
            self.cut(cut, events)?;
        }
        Ok(())
    }

    /// What cannot be watched yet is not kept for long.
    fn is_too_long(&self) -> bool {
        self.kept - self.part_at > if self.cutter.has_begun() { PART_MAX } else { TABLES_MAX }
    }

    /// Ends the open part where the cutter says, or here because it is too long.
    fn cut(&mut self, cut: Option<Cut>, events: &mut Vec<Event>) -> Result<(), Broken> {
        let cut = cut.unwrap_or_else(|| self.cutter.force(self.kept));
        let tail = self.rope.split_off(cut.at.saturating_sub(self.part_at));
        let mut rope = std::mem::replace(&mut self.rope, tail);
        self.part_at = cut.at;
        if let Some(ended) = cut.ended.filter(|_| !rope.is_empty()) {
            if let Some(Sets { at, packets }) = ended.sets {
                self.copied_bytes += packets.len() as u64;
                let mut media = rope.split_off(at);
                let rest = media.split_off(PACKET as u64);
                rope.push(packets);
                rope.append(rest);
            }
            if let Some(tables) = &ended.tables {
                self.copied_bytes += tables.len() as u64;
                let media = std::mem::take(&mut rope);
                rope.push(tables.clone());
                rope.append(media);
            }
            let Ended { keyframe, begins, ends, start_us, end_us, jump, .. } = ended;
            let shares = self.cutter.shares();
            events.push(Event::Part(Part { rope, keyframe, begins, ends, start_us, end_us, jump, shares }));
        }
        events.extend(cut.init.map(Event::Init));
        let wrong = |what| Err(Broken { what, position: self.position });
        if !self.cutter.has_tables() && self.kept > TABLES_MAX {
            return wrong("no program table (PAT and PMT) in the first 4 MiB of the MPEG-TS");
        }
        if !self.cutter.has_begun() && self.kept > KEYFRAME_MAX {
            return wrong("no keyframe in the first 64 MiB of the MPEG-TS");
        }
        Ok(())
    }

    /// Looks for sync in blocks of a fixed size, so that the outcome does not depend on how the bytes were cut.
    /// Gives the bytes that were taken.
    fn search(&mut self, bytes: &[u8], lost_at: u64, events: &mut Vec<Event>) -> Result<usize, Broken> {
        let n = (HUNT - self.hunt.len()).min(bytes.len());
        self.hunt.extend_from_slice(&bytes[..n]);
        self.copied_bytes += n as u64;
        if self.hunt.len() < HUNT {
            return Ok(n);
        }
        let found = (0..PACKET).find(|&at| sync_run(&self.hunt, at, PACKET, HUNT_RUN) == HUNT_RUN);
        let skipped = found.unwrap_or(PACKET);
        self.skipped_bytes += skipped as u64;
        let block = self.hunt.split();
        let block_at = self.position + n as u64 - block.len() as u64;
        if found.is_some() {
            self.lost_at = None;
            self.walk(&block.freeze().slice(skipped..), block_at + skipped as u64, events)?;
        } else if block_at + PACKET as u64 - lost_at > GARBAGE_MAX {
            let what = "64 KiB without a packet of MPEG-TS (a sync byte every 188 bytes)";
            return Err(Broken { what, position: lost_at });
        } else {
            self.hunt.extend_from_slice(&block[PACKET..]);
        }
        Ok(n)
    }

    /// The publication ends here, or broke off: then a picture that may not be whole is left out.
    pub fn finish(&mut self, broke_off: bool, events: &mut Vec<Event>) {
        let broke_off = broke_off || self.carried > 0;
        let cut = self.cutter.finish(self.kept, broke_off);
        // An open part is never too long here: limits were checked when its packets came.
        let _ = self.cut(Some(cut), events);
        self.rope = Rope::default();
        (self.carried, self.pieces) = (0, Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: Targets = Targets { part_us: 500_000, segment_us: 4_000_000 };
    const VIDEO: u16 = 0x100;
    const AUDIO: u16 = 0x101;
    const PMT: u16 = 0x1000;

    /// One transport packet; short payloads are stuffed by the adaptation field.
    fn packet(pid: u16, unit_start: bool, counter: u8, payload: &[u8]) -> Vec<u8> {
        let [high, low] = pid.to_be_bytes();
        let mut out = vec![SYNC, high | u8::from(unit_start) << 6, low, 0x10 | counter & 15];
        let room = PACKET - 4 - payload.len();
        if room > 0 {
            out[3] |= 0x20;
            out.push((room - 1) as u8);
            out.extend((1..room).map(|n| if n == 1 { 0 } else { 0xff }));
        }
        out.extend(payload);
        out
    }

    fn section(table: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![table, 0xb0, (body.len() + 4) as u8];
        out.extend(body);
        // CRC-32/MPEG-2
        let crc = out.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte) << 24, |c, _| if c >> 31 == 1 { c << 1 ^ 0x04c1_1db7 } else { c << 1 })
        });
        out.extend(crc.to_be_bytes());
        out.insert(0, 0);
        out.resize(PACKET - 4, 0xff);
        out
    }

    #[derive(Default)]
    struct Muxer {
        out: Vec<u8>,
        counters: std::collections::HashMap<u16, u8>,
        /// MPEG-2 pictures of another size.
        width: u8,
    }

    impl Muxer {
        fn put(&mut self, pid: u16, unit_start: bool, payload: &[u8]) {
            let counter = self.counters.entry(pid).or_default();
            self.out.extend(packet(pid, unit_start, *counter, payload));
            *counter = (*counter + 1) & 15;
        }

        fn tables(&mut self) {
            self.put(0, true, &section(0, &[0, 1, 0xc1, 0, 0, 0, 1, 0xf0, 0]));
            let map = [0, 1, 0xc1, 0, 0, 0xe1, 0, 0xf0, 0, 0x02, 0xe1, 0, 0xf0, 0, 0x0f, 0xe1, 1, 0xf0, 0];
            self.put(PMT, true, &section(2, &map));
        }

        fn pes(id: u8, pts: u64) -> Vec<u8> {
            let p = |shift: u64, bits: u64| (pts >> shift & bits) as u8;
            let stamp = [0x21 | p(30, 7) << 1, p(22, 255), p(15, 127) << 1 | 1, p(7, 255), p(0, 127) << 1 | 1];
            [&[0, 0, 1, id, 0, 0, 0x80, 0x80, 5], &stamp[..]].concat()
        }

        /// A picture of three packets, and a packet of sound before its last one.
        fn picture(&mut self, key: bool, pts: u64) {
            let mut data = Self::pes(0xe0, pts & ((1 << 33) - 1));
            if key {
                data.extend([0, 0, 1, 0xb3, 0x14, self.width << 4, 0xf0, 0x13, 0xff, 0xff, 0xe0, 0x18]);
            }
            data.extend([0, 0, 1, 0, 0, if key { 8 } else { 16 }, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
            data.resize(400, 0x55);
            self.put(VIDEO, true, &data[..184]);
            self.put(VIDEO, false, &data[184..368]);
            self.put(AUDIO, true, &Self::pes(0xc0, pts & ((1 << 33) - 1)));
            self.put(VIDEO, false, &data[368..]);
        }

        /// 25 pictures a second, `gop` of them from keyframe to keyframe.
        fn group(&mut self, first_pts: u64, gop: u64) {
            for n in 0..gop {
                if n == 0 {
                    self.tables();
                }
                self.picture(n == 0, first_pts + n * 3600);
            }
        }
    }

    /// Bytes, keyframe, start, end and jump of each part; `None` is a new coding.
    type Seen = Vec<Option<(Vec<u8>, bool, i64, i64, bool)>>;

    fn run(data: &[u8], step: usize) -> (Seen, Arrival) {
        let mut arrival = Arrival::new(TARGETS);
        let mut events = Vec::new();
        for piece in data.chunks(step) {
            arrival.push(Bytes::copy_from_slice(piece), &mut events).expect("a stream");
        }
        arrival.finish(false, &mut events);
        let seen = events.into_iter().map(|event| match event {
            Event::Init(_) => None,
            Event::Part(part) => {
                let bytes = part.rope.into_pieces().concat();
                Some((bytes, part.keyframe, part.start_us, part.end_us, part.jump))
            }
        });
        (seen.collect(), arrival)
    }

    fn shape(seen: &Seen) -> Vec<(usize, bool, i64, i64)> {
        let parts = seen.iter().flatten();
        parts.map(|(bytes, keyframe, start, end, _)| (bytes.len() / PACKET, *keyframe, *start, *end)).collect()
    }

    #[test]
    fn every_cut_of_the_buffers_gives_the_same_parts() {
        let mut muxer = Muxer { width: 4, ..Muxer::default() };
        muxer.picture(false, 86_400);
        muxer.group(90_000, 20);
        let garbage_at = muxer.out.len();
        muxer.out.extend([0x47; 100]);
        muxer.out.extend([0x11; 501]);
        muxer.group(90_000 + 20 * 3600, 25);
        let (whole, arrival) = run(&muxer.out, usize::MAX);
        // Twelve pictures of 40 ms in 0.5 s, four packets each, and PAT and PMT in front of a keyframe and of what
        // begins a part of a playlist, which a keyframe within it divides.
        let expected = [
            (50, true, 1_000_000, 1_480_000),
            (32, false, 1_480_000, 1_800_000),
            (18, true, 1_800_000, 1_960_000),
            (50, false, 1_960_000, 2_440_000),
            (38, false, 2_440_000, 2_800_000),
        ];
        // The garbage begins with a sync byte: one packet's worth of it passes as a packet of some PID.
        let mut found = shape(&whole);
        found[1].0 = 32;
        assert_eq!(found, expected);
        assert_eq!(whole.iter().filter(|seen| seen.is_none()).count(), 1, "one coding");
        assert!(arrival.skipped_bytes >= 601 - 188 && arrival.skipped_bytes <= 601, "{}", arrival.skipped_bytes);
        assert!(arrival.copied_bytes < 3000, "{} bytes copied", arrival.copied_bytes);
        for step in [1, 2, 47, 187, 188, 189, 376, 1000, 1316, garbage_at + 1] {
            let (seen, _) = run(&muxer.out, step);
            assert_eq!(shape(&seen), shape(&whole), "{step} bytes at a time");
            assert!(seen == whole, "{step} bytes at a time");
        }
    }

    #[test]
    fn nothing_is_copied_that_does_not_straddle() {
        let mut muxer = Muxer::default();
        muxer.group(0, 50);
        // But PAT and PMT in front of the four parts, of 0.48 s each in 2 s, that begin without a keyframe.
        let tables = 4 * 2 * PACKET as u64;
        assert_eq!(run(&muxer.out, PACKET * 7).1.copied_bytes, tables);
        // A buffer of 1,000 bytes ends within a packet, but for every 47th.
        let straddlers = (1..=muxer.out.len() / 1000).filter(|n| n * 1000 % PACKET != 0).count();
        assert_eq!(run(&muxer.out, 1000).1.copied_bytes, (straddlers * PACKET) as u64 + tables);
    }

    #[test]
    fn tables_that_are_missing_in_front_of_a_keyframe_are_repeated() {
        let mut muxer = Muxer::default();
        muxer.group(0, 5);
        muxer.picture(true, 5 * 3600);
        let (seen, arrival) = run(&muxer.out, usize::MAX);
        let parts: Vec<_> = seen.into_iter().flatten().collect();
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[1].0[..2 * PACKET], muxer.out[..2 * PACKET], "PAT and PMT");
        assert_eq!(parts[1].0[2 * PACKET..], muxer.out[muxer.out.len() - 4 * PACKET..]);
        assert_eq!(arrival.copied_bytes, 2 * PACKET as u64);
    }

    #[test]
    fn clocks_wrap_and_jump() {
        let mut muxer = Muxer::default();
        let wrap = 1_u64 << 33;
        muxer.group(wrap - 2 * 3600, 5);
        let (seen, _) = run(&muxer.out, usize::MAX);
        let start = (wrap as i64 - 7200) * 100 / 9;
        assert_eq!(shape(&seen), [(22, true, start, start + 200_000)]);
        let mut muxer = Muxer::default();
        muxer.group(90_000, 5);
        muxer.group(0, 5);
        muxer.group(100 * 90_000, 5);
        let (seen, _) = run(&muxer.out, usize::MAX);
        let times: Vec<_> = seen.iter().flatten().map(|(_, _, start, end, jump)| (*start, *end, *jump)).collect();
        let expected = [(1_000_000, 1_200_000, false), (1_200_000, 1_400_000, true), (1_400_000, 1_600_000, true)];
        assert_eq!(times, expected);
    }

    #[test]
    fn a_changed_coding_is_seen() {
        let mut muxer = Muxer { width: 4, ..Muxer::default() };
        muxer.group(0, 5);
        muxer.width = 5;
        muxer.group(5 * 3600, 5);
        muxer.group(10 * 3600, 5);
        let (seen, _) = run(&muxer.out, 188);
        let order: Vec<_> = seen.iter().map(Option::is_none).collect();
        // The third group is divided after 0.48 s in all.
        assert_eq!(order, [true, false, true, false, false, false]);
    }

    #[test]
    fn a_publication_that_breaks_off_loses_the_picture_that_is_not_whole() {
        let mut muxer = Muxer::default();
        muxer.group(0, 5);
        let mut arrival = Arrival::new(TARGETS);
        let mut events = Vec::new();
        let cut = muxer.out.len() - 100;
        arrival.push(Bytes::copy_from_slice(&muxer.out[..cut]), &mut events).expect("a stream");
        arrival.finish(false, &mut events);
        let Some(Event::Part(part)) = events.pop() else { panic!("a part") };
        assert_eq!((part.rope.len(), part.end_us), (18 * PACKET as u64, 160_000));
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        let push = |data: &[u8]| {
            let mut arrival = Arrival::new(TARGETS);
            let mut events = Vec::new();
            let mut pieces = data.chunks(10_000).map(|piece| arrival.push(Bytes::copy_from_slice(piece), &mut events));
            pieces.find_map(Result::err).map(|broken| broken.position)
        };
        assert_eq!(push(&[0x11; 200_000]), Some(0));
        let mut muxer = Muxer::default();
        muxer.group(0, 5);
        let whole = muxer.out.len() as u64;
        muxer.out.extend([0x11; 200_000]);
        assert_eq!(push(&muxer.out), Some(whole));
        let no_tables = packet(VIDEO, true, 0, &[0; 184]).repeat(30_000);
        assert!(push(&no_tables).is_some_and(|at| at.abs_diff(TABLES_MAX) < 10_000));
    }
}
