//! From desired state to snapshot, one change at a time.

use super::frontends::Holder;
use super::slots::Slots;
use super::{Backend, BackendStamps, HeldBackend, Service, Snapshot, SourceRanges};
use crate::forwarding::Kind;
use crate::select::{Maglev, Target};
use hashbrown::HashMap;
use model::desired::{Delta, ServicePort, ServicePortKey};
use model::ids::{BackendId, Family, ServiceId};
use model::limits::{BACKENDS_MAX, BACKENDS_PER_SERVICE_MAX, SERVICE_PORTS_MAX, SOURCE_RANGES_MAX};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Why a part of the desired state is not in the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The service port.
    pub key: ServicePortKey,
    /// What is wrong, in one sentence with its remedy.
    pub what: String,
}

/// What a compilation did, for those who keep books by slot.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Slots of service ports that have a new holder: their counters start from here.
    pub services_begun: Vec<ServiceId>,
    /// Slots of backends that have a new holder.
    pub backends_begun: Vec<BackendId>,
    /// Backends that are new or differ.
    pub backends_changed: Vec<BackendId>,
    /// Frontend addresses of the service ports that changed, before and after: some may have come,
    /// others may have gone.
    pub addresses_touched: Vec<IpAddr>,
    /// What could not be compiled.
    pub problems: Vec<Problem>,
}

#[derive(Debug)]
struct Compiled {
    port: Arc<ServicePort>,
    id: ServiceId,
    backends: HashMap<SocketAddr, BackendId>,
}

/// Compiles changes of the desired state. Runs on the control side, which owns it.
#[derive(Debug)]
pub struct Compiler {
    snapshot: Snapshot,
    compiled: HashMap<ServicePortKey, Compiled>,
    service_slots: Slots,
    service_generations: Vec<u16>,
    backend_slots: Slots,
}

impl Default for Compiler {
    fn default() -> Self {
        Self::new(SERVICE_PORTS_MAX as u32, BACKENDS_MAX as u32)
    }
}

impl Compiler {
    /// A compiler of the empty state, with room for so many service ports and backends.
    pub fn new(service_ports_max: u32, backends_max: u32) -> Self {
        Self {
            snapshot: Snapshot { stamps: BackendStamps::new(backends_max), ..Snapshot::default() },
            compiled: HashMap::new(),
            service_slots: Slots::new(service_ports_max),
            service_generations: Vec::new(),
            backend_slots: Slots::new(backends_max),
        }
    }
    /// Makes the change. The snapshot shares with the one before it all that didn't change.
    pub fn apply(&mut self, delta: &Delta) -> (Arc<Snapshot>, Report) {
        let mut report = Report::default();
        for key in &delta.removed {
            self.remove(key, &mut report);
        }
        // Frontends may move between the service ports of one change: all leave before any enters.
        for port in &delta.changed {
            self.take_frontends(port, &mut report);
        }
        for port in &delta.changed {
            self.put(port, &mut report);
        }
        (Arc::new(self.snapshot.clone()), report)
    }
    /// The slot of a service port.
    pub fn service(&self, key: &ServicePortKey) -> Option<ServiceId> {
        self.compiled.get(key).map(|compiled| compiled.id)
    }
    /// The slots of a service port's backends.
    pub fn backend(&self, key: &ServicePortKey, address: SocketAddr) -> Option<BackendId> {
        self.compiled.get(key)?.backends.get(&address).copied()
    }

    fn take_frontends(&mut self, port: &ServicePort, report: &mut Report) {
        if let Some(old) = self.compiled.get(&port.key) {
            for frontend in &old.port.frontends {
                let (ip, number) = (frontend.address.ip(), frontend.address.port());
                report.addresses_touched.push(ip);
                self.snapshot.frontends.remove(ip, old.port.key.protocol, number, old.id.slot);
            }
        }
    }

    fn remove(&mut self, key: &ServicePortKey, report: &mut Report) {
        let Some(old) = self.compiled.remove(key) else { return };
        for frontend in &old.port.frontends {
            let (ip, number) = (frontend.address.ip(), frontend.address.port());
            report.addresses_touched.push(ip);
            self.snapshot.frontends.remove(ip, key.protocol, number, old.id.slot);
        }
        for id in old.backends.into_values() {
            self.free_backend(id, old.port.reset_after_s);
        }
        *self.snapshot.services.get_mut(old.id.slot as usize) = None;
        self.service_slots.free(old.id.slot);
    }

    fn free_backend(&mut self, id: BackendId, reset_after_s: Option<u32>) {
        self.set_backend(id, None, reset_after_s);
        self.backend_slots.free(id.slot);
    }

    /// The slot's record, under another number.
    fn set_backend(
        &mut self,
        id: BackendId,
        held: Option<HeldBackend>,
        reset_after_s: Option<u32>,
    ) {
        let stamp = self.snapshot.stamps.renew(id.slot);
        *self.snapshot.backends.get_mut(id.slot as usize) =
            Backend { generation: id.generation, held, reset_after_s, stamp };
    }

    fn put(&mut self, port: &Arc<ServicePort>, report: &mut Report) {
        let Some(kind) = Kind::of(port.forwarding) else {
            self.remove(&port.key, report);
            report.problem(port, format!("forwarding by {:?} isn't built yet", port.forwarding));
            return;
        };
        let old = self.compiled.remove(&port.key);
        let new = old.is_none();
        let (id, had, kept) = match old {
            Some(old) => {
                let service = self.snapshot.service(old.id);
                let kept = service.map(|service| Kept::of(service, &old, port));
                (old.id, old.backends, kept.unwrap_or_default())
            }
            None => {
                let Some(slot) = self.service_slots.take() else {
                    report.problem(port, format!("more than {SERVICE_PORTS_MAX} service ports"));
                    return;
                };
                (self.begin_service(slot), HashMap::new(), Kept::default())
            }
        };
        let backends = self.put_backends(port, id, had, report);
        let Kept { source_ranges, key: kept_key, maglev: [v4, v6] } = kept;
        let maglev = [
            v4.unwrap_or_else(|| fill(port, Family::V4, &backends)),
            v6.unwrap_or_else(|| fill(port, Family::V6, &backends)),
        ];
        for frontend in &port.frontends {
            let (ip, number) = (frontend.address.ip(), frontend.address.port());
            report.addresses_touched.push(ip);
            let holder = Holder { slot: id.slot, guarded: frontend.is_guarded() };
            if !self.snapshot.frontends.insert((ip, port.key.protocol, number), holder) {
                let what = format!("{} is another service port's frontend", frontend.address);
                report.problem(port, what);
            }
        }
        let source_ranges =
            source_ranges.unwrap_or_else(|| Arc::new(SourceRanges::new(&port.source_ranges)));
        if source_ranges.left_out() > 0 {
            let what = format!(
                "{} source ranges left out, whose clients are kept out: give fewer, wider \
                 prefixes (at most {SOURCE_RANGES_MAX} for a family)",
                source_ranges.left_out()
            );
            report.problem(port, what);
        }
        let service = Service {
            id,
            kind,
            affinity_s: port.affinity.map(|affinity| affinity.timeout_s.max(1)),
            refusal: port.refusal,
            maglev,
            reset_after_s: port.reset_after_s,
            source_ranges,
            key: kept_key.unwrap_or_else(|| Arc::new(port.key.clone())),
        };
        *self.snapshot.services.get_mut(id.slot as usize) = Some(service);
        let compiled = Compiled { port: Arc::clone(port), id, backends };
        self.compiled.insert(port.key.clone(), compiled);
        if new {
            report.services_begun.push(id);
        }
    }

    /// Gives slots to the backends of a service port, and takes those of the ones that it had and
    /// has no more.
    fn put_backends(
        &mut self,
        port: &ServicePort,
        id: ServiceId,
        mut had: HashMap<SocketAddr, BackendId>,
        report: &mut Report,
    ) -> HashMap<SocketAddr, BackendId> {
        let mut has = HashMap::with_capacity(port.backends.len());
        let mut left_out = 0usize;
        let resets_otherwise = |backend: &Backend| backend.reset_after_s != port.reset_after_s;
        for backend in &port.backends {
            if has.contains_key(&backend.address) || has.len() >= 2 * BACKENDS_PER_SERVICE_MAX {
                left_out += 1;
                continue;
            }
            let Some(backend_id) = had.remove(&backend.address).or_else(|| {
                let slot = self.backend_slots.take()?;
                let place = self.snapshot.backends.get_mut(slot as usize);
                let id = BackendId { slot, generation: next_generation(place.generation) };
                report.backends_begun.push(id);
                Some(id)
            }) else {
                left_out += 1;
                continue;
            };
            let slot = backend_id.slot as usize;
            let held = HeldBackend {
                address: backend.address,
                via: backend.via,
                state: backend.state,
                service: id,
            };
            let differs = self.snapshot.backend(backend_id) != Some(&held);
            if differs || self.snapshot.backends.get(slot).is_none_or(resets_otherwise) {
                self.set_backend(backend_id, Some(held), port.reset_after_s);
            }
            if differs {
                report.backends_changed.push(backend_id);
            }
            has.insert(backend.address, backend_id);
        }
        for gone in had.into_values() {
            self.free_backend(gone, port.reset_after_s);
        }
        if left_out > 0 {
            let what = format!(
                "{left_out} backends left out: twice the same, or more than \
                 {BACKENDS_PER_SERVICE_MAX} in the service port or {BACKENDS_MAX} in all"
            );
            report.problem(port, what);
        }
        has
    }

    fn begin_service(&mut self, slot: u32) -> ServiceId {
        let at = slot as usize;
        if self.service_generations.len() <= at {
            self.service_generations.resize(at + 1, 0);
        }
        self.service_generations[at] = next_generation(self.service_generations[at]);
        ServiceId { slot, generation: self.service_generations[at] }
    }
}

impl Report {
    fn problem(&mut self, port: &ServicePort, what: String) {
        self.problems.push(Problem { key: port.key.clone(), what });
    }
}

/// What a service port keeps because it is made of what didn't change.
#[derive(Default)]
struct Kept {
    /// Prefixes seldom change, and there may be many of them.
    source_ranges: Option<Arc<SourceRanges>>,
    key: Option<Arc<ServicePortKey>>,
    /// A large table takes milliseconds. A backend that stays keeps its id.
    maglev: [Option<Maglev>; 2],
}

impl Kept {
    fn of(service: &Service, old: &Compiled, new: &ServicePort) -> Self {
        let same = old.port.source_ranges == new.source_ranges;
        Self {
            source_ranges: same.then(|| Arc::clone(&service.source_ranges)),
            key: Some(Arc::clone(&service.key)),
            maglev: [Family::V4, Family::V6].map(|family| {
                let table = service.table(family);
                let targets = || targets(new, family, &old.backends).map(|(target, _)| target);
                // One that was left out for want of a slot may get one now.
                let whole = table.targets().len() == active(new, family).count();
                let same = whole && active(&old.port, family).eq(active(new, family));
                let to_the_letter = same && targets().eq(table.targets().iter().copied());
                match (same, to_the_letter) {
                    (_, true) => Some(table.clone()),
                    (true, false) => Some(table.with_targets(targets())),
                    (false, false) => None,
                }
            }),
        }
    }
}

/// The backends of a family that take new connections, and their weights.
fn active(port: &ServicePort, family: Family) -> impl Iterator<Item = (SocketAddr, u16)> {
    let active = port.active(family).map(|backend| (backend.address, backend.weight));
    active.take(BACKENDS_PER_SERVICE_MAX)
}

/// The same as a table has them, those that have a slot.
fn targets(
    port: &ServicePort,
    family: Family,
    ids: &HashMap<SocketAddr, BackendId>,
) -> impl Iterator<Item = (Target, u16)> {
    port.active(family).take(BACKENDS_PER_SERVICE_MAX).filter_map(|backend| {
        let id = *ids.get(&backend.address)?;
        let target = Target { id, address: backend.address, via: backend.via };
        Some((target, backend.weight))
    })
}

/// The table of a service port's active backends of a family.
fn fill(port: &ServicePort, family: Family, ids: &HashMap<SocketAddr, BackendId>) -> Maglev {
    Maglev::new(&targets(port, family, ids).collect::<Vec<_>>())
}

/// 0 is left out, so that zeroed memory never names a holder.
const fn next_generation(generation: u16) -> u16 {
    if generation == u16::MAX { 1 } else { generation + 1 }
}
