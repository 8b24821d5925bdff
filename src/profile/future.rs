//! A future as a span: entered and left at every poll, begun at its first, ended when it is ready or dropped.

use super::clock;
use super::guard::{Origin, Step};
use super::site::Site;
use super::switch;
use super::thread;
use super::tree::{Elsewhere, Node, Outcome};
use std::pin::Pin;
use std::ptr;
use std::task::{Context, Poll};

pin_project_lite::pin_project! {
    /// A future that counts as a span.
    pub struct Profiled<F> {
        // First: what it holds ends before it does.
        #[pin]
        inner: F,
        call: Call,
    }
}

/// Wraps a future so that it counts as a span of this site, below whatever polls it.
#[inline]
pub fn profiled<F: Future>(site: &'static Site, inner: F) -> Profiled<F> {
    Profiled { inner, call: Call::new(site, None) }
}

/// The same for a future that is handed to a task of its own: a root, with an edge to where it was spawned.
pub fn spawned<F: Future>(site: &'static Site, inner: F) -> Profiled<F> {
    spawned_by(site, Origin::here(), inner)
}

/// The same from elsewhere.
pub fn spawned_by<F: Future>(site: &'static Site, origin: Origin, inner: F) -> Profiled<F> {
    Profiled { inner, call: Call::new(site, Some(origin)) }
}

/// `future.span(site!("name"))`
pub trait SpanExt: Future + Sized {
    fn span(self, site: &'static Site) -> Profiled<Self> {
        profiled(site, self)
    }
}

impl<F: Future> SpanExt for F {}

impl<F: Future> Future for Profiled<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.call.poll(|| {
            let polled = this.inner.poll(cx);
            let done = polled.is_ready();
            (polled, done)
        })
    }
}

/// One call of what is polled: of a future, or of a future and what it leaves behind, such as an answer and its body.
/// Dropped before it is done, it is cancelled.
pub struct Call {
    site: &'static Site,
    /// Set for the root of a task.
    origin: Option<Origin>,
    /// Where it is counted as under way: the node of its last poll. `None`: nobody counts it, or no longer.
    home: Option<&'static Node>,
    /// Ticks at the first poll.
    start: u64,
    /// Ticks since it waits for something that is no span.
    waited: Option<u64>,
    /// It was polled while nobody counted.
    polled: bool,
}

impl Call {
    /// Counts below whatever polls it; an origin makes it the root of a task.
    #[inline]
    pub fn new(site: &'static Site, origin: Option<Origin>) -> Self {
        Self { site, origin, home: None, start: 0, waited: None, polled: false }
    }

    /// Enters for a piece of work that also says whether the call is done with it.
    #[inline]
    pub fn poll<T>(&mut self, work: impl FnOnce() -> (T, bool)) -> T {
        if !switch::is_on() {
            self.polled = true;
            let (output, done) = work();
            if done && self.home.is_some() {
                self.end(Elsewhere::Done);
            }
            return output;
        }
        let Some(mut visit) = self.visit() else { return work().0 };
        let (output, done) = work();
        visit.pending = Some(!done);
        output
    }

    /// Enters for a poll.
    fn visit(&mut self) -> Option<Visit<'_>> {
        let step = match self.origin {
            None => Step::below(self.site)?,
            Some(origin) => Step::root(self.site, origin)?,
        };
        if self.home.is_none_or(|home| !ptr::eq(home, step.node)) {
            self.settle(step.node);
        }
        let pending_before = thread::take_pending();
        step.enter();
        Some(Visit { call: self, step, pending_before, pending: None })
    }

    /// Counts the call at this node from now on.
    fn settle(&mut self, node: &'static Node) {
        match self.home {
            Some(home) => home.end_elsewhere(clock::now(), self.start, self.waited.take(), Elsewhere::Moved),
            None => self.start = if self.polled { switch::on_since() } else { clock::now() },
        }
        node.begin(self.start, self.home.is_none() && self.polled);
        self.home = Some(node);
    }

    fn end(&mut self, how: Elsewhere) {
        if let Some(home) = self.home.take() {
            home.end_elsewhere(clock::now(), self.start, self.waited.take(), how);
        }
    }
}

impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        if self.home.is_some() {
            self.end(Elsewhere::Cancelled);
        }
    }
}

/// A poll under way; left also when it panics.
struct Visit<'a> {
    call: &'a mut Call,
    step: Step,
    pending_before: u32,
    pending: Option<bool>,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let now = clock::now();
        let children = thread::take_pending();
        let outcome = match self.pending {
            Some(false) => Outcome::Done,
            Some(true) => Outcome::Pending(children),
            None => Outcome::Broken,
        };
        let call = &mut *self.call;
        self.step.node.leave_poll(now, call.start, call.waited.take(), outcome);
        let is_pending = outcome != Outcome::Done;
        match outcome {
            Outcome::Done => call.home = None,
            Outcome::Pending(0) => call.waited = Some(now),
            Outcome::Pending(_) | Outcome::Broken => {}
        }
        // A task's root is no child of what happens to poll it.
        let child = u32::from(is_pending && call.origin.is_none());
        thread::set_pending(self.pending_before + child);
        self.step.back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::snapshot::{Entry, Profile};
    use crate::profile::{Span, WINDOWS, Window};
    use std::future::{pending, poll_fn};
    use std::task::Waker;
    use std::thread;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn window() -> Window {
        WINDOWS.open().expect("few windows")
    }

    /// The entry at this path of names, from the outermost on.
    fn at<'a>(profile: &'a Profile, path: &[&str]) -> &'a Entry {
        let path_of = |entry: &'a Entry| {
            let parents = std::iter::successors(Some(entry), |entry| Some(&profile.entries[entry.parent?]));
            let mut names: Vec<_> = parents.map(|entry| entry.site.name).collect();
            names.reverse();
            names
        };
        profile.entries.iter().find(|entry| path_of(entry) == path).unwrap_or_else(|| panic!("no {path:?}"))
    }

    /// Pending `times`, then ready.
    fn yields(times: usize) -> impl Future<Output = ()> {
        let mut left = times;
        poll_fn(move |_| {
            left = left.saturating_sub(1);
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    #[test]
    fn polls_are_not_calls() {
        let open = window();
        let mut call = Box::pin(profiled(crate::site!("polled_thrice"), yields(3)));
        while poll(call.as_mut()).is_pending() {}
        let profile = open.close();
        let entry = at(&profile, &["polled_thrice"]);
        assert_eq!((entry.calls, entry.polls, entry.cancelled, entry.partial), (1, 3, 0, 0));
        assert!(entry.wall_ns >= entry.busy_ns + entry.waiting_ns);
    }

    #[test]
    fn dropped_before_it_is_done_it_is_cancelled_wherever_that_happens() {
        let open = window();
        let mut call = Box::pin(profiled(crate::site!("given_up"), pending::<()>()));
        assert!(poll(call.as_mut()).is_pending());
        thread::spawn(move || {
            let _span = crate::span!("who_drops_it");
            drop(call);
        });
        let never_polled = profiled(crate::site!("given_up"), pending::<()>());
        drop(never_polled);
        while at_most(&open, "given_up") == 0 {
            thread::yield_now();
        }
        let profile = open.close();
        let entry = at(&profile, &["given_up"]);
        assert_eq!((entry.calls, entry.polls, entry.cancelled), (0, 1, 1));
    }

    /// Cancelled calls of a name so far.
    fn at_most(open: &Window, name: &str) -> u64 {
        let so_far = open.so_far();
        so_far.entries.iter().filter(|entry| entry.site.name == name).map(|entry| entry.cancelled).sum()
    }

    #[test]
    fn a_task_that_moves_between_threads_is_one_call() {
        let open = window();
        let site = crate::site!("wanderer");
        let mut call = Box::pin(profiled(site, yields(4)));
        for _ in 0..3 {
            call = thread::scope(|scope| {
                let moved = scope.spawn(move || {
                    assert!(poll(call.as_mut()).is_pending());
                    call
                });
                moved.join().expect("polled")
            });
        }
        assert!(poll(call.as_mut()).is_ready());
        let profile = open.close();
        let entry = at(&profile, &["wanderer"]);
        assert_eq!((entry.calls, entry.polls, entry.cancelled, entry.partial), (1, 4, 0, 0));
    }

    #[test]
    fn waiting_belongs_to_the_child_that_is_pending() {
        let open = window();
        let child = profiled(crate::site!("child"), yields(2));
        let mut parent = Box::pin(profiled(crate::site!("parent"), async {
            child.await;
            yields(2).await;
        }));
        for expected in [true, true, false] {
            assert_eq!(poll(parent.as_mut()).is_pending(), expected);
            thread::sleep(std::time::Duration::from_millis(20));
        }
        let profile = open.close();
        let (parent, child) = (at(&profile, &["parent"]), at(&profile, &["parent", "child"]));
        // Two waits of 20 ms: the first is the child's, the second the parent's own.
        assert!(parent.wall_ns >= 40_000_000 && child.wall_ns >= 20_000_000);
        assert!(child.waiting_ns >= 20_000_000 && parent.waiting_ns >= 20_000_000);
        assert!(parent.waiting_ns + child.waiting_ns <= parent.wall_ns);
        assert_eq!((parent.overlaps, child.polls, parent.polls), (0, 2, 3));
    }

    #[test]
    fn several_pending_children_overlap() {
        let open = window();
        let (mut a, mut b) =
            (Box::pin(profiled(crate::site!("left"), yields(2))), Box::pin(profiled(crate::site!("right"), yields(2))));
        let both = poll_fn(move |_| {
            let (a, b) = (poll(a.as_mut()), poll(b.as_mut()));
            if a.is_ready() && b.is_ready() { Poll::Ready(()) } else { Poll::Pending }
        });
        let mut parent = Box::pin(profiled(crate::site!("both"), both));
        while poll(parent.as_mut()).is_pending() {}
        let profile = open.close();
        assert_eq!(at(&profile, &["both"]).overlaps, 1);
        assert_eq!(at(&profile, &["both", "right"]).calls, 1);
    }

    #[test]
    fn calls_in_flight_at_the_edges_are_partial() {
        let mut before = Box::pin(profiled(crate::site!("before"), yields(3)));
        let mut across = Box::pin(profiled(crate::site!("across"), yields(2)));
        let outer = window();
        assert!(poll(before.as_mut()).is_pending());
        let inner = window();
        assert!(poll(before.as_mut()).is_pending());
        assert!(poll(across.as_mut()).is_pending());
        let profile = inner.close();
        assert_eq!((at(&profile, &["before"]).partial, at(&profile, &["before"]).calls), (2, 0), "both edges");
        assert_eq!((at(&profile, &["across"]).partial, at(&profile, &["across"]).polls), (1, 1));
        assert!(poll(before.as_mut()).is_ready() && poll(across.as_mut()).is_ready());
        let profile = outer.close();
        assert_eq!((at(&profile, &["before"]).partial, at(&profile, &["before"]).calls), (0, 1));
        assert!(at(&profile, &["before"]).wall_ns <= u64::try_from(profile.window.as_nanos()).expect("short"));
    }

    #[test]
    fn a_spawned_task_is_a_root_with_an_edge_to_its_spawner() {
        let open = window();
        let mut task = {
            let _span = crate::span!("spawner");
            Box::pin(spawned(crate::site!("task"), yields(1)))
        };
        let _elsewhere = crate::span!("whoever_polls");
        assert!(poll(task.as_mut()).is_ready());
        let profile = open.close();
        let entry = at(&profile, &["task"]);
        assert_eq!((entry.calls, entry.by.map(|site| site.name)), (1, Some("spawner")));
    }

    #[test]
    fn a_span_that_ends_early_takes_along_what_began_inside() {
        let open = window();
        let outer = crate::span!("ends_first");
        let inner = crate::span!("ends_late");
        drop(outer);
        drop(crate::span!("beside"));
        drop(inner);
        drop(crate::span!("after"));
        let profile = open.close();
        assert_eq!(at(&profile, &["beside"]).calls + at(&profile, &["after"]).calls, 2);
        assert_eq!(at(&profile, &["ends_first", "ends_late"]).calls, 1);
    }

    #[test]
    fn a_panic_leaves_its_spans() {
        let open = window();
        let mut call = Box::pin(profiled(crate::site!("breaks"), async {
            let _span: Span = crate::span!("inside");
            assert!(pending_never(), "on purpose");
        }));
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(call.as_mut())));
        assert!(broken.is_err());
        drop(call);
        drop(crate::span!("goes_on"));
        let profile = open.close();
        assert_eq!((at(&profile, &["breaks"]).cancelled, at(&profile, &["breaks", "inside"]).calls), (1, 1));
        assert_eq!(at(&profile, &["goes_on"]).calls, 1);
    }

    fn pending_never() -> bool {
        std::hint::black_box(false)
    }
}
