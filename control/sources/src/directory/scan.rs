//! Which files there are, and their bytes, without being held up by what is no manifest.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of one file.
pub(super) const FILE_BYTES_MAX: u64 = 64 << 20;
/// Files of the directory; the rest by name is not read.
pub(super) const FILES_MAX: usize = 65_536;
/// Entries of the directory that are looked at, whatever they are.
const ENTRIES_MAX: usize = 1 << 20;

/// What tells that a file is still the same: device, inode, size, and both times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([i128; 5]);

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let time =
            |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self([
            i128::from(metadata.dev()),
            i128::from(metadata.ino()),
            i128::from(metadata.len()),
            time(metadata.mtime(), metadata.mtime_nsec()),
            time(metadata.ctime(), metadata.ctime_nsec()),
        ])
    }

    /// Whether the file changed less than `age` ago, or in the future.
    pub(super) fn is_fresh(&self, age: Duration) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX);
        now - self.0[4] < i128::try_from(age.as_nanos()).unwrap_or(0)
    }

    /// Bytes.
    pub(super) const fn size(&self) -> i128 {
        self.0[2]
    }
}

/// A file of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    /// A regular file, reached through symbolic links or not.
    File(Stamp),
    /// Something with the name of a manifest that can't be read as one.
    Odd(String),
}

/// What a look at the directory found.
pub(super) struct Listing {
    pub(super) files: BTreeMap<Arc<str>, Listed>,
    /// More than [`FILES_MAX`].
    pub(super) more: bool,
}

/// The manifests of a directory by name.
pub(super) fn list(directory: &Path) -> io::Result<Listing> {
    let mut names = Vec::new();
    let mut more = false;
    for (count, entry) in fs::read_dir(directory)?.enumerate() {
        let entry = entry?;
        if count >= ENTRIES_MAX {
            more = true;
            break;
        }
        let name = entry.file_name();
        if let Some(name) = name.to_str().filter(|name| is_manifest(name)) {
            names.push(Arc::<str>::from(name));
        }
    }
    names.sort_unstable();
    more |= names.len() > FILES_MAX;
    names.truncate(FILES_MAX);
    let mut files = BTreeMap::new();
    for name in names {
        // Follows symbolic links, as those of a mounted ConfigMap.
        let listed = match fs::metadata(directory.join(&*name)) {
            Ok(metadata) if metadata.is_file() => Listed::File(Stamp::of(&metadata)),
            Ok(metadata) if metadata.is_dir() => continue,
            Ok(_) => Listed::Odd("not a regular file: it is not opened".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_link(directory, &name) => {
                continue;
            }
            Err(error) => Listed::Odd(format!("can't be read: {error}")),
        };
        files.insert(name, listed);
    }
    Ok(Listing { files, more })
}

fn is_link(directory: &Path, name: &str) -> bool {
    fs::symlink_metadata(directory.join(name)).is_ok_and(|metadata| metadata.is_symlink())
}

fn is_manifest(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|text| text.to_str());
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Reads a file, with the stamp of what was read.
pub(super) fn read(directory: &Path, name: &str) -> Result<(Stamp, Vec<u8>), ReadError> {
    // O_NONBLOCK (which the standard library doesn't name): opening a FIFO must not block.
    let opened = OpenOptions::new().read(true).custom_flags(0o4000).open(directory.join(name));
    let file: File = opened.map_err(ReadError::Io)?;
    let metadata = file.metadata().map_err(ReadError::Io)?;
    if !metadata.is_file() {
        return Err(ReadError::NotRegular);
    }
    let mut bytes = Vec::new();
    if metadata.len() <= FILE_BYTES_MAX {
        let mut bounded = file.take(FILE_BYTES_MAX + 1);
        bounded.read_to_end(&mut bytes).map_err(ReadError::Io)?;
    }
    if metadata.len() > FILE_BYTES_MAX || bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ReadError::TooLarge(metadata.len()));
    }
    Ok((Stamp::of(&metadata), bytes))
}

/// Why a file's bytes can't be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("can't be read: {0}")]
    Io(io::Error),
    #[error("not a regular file: it is not opened")]
    NotRegular,
    #[error("{0} bytes, more than {FILE_BYTES_MAX}: split it")]
    TooLarge(u64),
}
