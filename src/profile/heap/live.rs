//! The blocks that were looked at and are not freed yet, by address: shards with a lock each, as large as is allowed
//! at most. Must not know how blocks are made.
#![allow(unsafe_code, reason = "blocks are kept as addresses")]

use super::stacks;
use std::alloc::Layout;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 64;
/// Blocks of one shard at most: 64 Ki of them stand for 32 GiB.
const BLOCKS_MAX: usize = 1024;

/// A block that was looked at.
pub struct Block {
    base: usize,
    layout: Layout,
    /// As it was asked for.
    bytes: usize,
    stack: usize,
}

impl Block {
    /// `bytes` of a block of the system's that begins at `base` and has `layout`, allocated by `stack`.
    pub fn new(base: *mut u8, layout: Layout, bytes: usize, stack: usize) -> Self {
        Self { base: base.expose_provenance(), layout, bytes, stack }
    }

    pub fn base(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.base)
    }

    pub fn layout(&self) -> Layout {
        self.layout
    }
}

type Shard = Mutex<HashMap<usize, Block, BuildHasherDefault<Pages>>>;

static LIVE: [Shard; SHARDS] = [const { Mutex::new(HashMap::with_hasher(BuildHasherDefault::new())) }; SHARDS];
/// Blocks that found no room and were not looked at.
pub static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Addresses are multiples of a page: the number of the page, spread over all bits.
#[derive(Default)]
pub struct Pages(u64);

impl Hasher for Pages {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (address as u64 >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

fn shard(address: usize) -> MutexGuard<'static, HashMap<usize, Block, BuildHasherDefault<Pages>>> {
    LIVE[(address >> 12) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers a block; false when there is no room.
pub fn insert(address: usize, block: Block) -> bool {
    let mut shard = shard(address);
    if shard.len() >= BLOCKS_MAX {
        LEFT_OUT.fetch_add(1, Relaxed);
        return false;
    }
    stacks::count_alloc(block.stack, block.bytes);
    shard.insert(address, block);
    true
}

/// Forgets a block that is freed.
pub fn remove(address: usize) -> Option<Block> {
    let block = shard(address).remove(&address)?;
    stacks::count_free(block.stack, block.bytes);
    Some(block)
}

pub fn contains(address: usize) -> bool {
    shard(address).contains_key(&address)
}
