//! What is initialised when: nothing that nobody needs, and the table tells who paid.

use crate::support::client::{self, Connection};
use crate::support::oracle;
use crate::support::publisher::eventually;
use crate::support::server::Server;
use serde_json::Value;
use std::process::Command;

fn rows(server: &Server) -> Vec<Value> {
    let response = server.admin_get("/debug/startup?format=json");
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_slice::<Vec<Value>>(&response.body).unwrap()
}

fn row(server: &Server, component: &str) -> Value {
    let found = rows(server).into_iter().find(|row| row["component"] == component);
    found.unwrap_or_else(|| panic!("no component {component}"))
}

/// Everything that is not a step of the start, with its state.
fn components(server: &Server) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = rows(server).into_iter().filter(|row| row["paid_by"] != "start");
    let mut found: Vec<_> = rows.map(|row| (text(&row["component"]), text(&row["state"]))).collect();
    found.sort();
    found
}

/// A server with a video that the background indexer has looked at.
fn with_video() -> Server {
    let server = Server::builder().video(&oracle::vector("allintra.mp4"), "a.mp4").start();
    eventually("the background index", || row(&server, "background index")["initialised"] == 1);
    server
}

fn cold(names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).to_owned(), "cold".to_owned())).collect()
}

#[test]
fn nothing_is_initialised_before_it_is_needed() {
    let server = with_video();
    let at_start = cold(&[
        "adjust",
        "benchmarks",
        "dashboard",
        "enhance",
        "enhancer",
        "flame graphs",
        "frame",
        "h264",
        "hevc",
        "index",
        "jpeg",
        "recordings",
        "symboliser",
    ]);
    assert_eq!(components(&server), at_start);
    // A chunk by offset needs no index.
    assert_eq!(server.get("/videos/a.mp4/chunk?offset=0&size=1000").status, 200);
    assert_eq!(components(&server), at_start);
    // A chunk by time needs that of its video, and of no other.
    assert_eq!(server.get("/videos/a.mp4/chunk?time=1&size=1000&key=secret").status, 200);
    let index = row(&server, "index");
    assert_eq!((index["state"].as_str(), index["initialised"].as_u64()), (Some("ready"), Some(1)));
    assert_eq!(index["paid_by"], "GET /videos/a.mp4/chunk");
    assert!(index["self_us"].as_u64() > Some(0) && index["waiters"] == 0, "{index}");
    assert_eq!(row(&server, "recordings")["state"], "cold");
}

#[test]
fn what_looks_into_the_server_is_built_when_somebody_looks() {
    let server = Server::builder().start();
    for (component, asked) in [
        ("dashboard", "/debug/"),
        ("flame graphs", "/debug/profile?seconds=1&format=svg"),
        ("symboliser", "/debug/pprof/heap"),
        ("benchmarks", "/debug/bench"),
    ] {
        assert_eq!(row(&server, component)["state"], "cold", "{component}");
        assert_eq!(server.admin_get(asked).status, 200, "{asked}");
        let row = row(&server, component);
        let path = asked.split('?').next().unwrap();
        assert_eq!((&row["state"], &row["paid_by"]), (&"ready".into(), &format!("GET {path}").into()), "{row}");
    }
}

/// Sets how many files the server may have open.
fn limit_files(server: &Server, soft: &str) {
    let pid = server.pid().to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")]).status().unwrap();
    assert!(status.success(), "prlimit");
}

#[test]
fn a_component_that_fails_is_answered_503_and_tried_again_after_its_back_off() {
    let server = Server::builder().allow("initialise a component").start();
    let before = server.admin_get("/healthz");
    assert_eq!(before.status, 200);
    let mut connection = Connection::open(server.admin);
    assert_eq!(connection.get("/healthz").status, 200);
    // It cannot read which files its code is in while no file can be opened; this connection is open already.
    limit_files(&server, "3");
    let first = connection.get("/debug/pprof/heap");
    let second = connection.get("/debug/pprof/heap");
    let failed = connection.get("/debug/startup?format=json");
    limit_files(&server, "1024");
    for refused in [&first, &second] {
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.text().contains("symboliser cannot be used now: ") && refused.text().contains("files"));
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        // The back-off: a second after the first failure, two after another.
        assert!((1..=2).contains(&seconds), "{refused:?}");
    }
    let rows = failed.json();
    let row_of = |rows: &Value| rows.as_array().unwrap().iter().find(|row| row["component"] == "symboliser").cloned();
    let failed = row_of(&rows).unwrap();
    assert_eq!(failed["state"], "failed");
    assert!(failed["error"].as_str().unwrap().contains("files"), "{failed}");
    eventually("the back-off is over", || connection.get("/debug/pprof/heap").status == 200);
    let ready = row(&server, "symboliser");
    assert_eq!((&ready["state"], &ready["error"]), (&"ready".into(), &Value::Null), "{ready}");
}

#[test]
fn a_hundred_concurrent_first_requests_pay_once() {
    let server = with_video();
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let media = server.media;
            std::thread::spawn(move || client::request(media, "GET", "/videos/a.mp4/seek?frame=1", &[], b"").status)
        })
        .collect();
    assert!(requests.into_iter().all(|request| request.join().unwrap() == 200));
    assert_eq!(row(&server, "index")["initialised"], 1);
}

#[test]
fn the_table_as_text() {
    let server = Server::builder().start();
    let response = server.admin_get("/debug/startup");
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    let text = response.text();
    assert!(text.starts_with("self [us] | cumulative | component"), "{text}");
    let library = text.lines().find(|line| line.contains("|   library")).unwrap();
    let columns: Vec<&str> = library.split('|').map(str::trim).collect();
    assert!(columns[0].parse::<u64>().unwrap() <= columns[1].parse::<u64>().unwrap());
    assert!(text.lines().any(|line| line.contains("- | recordings") && line.ends_with("| cold")), "{text}");
    let wrong = server.admin_get("/debug/startup?format=xml");
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("text"), "{wrong:?}");
    assert_eq!(server.get("/debug/startup").status, 404, "never on the media listener");
    let mut connection = Connection::open(server.admin);
    assert_eq!(connection.call("POST", "/debug/startup", &[], b"").unwrap().status, 405);
}

#[test]
fn what_is_warm_is_initialised_in_the_background() {
    let server = Server::builder().argument("--warm", "recordings").start();
    eventually("warm", || row(&server, "recordings")["state"] == "ready");
    assert_eq!(row(&server, "recordings")["paid_by"], "warm");
}

#[test]
fn what_was_idle_is_released_and_comes_back() {
    let builder = Server::builder().video(&oracle::vector("allintra.mp4"), "a.mp4");
    let server = builder.argument("--idle-release", "500 ms").start();
    let picture = || server.get("/videos/a.mp4/frame.jpg?frame=1&width=16&enhance=1");
    let first = picture();
    assert_eq!(first.status, 200, "{first:?}");
    for component in ["frame", "enhancer"] {
        eventually("the release", || row(&server, component)["released"] == 1);
        assert_eq!(row(&server, component)["state"], "cold");
    }
    let again = picture();
    assert_eq!((again.status, again.body), (200, first.body));
    for component in ["frame", "enhancer"] {
        assert_eq!(row(&server, component)["initialised"], 2, "{component}");
    }
    // What has no use for memory while it is idle stays.
    assert_eq!(row(&server, "jpeg")["released"], 0);
}

#[test]
fn an_unknown_component_cannot_be_warmed() {
    let output = Command::new(env!("CARGO_BIN_EXE_weir")).args(["serve", "--check", "--warm", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    let (_, rest) = text.split_once("warm: there is no component x; there are ").expect(&text);
    let named: Vec<&str> = rest.lines().next().unwrap().split(", ").map(str::trim).collect();
    // They are those of the table, but for indexes, which are built for a video each.
    let server = Server::builder().argument("--warm", &named.join(",")).start();
    let of_table = || components(&server).into_iter().filter(|(name, _)| !name.ends_with("index"));
    assert_eq!(named, of_table().map(|(name, _)| name).collect::<Vec<_>>());
    eventually("all are warm", || of_table().all(|(_, state)| state == "ready"));
}

#[test]
fn every_command_prints_its_start_up_times() {
    let video = oracle::vector("allintra.mp4");
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = command.arg("inspect").arg(&video).arg("--startup-times").output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| line.rsplit(" | ").next()).map(str::trim).collect();
    assert_eq!(names, ["component", "arguments", "open", "index"], "{text}");
}

#[test]
fn serve_prints_each_component_as_it_comes() {
    let server = Server::builder()
        .video(&oracle::vector("allintra.mp4"), "a.mp4")
        .argument("--startup-times", "--warm=recordings");
    let server = server.start();
    // The lines come to us when they do.
    eventually("the end of the start", || server.log().lines().any(|line| line.ends_with("| server")));
    let log = server.log();
    let at = |name: &str| log.lines().position(|line| line.ends_with(&format!("|   {name}"))).unwrap();
    assert!(at("listeners") < at("library") && at("library") < at("threads"), "{log}");
    eventually("the line of the component", || server.log().lines().any(|line| line.ends_with("| recordings")));
}
