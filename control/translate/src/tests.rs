//! Tests of the index as a whole, by subject; and the words that they are written in.

mod addresses;
mod aliases;
mod conflicts;
mod endpoints;
mod facts;
mod gateways;
mod node_target;
mod pools;
mod probing;
mod properties;
mod refusals;
mod scale;
mod sharing;
mod writers;

use crate::probes::{Check, Health, ProbeKey};
use crate::{Allocations, Built, Index, Kind, NodePortSettings, Object, ObjectKey, Place, Pool};
use crate::{Settings, Wishes};
use model::answers::{ServicePortRow, ServiceStatus};
use model::desired::{BackendState, ObjectName, Refusal, ServicePort};
use serde_json::{Value, json};
use std::net::IpAddr;

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn pool(name: &str, auto_assign: bool, ranges: &[&str]) -> Pool {
    let ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
    Pool { name: name.into(), ranges, auto_assign, ..Pool::default() }
}

/// Pool `demo` with three addresses of each family; pool `other`, for those that name it, with two
/// of IPv4.
pub fn wishes() -> Wishes {
    Wishes {
        pools: vec![
            pool("demo", true, &["203.0.113.10-203.0.113.12", "2001:db8::10-2001:db8::12"]),
            pool("other", false, &["203.0.113.100-203.0.113.101"]),
        ],
        node_port: NodePortSettings {
            addresses: vec![ip("192.0.2.1"), ip("2001:db8:1::1")],
            ..NodePortSettings::default()
        },
        external_ip_ranges: ["198.51.100.0/24", "203.0.113.0/24", "10.0.0.0/8", "127.0.0.0/8"]
            .map(|text| text.parse().unwrap())
            .to_vec(),
        own_addresses: vec![ip("192.0.2.1"), ip("192.0.2.2"), ip("198.51.100.1")],
        next_hops: vec![ip("198.51.100.254")],
        ..Wishes::default()
    }
}

pub fn index() -> Index {
    Index::new(Settings::new(wishes()).unwrap(), Allocations::default())
}

/// An index that forwards by these settings where Services don't say how.
pub fn forwarding(forwarding: crate::ForwardingSettings) -> Index {
    let wishes = Wishes { forwarding, ..wishes() };
    Index::new(Settings::new(wishes).unwrap(), Allocations::default())
}

/// What is being asked, in order.
pub fn asked(index: &Index) -> Vec<ProbeKey> {
    index.asked.keys().cloned().collect()
}

/// A Service `default/NAME` of a type, with one port 80/TCP named `http`, changed by `change`.
pub fn service(name: &str, service_type: &str, change: impl FnOnce(&mut Value)) -> Object {
    let mut value = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "annotations": {}, "labels": {}},
        "spec": {
            "type": service_type,
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        },
    });
    change(&mut value);
    let service = serde_json::from_value(value).unwrap();
    Object::Service(Box::new(service), Place::new(&format!("{name}.yaml"), 1))
}

pub fn balanced(name: &str) -> Object {
    service(name, "LoadBalancer", |_| {})
}

/// A slice `default/NAME` of Service `default/SERVICE` with port 8080/TCP named `http`.
pub fn slice(name: &str, service: &str, family: &str, endpoints: Value) -> Object {
    slice_with(name, service, family, endpoints, json!([{"name": "http", "port": 8080}]))
}

pub fn slice_with(
    name: &str,
    service: &str,
    family: &str,
    endpoints: Value,
    ports: Value,
) -> Object {
    let value = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family, "endpoints": endpoints, "ports": ports,
    });
    let slice = serde_json::from_value(value).unwrap();
    Object::EndpointSlice(Box::new(slice), Place::new(&format!("{name}.yaml"), 20))
}

/// An endpoint: address and the letters of its conditions: r(eady), s(erving), t(erminating).
pub fn endpoint(address: &str, conditions: &str) -> Value {
    let has = |letter| conditions.contains(letter);
    json!({
        "addresses": [address],
        "conditions": {"ready": has('r'), "serving": has('s'), "terminating": has('t')},
    })
}

pub fn node(name: &str, addresses: &[&str]) -> Object {
    let addresses: Vec<_> =
        addresses.iter().map(|text| json!({"type": "InternalIP", "address": text})).collect();
    let value = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"addresses": addresses},
    });
    Object::Node(Box::new(serde_json::from_value(value).unwrap()), Place::default())
}

pub fn key(kind: Kind, name: &str) -> ObjectKey {
    let namespace = if kind == Kind::Node { "" } else { "default" };
    ObjectKey { kind, name: ObjectName::new(namespace, name) }
}

impl Index {
    /// Applies and builds.
    pub fn take(&mut self, objects: impl IntoIterator<Item = Object>) -> Built {
        for object in objects {
            self.apply(object);
        }
        self.build()
    }
    /// Deletes a Service and builds.
    pub fn drop_service(&mut self, name: &str) -> Built {
        self.delete(&key(Kind::Service, name));
        self.build()
    }
    /// The status of a Service.
    pub fn status(&self, name: &str) -> &ServiceStatus {
        let name = ObjectName::new("default", name);
        self.statuses().find(|status| status.name == name).unwrap()
    }
    /// The addresses that are served for a Service.
    pub fn addresses(&self, name: &str) -> Vec<String> {
        self.status(name).addresses.iter().map(ToString::to_string).collect()
    }
    /// The problems that a Service's status shows.
    pub fn problems(&self, name: &str) -> Vec<String> {
        self.status(name).problems.clone()
    }
    /// Addresses that a Service holds, served or not.
    pub fn held(&self, name: &str) -> Vec<String> {
        let held = self.allocations().get(&ObjectName::new("default", name));
        let held = held.into_iter().flat_map(|held| &held.addresses);
        held.map(|one| one.address.to_string()).collect()
    }
    /// One service port of the desired state.
    pub fn port(&self, service: &str, port: &str) -> &ServicePort {
        let ports = self.desired().service_ports.values();
        let name = ObjectName::new("default", service);
        let mut ports = ports.filter(|one| one.key.service == name && *one.key.port_name == *port);
        ports.next().unwrap()
    }
    /// `203.0.113.10:80 LoadBalancer` for each frontend of a port.
    pub fn frontends(&self, service: &str, port: &str) -> Vec<String> {
        let all = &self.port(service, port).frontends;
        all.iter().map(|one| format!("{} {}", one.address, one.origin.name())).collect()
    }
    /// `10.0.0.1:8080` for each active backend of port `http`, `(10.0.0.1:8080)` for a draining one.
    pub fn backends(&self, service: &str) -> Vec<String> {
        let all = &self.port(service, "http").backends;
        all.iter()
            .map(|one| match one.state {
                BackendState::Active => one.address.to_string(),
                BackendState::Draining | BackendState::Unserving => format!("({})", one.address),
            })
            .collect()
    }
    /// The row of a Service's first port.
    pub fn first_row(&self, service: &str) -> &ServicePortRow {
        &self.status(service).ports[0]
    }
}

/// `Reason object place: message` for each event.
pub fn events(built: &Built) -> Vec<String> {
    let text = |event: &model::answers::Event| {
        format!(
            "{} {} {} {}: {}",
            event.reason, event.kind, event.object, event.place, event.message
        )
    };
    built.events.iter().map(text).collect()
}
