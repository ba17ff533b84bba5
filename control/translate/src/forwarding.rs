//! How one Service is forwarded: what its annotations and policies ask for, and what they are
//! where nobody asks.

use crate::probes::{Cadence, Check};
use crate::problem::{Problem, reason, shown};
use crate::spec::{PROXY_NAME, Spec};
use k8s_openapi::api::core::v1::ServiceSpec;
use model::desired::{ObjectName, Target};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Annotation: how packets reach the backends; `nat`.
pub const FORWARDING: &str = "headgate.dev/forwarding";
/// Annotation: what backends are made of; `endpoint` or `node`.
pub const TARGET: &str = "headgate.dev/target";
/// Annotation: the PROXY protocol towards the backends.
pub const PROXY_PROTOCOL: &str = "headgate.dev/proxy-protocol";
/// Annotation: `"true"` serves the Service's ClusterIPs, `"false"` doesn't.
pub const CLUSTER_IP: &str = "headgate.dev/cluster-ip";
/// Annotation: how long after a backend has gone its TCP clients get a RST; `never` or a duration.
pub const RESET_AFTER: &str = "headgate.dev/reset-after";
/// Annotation: what nodes are asked: `healthz`, `health-check-node-port` or `none`.
pub const NODE_PROBE: &str = "headgate.dev/node-probe";
/// Annotation: backends are probed; `tcp`, `http` or `none`.
pub const PROBE: &str = "headgate.dev/probe";
/// Annotation: the port that probes go to.
pub const PROBE_PORT: &str = "headgate.dev/probe-port";
/// Annotation: the path that HTTP probes ask for.
pub const PROBE_PATH: &str = "headgate.dev/probe-path";
/// Annotation: time from one probe to the next.
pub const PROBE_INTERVAL: &str = "headgate.dev/probe-interval";
/// Annotation: how long an answer may take.
pub const PROBE_TIMEOUT: &str = "headgate.dev/probe-timeout";
/// Annotation: good answers in a row that make a backend healthy again.
pub const PROBE_HEALTHY_AFTER: &str = "headgate.dev/probe-healthy-after";
/// Annotation: bad answers in a row that make a backend unhealthy.
pub const PROBE_UNHEALTHY_AFTER: &str = "headgate.dev/probe-unhealthy-after";

/// A probe goes out at most ten times a second and at least once an hour.
const INTERVAL_MS: std::ops::RangeInclusive<u64> = 100..=3_600_000;
/// Who waits for an answer keeps others of its namespace waiting.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=10_000;
/// A RST that comes later than a week finds nobody.
const RESET_AFTER_S_MAX: u64 = 7 * 86_400;
/// The longest path that is asked for, in bytes.
const PATH_MAX: usize = 1_024;

/// What nodes are asked, where they are the backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeProbe {
    /// `/healthz` of kube-proxy on port 10256; the nodePort where that port is closed on all nodes.
    #[default]
    Healthz,
    /// The Service's `healthCheckNodePort` where it has one, else as above.
    HealthCheckNodePort,
    /// Nothing: every node that may be a backend is one.
    Off,
}

/// How Services are forwarded that don't say it themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardingSettings {
    /// What backends are made of.
    pub target: Target,
    /// Serve the ClusterIPs of every Service.
    pub cluster_ips: bool,
    /// Services whose ClusterIPs are served in any case. `default/kubernetes` is served only where
    /// it stands here.
    pub cluster_ips_of: Vec<ObjectName>,
    /// The value of the label `service.kubernetes.io/service-proxy-name` that is ours.
    pub proxy_name: Option<String>,
    /// The zone that the gateway stands in: endpoints with hints for it are preferred. Hints are
    /// not read where unset.
    pub zone: Option<String>,
    /// The node whose hints count, where the gateway stands beside one.
    pub node_name: Option<String>,
    /// Seconds after which a TCP client of a backend that has gone gets a RST; never where `None`.
    pub reset_after_s: Option<u32>,
    /// Addresses of API servers: never a Service's.
    pub api_servers: Vec<IpAddr>,
    /// What nodes are asked.
    pub node_probe: NodeProbe,
    /// Don't use endpoints on nodes that the API server has lost sight of, even where no other is
    /// left and they answer.
    pub ignore_unknown_nodes: bool,
    /// How often is asked.
    pub cadence: Cadence,
}

/// What the backends of one Service are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbeWish {
    pub(crate) check: Check,
    /// The backend's own where `None`.
    pub(crate) port: Option<u16>,
}

/// How one Service is to be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wants {
    pub(crate) target: Target,
    pub(crate) cluster_ips: bool,
    pub(crate) external_local: bool,
    pub(crate) internal_local: bool,
    pub(crate) reset_after_s: Option<u32>,
    pub(crate) node_probe: NodeProbe,
    pub(crate) health_check_node_port: Option<u16>,
    pub(crate) probe: Option<ProbeWish>,
    /// How often is asked, whatever it is.
    pub(crate) cadence: Cadence,
    /// What is asked for and isn't there: nothing of the Service is forwarded.
    pub(crate) unavailable: Option<String>,
}

/// The annotations of one Service, and what is wrong with them.
struct Annotations<'a> {
    all: Option<&'a BTreeMap<String, String>>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Annotations<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.all?.get(key).map(|text| text.trim()).filter(|text| !text.is_empty())
    }

    /// The value that `read` makes of it; where it makes none, a problem and `None`.
    fn read<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let value = read(text);
        if value.is_none() {
            let text = shown(text);
            let what = format!("{key} is \"{text}\": expected {expected}; it is ignored");
            self.problems.push(Problem::new(reason::INVALID, what));
        }
        value
    }
}

impl Wants {
    /// The health of nodes as a whole counts, where they are the backends.
    pub(crate) fn asks_nodes(&self) -> bool {
        self.node_probe != NodeProbe::Off && self.probe.is_none()
    }

    /// Reads what a Service asks for. What makes no sense is a problem, and as if it weren't there;
    /// but for forwarding and target, which nobody guesses.
    pub(crate) fn read(
        name: &ObjectName,
        spec: &ServiceSpec,
        annotations: Option<&BTreeMap<String, String>>,
        settings: &ForwardingSettings,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut from = Annotations { all: annotations, problems };
        let unavailable = unavailable(&from);
        let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        let asked = from.read(CLUSTER_IP, "\"true\" or \"false\"", |text| text.parse().ok());
        let api_server = *name.namespace == *"default" && *name.name == *"kubernetes";
        let cluster_ips = settings.cluster_ips_of.contains(name)
            || !api_server && asked.unwrap_or(settings.cluster_ips);
        let node_probe =
            from.read(NODE_PROBE, "healthz, health-check-node-port or none", |text| match text {
                "healthz" => Some(NodeProbe::Healthz),
                "health-check-node-port" => Some(NodeProbe::HealthCheckNodePort),
                "none" => Some(NodeProbe::Off),
                _ => None,
            });
        let cadence = cadence(&mut from, settings.cadence);
        let health_check = spec.health_check_node_port.and_then(|port| u16::try_from(port).ok());
        Self {
            target: match from.text(TARGET) {
                Some("node") => Target::Node,
                Some("endpoint") => Target::Endpoint,
                _ => settings.target,
            },
            cluster_ips,
            external_local: local(&spec.external_traffic_policy),
            internal_local: local(&spec.internal_traffic_policy),
            reset_after_s: from
                .read(RESET_AFTER, "never, or 1s to 7d", reset_after)
                .unwrap_or(settings.reset_after_s),
            node_probe: node_probe.unwrap_or(settings.node_probe),
            health_check_node_port: health_check.filter(|&port| port > 0),
            probe: probe(&mut from),
            cadence,
            unavailable,
        }
    }
}

/// What the annotations ask for and isn't there.
fn unavailable(from: &Annotations<'_>) -> Option<String> {
    match from.text(FORWARDING) {
        None | Some("nat") => {}
        Some(known @ ("transparent" | "dsr")) => {
            return Some(format!("forwarding \"{known}\" is not available yet; there is \"nat\""));
        }
        Some(other) => {
            let other = shown(other);
            return Some(format!("{FORWARDING} is \"{other}\": expected nat, transparent or dsr"));
        }
    }
    if let Some(other) = from.text(PROXY_PROTOCOL).filter(|text| *text != "none") {
        return Some(match other {
            "v1" | "v2" => format!(
                "the PROXY protocol ({PROXY_PROTOCOL} \"{other}\") is not available yet: backends \
                 that expect its header would refuse every connection"
            ),
            _ => format!("{PROXY_PROTOCOL} is \"{}\": expected none, v1 or v2", shown(other)),
        });
    }
    match from.text(TARGET) {
        None | Some("endpoint" | "node") => None,
        Some(other) => Some(format!("{TARGET} is \"{}\": expected endpoint or node", shown(other))),
    }
}

#[allow(clippy::option_option, reason = "never is a value that was read")]
fn reset_after(text: &str) -> Option<Option<u32>> {
    if text == "never" {
        return Some(None);
    }
    let seconds = duration_ms(text)?.div_ceil(1_000);
    (1..=RESET_AFTER_S_MAX).contains(&seconds).then(|| u32::try_from(seconds).ok())
}

fn probe(from: &mut Annotations<'_>) -> Option<ProbeWish> {
    let path = from.read(PROBE_PATH, "a path, as /healthz", |text| {
        let plain = |byte: u8| byte.is_ascii_graphic();
        let good = text.starts_with('/') && text.len() <= PATH_MAX && text.bytes().all(plain);
        good.then(|| Arc::from(text))
    });
    let check = from.read(PROBE, "tcp, http or none", |text| match text {
        "tcp" => Some(Some(Check::Tcp)),
        "http" => Some(Some(Check::Http { path: path.clone().unwrap_or_else(|| "/".into()) })),
        "none" => Some(None),
        _ => None,
    })??;
    let port = from.read(PROBE_PORT, "a port, 1 to 65535", |text| {
        text.parse::<u16>().ok().filter(|&port| port > 0)
    });
    Some(ProbeWish { check, port })
}

fn cadence(from: &mut Annotations<'_>, default: Cadence) -> Cadence {
    let within = |text: &str, range: std::ops::RangeInclusive<u64>| {
        let ms = duration_ms(text).filter(|ms| range.contains(ms))?;
        u32::try_from(ms).ok()
    };
    let interval = |text: &str| within(text, INTERVAL_MS);
    let timeout = |text: &str| within(text, TIMEOUT_MS);
    let count = |text: &str| text.parse::<u16>().ok().filter(|&count| (1..=100).contains(&count));
    let mut cadence = default;
    if let Some(ms) = from.read(PROBE_INTERVAL, "100ms to 1h", interval) {
        cadence.interval_ms = ms;
    }
    if let Some(ms) = from.read(PROBE_TIMEOUT, "100ms to 10s", timeout) {
        cadence.timeout_ms = ms;
    }
    if let Some(answers) = from.read(PROBE_HEALTHY_AFTER, "1 to 100", count) {
        cadence.healthy_after = answers;
    }
    if let Some(answers) = from.read(PROBE_UNHEALTHY_AFTER, "1 to 100", count) {
        cadence.unhealthy_after = answers;
    }
    cadence
}

/// Reads `500ms`, `30s`, `5m`, `2h`, `7d`; a bare number counts seconds.
fn duration_ms(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let one_ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(one_ms)
}

impl Spec {
    /// Nodes as backends need a kube-proxy that knows the Service, and a nodePort to reach it by.
    pub(crate) fn check_nodes_as_target(
        &mut self,
        proxied: bool,
        spec: &ServiceSpec,
        problems: &mut Vec<Problem>,
    ) {
        let served = self.served_outside;
        if proxied {
            self.wants.target = Target::Endpoint;
            let what = format!(
                "target \"node\" is impossible: the label {PROXY_NAME} keeps kube-proxy off this \
                 Service; its endpoints are the backends"
            );
            problems.extend(served.then(|| Problem::new(reason::NOT_FORWARDED, what)));
            return;
        }
        let why = if spec.allocate_load_balancer_node_ports == Some(false) {
            "allocateLoadBalancerNodePorts is false"
        } else {
            "only a nodePort that its manifest names is known to kube-proxy"
        };
        if !served {
            return;
        }
        for port in self.ports.iter_mut().filter(|port| port.node_port.is_none()) {
            let why = format!("target \"node\" needs a nodePort, and it has none ({why})");
            let what = format!("port {}/{} is not forwarded: {why}", port.port, port.protocol);
            port.withheld_outside = Some(why);
            if port.withheld.is_none() {
                problems.push(Problem::new(reason::NOT_FORWARDED, what));
            }
        }
        let pinned = spec.session_affinity.as_deref() == Some("ClientIP");
        if pinned || self.affinity.is_some() {
            let what = if pinned {
                "with target \"node\" and forwarding \"nat\" kube-proxy sees one client, the gateway: \
                 sessionAffinity pins all clients of a node to one pod; use target \"endpoint\""
            } else {
                "with target \"node\" a client keeps its node, and kube-proxy chooses among its pods \
                 anew for each connection; use target \"endpoint\""
            };
            problems.push(Problem::new(reason::AFFINITY_INEFFECTIVE, what));
        }
    }
}

/// `Local` promises the client's address to the pod, which `nat` can't keep.
pub(crate) fn local_policy(read: &Spec, problems: &mut Vec<Problem>) {
    if read.wants.external_local && read.served_outside {
        let what = "externalTrafficPolicy is Local, yet with forwarding \"nat\" its pods see the \
                    gateway's address as the client's";
        problems.push(Problem::new(reason::SOURCE_NOT_KEPT, what));
    }
}
