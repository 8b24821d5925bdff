//! The library against real files: listing, watching, index cache, uploads, deletes.

mod indexing;
mod parts;
mod room;
mod uploading;
mod watching;

use bytes::Bytes;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tracing_subscriber::layer::SubscriberExt;
use weir::library::indexer::Parser;
use weir::library::{
    Condition, DeleteError, FileError, IndexError, IndexState, Library, LibraryConfig, NoIndex, OpenError, PartOutcome,
    Stored, UploadError,
};
use weir::media::ReadAt;
use weir::media::index::{BuildError, Index};

/// `ffmpeg -f lavfi -i testsrc=size=32x32:rate=10:duration=1 -c:v libx264 -preset veryfast -pix_fmt yuv420p
/// -fflags +bitexact -flags +bitexact library-tiny.mp4`
const TINY_MP4: &[u8] = include_bytes!("../fixtures/library-tiny.mp4");

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("videos")).expect("created");
        Self { dir }
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("videos")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.library().join(name);
        fs::create_dir_all(path.parent().expect("below the library")).expect("created");
        fs::write(&path, bytes).expect("written");
        path
    }

    fn config(&self) -> LibraryConfig {
        let mut config = LibraryConfig::new(self.library());
        config.state_dir = Some(self.state());
        config.space_reserve = 0;
        config
    }

    fn open(&self) -> Library {
        Library::open(self.config()).expect("opened")
    }

    fn hidden(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.library().join(".weir/uploads")) else { return Vec::new() };
        entries.map(|e| e.expect("read").file_name().to_string_lossy().into_owned()).collect()
    }

    /// Waits until the dropped library's last thread has let go of its hidden files, as a crash would at once.
    fn released(&self) {
        for name in self.hidden() {
            let Ok(file) = File::open(self.library().join(".weir/uploads").join(name)) else { continue };
            eventually("the lock is free", SOON, || file.try_lock().is_ok());
        }
    }

    fn journals(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.state().join("uploads")) else { return Vec::new() };
        entries.map(|e| e.expect("read").path()).collect()
    }
}

fn ids(library: &Library) -> Vec<String> {
    library.catalogue().videos().iter().map(|v| v.id().to_owned()).collect()
}

fn etag(library: &Library, id: &str) -> String {
    library.video(id).expect("listed").etag().to_owned()
}

#[track_caller]
fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

const SOON: Duration = Duration::from_secs(10);

/// Gives the watcher's thread time to set its watches.
fn watching(library: &Library, place: &Place) {
    // A file that was renamed in is listed at once, unless inotify is not there yet: then after it has settled.
    let probe = place.dir.path().join("probe");
    fs::write(&probe, b"probe").expect("written");
    fs::rename(&probe, place.library().join("probe")).expect("renamed");
    eventually("the probe is listed", SOON, || library.video("probe").is_some());
    fs::remove_file(place.library().join("probe")).expect("removed");
    eventually("the probe is gone", SOON, || library.video("probe").is_none());
}

async fn put(library: &Library, id: &str, bytes: &[u8]) -> Result<Stored, UploadError> {
    put_if(library, id, bytes, Condition::Always).await
}

async fn put_if(library: &Library, id: &str, bytes: &[u8], condition: Condition) -> Result<Stored, UploadError> {
    let mut upload = library.begin_upload(id, Some(bytes.len() as u64), condition).await?;
    for piece in bytes.chunks(7777) {
        upload.write(Bytes::copy_from_slice(piece)).await?;
    }
    upload.finish().await
}

async fn part(library: &Library, id: &str, start: u64, bytes: &[u8], total: u64) -> Result<PartOutcome, UploadError> {
    let end = start + bytes.len() as u64 - 1;
    let mut part = library.write_part(id, start, end, total, Condition::Always).await?;
    part.write(Bytes::copy_from_slice(bytes)).await?;
    part.finish().await
}

#[track_caller]
fn missing(outcome: Result<PartOutcome, UploadError>) -> Vec<std::ops::Range<u64>> {
    match outcome {
        Ok(PartOutcome::Accepted { missing }) => missing,
        other => panic!("not accepted: {other:?}"),
    }
}

fn patterned(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

/// Lines of WARN and above of the whole test process; tests look for their own paths and ids.
fn warnings() -> &'static Mutex<Vec<String>> {
    static WARNINGS: OnceLock<Mutex<Vec<String>>> = OnceLock::new();
    static INSTALLED: OnceLock<()> = OnceLock::new();
    struct Collect;
    struct Text(String);
    impl tracing::field::Visit for Text {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            self.0.push_str(&format!("{}={value:?} ", field.name()));
        }
    }
    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Collect {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            if *event.metadata().level() <= tracing::Level::WARN {
                let mut text = Text(String::new());
                event.record(&mut text);
                WARNINGS.get_or_init(Mutex::default).lock().expect("not poisoned").push(text.0);
            }
        }
    }
    INSTALLED.get_or_init(|| {
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Collect));
    });
    WARNINGS.get_or_init(Mutex::default)
}

fn warnings_about(text: &str) -> usize {
    warnings().lock().expect("not poisoned").iter().filter(|line| line.contains(text)).count()
}

fn indexed(library: &Library) {
    library.start_background();
    eventually("all are indexed", Duration::from_secs(60), || {
        library.catalogue().videos().iter().all(|v| !matches!(v.index_state(), IndexState::Pending))
    });
}

#[test]
fn what_is_listed_and_what_is_not() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    place.write("a.mp4", b"a");
    place.write("sub/b c.ts", b"bb");
    place.write("sub/deep/ü.txt", b"ccc");
    place.write(".hidden.mp4", b"x");
    place.write(".dir/x.mp4", b"x");
    let not_utf8 = place.library().join(std::ffi::OsStr::from_bytes(b"bad\xff.mp4"));
    fs::write(not_utf8, b"x").expect("written");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.library().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .expect("a FIFO");
    let outside = place.dir.path().join("secret.mp4");
    fs::write(&outside, b"secret").expect("written");
    symlink(&outside, place.library().join("out.mp4")).expect("linked");
    symlink("../secret.mp4", place.library().join("out2.mp4")).expect("linked");
    symlink(place.dir.path(), place.library().join("outdir")).expect("linked");
    symlink("a.mp4", place.library().join("in.mp4")).expect("linked");
    symlink("sub", place.library().join("alias")).expect("linked");
    symlink("..", place.library().join("sub/loop")).expect("linked");
    symlink(".dir/x.mp4", place.library().join("to-hidden.mp4")).expect("linked");
    symlink("nowhere", place.library().join("dangling")).expect("linked");
    let library = place.open();
    let expected =
        ["a.mp4", "alias/b c.ts", "alias/deep/ü.txt", "in.mp4", "sub/b c.ts", "sub/deep/ü.txt"].map(str::to_owned);
    assert_eq!(ids(&library), expected);
    assert_eq!(library.video("sub/b c.ts").expect("listed").size_bytes(), 2);
    for id in ["", "/", "..", "../secret.mp4", "sub", "sub/", "/a.mp4", "./a.mp4", "sub/../a.mp4", "a.mp4\0"] {
        assert!(library.video(id).is_none(), "{id:?}");
    }
    let tag = etag(&library, "a.mp4");
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2 && !tag[1..tag.len() - 1].contains('"'));
}

#[test]
fn what_was_passed_over_is_said_at_start() {
    use std::os::unix::ffi::OsStrExt;
    let builder = crate::support::server::Server::builder().bytes("a.bin", b"a").bytes(".hidden", b"x");
    for name in [&b"bad\xff.mp4"[..], b"worse\xfe"] {
        fs::write(builder.library().join(std::ffi::OsStr::from_bytes(name)), b"x").expect("written");
    }
    let server = builder.allow("not listed").start();
    let log = server.log();
    let line = log.lines().find(|line| line.contains("not listed")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("WARN") && line.contains("passed_over=2"), "{line}");
}

#[test]
fn a_library_that_is_not_there_is_an_error() {
    let place = Place::new();
    for path in [place.library().join("nothing"), place.write("file", b"x")] {
        let error = Library::open(LibraryConfig::new(&path)).map(|_| ()).expect_err("no directory");
        assert!(matches!(error, OpenError::Library { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_changed_is_not_handed_out_under_its_old_etag() {
    let place = Place::new();
    let path = place.write("a", b"first");
    place.write("b", b"b");
    let mut config = place.config();
    // Nobody notices on its own.
    config.poll = Some(Duration::from_secs(3600));
    config.settle = Duration::from_millis(300);
    let library = Library::open(config).expect("opened");
    let video = library.video("a").expect("listed");
    assert_eq!(&video.file().await.expect("opened").slice(0..9)[..], b"first");
    fs::write(&path, b"other!").expect("written");
    assert!(matches!(video.file().await, Err(FileError::Changed { .. })), "already open");
    eventually("the change is listed", SOON, || library.video("a").is_some_and(|v| v.size_bytes() == 6));
    let now = library.video("a").expect("listed");
    assert_ne!(now.etag(), video.etag());
    assert_eq!(&now.file().await.expect("opened").slice(0..9)[..], b"other!");
    // A link in the place of a listed file is refused, even to a file of the same content.
    let b = library.video("b").expect("listed");
    fs::rename(place.library().join("b"), place.library().join("c")).expect("renamed");
    symlink("c", place.library().join("b")).expect("linked");
    assert!(matches!(b.file().await, Err(FileError::Changed { .. })), "not followed");
}

#[tokio::test]
async fn open_files_are_bounded_and_reopened() {
    let place = Place::new();
    for n in 0..40 {
        place.write(&format!("{n:02}"), format!("file {n:02}").as_bytes());
    }
    let mut config = place.config();
    config.files_open_max = 8;
    let library = Library::open(config).expect("opened");
    let directory = place.library().canonicalize().expect("there");
    for round in 0..2 {
        for n in 0..40 {
            let video = library.video(&format!("{n:02}")).expect("listed");
            let file = video.file().await.expect("opened");
            assert_eq!(&file.slice(0..99)[..], format!("file {n:02}").as_bytes(), "round {round}");
        }
    }
    let open = fs::read_dir("/proc/self/fd").expect("read").filter(|e| {
        let target = e.as_ref().ok().and_then(|e| fs::read_link(e.path()).ok());
        target.is_some_and(|t| t.starts_with(&directory) && t != directory)
    });
    assert!(open.count() <= 8);
}
