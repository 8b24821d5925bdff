//! The profilers of the running server and the formats they write: `profile.proto` for `go tool pprof`.
//! Does not belong here: HTTP words, what a video is.

pub mod cpu;
pub mod heap;
mod maps;
pub mod proto;
mod slot;
pub mod stack;
pub mod symbols;
mod timers;

use proto::Label;

/// The span that this thread is in, as a number for [`span_of`]. Callable from a signal handler.
#[inline]
fn span_here() -> u64 {
    0
}

/// What a span is called, and the route of the request that it serves.
struct SpanName {
    span: &'static str,
    route: Option<&'static str>,
}

fn span_of(_number: u64) -> Option<SpanName> {
    None
}

impl SpanName {
    fn labels(self) -> Vec<Label> {
        let span = Label::Text("span", self.span.to_owned());
        std::iter::once(span).chain(self.route.map(|route| Label::Text("route", route.to_owned()))).collect()
    }
}
