//! Where the parts of a live MPEG-TS begin: at keyframes with the program tables in front of them, and at other
//! pictures so that no part is longer than its target.
//!
//! PURE. Knows packets by their number of bytes since the publication began; must not know in which buffers they lie.

use super::access::{Assembler, Pes, Sync};
use super::arrival::Init;
use super::audio::Frames;
use super::elementary::{Brought, Elementary};
use super::hevc;
use super::mpeg2;
use super::packet::{PACKET, Packet};
use super::picture::{Parity, Parser};
use super::psi::{self, Coding, PAT_PID, Program, Sections};
use super::sets;
use crate::media::cadence::{Cadence, Mark, Targets, Unit as Span};
use bytes::{Bytes, BytesMut};
use std::sync::{Arc, OnceLock};

/// Packets of one section that are kept to be repeated: a section has at most 1,024 bytes.
const TABLE_PACKETS_MAX: usize = 8;
/// Steps of the clock, in ticks of 90 kHz, beyond which it jumped.
const STEP_MAX: i64 = 10 * 90_000;
const STEP_MIN: i64 = -45_000;

/// The end of one part and the beginning of the next.
pub(super) struct Cut {
    pub(super) at: u64,
    /// `None` when nothing before `at` can be decoded.
    pub(super) ended: Option<Ended>,
    /// How the next part is coded, where that is new.
    pub(super) init: Option<Arc<Init>>,
}

pub(super) struct Ended {
    pub(super) keyframe: bool,
    pub(super) begins: Mark,
    pub(super) ends: Mark,
    pub(super) start_us: i64,
    pub(super) end_us: i64,
    pub(super) jump: bool,
    /// To be put in front, where they did not stand there.
    pub(super) tables: Option<Bytes>,
    pub(super) sets: Option<Sets>,
}

/// The packet of a part at `at`, with parameter sets in it.
pub(super) struct Sets {
    pub(super) at: u64,
    pub(super) packets: Bytes,
}

struct Open {
    keyframe: bool,
    begins: Mark,
    start: i64,
    jump: bool,
    tables: Option<Bytes>,
    sets: Option<Sets>,
}

/// The stream whose units are counted: the first video, or the first audio where there is none.
enum Main {
    None,
    Video(Box<Elementary<Assembler>>),
    /// No parser for its pictures: the adaptation field tells keyframes.
    Opaque(Box<Elementary<()>>),
    Audio(Box<Elementary<()>>),
}

/// A PES packet of the main stream whose first unit has not been judged.
#[derive(Clone, Copy)]
struct Unit {
    pes: Pes,
    judged: bool,
    /// Its picture comes with parameter sets.
    has_sets: bool,
}

pub(super) struct Cutter {
    cadence: Cadence,
    pat: Table,
    pmts: Vec<(u16, Table, Option<Program>)>,
    /// The PMT's PID, and the table.
    program: Option<(u16, Program)>,
    main: Main,
    main_pid: u16,
    /// Where a PAT stands that only other streams' packets followed, and whether the PMT came behind it.
    front: Option<(u64, bool)>,
    unit: Option<Unit>,
    /// The first packet of a video's unit.
    head: [u8; PACKET],
    first_field: Option<Parity>,
    clock: Clock,
    open: Option<Open>,
    init: Option<Arc<Init>>,
    /// Sound of which no frame has come since the coding was known.
    unheard: Vec<Elementary<Frames>>,
    /// Bytes of packets of each stream of the program, since they were asked for.
    seen: Vec<(u16, u64)>,
}

/// The sections of one PID, and the packets of the last one.
#[derive(Default)]
struct Table {
    sections: Sections,
    packets: Vec<[u8; PACKET]>,
}

impl Table {
    fn feed(&mut self, packet: &Packet<'_>, bytes: &[u8; PACKET], each: impl FnMut(&[u8])) {
        if packet.unit_start {
            self.packets.clear();
        }
        if self.packets.len() < TABLE_PACKETS_MAX {
            self.packets.push(*bytes);
        }
        self.sections.feed(packet.unit_start, packet.payload, each);
    }
}

/// Unwraps 33-bit timestamps to a time that never runs backwards. Ticks of 90 kHz.
#[derive(Default)]
struct Clock {
    raw: Option<u64>,
    unwrapped: i64,
    time: i64,
    /// Between the last two units.
    interval: i64,
}

impl Clock {
    /// The time of the next unit, and whether the clock jumped.
    fn step(&mut self, raw: Option<u64>) -> (i64, bool) {
        let Some(raw) = raw else {
            self.time += self.interval;
            return (self.time, false);
        };
        let Some(before) = self.raw.replace(raw) else {
            // 33 bits.
            (self.unwrapped, self.time) = (raw as i64, raw as i64);
            return (self.time, false);
        };
        // The difference as a signed number of 33 bits.
        let step = (raw.wrapping_sub(before) << 31) as i64 >> 31;
        if !(STEP_MIN..=STEP_MAX).contains(&step) {
            self.time += self.interval;
            self.unwrapped = self.time;
            return (self.time, true);
        }
        self.unwrapped += step;
        let time = self.time.max(self.unwrapped);
        if time > self.time {
            self.interval = (time - self.time).min(90_000);
        }
        self.time = time;
        (time, false)
    }
}

fn us(ticks: i64) -> i64 {
    ticks * 100 / 9
}

impl Cutter {
    pub(super) fn new(targets: Targets) -> Self {
        Self {
            cadence: Cadence::new(targets),
            pat: Table::default(),
            pmts: Vec::new(),
            program: None,
            main: Main::None,
            main_pid: 0,
            front: None,
            unit: None,
            head: [0; PACKET],
            first_field: None,
            clock: Clock::default(),
            open: None,
            init: None,
            unheard: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Bytes of packets of each stream since this was last asked.
    pub(super) fn shares(&mut self) -> Vec<(u16, u64)> {
        let shares = self.seen.clone();
        self.seen.iter_mut().for_each(|(_, bytes)| *bytes = 0);
        shares
    }

    pub(super) fn has_tables(&self) -> bool {
        self.program.is_some()
    }

    /// A part is open.
    pub(super) fn has_begun(&self) -> bool {
        self.open.is_some()
    }

    /// Takes the packet that begins at `at`; says whether a part ends at or before it.
    pub(super) fn packet(&mut self, bytes: &[u8; PACKET], at: u64) -> Option<Cut> {
        let packet = Packet::parse(bytes).filter(|packet| !packet.scrambled)?;
        if let Some((_, seen)) = self.seen.iter_mut().find(|(pid, _)| *pid == packet.pid) {
            *seen += PACKET as u64;
        }
        if !self.unheard.is_empty() {
            self.hear(&packet);
        }
        if packet.pid == PAT_PID {
            if packet.unit_start {
                self.front = Some((at, false));
            }
            self.association(&packet, bytes);
        } else if let Some(n) = self.pmts.iter().position(|(pid, ..)| *pid == packet.pid) {
            self.map(n, &packet, bytes);
        } else if packet.pid == self.main_pid && !packet.payload.is_empty() {
            let entry = self.front.take().filter(|(_, mapped)| *mapped).map(|(entry, _)| entry);
            return self.media(&packet, bytes, at, entry);
        }
        None
    }

    /// Looks for the first frame of sound in a packet.
    fn hear(&mut self, packet: &Packet<'_>) {
        let Some(n) = self.unheard.iter().position(|stream| stream.pid == packet.pid) else { return };
        let stream = &mut self.unheard[n];
        match stream.take(packet, Pes::default()) {
            Brought::Nothing => {}
            Brought::More => stream.content.feed(packet.payload),
            Brought::Start { from_header } => stream.content.feed(&stream.header[from_header..]),
        }
        let Some(format) = stream.content.format.take() else { return };
        self.unheard.swap_remove(n);
        let known = self.init.iter().flat_map(|init| &init.sound).find(|(pid, _)| *pid == packet.pid);
        if let Some((_, known)) = known {
            known.get_or_init(|| format);
        }
    }

    fn association(&mut self, packet: &Packet<'_>, bytes: &[u8; PACKET]) {
        let pmts = &mut self.pmts;
        self.pat.feed(packet, bytes, |section| {
            let Some(pids) = psi::parse_pat(section) else { return };
            pmts.retain(|(pid, ..)| pids.contains(pid));
            for pid in pids {
                if pid != PAT_PID && !pmts.iter().any(|(known, ..)| *known == pid) {
                    pmts.push((pid, Table::default(), None));
                }
            }
        });
    }

    fn map(&mut self, n: usize, packet: &Packet<'_>, bytes: &[u8; PACKET]) {
        let Some((pid, table, program)) = self.pmts.get_mut(n) else { return };
        let pid = *pid;
        let mut found = None;
        table.feed(packet, bytes, |section| found = psi::parse_pmt(section));
        if let Some((_, mapped)) = self.front.as_mut().filter(|_| found.is_some()) {
            *mapped |= self.program.as_ref().is_none_or(|(chosen, _)| *chosen == pid);
        }
        if found.is_none() || found == *program {
            return;
        }
        *program = found;
        self.choose();
    }

    /// The first program with video; one with audio alone when all are known.
    fn choose(&mut self) {
        let with = |test: fn(Coding) -> bool| {
            let mut known = self.pmts.iter().filter_map(|(pid, _, program)| Some((*pid, program.as_ref()?)));
            known.find(|(_, program)| program.streams.iter().any(|stream| test(stream.coding)))
        };
        let is_video = |coding: Coding| coding.is_video() || matches!(coding, Coding::OtherVideo(_));
        let all = self.pmts.iter().all(|(.., program)| program.is_some());
        let Some((pid, program)) = with(is_video).or_else(|| with(Coding::is_audio).filter(|_| all)) else { return };
        if self.program.as_ref().is_some_and(|(old, known)| *old == pid && known == program) {
            return;
        }
        let program = program.clone();
        let coding_of = |program: &Program, pid: u16| program.streams.iter().find(|s| s.pid == pid).map(|s| s.coding);
        let main = program.streams.iter().find(|stream| is_video(stream.coding));
        let main = main.or_else(|| program.streams.iter().find(|stream| stream.coding.is_audio()));
        if let Some(main) = main {
            let known = self.program.as_ref().and_then(|(_, old)| coding_of(old, main.pid));
            if self.main_pid != main.pid || known != Some(main.coding) {
                (self.main, self.main_pid) = (main_of(main), main.pid);
                (self.unit, self.first_field) = (None, None);
            }
        }
        self.seen = program.streams.iter().map(|stream| (stream.pid, 0)).collect();
        self.program = Some((pid, program));
    }

    /// A packet of the main stream. `entry` is the PAT in front of it.
    fn media(&mut self, packet: &Packet<'_>, bytes: &[u8; PACKET], at: u64, entry: Option<u64>) -> Option<Cut> {
        // `entry` of a PES packet without tables in front is its own first packet.
        let place = Pes { offset: at, entry: entry.unwrap_or(at), ..Pes::default() };
        let (began, key, has_sets) = match &mut self.main {
            Main::None => return None,
            Main::Video(video) => {
                // A packet may be sent twice (§2.4.3.3).
                if video.last == *bytes {
                    return None;
                }
                video.last = *bytes;
                if packet.unit_start {
                    self.head = *bytes;
                }
                let end = at + PACKET as u64;
                let brought = video.take(packet, place);
                match brought {
                    Brought::Nothing => return None,
                    Brought::More => video.content.feed(packet.payload, end),
                    Brought::Start { from_header } => {
                        video.content.start_pes(video.pes);
                        video.content.feed(&video.header[from_header..], end);
                        self.unit = Some(Unit { pes: video.pes, judged: false, has_sets: false });
                    }
                }
                let unit = self.unit.filter(|unit| !unit.judged)?;
                let current = video.content.current().copied();
                let first = video.content.done().chain(current).find(|found| found.pes.number == unit.pes.number);
                let picture = first?.picture?;
                let second_field = picture.field.is_some_and(|parity| self.first_field.is_some_and(|f| f != parity));
                self.first_field = picture.field.filter(|_| !second_field);
                if second_field {
                    self.unit = None;
                    return None;
                }
                let is_key = matches!(first?.sync(), Sync::Closed | Sync::Open { .. });
                (unit.pes, is_key, first?.parameters)
            }
            Main::Opaque(stream) => match stream.take(packet, place) {
                Brought::Start { .. } => (stream.pes, stream.pes.random_access, true),
                _ => return None,
            },
            Main::Audio(stream) => match stream.take(packet, place) {
                Brought::Start { .. } => (stream.pes, true, true),
                _ => return None,
            },
        };
        self.unit = Some(Unit { pes: began, judged: true, has_sets });
        let (time, jump) = self.clock.step(began.dts.or(began.pts));
        let audio = matches!(self.main, Main::Audio(_));
        self.judge(began, key, time, jump, audio)
    }

    /// A unit begins that has `key` and lies at `time`: does a part begin with it?
    fn judge(&mut self, pes: Pes, key: bool, time: i64, jump: bool, audio: bool) -> Option<Cut> {
        if self.open.is_none() && !key {
            return Some(Cut { at: pes.entry, ended: None, init: None });
        }
        let span = Span { start_us: us(time), end_us: us(time + self.clock.interval), keyframe: key };
        let begins = self.cadence.begin(span, jump);
        let first = self.open.is_none();
        if first || (key && !audio) || jump || begins != Mark::Nothing {
            Some(self.begin(pes, key, begins, time, jump))
        } else {
            None
        }
    }

    fn begin(&mut self, pes: Pes, keyframe: bool, begins: Mark, time: i64, jump: bool) -> Cut {
        let is_named = keyframe || begins != Mark::Nothing;
        let tables = if is_named && pes.entry == pes.offset { self.tables() } else { None };
        let sets = if is_named { self.sets(pes) } else { None };
        let open = Open { keyframe, begins, start: time, jump, tables, sets };
        let ended = self.open.replace(open).map(|open| ended(open, begins, time));
        let init = if keyframe { self.renew() } else { None };
        Cut { at: pes.entry, ended, init }
    }

    /// The last PAT and PMT, as they came.
    fn tables(&self) -> Option<Bytes> {
        let (pid, _) = self.program.as_ref()?;
        let (_, map, _) = self.pmts.iter().find(|(known, ..)| known == pid)?;
        let mut bytes = BytesMut::with_capacity((self.pat.packets.len() + map.packets.len()) * PACKET);
        self.pat.packets.iter().chain(&map.packets).for_each(|packet| bytes.extend_from_slice(packet));
        Some(bytes.freeze())
    }

    /// The first packet of a picture that comes without parameter sets, with the last ones in it: players that take
    /// each part of a playlist for itself need them.
    fn sets(&self, pes: Pes) -> Option<Sets> {
        let Main::Video(video) = &self.main else { return None };
        if self.unit.is_none_or(|unit| unit.has_sets) {
            return None;
        }
        let delimiter = video.content.parser().delimiter()?;
        let packets = sets::insert(&self.head, delimiter, video.content.sets()?)?;
        Some(Sets { at: pes.offset - pes.entry, packets })
    }

    /// The coding, if it is another one than before.
    fn renew(&mut self) -> Option<Arc<Init>> {
        let (_, program) = self.program.as_ref()?;
        let parameters = match &self.main {
            Main::Video(video) => video.content.parameters(),
            _ => &[],
        };
        let known = self.init.as_ref();
        if known.is_some_and(|init| init.parameters == parameters && init.program == *program) {
            return None;
        }
        let coding = program.streams.iter().find(|stream| stream.pid == self.main_pid).map(|stream| stream.coding);
        let format = coding.and_then(parser_of).and_then(|mut parser| {
            parser.unit(parameters);
            parser.format().cloned()
        });
        let heard = |stream: &&psi::Stream| {
            matches!(stream.coding, Coding::Aac | Coding::MpegAudio | Coding::Ac3 | Coding::EAc3)
        };
        let sound = || program.streams.iter().filter(heard);
        self.unheard = sound().map(|stream| Elementary::new(stream.pid, Frames::new(stream.coding))).collect();
        let sound = sound().map(|stream| (stream.pid, OnceLock::new())).collect();
        let init = Arc::new(Init { program: program.clone(), parameters: parameters.to_vec(), format, sound });
        self.init = Some(Arc::clone(&init));
        Some(init)
    }

    /// Ends the open part at `at`, in the middle of whatever is there.
    pub(super) fn force(&mut self, at: u64) -> Cut {
        let time = self.clock.time;
        (self.front, self.unit) = (None, None);
        let next = Open { keyframe: false, begins: Mark::Nothing, start: time, jump: false, tables: None, sets: None };
        let ended = self.open.take().map(|open| ended(open, Mark::Nothing, time));
        if ended.is_some() {
            self.open = Some(next);
        }
        Cut { at, ended, init: None }
    }

    /// The publication ends at `at`. If it broke off, the unit that came last is left out.
    pub(super) fn finish(&mut self, at: u64, broke_off: bool) -> Cut {
        let unit = self.unit.take().filter(|_| broke_off);
        let left_out = unit.is_some_and(|unit| unit.judged);
        let time = self.clock.time + if left_out { 0 } else { self.clock.interval };
        let ended = self.open.take().map(|open| ended(open, Mark::Nothing, time));
        Cut { at: unit.map_or(at, |unit| unit.pes.entry), ended, init: None }
    }
}

fn ended(open: Open, ends: Mark, end: i64) -> Ended {
    let Open { keyframe, begins, start, jump, tables, sets } = open;
    Ended { keyframe, begins, ends, start_us: us(start), end_us: us(end.max(start)), jump, tables, sets }
}

fn parser_of(coding: Coding) -> Option<Parser> {
    match coding {
        Coding::H264 => Some(Parser::H264(Box::default())),
        Coding::Hevc => Some(Parser::Hevc(hevc::Parser::default())),
        Coding::Mpeg2Video => Some(Parser::Mpeg2(mpeg2::Parser::default())),
        _ => None,
    }
}

fn main_of(stream: &psi::Stream) -> Main {
    match parser_of(stream.coding) {
        Some(parser) => Main::Video(Box::new(Elementary::new(stream.pid, Assembler::new(parser)))),
        None if stream.coding.is_audio() => Main::Audio(Box::new(Elementary::new(stream.pid, ()))),
        None => Main::Opaque(Box::new(Elementary::new(stream.pid, ()))),
    }
}
