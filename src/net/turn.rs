//! How much a connection may write before it is the others' turn on its core.
//!
//! A turn costs its connection some ten microseconds beside the bytes, so long turns are cheap, and short ones are
//! fair: whoever wants little waits for one turn of everybody who wants much. So turns are short while somebody on this
//! core is being given brief answers, and long while nobody is.

use crate::store::coarse_ms;
use std::cell::Cell;

/// About 60 µs of copying. An answer of 256 KiB fits, with its head.
pub(super) const SHORT_BYTES: usize = 288 << 10;
/// About 250 µs of copying, or 60 µs of passing references; 1 MiB and its head.
const LONG_BYTES: usize = (1 << 20) + (32 << 10);
/// How long after a brief answer others are expected to ask for one.
const BRIEF_FOR_MS: u64 = 100;

thread_local! {
    /// When this core last gave an answer that fits into a short turn, in ms of [`coarse_ms`].
    static BRIEF_AT_MS: Cell<u64> = const { Cell::new(0) };
}

/// Notes that a brief answer was given.
pub(super) fn note_brief() {
    BRIEF_AT_MS.set(coarse_ms());
}

/// The bytes of the turn that begins now.
pub(super) fn bytes(by_reference: bool) -> usize {
    let brief = coarse_ms().saturating_sub(BRIEF_AT_MS.get()) <= BRIEF_FOR_MS;
    if brief && !by_reference { SHORT_BYTES } else { LONG_BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_short_beside_brief_answers() {
        // Each test has a thread of its own. The machine may have booted a moment ago.
        BRIEF_AT_MS.set(u64::MAX);
        assert_eq!(bytes(false), SHORT_BYTES, "a time to come is not long ago");
        note_brief();
        assert_eq!(bytes(false), SHORT_BYTES);
        assert_eq!(bytes(true), LONG_BYTES, "references pass fast enough");
        std::thread::sleep(std::time::Duration::from_millis(BRIEF_FOR_MS + 50));
        assert_eq!(bytes(false), LONG_BYTES, "nobody wants little any more");
    }
}
