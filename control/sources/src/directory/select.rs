//! Service selectors over Pods become EndpointSlices, as the endpointslice controller of
//! Kubernetes makes them.

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use model::ids::Family;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Endpoints of one slice, as the controller bounds them.
const ENDPOINTS_PER_SLICE_MAX: usize = 100;
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Endpoints whose containers give their ports the same numbers.
type Alike = (Vec<(String, i32, String)>, Vec<Endpoint>);

/// The slices of a Service over the Pods of its namespace, which come in the order of their names.
pub(super) fn slices<'a>(
    service: &Service,
    pods: impl Iterator<Item = &'a Pod> + Clone,
) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    let Some(spec) = service.spec.as_ref() else { return slices };
    let selector = spec.selector.as_ref().filter(|selector| !selector.is_empty());
    let Some(selector) = selector.filter(|_| spec.type_.as_deref() != Some("ExternalName")) else {
        return slices;
    };
    let publish = spec.publish_not_ready_addresses == Some(true);
    let ports = spec.ports.as_deref().unwrap_or_default();
    for family in families(service) {
        let mut alike: Vec<Alike> = Vec::new();
        for pod in pods.clone().filter(|pod| selects(selector, pod) && !has_ended(pod)) {
            let Some(address) = address(pod, family) else { continue };
            let numbers: Vec<_> = ports.iter().filter_map(|port| number(port, pod)).collect();
            let endpoint = endpoint(pod, address, publish);
            match alike.iter_mut().find(|(known, _)| *known == numbers) {
                Some((_, endpoints)) => endpoints.push(endpoint),
                None => alike.push((numbers, vec![endpoint])),
            }
        }
        for (numbers, endpoints) in alike {
            for some in endpoints.chunks(ENDPOINTS_PER_SLICE_MAX) {
                slices.push(EndpointSlice {
                    metadata: metadata(&service.metadata, slices.len() + 1),
                    address_type: family.to_string(),
                    ports: Some(numbers.iter().map(port).collect()),
                    endpoints: Some(some.to_vec()),
                });
            }
        }
    }
    slices
}

/// The families that a Service has, or will have where it doesn't say so.
fn families(service: &Service) -> Vec<Family> {
    let Some(spec) = service.spec.as_ref() else { return Vec::new() };
    let of = |text: &String| match text.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    };
    let mut families: Vec<_> = spec.ip_families.iter().flatten().filter_map(of).collect();
    if families.is_empty() {
        let cluster = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        let first = cluster.filter_map(|text| text.parse::<IpAddr>().ok()).next();
        families.push(first.map_or(Family::V4, Family::of));
    }
    let policy = spec.ip_family_policy.as_deref();
    if families.len() == 1 && matches!(policy, Some("PreferDualStack" | "RequireDualStack")) {
        let other = if families == [Family::V4] { Family::V6 } else { Family::V4 };
        families.push(other);
    }
    families
}

fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(key, value)| labels.and_then(|all| all.get(key)) == Some(value))
}

/// Its containers have run to their end.
fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn address(pod: &Pod, family: Family) -> Option<IpAddr> {
    let status = pod.status.as_ref()?;
    let several = status.pod_ips.iter().flatten().map(|one| &one.ip);
    let mut all = several.chain(&status.pod_ip).filter_map(|text| text.parse::<IpAddr>().ok());
    all.find(|address| Family::of(*address) == family)
}

/// Name, number and protocol of a Service's port at a Pod.
fn number(port: &ServicePort, pod: &Pod) -> Option<(String, i32, String)> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let number = match port.target_port.as_ref() {
        None => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named(name, &protocol, pod)?,
    };
    Some((port.name.clone().unwrap_or_default(), number, protocol))
}

/// The number of a container's port by its name. Of the containers that run before the others
/// those count that go on beside them.
fn named(name: &str, protocol: &str, pod: &Pod) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let beside = |one: &&Container| one.restart_policy.as_deref() == Some("Always");
    let beside = spec.init_containers.iter().flatten().filter(beside);
    let ports = spec.containers.iter().chain(beside).flat_map(|one| one.ports.iter().flatten());
    let mut of_name = ports.filter(|port| port.name.as_deref() == Some(name));
    let port = of_name.find(|port| port.protocol.as_deref().unwrap_or("TCP") == protocol)?;
    Some(port.container_port)
}

fn endpoint(pod: &Pod, address: IpAddr, publish: bool) -> Endpoint {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    let serving = ready.next().is_some_and(|condition| condition.status == "True");
    let terminating = pod.metadata.deletion_timestamp.is_some();
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(publish || serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

fn port((name, number, protocol): &(String, i32, String)) -> EndpointPort {
    EndpointPort {
        name: Some(name.clone()),
        port: Some(*number),
        protocol: Some(protocol.clone()),
        app_protocol: None,
    }
}

fn metadata(of: &ObjectMeta, number: usize) -> ObjectMeta {
    let name = of.name.clone().unwrap_or_default();
    let mut labels = of.labels.clone().unwrap_or_default();
    labels.insert(translate::SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    ObjectMeta {
        name: Some(format!("{name}-selected-{number}")),
        namespace: of.namespace.clone(),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}
