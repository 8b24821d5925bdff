//! `weir publish FILE URL`: pushes a file as a live stream at its own speed, as an encoder would.
//!
//! MP4 is cut into fragments as for `as=fmp4`, MPEG-TS is sent as it is, both in one chunked request and each piece
//! when it is due. Looped, the times begin again: the server takes that as an encoder that was restarted.

use super::fail;
use crate::media::ReadAt;
use crate::media::index::{Index, Position, Until};
use crate::media::mp4::{Along, Chunk};
use crate::media::slices::Piece;
use crate::media::time::{DecimalTime, ticks_to_us};
use crate::media::ts::{self, Table};
use crate::store::MappedFile;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  weir publish film.mp4 http://127.0.0.1:8080/live/cam --write-key KEY --loop")]
pub(super) struct Arguments {
    /// A video: MP4, MOV or MPEG-TS
    file: PathBuf,
    /// http://HOST:PORT/live/NAME
    url: String,
    /// The server's write key
    #[arg(long, env = "WEIR_WRITE_KEY", value_name = "KEY", hide_env_values = true)]
    write_key: Option<String>,
    /// Begin again at the end, until interrupted
    #[arg(long = "loop")]
    repeat: bool,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let publisher = match Publisher::open(&arguments.file) {
        Ok(publisher) => publisher,
        Err(error) => return fail(1, &format!("{}: {error}", arguments.file.display())),
    };
    let Some((address, path)) = split(&arguments.url) else {
        return fail(super::USAGE, &format!("{:?} is not of the form http://HOST:PORT/live/NAME", arguments.url));
    };
    let key = arguments.write_key.as_deref().unwrap_or_default();
    let bar = ProgressBar::new(publisher.length());
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    match publisher.publish(address, path, key, arguments.repeat, |sent| bar.set_position(sent)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &format!("{}: {error}", arguments.url)),
    }
}

/// Host with port, and path, of an `http` URL.
fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    let slash = rest.find('/')?;
    Some((&rest[..slash], &rest[slash..]))
}

/// A file that is ready to be pushed.
pub(super) struct Publisher {
    file: MappedFile,
    index: Index,
    /// How an MP4 is cut; MPEG-TS goes as it is.
    chunk: Option<Chunk>,
    /// Where the packets of an M2TS begin, whose prefixes are left out.
    prefixed_from: Option<u64>,
}

/// A packet of M2TS, and the time stamp in front of it.
const M2TS: u64 = 192;
const PREFIX: u64 = 4;

/// Bytes of the file in one write.
const BLOCK: usize = 256 << 10;

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Publisher {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let file = MappedFile::open(path)?;
        let index = Index::open_trusted(Index::build(&file)?.into())?;
        let start = Position::Time(DecimalTime { value: 0, decimals: 0 });
        let chunk = match index.packets() {
            Some(_) => None,
            None => Some(index.fmp4(&file, &start, Until::Size(u64::MAX), Along::Sound)?.1),
        };
        let prefixed_from = match ts::packet::sniff_start(&file) {
            Some((ts::PacketSize::M2ts192, first)) if chunk.is_none() => Some(first),
            _ => None,
        };
        Ok(Self { file, index, chunk, prefixed_from })
    }

    /// Bytes of one round.
    fn length(&self) -> u64 {
        self.chunk.as_ref().map_or_else(|| self.file.size(), Chunk::length)
    }

    /// Pushes until the end of the file, or for ever; `progress` is told the bytes of this round.
    pub(super) fn publish(
        &self,
        address: &str,
        path: &str,
        key: &str,
        repeat: bool,
        progress: impl Fn(u64),
    ) -> Result<(), Failure> {
        let mut socket =
            TcpStream::connect(if address.contains(':') { address.to_owned() } else { format!("{address}:80") })?;
        socket.set_nodelay(true)?;
        write!(
            socket,
            "PUT {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nTransfer-Encoding: chunked\r\n\
             Content-Type: {}\r\nConnection: close\r\n\r\n",
            if self.chunk.is_some() { "video/mp4" } else { "video/mp2t" }
        )?;
        loop {
            let sent = self.round(&mut socket, &progress);
            if let Err(error) = sent {
                // The server may have said why before it closed.
                return Err(refusal(&mut socket).map_or_else(|| error.into(), Failure::from));
            }
            if !repeat {
                break;
            }
        }
        socket.write_all(b"0\r\n\r\n")?;
        refusal(&mut socket).map_or(Ok(()), |refused| Err(refused.into()))
    }

    /// The file once, each piece when it is due.
    fn round(&self, socket: &mut TcpStream, progress: &impl Fn(u64)) -> io::Result<()> {
        let begun = Instant::now();
        let last_us = match (&self.chunk, self.index.packets()) {
            (Some(chunk), _) => self.fragments(chunk, socket, begun, progress)?,
            (None, Some(table)) => self.packets(table, socket, begun, progress)?,
            (None, None) => 0,
        };
        // The last piece lasts, too, before the next round begins.
        wait_until(begun, self.duration_us().max(last_us));
        Ok(())
    }

    /// Sends the fragments of an MP4; gives when the last one was due.
    fn fragments(
        &self,
        chunk: &Chunk,
        socket: &mut TcpStream,
        begun: Instant,
        progress: &impl Fn(u64),
    ) -> io::Result<i64> {
        let whole = 0..chunk.length();
        let (mut sent, mut due_us) = (0, 0);
        for part in chunk.parts(&whole) {
            due_us = chunk.part_start_us(part);
            wait_until(begun, due_us);
            let pieces = self.index.fmp4_part(&self.file, chunk, part, &whole).map_err(io::Error::other)?;
            for piece in pieces {
                sent += piece.len();
                self.send(socket, &piece)?;
            }
            progress(sent);
        }
        Ok(due_us)
    }

    /// Sends an MPEG-TS file so that each frame is there when it is shown, and with it what lies before it; gives when
    /// the last one was due.
    fn packets(
        &self,
        table: &Table,
        socket: &mut TcpStream,
        begun: Instant,
        progress: &impl Fn(u64),
    ) -> io::Result<i64> {
        let (mut sent, mut due_us) = (0, 0);
        for frame in (0..table.frames()).filter_map(|n| table.frame(n)) {
            let end = frame.offset.saturating_add(frame.size).min(self.file.size());
            if end <= sent {
                continue;
            }
            due_us = ticks_to_us(i64::try_from(frame.time).unwrap_or(i64::MAX), 90_000);
            wait_until(begun, due_us);
            self.send(socket, &Piece::Source { offset: sent, len: end - sent })?;
            sent = end;
            progress(sent);
        }
        let rest = self.file.size().saturating_sub(sent);
        if rest > 0 {
            self.send(socket, &Piece::Source { offset: sent, len: rest })?;
        }
        Ok(due_us)
    }

    fn duration_us(&self) -> i64 {
        let duration = self.index.summary().duration;
        duration.map_or(0, |time| i64::try_from(time.num * 1_000_000 / i128::from(time.den.max(1))).unwrap_or(0))
    }

    /// Sends some bytes. Reads with `pread`: a file that was cut is an error here, and no signal.
    fn send(&self, socket: &mut TcpStream, piece: &Piece) -> io::Result<()> {
        let (offset, len) = match piece {
            Piece::Generated(bytes) => return chunk(socket, bytes),
            Piece::Source { offset, len } => (*offset, *len),
        };
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let mut bytes = vec![0u8; usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK)];
            self.file.read_exact_at(at, &mut bytes)?;
            let read = bytes.len() as u64;
            if let Some(first) = self.prefixed_from {
                let mut position = at;
                bytes.retain(|_| {
                    position += 1;
                    position > first && (position - 1 - first) % M2TS >= PREFIX
                });
            }
            chunk(socket, &bytes)?;
            at += read;
        }
        Ok(())
    }
}

/// One chunk of the request's body.
fn chunk(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        // It would end the body.
        return Ok(());
    }
    write!(socket, "{:x}\r\n", bytes.len())?;
    socket.write_all(bytes)?;
    socket.write_all(b"\r\n")
}

fn wait_until(begun: Instant, due_us: i64) {
    let due = begun + Duration::from_micros(u64::try_from(due_us).unwrap_or(0));
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// The server's answer, when it is an error: its status line and its detail.
fn refusal(socket: &mut TcpStream) -> Option<String> {
    let mut answer = Vec::new();
    let _ = socket.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = socket.take(64 << 10).read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    let status = text.lines().next()?.strip_prefix("HTTP/1.1 ")?;
    if status.starts_with('2') {
        return None;
    }
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    let detail = serde_json::from_str::<serde_json::Value>(body).ok();
    let detail = detail.as_ref().and_then(|problem| problem["detail"].as_str()).unwrap_or(body);
    Some(format!("{status}: {detail}"))
}
