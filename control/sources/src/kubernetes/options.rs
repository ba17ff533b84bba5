//! What the source is told.

use std::path::PathBuf;
use std::time::Duration;

/// Namespace of what `control/deploy` puts into the cluster.
pub const NAMESPACE: &str = "headgate-system";
/// The ServiceAccount, the ClusterRole and its binding in `control/deploy`.
pub const ACCOUNT: &str = "headgate";
/// The Lease in `control/deploy`.
pub const LEASE: &str = "headgate";

/// How the API server is found, and what is wanted of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kubeconfig; without it `$KUBECONFIG`, then the credentials of a pod.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it; without it the current one.
    pub context: Option<String>,
    /// Watch Namespaces too: pools choose by their labels.
    pub namespaces_needed: bool,
    /// Who this gateway is among those of the cluster, as in the Lease; the host's name will do.
    pub identity: String,
    /// The Lease that decides which gateway writes; without it this one does.
    pub lease: Option<LeaseOptions>,
    /// A hash of what decides who gets which address. A gateway whose hash differs doesn't take the
    /// Lease over.
    pub pools_hash: String,
    /// What keys the choice of backends, for the Lease: gateways have to agree.
    pub selection: SelectionKey,
    /// Write statuses and Events at all.
    pub write: bool,
    /// Write Events, where anything is written.
    pub events: bool,
    /// How long things may take.
    pub timing: Timing,
}

impl Options {
    /// Everything by default: found as kubectl would, nothing written without being asked for.
    pub fn new(identity: &str) -> Self {
        Self {
            kubeconfig: None,
            context: None,
            namespaces_needed: false,
            identity: identity.to_owned(),
            lease: None,
            pools_hash: String::new(),
            selection: SelectionKey::default(),
            write: false,
            events: true,
            timing: Timing::default(),
        }
    }
}

/// This gateway's key of the choice of backends.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SelectionKey {
    /// The key.
    pub key: u64,
    /// The configuration says so: it goes before what the Lease says.
    pub configured: bool,
}

impl std::fmt::Debug for SelectionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SelectionKey")
    }
}

/// Which Lease, and how long it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    /// Its namespace.
    pub namespace: String,
    /// Its name. It must be there: the gateway may update it and not create it.
    pub name: String,
    /// How long a holder that is silent keeps it; a new holder waits as long once more. Whole
    /// seconds, 3 at least.
    pub duration: Duration,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        let (namespace, name) = (NAMESPACE.to_owned(), LEASE.to_owned());
        Self { namespace, name, duration: Duration::from_secs(15) }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long one watch request lasts before it is renewed. The server bookmarks its end, so
    /// that renewing costs one request and no objects.
    pub watch: Duration,
    /// How much longer a watch may stay open before it counts as dead. With `watch` this bounds
    /// how long a connection that somebody else answers for can hide a silent API server.
    pub watch_grace: Duration,
    /// How often a silent connection is pinged (HTTP/2)...
    pub ping_every: Duration,
    /// ...and how long the answer may take before it is given up.
    pub ping_answer: Duration,
    /// How long connecting may take, TLS included.
    pub connect: Duration,
    /// How long the beginning of an answer, and a write, may take.
    pub answer: Duration,
    /// How long one page of a list may take.
    pub list: Duration,
    /// The first wait after a failure; each further one is twice as long...
    pub retry_first: Duration,
    /// ...up to this.
    pub retry_longest: Duration,
    /// How long the changes of a storm are gathered.
    pub gather: Duration,
    /// How long a re-list's removal of more than half is held back.
    pub hold: Duration,
    /// How long lists that are older than what was seen are refused. Storage that was restored
    /// from a backup is older for ever.
    pub refuse_older: Duration,
    /// How often kubeconfig, token and certificates on disk are looked at.
    pub reread: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            watch: Duration::from_secs(20),
            watch_grace: Duration::from_secs(5),
            ping_every: Duration::from_secs(1),
            ping_answer: Duration::from_secs(2),
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(5),
            list: Duration::from_secs(30),
            retry_first: Duration::from_millis(200),
            retry_longest: Duration::from_secs(2),
            gather: Duration::from_millis(50),
            hold: Duration::from_secs(3),
            refuse_older: Duration::from_secs(60),
            reread: Duration::from_secs(2),
        }
    }
}
