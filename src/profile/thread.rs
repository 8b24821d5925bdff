//! Each thread's place in its tree, and all trees.
//!
//! A tree is never freed: futures and signal handlers keep pointers into it. A thread that ends leaves its tree to the
//! next that begins, so there are as many as threads ever were alive at once, and what a dead thread counted stays.
#![allow(unsafe_code, reason = "a thread's place is a pointer, which a signal handler can read")]

use super::site::{Kind, Site};
use super::tree::{Node, Tree};
use std::cell::Cell;
use std::ptr;
use std::sync::Mutex;

/// Without a destructor and without lazy initialisation: a signal handler may read it at any time.
struct Place {
    /// Null: the thread has no tree yet, or no longer.
    current: Cell<*const Node>,
    /// Instrumented futures that returned pending during the poll of the one that is current.
    pending: Cell<u32>,
}

thread_local! {
    static PLACE: Place = const { Place { current: Cell::new(ptr::null()), pending: Cell::new(0) } };
    static OWNED: Owned = const { Owned(Cell::new(None)) };
}

/// Gives the tree back when the thread ends.
struct Owned(Cell<Option<&'static Tree>>);

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(tree) = self.0.take() {
            PLACE.with(|place| place.current.set(ptr::null()));
            trees(|trees| trees.idle.push(tree));
        }
    }
}

struct Trees {
    all: Vec<&'static Tree>,
    /// Of threads that ended.
    idle: Vec<&'static Tree>,
}

static TREES: Mutex<Trees> = Mutex::new(Trees { all: Vec::new(), idle: Vec::new() });

fn trees<T>(with: impl FnOnce(&mut Trees) -> T) -> T {
    with(&mut TREES.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

/// Every tree there is.
pub fn all() -> Vec<&'static Tree> {
    trees(|trees| trees.all.clone())
}

/// Where this thread is in its tree; `None` at its very end.
#[inline]
pub fn current() -> Option<&'static Node> {
    let current = PLACE.with(|place| place.current.get());
    // SAFETY: null or a node of a tree that is never freed.
    unsafe { current.as_ref() }.or_else(attach)
}

#[inline]
pub fn set_current(node: &'static Node) {
    PLACE.with(|place| place.current.set(node));
}

/// Sets the count of pending children to 0 and gives what it was.
#[inline]
pub fn take_pending() -> u32 {
    PLACE.with(|place| place.pending.replace(0))
}

#[inline]
pub fn set_pending(count: u32) {
    PLACE.with(|place| place.pending.set(count));
}

#[cold]
fn attach() -> Option<&'static Node> {
    let take = |owned: &Owned| {
        let tree = trees(|trees| {
            trees.idle.pop().unwrap_or_else(|| {
                let tree: &'static Tree = Box::leak(Tree::new());
                trees.all.push(tree);
                tree
            })
        });
        owned.0.set(Some(tree));
        set_current(tree.root());
        tree.root()
    };
    // Not while the thread's storage is being taken down.
    OWNED.try_with(take).ok()
}

/// A node of some thread's tree, as a number; what a sample may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(usize);

impl NodeId {
    /// No span, or none that counts.
    pub const NONE: Self = Self(0);

    /// For a signal handler's ring of numbers.
    pub fn to_raw(self) -> usize {
        self.0
    }

    /// # Safety
    /// `raw` is what [`NodeId::to_raw`] gave in this process.
    pub unsafe fn from_raw(raw: usize) -> Self {
        Self(raw)
    }

    /// The spans from the outermost to this one; empty for none.
    pub fn path(self) -> Vec<&'static Site> {
        // SAFETY: null, or from `current_node` (the contract of `from_raw`): a node of a tree that is never freed.
        let node = unsafe { ptr::with_exposed_provenance::<Node>(self.0).as_ref() };
        let mut path = Vec::new();
        let mut next = node;
        while let Some(node) = next.filter(|node| node.site.kind != Kind::Root) {
            path.push(node.site);
            next = node.parent();
        }
        path.reverse();
        path
    }
}

/// The span in which this thread is. Safe in a signal handler: one load, no lock, no allocation. Spans are only known
/// while a [`Hold`](super::Hold) is held.
#[inline]
pub fn current_node() -> NodeId {
    NodeId(PLACE.with(|place| place.current.get()).expose_provenance())
}
