//! `/metrics` as text: OpenMetrics 1.0, or the older format of Prometheus, 0.0.4.
//!
//! Everything is read when it is asked for; nothing is kept for those who never ask.

use super::latency::{self, Reading};
use super::metrics::Metrics;
use super::process::Process;
use crate::profile::Stage;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// One number of a part of the server that keeps its own count.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub name: &'static str,
    pub help: &'static str,
    /// It only grows.
    pub counts: bool,
    /// Figures of one name differ in this label.
    pub label: Option<(&'static str, String)>,
    pub value: f64,
}

impl Figure {
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, counts: false, label: None, value }
    }

    pub fn counter(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { counts: true, ..Self::gauge(name, help, value) }
    }

    #[must_use]
    pub fn of(self, label: &'static str, value: impl Into<String>) -> Self {
        Self { label: Some((label, value.into())), ..self }
    }
}

/// The text of everything. Figures of one name stand together.
pub fn render(metrics: &Arc<Metrics>, figures: Vec<Figure>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(All { metrics: Arc::clone(metrics), figures }));
    let mut text = String::with_capacity(64 << 10);
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Prometheus => older(&text),
    })
}

/// The older format has no end mark, and its counters are called as their samples are.
fn older(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut counter = "";
    for line in text.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        // The help of a counter comes before its type.
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), Some(rest)) => {
                let is_counter = counter == name || text.contains(&format!("# TYPE {name} counter\n"));
                counter = if is_counter { name } else { "" };
                let total = if is_counter { "_total" } else { "" };
                shown.push_str(&format!("# {what} {name}{total} {rest}\n"));
            }
            _ => {
                shown.push_str(line);
                shown.push('\n');
            }
        }
    }
    shown
}

struct All {
    metrics: Arc<Metrics>,
    figures: Vec<Figure>,
}

impl fmt::Debug for All {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("All")
    }
}

impl Collector for All {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut figures = self.own();
        figures.extend(self.figures.iter().cloned());
        for same in figures.chunk_by(|a, b| a.name == b.name) {
            let Some(first) = same.first() else { continue };
            let kind = if first.counts { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(first.name, first.help, None, kind)?;
            if first.label.is_none() {
                number(family, first)?;
                continue;
            }
            for figure in same {
                let labels: Vec<_> = figure.label.iter().cloned().collect();
                number(family.encode_family(&labels)?, figure)?;
            }
        }
        self.encode_requests(&mut encoder)?;
        let help = "Time from a request's head to the end of its answer";
        let routes = self.metrics.durations().map(|(route, reading)| (("route", route), reading));
        histograms(&mut encoder, "weir_request_duration_seconds", help, routes)?;
        let stages = Stage::ALL.into_iter().map(|stage| (("stage", stage.name()), latency::of(stage).read()));
        histograms(
            &mut encoder,
            "weir_stage_duration_seconds",
            "Time in a stage of a request or of a live part",
            stages,
        )
    }
}

fn number(encoder: MetricEncoder, figure: &Figure) -> fmt::Result {
    if figure.counts {
        ConstCounter::new(figure.value).encode(encoder)
    } else {
        ConstGauge::new(figure.value).encode(encoder)
    }
}

/// Only those that were observed at least once.
fn histograms(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    readings: impl Iterator<Item = ((&'static str, &'static str), Reading)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (label, reading) in readings.filter(|(_, reading)| reading.count() > 0) {
        let labels = [label];
        let mut one = family.encode_family(&labels)?;
        one.encode_histogram::<NoLabelSet>(reading.sum_seconds, reading.count(), &reading.bounds(), None)?;
    }
    Ok(())
}

impl All {
    fn encode_requests(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Requests answered, by route and status";
        let mut family = encoder.encode_descriptor("weir_requests", help, None, MetricType::Counter)?;
        for (route, status, count) in self.metrics.requests() {
            let status = if status == 0 { "other".to_owned() } else { status.to_string() };
            let labels = [("route", route.to_owned()), ("status", status)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Traffic, runtimes and the process.
    fn own(&self) -> Vec<Figure> {
        let (traffic, process) = (&self.metrics.traffic, Process::read());
        let count = |name, help, value: u64| Figure::counter(name, help, value as f64);
        let gauge = |name, help, value: u64| Figure::gauge(name, help, value as f64);
        let mut figures = vec![
            count("weir_bytes_sent", "Bytes written to media connections", traffic.sent.load(Relaxed)),
            count(
                "weir_bytes_copied",
                "Bytes sent that were not slices of media: heads and boxes",
                traffic.copied.load(Relaxed),
            ),
            count("weir_bytes_received", "Bytes read from media connections", traffic.received.load(Relaxed)),
            count("weir_writes", "Write system calls on media connections", traffic.writes.load(Relaxed)),
            count("weir_connections_accepted", "Connections accepted", traffic.accepted.load(Relaxed)),
            count("weir_connections_refused", "Connections refused: too many were open", traffic.refused.load(Relaxed)),
            count(
                "weir_connections_stalled",
                "Connections dropped: the peer took no byte",
                traffic.stalled.load(Relaxed),
            ),
            count(
                "weir_playlists_rendered",
                "Texts of HLS playlists made",
                self.metrics.playlists_rendered.load(Relaxed),
            ),
            gauge("weir_connections", "Connections open", traffic.open.load(Relaxed) as u64),
            Figure::gauge("weir_uptime_seconds", "Time since the start", self.metrics.uptime().as_secs_f64()),
            Figure::counter("process_cpu_seconds", "CPU time used, user and system", process.cpu_seconds),
            gauge("process_resident_memory_bytes", "Memory in use", process.resident_bytes),
            gauge("process_virtual_memory_bytes", "Addresses in use", process.virtual_bytes),
            gauge("process_threads", "Threads", process.threads),
            gauge("process_open_fds", "Open files", process.open_files),
            gauge("process_max_fds", "Open files at most", process.open_files_max),
            Figure::gauge("process_start_time_seconds", "Start, in seconds since 1970", process.start_seconds),
        ];
        let busy = self.metrics.busy().into_iter().map(|(name, seconds)| {
            Figure::counter("weir_runtime_busy_seconds", "Time in which a runtime ran tasks", seconds)
                .of("runtime", name)
        });
        figures.extend(busy);
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Route;
    use super::*;
    use std::time::{Duration, Instant};

    fn text(format: Format) -> String {
        let metrics = Arc::new(Metrics::new(Arc::default(), Instant::now()));
        metrics.traffic.sent.fetch_add(1234, Relaxed);
        metrics.count_request(Route::of("/videos/a%2Fb.mp4/file"), 206, Duration::from_micros(500));
        let figures = vec![
            Figure::gauge("weir_pool_busy", "Threads", 1.0).of("pool", "read"),
            Figure::gauge("weir_pool_busy", "Threads", 2.0).of("pool", "write"),
        ];
        render(&metrics, figures, format).expect("rendered")
    }

    #[test]
    fn the_text_names_what_was_counted() {
        let text = text(Format::OpenMetrics);
        for line in [
            "# TYPE weir_bytes_sent counter\n",
            "weir_bytes_sent_total 1234.0\n",
            "weir_requests_total{route=\"/videos/{id}/file\",status=\"206\"} 1\n",
            "weir_request_duration_seconds_bucket{le=\"0.000512\",route=\"/videos/{id}/file\"} 1\n",
            "weir_request_duration_seconds_bucket{le=\"+Inf\",route=\"/videos/{id}/file\"} 1\n",
            "weir_pool_busy{pool=\"write\"} 2.0\n",
            "process_open_fds ",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn the_older_format_names_counters_as_their_samples() {
        let text = text(Format::Prometheus);
        assert!(text.contains("# HELP weir_bytes_sent_total Bytes"), "{text}");
        assert!(text.contains("# TYPE weir_bytes_sent_total counter\nweir_bytes_sent_total 1234.0\n"), "{text}");
        assert!(text.contains("# TYPE weir_pool_busy gauge\n") && !text.contains("EOF"), "{text}");
    }
}
