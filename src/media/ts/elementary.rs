//! Takes the PES layer off the packets of one elementary stream.
//!
//! Must not know what the stream is coded in, nor where its packets come from.

use super::access::Pes;
use super::packet::{PACKET, Packet};
use super::pes::{self, Header};

/// The PES layer of one stream.
pub(super) struct Elementary<T> {
    pub(super) pid: u16,
    pub(super) content: T,
    /// A PES header that is not complete.
    pub(super) header: Vec<u8>,
    /// `None` until the first header and behind a broken one.
    state: State,
    pub(super) pes: Pes,
    pes_count: u64,
    /// End of this stream's packet before the current one.
    pub(super) previous_end: u64,
    pub(super) last: [u8; PACKET],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Skipping,
    Header,
    Content,
}

/// What a packet brought.
pub(super) enum Brought {
    Nothing,
    /// Bytes of the elementary stream from here on in the payload, or in the collected header; a PES packet began.
    Start {
        from_header: usize,
    },
    More,
}

impl<T> Elementary<T> {
    pub(super) fn new(pid: u16, content: T) -> Self {
        Self {
            pid,
            content,
            header: Vec::new(),
            state: State::Skipping,
            pes: Pes::default(),
            pes_count: 0,
            previous_end: 0,
            last: [0; PACKET],
        }
    }

    /// Takes the PES layer off one packet. `place` holds offset and entry of the packet.
    pub(super) fn take(&mut self, packet: &Packet<'_>, place: Pes) -> Brought {
        if packet.unit_start {
            self.pes = Pes { end_before: self.previous_end, ..place };
            self.header.clear();
            self.state = State::Header;
        }
        self.pes.random_access |= packet.random_access;
        match self.state {
            State::Skipping => Brought::Nothing,
            State::Content => Brought::More,
            State::Header => {
                self.header.extend_from_slice(packet.payload);
                match pes::parse(&self.header) {
                    Header::Complete { len, pts, dts, scrambled: false } => {
                        self.state = State::Content;
                        self.pes_count += 1;
                        self.pes = Pes { pts, dts, number: self.pes_count, ..self.pes };
                        Brought::Start { from_header: len }
                    }
                    Header::Incomplete if self.header.len() < pes::HEADER_MAX => Brought::Nothing,
                    _ => {
                        self.state = State::Skipping;
                        Brought::Nothing
                    }
                }
            }
        }
    }
}
