//! Last step of a build: what becomes of the Services that a change concerns.

use crate::backends::Chosen;
use crate::built::{Built, Counts};
use crate::choice::tell_choice;
use crate::index::{Entry, Index};
use crate::probes::{Cadence, ProbeKey};
use crate::problem::{Problem, begun, reason};
use crate::slices::Usable;
use crate::spec::{PortSpec, Spec};
use model::answers::{ServicePortRow, ServiceStatus};
use model::desired::{
    Backend, BackendState, Forwarding, Frontend, ObjectName, Origin, Refusal, Scope, ServicePort,
    ServicePortKey,
};
use model::ids::Family;
use model::limits::{BACKENDS_MAX, FRONTENDS_MAX, PROBLEMS_PER_SERVICE_MAX, SERVICE_PORTS_MAX};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What one Service comes to.
struct Outcome {
    ports: Vec<ServicePort>,
    status: ServiceStatus,
    problems: Vec<Problem>,
    probes: BTreeMap<ProbeKey, Cadence>,
    /// Endpoints refused, probes overruled.
    counted: [usize; 2],
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
        // One that was over a limit may have been looked at twice: the later word counts.
        built.statuses.reverse();
        built.statuses.sort_by(|one, other| one.name.cmp(&other.name));
        built.statuses.dedup_by(|one, other| one.name == other.name);
        built.writes.reverse();
        built.writes.sort_by(|one, other| one.service.cmp(&other.service));
        built.writes.dedup_by(|one, other| one.service == other.service);
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
        self.asked.want(name, &entry.probes, &outcome.probes);
        entry.probes = std::mem::take(&mut outcome.probes);
        let counted = std::mem::replace(&mut entry.counted, outcome.counted);
        self.count(counted, outcome.counted);
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
        let spec = &entry.spec;
        let begun = begun(before, &outcome.problems);
        let begun: Vec<_> = begun.into_iter().map(|problem| problem.event(spec)).collect();
        let same = entry.status.as_ref().is_some_and(|(status, _)| *status == outcome.status);
        entry.status = Some((outcome.status.clone(), outcome.problems));
        if !same {
            built.statuses.push(outcome.status);
        }
        if self.stood_before(name) {
            built.known_events.extend(begun);
        } else {
            self.events.extend(begun);
        }
        self.tell_write(name, built);
    }

    fn outcome(&self, entry: &Entry) -> Outcome {
        let spec = &entry.spec;
        let mut problems = spec.problems.clone();
        problems.extend(entry.address_problems.iter().cloned());
        problems.extend(entry.node_port_problems.iter().cloned());
        problems.extend(entry.claim_problems.iter().cloned());
        let frontends = self.won(entry, &mut problems);
        let served = frontends.iter().flatten().any(|list| !list.is_empty());
        let (usable, refused) = self.usable(spec, served, &mut problems);
        let status = ServiceStatus {
            name: spec.name().clone(),
            service_type: spec.type_name.clone(),
            addresses: Vec::new(),
            ports: Vec::new(),
            problems: Vec::new(),
            place: spec.place.to_string(),
            facts: self.facts(spec),
        };
        let mut outcome = Outcome {
            ports: Vec::new(),
            status,
            problems,
            probes: BTreeMap::new(),
            counted: [if served { refused } else { 0 }, 0],
        };
        for (position, [external, internal]) in frontends.into_iter().enumerate() {
            if !external.is_empty() || internal.is_empty() {
                self.one_port(entry, (position, Scope::External), external, &usable, &mut outcome);
            }
            if !internal.is_empty() {
                self.one_port(entry, (position, Scope::Internal), internal, &usable, &mut outcome);
            }
        }
        outcome
    }

    /// One port for one scope: its row, and its service port where it has frontends.
    fn one_port(
        &self,
        entry: &Entry,
        (position, scope): (usize, Scope),
        frontends: Vec<Frontend>,
        usable: &[Usable<'_>],
        outcome: &mut Outcome,
    ) {
        let spec = &entry.spec;
        let Some(port) = spec.ports.get(position) else { return };
        let mut refused = Vec::new();
        let chosen = self.choose(spec, port, scope, usable, &mut refused);
        let mut row = self.row(spec, port, scope, &chosen.backends);
        if frontends.is_empty() {
            let lost = entry.claims.iter().any(|claim| claim.port == position);
            row.not_forwarded = Some(if lost {
                "its frontends belong to other Services".to_owned()
            } else {
                self.without_frontend(spec, port)
            });
            outcome.status.ports.push(row);
            return;
        }
        outcome.problems.append(&mut refused);
        tell_choice(port, &chosen, &mut outcome.problems);
        outcome.counted[1] += usize::from(chosen.failing);
        for (key, cadence) in &chosen.probes {
            outcome.probes.insert(key.clone(), *cadence);
        }
        note_addresses(&mut outcome.status.addresses, &frontends);
        outcome.ports.push(self.service_port(spec, row.key.clone(), frontends, chosen));
        outcome.status.ports.push(row);
    }

    /// For each port the frontends that are the Service's, those for clients outside the cluster
    /// first, with a problem for each that isn't.
    fn won(&self, entry: &Entry, problems: &mut Vec<Problem>) -> Vec<[Vec<Frontend>; 2]> {
        let spec = &entry.spec;
        let mut frontends = vec![[Vec::new(), Vec::new()]; spec.ports.len()];
        for claim in &entry.claims {
            let owner = self.claims.owner(&claim.socket);
            if owner == Some(spec.name()) {
                let internal = usize::from(claim.origin == Origin::ClusterIp);
                if let Some(list) =
                    frontends.get_mut(claim.port).and_then(|both| both.get_mut(internal))
                {
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

    fn row(
        &self,
        spec: &Spec,
        port: &PortSpec,
        scope: Scope,
        backends: &[Backend],
    ) -> ServicePortRow {
        let active = backends.iter().filter(|one| one.state == BackendState::Active).count();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        ServicePortRow {
            key: ServicePortKey {
                cluster: "".into(),
                service: spec.name().clone(),
                port_name: port.name.clone(),
                protocol: port.protocol,
                scope,
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
        chosen: Chosen,
    ) -> ServicePort {
        let target = spec.target(key.scope);
        let refusal = [Family::V4, Family::V6].map(|family| {
            if chosen.out_of_reach[family.index()] {
                return Refusal::Drop;
            }
            // That of the pool that the family's LoadBalancer address is of.
            let mut addresses = frontends
                .iter()
                .filter(|one| matches!(one.origin, Origin::LoadBalancer { .. }))
                .map(|one| one.address.ip());
            let address = addresses.find(|&address| Family::of(address) == family);
            let pool = address.and_then(|address| self.settings.pool_of(address));
            let pool = pool.and_then(|pool| self.settings.pools().get(pool));
            pool.map_or(Refusal::Reject, |pool| pool.refusal)
        });
        ServicePort {
            key,
            uid: spec.uid().clone(),
            frontends,
            backends: chosen.backends,
            forwarding: Forwarding::Nat,
            target,
            refusal,
            affinity: spec.affinity,
            source_ranges: spec.source_ranges.ranges.clone(),
            reset_after_s: spec.wants.reset_after_s,
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
