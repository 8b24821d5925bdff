//! One part of a live stream handed to many viewers, its playlist, and what the profiler and a histogram cost.

use super::sample;
use crate::bench::{Benchmark, Statement};
use crate::live::arrival::{Arrival, Arrived};
use crate::live::cursor::{Cursor, Next};
use crate::live::numbers::InMemory;
use crate::live::playlist::{Form, Playlist};
use crate::live::window::Bounds;
use crate::live::{LiveConfig, Publication, Streams};
use crate::media::cadence::Targets;
use crate::observe::latency::{BUCKETS, Histogram};
use crate::profile::{Hold, SpanExt, site, span};
use bytes::Bytes;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

pub(super) fn span() -> Benchmark {
    Benchmark::new(
        "span",
        "What does a span of the profiler cost, off and on?",
        "off, one relaxed load; on, two readings of the clock and an addition to a node of the thread's tree",
    )
    .way("nothing", |_| Ok(Statement::new(1, || black_box(1u64))))
    .way("off", |_| Ok(Statement::new(1, || spanned(1))))
    .way("on", |_| {
        let hold = Hold::new();
        Ok(Statement::new(1, move || {
            let _held = &hold;
            spanned(1)
        }))
    })
    .way("off, a future", |_| Statement::of_async(1, || std::future::ready(black_box(1u64)).span(site!("benchmark"))))
    .way("on, a future", |_| {
        let hold = Hold::new();
        Statement::of_async(1, move || {
            let _held = &hold;
            std::future::ready(black_box(1u64)).span(site!("benchmark"))
        })
    })
}

fn spanned(value: u64) -> u64 {
    let _span = span!("benchmark");
    black_box(value)
}

/// Frames that are pushed in each loop: about one part.
const FRAMES: u32 = 30;
/// Seconds of media that are pushed over and over; time goes on by a discontinuity.
const SECONDS: u32 = 20;
const TARGETS: Targets = Targets { part_us: 500_000, segment_us: 4_000_000 };

pub(super) fn fanout() -> Benchmark {
    Benchmark::new(
        "part-fanout",
        "What does it cost to hand one part of a live stream to all its viewers?",
        "a viewer more costs a clone of the part and a waker; what the publisher pays without viewers stands beside it",
    )
    .sized("viewers", 1000, 1..=100_000)
    .per("viewer")
    .way("nobody", |size| fanning(size, 0))
    .way("viewers", |size| fanning(size, size))
}

fn streams(window_us: i64, targets: Targets) -> Arc<Streams> {
    let config = LiveConfig {
        window: Bounds { duration_us: window_us, bytes: 64 << 20 },
        targets,
        streams_max: 1,
        memory_max: 64 << 20,
        reconnect_window: Duration::from_secs(10),
        takeover: false,
        lags_max: u32::MAX,
    };
    Arc::new(Streams::new(config, Arc::new(InMemory::default())))
}

fn fanning(elements: u64, viewers: u64) -> Result<Statement, String> {
    let streams = streams(10_000_000, TARGETS);
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut publication = streams.publish("bench", address).map_err(|error| error.to_string())?;
    let stream = streams.get("bench").ok_or("the stream is not there")?;
    let media = Bytes::from(sample::ts(sample::FRAME_RATE * SECONDS));
    let step = media.len() / (sample::FRAME_RATE * SECONDS / FRAMES) as usize;
    let (mut arrival, mut at, mut parts) = (Arrival::new(TARGETS), 0, 0);
    let mut cursors: Vec<Cursor> = (0..viewers).map(|_| stream.view(None)).collect();
    let mut push = move || {
        if at + step > media.len() {
            at = 0;
        }
        let pushed = take(&mut arrival, &mut publication, media.slice(at..at + step));
        at += step;
        pushed
    };
    // The first part of all is there, and every cursor has seen it.
    for _ in 0..8 {
        push()?;
        parts += follow(&mut cursors);
    }
    if viewers > 0 && parts == 0 {
        return Err("no part came".to_owned());
    }
    Ok(Statement::new(elements, move || push().map(|()| follow(&mut cursors))))
}

pub(super) fn playlist() -> Benchmark {
    Benchmark::new(
        "playlist-render",
        "What does the playlist of a live stream cost each time the stream goes on?",
        "it is rendered once a part, which grows with the window; all others who ask get a clone, whatever its length",
    )
    .sized("seconds that are listed", 60, 20..=600)
    .per("second")
    .way("rendered", |size| listing(size, |playlist, _| playlist.render(false).len()))
    .way("rendered, delta", |size| listing(size, |playlist, _| playlist.render(true).len()))
    .way("shared", |size| listing(size, |playlist, rendered| playlist.text(Form::default(), rendered).len()))
}

fn listing(seconds: u64, text: impl Fn(&Playlist, &AtomicU64) -> usize + 'static) -> Result<Statement, String> {
    let streams = streams(i64::try_from(seconds).unwrap_or(0) * 1_000_000, TARGETS);
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut publication = streams.publish("bench", address).map_err(|error| error.to_string())?;
    let stream = streams.get("bench").ok_or("the stream is not there")?;
    let frames = u32::try_from(seconds).unwrap_or(SECONDS) * sample::FRAME_RATE;
    take(&mut Arrival::new(TARGETS), &mut publication, Bytes::from(sample::ts(frames)))?;
    let playlist = stream.playlist(|| 0);
    if !playlist.render(false).contains("#EXTINF") {
        return Err("no segment is listed".to_owned());
    }
    let rendered = AtomicU64::new(0);
    Ok(Statement::new(seconds, move || text(black_box(&playlist), &rendered)))
}

pub(super) fn observe() -> Benchmark {
    Benchmark::new(
        "histogram-observe",
        "What does it cost to count a duration in a histogram?",
        "two additions to counters of the thread's own; a lock costs more, and so do the readings of the clock",
    )
    .way("observe", |_| {
        let histogram = Histogram::new();
        Ok(Statement::new(1, move || histogram.observe(black_box(TOOK))))
    })
    .way("behind a mutex", |_| {
        let buckets = Mutex::new(([0u64; BUCKETS], 0));
        Ok(Statement::new(1, move || {
            let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
            let ns = black_box(TOOK).as_nanos() as u64;
            buckets.0[(64 - (ns / 1000).leading_zeros() as usize).min(BUCKETS - 1)] += 1;
            buckets.1 += ns;
        }))
    })
    .way("with its clock", |_| {
        let histogram = Histogram::new();
        Ok(Statement::new(1, move || histogram.observe(black_box(Instant::now()).elapsed())))
    })
}

/// What is observed.
const TOOK: Duration = Duration::from_micros(350);

/// Pushes bytes as a publisher's connection does.
fn take(arrival: &mut Arrival, publication: &mut Publication, bytes: Bytes) -> Result<(), String> {
    let mut found: Vec<Arrived> = Vec::new();
    arrival.push(bytes, &mut found).map_err(|error| error.to_string())?;
    for arrived in found {
        publication.take(arrived).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Each cursor takes what is new; gives the number of parts that were taken.
fn follow(cursors: &mut [Cursor]) -> usize {
    let context = Context::from_waker(Waker::noop());
    let mut parts = 0;
    for cursor in cursors {
        while let Poll::Ready(next) = cursor.poll_next(&context) {
            match next {
                Next::Part(part) => {
                    black_box(part);
                    parts += 1;
                }
                Next::Init(_) => {}
                Next::End => break,
            }
        }
    }
    parts
}
