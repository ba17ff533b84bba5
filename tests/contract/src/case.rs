//! Cases as files of YAML: what is there, what is asked, what is answered. The README describes the
//! form.

use crate::world::{self, pool};
use golden::world::ip;
use model::desired::{ObjectName, Refusal, Target};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use translate::{Authority, ForwardingSettings, Pool, Scheme, Wishes};

/// One file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Number of the item of `kubernetes.md`.
    pub item: u32,
    /// Its cases.
    pub cases: Vec<Case>,
}

/// One case: it begins with the objects of `base.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// One line: what it shows.
    pub shows: String,
    /// What the operator configured.
    #[serde(default)]
    pub settings: Given,
    /// What happens, and what is so afterwards.
    pub steps: Vec<Step>,
}

/// A change, and what is so after it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// Another test that shows it, where that takes more than an index and a pipeline:
    /// `path/to/file.rs function`.
    pub test: Option<String>,
    /// Time that passes before it, in seconds.
    pub after_s: u64,
    /// What was to be written so far stands in the statuses of the Services.
    pub written: bool,
    /// The gateway restarts and remembers its allocations alone.
    pub restart: bool,
    /// It restarts, and is configured like this from then on.
    pub restart_with: Option<Given>,
    /// By `Kind/name` or `Kind/namespace/name`: a merge patch (RFC 7396), or a new object; `null`
    /// deletes it.
    pub patch: BTreeMap<String, Value>,
    /// What came of probes, by `tcp ADDRESS:PORT` or `http ADDRESS:PORT/PATH`: `good`, `good WEIGHT`,
    /// `bad` or `closed`. A probe that nobody asks is an error.
    pub probed: BTreeMap<String, String>,
    /// The same of probes that have ended: answers that come too late.
    pub late: BTreeMap<String, String>,
    /// Answers by question, in this order: `tcp CLIENT -> FRONTEND`.
    pub ask: Vec<BTreeMap<String, String>>,
    /// Addresses that Services have in their status, by name.
    pub addresses: BTreeMap<String, Vec<String>>,
    /// Parts of sentences that stand among the problems of a Service, by name.
    pub problems: BTreeMap<String, Vec<String>>,
    /// Events that this change brings: `Reason` or `Reason: part of its message`.
    pub events: Vec<String>,
    /// Reasons of events that it doesn't bring.
    pub no_events: Vec<String>,
    /// What is to be written to the status of Services, by name.
    pub writes: BTreeMap<String, Write>,
    /// Nothing is to be written.
    pub no_writes: bool,
    /// Probes that begin, as for `probed`.
    pub probes: Vec<String>,
    /// No probe begins.
    pub no_probes: bool,
    /// Weights of active backends, by the Service's name and `ADDRESS:PORT`.
    pub weights: BTreeMap<String, BTreeMap<String, u16>>,
    /// By pool: `USED/TOTAL, USED/TOTAL`, of IPv4 and IPv6.
    pub pools: BTreeMap<String, String>,
    /// How many endpoints of forwarded Services are refused.
    pub refused: Option<usize>,
}

impl Step {
    /// How many things are expected after it.
    pub fn expectations(&self) -> usize {
        let maps = self.addresses.len() + self.problems.len() + self.writes.len();
        let more = self.weights.len() + self.pools.len();
        let single = [self.test.is_some(), self.no_writes, self.no_probes, self.refused.is_some()];
        let single = single.iter().filter(|one| **one).count();
        single
            + maps
            + more
            + self.ask.len()
            + self.events.len()
            + self.no_events.len()
            + self.probes.len()
    }
}

/// A status that is to be written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// Addresses with their mode: `203.0.113.10 Proxy`.
    pub ingress: Vec<String>,
    /// The condition `headgate.dev/Programmed`: `True` or `False`, and its reason; unset where the
    /// Service isn't ours.
    pub programmed: Option<String>,
}

/// What the operator configured.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Given {
    pools: Vec<GivenPool>,
    class: Option<String>,
    default_class: Option<bool>,
    external_ip_ranges: Vec<String>,
    backend_ranges: Vec<String>,
    /// Other controllers whose annotations count: `aws`, `metallb`.
    aliases: Vec<String>,
    no_node_port_addresses: bool,
    /// The lowest and the highest nodePort.
    node_port_range: Option<[u16; 2]>,
    target: Option<String>,
    cluster_ips: bool,
    /// Services whose ClusterIPs are served in any case, as `default/kubernetes`.
    cluster_ips_of: Vec<String>,
    zone: Option<String>,
    node_name: Option<String>,
    proxy_name: Option<String>,
    reset_after_s: Option<u32>,
    ignore_unknown_nodes: bool,
    /// Services live in an API server: this gateway is the `writer` there, or a `reader`.
    api_server: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenPool {
    name: String,
    ranges: Vec<String>,
    #[serde(default)]
    namespaces: Vec<String>,
    /// Namespaces and Services by their labels, as `kubectl -l` reads it.
    namespace_selector: Option<String>,
    service_selector: Option<String>,
    /// `internal` or `internet-facing`.
    scheme: Option<String>,
    priority: Option<u16>,
    auto_assign: Option<bool>,
    #[serde(default)]
    avoid_buggy_addresses: bool,
    #[serde(default)]
    drop: bool,
}

impl Given {
    /// This gateway allocates and writes for an API server.
    pub fn is_writer(&self) -> bool {
        self.api_server.as_deref() == Some("writer")
    }

    /// The settings that the index gets.
    pub fn wishes(&self) -> Wishes {
        let mut wishes = world::wishes();
        wishes.node_port.allocate = false;
        if !self.pools.is_empty() {
            wishes.pools = self.pools.iter().map(GivenPool::pool).collect();
        }
        if let Some(class) = &self.class {
            wishes.load_balancer_class.clone_from(class);
        }
        if self.api_server.is_some() {
            wishes.authority = Authority::ApiServer;
        }
        wishes.default_class = self.default_class.unwrap_or(true);
        let ranges = |texts: &[String]| texts.iter().map(|text| text.parse().unwrap()).collect();
        wishes.external_ip_ranges = ranges(&self.external_ip_ranges);
        wishes.backend_ranges = ranges(&self.backend_ranges);
        if self.no_node_port_addresses {
            wishes.node_port.addresses.clear();
        }
        if let Some([first, last]) = self.node_port_range {
            (wishes.node_port.first, wishes.node_port.last) = (first, last);
        }
        for alias in &self.aliases {
            match alias.as_str() {
                "aws" => wishes.aws = true,
                "metallb" => wishes.metallb = true,
                other => panic!("aliases: \"{other}\": expected aws or metallb"),
            }
        }
        wishes.forwarding = ForwardingSettings {
            target: if self.target.as_deref() == Some("node") {
                Target::Node
            } else {
                Target::Endpoint
            },
            cluster_ips: self.cluster_ips,
            cluster_ips_of: self.cluster_ips_of.iter().map(|text| object_name(text)).collect(),
            zone: self.zone.clone(),
            node_name: self.node_name.clone(),
            proxy_name: self.proxy_name.clone(),
            reset_after_s: self.reset_after_s,
            ignore_unknown_nodes: self.ignore_unknown_nodes,
            api_servers: vec![ip("198.18.1.5")],
            ..ForwardingSettings::default()
        };
        wishes
    }
}

impl GivenPool {
    fn pool(&self) -> Pool {
        let ranges: Vec<&str> = self.ranges.iter().map(String::as_str).collect();
        let refusal = if self.drop { Refusal::Drop } else { Refusal::Reject };
        let selector = |text: &Option<String>| text.as_ref().map(|text| text.parse().unwrap());
        let scheme = self.scheme.as_deref().map(|text| match text {
            "internal" => Scheme::Internal,
            "internet-facing" => Scheme::InternetFacing,
            other => panic!("scheme: \"{other}\": expected internal or internet-facing"),
        });
        Pool {
            refusal,
            scheme,
            namespaces: self.namespaces.iter().map(|name| name.as_str().into()).collect(),
            namespace_selector: selector(&self.namespace_selector),
            service_selector: selector(&self.service_selector),
            priority: self.priority.unwrap_or(100),
            auto_assign: self.auto_assign.unwrap_or(true),
            avoid_buggy_addresses: self.avoid_buggy_addresses,
            ..pool(&self.name, &ranges)
        }
    }
}

fn object_name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    ObjectName::new(namespace, name)
}

/// The objects that every case begins with, and the files of cases by name.
pub fn read() -> (Vec<Value>, Vec<(String, File)>) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/cases");
    let mut files = Vec::new();
    let mut base = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let wrong = |error: &dyn std::fmt::Display| -> ! { panic!("cases/{name}: {error}") };
        if name == "base.yaml" {
            base = serde_saphyr::from_str(&text).unwrap_or_else(|error| wrong(&error));
        } else {
            let file = serde_saphyr::from_str(&text).unwrap_or_else(|error| wrong(&error));
            files.push((name, file));
        }
    }
    files.sort_by(|one: &(String, File), other| one.0.cmp(&other.0));
    (base, files)
}

/// Makes a merge patch (RFC 7396).
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (key, change) in changes {
        if change.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}
