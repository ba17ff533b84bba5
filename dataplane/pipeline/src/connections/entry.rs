//! One connection: a cache line for IPv4, two for IPv6.

use super::index::Direction;
use super::key::{Address, Key};
use crate::adjacency::AdjacencyRef;
use crate::arch::memory::Plain;
use crate::rewrite::checksum;
use model::ids::{AdjacencyId, BackendId, ServiceId};
use model::record::ConnectionState;

/// No adjacency: the next hop's MAC is not in the published table.
pub const NO_ADJACENCY: u16 = u16::MAX;

/// A connection. Holds ids and integers alone, so that the memory means the same to whoever reads
/// it with the same layout version.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Entry<A> {
    /// The client's address.
    pub client: A,
    /// What the client sends to.
    pub frontend: A,
    /// Where it is forwarded to.
    pub backend: A,
    /// The source that the backend sees.
    pub nat: A,
    /// The client's port.
    pub client_port: u16,
    /// The frontend's port.
    pub frontend_port: u16,
    /// The backend's port.
    pub backend_port: u16,
    /// The source port that the backend sees.
    pub nat_port: u16,
    /// What the rewrite towards the backend adds to the sum of the addresses; the way back adds
    /// the complement.
    pub address_difference: u16,
    /// The same for addresses and ports together.
    pub difference: u16,
    /// Time of the latest packet: the lower 32 bits of the worker's milliseconds. In a free entry
    /// the next free one.
    pub last_seen_ms: u32,
    /// Time of the first packet, in the worker's seconds.
    pub created_s: u32,
    /// The generation of the tables that it was validated under.
    pub stamp: u32,
    /// Slot of the backend.
    pub backend_slot: u32,
    /// Slot of the service port.
    pub service_slot: u32,
    /// Generation of the backend's slot.
    pub backend_generation: u16,
    /// Generation of the service port's slot.
    pub service_generation: u16,
    /// Adjacency towards the client, or [`NO_ADJACENCY`].
    pub client_adjacency: u16,
    /// Adjacency towards the backend, or [`NO_ADJACENCY`].
    pub backend_adjacency: u16,
    /// Protocol number.
    pub protocol: u8,
    /// [`ConnectionState`] as a number; 0 in a free entry.
    pub state: u8,
    /// Which sides have sent FIN.
    pub flags: u8,
    /// While it is embryonic, its place in that ring, from 1. Later, once its backend has gone: the
    /// worker's second at which its client gets a RST. Else 0.
    pub embryo_or_reset: u32,
}

const _: () = assert!(size_of::<Entry<u32>>() == 64);
const _: () = assert!(size_of::<Entry<u128>>() == 128);

// SAFETY: integers alone, for which every bit pattern is valid.
unsafe impl Plain for Entry<u32> {}
// SAFETY: integers alone, for which every bit pattern is valid.
unsafe impl Plain for Entry<u128> {}

/// The client has sent FIN.
pub const FIN_FROM_CLIENT: u8 = 1;
/// The backend has sent FIN.
pub const FIN_FROM_BACKEND: u8 = 2;

impl<A: Address> Entry<A> {
    /// The key of packets from the client.
    #[inline(always)]
    pub const fn client_key(&self) -> Key<A> {
        Key {
            source: self.client,
            destination: self.frontend,
            source_port: self.client_port,
            destination_port: self.frontend_port,
            protocol: self.protocol,
        }
    }
    /// The key of packets from the backend.
    #[inline(always)]
    pub const fn reply_key(&self) -> Key<A> {
        Key {
            source: self.backend,
            destination: self.nat,
            source_port: self.backend_port,
            destination_port: self.nat_port,
            protocol: self.protocol,
        }
    }
    /// The key of packets that travel this way.
    #[inline(always)]
    pub const fn key(&self, direction: Direction) -> Key<A> {
        match direction {
            Direction::ToBackend => self.client_key(),
            Direction::ToClient => self.reply_key(),
        }
    }
    /// The adjacency that packets leave by which travel this way; one that doesn't exist where it
    /// is [`NO_ADJACENCY`].
    #[inline(always)]
    pub const fn adjacency(&self, direction: Direction) -> AdjacencyRef {
        let id = AdjacencyId(match direction {
            Direction::ToBackend => self.backend_adjacency,
            Direction::ToClient => self.client_adjacency,
        });
        AdjacencyRef { id, generation: 1 }
    }
    /// The backend that it was made for.
    #[inline(always)]
    pub const fn backend_id(&self) -> BackendId {
        BackendId { slot: self.backend_slot, generation: self.backend_generation }
    }
    /// The service port that it was made for.
    #[inline(always)]
    pub const fn service_id(&self) -> ServiceId {
        ServiceId { slot: self.service_slot, generation: self.service_generation }
    }
    /// Its state; `None` in a free entry.
    #[inline(always)]
    pub const fn state(&self) -> Option<ConnectionState> {
        match self.state {
            1 => Some(ConnectionState::Embryonic),
            2 => Some(ConnectionState::SynReceived),
            3 => Some(ConnectionState::Established),
            4 => Some(ConnectionState::Closing),
            5 => Some(ConnectionState::Closed),
            _ => None,
        }
    }
    /// The worker's second at which its client gets a RST, where it shall.
    #[inline(always)]
    pub const fn reset_s(&self) -> Option<u32> {
        match (self.state, self.embryo_or_reset) {
            (0 | 1, _) | (_, 0) => None,
            (_, second) => Some(second),
        }
    }
    /// True where it holds a connection.
    #[inline(always)]
    pub const fn is_used(&self) -> bool {
        self.state != 0
    }
    /// Milliseconds since its latest packet.
    #[inline(always)]
    pub const fn idle_ms(&self, now_ms: u64) -> u32 {
        (now_ms as u32).wrapping_sub(self.last_seen_ms)
    }
    /// Computes the differences from addresses and ports.
    pub fn set_differences(&mut self) {
        let before = checksum::add(self.client.sum(), self.frontend.sum());
        let after = checksum::add(self.nat.sum(), self.backend.sum());
        self.address_difference = checksum::difference(before, after);
        let ports_before = checksum::add(self.client_port, self.frontend_port);
        let ports_after = checksum::add(self.nat_port, self.backend_port);
        let ports = checksum::difference(ports_before, ports_after);
        self.difference = checksum::add(self.address_difference, ports);
    }
}
