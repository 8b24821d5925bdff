//! An index entry that is not what was built, as a damaged cache might hold: refused, or searched without a panic.
//!
//! The input is opened as it is. Then it is taken as patches of a real entry (position of two bytes, length of one,
//! bytes), so that the fuzzer need not find the format by itself: its first byte picks the entry.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use weir_fuzz::bounds::bounded;
use weir_fuzz::media::index::Index;
use weir_fuzz::seek::{Media, seek};

/// Seeds of the targets mp4_index and ts_index; the first byte of the latter is not media.
const MEDIA: [&[u8]; 3] = [
    include_bytes!("../corpus/mp4_index/progressive.mp4"),
    include_bytes!("../corpus/mp4_index/fragmented.mp4"),
    include_bytes!("../corpus/ts_index/packets").split_at(1).1,
];

static ENTRIES: LazyLock<Vec<Vec<u8>>> =
    LazyLock::new(|| MEDIA.iter().map(|media| Index::build(&Media(media)).expect("a seed is good media")).collect());

fuzz_target!(|data: &[u8]| {
    open(data.to_vec(), &[]);
    let Some((&pick, mut patches)) = data.split_first() else { return };
    let pick = usize::from(pick) % MEDIA.len();
    let mut entry = ENTRIES[pick].clone();
    while let Some((&[low, high, len], rest)) = patches.split_first_chunk::<3>() {
        let (patch, rest) = rest.split_at(rest.len().min(usize::from(len % 9)));
        let at = usize::from(u16::from_le_bytes([low, high])) % entry.len().max(1);
        entry.iter_mut().skip(at).zip(patch).for_each(|(byte, new)| *byte = *new);
        patches = rest;
    }
    open(entry, MEDIA[pick]);
});

fn open(entry: Vec<u8>, media: &[u8]) {
    if let Ok(index) = bounded(|| Index::open(Bytes::from(entry))) {
        seek(&index, &Media(media));
    }
}
