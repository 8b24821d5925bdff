//! Whole uploads, their conditions, and deletes.

use super::*;

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
