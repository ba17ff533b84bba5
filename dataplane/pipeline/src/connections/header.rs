//! What stands before a table in its memory, so that it means the same to a later process: what is
//! written here, what lies behind it, and where.
//!
//! ```text
//! 0: the header, one page    4096: entries    then cold records    then the index
//! ```
//!
//! Each array begins at a multiple of 64. The index is there for speed alone: it is made again from
//! the entries by whoever takes the memory over, as is all else that is derived from them.

use super::entry::{Cold, Entry};
use super::index::{Bucket, buckets_for};
use super::key::Address;
use crate::arch::memory::{BLOCK_ALIGN, Plain};
use model::ids::WorkerId;
use model::limits::CONNECTIONS_PER_WORKER_MAX;

/// Says that a table of ours is behind it, whole.
const MAGIC: u64 = u64::from_ne_bytes(*b"headgate");
/// Raised whenever an entry, a cold record or the header means something else.
pub const LAYOUT_VERSION: u32 = 3;
/// Bytes that a header takes: the smallest page.
pub const HEADER_LEN: usize = 4096;

/// Whose table it is, and what its numbers are relative to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Keys the hash. At random, and secret.
    pub secret: u64,
    /// The worker.
    pub worker: WorkerId,
    /// How many workers there are.
    pub workers: u8,
    /// The worker's clock 0, in milliseconds of `CLOCK_BOOTTIME`.
    pub epoch_ms: u64,
    /// Which slot-to-key tables say whose the entries' slots are.
    pub keys: u64,
}

impl Origin {
    /// That of a table which stands alone.
    pub fn of_secret(secret: u64) -> Self {
        Self { secret, ..Self::default() }
    }
}

/// The header. The rest of its page is zero.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Header {
    /// Written last when a table is made, taken away first while it is taken over.
    magic: u64,
    version: u32,
    /// 4 or 6.
    family: u8,
    worker: u8,
    workers: u8,
    reserved: u8,
    /// Bytes of an entry, a cold record and a bucket.
    entry_bytes: u32,
    cold_bytes: u32,
    bucket_bytes: u32,
    reserved_too: u32,
    /// Connections that it has room for.
    capacity: u64,
    buckets: u64,
    secret: u64,
    epoch_ms: u64,
    keys: u64,
    rest: [u64; 503],
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

// SAFETY: integers alone, for which every bit pattern is valid.
unsafe impl Plain for Header {}

/// Why memory was not taken over. Each means to begin with empty tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdopted {
    /// No table of ours, or one that was being made or taken over.
    NoTable,
    /// Something of it isn't what it is here.
    Differs {
        /// What.
        what: &'static str,
        /// As the memory has it.
        found: u64,
        /// As this program has it.
        expected: u64,
    },
    /// It is shorter than what it says that lies in it.
    TooShort {
        /// Bytes.
        bytes: usize,
    },
}

impl std::fmt::Display for NotAdopted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection table of the process before can't be taken over: ")?;
        match self {
            Self::NoTable => f.write_str("it isn't one, or isn't whole"),
            Self::Differs { what, found, expected } => {
                write!(f, "its {what} is {found}, expected is {expected}")
            }
            Self::TooShort { bytes } => write!(f, "its memory ends after {bytes} bytes"),
        }
    }
}

impl std::error::Error for NotAdopted {}

/// An error where the two differ.
pub(super) const fn same(what: &'static str, found: u64, expected: u64) -> Result<(), NotAdopted> {
    if found == expected { Ok(()) } else { Err(NotAdopted::Differs { what, found, expected }) }
}

impl Header {
    /// That of a table which isn't whole yet.
    pub(super) const fn new<A: Address>(origin: &Origin, capacity: usize, buckets: usize) -> Self {
        Self {
            magic: 0,
            version: LAYOUT_VERSION,
            family: family::<A>(),
            worker: origin.worker.0,
            workers: origin.workers,
            reserved: 0,
            entry_bytes: size_of::<Entry<A>>() as u32,
            cold_bytes: size_of::<Cold<A>>() as u32,
            bucket_bytes: size_of::<Bucket>() as u32,
            reserved_too: 0,
            capacity: capacity as u64,
            buckets: buckets as u64,
            secret: origin.secret,
            epoch_ms: origin.epoch_ms,
            keys: origin.keys,
            rest: [0; 503],
        }
    }
    /// Bytes of all that lies in the memory.
    pub(super) fn bytes(&self) -> Option<usize> {
        let array = |len: u64, size: u32| {
            let bytes = usize::try_from(len).ok()?.checked_mul(size as usize)?;
            bytes.checked_next_multiple_of(BLOCK_ALIGN)
        };
        HEADER_LEN
            .checked_add(array(self.capacity, self.entry_bytes)?)?
            .checked_add(array(self.capacity, self.cold_bytes)?)?
            .checked_add(array(self.buckets, self.bucket_bytes)?)
    }
    /// Says that the table is whole, or that it isn't.
    pub(super) const fn set_whole(&mut self, whole: bool) {
        self.magic = if whole { MAGIC } else { 0 };
    }
    /// The table's hash is keyed by this.
    pub const fn secret(&self) -> u64 {
        self.secret
    }
    /// The worker's clock 0, in milliseconds of `CLOCK_BOOTTIME`: times in the entries count from it.
    pub const fn epoch_ms(&self) -> u64 {
        self.epoch_ms
    }
    pub(super) const fn capacity(&self) -> usize {
        self.capacity as usize
    }
    #[cfg(test)]
    pub(super) const fn set_version(&mut self, version: u32) {
        self.version = version;
    }
    pub(super) const fn set_keys(&mut self, keys: u64) {
        self.keys = keys;
    }
    /// True where this program can read what is behind the header: a table of the family and of the
    /// worker, whose slots are those of the `keys`.
    pub(super) fn check<A: Address>(&self, origin: &Origin, keys: u64) -> Result<(), NotAdopted> {
        let ours = Self::new::<A>(origin, 0, 0);
        if self.magic != MAGIC {
            return Err(NotAdopted::NoTable);
        }
        same("layout version", self.version.into(), ours.version.into())?;
        same("family", self.family.into(), ours.family.into())?;
        same("size of an entry", self.entry_bytes.into(), ours.entry_bytes.into())?;
        same("size of a cold record", self.cold_bytes.into(), ours.cold_bytes.into())?;
        same("size of a bucket", self.bucket_bytes.into(), ours.bucket_bytes.into())?;
        same("worker", self.worker.into(), ours.worker.into())?;
        same("number of workers", self.workers.into(), ours.workers.into())?;
        same("name of the slots' keys", self.keys, keys)?;
        let most = CONNECTIONS_PER_WORKER_MAX as u64;
        same("capacity", self.capacity, self.capacity.clamp(1, most))?;
        let buckets = buckets_for(self.capacity()) as u64;
        same("number of buckets", self.buckets, buckets)
    }
}

const fn family<A: Address>() -> u8 {
    match A::FAMILY {
        model::ids::Family::V4 => 4,
        model::ids::Family::V6 => 6,
    }
}
