//! A bounded array of owned mbufs: what queues and rings take and give.

use std::fmt;
use std::mem::MaybeUninit;

use dpdk_sys::rte_mbuf;

use crate::Mbuf;

/// Up to `N` owned mbufs, in order, without a heap. Dropping frees them in bulk.
pub struct Burst<const N: usize = 32> {
    /// The first `len` are initialised.
    mbufs: [MaybeUninit<Mbuf>; N],
    len: usize,
}

impl<const N: usize> Burst<N> {
    /// How many it holds at most: at least 1, and what DPDK's 16-bit counts take.
    pub const CAPACITY: usize = {
        assert!(N > 0 && N <= u16::MAX as usize);
        N
    };

    /// An empty burst.
    #[inline]
    pub const fn new() -> Self {
        let _ = Self::CAPACITY;
        Self { mbufs: [const { MaybeUninit::uninit() }; N], len: 0 }
    }

    /// Mbufs in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it holds `N`.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len == N
    }

    /// Adds one at the end, or gives it back if the burst is full.
    #[inline]
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        match self.mbufs.get_mut(self.len) {
            Some(place) => {
                place.write(mbuf);
                self.len += 1;
                Ok(())
            }
            None => Err(mbuf),
        }
    }

    /// Takes the last one.
    #[inline]
    pub fn pop(&mut self) -> Option<Mbuf> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: it was below the old length, so initialised; below the new one it isn't
        // counted any more.
        Some(unsafe { self.mbufs[self.len].assume_init_read() })
    }

    /// The mbufs, in order.
    #[inline]
    pub fn as_slice(&self) -> &[Mbuf] {
        let start = self.mbufs.as_ptr().cast::<Mbuf>();
        // SAFETY: the first `len` are initialised.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }

    /// The mbufs, in order; they may be swapped and replaced.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [Mbuf] {
        let start = self.mbufs.as_mut_ptr().cast::<Mbuf>();
        // SAFETY: the first `len` are initialised.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }

    /// The mbufs, in order.
    #[inline]
    pub fn iter(&self) -> std::slice::Iter<'_, Mbuf> {
        self.as_slice().iter()
    }

    /// The mbufs, in order.
    #[inline]
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Mbuf> {
        self.as_mut_slice().iter_mut()
    }

    /// Takes all, in order; what is not taken before the iterator drops is freed.
    #[inline]
    pub fn drain(&mut self) -> Drain<'_, N> {
        let end = std::mem::take(&mut self.len);
        Drain { burst: self, next: 0, end }
    }

    /// Frees all, in bulk.
    #[inline]
    pub fn clear(&mut self) {
        let count = std::mem::take(&mut self.len);
        free(&mut self.mbufs[..count]);
    }

    /// Frees the first and moves the others up.
    pub(crate) fn drop_first(&mut self) {
        if self.len > 0 {
            free(&mut self.mbufs[..1]);
            self.remove_first(1);
        }
    }

    /// The mbufs as DPDK's functions take them. Whoever they give the first `n` to says so with
    /// [`Self::remove_first`].
    #[inline]
    pub(crate) fn as_raw(&mut self) -> *mut *mut rte_mbuf {
        self.mbufs.as_mut_ptr().cast()
    }

    /// Forgets the first `count`, which somebody else owns now, and moves the others up.
    #[inline]
    pub(crate) fn remove_first(&mut self, count: usize) {
        let count = count.min(self.len);
        let rest = count..self.len;
        self.len -= count;
        if !rest.is_empty() {
            let start = self.mbufs.as_mut_ptr();
            // SAFETY: `count` is at most the old length, so inside the array.
            let from = unsafe { start.add(count) };
            // SAFETY: `rest.len()` elements from there are inside the array; `copy` may overlap.
            unsafe { std::ptr::copy(from, start, rest.len()) };
        }
    }

    /// Where DPDK's functions may write up to [`Self::room`] more.
    #[inline]
    pub(crate) fn spare_raw(&mut self) -> *mut *mut rte_mbuf {
        self.mbufs[self.len..].as_mut_ptr().cast()
    }

    /// How many more fit.
    #[inline]
    pub fn room(&self) -> usize {
        N - self.len
    }

    /// Counts `count` more in.
    ///
    /// # Safety
    ///
    /// That many heads of valid chains that nobody else owns were written to
    /// [`Self::spare_raw`], and they are at most [`Self::room`].
    #[inline]
    pub(crate) unsafe fn grow(&mut self, count: usize) {
        debug_assert!(count <= self.room());
        self.len += count;
    }
}

fn free(mbufs: &mut [MaybeUninit<Mbuf>]) {
    if mbufs.is_empty() {
        return;
    }
    let count = mbufs.len() as u32;
    // SAFETY: callers pass initialised mbufs and no longer count them; `Mbuf` is a transparent
    // pointer.
    unsafe { dpdk_sys::rte_pktmbuf_free_bulk(mbufs.as_mut_ptr().cast(), count) };
}

impl<const N: usize> Default for Burst<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for Burst<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Burst").field("len", &self.len).field("capacity", &N).finish()
    }
}

impl<const N: usize> Drop for Burst<N> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<'a, const N: usize> IntoIterator for &'a mut Burst<N> {
    type Item = &'a mut Mbuf;
    type IntoIter = std::slice::IterMut<'a, Mbuf>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// Takes the mbufs of a burst; made by [`Burst::drain`].
#[derive(Debug)]
pub struct Drain<'a, const N: usize> {
    burst: &'a mut Burst<N>,
    next: usize,
    end: usize,
}

impl<const N: usize> Iterator for Drain<'_, N> {
    type Item = Mbuf;

    #[inline]
    fn next(&mut self) -> Option<Mbuf> {
        if self.next == self.end {
            return None;
        }
        let place = &self.burst.mbufs[self.next];
        self.next += 1;
        // SAFETY: initialised, since `next` was below the burst's length when the drain was made,
        // and read once.
        Some(unsafe { place.assume_init_read() })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl<const N: usize> ExactSizeIterator for Drain<'_, N> {}

impl<const N: usize> Drop for Drain<'_, N> {
    fn drop(&mut self) {
        free(&mut self.burst.mbufs[self.next..self.end]);
    }
}
