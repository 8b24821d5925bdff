//! The physical limit: a loop that maps one file and answers ranges with one `writev` of head and slice.
//!
//! No HTTP library, no routing, no checks beyond the range. `floor ADDR FILE THREADS epoll|blocking|sendfile`: with
//! `epoll` each thread has a listener and an event loop, with `blocking` each connection has a thread. `sendfile` is
//! the event loop with `sendfile` for the body, to show which of the two mechanisms suits a machine. The file is mapped and
//! faulted in before the first connection.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;
use std::thread;

/// A mapped file.
struct Mapped {
    address: usize,
    len: usize,
    /// The open file, where bodies are sent with `sendfile`.
    sendfile: Option<File>,
}

/// One connection of the event loop.
struct Peer {
    stream: TcpStream,
    request: Vec<u8>,
    head: Vec<u8>,
    head_sent: usize,
    /// What is left of the body: offset and length.
    body: (usize, usize),
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [addr, file, threads, mode] = args.as_slice() else {
        return Err(io::Error::other("usage: floor ADDR FILE THREADS epoll|blocking|sendfile"));
    };
    let addr: std::net::SocketAddr = addr.parse().map_err(io::Error::other)?;
    if !addr.ip().is_loopback() {
        return Err(io::Error::other("not a loopback address"));
    }
    let threads: usize = threads.parse().map_err(io::Error::other)?;
    let mapped = Arc::new(Mapped::open(file, mode == "sendfile")?);
    if mode == "blocking" {
        let listener = TcpListener::bind(addr)?;
        for stream in listener.incoming() {
            // A peer that is gone before it is accepted is its own matter.
            let Ok(stream) = stream else { continue };
            let mapped = Arc::clone(&mapped);
            thread::Builder::new().stack_size(64 * 1024).spawn(move || blocking(stream, &mapped))?;
        }
        return Ok(());
    }
    let loops: Vec<_> = (0..threads.max(1))
        .map(|_| {
            let (listener, mapped) = (listen(addr)?, Arc::clone(&mapped));
            thread::Builder::new().spawn(move || event_loop(&listener, &mapped))
        })
        .collect::<io::Result<_>>()?;
    for handle in loops {
        handle.join().map_err(|_| io::Error::other("an event loop panicked"))??;
    }
    Ok(())
}

impl Mapped {
    fn open(path: &str, sendfile: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        // SAFETY: a new read-only mapping; it is only handed to system calls and lives as long as the process.
        let address = unsafe {
            let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, flags, file.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { address: address as usize, len, sendfile: sendfile.then_some(file) })
    }
}

/// A listener that shares its port with the other threads'.
fn listen(addr: std::net::SocketAddr) -> io::Result<TcpListener> {
    let std::net::SocketAddr::V4(v4) = addr else { return Err(io::Error::other("an IPv4 address, please")) };
    // SAFETY: plain socket calls; every pointer is to a live local with its own size.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let listener = TcpListener::from_raw_fd(fd);
        let on: libc::c_int = 1;
        for option in [libc::SO_REUSEADDR, libc::SO_REUSEPORT] {
            libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const on).cast(), size_of_val(&on) as u32);
        }
        let mut name: libc::sockaddr_in = std::mem::zeroed();
        name.sin_family = libc::AF_INET as u16;
        name.sin_port = v4.port().to_be();
        name.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
        let bound = libc::bind(fd, (&raw const name).cast(), size_of_val(&name) as u32);
        if bound != 0 || libc::listen(fd, 4096) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(listener)
    }
}

fn blocking(mut stream: TcpStream, mapped: &Mapped) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buf = [0; 4096];
    let mut peer = Peer::new(stream.try_clone()?);
    loop {
        let n = stream.read(&mut buf)?;
        if n == 0 {
            return Ok(());
        }
        peer.request.extend_from_slice(&buf[..n]);
        while peer.take_request(mapped)? {
            while !peer.is_sent() {
                peer.write(mapped)?;
            }
        }
    }
}

fn event_loop(listener: &TcpListener, mapped: &Mapped) -> io::Result<()> {
    // SAFETY: returns a new descriptor, which lives as long as the process.
    let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    watch(epoll, listener.as_raw_fd(), libc::EPOLLIN as u32)?;
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
    loop {
        // SAFETY: the pointer and capacity describe a live buffer.
        let n = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 256, -1) };
        for event in &events[..usize::try_from(n).unwrap_or(0)] {
            let fd = event.u64 as RawFd;
            if fd == listener.as_raw_fd() {
                accept_all(epoll, listener, &mut peers)?;
                continue;
            }
            let Some(slot) = peers.get_mut(fd as usize) else { continue };
            let alive = slot.as_mut().is_some_and(|peer| peer.turn(mapped).is_ok());
            if !alive {
                *slot = None;
            }
        }
    }
}

fn accept_all(epoll: RawFd, listener: &TcpListener, peers: &mut Vec<Option<Peer>>) -> io::Result<()> {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let fd = stream.as_raw_fd();
        let index = usize::try_from(fd).map_err(io::Error::other)?;
        if peers.len() <= index {
            peers.resize_with(index + 1, || None);
        }
        watch(epoll, fd, (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET | libc::EPOLLRDHUP) as u32)?;
        peers[index] = Some(Peer::new(stream));
    }
    Ok(())
}

fn watch(epoll: RawFd, fd: RawFd, events: u32) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: fd as u64 };
    // SAFETY: the pointer is to a live local; the kernel copies it.
    let failed = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        Self { stream, request: Vec::new(), head: Vec::new(), head_sent: 0, body: (0, 0) }
    }

    fn is_sent(&self) -> bool {
        self.head_sent == self.head.len() && self.body.1 == 0
    }

    /// Edge-triggered: writes and reads until neither goes on.
    fn turn(&mut self, mapped: &Mapped) -> io::Result<()> {
        let mut buf = [0; 4096];
        loop {
            while !self.is_sent() {
                match self.write(mapped) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            if self.take_request(mapped)? {
                continue;
            }
            match self.stream.read(&mut buf) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.request.extend_from_slice(&buf[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Turns the request in the buffer, if it is complete, into a head and a body to send.
    fn take_request(&mut self, mapped: &Mapped) -> io::Result<bool> {
        let Some(end) = self.request.windows(4).position(|w| w == b"\r\n\r\n") else {
            return if self.request.len() > 8192 { Err(io::ErrorKind::InvalidData.into()) } else { Ok(false) };
        };
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let text = std::str::from_utf8(&self.request[..end]).map_err(|_| bad())?;
        let range = text.split_once("Range: bytes=").ok_or_else(bad)?.1.lines().next().ok_or_else(bad)?;
        let (first, last) = range.split_once('-').ok_or_else(bad)?;
        let first: usize = first.parse().map_err(|_| bad())?;
        let last = last.parse().map_err(|_| bad())?;
        let last: usize = mapped.len.saturating_sub(1).min(last);
        let len = (last + 1).checked_sub(first).ok_or_else(bad)?;
        self.request.drain(..end + 4);
        self.head.clear();
        write!(
            self.head,
            "HTTP/1.1 206 Partial Content\r\nContent-Type: application/octet-stream\r\nContent-Length: {len}\r\n\
             Content-Range: bytes {first}-{last}/{}\r\nAccept-Ranges: bytes\r\n\r\n",
            mapped.len
        )?;
        self.head_sent = 0;
        self.body = (first, len);
        Ok(true)
    }

    fn write(&mut self, mapped: &Mapped) -> io::Result<()> {
        if let Some(file) = &mapped.sendfile {
            return self.send_file(file.as_raw_fd());
        }
        let head = &self.head[self.head_sent..];
        let slices = [
            libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() },
            libc::iovec { iov_base: (mapped.address + self.body.0) as *mut libc::c_void, iov_len: self.body.1 },
        ];
        let from = usize::from(head.is_empty());
        // SAFETY: the first slice is a live Vec, the second lies inside the mapping (`take_request` clips it).
        let n = unsafe { libc::writev(self.stream.as_raw_fd(), slices[from..].as_ptr(), 2 - from as libc::c_int) };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        let of_head = n.min(head.len());
        self.head_sent += of_head;
        self.body = (self.body.0 + n - of_head, self.body.1 - (n - of_head));
        Ok(())
    }

    fn send_file(&mut self, file: RawFd) -> io::Result<()> {
        let fd = self.stream.as_raw_fd();
        let head = &self.head[self.head_sent..];
        if !head.is_empty() {
            // SAFETY: the pointer and length describe a live Vec.
            let n = unsafe { libc::send(fd, head.as_ptr().cast(), head.len(), libc::MSG_MORE | libc::MSG_NOSIGNAL) };
            self.head_sent += usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
            return Ok(());
        }
        let mut offset = libc::off_t::try_from(self.body.0).map_err(io::Error::other)?;
        // SAFETY: the pointer is to a live local.
        let n = unsafe { libc::sendfile(fd, file, &mut offset, self.body.1) };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        self.body = (self.body.0 + n, self.body.1 - n);
        Ok(())
    }
}
