//! The compiled, immutable forwarding state that workers read.
//!
//! Arrays of shared chunks: a new snapshot shares with the one before it all that didn't change,
//! so that one change among 10,000 services costs what that service costs.

mod chunks;
mod compile;
mod flat;
mod frontends;
mod ranges;
mod slots;
mod stamps;

use crate::forwarding::Kind;
use crate::select::Maglev;
pub(crate) use chunks::Chunks;
use frontends::Frontends;
use model::desired::{BackendState, Refusal, ServicePortKey};
use model::ids::{BackendId, Family, Protocol, ServiceId};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use compile::{Compiler, Problem, Report};
pub use ranges::SourceRanges;
pub use stamps::{BackendStamps, NEVER};

/// A service port, compiled: what a first packet of IPv4 needs lies in the first line, what one of
/// IPv6 needs besides in the second.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Service {
    /// Its slot.
    pub id: ServiceId,
    /// How its connections are forwarded.
    pub kind: Kind,
    /// Seconds for which a client without new connections keeps its backend; `None`: it doesn't.
    pub affinity_s: Option<u32>,
    /// What becomes of new connections of a family while no backend of it is active.
    pub refusal: [Refusal; 2],
    /// Its backends, by family.
    maglev: [Maglev; 2],
    /// Seconds after which a TCP client of a backend that has gone gets a RST; `None`: never.
    pub reset_after_s: Option<u32>,
    /// Clients that may use its guarded frontends.
    pub source_ranges: Arc<SourceRanges>,
    /// What names it.
    pub key: Arc<ServicePortKey>,
}

const _: () = assert!(std::mem::offset_of!(Service, maglev) + size_of::<Maglev>() <= 64);
const _: () = assert!(size_of::<Option<Service>>() == 128);

/// A frontend that was found.
#[derive(Clone, Copy, Debug)]
pub struct FoundFrontend<'a> {
    /// The service port.
    pub service: &'a Service,
    /// True where its source ranges guard this frontend.
    pub guarded: bool,
}

impl FoundFrontend<'_> {
    /// True where this client may begin connections here.
    pub fn admits(&self, client: IpAddr) -> bool {
        !self.guarded || self.service.source_ranges.admits(client)
    }
}

/// A backend, compiled.
#[derive(Clone, Debug, Default)]
pub struct Backend {
    /// Counts the holders of the slot.
    pub generation: u16,
    /// `None` while the slot is free.
    pub held: Option<HeldBackend>,
    /// What its service port says of clients that stay; its latest holder's, while it is free.
    pub reset_after_s: Option<u32>,
    /// Changes with all of the above.
    pub stamp: u32,
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
    services: Chunks<Option<Service>>,
    backends: Chunks<Backend>,
    stamps: BackendStamps,
}

impl Snapshot {
    /// The service port whose frontend this is.
    pub fn frontend(&self, address: IpAddr, protocol: u8, port: u16) -> Option<&Service> {
        self.find_frontend(address, protocol, port).map(|found| found.service)
    }
    /// The same, and whether source ranges guard it.
    #[inline]
    pub fn find_frontend(
        &self,
        address: IpAddr,
        protocol: u8,
        port: u16,
    ) -> Option<FoundFrontend<'_>> {
        let protocol = Protocol::from_number(protocol)?;
        let holder = self.frontends.find(address, protocol, port)?;
        let service = self.services.get(holder.slot as usize)?.as_ref()?;
        Some(FoundFrontend { service, guarded: holder.guarded })
    }
    /// Asks for what [`Self::find_frontend`] reads of the frontends before it is needed.
    #[inline]
    pub fn prefetch_frontend(&self, address: IpAddr, protocol: u8, port: u16) {
        if let Some(protocol) = Protocol::from_number(protocol) {
            self.frontends.prefetch(address, protocol, port);
        }
    }
    /// Asks for the lines of the service port of a frontend, whose own lines have come; where it is
    /// and what is in it, unread.
    #[inline]
    pub fn prefetch_service(
        &self,
        address: IpAddr,
        protocol: u8,
        port: u16,
    ) -> Option<&Option<Service>> {
        let holder = self.frontends.find(address, Protocol::from_number(protocol)?, port)?;
        let place = self.services.get(holder.slot as usize)?;
        crate::arch::prefetch_all(place);
        Some(place)
    }
    /// Asks for what says how the backend in a slot stands.
    #[inline]
    pub fn prefetch_backend(&self, slot: u32) {
        if let Some(backend) = self.backends.get(slot as usize) {
            crate::arch::prefetch(&backend.stamp);
        }
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
        let service = self.services.get(id.slot as usize)?.as_ref()?;
        (service.id == id).then_some(service)
    }
    /// A backend, where its slot is still its own.
    #[inline]
    pub fn backend(&self, id: BackendId) -> Option<&HeldBackend> {
        let backend = self.backends.get(id.slot as usize)?;
        backend.held.as_ref().filter(|_| backend.generation == id.generation)
    }
    /// The number that an entry takes which was validated by this snapshot's record of its backend.
    #[inline]
    pub fn backend_stamp_of(&self, slot: u32) -> u32 {
        self.backends.get(slot as usize).map_or(0, |backend| backend.stamp)
    }
    /// The numbers that packets compare their entry's with, as they are now.
    #[inline(always)]
    pub const fn stamps(&self) -> &BackendStamps {
        &self.stamps
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
    /// Seconds after which TCP clients of a backend that has gone get a RST: as its service port
    /// says or, where that has gone too, as it said in the end.
    pub fn reset_after_s(&self, backend: BackendId, service: ServiceId) -> Option<u32> {
        if let Some(service) = self.service(service) {
            return service.reset_after_s;
        }
        let slot = self.backends.get(backend.slot as usize)?;
        let left = slot.held.is_none() && slot.generation == backend.generation;
        slot.reset_after_s.filter(|_| left)
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
        self.services.iter().filter_map(Option::as_ref)
    }
}

impl Service {
    /// The table of a family.
    #[inline]
    pub fn table(&self, family: Family) -> &Maglev {
        &self.maglev[family.index()]
    }
}
