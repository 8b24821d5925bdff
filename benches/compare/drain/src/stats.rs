//! Percentiles of latencies and a JSON object writer.

use std::fmt::Write as _;

/// Latencies of one group in nanoseconds.
#[derive(Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    pub fn push(&mut self, ns: u64) {
        self.0.push(ns);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// p50, p90, p99, p99.9 and the maximum, in microseconds; zeros when nothing was measured.
    pub fn summary(&mut self) -> [f64; 5] {
        self.0.sort_unstable();
        [0.5, 0.9, 0.99, 0.999, 1.0].map(|q| self.quantile(q))
    }

    /// Nearest rank.
    fn quantile(&self, q: f64) -> f64 {
        let Some(last) = self.0.len().checked_sub(1) else { return 0.0 };
        let rank = ((q * self.0.len() as f64).ceil() as usize).saturating_sub(1).min(last);
        self.0[rank] as f64 / 1000.0
    }
}

/// Builds one JSON object; names are literals of this program and need no escaping.
#[derive(Default)]
pub struct Object(String);

impl Object {
    pub fn number(self, name: &str, value: f64) -> Self {
        let value = if value.is_finite() { value } else { 0.0 };
        self.raw(name, &format!("{value:.3}"))
    }

    pub fn integer(self, name: &str, value: u64) -> Self {
        self.raw(name, &value.to_string())
    }

    pub fn text(self, name: &str, value: &str) -> Self {
        let mut quoted = String::from("\"");
        for c in value.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                c if u32::from(c) < 0x20 => {
                    let _ = write!(quoted, "\\u{:04x}", u32::from(c));
                }
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        self.raw(name, &quoted)
    }

    pub fn raw(mut self, name: &str, json: &str) -> Self {
        let comma = if self.0.is_empty() { "" } else { "," };
        let _ = write!(self.0, "{comma}\"{name}\":{json}");
        self
    }

    pub fn finish(self) -> String {
        format!("{{{}}}", self.0)
    }
}
