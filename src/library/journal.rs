//! The journal of an upload in parts: which bytes are on the disk, as a log that survives a crash.
//!
//! A file of records, each `length u32, CRC-32 u32, payload`, little endian. The first says what is uploaded; the
//! others say that a range is there, or no longer is. A record is synced before its part is acknowledged. A torn last
//! record is dropped. It knows nothing about the data file but its name.

use super::ranges::Ranges;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const THERE: u8 = 1;
const GONE: u8 = 2;
/// Length and checksum.
const FRAME_BYTES: usize = 8;
/// Kind, start, end.
const RANGE_BYTES: usize = 1 + 8 + 8;
/// Paths and ids are bounded by the file system.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// A journal is written anew when it has this many records more than it needs.
const SLACK_RECORDS: u64 = 4096;
/// A longer file is not one of ours: [`SLACK_RECORDS`] and the bound on separate ranges keep it far below.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What is uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) version: u32,
    /// The library's path: libraries may share a state directory.
    pub(super) library: String,
    pub(super) id: String,
    pub(super) total: u64,
    /// The hidden file that holds the bytes.
    pub(super) data: String,
    /// It must not replace a video.
    pub(super) exclusive: bool,
}

pub(super) const VERSION: u32 = 1;

pub(super) struct Journal {
    file: File,
    path: PathBuf,
    header: Header,
    /// Where the next record goes.
    end: u64,
    records: u64,
}

impl Journal {
    pub(super) fn create(path: &Path, header: Header) -> io::Result<Self> {
        let mut file = open_options().create_new(true).open(path)?;
        let frame = header_frame(&header)?;
        let written = file.write_all(&frame).and_then(|()| file.sync_all()).and_then(|()| sync_directory(path));
        if let Err(error) = written {
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(Self { file, path: path.to_owned(), header, end: frame.len() as u64, records: 0 })
    }

    /// Reads a journal of an earlier process; `None` if it has no readable header.
    pub(super) fn open(path: &Path) -> io::Result<Option<(Self, Ranges)>> {
        let mut file = open_options().open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        (&mut file).take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        let mut rest = bytes.as_slice();
        let header = take_frame(&mut rest).and_then(|payload| serde_json::from_slice::<Header>(payload).ok());
        let Some(header) = header.filter(|h| h.version == VERSION) else { return Ok(None) };
        let mut ranges = Ranges::default();
        let mut records = 0;
        let mut good = rest.len();
        while let Some((kind, range)) = take_frame(&mut rest).and_then(decode_range) {
            match kind {
                THERE if range.end <= header.total => ranges.insert(range),
                GONE => ranges.remove(range),
                _ => break,
            }
            records += 1;
            good = rest.len();
        }
        let end = (bytes.len() - good) as u64;
        if good > 0 {
            tracing::debug!(path = %path.display(), bytes = good, "torn record of an upload journal dropped");
            file.set_len(end)?;
            file.sync_all()?;
        }
        Ok(Some((Self { file, path: path.to_owned(), header, end, records }, ranges)))
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Records that the range is there; returns once that is on the disk.
    pub(super) fn there(&mut self, range: Range<u64>, known: &Ranges) -> io::Result<()> {
        if self.records > SLACK_RECORDS + 2 * known.len() as u64 {
            self.rewrite(known)?;
        }
        self.append(THERE, range)
    }

    /// Records that the range is about to be overwritten.
    pub(super) fn gone(&mut self, range: Range<u64>) -> io::Result<()> {
        self.append(GONE, range)
    }

    fn append(&mut self, kind: u8, range: Range<u64>) -> io::Result<()> {
        let frame = range_frame(kind, &range);
        let appended = self.file.write_all_at(&frame, self.end).and_then(|()| self.file.sync_data());
        if let Err(error) = appended {
            // Whatever reached the disk must not count.
            let _ = self.file.set_len(self.end);
            return Err(error);
        }
        self.end += frame.len() as u64;
        self.records += 1;
        Ok(())
    }

    /// Replaces the file by one with a record for each range.
    fn rewrite(&mut self, known: &Ranges) -> io::Result<()> {
        let mut bytes = header_frame(&self.header)?;
        for range in known.iter() {
            bytes.extend_from_slice(&range_frame(THERE, &range));
        }
        let temporary = self.path.with_extension("tmp");
        let _ = fs::remove_file(&temporary);
        let mut file = open_options().create_new(true).open(&temporary)?;
        let replaced =
            file.write_all(&bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, &self.path));
        if let Err(error) = replaced {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.file = file;
        self.end = bytes.len() as u64;
        self.records = known.len() as u64;
        sync_directory(&self.path)
    }

    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "journal of an upload not removed");
        }
    }
}

fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
    options
}

fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_BYTES + payload.len());
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn header_frame(header: &Header) -> io::Result<Vec<u8>> {
    let payload = serde_json::to_vec(header)?;
    if payload.len() > HEADER_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "id too long for a journal"));
    }
    Ok(frame(&payload))
}

fn range_frame(kind: u8, range: &Range<u64>) -> Vec<u8> {
    let mut payload = Vec::with_capacity(RANGE_BYTES);
    payload.push(kind);
    payload.extend_from_slice(&range.start.to_le_bytes());
    payload.extend_from_slice(&range.end.to_le_bytes());
    frame(&payload)
}

/// The next whole and undamaged record's payload.
fn take_frame<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (head, after) = rest.split_at_checked(FRAME_BYTES)?;
    let length = u32::from_le_bytes(head[..4].try_into().ok()?);
    let checksum = u32::from_le_bytes(head[4..].try_into().ok()?);
    let (payload, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
    if payload.len() > HEADER_BYTES_MAX || crc32fast::hash(payload) != checksum {
        return None;
    }
    *rest = after;
    Some(payload)
}

fn decode_range(payload: &[u8]) -> Option<(u8, Range<u64>)> {
    if payload.len() != RANGE_BYTES {
        return None;
    }
    let start = u64::from_le_bytes(payload[1..9].try_into().ok()?);
    let end = u64::from_le_bytes(payload[9..].try_into().ok()?);
    (start < end).then_some((payload[0], start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let text = |s: &str| s.to_owned();
        Header { version: VERSION, library: text("/l"), id: text("a"), total: 100, data: text("d"), exclusive: false }
    }

    #[test]
    fn every_torn_tail_leaves_the_records_before_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.journal");
        let mut journal = Journal::create(&path, header()).expect("created");
        let none = Ranges::default();
        journal.there(0..10, &none).expect("appended");
        let first = journal.end;
        journal.there(20..30, &none).expect("appended");
        let second = journal.end;
        journal.gone(5..25).expect("appended");
        drop(journal);
        let whole = fs::read(&path).expect("read");
        for length in first..whole.len() as u64 {
            fs::write(&path, &whole[..length as usize]).expect("written");
            let (journal, ranges) = Journal::open(&path).expect("read").expect("a header");
            let expected = if length < second { std::iter::once(10..100).collect() } else { vec![10..20, 30..100] };
            assert_eq!(ranges.missing(100), expected, "cut at {length}");
            assert_eq!(fs::metadata(&path).expect("there").len(), journal.end, "the tail is cut off");
        }
        fs::write(&path, &whole).expect("written");
        let (mut journal, ranges) = Journal::open(&path).expect("read").expect("a header");
        assert_eq!(ranges.missing(100), vec![5..25, 30..100]);
        journal.there(90..100, &ranges).expect("appended");
        let (_, ranges) = Journal::open(&path).expect("read").expect("a header");
        assert_eq!(ranges.missing(100), vec![5..25, 30..90]);
    }

    #[test]
    fn a_damaged_record_ends_the_journal_and_a_damaged_header_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.journal");
        let mut journal = Journal::create(&path, header()).expect("created");
        let start = journal.end as usize;
        journal.there(0..10, &Ranges::default()).expect("appended");
        let mut bytes = fs::read(&path).expect("read");
        bytes[start + 12] ^= 1;
        fs::write(&path, &bytes).expect("written");
        let (_, ranges) = Journal::open(&path).expect("read").expect("a header");
        assert!(ranges.is_empty());
        bytes[9] ^= 1;
        fs::write(&path, &bytes).expect("written");
        assert!(Journal::open(&path).expect("read").is_none());
        fs::write(&path, b"").expect("written");
        assert!(Journal::open(&path).expect("read").is_none());
    }

    #[test]
    fn a_long_journal_is_written_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.journal");
        let mut journal = Journal::create(&path, header()).expect("created");
        let mut known = Ranges::default();
        known.insert(0..10);
        journal.records = SLACK_RECORDS + 3;
        journal.there(20..30, &known).expect("appended");
        assert_eq!(journal.records, 2);
        let (_, ranges) = Journal::open(&path).expect("read").expect("a header");
        assert_eq!(ranges.missing(100), vec![10..20, 30..100]);
    }
}
