//! Still frames: the enhancer's inner loop in four forms, enhancing, and decoding.

use crate::bench::{Benchmark, Statement};
use crate::frame::decode::{decode, decoder};
use crate::frame::enhance::Enhancer;
use crate::frame::image::Image;
use crate::frame::kernel::{dot_product, dot_product_of, dot_product_vectorised};
use crate::frame::{Limits, exported};
use crate::media::index::{Index, Position};
use std::hint::black_box;
use std::ops::{Add, Mul};
use std::time::Duration;

pub(super) fn dot() -> Benchmark {
    Benchmark::new(
        "dot-product",
        "What does the enhancer's inner loop cost in the forms it can be written in?",
        "lanes side by side beat the plain loop over long runs; C in between costs a call; a generic form costs what \
         its numbers cost; each refuses inputs of unequal length",
    )
    .sized("numbers", 10_000, 1..=10_000_000)
    .per("number")
    .way("plain", |size| floats(size, |left, right| dot_product(left, right).map(black_box).is_ok()))
    .way("vectorised", |size| floats(size, |left, right| dot_product_vectorised(left, right).map(black_box).is_ok()))
    .way("through C", |size| {
        floats(size, |left, right| {
            let mut out = 0.0;
            exported::call(left, right, &mut out) == 0 && black_box(out) >= 0.0
        })
    })
    .way("generic, f32", |size| {
        floats(size, |left, right| dot_product_of(left.iter(), right.iter()).map(black_box).is_ok())
    })
    .way("generic, i64", |size| generic(size, 3i64))
    .way("generic, decimal", |size| generic(size, Decimal { digits: 125, places: 3 }))
}

/// Over iterators that nothing lies behind.
fn generic<N>(size: u64, number: N) -> Result<Statement, String>
where
    N: Copy + Default + Add<Output = N> + Mul<Output = N> + 'static,
{
    let numbers = move |count: u64| (0..black_box(count)).map(move |_| black_box(number));
    if dot_product_of(numbers(size), numbers(size - 1)).is_ok() {
        return Err("inputs of unequal length were accepted".to_owned());
    }
    Ok(Statement::new(size, move || dot_product_of(numbers(size), numbers(size)).map(black_box).is_ok()))
}

fn floats(size: u64, product: impl Fn(&[f32], &[f32]) -> bool + 'static) -> Result<Statement, String> {
    let numbers = |step: u64| (0..size).map(|n| (n * step % 100) as f32 / 100.0).collect();
    let (left, right): (Vec<f32>, Vec<f32>) = (numbers(7), numbers(13));
    if product(&left, &right[1..]) {
        return Err("inputs of unequal length were accepted".to_owned());
    }
    Ok(Statement::new(size, move || product(black_box(&left), black_box(&right))))
}

/// An exact decimal: 125 with 3 places is 0.125.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Decimal {
    digits: i128,
    places: u32,
}

impl Decimal {
    fn with_places(self, places: u32) -> i128 {
        self.digits * 10i128.pow(places - self.places)
    }
}

impl Add for Decimal {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let places = self.places.max(other.places);
        Self { digits: self.with_places(places) + other.with_places(places), places }
    }
}

impl Mul for Decimal {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self { digits: self.digits * other.digits, places: self.places + other.places }
    }
}

pub(super) fn enhance() -> Benchmark {
    Benchmark::new(
        "frame-enhance",
        "What does enhancing a picture cost?",
        "levels and sharpening of every pixel: the part of a still that does not depend on the video",
    )
    .sized("pixels of a line, 16:9", 640, 16..=3840)
    .per("pixel")
    .way("enhance", |size| {
        let (width, height) = (size as usize, size as usize * 9 / 16);
        let pixels = (0..width * height * 3).map(|n| (n * 31 % 251) as u8).collect();
        let (image, enhancer) = (Image { width, height, pixels, alpha: None }, Enhancer::default());
        Ok(Statement::new((width * height) as u64, move || {
            let mut image = image.clone();
            enhancer.apply(black_box(&mut image), 0.8, None);
            image
        }))
    })
}

/// Of the sample nothing is near.
const LIMITS: Limits = Limits { pixels_max: 1 << 22, bytes_max: 64 << 20, time: Duration::from_secs(30) };

/// The sample that is in the binary.
const SAMPLE: &[u8] = include_bytes!("../../../assets/demo.mp4");

pub(super) fn decoding() -> Benchmark {
    Benchmark::new(
        "frame-decode",
        "What does a still frame of a video cost before it is scaled and encoded?",
        "frames are decoded from their keyframe on: the further a frame is from it, the more it costs",
    )
    .way("keyframe", |_| frame(0))
    .way("29 frames on", |_| frame(29))
}

fn frame(number: u64) -> Result<Statement, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let entry = Index::build(&SAMPLE).map_err(|error| text(&error))?;
    let index = Index::open(entry.into()).map_err(|error| text(&error))?;
    let limits = LIMITS;
    let still = index.still(&SAMPLE, &Position::Frame(number), limits.bytes_max).map_err(|error| text(&error))?;
    decoder(&still.coding, limits)
        .and_then(|made| decode(&SAMPLE, &still, made, &limits))
        .map_err(|error| text(&error))?;
    Ok(Statement::new(1, move || {
        decoder(&still.coding, limits).and_then(|made| decode(&SAMPLE, black_box(&still), made, &limits)).is_ok()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::iter::repeat_n;

    #[test]
    fn decimals_are_exact() {
        let tenth = Decimal { digits: 1, places: 1 };
        let sum = dot_product_of(repeat_n(tenth, 10), repeat_n(tenth, 10)).expect("equal lengths");
        assert_eq!(sum.with_places(2), 10, "ten times 0.01 are 0.10");
    }
}
