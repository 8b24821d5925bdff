//! A profile as text that reads like pstats, with the columns a server adds. Must not know how it was asked for.

use super::select::Select;
use super::snapshot::Profile;
use super::table::{Row, Sums, Table};
use std::fmt::Write;

/// The report: header, table, callers and callees if asked for, audit.
pub fn render(profile: &Profile, select: &Select) -> String {
    let table = Table::new(profile, select.strip_dirs);
    let (rows, said) = select.rows(&table);
    let mut text = header(profile, &table);
    text += &format!("\n{said}\n");
    if !rows.is_empty() {
        text += "   ncalls    polls   cancel  tottime  percall  cumtime  percall  busycum    await  \
                 filename:lineno(function)\n";
        for row in &rows {
            text += &line(&table.rows[*row]);
        }
        text += "\n\n";
    }
    if let Some(pattern) = &select.callers {
        text += &edges(&table, &Select::matching(pattern, &table, &rows), "was called by...", "<-", |row| &row.callers);
    }
    if let Some(pattern) = &select.callees {
        text += &edges(&table, &Select::matching(pattern, &table, &rows), "called...", "->", |row| &row.callees);
    }
    text + &audit(profile)
}

fn header(profile: &Profile, table: &Table) -> String {
    let mut text = format!("         {} function calls ", table.calls);
    if table.calls != table.primitive {
        let _ = write!(text, "({} primitive calls) ", table.primitive);
    }
    let (busy, window) = (seconds(table.tot_ns), profile.window.as_secs_f64());
    let _ = writeln!(text, "in {busy:.3} busy seconds of a window of {window:.3} seconds");
    if table.cancelled > 0 {
        let _ = writeln!(text, "         {} calls were cancelled", table.cancelled);
    }
    text
}

fn line(row: &Row) -> String {
    let sums = &row.sums;
    let mut text = format!("{:>9} {:>8} {:>8}", ncalls(sums), sums.polls, sums.cancelled);
    let _ = write!(text, " {:>8.3} {}", seconds(sums.tot_ns), per(sums.tot_ns, sums.calls));
    let _ = write!(text, " {:>8.3} {}", seconds(sums.cum_ns), per(sums.cum_ns, sums.primitive));
    let _ = write!(text, " {:>8.3} {:>8.3}", seconds(sums.busy_ns), seconds(sums.await_ns()));
    let _ = write!(text, "  {}", row.function.label());
    if sums.partial > 0 {
        let _ = write!(text, "  ({} partial)", sums.partial);
    }
    text + "\n"
}

/// `3/1`: in total, and of these primitive.
fn ncalls(sums: &Sums) -> String {
    match sums.calls == sums.primitive {
        true => sums.calls.to_string(),
        false => format!("{}/{}", sums.calls, sums.primitive),
    }
}

/// A call's share; to the microsecond, since few calls of a server take a millisecond.
fn per(ns: u64, calls: u64) -> String {
    if calls == 0 { " ".repeat(8) } else { format!("{:>8.6}", seconds(ns) / calls as f64) }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// One edge: the other function, and what passed between.
type Edges = Vec<(usize, Sums)>;

fn edges(table: &Table, rows: &[usize], title: &str, arrow: &str, of: impl Fn(&Row) -> &Edges) -> String {
    let label = |row: usize| table.rows[row].function.label();
    let width = rows.iter().map(|row| label(*row).chars().count()).max().unwrap_or(0) + 2;
    let mut text = format!("{:<width$}{title}\n", "Function ");
    let _ = writeln!(text, "{:<width$}     ncalls  tottime  cumtime    await", "");
    for row in rows {
        let mut others = of(&table.rows[*row]).clone();
        others.sort_by_key(|(other, _)| table.rows[*other].function.clone());
        let mut lines: Vec<String> = others.iter().map(|(other, sums)| edge(sums, &label(*other))).collect();
        if arrow == "<-" {
            let spawners = &table.rows[*row].spawners;
            lines.extend(spawners.iter().map(|(other, sums)| edge(sums, &format!("spawned by {}", label(*other)))));
        }
        let first = if lines.is_empty() { String::new() } else { lines.remove(0) };
        let _ = writeln!(text, "{:<width$}{arrow} {first}", label(*row));
        for line in lines {
            let _ = writeln!(text, "{:<width$}   {line}", "");
        }
    }
    text + "\n\n"
}

fn edge(sums: &Sums, name: &str) -> String {
    let (tot, cum, wait) = (seconds(sums.tot_ns), seconds(sums.cum_ns), seconds(sums.await_ns()));
    let overlap = if sums.overlaps > 0 { "  (overlapping)" } else { "" };
    format!("{:>8} {tot:>8.3} {cum:>8.3} {wait:>8.3}  {name}{overlap}", ncalls(sums))
}

/// What a report says of itself.
pub fn audit(profile: &Profile) -> String {
    let audit = &profile.audit;
    let cost = profile.cost();
    let mut text = format!("   window       {:.6} s\n", profile.window.as_secs_f64());
    let _ = writeln!(
        text,
        "   spans        {} sites, {} nodes, {} threads, {} entries without room (<other>)",
        audit.sites, audit.nodes, audit.threads, audit.overflow
    );
    let _ = writeln!(text, "   partial      {} calls cross the window's edges", audit.partial);
    let _ = writeln!(
        text,
        "   clock        {}, {:.6} GHz measured over the window, resolution {:.1} ns",
        audit.source.name(),
        audit.ticks_per_second / 1e9,
        audit.resolution_ns
    );
    let _ = writeln!(
        text,
        "   cost         {} entries x {:.1} ns = {:.3} ms, {:.3} % of the process's {:.3} CPU seconds",
        audit.polls,
        cost.entry_ns,
        cost.ns / 1e6,
        cost.percent,
        audit.cpu.as_secs_f64()
    );
    let _ = writeln!(
        text,
        "   coverage     spans were busy {:.3} s: {:.1} % of the process's CPU time ({} preemptions)",
        seconds(audit.busy_ns),
        audit.coverage_percent(),
        audit.preempted
    );
    text
}
