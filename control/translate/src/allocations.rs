//! Who has which LoadBalancer address and nodePort.
//!
//! [`Allocations`] is what outlives the process. The ledger around it finds what is free: the
//! lowest free address of a pool, and the free nodePort nearest to a hash of the service port's
//! name, so that the same objects get the same values wherever they are read first.

use crate::settings::{Authority, NodePortSettings, Settings};
use model::desired::ObjectName;
use model::ids::{Family, Protocol};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Services that are gone and whose values are kept for their return, which happens where a file
/// couldn't be read at start. What they hold is given out only when nothing else is free.
const ABSENT_KEPT: usize = 1_024;

/// An address and the pool that it was taken from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AllocatedAddress {
    /// The address.
    pub address: IpAddr,
    /// Name of the pool, which may be gone from the configuration.
    pub pool: Arc<str>,
}

/// A nodePort that the Service didn't give itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AllocatedNodePort {
    /// The port's name in the Service, empty where it has none.
    pub port_name: Arc<str>,
    /// The port's protocol.
    pub protocol: Protocol,
    /// The nodePort.
    pub node_port: u16,
}

/// What one Service has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAllocation {
    /// The Service.
    pub service: ObjectName,
    /// Its UID; empty where the source has none. A Service of another UID is another Service.
    pub uid: Arc<str>,
    /// LoadBalancer addresses, one of each family at most.
    #[serde(default)]
    pub addresses: Vec<AllocatedAddress>,
    /// Allocated nodePorts.
    #[serde(default)]
    pub node_ports: Vec<AllocatedNodePort>,
}

/// What all Services have. To be stored whenever a build says that it changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<ServiceAllocation>", into = "Vec<ServiceAllocation>")]
pub struct Allocations {
    services: BTreeMap<ObjectName, ServiceAllocation>,
}

impl From<Vec<ServiceAllocation>> for Allocations {
    fn from(list: Vec<ServiceAllocation>) -> Self {
        Self { services: list.into_iter().map(|one| (one.service.clone(), one)).collect() }
    }
}

impl From<Allocations> for Vec<ServiceAllocation> {
    fn from(allocations: Allocations) -> Self {
        allocations.services.into_values().collect()
    }
}

impl Allocations {
    /// What the Service has.
    pub fn get(&self, service: &ObjectName) -> Option<&ServiceAllocation> {
        self.services.get(service)
    }
    /// What each Service has, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &ServiceAllocation> {
        self.services.values()
    }
    /// How many Services have something.
    pub fn len(&self) -> usize {
        self.services.len()
    }
    /// Whether no Service has anything.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }
}

/// The allocations with all that is needed to change them at the cost of the change.
#[derive(Debug)]
pub(crate) struct Ledger {
    allocations: Allocations,
    /// Several where they share it.
    addresses: HashMap<IpAddr, BTreeSet<ObjectName>>,
    node_ports: HashMap<(Protocol, u16), ObjectName>,
    /// Services that have something and aren't there.
    absent: BTreeSet<ObjectName>,
    /// For each pool and family: no address before this position is free.
    cursors: Vec<[u128; 2]>,
    changed: bool,
}

impl Ledger {
    /// Takes over what was stored. Where two Services have one nodePort, which a sound file never
    /// says, the first by name keeps it; whether those that have one address share it is for the
    /// Services to say.
    pub(crate) fn new(stored: Allocations, pools: usize) -> Self {
        let mut ledger = Self {
            allocations: Allocations::default(),
            addresses: HashMap::new(),
            node_ports: HashMap::new(),
            absent: BTreeSet::new(),
            cursors: vec![[0; 2]; pools],
            changed: false,
        };
        for mut one in stored.services.into_values() {
            for held in &one.addresses {
                ledger.addresses.entry(held.address).or_default().insert(one.service.clone());
            }
            one.node_ports.retain(|held| ledger.enter_node_port(held, &one.service));
            ledger.absent.insert(one.service.clone());
            ledger.allocations.services.insert(one.service.clone(), one);
        }
        ledger
    }

    fn enter_node_port(&mut self, held: &AllocatedNodePort, service: &ObjectName) -> bool {
        let key = (held.protocol, held.node_port);
        let free = !self.node_ports.contains_key(&key);
        if free {
            self.node_ports.insert(key, service.clone());
        }
        free
    }

    pub(crate) const fn allocations(&self) -> &Allocations {
        &self.allocations
    }

    /// Whether anything changed since the last call.
    pub(crate) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// The Service is there: what it had under this UID it has again.
    pub(crate) fn appears(&mut self, service: &ObjectName, uid: &Arc<str>) {
        self.absent.remove(service);
        if let Some(held) = self.allocations.services.get_mut(service)
            && held.uid.is_empty()
            && !uid.is_empty()
        {
            held.uid = uid.clone();
            self.changed = true;
        }
    }

    /// Whether what is stored under the name belongs to a Service of another UID.
    pub(crate) fn is_of_another(&self, service: &ObjectName, uid: &str) -> bool {
        let held = self.allocations.services.get(service);
        held.is_some_and(|held| !held.uid.is_empty() && !uid.is_empty() && *held.uid != *uid)
    }

    /// Who has `address`, of those Services that are there, in the order of their names.
    pub(crate) fn holders(&self, address: IpAddr) -> impl Iterator<Item = &ObjectName> {
        let holders = self.addresses.get(&address).into_iter().flatten();
        holders.filter(|holder| !self.absent.contains(*holder))
    }

    /// Whether the Service has `address`.
    pub(crate) fn holds(&self, service: &ObjectName, address: IpAddr) -> bool {
        self.addresses.get(&address).is_some_and(|holders| holders.contains(service))
    }

    /// How many addresses somebody has of each family of a pool.
    pub(crate) fn used(&self, settings: &Settings) -> Vec<[u64; 2]> {
        let mut used = vec![[0; 2]; settings.pools().len()];
        for (&address, holders) in &self.addresses {
            let pool = settings.pool_of(address).and_then(|pool| used.get_mut(pool));
            if let Some(count) = pool.filter(|_| !holders.is_empty()) {
                count[Family::of(address).index()] += 1;
            }
        }
        used
    }

    pub(crate) fn addresses_of(&self, service: &ObjectName) -> &[AllocatedAddress] {
        self.allocations.services.get(service).map_or(&[], |held| &held.addresses)
    }

    pub(crate) fn node_ports_of(&self, service: &ObjectName) -> &[AllocatedNodePort] {
        self.allocations.services.get(service).map_or(&[], |held| &held.node_ports)
    }

    /// The allocated nodePort of one service port.
    pub(crate) fn node_port_of(
        &self,
        service: &ObjectName,
        port_name: &str,
        protocol: Protocol,
    ) -> Option<u16> {
        let mut held = self.node_ports_of(service).iter();
        held.find(|one| *one.port_name == *port_name && one.protocol == protocol)
            .map(|one| one.node_port)
    }

    /// The service of an allocated nodePort.
    pub(crate) fn node_port_owner(&self, protocol: Protocol, port: u16) -> Option<&ObjectName> {
        self.node_ports.get(&(protocol, port)).filter(|owner| !self.absent.contains(*owner))
    }

    fn entry(&mut self, service: &ObjectName, uid: &Arc<str>) -> &mut ServiceAllocation {
        self.changed = true;
        self.allocations.services.entry(service.clone()).or_insert_with(|| ServiceAllocation {
            service: service.clone(),
            uid: uid.clone(),
            addresses: Vec::new(),
            node_ports: Vec::new(),
        })
    }

    fn forget_if_empty(&mut self, service: &ObjectName) {
        let held = self.allocations.services.get(service);
        if held.is_some_and(|held| held.addresses.is_empty() && held.node_ports.is_empty()) {
            self.allocations.services.remove(service);
            self.absent.remove(service);
        }
    }

    /// Gives an address that is free, shared, or held by absent Services, which lose it.
    pub(crate) fn give(
        &mut self,
        service: &ObjectName,
        uid: &Arc<str>,
        address: IpAddr,
        pool: Arc<str>,
    ) {
        let holders = self.addresses.get(&address).into_iter().flatten();
        let absent = holders.filter(|holder| self.absent.contains(*holder)).cloned();
        for absent in absent.collect::<Vec<_>>() {
            self.take_back(&absent, address);
        }
        self.addresses.entry(address).or_default().insert(service.clone());
        let held = &mut self.entry(service, uid).addresses;
        held.push(AllocatedAddress { address, pool });
        held.sort();
    }

    /// Takes an address from a Service.
    pub(crate) fn take_back(&mut self, service: &ObjectName, address: IpAddr) {
        if let Some(held) = self.allocations.services.get_mut(service) {
            held.addresses.retain(|one| one.address != address);
            self.changed = true;
        }
        if let Some(holders) = self.addresses.get_mut(&address) {
            holders.remove(service);
            if holders.is_empty() {
                self.addresses.remove(&address);
            }
        }
        self.forget_if_empty(service);
    }

    /// Takes an allocated nodePort from a Service.
    pub(crate) fn take_back_node_port(&mut self, service: &ObjectName, port: &AllocatedNodePort) {
        if let Some(held) = self.allocations.services.get_mut(service) {
            held.node_ports.retain(|one| one != port);
            self.changed = true;
        }
        self.node_ports.remove(&(port.protocol, port.node_port));
        self.forget_if_empty(service);
    }

    /// An address of a pool can be had again from here on.
    pub(crate) fn rewind(&mut self, settings: &Settings, address: IpAddr) {
        let Some(pool) = settings.pool_of(address) else { return };
        let position = settings.pools().get(pool).and_then(|pool| pool.position(address));
        let cursor = self.cursors.get_mut(pool).map(|both| &mut both[Family::of(address).index()]);
        if let (Some(cursor), Some(position)) = (cursor, position) {
            *cursor = position.min(*cursor);
        }
    }

    /// The lowest free address of a pool that isn't `barred`; where there is none, the lowest that
    /// an absent Service holds.
    pub(crate) fn find_address(
        &mut self,
        settings: &Settings,
        pool: usize,
        family: Family,
        barred: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let ranges = settings.pools().get(pool)?;
        let cursor = &mut self.cursors.get_mut(pool)?[family.index()];
        while let Some(address) = ranges.get(family, *cursor) {
            if !self.addresses.contains_key(&address) && !barred(address) {
                return Some(address);
            }
            *cursor += 1;
        }
        let held = self.absent.iter().flat_map(|service| self.addresses_of(service));
        let held = held.map(|one| one.address).filter(|&address| Family::of(address) == family);
        held.filter(|&address| ranges.contains(address) && !barred(address)).min()
    }

    /// Gives a free nodePort, if there is one. As in Kubernetes the lower part of the range, where
    /// people choose their own, comes last.
    pub(crate) fn give_node_port(
        &mut self,
        service: &ObjectName,
        uid: &Arc<str>,
        (port_name, protocol): (&Arc<str>, Protocol),
        settings: &NodePortSettings,
        barred: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let free = |port: &u16| {
            self.node_port_owner(protocol, *port).is_none()
                && !self.node_ports.contains_key(&(protocol, *port))
                && !barred(*port)
        };
        let node_port =
            candidates(settings, service, port_name, protocol).find(free).or_else(|| {
                let absent = self.absent.iter().flat_map(|service| self.node_ports_of(service));
                let in_range = |port: &u16| (settings.first..=settings.last).contains(port);
                let absent = absent.filter(|one| one.protocol == protocol).map(|one| one.node_port);
                absent.filter(|port| in_range(port) && !barred(*port)).min()
            })?;
        self.oust_absent(protocol, node_port);
        self.node_ports.insert((protocol, node_port), service.clone());
        let held = &mut self.entry(service, uid).node_ports;
        held.push(AllocatedNodePort { port_name: port_name.clone(), protocol, node_port });
        held.sort();
        Some(node_port)
    }

    fn oust_absent(&mut self, protocol: Protocol, node_port: u16) {
        let Some(absent) = self.node_ports.get(&(protocol, node_port)).cloned() else { return };
        let held = self.node_ports_of(&absent).iter();
        let held = held.filter(|one| one.protocol == protocol && one.node_port == node_port);
        for one in held.cloned().collect::<Vec<_>>() {
            self.take_back_node_port(&absent, &one);
        }
    }

    /// Forgets absent Services beyond those that are kept, of which there are none where an API
    /// server says what is there.
    pub(crate) fn forget_absent(&mut self, settings: &Settings) {
        let kept = if settings.authority() == Authority::Local { ABSENT_KEPT } else { 0 };
        for service in self.absent.iter().skip(kept).cloned().collect::<Vec<_>>() {
            for held in self.addresses_of(&service).to_vec() {
                self.take_back(&service, held.address);
                self.rewind(settings, held.address);
            }
            for held in self.node_ports_of(&service).to_vec() {
                self.take_back_node_port(&service, &held);
            }
        }
    }
}

/// All nodePorts in the order in which they are tried.
fn candidates(
    settings: &NodePortSettings,
    service: &ObjectName,
    port_name: &str,
    protocol: Protocol,
) -> impl Iterator<Item = u16> + use<> {
    let first = u32::from(settings.first);
    let size = u32::from(settings.last) - first + 1;
    // The rule of Kubernetes for the size of the lower part: min(max(16, size / 32), 128).
    let lower = if size < 32 { 0 } else { (size / 32).clamp(16, 128) };
    let upper = size - lower;
    let name = [&*service.namespace, &*service.name, port_name, protocol.name()];
    let start = u32::try_from(fnv(&name) % u64::from(upper)).unwrap_or_default();
    let above = (0..upper).map(move |step| lower + (start + step) % upper);
    let all = above.chain((0..lower).rev()).map(move |offset| first + offset);
    all.filter_map(|port| u16::try_from(port).ok())
}

/// FNV-1a over the parts, each ended by a byte that no name has.
pub(crate) fn fnv(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
