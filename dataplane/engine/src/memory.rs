//! The connection tables' memory: files without a name, which live for as long as somebody has them
//! open or mapped. Where huge pages are free they lie on those.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use nix::sys::stat::fstat;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::ftruncate;
use pipeline::arch::memory::{Block, Memory, OutOfMemory};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// What `/proc/<pid>/fd` shows.
const NAME: &str = "headgate-connections";
/// A file's length never changes: what is mapped stays there.
const SEALS: SealFlag =
    SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

/// Milliseconds since the machine started, time in which it slept included.
pub fn boot_ms() -> u64 {
    // Every kernel that runs this has the clock.
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |since| std::time::Duration::from(since).as_millis() as u64)
}

/// A file in memory. No child of this process has it open.
#[derive(Debug)]
pub struct TableFile {
    file: OwnedFd,
    len: usize,
}

impl TableFile {
    /// A new one of at least `len` zero bytes.
    fn create(len: usize, huge_pages: bool) -> Result<Self, Errno> {
        let mut flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        flags.set(MFdFlags::MFD_HUGETLB, huge_pages);
        let file = memfd_create(NAME, flags)?;
        // The size of a page there.
        let page = usize::try_from(fstat(&file)?.st_blksize).map_err(|_| Errno::EINVAL)?.max(1);
        let len = len.max(1).checked_next_multiple_of(page).ok_or(Errno::EOVERFLOW)?;
        ftruncate(&file, i64::try_from(len).map_err(|_| Errno::EOVERFLOW)?)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
        Ok(Self { file, len })
    }

    /// One that another process made. Its length must be sealed: where the file ended before the
    /// mapping, a look at the rest would end this process.
    pub fn open(file: OwnedFd) -> Result<Self, Errno> {
        let seals = SealFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GET_SEALS)?);
        if !seals.contains(SealFlag::F_SEAL_SHRINK) {
            return Err(Errno::EPERM);
        }
        let len = usize::try_from(fstat(&file)?.st_size).map_err(|_| Errno::EINVAL)?;
        Ok(Self { file, len })
    }

    /// Its bytes, as they are.
    ///
    /// # Safety
    /// Nobody else may use them while the block lives: no process has the file mapped that may still
    /// run, and this one has it mapped once.
    pub unsafe fn map(&self) -> Result<Block, Errno> {
        let len = NonZeroUsize::new(self.len).ok_or(Errno::EINVAL)?;
        let (access, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: a new mapping where the kernel likes; it takes nobody's place.
        let start = unsafe { mmap(None, len, access, flags, &self.file, 0) }?;
        let mapping = Mapping { start, len: self.len };
        // SAFETY: pages are aligned to more than a block has to be; the mapping is `len` long,
        // nobody else's by the caller's word, and lives in the block that keeps it.
        Ok(unsafe { Block::from_raw(start.cast(), self.len, Box::new(mapping)) })
    }
}

impl AsFd for TableFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Part of the address space.
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: it is used to give the memory back alone, which any thread may do.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing can be done by a reference.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `TableFile::map`, and the block is gone. It can't fail for a whole
        // mapping.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

/// Gives out memory, a file for each block, and keeps the files.
#[derive(Debug)]
pub struct TableMemory {
    huge_pages: bool,
    /// False: pages come when they are written first.
    present: bool,
    /// The files so far, in the order of the blocks.
    pub files: Vec<TableFile>,
}

impl TableMemory {
    /// For connection tables, whose memory is there before the first packet. Where huge pages are
    /// wanted but not free, it is on ordinary ones, which is told.
    pub const fn new(huge_pages: bool) -> Self {
        Self { huge_pages, present: true, files: Vec::new() }
    }
    /// For what is written sparsely.
    pub const fn sparse() -> Self {
        Self { huge_pages: false, present: false, files: Vec::new() }
    }

    fn make(&self, len: usize, huge_pages: bool) -> Result<(TableFile, Block), Errno> {
        let file = TableFile::create(len, huge_pages)?;
        // SAFETY: a new file, which nobody else has.
        let block = unsafe { file.map() }?;
        if self.present {
            let start = block.start().cast();
            // Transparent huge pages are a wish, which the kernel may not know.
            // SAFETY: the block's own pages, which stay what they are.
            let _ = unsafe { madvise(start, file.len, MmapAdvise::MADV_HUGEPAGE) };
            // SAFETY: as above.
            let all = unsafe { madvise(start, file.len, MmapAdvise::MADV_POPULATE_WRITE) };
            // Before Linux 5.14 there is no such thing; huge pages are reserved by the mapping then.
            all.or_else(|errno| if errno == Errno::EINVAL { Ok(()) } else { Err(errno) })?;
        }
        Ok((file, block))
    }
}

impl Memory for TableMemory {
    fn block(&mut self, len: usize) -> Result<Block, OutOfMemory> {
        let huge = self.huge_pages.then(|| self.make(len, true));
        if let Some(Err(errno)) = &huge {
            tracing::warn!(
                "a connection table of {} MiB isn't on huge pages ({errno}), which makes it slower: \
                 raise vm.nr_hugepages by {}",
                len.div_ceil(1 << 20),
                len.div_ceil(2 << 20)
            );
        }
        let made = match huge {
            Some(Ok(made)) => Ok(made),
            // Asked beforehand, as the kernel would end a process rather than refuse a page.
            _ if self.present && available().is_some_and(|bytes| bytes < len as u64) => {
                Err(Errno::ENOMEM)
            }
            _ => self.make(len, false),
        };
        let (file, block) = made.map_err(|_| OutOfMemory(len))?;
        self.files.push(file);
        Ok(block)
    }
}

/// Bytes of memory that the kernel could give.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg::F_GETFD, FdFlag};
    use pipeline::connections::{Origin, Shard};

    #[test]
    fn files_are_sealed_and_no_childs() {
        let mut memory = TableMemory::new(false);
        let block = memory.block(10_000).unwrap();
        assert!(block.bytes() >= 10_000);
        let file = &memory.files[0];
        assert!(
            FdFlag::from_bits_retain(fcntl(file, F_GETFD).unwrap()).contains(FdFlag::FD_CLOEXEC)
        );
        assert_eq!(ftruncate(file, 4096), Err(Errno::EPERM));
        assert_eq!(ftruncate(file, 1 << 20), Err(Errno::EPERM));
        let other = memfd_create("other", MFdFlags::MFD_CLOEXEC).unwrap();
        assert_eq!(TableFile::open(other).err(), Some(Errno::EPERM));
    }

    #[test]
    fn a_table_is_on_huge_pages_where_they_are_free_and_on_others_where_not() {
        for huge_pages in [false, true] {
            let mut memory = TableMemory::new(huge_pages);
            let shard = Shard::<u32>::new(&mut memory, 10_000, &Origin::of_secret(1)).unwrap();
            assert_eq!((shard.capacity(), memory.files.len()), (10_000, 1));
        }
    }

    #[test]
    fn more_than_there_is_is_refused_at_once_with_the_remedy() {
        for huge_pages in [false, true] {
            let refused = TableMemory::new(huge_pages).block(1 << 45).unwrap_err().to_string();
            assert!(refused.contains("no 33554432 MiB of memory"), "{refused}");
            assert!(refused.contains("vm.nr_hugepages"), "{refused}");
        }
    }

    #[test]
    fn what_is_sparse_costs_nothing_until_it_is_written() {
        let mut memory = TableMemory::sparse();
        let _block = memory.block(1 << 30).unwrap();
        assert_eq!(fstat(&memory.files[0]).unwrap().st_blocks, 0);
    }
}
