//! What a span costs, switched off and on, in sync code and around a future, beside `tracing` with a layer that keeps
//! busy and idle times as a profiler would need them.
//!
//! Budget: 1.5 ns off, 50 ns on (DESIGN.md section 9). Figures, and what the spans cost the server: docs/profiling.md.

use divan::{Bencher, black_box};
use std::future::{Future, ready};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use weir::profile::{Hold, SpanExt};
use weir::{site, span};

fn main() {
    divan::main();
}

/// Not nothing, so that the loop is not: about a nanosecond.
#[inline(never)]
fn work(n: u64) -> u64 {
    black_box(n).wrapping_mul(3)
}

fn sync_call(n: u64) -> u64 {
    let _span = span!("bench_sync");
    work(n)
}

/// In place, as a future that is awaited.
#[inline(always)]
fn poll_once<T>(future: impl Future<Output = T>) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[divan::bench]
fn sync_without(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| work(7));
}

#[divan::bench]
fn sync_off(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| sync_call(7));
}

#[divan::bench]
fn sync_on(bencher: Bencher<'_, '_>) {
    let _hold = Hold::new();
    bencher.bench_local(|| sync_call(7));
}

#[divan::bench]
fn future_without(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| poll_once(ready(work(7))));
}

#[divan::bench]
fn future_off(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| poll_once(ready(work(7)).span(site!("bench_future"))));
}

#[divan::bench]
fn future_on(bencher: Bencher<'_, '_>) {
    let _hold = Hold::new();
    bencher.bench_local(|| poll_once(ready(work(7)).span(site!("bench_future"))));
}

/// Times between enter and exit, and between exit and enter.
struct Timing;

struct Times {
    since: Instant,
    busy: Duration,
    idle: Duration,
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Timing {
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: LayerContext<'_, S>) {
        if let Some(span) = context.span(id) {
            let times = Times { since: Instant::now(), busy: Duration::ZERO, idle: Duration::ZERO };
            span.extensions_mut().insert(times);
        }
    }

    fn on_enter(&self, id: &Id, context: LayerContext<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(times) = span.extensions_mut().get_mut::<Times>()
        {
            let now = Instant::now();
            times.idle += now - times.since;
            times.since = now;
        }
    }

    fn on_exit(&self, id: &Id, context: LayerContext<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(times) = span.extensions_mut().get_mut::<Times>()
        {
            let now = Instant::now();
            times.busy += now - times.since;
            times.since = now;
        }
    }

    fn on_close(&self, id: Id, context: LayerContext<'_, S>) {
        if let Some(span) = context.span(&id)
            && let Some(times) = span.extensions().get::<Times>()
        {
            black_box((times.busy, times.idle));
        }
    }
}

#[divan::bench]
fn sync_tracing(bencher: Bencher<'_, '_>) {
    let subscriber = tracing_subscriber::registry().with(Timing);
    tracing::subscriber::with_default(subscriber, || {
        bencher.bench_local(|| {
            let _span = tracing::info_span!("bench_sync").entered();
            work(7)
        });
    });
}

#[divan::bench]
fn future_tracing(bencher: Bencher<'_, '_>) {
    let subscriber = tracing_subscriber::registry().with(Timing);
    tracing::subscriber::with_default(subscriber, || {
        bencher.bench_local(|| {
            let span = tracing::info_span!("bench_future");
            let mut future = pin!(ready(work(7)));
            // As Instrument does it at each poll.
            span.in_scope(|| future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready())
        });
    });
}
