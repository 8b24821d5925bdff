//! A span of sync code: entered when the guard is made, left when it is dropped.

use super::clock;
use super::site::Site;
use super::switch;
use super::thread;
use super::tree::Node;
use std::marker::PhantomData;
use std::ptr;

/// Where the thread went, and where it came from.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub node: &'static Node,
    pub from: &'static Node,
}

impl Step {
    /// Into the child of where this thread is.
    #[inline]
    pub fn below(site: &'static Site) -> Option<Self> {
        let from = thread::current()?;
        Some(Self { node: from.child(site, None)?, from })
    }

    /// Into a root of its own, whatever this thread is doing.
    pub fn root(site: &'static Site, origin: Origin) -> Option<Self> {
        let from = thread::current()?;
        let root = from.tree().root();
        let root = match origin.apart {
            Some(apart) => root.child(apart, None)?,
            None => root,
        };
        Some(Self { node: root.child(site, origin.by)?, from })
    }

    #[inline]
    pub fn enter(self) {
        thread::set_current(self.node);
        self.node.enter(clock::now());
    }

    /// Back to where the thread came from.
    #[inline]
    pub fn back(self) {
        match thread::current() {
            Some(current) if ptr::eq(current, self.node) => thread::set_current(self.from),
            Some(current) => self.back_early(current),
            None => {}
        }
    }

    /// This span ends before one that began inside it: that one goes with it. If the other was first, it took this one
    /// along and nothing is left to do.
    #[cold]
    fn back_early(self, current: &'static Node) {
        let mut inside = Some(current);
        while let Some(node) = inside {
            if ptr::eq(node, self.node) {
                return thread::set_current(self.from);
            }
            inside = node.parent();
        }
    }
}

/// Where work that is handed to another task or thread comes from. It begins a root of its own there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    by: Option<&'static Site>,
    /// The root of a request that is profiled alone: its work is kept with it.
    apart: Option<&'static Site>,
}

impl Origin {
    /// This thread's place.
    #[inline]
    pub fn here() -> Self {
        if !switch::is_on() {
            return Self::default();
        }
        Self::of_current()
    }

    fn of_current() -> Self {
        let Some(node) = thread::current().filter(|node| node.parent().is_some()) else { return Self::default() };
        let top = node.top().site;
        Self { by: Some(node.site), apart: (top.kind == super::Kind::Runcall).then_some(top) }
    }
}

/// Counts and times until it is dropped. Made by [`span!`](crate::span).
#[must_use = "a span ends when its guard is dropped"]
pub struct Span {
    step: Option<Step>,
    /// Not Send: a guard that is held across an await would time other tasks.
    not_send: PhantomData<*const ()>,
}

impl Span {
    #[inline(always)]
    pub fn enter(site: &'static Site) -> Self {
        let step = if switch::is_on() { enter(site) } else { None };
        Self { step, not_send: PhantomData }
    }

    /// The same where the site depends on what is only asked while spans count.
    #[inline(always)]
    pub fn enter_one_of(site: impl FnOnce() -> &'static Site) -> Self {
        let step = if switch::is_on() { enter(site()) } else { None };
        Self { step, not_send: PhantomData }
    }

    /// Whether the switch is on or not: for measuring what that costs.
    #[inline(always)]
    pub(super) fn enter_always(site: &'static Site) -> Self {
        Self { step: enter(site), not_send: PhantomData }
    }

    /// The root of a job that was handed to this thread.
    pub fn root(site: &'static Site, origin: Origin) -> Self {
        let step = if switch::is_on() { Step::root(site, origin) } else { None };
        step.inspect(|step| step.enter());
        Self { step, not_send: PhantomData }
    }
}

#[inline(never)]
fn enter(site: &'static Site) -> Option<Step> {
    let step = Step::below(site)?;
    step.enter();
    Some(step)
}

impl Drop for Span {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(step) = self.step {
            leave(step);
        }
    }
}

#[inline(never)]
fn leave(step: Step) {
    step.node.leave(clock::now());
    step.back();
}
