//! What is counted of requests: one relaxed addition where it happens.
//!
//! Labels come from fixed tables (route, status), never from a request, so memory is bounded.

use super::latency::{Histogram, Reading};
use crate::live::Resource;
use crate::net::Traffic;
use crate::profile::{Kind, Site};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

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
    Frame,
    Storyboard,
    Adjust,
    Enhance,
    Live,
    LiveStream,
    LiveBody,
    LiveFile,
    LiveFrame,
    LivePlaylist,
    LiveMaster,
    LiveMedia,
    LiveTrack,
    Script,
    Style,
    Other,
}

const ROUTES: [(Route, &str); 23] = [
    (Route::Page, "/"),
    (Route::Videos, "/videos"),
    (Route::Video, "/videos/{id}"),
    (Route::File, "/videos/{id}/file"),
    (Route::Chunk, "/videos/{id}/chunk"),
    (Route::Seek, "/videos/{id}/seek"),
    (Route::Upload, "/videos/{id}/upload"),
    (Route::Frame, "/videos/{id}/frame.jpg"),
    (Route::Storyboard, "/videos/{id}/storyboard.jpg"),
    (Route::Adjust, "/adjust"),
    (Route::Enhance, "/enhance"),
    (Route::Live, "/live"),
    (Route::LiveStream, "/live/{name}"),
    (Route::LiveBody, "/live/{name}/stream"),
    (Route::LiveFile, "/live/{name}/file"),
    (Route::LiveFrame, "/live/{name}/frame.jpg"),
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
    /// The route of this number.
    pub fn numbered(number: u8) -> Option<Self> {
        ROUTES.get(usize::from(number)).map(|(route, _)| *route)
    }

    /// As the route table writes it.
    pub fn name(self) -> &'static str {
        ROUTES[self as usize].1
    }

    /// The name of the stream that a path of this route is about.
    pub fn stream_of(self, path: &str) -> Option<&str> {
        let is_live = path.starts_with("/live/") && self != Self::Other;
        is_live.then(|| path.split('/').nth(2))?
    }

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
            (Some("live"), Some(_), Some("frame.jpg"), None) => Self::LiveFrame,
            (Some("adjust"), None, ..) => Self::Adjust,
            (Some("enhance"), None, ..) => Self::Enhance,
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
            (Some("videos"), Some(_), Some("frame.jpg"), None) => Self::Frame,
            (Some("videos"), Some(_), Some("storyboard.jpg"), None) => Self::Storyboard,
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
    /// From a request's head to the end of its answer.
    durations: [Histogram; ROUTES.len()],
    /// The runtimes whose busy time is told, by name.
    runtimes: Mutex<Vec<(String, Handle)>>,
    /// Texts of HLS playlists that were made; whoever asks while nothing changes shares one.
    pub playlists_rendered: AtomicU64,
}

impl Metrics {
    pub fn new(traffic: Arc<Traffic>, started: Instant) -> Self {
        Self {
            traffic,
            started,
            requests: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            durations: [const { Histogram::new() }; ROUTES.len()],
            runtimes: Mutex::default(),
            playlists_rendered: AtomicU64::new(0),
        }
    }

    /// Tells the busy time of a runtime from now on.
    pub fn follow(&self, runtimes: impl IntoIterator<Item = (String, Handle)>) {
        self.runtimes.lock().unwrap_or_else(PoisonError::into_inner).extend(runtimes);
    }

    /// How long each runtime was busy, in seconds.
    pub fn busy(&self) -> Vec<(String, f64)> {
        let runtimes = self.runtimes.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |handle: &Handle| handle.metrics().worker_total_busy_duration(0).as_secs_f64();
        runtimes.iter().map(|(name, handle)| (name.clone(), busy(handle))).collect()
    }

    pub fn count_request(&self, route: Route, status: u16, took: Duration) {
        let row = route as usize;
        let column = STATUSES.iter().position(|&s| s == status).unwrap_or(STATUSES.len() - 1);
        self.requests[row][column].fetch_add(1, Relaxed);
        self.durations[row].observe(took);
    }

    /// How many requests each route answered, by status; those that never were are left out.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, u16, u64)> {
        ROUTES.iter().zip(&self.requests).flat_map(|((_, route), row)| {
            let counts = STATUSES.iter().zip(row).map(|(status, count)| (*route, *status, count.load(Relaxed)));
            counts.filter(|(_, _, count)| *count > 0)
        })
    }

    /// How long the requests of each route took, from the head to the end of the answer.
    pub fn durations(&self) -> impl Iterator<Item = (&'static str, Reading)> {
        ROUTES.iter().zip(&self.durations).map(|((_, route), histogram)| (*route, histogram.read()))
    }

    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::heap::allocated_bytes;

    #[test]
    fn requests_are_counted_by_route_and_status() {
        let metrics = Metrics::new(Arc::default(), Instant::now());
        metrics.count_request(Route::of("/videos/a%2Fb.mp4/file"), 206, Duration::from_micros(500));
        metrics.count_request(Route::of("/debug"), 404, Duration::from_micros(1));
        metrics.count_request(Route::of("/debug"), 418, Duration::from_micros(1));
        let requests: Vec<_> = metrics.requests().collect();
        assert_eq!(requests, [("/videos/{id}/file", 206, 1), ("other", 404, 1), ("other", 0, 1)]);
        let (route, durations) = metrics.durations().find(|(_, reading)| reading.count() == 2).expect("counted");
        assert_eq!((route, durations.buckets[0]), ("other", 2));
    }

    /// Some exporters keep every observation until they are asked.
    #[test]
    fn memory_does_not_grow_while_nobody_asks() {
        const OBSERVATIONS: u64 = 10_000_000;
        let metrics = Metrics::new(Arc::default(), Instant::now());
        let observe = |n: u64| {
            let route = Route::numbered((n % 16) as u8).expect("a route");
            metrics.count_request(route, STATUSES[n as usize % STATUSES.len()], Duration::from_nanos(n * 997));
        };
        // What a thread needs once is not growth.
        observe(0);
        let before = allocated_bytes();
        (1..OBSERVATIONS).for_each(observe);
        assert_eq!(allocated_bytes(), before);
        assert_eq!(metrics.durations().map(|(_, reading)| reading.count()).sum::<u64>(), OBSERVATIONS);
    }

    #[test]
    fn each_route_is_in_the_table_once_at_its_place() {
        for (place, (route, name)) in ROUTES.into_iter().enumerate() {
            assert_eq!(route as usize, place, "{name}");
        }
        assert_eq!(Route::of("/live/cam/stream").stream_of("/live/cam/stream"), Some("cam"));
        assert_eq!(Route::of("/live").stream_of("/live"), None);
    }
}
