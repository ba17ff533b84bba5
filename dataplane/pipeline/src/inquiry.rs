//! Questions to a worker about its connections. They change nothing.

use crate::adjacency::{Adjacency, Hop};
use crate::connections::{Address, Cold, Direction, Entry, Key, Shard};
use crate::found::{FlowFound, NextHopFound, Page};
use crate::journey::Now;
use crate::miss::{Whose, whose};
use crate::next_hops;
use crate::parse::{Addresses, Parsed};
use crate::pipeline::Pipeline;
use crate::select::Target;
use crate::snapshot::FoundFrontend;
use crate::tables::Tables;
use model::answers::ConnectionFilter;
use model::drops::DropReason;
use model::ids::{FiveTuple, Protocol, WorkerId};
use model::record::{ConnectionRecord, RECORD_VERSION};
use std::net::{IpAddr, SocketAddr};

impl Pipeline {
    /// The connections that match the filter, in as many places of the tables as the page, which
    /// comes empty, has room for. Nothing is allocated.
    pub fn page(
        &self,
        tables: &Tables,
        filter: &ConnectionFilter,
        (table, at): (u8, u32),
        now: Now,
        page: &mut Page,
    ) {
        page.next = match table {
            0 => match self.page_of(&self.v4, tables, filter, at, now, page) {
                0 => Some((1, 0)),
                next => Some((0, next)),
            },
            1 => match self.page_of(&self.v6, tables, filter, at, now, page) {
                0 => None,
                next => Some((1, next)),
            },
            _ => None,
        };
    }

    fn page_of<A: Address>(
        &self,
        shard: &Shard<A>,
        tables: &Tables,
        filter: &ConnectionFilter,
        at: u32,
        now: Now,
        page: &mut Page,
    ) -> u32 {
        let places = page.connections.capacity() - page.connections.len();
        let (entries, next) = shard.page(at, places);
        let records = entries
            .filter_map(|(entry, cold)| self.record(tables, entry, cold, now))
            .filter(|record| is_wanted(record, filter));
        page.connections.extend(records.take(places));
        next
    }

    /// The connection as it leaves the worker.
    fn record<A: Address>(
        &self,
        tables: &Tables,
        entry: &Entry<A>,
        cold: &Cold<A>,
        now: Now,
    ) -> Option<ConnectionRecord> {
        let state = entry.state()?;
        let (client, reply) = (entry.client_key(), entry.reply_key());
        let at = |ip: A, port: u16| SocketAddr::new(ip.to_ip(), port);
        Some(ConnectionRecord {
            version: RECORD_VERSION,
            protocol: Protocol::from_number(client.protocol)?,
            client: at(client.source, client.source_port),
            frontend: at(client.destination, client.destination_port),
            backend: at(reply.source, reply.source_port),
            nat: at(reply.destination, reply.destination_port),
            state,
            age_s: now.seconds().saturating_sub(cold.created_s),
            idle_ms: entry.idle_ms(now.ms),
            timeout_ms: self.context.timeouts[state as usize],
            service: tables.snapshot.service(entry.service_id(cold)).map(|s| (*s.key).clone()),
            backend_alive: tables.snapshot.backend(entry.backend_id(cold)).is_some(),
            worker: self.context.worker,
        })
    }

    /// What would become of a packet of this flow. To be asked of the flow's owner. Nothing is
    /// allocated.
    pub fn explain(&self, tables: &Tables, flow: &FiveTuple, now: Now) -> FlowFound {
        match (flow.source.ip(), flow.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let key = key(flow, source.to_bits(), destination.to_bits());
                self.explain_key(&self.v4, tables, &key, now)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let key = key(flow, source.to_bits(), destination.to_bits());
                self.explain_key(&self.v6, tables, &key, now)
            }
            _ => FlowFound::new(self.context.worker, "not_ours", Some(DropReason::NotOurs)),
        }
    }

    fn explain_key<A: Address>(
        &self,
        shard: &Shard<A>,
        tables: &Tables,
        key: &Key<A>,
        now: Now,
    ) -> FlowFound {
        let destination = key.destination.to_ip();
        let service =
            tables.snapshot.find_frontend(destination, key.protocol, key.destination_port);
        let not_ours = Some(DropReason::NotOurs);
        let mut answer = FlowFound::new(self.context.worker, "not_ours", not_ours);
        answer.service = service.map(|found| (*found.service.key).clone());
        let found = shard
            .find_key(key)
            .filter(|found| !shard.is_over(found.entry, now.ms, &self.context.timeouts));
        if let Some((found, (entry, cold))) = found.and_then(|f| Some((f, shard.whole(f.entry)?))) {
            answer.connection = self.record(tables, entry, cold, now);
            answer.service = answer.connection.as_ref().and_then(|c| c.service.clone());
            answer.selected = answer.connection.as_ref().map(|c| c.backend);
            (answer.chosen_by, answer.drop) = ("connection", None);
            answer.reset_in_s =
                (cold.reset_s != 0).then(|| cold.reset_s.saturating_sub(now.seconds()));
            let hop = match found.direction {
                Direction::ToBackend => {
                    let (interface, address) = cold.next_hop();
                    let adjacency = tables.adjacencies.find(interface, address);
                    Some(Hop { interface, address, adjacency })
                }
                Direction::ToClient => {
                    tables.adjacencies.hop(entry.client_key().source.to_ip(), None)
                }
            };
            self.explain_next_hop(tables, hop, &mut answer);
            return answer;
        }
        if let Some(found) = service {
            self.explain_new(tables, &found, key, now, &mut answer);
            return answer;
        }
        let (chosen_by, drop) = match whose(tables, destination) {
            Whose::Local(_) | Whose::LinkGroup => ("own_address", None),
            Whose::Frontend => ("frontend_address", None),
            Whose::Nat => ("nat_address", None),
            Whose::Nobody => ("not_ours", Some(DropReason::NotOurs)),
        };
        (answer.chosen_by, answer.drop) = (chosen_by, drop);
        answer
    }

    /// The backend that a new connection would get.
    fn explain_new<A: Address>(
        &self,
        tables: &Tables,
        found: &FoundFrontend<'_>,
        key: &Key<A>,
        now: Now,
        answer: &mut FlowFound,
    ) {
        if !found.admits(key.source.to_ip()) {
            answer.chosen_by = "source_ranges";
            answer.drop = Some(DropReason::SourceNotAllowed);
            return;
        }
        let picked = self.context.choosing(tables, now).pick(found.service, key);
        let Some(picked) = picked else {
            answer.chosen_by = "no_backend";
            answer.drop = Some(DropReason::NoBackend);
            return;
        };
        let Target { address, via, .. } = picked.target;
        answer.selected = Some(address);
        answer.affinity_left_s = picked.sticky_s;
        let word = if picked.sticky_s.is_some() { "affinity" } else { "maglev" };
        (answer.chosen_by, answer.drop) = (word, None);
        let hop = next_hops::to_backend(tables, address.ip(), via);
        self.explain_next_hop(tables, hop, answer);
    }

    fn explain_next_hop(&self, tables: &Tables, hop: Option<Hop>, answer: &mut FlowFound) {
        let Some(hop) = hop else {
            answer.drop = Some(DropReason::NoRoute);
            return;
        };
        let published = hop.adjacency.and_then(|id| tables.adjacencies.adjacency(id));
        let mac = published
            .map(Adjacency::destination)
            .or_else(|| self.context.learned.find(hop.interface, hop.address, None));
        answer.next_hop =
            Some(NextHopFound { interface: hop.interface, address: hop.address, mac });
        if mac.is_none() {
            answer.drop = Some(DropReason::NeighbourUnresolved);
        }
    }
}

/// The owner of a flow, for whoever has to find the worker to ask.
impl Tables {
    /// The worker that owns packets of this flow.
    pub fn owner(&self, flow: &FiveTuple) -> WorkerId {
        let addresses = match (flow.source.ip(), flow.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Addresses::V4 { source: source.to_bits(), destination: destination.to_bits() }
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Addresses::V6 { source: source.to_bits(), destination: destination.to_bits() }
            }
            _ => return WorkerId(0),
        };
        let parsed = Parsed {
            addresses,
            source_port: flow.source.port(),
            destination_port: flow.destination.port(),
            protocol: flow.protocol.number(),
            ..Parsed::EMPTY
        };
        self.steer.owner(&parsed, &[], None).unwrap_or(WorkerId(0))
    }
}

fn key<A: Address>(flow: &FiveTuple, source: A, destination: A) -> Key<A> {
    Key {
        source,
        destination,
        source_port: flow.source.port(),
        destination_port: flow.destination.port(),
        protocol: flow.protocol.number(),
    }
}

fn is_wanted(record: &ConnectionRecord, filter: &ConnectionFilter) -> bool {
    let fits = |at: SocketAddr, wanted: &Option<(IpAddr, Option<u16>)>| {
        wanted
            .as_ref()
            .is_none_or(|(ip, port)| at.ip() == *ip && port.is_none_or(|port| at.port() == port))
    };
    fits(record.client, &filter.source)
        && fits(record.frontend, &filter.destination)
        && filter.protocol.is_none_or(|protocol| record.protocol == protocol)
        && filter.state.as_ref().is_none_or(|state| record.state.name() == state)
        && filter.service.as_ref().is_none_or(|name| {
            record.service.as_ref().is_some_and(|service| service.service == *name)
        })
}
