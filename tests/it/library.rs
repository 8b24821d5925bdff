//! The library against real files: listing, watching, index cache, uploads, deletes.

use bytes::Bytes;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
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

// Listing

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

// Watching

#[test]
fn a_file_that_is_written_slowly_is_listed_when_it_is_closed() {
    let place = Place::new();
    let library = place.open();
    watching(&library, &place);
    let mut file = File::create(place.library().join("slow.mp4")).expect("created");
    for _ in 0..10 {
        file.write_all(&[1; 1000]).expect("written");
        std::thread::sleep(Duration::from_millis(50));
        assert!(library.video("slow.mp4").is_none(), "still open");
    }
    drop(file);
    let after = eventually("listed on close", SOON, || library.video("slow.mp4").is_some());
    assert!(after < Duration::from_millis(1500), "on close, not after settling: {after:?}");
    assert_eq!(library.video("slow.mp4").expect("listed").size_bytes(), 10_000);
}

#[test]
fn a_file_that_nobody_closes_is_listed_two_seconds_after_it_stopped_growing() {
    let place = Place::new();
    let library = place.open();
    watching(&library, &place);
    let mut file = File::create(place.library().join("open.mp4")).expect("created");
    for _ in 0..5 {
        file.write_all(&[1; 1000]).expect("written");
        std::thread::sleep(Duration::from_millis(300));
    }
    let grown = Instant::now();
    eventually("listed", SOON, || library.video("open.mp4").is_some());
    // The last byte was written up to 300 ms before `grown`.
    assert!(grown.elapsed() >= Duration::from_millis(1600), "{:?}", grown.elapsed());
    assert!(grown.elapsed() < Duration::from_secs(5), "{:?}", grown.elapsed());
    let before = etag(&library, "open.mp4");
    file.write_all(b"more").expect("written");
    drop(file);
    eventually("updated", SOON, || library.video("open.mp4").is_some_and(|v| v.size_bytes() == 5004));
    assert_ne!(etag(&library, "open.mp4"), before);
}

#[test]
fn renamed_deleted_modified_touched() {
    let place = Place::new();
    let path = place.write("a", b"one");
    let library = place.open();
    watching(&library, &place);
    let first = etag(&library, "a");
    fs::write(&path, b"two").expect("written");
    eventually("modified in place", SOON, || library.video("a").is_some_and(|v| v.etag() != first));
    let second = etag(&library, "a");
    let new = place.dir.path().join("new");
    fs::write(&new, b"three").expect("written");
    fs::rename(&new, &path).expect("renamed");
    eventually("replaced by rename", SOON, || library.video("a").is_some_and(|v| v.size_bytes() == 5));
    assert_ne!(etag(&library, "a"), second);
    fs::rename(&path, place.library().join("b")).expect("renamed");
    eventually("renamed", SOON, || ids(&library) == ["b"]);
    let before = etag(&library, "b");
    // Both times, as touch(1) sets them: for the modification time alone the kernel reports a write.
    let times = fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH).set_modified(std::time::UNIX_EPOCH);
    File::open(place.library().join("b")).expect("there").set_times(times).expect("touched");
    eventually("touched", Duration::from_secs(1), || library.video("b").is_some_and(|v| v.etag() != before));
    fs::remove_file(place.library().join("b")).expect("removed");
    eventually("deleted", SOON, || ids(&library).is_empty());
    symlink("/etc/passwd", place.library().join("passwd")).expect("linked");
    fs::write(place.library().join(".x"), b"x").expect("written");
    fs::write(place.library().join("last"), b"x").expect("written");
    eventually("the last one", SOON, || library.video("last").is_some());
    assert_eq!(ids(&library), ["last"]);
}

#[test]
fn directories_come_move_and_go() {
    let place = Place::new();
    let library = place.open();
    watching(&library, &place);
    // Files that appear in a directory before it can be watched are found.
    for n in 0..20 {
        place.write(&format!("d{n}/e/f/x"), b"x");
        place.write(&format!("d{n}/y"), b"y");
    }
    eventually("all are listed", SOON, || library.catalogue().len() == 40);
    fs::rename(place.library().join("d0"), place.library().join("moved")).expect("renamed");
    let listed = |id: &str| library.video(id).is_some();
    eventually("moved", SOON, || listed("moved/e/f/x") && listed("moved/y") && !listed("d0/y") && !listed("d0/e/f/x"));
    place.write("moved/e/later", b"later");
    eventually("the moved directory is watched", Duration::from_secs(1), || listed("moved/e/later"));
    assert!(!listed("d0/e/later"));
    let away = place.dir.path().join("away");
    fs::rename(place.library().join("moved"), &away).expect("renamed");
    eventually("moved out", SOON, || !ids(&library).iter().any(|id| id.starts_with("moved/")));
    fs::write(away.join("unseen"), b"x").expect("written");
    fs::rename(&away, place.library().join("back")).expect("renamed");
    let after = eventually("moved in", SOON, || listed("back/unseen") && listed("back/e/f/x"));
    assert!(after < Duration::from_millis(1500), "renamed in, not settling: {after:?}");
    fs::remove_dir_all(place.library().join("back")).expect("removed");
    fs::create_dir(place.library().join("back")).expect("created");
    place.write("back/again", b"x");
    eventually("removed and made again", SOON, || listed("back/again") && !listed("back/unseen"));
    place.write("back/again2", b"x");
    eventually("watched again", Duration::from_secs(1), || listed("back/again2"));
}

#[test]
fn a_change_below_a_link_shows_under_each_id() {
    let place = Place::new();
    place.write("real/a", b"a");
    symlink("real", place.library().join("alias")).expect("linked");
    let library = place.open();
    watching(&library, &place);
    place.write("real/b", b"b");
    eventually("both", SOON, || library.video("real/b").is_some() && library.video("alias/b").is_some());
    fs::remove_file(place.library().join("real/a")).expect("removed");
    eventually("neither", SOON, || library.video("real/a").is_none() && library.video("alias/a").is_none());
}

#[test]
fn polling_sees_the_same() {
    let place = Place::new();
    place.write("a", b"a");
    let mut config = place.config();
    config.poll = Some(Duration::from_millis(50));
    config.settle = Duration::from_millis(400);
    let library = Library::open(config).expect("opened");
    let mut file = File::create(place.library().join("grows")).expect("created");
    for _ in 0..10 {
        file.write_all(b"x").expect("written");
        std::thread::sleep(Duration::from_millis(100));
        assert!(library.video("grows").is_none(), "it grows");
    }
    eventually("it has settled", SOON, || library.video("grows").is_some_and(|v| v.size_bytes() == 10));
    place.write("new/b", b"b");
    fs::remove_file(place.library().join("a")).expect("removed");
    eventually("came and went", SOON, || ids(&library) == ["grows", "new/b"]);
}

// Index

/// A parser that counts and waits.
fn counting(config: &mut LibraryConfig, wait: Duration) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    config.parser = Arc::new(move |file: &dyn ReadAt| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(wait);
        Index::build(file)
    });
    count
}

#[tokio::test]
async fn a_hundred_requests_build_one_index_even_if_the_first_goes_away() {
    let place = Place::new();
    place.write("a.mp4", TINY_MP4);
    let mut config = place.config();
    let count = counting(&mut config, Duration::from_millis(200));
    let library = Library::open(config).expect("opened");
    let video = library.video("a.mp4").expect("listed");
    assert!(matches!(video.index_state(), IndexState::Pending));
    let first = tokio::time::timeout(Duration::from_millis(50), library.index(&video)).await;
    assert!(first.is_err(), "the first requester went away");
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let tasks: Vec<_> = (0..100)
                .map(|_| {
                    let (library, video) = (library.clone(), Arc::clone(&video));
                    tokio::task::spawn_local(async move { library.index(&video).await.map(|_| ()) })
                })
                .collect();
            for task in tasks {
                task.await.expect("no panic").expect("an index");
            }
        })
        .await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
    assert!(matches!(video.index_state(), IndexState::Ready(_)));
}

#[tokio::test]
async fn a_panic_in_the_parser_is_this_videos_problem() {
    let place = Place::new();
    place.write("evil.mp4", b"evil");
    place.write("good.mp4", TINY_MP4);
    let mut config = place.config();
    config.parser = Arc::new(|file: &dyn ReadAt| {
        assert_ne!(file.size(), 4, "on purpose");
        Index::build(file)
    });
    let library = Library::open(config).expect("opened");
    let evil = library.video("evil.mp4").expect("listed");
    assert!(matches!(library.index(&evil).await, Err(IndexError::Malformed(_))));
    assert!(matches!(evil.index_state(), IndexState::None(NoIndex::Malformed(_))));
    library.index(&library.video("good.mp4").expect("listed")).await.expect("an index");
}

fn indexed(library: &Library) {
    library.start_background();
    eventually("all are indexed", Duration::from_secs(60), || {
        library.catalogue().videos().iter().all(|v| !matches!(v.index_state(), IndexState::Pending))
    });
}

#[test]
fn a_second_start_of_a_thousand_videos_parses_nothing() {
    let place = Place::new();
    for n in 0..1000 {
        place.write(&format!("{}/{n}.mp4", n % 10), if n % 4 == 3 { b"no video" } else { TINY_MP4 });
    }
    let library = place.open();
    let progress = library.progress();
    indexed(&library);
    assert_eq!(library.parsed(), 1000);
    eventually("progress", SOON, || progress.borrow().done == 1000 && progress.borrow().total == 1000);
    drop(library);
    let start = Instant::now();
    let library = place.open();
    assert_eq!(library.catalogue().len(), 1000);
    eprintln!("listed again in {:?}", start.elapsed());
    indexed(&library);
    assert_eq!(library.parsed(), 0);
    let ready = library.catalogue().videos().iter().filter(|v| matches!(v.index_state(), IndexState::Ready(_))).count();
    assert_eq!(ready, 750);
    assert!(matches!(
        library.video("3/3.mp4").expect("listed").index_state(),
        IndexState::None(NoIndex::Unsupported(_))
    ));
}

#[tokio::test]
async fn corrupt_and_stale_entries_are_rebuilt_once_with_one_warning() {
    warnings();
    let place = Place::new();
    place.write("corrupt-entry.mp4", TINY_MP4);
    let library = place.open();
    indexed(&library);
    drop(library);
    let entries = || -> Vec<PathBuf> {
        fs::read_dir(place.state().join("index")).expect("a cache").map(|e| e.expect("read").path()).collect()
    };
    let [entry] = &entries()[..] else { panic!("one entry") };
    let good = fs::read(entry).expect("read");
    let mut expected = 0;
    // Cut short, and a bit flipped in magic, head, key and entry.
    let mut damaged: Vec<Vec<u8>> = [0, 3, 30, good.len() - 1].map(|len| good[..len].to_vec()).into();
    for at in [0, 13, 21, 40, good.len() - 1, good.len() - 9] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        damaged.push(bytes);
    }
    for bytes in damaged {
        fs::write(entry, &bytes).expect("written");
        let library = place.open();
        let video = library.video("corrupt-entry.mp4").expect("listed");
        library.index(&video).await.expect("rebuilt");
        library.index(&video).await.expect("open");
        assert_eq!(library.parsed(), 1, "one rebuild");
        expected += 1;
        assert_eq!(warnings_about("corrupt-entry.mp4"), expected, "one warning");
        assert_eq!(fs::read(entry).expect("there"), good, "and it is good again");
    }
    // Changed while no server ran.
    let mut longer = TINY_MP4.to_vec();
    longer.extend_from_slice(b"\0\0\0\x08free");
    place.write("corrupt-entry.mp4", &longer);
    let library = place.open();
    library.index(&library.video("corrupt-entry.mp4").expect("listed")).await.expect("rebuilt");
    assert_eq!(library.parsed(), 1);
    assert_eq!(warnings_about("corrupt-entry.mp4"), expected + 1);
    assert_eq!(entries().len(), 1);
    drop(library);
    let library = place.open();
    library.index(&library.video("corrupt-entry.mp4").expect("listed")).await.expect("cached");
    assert_eq!(library.parsed(), 0);
}

/// What an older version of the parsers could not read is tried again.
#[tokio::test]
async fn an_upgrade_of_the_parsers_forgets_that_a_file_has_no_index() {
    let place = Place::new();
    place.write("new.container", TINY_MP4);
    let open = |parser: Parser| Library::open(LibraryConfig { parser, ..place.config() }).expect("opened");
    let index = async |library: &Library| library.index(&library.video("new.container").expect("listed")).await;
    let older: Parser = Arc::new(|_| Err(BuildError::Unsupported));
    let newer: Parser = Arc::new(|file| Index::build(file));
    let library = open(older);
    assert!(matches!(index(&library).await, Err(IndexError::Unsupported(_))));
    drop(library);
    let library = open(Arc::clone(&newer));
    assert!(matches!(index(&library).await, Err(IndexError::Unsupported(_))), "the same version: cached");
    assert_eq!(library.parsed(), 0);
    drop(library);
    // As the version before would have left it: the version is the word behind the magic.
    let entry = fs::read_dir(place.state().join("index")).expect("a cache").next().expect("one").expect("read").path();
    let mut bytes = fs::read(&entry).expect("read");
    bytes[8] -= 1;
    fs::write(&entry, bytes).expect("written");
    let library = open(newer);
    assert!(index(&library).await.is_ok());
    assert_eq!(library.parsed(), 1);
}

#[tokio::test]
async fn the_cache_may_be_deleted_while_running_or_not_be_writable_at_all() {
    warnings();
    let place = Place::new();
    place.write("a.mp4", TINY_MP4);
    place.write("b.mp4", TINY_MP4);
    let library = place.open();
    let a = library.video("a.mp4").expect("listed");
    library.index(&a).await.expect("an index");
    fs::remove_dir_all(place.state()).expect("deleted");
    library.index(&a).await.expect("still open");
    library.index(&library.video("b.mp4").expect("listed")).await.expect("an index");
    assert_eq!(fs::read_dir(place.state().join("index")).expect("there again").count(), 1);
    drop(library);
    let mut config = place.config();
    let file = place.dir.path().join("not-a-directory");
    fs::write(&file, b"x").expect("written");
    config.state_dir = Some(file);
    let library = Library::open(config).expect("opened without a cache");
    for id in ["a.mp4", "b.mp4"] {
        library.index(&library.video(id).expect("listed")).await.expect("an index");
    }
    assert_eq!(warnings_about("not-a-directory"), 1);
}

#[tokio::test]
async fn opened_indexes_are_bounded_and_come_back_from_the_cache() {
    let place = Place::new();
    for n in 0..30 {
        place.write(&format!("{n}.mp4"), TINY_MP4);
    }
    let mut config = place.config();
    config.indexes_open_max = 4;
    let library = Library::open(config).expect("opened");
    for _ in 0..3 {
        for n in 0..30 {
            library.index(&library.video(&format!("{n}.mp4")).expect("listed")).await.expect("an index");
        }
    }
    assert_eq!(library.parsed(), 30);
    let directory = place.state().join("index");
    let maps = fs::read_to_string("/proc/self/maps").expect("read");
    assert!(maps.lines().filter(|line| line.contains(directory.to_str().expect("UTF-8"))).count() <= 4);
}

#[test]
fn entries_of_videos_that_are_gone_are_pruned() {
    let place = Place::new();
    place.write("a.mp4", TINY_MP4);
    let b = place.write("b.mp4", TINY_MP4);
    let library = place.open();
    indexed(&library);
    let count = || fs::read_dir(place.state().join("index")).expect("a cache").count();
    eventually("two entries", SOON, || count() == 2);
    fs::remove_file(b).expect("removed");
    eventually("pruned", SOON, || count() == 1);
    drop(library);
    fs::remove_file(place.library().join("a.mp4")).expect("removed");
    let library = place.open();
    library.start_background();
    eventually("pruned at a start", SOON, || count() == 0);
}

// Uploads

#[tokio::test]
async fn a_whole_upload_is_created_then_replaced() {
    let place = Place::new();
    let library = place.open();
    let first = patterned(3_000_001, 1);
    let mut upload = library.begin_upload("a.mp4", None, Condition::Always).await.expect("begun");
    for piece in first.chunks(100_000) {
        upload.write(Bytes::copy_from_slice(piece)).await.expect("written");
        assert!(library.video("a.mp4").is_none() && !place.library().join("a.mp4").exists(), "not visible yet");
    }
    let Ok(Stored::Created(video)) = upload.finish().await else { panic!("created") };
    assert_eq!(library.video("a.mp4").expect("listed").etag(), video.etag());
    assert_eq!(fs::read(place.library().join("a.mp4")).expect("there"), first);
    let reader = video.file().await.expect("opened");
    let Ok(Stored::Replaced(newer)) = put(&library, "a.mp4", b"second").await else { panic!("replaced") };
    assert_ne!(newer.etag(), video.etag());
    assert_eq!(&reader.slice(0..u64::MAX)[..], first, "a reader in flight keeps its mapping");
    assert_eq!(&newer.file().await.expect("opened").slice(0..9)[..], b"second");
    assert!(place.hidden().is_empty());
    // The watcher sees what was done and has nothing to add.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(library.video("a.mp4").expect("listed").etag(), newer.etag());
    assert!(matches!(put(&library, "empty", b"").await, Ok(Stored::Created(_))));
    assert!(library.video("empty").expect("listed").file().await.expect("opened").is_empty());
}

#[tokio::test]
async fn etags_of_quick_replacements_differ() {
    let place = Place::new();
    let library = place.open();
    let mut seen = std::collections::HashSet::new();
    for n in 0..50u8 {
        let stored = put(&library, "a", &[n]).await.expect("stored");
        assert!(seen.insert(stored.video().etag().to_owned()), "an ETag was used twice");
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_before_the_first_byte() {
    let place = Place::new();
    place.write("sub/old", b"old");
    fs::create_dir(place.library().join("taken")).expect("created");
    let mut config = place.config();
    config.upload_bytes_max = 1000;
    let library = Library::open(config).expect("opened");
    for id in ["", "..", ".x", "a/b", "sub/new", "/etc/passwd", "a b", "-a", "a\0b", &"x".repeat(129)] {
        let error = put(&library, id, b"x").await.expect_err("refused");
        assert!(matches!(error, UploadError::InvalidId { .. }), "{id:?}: {error}");
    }
    let too_large = library.begin_upload("a", Some(1001), Condition::Always).await.map(|_| ()).expect_err("too large");
    assert!(matches!(too_large, UploadError::TooLarge { limit: 1000, asked: 1001 }), "{too_large}");
    let too_large = library.write_part("a", 0, 9, 1001, Condition::Always).await.map(|_| ()).expect_err("too large");
    assert!(matches!(too_large, UploadError::TooLarge { .. }));
    let mut unknown = library.begin_upload("a", None, Condition::Always).await.expect("begun");
    unknown.write(Bytes::from(vec![0; 1000])).await.expect("up to the limit");
    let error = unknown.write(Bytes::from_static(b"x")).await.expect_err("over it");
    assert!(matches!(error, UploadError::TooLarge { .. }));
    drop(unknown);
    assert!(matches!(put(&library, "taken", b"x").await, Err(UploadError::NameTaken { .. })));
    // An id that exists in a subdirectory is replaced in its place.
    assert!(matches!(put(&library, "sub/old", b"newer").await, Ok(Stored::Replaced(_))));
    assert_eq!(fs::read(place.library().join("sub/old")).expect("there"), b"newer");
    eventually("nothing hidden is left", SOON, || place.hidden().is_empty());
}

#[tokio::test]
async fn a_wrong_length_or_a_broken_upload_leaves_nothing() {
    let place = Place::new();
    let library = place.open();
    let mut short = library.begin_upload("a", Some(10), Condition::Always).await.expect("begun");
    short.write(Bytes::from_static(b"123")).await.expect("written");
    assert!(matches!(short.finish().await, Err(UploadError::WrongLength { expected: 10, received: 3 })));
    let mut long = library.begin_upload("a", Some(10), Condition::Always).await.expect("begun");
    let error = long.write(Bytes::from_static(b"12345678901")).await.expect_err("too long");
    assert!(matches!(error, UploadError::WrongLength { expected: 10, received: 11 }));
    drop(long);
    let mut broken = library.begin_upload("a", Some(10), Condition::Always).await.expect("begun");
    broken.write(Bytes::from_static(b"123")).await.expect("written");
    drop(broken);
    eventually("nothing hidden is left", SOON, || place.hidden().is_empty());
    assert!(library.catalogue().is_empty());
}

#[tokio::test]
async fn conditions_protect() {
    let place = Place::new();
    let library = place.open();
    let absent = || Condition::Absent;
    // Both begin while there is none: exactly one may win.
    let mut one = library.begin_upload("a", None, absent()).await.expect("begun");
    let mut two = library.begin_upload("a", None, absent()).await.expect("begun");
    one.write(Bytes::from_static(b"one")).await.expect("written");
    two.write(Bytes::from_static(b"two")).await.expect("written");
    let (one, two) = tokio::join!(one.finish(), two.finish());
    assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1);
    let loser = one.err().or(two.err()).expect("one lost");
    assert!(matches!(loser, UploadError::AlreadyExists { .. }), "{loser}");
    assert!(matches!(put_if(&library, "a", b"x", absent()).await, Err(UploadError::AlreadyExists { .. })));
    // Against a file that the catalogue does not know yet.
    let mut upload = library.begin_upload("b", None, absent()).await.expect("begun");
    upload.write(Bytes::from_static(b"x")).await.expect("written");
    let file = File::create(place.library().join("b")).expect("created");
    assert!(matches!(upload.finish().await, Err(UploadError::AlreadyExists { .. })));
    drop(file);
    let tag = etag(&library, "a");
    let same = Condition::Matches(vec!["\"x\"".to_owned(), tag]);
    put_if(&library, "a", b"same", same.clone()).await.expect("it was the same");
    assert!(matches!(put_if(&library, "a", b"x", same).await, Err(UploadError::NotTheSame { .. })));
    assert!(matches!(put_if(&library, "c", b"x", Condition::Present).await, Err(UploadError::NotTheSame { .. })));
    eventually("nothing hidden is left", SOON, || place.hidden().is_empty());
}

#[tokio::test]
async fn concurrent_uploads_of_one_id_both_complete() {
    let place = Place::new();
    let library = place.open();
    let mut one = library.begin_upload("a", Some(3), Condition::Always).await.expect("begun");
    let mut two = library.begin_upload("a", Some(3), Condition::Always).await.expect("begun");
    two.write(Bytes::from_static(b"two")).await.expect("written");
    one.write(Bytes::from_static(b"one")).await.expect("written");
    assert!(matches!(two.finish().await, Ok(Stored::Created(_))));
    assert!(matches!(one.finish().await, Ok(Stored::Replaced(_))));
    assert_eq!(fs::read(place.library().join("a")).expect("there"), b"one");
}

#[tokio::test]
async fn deletes() {
    let place = Place::new();
    place.write("sub/a", b"bytes");
    let library = place.open();
    let reader = library.video("sub/a").expect("listed").file().await.expect("opened");
    library.delete("sub/a").await.expect("deleted");
    assert!(library.video("sub/a").is_none() && !place.library().join("sub/a").exists());
    assert_eq!(&reader.slice(0..9)[..], b"bytes");
    assert!(matches!(library.delete("sub/a").await, Err(DeleteError::NotFound { .. })));
    for id in ["../state", "sub", ""] {
        assert!(matches!(library.delete(id).await, Err(DeleteError::NotFound { .. })), "{id:?}");
    }
    missing(part(&library, "parts", 0, b"12345", 10).await);
    library.delete("parts").await.expect("the open upload is given up");
    assert!(library.missing("parts").is_none() && place.journals().is_empty() && place.hidden().is_empty());
}

// Parts

#[tokio::test]
async fn parts_in_any_order_and_in_parallel() {
    let place = Place::new();
    let library = place.open();
    let bytes = patterned(1_000_000, 2);
    let total = bytes.len() as u64;
    assert!(library.missing("a").is_none());
    let last = missing(part(&library, "a", 900_000, &bytes[900_000..], total).await);
    assert_eq!(last, std::slice::from_ref(&(0..900_000)));
    assert_eq!(library.missing("a").expect("open"), std::slice::from_ref(&(0..900_000)));
    let [one, two] = [0, 300_000].map(|at| part(&library, "a", at, &bytes[at as usize..][..200_000], total));
    let (one, two) = tokio::join!(one, two);
    missing(one);
    missing(two);
    assert_eq!(library.missing("a").expect("open"), [200_000..300_000, 500_000..900_000]);
    assert!(library.video("a").is_none() && !place.library().join("a").exists());
    missing(part(&library, "a", 200_000, &bytes[200_000..300_000], total).await);
    let done = part(&library, "a", 500_000, &bytes[500_000..900_000], total).await;
    assert!(matches!(done, Ok(PartOutcome::Created(_))), "{done:?}");
    assert_eq!(fs::read(place.library().join("a")).expect("there"), bytes);
    assert!(library.missing("a").is_none() && place.journals().is_empty() && place.hidden().is_empty());
    let again = part(&library, "a", 0, &[7; 10], 10).await;
    assert!(matches!(again, Ok(PartOutcome::Replaced(_))), "{again:?}");
    assert_eq!(fs::read(place.library().join("a")).expect("there"), [7; 10]);
}

#[tokio::test]
async fn overlapping_parts_and_parts_that_break_off() {
    let place = Place::new();
    let library = place.open();
    missing(part(&library, "a", 0, b"AAAAAAAAAA", 20).await);
    // Too short, over acknowledged bytes: none of it counts, none of it shows.
    let mut short = library.write_part("a", 5, 14, 20, Condition::Always).await.expect("begun");
    short.write(Bytes::from_static(b"xxx")).await.expect("written");
    assert!(matches!(short.finish().await, Err(UploadError::WrongLength { expected: 10, received: 3 })));
    let mut long = library.write_part("a", 10, 12, 20, Condition::Always).await.expect("begun");
    assert!(matches!(long.write(Bytes::from_static(b"xxxx")).await, Err(UploadError::WrongLength { .. })));
    drop(long);
    assert_eq!(library.missing("a").expect("open"), std::slice::from_ref(&(10..20)));
    // The later wins.
    missing(part(&library, "a", 8, b"BBBB", 20).await);
    assert_eq!(library.missing("a").expect("open"), std::slice::from_ref(&(12..20)));
    missing(part(&library, "a", 0, b"C", 20).await);
    // Two in flight over the same bytes: the first to be whole has the place, the other is superseded.
    let mut stuck = library.write_part("a", 12, 15, 20, Condition::Always).await.expect("begun");
    stuck.write(Bytes::from_static(b"no")).await.expect("written");
    missing(part(&library, "a", 12, b"DDDD", 20).await);
    let stuck = match stuck.write(Bytes::from_static(b"no")).await {
        Ok(()) => stuck.finish().await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(stuck, Err(UploadError::Superseded)), "{stuck:?}");
    let done = part(&library, "a", 16, b"EEEE", 20).await;
    assert!(matches!(done, Ok(PartOutcome::Created(_))), "{done:?}");
    assert_eq!(fs::read(place.library().join("a")).expect("there"), b"CAAAAAAABBBBDDDDEEEE");
    eventually("nothing hidden is left", SOON, || place.hidden().is_empty());
}

#[tokio::test]
async fn parts_that_contradict_are_refused() {
    let place = Place::new();
    place.write("there", b"x");
    let library = place.open();
    missing(part(&library, "a", 0, b"12345", 10).await);
    let other = part(&library, "a", 5, b"12345", 11).await;
    assert!(matches!(other, Err(UploadError::OtherTotal { open: 10, asked: 11 })), "{other:?}");
    for (start, end, total) in [(5, 4, 10), (0, 10, 10), (10, 10, 10), (0, 0, 0), (u64::MAX, u64::MAX, u64::MAX)] {
        let refused = library.write_part("a", start, end, total, Condition::Always).await.map(|_| ());
        assert!(matches!(refused, Err(UploadError::InvalidRange { .. })), "{start}-{end}/{total}");
    }
    let protected = library.write_part("there", 0, 0, 2, Condition::Absent).await.map(|_| ());
    assert!(matches!(protected, Err(UploadError::AlreadyExists { .. })));
    let huge = library.write_part("huge", 0, 0, u64::MAX, Condition::Always).await.map(|_| ());
    assert!(matches!(huge, Err(UploadError::TooLarge { .. })));
}

#[tokio::test]
async fn what_is_missing_survives_a_restart_and_a_torn_record() {
    let place = Place::new();
    let bytes = patterned(100_000, 3);
    {
        let library = place.open();
        missing(part(&library, "a", 0, &bytes[..30_000], 100_000).await);
        missing(part(&library, "a", 50_000, &bytes[50_000..60_000], 100_000).await);
        // Never finished: it does not count.
        let mut broken = library.write_part("a", 30_000, 49_999, 100_000, Condition::Always).await.expect("begun");
        broken.write(Bytes::copy_from_slice(&bytes[30_000..40_000])).await.expect("written");
    }
    place.released();
    let [journal] = &place.journals()[..] else { panic!("one journal") };
    let mut torn = fs::OpenOptions::new().append(true).open(journal).expect("there");
    torn.write_all(&[17, 0, 0, 0, 1, 2, 3]).expect("written");
    // The locks of the process that "crashed" are those of this process: they go with its files.
    let library = place.open();
    assert_eq!(library.missing("a").expect("taken up"), [30_000..50_000, 60_000..100_000]);
    assert!(library.video("a").is_none());
    missing(part(&library, "a", 60_000, &bytes[60_000..], 100_000).await);
    let done = part(&library, "a", 30_000, &bytes[30_000..50_000], 100_000).await;
    assert!(matches!(done, Ok(PartOutcome::Created(_))), "{done:?}");
    assert_eq!(fs::read(place.library().join("a")).expect("there"), bytes);
}

const CHILD: &str = "WEIR_TEST_PART_UPLOADER";

/// The process that is killed: acknowledges two parts, leaves a third and a whole upload half done, and waits.
#[tokio::test]
async fn child_that_is_killed() {
    let Some(place) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let mut config = LibraryConfig::new(place.join("videos"));
    config.state_dir = Some(place.join("state"));
    let library = Library::open(config).expect("opened");
    missing(part(&library, "a", 0, &[1; 1000], 4000).await);
    missing(part(&library, "a", 2000, &[3; 1000], 4000).await);
    let mut third = library.write_part("a", 1000, 1999, 4000, Condition::Always).await.expect("begun");
    third.write(Bytes::from(vec![9; 500])).await.expect("written");
    let mut whole = library.begin_upload("b", Some(10), Condition::Always).await.expect("begun");
    whole.write(Bytes::from_static(b"12345")).await.expect("written");
    fs::write(place.join("ready"), b"").expect("written");
    std::thread::sleep(Duration::from_secs(60));
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let place = Place::new();
    let exe = std::env::current_exe().expect("this binary");
    let mut child = Command::new(exe)
        .args(["--exact", "library::child_that_is_killed", "--nocapture"])
        .env(CHILD, place.dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("started");
    let ready = place.dir.path().join("ready");
    eventually("the child is ready", Duration::from_secs(30), || ready.exists());
    assert_eq!(place.hidden().len(), 2);
    // A second server on the same library leaves the uploads of the first alone.
    let second = place.open();
    assert!(second.missing("a").is_none());
    assert_eq!((place.hidden().len(), place.journals().len()), (2, 1));
    drop(second);
    child.kill().expect("killed");
    child.wait().expect("gone");
    let library = place.open();
    assert_eq!(library.missing("a").expect("taken up"), [1000..2000, 3000..4000]);
    assert_eq!(place.hidden().len(), 1, "the whole upload left nothing");
    assert!(library.catalogue().is_empty());
    missing(part(&library, "a", 1000, &[2; 1000], 4000).await);
    assert!(matches!(part(&library, "a", 3000, &[4; 1000], 4000).await, Ok(PartOutcome::Created(_))));
    let bytes = fs::read(place.library().join("a")).expect("there");
    assert!((0..4).all(|n| bytes[n * 1000..][..1000].iter().all(|b| usize::from(*b) == n + 1)));
}

#[tokio::test]
async fn an_upload_that_was_whole_at_the_crash_is_published_at_the_start() {
    let place = Place::new();
    let library = place.open();
    missing(part(&library, "a", 0, b"12345", 10).await);
    let [journal] = &place.journals()[..] else { panic!("one journal") };
    let [data] = &place.hidden()[..] else { panic!("one hidden file") };
    drop(library);
    place.released();
    // As if the record of the second part was the last thing that reached the disk.
    use std::os::unix::fs::FileExt;
    let data = place.library().join(".weir/uploads").join(data);
    fs::OpenOptions::new().write(true).open(data).expect("there").write_all_at(b"67890", 5).expect("written");
    let mut payload = vec![1u8];
    payload.extend_from_slice(&5u64.to_le_bytes());
    payload.extend_from_slice(&10u64.to_le_bytes());
    let mut record = 17u32.to_le_bytes().to_vec();
    record.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    record.extend_from_slice(&payload);
    fs::OpenOptions::new().append(true).open(journal).expect("there").write_all(&record).expect("written");
    let library = place.open();
    assert_eq!(ids(&library), ["a"]);
    assert_eq!(fs::read(place.library().join("a")).expect("there"), b"1234567890");
    assert!(place.journals().is_empty() && place.hidden().is_empty());
}

#[tokio::test]
async fn uploads_that_nobody_continues_are_removed() {
    let place = Place::new();
    let mut config = place.config();
    config.upload_expiry = Duration::from_millis(800);
    let library = Library::open(config.clone()).expect("opened");
    missing(part(&library, "a", 0, b"12345", 10).await);
    let in_flight = library.write_part("b", 0, 4, 10, Condition::Always).await.expect("begun");
    eventually("expired", SOON, || library.missing("a").is_none());
    assert!(library.missing("b").is_some(), "a part is in flight");
    drop(in_flight);
    eventually("all are removed", SOON, || place.hidden().is_empty() && place.journals().is_empty());
    drop(library);
    place.released();
    // At a start: an expired one, an orphan, and a file that is not ours to judge by age alone.
    config.upload_expiry = Duration::from_secs(3600);
    let library = Library::open(config.clone()).expect("opened");
    missing(part(&library, "c", 0, b"12345", 10).await);
    missing(part(&library, "d", 0, b"12345", 10).await);
    drop(library);
    place.released();
    let journals = place.journals();
    let c = journals.iter().find(|j| String::from_utf8_lossy(&fs::read(j).expect("read")).contains("\"id\":\"c\""));
    let old = std::time::SystemTime::now() - Duration::from_secs(7200);
    File::open(c.expect("a journal")).expect("there").set_modified(old).expect("set");
    fs::write(place.library().join(".weir/uploads/0123456789abcdef"), b"orphan").expect("written");
    let library = Library::open(config).expect("opened");
    assert!(library.missing("c").is_none() && library.missing("d").is_some());
    assert_eq!((place.hidden().len(), place.journals().len()), (1, 1));
}

#[tokio::test]
async fn open_uploads_are_bounded() {
    let place = Place::new();
    let mut config = place.config();
    config.uploads_open_max = 2;
    let library = Library::open(config).expect("opened");
    for id in ["a", "b", "a"] {
        drop(library.write_part(id, 0, 4, 10, Condition::Always).await.expect("begun"));
    }
    let third = library.write_part("c", 0, 4, 10, Condition::Always).await.map(|_| ());
    assert!(matches!(third, Err(UploadError::Busy { open_max: 2 })));
}

// Room

/// A small file system of its own, where mounting is allowed.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        mounted.is_ok_and(|o| o.status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn free_space_is_promised_once() {
    let place = Place::new();
    let Some(_mounted) = Tmpfs::mount(&place.library(), "8m") else {
        // Without the right to mount: a reserve that leaves nothing.
        let mut config = place.config();
        config.space_reserve = u64::MAX;
        let library = Library::open(config).expect("opened");
        assert!(matches!(put(&library, "a", b"x").await, Err(UploadError::NoRoom { .. })));
        return;
    };
    let mut config = place.config();
    config.space_reserve = 1 << 20;
    let library = Library::open(config).expect("opened");
    let refused = library.begin_upload("a", Some(7 << 20 | 1), Condition::Always).await.map(|_| ());
    assert!(matches!(refused, Err(UploadError::NoRoom { needed: Some(_), available: Some(_) })), "{refused:?}");
    let first = library.begin_upload("a", Some(5 << 20), Condition::Always).await.expect("room for this");
    let second = library.begin_upload("b", Some(3 << 20), Condition::Always).await.map(|_| ());
    assert!(matches!(second, Err(UploadError::NoRoom { .. })), "{second:?}");
    let parts = library.write_part("b", 0, 0, 3 << 20, Condition::Always).await.map(|_| ());
    assert!(matches!(parts, Err(UploadError::NoRoom { .. })));
    drop(first);
    eventually("the promise was given back", SOON, || place.hidden().is_empty());
    put(&library, "b", &vec![1; 3 << 20]).await.expect("now there is room");
}

#[tokio::test]
async fn a_disk_that_runs_full_on_the_way_leaves_nothing() {
    let place = Place::new();
    let mounted = Tmpfs::mount(&place.library(), "4m");
    let mut config = place.config();
    config.write_fails_after = mounted.is_none().then_some(1 << 20);
    let library = Library::open(config).expect("opened");
    let mut upload = library.begin_upload("a", Some(3 << 20), Condition::Always).await.expect("there was room");
    let mut part = library.write_part("p", 0, (1 << 19) - 1, 1 << 19, Condition::Always).await.expect("room");
    // Somebody else fills the disk.
    if mounted.is_some() {
        let mut other = File::create(place.library().join("other")).expect("created");
        while other.write_all(&[0; 4096]).is_ok() {}
    }
    let mut result = Ok(());
    for _ in 0..48 {
        result = upload.write(Bytes::from(vec![1; 1 << 16])).await;
        if result.is_err() {
            break;
        }
    }
    let result = match result {
        Ok(()) => upload.finish().await.map(|_| ()),
        Err(error) => {
            drop(upload);
            Err(error)
        }
    };
    assert!(matches!(result, Err(UploadError::NoRoom { .. })), "{result:?}");
    if mounted.is_some() {
        let error = match part.write(Bytes::from(vec![1; 1 << 19])).await {
            Ok(()) => part.finish().await.map(|_| ()).expect_err("no room"),
            Err(error) => error,
        };
        assert!(matches!(error, UploadError::NoRoom { .. }), "{error:?}");
        assert_eq!(library.missing("p").expect("open"), std::slice::from_ref(&(0..1 << 19)));
        fs::remove_file(place.library().join("other")).expect("removed");
    } else {
        drop(part);
    }
    library.delete("p").await.expect("given up");
    eventually("nothing hidden is left", SOON, || place.hidden().is_empty());
    put(&library, "a", &[1; 1000]).await.expect("room again");
}

#[tokio::test]
async fn a_read_only_library_serves_and_denies() {
    let place = Place::new();
    place.write("a", b"bytes");
    let path = place.library();
    let bind = Command::new("sh")
        .arg("-c")
        .arg("mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\"")
        .arg(&path)
        .output();
    let library;
    let _mounted = if bind.is_ok_and(|o| o.status.success()) {
        Some(Tmpfs(path.clone()))
    } else {
        // Without the right to mount: a file in the way of the hidden directory denies as well, and DELETE is spared.
        fs::write(path.join(".weir"), b"in the way").expect("written");
        None
    };
    library = place.open();
    assert_eq!(&library.video("a").expect("listed").file().await.expect("opened").slice(0..9)[..], b"bytes");
    let whole = put(&library, "b", b"x").await;
    let parts = part(&library, "b", 0, b"x", 2).await;
    if _mounted.is_some() {
        assert!(matches!(whole, Err(UploadError::Denied { .. })), "{whole:?}");
        assert!(matches!(parts, Err(UploadError::Denied { .. })), "{parts:?}");
        assert!(matches!(library.delete("a").await, Err(DeleteError::Denied { .. })));
        assert!(library.video("a").is_some());
    } else {
        assert!(whole.is_err() && parts.is_err());
    }
}

#[test]
fn the_library_goes_when_its_last_handle_goes() {
    let place = Place::new();
    place.write("a.mp4", TINY_MP4);
    let library = place.open();
    indexed(&library);
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task").expect("read");
        let names = tasks.filter_map(|t| fs::read_to_string(t.ok()?.path().join("comm")).ok());
        names.filter(|n| n.trim() == "weir-watch").count()
    };
    assert!(threads() >= 1);
    let video = library.video("a.mp4").expect("listed");
    let weak = Arc::downgrade(&video);
    drop((video, library));
    eventually("the watcher and the indexer let go", SOON, || weak.upgrade().is_none());
}
