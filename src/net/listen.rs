//! Listening sockets: one per core on the same address, so that the kernel spreads connections over cores.

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that may wait to be accepted; the kernel clips it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Unsent bytes a socket may hold before it stops taking more: what a slow viewer costs in kernel memory.
pub const NOTSENT_LOWAT_BYTES: u32 = 256 << 10;

/// Sockets that listen on one address.
pub struct Listeners {
    pub address: SocketAddr,
    pub sockets: Vec<TcpListener>,
}

impl Listeners {
    /// Binds `count` sockets to the address. `SO_REUSEPORT` would let another server bind it unseen, so a probe
    /// without it comes first; with port 0 the first socket's number is taken for the others.
    pub fn bind(address: SocketAddr, count: usize) -> io::Result<Self> {
        if address.port() != 0 {
            let probe = socket(address)?;
            probe.bind(&address.into())?;
        }
        let first = listener(address)?;
        let address = first.local_addr()?;
        let mut sockets = vec![first];
        for _ in 1..count {
            sockets.push(listener(address)?);
        }
        Ok(Self { address, sockets })
    }
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit both. NODELAY: head and first bytes leave in one write, and nothing waits for an ACK.
    socket.set_tcp_nodelay(true)?;
    set_notsent_lowat(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn set_notsent_lowat(socket: &Socket) -> io::Result<()> {
    SockRef::from(socket).set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_refused_though_reuseport_would_allow_it() {
        let mine = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 2).expect("a free port");
        assert_eq!(mine.sockets.len(), 2);
        assert_eq!(mine.sockets[1].local_addr().expect("bound"), mine.address);
        let error = Listeners::bind(mine.address, 1).err().expect("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
