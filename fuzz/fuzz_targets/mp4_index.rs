//! The MP4 index of arbitrary bytes: built, opened and searched within the bounds of memory and time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::seek::build_open_seek;

fuzz_target!(|data: &[u8]| build_open_seek(data));
