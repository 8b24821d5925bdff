//! A profile as a table of functions, with the callers and callees of each: what pstats makes of cProfile's data.
//! Recursion is counted as there: cumulative times only for the outermost call. Must not know how it is printed.

use super::site::Kind;
use super::snapshot::{Entry, Profile};
use std::collections::HashMap;

/// Identity of a function: what pstats prints as `file:line(name)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Function {
    pub file: String,
    pub line: u32,
    pub name: String,
}

impl Function {
    /// `file:line(name)`
    pub fn label(&self) -> String {
        format!("{}:{}({})", self.file, self.line, self.name)
    }
}

/// Counts and times of a function, or of one caller's calls of it. Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub calls: u64,
    /// Calls that are not made by the same function, directly or not.
    pub primitive: u64,
    pub polls: u64,
    pub cancelled: u64,
    pub partial: u64,
    /// Busy and in no other span.
    pub tot_ns: u64,
    /// From first poll to end: wall time.
    pub cum_ns: u64,
    /// Busy, with what it called.
    pub busy_ns: u64,
    /// Waiting for something that is no span.
    pub waiting_ns: u64,
    /// Polls that ended with several callees pending.
    pub overlaps: u64,
}

impl Sums {
    /// Not busy between its first poll and its end.
    pub fn await_ns(&self) -> u64 {
        self.cum_ns.saturating_sub(self.busy_ns)
    }

    /// `outermost`: no caller of this entry is the same function.
    fn add(&mut self, entry: &Entry, outermost: bool) {
        self.calls += entry.calls;
        self.polls += entry.polls;
        self.cancelled += entry.cancelled;
        self.partial += entry.partial;
        self.tot_ns += entry.self_ns;
        self.waiting_ns += entry.waiting_ns;
        self.overlaps += entry.overlaps;
        if outermost {
            self.primitive += entry.calls;
            self.cum_ns += entry.wall_ns;
            self.busy_ns += entry.busy_ns;
        }
    }
}

/// One function.
pub struct Row {
    pub function: Function,
    pub kind: Kind,
    pub sums: Sums,
    /// Rows that call this one, with what they call of it.
    pub callers: Vec<(usize, Sums)>,
    /// Rows that this one calls.
    pub callees: Vec<(usize, Sums)>,
    /// Rows that spawn this one as a task or job. Its time is not in theirs.
    pub spawners: Vec<(usize, Sums)>,
}

/// All functions of a profile, in the order they were found.
pub struct Table {
    pub rows: Vec<Row>,
    pub calls: u64,
    pub primitive: u64,
    pub cancelled: u64,
    pub tot_ns: u64,
}

impl Table {
    /// `strip_dirs`: files by their last name; functions that are the same then are one.
    pub fn new(profile: &Profile, strip_dirs: bool) -> Self {
        let mut build = Build { strip_dirs, rows: Vec::new(), known: HashMap::new() };
        let rows_of: Vec<usize> = profile.entries.iter().map(|entry| build.row(entry.site)).collect();
        let mut edges: HashMap<(usize, usize), Sums> = HashMap::new();
        let mut spawns: HashMap<(usize, usize), Sums> = HashMap::new();
        for (n, entry) in profile.entries.iter().enumerate() {
            let row = rows_of[n];
            let callers = || ancestors(&profile.entries, n).map(|n| rows_of[n]);
            build.rows[row].sums.add(entry, callers().all(|caller| caller != row));
            if let Some(caller) = callers().next() {
                let above = ancestors(&profile.entries, n);
                let pairs = above.map(|n| (rows_of[n], profile.entries[n].parent.map(|parent| rows_of[parent])));
                let outermost = pairs.into_iter().all(|pair| pair != (row, Some(caller)));
                edges.entry((caller, row)).or_default().add(entry, outermost);
            }
            if let Some(by) = entry.by {
                spawns.entry((build.row(by), row)).or_default().add(entry, true);
            }
        }
        let mut rows = build.rows;
        for ((caller, callee), sums) in edges {
            rows[caller].callees.push((callee, sums));
            rows[callee].callers.push((caller, sums));
        }
        for ((spawner, row), sums) in spawns {
            rows[row].spawners.push((spawner, sums));
        }
        for row in &mut rows {
            for list in [&mut row.callers, &mut row.callees, &mut row.spawners] {
                list.sort_by_key(|(other, _)| *other);
            }
        }
        let sum = |value: fn(&Sums) -> u64| rows.iter().map(|row| value(&row.sums)).sum();
        let (calls, primitive) = (sum(|sums| sums.calls), sum(|sums| sums.primitive));
        let (cancelled, tot_ns) = (sum(|sums| sums.cancelled), sum(|sums| sums.tot_ns));
        Self { rows, calls, primitive, cancelled, tot_ns }
    }
}

/// The entries that an entry is below of, the nearest first.
fn ancestors(entries: &[Entry], n: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(entries[n].parent, |n| entries[*n].parent)
}

struct Build {
    strip_dirs: bool,
    rows: Vec<Row>,
    known: HashMap<Function, usize>,
}

impl Build {
    fn row(&mut self, site: &super::Site) -> usize {
        let file = match self.strip_dirs {
            true => site.file.rsplit('/').next().unwrap_or(site.file),
            false => site.file,
        };
        let function = Function { file: file.to_owned(), line: site.line, name: site.name.to_owned() };
        let rows = &mut self.rows;
        *self.known.entry(function).or_insert_with_key(|function| {
            let (sums, callers, callees, spawners) = (Sums::default(), Vec::new(), Vec::new(), Vec::new());
            rows.push(Row { function: function.clone(), kind: site.kind, sums, callers, callees, spawners });
            rows.len() - 1
        })
    }
}
