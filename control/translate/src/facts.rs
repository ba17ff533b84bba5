//! What stands in a Service and its slices, for whoever asks why it isn't reached.

use crate::aliases::is_for_others;
use crate::index::Index;
use crate::settings::Settings;
use crate::spec::{ADDRESSES, NODE_PORTS, POOL, SCHEME, SHARE_KEY, ServiceType, Spec, TAKE_OVER};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use model::answers::ServiceFacts;

/// Annotations that are read of type LoadBalancer alone.
const BALANCED_ONLY: [&str; 6] = [ADDRESSES, POOL, SCHEME, SHARE_KEY, NODE_PORTS, TAKE_OVER];
/// As many of them are named.
const IDLE_MAX: usize = 8;

/// What a Service itself says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    class: String,
    selector: String,
    idle_annotations: Vec<String>,
}

impl Said {
    /// `spec.loadBalancerClass`; empty where it names none.
    pub(crate) fn class(&self) -> &str {
        &self.class
    }

    /// Reads it.
    pub(crate) fn read(service: &Service, spec: &ServiceSpec, settings: &Settings) -> Self {
        let selector = spec.selector.iter().flatten().map(|(key, value)| format!("{key}={value}"));
        let annotations = service.metadata.annotations.iter().flat_map(|all| all.keys());
        let balanced = spec.type_.as_deref() == Some("LoadBalancer");
        let counts_elsewhere =
            |key: &&String| BALANCED_ONLY.contains(&key.as_str()) || is_for_others(key, settings);
        let idle = annotations.filter(|_| !balanced).filter(counts_elsewhere).take(IDLE_MAX);
        Self {
            class: spec.load_balancer_class.clone().unwrap_or_default(),
            selector: selector.collect::<Vec<_>>().join(","),
            idle_annotations: idle.cloned().collect(),
        }
    }
}

impl Index {
    /// The facts of one Service; the reasons of its problems come later.
    pub(crate) fn facts(&self, spec: &Spec) -> ServiceFacts {
        let mut facts = ServiceFacts {
            foreign: spec.service_type == ServiceType::LoadBalancer && !spec.balanced,
            withheld: spec.withheld.clone().unwrap_or_default(),
            class: spec.said.class.clone(),
            selector: spec.said.selector.clone(),
            idle_annotations: spec.said.idle_annotations.clone(),
            ..ServiceFacts::default()
        };
        for name in self.slices_of.get(spec.name()).into_iter().flatten() {
            let Some(slice) = self.slices.get(name) else { continue };
            let ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready).count();
            let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            facts.slices += 1;
            facts.endpoints = facts.endpoints.saturating_add(count(slice.endpoints.len()));
            facts.ready = facts.ready.saturating_add(count(ready));
        }
        facts
    }
}
