//! One file: a header line, then JSON.

use super::{ALLOCATIONS, DESIRED, KEYS, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the header line begins with; the version follows.
const FORMAT: &str = "headgate-state";
/// Version of what follows the header. Another one is not read.
const VERSION: u32 = 1;
/// Largest file that is read. 524,288 backends at 400 bytes each take 200 MiB.
const FILE_BYTES_MAX: u64 = 1 << 30;
const ASIDE: &str = ".new";

/// Reads a file back; `None` where there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let error = |cause| StoreError::Read { path: path.to_owned(), cause };
    // Without O_NONBLOCK a FIFO of this name would block the start for ever.
    let opened = OpenOptions::new().read(true).custom_flags(nonblock()).open(path);
    let opened = match opened {
        Ok(opened) => opened,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(error(cause)),
    };
    let metadata = opened.metadata().map_err(error)?;
    if !metadata.is_file() {
        return Err(set_aside(path, "it is not a regular file".to_owned()));
    }
    if metadata.len() > FILE_BYTES_MAX {
        let why = format!("it has {} bytes, more than {FILE_BYTES_MAX}", metadata.len());
        return Err(set_aside(path, why));
    }
    let mut bytes = Vec::new();
    opened.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(error)?;
    decode(&bytes).map(Some).map_err(|why| set_aside(path, why))
}

/// `O_NONBLOCK`, which the standard library doesn't name.
const fn nonblock() -> i32 {
    0o4000
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let end = bytes.iter().take(128).position(|&byte| byte == b'\n');
    let (header, body) =
        end.and_then(|end| bytes.split_at_checked(end)).ok_or("it has no header line")?;
    let body = body.get(1..).unwrap_or_default();
    let header = std::str::from_utf8(header).map_err(|_| "its header line is no text")?;
    let mut words = header.split(' ');
    if words.next() != Some(FORMAT) {
        return Err(format!("its first word is not {FORMAT}"));
    }
    let version = words.next().unwrap_or_default();
    if version != VERSION.to_string() {
        return Err(format!("it is of version \"{version}\", and version {VERSION} is read"));
    }
    let expected = seal(body);
    if words.collect::<Vec<_>>().join(" ") != expected {
        return Err(format!("length or checksum differ: its content gives {expected}"));
    }
    serde_json::from_slice(body).map_err(|error| format!("its content makes no sense: {error}"))
}

/// Length and checksum (CRC-32 as of IEEE 802.3) of the content, as the header says them.
fn seal(body: &[u8]) -> String {
    format!("{} {:08x}", body.len(), crc32fast::hash(body))
}

/// Moves a file that can't be used out of the way.
fn set_aside(path: &Path, why: String) -> StoreError {
    let bad = with_suffix(path, ".bad");
    let fate = match fs::rename(path, &bad) {
        Ok(()) => format!("it was moved to {}", bad.display()),
        Err(cause) => format!("moving it to {} failed as well: {cause}", bad.display()),
    };
    StoreError::Bad { path: path.to_owned(), why, fate }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Writes a file so that at every moment either the old or the new one is there.
pub(super) fn write<T: Serialize>(
    directory: &Path,
    name: &str,
    value: &T,
) -> Result<(), StoreError> {
    let path = directory.join(name);
    let error = |cause| StoreError::Write { path: path.clone(), cause };
    let body = serde_json::to_vec(value).map_err(|cause| error(cause.into()))?;
    let aside = with_suffix(&path, ASIDE);
    let replaced = write_aside(&aside, &body).and_then(|()| fs::rename(&aside, &path));
    if let Err(cause) = replaced {
        let _ = fs::remove_file(&aside);
        return Err(error(cause));
    }
    // The rename itself must reach the disk too.
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(error)
}

fn write_aside(path: &Path, body: &[u8]) -> io::Result<()> {
    // Whatever a killed process, or somebody else, left under this name: never written through.
    if let Err(cause) = fs::remove_file(path)
        && cause.kind() != io::ErrorKind::NotFound
    {
        return Err(cause);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{FORMAT} {VERSION} {}\n", seal(body)).as_bytes())?;
    file.write_all(body)?;
    file.sync_all()
}

/// Removes what a process that was killed while it wrote left behind.
pub(super) fn remove_leftovers(directory: &Path) {
    for name in [DESIRED, ALLOCATIONS, KEYS] {
        let _ = fs::remove_file(with_suffix(&directory.join(name), ASIDE));
    }
}
