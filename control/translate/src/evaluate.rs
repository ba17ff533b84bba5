//! Last step of a build: what becomes of the Services that a change concerns.

use crate::index::{Built, Counts, Entry, Index};
use crate::problem::{Problem, begun, reason};
use crate::settings::not_global_unicast;
use crate::slices::{Odd, Usable, backends};
use crate::spec::{PortSpec, Spec};
use model::answers::{ServicePortRow, ServiceStatus};
use model::desired::{
    Backend, BackendState, Forwarding, Frontend, ObjectName, Origin, Refusal, Scope, ServicePort,
    ServicePortKey, Target,
};
use model::limits::{BACKENDS_MAX, FRONTENDS_MAX, PROBLEMS_PER_SERVICE_MAX, SERVICE_PORTS_MAX};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// What one Service comes to.
struct Outcome {
    ports: Vec<ServicePort>,
    status: ServiceStatus,
    problems: Vec<Problem>,
}

impl Index {
    /// Evaluates what the build so far found to be concerned.
    pub(crate) fn evaluate_stale(&mut self) -> Built {
        let mut built = Built::default();
        let before = self.counts;
        // What is dropped makes room before anything is added.
        self.drop_unwanted(&mut built);
        let mut changed = BTreeSet::new();
        for name in std::mem::take(&mut self.stale) {
            self.evaluate(&name, &mut built, &mut changed);
        }
        let room = self.counts.service_ports < before.service_ports
            || self.counts.frontends < before.frontends
            || self.counts.backends < before.backends;
        if room {
            for name in std::mem::take(&mut self.over_limit) {
                self.evaluate(&name, &mut built, &mut changed);
            }
        }
        // A service port may have been dropped and come back within one build.
        built.delta.removed.retain(|key| !changed.contains(key));
        let ports = &self.published.service_ports;
        built.delta.changed = changed.iter().filter_map(|key| ports.get(key).cloned()).collect();
        built.removed = std::mem::take(&mut self.removed).into_iter().collect();
        built.events = std::mem::take(&mut self.events);
        built.statuses.sort_by(|one, other| one.name.cmp(&other.name));
        self.counts.services = self.services.len();
        built
    }

    /// Takes out of the desired state what belongs to no known Service.
    fn drop_unwanted(&mut self, built: &mut Built) {
        for key in std::mem::take(&mut self.dropped) {
            // A Service that is there says itself what it wants, when it is evaluated.
            match self.services.get_mut(&key.service) {
                Some(entry) if self.published.service_ports.contains_key(&key) => {
                    entry.keys.insert(key.clone());
                    self.stale.insert(key.service);
                }
                _ => self.unpublish(key, built),
            }
        }
    }

    fn unpublish(&mut self, key: ServicePortKey, built: &mut Built) {
        if let Some(port) = self.published.service_ports.remove(&key) {
            subtract(&mut self.counts, &port);
            built.delta.removed.push(key);
        }
    }

    fn evaluate(
        &mut self,
        name: &ObjectName,
        built: &mut Built,
        changed: &mut BTreeSet<ServicePortKey>,
    ) {
        let Some(entry) = self.services.get(name) else { return };
        built.evaluated += 1;
        let mut outcome = self.outcome(entry);
        let old_keys = entry.keys.clone();
        self.over_limit.remove(name);
        let mut keys = BTreeSet::new();
        let wanted: BTreeSet<_> = outcome.ports.iter().map(|port| port.key.clone()).collect();
        for key in old_keys.difference(&wanted) {
            changed.remove(key);
            self.unpublish(key.clone(), built);
        }
        for port in std::mem::take(&mut outcome.ports) {
            let key = port.key.clone();
            if let Some(limit) = self.limit(&port) {
                self.over_limit.insert(name.clone());
                not_forwarded(&mut outcome, &key, &limit);
                changed.remove(&key);
                self.unpublish(key, built);
                continue;
            }
            keys.insert(key.clone());
            if self.publish(port) {
                changed.insert(key);
            }
        }
        self.tell(name, keys, outcome, built);
    }

    /// Puts a service port into the desired state; false where it is there already.
    fn publish(&mut self, port: ServicePort) -> bool {
        let ports = &mut self.published.service_ports;
        if let Some(old) = ports.get(&port.key) {
            if **old == port {
                return false;
            }
            subtract(&mut self.counts, old);
        }
        self.counts.service_ports += 1;
        self.counts.frontends += port.frontends.len();
        self.counts.backends += port.backends.len();
        ports.insert(port.key.clone(), Arc::new(port));
        true
    }

    /// The limit that this service port would pass.
    fn limit(&self, port: &ServicePort) -> Option<String> {
        let mut counts = self.counts;
        if let Some(old) = self.published.service_ports.get(&port.key) {
            subtract(&mut counts, old);
        }
        let passes = [
            (counts.service_ports + 1, SERVICE_PORTS_MAX, "service ports"),
            (counts.frontends + port.frontends.len(), FRONTENDS_MAX, "frontends"),
            (counts.backends + port.backends.len(), BACKENDS_MAX, "backends"),
        ];
        let passed = passes.into_iter().find(|(count, max, _)| count > max);
        passed.map(|(_, max, what)| format!("the gateway has its limit of {max} {what} already"))
    }

    /// Notes the outcome; tells what differs and what began.
    fn tell(
        &mut self,
        name: &ObjectName,
        keys: BTreeSet<ServicePortKey>,
        mut outcome: Outcome,
        built: &mut Built,
    ) {
        let Some(entry) = self.services.get_mut(name) else { return };
        entry.keys = keys;
        let mut seen = BTreeSet::new();
        outcome.problems.retain(|problem| seen.insert(problem.clone()));
        let cut = outcome.problems.len().saturating_sub(PROBLEMS_PER_SERVICE_MAX);
        outcome.problems.truncate(PROBLEMS_PER_SERVICE_MAX);
        outcome.status.problems = outcome.problems.iter().map(Problem::text).collect();
        let reasons = outcome.problems.iter().map(|problem| problem.reason.to_owned());
        outcome.status.facts.reasons = reasons.collect();
        if cut > 0 {
            outcome.status.problems.push(format!("{cut} more problems"));
        }
        let none = Vec::new();
        let before = entry.status.as_ref().map_or(&none, |(_, problems)| problems);
        let place = &entry.spec.place;
        let begun = begun(before, &outcome.problems);
        self.events.extend(begun.into_iter().map(|problem| problem.event(name, place)));
        let same = entry.status.as_ref().is_some_and(|(status, _)| *status == outcome.status);
        entry.status = Some((outcome.status.clone(), outcome.problems));
        if !same {
            built.statuses.retain(|status| status.name != *name);
            built.statuses.push(outcome.status);
        }
    }

    fn outcome(&self, entry: &Entry) -> Outcome {
        let spec = &entry.spec;
        let mut problems = spec.problems.clone();
        problems.extend(entry.address_problems.iter().cloned());
        problems.extend(entry.node_port_problems.iter().cloned());
        problems.extend(entry.claim_problems.iter().cloned());
        let mut frontends = self.won(entry, &mut problems);
        let usable = self.usable(spec, &mut problems);
        let (mut ports, mut rows) = (Vec::new(), Vec::new());
        let mut addresses: Vec<IpAddr> = Vec::new();
        for (position, port) in spec.ports.iter().enumerate() {
            let via = |node: &str, family| self.nodes.via(node, family);
            let (backends, cut) = backends(&usable, &port.name, port.protocol, via);
            if cut > 0 {
                let what = format!("{cut} backends of port {} are beyond the limit", port.port);
                problems.push(Problem::new(reason::LIMIT_EXCEEDED, what));
            }
            let frontends = frontends.get_mut(position).map(std::mem::take).unwrap_or_default();
            let mut row = self.row(spec, port, &backends);
            if frontends.is_empty() {
                let lost = entry.claims.iter().any(|claim| claim.port == position);
                row.not_forwarded = Some(if lost {
                    "its frontends belong to other Services".to_owned()
                } else {
                    self.without_frontend(spec, port)
                });
            } else {
                note_addresses(&mut addresses, &frontends);
                ports.push(self.service_port(spec, row.key.clone(), frontends, backends));
            }
            rows.push(row);
        }
        if spec.affinity.is_some() && !ports.is_empty() {
            let what = "session affinity is not applied yet: each connection chooses anew";
            problems.push(Problem::new(reason::AFFINITY_NOT_APPLIED, what));
        }
        let status = ServiceStatus {
            name: spec.name().clone(),
            service_type: spec.type_name.clone(),
            addresses,
            ports: rows,
            problems: Vec::new(),
            place: spec.place.to_string(),
            facts: self.facts(spec),
        };
        Outcome { ports, status, problems }
    }

    /// For each port the frontends that are the Service's, with a problem for each that isn't.
    fn won(&self, entry: &Entry, problems: &mut Vec<Problem>) -> Vec<Vec<Frontend>> {
        let spec = &entry.spec;
        let mut frontends = vec![Vec::new(); spec.ports.len()];
        for claim in &entry.claims {
            let owner = self.claims.owner(&claim.socket);
            if owner == Some(spec.name()) {
                if let Some(list) = frontends.get_mut(claim.port) {
                    let address = claim.socket.address();
                    list.push(Frontend { address, origin: claim.origin.clone() });
                }
            } else if let Some(owner) = owner {
                let what = format!("{} {} belongs to {owner}", claim.origin.name(), claim.socket);
                problems.push(Problem::new(reason::PORT_CONFLICT, what));
            }
        }
        frontends
    }

    /// The Service's slices with those endpoints that may be backends.
    fn usable(&self, spec: &Spec, problems: &mut Vec<Problem>) -> Vec<Usable<'_>> {
        let mut usable = Vec::new();
        if spec.withheld.is_some() {
            return usable;
        }
        for name in self.slices_of.get(spec.name()).into_iter().flatten() {
            let Some(slice) = self.slices.get(name) else { continue };
            let mut odd = Odd::default();
            let mut endpoints = Vec::with_capacity(slice.endpoints.len());
            for endpoint in &slice.endpoints {
                match self.refused(endpoint.address) {
                    None => endpoints.push(endpoint),
                    Some(why) => {
                        odd.add(format!("endpoint {} is refused: {why}", endpoint.address))
                    }
                }
            }
            problems.extend(slice.problems.iter().cloned());
            problems.extend(odd.problems(&slice.name, &slice.place));
            usable.push(Usable { slice, endpoints });
        }
        usable
    }

    /// Why no endpoint may have `address`.
    fn refused(&self, address: IpAddr) -> Option<String> {
        let what = not_global_unicast(address).map(|what| format!("it is {what} address"));
        let what = what.or_else(|| {
            let what = self.settings.reserved(address).or_else(|| self.claims.guarded(address));
            what.map(|what| format!("it is {what}"))
        });
        what.or_else(|| {
            (!self.settings.allows_backend(address))
                .then(|| "the configuration allows no backend there ([backend] ranges)".to_owned())
        })
    }

    fn row(&self, spec: &Spec, port: &PortSpec, backends: &[Backend]) -> ServicePortRow {
        let active = backends.iter().filter(|one| one.state == BackendState::Active).count();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        ServicePortRow {
            key: ServicePortKey {
                cluster: "".into(),
                service: spec.name().clone(),
                port_name: port.name.clone(),
                protocol: port.protocol,
                scope: Scope::External,
            },
            port: port.port,
            node_port: self.node_port(spec, port).map(|(number, _)| number),
            active: count(active),
            known: count(backends.len()),
            not_forwarded: None,
        }
    }

    fn service_port(
        &self,
        spec: &Spec,
        key: ServicePortKey,
        frontends: Vec<Frontend>,
        backends: Vec<Backend>,
    ) -> ServicePort {
        let pool = frontends.iter().find_map(|frontend| match &frontend.origin {
            Origin::LoadBalancer { pool } => self.settings.pool_named(pool),
            _ => None,
        });
        let pool = pool.and_then(|pool| self.settings.pools().get(pool));
        ServicePort {
            key,
            uid: spec.uid().clone(),
            frontends,
            backends,
            forwarding: Forwarding::Nat,
            target: Target::Endpoint,
            refusal: [pool.map_or(Refusal::Reject, |pool| pool.refusal); 2],
            affinity: spec.affinity,
            source_ranges: spec.source_ranges.ranges.clone(),
            reset_after_s: None,
        }
    }
}

/// LoadBalancer addresses, then externalIPs, each once. NodePorts are on addresses of the gateway.
fn note_addresses(addresses: &mut Vec<IpAddr>, frontends: &[Frontend]) {
    for frontend in frontends {
        let served = matches!(frontend.origin, Origin::LoadBalancer { .. } | Origin::ExternalIp);
        if served && !addresses.contains(&frontend.address.ip()) {
            addresses.push(frontend.address.ip());
        }
    }
}

/// A limit keeps one port from being forwarded.
fn not_forwarded(outcome: &mut Outcome, key: &ServicePortKey, why: &str) {
    let row = outcome.status.ports.iter_mut().find(|row| row.key == *key);
    if let Some(row) = row {
        row.not_forwarded = Some(why.to_owned());
        let what = format!("port {}/{} is not forwarded: {why}", row.port, key.protocol);
        outcome.problems.push(Problem::new(reason::LIMIT_EXCEEDED, what));
    }
}

fn subtract(counts: &mut Counts, port: &ServicePort) {
    counts.service_ports = counts.service_ports.saturating_sub(1);
    counts.frontends = counts.frontends.saturating_sub(port.frontends.len());
    counts.backends = counts.backends.saturating_sub(port.backends.len());
}
