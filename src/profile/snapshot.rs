//! All trees read at one moment, and the profile that two such readings make: one tree of calls by their path, whatever
//! thread they ran on. Must not know how a profile is asked for or shown.
#![allow(unsafe_code, reason = "the process's usage of the processor is a C struct")]

use super::clock::{self, Moment, Rate, Source};
use super::site::{Kind, Site};
use super::thread;
use super::tree::{Counts, Node};
use std::collections::HashMap;
use std::ptr;
use std::time::{Duration, SystemTime};

/// Every node's counters at one moment.
pub struct Snapshot {
    moment: Moment,
    usage: Usage,
    trees: Vec<Vec<(&'static Node, Counts)>>,
}

impl Snapshot {
    pub fn take() -> Self {
        // What a node is below of is older: read first, it is in the reading whenever its children are.
        let read = |node: &'static Node| (node, node.read(clock::now));
        let trees = thread::all().into_iter().map(|tree| {
            let mut nodes: Vec<&'static Node> = tree.nodes().collect();
            nodes.reverse();
            nodes.into_iter().map(read).collect()
        });
        let trees = trees.collect();
        Self { trees, moment: Moment::read(), usage: Usage::now() }
    }
}

/// What the process used of the processor.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    cpu: Duration,
    /// Times the system took the processor away.
    preempted: u64,
}

impl Usage {
    fn now() -> Self {
        // SAFETY: getrusage fills the struct it is given, which is plain data.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut usage);
            usage
        };
        let time = |time: libc::timeval| {
            let (seconds, micros) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_usec));
            Duration::from_secs(seconds.unwrap_or(0)) + Duration::from_micros(micros.unwrap_or(0))
        };
        let preempted = u64::try_from(usage.ru_nivcsw).unwrap_or(0);
        Self { cpu: time(usage.ru_utime) + time(usage.ru_stime), preempted }
    }
}

/// What happened between two snapshots.
pub struct Profile {
    /// Parents before their children.
    pub entries: Vec<Entry>,
    pub ended: SystemTime,
    pub window: Duration,
    pub audit: Audit,
}

/// A site below the path of its callers. Times in nanoseconds.
pub struct Entry {
    pub site: &'static Site,
    /// Where the task or job was spawned that begins here.
    pub by: Option<&'static Site>,
    pub parent: Option<usize>,
    pub calls: u64,
    pub polls: u64,
    pub cancelled: u64,
    /// Calls that were under way when the window began, and those that were when it ended.
    pub partial: u64,
    pub busy_ns: u64,
    /// Of `busy_ns`, what was spent in no child.
    pub self_ns: u64,
    pub wall_ns: u64,
    /// Waiting for something that is no span.
    pub waiting_ns: u64,
    /// Polls that ended with several children pending.
    pub overlaps: u64,
}

/// What a profile says of itself.
#[derive(Clone, Debug)]
pub struct Audit {
    pub sites: usize,
    pub nodes: usize,
    pub threads: usize,
    /// Entries that found no room in a tree: they are in `<other>`.
    pub overflow: u64,
    pub partial: u64,
    pub source: Source,
    pub ticks_per_second: f64,
    pub resolution_ns: f64,
    /// Times a span was entered.
    pub polls: u64,
    pub cpu: Duration,
    /// Busy time of spans that are in no other.
    pub busy_ns: u64,
    pub preempted: u64,
}

impl Profile {
    /// The difference of two snapshots.
    pub fn between(start: &Snapshot, end: &Snapshot) -> Self {
        let rate = Rate::between(&start.moment, &end.moment);
        let before: HashMap<*const Node, &Counts> =
            start.trees.iter().flatten().map(|(node, counts)| (ptr::from_ref(*node), counts)).collect();
        let mut merge = Merge::new(rate);
        for tree in &end.trees {
            merge.add(tree, &before);
        }
        let entries = merge.finish();
        let sum = |count: fn(&Entry) -> u64| entries.iter().map(count).sum();
        let mut sites: Vec<_> = entries.iter().map(|entry| ptr::from_ref(entry.site)).collect();
        sites.sort_unstable();
        sites.dedup();
        let audit = Audit {
            sites: sites.len(),
            nodes: entries.len(),
            threads: end.trees.len(),
            overflow: merge.overflow,
            partial: sum(|entry| entry.partial),
            source: clock::choose(),
            ticks_per_second: rate.ticks_per_second(),
            resolution_ns: 1e9 * clock::resolution() as f64 / rate.ticks_per_second(),
            polls: sum(|entry| entry.polls),
            cpu: end.usage.cpu.saturating_sub(start.usage.cpu),
            busy_ns: entries.iter().filter(|entry| entry.parent.is_none()).map(|entry| entry.busy_ns).sum(),
            preempted: end.usage.preempted.saturating_sub(start.usage.preempted),
        };
        let window = end.moment.at.duration_since(start.moment.at);
        Self { entries, ended: SystemTime::now(), window, audit }
    }

    /// Only what ran below this root.
    pub fn below(mut self, root: &'static Site) -> Self {
        let mut kept: Vec<Option<usize>> = Vec::with_capacity(self.entries.len());
        let mut entries: Vec<Entry> = Vec::new();
        for mut entry in std::mem::take(&mut self.entries) {
            let parent = entry.parent.and_then(|parent| kept[parent]);
            if parent.is_some() || entry.site == root {
                entry.parent = parent;
                kept.push(Some(entries.len()));
                entries.push(entry);
            } else {
                kept.push(None);
            }
        }
        self.entries = entries;
        let roots = self.entries.iter().filter(|entry| entry.parent.is_none());
        self.audit.busy_ns = roots.map(|entry| entry.busy_ns).sum();
        self.audit.nodes = self.entries.len();
        self.audit.polls = self.entries.iter().map(|entry| entry.polls).sum();
        self.audit.partial = self.entries.iter().map(|entry| entry.partial).sum();
        self
    }
}

/// Threads' trees made one.
struct Merge {
    rate: Rate,
    entries: Vec<Entry>,
    /// Entry of a path: its parent's, and the function and spawner below it.
    paths: HashMap<(Option<usize>, Place, Option<Place>), usize>,
    overflow: u64,
}

/// A site by its place in the source: a generic function has one for each of its types.
type Place = (&'static str, &'static str, u32);

fn place(site: &'static Site) -> Place {
    (site.name, site.file, site.line)
}

impl Merge {
    fn new(rate: Rate) -> Self {
        Self { rate, entries: Vec::new(), paths: HashMap::new(), overflow: 0 }
    }

    fn add(&mut self, tree: &[(&'static Node, Counts)], before: &HashMap<*const Node, &Counts>) {
        let mut entry_of: HashMap<*const Node, usize> = HashMap::new();
        for (node, counts) in tree {
            // The root has no parent and no entry.
            let Some(parent) = node.parent() else { continue };
            let parent = entry_of.get(&ptr::from_ref(parent)).copied();
            let entry = self.entry(parent, node);
            entry_of.insert(ptr::from_ref(*node), entry);
            let none = Counts::default();
            let before = before.get(&ptr::from_ref(*node)).copied().unwrap_or(&none);
            self.count(entry, before, counts);
        }
    }

    fn entry(&mut self, parent: Option<usize>, node: &'static Node) -> usize {
        let entries = &mut self.entries;
        *self.paths.entry((parent, place(node.site), node.by.map(place))).or_insert_with(|| {
            entries.push(Entry {
                site: node.site,
                by: node.by,
                parent,
                calls: 0,
                polls: 0,
                cancelled: 0,
                partial: 0,
                busy_ns: 0,
                self_ns: 0,
                wall_ns: 0,
                waiting_ns: 0,
                overlaps: 0,
            });
            entries.len() - 1
        })
    }

    fn count(&mut self, entry: usize, before: &Counts, now: &Counts) {
        let since = |count: fn(&Counts) -> u64| count(now).saturating_sub(count(before));
        let entry = &mut self.entries[entry];
        entry.calls += since(|counts| counts.calls);
        entry.polls += since(|counts| counts.polls);
        entry.cancelled += since(|counts| counts.cancelled);
        entry.overlaps += since(|counts| counts.overlaps);
        entry.busy_ns += self.rate.ns(since(|counts| counts.busy));
        entry.wall_ns += self.rate.ns(since(|counts| counts.wall));
        entry.waiting_ns += self.rate.ns(since(|counts| counts.waiting));
        entry.partial += before.in_flight + now.in_flight + since(|counts| counts.unseen);
        let other = if entry.site.kind == Kind::Other { since(|counts| counts.polls) } else { 0 };
        self.overflow += other + since(|counts| counts.skipped);
    }

    /// Own times, without the paths on which nothing happened.
    fn finish(&mut self) -> Vec<Entry> {
        let mut entries = std::mem::take(&mut self.entries);
        let mut children_ns = vec![0; entries.len()];
        let mut used = vec![false; entries.len()];
        for (n, entry) in entries.iter().enumerate().rev() {
            used[n] |= entry.polls > 0 || entry.partial > 0 || entry.cancelled > 0 || entry.busy_ns > 0;
            if let Some(parent) = entry.parent {
                children_ns[parent] += entry.busy_ns;
                used[parent] |= used[n];
            }
        }
        let mut place = vec![None; entries.len()];
        let mut kept = 0;
        for (n, entry) in entries.iter_mut().enumerate() {
            entry.self_ns = entry.busy_ns.saturating_sub(children_ns[n]);
            entry.parent = entry.parent.and_then(|parent| place[parent]);
            place[n] = used[n].then_some(kept);
            kept += usize::from(used[n]);
        }
        let mut used = used.into_iter();
        entries.retain(|_| used.next().unwrap_or(false));
        entries
    }
}
