//! Which functions of a profile are shown, and in which order: the grammar of pstats' `sort_stats` and restrictions.
//! PURE: parameters in, a selection of rows out.

use super::table::{Row, Table};
use regex_lite::Regex;
use std::cmp::Ordering;

/// How a profile is shown.
#[derive(Clone, Debug, Default)]
pub struct Select {
    pub sort: Vec<Key>,
    pub reverse: bool,
    pub strip_dirs: bool,
    pub restrictions: Vec<Restriction>,
    /// List the callers (callees) of the functions that match.
    pub callers: Option<Pattern>,
    pub callees: Option<Pattern>,
    /// None was asked for: the format's own.
    pub clock: Option<Clock>,
}

/// Which time goes where a format has room for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    Busy,
    Wall,
}

/// A column to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Calls,
    Primitive,
    Polls,
    Cancelled,
    Tottime,
    Cumtime,
    Busycum,
    Await,
    File,
    Line,
    Name,
    NameFileLine,
    Standard,
}

/// pstats' names of keys, then ours. An abbreviation must mean one key.
const KEYS: &[(&str, Key)] = &[
    ("calls", Key::Calls),
    ("ncalls", Key::Calls),
    ("cumtime", Key::Cumtime),
    ("cumulative", Key::Cumtime),
    ("file", Key::File),
    ("filename", Key::File),
    ("module", Key::File),
    ("line", Key::Line),
    ("name", Key::Name),
    ("nfl", Key::NameFileLine),
    ("pcalls", Key::Primitive),
    ("stdname", Key::Standard),
    ("time", Key::Tottime),
    ("tottime", Key::Tottime),
    // sort_stats(-1 | 0 | 1 | 2), as it was once.
    ("-1", Key::Standard),
    ("0", Key::Calls),
    ("1", Key::Tottime),
    ("2", Key::Cumtime),
    ("polls", Key::Polls),
    ("cancelled", Key::Cancelled),
    ("busycum", Key::Busycum),
    ("await", Key::Await),
];

/// The names a person may give.
const KEY_NAMES: &str = "calls, ncalls, cumtime, cumulative, file, filename, module, line, name, nfl, pcalls, stdname, \
                         time, tottime, polls, cancelled, busycum or await";

impl Key {
    fn parse(text: &str) -> Result<Self, String> {
        let unknown =
            || format!("sort={text:?} is no key: write {KEY_NAMES}, or a beginning that means only one of them");
        if let Some((_, key)) = KEYS.iter().find(|(name, _)| *name == text) {
            return Ok(*key);
        }
        let mut begun = KEYS.iter().filter(|(name, _)| !text.is_empty() && name.starts_with(text)).map(|(_, key)| *key);
        let key = begun.next().ok_or_else(unknown)?;
        if begun.all(|other| other == key) { Ok(key) } else { Err(unknown()) }
    }

    /// As pstats says it after "Ordered by:".
    fn description(self) -> &'static str {
        match self {
            Self::Calls => "call count",
            Self::Primitive => "primitive call count",
            Self::Polls => "poll count",
            Self::Cancelled => "cancelled calls",
            Self::Tottime => "internal time",
            Self::Cumtime => "cumulative time",
            Self::Busycum => "cumulative busy time",
            Self::Await => "await time",
            Self::File => "file name",
            Self::Line => "line number",
            Self::Name => "function name",
            Self::NameFileLine => "name/file/line",
            Self::Standard => "standard name",
        }
    }

    /// Numbers the largest first, names in their order.
    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let largest = |value: fn(&Row) -> u64| value(b).cmp(&value(a));
        let (f, g) = (&a.function, &b.function);
        match self {
            Self::Calls => largest(|row| row.sums.calls),
            Self::Primitive => largest(|row| row.sums.primitive),
            Self::Polls => largest(|row| row.sums.polls),
            Self::Cancelled => largest(|row| row.sums.cancelled),
            Self::Tottime => largest(|row| row.sums.tot_ns),
            Self::Cumtime => largest(|row| row.sums.cum_ns),
            Self::Busycum => largest(|row| row.sums.busy_ns),
            Self::Await => largest(|row| row.sums.await_ns()),
            Self::File => f.file.cmp(&g.file),
            Self::Line => f.line.cmp(&g.line),
            Self::Name => f.name.cmp(&g.name),
            Self::NameFileLine => (&f.name, &f.file, f.line).cmp(&(&g.name, &g.file, g.line)),
            Self::Standard => f.label().cmp(&g.label()),
        }
    }
}

/// One step of narrowing a list down; applied in the order given.
#[derive(Clone, Debug)]
pub enum Restriction {
    Count(usize),
    Fraction(f64),
    Pattern(Pattern),
}

/// A regular expression that may match anywhere in `file:line(name)`.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    fn parse(name: &str, text: &str) -> Result<Self, String> {
        const BYTES_MAX: usize = 512;
        if text.len() > BYTES_MAX {
            return Err(format!("{name} is too long: a pattern has at most {BYTES_MAX} bytes"));
        }
        Regex::new(text).map(Self).map_err(|error| format!("{name}={text:?} is no regular expression: {error}"))
    }

    /// `callers=1`: of all functions.
    fn of_functions(name: &str, text: &str) -> Result<Option<Self>, String> {
        match text {
            "0" | "false" => Ok(None),
            "" | "1" | "true" => Self::parse(name, "").map(Some),
            _ => Self::parse(name, text).map(Some),
        }
    }
}

impl Restriction {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(count) = text.parse::<usize>() {
            return Ok(Self::Count(count));
        }
        match text.parse::<f64>() {
            Ok(share) if (0.0..1.0).contains(&share) => Ok(Self::Fraction(share)),
            Ok(share) if share.is_finite() => {
                Err(format!("restrict={text} is neither a count nor a share from 0 to below 1, such as 0.25"))
            }
            _ => Pattern::parse("restrict", text).map(Self::Pattern),
        }
    }

    fn apply(&self, table: &Table, rows: &mut Vec<usize>) {
        match self {
            Self::Count(count) => rows.truncate(*count),
            // As pstats rounds: to the nearest, a half up.
            Self::Fraction(share) => rows.truncate((rows.len() as f64 * share + 0.5) as usize),
            Self::Pattern(pattern) => rows.retain(|row| pattern.0.is_match(&table.rows[*row].function.label())),
        }
    }

    fn description(&self) -> String {
        match self {
            Self::Count(count) => count.to_string(),
            Self::Fraction(share) => share.to_string(),
            Self::Pattern(pattern) => format!("'{}'", pattern.0.as_str()),
        }
    }
}

impl Select {
    /// Reads the parameters it knows and leaves the others; an error says what would be right.
    pub fn parse<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut select = Self::default();
        let mut limit = None;
        for (name, value) in parameters {
            match name {
                "sort" => {
                    for key in value.split(',') {
                        select.sort.push(Key::parse(key.trim())?);
                    }
                }
                "restrict" => select.restrictions.push(Restriction::parse(value)?),
                "limit" => {
                    let count = value.parse().map_err(|_| format!("limit={value:?} is no whole number"))?;
                    limit = Some(Restriction::Count(count));
                }
                "strip_dirs" => select.strip_dirs = flag(name, value)?,
                "reverse" => select.reverse = flag(name, value)?,
                "callers" => select.callers = Pattern::of_functions(name, value)?,
                "callees" => select.callees = Pattern::of_functions(name, value)?,
                "clock" => {
                    select.clock = Some(match value {
                        "busy" => Clock::Busy,
                        "wall" => Clock::Wall,
                        _ => return Err(format!("clock={value:?} is neither busy nor wall")),
                    });
                }
                _ => {}
            }
        }
        if select.sort.is_empty() {
            select.sort.push(Key::Cumtime);
        }
        // Whatever was given before it: a limit is what is shown at most.
        select.restrictions.extend(limit);
        Ok(select)
    }

    /// The rows to show, in order, and what pstats says about them.
    pub fn rows(&self, table: &Table) -> (Vec<usize>, String) {
        let mut rows: Vec<usize> = (0..table.rows.len()).filter(|row| happened(&table.rows[*row])).collect();
        rows.sort_by(|a, b| {
            let (a, b) = (&table.rows[*a], &table.rows[*b]);
            let keys = self.sort.iter().map(|key| key.compare(a, b));
            keys.fold(Ordering::Equal, Ordering::then).then_with(|| a.function.cmp(&b.function))
        });
        if self.reverse {
            rows.reverse();
        }
        let sorted: Vec<_> = self.sort.iter().map(|key| key.description()).collect();
        let mut said = format!("   Ordered by: {}\n", sorted.join(", "));
        for restriction in &self.restrictions {
            let before = rows.len();
            restriction.apply(table, &mut rows);
            if rows.len() != before {
                let (after, why) = (rows.len(), restriction.description());
                said += &format!("   List reduced from {before} to {after} due to restriction <{why}>\n");
            }
        }
        (rows, said)
    }

    /// Of these rows, those that a list of callers or callees is asked for.
    pub fn matching(pattern: &Pattern, table: &Table, rows: &[usize]) -> Vec<usize> {
        let mut rows = rows.to_vec();
        Restriction::Pattern(pattern.clone()).apply(table, &mut rows);
        rows
    }
}

/// A function that only spawned what happened has no row of its own.
fn happened(row: &Row) -> bool {
    row.sums.polls > 0 || row.sums.partial > 0 || row.sums.cancelled > 0
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("{name}={value:?} is neither 0 nor 1")),
    }
}
