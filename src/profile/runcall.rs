//! Roots for what is profiled alone: whatever runs below one of them, on any thread, is kept apart from all else.
//! There are few, and they are used again, as nodes are never freed.

use super::site::{Kind, Site};
use std::sync::Mutex;

const ROOTS: usize = 8;

/// Told apart by their lines, which are none.
static SITES: [Site; ROOTS] = {
    let mut sites = [const { Site::new("<runcall>", "~", 0, Kind::Runcall) }; ROOTS];
    let mut root = 0;
    while root < ROOTS {
        sites[root].line = root as u32;
        root += 1;
    }
    sites
};
static FREE: Mutex<[bool; ROOTS]> = Mutex::new([true; ROOTS]);

/// A root that nobody else uses until it is dropped.
pub struct Apart(usize);

impl Apart {
    /// `None` while all are in use.
    pub fn take() -> Option<Self> {
        free(|free| {
            let root = free.iter().position(|free| *free)?;
            free[root] = false;
            Some(Self(root))
        })
    }

    pub fn site(&self) -> &'static Site {
        &SITES[self.0]
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        free(|free| free[self.0] = true);
    }
}

fn free<T>(with: impl FnOnce(&mut [bool; ROOTS]) -> T) -> T {
    with(&mut FREE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}
