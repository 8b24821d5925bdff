//! Which pages of a mapped file are in memory, and how they get there before a core needs them.
//!
//! A page fault inside `writev` blocks the core that serves everybody else. So a slice is only handed to a core
//! when its pages are in the page cache ([`MappedFile::is_resident`]); otherwise [`MappedFile::populate`] reads
//! them in on a pool first.
//!
//! mincore(2) is asked, not cachestat(2): that one counts pages whose read is still under way, and a core that
//! touches such a page waits for the disk.
#![allow(unsafe_code, reason = "mincore, preadv2, readahead and madvise have no safe wrapper")]

use super::MappedFile;
use crate::media::ReadAt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};

/// How much of a file is made resident in one go: long enough for the disk, short enough that a viewer who leaves
/// wastes little.
pub const WINDOW_BYTES: u64 = 4 << 20;

const PAGE: u64 = 4096;
/// A probe by `preadv2` looks at one byte in this many: the kernel reads ahead in runs at least this long.
const PROBE_STRIDE: u64 = 64 << 10;
/// Pages asked about in one call: 4 MiB.
const PAGES_ASKED: usize = 1024;

/// How long a window that was resident is taken to be. Pages that were just sent are the last the kernel evicts.
const TRUSTED_MS: u32 = 100;

/// Milliseconds of the monotonic clock as of the kernel's last tick, which is a few milliseconds ago at most: a third
/// of the price of the exact time, for what every request asks.
pub fn coarse_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live local of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut now) };
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// What each window of a file was last found to be, and when it was asked about.
pub(super) struct Seen {
    windows: Box<[Window]>,
}

/// In ms of [`coarse_ms`]; 0 is never.
#[derive(Default)]
struct Window {
    whole: AtomicU32,
    incomplete: AtomicU32,
    asked: AtomicU32,
}

impl Seen {
    pub(super) fn new(file_bytes: u64) -> Self {
        let count = usize::try_from(file_bytes.div_ceil(WINDOW_BYTES)).unwrap_or(0);
        Self { windows: (0..count).map(|_| Window::default()).collect() }
    }

    fn now_ms() -> u32 {
        // Wraps after 49 days; a stale window then looks fresh for a tenth of a second.
        coarse_ms() as u32
    }

    fn window(&self, number: u64) -> Option<&Window> {
        self.windows.get(usize::try_from(number).ok()?)
    }

    fn is_whole(&self, window: u64, now_ms: u32) -> bool {
        self.window(window).is_some_and(|window| is_fresh(&window.whole, now_ms))
    }

    fn is_incomplete(&self, window: u64, now_ms: u32) -> bool {
        self.window(window).is_some_and(|window| is_fresh(&window.incomplete, now_ms))
    }

    /// Whether it was asked about a moment ago, too; notes that it is now.
    fn is_asked_often(&self, window: u64, now_ms: u32) -> bool {
        let Some(window) = self.window(window) else { return false };
        let often = is_fresh(&window.asked, now_ms);
        window.asked.store(now_ms, Ordering::Relaxed);
        often
    }

    fn note(&self, window: u64, whole: bool, now_ms: u32) {
        if let Some(window) = self.window(window) {
            let found = if whole { &window.whole } else { &window.incomplete };
            found.store(now_ms, Ordering::Relaxed);
        }
    }
}

fn is_fresh(found: &AtomicU32, now_ms: u32) -> bool {
    now_ms.wrapping_sub(found.load(Ordering::Relaxed)) <= TRUSTED_MS
}

/// mincore(2) answers "all there" to those who neither own the file nor may write to it (Linux 5.2): whether this
/// process is told the truth.
pub(super) fn may_ask_mincore(file: &File) -> bool {
    // SAFETY: no arguments, no memory.
    let user = unsafe { libc::geteuid() };
    user == 0 || file.metadata().is_ok_and(|metadata| metadata.uid() == user)
}

/// A range in pieces, each the work of one system call: a kernel that does not preempt itself holds the CPU for the
/// length of a call, and a core may be waiting for it.
fn steps(start: u64, end: u64) -> impl Iterator<Item = (u64, usize)> {
    const STEP_BYTES: u64 = 256 << 10;
    (start..end).step_by(STEP_BYTES as usize).map(move |at| (at, STEP_BYTES.min(end - at) as usize))
}

impl MappedFile {
    /// Whether a write of this range would find every page in the page cache. A window that was found there whole is
    /// not asked about again for [`TRUSTED_MS`]: small requests of hot files cost no system call. To ask about a whole
    /// window costs up to 0.1 ms, so that is done only where requests come often, and not again for a while where pages
    /// are lacking; else only those that are wanted are asked about.
    pub fn is_resident(&self, range: &Range<u64>) -> bool {
        if range.is_empty() || self.is_empty() {
            return true;
        }
        let windows = range.start / WINDOW_BYTES..=(range.end - 1).min(self.len() - 1) / WINDOW_BYTES;
        let now_ms = Seen::now_ms();
        if windows.clone().all(|window| self.seen.is_whole(window, now_ms)) {
            return true;
        }
        let mut often = true;
        windows.clone().for_each(|window| often &= self.seen.is_asked_often(window, now_ms));
        if often && !windows.clone().any(|window| self.seen.is_incomplete(window, now_ms)) {
            let end = range.end.max((*windows.end() + 1) * WINDOW_BYTES).min(self.len());
            let whole = self.asks_resident(&(*windows.start() * WINDOW_BYTES..end));
            windows.for_each(|window| self.seen.note(window, whole, now_ms));
            if whole {
                return true;
            }
        }
        self.asks_resident(range)
    }

    fn asks_resident(&self, range: &Range<u64>) -> bool {
        if self.asks_mincore { self.is_in_core(range) } else { self.probe(range) }
    }

    /// Reads the range into the page cache and maps it; blocks on the disk. Fails when the file has been cut.
    ///
    /// One read-ahead queues the whole range at the disk. Then one byte of each page is read, which waits for the page
    /// and touches it: in a virtual machine the first touch of a page that the host has just handed over costs
    /// microseconds, and a core would pay them in its `writev`.
    pub fn populate(&self, range: &Range<u64>) -> io::Result<()> {
        if range.is_empty() || self.is_empty() {
            return Ok(());
        }
        let start = range.start / PAGE * PAGE;
        let end = range.end.min(self.len());
        for (at, length) in steps(start, end) {
            // SAFETY: a request about an open descriptor; it touches no memory of this process.
            unsafe { libc::readahead(self.file().as_raw_fd(), at as libc::off64_t, length) };
        }
        let mut at = start;
        while at < end {
            self.read_exact_at(at, &mut [0u8; 1])?;
            at += PAGE;
        }
        for (at, length) in steps(start, end) {
            let address = (self.address() + usize::try_from(at).map_err(io::Error::other)?) as *mut libc::c_void;
            // SAFETY: the range lies inside the mapping, which lives as long as `self`; populating maps pages and
            // changes none.
            if unsafe { libc::madvise(address, length, libc::MADV_POPULATE_READ) } != 0 {
                let error = io::Error::last_os_error();
                // Linux before 5.14 has no MADV_POPULATE_READ: the core maps the pages itself.
                return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
            }
        }
        Ok(())
    }

    fn is_in_core(&self, range: &Range<u64>) -> bool {
        let end = range.end.min(self.len());
        let mut at = range.start / PAGE * PAGE;
        let mut pages = [0u8; PAGES_ASKED];
        while at < end {
            let length = (end - at).min(PAGE * PAGES_ASKED as u64);
            let (Ok(offset), Ok(bytes)) = (usize::try_from(at), usize::try_from(length)) else { return false };
            let asked = length.div_ceil(PAGE) as usize;
            // SAFETY: the range lies inside the mapping, which lives as long as `self`; the kernel writes one byte per
            // page, and there are at most PAGES_ASKED of them.
            let done = unsafe { libc::mincore((self.address() + offset) as *mut _, bytes, pages.as_mut_ptr()) };
            if done != 0 || pages[..asked].iter().any(|page| page & 1 == 0) {
                return false;
            }
            at += length;
        }
        true
    }

    /// Asks for single bytes that need no disk: first, last and one in each stride.
    fn probe(&self, range: &Range<u64>) -> bool {
        let last = range.end.min(self.len()).saturating_sub(1);
        let mut at = range.start;
        while at < last {
            if !self.byte_is_cached(at) {
                return false;
            }
            at = at.saturating_add(PROBE_STRIDE);
        }
        self.byte_is_cached(last)
    }

    fn byte_is_cached(&self, offset: u64) -> bool {
        let mut byte = 0u8;
        let slot = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let Ok(offset) = libc::off_t::try_from(offset) else { return false };
        // SAFETY: the vector names one writable byte on this stack frame.
        let n = unsafe { libc::preadv2(self.file().as_raw_fd(), &slot, 1, offset, libc::RWF_NOWAIT) };
        n == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file_of(bytes: usize) -> (tempfile::NamedTempFile, MappedFile) {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(&vec![7u8; bytes]).expect("room for it");
        file.as_file().sync_all().expect("synced");
        let mapped = MappedFile::open(file.path()).expect("mapped");
        (file, mapped)
    }

    #[test]
    fn dropped_pages_are_seen_and_come_back() {
        let (file, mapped) = file_of(1 << 20);
        assert!(mapped.is_resident(&(0..1 << 20)));
        // SAFETY: advice on an open descriptor; it changes no memory.
        let dropped = unsafe { libc::posix_fadvise(file.as_file().as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(dropped, 0);
        std::thread::sleep(std::time::Duration::from_millis(u64::from(TRUSTED_MS) + 50));
        assert!(!mapped.is_resident(&(0..1 << 20)), "pages were dropped");
        mapped.populate(&(4097..1 << 20)).expect("read in");
        assert!(mapped.is_resident(&(4097..1 << 20)));
        assert!(mapped.probe(&(4097..1 << 20)));
    }

    #[test]
    fn a_window_that_lacks_pages_is_asked_about_as_a_whole_only_now_and_then() {
        let seen = Seen::new(2 * WINDOW_BYTES);
        seen.note(1, false, 5000);
        assert!(seen.is_incomplete(1, 5000 + TRUSTED_MS) && !seen.is_incomplete(1, 5001 + TRUSTED_MS));
        assert!(!seen.is_whole(1, 5000) && !seen.is_incomplete(0, 5000) && !seen.is_incomplete(2, 5000));
        seen.note(1, true, 6000);
        assert!(seen.is_whole(1, 6000) && !seen.is_incomplete(1, 6000));
    }

    #[test]
    fn a_window_is_asked_about_often_when_requests_come_within_a_moment() {
        let seen = Seen::new(2 * WINDOW_BYTES);
        assert!(!seen.is_asked_often(0, 5000), "the first time");
        assert!(seen.is_asked_often(0, 5000 + TRUSTED_MS));
        assert!(!seen.is_asked_often(0, 5001 + 2 * TRUSTED_MS), "after a while");
        assert!(!seen.is_asked_often(1, 5000) && !seen.is_asked_often(2, 5000));
    }

    #[test]
    fn a_file_that_was_cut_is_an_error_and_no_signal() {
        let (file, mapped) = file_of(1 << 20);
        file.as_file().set_len(4096).expect("cut");
        assert!(mapped.populate(&(0..1 << 20)).is_err());
    }

    #[test]
    fn an_empty_file_has_no_pages() {
        let (_file, mapped) = file_of(0);
        assert!(mapped.is_resident(&(0..0)));
        mapped.populate(&(0..0)).expect("nothing to do");
        assert!(mapped.slice(0..10).is_empty());
    }
}
