//! Shows what receiving 1 MiB of a live stream costs: spliced into the stream by joining buffers, as the book does it,
//! against received into its place in the window, after which viewers get slices of it.
//!
//! Budget: no copy in user space, and at least a hundred times faster (DESIGN.md section 9). What the kernel copies out
//! of the socket is the same for both and left out: the bytes count as received when they stand in a slab.

use bytes::{Bytes, BytesMut};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};

const CHUNK_BYTES: usize = 1 << 20;
/// What the stream holds already: a quarter of a minute of 4 Mb/s.
const STREAM_BYTES: usize = 8 << 20;

fn main() {
    divan::main();
}

/// A socket's bytes, as a slab of the window holds them once they are received.
fn received() -> Bytes {
    Bytes::from(vec![7; CHUNK_BYTES])
}

/// `stream[:offset] + chunk + stream[offset:]`: a new buffer each time, into which everything is copied.
#[divan::bench]
fn join(bencher: Bencher<'_, '_>) {
    let (stream, chunk) = (vec![0u8; STREAM_BYTES], received());
    bencher.counter(BytesCount::new(CHUNK_BYTES)).bench_local(|| {
        let offset = black_box(STREAM_BYTES / 2);
        [&stream[..offset], &chunk[..], &stream[offset..]].concat()
    });
}

/// The same, but only appended: what is there is not moved as long as there is room, what comes is copied once.
#[divan::bench]
fn append_copy(bencher: Bencher<'_, '_>) {
    let chunk = received();
    bencher
        .counter(BytesCount::new(CHUNK_BYTES))
        .with_inputs(|| BytesMut::with_capacity(STREAM_BYTES))
        .bench_local_refs(|stream| stream.extend_from_slice(black_box(&chunk)));
}

/// Weir's way: the slab's bytes become a piece of the stream's rope, and a viewer gets a clone of it.
#[divan::bench]
fn in_place(bencher: Bencher<'_, '_>) {
    let slab = received();
    bencher.counter(BytesCount::new(CHUNK_BYTES)).bench_local(|| {
        let part = vec![black_box(&slab).slice(0..CHUNK_BYTES)];
        let for_a_viewer = part[0].clone();
        (part, for_a_viewer)
    });
}
