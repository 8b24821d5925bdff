//! `/metrics`: counters that cost one relaxed addition where they are counted, and their text form.
//!
//! Labels come from fixed tables (route, status), never from a request, so memory is bounded.

use crate::live::Resource;
use crate::net::Traffic;
use crate::profile::{Kind, Site};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Routes as they are counted; `Other` is whatever has no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Page,
    Videos,
    Video,
    File,
    Chunk,
    Seek,
    Upload,
    Live,
    LiveStream,
    LiveBody,
    LiveFile,
    LivePlaylist,
    LiveMaster,
    LiveMedia,
    LiveTrack,
    Script,
    Style,
    Other,
}

const ROUTES: [(Route, &str); 18] = [
    (Route::Page, "/"),
    (Route::Videos, "/videos"),
    (Route::Video, "/videos/{id}"),
    (Route::File, "/videos/{id}/file"),
    (Route::Chunk, "/videos/{id}/chunk"),
    (Route::Seek, "/videos/{id}/seek"),
    (Route::Upload, "/videos/{id}/upload"),
    (Route::Live, "/live"),
    (Route::LiveStream, "/live/{name}"),
    (Route::LiveBody, "/live/{name}/stream"),
    (Route::LiveFile, "/live/{name}/file"),
    (Route::LivePlaylist, "/live/{name}/index.m3u8"),
    (Route::LiveMaster, "/live/{name}/master.m3u8"),
    (Route::LiveMedia, "/live/{name}/segment"),
    (Route::LiveTrack, "/live/{name}/{track}"),
    (Route::Script, "/weir.js"),
    (Route::Style, "/weir.css"),
    (Route::Other, "other"),
];

/// Every status that Weir sends, 499 for a client that left before its answer; any other is counted in the last slot.
const STATUSES: [u16; 27] = [
    200, 201, 202, 204, 206, 304, 400, 401, 403, 404, 405, 408, 409, 411, 412, 413, 414, 415, 416, 422, 429, 431, 499,
    501, 503, 507, 0,
];

/// Each route as a span: the profile's nodes of requests.
static ROUTE_SITES: [Site; ROUTES.len()] = {
    let mut sites = [const { Site::new("", file!(), line!(), Kind::Route) }; ROUTES.len()];
    let mut row = 0;
    while row < ROUTES.len() {
        sites[row].name = ROUTES[row].1;
        row += 1;
    }
    sites
};

impl Route {
    /// The span of its requests.
    pub fn site(self) -> &'static Site {
        &ROUTE_SITES[self as usize]
    }

    /// The route of a request path, as the route table has it.
    pub fn of(path: &str) -> Self {
        let mut segments = segments(path);
        let mut next = || segments.next();
        match (next(), next(), next(), next()) {
            (Some(""), None, ..) => Self::Page,
            (Some("live"), None, ..) => Self::Live,
            (Some("live"), Some(_), None, _) => Self::LiveStream,
            (Some("live"), Some(_), Some("stream"), None) => Self::LiveBody,
            (Some("live"), Some(_), Some("file"), None) => Self::LiveFile,
            (Some("live"), Some(_), Some("index.m3u8"), None) => Self::LivePlaylist,
            (Some("live"), Some(_), Some("master.m3u8"), None) => Self::LiveMaster,
            (Some("live"), Some(_), Some(name), None) if Resource::parse(name).is_some() => Self::LiveMedia,
            // Encoders name their segments below their track.
            (Some("live"), Some(_), Some(_), _) if path.matches('/').count() <= 4 => Self::LiveTrack,
            (Some("weir.js"), None, ..) => Self::Script,
            (Some("weir.css"), None, ..) => Self::Style,
            (Some("videos"), None, ..) => Self::Videos,
            (Some("videos"), Some(_), None, _) => Self::Video,
            (Some("videos"), Some(_), Some("file"), None) => Self::File,
            (Some("videos"), Some(_), Some("chunk"), None) => Self::Chunk,
            (Some("videos"), Some(_), Some("seek"), None) => Self::Seek,
            (Some("videos"), Some(_), Some("upload"), None) => Self::Upload,
            _ => Self::Other,
        }
    }
}

/// What stands between the slashes of a path, the one at its front left out. Bytes are compared, which in short texts
/// is faster than the search for a char.
pub fn segments(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path.get(1..);
    std::iter::from_fn(move || {
        let text = rest?;
        let slash = text.bytes().position(|byte| byte == b'/');
        rest = slash.map(|at| &text[at + 1..]);
        Some(slash.map_or(text, |at| &text[..at]))
    })
}

/// What the server counts.
pub struct Metrics {
    pub traffic: Arc<Traffic>,
    started: Instant,
    requests: [[AtomicU64; STATUSES.len()]; ROUTES.len()],
    /// Sum of the time from a request's head to the end of its answer, in microseconds.
    request_us: [AtomicU64; ROUTES.len()],
    /// Texts of HLS playlists that were made; whoever asks while nothing changes shares one.
    pub playlists_rendered: AtomicU64,
    /// Videos in the library, as of the last look.
    pub videos: AtomicU64,
}

impl Metrics {
    pub fn new(traffic: Arc<Traffic>, started: Instant) -> Self {
        Self {
            traffic,
            started,
            requests: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            request_us: std::array::from_fn(|_| AtomicU64::new(0)),
            playlists_rendered: AtomicU64::new(0),
            videos: AtomicU64::new(0),
        }
    }

    pub fn count_request(&self, route: Route, status: u16, took_us: u64) {
        let row = route as usize;
        let column = STATUSES.iter().position(|&s| s == status).unwrap_or(STATUSES.len() - 1);
        self.requests[row][column].fetch_add(1, Relaxed);
        self.request_us[row].fetch_add(took_us, Relaxed);
    }

    /// The OpenMetrics text of everything.
    pub fn render(self: &Arc<Self>) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("weir");
        registry.register_collector(Box::new(Exported(Arc::clone(self))));
        let mut text = String::with_capacity(8 << 10);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

struct Exported(Arc<Metrics>);

impl fmt::Debug for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exported")
    }
}

impl Collector for Exported {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let metrics = &self.0;
        let traffic = &metrics.traffic;
        let counters = [
            ("bytes_sent", "Bytes written to media connections", &traffic.sent),
            ("bytes_copied", "Bytes sent that were not slices of media: heads and generated boxes", &traffic.copied),
            ("bytes_received", "Bytes read from media connections", &traffic.received),
            ("writes", "Write system calls on media connections", &traffic.writes),
            ("connections_accepted", "Connections accepted", &traffic.accepted),
            ("connections_refused", "Connections refused because too many were open", &traffic.refused),
            ("playlists_rendered", "Texts of HLS playlists made", &metrics.playlists_rendered),
            ("connections_stalled", "Connections dropped because the peer took no byte", &traffic.stalled),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value.load(Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let gauges = [
            ("connections", "Connections open", traffic.open.load(Relaxed) as f64),
            ("videos", "Videos in the library", metrics.videos.load(Relaxed) as f64),
            ("uptime_seconds", "Time since the start", metrics.started.elapsed().as_secs_f64()),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        metrics.encode_requests(encoder)
    }
}

impl Metrics {
    fn encode_requests(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        use prometheus_client::metrics::MetricType::Counter;
        let mut family =
            encoder.encode_descriptor("requests", "Requests answered, by route and status", None, Counter)?;
        for (row, (_, route)) in ROUTES.iter().enumerate() {
            for (column, status) in STATUSES.iter().enumerate() {
                let count = self.requests[row][column].load(Relaxed);
                if count > 0 {
                    let status = if *status == 0 { "other".to_owned() } else { status.to_string() };
                    let labels = [("route", (*route).to_owned()), ("status", status)];
                    ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let help = "Time from a request's head to the end of its answer, summed";
        let mut family = encoder.encode_descriptor("request_seconds", help, None, Counter)?;
        for (row, (_, route)) in ROUTES.iter().enumerate() {
            let seconds = self.request_us[row].load(Relaxed) as f64 / 1e6;
            let labels = [("route", (*route).to_owned())];
            ConstCounter::new(seconds).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_what_was_counted() {
        let metrics = Arc::new(Metrics::new(Arc::default(), Instant::now()));
        metrics.traffic.sent.fetch_add(1234, Relaxed);
        metrics.count_request(Route::of("/videos/a%2Fb.mp4/file"), 206, 500);
        metrics.count_request(Route::of("/debug"), 404, 1);
        let text = metrics.render().expect("rendered");
        assert!(text.contains("weir_bytes_sent_total 1234\n"), "{text}");
        assert!(text.contains("weir_requests_total{route=\"/videos/{id}/file\",status=\"206\"} 1\n"), "{text}");
        assert!(text.contains("weir_requests_total{route=\"other\",status=\"404\"} 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
