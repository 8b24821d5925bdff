//! Free space, full disks and read-only libraries.

use super::*;
use crate::support::tmpfs::Tmpfs;

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
