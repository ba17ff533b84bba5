//! What outlives the process: who has which address, the last good desired state, and keys.
//!
//! Three files in one directory, each one line that names format, version, length and checksum,
//! followed by JSON. A file is written aside, synced and renamed over the old one, so that after
//! a crash at any moment either the old or the new one is there, whole.

mod file;
mod keys;
#[cfg(test)]
mod tests;

use model::desired::DesiredState;
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use translate::Allocations;

pub use keys::Keys;

const DESIRED: &str = "desired.json";
const ALLOCATIONS: &str = "allocations.json";
const KEYS: &str = "keys.json";

/// What was stored. What was never saved is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The last good desired state.
    pub desired: DesiredState,
    /// Who had which address and nodePort.
    pub allocations: Allocations,
}

/// What came back, and what didn't. One file that is bad, or can't be read, doesn't cost the other.
#[derive(Debug, Default)]
pub struct Loaded {
    /// What is good.
    pub stored: Stored,
    /// Why the rest isn't there.
    pub problems: Vec<StoreError>,
}

/// Why something can't be stored or read back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory can't be made or used.
    #[error(
        "the state directory {path} can't be used: {cause}; make it a directory that this user \
         may write, or set another one (state.dir)"
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file can't be read.
    #[error("{path} can't be read: {cause}; make it readable for this user")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file can't be written.
    #[error("{path} can't be written: {cause}; what was stored before is still there")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file isn't what was written. It was moved aside, so that the next load goes without it.
    #[error("{path} can't be used: {why}; {fate}")]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// Where it is now.
        fate: String,
    },
}

/// The directory in which the files are kept.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Opens the directory; makes it, for this user alone, where it isn't there.
    ///
    /// # Errors
    /// It can't be made, or is something else than a directory.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let error = |cause| StoreError::Directory { path: directory.to_owned(), cause };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(error)?;
        let metadata = fs::metadata(directory).map_err(error)?;
        if metadata.mode() & 0o200 == 0 {
            return Err(error(io::ErrorKind::PermissionDenied.into()));
        }
        file::remove_leftovers(directory);
        Ok(Self { directory: directory.to_owned() })
    }

    /// What was stored. A file that isn't what was written is moved aside as `.bad` and is a
    /// problem this once; one that can't be read is one each time.
    pub fn load(&self) -> Loaded {
        let mut problems = Vec::new();
        let allocations = self.read(ALLOCATIONS, &mut problems);
        let desired = self.read(DESIRED, &mut problems);
        Loaded { stored: Stored { desired, allocations }, problems }
    }

    /// One of the files; what isn't there, or can't be used, is empty.
    fn read<T: DeserializeOwned + Default>(&self, name: &str, problems: &mut Vec<StoreError>) -> T {
        let read = file::read(&self.directory.join(name));
        let read = read.map_err(|problem| problems.push(problem));
        read.ok().flatten().unwrap_or_default()
    }

    /// Stores the allocations. On return they are on the disk.
    ///
    /// # Errors
    /// They can't be written; what was stored before is still there.
    pub fn save_allocations(&self, allocations: &Allocations) -> Result<(), StoreError> {
        file::write(&self.directory, ALLOCATIONS, allocations)
    }

    /// The keys that were stored; `None` where none ever were.
    ///
    /// # Errors
    /// The file can't be read, or isn't what was written: then it was moved aside.
    pub fn load_keys(&self) -> Result<Option<Keys>, StoreError> {
        file::read(&self.directory.join(KEYS))
    }

    /// Stores the keys. On return they are on the disk, for this user alone.
    ///
    /// # Errors
    /// They can't be written; what was stored before is still there.
    pub fn save_keys(&self, keys: &Keys) -> Result<(), StoreError> {
        file::write(&self.directory, KEYS, keys)
    }

    /// Stores the desired state. On return it is on the disk.
    ///
    /// # Errors
    /// It can't be written; what was stored before is still there.
    pub fn save_desired(&self, desired: &DesiredState) -> Result<(), StoreError> {
        file::write(&self.directory, DESIRED, desired)
    }
}
