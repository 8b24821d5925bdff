//! Times a server from its exec to the first byte of an answer, then ends it.

use crate::args::Args;
use crate::socket::{connect, loopback};
use crate::stats::Object;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two attempts to connect: the resolution of the figure.
const PAUSE: Duration = Duration::from_micros(100);

pub fn run(args: &Args) -> Result<(), String> {
    let addr = loopback(args.text("addr")?)?;
    let path = args.text("path")?;
    let timeout = Duration::from_secs_f64(args.number("timeout", 10.0)?);
    let (program, arguments) = args.rest.split_first().ok_or("no command after --")?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nRange: bytes=0-0\r\n\r\n");
    let began = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let result = loop {
        if let Some(status) = attempt(addr, &request) {
            break Ok((began.elapsed(), status, resident_bytes(child.id())));
        }
        if let Ok(Some(status)) = child.try_wait() {
            break Err(format!("{program} ended: {status}"));
        }
        if began.elapsed() > timeout {
            break Err(format!("{program} did not answer within {timeout:?}"));
        }
        thread::sleep(PAUSE);
    };
    terminate(&mut child);
    let (elapsed, status, resident) = result?;
    let report = Object::default().number("first_byte_ms", elapsed.as_secs_f64() * 1e3).text("status", &status);
    let report = report.number("rss_bytes", resident);
    println!("{}", report.finish());
    Ok(())
}

/// The status of the answer, as soon as its first bytes are there.
fn attempt(addr: SocketAddr, request: &str) -> Option<String> {
    let mut stream = connect(addr).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut buf = [0; 1024];
    let n = stream.read(&mut buf).ok().filter(|n| *n >= 12)?;
    Some(String::from_utf8_lossy(&buf[9..12.min(n)]).into_owned())
}

/// What the process has in memory right now, its part of the page cache included.
fn resident_bytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}

/// SIGTERM, so that a master takes its workers along; SIGKILL after two seconds.
fn terminate(child: &mut std::process::Child) {
    if let Ok(pid) = libc::pid_t::try_from(child.id()) {
        // SAFETY: takes no pointers; the child has not been waited for, so its id is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
    for _ in 0..200 {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}
