//! Compares bodies with the file they come from, byte for byte: first and last range of each size, then random ones.

use crate::args::{Args, size};
use crate::connection::parse_head;
use crate::rng::Rng;
use crate::socket::{connect, loopback};
use crate::stats::Object;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

const STEP: usize = 1 << 20;

pub fn run(args: &Args) -> Result<(), String> {
    let addr = loopback(args.text("addr")?)?;
    let (path, file_name) = (args.text("path")?, args.text("file")?);
    let io = |error: std::io::Error| format!("{file_name}: {error}");
    let file = File::open(file_name).map_err(io)?;
    let file_size = file.metadata().map_err(io)?.len();
    let count: u64 = args.number("count", 8)?;
    let mut rng = Rng::new(args.number("seed", 1)?);
    let stream = connect(addr).map_err(|error| format!("connect to {addr}: {error}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(io)?;
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    let (mut bytes, mut bodies) = (0, 0);
    for text in args.text("sizes")?.split(',') {
        let size = size(text)?.clamp(1, file_size);
        let last = file_size - size;
        let random: Vec<u64> = (0..count).map(|_| rng.below(last + 1)).collect();
        for first in [0, last].into_iter().chain(random) {
            compare(&mut stream, path, &file, first, size).map_err(|e| format!("{path} {first}+{size}: {e}"))?;
            bytes += size;
            bodies += 1;
        }
    }
    println!("{}", Object::default().integer("bodies", bodies).integer("bytes", bytes).raw("equal", "true").finish());
    Ok(())
}

fn compare(
    stream: &mut BufReader<TcpStream>,
    path: &str,
    file: &File,
    first: u64,
    size: u64,
) -> Result<(), String> {
    let last = first + size - 1;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nRange: bytes={first}-{last}\r\n\r\n");
    let io = |error: std::io::Error| error.to_string();
    stream.get_mut().write_all(request.as_bytes()).map_err(io)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head).map_err(io)? == 0 || head.len() > 8192 {
            return Err("no response head".to_owned());
        }
    }
    let (status, length) = parse_head(&head).ok_or("no status or Content-Length")?;
    if (status, length) != (206, size) {
        return Err(format!("status {status}, Content-Length {length}"));
    }
    let (mut got, mut due) = (vec![0; STEP], vec![0; STEP]);
    let mut at = first;
    while at <= last {
        let n = usize::try_from(last - at + 1).unwrap_or(STEP).min(STEP);
        stream.read_exact(&mut got[..n]).map_err(io)?;
        file.read_exact_at(&mut due[..n], at).map_err(io)?;
        if got[..n] != due[..n] {
            return Err(format!("the body differs from the file between bytes {at} and {}", at + n as u64));
        }
        at += n as u64;
    }
    Ok(())
}
