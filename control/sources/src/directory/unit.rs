//! What things in manifests are known by.

use model::desired::ObjectName;
use std::sync::Arc;

/// Kinds whose objects live in no namespace.
const OF_CLUSTER: [&str; 3] = ["Node", "Namespace", "ServiceCIDR"];

/// What names a thing in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct UnitId {
    pub(super) kind: Arc<str>,
    pub(super) name: ObjectName,
}

impl UnitId {
    /// The id of an object of this kind; the namespace is `default` where not given.
    pub(super) fn new(kind: &str, namespace: Option<&str>, name: &str) -> Self {
        let namespace = match namespace {
            _ if OF_CLUSTER.contains(&kind) => "",
            None | Some("") => "default",
            Some(given) => given,
        };
        Self { kind: kind.into(), name: ObjectName::new(namespace, name) }
    }
}
