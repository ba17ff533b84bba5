//! Hand-written `Endpoints` become EndpointSlices, as the endpointslicemirroring controller of
//! Kubernetes makes them.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort as OldPort, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::ids::Family;
use std::net::IpAddr;

/// Endpoints of one slice, as the controller bounds them.
const ENDPOINTS_PER_SLICE_MAX: usize = 1_000;
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// Label and annotation of Endpoints that are not to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// The slices of an `Endpoints` object.
pub(super) fn slices(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    if skipped(&endpoints.metadata) {
        return slices;
    }
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<_> = subset.ports.iter().flatten().map(port).collect();
        for family in [Family::V4, Family::V6] {
            let ready = subset.addresses.iter().flatten().map(|one| (one, true));
            let not_ready = subset.not_ready_addresses.iter().flatten().map(|one| (one, false));
            let of_family: Vec<_> = ready
                .chain(not_ready)
                .filter(|(one, _)| family_of(&one.ip) == family)
                .map(|(one, ready)| endpoint(one, ready))
                .collect();
            for some in of_family.chunks(ENDPOINTS_PER_SLICE_MAX) {
                slices.push(EndpointSlice {
                    metadata: metadata(&endpoints.metadata, slices.len() + 1),
                    address_type: family.to_string(),
                    ports: Some(ports.clone()),
                    endpoints: Some(some.to_vec()),
                });
            }
        }
    }
    slices
}

fn skipped(metadata: &ObjectMeta) -> bool {
    let labels = metadata.labels.as_ref();
    let annotations = metadata.annotations.as_ref();
    labels.is_some_and(|all| all.get(SKIP).is_some_and(|value| value == "true"))
        || annotations.is_some_and(|all| all.contains_key(LEADER))
}

/// What isn't an address goes with IPv4, where the reader of slices names it.
fn family_of(text: &str) -> Family {
    text.parse::<IpAddr>().map_or(Family::V4, Family::of)
}

fn metadata(of: &ObjectMeta, number: usize) -> ObjectMeta {
    let name = of.name.clone().unwrap_or_default();
    let mut labels = of.labels.clone().unwrap_or_default();
    labels.insert(translate::SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    ObjectMeta {
        name: Some(format!("{name}-mirrored-{number}")),
        namespace: of.namespace.clone(),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}

fn port(given: &OldPort) -> EndpointPort {
    EndpointPort {
        name: Some(given.name.clone().unwrap_or_default()),
        port: Some(given.port),
        protocol: Some(given.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: given.app_protocol.clone(),
    }
}

fn endpoint(given: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![given.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: given.hostname.clone(),
        node_name: given.node_name.clone(),
        target_ref: given.target_ref.clone(),
        ..Endpoint::default()
    }
}
