//! MPEG-TS as it arrives: finds packets in a run of buffers and cuts parts at keyframes, without joining buffers.
//!
//! PURE. Buffers in, events out; packets stay in the buffers they came in. What is copied: packets that straddle two
//! buffers (to be read; they go out as they came), what is searched for lost sync, and program tables.
//! Source: ISO/IEC 13818-1 §2.4.3.

use super::cutter::{Cut, Cutter};
use super::packet::{PACKET, SYNC, sync_run};
use super::picture::Format;
use super::psi::Program;
use super::rope::Rope;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

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
}

impl Init {
    /// Whether a player may go on.
    pub fn same_coding(&self, other: &Self) -> bool {
        let streams = |init: &Self| -> Vec<_> { init.program.streams.iter().map(|s| (s.pid, s.coding)).collect() };
        self.parameters == other.parameters && streams(self) == streams(other)
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
    /// Decode times in microseconds: of the first picture, and of the first one behind.
    pub start_us: i64,
    pub end_us: i64,
    /// The publisher's clock jumped right before.
    pub jump: bool,
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
    /// Parts last at most `part_target_us` where pictures are shorter than that.
    pub fn new(part_target_us: i64) -> Self {
        Self {
            cutter: Cutter::new(part_target_us),
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
            if let Some(tables) = ended.tables {
                self.copied_bytes += tables.len() as u64;
                let media = std::mem::take(&mut rope);
                rope.push(tables);
                rope.append(media);
            }
            let (keyframe, start_us, jump) = (ended.keyframe, ended.start_us, ended.jump);
            events.push(Event::Part(Part { rope, keyframe, start_us, end_us: ended.end_us, jump }));
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

    /// Looks for sync in blocks of a fixed size, so that the outcome does not depend on how the bytes were cut. Gives the
    /// bytes that were taken.
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
