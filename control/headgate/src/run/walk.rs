//! Why a Service isn't reached: the walk from it to its backends, up to the first "no".

use model::answers::{ServiceExplanation, ServiceStatus, Step};
use model::desired::{Backend, BackendState, Frontend, Origin, Scope, ServicePort, Target};
use model::drops::DropReason;
use model::ids::Protocol;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Nodes of which one endpoint is asked: more would not be heard within one answer's time.
const ASKED_MAX: usize = 16;

/// The class of the AWS Load Balancer Controller.
const AWS_CLASS: &str = "service.k8s.aws/nlb";

/// The way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// No route leads there.
    None,
    /// Its next hop doesn't answer.
    Silent(IpAddr),
    /// Its next hop is known.
    Resolved,
}

/// Asks backends: each an address and the next hop towards it.
pub type Connect<'a> = dyn Fn(&[(SocketAddr, Option<IpAddr>)]) -> Vec<io::Result<()>> + 'a;

/// What the walk sees. Nothing of it is changed.
pub struct Known<'a> {
    /// What was made of the Service.
    pub status: &'a ServiceStatus,
    /// What of it is forwarded.
    pub ports: &'a [Arc<ServicePort>],
    /// The class that is ours.
    pub class: &'a str,
    /// Where NodePorts are answered.
    pub node_ports: &'a [IpAddr],
    /// Prefixes of the links towards clients.
    pub fronts: &'a [ipnet::IpNet],
    /// The way to an address by a next hop that may be better.
    pub way: &'a dyn Fn(IpAddr, Option<IpAddr>) -> Way,
    /// Connects to all of these at once, by way of those next hops, within a time limit.
    pub connect: &'a Connect<'a>,
}

/// Walks.
pub fn walk(known: &Known<'_>) -> ServiceExplanation {
    let mut steps = Steps(Vec::new());
    let _ = known.is_ours(&mut steps)
        && known.has_address(&mut steps)
        && known.has_all_ports(&mut steps)
        && known.has_slices(&mut steps)
        && known.has_endpoints(&mut steps)
        && known.is_ready(&mut steps)
        && known.has_ways(&mut steps)
        && known.answers(&mut steps)
        && known.is_announced(&mut steps);
    ServiceExplanation { service: known.status.name.clone(), steps: steps.0 }
}

/// The steps, up to the first "no".
struct Steps(Vec<Step>);

impl Steps {
    fn yes(&mut self, question: &str, finding: String) -> bool {
        self.0.push(Step { question: question.to_owned(), good: true, finding, remedy: None });
        true
    }
    fn no(&mut self, question: &str, finding: String, remedy: String) -> bool {
        let remedy = Some(remedy);
        self.0.push(Step { question: question.to_owned(), good: false, finding, remedy });
        false
    }
}

impl Known<'_> {
    /// `kubectl -n shop VERB service web`.
    fn kubectl(&self, verb: &str) -> String {
        let name = &self.status.name;
        format!("kubectl -n {} {verb} service {}", name.namespace, name.name)
    }
    fn slices_command(&self) -> String {
        let name = &self.status.name;
        format!(
            "kubectl -n {} get endpointslices -l kubernetes.io/service-name={}",
            name.namespace, name.name
        )
    }
    fn pods_command(&self) -> String {
        let selector = &self.status.facts.selector;
        let namespace = &self.status.name.namespace;
        if selector.is_empty() {
            return self.slices_command() + " -o yaml";
        }
        format!("kubectl -n {namespace} get pods -l {selector} -o wide")
    }
    /// Problems and what keeps ports from being forwarded, each once.
    fn problems(&self) -> String {
        let mut all: Vec<&str> = self.status.problems.iter().map(String::as_str).collect();
        for why in self.status.ports.iter().filter_map(|port| port.not_forwarded.as_deref()) {
            if !all.iter().any(|told| told.contains(why)) {
                all.push(why);
            }
        }
        if all.is_empty() { "it has no port".to_owned() } else { all.join("; ") }
    }
    /// The first problem with one of these reasons.
    fn problem(&self, reasons: &[&str]) -> Option<String> {
        let at = self.status.facts.reasons.iter().position(|told| reasons.contains(&&**told))?;
        self.status.problems.get(at).cloned()
    }
    fn has(&self, reason: &str) -> bool {
        self.status.facts.reasons.iter().any(|told| told == reason)
    }

    fn is_ours(&self, steps: &mut Steps) -> bool {
        const QUESTION: &str = "is it ours";
        let (status, facts) = (self.status, &self.status.facts);
        let kind = &status.service_type;
        if !facts.withheld.is_empty() {
            let finding = format!("nothing of it is forwarded: {}", facts.withheld);
            return steps.no(QUESTION, finding, self.kubectl("describe"));
        }
        if facts.foreign {
            let why = self.problem(&["ForeignStatus", "NotForwarded"]);
            return steps.no(QUESTION, why.unwrap_or_else(|| self.problems()), self.foreign());
        }
        let idle = facts.idle_annotations.first().map(|first| {
            format!(
                "the annotation {first} counts for type LoadBalancer alone, and its type is {kind}"
            )
        });
        if kind == "ClusterIP" && self.ports.is_empty() {
            let refused = self.problem(&["NotForwarded"]);
            let finding = refused.or(idle).unwrap_or_else(|| self.problems());
            return steps.no(QUESTION, finding, self.to_load_balancer());
        }
        let idle = idle.map(|idle| format!("; {idle}")).unwrap_or_default();
        steps.yes(QUESTION, format!("{} of type {kind}{idle}", status.name))
    }
    /// `kubectl` makes it a LoadBalancer of ours. A class can be given with the type alone.
    fn to_load_balancer(&self) -> String {
        let class = self.class;
        let spec =
            format!("{{\"spec\":{{\"type\":\"LoadBalancer\",\"loadBalancerClass\":\"{class}\"}}}}");
        self.kubectl("patch") + &format!(" -p '{spec}'")
    }
    /// What to do about a LoadBalancer that is somebody else's.
    fn foreign(&self) -> String {
        let (facts, ours) = (&self.status.facts, self.class);
        let show = self.kubectl("get") + " -o jsonpath='{.spec.loadBalancerClass}'";
        if self.has("ForeignStatus") {
            let take = self.kubectl("annotate") + " headgate.dev/take-over=true";
            return format!("where it is to be served here: {take}");
        }
        if facts.class.is_empty() {
            return format!(
                "a class can't be added to it: create it anew with spec.loadBalancerClass: {ours}, \
                 or set service.default_class = true where nobody else serves those without one; \
                 {show}"
            );
        }
        let aws = if facts.class == AWS_CLASS {
            "set aliases.aws = true to serve those that are written for AWS, or "
        } else {
            ""
        };
        format!("{aws}a class can't be changed: create it anew with class {ours}; {show}")
    }

    fn has_address(&self, steps: &mut Steps) -> bool {
        const QUESTION: &str = "has it an address";
        let frontends = || self.ports.iter().flat_map(|port| &port.frontends);
        let balanced = self.status.service_type == "LoadBalancer";
        let is_balanced = |one: &&Frontend| matches!(one.origin, Origin::LoadBalancer { .. });
        // NodePorts and externalIPs of a LoadBalancer are served without it having an address.
        if frontends().any(|one| !balanced || is_balanced(&one)) {
            let mut sockets: Vec<String> =
                frontends().map(|one| format!("{} ({})", one.address, one.origin.name())).collect();
            sockets.dedup();
            let more = sockets.len().saturating_sub(4);
            sockets.truncate(4);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let node_port = frontends().any(|one| one.origin == Origin::NodePort);
            let alone = if node_port { "; NodePorts on these addresses alone" } else { "" };
            return steps.yes(QUESTION, sockets.join(", ") + &more + alone);
        }
        if self.status.service_type == "NodePort" && self.node_ports.is_empty() {
            let finding = "its NodePorts are answered nowhere: no address of this gateway is \
                           configured for them";
            let remedy =
                format!("set node_port.addresses; {} -o wide shows the ports", self.kubectl("get"));
            return steps.no(QUESTION, finding.to_owned(), remedy);
        }
        let (finding, remedy) = if let Some(problem) = self.problem(&["AllocationFailed"]) {
            let others = "kubectl get services -A --field-selector spec.type=LoadBalancer";
            let remedy = format!("headgate show pools, and {others}: who has them?");
            (problem, remedy)
        } else {
            let reasons = ["AddressRefused", "PortConflict", "LimitExceeded", "Invalid"];
            let finding = self.problem(&reasons).unwrap_or_else(|| self.problems());
            (finding, self.kubectl("describe"))
        };
        steps.no(QUESTION, finding, remedy)
    }

    fn has_all_ports(&self, steps: &mut Steps) -> bool {
        const QUESTION: &str = "are all its ports forwarded";
        let external = || self.status.ports.iter().filter(|row| row.key.scope == Scope::External);
        for row in external() {
            if let Some(why) = &row.not_forwarded {
                let finding = format!("port {}/{} is not: {why}", row.port, row.key.protocol);
                return steps.no(QUESTION, finding, self.kubectl("describe"));
            }
        }
        steps.yes(QUESTION, format!("{}", external().count()))
    }

    fn has_slices(&self, steps: &mut Steps) -> bool {
        const QUESTION: &str = "has it EndpointSlices";
        let facts = &self.status.facts;
        if facts.slices > 0 {
            return steps.yes(QUESTION, format!("{}", facts.slices));
        }
        let finding = if facts.selector.is_empty() {
            "no slice names it, and it has no selector from which one could be made"
        } else {
            "no slice names it, though it has a selector: does the endpointslice controller run?"
        };
        steps.no(QUESTION, finding.to_owned(), self.slices_command())
    }

    fn has_endpoints(&self, steps: &mut Steps) -> bool {
        const QUESTION: &str = "has it endpoints";
        let facts = &self.status.facts;
        let known: u32 = self.status.ports.iter().map(|port| port.known).sum();
        if known > 0 {
            return steps.yes(QUESTION, format!("{known} over all ports"));
        }
        if facts.endpoints == 0 {
            let finding = match facts.selector.as_str() {
                "" => "its slices are empty".to_owned(),
                selector => format!("its selector {selector} matches no pod that has an address"),
            };
            return steps.no(QUESTION, finding, self.pods_command());
        }
        if facts.ready == 0 {
            // Those that don't even serve are no backends: told by the next question.
            return true;
        }
        let refused = self.problem(&["EndpointRefused"]);
        if self.ports.iter().any(|port| port.target == Target::Node) && refused.is_none() {
            let finding = "its endpoints are on no node that may be a backend: excluded by label, \
                           about to be deleted, or without an InternalIP of its family";
            let label = "node.kubernetes.io/exclude-from-external-load-balancers";
            let remedy = format!("kubectl get nodes -o wide -L {label}");
            return steps.no(QUESTION, finding.to_owned(), remedy);
        }
        let finding = refused.unwrap_or_else(|| {
            let names: Vec<&str> =
                self.status.ports.iter().map(|port| &*port.key.port_name).collect();
            format!(
                "{} endpoints, yet no slice has a port named \"{}\": does targetPort name a port \
                 of the pods?",
                facts.endpoints,
                names.join("\", \"")
            )
        });
        steps.no(QUESTION, finding, self.slices_command() + " -o yaml")
    }

    fn is_ready(&self, steps: &mut Steps) -> bool {
        const QUESTION: &str = "is one ready";
        let facts = &self.status.facts;
        let active: u32 = self.status.ports.iter().map(|port| port.active).sum();
        let known: u32 = self.status.ports.iter().map(|port| port.known).sum();
        if active > 0 {
            let waning = if facts.ready == 0 { ", though none is ready" } else { "" };
            let finding = format!("{active} of {known} take new connections{waning}");
            return steps.yes(QUESTION, finding);
        }
        let finding = format!("none of {} endpoints is ready", facts.endpoints.max(known));
        let remedy = format!("look at their readiness probes: {}", self.pods_command());
        steps.no(QUESTION, finding, remedy)
    }

    /// Backends that take new connections, one for each address.
    fn active(&self) -> Vec<(Protocol, Target, &Backend)> {
        let all = self.ports.iter().flat_map(|port| {
            port.backends.iter().map(move |backend| (port.key.protocol, port.target, backend))
        });
        all.filter(|(.., backend)| backend.state == BackendState::Active).collect()
    }

    fn has_ways(&self, steps: &mut Steps) -> bool {
        let active = self.active();
        let way = |backend: &Backend| (self.way)(backend.address.ip(), backend.via);
        let question = "is there a way to each backend";
        if let Some((.., lost)) = active.iter().find(|(.., one)| way(one) == Way::None) {
            let finding = format!("no route to {}{}", lost.address.ip(), on_node(lost));
            let remedy = with_nodes(DropReason::NoRoute);
            return steps.no(question, finding, remedy);
        }
        steps.yes(question, format!("{} backends", active.len()));
        let question = "are their next hops resolved";
        for (.., backend) in &active {
            if let Way::Silent(hop) = way(backend) {
                let finding = format!("{hop} does not answer ARP or neighbour discovery");
                let remedy = with_nodes(DropReason::NeighbourUnresolved);
                return steps.no(question, finding, remedy);
            }
        }
        steps.yes(question, "all of them".to_owned())
    }

    /// Connects to one endpoint of each node.
    fn answers(&self, steps: &mut Steps) -> bool {
        const QUESTION: &str = "does a backend of each node answer";
        let mut asked: BTreeMap<&str, (&Backend, Target)> = BTreeMap::new();
        for (protocol, target, backend) in self.active() {
            if protocol == Protocol::Tcp && asked.len() < ASKED_MAX {
                asked.entry(&backend.node).or_insert((backend, target));
            }
        }
        if asked.is_empty() {
            return steps.yes(QUESTION, "not asked: no port is TCP".to_owned());
        }
        let ways: Vec<_> = asked.values().map(|(one, _)| (one.address, one.via)).collect();
        let heard = (self.connect)(&ways);
        for ((backend, target), heard) in asked.values().zip(heard) {
            let Err(error) = heard else { continue };
            let finding = format!("{}{}: {error}", backend.address, on_node(backend));
            let remedy = self.silent(backend, *target, error.kind());
            return steps.no(QUESTION, finding, remedy);
        }
        let list: Vec<String> = ways.iter().map(|(address, _)| address.to_string()).collect();
        steps.yes(QUESTION, list.join(", "))
    }

    /// What to do about a backend that doesn't answer.
    fn silent(&self, backend: &Backend, target: Target, why: io::ErrorKind) -> String {
        let namespace = &self.status.name.namespace;
        let describe = match (&*backend.name, target) {
            (_, Target::Node) => format!("kubectl describe node {}", backend.node),
            ("", _) => self.pods_command(),
            (name, _) => format!("kubectl -n {namespace} describe pod {name}"),
        };
        if why == io::ErrorKind::ConnectionRefused {
            return match target {
                Target::Node => format!("is kube-proxy serving that nodePort? {describe}"),
                Target::Endpoint => {
                    format!("does its process listen on that port, on all addresses? {describe}")
                }
            };
        }
        match target {
            Target::Node => format!(
                "does a firewall of the node close the nodePort, and has the node a route back to \
                 the gateway? {describe}"
            ),
            Target::Endpoint => format!(
                "does the node take packets for pods from outside the cluster? Cilium: \
                 routingMode native; Calico: no policy against the gateway's addresses; any: \
                 net.ipv4.ip_forward = 1 and kubectl -n {namespace} get networkpolicies; else use \
                 target \"node\". {describe}"
            ),
        }
    }

    fn is_announced(&self, steps: &mut Steps) -> bool {
        const QUESTION: &str = "is it announced";
        let mut far: Vec<IpAddr> = self
            .ports
            .iter()
            .flat_map(|port| &port.frontends)
            .filter(|one| one.origin != Origin::NodePort)
            .map(|one| one.address.ip())
            .filter(|address| !self.fronts.iter().any(|net| net.contains(address)))
            .collect();
        far.sort_unstable();
        far.dedup();
        let finding = match far.first() {
            None => "on our links, by ARP and neighbour discovery".to_owned(),
            Some(first) => format!(
                "{first} is on no link of ours: routers need a route to it by way of this gateway"
            ),
        };
        steps.yes(QUESTION, finding)
    }
}

/// A drop's remedy, and what shows the nodes.
fn with_nodes(reason: DropReason) -> String {
    format!("{}; kubectl get nodes -o wide", reason.remedy().trim_end_matches('.'))
}

fn on_node(backend: &Backend) -> String {
    if backend.node.is_empty() { String::new() } else { format!(" on node {}", backend.node) }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
