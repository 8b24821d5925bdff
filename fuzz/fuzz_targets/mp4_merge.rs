//! Tracks that arrive on requests of their own and are joined into one stream: whatever they say, what comes out is
//! fragmented MP4 that is read again, and no byte of media is there that was not sent.
//!
//! The input is a run of records. The first byte of one says which source it is of and what happens: bytes arrive
//! (behind a length of two bytes), a request ends and another one begins, a source leaves, or time goes by.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;
use weir_fuzz::media::cadence::Targets;
use weir_fuzz::media::mp4::align::Aligner;
use weir_fuzz::media::mp4::arrival::{Arrival, ArrivalError, Event};

const TARGETS: Targets = Targets { part_us: 500_000, segment_us: 4_000_000 };
const NAMES: [&str; 4] = ["video", "sound", "other", "more"];

/// The requests of one stream, and the parser behind the muxer.
struct Session {
    aligner: Aligner,
    sources: [Source; 4],
    requests: u64,
    now: Duration,
    muxed: Arrival,
    received: u64,
    sent: u64,
}

struct Source {
    request: u64,
    arrival: Arrival,
}

impl Session {
    fn new() -> Self {
        let source = |request| Source { request, arrival: Arrival::new(TARGETS) };
        Self {
            aligner: Aligner::new(Duration::from_secs(2)),
            sources: [source(0), source(1), source(2), source(3)],
            requests: 4,
            now: Duration::ZERO,
            muxed: Arrival::new(TARGETS),
            received: 0,
            sent: 0,
        }
    }

    fn push(&mut self, of: usize, bytes: &[u8]) {
        self.received += bytes.len() as u64;
        let (name, source) = (NAMES[of], &mut self.sources[of]);
        let mut events = Vec::new();
        let pushed = source.arrival.push(Bytes::copy_from_slice(bytes), &mut events);
        for event in events {
            match event {
                Event::Init(init) => {
                    if self.aligner.admits(name, &init).is_err() {
                        return self.begin(of);
                    }
                    let mut out = Vec::new();
                    let taken = self.aligner.take_init(name, init, self.now, &mut out);
                    self.mux(out, taken);
                }
                Event::Fragment(fragment) => {
                    self.aligner.take(name, self.sources[of].request, fragment, self.now);
                }
            }
        }
        if pushed.is_err() {
            self.begin(of);
        }
        self.poll();
    }

    /// A request ends, and the next one of its source begins.
    fn begin(&mut self, of: usize) {
        self.requests += 1;
        let arrival = match self.aligner.init(NAMES[of]) {
            Some(init) => Arrival::after(init.clone(), TARGETS),
            None => Arrival::new(TARGETS),
        };
        self.sources[of] = Source { request: self.requests, arrival };
    }

    fn poll(&mut self) {
        let mut out = Vec::new();
        let polled = self.aligner.poll(self.now, &mut out);
        self.mux(out, polled);
    }

    fn mux(&mut self, out: Vec<Bytes>, made: Result<(), ArrivalError>) {
        let mut events = Vec::new();
        for bytes in out {
            if self.muxed.push(bytes, &mut events).is_err() {
                self.muxed = Arrival::new(TARGETS);
            }
        }
        if made.is_err() {
            // The publication ends.
            self.muxed = Arrival::new(TARGETS);
        }
        for event in events {
            let Event::Fragment(fragment) = event else { continue };
            let whole: Vec<u8> = fragment.rope.concat();
            assert_eq!(whole.len() as u64, fragment.len);
            let size =
                |at: usize| u64::from(u32::from_be_bytes([whole[at], whole[at + 1], whole[at + 2], whole[at + 3]]));
            // Weir's own, with 32-bit sizes.
            assert_eq!(&whole[4..8], b"moof");
            let mdat = size(0) as usize;
            assert_eq!(&whole[mdat + 4..mdat + 8], b"mdat");
            assert_eq!(size(0) + size(mdat), fragment.len);
            self.sent += size(mdat) - 8;
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut session, mut rest) = (Session::new(), data);
    while let [what, after @ ..] = rest {
        let of = usize::from(what & 3);
        rest = after;
        match what >> 2 & 7 {
            0 => session.begin(of),
            1 => session.aligner.leave(NAMES[of]),
            2 => {
                session.now += Duration::from_millis(u64::from(what >> 5) * 100 + 50);
                session.poll();
            }
            _ => {
                let [a, b, after @ ..] = rest else { break };
                let length = usize::from(u16::from_be_bytes([*a, *b])).min(after.len());
                let (bytes, after) = after.split_at(length);
                rest = after;
                session.push(of, bytes);
            }
        }
    }
    let mut out = Vec::new();
    let flushed = session.aligner.flush(&mut out);
    session.mux(out, flushed);
    assert!(session.sent <= session.received, "{} bytes of {}", session.sent, session.received);
});
