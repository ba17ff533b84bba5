//! Memory on huge pages: reserved ones where the machine has them, else transparent ones.

use memmap2::{Advice, MmapMut, MmapOptions};
use pipeline::arch::memory::{Block, Memory, OutOfMemory};
use std::ptr::NonNull;

const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Base-2 logarithm of [`HUGE_PAGE_BYTES`], as `mmap` wants it.
const HUGE_PAGE_BITS: u8 = 21;
const SMALL_PAGE_BYTES: usize = 4096;

/// Gives out blocks on huge pages, all of them touched, and keeps books about them.
#[derive(Clone, Copy, Debug, Default)]
pub struct HugeMemory {
    /// Bytes on pages that were reserved with `vm.nr_hugepages`.
    pub reserved_bytes: usize,
    /// Bytes for which the kernel was asked for transparent huge pages.
    pub transparent_bytes: usize,
}

impl HugeMemory {
    /// What it stands on, in one sentence. Transparent huge pages are a wish: what the kernel gave
    /// stands beside.
    pub fn describe(&self) -> String {
        let mib = |bytes: usize| bytes >> 20;
        format!(
            "{} MiB reserved (MAP_HUGETLB), {} MiB transparent (madvise; {} MiB given)",
            mib(self.reserved_bytes),
            mib(self.transparent_bytes),
            anonymous_huge_mib()
        )
    }

    fn map(&mut self, len: usize) -> std::io::Result<(MmapMut, usize)> {
        let len = len.next_multiple_of(HUGE_PAGE_BYTES);
        if let Ok(map) = MmapOptions::new().len(len).huge(Some(HUGE_PAGE_BITS)).map_anon() {
            self.reserved_bytes += len;
            return Ok((map, 0));
        }
        // One page more, so that a whole number of aligned ones lies within.
        let map = MmapOptions::new().len(len + HUGE_PAGE_BYTES).map_anon()?;
        // Without transparent huge pages the benchmark runs too; its head line tells.
        let _ = map.advise(Advice::HugePage);
        let offset = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
        self.transparent_bytes += len;
        Ok((map, offset))
    }
}

impl Memory for HugeMemory {
    fn block(&mut self, len: usize) -> Result<Block, OutOfMemory> {
        let (mut map, offset) = self.map(len).map_err(|_| OutOfMemory(len))?;
        for page in map[offset..offset + len].chunks_mut(SMALL_PAGE_BYTES) {
            page[0] = 0;
        }
        let start = NonNull::from(&mut map[offset]);
        // SAFETY: the map is zeroed, reaches `len` bytes beyond the offset, which is aligned to a
        // page, belongs to nobody else, and lives in the block that keeps it.
        Ok(unsafe { Block::from_raw(start, len, Box::new(map)) })
    }
}

/// What the kernel says about this process.
fn anonymous_huge_mib() -> usize {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("AnonHugePages:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<usize>().ok())
        .map_or(0, |kib| kib >> 10)
}
