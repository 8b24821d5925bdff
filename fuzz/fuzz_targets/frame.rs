//! Still frames and uploaded images through the server's own entries: whatever the bytes, a picture or an error, within
//! the limits. The decoders of others may panic: that is an error of ours, and is held as such.
//!
//! The first byte picks what the rest is: an image, a form around one, or a unit stream of H.264 or HEVC behind good
//! parameter sets, so that mutations reach the decoders and not only their gates.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::time::Duration;
use weir_fuzz::frame::{Limits, decode, upload};
use weir_fuzz::http::form::Form;
use weir_fuzz::media::still::{Coding, Still};

const LIMITS: Limits = Limits { pixels_max: 1 << 18, bytes_max: 64 << 20, time: Duration::from_secs(2) };

fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => {
            let read = upload::read(rest, &LIMITS);
            assert!(read.is_err() || read.is_ok_and(|image| image.pixels.len() == 3 * image.width * image.height));
        }
        1 => {
            if let Ok(form) = Form::parse(rest, "b") {
                let _ = form.fields("the_file");
                let _ = form.file("the_file").map(|range| rest[range].len());
            }
        }
        2 => picture(Coding::H264, rest),
        _ => picture(Coding::Hevc, rest),
    }
});

/// Units of 16 KiB each; the last is wanted.
fn picture(coding: Coding, stream: &[u8]) {
    let still = Still::of_units(coding, stream.chunks(1 << 14).map(<[u8]>::to_vec).collect());
    let Ok(decoder) = decode::decoder(&still.coding, LIMITS) else { return };
    if let Ok(planes) = decode::decode(&&b""[..], &still, decoder, &LIMITS) {
        assert_eq!(planes.luma.samples.len(), planes.luma.width * planes.luma.height);
        assert!(planes.luma.samples.len() as u64 <= LIMITS.pixels_max);
    }
}
