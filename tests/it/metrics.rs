//! `/metrics`, `/debug/tasks` and the page at `/debug/`: Prometheus's own parsers read the figures, they are true, and
//! what waits says so while every core is busy.

use crate::support::client::{self, Connection};
use crate::support::oracle;
use crate::support::publisher;
use crate::support::server::Server;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

const OPEN_METRICS: (&str, &str) = ("Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");

/// Has the PyPI package `prometheus-client` parse a text and print every sample.
fn parsed(module: &str, text: &str) -> String {
    let script = format!(
        "import sys\nfrom {module} import text_string_to_metric_families as parse\n\
         for family in parse(sys.stdin.read()):\n  for s in family.samples:\n    \
         print(family.type, s.name, sorted(s.labels.items()), float(s.value))\n"
    );
    let mut child = Command::new("python3")
        .args(["-c", &script])
        // Where tests/run.sh installs it.
        .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/target/python"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{module}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn prometheus_reads_both_formats_and_the_figures_are_true() {
    let server = Server::builder().bytes("a.bin", &[7; 5000]).start();
    for _ in 0..7 {
        assert_eq!(server.get("/videos/a.bin/file").status, 200);
    }
    assert_eq!(server.get("/secret/path?key=1").status, 404);
    // A request is counted once its last byte is out: the client may be faster.
    publisher::eventually("eight requests counted", || server.metric("weir_request_duration_seconds_count") >= 8.0);
    let older = server.admin_get("/metrics");
    assert_eq!(older.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let newer = client::request(server.admin, "GET", "/metrics", &[OPEN_METRICS], b"");
    let expected = Some("application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(newer.header("content-type"), expected);
    let older = parsed("prometheus_client.parser", &older.text());
    let newer = parsed("prometheus_client.openmetrics.parser", &newer.text());
    for samples in [&older, &newer] {
        for sample in [
            "counter weir_requests_total [('route', '/videos/{id}/file'), ('status', '200')] 7.0\n",
            "counter weir_requests_total [('route', 'other'), ('status', '404')] 1.0\n",
            "histogram weir_request_duration_seconds_count [('route', '/videos/{id}/file')] 7.0\n",
            "histogram weir_request_duration_seconds_bucket [('le', '+Inf'), ('route', '/videos/{id}/file')] 7.0\n",
            "histogram weir_stage_duration_seconds_count [('stage', 'lookup')] 7.0\n",
            "counter weir_runtime_busy_seconds_total [('runtime', 'core0')] ",
            "gauge weir_pool_queued [('pool', 'read')] 0.0\n",
            "gauge weir_videos [] 1.0\n",
            "gauge process_open_fds [] ",
            "counter process_cpu_seconds_total [] ",
        ] {
            assert!(samples.contains(sample), "no {sample} in\n{samples}");
        }
        assert!(!samples.contains("secret"), "{samples}");
    }
    assert!(server.metric("weir_bytes_sent_total") >= 35_000.0);
    assert!(server.metric("weir_bytes_sent_total") - server.metric("weir_bytes_copied_total") >= 35_000.0);
    assert!(server.metric("process_resident_memory_bytes") > 1e6);
}

/// The stages of a chunk's way, of a live part's, and of the rest, as ARCHITECTURE.md names them.
const STAGES: [&str; 18] = [
    "accept", "head", "route", "lookup", "open", "resolve", "slice", "resident", "write", "receive", "parse", "append",
    "wake", "send", "record", "index", "upload", "render",
];

/// Everything that has a stage, once.
fn go_through_all_stages(server: &Server) {
    let video = std::fs::read(oracle::vector("allintra.mp4")).unwrap();
    let key = format!("Bearer {}", crate::support::server::WRITE_KEY);
    let put = server.request("PUT", "/videos/new.mp4", &[("Authorization", &key)], &video);
    assert_eq!(put.status, 201, "{put:?}");
    for target in ["/", "/videos/new.mp4/chunk?time=1&size=1000"] {
        assert_eq!(server.get(target).status, 200, "{target}");
    }
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source.mp4");
    publisher::encode(&source, 3, &["-f", "mp4", "-movflags", publisher::BY_KEYFRAME]);
    let (init, fragments) = publisher::fragments(&std::fs::read(&source).unwrap());
    let (last, first) = fragments.split_last().unwrap();
    let mut publishing = publisher::Chunked::begin(server, "/live/cam");
    publishing.send(&[init, first.concat()].concat());
    publisher::eventually("a part", || server.get("/live/cam").status == 200);
    let mut viewer = Connection::open(server.media);
    viewer.send(b"GET /live/cam/stream HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    task_that(server, "viewer that waits", |task| task["waits_for"] == "the next part of the stream");
    publishing.send(last);
    assert_eq!(publishing.finish().status, 200);
    assert!(!viewer.read_response(false).unwrap().body.is_empty());
}

#[test]
fn every_stage_is_a_span_and_has_a_histogram() {
    let server = Server::builder().start();
    let started = client::request(server.admin, "POST", "/debug/profile/start", &[], b"").json();
    let stop = started["stop"].as_str().unwrap();
    go_through_all_stages(&server);
    let profile = client::request(server.admin, "POST", &format!("{stop}?format=json"), &[], b"").json();
    let spans: Vec<&str> =
        profile["spans"].as_array().unwrap().iter().map(|span| span["name"].as_str().unwrap()).collect();
    let metrics = server.admin_get("/metrics").text();
    for stage in STAGES {
        assert!(spans.contains(&stage), "no span {stage} in {spans:?}");
        let count = metrics.lines().find_map(|line| {
            let name = format!("weir_stage_duration_seconds_count{{stage=\"{stage}\"}} ");
            line.strip_prefix(&name)?.parse::<f64>().ok()
        });
        assert!(count >= Some(1.0), "{stage} {count:?} in\n{metrics}");
    }
}

fn tasks(server: &Server) -> Vec<Value> {
    server.admin_get("/debug/tasks?format=json").json()["tasks"].as_array().unwrap().clone()
}

/// The first task for which `is` holds, waiting for it.
fn task_that(server: &Server, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..200 {
        if let Some(task) = tasks(server).into_iter().find(&is) {
            return task;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("no {what} in {:#?}", tasks(server));
}

#[test]
fn each_connection_says_what_it_waits_for() {
    let server = Server::builder().bytes("big.bin", &vec![7; 64 << 20]).start();
    let idle = Connection::open(server.media);
    let mut slow = Connection::open(server.media);
    slow.send(b"GET /videos/big.bin/file HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut head = Connection::open(server.media);
    head.send(b"GET /videos/big").unwrap();
    let mut upload = Connection::open(server.media);
    let key = crate::support::server::WRITE_KEY;
    let put = format!(
        "PUT /videos/new.bin HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 10\r\n\r\n123"
    );
    upload.send(put.as_bytes()).unwrap();
    for (kind, route, waits_for) in [
        ("connection", "", "a request"),
        ("connection", "/videos/{id}/file", "the client to take bytes"),
        ("connection", "", "the rest of a request's head"),
        ("upload", "/videos/{id}", "bytes from the client"),
        ("pool", "", "a job"),
    ] {
        task_that(&server, waits_for, |task| {
            task["kind"] == kind && task["route"] == route && task["waits_for"] == waits_for
        });
    }
    let seconds = |task: &Value| task["seconds"].as_f64().unwrap();
    task_that(&server, "wait of a second", |task| {
        task["waits_for"] == "the client to take bytes" && seconds(task) > 1.0
    });
    let text = server.admin_get("/debug/pprof/goroutine?debug=1").text();
    assert!(text.starts_with("goroutine profile: total ") && text.contains("#\tbytes from the client\n"), "{text}");
    let text = server.admin_get("/debug/pprof/goroutine?debug=2").text();
    assert!(text.contains("goroutine 1 [") && text.contains("[the client to take bytes"), "{text}");
    assert!(server.admin_get("/debug/tasks").text().contains("waits for"));
    drop((idle, slow, head, upload));
    task_that(&server, "end of all connections", |_| tasks(&server).iter().all(|task| task["kind"] == "pool"));
}

#[test]
fn viewers_and_publishers_are_told_with_their_stream() {
    let server = Server::builder().start();
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source.mp4");
    publisher::encode(&source, 4, &["-f", "mp4", "-movflags", publisher::BY_KEYFRAME]);
    let mut publishing = publisher::Chunked::begin(&server, "/live/cam");
    publishing.send(&std::fs::read(&source).unwrap());
    task_that(&server, "publisher", |task| task["kind"] == "publisher" && task["stream"] == "cam");
    let mut viewer = Connection::open(server.media);
    viewer.send(b"GET /live/cam/stream HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    task_that(&server, "viewer", |task| {
        task["kind"] == "viewer" && task["stream"] == "cam" && task["waits_for"] == "the next part of the stream"
    });
    task_that(&server, "stream", |task| task["kind"] == "stream" && task["who"] == "cam");
    assert!(server.metric("weir_viewers") >= 1.0);
    drop((viewer, publishing));
}

#[test]
fn the_page_and_what_it_polls_are_there() {
    let server = Server::builder().start();
    let page = server.admin_get("/debug/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    for asset in ["/debug/debug.css", "/debug/debug.js"] {
        assert!(page.text().contains(asset));
        assert_eq!(server.admin_get(asset).status, 200, "{asset}");
    }
    assert!(!page.text().contains("http://") && !page.text().contains("https://"), "nothing from elsewhere");
    let figures = server.admin_get("/debug/figures").json();
    assert!(figures["rss"].as_u64().unwrap() > 1 << 20, "{figures}");
    assert_eq!(server.admin_get("/debug").status, 308);
    assert_eq!(server.get("/debug/").status, 404, "not on the media listener");
}
