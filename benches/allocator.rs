//! What it costs that one allocation in 512 KiB is looked at: an allocation and its release, through the system's
//! allocator alone and through the sampling one.
#![allow(unsafe_code, reason = "allocators are called directly")]

use divan::{Bencher, black_box};
use std::alloc::{GlobalAlloc, Layout, System};
use weir::profile::heap::Sampling;

fn main() {
    divan::main();
}

const SIZES: [usize; 4] = [64, 1024, 16 << 10, 256 << 10];

fn pair(allocator: &impl GlobalAlloc, bytes: usize) {
    let layout = Layout::from_size_align(black_box(bytes), 8).expect("a layout");
    // SAFETY: the layout is not empty, and the block is released with it.
    unsafe {
        let block = black_box(allocator.alloc(layout));
        allocator.dealloc(block, layout);
    }
}

#[divan::bench(args = SIZES)]
fn system(bencher: Bencher, bytes: usize) {
    bencher.bench_local(|| pair(&System, bytes));
}

#[divan::bench(args = SIZES)]
fn sampling(bencher: Bencher, bytes: usize) {
    bencher.bench_local(|| pair(&Sampling, bytes));
}
