//! A Service, read once into what the rest of the index trusts.

use crate::aliases::{annotations, scheduler};
use crate::allocations::AllocatedAddress;
use crate::facts::Said;
use crate::forwarding::{Wants, local_policy};
use crate::object::{Place, namespaced};
use crate::ownership::is_ours;
use crate::problem::{NAMED_MAX, Problem, reason, shown};
use crate::request::{Request, request};
use crate::settings::{Authority, Settings};
use crate::source_ranges::{SourceRanges, source_ranges};
use crate::standing::Standing;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use model::desired::{Affinity, ObjectName, Scope, Target};
use model::ids::{Family, Protocol};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Annotation: LoadBalancer addresses that are asked for, separated by commas.
pub const ADDRESSES: &str = "headgate.dev/addresses";
/// Annotation: the pool to take addresses from.
pub const POOL: &str = "headgate.dev/pool";
/// Annotation: Services with the same value may have one address together, where their ports differ
/// and they ask for it.
pub const SHARE_KEY: &str = "headgate.dev/share-key";
/// Annotation: where the clients are, `internal` or `internet-facing`.
pub const SCHEME: &str = "headgate.dev/scheme";
/// Annotation: the name of an IPVS scheduler.
pub const SCHEDULER: &str = "headgate.dev/scheduler";
/// Annotation: `"true"` takes a status over from another controller.
pub const TAKE_OVER: &str = "headgate.dev/take-over";
/// Annotation: `"true"` serves a LoadBalancer Service's nodePorts as well.
pub const NODE_PORTS: &str = "headgate.dev/node-ports";
/// Label: another program plays kube-proxy for this Service.
pub(crate) const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// What decides between two Services that claim one thing: the lower one has it. Older first,
/// then by UID, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Rank {
    /// Nanoseconds since the Unix epoch; those without a time come last.
    created: i128,
    uid: Arc<str>,
    pub(crate) name: ObjectName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceType {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortSpec {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
    /// Why this port alone isn't forwarded.
    pub(crate) withheld: Option<String>,
    /// Why it isn't forwarded from outside the cluster.
    pub(crate) withheld_outside: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) rank: Rank,
    pub(crate) place: Place,
    pub(crate) service_type: ServiceType,
    pub(crate) type_name: String,
    pub(crate) ports: Vec<PortSpec>,
    pub(crate) families: Vec<Family>,
    pub(crate) require_dual_stack: bool,
    /// Of type LoadBalancer, and ours to serve: it gets addresses.
    pub(crate) balanced: bool,
    /// NodePorts are to be served.
    pub(crate) wants_node_ports: bool,
    /// Clients outside the cluster may reach it, as far as it and the configuration tell.
    pub(crate) served_outside: bool,
    pub(crate) request: Request,
    /// What it shares its addresses by.
    pub(crate) share_key: Option<Arc<str>>,
    pub(crate) external_ips: Vec<IpAddr>,
    pub(crate) cluster_ips: Vec<IpAddr>,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) source_ranges: SourceRanges,
    /// How it is forwarded.
    pub(crate) wants: Wants,
    /// Its ClusterIPs are to be served.
    pub(crate) wants_cluster_ips: bool,
    /// Why nothing of the Service is forwarded.
    pub(crate) withheld: Option<String>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) said: Said,
    /// What stands in its status.
    pub(crate) standing: Standing,
    /// What another controller owns of its status is to be taken over.
    pub(crate) take_over: bool,
}

impl Spec {
    pub(crate) const fn name(&self) -> &ObjectName {
        &self.rank.name
    }

    pub(crate) const fn uid(&self) -> &Arc<str> {
        &self.rank.uid
    }

    /// The key by which the two may have one address.
    pub(crate) fn shares_with(&self, other: &Self) -> Option<&Arc<str>> {
        self.share_key.as_ref().filter(|key| Some(*key) == other.share_key.as_ref())
    }

    /// Reads a Service. What makes no sense becomes a problem, never an error.
    /// `held` are the addresses that it has: those are ours whatever the pools.
    pub(crate) fn read(
        service: &Service,
        place: Place,
        settings: &Settings,
        held: &[AllocatedAddress],
    ) -> Self {
        let metadata = &service.metadata;
        let absent = ServiceSpec::default();
        let spec = service.spec.as_ref().unwrap_or(&absent);
        let mut problems = Vec::new();
        let meant = annotations(service, settings, &mut problems);
        let annotations = Some(&*meant);
        let annotation = |key: &str| meant.get(key).map(String::as_str);
        let type_name = spec.type_.clone().unwrap_or_else(|| "ClusterIP".to_owned());
        let service_type = match type_name.as_str() {
            "ClusterIP" => ServiceType::ClusterIp,
            "NodePort" => ServiceType::NodePort,
            "LoadBalancer" => ServiceType::LoadBalancer,
            "ExternalName" => ServiceType::ExternalName,
            _ => ServiceType::Unknown,
        };
        let type_name = shown(&type_name);
        let name = namespaced(metadata);
        let forwarding = &settings.wishes().forwarding;
        let proxy = metadata.labels.as_ref().and_then(|all| all.get(PROXY_NAME));
        let proxied = proxy.is_some_and(|proxy| forwarding.proxy_name.as_ref() != Some(proxy));
        let wants = Wants::read(&name, spec, annotations, forwarding, &mut problems);
        let withheld = withheld(service, spec, service_type, &wants);
        if let Some((why, loud)) = withheld.as_ref() {
            let problem = Problem::new(reason::NOT_FORWARDED, format!("not forwarded: {why}"));
            problems.push(if *loud { problem } else { problem.quiet() });
        }
        let withheld = withheld.map(|(why, _)| why);
        let kept = service_type == ServiceType::LoadBalancer && !never_balanced(service, spec);
        let take_over = annotation(TAKE_OVER).is_some_and(|text| text.trim() == "true");
        let held = if take_over { None } else { Some(held) };
        let balanced = kept && is_ours(service, spec, settings, held, &mut problems);
        let explicit = annotation(NODE_PORTS).is_some_and(|text| text.trim() == "true");
        let node_ports = match service_type {
            ServiceType::NodePort => true,
            ServiceType::LoadBalancer => explicit,
            _ => false,
        };
        let external_ips = list(spec.external_ips.as_deref(), "externalIP", &mut problems);
        let node_ports_wanted = node_ports && withheld.is_none() && !proxied;
        let served_outside = withheld.is_none()
            && (balanced
                || node_ports_wanted && !settings.node_port().addresses.is_empty()
                || external_ips.iter().any(|&one| settings.allows_external_ip(one)));
        let wants_cluster_ips = wants.cluster_ips && withheld.is_none() && !proxied;
        let served = served_outside || wants_cluster_ips;
        let mut read = Self {
            rank: Rank {
                created: metadata
                    .creation_timestamp
                    .as_ref()
                    .map_or(i128::MAX, |time| time.0.as_nanosecond()),
                uid: metadata.uid.as_deref().unwrap_or_default().into(),
                name,
            },
            place,
            service_type,
            type_name,
            ports: ports(spec, served, &mut problems),
            families: families(spec, settings.authority(), &mut problems),
            require_dual_stack: spec.ip_family_policy.as_deref() == Some("RequireDualStack"),
            balanced,
            wants_node_ports: node_ports_wanted,
            served_outside,
            request: Request::default(),
            share_key: None,
            external_ips,
            cluster_ips: cluster_ips(spec),
            affinity: scheduler(&meant, &mut problems).or(affinity(spec, &mut problems)),
            source_ranges: SourceRanges::default(),
            wants_cluster_ips,
            wants,
            withheld,
            problems: Vec::new(),
            said: Said::read(service, spec, settings),
            standing: match settings.authority() {
                Authority::Local => Standing::default(),
                Authority::ApiServer => Standing::read(service),
            },
            take_over,
        };
        if balanced {
            read.request =
                request(spec, metadata.labels.as_ref(), annotations, settings, &mut problems);
            read.share_key = annotation(SHARE_KEY)
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(Into::into);
        }
        if service_type == ServiceType::LoadBalancer && read.served_outside {
            read.source_ranges = source_ranges(spec, annotations, &mut problems);
        }
        if node_ports && proxied && !settings.node_port().addresses.is_empty() {
            let what = format!(
                "its NodePorts are not served: the label {PROXY_NAME} gives them to another program"
            );
            problems.push(Problem::new(reason::NOT_FORWARDED, what));
        }
        if read.wants.target == Target::Node {
            read.check_nodes_as_target(proxied, spec, &mut problems);
        }
        local_policy(&read, &mut problems);
        read.problems = problems;
        read
    }

    /// What its backends are made of. Clients inside the cluster always get endpoints, and so do
    /// the tables where nobody else is served.
    pub(crate) fn target(&self, scope: Scope) -> Target {
        let outside = scope == Scope::External && self.served_outside;
        if outside { self.wants.target } else { Target::Endpoint }
    }
}

/// Why nothing of the Service is forwarded, and whether that is worth an event: a headless Service
/// is as it should be.
fn withheld(
    service: &Service,
    spec: &ServiceSpec,
    service_type: ServiceType,
    wants: &Wants,
) -> Option<(String, bool)> {
    if service.metadata.deletion_timestamp.is_some() {
        return Some(("it is being deleted".to_owned(), false));
    }
    if service_type == ServiceType::ExternalName {
        let why = "ExternalName is a name in DNS, with nothing to forward to";
        return Some((why.to_owned(), false));
    }
    if service_type == ServiceType::Unknown {
        let given = shown(spec.type_.as_deref().unwrap_or_default());
        let why = "is none of ClusterIP, NodePort, LoadBalancer, ExternalName";
        return Some((format!("its type \"{given}\" {why}"), true));
    }
    if is_headless(spec) {
        let why = "it is headless (clusterIP: None): clients ask DNS for its pods";
        return Some((why.to_owned(), false));
    }
    wants.unavailable.clone().map(|why| (why, true))
}

fn is_headless(spec: &ServiceSpec) -> bool {
    let first = spec.cluster_ips.as_ref().and_then(|all| all.first());
    spec.cluster_ip.as_deref() == Some("None") || first.is_some_and(|text| text == "None")
}

/// Gets no address, whatever its class.
fn never_balanced(service: &Service, spec: &ServiceSpec) -> bool {
    service.metadata.deletion_timestamp.is_some() || is_headless(spec)
}

/// `served`: somebody is to reach the Service, and wants to know of ports that nobody can.
fn ports(spec: &ServiceSpec, served: bool, problems: &mut Vec<Problem>) -> Vec<PortSpec> {
    let mut ports = Vec::new();
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for given in spec.ports.iter().flatten() {
        let port = match port(given) {
            Ok(port) => port,
            Err(what) => {
                problems.push(Problem::new(reason::INVALID, what));
                continue;
            }
        };
        let named = names.insert((port.name.clone(), port.protocol));
        if !named || !numbers.insert((port.port, port.protocol)) {
            let what = format!(
                "port {}/{} \"{}\" is there twice: give each a name and a number of its own",
                port.port, port.protocol, port.name
            );
            problems.push(Problem::new(reason::INVALID, what));
            continue;
        }
        if let Some(why) = port.withheld.as_ref() {
            let what = format!("port {}/{} is not forwarded: {why}", port.port, port.protocol);
            let problem = Problem::new(reason::NOT_FORWARDED, what);
            problems.push(if served { problem } else { problem.quiet() });
        }
        ports.push(port);
    }
    ports
}

fn port(given: &ServicePort) -> Result<PortSpec, String> {
    let number = |what: &str, value: i32| match u16::try_from(value) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{what} {value} is not a port: expected 1 to 65535")),
    };
    let protocol = given.protocol.as_deref().unwrap_or("TCP");
    let protocol = match protocol {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        other => return Err(format!("protocol \"{other}\" is none of TCP, UDP, SCTP")),
    };
    let node_port = given.node_port.filter(|&value| value != 0);
    Ok(PortSpec {
        name: given.name.as_deref().unwrap_or_default().into(),
        protocol,
        port: number("port", given.port)?,
        node_port: node_port.map(|value| number("nodePort", value)).transpose()?,
        withheld: (protocol == Protocol::Sctp)
            .then(|| "SCTP is not available yet; there are TCP and UDP".to_owned()),
        withheld_outside: None,
    })
}

/// An API server says which families a Service has; one family of a Service that prefers two is all
/// that the cluster has. Elsewhere the Service gets what it asks for.
fn families(spec: &ServiceSpec, authority: Authority, problems: &mut Vec<Problem>) -> Vec<Family> {
    let mut families = Vec::new();
    for text in spec.ip_families.iter().flatten() {
        let family = match text.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            other => {
                let what = format!("ipFamilies has \"{}\": expected IPv4 or IPv6", shown(other));
                problems.push(Problem::new(reason::INVALID, what));
                continue;
            }
        };
        if !families.contains(&family) {
            families.push(family);
        }
    }
    let dual =
        matches!(spec.ip_family_policy.as_deref(), Some("RequireDualStack" | "PreferDualStack"));
    let complete = !families.is_empty() && authority == Authority::ApiServer;
    if families.is_empty() {
        let first = cluster_ips(spec).first().map_or(Family::V4, |&address| Family::of(address));
        families.push(first);
    }
    if dual && families.len() == 1 && !complete {
        let other = if families == [Family::V4] { Family::V6 } else { Family::V4 };
        families.push(other);
    }
    families
}

pub(crate) fn list(
    texts: Option<&[String]>,
    what: &str,
    problems: &mut Vec<Problem>,
) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    let mut odd = 0;
    for text in texts.unwrap_or_default() {
        match text.parse::<IpAddr>() {
            Ok(address) if !addresses.contains(&address) => addresses.push(address),
            Ok(_) => {}
            Err(_) if odd < NAMED_MAX => {
                odd += 1;
                let what = format!("{what} \"{}\" is not an IP address", shown(text));
                problems.push(Problem::new(reason::INVALID, what));
            }
            Err(_) => {}
        }
        if addresses.len() >= model::limits::FRONTENDS_PER_SERVICE_MAX {
            let what = format!("only the first {} {what}s count", addresses.len());
            problems.push(Problem::new(reason::LIMIT_EXCEEDED, what));
            break;
        }
    }
    addresses
}

fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let all = spec.cluster_ips.iter().flatten().chain(spec.cluster_ip.as_ref());
    let mut all: Vec<IpAddr> = all.filter_map(|text| text.parse().ok()).take(4).collect();
    all.dedup();
    all
}

fn affinity(spec: &ServiceSpec, problems: &mut Vec<Problem>) -> Option<Affinity> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => None,
        Some("ClientIP") => {
            let config = spec.session_affinity_config.as_ref();
            let client = config.and_then(|config| config.client_ip.as_ref());
            let seconds = client.and_then(|client| client.timeout_seconds).unwrap_or(10_800);
            Some(Affinity { timeout_s: u32::try_from(seconds).unwrap_or(10_800) })
        }
        Some(other) => {
            let what = format!("sessionAffinity is \"{other}\": expected None or ClientIP");
            problems.push(Problem::new(reason::INVALID, what));
            None
        }
    }
}
