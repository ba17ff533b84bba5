//! What the engine can be asked: counters summed over workers, rows for `show`, inquiries.

use crate::engine::Engine;
use crate::load::{Pass, PassCounters};
use crate::mailbox::NoAnswer;
use crate::mirror::Mirror;
use dpdk::cycles_hz;
use model::answers::{
    AffinityCounts, BudgetRow, ConflictRow, ConnectionFilter, Connections, DropRow, FlowAnswer,
    Ledger, LinkRow, Links, NeighbourRow, PassRow, PortRow, Traffic, WorkerRow, Workers,
};
use model::drops::DropReason;
use model::ids::{BackendId, FiveTuple, InterfaceId, ServiceId, WorkerId};
use pipeline::adjacency::{Adjacencies, AdjacencyInput, Interface};
use pipeline::answer::Class;
use pipeline::counters::{BackendCounters, ServiceCounters};
use pipeline::snapshot::Snapshot;
use pipeline::tables::Tables;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// A backend's counters, summed over the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendTraffic {
    /// Connections begun.
    pub connections: u64,
    /// Packets towards it.
    pub packets_in: u64,
    /// Packets from it.
    pub packets_out: u64,
}

impl Engine {
    /// The answer of `show workers`.
    pub fn workers(&self) -> Workers {
        let ns = self.ns_per_cycle();
        let rows = self.workers.iter().enumerate().map(|(number, worker)| {
            let (id, load) = (WorkerId(number as u8), &worker.counters.load);
            WorkerRow {
                worker: id,
                core: worker.core,
                generation: self.publisher.generation_of(id),
                busy_ratio: worker.counters.load.busy_ratio(),
                ns_per_packet: worker.counters.load.packet_cycles() * ns,
                busy_and_idle_s: [&load.busy_cycles, &load.idle_cycles]
                    .map(|cycles| cycles.read() as f64 * ns / 1e9),
                passes: Vec::new(),
                mean_burst: worker.counters.load.mean_burst(),
                loops: worker.counters.load.loops.read(),
                connections: [0, 1].map(|family| worker.pipeline.connections[family].read()),
                connections_max: worker.capacity.map(|capacity| capacity as u64),
                inserts: worker.pipeline.inserts.read(),
                half_open_evicted: worker.pipeline.half_open_evicted.read(),
                affinity: AffinityCounts {
                    hits: worker.pipeline.affinity_hits.read(),
                    begun: worker.pipeline.affinity_begun.read(),
                    full: worker.pipeline.affinity_full.read(),
                },
                resets: worker.pipeline.resets.read(),
                reset_probes: worker.pipeline.reset_probes.read(),
                ledger: worker.counters.ledger.read(),
            }
        });
        Workers {
            generation: self.publisher.generation(),
            generation_everywhere: self.publisher.generation_everywhere(),
            affinity_clients: [self.affinity.len(), self.affinity.capacity() as u64],
            workers: rows.collect(),
            mirror: self.mirror.as_ref().map(|mirror| mirror.ledger()).unwrap_or_default(),
        }
    }
    fn ns_per_cycle(&self) -> f64 {
        1e9 / cycles_hz(&self.eal).max(1) as f64
    }
    /// The same after so long a time, for which the passes of all workers are measured. Blocks.
    pub fn workers_measured(&self, time: Duration) -> Workers {
        let until_ms = (self.started.elapsed() + time).as_millis() as u64;
        let readings = || self.workers.iter().map(|worker| reading(&worker.counters.passes));
        let before: Vec<_> = readings().collect();
        for worker in &self.workers {
            worker.counters.passes.measure_until(until_ms);
        }
        std::thread::sleep(time);
        let mut answer = self.workers();
        for (row, (before, after)) in answer.workers.iter_mut().zip(before.iter().zip(readings())) {
            row.passes = passes(before, &after, self.ns_per_cycle());
        }
        answer
    }
    /// The answer of `show budgets`: every purpose on every interface.
    pub fn budgets(&self) -> Vec<BudgetRow> {
        let adjacencies = self.adjacencies();
        let interfaces = adjacencies.interfaces().iter().enumerate();
        let row = |id: InterfaceId, name: &str, class: Class| {
            let counts = || self.workers.iter().filter_map(|w| w.pipeline.budget(class, id));
            let rate = self.rates.of(class);
            BudgetRow {
                interface: name.to_owned(),
                purpose: class.label().to_owned(),
                meaning: class.meaning().to_owned(),
                rate: [rate.per_second, rate.burst],
                taken: counts().map(|counts| counts.taken.read()).sum(),
                refused: counts().map(|counts| counts.refused.read()).sum(),
            }
        };
        let of = |(id, interface): (usize, &Interface)| {
            let classes = Class::ALL.iter();
            classes.map(|class| row(InterfaceId(id as u8), &interface.name, *class)).collect()
        };
        interfaces.flat_map::<Vec<_>, _>(of).collect()
    }
    /// All workers' ledgers summed.
    pub fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        for worker in &self.workers {
            sum.add(&worker.counters.ledger.read());
        }
        sum
    }
    /// The latest generation, and the one that every worker runs with.
    pub fn generations(&self) -> [u64; 2] {
        [self.publisher.generation(), self.publisher.generation_everywhere()]
    }
    /// The answer of `show ports`.
    pub fn ports(&self) -> Vec<PortRow> {
        self.ports.iter().map(|port| port.row()).collect()
    }
    /// The answer of `show drops`: every reason, seen or not.
    pub fn drops(&self) -> Vec<DropRow> {
        let row = |reason: &DropReason| {
            let by_worker: Vec<u64> =
                self.workers.iter().map(|w| w.pipeline.dropped(*reason).read()).collect();
            DropRow { reason: *reason, packets: by_worker.iter().sum(), by_worker }
        };
        DropReason::ALL.iter().map(row).collect()
    }
    /// The answer of `show neighbours`: next hops of backends, then of routes, then all others.
    pub fn neighbours(&self) -> Vec<NeighbourRow> {
        let Some(mirror) = &self.mirror else { return Vec::new() };
        let adjacencies = self.adjacencies();
        let behind = self.backends_behind();
        let routers: HashSet<_> = adjacencies.routers().collect();
        let row = |neighbour: &crate::mirror::KernelNeighbour| {
            let hop = (neighbour.interface, neighbour.address);
            let backends = behind.get(&hop).copied().unwrap_or(0);
            let kind = match backends {
                0 if routers.contains(&hop) => "router",
                0 => "client",
                _ => "backend",
            };
            let interface = adjacencies.interface(neighbour.interface);
            NeighbourRow {
                interface: interface.map_or_else(String::new, |of| of.name.to_string()),
                address: neighbour.address,
                mac: neighbour.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                state: neighbour.state.to_owned(),
                kind: kind.to_owned(),
                backends,
            }
        };
        let mut rows: Vec<_> = mirror.neighbours().iter().map(row).collect();
        let rank = |kind: &str| ["backend", "router"].iter().position(|first| *first == kind);
        rows.sort_by_key(|row| rank(&row.kind).unwrap_or(usize::MAX));
        rows
    }
    /// Interfaces of which the port has no link, or the host's twin is down, and the groups that
    /// we are in.
    pub fn links(&self) -> Links {
        let report = self.links.as_ref().map(crate::links::Links::report).unwrap_or_default();
        let adjacencies = self.adjacencies();
        let row = |(number, interface): (usize, &Interface)| {
            let name = self.ports.get(interface.port.index()).map_or("", |port| port.name());
            let id = InterfaceId(number as u8);
            LinkRow {
                interface: interface.name.to_string(),
                port: name.to_owned(),
                is_front: interface.role.is_front(),
                // Not looked at yet, or nobody looks.
                up: report.ports.iter().all(|port| &*port.port != name || port.up),
                twin_up: !self.mirror.as_ref().is_some_and(|mirror| mirror.is_twin_down(id)),
            }
        };
        Links {
            interfaces: adjacencies.interfaces().iter().enumerate().map(row).collect(),
            groups: report.groups as u64,
            problems: report.problems,
        }
    }
    /// Addresses of ours that other stations use.
    pub fn conflicts(&self) -> Vec<ConflictRow> {
        let Some(mirror) = &self.mirror else { return Vec::new() };
        let adjacencies = self.adjacencies();
        let row = |conflict: &crate::mirror::Conflict| ConflictRow {
            interface: adjacencies
                .interface(conflict.place.0)
                .map_or_else(String::new, |interface| interface.name.to_string()),
            address: conflict.place.1,
            mac: conflict.mac.to_string(),
            is_gateway: conflict.is_gateway,
            since_s: conflict.since_s,
            claims: conflict.claims,
            defences: u64::from(conflict.defences),
        };
        mirror.conflicts().iter().map(row).collect()
    }
    /// What could not be had at start and isn't essential.
    pub fn notes(&self) -> Vec<String> {
        self.mirror.as_ref().map_or_else(Vec::new, Mirror::notes)
    }
    /// Packet buffers: free, in all.
    pub fn mbufs(&self) -> (u32, u32) {
        (self.pool.available(), self.pool.size())
    }
    /// DPDK's drivers of the ports, each once.
    pub fn drivers(&self) -> Vec<String> {
        let mut drivers: Vec<String> =
            self.ports.iter().map(|port| port.driver().to_owned()).collect();
        drivers.dedup();
        drivers
    }
    /// The published tables.
    pub fn tables(&self) -> Arc<Tables> {
        self.publisher.latest()
    }
    /// The published snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.publisher.latest().snapshot)
    }
    /// The published adjacencies.
    pub fn adjacencies(&self) -> Arc<Adjacencies> {
        Arc::clone(&self.publisher.latest().adjacencies)
    }
    /// Publishes adjacencies, where there is no mirror that does.
    pub fn publish_adjacencies(&self, input: AdjacencyInput) -> u64 {
        self.publisher.update(|tables| {
            tables.adjacencies = Arc::new(tables.adjacencies.next(input));
        })
    }
    /// Traffic of the slot of a service port since the start of the process, all holders together.
    pub fn service_traffic(&self, id: ServiceId) -> Traffic {
        let mut sum = Traffic::default();
        let counters =
            self.workers.iter().filter_map(|w| w.pipeline.services.get(id.slot as usize));
        for ServiceCounters {
            connections,
            packets_in,
            bytes_in,
            packets_out,
            bytes_out,
            refused,
        } in counters
        {
            sum.connections += connections.read();
            sum.packets_in += packets_in.read();
            sum.bytes_in += bytes_in.read();
            sum.packets_out += packets_out.read();
            sum.bytes_out += bytes_out.read();
            sum.refused += refused.read();
        }
        sum
    }
    /// The same of the slot of a backend.
    pub fn backend_traffic(&self, id: BackendId) -> BackendTraffic {
        let mut sum = BackendTraffic::default();
        let counters =
            self.workers.iter().filter_map(|w| w.pipeline.backends.get(id.slot as usize));
        for BackendCounters { connections, packets_in, packets_out } in counters {
            sum.connections += connections.read();
            sum.packets_in += packets_in.read();
            sum.packets_out += packets_out.read();
        }
        sum
    }
    /// Connections in all tables.
    pub fn connection_count(&self) -> u64 {
        let of = |w: &crate::engine::WorkerHandle| {
            w.pipeline.connections.iter().map(|gauge| gauge.read()).sum::<u64>()
        };
        self.workers.iter().map(of).sum()
    }
    /// Connections that match, up to the filter's limit. Blocks while workers answer.
    pub fn connections(&self, filter: &ConnectionFilter) -> Result<Connections, NoAnswer> {
        let mut found = Connections { connections: Vec::new(), more: false };
        for worker in &self.workers {
            let mut from = Some((0, 0));
            while let Some(place) = from {
                let page = worker.mailbox.page(filter, place)?;
                found.connections.extend(page.connections);
                if found.connections.len() > filter.limit {
                    found.connections.truncate(filter.limit);
                    found.more = true;
                    return Ok(found);
                }
                from = page.next;
            }
        }
        Ok(found)
    }
    /// What would become of a packet of this flow. Blocks while its owner answers.
    pub fn explain(&self, flow: FiveTuple) -> Result<FlowAnswer, NoAnswer> {
        let tables = self.publisher.latest();
        let owner = tables.owner(&flow);
        match self.workers.get(owner.index()) {
            Some(worker) => worker.mailbox.explain(flow, &tables),
            None => Err(NoAnswer(owner)),
        }
    }
}

/// Packets, and cycles by pass.
type Reading = (u64, [u64; Pass::ALL.len()]);

fn reading(counters: &PassCounters) -> Reading {
    (counters.packets.read(), Pass::ALL.map(|(pass, _)| counters.cycles(pass)))
}

/// What the passes took between two readings; nothing where no packet came.
fn passes(before: &Reading, after: &Reading, ns_per_cycle: f64) -> Vec<PassRow> {
    let packets = after.0.saturating_sub(before.0);
    if packets == 0 {
        return Vec::new();
    }
    let cycles = |pass: Pass| after.1[pass as usize].saturating_sub(before.1[pass as usize]) as f64;
    let all = Pass::ALL.iter().map(|(pass, _)| cycles(*pass)).sum::<f64>().max(1.);
    let row = |(pass, word): (Pass, &str)| PassRow {
        pass: word.to_owned(),
        ns_per_packet: cycles(pass) * ns_per_cycle / packets as f64,
        share: cycles(pass) / all,
    };
    Pass::ALL.map(row).to_vec()
}
