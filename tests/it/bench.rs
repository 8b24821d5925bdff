//! Benchmarks of the running server: the list, a run, its last result; refused when unknown, wrong, busy or loaded.

use crate::support::client;
use crate::support::server::{Builder, Server};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

/// The test's own machine is busy: the limit is for the test that is about it.
fn server() -> Builder {
    Server::builder().argument("--bench-load-max", "100")
}

fn post(server: &Server, target: &str) -> client::Response {
    post_to(server.admin, target)
}

/// A benchmark runs at the lowest priority: on a machine that does much else its answer takes its time.
fn post_to(admin: SocketAddr, target: &str) -> client::Response {
    let mut connection = client::Connection::open(admin);
    connection.set_timeout(Duration::from_secs(180));
    connection.call("POST", target, &[], b"").unwrap_or_else(|error| panic!("POST {target}: {error}"))
}

#[test]
fn the_list_and_a_run_and_its_last_result() {
    let server = server().start();
    let list: Vec<Value> = serde_json::from_slice(&server.admin_get("/debug/bench?format=json").body).unwrap();
    let names: Vec<&str> = list.iter().map(|benchmark| benchmark["name"].as_str().unwrap()).collect();
    for name in ["chunk-slice", "live-receive", "seek-lookup", "catalogue-lookup", "index-insert", "lazy-ready"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(server.admin_get("/debug/bench").text().contains("chunk-slice       What does it cost"));
    assert_eq!(server.admin_get("/debug/bench/chunk-slice").status, 404, "not measured yet");

    let ran = post(&server, "/debug/bench/chunk-slice?loops=10&repeat=3&size=65536");
    assert_eq!(ran.status, 200, "{ran:?}");
    let text = ran.text();
    assert!(text.contains("copy: 10 loops\n") && text.contains("9 of 9, "), "{text}");
    assert!(text.contains("10 loops, best of 3: ") && text.contains(" per loop"), "{text}");

    let report = server.admin_get("/debug/bench/chunk-slice?format=json").json();
    assert_eq!((report["name"].as_str(), report["size"].as_u64()), (Some("chunk-slice"), Some(65536)));
    let copy = &report["alternatives"][0];
    assert_eq!(
        (copy["name"].as_str(), copy["loops"].as_u64(), copy["repeat"].as_u64()),
        (Some("copy"), Some(10), Some(3))
    );
    let of = |key: &str| copy[key].as_f64().unwrap();
    assert!(of("best_ns") <= of("median_ns") && of("median_ns") <= of("worst_ns") && of("best_ns") > 0.0);
    assert!((of("per_element_ns") - of("best_ns") / 65536.0).abs() < 1e-9);
    assert!(report["age_seconds"].as_f64().unwrap() >= 0.0 && report["build"].is_string() && report["cpu"].is_string());

    let only = post(&server, "/debug/bench/chunk-slice?loops=1&repeat=1&only=borrow&format=json").json();
    assert_eq!(only["alternatives"].as_array().unwrap().len(), 1);
    let page = client::request(server.admin, "GET", "/debug/bench", &[("Accept", "text/html")], b"");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let page = page.text();
    assert!(page.contains("class=bar") && page.contains("20971520 bytes of a chunk, measured "), "{page}");
}

#[test]
fn what_cannot_be_run_is_told_why() {
    let server = server().start();
    assert_eq!(post(&server, "/debug/bench/none").status, 404);
    assert_eq!(server.admin_get("/debug/bench/none").status, 404);
    let wrong = "loops=0 loops=x loops= loops=-1 loops=1000000000001 loops=99999999999999999999999 loops=1&loops=2 \
                 repeat=0 repeat=101 repeat=1.5 size=0 size=999999999999 only=nothing only=%ff format=xml";
    for wrong in wrong.split_whitespace() {
        let refused = post(&server, &format!("/debug/bench/chunk-slice?{wrong}"));
        assert_eq!(refused.status, 422, "{wrong}: {refused:?}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    }
    let too_long = post(&server, "/debug/bench/chunk-slice?loops=1000000000&only=copy&format=json");
    assert_eq!(too_long.status, 422, "{too_long:?}");
    assert!(too_long.text().contains("a run may take 30 s"), "{too_long:?}");
    for (method, path, allow) in [("PUT", "/empty", "GET, HEAD, POST"), ("POST", "", "GET, HEAD")] {
        let refused = client::request(server.admin, method, &format!("/debug/bench{path}"), &[], b"");
        assert_eq!((refused.status, refused.header("allow")), (405, Some(allow)), "{method} {path}");
    }
    assert_eq!(server.get("/debug/bench").status, 404, "never on the media listener");
}

#[test]
fn one_runs_at_a_time() {
    let server = server().start();
    let runs: Vec<_> = (0..6)
        .map(|_| {
            let admin = server.admin;
            let target = "/debug/bench/empty?repeat=2&format=json";
            std::thread::spawn(move || post_to(admin, target).status)
        })
        .collect();
    let statuses: Vec<u16> = runs.into_iter().map(|run| run.join().unwrap()).collect();
    let count = |status: u16| statuses.iter().filter(|found| **found == status).count();
    assert!(count(200) >= 1 && count(200) + count(409) == 6, "{statuses:?}");
    assert!(count(409) >= 1, "{statuses:?}");
}

#[test]
fn a_busy_server_refuses() {
    // No share of the CPU is below 0 percent: the load is measured, and any use of it is too much.
    let server = Server::builder().argument("--bench-load-max", "0").start();
    let refused = post(&server, "/debug/bench/empty");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some() && refused.text().contains("busy"), "{refused:?}");
    // What was refused holds no turn.
    assert_eq!(post(&server, "/debug/bench/empty").status, 503);
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).arg("bench").args(arguments).output().unwrap()
}

#[test]
fn the_command_line_does_the_same() {
    let list = String::from_utf8(bench(&["--list"]).stdout).unwrap();
    assert!(list.contains("seek-lookup: ") && list.contains("linear scan | binary search | index"), "{list}");
    let quick = ["seek-lookup", "-n", "10", "-r", "2", "-s", "6000"];
    let text = String::from_utf8(bench(&quick).stdout).unwrap();
    assert!(text.contains("10 loops, best of 2: ") && text.contains("index takes "), "{text}");
    let unknown = bench(&["none"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("weir bench --list"));
    // Nothing is measured before all of it is known to be right.
    for wrong in
        [["-r", "0"], ["-r", "-1"], ["-n", "x"], ["-n", "0"], ["-n", "1000000000001"], ["-s", "0"], ["-s", "1e3"]]
    {
        let refused = bench(&[&["chunk-slice"][..], &wrong].concat());
        assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "{wrong:?}: {refused:?}");
    }
    let second = bench(&["chunk-slice", "none"]);
    assert_eq!((second.status.code(), second.stdout.len()), (Some(2), 0), "{second:?}");
}

#[test]
fn a_baseline_tells_what_became_slower() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("before.json");
    let json = bench(&["chunk-slice", "-n", "20", "-r", "2", "-s", "65536", "--json"]).stdout;
    let mut reports: Value = serde_json::from_slice(&json).unwrap();
    let against = |reports: &Value| {
        std::fs::write(&file, reports.to_string()).unwrap();
        bench(&["chunk-slice", "-n", "20", "-r", "2", "-s", "65536", "--baseline", file.to_str().unwrap()])
    };
    let set = |reports: &mut Value, ns: f64| {
        for figures in reports[0]["alternatives"].as_array_mut().unwrap() {
            for key in ["best_ns", "median_ns", "worst_ns"] {
                figures[key] = ns.into();
            }
        }
    };
    set(&mut reports, 1e12);
    assert_eq!(against(&reports).status.code(), Some(0), "faster than before");
    set(&mut reports, 0.001);
    let slower = against(&reports);
    assert_eq!(slower.status.code(), Some(1));
    assert!(String::from_utf8(slower.stderr).unwrap().contains("slower: chunk-slice copy: "));
    let told = |output: Output| String::from_utf8(output.stderr).unwrap();
    // What is no longer the same thing is said, or refused.
    set(&mut reports, 1e12);
    reports[0]["cpu"] = "a Z80".into();
    reports[0]["alternatives"].as_array_mut().unwrap().pop();
    let elsewhere = against(&reports);
    assert_eq!(elsewhere.status.code(), Some(0));
    let text = told(elsewhere);
    assert!(text.contains("before, on a Z80") && text.contains("chunk-slice borrow is not in the baseline"), "{text}");
    reports[0]["size"] = 4096.into();
    let refused = against(&reports);
    assert_eq!(refused.status.code(), Some(2));
    assert!(told(refused).contains("chunk-slice was measured with size 4096"));
    for nothing_to_compare in ["no JSON", "[]", "{}", "[{\"name\":\"chunk-slice\"}]", "[null]"] {
        std::fs::write(&file, nothing_to_compare).unwrap();
        let output = bench(&["chunk-slice", "-n", "1", "-r", "1", "--baseline", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{nothing_to_compare}: {output:?}");
        assert!(output.stdout.is_empty(), "refused before anything is measured");
    }
}
