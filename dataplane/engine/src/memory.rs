//! The connection tables' memory, on DPDK's huge pages.

use dpdk::{Eal, Region};
use pipeline::arch::memory::{Block, HeapMemory, Memory, OutOfMemory};
use std::ptr::NonNull;

/// Memory for tables: DPDK's, or the heap where there are no huge pages.
pub enum TableMemory {
    /// From DPDK.
    Dpdk(Eal),
    /// From the heap.
    Heap(HeapMemory),
}

impl Memory for TableMemory {
    fn block(&mut self, len: usize) -> Result<Block, OutOfMemory> {
        let eal = match self {
            Self::Dpdk(eal) => eal,
            Self::Heap(heap) => return heap.block(len),
        };
        let mut region = Region::new(eal, len.max(1), None).map_err(|_| OutOfMemory(len))?;
        let start = NonNull::new(region.as_mut_ptr()).ok_or(OutOfMemory(len))?;
        // SAFETY: the region is zeroed, aligned to 64 bytes, `len` long and nobody else's, and it
        // lives as long as the block keeps it.
        Ok(unsafe { Block::from_raw(start, len, Box::new(region)) })
    }
}
