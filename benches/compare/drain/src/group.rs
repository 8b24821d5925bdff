//! A group of connections that ask for the same kind of thing, and the choice of its next request.

use crate::args::size;
use crate::rng::Rng;
use crate::stats::{Latencies, Object};
use std::fmt::Write as _;

enum Order {
    Random,
    /// Each range of the file once, in order; then the group is done.
    Once { next: u64 },
}

enum Target {
    Ranges { path: String, size: u64, file_size: u64, align: u64, order: Order },
    Urls(Vec<String>),
}

pub struct Group {
    pub name: String,
    pub connections: usize,
    /// Requests per second of the whole group, whatever the answers take; 0: as fast as the answers come.
    pub rate: f64,
    pub expect: u16,
    target: Target,
    host: String,
    pub counts: Counts,
}

/// What was measured between the end of the warm-up and the end of the run.
#[derive(Default)]
pub struct Counts {
    pub bytes: u64,
    pub errors: u64,
    pub first_error: Option<String>,
    /// Send of the request (open loop: the moment it was due) to the last byte.
    pub whole: Latencies,
    /// The same to the first byte.
    pub first_byte: Latencies,
}

impl Group {
    pub fn parse(spec: &str, host: &str) -> Result<Self, String> {
        let mut name = String::from("load");
        let (mut path, mut urls) = (None, None);
        let (mut bytes, mut file_size, mut align, mut connections) = (0, 0, 1, 1);
        let (mut rate, mut expect, mut once, mut from) = (0.0, None, false, 0);
        for pair in spec.split(',') {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("--group: not KEY=VALUE: {pair}"))?;
            let number = || value.parse::<f64>().map_err(|_| format!("--group: {key}: not a number: {value}"));
            match key {
                "name" => value.clone_into(&mut name),
                "path" => path = Some(value.to_owned()),
                "urls" => urls = Some(value.to_owned()),
                "size" => bytes = size(value)?,
                "file-size" => file_size = size(value)?,
                "align" => align = size(value)?.max(1),
                "connections" => connections = usize::try_from(size(value)?).map_err(|_| "too many connections")?,
                "rate" => rate = number()?,
                "expect" => expect = Some(number()? as u16),
                "order" => once = value == "once",
                "from" => from = size(value)?,
                _ => return Err(format!("--group: unknown key {key}")),
            }
        }
        let target = match (path, urls) {
            (Some(path), None) if bytes > 0 && bytes <= file_size => {
                let order = if once { Order::Once { next: from } } else { Order::Random };
                Target::Ranges { path, size: bytes, file_size, align, order }
            }
            (None, Some(file)) => {
                let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
                let lines: Vec<String> = text.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect();
                if lines.is_empty() {
                    return Err(format!("{file}: no URLs"));
                }
                Target::Urls(lines)
            }
            _ => return Err("--group: path with size and file-size, or urls".to_owned()),
        };
        let expect = expect.unwrap_or(if matches!(target, Target::Urls(_)) { 200 } else { 206 });
        let host = host.to_owned();
        Ok(Self { name, connections: connections.max(1), rate, expect, target, host, counts: Counts::default() })
    }

    /// Bytes of one body, where all are the same.
    pub fn body_size(&self) -> Option<u64> {
        match &self.target {
            Target::Ranges { size, .. } => Some(*size),
            Target::Urls(_) => None,
        }
    }

    /// Writes the next request; false when there is none left.
    pub fn request(&mut self, rng: &mut Rng, out: &mut String) -> bool {
        out.clear();
        match &mut self.target {
            Target::Ranges { path, size, file_size, align, order } => {
                let first = match order {
                    Order::Random => rng.below((*file_size - *size) / *align + 1) * *align,
                    Order::Once { next } => {
                        let first = *next;
                        if first + *size > *file_size {
                            return false;
                        }
                        *next += *size;
                        first
                    }
                };
                let (last, host) = (first + *size - 1, &self.host);
                let _ = write!(out, "GET {path} HTTP/1.1\r\nHost: {host}\r\nRange: bytes={first}-{last}\r\n\r\n");
            }
            Target::Urls(lines) => {
                let line = &lines[usize::try_from(rng.below(lines.len() as u64)).unwrap_or(0)];
                let _ = write!(out, "GET {line} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
            }
        }
        true
    }

    pub fn report(&mut self, seconds: f64) -> String {
        let requests = self.counts.whole.len() as u64;
        let mut object = Object::default()
            .text("name", &self.name)
            .integer("connections", self.connections as u64)
            .integer("requests", requests)
            .integer("bytes", self.counts.bytes)
            .integer("errors", self.counts.errors)
            .number("requests_per_second", requests as f64 / seconds)
            .number("mb_per_second", self.counts.bytes as f64 / 1e6 / seconds);
        for (kind, latencies) in [("whole", &mut self.counts.whole), ("first_byte", &mut self.counts.first_byte)] {
            let [p50, p90, p99, p999, max] = latencies.summary();
            let summary = Object::default()
                .number("p50", p50)
                .number("p90", p90)
                .number("p99", p99)
                .number("p999", p999)
                .number("max", max);
            object = object.raw(&format!("{kind}_us"), &summary.finish());
        }
        if let Some(error) = &self.counts.first_error {
            object = object.text("first_error", error);
        }
        object.finish()
    }
}
