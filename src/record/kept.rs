//! Which videos are recordings that Weir made, and which of those have been kept long enough.
//!
//! The list is a file in `state_dir`, a line per recording with the ETag that it had as a new video: what was replaced
//! or touched since is no longer Weir's to delete. Everything here blocks; for the pool and for the start of a server.

use super::lock;
use crate::library::Library;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

const FILE: &str = "recordings";

/// How long recordings are kept; all of it is configuration. Zero: for ever, however many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    pub age: Duration,
    pub bytes: u64,
}

/// The recordings that were made.
pub struct Made {
    path: PathBuf,
    keep: Keep,
    list: Mutex<Vec<Entry>>,
    /// A moment by the clock on the wall and by the one that does not jump: ages are told by the latter.
    anchor: (SystemTime, Instant),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    id: String,
    etag: String,
    /// Seconds since 1970.
    made: u64,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let made = words.next()?.parse().ok()?;
        Some(Self { made, etag: words.next()?.to_owned(), id: words.next()?.to_owned() })
    }

    fn line(&self) -> String {
        format!("{} {} {}\n", self.made, self.etag, self.id)
    }
}

impl Made {
    /// Reads the list of earlier runs.
    pub fn open(state_dir: &Path, keep: Keep) -> Self {
        let path = state_dir.join(FILE);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let list = text.lines().filter_map(Entry::parse).collect();
        Self { path, keep, list: Mutex::new(list), anchor: (SystemTime::now(), Instant::now()) }
    }

    fn now(&self) -> u64 {
        let (wall, since) = self.anchor;
        wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |wall| (wall + since.elapsed()).as_secs())
    }

    /// A recording has become a video.
    pub fn add(&self, id: &str, etag: &str) {
        let entry = Entry { id: id.to_owned(), etag: etag.to_owned(), made: self.now() };
        let mut list = lock(&self.list);
        let appended = self.append(&entry);
        list.push(entry);
        if let Err(error) = appended {
            tracing::warn!(id, %error, "a recording is not listed as one, and will be kept for ever after a restart");
        }
    }

    fn append(&self, entry: &Entry) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        file.write_all(entry.line().as_bytes())?;
        file.sync_data()
    }

    /// The ids of recordings that have been kept long enough, oldest first, with their sizes.
    pub fn due(&self, library: &Library) -> Vec<(String, u64)> {
        let catalogue = library.catalogue();
        let list = lock(&self.list);
        let there = list.iter().filter_map(|entry| {
            let video = catalogue.get(&entry.id).filter(|video| video.etag() == entry.etag)?;
            Some((entry.id.clone(), video.size_bytes(), entry.made))
        });
        let there: Vec<_> = there.collect();
        let rows: Vec<(u64, u64)> = there.iter().map(|(_, bytes, made)| (*bytes, *made)).collect();
        let due = due(&rows, self.now(), self.keep);
        due.into_iter().map(|n| (there[n].0.clone(), there[n].1)).collect()
    }

    /// Takes recordings off the list that were deleted.
    pub fn remove(&self, ids: &[String]) -> io::Result<()> {
        let mut list = lock(&self.list);
        list.retain(|entry| !ids.contains(&entry.id));
        let text: String = list.iter().map(Entry::line).collect();
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(temporary, &self.path)
    }
}

/// Which of some recordings (bytes, seconds since 1970) are to go, oldest first. The newest is never too large.
fn due(recordings: &[(u64, u64)], now: u64, keep: Keep) -> Vec<usize> {
    let mut order: Vec<usize> = (0..recordings.len()).collect();
    order.sort_by_key(|n| recordings[*n].1);
    let mut bytes: u64 = recordings.iter().map(|(bytes, _)| bytes).sum();
    let last = order.len().saturating_sub(1);
    let mut due = Vec::new();
    for (place, n) in order.into_iter().enumerate() {
        let (size, made) = recordings[n];
        let too_old = !keep.age.is_zero() && now.saturating_sub(made) >= keep.age.as_secs().max(1);
        let too_many = keep.bytes > 0 && bytes > keep.bytes && place < last;
        if !too_old && !too_many {
            break;
        }
        bytes -= size;
        due.push(n);
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let recordings = [(100, 50), (200, 10), (300, 90), (400, 30)];
        let keep = |age, bytes| Keep { age: Duration::from_secs(age), bytes };
        assert_eq!(due(&recordings, 100, keep(0, 0)), [0; 0]);
        assert_eq!(due(&recordings, 100, keep(70, 0)), [1, 3]);
        assert_eq!(due(&recordings, 100, keep(71, 0)), [1]);
        assert_eq!(due(&recordings, 100, keep(0, 1000)), [0; 0]);
        assert_eq!(due(&recordings, 100, keep(0, 999)), [1]);
        assert_eq!(due(&recordings, 100, keep(0, 799)), [1, 3]);
        assert_eq!(due(&recordings, 100, keep(0, 1)), [1, 3, 0], "the newest stays");
        assert_eq!(due(&recordings, 100, keep(5, 1)), [1, 3, 0, 2], "but for its age");
        // A clock that stands before the recordings deletes nothing.
        assert_eq!(due(&recordings, 0, keep(5, 0)), [0; 0]);
    }

    #[test]
    fn the_list_survives_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let made = Made::open(directory.path(), Keep::default());
        made.add("cam-1.mp4", "\"a-b\"");
        made.add("cam 2.mp4", "\"c\"");
        made.add("cam-3.mp4", "\"d\"");
        made.remove(&["cam-1.mp4".to_owned()]).expect("removed");
        let again = Made::open(directory.path(), Keep::default());
        let ids: Vec<_> = lock(&again.list).iter().map(|entry| (entry.id.clone(), entry.etag.clone())).collect();
        let expected = [("cam 2.mp4", "\"c\""), ("cam-3.mp4", "\"d\"")];
        assert_eq!(ids, expected.map(|(id, etag)| (id.to_owned(), etag.to_owned())));
    }
}
