//! The MPEG-TS scan of arbitrary bytes: built, opened and searched within the bounds of memory and time.
//!
//! Whatever the input says, its packets begin with sync bytes, so that it is taken for MPEG-TS: the first byte picks
//! 188- or 192-byte packets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::seek::build_open_seek;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, packets)) = data.split_first() else { return };
    let (size, at) = if kind & 1 == 0 { (188, 0) } else { (192, 4) };
    let mut media = packets.to_vec();
    media.iter_mut().skip(at).step_by(size).for_each(|byte| *byte = 0x47);
    build_open_seek(&media);
});
