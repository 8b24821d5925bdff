//! A raw HTTP/1.1 client: sends whatever bytes a test wants, and reads the answer strictly. It must not repair
//! anything.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Bytes of status line and headers as they came over the wire, of this response alone.
    pub head_bytes: usize,
    /// False when the connection ended before the length that was announced.
    pub complete: bool,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} ({} bytes of body)", self.status, self.body.len())?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        let shown = &self.body[..self.body.len().min(400)];
        write!(f, "{}", String::from_utf8_lossy(shown))
    }
}

impl Response {
    /// The only value of a header; more than one is a failure.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let first = values.next().map(|(_, v)| v.as_str());
        assert!(values.next().is_none(), "header {name} occurs twice: {self:?}");
        first
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// The `detail` of an RFC 9457 problem; fails when the body is none.
    pub fn problem(&self) -> String {
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "no problem+json: {self:?}");
        let json = self.json();
        assert_eq!(json["status"].as_u64().unwrap_or(u64::from(self.status)), u64::from(self.status), "{self:?}");
        let detail = json["detail"].as_str().unwrap_or_else(|| panic!("no detail: {self:?}"));
        assert!(detail.len() > 8, "the detail says nothing: {self:?}");
        detail.to_owned()
    }
}

pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub fn set_timeout(&mut self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).unwrap();
    }

    /// Sends any bytes. An error is returned, because a server may rightly close early.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn finish_sending(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub fn call(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Response> {
        let head = request_head(method, target, headers, body.len());
        // An early answer (401, 413) may close the connection while the body is still being sent: read it all the same.
        let sent = self.send(&head).and_then(|()| self.send(body));
        match self.read_response(method == "HEAD") {
            Ok(response) => Ok(response),
            Err(error) => Err(sent.err().unwrap_or(error)),
        }
    }

    pub fn get(&mut self, target: &str) -> Response {
        self.call("GET", target, &[], b"").unwrap_or_else(|e| panic!("GET {target}: {e}"))
    }

    /// Sends GETs one after the other without waiting, then reads the responses, which come in the same order.
    pub fn get_all(&mut self, targets: &[String]) -> io::Result<Vec<Response>> {
        let requests: Vec<u8> = targets.iter().flat_map(|target| request_head("GET", target, &[], 0)).collect();
        self.send(&requests)?;
        targets.iter().map(|_| self.read_response(false)).collect()
    }

    /// Reads one final response; interim ones (1xx) are skipped.
    pub fn read_response(&mut self, to_head: bool) -> io::Result<Response> {
        loop {
            let response = self.read_one(to_head)?;
            if response.status >= 200 {
                return Ok(response);
            }
        }
    }

    /// Reads one response of any status.
    pub fn read_one(&mut self, to_head: bool) -> io::Result<Response> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill()? {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the end of the head"));
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let mut response = parse_head(&head)?;
        if to_head || response.status < 200 || matches!(response.status, 204 | 304) {
            return Ok(response);
        }
        let chunked = response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        let length = response.header("content-length").map(|v| v.parse::<usize>());
        match (chunked, length) {
            (true, Some(_)) => return Err(bad("both Content-Length and chunked")),
            (true, None) => response.complete = self.read_chunks(&mut response.body)?,
            (false, Some(Ok(length))) => response.complete = self.read_exactly(length, &mut response.body)?,
            (false, Some(Err(_))) => return Err(bad("Content-Length is no number")),
            (false, None) => {
                while self.fill()? {}
                response.body = std::mem::take(&mut self.buffer);
            }
        }
        Ok(response)
    }

    /// Whether the server closes the connection within the read timeout.
    pub fn is_closed_by_peer(&mut self) -> bool {
        match self.fill() {
            Ok(more) => !more,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }

    /// Reads and drops `count` bytes, for tests that want a response to be under way.
    pub fn skip(&mut self, mut count: usize) -> io::Result<()> {
        while count > 0 {
            if self.buffer.is_empty() && !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let taken = count.min(self.buffer.len());
            self.buffer.drain(..taken);
            count -= taken;
        }
        Ok(())
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut block = [0; 64 * 1024];
        let count = loop {
            match self.stream.read(&mut block) {
                // A profile of this very process, by another test, interrupts reads that have a time limit.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buffer.extend_from_slice(&block[..count]);
        Ok(count > 0)
    }

    fn read_exactly(&mut self, length: usize, body: &mut Vec<u8>) -> io::Result<bool> {
        let ready = length.min(self.buffer.len());
        body.extend(self.buffer.drain(..ready));
        let missing = length - ready;
        let count = (&mut self.stream).take(missing as u64).read_to_end(body)?;
        Ok(count == missing)
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let Some(line) = self.read_line()? else { return Ok(false) };
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16).map_err(|_| bad("chunk size is no number"))?;
            if !self.read_exactly(size, body)? {
                return Ok(false);
            }
            match self.read_line()? {
                None => return Ok(false),
                Some(rest) if !rest.is_empty() => return Err(bad("no line end after a chunk")),
                Some(_) if size == 0 => return Ok(true),
                Some(_) => {}
            }
        }
    }

    fn read_line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = self.buffer.drain(..at + 2).take(at).collect();
                return String::from_utf8(line).map(Some).map_err(|_| bad("line is no UTF-8"));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }
}

/// One request on a connection of its own.
pub fn request(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut connection = Connection::open(address);
    connection.call(method, target, headers, body).unwrap_or_else(|e| panic!("{method} {target}: {e}"))
}

pub fn request_head(method: &str, target: &str, headers: &[(&str, &str)], body_length: usize) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.extend_from_slice(b"Host: localhost\r\n");
    }
    let framed = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding"));
    if !framed && (body_length > 0 || matches!(method, "PUT" | "POST")) {
        head.extend_from_slice(format!("Content-Length: {body_length}\r\n").as_bytes());
    }
    for (name, value) in headers {
        head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn parse_head(head: &[u8]) -> io::Result<Response> {
    let text = std::str::from_utf8(head).map_err(|_| bad("the head is no UTF-8"))?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| bad(&format!("status line {status_line:?}")))?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| bad(&format!("header line {line:?}")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok(Response { status, headers, body: Vec::new(), head_bytes: head.len(), complete: true })
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Percent-encodes everything but unreserved characters (RFC 3986 section 2.3).
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}
