//! A profile as JSON (docs/api.md), for programs. Must not know how it was asked for.

use super::select::Select;
use super::snapshot::Profile;
use super::table::{Row, Sums, Table};
use serde_json::{Map, Value, json};

pub fn render(profile: &Profile, select: &Select) -> String {
    let table = Table::new(profile, select.strip_dirs);
    let (rows, _) = select.rows(&table);
    let spans: Vec<Value> = rows.iter().map(|row| span(&table, &table.rows[*row])).collect();
    let report = json!({
        "seconds": profile.window.as_secs_f64(),
        "calls": table.calls,
        "primitive": table.primitive,
        "cancelled": table.cancelled,
        "spans": spans,
        "audit": audit(profile),
    });
    format!("{report}\n")
}

fn span(table: &Table, row: &Row) -> Value {
    let mut value = function(row);
    value.extend(sums(&row.sums));
    // What it awaited that is no span; the rest of `await` is its callees'.
    value.insert("await_own".to_owned(), seconds(row.sums.waiting_ns));
    value.insert("overlapping".to_owned(), json!(row.sums.overlaps));
    value.insert("callers".to_owned(), edges(table, &row.callers));
    value.insert("callees".to_owned(), edges(table, &row.callees));
    value.insert("spawned_by".to_owned(), edges(table, &row.spawners));
    Value::Object(value)
}

fn function(row: &Row) -> Map<String, Value> {
    let function = &row.function;
    let mut value = Map::new();
    value.insert("name".to_owned(), json!(function.name));
    value.insert("file".to_owned(), json!(function.file));
    value.insert("line".to_owned(), json!(function.line));
    value
}

fn sums(sums: &Sums) -> Map<String, Value> {
    let numbers = [
        ("ncalls", json!(sums.calls)),
        ("primitive", json!(sums.primitive)),
        ("polls", json!(sums.polls)),
        ("cancelled", json!(sums.cancelled)),
        ("partial", json!(sums.partial)),
        ("tottime", seconds(sums.tot_ns)),
        ("cumtime", seconds(sums.cum_ns)),
        ("busycum", seconds(sums.busy_ns)),
        ("await", seconds(sums.await_ns())),
    ];
    numbers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn edges(table: &Table, edges: &[(usize, Sums)]) -> Value {
    let edge = |(row, edge): &(usize, Sums)| {
        let mut value = function(&table.rows[*row]);
        value.extend(sums(edge));
        Value::Object(value)
    };
    edges.iter().map(edge).collect()
}

fn audit(profile: &Profile) -> Value {
    let (audit, cost) = (&profile.audit, profile.cost());
    json!({
        "sites": audit.sites,
        "nodes": audit.nodes,
        "threads": audit.threads,
        "overflow": audit.overflow,
        "partial": audit.partial,
        "clock": audit.source.name(),
        "ticks_per_second": audit.ticks_per_second,
        "resolution_ns": audit.resolution_ns,
        "entries": audit.polls,
        "entry_cost_ns": cost.entry_ns,
        "cost": cost.ns / 1e9,
        "cost_percent": cost.percent,
        "cpu": audit.cpu.as_secs_f64(),
        "busy": seconds(audit.busy_ns),
        "coverage_percent": audit.coverage_percent(),
        "preemptions": audit.preempted,
    })
}

fn seconds(ns: u64) -> Value {
    json!(ns as f64 / 1e9)
}
