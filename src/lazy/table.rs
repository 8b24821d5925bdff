//! The table of components: what there is, in which state, and what each has cost, as rows, text and JSON.

use super::component::{Component, Init};
use super::record::{Book, Record, State};
use super::tally::Tally;
use super::{Failure, lock};
use crate::profile::heap::allocated_bytes;
use std::fmt::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The head of the text: the columns of Python's `-X importtime`.
pub const HEADER: &str = "self [us] | cumulative | component";

/// What a table knows of each of its entries.
pub(super) trait Entry: Send + Sync {
    fn name(&self) -> &'static str;
    fn row(&self) -> Row;
    /// Initialises in the background.
    fn warm(self: Arc<Self>) {}
    fn can_warm(&self) -> bool {
        false
    }
    /// Releases what has not been used for this long.
    fn release_idle(&self, _limit: Duration) {}
}

/// One component at one moment. Serialised as `GET /debug/startup?format=json` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    pub component: &'static str,
    pub state: State,
    /// Since the process began; null while it never began.
    pub started_us: Option<u64>,
    pub self_us: u64,
    pub cumulative_us: u64,
    pub bytes: Option<u64>,
    /// The request, the component or the setting that had to wait for it first.
    pub paid_by: Option<String>,
    pub waiters: u64,
    pub waited_us: u64,
    pub waited_longest_us: u64,
    pub initialised: u64,
    pub released: u64,
    pub failures: u64,
    pub error: Option<String>,
    pub depth: usize,
    #[serde(skip)]
    rank: u64,
}

impl Row {
    pub(super) fn new(component: &'static str, record: Record) -> Self {
        Self {
            component,
            state: record.state,
            started_us: record.started_us,
            self_us: record.self_us,
            cumulative_us: record.cumulative_us,
            bytes: record.bytes,
            paid_by: record.paid_by,
            waiters: record.waiters,
            waited_us: record.waited_us,
            waited_longest_us: record.waited_longest_us,
            initialised: record.initialised,
            released: record.released,
            failures: record.failures,
            error: record.error,
            depth: record.depth,
            rank: record.rank,
        }
    }

    /// The line of importtime: two spaces for each level of nesting.
    pub fn line(&self) -> String {
        let indent = self.depth * 2;
        let name = self.component;
        if self.rank == 0 {
            return format!("{:>9} | {:>10} | {:indent$}{name}", "-", "-", "");
        }
        format!("{:>9} | {:>10} | {:indent$}{name}", self.self_us, self.cumulative_us, "")
    }

    /// What stands behind the line in the table.
    fn remarks(&self) -> String {
        let mut text = self.state.word().to_owned();
        if self.initialised > 1 {
            let _ = write!(text, ", {} times", self.initialised);
        }
        if self.released > 0 {
            let _ = write!(text, ", released {} times", self.released);
        }
        if let Some(bytes) = self.bytes {
            let _ = write!(text, ", {bytes} bytes");
        }
        if self.waiters > 0 {
            let _ = write!(text, ", {} waited {} us, longest {}", self.waiters, self.waited_us, self.waited_longest_us);
        }
        if let Some(payer) = &self.paid_by {
            let _ = write!(text, ", paid by {payer}");
        }
        if let Some(error) = &self.error {
            let _ = write!(text, ": {error}");
        }
        text
    }
}

/// The table as text.
pub fn text(rows: &[Row]) -> String {
    let lines: Vec<String> = rows.iter().map(Row::line).collect();
    let width = lines.iter().map(String::len).max().unwrap_or(0).max(HEADER.len());
    let mut text = format!("{HEADER:width$} | state\n");
    for (line, row) in lines.iter().zip(rows) {
        let _ = writeln!(text, "{line:width$} | {}", row.remarks());
    }
    text
}

/// Told of every component that was initialised, and of every step of the start.
type Announce = Box<dyn Fn(&Row) + Send + Sync>;

/// What entries share with their table.
pub(super) struct Table {
    pub book: Arc<Book>,
    announce: OnceLock<Announce>,
}

impl Table {
    pub(super) fn announce(&self, row: &Row) {
        if let Some(announce) = self.announce.get() {
            announce(row);
        }
    }
}

/// All components of a server, or of one run of a command.
pub struct Components {
    table: Arc<Table>,
    entries: Mutex<Vec<Arc<dyn Entry>>>,
    /// What the steps that are under way spent in steps below them.
    nested: Mutex<Vec<Duration>>,
}

/// A step of the start: it has been made by the time anybody looks.
struct Step {
    name: &'static str,
    record: Record,
}

impl Entry for Step {
    fn name(&self) -> &'static str {
        self.name
    }

    fn row(&self) -> Row {
        Row::new(self.name, self.record.clone())
    }
}

impl Components {
    /// A table whose times count from `began`.
    pub fn new(began: Instant) -> Arc<Self> {
        let table = Table { book: Arc::new(Book::new(began)), announce: OnceLock::new() };
        Arc::new(Self { table: Arc::new(table), entries: Mutex::default(), nested: Mutex::default() })
    }

    /// Calls `announce` whenever something was initialised; once.
    pub fn announce(&self, announce: impl Fn(&Row) + Send + Sync + 'static) {
        let _ = self.table.announce.set(Box::new(announce));
    }

    /// A component that, once initialised, stays.
    pub fn add<T: Send + Sync + 'static>(
        &self,
        name: &'static str,
        initialise: impl Fn(&Init) -> Result<T, Failure> + Send + Sync + 'static,
    ) -> Component<T> {
        self.add_as(name, false, Box::new(initialise))
    }

    /// A component that is released when it has been idle for long.
    pub fn add_releasable<T: Send + Sync + 'static>(
        &self,
        name: &'static str,
        initialise: impl Fn(&Init) -> Result<T, Failure> + Send + Sync + 'static,
    ) -> Component<T> {
        self.add_as(name, true, Box::new(initialise))
    }

    /// A component with an asynchronous initialiser. It has a thread and a runtime of its own, which end with it: what
    /// it returns must not go on using that runtime's sockets or timers.
    pub fn add_async<T: Send + Sync + 'static, F: Future<Output = Result<T, Failure>>>(
        &self,
        name: &'static str,
        initialise: impl Fn(&Init) -> F + Send + Sync + 'static,
    ) -> Component<T> {
        let run = move |init: &Init| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(initialise(init))
        };
        self.add_as(name, false, Box::new(run))
    }

    /// A component that stands in no table: for benchmarks, which make one in each loop.
    pub fn alone<T: Send + Sync + 'static>(
        &self,
        name: &'static str,
        initialise: impl Fn() -> T + Send + Sync + 'static,
    ) -> Component<T> {
        Component::new(name, false, Box::new(move |_| Ok(initialise())), Arc::clone(&self.table)).0
    }

    fn add_as<T: Send + Sync + 'static>(
        &self,
        name: &'static str,
        releasable: bool,
        initialise: super::component::Initialiser<T>,
    ) -> Component<T> {
        let (component, entry) = Component::new(name, releasable, initialise, Arc::clone(&self.table));
        self.list(entry);
        component
    }

    /// A row for things of one kind that are each built at their first use.
    pub fn tally(&self, name: &'static str) -> Tally {
        let tally = Tally::new(name, Arc::clone(&self.table.book));
        self.list(tally.entry());
        tally
    }

    /// Makes a step of the start, now, and writes down what it took. Steps nest; they are made by one thread.
    pub fn step<R>(&self, name: &'static str, make: impl FnOnce() -> R) -> R {
        let depth = {
            let mut nested = lock(&self.nested);
            nested.push(Duration::ZERO);
            nested.len() - 1
        };
        let (started, since, allocated) = (self.table.book.now_us(), Instant::now(), allocated_bytes());
        let made = make();
        let bytes = allocated_bytes().wrapping_sub(allocated);
        self.made(name, depth, started, (since.elapsed(), bytes));
        made
    }

    fn made(&self, name: &'static str, depth: usize, started: u64, (took, bytes): (Duration, u64)) {
        let nested = {
            let mut open = lock(&self.nested);
            let nested = open.pop().unwrap_or_default();
            if let Some(around) = open.last_mut() {
                *around += took;
            }
            nested
        };
        let mut record = Record::default();
        record.begin("start", depth, started);
        record.end(took, nested, bytes, self.table.book.next_rank());
        (record.state, record.initialised) = (State::Ready, 1);
        let step = Step { name, record };
        self.table.announce(&step.row());
        self.list(Arc::new(step));
    }

    fn list(&self, entry: Arc<dyn Entry>) {
        lock(&self.entries).push(entry);
    }

    /// Every component, in the order in which they were initialised (a dependency before what needs it, as importtime
    /// has it), then those that never were.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = lock(&self.entries).iter().map(|entry| entry.row()).collect();
        rows.sort_by_key(|row| if row.rank == 0 { u64::MAX } else { row.rank });
        rows
    }

    /// The names that may stand in `warm`.
    pub fn can_warm(&self) -> Vec<&'static str> {
        lock(&self.entries).iter().filter(|entry| entry.can_warm()).map(|entry| entry.name()).collect()
    }

    /// Initialises these in the background; the names were checked.
    pub fn warm(&self, names: &[String]) {
        let entries = lock(&self.entries).clone();
        for entry in entries.into_iter().filter(|entry| names.iter().any(|name| name == entry.name())) {
            entry.warm();
        }
    }

    /// Releases what may be released and has not been used for this long; zero: nothing. To be called every now and
    /// then.
    pub fn release_idle(&self, limit: Duration) {
        if !limit.is_zero() {
            let entries = lock(&self.entries).clone();
            entries.iter().for_each(|entry| entry.release_idle(limit));
        }
    }
}
