//! The index: what is known, and what a change concerns.

use crate::allocations::{Allocations, Ledger};
use crate::built::{Built, Counts};
use crate::claims::{Claim, ClaimChange, Claims};
use crate::namespaces::Namespaces;
use crate::nodes::Nodes;
use crate::object::{Kind, Object, ObjectKey, Place, namespaced};
use crate::occupied::Occupied;
use crate::probes::{Asked, Cadence, ProbeKey};
use crate::problem::Problem;
use crate::settings::Settings;
use crate::slices::Slice;
use crate::spec::{Rank, ServiceType, Spec};
use crate::standing::Telling;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use model::answers::{Event, ServiceStatus};
use model::desired::{DesiredState, ObjectName, ServicePortKey, Target};
use model::ids::{Family, Protocol};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// What a Service waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Wait {
    /// This very address.
    Address(IpAddr),
    /// Any address of a pool.
    Pool(usize, Family),
    /// Any nodePort.
    NodePort(Protocol),
    /// Other labels of its Namespace.
    Namespace(Arc<str>),
}

/// What is kept of one Service.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) spec: Spec,
    pub(crate) claims: Vec<Claim>,
    pub(crate) waits: BTreeSet<Wait>,
    /// From the allocation of addresses.
    pub(crate) address_problems: Vec<Problem>,
    /// From the allocation of nodePorts.
    pub(crate) node_port_problems: Vec<Problem>,
    /// From the claiming of frontends.
    pub(crate) claim_problems: Vec<Problem>,
    /// Service ports in the desired state.
    pub(crate) keys: BTreeSet<ServicePortKey>,
    /// What its backends are asked.
    pub(crate) probes: BTreeMap<ProbeKey, Cadence>,
    /// Its part of [`Counts`]: endpoints refused, probes overruled.
    pub(crate) counted: [usize; 2],
    /// As last told, with the problems that it shows.
    pub(crate) status: Option<(ServiceStatus, Vec<Problem>)>,
    /// For the sake of its status in the API server.
    pub(crate) telling: Telling,
}

impl Entry {
    fn new(spec: Spec) -> Self {
        Self {
            spec,
            claims: Vec::new(),
            waits: BTreeSet::new(),
            address_problems: Vec::new(),
            node_port_problems: Vec::new(),
            claim_problems: Vec::new(),
            keys: BTreeSet::new(),
            probes: BTreeMap::new(),
            counted: [0; 2],
            status: None,
            telling: Telling::new(),
        }
    }
}

/// All that is known. See the [crate]'s page for how it works.
#[derive(Debug)]
pub struct Index {
    pub(crate) settings: Settings,
    pub(crate) ledger: Ledger,
    pub(crate) services: BTreeMap<ObjectName, Entry>,
    pub(crate) nodes: Nodes,
    pub(crate) asked: Asked,
    pub(crate) service_cidrs: BTreeMap<ObjectName, Vec<IpNet>>,
    /// Endpoints of `default/kubernetes`, with the number of slices that have them.
    pub(crate) api_servers: HashMap<IpAddr, usize>,
    /// Services whose backends are nodes.
    pub(crate) node_targets: BTreeSet<ObjectName>,
    /// Those of them that go by the nodes' own health.
    pub(crate) node_askers: BTreeSet<ObjectName>,
    pub(crate) namespaces: Namespaces,
    pub(crate) occupied: Occupied,
    pub(crate) claims: Claims,
    pub(crate) slices: HashMap<ObjectName, Slice>,
    pub(crate) slices_of: HashMap<ObjectName, BTreeSet<ObjectName>>,
    pub(crate) slices_on: HashMap<Arc<str>, BTreeSet<ObjectName>>,
    pub(crate) slices_at: HashMap<IpAddr, BTreeSet<ObjectName>>,
    /// Services that name an address as externalIP and may have it as far as they themselves tell.
    pub(crate) external_ips: HashMap<IpAddr, BTreeSet<ObjectName>>,
    /// Services whose ClusterIP this is, where it is to be served.
    pub(crate) served_cluster_ips: HashMap<IpAddr, BTreeSet<ObjectName>>,
    /// Services that give a nodePort themselves.
    pub(crate) node_ports: HashMap<(Protocol, u16), BTreeSet<ObjectName>>,
    pub(crate) waiting: HashMap<Wait, BTreeSet<Rank>>,
    /// The desired state as published by the deltas so far.
    pub(crate) published: DesiredState,
    pub(crate) counts: Counts,

    // Since the last build:
    /// Services whose allocations and claims are to be looked at.
    pub(crate) touched: BTreeSet<ObjectName>,
    /// Services that are to be evaluated.
    pub(crate) stale: BTreeSet<ObjectName>,
    /// Addresses that somebody may wait for and of which the owner may differ.
    pub(crate) freed: BTreeSet<IpAddr>,
    pub(crate) freed_node_ports: BTreeSet<Protocol>,
    /// Pools that became refused, or are no longer.
    pub(crate) turned: BTreeSet<usize>,
    /// Namespaces of which the labels differ.
    pub(crate) relabelled: BTreeSet<Arc<str>>,
    /// Addresses that were given.
    pub(crate) given: BTreeSet<IpAddr>,
    /// Service ports of which nobody says any longer that they are wanted.
    pub(crate) dropped: BTreeSet<ServicePortKey>,
    pub(crate) removed: BTreeSet<ObjectName>,
    pub(crate) events: Vec<Event>,
    /// Services that a limit keeps from being forwarded, whenever it was.
    pub(crate) over_limit: BTreeSet<ObjectName>,
    /// Which nodes are to be asked may differ.
    pub(crate) ask_nodes: bool,
    /// Services of which the packet path could not take all.
    pub(crate) lost: BTreeSet<ObjectName>,
    /// This gateway allocates, where Services live in an API server.
    pub(crate) writer: bool,
    /// Nothing has been built yet.
    first: bool,
    /// Nothing has been built since the start, or since this gateway began to write: others may
    /// have told before what is found now.
    pub(crate) may_be_told: bool,
}

impl Index {
    /// An index that knows nothing but what was allocated before.
    pub fn new(settings: Settings, allocations: Allocations) -> Self {
        Self::resume(settings, allocations, DesiredState::default())
    }

    /// An index that goes on from a desired state that is forwarded already, as after a restart:
    /// the first build's delta leads from it to what is wanted then. The first build must see
    /// everything that there is, since what it doesn't see is removed.
    pub fn resume(settings: Settings, allocations: Allocations, published: DesiredState) -> Self {
        let pools = settings.pools().len();
        let dropped = published.service_ports.keys().cloned().collect();
        let mut counts = Counts::default();
        for port in published.service_ports.values() {
            counts.service_ports += 1;
            counts.frontends += port.frontends.len();
            counts.backends += port.backends.len();
        }
        Self {
            settings,
            ledger: Ledger::new(allocations, pools),
            services: BTreeMap::new(),
            nodes: Nodes::default(),
            asked: Asked::default(),
            service_cidrs: BTreeMap::new(),
            api_servers: HashMap::new(),
            node_targets: BTreeSet::new(),
            node_askers: BTreeSet::new(),
            namespaces: Namespaces::default(),
            occupied: Occupied::new(pools),
            claims: Claims::default(),
            slices: HashMap::new(),
            slices_of: HashMap::new(),
            slices_on: HashMap::new(),
            slices_at: HashMap::new(),
            external_ips: HashMap::new(),
            served_cluster_ips: HashMap::new(),
            node_ports: HashMap::new(),
            waiting: HashMap::new(),
            published,
            counts,
            touched: BTreeSet::new(),
            stale: BTreeSet::new(),
            freed: BTreeSet::new(),
            freed_node_ports: BTreeSet::new(),
            turned: BTreeSet::new(),
            relabelled: BTreeSet::new(),
            given: BTreeSet::new(),
            dropped,
            removed: BTreeSet::new(),
            events: Vec::new(),
            over_limit: BTreeSet::new(),
            ask_nodes: false,
            lost: BTreeSet::new(),
            writer: false,
            first: true,
            may_be_told: true,
        }
    }

    /// Takes an object in, in the place of what was known of it.
    pub fn apply(&mut self, object: Object) {
        match object {
            Object::Service(service, place) => self.apply_service(&service, place),
            Object::EndpointSlice(slice, place) => self.apply_slice(&slice, place),
            Object::Node(node, _) => self.apply_node(&node),
            Object::Namespace(namespace, _) => self.apply_namespace(&namespace),
            Object::ServiceCidr(cidr, _) => self.apply_service_cidr(&cidr),
        }
    }

    /// Forgets an object. One that isn't known is none of the index's business.
    pub fn delete(&mut self, key: &ObjectKey) {
        match key.kind {
            Kind::Service => self.delete_service(&key.name),
            Kind::EndpointSlice => {
                self.remove_slice(&key.name);
            }
            Kind::Node => self.delete_node(key),
            Kind::Namespace => self.delete_namespace(&key.name.name),
            Kind::ServiceCidr => self.delete_service_cidr(key),
        }
    }

    /// The Services of which the packet path could not take all that was built so far. True where
    /// that is news, and another build says what comes of it.
    pub fn set_lost(&mut self, lost: BTreeSet<ObjectName>) -> bool {
        let differ: Vec<_> = self.lost.symmetric_difference(&lost).cloned().collect();
        self.lost = lost;
        self.stale.extend(differ.iter().cloned());
        !differ.is_empty()
    }

    /// What changes since the last build.
    pub fn build(&mut self) -> Built {
        let mut touched = std::mem::take(&mut self.touched);
        let turned = !self.turned.is_empty();
        self.follow(&mut touched);
        for name in &touched {
            self.release_unfit(name);
        }
        touched.append(&mut self.touched);
        self.allocate(&mut touched);
        let mut change = ClaimChange::default();
        for name in &touched {
            self.claim_frontends(name, &mut change);
        }
        self.note(change);
        self.stale.append(&mut touched);
        self.ask_about_nodes();
        let built = self.evaluate_stale();
        let first = std::mem::replace(&mut self.first, false);
        if first {
            self.ledger.forget_absent(&self.settings);
        }
        self.may_be_told = false;
        let allocations_changed = self.ledger.take_changed() || built.allocations_changed;
        Built {
            allocations_changed,
            pools_changed: first || turned || allocations_changed,
            probes: self.asked.take_change(),
            ..built
        }
    }

    /// Who has which address and nodePort.
    pub const fn allocations(&self) -> &Allocations {
        self.ledger.allocations()
    }

    /// The desired state that all deltas so far add up to.
    pub const fn desired(&self) -> &DesiredState {
        &self.published
    }

    /// The statuses as of the last build, in the order of the Services' names.
    pub fn statuses(&self) -> impl Iterator<Item = &ServiceStatus> {
        self.services.values().filter_map(|entry| entry.status.as_ref().map(|(status, _)| status))
    }

    /// How much there is, as of the last build.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The settings.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    fn apply_service(&mut self, service: &Service, place: Place) {
        let name = namespaced(&service.metadata);
        let another = self.is_another(&name, service);
        let held = if another { &[] } else { self.ledger.addresses_of(&name) };
        let spec = Spec::read(service, place, &self.settings, held);
        if self.services.get(&name).is_some_and(|entry| entry.spec == spec) {
            return;
        }
        if another {
            // Deleted and created anew, of which we see but the end.
            self.release_all(&name);
        }
        self.ledger.appears(&name, spec.uid());
        self.note_sharing(&name, &spec);
        self.unregister(&name);
        self.register(&spec);
        match self.services.get_mut(&name) {
            Some(entry) => {
                let old = std::mem::replace(&mut entry.spec, spec);
                if another {
                    entry.telling = Telling::new();
                    // Nobody has been told anything of this one.
                    entry.status = None;
                }
                entry.telling.unread = true;
                entry.telling.moved |= old.standing != entry.spec.standing;
                if old.rank != entry.spec.rank {
                    // Claims and waits go by rank: they are made anew under the new one.
                    let (claims, waits) =
                        (std::mem::take(&mut entry.claims), std::mem::take(&mut entry.waits));
                    self.withdraw(&old.rank, &claims, &waits);
                }
            }
            None => {
                self.services.insert(name.clone(), Entry::new(spec));
            }
        }
        self.removed.remove(&name);
        self.touched.insert(name);
    }

    /// Whether a Service is another than the one that is known under its name: its UID or its class
    /// differs, which no change of one Service can do.
    fn is_another(&self, name: &ObjectName, service: &Service) -> bool {
        let uid = service.metadata.uid.as_deref().unwrap_or_default();
        let spec = service.spec.as_ref();
        let class = spec.and_then(|spec| spec.load_balancer_class.as_deref()).unwrap_or_default();
        let known = self.services.get(name).map(|entry| &entry.spec);
        let balanced = spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
        self.ledger.is_of_another(name, uid)
            || known.is_some_and(|known| {
                let uids = !known.uid().is_empty() && !uid.is_empty() && **known.uid() != *uid;
                let both = balanced && known.service_type == ServiceType::LoadBalancer;
                uids || both && known.said.class() != class
            })
    }

    fn delete_service(&mut self, name: &ObjectName) {
        self.release_all(name);
        self.unregister(name);
        let Some(entry) = self.services.remove(name) else { return };
        self.withdraw(&entry.spec.rank, &entry.claims, &entry.waits);
        self.asked.want(name, &entry.probes, &BTreeMap::new());
        self.count(entry.counted, [0; 2]);
        self.dropped.extend(entry.keys);
        self.over_limit.remove(name);
        self.removed.insert(name.clone());
    }

    /// A Service's part of the counts differs.
    pub(crate) fn count(&mut self, before: [usize; 2], now: [usize; 2]) {
        let Counts { endpoints_refused, probes_overruled, .. } = &mut self.counts;
        for (count, (before, now)) in
            [endpoints_refused, probes_overruled].into_iter().zip(before.into_iter().zip(now))
        {
            *count = (*count + now).saturating_sub(before);
        }
    }

    /// Takes claims and waits of a Service back.
    fn withdraw(&mut self, rank: &Rank, claims: &[Claim], waits: &BTreeSet<Wait>) {
        let mut change = ClaimChange::default();
        self.claims.replace((rank, claims), (rank, &[]), &mut change);
        self.note(change);
        for wait in waits {
            self.stop_waiting(wait, rank);
        }
    }

    pub(crate) fn stop_waiting(&mut self, wait: &Wait, rank: &Rank) {
        if let Some(ranks) = self.waiting.get_mut(wait) {
            ranks.remove(rank);
            if ranks.is_empty() {
                self.waiting.remove(wait);
            }
        }
    }

    /// Takes back all that a Service was given.
    fn release_all(&mut self, name: &ObjectName) {
        for held in self.ledger.addresses_of(name).to_vec() {
            self.free_address(name, held.address);
        }
        for held in self.ledger.node_ports_of(name).to_vec() {
            self.ledger.take_back_node_port(name, &held);
            self.freed_node_ports.insert(held.protocol);
        }
    }

    /// Notes what a Service writes itself and others must know of.
    fn register(&mut self, spec: &Spec) {
        let mut change = ClaimChange::default();
        for &address in &spec.cluster_ips {
            self.claims.cluster_ip(address, true, &mut change);
            if spec.wants_cluster_ips {
                self.served_cluster_ips.entry(address).or_default().insert(spec.name().clone());
            }
        }
        if spec.withheld.is_none() {
            for &address in &spec.external_ips {
                if self.settings.allows_external_ip(address) {
                    self.external_ips.entry(address).or_default().insert(spec.name().clone());
                    // Who waits for it is told whose it is now.
                    self.freed.insert(address);
                }
            }
        }
        for port in &spec.ports {
            if let Some(node_port) = port.node_port {
                let key = (port.protocol, node_port);
                self.node_ports.entry(key).or_default().insert(spec.name().clone());
            }
        }
        if spec.wants.target == Target::Node && spec.served_outside {
            self.node_targets.insert(spec.name().clone());
            if spec.wants.asks_nodes() {
                self.ask_nodes |= self.node_askers.is_empty();
                self.node_askers.insert(spec.name().clone());
            }
        }
        self.note(change);
    }

    /// Undoes `register` for what is known of the Service.
    fn unregister(&mut self, name: &ObjectName) {
        let Some(entry) = self.services.get(name) else { return };
        let mut change = ClaimChange::default();
        self.node_targets.remove(name);
        self.ask_nodes |= self.node_askers.remove(name) && self.node_askers.is_empty();
        for &address in &entry.spec.cluster_ips {
            self.claims.cluster_ip(address, false, &mut change);
            remove_from(&mut self.served_cluster_ips, &address, name);
        }
        for &address in &entry.spec.external_ips {
            remove_from(&mut self.external_ips, &address, name);
            self.freed.insert(address);
            self.ledger.rewind(&self.settings, address);
        }
        for port in &entry.spec.ports {
            if let Some(node_port) = port.node_port {
                remove_from(&mut self.node_ports, &(port.protocol, node_port), name);
                self.freed_node_ports.insert(port.protocol);
            }
        }
        self.note(change);
    }

    /// Services that a change of claims concerns are to be evaluated.
    pub(crate) fn note(&mut self, change: ClaimChange) {
        self.stale.extend(change.services);
        for address in change.guarded {
            let slices = self.slices_at.get(&address).into_iter().flatten();
            let services = slices.filter_map(|slice| self.slices.get(slice)?.service.clone());
            self.stale.extend(services);
        }
    }
}

/// Takes `name` out of the set at `key`.
pub(crate) fn remove_from<K: std::hash::Hash + Eq>(
    sets: &mut HashMap<K, BTreeSet<ObjectName>>,
    key: &K,
    name: &ObjectName,
) {
    let Some(set) = sets.get_mut(key) else { return };
    set.remove(name);
    if set.is_empty() {
        sets.remove(key);
    }
}
