//! What publishers send, whatever its container: told apart by its first bytes, then taken apart by its parser.
//!
//! PURE: buffers in, events out.

use crate::media::cadence::Targets;
use crate::media::index::Track;
use crate::media::mp4::arrival as mp4;
use crate::media::mp4::arrival::{ArrivalError, Wrong};
use crate::media::ts::arrival as ts;
use crate::media::ts::packet::SYNC;
use bytes::Bytes;
use std::sync::Arc;

/// How a stream is coded; players start anew when it changes.
#[derive(Clone)]
pub enum Init {
    Mp4(Arc<mp4::Init>),
    Ts(Arc<ts::Init>),
}

impl Init {
    /// What a player needs before any part.
    pub fn bytes(&self) -> Bytes {
        match self {
            Self::Mp4(init) => init.bytes.clone(),
            Self::Ts(_) => Bytes::new(),
        }
    }

    /// Whether a player may go on with parts of the other.
    pub fn same_coding(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Mp4(this), Self::Mp4(other)) => this.same_coding(other),
            (Self::Ts(this), Self::Ts(other)) => this.same_coding(other),
            _ => false,
        }
    }

    /// As `GET /live/{name}` has it.
    pub fn container(&self) -> &'static str {
        match self {
            Self::Mp4(_) => "mp4",
            Self::Ts(_) => "ts",
        }
    }

    /// What it says of its tracks.
    pub fn tracks(&self) -> Vec<Track> {
        match self {
            Self::Mp4(init) => init.described(),
            Self::Ts(init) => init.described(),
        }
    }

    /// What the names of segments end with.
    pub fn segment_extension(&self) -> &'static str {
        match self {
            Self::Mp4(_) => "m4s",
            Self::Ts(_) => "ts",
        }
    }

    pub fn content_type(&self) -> &'static str {
        match self {
            // RFC 4337 §2: `video/mp4` is for what has pictures.
            Self::Mp4(init) if init.is_sound_only() => "audio/mp4",
            Self::Mp4(_) => "video/mp4",
            Self::Ts(_) => "video/mp2t",
        }
    }
}

/// What the parser found.
pub enum Arrived {
    Init(Init),
    Fragment(mp4::Fragment),
    Part(ts::Part),
}

/// The parser of one publication.
pub struct Arrival {
    targets: Targets,
    container: Container,
    /// Of a container that is not known yet: less than a box header.
    first: Vec<u8>,
}

enum Container {
    Unknown,
    Mp4(Box<mp4::Arrival>, Vec<mp4::Event>),
    Ts(Box<ts::Arrival>, Vec<ts::Event>),
}

impl Container {
    /// A box of 1.2 GB would begin like a packet. What begins like neither is searched for packets.
    fn of(first: &[u8], targets: Targets) -> Option<Self> {
        let ts = || Self::Ts(Box::new(ts::Arrival::new(targets)), Vec::new());
        let mp4 = || Self::Mp4(Box::new(mp4::Arrival::new(targets)), Vec::new());
        match first {
            [SYNC, ..] => Some(ts()),
            [_, _, _, _, kind @ ..] if kind.len() >= 4 => {
                let is_kind = kind[..4].iter().all(|b| b.is_ascii_graphic() || *b == b' ');
                Some(if is_kind { mp4() } else { ts() })
            }
            _ => None,
        }
    }
}

impl Arrival {
    pub fn new(targets: Targets) -> Self {
        Self { targets, container: Container::Unknown, first: Vec::new() }
    }

    /// Takes the next bytes of the publication and reports what became whole.
    pub fn push(&mut self, bytes: Bytes, events: &mut Vec<Arrived>) -> Result<(), ArrivalError> {
        if !matches!(self.container, Container::Unknown) {
            return self.parse(bytes, events);
        }
        if self.first.is_empty() {
            // As a rule the first buffer tells, and is not copied.
            if let Some(container) = Container::of(&bytes, self.targets) {
                self.container = container;
                return self.parse(bytes, events);
            }
        }
        self.first.extend_from_slice(&bytes);
        let Some(container) = Container::of(&self.first, self.targets) else { return Ok(()) };
        self.container = container;
        let first = std::mem::take(&mut self.first);
        self.parse(first.into(), events)
    }

    fn parse(&mut self, bytes: Bytes, events: &mut Vec<Arrived>) -> Result<(), ArrivalError> {
        match &mut self.container {
            Container::Unknown => Ok(()),
            Container::Mp4(arrival, found) => {
                let pushed = arrival.push(bytes, found);
                events.extend(found.drain(..).map(arrived_mp4));
                pushed
            }
            Container::Ts(arrival, found) => {
                let pushed = arrival.push(bytes, found);
                events.extend(found.drain(..).map(arrived));
                pushed.map_err(|broken| {
                    let kind = if broken.position == 0 { Wrong::Format } else { Wrong::Broken };
                    ArrivalError { what: broken.what.to_owned(), position: broken.position, kind }
                })
            }
        }
    }

    /// The publication ended, or broke off, here: what is whole comes out.
    pub fn finish(&mut self, broke_off: bool, events: &mut Vec<Arrived>) {
        // A fragment of MP4 is out as soon as it is whole.
        if let Container::Ts(arrival, found) = &mut self.container {
            arrival.finish(broke_off, found);
            events.extend(found.drain(..).map(arrived));
        }
    }

    /// Bytes that are here and have not come out.
    pub fn held_bytes(&self) -> u64 {
        match &self.container {
            Container::Unknown => self.first.len() as u64,
            Container::Mp4(arrival, _) => arrival.held_bytes(),
            Container::Ts(arrival, _) => arrival.held_bytes(),
        }
    }

    /// Bytes that were copied on the way.
    pub fn copied_bytes(&self) -> u64 {
        match &self.container {
            Container::Unknown => 0,
            Container::Mp4(arrival, _) => arrival.copied_bytes,
            Container::Ts(arrival, _) => arrival.copied_bytes,
        }
    }
}

fn arrived_mp4(event: mp4::Event) -> Arrived {
    match event {
        mp4::Event::Init(init) => Arrived::Init(Init::Mp4(init)),
        mp4::Event::Fragment(fragment) => Arrived::Fragment(fragment),
    }
}

fn arrived(event: ts::Event) -> Arrived {
    match event {
        ts::Event::Init(init) => Arrived::Init(Init::Ts(init)),
        ts::Event::Part(part) => Arrived::Part(part),
    }
}
