//! The call tree of one thread. One thread writes it with plain loads and stores; any thread reads it at the same time.
//!
//! A node stands for a site below a parent node, so its counters are those of an edge, too. Nodes never move and are
//! never freed while their tree lives: a reader, a signal handler or a future may keep a pointer. Counters only grow; a
//! report is the difference of two readings. Must not know threads' storage, clocks or the server.
#![allow(unsafe_code, reason = "nodes are linked by pointers that live as long as their tree")]

use super::site::{OTHER, ROOT, Site};
use super::sync::{AtomicPtr, AtomicU64, Mutex, MutexGuard, Ordering, fence, pause};
use std::ptr;

use Ordering::{Acquire, Relaxed, Release};

/// Nodes of one tree; what finds no room is counted in an `<other>` node of its parent.
pub const NODES_MAX: u64 = 8192;
/// Levels of one tree.
pub const DEPTH_MAX: u32 = 256;
/// A child found this deep in its parent's list moves to the front.
const FRONT: usize = 8;

/// One thread's spans.
pub struct Tree {
    root: *const Node,
    /// Every node, the newest first: the reader's way.
    newest: AtomicPtr<Node>,
    nodes: AtomicU64,
}

// SAFETY: `root` is written once, before the tree is shared, and points to a node that lives as long as the tree; nodes
// are shared by design (below).
unsafe impl Send for Tree {}
// SAFETY: as above.
unsafe impl Sync for Tree {}

/// A site below a parent. Aligned so that no two threads write to one cache line.
#[repr(align(128))]
pub struct Node {
    pub site: &'static Site,
    /// For the root of a spawned task or job: where it was spawned.
    pub by: Option<&'static Site>,
    tree: *const Tree,
    /// Null for the root.
    parent: *const Node,
    depth: u32,
    /// The next older node of the tree.
    older: *const Node,
    /// The owner's way; no reader follows it.
    first_child: AtomicPtr<Node>,
    next_sibling: AtomicPtr<Node>,
    own: Own,
    /// What happens elsewhere than in a poll on the owning thread, and seldom.
    cold: Mutex<Cold>,
}

// SAFETY: the pointers are written before the node is published and point to nodes of the same tree, which live as
// long; everything that changes is atomic or behind a mutex.
unsafe impl Send for Node {}
// SAFETY: as above.
unsafe impl Sync for Node {}

/// Counters with a single writer: plain additions, no locked instruction. `seq` is odd while they are changed.
#[derive(Default)]
struct Own {
    seq: AtomicU64,
    /// Time inside, of what has left.
    busy: AtomicU64,
    /// When the one that is inside now entered; 0: none is.
    entered: AtomicU64,
    polls: AtomicU64,
    /// Calls that completed.
    calls: AtomicU64,
    /// Calls that had begun before anybody counted.
    unseen: AtomicU64,
    /// Entries that went below an `<other>` node: counted, not timed.
    skipped: AtomicU64,
    /// Polls that ended with more than one instrumented child pending.
    overlaps: AtomicU64,
    wall: OwnSpread,
    /// Pending without an instrumented child that is pending.
    waiting: OwnSpread,
}

/// Time of things that overlap: the sum over those that ended, and how many are under way since when in sum.
#[derive(Default)]
struct OwnSpread {
    total: AtomicU64,
    count: AtomicU64,
    since: AtomicU64,
}

#[derive(Default)]
struct Cold {
    calls: u64,
    cancelled: u64,
    wall: Spread,
    waiting: Spread,
}

/// What [`Cold`] has to say about a spread: ends of what [`Own`] began.
#[derive(Clone, Copy, Default)]
struct Spread {
    total: u64,
    count: u64,
    since: u64,
}

/// A node's counters at one moment. Times in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub calls: u64,
    pub polls: u64,
    pub cancelled: u64,
    pub busy: u64,
    pub wall: u64,
    /// Waiting for something that is no span.
    pub waiting: u64,
    pub overlaps: u64,
    pub skipped: u64,
    /// Calls that had begun before the switch was on.
    pub unseen: u64,
    /// Calls under way.
    pub in_flight: u64,
}

/// How a poll of a future ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// With so many instrumented children pending.
    Pending(u32),
    /// It panicked; its future will be dropped.
    Broken,
}

impl Tree {
    pub fn new() -> Box<Self> {
        let mut tree =
            Box::new(Self { root: ptr::null(), newest: AtomicPtr::new(ptr::null_mut()), nodes: AtomicU64::new(0) });
        let root = Node::new(&ROOT, None, &tree, None);
        tree.root = tree.publish(root);
        tree
    }

    pub fn root(&self) -> &Node {
        // SAFETY: set by `new` to a node that `drop` frees.
        unsafe { &*self.root }
    }

    /// Only the owner, or nobody else, may call it.
    fn publish(&self, mut node: Box<Node>) -> *const Node {
        node.older = self.newest.load(Relaxed);
        let node = Box::into_raw(node);
        self.newest.store(node, Release);
        self.nodes.store(self.nodes.load(Relaxed) + 1, Relaxed);
        node
    }

    /// Every node, children before their parents.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        let mut next: *const Node = self.newest.load(Acquire);
        std::iter::from_fn(move || {
            // SAFETY: null, or a node that was published by the store this load saw, or an older one.
            let node = unsafe { next.as_ref() }?;
            next = node.older;
            Some(node)
        })
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let mut next = self.newest.load(Relaxed);
        while !next.is_null() {
            // SAFETY: made by Box::into_raw in `publish`, in this list once; nobody else has the tree any more.
            let node = unsafe { Box::from_raw(next) };
            next = node.older.cast_mut();
        }
    }
}

impl Node {
    fn new(site: &'static Site, by: Option<&'static Site>, tree: &Tree, parent: Option<&Node>) -> Box<Self> {
        Box::new(Self {
            site,
            by,
            tree,
            parent: parent.map_or(ptr::null(), ptr::from_ref),
            depth: parent.map_or(0, |parent| parent.depth + 1),
            older: ptr::null(),
            first_child: AtomicPtr::new(ptr::null_mut()),
            next_sibling: AtomicPtr::new(ptr::null_mut()),
            own: Own::default(),
            cold: Mutex::new(Cold::default()),
        })
    }

    pub fn parent(&self) -> Option<&Node> {
        // SAFETY: null, or a node of this tree.
        unsafe { self.parent.as_ref() }
    }

    pub fn tree(&self) -> &Tree {
        // SAFETY: a tree outlives its nodes and is boxed.
        unsafe { &*self.tree }
    }

    /// The top of this node's stack, below the root.
    pub fn top(&self) -> &Node {
        let mut top = self;
        while let Some(parent) = top.parent().filter(|parent| parent.parent().is_some()) {
            top = parent;
        }
        top
    }

    /// Owner: the child for a site, made if it is not there. `None` below an `<other>` node, which only counts.
    #[inline]
    pub fn child(&self, site: &'static Site, by: Option<&'static Site>) -> Option<&Node> {
        let first: *const Node = self.first_child.load(Relaxed);
        // SAFETY: null or a node of this tree.
        match unsafe { first.as_ref() } {
            Some(node) if node.is(site, by) => Some(node),
            _ => self.find(site, by),
        }
    }

    fn is(&self, site: &Site, by: Option<&Site>) -> bool {
        ptr::eq(self.site, site) && self.by.map(ptr::from_ref) == by.map(ptr::from_ref)
    }

    fn find(&self, site: &'static Site, by: Option<&'static Site>) -> Option<&Node> {
        if ptr::eq(self.site, &OTHER) {
            add(&self.own.skipped, 1);
            return None;
        }
        self.search(site, by).or_else(|| {
            let full = self.tree().nodes.load(Relaxed) >= NODES_MAX || self.depth + 1 >= DEPTH_MAX;
            match full {
                true => self.search(&OTHER, None).or_else(|| Some(self.add(&OTHER, None))),
                false => Some(self.add(site, by)),
            }
        })
    }

    fn search(&self, site: &Site, by: Option<&Site>) -> Option<&Node> {
        let mut link = &self.first_child;
        for position in 0.. {
            let next = link.load(Relaxed);
            // SAFETY: null or a node of this tree.
            let node = unsafe { next.as_ref() }?;
            if node.is(site, by) {
                if position >= FRONT {
                    link.store(node.next_sibling.load(Relaxed), Relaxed);
                    node.next_sibling.store(self.first_child.load(Relaxed), Relaxed);
                    self.first_child.store(next, Relaxed);
                }
                return Some(node);
            }
            link = &node.next_sibling;
        }
        None
    }

    #[cold]
    fn add(&self, site: &'static Site, by: Option<&'static Site>) -> &Node {
        let node = Self::new(site, by, self.tree(), Some(self));
        node.next_sibling.store(self.first_child.load(Relaxed), Relaxed);
        let node = self.tree().publish(node);
        self.first_child.store(node.cast_mut(), Relaxed);
        // SAFETY: published just now; freed with the tree.
        unsafe { &*node }
    }

    /// Owner: something went inside.
    #[inline]
    pub fn enter(&self, now: u64) {
        self.own.entered.store(now, Relaxed);
    }

    /// Owner: a sync span left.
    #[inline]
    pub fn leave(&self, now: u64) {
        let own = &self.own;
        own.change(|| {
            let inside = own.left(now);
            add(&own.calls, 1);
            add(&own.wall.total, inside);
        });
    }

    /// Owner: a call was seen for the first time here; it may have begun before.
    pub fn begin(&self, start: u64, unseen: bool) {
        self.own.change(|| {
            self.own.wall.begin(start);
            add(&self.own.unseen, u64::from(unseen));
        });
    }

    /// Owner: a poll ended, of a call that began at `start` and had waited on its own since `waited`, if at all.
    pub fn leave_poll(&self, now: u64, start: u64, waited: Option<u64>, outcome: Outcome) {
        let own = &self.own;
        let entered = own.entered.load(Relaxed);
        own.change(|| {
            own.left(now);
            if let Some(since) = waited {
                own.waiting.end(since, entered);
            }
            match outcome {
                Outcome::Done => {
                    own.wall.end(start, now);
                    add(&own.calls, 1);
                }
                Outcome::Pending(0) => own.waiting.begin(now),
                Outcome::Pending(children) => add(&own.overlaps, u64::from(children > 1)),
                Outcome::Broken => {}
            }
        });
    }

    /// Any thread: a call that was counted here ends elsewhere than in a poll on the owning thread.
    pub fn end_elsewhere(&self, now: u64, start: u64, waited: Option<u64>, how: Elsewhere) {
        let mut cold = self.cold();
        if let Some(since) = waited {
            cold.waiting.end(since, now);
        }
        match how {
            Elsewhere::Moved => cold.wall.end(start, start),
            Elsewhere::Done => cold.wall.end(start, now),
            Elsewhere::Cancelled => cold.wall.end(start, now),
        }
        cold.calls += u64::from(how == Elsewhere::Done);
        cold.cancelled += u64::from(how == Elsewhere::Cancelled);
    }

    fn cold(&self) -> MutexGuard<'_, Cold> {
        self.cold.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Any thread: the counters at one moment, with the time of what is under way. `now` is asked inside.
    pub fn read(&self, now: impl Fn() -> u64) -> Counts {
        // The owner changes a node for some nanoseconds at a time: a few attempts are enough.
        loop {
            let seq = self.own.seq.load(Acquire);
            if seq.is_multiple_of(2) {
                let cold = self.cold();
                let counts = self.own.read(&cold, now());
                drop(cold);
                fence(Acquire);
                if self.own.seq.load(Relaxed) == seq {
                    return counts;
                }
            }
            pause();
        }
    }
}

/// Why a call ends on a node outside a poll there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// Its next poll has another thread or another parent.
    Moved,
    /// It completed after the switch was turned off.
    Done,
    Cancelled,
}

impl Own {
    /// Changes the counters so that a reader sees all or nothing of it.
    #[inline]
    fn change(&self, change: impl FnOnce()) {
        let seq = self.seq.load(Relaxed);
        self.seq.store(seq + 1, Relaxed);
        fence(Release);
        change();
        self.seq.store(seq + 2, Release);
    }

    /// How long it was inside.
    #[inline]
    fn left(&self, now: u64) -> u64 {
        let inside = now.saturating_sub(self.entered.load(Relaxed));
        add(&self.busy, inside);
        self.entered.store(0, Relaxed);
        add(&self.polls, 1);
        inside
    }

    fn read(&self, cold: &Cold, now: u64) -> Counts {
        let entered = self.entered.load(Relaxed);
        let inside = if entered == 0 { 0 } else { now.saturating_sub(entered) };
        let (wall, in_flight) = self.wall.read(&cold.wall, now);
        let (waiting, _) = self.waiting.read(&cold.waiting, now);
        // A sync span has no wall time of its own.
        let inside_wall = if in_flight == 0 { inside } else { 0 };
        Counts {
            calls: self.calls.load(Relaxed) + cold.calls,
            polls: self.polls.load(Relaxed),
            cancelled: cold.cancelled,
            busy: self.busy.load(Relaxed) + inside,
            wall: wall + inside_wall,
            waiting,
            overlaps: self.overlaps.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            unseen: self.unseen.load(Relaxed),
            in_flight: in_flight.max(u64::from(entered != 0)),
        }
    }
}

impl OwnSpread {
    fn begin(&self, start: u64) {
        add(&self.count, 1);
        add(&self.since, start);
    }

    fn end(&self, start: u64, now: u64) {
        add(&self.count, 1_u64.wrapping_neg());
        add(&self.since, start.wrapping_neg());
        add(&self.total, now.saturating_sub(start));
    }

    /// The time up to now, and how many are under way. Sums of times wrap; their difference does not.
    fn read(&self, ended: &Spread, now: u64) -> (u64, u64) {
        let count = self.count.load(Relaxed).wrapping_sub(ended.count);
        let since = self.since.load(Relaxed).wrapping_sub(ended.since);
        let total = self.total.load(Relaxed) + ended.total;
        // A start may be read after `now` was: never less than nothing.
        let under_way = count.wrapping_mul(now).wrapping_sub(since) as i64;
        (total + under_way.max(0) as u64, count)
    }
}

impl Spread {
    fn end(&mut self, start: u64, now: u64) {
        self.count += 1;
        self.since = self.since.wrapping_add(start);
        self.total += now.saturating_sub(start);
    }
}

/// An addition that only the owner makes: no locked instruction.
#[inline]
fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::site::{self, Kind};
    use std::thread;

    fn names(tree: &Tree) -> Vec<&'static str> {
        tree.nodes().map(|node| node.site.name).collect()
    }

    #[test]
    fn a_site_below_the_same_parent_is_one_node() {
        let tree = Tree::new();
        let (a, b) = (crate::site!("a"), crate::site!("b"));
        let first = tree.root().child(a, None).expect("room");
        let below = first.child(b, None).expect("room");
        assert!(ptr::eq(tree.root().child(a, None).expect("there"), first));
        assert!(!ptr::eq(tree.root().child(b, None).expect("room"), below));
        assert!(!ptr::eq(tree.root().child(a, Some(b)).expect("room"), first), "spawned is another node");
        assert_eq!(names(&tree), ["a", "b", "b", "a", "<root>"]);
        assert_eq!(below.top().site.name, "a");
    }

    #[test]
    fn children_that_moved_to_the_front_are_still_all_there() {
        static SITES: [Site; 40] = [const { Site::new("s", "f", 0, Kind::Span) }; 40];
        let tree = Tree::new();
        let nodes: Vec<_> =
            SITES.iter().map(|site| ptr::from_ref(tree.root().child(site, None).expect("room"))).collect();
        for n in [0, 39, 3, 0, 17, 17, 39, 1] {
            assert!(ptr::eq(tree.root().child(&SITES[n], None).expect("there"), nodes[n]));
        }
        for (site, node) in SITES.iter().zip(nodes) {
            assert!(ptr::eq(tree.root().child(site, None).expect("there"), node));
        }
        assert_eq!(tree.nodes().count(), 41);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let tree = Tree::new();
        let deep = crate::site!("deep");
        let mut node = tree.root();
        for _ in 1..DEPTH_MAX {
            node = node.child(deep, None).expect("room");
        }
        let other = node.child(deep, None).expect("the last level");
        assert_eq!((other.site.name, node.site.name), (site::OTHER.name, "deep"));
        assert!(other.child(deep, None).is_none());
        assert!(other.child(crate::site!("any"), None).is_none());
        assert_eq!(other.read(|| 1).skipped, 2);
        assert!(ptr::eq(node.child(crate::site!("b"), None).expect("there"), other));
    }

    #[test]
    fn times_of_what_is_under_way_are_read() {
        let tree = Tree::new();
        let node = tree.root().child(crate::site!("a"), None).expect("room");
        node.enter(100);
        let counts = node.read(|| 130);
        assert_eq!((counts.busy, counts.wall, counts.calls, counts.in_flight), (30, 30, 0, 1));
        node.leave(150);
        let counts = node.read(|| 1000);
        assert_eq!((counts.busy, counts.wall, counts.calls, counts.polls, counts.in_flight), (50, 50, 1, 1, 0));
    }

    #[test]
    fn a_call_waits_between_its_polls() {
        let tree = Tree::new();
        let node = tree.root().child(crate::site!("a"), None).expect("room");
        node.begin(100, false);
        node.enter(100);
        node.leave_poll(110, 100, None, Outcome::Pending(0));
        let counts = node.read(|| 150);
        assert_eq!((counts.busy, counts.wall, counts.waiting, counts.in_flight), (10, 50, 40, 1));
        node.enter(200);
        node.leave_poll(205, 100, Some(110), Outcome::Done);
        let counts = node.read(|| 999);
        assert_eq!((counts.busy, counts.wall, counts.waiting, counts.in_flight), (15, 105, 90, 0));
        assert_eq!((counts.calls, counts.polls, counts.cancelled), (1, 2, 0));
    }

    #[test]
    fn a_cancelled_call_ends_from_any_thread() {
        let tree = Tree::new();
        let node = tree.root().child(crate::site!("a"), None).expect("room");
        node.begin(100, false);
        node.enter(100);
        node.leave_poll(110, 100, None, Outcome::Pending(0));
        thread::scope(|scope| {
            scope.spawn(|| node.end_elsewhere(300, 100, Some(110), Elsewhere::Cancelled));
        });
        let counts = node.read(|| 999);
        assert_eq!((counts.calls, counts.cancelled, counts.in_flight), (0, 1, 0));
        assert_eq!((counts.wall, counts.waiting), (200, 190));
    }

    #[test]
    fn a_reader_sees_whole_changes_while_the_owner_writes() {
        const CALLS: u64 = 200_000;
        let tree = Tree::new();
        thread::scope(|scope| {
            let node = tree.root().child(crate::site!("a"), None).expect("room");
            let reader = scope.spawn(|| {
                let mut last = 0;
                while last < CALLS {
                    let counts = node.read(|| u64::MAX);
                    // Each call takes 3 ticks; one that is inside counts to the end of time.
                    if counts.in_flight == 0 {
                        assert_eq!((counts.busy, counts.polls), (3 * counts.calls, counts.calls));
                    }
                    assert!(counts.calls >= last);
                    last = counts.calls;
                }
            });
            for call in 0..CALLS {
                node.enter(1 + 10 * call);
                node.leave(4 + 10 * call);
            }
            reader.join().expect("no torn reading");
        });
    }
}
