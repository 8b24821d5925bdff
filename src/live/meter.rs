//! How much each track of a stream brings: measured over the last seconds of the stream's time.
//!
//! PURE.

use crate::media::mp4::describe::usual;
use crate::media::time::Rate;
use std::collections::VecDeque;

/// What is measured over, in microseconds of the stream.
const SPAN_US: i64 = 10_000_000;

/// What a track has in a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// `track_ID`, or PID.
    pub track: u32,
    pub bytes: u64,
    /// Its samples and how long they last in microseconds, where they are counted.
    pub samples: Option<(u32, i64)>,
}

/// Of one track.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    pub track: u32,
    pub bits_per_second: u64,
    /// Of its samples.
    pub rate: Option<Rate>,
}

#[derive(Default)]
pub struct Meter {
    parts: VecDeque<(i64, i64, Vec<Share>)>,
}

impl Meter {
    /// Takes what a part has; it lies between two times of the stream.
    pub fn push(&mut self, start_us: i64, end_us: i64, shares: Vec<Share>) {
        self.parts.push_back((start_us, end_us, shares));
        while self.parts.front().is_some_and(|(start, ..)| end_us.saturating_sub(*start) > SPAN_US) {
            self.parts.pop_front();
        }
    }

    /// Of every track that was seen lately.
    pub fn rates(&self) -> Vec<Rates> {
        let (Some((start, ..)), Some(end)) = (self.parts.front(), self.parts.iter().map(|(_, end, _)| *end).max())
        else {
            return Vec::new();
        };
        let seconds = end.saturating_sub(*start).max(1) as f64 / 1e6;
        let mut sums: Vec<Share> = Vec::new();
        for share in self.parts.iter().flat_map(|(.., shares)| shares) {
            match sums.iter_mut().find(|sum| sum.track == share.track) {
                Some(sum) => {
                    sum.bytes += share.bytes;
                    let both = sum.samples.zip(share.samples);
                    sum.samples = both.map(|(a, b)| (a.0.saturating_add(b.0), a.1.saturating_add(b.1)));
                }
                None => sums.push(*share),
            }
        }
        let rates = sums.into_iter().map(|sum| Rates {
            track: sum.track,
            bits_per_second: (sum.bytes as f64 * 8.0 / seconds).round() as u64,
            rate: sum.samples.and_then(|(samples, us)| {
                let us = u128::try_from(us).ok().filter(|us| *us > 0)?;
                usual(u128::from(samples) * 1_000_000_000 / us)
            }),
        });
        rates.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ten_seconds_count() {
        let mut meter = Meter::default();
        assert_eq!(meter.rates(), []);
        for second in 0..100 {
            // 24 pictures in 1.001 s, of 25,000 bytes in all and then of twice that; a little sound every other second.
            let bytes = if second < 50 { 25_000 } else { 50_000 };
            let mut shares = vec![Share { track: 1, bytes, samples: Some((24, 1_001_000)) }];
            if second % 2 == 0 {
                shares.push(Share { track: 2, bytes: 500, samples: None });
            }
            meter.push(second * 1_000_000, (second + 1) * 1_000_000, shares);
        }
        let video = Rates { track: 1, bits_per_second: 400_000, rate: Rate::new(24_000, 1001) };
        assert_eq!(meter.rates(), [video, Rates { track: 2, bits_per_second: 2000, rate: None }]);
    }
}
