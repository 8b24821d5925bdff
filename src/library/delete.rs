//! Deleting a video. Readers in flight keep their mapping; the space is free when the last of them is done.

use super::catalogue::Change;
use super::open::{Inner, Library};
use super::publish::sync_parent;
use super::watch::Message;
use std::fs;
use std::io;
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    #[error("there is no video {id}")]
    NotFound { id: String },
    #[error("the library does not allow to delete: {reason}")]
    Denied { reason: String },
    #[error("delete the video: {0}")]
    Io(io::Error),
}

impl Library {
    /// Deletes the video, and gives up an upload in parts that is open for the id. The catalogue is up to date when
    /// this returns.
    pub async fn delete(&self, id: &str) -> Result<(), DeleteError> {
        let (inner, id) = (Arc::clone(&self.inner), id.to_owned());
        let deleted = self.inner.write_pool.run(move || inner.delete(&id)).await;
        deleted.unwrap_or_else(|panicked| Err(DeleteError::Io(io::Error::other(panicked))))
    }
}

impl Inner {
    fn delete(&self, id: &str) -> Result<(), DeleteError> {
        let abandoned = self.abandon_upload(id);
        let guard = self.change();
        let Some(video) = self.catalogue.load().get(id).cloned() else {
            return if abandoned { Ok(()) } else { Err(DeleteError::NotFound { id: id.to_owned() }) };
        };
        match fs::remove_file(video.entry()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(match error.raw_os_error() {
                    Some(libc::EROFS | libc::EACCES | libc::EPERM) => DeleteError::Denied { reason: error.to_string() },
                    _ => DeleteError::Io(error),
                });
            }
        }
        // Links inside the library may list the same file under other ids.
        let same_file = |other: &&Arc<super::Video>| other.id() == id || other.path() == video.entry();
        let catalogue = self.catalogue.load();
        let gone = catalogue.videos().iter().filter(same_file).map(|v| Change::Remove(v.key())).collect();
        self.apply(gone, &guard);
        drop(guard);
        self.tell_watcher(Message::Look(video.entry().to_owned()));
        sync_parent(video.entry()).map_err(DeleteError::Io)
    }
}
