//! `[kubernetes]`, and which source of objects there is.

use super::problem::Log;
use super::read::{self, Section, boolean, directory, parsed, section, within};
use super::tree::Table;
use model::desired::ObjectName;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory of manifests.
    Directory(PathBuf),
    /// An API server.
    Kubernetes(Kubernetes),
}

/// `[kubernetes]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// The kubeconfig; without it `$KUBECONFIG`, then the credentials that a pod is given.
    pub kubeconfig: Option<PathBuf>,
    /// The context; the current one if `None`.
    pub context: Option<String>,
    /// The Lease that decides who allocates and writes; `None` for a gateway that is alone.
    pub lease: Option<ObjectName>,
    /// How long the Lease holds after it was renewed.
    pub lease_duration: Duration,
    /// What this gateway is called in the Lease and in Events.
    pub identity: Arc<str>,
    /// Allocate addresses and write status, where the Lease is ours.
    pub write: bool,
    /// Write Events.
    pub events: bool,
    /// LoadBalancer Services of ours carry a finalizer.
    pub finalizer: bool,
    /// How long a re-list that would remove most backends is held back.
    pub hold_back: Duration,
}

/// The directory of manifests unless somebody names another.
const MANIFESTS: &str = "/etc/headgate/manifests";
/// As `control/deploy` makes it.
const LEASE: &str = "headgate-system/headgate";
/// A Lease that isn't there.
const NO_LEASE: &str = "none";

/// Reads which source there is.
pub(super) fn source(root: &Table, log: &mut Log) -> Option<Source> {
    let kubernetes = section(root, "kubernetes", log);
    if !root.contains_key("kubernetes") {
        return directory(root, "manifests", MANIFESTS, log).map(Source::Directory);
    }
    if root.contains_key("manifests") {
        let manifests = section(root, "manifests", log);
        let what = format!(
            "[kubernetes] at {} names another source: objects come from one, remove the other",
            kubernetes.place("")
        );
        log.problem(manifests.place("dir"), "manifests.dir", what);
    }
    read_section(&kubernetes, log).map(Source::Kubernetes)
}

fn read_section(section: &Section<'_>, log: &mut Log) -> Option<Kubernetes> {
    let kubeconfig = section.or("kubeconfig", None, log, |node| read::path(node).map(Some));
    let context = section.optional("context", log, |node| Ok(read::text(node)?.to_owned()));
    let default = LEASE.split_once('/').map(|(namespace, name)| ObjectName::new(namespace, name));
    let lease = section.or("lease", default, log, parsed(lease));
    let seconds = Duration::from_secs;
    let lease_duration = section.or("lease_duration", seconds(15), log, within("5s", "10m"));
    let identity = section.or("identity", host_name(), log, parsed(identity));
    let write = section.or("write", true, log, boolean);
    let events = section.or("events", true, log, boolean);
    let finalizer = section.or("finalizer", false, log, boolean);
    let hold_back = section.or("hold_back", seconds(3), log, within("0s", "10m"));
    Some(Kubernetes {
        kubeconfig: kubeconfig?,
        context,
        lease: lease?,
        lease_duration: lease_duration?,
        identity: identity?,
        write: write?,
        events: events?,
        finalizer: finalizer?,
        hold_back: hold_back?,
    })
}

fn lease(text: &str) -> Result<Option<ObjectName>, &'static str> {
    if text == NO_LEASE {
        return Ok(None);
    }
    let label = |part: &str| {
        let plain =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        (1..=63).contains(&part.len()) && part.chars().all(plain)
    };
    match text.split_once('/') {
        Some((namespace, name)) if label(namespace) && label(name) => {
            Ok(Some(ObjectName::new(namespace, name)))
        }
        _ => Err("expected NAMESPACE/NAME in lower case, as headgate-system/headgate, or none"),
    }
}

fn identity(text: &str) -> Result<Arc<str>, &'static str> {
    let plain = |c: char| c.is_ascii_graphic();
    if (1..=63).contains(&text.len()) && text.chars().all(plain) {
        return Ok(text.into());
    }
    Err("expected 1 to 63 characters without spaces, and another one on each gateway")
}

fn host_name() -> Arc<str> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    identity(name.trim()).unwrap_or_else(|_| "headgate".into())
}
