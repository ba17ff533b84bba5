//! A directory of manifests as the source of objects.
//!
//! One read goes: `scan` lists the files and reads those that changed; `documents` splits each;
//! `tree` parses a document and `manifest` makes things of it (`service` defaults and validates,
//! `mirror` makes slices of `Endpoints`); `content` keeps the previous version of what can't be
//! read; `claims` decides between files and says what changed, with the slices that `select` makes
//! of Services and Pods. `watch` tells when to read.

mod claims;
mod content;
mod documents;
mod manifest;
mod mirror;
mod scan;
mod select;
mod service;
mod source;
#[cfg(test)]
mod tests;
mod tree;
mod typed;
mod unit;
mod watch;

use std::io;
use std::path::PathBuf;

pub use source::DirectorySource;

/// What the API server is told by its flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Lowest nodePort that a Service may ask for.
    pub node_port_first: u16,
    /// Highest nodePort that a Service may ask for.
    pub node_port_last: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self { node_port_first: 30_000, node_port_last: 32_767 }
    }
}

/// Why a directory can't be a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It isn't there.
    #[error("the directory of manifests {0} is not there: create it, or name another one")]
    Missing(PathBuf),
    /// It is something else.
    #[error("{0} is not a directory: name the directory that holds the manifests")]
    NotDirectory(PathBuf),
    /// It can't be read.
    #[error("the directory of manifests {path} can't be read: {cause}; give this user r-x on it")]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}
