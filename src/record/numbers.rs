//! The file in `state_dir` that holds which numbers of which stream are reserved: a line per stream, written whole
//! under another name, synced and renamed, so that a crash leaves the old file or the new one.
//!
//! One thread writes for all streams; what many ask for at once is one write. Where the file cannot be written,
//! streams go on, and the log says so.

use super::lock;
use crate::live::numbers::{Keeper, Kept, Numbers};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use tokio::sync::watch;

const FILE: &str = "stream_numbers";
const FIRST_LINE: &str = "weir stream numbers 1";

/// All reservations.
pub struct NumberFile {
    book: Arc<Mutex<Book>>,
    /// Wakes the thread.
    changed: mpsc::Sender<()>,
    /// The version of the book that is on the disk.
    kept: watch::Receiver<u64>,
}

#[derive(Clone, Default)]
struct Book {
    /// Where the reserved numbers of each name end.
    ends: BTreeMap<String, Numbers>,
    version: u64,
}

impl NumberFile {
    /// Reads what earlier runs reserved, and starts the thread. Blocks; for the start of a server.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        let ends = match fs::read_to_string(&path) {
            Ok(text) => parse(&text).ok_or_else(|| damaged(&path))?,
            // What is wrong with the directory shows when it is written to.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                BTreeMap::new()
            }
            Err(error) => return Err(error),
        };
        let book = Arc::new(Mutex::new(Book { ends, version: 0 }));
        let (changed, asked) = mpsc::channel();
        let (done, kept) = watch::channel(0);
        let shared = Arc::clone(&book);
        let directory = state_dir.to_owned();
        thread::Builder::new()
            .name("weir-numbers".to_owned())
            .spawn(move || keep(&shared, &asked, &done, &directory))?;
        Ok(Self { book, changed, kept })
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Numbers>)) {
        let mut book = lock(&self.book);
        change(&mut book.ends);
        book.version += 1;
        drop(book);
        let _ = self.changed.send(());
    }

    /// Waits until everything is on the disk: for the end of a server.
    pub fn flush(&self) {
        let version = lock(&self.book).version;
        while *self.kept.borrow() < version && self.kept.has_changed().is_ok() {
            thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

impl Keeper for NumberFile {
    fn begin(&self, name: &str) -> Numbers {
        let mut start = Numbers::default();
        self.change(|ends| {
            let end = ends.entry(name.to_owned()).or_default();
            start = *end;
            *end = start.block_end();
        });
        start
    }

    fn reserve(&self, name: &str, end: Numbers) {
        self.change(|ends| {
            let known = ends.entry(name.to_owned()).or_default();
            *known = known.max(end);
        });
    }

    fn settle(&self, name: &str, next: Numbers) {
        self.change(|ends| {
            ends.insert(name.to_owned(), next);
        });
    }

    fn kept(&self) -> Kept {
        let version = lock(&self.book).version;
        let mut kept = self.kept.clone();
        Box::pin(async move {
            let _ = kept.wait_for(|on_disk| *on_disk >= version).await;
        })
    }
}

/// Writes the book whenever it changed, until nobody can change it any more.
fn keep(book: &Mutex<Book>, asked: &mpsc::Receiver<()>, done: &watch::Sender<u64>, directory: &Path) {
    let mut complained = false;
    while asked.recv().is_ok() {
        while asked.try_recv().is_ok() {}
        let Book { ends, version } = lock(book).clone();
        if let Err(error) = write(directory, &ends)
            && !std::mem::replace(&mut complained, true)
        {
            tracing::warn!(%error, "the numbers of streams cannot be kept: after a crash they may be used again");
        }
        // Streams go on, kept or not.
        done.send_replace(version);
    }
}

fn write(directory: &Path, ends: &BTreeMap<String, Numbers>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut text = format!("{FIRST_LINE}\n");
    for (name, end) in ends {
        let _ = writeln!(text, "{name} {} {} {} {}", end.part, end.segment, end.discontinuity, end.offset);
    }
    let temporary = directory.join(format!("{FILE}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    fs::rename(&temporary, directory.join(FILE))?;
    File::open(directory)?.sync_all()
}

/// The lines of the file; `None` when it is not one.
fn parse(text: &str) -> Option<BTreeMap<String, Numbers>> {
    let mut lines = text.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let line = |line: &str| {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        let mut number = || words.next()?.parse().ok();
        let end = Numbers { part: number()?, segment: number()?, discontinuity: number()?, offset: number()? };
        Some((name, end))
    };
    lines.map(line).collect()
}

fn damaged(path: &Path) -> io::Error {
    let path = path.display();
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{path} is damaged; removing it lets streams of known names use their numbers again"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(file: &NumberFile) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(file.kept());
    }

    #[test]
    fn what_was_reserved_is_never_given_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = NumberFile::open(directory.path()).expect("opened");
        assert_eq!(file.begin("cam"), Numbers::default());
        assert_eq!(file.begin("other"), Numbers::default());
        wait(&file);
        // A crash: nothing was settled.
        let again = NumberFile::open(directory.path()).expect("opened");
        let start = again.begin("cam");
        assert_eq!(start, Numbers::default().block_end());
        let used = Numbers { part: start.part + 3, offset: start.offset + 1000, ..start };
        again.settle("cam", used);
        wait(&again);
        let third = NumberFile::open(directory.path()).expect("opened");
        assert_eq!(third.begin("cam"), used);
        third.reserve("cam", used.block_end().block_end());
        third.flush();
        let fourth = NumberFile::open(directory.path()).expect("opened");
        assert_eq!(fourth.begin("cam"), used.block_end().block_end());
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_an_empty_one() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(FILE), "cam 1 2 3 4\n").expect("written");
        assert!(NumberFile::open(directory.path()).is_err());
        fs::write(directory.path().join(FILE), format!("{FIRST_LINE}\ncam 1 2 3\n")).expect("written");
        assert!(NumberFile::open(directory.path()).is_err());
        fs::write(directory.path().join(FILE), format!("{FIRST_LINE}\ncam 1 2 3 4\n")).expect("written");
        let file = NumberFile::open(directory.path()).expect("opened");
        assert_eq!(file.begin("cam"), Numbers { part: 1, segment: 2, discontinuity: 3, offset: 4 });
    }

    #[test]
    fn a_directory_that_takes_no_file_stops_no_stream() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("a file");
        fs::write(&place, "").expect("written");
        let file = NumberFile::open(&place.join("below")).expect("opened");
        assert_eq!(file.begin("cam"), Numbers::default());
        wait(&file);
        assert_eq!(file.begin("cam"), Numbers::default().block_end());
    }
}
