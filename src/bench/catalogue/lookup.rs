//! Look-ups and ordered insertion: lists against maps, linear against bisection.

use crate::bench::{Benchmark, Statement};
use crate::http::problem::Problem;
use crate::http::range;
use crate::library::Catalogue;
use crate::library::ranges::Ranges;
use crate::media::mp4::order::OrderBuilder;
use std::hint::black_box;

pub(super) fn catalogue() -> Benchmark {
    Benchmark::new(
        "catalogue-lookup",
        "What does it cost to find a video by its id, or to find that there is none?",
        "a list is scanned, the catalogue's map is not; a missing id costs little as a value, more as an error to send",
    )
    .sized("videos in the library", 1000, 1..=100_000)
    .way("list", |size| {
        let ids: Vec<String> = ids(size).collect();
        let wanted = id(size / 2);
        Ok(Statement::new(1, move || ids.iter().position(|id| *id == *black_box(&wanted))))
    })
    .way("catalogue", |size| {
        let catalogue = Catalogue::of_ids(ids(size));
        let wanted = id(size / 2);
        Ok(Statement::new(1, move || catalogue.get(black_box(&wanted)).is_some()))
    })
    .way("missing, as a value", |size| {
        let catalogue = Catalogue::of_ids(ids(size));
        Ok(Statement::new(1, move || catalogue.get(black_box("none.mp4")).is_some()))
    })
    .way("missing, as an error", |size| {
        let catalogue = Catalogue::of_ids(ids(size));
        Ok(Statement::new(1, move || {
            let found = catalogue.get(black_box("none.mp4"));
            found.map(|video| video.size_bytes()).ok_or_else(|| Problem::not_found("there is no such video"))
        }))
    })
}

fn id(n: u64) -> String {
    format!("v{n:06}.mp4")
}

fn ids(size: u64) -> impl Iterator<Item = String> {
    (0..size).map(id)
}

pub(super) fn insert() -> Benchmark {
    Benchmark::new(
        "index-insert",
        "What does it cost to keep keyframes in order while they come in any order?",
        "looking for places linearly grows with the square of their number, by bisection hardly faster than it; the \
         server keeps the ranges of an upload in a tree, and of samples only where their order can be cut",
    )
    .sized("keyframes of the largest table", 10_000, 100..=50_000)
    .way("linear, 1 %", |size| Ok(inserting(size / 100, linear)))
    .way("linear, 10 %", |size| Ok(inserting(size / 10, linear)))
    .way("linear, all", |size| Ok(inserting(size, linear)))
    .way("bisection, 1 %", |size| Ok(inserting(size / 100, bisection)))
    .way("bisection, 10 %", |size| Ok(inserting(size / 10, bisection)))
    .way("bisection, all", |size| Ok(inserting(size, bisection)))
    .way("ranges of an upload, 1 %", |size| Ok(ranges(size / 100)))
    .way("ranges of an upload, 10 %", |size| Ok(ranges(size / 10)))
    .way("ranges of an upload, all", |size| Ok(ranges(size)))
    .way("cuts of an index, all", |size| Ok(cuts(size)))
    .per("keyframe")
}

type Place = fn(&[(u64, u64)], u64) -> usize;

fn linear(table: &[(u64, u64)], time: u64) -> usize {
    table.iter().position(|entry| entry.0 > time).unwrap_or(table.len())
}

fn bisection(table: &[(u64, u64)], time: u64) -> usize {
    table.partition_point(|entry| entry.0 <= time)
}

/// So many times, mixed up by a multiplication that has no common divisor with their number.
fn mixed(count: u64) -> Vec<u64> {
    (0..count).map(|n| n * 7919 % count.max(1)).collect()
}

fn inserting(count: u64, place: Place) -> Statement {
    let times = mixed(count);
    Statement::new(count, move || {
        let mut table: Vec<(u64, u64)> = Vec::with_capacity(times.len());
        for time in &times {
            let at = black_box(place)(&table, *time);
            table.insert(at, (*time, time * 1000));
        }
        table.len()
    })
}

/// The server's own set of ranges, which come in any order; none of these touches another.
fn ranges(count: u64) -> Statement {
    let times = mixed(count);
    Statement::new(count, move || {
        let mut ranges = Ranges::default();
        for time in &times {
            ranges.insert(black_box(time * 1000..time * 1000 + 500));
        }
        ranges
    })
}

/// What an index of MP4 keeps of the order of its samples.
fn cuts(count: u64) -> Statement {
    let times = mixed(count);
    Statement::new(count, move || {
        let mut order = OrderBuilder::new(1024);
        let fed = times.iter().all(|time| order.push(black_box(*time as i64)).is_ok());
        fed.then(|| order.finish().0.len())
    })
}

/// Spelled as clients spell them: a browser's first request, a chunk, a suffix, what a PDF reader sends, nonsense.
const RANGE_FIELDS: [(&str, &str); 5] = [
    ("open", "bytes=0-"),
    ("chunk", "bytes=1234567890-1255539409"),
    ("suffix", "bytes=-500"),
    ("several", "bytes=0-99, 1000-1999, 5000-5999, 10000-10999"),
    ("invalid", "bytes=9-5"),
];
const FILE_BYTES: u64 = 5_000_000_000;

pub(super) fn range() -> Benchmark {
    let benchmark = Benchmark::new(
        "range-parse",
        "What does the Range field of a request cost?",
        "a range is parsed and resolved without an allocation that its text could size; of a hostile field no more is \
         looked at than may be answered",
    );
    let single = RANGE_FIELDS.map(|(name, field)| (name, field.to_owned()));
    // As many ranges as are looked at, and far more than that.
    let many = [("16 ranges", listed(16)), ("4,096 ranges", listed(4096))];
    single.into_iter().chain(many).fold(benchmark, |benchmark, (name, field)| {
        benchmark.way(name, move |_| {
            let field = field.clone();
            Ok(Statement::new(1, move || range::resolve(black_box(field.as_bytes()), black_box(FILE_BYTES))))
        })
    })
}

fn listed(ranges: u64) -> String {
    let list: Vec<String> = (0..ranges).map(|n| format!("{}-{}", n * 1000, n * 1000 + 99)).collect();
    format!("bytes={}", list.join(","))
}
