//! The Unix socket: taking its place, and giving it back.

use crate::peer::{GROUP, group_id};
use rustix::fs::{FlockOperation, Gid, flock};
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// Why the admin socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A living process listens there.
    #[error(
        "another headgate runs: pid {pid} answers on {path}; stop it, or give this one another [admin] socket"
    )]
    AnotherRuns {
        /// The process, 0 where it is in another PID namespace.
        pid: i32,
        /// The socket.
        path: PathBuf,
    },
    /// Something else is there, which isn't ours to remove.
    #[error("{0} exists and is no socket; move it away, or choose another [admin] socket")]
    NotASocket(PathBuf),
    /// The system said no.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |source| SocketError::Io { what, path, source }
}

/// Removes the socket when dropped, if it is still ours.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    /// The path of the socket.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| found.dev() == self.device && found.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the admin socket");
        }
    }
}

/// Listens at `path` with mode 0660 and, where it exists, the group `headgate`. The socket of a
/// dead process is replaced.
pub(crate) async fn take(path: &Path) -> Result<(UnixListener, Place), SocketError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed("create", parent))?;
    // Two that start at a time would each take the other's socket for a stale one.
    let directory = File::open(parent).map_err(failed("open", parent))?;
    let waiting = tokio::task::spawn_blocking(move || {
        flock(&directory, FlockOperation::LockExclusive).map(|()| directory)
    });
    let lock = waiting.await.map_err(io::Error::other).and_then(|got| got.map_err(io::Error::from));
    let lock = lock.map_err(failed("lock", parent))?;
    remove_stale(path).await?;
    let listener = UnixListener::bind(path).map_err(failed("listen on", path))?;
    drop(lock);
    let made = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    let place = Place { path: path.to_owned(), device: made.dev(), inode: made.ino() };
    if let Some(group) = group_id(GROUP) {
        let chowned = rustix::fs::chown(path, None, Some(Gid::from_raw(group)));
        if let Err(error) = chowned {
            tracing::warn!(%error, "cannot give the admin socket to the group {GROUP}");
        }
    }
    // Only now may the group in: until here the mode came from the umask.
    fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed("chmod", path))?;
    Ok((listener, place))
}

async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path)(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(stream) => {
            let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).unwrap_or_default();
            Err(SocketError::AnotherRuns { pid, path: path.to_owned() })
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the socket of a dead process");
            fs::remove_file(path).map_err(failed("remove", path))
        }
        Err(error) => Err(failed("connect to", path)(error)),
    }
}
