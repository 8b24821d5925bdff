//! Uploads in parts: any order, in parallel, through crashes.

use super::*;

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
        .args(["--exact", "library::parts::child_that_is_killed", "--nocapture"])
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
