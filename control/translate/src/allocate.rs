//! Second step of a build: addresses and nodePorts are taken back and given.

use crate::index::{Index, Wait};
use crate::problem::{Problem, normal, reason};
use crate::settings::NodePortSettings;
use crate::spec::{Rank, Spec};
use model::answers::Severity;
use model::desired::ObjectName;
use model::ids::{Family, Protocol};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Why a Service gets no address of a family, and what it waits for.
struct Refused {
    family: Family,
    /// `None` where the Service can do without.
    problem: Option<Box<Problem>>,
    wait: Option<Wait>,
}

/// An address that a Service may have, and the name of its pool.
type Found = (IpAddr, Arc<str>);

impl Index {
    /// Takes an address back; whoever waited for it is looked at in this build.
    pub(crate) fn free_address(&mut self, name: &ObjectName, address: IpAddr) {
        self.ledger.take_back(name, address);
        self.ledger.rewind(&self.settings, address);
        self.freed.insert(address);
        self.touched.extend(self.external_ips.get(&address).into_iter().flatten().cloned());
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
        let place = spec.place.clone();
        for (address, why) in unfit {
            let text = why.map(|why| format!(": {why}")).unwrap_or_default();
            let mut event = normal(
                reason::IP_RELEASED,
                name,
                &place,
                format!("{address} is no longer its LoadBalancer address{text}"),
            );
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
        if !spec.balanced || !spec.families.contains(&family) {
            return Some(None);
        }
        let request = &spec.request;
        if request.broken {
            return None;
        }
        let asked = request.addresses.iter().find(|&&asked| Family::of(asked) == family);
        let other = asked.is_some_and(|&asked| asked != address);
        // Its pool may have another name by now; what counts is where the address is.
        let now = self.settings.pool_of(address).and_then(|at| self.settings.pools().get(at));
        let at = now.map_or(pool, |pool| &pool.name);
        let elsewhere = request.pool.as_ref().is_some_and(|asked| asked != at);
        (other || elsewhere).then_some(None)
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
        for &address in &freed {
            for rank in self.waiting.get(&Wait::Address(address)).into_iter().flatten() {
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
        // Who waits for what was given just now is told whose it is.
        for address in std::mem::take(&mut self.given) {
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
            if self.free_in(pool, family).is_none() {
                return;
            }
            self.give_addresses(&rank.name, touched);
            after = Some(rank);
        }
    }

    /// A free address of a pool. One that some Service writes as externalIP is given on request
    /// alone, also to that Service: what is barred must be so for all, since the ledger remembers
    /// where it searched in vain.
    fn free_in(&mut self, pool: usize, family: Family) -> Option<IpAddr> {
        let (settings, nodes, external) = (&self.settings, &self.nodes, &self.external_ips);
        let (api, configured) = (&self.api_servers, &settings.wishes().forwarding.api_servers);
        self.ledger.find_address(settings, pool, family, |address| {
            settings.reserved(address).is_some()
                || api.contains_key(&address)
                || configured.contains(&address)
                || nodes.owner(address).is_some()
                || external.contains_key(&address)
        })
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
        let (found, refused) = self.find_all(&spec);
        let (mut problems, mut waits) = (Vec::new(), BTreeSet::new());
        let given = if spec.require_dual_stack && !refused.is_empty() {
            nothing(&spec, &found, refused, &mut problems, &mut waits);
            0
        } else {
            let served = found.len() + self.ledger.addresses_of(name).len() > 0;
            for one in refused {
                let none = (!served).then(|| none_left(&spec, one.family));
                problems.extend(one.problem.map(|problem| *problem).or(none));
                waits.extend(one.wait);
            }
            found.len()
        };
        for (address, pool) in found.into_iter().take(given) {
            let text = format!("{address} from pool {pool}");
            self.events.push(normal(reason::IP_ALLOCATED, name, &spec.place, text));
            self.ledger.give(name, spec.uid(), address, pool);
            self.given.insert(address);
            touched.extend(self.external_ips.get(&address).into_iter().flatten().cloned());
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

    /// An address, or the reason why not, for each family that lacks one.
    fn find_all(&mut self, spec: &Spec) -> (Vec<Found>, Vec<Refused>) {
        let (mut found, mut refused) = (Vec::new(), Vec::new());
        if spec.request.broken {
            return (found, refused);
        }
        let request = &spec.request;
        for &address in &request.addresses {
            if !spec.families.contains(&Family::of(address)) {
                let what = format!(
                    "{address} is asked for, yet its ipFamilies have no {}",
                    Family::of(address)
                );
                let problem = Some(Box::new(Problem::new(reason::ALLOCATION_FAILED, what)));
                refused.push(Refused { family: Family::of(address), problem, wait: None });
            }
        }
        for &family in &spec.families {
            let mut held = self.ledger.addresses_of(spec.name()).iter();
            if held.any(|one| Family::of(one.address) == family) {
                continue;
            }
            let asked = request.addresses.iter().find(|&&asked| Family::of(asked) == family);
            let result = match asked {
                Some(&address) => self.find_requested(spec, address),
                None => self.find_any(spec, family),
            };
            match result {
                Ok(one) => found.push(one),
                Err(why) => refused.push(why),
            }
        }
        (found, refused)
    }

    fn find_requested(&self, spec: &Spec, address: IpAddr) -> Result<Found, Refused> {
        let refuse = |reason, what: String| {
            let problem = Some(Box::new(Problem::new(reason, what)));
            let wait = Some(Wait::Address(address));
            Refused { family: Family::of(address), problem, wait }
        };
        if let Some(whose) = self.never_a_services(address) {
            let what = format!("{address} is asked for, yet it is {whose}: ask for another");
            return Err(refuse(reason::ADDRESS_REFUSED, what));
        }
        let at = self.settings.pool_of(address);
        let pool = at.and_then(|pool| self.settings.pools().get(pool));
        let Some(pool) = pool else {
            let what = format!("{address} is asked for, yet no pool has it");
            return Err(refuse(reason::ALLOCATION_FAILED, what));
        };
        if let Some(why) = at.and_then(|at| self.settings.refused_pool(at)) {
            let what = format!("{address} is asked for, yet {why}");
            return Err(refuse(reason::ADDRESS_REFUSED, what));
        }
        if let Some(asked) = spec.request.pool.as_ref().filter(|asked| **asked != pool.name) {
            let what =
                format!("{address} is asked for, yet it is in pool {}, not in {asked}", pool.name);
            return Err(refuse(reason::ALLOCATION_FAILED, what));
        }
        if let Some(owner) = self.ledger.owner(address) {
            let what = format!("{address} is asked for, yet it belongs to {owner}");
            return Err(refuse(reason::ALLOCATION_FAILED, what));
        }
        if let Some(others) = self.external_ips.get(&address)
            && let Some(other) = others.iter().find(|other| *other != spec.name())
        {
            let what = format!("{address} is asked for, yet it is an externalIP of {other}");
            return Err(refuse(reason::ALLOCATION_FAILED, what));
        }
        Ok((address, pool.name.clone()))
    }

    fn find_any(&mut self, spec: &Spec, family: Family) -> Result<Found, Refused> {
        let asked = spec.request.pool.as_ref();
        let pool = match asked {
            Some(name) => self.settings.pool_named(name),
            None => self.settings.default_pool(),
        };
        let Some(pool) = pool else {
            let what = if self.settings.pools().is_empty() {
                "no pool of addresses is configured ([[pool]])".to_owned()
            } else {
                format!("no pool is the default: name one by the annotation {}", crate::spec::POOL)
            };
            let problem = Some(Box::new(Problem::new(reason::ALLOCATION_FAILED, what)));
            return Err(Refused { family, problem, wait: None });
        };
        if let Some(why) = self.settings.refused_pool(pool) {
            let problem = Some(Box::new(Problem::new(reason::ADDRESS_REFUSED, why.to_owned())));
            return Err(Refused { family, problem, wait: None });
        }
        let wait = Some(Wait::Pool(pool, family));
        let address = self.free_in(pool, family);
        let address = address.ok_or(Refused { family, problem: None, wait })?;
        let name = self.settings.pools().get(pool).map(|pool| pool.name.clone());
        Ok((address, name.unwrap_or_default()))
    }

    /// Gives nodePorts to the Services named, and to those that wait for what was freed.
    fn allocate_node_ports(&mut self, names: &[ObjectName], touched: &mut BTreeSet<ObjectName>) {
        let freed = std::mem::take(&mut self.freed_node_ports);
        let entries = names.iter().filter_map(|name| self.services.get(name));
        let mut todo: BTreeSet<Rank> = entries.map(|entry| entry.spec.rank.clone()).collect();
        for protocol in freed {
            let waiting = self.waiting.get(&Wait::NodePort(protocol)).into_iter().flatten();
            todo.extend(waiting.cloned());
        }
        let mut exhausted = BTreeSet::new();
        for rank in todo {
            self.give_node_ports(&rank, touched, &mut exhausted);
        }
    }

    fn give_node_ports(
        &mut self,
        rank: &Rank,
        touched: &mut BTreeSet<ObjectName>,
        exhausted: &mut BTreeSet<Protocol>,
    ) {
        let Some(entry) = self.services.get_mut(&rank.name) else { return };
        let before = std::mem::take(&mut entry.node_port_problems);
        let spec = entry.spec.clone();
        self.stop_waiting_for(rank, |wait| matches!(wait, Wait::NodePort(_)));
        let settings = self.settings.node_port().clone();
        if !spec.wants_node_ports || !settings.allocate {
            return;
        }
        let mut problems = Vec::new();
        for port in &spec.ports {
            let held = self.ledger.node_port_of(spec.name(), &port.name, port.protocol);
            if port.node_port.is_some() || port.withheld.is_some() || held.is_some() {
                continue;
            }
            let taken = &self.node_ports;
            let barred = |number| taken.contains_key(&(port.protocol, number));
            let key = (&port.name, port.protocol);
            let given = (!exhausted.contains(&port.protocol)).then(|| {
                self.ledger.give_node_port(spec.name(), spec.uid(), key, &settings, barred)
            });
            if given.flatten().is_some() {
                touched.insert(rank.name.clone());
                continue;
            }
            exhausted.insert(port.protocol);
            let wait = Wait::NodePort(port.protocol);
            self.waiting.entry(wait.clone()).or_default().insert(rank.clone());
            let NodePortSettings { first, last, .. } = settings;
            let what = format!(
                "no nodePort from {first} to {last} is free for port {}/{}",
                port.port, port.protocol
            );
            problems.push(Problem::new(reason::ALLOCATION_FAILED, what));
            if let Some(entry) = self.services.get_mut(&rank.name) {
                entry.waits.insert(wait);
            }
        }
        if problems != before {
            touched.insert(rank.name.clone());
        }
        if let Some(entry) = self.services.get_mut(&rank.name) {
            entry.node_port_problems = problems;
        }
    }

    /// The Service no longer waits for what `which` names.
    fn stop_waiting_for(&mut self, rank: &Rank, which: impl Fn(&Wait) -> bool) {
        let Some(entry) = self.services.get_mut(&rank.name) else { return };
        let waits: Vec<_> = entry.waits.iter().filter(|wait| which(wait)).cloned().collect();
        entry.waits.retain(|wait| !which(wait));
        for wait in waits {
            self.stop_waiting(&wait, rank);
        }
    }
}

/// All or nothing, and it is nothing: what to say, and what to wait for. Which of two families is
/// used up isn't said, since that may change without this Service being looked at.
fn nothing(
    spec: &Spec,
    found: &[Found],
    refused: Vec<Refused>,
    problems: &mut Vec<Problem>,
    waits: &mut BTreeSet<Wait>,
) {
    for one in refused {
        problems.extend(one.problem.map(|problem| *problem));
        waits.extend(one.wait);
    }
    // The address that is asked for may be gone when the other family's is there.
    let asked = found.iter().filter(|(address, _)| spec.request.addresses.contains(address));
    waits.extend(asked.map(|(address, _)| Wait::Address(*address)));
    if problems.is_empty() {
        let pool = pool_asked(spec);
        let what =
            format!("{pool} has not a free address of each family, as RequireDualStack asks");
        problems.push(Problem::new(reason::ALLOCATION_FAILED, what));
    }
}

fn pool_asked(spec: &Spec) -> String {
    let pool = spec.request.pool.as_deref();
    pool.map_or_else(|| "the default pool".to_owned(), |pool| format!("pool {pool}"))
}

fn none_left(spec: &Spec, family: Family) -> Problem {
    let what = format!("{} has no free {family} address", pool_asked(spec));
    Problem::new(reason::ALLOCATION_FAILED, what)
}
