//! `weir publish FILE URL`: pushes a file as a live stream at its own speed, as an encoder would.
//!
//! The file is cut into fragments as for `as=fmp4` and sent in one chunked request, each fragment when it is due.

use super::fail;
use crate::media::ReadAt;
use crate::media::index::{Index, Position, Until};
use crate::media::mp4::Chunk;
use crate::media::slices::Piece;
use crate::media::time::DecimalTime;
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
    /// A video: MP4 or MOV
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
    let bar = ProgressBar::new(publisher.chunk.length());
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
    chunk: Chunk,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Publisher {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let file = MappedFile::open(path)?;
        let index = Index::open_trusted(Index::build(&file)?.into())?;
        let start = Position::Time(DecimalTime { value: 0, decimals: 0 });
        let (_, chunk) = index.fmp4(&file, &start, Until::Size(u64::MAX))?;
        Ok(Self { file, index, chunk })
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
             Content-Type: video/mp4\r\nConnection: close\r\n\r\n"
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

    /// The file once, each fragment when it is due.
    fn round(&self, socket: &mut TcpStream, progress: &impl Fn(u64)) -> io::Result<()> {
        let begun = Instant::now();
        let whole = 0..self.chunk.length();
        let parts = self.chunk.parts(&whole);
        let mut sent = 0;
        for part in parts.clone() {
            let due_us = u64::try_from(self.chunk.part_start_us(part)).unwrap_or(0);
            thread::sleep((begun + Duration::from_micros(due_us)).saturating_duration_since(Instant::now()));
            let pieces = self.index.fmp4_part(&self.file, &self.chunk, part, &whole).map_err(io::Error::other)?;
            for piece in pieces {
                sent += piece.len();
                self.send(socket, &piece)?;
            }
            progress(sent);
        }
        // The last fragment lasts, too, before the next round begins.
        let last_us = parts.last().map_or(0, |last| self.chunk.part_start_us(last));
        let end_us = self.duration_us().max(last_us);
        let end = begun + Duration::from_micros(u64::try_from(end_us).unwrap_or(0));
        thread::sleep(end.saturating_duration_since(Instant::now()));
        Ok(())
    }

    fn duration_us(&self) -> i64 {
        let duration = self.index.summary().duration;
        duration.map_or(0, |time| i64::try_from(time.num * 1_000_000 / i128::from(time.den.max(1))).unwrap_or(0))
    }

    /// One chunk of the request's body. Reads with `pread`: a file that was cut is an error here, and no signal.
    fn send(&self, socket: &mut TcpStream, piece: &Piece) -> io::Result<()> {
        write!(socket, "{:x}\r\n", piece.len())?;
        match piece {
            Piece::Generated(bytes) => socket.write_all(bytes)?,
            Piece::Source { offset, len } => {
                let mut buffer = vec![0u8; 256 << 10];
                let (mut at, end) = (*offset, offset + len);
                while at < end {
                    let n = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
                    self.file.read_exact_at(at, &mut buffer[..n])?;
                    socket.write_all(&buffer[..n])?;
                    at += n as u64;
                }
            }
        }
        socket.write_all(b"\r\n")
    }
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
