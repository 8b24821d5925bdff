//! Publishing over bare TCP: a listener bound to a stream's name, or one that is told the name and the key in a line.
//!
//! Sockets are read straight into slabs, and what was read goes on as slices of them. Must not know how parts are
//! found.

use super::Intake;
use crate::library::WriteKey;
use crate::live::{PublishError, Streams, streams};
use crate::net::Traffic;
use crate::observe::latency;
use crate::profile::{SpanExt, Stage, site, spawned};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Bytes of a slab, and what must be free in one for it to be read into.
const SLAB: usize = 256 << 10;
const ROOM_MIN: usize = 16 << 10;
/// Bytes of `PUBLISH name key` with its line end.
const LINE_MAX: usize = 1024;
/// Connections of one listener.
const CONNECTIONS_MAX: usize = 256;
/// How long, and for how many bytes, a refused publisher is listened to, so that it gets to read why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 8 << 20;
/// After an error of `accept`: out of file descriptors, as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the publishers of all listeners share.
pub struct Ingest {
    pub streams: Arc<Streams>,
    pub write_key: WriteKey,
    pub traffic: Arc<Traffic>,
    /// How long the first line may take, and any later byte.
    pub head_time: Duration,
    pub stall_limit: Duration,
    pub drain: CancellationToken,
}

/// A listening socket, and the stream that its connections publish; without a name they begin with a line.
pub struct Listener {
    pub socket: std::net::TcpListener,
    pub address: SocketAddr,
    pub stream: Option<String>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the first line must be: PUBLISH name key")]
    Line,
    #[error("{}", streams::NAME_RULE)]
    Name,
    #[error("wrong key")]
    Key,
    #[error("no byte came for {} s", .0.as_secs())]
    Silent(Duration),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// Accepts publishers until the server drains.
pub async fn serve(ingest: Arc<Ingest>, listener: Listener) -> io::Result<()> {
    let socket = TcpListener::from_std(listener.socket)?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = ingest.drain.cancelled() => return Ok(()),
        };
        let (connection, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept a publisher");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let (ingest, stream) = (Arc::clone(&ingest), listener.stream.clone());
        let publishing = async move {
            publish(&ingest, connection, peer, stream).await;
            drop(slot);
        };
        tokio::spawn(spawned(site!("publish"), publishing));
    }
}

async fn publish(ingest: &Ingest, mut connection: TcpStream, peer: SocketAddr, stream: Option<String>) {
    let mut reader = Reader::default();
    let received = tokio::select! {
        received = receive(ingest, &mut connection, &mut reader, peer, stream) => received,
        () = ingest.drain.cancelled() => return,
    };
    let Err(refusal) = received else { return };
    match &refusal {
        Refusal::Socket(error) => tracing::info!(%peer, %error, "lose a publisher"),
        refusal => tracing::warn!(%peer, error = %refusal, "end a publisher"),
    }
    if !matches!(refusal, Refusal::Socket(_)) {
        let _ = tokio::time::timeout(LINGER, part_with(&mut connection, &mut reader, &refusal)).await;
    }
}

async fn receive(
    ingest: &Ingest,
    connection: &mut TcpStream,
    reader: &mut Reader,
    peer: SocketAddr,
    stream: Option<String>,
) -> Result<(), Refusal> {
    let name = match stream {
        Some(name) => name,
        None => {
            let limit = ingest.head_time;
            let asked = tokio::time::timeout(limit, preamble(ingest, connection, reader)).await;
            asked.map_err(|_| Refusal::Silent(limit))??
        }
    };
    tracing::info!(%peer, stream = name, "publish over TCP");
    let mut intake = Intake::new(&ingest.streams, Arc::clone(&ingest.traffic), name, peer);
    intake.push(reader.rest()).await?;
    let stall = ingest.stall_limit;
    loop {
        let timed = latency::stage(Stage::Receive);
        let read = tokio::time::timeout(stall, reader.read(connection)).span(site!(Stage::Receive.name())).await;
        drop(timed);
        let bytes = read.map_err(|_| Refusal::Silent(stall))??;
        if bytes.is_empty() {
            return Ok(intake.leave().await?);
        }
        ingest.traffic.received.fetch_add(bytes.len() as u64, Relaxed);
        intake.push(bytes).await?;
    }
}

/// Reads `PUBLISH name key`; gives the name.
async fn preamble(ingest: &Ingest, connection: &mut TcpStream, reader: &mut Reader) -> Result<String, Refusal> {
    let line = loop {
        if let Some(line) = reader.line() {
            break line;
        }
        if reader.slab.len() >= LINE_MAX || !reader.fill(connection).await? {
            return Err(Refusal::Line);
        }
    };
    let line = std::str::from_utf8(&line).map_err(|_| Refusal::Line)?;
    let mut words = line.split_ascii_whitespace();
    let (Some("PUBLISH"), Some(name), Some(key), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Line);
    };
    if !ingest.write_key.matches(key.as_bytes()) {
        return Err(Refusal::Key);
    }
    if !streams::is_name(name) {
        return Err(Refusal::Name);
    }
    Ok(name.to_owned())
}

/// Says why, and reads what is on its way: a socket that is closed with unread bytes takes the answer with it.
async fn part_with(connection: &mut TcpStream, reader: &mut Reader, refusal: &Refusal) -> io::Result<()> {
    connection.write_all(format!("ERROR {refusal}\n").as_bytes()).await?;
    connection.shutdown().await?;
    let mut left = LINGER_BYTES;
    while left > 0 {
        let bytes = reader.read(connection).await?;
        if bytes.is_empty() {
            break;
        }
        left = left.saturating_sub(bytes.len());
    }
    Ok(())
}

/// Reads a socket into slabs.
#[derive(Default)]
pub(crate) struct Reader {
    /// What was read and not given on, and spare room behind it.
    slab: BytesMut,
}

impl Reader {
    /// Reads what there is into the spare room; false at the end.
    async fn fill(&mut self, connection: &TcpStream) -> io::Result<bool> {
        loop {
            connection.readable().await?;
            if self.slab.capacity() - self.slab.len() < ROOM_MIN {
                let mut fresh = BytesMut::with_capacity(SLAB);
                // Not more than the beginning of a preamble.
                fresh.extend_from_slice(&self.slab);
                self.slab = fresh;
            }
            match connection.try_read_buf(&mut self.slab) {
                Ok(n) => return Ok(n > 0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What was read and not given on.
    fn rest(&mut self) -> Bytes {
        self.slab.split().freeze()
    }

    /// The next bytes; none at the end.
    pub(crate) async fn read(&mut self, connection: &TcpStream) -> io::Result<Bytes> {
        self.fill(connection).await?;
        Ok(self.rest())
    }

    /// Takes a line off the front, without its end.
    fn line(&mut self) -> Option<Bytes> {
        let end = self.slab.iter().take(LINE_MAX).position(|&byte| byte == b'\n')?;
        let line = self.slab.split_to(end).freeze();
        self.slab.advance(1);
        Some(line)
    }
}
