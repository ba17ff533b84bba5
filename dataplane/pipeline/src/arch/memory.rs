//! Raw memory of the connection table: allocated once at start-up, on huge pages where the engine
//! has them, and passed in.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// Types for which zero bytes are a valid value and which hold no pointer: they may lie in memory
/// that comes as bytes.
///
/// # Safety
/// All bit patterns must be valid values, and the type must not need dropping.
pub unsafe trait Plain: Copy + 'static {}

// SAFETY: every pattern of bytes is valid.
unsafe impl<const N: usize> Plain for [u8; N] {}

/// A block of memory, aligned to 64 bytes, that nobody else uses.
#[derive(Debug)]
pub struct Block {
    start: NonNull<u8>,
    len: usize,
    keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the block is used through its owner alone, and what keeps it alive is Send.
unsafe impl Send for Block {}

/// Alignment of every block, in bytes.
pub const BLOCK_ALIGN: usize = 64;

impl Block {
    /// A block from elsewhere, as of a mapped file. `keep` is dropped when the block is.
    ///
    /// # Safety
    /// `start` must be aligned to [`BLOCK_ALIGN`] and be the start of `len` initialised bytes that
    /// nobody else uses and that live as long as `keep`.
    pub unsafe fn from_raw(
        start: NonNull<u8>,
        len: usize,
        keep: Box<dyn Any + Send + Sync>,
    ) -> Self {
        Self { start, len, keep: keep.into() }
    }

    /// Its first byte.
    pub const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its length in bytes.
    pub const fn bytes(&self) -> usize {
        self.len
    }

    /// A copy of what its start holds.
    pub fn peek<T: Plain>(&self) -> Option<T> {
        const { assert!(align_of::<T>() <= BLOCK_ALIGN) };
        // SAFETY: the block is long enough and aligned, its bytes are initialised, and all are valid
        // (`Plain`).
        (size_of::<T>() <= self.len).then(|| unsafe { self.start.cast().read() })
    }

    /// Takes so many bytes off its start, as a block of their own; what is left begins at the next
    /// multiple of [`BLOCK_ALIGN`].
    pub fn take(&mut self, bytes: usize) -> Result<Self, OutOfMemory> {
        let taken = bytes.checked_next_multiple_of(BLOCK_ALIGN).ok_or(OutOfMemory(bytes))?;
        if bytes > self.len {
            return Err(OutOfMemory(bytes));
        }
        let taken = taken.min(self.len);
        let block = Self { start: self.start, len: bytes, keep: Arc::clone(&self.keep) };
        // SAFETY: at most the end of the block.
        self.start = unsafe { self.start.add(taken) };
        self.len -= taken;
        Ok(block)
    }

    /// A block from the process's heap.
    pub fn heap(len: usize) -> Result<Self, OutOfMemory> {
        let layout =
            Layout::from_size_align(len.max(1), BLOCK_ALIGN).map_err(|_| OutOfMemory(len))?;
        // SAFETY: the layout has a size of at least one byte.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(OutOfMemory(len))?;
        Ok(Self { start, len, keep: Arc::new(Heap { start: start.as_ptr() as usize, layout }) })
    }
}

#[cfg(test)]
impl Block {
    /// The same memory for whoever looks at it when the first owner is no more.
    pub fn twin(&self) -> Self {
        Self { start: self.start, len: self.len, keep: Arc::clone(&self.keep) }
    }
    /// Its bytes.
    pub fn contents(&mut self) -> &mut [u8] {
        // SAFETY: initialised, `len` long, and the other owner is no more.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
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
             raise vm.nr_hugepages, or give the machine or its container more memory",
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

/// Gives out blocks: implemented by the engine over files in memory, by [`HeapMemory`] for tests.
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
        let bytes = len.checked_mul(size_of::<T>()).ok_or(OutOfMemory(usize::MAX))?;
        Self::take(&mut memory.block(bytes)?, len)
    }

    /// An array of `len` elements, as they are, off the start of a block.
    pub fn take(block: &mut Block, len: usize) -> Result<Self, OutOfMemory> {
        const { assert!(align_of::<T>() <= BLOCK_ALIGN) };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(OutOfMemory(usize::MAX))?;
        let block = block.take(bytes)?;
        let _kept_alive = &block.keep;
        Ok(Self { block, len, of: std::marker::PhantomData })
    }
}

impl<T: Plain> Deref for Slab<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `take` made sure of size and alignment, all bytes are valid (`Plain`), and the block
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

    #[test]
    fn a_block_is_cut_into_arrays_that_do_not_touch() -> Result<(), OutOfMemory> {
        let mut block = Block::heap(200)?;
        let mut first = Slab::<u64>::take(&mut block, 9)?;
        assert_eq!(block.bytes(), 200 - 128, "72 bytes, and what aligns the next");
        let mut second = Slab::<u64>::take(&mut block, 9)?;
        assert!(Slab::<u64>::take(&mut block, 1).is_err(), "nothing is left");
        first.fill(1);
        second.fill(2);
        assert!(first.iter().all(|value| *value == 1));
        drop(first);
        assert!(second.iter().all(|value| *value == 2), "each keeps the memory");
        Ok(())
    }
}
