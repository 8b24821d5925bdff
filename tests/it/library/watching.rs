//! What the watcher sees: files that come, grow, move and go.

use super::*;

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
