//! The enhancer's kernel with a C interface, exported under its own name: what a call across that boundary costs can
//! be measured, and a program in another language may use it: `cargo rustc --release --lib --crate-type cdylib` makes
//! a `libweir.so` that has it.
//!
//! The only unsafe code of this room: C hands over pointers. Must not know what is computed with it.

#![allow(unsafe_code)]

use super::kernel;
use std::hint::black_box;

/// `weir_dot_product` was given inputs of unequal length.
pub const UNEQUAL_LENGTHS: i32 = 1;
/// `weir_dot_product` was given a null pointer.
pub const NULL_POINTER: i32 = 2;

/// The dot product of two arrays, written to `out`: 0, or one of the codes above with `out` untouched.
///
/// # Safety
/// `left` and `right` point to as many floats as their lengths say, and `out` to one that may be written; nothing
/// else writes to them meanwhile.
// SAFETY: no other symbol of a program has this name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weir_dot_product(
    left: *const f32,
    left_length: usize,
    right: *const f32,
    right_length: usize,
    out: *mut f32,
) -> i32 {
    if left.is_null() || right.is_null() || out.is_null() {
        return NULL_POINTER;
    }
    // SAFETY: not null, and as long as they say: the caller's promise.
    let (left, right) =
        unsafe { (std::slice::from_raw_parts(left, left_length), std::slice::from_raw_parts(right, right_length)) };
    match kernel::dot_product_vectorised(left, right) {
        Ok(sum) => {
            // SAFETY: not null, and may be written: the caller's promise.
            unsafe { *out = sum };
            0
        }
        Err(_) => UNEQUAL_LENGTHS,
    }
}

type DotProduct = unsafe extern "C" fn(*const f32, usize, *const f32, usize, *mut f32) -> i32;

/// Calls [`weir_dot_product`] as C would: through its address, so that nothing of it is compiled into the caller.
pub fn call(left: &[f32], right: &[f32], out: &mut f32) -> i32 {
    let function = black_box(weir_dot_product as DotProduct);
    // SAFETY: slices are as long as they say, and a reference may be written.
    unsafe { function(left.as_ptr(), left.len(), right.as_ptr(), right.len(), out) }
}
