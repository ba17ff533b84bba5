//! Raw memory of the connection table: allocated once at start-up, on huge pages where the engine
//! has them, and passed in.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Types for which zero bytes are a valid value and which hold no pointer: they may lie in memory
/// that comes as bytes.
///
/// # Safety
/// All bit patterns must be valid values, and the type must not need dropping.
pub unsafe trait Plain: Copy + 'static {}

/// A block of zeroed memory, aligned to 64 bytes, that nobody else uses.
#[derive(Debug)]
pub struct Block {
    start: NonNull<u8>,
    len: usize,
    keep: Box<dyn Any + Send>,
}

// SAFETY: the block is used through its owner alone, and what keeps it alive is Send.
unsafe impl Send for Block {}

/// Alignment of every block, in bytes.
pub const BLOCK_ALIGN: usize = 64;

impl Block {
    /// A block from elsewhere, as huge pages of DPDK. `keep` is dropped when the block is.
    ///
    /// # Safety
    /// `start` must be aligned to [`BLOCK_ALIGN`] and be the start of `len` zeroed bytes that
    /// nobody else uses and that live as long as `keep`.
    pub unsafe fn from_raw(start: NonNull<u8>, len: usize, keep: Box<dyn Any + Send>) -> Self {
        Self { start, len, keep }
    }

    /// A block from the process's heap.
    pub fn heap(len: usize) -> Result<Self, OutOfMemory> {
        let layout =
            Layout::from_size_align(len.max(1), BLOCK_ALIGN).map_err(|_| OutOfMemory(len))?;
        // SAFETY: the layout has a size of at least one byte.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(OutOfMemory(len))?;
        Ok(Self { start, len, keep: Box::new(Heap { start: start.as_ptr() as usize, layout }) })
    }
}

/// Memory of this size could not be had, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory(pub usize);

impl std::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "no {} MiB of memory for the connection table: lower [connections] ipv4 and ipv6, or \
             raise [eal] memory_mib",
            self.0.div_ceil(1 << 20)
        )
    }
}

impl std::error::Error for OutOfMemory {}

struct Heap {
    start: usize,
    layout: Layout,
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: allocated in `Block::heap` with this layout, and the block is gone.
        unsafe { dealloc(self.start as *mut u8, self.layout) };
    }
}

/// Gives out blocks: implemented by the engine over huge pages, by [`HeapMemory`] for tests.
pub trait Memory {
    /// A zeroed block of at least `len` bytes.
    fn block(&mut self, len: usize) -> Result<Block, OutOfMemory>;
}

/// Memory from the process's heap.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapMemory;

impl Memory for HeapMemory {
    fn block(&mut self, len: usize) -> Result<Block, OutOfMemory> {
        Block::heap(len)
    }
}

/// A fixed array in a [`Block`].
#[derive(Debug)]
pub struct Slab<T: Plain> {
    block: Block,
    len: usize,
    of: std::marker::PhantomData<T>,
}

impl<T: Plain> Slab<T> {
    /// An array of `len` zeroed elements.
    pub fn new(memory: &mut dyn Memory, len: usize) -> Result<Self, OutOfMemory> {
        const { assert!(align_of::<T>() <= BLOCK_ALIGN) };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(OutOfMemory(usize::MAX))?;
        let block = memory.block(bytes)?;
        if block.len < bytes {
            return Err(OutOfMemory(bytes));
        }
        let _kept_alive = &block.keep;
        Ok(Self { block, len, of: std::marker::PhantomData })
    }
}

impl<T: Plain> Deref for Slab<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `new` made sure of size and alignment, zeroes are valid (`Plain`), and the block
        // lives as long as self.
        unsafe { std::slice::from_raw_parts(self.block.start.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Slab<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and self is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.block.start.as_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SAFETY: an integer.
    unsafe impl Plain for u64 {}

    #[test]
    fn a_slab_is_zeroed_aligned_and_writable() -> Result<(), OutOfMemory> {
        let mut slab = Slab::<u64>::new(&mut HeapMemory, 1000)?;
        assert!(slab.iter().all(|value| *value == 0));
        assert_eq!(slab.as_ptr() as usize % BLOCK_ALIGN, 0);
        slab[999] = 7;
        assert_eq!(slab[999], 7);
        Ok(())
    }
}
