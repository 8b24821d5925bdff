//! Indexes: built once, kept in the cache, rebuilt when it is corrupt, stale or of another version.

use super::*;

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
    // The indexer in the background may hold one more for a moment.
    crate::support::publisher::eventually("few mappings", || {
        let maps = fs::read_to_string("/proc/self/maps").expect("read");
        maps.lines().filter(|line| line.contains(directory.to_str().expect("UTF-8"))).count() <= 4
    });
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
