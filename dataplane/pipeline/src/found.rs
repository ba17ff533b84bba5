//! What a worker finds when it is asked, in memory that the asker brought: a worker doesn't allocate.
//! The asker makes words of it.

use crate::adjacency::Mac;
use crate::tables::Tables;
use model::answers::FlowAnswer;
use model::desired::ServicePortKey;
use model::drops::DropReason;
use model::ids::{InterfaceId, WorkerId};
use model::record::ConnectionRecord;
use std::net::{IpAddr, SocketAddr};

/// A page of connections, and where the next begins.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Those that match. There is room for as many as places are looked at.
    pub connections: Vec<ConnectionRecord>,
    /// Where to go on, as (table, place); `None` at the end.
    pub next: Option<(u8, u32)>,
}

impl Page {
    /// An empty page, for so many places of a table.
    pub fn of(places: usize) -> Self {
        Self { connections: Vec::with_capacity(places), next: None }
    }
}

/// What would become of a packet of a flow: [`FlowAnswer`] before it has words of its own.
#[derive(Clone, Debug)]
pub struct FlowFound {
    /// The worker that owns the flow.
    pub owner: WorkerId,
    /// The service port whose frontend the destination is.
    pub service: Option<ServicePortKey>,
    /// The connection, where there is one.
    pub connection: Option<ConnectionRecord>,
    /// The backend that a new connection would get.
    pub selected: Option<SocketAddr>,
    /// One word for how it was chosen.
    pub chosen_by: &'static str,
    /// Next hop of the packet.
    pub next_hop: Option<NextHopFound>,
    /// Seconds for which session affinity still keeps the client's backend.
    pub affinity_left_s: Option<u32>,
    /// Seconds until the client gets a RST.
    pub reset_in_s: Option<u32>,
    /// The reason for which it would be dropped.
    pub drop: Option<DropReason>,
}

/// A next hop, and its MAC where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHopFound {
    /// The interface.
    pub interface: InterfaceId,
    /// The next hop's address.
    pub address: IpAddr,
    /// Its MAC.
    pub mac: Option<Mac>,
}

impl NextHopFound {
    fn text(&self, tables: &Tables) -> String {
        let name = tables.adjacencies.interface(self.interface).map_or("?", |i| &*i.name);
        match self.mac {
            Some(mac) => format!("{} at {mac} on {name}", self.address),
            None => format!("{} unresolved on {name}", self.address),
        }
    }
}

impl FlowFound {
    /// Nothing found yet.
    pub const fn new(owner: WorkerId, chosen_by: &'static str, drop: Option<DropReason>) -> Self {
        Self {
            owner,
            service: None,
            connection: None,
            selected: None,
            chosen_by,
            next_hop: None,
            affinity_left_s: None,
            reset_in_s: None,
            drop,
        }
    }
    /// In words, with the names of these tables.
    pub fn answer(self, tables: &Tables) -> FlowAnswer {
        FlowAnswer {
            owner: self.owner,
            service: self.service,
            connection: self.connection,
            selected: self.selected,
            chosen_by: self.chosen_by.to_owned(),
            way: self.next_hop.map(|hop| hop.text(tables)),
            affinity_left_s: self.affinity_left_s,
            reset_in_s: self.reset_in_s,
            drop: self.drop,
        }
    }
}
