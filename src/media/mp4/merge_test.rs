//! Tests of [`super::align`] and [`super::merge`]: tracks made here, whose merged bytes are read again.

use super::align::{Aligner, Refused, SOURCES_MAX, Taken};
use super::arrival::{Arrival, Event, Init};
use super::merge::{self, Member};
use super::write::Boxes;
use crate::media::cadence::Targets;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything here: nothing is divided.
const TARGETS: Targets = Targets { part_us: 3_600_000_000, segment_us: 3_600_000_000 };

/// One track that counts in milliseconds, of samples of 100 ms and four bytes, which are no sync samples as a rule.
pub(crate) fn init_of(handler: &[u8; 4], id: u32, coding: u8) -> Vec<u8> {
    let mut out = Boxes::new();
    out.boxed(b"ftyp", |b| b.raw(b"iso6\0\0\0\0"));
    out.boxed(b"moov", |b| {
        b.full(b"mvhd", 0, 0, |b| {
            b.zeros(8);
            b.u32(1000);
            b.zeros(80);
        });
        b.boxed(b"trak", |b| {
            b.full(b"tkhd", 0, 7, |b| {
                b.zeros(8);
                b.u32(id);
                b.zeros(68);
            });
            b.boxed(b"mdia", |b| {
                b.full(b"mdhd", 0, 0, |b| {
                    b.zeros(8);
                    b.u32(1000);
                    b.zeros(8);
                });
                b.full(b"hdlr", 0, 0, |b| {
                    b.zeros(4);
                    b.raw(handler);
                    b.zeros(13);
                });
                b.boxed(b"minf", |b| {
                    b.boxed(b"stbl", |b| {
                        b.full(b"stsd", 0, 0, |b| {
                            b.u32(1);
                            b.boxed(b"code", |b| b.raw(&[coding]));
                        });
                    });
                });
            });
        });
        b.boxed(b"mvex", |b| {
            b.full(b"trex", 0, 0, |b| [id, 1, 100, 4, 0x01_0000].iter().for_each(|word| b.u32(*word)))
        });
    });
    out.into_bytes()
}

/// Samples from a time on, each of four times the same byte.
pub(crate) fn fragment_of(id: u32, start: u64, samples: u32, byte: u8) -> Vec<u8> {
    let mut out = Boxes::new();
    out.boxed(b"moof", |b| {
        b.full(b"mfhd", 0, 0, |b| b.u32(1));
        b.boxed(b"traf", |b| {
            b.full(b"tfhd", 0, 0x02_0000, |b| b.u32(id));
            b.full(b"tfdt", 1, 0, |b| b.u64(start));
            b.full(b"trun", 0, 5, |b| {
                b.u32(samples);
                // Behind 92 bytes of `moof` and the header of the `mdat`; the first one is a sync sample.
                b.u32(100);
                b.u32(0x0200_0000);
            });
        });
    });
    out.boxed(b"mdat", |b| b.raw(&vec![byte; samples as usize * 4]));
    out.into_bytes()
}

fn parsed(arrival: &mut Arrival, bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    arrival.push(Bytes::copy_from_slice(bytes), &mut events).expect("valid");
    events
}

/// What came out: (`track_ID`, start and end in milliseconds) of each fragment, and its media.
type Out = (Vec<(u32, i64, i64)>, Vec<u8>);

struct Feed {
    aligner: Aligner,
    muxed: Arrival,
    now: Duration,
    inits: usize,
    out: Vec<Out>,
}

impl Feed {
    fn new() -> Self {
        let (aligner, muxed) = (Aligner::new(Duration::from_secs(2)), Arrival::new(TARGETS));
        Self { aligner, muxed, now: Duration::ZERO, inits: 0, out: Vec::new() }
    }

    fn init(&mut self, name: &str, handler: &[u8; 4], coding: u8) {
        let events = parsed(&mut Arrival::new(TARGETS), &init_of(handler, 7, coding));
        let Some(Event::Init(init)) = events.into_iter().next() else { panic!("no init segment") };
        self.aligner.admits(name, &init).expect("admitted");
        let mut out = Vec::new();
        self.aligner.take_init(name, init, self.now, &mut out).expect("taken");
        self.read(out);
    }

    /// A request sends samples from a time on.
    fn send(&mut self, (name, request): (&str, u64), start: u64, samples: u32, byte: u8) -> Taken {
        let init = Arc::clone(self.aligner.init(name).expect("an init segment"));
        let mut events = parsed(&mut Arrival::after(init, TARGETS), &fragment_of(7, start, samples, byte));
        let Some(Event::Fragment(fragment)) = events.pop() else { panic!("no fragment") };
        self.aligner.take(name, request, fragment, self.now)
    }

    /// Lets time go by; gives what came out.
    fn after(&mut self, ms: u64) -> Vec<Out> {
        self.now += Duration::from_millis(ms);
        let mut out = Vec::new();
        self.aligner.poll(self.now, &mut out).expect("polled");
        self.read(out);
        std::mem::take(&mut self.out)
    }

    fn read(&mut self, out: Vec<Bytes>) {
        for event in parsed(&mut self.muxed, &out.concat()) {
            match event {
                Event::Init(_) => self.inits += 1,
                Event::Fragment(fragment) => {
                    let runs = fragment.runs.iter().map(|run| (run.track as u32 + 1, run.start, run.end)).collect();
                    let bytes = fragment.rope.concat();
                    let media = 8 + bytes.windows(4).position(|four| four == b"mdat").expect("media") - 4;
                    self.out.push((runs, bytes[media..].to_vec()));
                }
            }
        }
    }
}

fn media(all: &[(u8, usize)]) -> Vec<u8> {
    all.iter().flat_map(|(byte, samples)| vec![*byte; samples * 4]).collect()
}

#[test]
fn pictures_set_the_pace_and_sound_goes_with_them() {
    let mut feed = Feed::new();
    feed.init("v", b"vide", 1);
    feed.init("a", b"soun", 1);
    assert_eq!(feed.send(("v", 1), 0, 5, b'V'), Taken::New);
    assert_eq!(feed.send(("a", 2), 0, 3, b'a'), Taken::New);
    assert_eq!(feed.after(100), [], "sound has not come past the pictures");
    feed.send(("a", 2), 300, 3, b'b');
    let first = (vec![(1, 0, 500), (2, 0, 300)], media(&[(b'V', 5), (b'a', 3)]));
    // No track is twice in one fragment.
    assert_eq!(feed.after(1), [first, (vec![(2, 300, 600)], media(&[(b'b', 3)]))]);
    assert_eq!(feed.inits, 1);
}

#[test]
fn nobody_waits_for_long_nor_for_who_has_left() {
    let mut feed = Feed::new();
    feed.init("v", b"vide", 1);
    feed.send(("v", 1), 0, 5, b'V');
    assert_eq!(feed.after(1900), [], "sound may still come");
    let alone = |start: i64| vec![(vec![(1, start, start + 500)], media(&[(b'V', 5)]))];
    assert_eq!(feed.after(200), alone(0));
    // What comes later than that is another coding of the whole.
    feed.init("a", b"soun", 1);
    feed.send(("a", 2), 500, 1, b'a');
    feed.send(("v", 1), 500, 5, b'V');
    assert_eq!(feed.after(900), []);
    let both = (vec![(1, 500, 1000), (2, 500, 600)], media(&[(b'V', 5), (b'a', 1)]));
    assert_eq!(feed.after(200), [both]);
    assert_eq!(feed.inits, 2);
    feed.aligner.leave("a");
    feed.send(("v", 1), 1000, 5, b'V');
    assert_eq!(feed.after(0), alone(1000));
}

#[test]
fn what_was_sent_before_is_left_out() {
    let mut feed = Feed::new();
    feed.init("a", b"soun", 1);
    for (request, start) in [(1, 0), (2, 500), (3, 1000)] {
        assert_eq!(feed.send(("a", request), start, 5, b'a'), Taken::New);
    }
    // The last one, an earlier one, and the first one behind its init segment but with more before.
    assert_eq!(feed.send(("a", 4), 1000, 5, b'x'), Taken::Again);
    assert_eq!(feed.send(("a", 5), 500, 5, b'x'), Taken::Again);
    feed.init("a", b"soun", 1);
    assert_eq!(feed.send(("a", 6), 500, 5, b'x'), Taken::Again);
    assert_eq!(feed.send(("a", 6), 1500, 5, b'a'), Taken::New);
    let out = feed.after(2000);
    assert_eq!(out.iter().map(|(runs, _)| runs[0].1).collect::<Vec<_>>(), [0, 500, 1000, 1500]);
    assert!(out.iter().all(|(_, bytes)| bytes.iter().all(|byte| *byte == b'a')));
}

#[test]
fn a_request_that_was_overtaken_has_its_place() {
    let mut feed = Feed::new();
    feed.init("v", b"vide", 1);
    feed.init("a", b"soun", 1);
    for (name, request, byte) in [("v", 1, b'V'), ("a", 2, b'a')] {
        assert_eq!(feed.send((name, request), 0, 10, byte), Taken::New);
    }
    assert_eq!(feed.after(0).len(), 1);
    // Sound from 2.05 s on is there before that from 1 s on.
    for (name, request, start, byte) in [("v", 3, 1000, b'V'), ("a", 5, 2050, b'c'), ("v", 6, 2000, b'V')] {
        assert_eq!(feed.send((name, request), start, 10, byte), Taken::New);
    }
    assert_eq!(feed.after(500), []);
    assert_eq!(feed.send(("a", 4), 1000, 5, b'b'), Taken::New);
    assert_eq!(feed.after(0), [], "half of it is still missing");
    assert_eq!(feed.send(("a", 4), 1500, 5, b'b'), Taken::New);
    let mut out = feed.after(0);
    assert_eq!(out.len(), 2, "what is missing now comes later than the pictures until 2 s");
    assert_eq!(feed.send(("a", 4), 2000, 1, b'b'), Taken::New);
    out.extend(feed.after(0));
    let sound: Vec<_> = out.iter().flat_map(|(runs, _)| runs).filter(|run| run.0 == 2).map(|run| run.1).collect();
    assert_eq!(sound, [1000, 1500, 2000, 2050]);
    // What is longer away than others can wait is left out.
    assert_eq!(feed.send(("v", 8), 4000, 10, b'V'), Taken::New);
    assert_eq!(feed.send(("a", 9), 3050, 30, b'd'), Taken::New);
    assert_eq!(feed.after(900), []);
    assert_eq!(feed.after(200).len(), 1);
    assert_eq!(feed.send(("v", 7), 3000, 10, b'V'), Taken::Again);
}

#[test]
fn encoders_that_begin_anew_go_on_together_where_the_stream_stands() {
    let mut feed = Feed::new();
    for (name, handler) in [("v", b"vide"), ("a", b"soun")] {
        feed.init(name, handler, 1);
    }
    feed.send(("v", 1), 0, 10, b'V');
    feed.send(("a", 2), 0, 12, b'a');
    assert_eq!(feed.after(0).len(), 1);
    for (name, handler) in [("v", b"vide"), ("a", b"soun")] {
        feed.aligner.leave(name);
        feed.init(name, handler, 1);
    }
    feed.send(("a", 3), 0, 10, b'b');
    feed.send(("v", 4), 0, 10, b'W');
    let out = feed.after(3000);
    let runs: Vec<_> = out.iter().flat_map(|(runs, _)| runs.clone()).collect();
    // From the end of the sound on, both by as much.
    assert_eq!(runs, [(1, 1200, 2200), (2, 1200, 2200)]);
    assert_eq!(feed.inits, 2, "the new beginning is announced");
}

#[test]
fn another_coding_comes_behind_what_waits() {
    let mut feed = Feed::new();
    feed.init("v", b"vide", 1);
    feed.send(("v", 1), 0, 5, b'V');
    feed.after(2000);
    feed.init("a", b"soun", 1);
    feed.send(("v", 1), 500, 5, b'V');
    feed.init("v", b"vide", 2);
    feed.send(("v", 1), 1000, 5, b'W');
    feed.aligner.leave("a");
    let media: Vec<Vec<u8>> = feed.after(2000).into_iter().map(|(_, media)| media).collect();
    assert_eq!(media, [vec![b'V'; 20], vec![b'W'; 20]]);
    let other = Init::for_tests();
    assert!(feed.aligner.admits("more", &other).is_ok());
    let mut videos = parsed(&mut Arrival::new(TARGETS), &init_of(b"vide", 1, 1));
    let Some(Event::Init(video)) = videos.pop() else { panic!("no init segment") };
    assert_eq!(feed.aligner.admits("w", &video), Err(Refused::SecondVideo));
    assert_eq!(feed.aligner.admits("v", &video), Ok(()), "the same one may");
    for n in 0..SOURCES_MAX - 2 {
        feed.init(&format!("a{n}"), b"soun", 1);
    }
    assert_eq!(feed.aligner.admits("more", &other), Err(Refused::TooMany));
}

fn init_segment(handler: &[u8; 4]) -> Arc<Init> {
    let events = parsed(&mut Arrival::new(TARGETS), &init_of(handler, 7, 1));
    let Some(Event::Init(init)) = events.into_iter().next() else { panic!("no init segment") };
    init
}

/// `moof`, and the `mdat` in two pieces.
fn rope(bytes: &[u8]) -> Vec<Bytes> {
    let whole = Bytes::copy_from_slice(bytes);
    vec![whole.slice(..92), whole.slice(92..95), whole.slice(95..)]
}

#[test]
fn two_tracks_of_one_id_become_two() {
    let (video, sound) = (init_segment(b"vide"), init_segment(b"soun"));
    let inits = [(&*video, &[1][..]), (&*sound, &[2][..])];
    let merged = merge::init(inits.into_iter()).expect("merged");
    let (v, a) = (rope(&fragment_of(7, 100, 3, b'V')), rope(&fragment_of(7, 90, 2, b'a')));
    let members = [Member { rope: &v, tracks: &[(7, 1, 1000)] }, Member { rope: &a, tracks: &[(7, 2, -40)] }];
    let one = merge::fragment(&members, 5).expect("merged").concat();
    let mut arrival = Arrival::new(TARGETS);
    let mut events = parsed(&mut arrival, &[&merged[..], &one].concat());
    let Some(Event::Fragment(found)) = events.pop() else { panic!("no fragment") };
    let facts = found.runs.iter().map(|run| (run.video, run.start, run.end, run.samples, run.bytes));
    let runs: Vec<_> = facts.collect();
    assert_eq!(runs, [(true, 1100, 1400, 3, 12), (false, 50, 250, 2, 8)]);
    assert!(one.ends_with(b"mdatVVVVVVVVVVVVaaaaaaaa"));
    let Some(Event::Init(init)) = events.pop() else { panic!("no init segment") };
    assert_eq!(init.timescales().collect::<Vec<_>>(), [(1, 1000), (2, 1000)]);
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let bytes = fragment_of(7, 0, 3, b'V');
    let refused = |bytes: &[u8]| {
        let rope = rope(bytes);
        merge::fragment(&[Member { rope: &rope, tracks: &[(7, 1, 0)] }], 1).expect_err("refused").what
    };
    // The data offset of the `trun`, and the kind of the `tfdt`.
    let place = |kind: &[u8]| bytes.windows(4).position(|four| four == kind).expect("there");
    let with = |at: usize, value: &[u8; 4]| [&bytes[..at], &value[..], &bytes[at + 4..]].concat();
    let offset = place(b"trun") + 12;
    for outside in [99_u32, 113, u32::MAX] {
        assert_eq!(refused(&with(offset, &outside.to_be_bytes())), "trun data outside of its mdat");
    }
    assert_eq!(refused(&with(place(b"tfdt"), b"senc")), "encrypted tracks cannot be merged");
    assert_eq!(refused(&with(place(b"tfhd"), b"free")), "a traf without tfhd");
    assert_eq!(refused(&with(place(b"mdat"), b"free")), "a fragment without media");
}
