//! The deterministic profiler as its operator and his tools see it: a workload whose figures are known beforehand, files
//! read by Python's pstats, gprof2dot and `go tool pprof`, windows that do not disturb each other, one request profiled
//! alone, and bounds.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc::TryRecvError;

use serde_json::{Value, json};

use crate::support::client::{self, Connection, Response};
use crate::support::oracle;
use crate::support::publisher::eventually;
use crate::support::server::Server;

const ROUNDS: u64 = 5;

fn post(server: &Server, target: &str, body: &str) -> Response {
    client::request(server.admin, "POST", target, &[], body.as_bytes())
}

fn start(server: &Server) -> String {
    let started = post(server, "/debug/profile/start", "");
    assert_eq!(started.status, 201, "{}", started.text());
    started.json()["stop"].as_str().unwrap().to_owned()
}

/// The known workload in a window of its own, and what is expected of it.
fn workload(server: &Server, query: &str) -> (Response, Value) {
    let stop = start(server);
    let done = post(server, &format!("/debug/profile/workload?rounds={ROUNDS}"), "");
    assert_eq!(done.status, 200, "{}", done.text());
    let report = post(server, &format!("{stop}?{query}"), "");
    assert_eq!(report.status, 200, "{}", report.text());
    (report, done.json())
}

fn row<'a>(profile: &'a Value, name: &str) -> &'a Value {
    let found = profile["spans"].as_array().unwrap().iter().find(|span| span["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {profile:#}"))
}

/// Calls by each caller (or callee, or spawner), by name.
fn edges(row: &Value, kind: &str) -> Vec<(String, u64)> {
    let edge = |edge: &Value| (edge["name"].as_str().unwrap().to_owned(), edge["ncalls"].as_u64().unwrap());
    let mut edges: Vec<_> = row[kind].as_array().unwrap().iter().map(edge).collect();
    edges.sort();
    edges
}

#[test]
fn a_known_workload_has_exactly_its_figures() {
    let server = Server::builder().start();
    let (report, expected) = workload(&server, "format=json");
    let profile = report.json();
    for expected in expected.as_array().unwrap() {
        let name = expected["name"].as_str().unwrap();
        let row = row(&profile, name);
        for count in ["ncalls", "primitive", "cancelled"] {
            assert_eq!(row[count], expected[count], "{count} of {name}: {row:#}");
        }
        assert_eq!(row["partial"], 0, "{name}");
        for time in ["tottime", "await"] {
            let (least, measured) = (expected[time].as_f64().unwrap(), row[time].as_f64().unwrap());
            // Two threads, of which a third of the waits overlap: no more than the window twice.
            let most = 3.0 * profile["seconds"].as_f64().unwrap();
            assert!(measured >= least * 0.999 && measured <= most, "{time} of {name}: {measured}, at least {least}");
        }
    }
    let calls = 2 * ROUNDS;
    assert_eq!(row(&profile, "recurse")["polls"], json!(5 * calls));
    let named = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(edges(row(&profile, "burn_cpu"), "callers"), named(&[("workload", calls), ("workload_task", calls)]));
    assert_eq!(edges(row(&profile, "recurse"), "callers"), named(&[("recurse", 4 * calls), ("workload", calls)]));
    assert_eq!(edges(row(&profile, "workload_task"), "callers"), []);
    assert_eq!(edges(row(&profile, "workload_task"), "spawned_by"), named(&[("workload", calls)]));
    // join! has two of them wait at once.
    assert!(row(&profile, "workload")["overlapping"].as_u64().unwrap() >= calls);
    // Of what a round waits for, its task is no child: own.
    assert!(row(&profile, "workload")["await_own"].as_f64().unwrap() > 0.0);
    let audit = &profile["audit"];
    assert_eq!(audit["overflow"], 0);
    assert!(audit["cost_percent"].as_f64().unwrap() < 5.0, "{audit:#}");
    assert!(audit["coverage_percent"].as_f64().unwrap() > 10.0, "{audit:#}");
}

fn run(command: &mut Command) -> String {
    let output: Output = command.output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{text}\n{errors}");
    text.into_owned()
}

fn save(path: &Path, report: &Response) {
    assert_eq!(report.header("content-type"), Some("application/octet-stream"));
    assert!(report.header("content-disposition").unwrap().starts_with("attachment"));
    std::fs::write(path, &report.body).unwrap();
}

#[test]
fn python_reads_the_pstats_file() {
    let server = Server::builder().start();
    let (report, _) = workload(&server, "format=pstats&strip_dirs=1");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weir.pstats");
    save(&file, &report);
    let script = r#"
import pstats, sys
stats = pstats.Stats(sys.argv[1])
stats.sort_stats("cumtime", "ncalls").print_stats(0.99, "workload|recurse|burn").print_callers("recurse|burn")
stats.print_callees("workload")
rows = {key[2]: value for key, value in stats.stats.items()}
calls = int(sys.argv[2])
cc, nc, tt, ct, callers = rows["recurse"]
assert (cc, nc) == (calls, 5 * calls), (cc, nc)
by = {key[2]: value[:2] for key, value in callers.items()}
assert by == {"workload": (calls, calls), "recurse": (4 * calls, calls)}, by
cc, nc, tt, ct, callers = rows["burn_cpu"]
assert (cc, nc) == (2 * calls, 2 * calls) and tt >= 0.002 * nc, (cc, nc, tt)
assert rows["cancelled_wait"][:2] == (0, 0)
"#;
    let calls = (2 * ROUNDS).to_string();
    let text = run(Command::new("python3").args(["-c", script]).arg(&file).arg(calls));
    for expected in ["Ordered by: cumulative time, call count", "was called by...", "called...", "50/10", "(burn_cpu)"]
    {
        assert!(text.contains(expected), "no {expected:?} in\n{text}");
    }
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python");
    let graph = run(Command::new("python3")
        .env("PYTHONPATH", tools)
        .args(["-m", "gprof2dot", "--format=pstats", "--node-thres=0", "--edge-thres=0"])
        .arg(&file));
    assert!(graph.contains("digraph") && graph.contains("burn_cpu"), "{graph}");
}

#[test]
fn go_reads_the_pprof_file() {
    let video = oracle::vector("allintra.mp4");
    let server = Server::builder().video(&video, "a.mp4").start();
    let dir = tempfile::tempdir().unwrap();
    let (before, after) = (dir.path().join("before.pb.gz"), dir.path().join("after.pb.gz"));
    let (report, _) = workload(&server, "format=pprof");
    save(&before, &report);
    let stop = start(&server);
    assert_eq!(server.get("/videos/a.mp4/chunk?offset=0&size=1000").status, 200);
    post(&server, &format!("/debug/profile/workload?rounds={}", 2 * ROUNDS), "");
    save(&after, &post(&server, &format!("{stop}?format=pprof"), ""));
    let pprof = |arguments: &[&str], files: &[&Path]| {
        let cache = dir.path().join("cache");
        run(Command::new("go")
            .args(["tool", "pprof"])
            .args(arguments)
            .args(files)
            .env("PPROF_TMPDIR", cache)
            .env("HOME", dir.path()))
    };
    let top = pprof(&["-top", "-sample_index=calls"], &[&before]);
    let line = top.lines().find(|line| line.ends_with("burn_cpu")).unwrap_or_else(|| panic!("{top}"));
    assert!(line.split_whitespace().next() == Some("20"), "{line}");
    assert!(top.contains("Type: calls") && top.contains("Duration:"), "{top}");
    let busy = pprof(&["-top"], &[&before]);
    assert!(busy.contains("Type: busy") && busy.contains("burn_cpu"), "{busy}");
    // Go leaves an edge of a function to itself out.
    let calls = 2 * ROUNDS;
    for (name, callers) in [
        ("recurse", &[("workload", 5 * calls)][..]),
        ("burn_cpu", &[("workload", calls), ("workload_task", calls)]),
        ("cancelled_wait", &[("workload", calls)]),
    ] {
        // A call that is cancelled is none that ended.
        let index = if name == "cancelled_wait" { "-sample_index=cancelled" } else { "-sample_index=calls" };
        let peek = pprof(&[&format!("-peek=^{name}$"), index, "-nodefraction=0", "-edgefraction=0"], &[&before]);
        let (above, _) = peek.split_once(&format!("| {name}\n")).unwrap_or_else(|| panic!("{peek}"));
        let edge = |line: &str| {
            let (figures, caller) = line.split_once("|   ")?;
            Some((caller.trim().to_owned(), figures.split_whitespace().next()?.parse::<u64>().ok()?))
        };
        let mut found: Vec<_> = above.lines().filter_map(edge).collect();
        found.sort();
        let callers: Vec<_> = callers.iter().map(|(name, calls)| ((*name).to_owned(), *calls)).collect();
        assert_eq!(found, callers, "{peek}");
    }
    let cancelled = pprof(&["-top", "-sample_index=cancelled"], &[&before]);
    assert!(cancelled.contains("cancelled_wait"), "{cancelled}");
    let tags = pprof(&["-tags", "-sample_index=calls"], &[&after]);
    assert!(tags.contains("route:") && tags.contains("/videos/{id}/chunk"), "{tags}");
    let base = format!("-diff_base={}", before.display());
    let diff = pprof(&["-top", "-sample_index=calls", &base], &[&after]);
    let line = diff.lines().find(|line| line.ends_with("burn_cpu")).unwrap_or_else(|| panic!("{diff}"));
    assert!(line.split_whitespace().next() == Some("20"), "40 calls less 20: {line}");
}

#[test]
fn the_table_is_sorted_and_restricted_as_pstats_does_it() {
    let server = Server::builder().start();
    let table = |query: &str| workload(&server, query).0.text();
    let names = |text: &str| -> Vec<String> {
        let rows = text.lines().skip_while(|line| !line.contains("filename:lineno(function)")).skip(1);
        let rows = rows.take_while(|line| !line.is_empty());
        rows.map(|row| row.rsplit_once('(').unwrap().1.trim_end_matches(')').to_owned()).collect()
    };
    let pattern = "restrict=workload.rs&restrict=burn_cpu%7Crecurse%7Cwait_once";
    let text = table(&format!("sort=calls&{pattern}"));
    assert_eq!(names(&text), ["recurse", "wait_once", "burn_cpu"], "{text}");
    assert!(text.contains("   Ordered by: call count\n"), "{text}");
    assert!(text.contains("due to restriction <'workload.rs'>"), "{text}");
    assert!(text.contains(" 50/10 "), "{text}");
    assert!(text.contains("   window ") && text.contains("   coverage "), "{text}");
    let text = table(&format!("sort=name&reverse=1&{pattern}&limit=2&strip_dirs=1"));
    assert_eq!(names(&text), ["wait_once", "recurse"], "{text}");
    assert!(
        text.contains("List reduced from 3 to 2 due to restriction <2>") && text.contains("  workload.rs:"),
        "{text}"
    );
    let text = table(&format!("sort=tott,nc&{pattern}&restrict=0.34&callers=1&callees=1"));
    assert_eq!(names(&text), ["burn_cpu"], "{text}");
    assert!(
        text.contains("was called by...") && text.contains("called...") && text.contains("(workload_task)"),
        "{text}"
    );
}

#[test]
fn a_wrong_question_is_refused() {
    let server = Server::builder().start();
    for (target, says) in [
        ("/debug/profile?seconds=0.5", "from 1 to 60"),
        ("/debug/profile?seconds=61", "from 1 to 60"),
        ("/debug/profile?seconds=soon", "from 1 to 60"),
        ("/debug/profile?sort=speed", "cumtime"),
        ("/debug/profile?sort=n", "only one of them"),
        ("/debug/profile?restrict=(", "regular expression"),
        ("/debug/profile?restrict=-1", "count"),
        ("/debug/profile?limit=many", "whole number"),
        ("/debug/profile?clock=sun", "busy nor wall"),
        ("/debug/profile?reverse=maybe", "0 nor 1"),
        ("/debug/profile?format=pdf", "svg"),
        ("/debug/profile?seconds=1&seconds=2", "more than once"),
    ] {
        let refused = server.admin_get(target);
        assert_eq!(refused.status, 400, "{target}: {}", refused.text());
        assert!(refused.problem().contains(says), "{target}: {}", refused.problem());
    }
    for (body, says) in [
        ("", "which request"),
        ("{}", "path"),
        (r#"{"path":"videos"}"#, "begins with /"),
        (r#"{"path":"/videos","n":0}"#, "1 to 1000"),
        (r#"{"path":"/videos","n":100000}"#, "1 to 1000"),
        (r#"{"path":"/videos","seconds":1e99}"#, "at most 60"),
        (r#"{"path":"/a b"}"#, "path"),
        (r#"{"path":"/","headers":{"host":"x"}}"#, "set by the profiler"),
        (r#"{"path":"/","headers":{"x":"a\r\nb: c"}}"#, "header field"),
        (r#"{"path":"/","method":"GET / HTTP/1.1"}"#, "method"),
        (r#"{"path":"/","speed":1}"#, "unknown field"),
    ] {
        let refused = post(&server, "/debug/profile/runcall", body);
        assert_eq!(refused.status, 400, "{body}: {}", refused.text());
        assert!(refused.problem().contains(says), "{body}: {}", refused.problem());
    }
    assert_eq!(post(&server, "/debug/profile/7/stop", "").status, 404);
    assert_eq!(post(&server, "/debug/profile/all/stop", "").status, 404);
    assert_eq!(post(&server, "/debug/profile/workload?rounds=1000", "").status, 400);
    let get = server.admin_get("/debug/profile/start");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    for target in ["/debug", "/debug/profile", "/debug/profile/start", "/debug/pprof/profile"] {
        assert_eq!(server.get(target).status, 404, "the media listener knows no {target}");
    }
}

#[test]
fn windows_overlap_and_are_bounded() {
    let server = Server::builder().start();
    let outer = start(&server);
    server.get("/videos");
    let inner = start(&server);
    server.get("/videos");
    server.get("/videos");
    let calls = |stop: &str| {
        let profile = post(&server, &format!("{stop}?format=json"), "").json();
        row(&profile, "/videos")["ncalls"].as_u64().unwrap()
    };
    assert_eq!((calls(&inner), calls(&outer)), (2, 3));
    let open: Vec<String> = (0..32).map(|_| start(&server)).collect();
    let refused = post(&server, "/debug/profile/start", "");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")), "{}", refused.text());
    assert_eq!(server.admin_get("/debug/profile?seconds=1").status, 503);
    for stop in open {
        assert_eq!(post(&server, &stop, "").status, 200);
    }
    assert_eq!(server.admin_get("/debug/profile?seconds=1&limit=3").status, 200);
}

#[test]
fn one_request_is_profiled_alone() {
    let server = Server::builder().video(&oracle::vector("allintra.mp4"), "a.mp4").start();
    let address = server.media;
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let mut others = Connection::open(address);
            while stopped.try_recv() == Err(TryRecvError::Empty) {
                assert_eq!(others.get("/videos").status, 200);
            }
        });
        let asked =
            json!({ "path": "/videos/a.mp4/chunk?frame=3&size=70000", "n": 3, "headers": { "range": "bytes=0-9" } });
        let report = post(&server, "/debug/profile/runcall?format=json", &asked.to_string());
        assert_eq!((report.status, report.header("runcall-status")), (200, Some("206, 206, 206")), "{}", report.text());
        let profile = report.json();
        for (name, calls) in [("/videos/{id}/chunk", 3), ("lookup", 3), ("resolve", 3), ("route", 3)] {
            assert_eq!(row(&profile, name)["ncalls"], json!(calls), "{name}: {profile:#}");
        }
        assert!(row(&profile, "write")["ncalls"].as_u64().unwrap() >= 3);
        let spans = profile["spans"].as_array().unwrap();
        assert!(!spans.iter().any(|span| span["name"] == "/videos"), "others' requests: {profile:#}");
        let missing = post(&server, "/debug/profile/runcall", r#"{"path":"/videos/none"}"#);
        assert_eq!((missing.status, missing.header("runcall-status")), (200, Some("404")));
        drop(stop);
    });
}

#[test]
fn a_client_that_leaves_is_a_cancelled_call() {
    let server = Server::builder().bytes("large.bin", &vec![7; 64 << 20]).start();
    let stop = start(&server);
    let mut leaving = Connection::open(server.media);
    leaving.send(b"GET /videos/large.bin/file HTTP/1.1\r\nHost: w\r\n\r\n").unwrap();
    leaving.skip(1000).unwrap();
    drop(leaving);
    assert_eq!(server.get("/videos/large.bin/chunk?offset=0&size=10").status, 200);
    eventually("the connection ended", || server.metric("weir_connections") < 1.0);
    let profile = post(&server, &format!("{stop}?format=json"), "").json();
    let (left, whole) = (row(&profile, "/videos/{id}/file"), row(&profile, "/videos/{id}/chunk"));
    assert_eq!((&left["ncalls"], &left["cancelled"]), (&json!(0), &json!(1)), "{left:#}");
    assert_eq!((&whole["ncalls"], &whole["cancelled"]), (&json!(1), &json!(0)), "{whole:#}");
}

#[test]
fn flame_graphs_are_folded_or_drawn() {
    let server = Server::builder().start();
    let folded = workload(&server, "format=folded").0.text();
    let burn = folded.lines().find(|line| line.starts_with("workload;burn_cpu ")).unwrap_or_else(|| panic!("{folded}"));
    let ns: u64 = burn.rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!(ns >= 2 * ROUNDS * 2_000_000, "{burn}");
    let waits = workload(&server, "format=folded&clock=wall").0.text();
    assert!(waits.lines().any(|line| line.starts_with("workload;wait_once ")), "{waits}");
    let (drawn, _) = workload(&server, "format=svg");
    assert_eq!(drawn.header("content-type"), Some("image/svg+xml"));
    let script = "import sys, xml.etree.ElementTree as tree\n\
                  root = tree.fromstring(sys.stdin.buffer.read())\n\
                  print(' '.join(title.text for title in root.iter('{http://www.w3.org/2000/svg}title')))";
    let mut python = Command::new("python3");
    python.args(["-c", script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = python.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&drawn.body).unwrap();
    let read = child.wait_with_output().unwrap();
    assert!(read.status.success() && String::from_utf8_lossy(&read.stdout).contains("burn_cpu"), "{}", drawn.text());
}

#[test]
fn the_command_prints_the_table() {
    let server = Server::builder().argument("--admin-token", "0123456789abcdef-token").start();
    let url = format!("http://{}", server.admin);
    let weir = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command
            .env_remove("WEIR_ADMIN_TOKEN")
            .args(["profile", &url, "--seconds", "1"])
            .args(arguments)
            .output()
            .unwrap()
    };
    let token = ["--admin-token", "0123456789abcdef-token"];
    let shown = weir(&[&token[..], &["--sort", "tottime", "--limit", "5", "--callers"]].concat());
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success() && text.contains("Ordered by: internal time"), "{shown:?}");
    assert!(text.contains("(connection)") && text.contains("was called by..."), "{text}");
    let fails = |arguments: &[&str], code: i32, says: &str| {
        let output = weir(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && error.contains(says), "{arguments:?}: {output:?}");
    };
    fails(&[], 1, "WEIR_ADMIN_TOKEN");
    fails(&[&token[..], &["--sort", "speed"]].concat(), 1, "is no key");
    let closed = Command::new(env!("CARGO_BIN_EXE_weir")).args(["profile", "http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(closed.status.code(), Some(1));
    let wrong = Command::new(env!("CARGO_BIN_EXE_weir")).args(["profile", "ftp://x"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let media =
        Command::new(env!("CARGO_BIN_EXE_weir")).args(["profile", &format!("http://{}", server.media)]).output();
    assert!(String::from_utf8_lossy(&media.unwrap().stderr).contains("admin address"));
}
