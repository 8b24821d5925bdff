//! Free space for uploads: what the disk has, less the reserve, less what uploads in progress were promised.

use super::video::lock;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub(super) struct Room {
    /// Any directory of the library's file system.
    directory: PathBuf,
    reserve: u64,
    promised: Mutex<u64>,
}

/// Space that one upload may still take; given back when dropped.
pub(super) struct Promise {
    room: Arc<Room>,
    bytes: Mutex<u64>,
}

/// There is not enough: how much was asked for, and how much could be promised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full {
    pub(super) needed: u64,
    pub(super) available: u64,
}

impl Room {
    pub(super) fn new(directory: &Path, reserve: u64) -> Self {
        Self { directory: directory.to_owned(), reserve, promised: Mutex::new(0) }
    }

    pub(super) fn promise(self: &Arc<Self>, bytes: u64) -> Result<Promise, Full> {
        self.take(bytes)?;
        Ok(Promise { room: Arc::clone(self), bytes: Mutex::new(bytes) })
    }

    /// A promise that holds whether there is room or not: for uploads that were open before a restart.
    pub(super) fn promise_again(self: &Arc<Self>, bytes: u64) -> Promise {
        let mut promised = lock(&self.promised);
        *promised = promised.saturating_add(bytes);
        Promise { room: Arc::clone(self), bytes: Mutex::new(bytes) }
    }

    fn take(&self, bytes: u64) -> Result<(), Full> {
        let mut promised = lock(&self.promised);
        let free = self.free();
        let available = free.saturating_sub(self.reserve).saturating_sub(*promised);
        if bytes > available {
            return Err(Full { needed: bytes, available });
        }
        *promised = promised.saturating_add(bytes);
        Ok(())
    }

    /// What an unprivileged process could write; everything, if the file system does not say.
    fn free(&self) -> u64 {
        match rustix::fs::statvfs(&self.directory) {
            Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
            Err(error) => {
                tracing::debug!(%error, "free space unknown");
                u64::MAX
            }
        }
    }
}

impl Promise {
    /// The bytes are on the disk and no longer promised.
    pub(super) fn spend(&self, bytes: u64) {
        let mut own = lock(&self.bytes);
        let spent = bytes.min(*own);
        *own -= spent;
        let mut promised = lock(&self.room.promised);
        *promised = promised.saturating_sub(spent);
    }

    /// Makes the promise cover at least `bytes`, taking `step` at a time.
    pub(super) fn cover(&self, bytes: u64, step: u64) -> Result<(), Full> {
        let mut own = lock(&self.bytes);
        if *own < bytes {
            let needed = bytes - *own;
            let more = needed.max(step);
            if self.room.take(more).is_ok() {
                *own = own.saturating_add(more);
            } else {
                self.room.take(needed)?;
                *own = bytes;
            }
        }
        Ok(())
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let own = *lock(&self.bytes);
        let mut promised = lock(&self.room.promised);
        *promised = promised.saturating_sub(own);
    }
}
