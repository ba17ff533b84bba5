//! Third step of a build: a Service claims its frontends.

use crate::allocations::AllocatedAddress;
use crate::claims::{Claim, ClaimChange, Socket};
use crate::index::Index;
use crate::problem::{Problem, reason};
use crate::settings::not_global_unicast;
use crate::spec::{PortSpec, ServiceType, Spec};
use model::desired::{ObjectName, Origin};
use model::ids::Family;
use model::limits::FRONTENDS_PER_SERVICE_MAX;
use std::collections::HashSet;
use std::net::IpAddr;

/// Claims of one Service while they are collected.
#[derive(Default)]
struct Collected {
    claims: Vec<Claim>,
    seen: HashSet<Socket>,
    problems: Vec<Problem>,
    cut: bool,
}

impl Collected {
    /// Of two ways to one frontend the first counts.
    fn add(&mut self, claim: Claim) {
        if self.claims.len() >= FRONTENDS_PER_SERVICE_MAX {
            self.cut = true;
        } else if self.seen.insert(claim.socket) {
            self.claims.push(claim);
        }
    }
    fn problem(&mut self, reason: &'static str, what: String) {
        self.problems.push(Problem::new(reason, what));
    }
}

impl Index {
    /// Puts the Service's claims in the place of those it had.
    pub(crate) fn claim_frontends(&mut self, name: &ObjectName, change: &mut ClaimChange) {
        let Some(entry) = self.services.get(name) else { return };
        let spec = &entry.spec;
        let mut collected = Collected::default();
        if spec.withheld.is_none() {
            self.claim_balanced(spec, &mut collected);
            self.claim_external(spec, &mut collected);
            self.claim_node_ports(spec, &mut collected);
            self.claim_cluster_ips(spec, &mut collected);
        }
        if collected.cut {
            let what = format!("only its first {FRONTENDS_PER_SERVICE_MAX} frontends are served");
            collected.problem(reason::LIMIT_EXCEEDED, what);
        }
        let rank = spec.rank.clone();
        let Some(entry) = self.services.get_mut(name) else { return };
        let old = std::mem::replace(&mut entry.claims, collected.claims);
        entry.claim_problems = collected.problems;
        self.claims.replace((&rank, &old), (&rank, &entry.claims), change);
    }

    fn claim_balanced(&self, spec: &Spec, to: &mut Collected) {
        if !spec.balanced {
            return;
        }
        for AllocatedAddress { address, pool } in self.ledger.addresses_of(spec.name()) {
            let family = Family::of(*address);
            if spec.source_ranges.withhold(family) {
                let what = format!(
                    "{address} is not forwarded: none of its source ranges can be read as \
                     {family}, and without them everybody would get in"
                );
                to.problem(reason::NOT_FORWARDED, what);
                continue;
            }
            if !spec.source_ranges.ranges.is_empty() && !spec.source_ranges.guard(family) {
                let what = format!("no source range is {family}: {address} is open to everybody");
                to.problem(reason::FAMILY_OPEN, what);
            }
            for (position, port) in forwarded(spec) {
                to.add(Claim {
                    socket: socket(*address, port, port.port),
                    port: position,
                    origin: Origin::LoadBalancer { pool: pool.clone() },
                    held: true,
                });
            }
        }
    }

    fn claim_external(&self, spec: &Spec, to: &mut Collected) {
        for &address in &spec.external_ips {
            // As kube-proxy has it: a family without a ClusterIP is none of the Service's.
            let family = Family::of(address);
            let known = !spec.cluster_ips.is_empty();
            if known && !spec.cluster_ips.iter().any(|&one| Family::of(one) == family) {
                let what = format!(
                    "externalIP {address} is not forwarded: the Service has no {family}; add it \
                     to ipFamilies"
                );
                to.problem(reason::NOT_FORWARDED, what);
                continue;
            }
            if let Err(problem) = self.external_ip(spec, address) {
                to.problems.push(problem);
                continue;
            }
            for (position, port) in forwarded(spec) {
                to.add(Claim {
                    socket: socket(address, port, port.port),
                    port: position,
                    origin: Origin::ExternalIp,
                    held: false,
                });
            }
        }
    }

    /// Whether the Service may have this externalIP.
    fn external_ip(&self, spec: &Spec, address: IpAddr) -> Result<(), Problem> {
        let refuse = |what: String| {
            Problem::new(
                reason::ADDRESS_REFUSED,
                format!("externalIP {address} is refused: {what}"),
            )
        };
        if let Some(whose) = self.never_a_services(address) {
            return Err(refuse(format!("it is {whose}")));
        }
        if let Some(what) = not_global_unicast(address) {
            return Err(refuse(format!("it is {what} address")));
        }
        if !self.settings.allows_external_ip(address) {
            let remedy = "the configuration allows no such range ([external_ips] ranges)";
            return Err(refuse(remedy.to_owned()));
        }
        match self.ledger.holders(address).next() {
            Some(owner) if !self.ledger.holds(spec.name(), address) => {
                Err(refuse(format!("it is a LoadBalancer address of {owner}")))
            }
            _ => Ok(()),
        }
    }

    fn claim_node_ports(&self, spec: &Spec, to: &mut Collected) {
        if !spec.wants_node_ports {
            return;
        }
        let settings = self.settings.node_port();
        for (position, port) in forwarded(spec) {
            let Some((number, held)) = self.node_port(spec, port) else { continue };
            if !(settings.first..=settings.last).contains(&number) {
                let (first, last) = (settings.first, settings.last);
                let what = format!("nodePort {number} is not from {first} to {last}");
                to.problem(reason::INVALID, what);
                continue;
            }
            for &address in &settings.addresses {
                let family = Family::of(address);
                if !spec.families.contains(&family) {
                    continue;
                }
                if spec.source_ranges.withhold(family) {
                    let what = format!(
                        "nodePort {number} on {address} is not forwarded: none of its source \
                         ranges can be read as {family}"
                    );
                    to.problem(reason::NOT_FORWARDED, what);
                    continue;
                }
                let socket = socket(address, port, number);
                if to.seen.contains(&socket) {
                    let what = format!("nodePort {number}/{} is there twice", port.protocol);
                    to.problem(reason::INVALID, what);
                }
                to.add(Claim { socket, port: position, origin: Origin::NodePort, held });
            }
        }
    }

    fn claim_cluster_ips(&self, spec: &Spec, to: &mut Collected) {
        if !spec.wants_cluster_ips {
            return;
        }
        for &address in &spec.cluster_ips {
            let owner = self.ledger.holders(address).next();
            let what = match self.never_a_services(address) {
                Some(whose) => Some(whose),
                None => not_global_unicast(address)
                    .map(|what| format!("{what} address"))
                    .or(owner.map(|owner| format!("a LoadBalancer address of {owner}"))),
            };
            if let Some(what) = what {
                let what = format!("clusterIP {address} is refused: it is {what}");
                to.problem(reason::ADDRESS_REFUSED, what);
                continue;
            }
            let ports = spec.ports.iter().enumerate();
            for (position, port) in ports.filter(|(_, port)| port.withheld.is_none()) {
                to.add(Claim {
                    socket: socket(address, port, port.port),
                    port: position,
                    origin: Origin::ClusterIp,
                    held: true,
                });
            }
        }
    }

    /// The nodePort of a service port, and whether it was allocated here.
    pub(crate) fn node_port(&self, spec: &Spec, port: &PortSpec) -> Option<(u16, bool)> {
        let allocated = || self.ledger.node_port_of(spec.name(), &port.name, port.protocol);
        port.node_port.map(|given| (given, false)).or_else(|| Some((allocated()?, true)))
    }

    /// Why a service port has no frontend at all.
    pub(crate) fn without_frontend(&self, spec: &Spec, port: &PortSpec) -> String {
        let why = spec.withheld.as_ref().or(port.withheld.as_ref());
        if let Some(why) = why.or(port.withheld_outside.as_ref()) {
            return why.clone();
        }
        if spec.balanced {
            let held = self.ledger.addresses_of(spec.name());
            if held.is_empty() {
                return "it has no LoadBalancer address yet".to_owned();
            }
            if held.iter().all(|one| spec.source_ranges.withhold(Family::of(one.address))) {
                return "its source ranges can't be read".to_owned();
            }
        }
        match spec.service_type {
            ServiceType::LoadBalancer if !spec.balanced => {
                "its LoadBalancer addresses are not managed here".to_owned()
            }
            ServiceType::NodePort if self.settings.node_port().addresses.is_empty() => {
                "no address is configured to serve NodePorts on ([node_port] addresses)".to_owned()
            }
            ServiceType::ClusterIp if spec.external_ips.is_empty() => {
                "a ClusterIP Service is for clients inside the cluster; those outside need type \
                 LoadBalancer or NodePort, or externalIPs"
                    .to_owned()
            }
            _ => "no frontend is left to it".to_owned(),
        }
    }
}

/// The ports that may have frontends for clients outside the cluster, with their positions.
fn forwarded(spec: &Spec) -> impl Iterator<Item = (usize, &PortSpec)> {
    let may = |port: &PortSpec| port.withheld.is_none() && port.withheld_outside.is_none();
    spec.ports.iter().enumerate().filter(move |(_, port)| may(port))
}

const fn socket(address: IpAddr, port: &PortSpec, number: u16) -> Socket {
    Socket { address, protocol: port.protocol, port: number }
}
