//! Sending a mapped slice by sendfile(2): the kernel takes the pages themselves instead of copying them.
//!
//! Which of the two costs less depends on the connection's congestion control. Where it paces (bbr), data leaves in
//! small pieces and page references cost more than the copy; where it does not (cubic, reno), sendfile costs well
//! under half (docs/benchmarks.md). Safe because videos are immutable: a page that changed while it waits in a socket
//! would change what the viewer receives.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use tokio::net::TcpStream;

/// Below this a copy is cheaper than the references.
pub(super) const SENDFILE_MIN_BYTES: usize = 32 << 10;

/// Whether a connection paces what it sends. A listener cannot say: its connections take the congestion control of the
/// moment, or of their route.
pub(super) fn paces(socket: &impl AsFd) -> bool {
    let name = socket2::SockRef::from(socket).tcp_congestion();
    // Not to know is to copy: it is never much worse.
    name.map_or(true, |name| name.starts_with(b"bbr"))
}

/// Sends `head` and up to `length` bytes of the file from `offset` on; returns what was taken of both together.
pub(super) fn send(
    socket: &TcpStream,
    head: &[IoSlice<'_>],
    file: &File,
    offset: u64,
    length: usize,
) -> io::Result<usize> {
    let head_bytes: usize = head.iter().map(|slice| slice.len()).sum();
    if head_bytes > 0 {
        // MORE: the head waits for the first bytes of the file, which follow at once.
        let sent =
            socket2::SockRef::from(socket).send_vectored_with_flags(head, libc::MSG_MORE | libc::MSG_NOSIGNAL)?;
        if sent < head_bytes {
            return Ok(sent);
        }
    }
    let mut at = offset;
    match rustix::fs::sendfile(socket, file, Some(&mut at), length) {
        // The file ends before its mapping did: it was cut.
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(sent) => Ok(head_bytes + sent),
        Err(_) if head_bytes > 0 => Ok(head_bytes),
        Err(error) => Err(error.into()),
    }
}
