//! Joins the units of a video stream to access units, each with the packets it lies in and the timestamps of the PES
//! packet in which it begins.
//!
//! An access unit may share its PES packet with others, or reach over several. The two fields of a frame are one.
//! Must not know how frames are ordered or stored.

use super::nal::{Event, KEEP, Splitter};
use super::picture::{Kind, Parser, Picture, Prefix, Unit};

/// The PES packet that is being read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pes {
    /// First packet.
    pub offset: u64,
    /// Where a reader should start to find this packet: the PAT in front of it, or the packet itself.
    pub entry: u64,
    /// End of the packet of this stream before it.
    pub end_before: u64,
    pub pts: Option<u64>,
    pub dts: Option<u64>,
    pub random_access: bool,
    /// The time base changed since the PES packet before.
    pub new_timebase: bool,
    /// Counts PES packets.
    pub number: u64,
}

/// One coded frame.
#[derive(Clone, Copy, Debug)]
pub struct AccessUnit {
    pub pes: Pes,
    /// End of the last packet.
    pub end: u64,
    /// Sequence parameters lie in it.
    pub parameters: bool,
    pub recovery: Option<u32>,
    /// A group of pictures header lies in it; its `closed_gop`.
    pub group: Option<bool>,
    /// The stream ended a sequence right before.
    pub after_end: bool,
    pub picture: Option<Picture>,
}

/// Where decoding can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    No,
    /// Everything behind it in decoding order decodes.
    Closed,
    /// Leading pictures do not decode; `closed` says otherwise.
    Open {
        closed: bool,
    },
    /// Pictures are right this many frames later.
    Gradual(u32),
}

impl AccessUnit {
    /// NAL type, SEI and the adaptation field together: none is trusted alone.
    pub fn sync(&self) -> Sync {
        let Some(picture) = self.picture else { return Sync::No };
        match (picture.kind, self.recovery) {
            (Kind::Instant, _) => Sync::Closed,
            (Kind::Open | Kind::Broken, _) => Sync::Open { closed: self.group == Some(true) },
            (Kind::Intra, Some(0)) => Sync::Open { closed: false },
            (_, Some(frames @ 1..)) => Sync::Gradual(frames),
            (Kind::Intra, None) if self.pes.random_access && self.parameters => Sync::Open { closed: false },
            _ => Sync::No,
        }
    }
}

/// Splits one stream. Finished access units wait in [`Assembler::done`].
pub struct Assembler {
    splitter: Splitter,
    state: State,
}

struct State {
    parser: Parser,
    pes: Pes,
    /// Bytes of the elementary stream in this PES packet so far.
    pes_bytes: u64,
    /// Number of the PES packet whose timestamps are used up.
    stamped: u64,
    /// Of the packet before the current one.
    previous_end: u64,
    packet_end: u64,
    /// The unit that is being collected: its PES packet, and where what came before ends.
    unit: (Pes, u64),
    current: Option<AccessUnit>,
    /// A first field that waits for its second.
    first_field: Option<AccessUnit>,
    after_end: bool,
    /// The sequence parameters that came last, without the zeros behind them.
    parameters: Vec<u8>,
    sets: Sets,
    done: Vec<AccessUnit>,
}

/// The parameter sets of one access unit.
#[derive(Default)]
struct Sets {
    bytes: Vec<u8>,
    /// A sequence parameter set is among them.
    sequence: bool,
    /// One of them was too long to be kept.
    cut: bool,
    /// The next one is of another access unit.
    closed: bool,
}

impl Sets {
    fn take(&mut self, unit: &[u8], whole: bool, sequence: bool) {
        if std::mem::take(&mut self.closed) {
            *self = Self::default();
        }
        self.sequence |= sequence;
        self.cut |= !whole || self.bytes.len() > KEEP;
        if !self.cut {
            self.bytes.extend([0, 0, 0, 1]);
            self.bytes.extend_from_slice(unit);
        }
    }

    fn usable(&self) -> Option<&[u8]> {
        (self.sequence && !self.cut).then_some(&self.bytes)
    }
}

impl Assembler {
    pub fn new(parser: Parser) -> Self {
        let state = State {
            parser,
            pes: Pes::default(),
            pes_bytes: 0,
            stamped: 0,
            previous_end: 0,
            packet_end: 0,
            unit: (Pes::default(), 0),
            current: None,
            first_field: None,
            after_end: false,
            parameters: Vec::new(),
            sets: Sets::default(),
            done: Vec::new(),
        };
        Self { splitter: Splitter::default(), state }
    }

    pub fn parser(&self) -> &Parser {
        &self.state.parser
    }

    /// The sequence parameters that came last.
    pub fn parameters(&self) -> &[u8] {
        &self.state.parameters
    }

    /// All parameter sets of the last access unit that had some, as a byte stream, if a decoder can begin with them.
    pub fn sets(&self) -> Option<&[u8]> {
        self.state.sets.usable()
    }

    /// The access unit that is being collected.
    pub fn current(&self) -> Option<&AccessUnit> {
        self.state.current.as_ref()
    }

    /// A PES packet begins; numbers count from 1.
    pub fn start_pes(&mut self, pes: Pes) {
        self.state.pes = pes;
        self.state.pes_bytes = 0;
    }

    /// More of the PES packet, out of the transport packet that ends at `packet_end`.
    pub fn feed(&mut self, data: &[u8], packet_end: u64) {
        let state = &mut self.state;
        if packet_end != state.packet_end {
            state.previous_end = state.packet_end;
            state.packet_end = packet_end;
        }
        self.splitter.feed(data, |event| state.event(event, data));
        state.pes_bytes += data.len() as u64;
    }

    /// The stream ends here.
    pub fn finish(&mut self) {
        let state = &mut self.state;
        self.splitter.finish(|event| state.event(event, &[]));
        let end = state.packet_end;
        state.close(end);
        if let Some(field) = state.first_field.take() {
            state.done.push(field);
        }
    }

    /// Access units that are complete, in decoding order.
    pub fn done(&mut self) -> std::vec::Drain<'_, AccessUnit> {
        self.state.done.drain(..)
    }
}

impl State {
    fn event(&mut self, event: Event<'_>, data: &[u8]) -> usize {
        match event {
            Event::Start { first, at } => {
                let begins_packet = at <= 3 || (at == 4 && data[0] == 0);
                let end_before = if self.pes_bytes + at as u64 <= 4 {
                    self.pes.end_before
                } else if begins_packet {
                    self.previous_end
                } else {
                    self.packet_end
                };
                self.unit = (self.pes, end_before);
                self.parser.wants(first)
            }
            Event::Unit(bytes) => {
                let unit = self.parser.unit(bytes);
                self.unit(unit);
                let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                let sequence = unit == Unit::Prefix(Prefix::Parameters);
                if sequence {
                    self.parameters.clear();
                    self.parameters.extend_from_slice(&bytes[..end]);
                }
                if bytes.first().is_some_and(|first| self.parser.is_set(*first)) {
                    self.sets.take(&bytes[..end], bytes.len() < KEEP, sequence);
                }
                0
            }
        }
    }

    fn unit(&mut self, unit: Unit) {
        match unit {
            Unit::Prefix(prefix) => {
                let current = self.open();
                match prefix {
                    Prefix::Plain => {}
                    Prefix::Parameters => current.parameters = true,
                    Prefix::Recovery(frames) => current.recovery = Some(frames),
                    Prefix::Group { closed } => current.group = Some(closed),
                }
            }
            Unit::Picture(picture) => self.open().picture = Some(picture),
            Unit::Structure { field } => {
                if let Some(picture) = self.current.as_mut().and_then(|unit| unit.picture.as_mut()) {
                    picture.field = field;
                }
            }
            Unit::Inside => {}
            Unit::EndOfSequence => self.after_end = true,
        }
    }

    /// The access unit that a prefix or a picture belongs to: the current one unless it has its picture.
    fn open(&mut self) -> &mut AccessUnit {
        let (mut pes, end_before) = self.unit;
        if self.current.is_some_and(|unit| unit.picture.is_some()) {
            self.close(end_before);
        }
        self.current.get_or_insert_with(|| {
            // Timestamps belong to the first access unit that begins in a PES packet.
            if self.stamped == pes.number {
                (pes.pts, pes.dts, pes.new_timebase, pes.random_access) = (None, None, false, false);
            }
            self.stamped = pes.number;
            let after_end = std::mem::take(&mut self.after_end);
            AccessUnit { pes, end: 0, parameters: false, recovery: None, group: None, after_end, picture: None }
        })
    }

    fn close(&mut self, end: u64) {
        let Some(mut unit) = self.current.take() else { return };
        let Some(picture) = unit.picture else { return };
        self.sets.closed = true;
        unit.end = end.max(unit.pes.offset + 1);
        let Some(parity) = picture.field else {
            self.done.extend(self.first_field.take());
            self.done.push(unit);
            return;
        };
        let pairs = |first: &Picture| {
            first.number == picture.number && first.field.is_some_and(|p| p != parity) && picture.kind != Kind::Instant
                || first.kind == Kind::Instant
                    && picture.kind == Kind::Instant
                    && first.field.is_some_and(|p| p != parity)
        };
        match self.first_field.take() {
            Some(mut first) if first.picture.as_ref().is_some_and(pairs) => {
                first.end = unit.end;
                self.done.push(first);
            }
            other => {
                self.done.extend(other);
                self.first_field = Some(unit);
            }
        }
    }
}
