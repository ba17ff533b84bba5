//! An API server as the source of objects, and what is written back to it.
//!
//! `connect` makes clients from a kubeconfig and renews them; `reflect` lists and follows each
//! kind (`kinds`, `known`), `inbox` gathers what they tell until the control thread takes it;
//! `health` says how old that may be and `trouble` what to do about it. `writer` writes statuses
//! and Events while `lease` says that this gateway may. Nothing here stops forwarding: without an
//! API server everything stays as it was told last.

mod connect;
mod examine;
mod health;
mod inbox;
mod kinds;
mod known;
mod lease;
mod options;
pub(crate) mod pace;
mod reflect;
mod said;
mod source;
mod statuses;
#[cfg(test)]
mod tests;
mod trouble;
mod writer;

pub use examine::{Examined, examine};
pub use health::{SourceHealth, WatchHealth};
pub use lease::Leadership;
pub use options::{ACCOUNT, LEASE, LeaseOptions, NAMESPACE, Options, SelectionKey, Timing};
pub use said::{POOLS_ANNOTATION, SELECTION_ANNOTATION};
pub use source::KubernetesSource;
pub use writer::{Writer, WriterHealth};

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why an API server can't be a source. One that is merely away is none of these.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// Nothing says where the API server is.
    #[error(
        "nothing says how to reach the API server: name a kubeconfig (kubernetes.kubeconfig), set \
         KUBECONFIG, or run in a pod with a service account; control/deploy/README.md shows how \
         to make one for a host outside the cluster"
    )]
    NoKubeconfig,
    /// A kubeconfig isn't there.
    #[error(
        "the kubeconfig {path} can't be read: {cause}; name the right file \
         (kubernetes.kubeconfig) and let this user read it"
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It makes no sense, or what it names doesn't.
    #[error("the kubeconfig {config}: {cause}; kubectl --kubeconfig {config} version tests it")]
    Bad {
        /// The file.
        config: String,
        /// What is wrong.
        cause: String,
    },
    /// No context is chosen.
    #[error(
        "the kubeconfig {config} has no current context: name one (kubernetes.context) of: {}",
        .contexts.join(", ")
    )]
    NoContext {
        /// The file.
        config: String,
        /// Those that it has.
        contexts: Vec<String>,
    },
    /// The chosen context isn't there.
    #[error(
        "the kubeconfig {config} has no context {context}: name one (kubernetes.context) of: {}",
        .contexts.join(", ")
    )]
    UnknownContext {
        /// The file.
        config: String,
        /// What was asked for.
        context: String,
        /// Those that it has.
        contexts: Vec<String>,
    },
    /// The credentials of a pod aren't there.
    #[error(
        "KUBERNETES_SERVICE_HOST is set, but the credentials of a pod are not there: {cause}; let \
         the pod mount its service account's token, or name a kubeconfig (kubernetes.kubeconfig)"
    )]
    Pod {
        /// What is missing.
        cause: String,
    },
}

/// A panic elsewhere leaves what is behind the lock as good as it was.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
