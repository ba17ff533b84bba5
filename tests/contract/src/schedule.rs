//! Random schedules: Services, slices and nodes that appear, change and go, as an API server would
//! let them.

use crate::random::Random;
use crate::world::node_addresses;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Schedules side by side in one kube-proxy, each with addresses of its own.
pub const SLOTS: u64 = 20;
/// Steps of a schedule.
pub const STEPS: usize = 4;
const SERVICES: u64 = 4;
const SLICES: u64 = 6;
const NODES: u64 = 4;

/// A change of one object.
#[derive(Clone, Debug)]
pub enum Op {
    /// New, or differs.
    Apply(Value),
    /// Gone: kind and name.
    Delete(&'static str, String),
}

/// One schedule.
#[derive(Debug)]
pub struct Schedule {
    /// What it was made from.
    pub seed: u64,
    /// Which addresses are its own.
    pub slot: u64,
    /// The Kubernetes namespace of its objects.
    pub namespace: String,
    /// Its steps.
    pub steps: Vec<Vec<Op>>,
}

/// The zone that the gateway stands in, the same for all schedules of a batch.
pub const fn zone(seed: u64) -> Option<&'static str> {
    if seed / SLOTS % 3 == 1 { Some("za") } else { None }
}

/// Whether Services of this seed's batch may have nodes as backends.
pub const fn target_node(seed: u64) -> bool {
    seed / SLOTS % 4 == 2
}

/// The pool of a slot.
pub fn pool_ranges(slot: u64) -> [String; 2] {
    let first = slot * 12 + 1;
    let v4 = format!("203.0.113.{first}-203.0.113.{}", first + 9);
    [v4, format!("2001:db8:a:{slot:x}::1-2001:db8:a:{slot:x}::a")]
}

/// The range of a slot's externalIPs, IPv4 and IPv6.
pub fn external_ranges(slot: u64) -> [String; 2] {
    [format!("198.18.{}.0/24", 100 + slot), format!("2001:db8:e:{slot:x}::/64")]
}

/// Two groups of clients for each family, that source ranges tell apart.
pub const CLIENTS: [[&str; 2]; 2] =
    [["198.18.200.0/23", "198.18.202.0/23"], ["2001:db8:1:1::/119", "2001:db8:1:2::/119"]];

/// Source ranges that a Service may have. The first group of clients is within all but the last.
const RANGES: [&[&str]; 8] = [
    &["198.18.200.0/23"],
    &["198.18.200.0/22", "2001:db8:1:1::/64"],
    &["2001:db8:1::/48"],
    &["0.0.0.0/0", "2001:db8:1:1::/64"],
    &["198.18.200.0/24", "198.18.201.0/24", "2001:db8:1:1::/120", "2001:db8:1:1::100/120"],
    &[" 198.18.200.0/23 "],
    &["::/0", "198.18.202.0/23"],
    &["192.0.2.0/24"],
];

impl Schedule {
    /// The schedule of a seed.
    pub fn new(seed: u64) -> Self {
        let slot = seed % SLOTS;
        let mut maker = Maker {
            random: Random::new(seed),
            slot,
            namespace: format!("s{slot}"),
            uid: 0,
            hinted: if seed.is_multiple_of(3) { 60 } else { 97 },
            beside_node: zone(seed).is_some(),
            target_node: target_node(seed),
            objects: BTreeMap::new(),
        };
        let steps = (0..STEPS).map(|step| maker.step(step)).collect();
        Self { seed, slot, namespace: maker.namespace, steps }
    }
}

struct Maker {
    random: Random,
    slot: u64,
    namespace: String,
    uid: u64,
    /// So many of a hundred endpoints have hints.
    hinted: u64,
    /// Hints for the node of the gateway's name are for the gateway.
    beside_node: bool,
    /// Some Services have nodes as backends.
    target_node: bool,
    /// What there is, by kind and name.
    objects: BTreeMap<(&'static str, String), Value>,
}

impl Maker {
    fn step(&mut self, step: usize) -> Vec<Op> {
        let mut ops = Vec::new();
        if step == 0 {
            for number in 0..NODES {
                self.put(&mut ops, "Node", number);
            }
            for number in 0..3 {
                self.put(&mut ops, "Service", number);
            }
            for number in 0..5 {
                self.put(&mut ops, "EndpointSlice", number);
            }
            return ops;
        }
        for _ in 0..=self.random.below(4) {
            let (kind, many) = match self.random.below(10) {
                0..=3 => ("Service", SERVICES),
                4..=8 => ("EndpointSlice", SLICES),
                _ => ("Node", NODES),
            };
            let number = self.random.below(many);
            if self.random.percent(20) {
                let name = name_of(kind, number);
                if self.objects.remove(&(kind, name.clone())).is_some() {
                    ops.push(Op::Delete(kind, name));
                }
            } else {
                self.put(&mut ops, kind, number);
            }
        }
        ops
    }

    fn put(&mut self, ops: &mut Vec<Op>, kind: &'static str, number: u64) {
        let name = name_of(kind, number);
        let old = self.objects.get(&(kind, name.clone())).cloned();
        let object = match kind {
            "Service" => self.service(&name, number, old.as_ref()),
            "EndpointSlice" => self.slice(&name, old.as_ref()),
            _ => self.node(&name, number),
        };
        self.objects.insert((kind, name), object.clone());
        ops.push(Op::Apply(object));
    }

    fn service(&mut self, name: &str, number: u64, old: Option<&Value>) -> Value {
        let kind = match self.random.below(100) {
            0..50 => "LoadBalancer",
            50..72 => "NodePort",
            72..96 => "ClusterIP",
            _ => "ExternalName",
        };
        let uid = old.map_or_else(
            || {
                self.uid += 1;
                format!("{}-{name}-{}", self.namespace, self.uid)
            },
            |old| old["metadata"]["uid"].as_str().unwrap().to_owned(),
        );
        let mut labels = Map::new();
        if self.random.percent(5) {
            labels.insert("service.kubernetes.io/service-proxy-name".into(), json!("other"));
        }
        let mut annotations = Map::new();
        if self.random.percent(30) {
            annotations.insert("headgate.dev/node-ports".into(), json!("true"));
        }
        let external = kind == "LoadBalancer" || kind == "NodePort";
        if self.target_node && external && self.random.percent(70) {
            annotations.insert("headgate.dev/target".into(), json!("node"));
        }
        let mut spec = json!({"type": kind});
        if kind == "ExternalName" {
            spec["externalName"] = json!("www.example.com");
        } else {
            self.addresses(&mut spec, number);
            self.policies(&mut spec, kind);
        }
        self.ports(&mut spec, kind, number);
        if kind == "LoadBalancer" && self.random.percent(4) {
            spec["loadBalancerClass"] = json!("example.com/other");
        }
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": name, "namespace": self.namespace, "uid": uid,
                "labels": labels, "annotations": annotations,
            },
            "spec": spec,
        })
    }

    /// Families, cluster addresses and externalIPs.
    fn addresses(&mut self, spec: &mut Value, number: u64) {
        let slot = self.slot;
        let families: &[&str] = match self.random.below(10) {
            0..=3 => &["IPv4"],
            4 | 5 => &["IPv6"],
            6..=8 => &["IPv4", "IPv6"],
            _ => &["IPv6", "IPv4"],
        };
        spec["ipFamilies"] = json!(families);
        let policy = if families.len() == 2 { "RequireDualStack" } else { "SingleStack" };
        spec["ipFamilyPolicy"] = json!(policy);
        let v4 = format!("198.18.{}.{}", 64 + slot, 10 + number);
        let v6 = format!("2001:db8:c:{slot:x}::{}", 10 + number);
        let address = |family: &&str| if *family == "IPv4" { v4.clone() } else { v6.clone() };
        let addresses: Vec<String> = families.iter().map(address).collect();
        spec["clusterIP"] = json!(addresses[0]);
        spec["clusterIPs"] = json!(addresses);
        if spec["type"] == "ClusterIP" && self.random.percent(10) {
            spec["clusterIP"] = json!("None");
            spec["clusterIPs"] = json!(["None"]);
        }
        if self.random.percent(35) {
            let v4 = format!("198.18.{}.{}", 100 + slot, 10 + number);
            let v6 = format!("2001:db8:e:{slot:x}::{}", 10 + number);
            let mut external = match self.random.below(3) {
                0 => vec![v4],
                1 => vec![v6],
                _ => vec![v4, v6],
            };
            if self.random.percent(5) {
                external.push(format!("192.0.2.{}", 100 + slot));
            }
            spec["externalIPs"] = json!(external);
        }
    }

    fn policies(&mut self, spec: &mut Value, kind: &str) {
        let policy = |local: bool| if local { "Local" } else { "Cluster" };
        spec["internalTrafficPolicy"] = json!(policy(self.random.percent(25)));
        if kind != "ClusterIP" || spec["externalIPs"].is_array() {
            spec["externalTrafficPolicy"] = json!(policy(self.random.percent(35)));
        }
        if kind == "LoadBalancer" {
            spec["allocateLoadBalancerNodePorts"] = json!(true);
            if self.random.percent(30) {
                spec["loadBalancerSourceRanges"] = json!(self.random.one(&RANGES));
            }
        }
        spec["sessionAffinity"] = json!("None");
        if self.random.percent(25) {
            spec["sessionAffinity"] = json!("ClientIP");
            let seconds = *self.random.one(&[1, 60, 10_800, 86_400]);
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": seconds}});
        }
        if self.random.percent(10) {
            spec["publishNotReadyAddresses"] = json!(true);
        }
        if self.random.percent(10) {
            spec["trafficDistribution"] = json!("PreferSameZone");
        }
    }

    fn ports(&mut self, spec: &mut Value, kind: &str, number: u64) {
        const KNOWN: [(&str, &str, u16); 5] = [
            ("http", "TCP", 80),
            ("dns", "UDP", 53),
            ("dns-tcp", "TCP", 53),
            ("", "TCP", 443),
            ("stream", "SCTP", 9000),
        ];
        let mut ports = Vec::new();
        for (place, (name, protocol, port)) in KNOWN.iter().enumerate() {
            let chance = [70, 45, 30, 0, 5][place];
            if !self.random.percent(chance) {
                continue;
            }
            let mut given = json!({"name": name, "protocol": protocol, "port": port,
                "targetPort": port});
            if kind == "NodePort" || kind == "LoadBalancer" {
                given["nodePort"] = json!(30_000 + self.slot * 100 + number * 10 + place as u64);
            }
            ports.push(given);
        }
        if ports.is_empty() || self.random.percent(10) {
            // A single port may have no name.
            let mut given = json!({"protocol": "TCP", "port": 443, "targetPort": 443});
            if kind == "NodePort" || kind == "LoadBalancer" {
                given["nodePort"] = json!(30_000 + self.slot * 100 + number * 10 + 3);
            }
            ports = vec![given];
        }
        spec["ports"] = json!(ports);
    }

    fn slice(&mut self, name: &str, old: Option<&Value>) -> Value {
        let family = match old {
            // It can't change.
            Some(old) => old["addressType"].as_str().unwrap().to_owned(),
            None if self.random.percent(4) => "FQDN".to_owned(),
            None => (*self.random.one(&["IPv4", "IPv6"])).to_owned(),
        };
        let mut labels = Map::new();
        if !self.random.percent(4) {
            let service = match old
                .and_then(|old| old["metadata"]["labels"]["kubernetes.io/service-name"].as_str())
            {
                Some(service) if !self.random.percent(10) => service.to_owned(),
                _ => name_of("Service", self.random.below(SERVICES - 1)),
            };
            labels.insert("kubernetes.io/service-name".into(), json!(service));
        }
        let endpoints: Vec<Value> =
            (0..self.random.below(7)).map(|place| self.endpoint(name, place, &family)).collect();
        let mut ports = Vec::new();
        for (name, protocol, port) in
            [("http", "TCP", 8080), ("dns", "UDP", 5353), ("dns-tcp", "TCP", 5353)]
        {
            if self.random.percent(75) {
                let number = port + u16::from(self.random.percent(10));
                ports.push(json!({"name": name, "protocol": protocol, "port": number}));
            }
        }
        if self.random.percent(40) {
            ports.push(json!({"protocol": "TCP", "port": 8443}));
        }
        if self.random.percent(5) {
            ports.push(json!({"name": "http", "protocol": "TCP"}));
        }
        let mut slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
            "addressType": family, "endpoints": endpoints,
        });
        if !ports.is_empty() || self.random.percent(50) {
            slice["ports"] = json!(ports);
        }
        slice
    }

    fn endpoint(&mut self, slice: &str, place: u64, family: &str) -> Value {
        // Now and then one address is in two slices, or twice in one.
        let of_slice = u64::from(slice.as_bytes()[slice.len() - 1]) % SLICES;
        let own = 1 + 8 * of_slice + place;
        let number = if self.random.percent(92) { own } else { 1 + self.random.below(50) };
        let slot = self.slot;
        let address = match family {
            "IPv4" => format!("198.19.{slot}.{number}"),
            "IPv6" => format!("2001:db8:d:{slot:x}::{number}"),
            _ => format!("pod-{number}.example.com"),
        };
        let mut addresses = vec![address];
        if family == "IPv4" && self.random.percent(5) {
            addresses.push(format!("198.19.{slot}.99"));
        }
        if family != "FQDN" && self.random.percent(3) {
            addresses[0] = self.odd_address(family);
        }
        let mut endpoint = json!({"addresses": addresses});
        let mut conditions = Map::new();
        for (name, chance) in [("ready", 60), ("serving", 70), ("terminating", 30)] {
            if !self.random.percent(15) {
                conditions.insert(name.into(), json!(self.random.percent(chance)));
            }
        }
        if !self.random.percent(5) {
            endpoint["conditions"] = json!(conditions);
        }
        if self.random.percent(85) {
            // A pod stays on its node.
            endpoint["nodeName"] = json!(name_of("Node", (number + slot) % NODES));
        }
        if self.random.percent(self.hinted) {
            // Only in a zone does the gateway stand beside a node.
            let nodes: Vec<Value> = ["gateway", "node-1"]
                .into_iter()
                .filter(|name| self.random.percent(30) && (self.beside_node || *name != "gateway"))
                .map(|node| json!({"name": node}))
                .collect();
            let zones: Vec<Value> = ["za", "zb", "zc"]
                .into_iter()
                .filter(|_| self.random.percent(60))
                .map(|zone| json!({"name": zone}))
                .collect();
            endpoint["hints"] = json!({"forZones": zones, "forNodes": nodes});
        }
        endpoint
    }

    /// An address that the API server lets in and that no endpoint of ours may have.
    fn odd_address(&mut self, family: &str) -> String {
        let slot = self.slot;
        let odd = if family == "IPv4" {
            [format!("198.18.{}.10", 64 + slot), "192.0.2.1".to_owned()]
        } else {
            [format!("2001:db8:c:{slot:x}::10"), "2001:db8:f::1".to_owned()]
        };
        self.random.one(&odd).clone()
    }

    fn node(&mut self, name: &str, number: u64) -> Value {
        let mut labels = Map::new();
        labels.insert(
            "topology.kubernetes.io/zone".into(),
            json!(["za", "zb", "zc"][number as usize % 3]),
        );
        if self.random.percent(15) {
            let value = *self.random.one(&["", "true", "false"]);
            let label = "node.kubernetes.io/exclude-from-external-load-balancers";
            labels.insert(label.into(), json!(value));
        }
        let mut spec = json!({});
        if self.random.percent(8) {
            spec["taints"] =
                json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]);
        }
        let ready = *self.random.one(&["True", "True", "False", "Unknown"]);
        let mut addresses = vec![json!({"type": "Hostname", "address": name})];
        for address in node_addresses(number as u8 + 1) {
            addresses.push(json!({"type": "InternalIP", "address": address}));
        }
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "uid": name, "labels": labels},
            "spec": spec,
            "status": {
                "addresses": addresses,
                "conditions": [{"type": "Ready", "status": ready, "reason": "x", "message": "",
                    "lastHeartbeatTime": null, "lastTransitionTime": null}],
            },
        })
    }
}

/// The name of the object of that number, from 0.
pub fn name_of(kind: &str, number: u64) -> String {
    match kind {
        "Service" => format!("web-{number}"),
        "EndpointSlice" => format!("slice-{number}"),
        _ => format!("node-{}", number + 1),
    }
}
