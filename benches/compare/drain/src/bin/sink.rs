//! The physical limit of uploads: a loop that receives a body, and writes it to a file or does not.
//!
//! `sink ADDR DIRECTORY memory|write|sync`: each connection has a thread, which reads one PUT with `Content-Length` into
//! a buffer of a mebibyte. `write` writes it to a file, `sync` also syncs that before it answers. No checks, no limits.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

const BUFFER_BYTES: usize = 1 << 20;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [addr, directory, mode] = args.as_slice() else {
        return Err(io::Error::other("usage: sink ADDR DIRECTORY memory|write|sync"));
    };
    let addr: std::net::SocketAddr = addr.parse().map_err(io::Error::other)?;
    if !addr.ip().is_loopback() {
        return Err(io::Error::other("not a loopback address"));
    }
    for stream in TcpListener::bind(addr)?.incoming() {
        // A peer that is gone before it is accepted is its own matter.
        let Ok(stream) = stream else { continue };
        let (directory, mode) = (PathBuf::from(directory), mode.clone());
        thread::spawn(move || receive(stream, &directory, &mode));
    }
    Ok(())
}

fn receive(mut stream: TcpStream, directory: &Path, mode: &str) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    let end = loop {
        filled += match stream.read(&mut buffer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => n,
        };
        if let Some(at) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let head = std::str::from_utf8(&buffer[..end]).map_err(|_| bad())?;
    let name = head.split(' ').nth(1).and_then(|path| path.rsplit('/').next()).ok_or_else(bad)?.to_owned();
    let length = head.split_once("Content-Length: ").and_then(|(_, rest)| rest.lines().next()).ok_or_else(bad)?;
    let mut left: u64 = length.parse().map_err(|_| bad())?;
    let mut file = if mode == "memory" { None } else { Some(File::create(directory.join(name))?) };
    let mut part = end..filled;
    while left > 0 {
        if part.is_empty() {
            part = match stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => 0..n,
            };
        }
        if let Some(file) = &mut file {
            file.write_all(&buffer[part.clone()])?;
        }
        left = left.checked_sub(part.len() as u64).ok_or_else(bad)?;
        part = 0..0;
    }
    if let (Some(file), "sync") = (&file, mode) {
        file.sync_data()?;
    }
    stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
}
