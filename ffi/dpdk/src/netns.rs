//! Doing something in another network namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

/// A named network namespace (`ip netns`), held open.
#[derive(Debug, Clone)]
pub(crate) struct Netns {
    file: Arc<File>,
}

impl Netns {
    /// Opens `/run/netns/NAME`.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the name of a namespace has no slash and no dot in front",
            ));
        }
        let file = File::open(Path::new("/run/netns").join(name))?;
        Ok(Self { file: Arc::new(file) })
    }
}

/// Runs `work` in `netns` on a thread that ends afterwards, so that the caller's own namespace
/// never changes, whatever fails. Without a namespace, runs it here.
pub(crate) fn run_in<T: Send>(
    netns: Option<&Netns>,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    let Some(netns) = netns else { return Ok(work()) };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(
            scope,
            move || {
                // SAFETY: the descriptor is open, and only this thread changes its namespace.
                let code = unsafe { libc::setns(netns.file.as_raw_fd(), libc::CLONE_NEWNET) };
                if code == 0 { Ok(work()) } else { Err(io::Error::last_os_error()) }
            },
        )?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the work in there panicked")))
    })
}
