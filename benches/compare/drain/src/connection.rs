//! One keep-alive connection: sends a request, parses just enough of the head, discards the body.

use crate::socket::{discard, receive};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

/// The longest head any server under test sends is below 1 KiB.
const HEAD_MAX: usize = 2048;
/// Bodies up to this size come along with the head in one `recv`; larger ones are discarded in the kernel.
const WITH_HEAD_MAX: usize = 16 * 1024;
/// Most bytes discarded by one system call.
const DISCARD_MAX: usize = 16 << 20;

enum State {
    Free,
    Head { filled: usize },
    Body { left: u64 },
}

/// What became of the socket's readiness.
pub enum Progress {
    /// The answer is not complete; this many body bytes came.
    More(u64),
    /// The answer is complete; this many body bytes came, the last one included.
    Done(u64),
    Failed(String),
}

pub struct Connection {
    stream: TcpStream,
    pub group: usize,
    state: State,
    buf: Vec<u8>,
    copy: bool,
    pub sent_at: Instant,
    pub first_byte_at: Option<Instant>,
}

impl Connection {
    pub fn open(addr: SocketAddr, group: usize, body_size: Option<u64>, copy: bool) -> io::Result<Self> {
        let stream = crate::socket::connect(addr)?;
        stream.set_nonblocking(true)?;
        let small = body_size.is_none_or(|size| size <= WITH_HEAD_MAX as u64);
        let capacity = match (copy, small) {
            (true, _) => 256 * 1024,
            (false, true) => WITH_HEAD_MAX + HEAD_MAX,
            (false, false) => HEAD_MAX,
        };
        let buf = vec![0; capacity];
        Ok(Self { stream, group, state: State::Free, buf, copy, sent_at: Instant::now(), first_byte_at: None })
    }

    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    pub fn is_free(&self) -> bool {
        matches!(self.state, State::Free)
    }

    /// Sends a request; `since` is the moment its latency counts from.
    pub fn send(&mut self, request: &str, since: Instant) -> io::Result<()> {
        self.stream.write_all(request.as_bytes())?;
        self.state = State::Head { filled: 0 };
        self.sent_at = since;
        self.first_byte_at = None;
        Ok(())
    }

    /// Takes what the socket has.
    pub fn read(&mut self, expect: u16, expect_len: Option<u64>) -> Progress {
        let mut body = 0;
        loop {
            let step = match self.state {
                State::Free => return Progress::Failed("bytes or an end without a request".to_owned()),
                State::Head { filled } => self.read_head(filled, expect, expect_len),
                State::Body { left } => self.read_body(left),
            };
            match step {
                Ok(n) => body += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::More(body),
                Err(error) => return Progress::Failed(error.to_string()),
            }
            if matches!(self.state, State::Body { left: 0 }) {
                self.state = State::Free;
                return Progress::Done(body);
            }
        }
    }

    /// Returns the body bytes that came with the head.
    fn read_head(&mut self, filled: usize, expect: u16, expect_len: Option<u64>) -> io::Result<u64> {
        let n = receive(self.fd(), &mut self.buf[filled..])?;
        if n == 0 {
            return Err(io::Error::other("the server closed before the head"));
        }
        if self.first_byte_at.is_none() {
            self.first_byte_at = Some(Instant::now());
        }
        let filled = filled + n;
        let Some(head_len) = self.buf[..filled].windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) else {
            if filled == self.buf.len() {
                return Err(io::Error::other("head too long"));
            }
            self.state = State::Head { filled };
            return Ok(0);
        };
        let (status, length) = parse_head(&self.buf[..head_len])
            .ok_or_else(|| io::Error::other("no status or no Content-Length in the head"))?;
        if status != expect {
            return Err(io::Error::other(format!("status {status} where {expect} was due")));
        }
        if expect_len.is_some_and(|due| due != length) {
            return Err(io::Error::other(format!("Content-Length {length}")));
        }
        let got = (filled - head_len) as u64;
        let left = length.checked_sub(got).ok_or_else(|| io::Error::other("more bytes than Content-Length"))?;
        self.state = State::Body { left };
        Ok(got)
    }

    fn read_body(&mut self, left: u64) -> io::Result<u64> {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(DISCARD_MAX);
        let n = if self.copy {
            let want = want.min(self.buf.len());
            receive(self.stream.as_raw_fd(), &mut self.buf[..want])?
        } else {
            discard(self.stream.as_raw_fd(), want)?
        };
        if n == 0 {
            return Err(io::Error::other("the server closed inside the body"));
        }
        self.state = State::Body { left: left - n as u64 };
        Ok(n as u64)
    }
}

/// Status and Content-Length of a response head.
pub fn parse_head(head: &[u8]) -> Option<(u16, u64)> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())?;
    Some((status, length))
}
