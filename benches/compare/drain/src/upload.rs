//! Uploads: connections that each send one body with PUT, out of a file, and wait for the answer.

use crate::args::{Args, size};
use crate::clock;
use crate::publish;
use crate::socket::{connect, loopback};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(60);

/// `drain upload`: body N goes to PATH followed by N.
pub fn run(args: &Args) -> Result<(), String> {
    let addr = loopback(args.text("addr")?)?;
    let (path, key, file) = (args.text("path")?, args.text("key").unwrap_or_default(), args.text("file")?);
    let (bytes, count) = (size(args.text("bytes")?)?, args.number("uploads", 1u64)?);
    let pids = clock::pids(args.all("pid"))?;
    let (began, before) = (Instant::now(), clock::cpu_ns(&pids)?);
    let mut threads = Vec::new();
    for number in 0..count {
        let (path, key, file) = (format!("{path}{number}"), key.to_owned(), file.to_owned());
        threads.push(thread::spawn(move || {
            let sent = send(addr, &path, &key, &file, number * bytes, bytes);
            sent.map_err(|error| format!("PUT {path}: {error}"))
        }));
    }
    for thread in threads {
        thread.join().map_err(|_| "an upload panicked")??;
    }
    let (elapsed, server_ns) = (began.elapsed().as_secs_f64(), clock::cpu_ns(&pids)?.saturating_sub(before));
    println!("{}", publish::report(elapsed, bytes * count, server_ns));
    Ok(())
}

/// Sends a piece of the file, which the kernel takes from the page cache (`io::copy` is sendfile here).
fn send(addr: SocketAddr, path: &str, key: &str, file: &str, offset: u64, bytes: u64) -> io::Result<()> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut stream = connect(addr)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let authorization = if key.is_empty() { String::new() } else { format!("Authorization: Bearer {key}\r\n") };
    write!(stream, "PUT {path} HTTP/1.1\r\nHost: {addr}\r\n{authorization}Content-Length: {bytes}\r\n\r\n")?;
    let copied = io::copy(&mut file.take(bytes), &mut stream)?;
    if copied != bytes {
        return Err(io::Error::other(format!("the file ended after {copied} bytes")));
    }
    let (mut head, mut buf) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut buf)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => head.extend_from_slice(&buf[..n]),
        }
    }
    let status = String::from_utf8_lossy(head.get(9..12).unwrap_or_default()).into_owned();
    if matches!(&*status, "200" | "201" | "204") { Ok(()) } else { Err(io::Error::other(format!("answered {status}"))) }
}
