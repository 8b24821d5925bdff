//! Sockets and the few system calls std does not have.

use crate::args::Args;
use crate::stats::Object;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Parses an address and refuses anything but loopback: this client is a load generator.
pub fn loopback(text: &str) -> Result<SocketAddr, String> {
    let addr: SocketAddr = text.parse().map_err(|_| format!("not an address: {text}"))?;
    if addr.ip().is_loopback() { Ok(addr) } else { Err(format!("{addr} is not a loopback address")) }
}

/// A connected socket without Nagle's delay, which is reset instead of lingering in TIME_WAIT when it is closed.
pub fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the pointer and length describe a live local of the type SO_LINGER takes.
    let failed = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    if failed == 0 { Ok(stream) } else { Err(io::Error::last_os_error()) }
}

/// Reads into `buf` without blocking.
pub fn receive(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length describe a live, writable buffer.
    let n = unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Drops up to `len` received bytes inside the kernel (tcp(7), MSG_TRUNC): nothing is copied to this process.
pub fn discard(fd: RawFd, len: usize) -> io::Result<usize> {
    // SAFETY: with MSG_TRUNC a TCP socket does not write to the buffer, which is therefore null.
    let n = unsafe { libc::recv(fd, std::ptr::null_mut(), len, libc::MSG_TRUNC | libc::MSG_DONTWAIT) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Lets this process open `wanted` files, or as many as the hard limit allows.
pub fn raise_file_limit(wanted: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls take a pointer to a live local of the right type.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < wanted {
            limit.rlim_cur = wanted.min(limit.rlim_max);
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// An epoll instance with level-triggered read interest.
pub struct Poller(OwnedFd);

impl Poller {
    pub fn new() -> io::Result<Self> {
        // SAFETY: a new descriptor is returned, owned by nobody else.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above; it is valid and ours.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Calls `readable` with the token of each socket that can be read, for some time.
    pub fn run_for(
        &self,
        seconds: f64,
        mut readable: impl FnMut(usize) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
        while Instant::now() < end {
            let ready = self.wait(&mut events, 10).map_err(|error| error.to_string())?;
            for event in &events[..ready] {
                readable(usize::try_from(event.u64).unwrap_or(usize::MAX))?;
            }
        }
        Ok(())
    }

    pub fn add(&self, fd: RawFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: the pointer is to a live local; the kernel copies it.
        let failed = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) };
        if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    pub fn wait(&self, events: &mut [libc::epoll_event], timeout_ms: i32) -> io::Result<usize> {
        let capacity = i32::try_from(events.len()).unwrap_or(i32::MAX);
        // SAFETY: the pointer and capacity describe a live, writable buffer.
        let n = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), capacity, timeout_ms) };
        match usize::try_from(n) {
            Ok(n) => Ok(n),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }
}

/// Drops a file from the page cache. Pages that a process has mapped stay, so the servers must not be running.
pub fn evict(args: &Args) -> Result<(), String> {
    let path = args.text("file")?;
    let file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
    file.sync_all().map_err(|error| format!("{path}: {error}"))?;
    // SAFETY: takes no pointers.
    let failed = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if failed != 0 {
        return Err(format!("{path}: posix_fadvise: error {failed}"));
    }
    println!("{}", Object::default().text("evicted", path).finish());
    Ok(())
}
