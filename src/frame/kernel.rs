//! The inner loop of the enhancer: the dot product of two runs of numbers, in the forms that a benchmark sets side by
//! side. [`super::enhance`] blurs with it.
//!
//! Must not know images. All forms refuse inputs of unequal length with the same error; the C form, which has to
//! read through pointers, is in [`super::exported`].

use std::ops::{Add, Mul};

/// Numbers that the vectorised form adds up side by side: two registers of eight.
const LANES: usize = 16;

/// A dot product needs a partner for every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the inputs have unequal lengths: {left} and {right}")]
pub struct UnequalLengths {
    pub left: usize,
    pub right: usize,
}

fn check(left: usize, right: usize) -> Result<(), UnequalLengths> {
    if left == right { Ok(()) } else { Err(UnequalLengths { left, right }) }
}

/// The plain loop, in order: over a few numbers, whose count the compiler knows, this is the fastest.
#[inline]
pub fn dot_product(left: &[f32], right: &[f32]) -> Result<f32, UnequalLengths> {
    check(left.len(), right.len())?;
    let mut sum = 0.0;
    for (a, b) in left.iter().zip(right) {
        sum += a * b;
    }
    Ok(sum)
}

/// Sums side by side in lanes, which the compiler makes vector instructions of. The order of the additions differs
/// from the plain loop, so that the last digits may too.
pub fn dot_product_vectorised(left: &[f32], right: &[f32]) -> Result<f32, UnequalLengths> {
    check(left.len(), right.len())?;
    let mut lanes = [0.0f32; LANES];
    let (left, left_rest) = left.as_chunks::<LANES>();
    let (right, right_rest) = right.as_chunks::<LANES>();
    for (a, b) in left.iter().zip(right) {
        // Not by zipped iterators: where their making is not inlined, the lanes are kept in memory, dearer than a plain
        // loop.
        lanes = std::array::from_fn(|n| lanes[n] + a[n] * b[n]);
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(a, b)| a * b).sum();
    Ok(lanes.iter().sum::<f32>() + rest)
}

/// Of anything that can be walked, in numbers of any type: integers, floats, exact decimals. The default of a number
/// is its zero. Lengths are known at the end only, so both inputs are walked to it.
pub fn dot_product_of<L, R, N>(left: L, right: R) -> Result<N, UnequalLengths>
where
    L: IntoIterator,
    R: IntoIterator,
    L::Item: Mul<R::Item, Output = N>,
    N: Add<Output = N> + Default,
{
    let (mut left, mut right) = (left.into_iter(), right.into_iter());
    let mut sum = N::default();
    let mut length = 0;
    loop {
        match (left.next(), right.next()) {
            (Some(a), Some(b)) => sum = sum + a * b,
            (None, None) => return Ok(sum),
            (Some(_), None) => return Err(UnequalLengths { left: length + 1 + left.count(), right: length }),
            (None, Some(_)) => return Err(UnequalLengths { left: length, right: length + 1 + right.count() }),
        }
        length += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::exported::weir_dot_product;
    use super::*;

    fn exported(left: &[f32], right: &[f32]) -> Option<f32> {
        let mut out = f32::NAN;
        let code = super::super::exported::call(left, right, &mut out);
        (code == 0).then_some(out)
    }

    #[test]
    fn every_form_gives_the_same() {
        // 0² + 1² + … + 99² = 99 · 100 · 199 / 6 = 328,350, which a float holds exactly.
        let floats: Vec<f32> = (0..100u8).map(f32::from).collect();
        assert_eq!(dot_product(&floats, &floats), Ok(328_350.0));
        assert_eq!(dot_product_vectorised(&floats, &floats), Ok(328_350.0));
        assert_eq!(exported(&floats, &floats), Some(328_350.0));
        assert_eq!(dot_product_of(0..100i64, 0..100i64), Ok(328_350));
        assert_eq!(dot_product_of(floats.iter().map(|f| f64::from(*f)), (0..100u8).map(f64::from)), Ok(328_350.0));
        assert_eq!(dot_product(&[], &[]), Ok(0.0));
        let _: unsafe extern "C" fn(*const f32, usize, *const f32, usize, *mut f32) -> i32 = weir_dot_product;
    }

    #[test]
    fn unequal_lengths_are_an_error_in_every_form() {
        let (short, long) = ([1.0; 3], [1.0; 20]);
        let expected = Err(UnequalLengths { left: 3, right: 20 });
        assert_eq!(dot_product(&short, &long), expected);
        assert_eq!(dot_product_vectorised(&short, &long), expected);
        assert_eq!(dot_product_of(short, long), expected);
        assert_eq!(dot_product_of([1; 5], [1; 2]), Err(UnequalLengths { left: 5, right: 2 }));
        assert_eq!(exported(&short, &long), None);
        assert_eq!(UnequalLengths { left: 5, right: 2 }.to_string(), "the inputs have unequal lengths: 5 and 2");
    }
}
