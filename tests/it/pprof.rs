//! `/debug/pprof/`: `go tool pprof` reads what Weir writes, every answer has the code and the fields of Go's, secrets
//! are not shown, and neither memory nor the server suffers.

use crate::support::client::{self, Response};
use crate::support::server::{Server, WRITE_KEY};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use weir::profile::cpu::{self, CpuError, Form, Plan};
use weir::profile::heap::{self, View};
use weir::profile::symbols::Symboliser;

/// The table of `net/http/pprof`, Go 1.19, with the one departure that docs/profiling.md names.
#[test]
fn codes_and_fields_are_those_of_go() {
    let server = Server::builder().start();
    const BINARY: &str = "application/octet-stream";
    const TEXT: &str = "text/plain; charset=utf-8";
    let cases = [
        ("", 200, "text/html; charset=utf-8", None),
        ("cmdline", 200, TEXT, None),
        ("symbol", 200, TEXT, None),
        ("profile?seconds=1", 200, BINARY, Some("profile")),
        ("profile?seconds=1&hz=999", 200, BINARY, Some("profile")),
        ("profile?seconds=61", 400, TEXT, None),
        ("profile?seconds=1&hz=0", 400, TEXT, None),
        ("profile?seconds=1&rate=1001", 400, TEXT, None),
        ("heap", 200, BINARY, Some("heap")),
        ("heap?gc=1", 200, BINARY, Some("heap")),
        ("heap?debug=1", 200, TEXT, None),
        ("heap?seconds=1", 200, BINARY, Some("heap-delta")),
        ("heap?seconds=0", 400, TEXT, None),
        ("heap?seconds=x", 400, TEXT, None),
        ("heap?seconds=1&debug=1", 400, TEXT, None),
        ("heap?seconds=61", 400, TEXT, None),
        ("allocs", 200, BINARY, Some("allocs")),
        ("allocs?seconds=1", 200, BINARY, Some("allocs-delta")),
        ("goroutine", 200, BINARY, Some("goroutine")),
        ("goroutine?debug=1", 200, TEXT, None),
        ("goroutine?debug=2", 200, TEXT, None),
        ("goroutine?seconds=1", 400, TEXT, None),
        ("profile?seconds=1&format=folded", 200, TEXT, None),
        ("allocs?format=folded", 200, TEXT, None),
        ("heap?format=svg", 400, TEXT, None),
        ("block", 404, TEXT, None),
        ("mutex", 404, TEXT, None),
        ("trace", 404, TEXT, None),
        ("nonsense", 404, TEXT, None),
    ];
    for (path, status, content_type, file) in cases {
        let response = server.admin_get(&format!("/debug/pprof/{path}"));
        assert_eq!(response.status, status, "{path}: {response:?}");
        assert_eq!(response.header("content-type"), Some(content_type), "{path}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{path}");
        let disposition = file.map(|file| format!("attachment; filename=\"{file}\""));
        assert_eq!(response.header("content-disposition"), disposition.as_deref(), "{path}");
        assert_eq!(response.header("x-go-pprof"), (status >= 400).then_some("1"), "{path}");
        assert_eq!(response.header("content-encoding"), None, "{path}: the file is gzip, not its encoding");
        if content_type == BINARY {
            assert_eq!(response.body[..2], [0x1f, 0x8b], "{path}");
        }
    }
    assert_eq!(server.get("/debug/pprof/").status, 404, "the media listener has no /debug");
    let posted = client::request(server.admin, "POST", "/debug/pprof/profile", &[], b"");
    assert_eq!(posted.status, 405);
}

/// Absent, unreadable and negative seconds mean 30, as in Go: such a profile still runs when another is asked for.
#[test]
fn one_cpu_profile_at_a_time_and_thirty_seconds_where_none_are_given() {
    let mut server = Server::builder().start();
    for query in ["", "?seconds=x", "?seconds=-1"] {
        let request = format!("GET /debug/pprof/profile{query} HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut held = None;
        let second = until(|| {
            // Asked anew each time: where the short profile came first, it was this one that was refused.
            let mut connection = client::Connection::open(server.admin);
            connection.send(request.as_bytes()).unwrap();
            held = Some(connection);
            thread::sleep(Duration::from_millis(200));
            let response = server.admin_get("/debug/pprof/profile?seconds=1");
            (response.status != 200).then_some(response)
        });
        assert_eq!((second.status, second.header("x-go-pprof")), (503, Some("1")), "{second:?}");
        assert!(second.header("retry-after").is_some() && second.text().contains("CPU profiling"), "{second:?}");
        // Who hangs up gives way.
        drop(held);
        let third = until(|| {
            let response = server.admin_get("/debug/pprof/profile?seconds=1");
            (response.status == 200).then_some(response)
        });
        assert_eq!(third.status, 200, "{third:?}");
    }
    server.assert_alive("profiles that were given up");
}

fn until(mut ask: impl FnMut() -> Option<Response>) -> Response {
    for _ in 0..100 {
        if let Some(response) = ask() {
            return response;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("no such answer within 10 s");
}

/// What `go tool pprof` prints of a source: a URL or a file.
fn go(arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("go")
        .args(["tool", "pprof"])
        .args(arguments)
        .env("PPROF_TMPDIR", dir.path())
        .env("HOME", dir.path())
        .output()
        .expect("go is installed");
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "go tool pprof {arguments:?}: {error}\n{text}");
    text.into_owned()
}

/// Asks for a large file over and over, until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn on(server: &Server, path: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let work = |stop: Arc<AtomicBool>, media| {
            thread::spawn(move || {
                while !stop.load(Relaxed) {
                    client::request(media, "GET", path, &[], b"");
                }
            })
        };
        let threads = (0..2).map(|_| work(Arc::clone(&stop), server.media)).collect();
        Self { stop, threads }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

#[test]
fn go_reads_a_cpu_profile_with_names_callers_and_threads() {
    let server = Server::builder().bytes("a.bin", &vec![7; 8 << 20]).start();
    let _load = Load::on(&server, "/videos/a.bin/file");
    let url = format!("http://{}/debug/pprof/profile?seconds=2&hz=250", server.admin);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cpu.pb.gz");
    // The file alone, as curl saves it, has the names in it.
    let response = server.admin_get("/debug/pprof/profile?seconds=2&hz=250");
    std::fs::write(&file, &response.body).unwrap();
    let file = file.to_str().unwrap();
    let top = go(&["-top", "-nodecount=10", file]);
    let leaf = top.lines().skip_while(|line| !line.trim_start().starts_with("flat")).nth(1).unwrap_or_default();
    assert!(leaf.contains("writev") || leaf.contains("sendfile"), "sending is what burns:\n{top}");
    let peek = go(&["-peek", "writev|sendfile", file]);
    assert!(peek.contains("write_vectored") || peek.contains("weir::net::"), "the system call has its caller:\n{peek}");
    let above = go(&["-top", "-cum", "-focus=writev|sendfile", file]);
    assert!(above.contains("weir::net::stream::Stream"), "and the callers above that:\n{above}");
    assert!(go(&["-tags", file]).contains("weir-core"), "samples say which thread they are of");
    assert!(go(&["-comments", file]).contains("CPU time of the process"));
    assert!(go(&["-top", "-diff_base", file, file]).contains("flat"));
    assert!(go(&["-top", &url]).contains("weir::"), "fetched by the tool itself");
}

#[test]
fn go_reads_heap_profiles_and_their_differences() {
    let server = Server::builder().bytes("a.bin", &vec![7; 1 << 20]).start();
    let _load = Load::on(&server, "/videos");
    let base = format!("http://{}/debug/pprof", server.admin);
    for name in ["heap", "allocs", "heap?seconds=1", "allocs?seconds=2"] {
        let url = format!("{base}/{name}");
        for index in ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"] {
            if name.contains("seconds") && index != "alloc_space" {
                continue;
            }
            let top = go(&["-top", &format!("-sample_index={index}"), &url]);
            assert!(top.contains(&format!("Type: {index}")), "{name}: {top}");
        }
    }
    let top = go(&["-top", "-cum", "-nodecount=60", &format!("{base}/allocs")]);
    assert!(top.contains("weir::") && !top.contains("weir::profile::heap::allocator"), "{top}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("heap.pb.gz");
    std::fs::write(&file, server.admin_get("/debug/pprof/heap").body).unwrap();
    assert!(go(&["-top", "-diff_base", file.to_str().unwrap(), &format!("{base}/heap")]).contains("inuse_space"));
}

#[test]
fn secrets_are_not_in_the_command_line() {
    let server = Server::builder().argument("--admin-token", "t0ken").argument("--write-key", WRITE_KEY).start();
    let with_token = [("Authorization", "Bearer t0ken")];
    let response = client::request(server.admin, "GET", "/debug/pprof/cmdline", &with_token, b"");
    let text = response.text();
    assert_eq!(response.status, 200);
    assert!(text.split('\0').any(|argument| argument == "--admin-token"), "{text:?}");
    assert!(!text.contains("t0ken") && !text.contains(WRITE_KEY), "{text:?}");
    assert_eq!(server.admin_get("/debug/pprof/cmdline").status, 401);
}

#[test]
fn symbols_are_answered_by_get_and_post() {
    let server = Server::builder().start();
    let text = server.admin_get("/debug/pprof/heap?debug=1").text();
    let address = text.split_whitespace().find(|word| word.starts_with("0x")).expect("an address").to_owned();
    let asked = format!("{address}+0x1");
    let got = server.admin_get(&format!("/debug/pprof/symbol?{asked}"));
    let posted = client::request(server.admin, "POST", "/debug/pprof/symbol", &[], asked.as_bytes());
    for response in [got, posted] {
        let text = response.text();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("num_symbols: 1"), "{text}");
        assert!(lines.next().is_some_and(|line| line.starts_with(&format!("{address} "))), "{text}");
        assert_eq!(lines.next(), None, "{text}");
    }
}

fn rss_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn names_do_not_stay_in_memory() {
    let server = Server::builder().bytes("a.bin", &vec![7; 1 << 20]).start();
    let _load = Load::on(&server, "/videos/a.bin/file");
    let profile = |path: &str| assert_eq!(server.admin_get(path).status, 200);
    profile("/debug/pprof/profile?seconds=1&hz=999");
    profile("/debug/pprof/heap");
    let before = rss_kb(server.pid());
    for _ in 0..100 {
        profile("/debug/pprof/heap");
    }
    for _ in 0..3 {
        profile("/debug/pprof/profile?seconds=1&hz=999");
    }
    let grown = rss_kb(server.pid()).saturating_sub(before);
    assert!(grown < 10_000, "100 heap and 3 CPU profiles took {grown} kB");
}

/// CPU and heap profiles at once, with threads that come and go and allocate meanwhile.
#[test]
fn hundreds_of_profiles_under_load() {
    let stop = Arc::new(AtomicBool::new(false));
    let churn = |stop: Arc<AtomicBool>| {
        thread::spawn(move || {
            while !stop.load(Relaxed) {
                let short = thread::spawn(|| (0..200).map(|n| vec![n as u8; n * 37]).map(|v| v.len()).sum::<usize>());
                assert!(short.join().unwrap() > 0);
            }
        })
    };
    let threads: Vec<_> = (0..3).map(|_| churn(Arc::clone(&stop))).collect();
    let taken = Mutex::new(0);
    let symboliser = Symboliser::new().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..50 {
                assert!(!heap::snapshot().encode(View::InUse, Duration::ZERO, &symboliser).is_empty());
            }
        });
        for _ in 0..200 {
            let plan = Plan { duration: Duration::from_millis(15), rate: 1000 };
            match cpu::profile(plan, Form::Pprof, &symboliser, || false) {
                Ok(profile) => assert!(!profile.is_empty()),
                Err(CpuError::Busy) => continue,
                Err(error) => panic!("{error}"),
            }
            *taken.lock().unwrap() += 1;
        }
    });
    stop.store(true, Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(taken.into_inner().unwrap(), 200);
}

/// The process ends in time, and by itself, whatever is being profiled.
#[test]
fn a_shutdown_under_profiles_ends() {
    let mut server = Server::builder().bytes("a.bin", &vec![7; 1 << 20]).argument("--drain-limit", "1 s").start();
    let load = Load::on(&server, "/videos/a.bin/file");
    let admin = server.admin;
    let profile = |path: &'static str| {
        thread::spawn(move || {
            let mut connection = client::Connection::open(admin);
            let _ = connection.call("GET", path, &[], b"");
        })
    };
    let profiles = [profile("/debug/pprof/profile?seconds=20&hz=1000"), profile("/debug/pprof/heap?seconds=20")];
    thread::sleep(Duration::from_millis(500));
    load.stop.store(true, Relaxed);
    assert!(server.terminate().success());
    profiles.into_iter().for_each(|profile| drop(profile.join()));
}
