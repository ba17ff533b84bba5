//! The compiled, immutable forwarding state that workers read.
//!
//! Arrays of shared chunks: a new snapshot shares with the one before it all that didn't change,
//! so that one change among 10,000 services costs what that service costs.

mod chunks;
mod compile;
mod frontends;

use crate::select::Maglev;
use chunks::Chunks;
use frontends::Frontends;
use model::desired::{BackendState, Refusal, ServicePortKey};
use model::ids::{BackendId, Family, Protocol, ServiceId};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use compile::{Compiler, Problem, Report};

/// A service port, compiled.
#[derive(Debug)]
pub struct Service {
    /// What names it.
    pub key: ServicePortKey,
    /// Its slot.
    pub id: ServiceId,
    /// What becomes of new connections of a family while no backend of it is active.
    pub refusal: [Refusal; 2],
    /// Its backends, by family.
    pub maglev: [Maglev; 2],
}

/// A backend, compiled.
#[derive(Clone, Debug, Default)]
pub struct Backend {
    /// Counts the holders of the slot.
    pub generation: u16,
    /// `None` while the slot is free.
    pub held: Option<HeldBackend>,
}

/// A backend that a service port has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBackend {
    /// Where to send.
    pub address: SocketAddr,
    /// A next hop, where it is on a link of ours.
    pub via: Option<IpAddr>,
    /// Active or draining.
    pub state: BackendState,
    /// The service port.
    pub service: ServiceId,
}

/// How a backend stands that a connection was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It takes new connections.
    Active,
    /// It keeps its connections.
    Draining,
    /// It keeps its TCP connections; UDP flows end.
    Unserving,
    /// It has left the service port.
    Gone,
}

/// The forwarding state.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    frontends: Frontends,
    services: Chunks<Option<Arc<Service>>>,
    backends: Chunks<Backend>,
}

impl Snapshot {
    /// The service port whose frontend this is.
    #[inline]
    pub fn frontend(&self, address: IpAddr, protocol: u8, port: u16) -> Option<&Service> {
        let protocol = Protocol::from_number(protocol)?;
        let slot = self.frontends.find(address, protocol, port)?;
        self.services.get(slot as usize)?.as_deref()
    }
    /// True where some frontend has this address.
    #[inline]
    pub fn is_frontend_address(&self, address: IpAddr) -> bool {
        self.frontends.has_address(address)
    }
    /// The addresses of all frontends, in no order.
    pub fn frontend_addresses(&self) -> Vec<IpAddr> {
        self.frontends.addresses()
    }
    /// A service port, where its slot is still its own.
    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        let service = self.services.get(id.slot as usize)?.as_deref()?;
        (service.id == id).then_some(service)
    }
    /// A backend, where its slot is still its own.
    #[inline]
    pub fn backend(&self, id: BackendId) -> Option<&HeldBackend> {
        let backend = self.backends.get(id.slot as usize)?;
        backend.held.as_ref().filter(|_| backend.generation == id.generation)
    }
    /// How a backend stands.
    #[inline]
    pub fn standing(&self, id: BackendId) -> Standing {
        match self.backend(id).map(|backend| backend.state) {
            Some(BackendState::Active) => Standing::Active,
            Some(BackendState::Draining) => Standing::Draining,
            Some(BackendState::Unserving) => Standing::Unserving,
            None => Standing::Gone,
        }
    }
    /// The backends of all service ports.
    pub fn backends(&self) -> impl Iterator<Item = (BackendId, &HeldBackend)> {
        self.backends.iter().enumerate().filter_map(|(slot, backend)| {
            let id = BackendId { slot: slot as u32, generation: backend.generation };
            backend.held.as_ref().map(|held| (id, held))
        })
    }
    /// The service ports.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().filter_map(Option::as_deref)
    }
}

impl Service {
    /// The table of a family.
    #[inline]
    pub fn table(&self, family: Family) -> &Maglev {
        &self.maglev[family.index()]
    }
}
