//! A cluster's objects, as an API server would send them.

#[path = "../../random.rs"]
mod random;

use anyhow::Result;
use random::Random;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use translate::{AddressRange, Object, Place, Pool, Wishes};

/// Endpoints in a slice at most, as the EndpointSlice controller does by default.
const SLICE_MAX: u32 = 100;
const NODES: u32 = 1_000;
const FIRST_POD: u32 = 0x0a00_0001;
const FIRST_NODE: u32 = 0xc613_0001;
/// Addresses of Services: 198.18.0.0/16.
const POOL: [[u8; 4]; 2] = [[198, 18, 0, 0], [198, 18, 255, 255]];

/// Services of one size.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Number of the first.
    pub first: u32,
    /// How many.
    pub services: u32,
    /// Endpoints of each.
    pub endpoints: u32,
}

/// One object in JSON.
pub enum Text {
    Service(Vec<u8>),
    Slice(Vec<u8>),
    Node(Vec<u8>),
}

impl Text {
    /// As the control side has it after decoding.
    pub fn decode(&self) -> Result<Object> {
        let place = Place::default();
        Ok(match self {
            Self::Service(text) => Object::Service(Box::new(serde_json::from_slice(text)?), place),
            Self::Slice(text) => {
                Object::EndpointSlice(Box::new(serde_json::from_slice(text)?), place)
            }
            Self::Node(text) => Object::Node(Box::new(serde_json::from_slice(text)?), place),
        })
    }
}

/// The endpoints of a slice: the number of the first, and which are ready.
struct Slice {
    service: u32,
    number: u32,
    first_pod: u32,
    ready: Vec<bool>,
}

/// All objects.
pub struct World {
    random: Random,
    services: Vec<u32>,
    slices: Vec<Slice>,
    version: u64,
}

impl World {
    /// Services with their slices, every endpoint ready.
    pub fn new(seed: u64, shapes: &[Shape]) -> Self {
        let (mut services, mut slices) = (Vec::new(), Vec::new());
        let mut first_pod = 0;
        for shape in shapes {
            for service in shape.first..shape.first + shape.services {
                services.push(service);
                for number in 0..shape.endpoints.div_ceil(SLICE_MAX) {
                    let count = (shape.endpoints - number * SLICE_MAX).min(SLICE_MAX);
                    let ready = vec![true; count as usize];
                    slices.push(Slice { service, number, first_pod, ready });
                    first_pod += count;
                }
            }
        }
        Self { random: Random(seed), services, slices, version: 1 }
    }
    /// Settings with room for all of them.
    pub fn wishes() -> Wishes {
        let [first, last] = POOL.map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
        let ranges = AddressRange::new(first, last).into_iter().collect();
        let refusal = Default::default();
        let pool = Pool { name: "bench".into(), ranges, refusal, ..Pool::default() };
        Wishes { pools: vec![pool], ..Wishes::default() }
    }
    /// How many endpoints there are.
    pub fn endpoints(&self) -> u64 {
        self.slices.iter().map(|slice| slice.ready.len() as u64).sum()
    }
    /// All objects in JSON, in no order that helps.
    pub fn texts(&self) -> Result<Vec<Text>> {
        let mut texts = Vec::new();
        for slice in &self.slices {
            texts.push(Text::Slice(serde_json::to_vec(&self.slice(slice))?));
        }
        for &service in &self.services {
            texts.push(Text::Service(serde_json::to_vec(&service_object(service))?));
        }
        for node in 0..NODES {
            texts.push(Text::Node(serde_json::to_vec(&node_object(node))?));
        }
        Ok(texts)
    }
    /// Turns one endpoint of a Service of this shape ready, or unready; the event that says so.
    pub fn change(&mut self, shape: &Shape) -> Result<Vec<u8>> {
        let of_shape =
            |slice: &Slice| (shape.first..shape.first + shape.services).contains(&slice.service);
        let first = self.slices.iter().position(of_shape).unwrap_or_default();
        let count = self.slices.iter().filter(|slice| of_shape(slice)).count();
        let at = first + self.random.below(count);
        let endpoint = self.random.below(self.slices[at].ready.len());
        let ready = &mut self.slices[at].ready[endpoint];
        *ready = !*ready;
        self.version += 1;
        let object = self.slice(&self.slices[at]);
        Ok(serde_json::to_vec(&json!({"type": "MODIFIED", "object": object}))?)
    }
    fn slice(&self, slice: &Slice) -> Value {
        let Slice { service, number, first_pod, ready } = slice;
        let endpoints: Vec<_> = (*first_pod..).zip(ready).map(endpoint).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("service-{service}-{number}"), "namespace": "bench",
                "uid": format!("slice-{service}-{number}"),
                "resourceVersion": self.version.to_string(),
                "labels": {
                    "kubernetes.io/service-name": format!("service-{service}"),
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        })
    }
}

fn endpoint((pod, ready): (u32, &bool)) -> Value {
    json!({
        "addresses": [Ipv4Addr::from(FIRST_POD + pod)],
        "conditions": {"ready": ready, "serving": ready, "terminating": false},
        "nodeName": format!("node-{}", pod % NODES),
        "targetRef": {"kind": "Pod", "namespace": "bench", "name": format!("pod-{pod}")},
    })
}

fn service_object(number: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": format!("service-{number}"), "namespace": "bench",
            "uid": format!("service-{number}"), "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "type": "LoadBalancer", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

fn node_object(number: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("node-{number}"), "resourceVersion": "1"},
        "status": {
            "addresses": [{
                "type": "InternalIP", "address": Ipv4Addr::from(FIRST_NODE + number),
            }],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}
