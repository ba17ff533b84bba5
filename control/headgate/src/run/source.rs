//! Where objects come from, as the control loop sees it.

use model::answers::{Event, SourceState, WriteCounts};
use sources::Changes;
use sources::directory::{DirectorySource, Options, SourceError};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use translate::writes::StatusWrite;

/// A source of objects, and what is written back to it.
pub trait Source {
    /// Its name in a few words.
    fn name(&self) -> String;
    /// Waits for changes, at most for `wait`. The first ones are everything there is.
    fn next(&mut self, wait: Duration) -> Option<Changes>;
    /// How it is doing.
    fn state(&self) -> SourceState;
    /// The term in which this gateway allocates and writes: another number each time that it begins
    /// to; `None` while it doesn't. What was to be written in another term is forgotten, and has
    /// to be said anew.
    fn writes(&self) -> Option<u64> {
        Some(0)
    }
    /// What keys the choice of backends in all gateways, where the source says so.
    fn selection_key(&self) -> Option<u64> {
        None
    }
    /// Whether another gateway allocates and writes, as far as is known.
    fn another_writes(&self) -> bool {
        false
    }
    /// Writes the status of a Service, by and by.
    fn status(&self, _: StatusWrite) {}
    /// Writes an Event, by and by.
    fn event(&self, _: &Event) {}
    /// What was written; `None` where nothing ever is.
    fn counts(&self) -> Option<WriteCounts> {
        None
    }
    /// Addresses of the source itself, which no Service may have.
    fn servers(&self) -> Vec<IpAddr> {
        Vec::new()
    }
    /// Ends it: what is still to be written is.
    fn stop(self: Box<Self>) {}
}

/// A directory of manifests.
pub struct Directory {
    path: PathBuf,
    source: DirectorySource,
    loaded: bool,
}

impl Directory {
    /// Opens it; nothing is read yet.
    pub fn open(path: &Path, options: Options) -> Result<Self, SourceError> {
        let source = DirectorySource::open(path, options)?;
        Ok(Self { path: path.to_owned(), source, loaded: false })
    }
}

impl Source for Directory {
    fn name(&self) -> String {
        format!("directory {}", self.path.display())
    }
    fn next(&mut self, wait: Duration) -> Option<Changes> {
        if std::mem::replace(&mut self.loaded, true) {
            return self.source.next(wait);
        }
        Some(self.source.load())
    }
    fn state(&self) -> SourceState {
        SourceState { loaded: self.loaded, in_step: self.loaded, ..SourceState::default() }
    }
}
