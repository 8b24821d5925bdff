//! Opens keep-alive connections, does one request on each, and holds them until standard input ends.

use crate::args::Args;
use crate::connection::parse_head;
use crate::socket::{connect, loopback, raise_file_limit};
use crate::stats::Object;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub fn run(args: &Args) -> Result<(), String> {
    let addr = loopback(args.text("addr")?)?;
    let path = args.text("path")?;
    let wanted: usize = args.number("connections", 10_000)?;
    raise_file_limit(wanted as u64 + 64);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nRange: bytes=0-99\r\n\r\n");
    let mut open = Vec::with_capacity(wanted);
    let mut first_error = String::new();
    for _ in 0..wanted {
        match one(addr, &request) {
            Ok(stream) => open.push(stream),
            Err(error) => {
                first_error = error;
                break;
            }
        }
    }
    let report = Object::default().integer("open", open.len() as u64).text("error", &first_error);
    println!("{}", report.finish());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let alive = open.iter().filter(|stream| is_open(stream)).count();
    println!("{}", Object::default().integer("alive", alive as u64).finish());
    Ok(())
}

fn one(addr: SocketAddr, request: &str) -> Result<TcpStream, String> {
    let io = |error: std::io::Error| error.to_string();
    let mut stream = connect(addr).map_err(io)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(io)?;
    stream.write_all(request.as_bytes()).map_err(io)?;
    let mut buf = [0; 4096];
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buf[filled..]).map_err(io)?;
        filled += n;
        let head = buf[..filled].windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
        if let Some(head_len) = head {
            let (status, length) = parse_head(&buf[..head_len]).ok_or("no status or Content-Length")?;
            if status != 206 {
                return Err(format!("status {status}"));
            }
            if (filled - head_len) as u64 == length {
                return Ok(stream);
            }
        }
        if n == 0 || filled == buf.len() {
            return Err("no complete answer".to_owned());
        }
    }
}

fn is_open(stream: &TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
