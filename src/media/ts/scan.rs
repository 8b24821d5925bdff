//! One pass over a file: packets to PES packets to frames to a [`Summary`] and a table.
//!
//! The streams are those of the first program table that names a video (of the first one, where none does); later
//! tables with other PIDs add none, as in ffmpeg. Must not know how a table is searched.

use super::access::{AccessUnit, Assembler, Pes};
use super::audio::Frames;
use super::elementary::{Brought, Elementary};
use super::packet::{PACKET, Packet, PacketSize, sniff_start};
use super::picture::{Format, Parser};
use super::psi::{self, Coding, PAT_PID, Program, Sections};
use super::sync::for_each_packet;
use super::timeline::{CLOCK, Timeline};
use super::{hevc, mpeg2};
use crate::media::ReadAt;
use crate::media::index::{BuildError, Container, Summary, Track, TrackKind};
use crate::media::time::{Counting, Seconds};
use std::ops::ControlFlow;

/// How far to look for the other programs of a PAT once one is known.
const PROBE: u64 = 8 << 20;
/// Program tables that are collected at once.
const PMT_MAX: usize = 64;

/// A finished index.
pub struct Built {
    pub summary: Summary,
    /// For [`super::Table::open`].
    pub table: Vec<u8>,
}

/// Scans the file once from start to end (and its beginning twice, for the program tables).
pub fn build(src: &dyn ReadAt) -> Result<Built, BuildError> {
    let (size, start) = sniff_start(src).ok_or(BuildError::Unsupported)?;
    let programs = find_programs(src, size, start)?;
    let Some(program) = programs.choose() else {
        return Err(BuildError::Malformed { what: "no program table (PAT and PMT)".into(), offset: start });
    };
    let mut scan = Scan::new(size, &programs.pmts, program);
    let mut full = false;
    for_each_packet(src, size, start, |offset, bytes| match scan.packet(offset, bytes) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => {
            full = true;
            ControlFlow::Break(())
        }
    })?;
    if full || scan.finish().is_err() {
        return Err(BuildError::Malformed { what: "more frames than an index holds".into(), offset: scan.end });
    }
    Ok(scan.built(program))
}

/// The program tables of a file.
#[derive(Default)]
struct Programs {
    pmts: Vec<(u16, Option<Program>)>,
}

impl Programs {
    fn complete(&self) -> bool {
        !self.pmts.is_empty() && self.pmts.iter().all(|(_, program)| program.is_some())
    }

    fn any(&self) -> bool {
        self.pmts.iter().any(|(_, program)| program.is_some())
    }

    fn choose(&self) -> Option<&Program> {
        let known = || self.pmts.iter().filter_map(|(_, program)| program.as_ref());
        let with = |test: fn(Coding) -> bool| known().find(|p| p.streams.iter().any(|s| test(s.coding)));
        with(Coding::is_video).or_else(|| with(Coding::is_audio)).or_else(|| known().next())
    }
}

fn find_programs(src: &dyn ReadAt, size: PacketSize, start: u64) -> std::io::Result<Programs> {
    let mut programs = Programs::default();
    let mut pat = Sections::default();
    let mut pmts: Vec<(u16, Sections)> = Vec::new();
    for_each_packet(src, size, start, |offset, bytes| {
        let Some(packet) = Packet::parse(bytes).filter(|p| !p.scrambled && !p.payload.is_empty()) else {
            return ControlFlow::Continue(());
        };
        if packet.pid == PAT_PID {
            pat.feed(packet.unit_start, packet.payload, |section| {
                for pid in psi::parse_pat(section).unwrap_or_default() {
                    if pmts.len() < PMT_MAX && !pmts.iter().any(|(known, _)| *known == pid) {
                        pmts.push((pid, Sections::default()));
                        programs.pmts.push((pid, None));
                    }
                }
            });
        } else if let Some(at) = pmts.iter().position(|(pid, _)| *pid == packet.pid) {
            pmts[at].1.feed(packet.unit_start, packet.payload, |section| {
                let program = &mut programs.pmts[at].1;
                *program = program.take().or_else(|| psi::parse_pmt(section));
            });
        }
        let enough = programs.complete() || (programs.any() && offset - start > PROBE);
        if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(programs)
}

/// What a PID carries, in the PID table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Ignored,
    Pmt,
    Video,
    /// Index into `Scan::audio`.
    Audio(u8),
}

struct Scan {
    size: PacketSize,
    slots: Vec<Slot>,
    pcr_pid: u16,
    video: Option<Elementary<Assembler>>,
    audio: Vec<Elementary<Frames>>,
    timeline: Timeline,
    /// The first audio stream, where there is no video, makes the time line; its PES packet that is not yet over.
    audio_unit: Option<AccessUnit>,
    new_timebase: bool,
    /// Start of a PAT that was followed by nothing but program tables so far.
    tables: Option<u64>,
    /// End of the last packet.
    end: u64,
}

impl Scan {
    fn new(size: PacketSize, pmts: &[(u16, Option<Program>)], program: &Program) -> Self {
        let mut scan = Self {
            size,
            slots: vec![Slot::Ignored; 1 << 13],
            pcr_pid: program.pcr_pid,
            video: None,
            audio: Vec::new(),
            timeline: Timeline::new(size.stride()),
            audio_unit: None,
            new_timebase: false,
            tables: None,
            end: 0,
        };
        for stream in &program.streams {
            let slot = &mut scan.slots[usize::from(stream.pid)];
            let parser = match stream.coding {
                Coding::H264 => Parser::H264(Box::default()),
                Coding::Hevc => Parser::Hevc(hevc::Parser::default()),
                Coding::Mpeg2Video => Parser::Mpeg2(mpeg2::Parser::default()),
                coding if coding.is_audio() && *slot == Slot::Ignored => {
                    // At most 64 streams come out of a program table.
                    *slot = Slot::Audio(scan.audio.len() as u8);
                    scan.audio.push(Elementary::new(stream.pid, Frames::new(coding)));
                    continue;
                }
                _ => continue,
            };
            if scan.video.is_none() {
                *slot = Slot::Video;
                scan.video = Some(Elementary::new(stream.pid, Assembler::new(parser)));
            }
        }
        for (pid, _) in pmts {
            scan.slots[usize::from(*pid)] = Slot::Pmt;
        }
        scan
    }

    fn packet(&mut self, offset: u64, bytes: &[u8; PACKET]) -> Result<(), super::table::Full> {
        self.end = offset + self.size.stride() as u64;
        let Some(packet) = Packet::parse(bytes) else {
            self.tables = None;
            return Ok(());
        };
        if packet.discontinuity && packet.pid == self.pcr_pid {
            self.new_timebase = true;
        }
        match self.slots[usize::from(packet.pid)] {
            _ if packet.pid == PAT_PID => {
                self.tables = packet.unit_start.then_some(offset);
                return Ok(());
            }
            Slot::Pmt => return Ok(()),
            _ if packet.scrambled => {}
            Slot::Ignored => {}
            Slot::Video => self.video_packet(offset, &packet, bytes)?,
            Slot::Audio(n) => self.audio_packet(usize::from(n), offset, &packet)?,
        }
        self.tables = None;
        Ok(())
    }

    fn place(&self, offset: u64) -> Pes {
        Pes { offset, entry: self.tables.unwrap_or(offset), new_timebase: self.new_timebase, ..Pes::default() }
    }

    fn video_packet(
        &mut self,
        offset: u64,
        packet: &Packet<'_>,
        bytes: &[u8; PACKET],
    ) -> Result<(), super::table::Full> {
        let (place, end) = (self.place(offset), self.end);
        let Some(video) = &mut self.video else { return Ok(()) };
        // A packet may be sent twice (§2.4.3.3).
        if packet.payload.is_empty() || video.last == *bytes {
            return Ok(());
        }
        video.last = *bytes;
        match video.take(packet, place) {
            Brought::Nothing => {}
            Brought::More => video.content.feed(packet.payload, end),
            Brought::Start { from_header } => {
                self.new_timebase = false;
                video.content.start_pes(video.pes);
                video.content.feed(&video.header[from_header..], end);
            }
        }
        video.previous_end = end;
        Self::drain(video, &mut self.timeline)
    }

    fn drain(video: &mut Elementary<Assembler>, timeline: &mut Timeline) -> Result<(), super::table::Full> {
        let rate = video.content.parser().format().and_then(|format| format.rate);
        let shows_all = video.content.parser().shows_before_keyframe();
        for unit in video.content.done() {
            timeline.video(&unit, rate, shows_all)?;
        }
        Ok(())
    }

    fn audio_packet(&mut self, n: usize, offset: u64, packet: &Packet<'_>) -> Result<(), super::table::Full> {
        let (place, end) = (self.place(offset), self.end);
        let Some(audio) = self.audio.get_mut(n).filter(|_| !packet.payload.is_empty()) else { return Ok(()) };
        let brought = audio.take(packet, place);
        match brought {
            Brought::Nothing => {}
            Brought::More => audio.content.feed(packet.payload),
            Brought::Start { from_header } => {
                audio.content.start_pes();
                audio.content.feed(&audio.header[from_header..]);
            }
        }
        if self.video.is_some() || n != 0 {
            return Ok(());
        }
        let pes = audio.pes;
        if matches!(brought, Brought::Start { .. }) {
            self.new_timebase = false;
            let unit =
                AccessUnit { pes, end, parameters: true, recovery: None, group: None, after_end: false, picture: None };
            if let Some(unit) = self.audio_unit.replace(unit) {
                self.timeline.audio(&unit)?;
            }
        } else if let Some(unit) = &mut self.audio_unit {
            unit.end = end;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), super::table::Full> {
        if let Some(video) = &mut self.video {
            video.content.finish();
            Self::drain(video, &mut self.timeline)?;
        }
        if let Some(unit) = self.audio_unit.take() {
            self.timeline.audio(&unit)?;
        }
        self.timeline.finish()
    }

    fn built(self, program: &Program) -> Built {
        let (rate, variable) = self.timeline.rate();
        let mut tracks = Vec::new();
        for stream in &program.streams {
            let mut track = track(stream);
            if let Some(video) = self.video.as_ref().filter(|video| video.pid == stream.pid) {
                if let Some(Format { codec, width, height, .. }) = video.content.parser().format().cloned() {
                    (track.codec, track.width, track.height) = (codec, Some(width), Some(height));
                }
                (track.frame_rate, track.variable_rate) = (rate, variable);
                track.frames = u64::from(self.timeline.writer.count());
                track.keyframes = self.timeline.keyframes;
            } else if let Some(audio) = self.audio.iter().find(|audio| audio.pid == stream.pid) {
                (track.frames, track.keyframes) = (audio.content.count, audio.content.count);
                if let Some(format) = audio.content.format.clone() {
                    track.codec = format.codec;
                    (track.sample_rate, track.channels) = (Some(format.sample_rate), Some(format.channels));
                }
            }
            tracks.push(track);
        }
        // The indexed picture is the first video track.
        tracks.sort_by_key(|track| self.video.as_ref().is_none_or(|video| u32::from(video.pid) != track.id));
        let counting = rate.filter(|_| self.video.is_some()).map(|rate| Counting { rate, drop: false });
        let total = self.timeline.total();
        let codecs: Vec<&str> = tracks
            .iter()
            .filter(|track| matches!(track.kind, TrackKind::Video | TrackKind::Audio))
            .map(|track| track.codec.as_str())
            .collect();
        let summary = Summary {
            container: Container::Ts,
            fragmented: false,
            duration: Seconds::new(i128::from(total), u64::from(CLOCK)).filter(|_| self.timeline.writer.count() > 0),
            start_timecode: counting.map(|counting| (counting.label_of(0).to_string(), counting)),
            has_timecode_track: false,
            content_type: format!("video/mp2t; codecs=\"{}\"", codecs.join(", ")),
            tracks,
        };
        Built { summary, table: self.timeline.writer.finish(total) }
    }
}

/// What a program table says of a stream.
pub(super) fn track(stream: &psi::Stream) -> Track {
    let (kind, codec) = match stream.coding {
        Coding::Mpeg2Video => (TrackKind::Video, "mp4v.61"),
        Coding::H264 => (TrackKind::Video, "avc1"),
        Coding::Hevc => (TrackKind::Video, "hvc1"),
        Coding::OtherVideo(codec) => (TrackKind::Video, codec),
        Coding::Aac | Coding::AacLatm => (TrackKind::Audio, "mp4a.40.2"),
        Coding::MpegAudio => (TrackKind::Audio, "mp4a.6B"),
        Coding::Ac3 => (TrackKind::Audio, "ac-3"),
        Coding::EAc3 => (TrackKind::Audio, "ec-3"),
        Coding::OtherAudio(codec) => (TrackKind::Audio, codec),
        Coding::Text(codec) => (TrackKind::Text, codec),
        Coding::Other => (TrackKind::Other, "data"),
    };
    Track {
        id: u32::from(stream.pid),
        kind,
        codec: codec.into(),
        width: None,
        height: None,
        frame_rate: None,
        variable_rate: false,
        frames: 0,
        keyframes: 0,
        sample_rate: None,
        channels: None,
        language: stream.language.clone(),
    }
}
