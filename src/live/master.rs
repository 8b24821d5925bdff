//! The text of a master playlist: the one variant that a stream has, and what a player must know to choose it.
//!
//! PURE.

use super::segments::Segments;
use crate::media::index::{Track, TrackKind};
use std::fmt::Write;

/// Of a stream with these tracks.
pub(super) fn text(segments: &Segments, tracks: &[Track]) -> String {
    let (mut peak, mut bits, mut us) = (0, 0, 0);
    for segment in segments.listed().map(|segment| &**segment).chain(segments.open()) {
        let its_bits = i128::from(segment.range.end - segment.range.start) * 8;
        peak = peak.max(rate(its_bits, segment.duration_us));
        bits += its_bits;
        us += segment.duration_us;
    }
    let mut text = format!("#EXTM3U\n#EXT-X-VERSION:10\n#EXT-X-STREAM-INF:BANDWIDTH={peak}");
    // Writing to a String cannot fail.
    let _ = write!(text, ",AVERAGE-BANDWIDTH={}", rate(bits, us));
    let of = |kind| tracks.iter().filter(move |track| track.kind == kind && !track.codec.is_empty());
    let mut codecs: Vec<&str> = Vec::new();
    for track in of(TrackKind::Video).take(1).chain(of(TrackKind::Audio)) {
        if !codecs.contains(&track.codec.as_str()) {
            codecs.push(&track.codec);
        }
    }
    if !codecs.is_empty() {
        let _ = write!(text, ",CODECS=\"{}\"", codecs.join(","));
    }
    if let Some(video) = of(TrackKind::Video).next() {
        if let Some((width, height)) = video.width.zip(video.height) {
            let _ = write!(text, ",RESOLUTION={width}x{height}");
        }
        if let Some(rate) = video.frame_rate {
            let _ = write!(text, ",FRAME-RATE={:.3}", f64::from(rate.num) / f64::from(rate.den));
        }
    }
    text.push_str("\nindex.m3u8\n");
    text
}

/// Bits per second, rounded up.
fn rate(bits: i128, us: i64) -> i128 {
    let us = i128::from(us.max(1));
    (bits * 1_000_000 + us - 1) / us
}
