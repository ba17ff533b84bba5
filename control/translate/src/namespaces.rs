//! Namespaces: their labels choose among pools.

use k8s_openapi::api::core::v1::Namespace;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The labels of all Namespaces that are known.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    labels: HashMap<Arc<str>, BTreeMap<String, String>>,
    none: BTreeMap<String, String>,
}

impl Namespaces {
    /// Takes a Namespace in; whether that changes anything.
    pub(crate) fn apply(&mut self, namespace: &Namespace) -> bool {
        let metadata = &namespace.metadata;
        let name: Arc<str> = metadata.name.as_deref().unwrap_or_default().into();
        let labels = metadata.labels.clone().unwrap_or_default();
        self.labels.insert(name, labels.clone()) != Some(labels)
    }

    /// Forgets a Namespace; whether it was known.
    pub(crate) fn delete(&mut self, name: &str) -> bool {
        self.labels.remove(name).is_some()
    }

    /// The labels of a Namespace; none where it isn't known.
    pub(crate) fn labels(&self, name: &str) -> &BTreeMap<String, String> {
        self.labels.get(name).unwrap_or(&self.none)
    }
}
