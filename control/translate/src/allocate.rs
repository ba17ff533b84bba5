//! Second step of a build: addresses and nodePorts are taken back and given.

use crate::index::{Index, Wait};
use crate::problem::{normal, reason};
use crate::spec::{Rank, Spec};
use model::answers::Severity;
use model::desired::ObjectName;
use model::ids::{Family, Protocol};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Index {
    /// Takes an address back; whoever waited for it is looked at in this build.
    pub(crate) fn free_address(&mut self, name: &ObjectName, address: IpAddr) {
        self.ledger.take_back(name, address);
        self.ledger.rewind(&self.settings, address);
        self.freed.insert(address);
        self.touched.extend(self.writers(address));
    }

    /// What `address` is, where no Service may have it.
    pub(crate) fn never_a_services(&self, address: IpAddr) -> Option<String> {
        if let Some(what) = self.settings.reserved(address) {
            return Some(what.to_owned());
        }
        let api_servers = &self.settings.wishes().forwarding.api_servers;
        if api_servers.contains(&address) || self.api_servers.contains_key(&address) {
            return Some("the address of an API server".to_owned());
        }
        self.nodes.owner(address).map(|node| format!("an address of Node {node}"))
    }

    /// Takes back what the Service may no longer have.
    pub(crate) fn release_unfit(&mut self, name: &ObjectName) {
        let Some(entry) = self.services.get(name) else { return };
        let spec = &entry.spec;
        let mut unfit = Vec::new();
        let mut seen = BTreeSet::new();
        for held in self.ledger.addresses_of(name) {
            let first = seen.insert(Family::of(held.address));
            match self.unfit(spec, held.address, &held.pool) {
                None if first => {}
                why => unfit.push((held.address, why.flatten())),
            }
        }
        let ports: Vec<_> = self.ledger.node_ports_of(name).to_vec();
        let settings = self.settings.node_port();
        let keep = |name: &str, protocol: Protocol, node_port: u16| {
            let mut all = spec.ports.iter();
            let port = all.find(|port| *port.name == *name && port.protocol == protocol);
            spec.wants_node_ports
                && settings.allocate
                && (settings.first..=settings.last).contains(&node_port)
                && port.is_some_and(|port| port.node_port.is_none() && port.withheld.is_none())
        };
        let ports: Vec<_> = ports
            .into_iter()
            .filter(|held| !keep(&held.port_name, held.protocol, held.node_port))
            .collect();
        let spec = spec.clone();
        for (address, why) in unfit {
            let text = why.map(|why| format!(": {why}")).unwrap_or_default();
            let what = format!("{address} is no longer its LoadBalancer address{text}");
            let mut event = normal(reason::IP_RELEASED, &spec, what);
            if !text.is_empty() {
                event.severity = Severity::Warning;
                reason::ADDRESS_REFUSED.clone_into(&mut event.reason);
            }
            self.events.push(event);
            self.free_address(name, address);
        }
        for held in ports {
            self.ledger.take_back_node_port(name, &held);
            self.freed_node_ports.insert(held.protocol);
        }
    }

    /// `Some` where the Service may not keep `address`, with the reason where that isn't of its
    /// own making.
    fn unfit(&self, spec: &Spec, address: IpAddr, pool: &Arc<str>) -> Option<Option<String>> {
        if let Some(whose) = self.never_a_services(address) {
            return Some(Some(format!("it is {whose}")));
        }
        let family = Family::of(address);
        // Who doesn't allocate goes by the status.
        if !spec.balanced || self.leads() && !spec.families.contains(&family) {
            return Some(None);
        }
        if let Some(first) = self.first_holder(address).filter(|first| first.name() != spec.name())
            && spec.shares_with(first).is_none()
        {
            return Some(Some(format!("it belongs to {}", first.name())));
        }
        let request = &spec.request;
        if request.broken || !self.leads() {
            return None;
        }
        let asked = request.addresses.iter().find(|&&asked| Family::of(asked) == family);
        let other = asked.is_some_and(|&asked| asked != address);
        // Its pool may have another name by now; what counts is where the address is.
        let now = self.settings.pool_of(address).and_then(|at| self.settings.pools().get(at));
        let at = now.map_or(pool, |pool| &pool.name);
        let elsewhere = request.pool.as_ref().is_some_and(|asked| asked != at);
        let scheme = now.and_then(|pool| pool.scheme);
        let facing = request.scheme.zip(scheme).is_some_and(|(asked, has)| asked != has);
        (other || elsewhere || facing).then_some(None)
    }

    /// Of those that have an address the first in rank: the others share it with that one.
    fn first_holder(&self, address: IpAddr) -> Option<&Spec> {
        let holders = self.ledger.holders(address).filter_map(|name| self.services.get(name));
        let specs = holders.map(|entry| &entry.spec).filter(|spec| spec.balanced);
        specs.min_by(|one, other| one.rank.cmp(&other.rank))
    }

    /// Gives addresses, then nodePorts, to those of `touched` that lack some and to those that
    /// waited for what was freed. Adds to `touched` whoever is concerned.
    pub(crate) fn allocate(&mut self, touched: &mut BTreeSet<ObjectName>) {
        // Requests go first, so that nobody is given by chance what another names.
        let mut todo: BTreeSet<(bool, Rank)> = BTreeSet::new();
        let mut queue = |index: &Self, rank: &Rank| {
            if let Some(entry) = index.services.get(&rank.name) {
                todo.insert((entry.spec.request.addresses.is_empty(), rank.clone()));
            }
        };
        for name in touched.iter() {
            if let Some(entry) = self.services.get(name) {
                queue(self, &entry.spec.rank);
            }
        }
        let freed = std::mem::take(&mut self.freed);
        let turned = std::mem::take(&mut self.turned);
        let namespaces = std::mem::take(&mut self.relabelled);
        let waits = freed.iter().map(|&address| Wait::Address(address));
        let pools = turned.iter().flat_map(|&pool| FAMILIES.map(|one| Wait::Pool(pool, one)));
        let waits = waits.chain(pools).chain(namespaces.into_iter().map(Wait::Namespace));
        for wait in waits {
            for rank in self.waiting.get(&wait).into_iter().flatten() {
                queue(self, rank);
            }
        }
        for (_, rank) in todo {
            self.give_addresses(&rank.name, touched);
        }
        let pools: BTreeSet<(usize, Family)> = freed
            .iter()
            .filter_map(|&address| Some((self.settings.pool_of(address)?, Family::of(address))))
            .collect();
        for (pool, family) in pools {
            self.serve_waiting(pool, family, touched);
        }
        // Who waits for what was given just now is told whose it is, or shares it.
        while let Some(address) = self.given.pop_first() {
            let waiting = self.waiting.get(&Wait::Address(address)).into_iter().flatten();
            for rank in waiting.cloned().collect::<Vec<_>>() {
                self.give_addresses(&rank.name, touched);
            }
        }
        let names: Vec<_> = touched.iter().cloned().collect();
        self.allocate_node_ports(&names, touched);
        touched.append(&mut self.touched);
    }

    /// Gives to those that wait for a pool, in their order, until it is used up.
    fn serve_waiting(&mut self, pool: usize, family: Family, touched: &mut BTreeSet<ObjectName>) {
        let mut after: Option<Rank> = None;
        loop {
            let waiting = self.waiting.get(&Wait::Pool(pool, family));
            let next = waiting.and_then(|ranks| match &after {
                None => ranks.first(),
                Some(rank) => {
                    let from = (std::ops::Bound::Excluded(rank), std::ops::Bound::Unbounded);
                    ranks.range::<Rank, _>(from).next()
                }
            });
            let Some(rank) = next.cloned() else { return };
            if self.refused_pool(pool).is_some() || self.free_in(pool, family).is_none() {
                return;
            }
            self.give_addresses(&rank.name, touched);
            after = Some(rank);
        }
    }

    /// Gives the Service what addresses it lacks.
    fn give_addresses(&mut self, name: &ObjectName, touched: &mut BTreeSet<ObjectName>) {
        let Some(entry) = self.services.get_mut(name) else { return };
        let rank = entry.spec.rank.clone();
        let before = std::mem::take(&mut entry.address_problems);
        self.stop_waiting_for(&rank, |wait| !matches!(wait, Wait::NodePort(_)));
        let Some(entry) = self.services.get(name) else { return };
        if !entry.spec.balanced {
            return;
        }
        let spec = entry.spec.clone();
        let leads = self.leads();
        let (found, refused) = if leads { self.find_all(&spec) } else { self.find_said(&spec) };
        if leads && !found.is_empty() {
            self.tell_twice(&spec);
        }
        let (mut problems, mut waits) = (Vec::new(), BTreeSet::new());
        let given = if leads && spec.require_dual_stack && !refused.is_empty() {
            for one in refused {
                problems.extend(one.problem.map(|problem| *problem));
                waits.extend(one.waits);
            }
            // What is there now may be gone, or refused, when the other family's is there.
            for &(address, _) in &found {
                let pool = self.settings.pool_of(address);
                waits.extend(pool.map(|pool| Wait::Pool(pool, Family::of(address))));
                waits.extend(
                    spec.request.addresses.contains(&address).then_some(Wait::Address(address)),
                );
            }
            if problems.is_empty() {
                problems.push(self.not_both_left(&spec));
            }
            0
        } else {
            let served = found.len() + self.ledger.addresses_of(name).len() > 0;
            for one in refused {
                let none = (!served).then(|| self.none_left(&spec, one.family));
                problems.extend(one.problem.map(|problem| *problem).or(none));
                waits.extend(one.waits);
            }
            found.len()
        };
        for (address, pool) in found.into_iter().take(given) {
            let text = format!("{address} from pool {pool}");
            if leads {
                self.events.push(normal(reason::IP_ALLOCATED, &spec, text));
            }
            self.ledger.give(name, spec.uid(), address, pool);
            self.given.insert(address);
            touched.extend(self.writers(address));
        }
        if given > 0 || problems != before {
            touched.insert(name.clone());
        }
        for wait in &waits {
            self.waiting.entry(wait.clone()).or_default().insert(rank.clone());
        }
        if let Some(entry) = self.services.get_mut(name) {
            entry.address_problems = problems;
            entry.waits.append(&mut waits);
        }
    }

    /// The Service no longer waits for what `which` names.
    pub(crate) fn stop_waiting_for(&mut self, rank: &Rank, which: impl Fn(&Wait) -> bool) {
        let Some(entry) = self.services.get_mut(&rank.name) else { return };
        let waits: Vec<_> = entry.waits.iter().filter(|wait| which(wait)).cloned().collect();
        entry.waits.retain(|wait| !which(wait));
        for wait in waits {
            self.stop_waiting(&wait, rank);
        }
    }
}
