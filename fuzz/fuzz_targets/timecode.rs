//! Times and timecode labels: never a panic, printing undoes parsing, and counting agrees with ffmpeg's formula.
//!
//! Two numbers of four bytes for a rate and one of eight for a frame, then the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::bounds::bounded;
use weir_fuzz::media::time::{Counting, DecimalTime, Label, Rate};

/// Rates with a timecode of their own, nominal frames per second, and frames that drop-frame leaves out per minute.
const RATES: [(u32, u32, u64, u64); 8] = [
    (24000, 1001, 24, 0),
    (24, 1, 24, 0),
    (25, 1, 25, 0),
    (30000, 1001, 30, 2),
    (30, 1, 30, 0),
    (50, 1, 50, 0),
    (60000, 1001, 60, 4),
    (60, 1, 60, 0),
];

fuzz_target!(|data: &[u8]| {
    let Some((head, text)) = data.split_first_chunk::<16>() else { return };
    let (num, den) = (word(head, 0), word(head, 4));
    let frame = i64::from_le_bytes(*head.last_chunk::<8>().expect("16 bytes"));
    if let Ok(text) = std::str::from_utf8(text) {
        bounded(|| parse(text, num, den));
    }
    for drop in [false, true] {
        if let Some(rate) = Rate::new(num, den) {
            let counting = Counting { rate, drop };
            let label = counting.label_of(frame);
            assert_eq!(counting.nearest_legal(label), label);
            let number = counting.number_of(label).expect("a label that was counted is legal");
            assert_eq!(number, frame.rem_euclid(counting.labels_per_day() as i64) as u64);
        }
    }
    for (num, den, fps, drop_frames) in RATES {
        let rate = Rate::new(num, den).expect("not zero");
        for drop in [false, drop_frames > 0] {
            let counting = Counting { rate, drop };
            let label = counting.label_of(frame);
            let number = counting.number_of(label).expect("a label that was counted is legal");
            assert_eq!(number, counted(label, fps, if drop { drop_frames } else { 0 }));
        }
    }
});

fn word(head: &[u8; 16], at: usize) -> u32 {
    u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

fn parse(text: &str, num: u32, den: u32) {
    if let Ok(time) = DecimalTime::parse(text) {
        assert_eq!(DecimalTime::parse(&time.to_string()), Ok(time));
    }
    let Ok(label) = Label::parse(text) else { return };
    assert_eq!(Label::parse(&label.to_string()), Ok(label));
    let Some(rate) = Rate::new(num, den) else { return };
    for drop in [false, true] {
        let counting = Counting { rate, drop };
        let nearest = counting.nearest_legal(label);
        assert!(counting.number_of(nearest).is_ok());
        if let Ok(number) = counting.number_of(label) {
            assert_eq!(counting.label_of(number as i64), nearest);
        }
    }
}

/// `frames = (3600h + 60m + s) * fps + ff - drop * (T - T / 10)` with T in minutes.
fn counted(label: Label, fps: u64, drop: u64) -> u64 {
    let minutes = u64::from(label.hours) * 60 + u64::from(label.minutes);
    let frames = (minutes * 60 + u64::from(label.seconds)) * fps + u64::from(label.frames);
    frames - drop * (minutes - minutes / 10)
}
