//! One connection: a hot line for what each packet needs (IPv4 one cache line, IPv6 two), and a cold
//! record beside it for what is asked rarely.
//!
//! ```text
//! IPv4    0: client's tuple, with a difference in the checksum's place     16: backend's tuple
//!        32: last_seen backend_slot backend_stamp routes_stamp service_slot
//!        52: client_adjacency backend_adjacency  60: state flags kind care
//! IPv6    0: client's tuple (40 bytes), and of the backend's the first 24: next header, source,
//!            4 bytes of its destination
//!        64: the rest of the backend's tuple, then as from 32 on above
//! ```

use super::index::Direction;
use super::key::{Address, Key};
use crate::adjacency::AdjacencyRef;
use crate::arch::memory::Plain;
use crate::forwarding::{Kind, Life};
use crate::parse::{TCP, UDP};
use crate::rewrite::checksum::{self, Difference};
use model::ids::{BackendId, InterfaceId, ServiceId};
use model::record::ConnectionState;

/// A slot that nobody holds: of what has gone.
pub const NO_SLOT: u32 = u32::MAX;

/// The slot of a backend that left while no process was there to see: nobody holds it, and whoever
/// looks at the entry first does what is due then.
pub const GONE_SLOT: u32 = u32::MAX - 1;

/// A connection. Holds ids and integers alone, so that the memory means the same to whoever reads
/// it with the same layout version .
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Entry<A: Address> {
    /// What packets from the client are known by. Its spare bytes are what the rewrite towards the
    /// backend adds to the sum of the addresses; the way back adds the complement.
    client: A::Tuple,
    /// What packets from the backend are known by. Its spare bytes are the same for addresses and
    /// ports together.
    reply: A::Tuple,
    /// Time of the latest packet: the lower 32 bits of the worker's milliseconds.
    pub last_seen_ms: u32,
    /// Slot of the backend, or [`NO_SLOT`].
    pub backend_slot: u32,
    /// The backend's stamp when it was looked at.
    pub backend_stamp: u32,
    /// The routes' stamp when the adjacencies were found.
    pub routes_stamp: u32,
    /// Slot of the service port, or [`NO_SLOT`].
    pub service_slot: u32,
    /// Adjacency towards the client.
    pub client_adjacency: AdjacencyRef,
    /// Adjacency towards the backend.
    pub backend_adjacency: AdjacencyRef,
    /// [`ConnectionState`] as a number; 0 in a free entry. Written last when it begins, first when
    /// it ends.
    state: u8,
    /// [`Flags`].
    pub flags: Flags,
    /// [`Kind`] as a number.
    pub kind: u8,
    /// 0 where a packet that closes nothing has nothing to be asked about but time, stamps and way:
    /// derived from state and flags by [`Entry::set_state`] and [`Entry::set_flag`].
    care: u8,
}

const _: () = assert!(size_of::<Entry<u32>>() == 64);
const _: () = assert!(size_of::<Entry<u128>>() == 128);

// SAFETY: integers and tuples of bytes alone, for which every bit pattern is valid.
unsafe impl<A: Address> Plain for Entry<A> {}

/// What is asked rarely of a connection.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Cold<A: Address> {
    /// The next hop towards the backend, for the connection's life.
    pub next_hop: A::Wire,
    /// Time of the first packet, in the worker's seconds.
    pub created_s: u32,
    /// The worker's second at which the client gets a RST as its backend has gone; 0: never.
    pub reset_s: u32,
    /// Its place among the half-open ones, from 1; 0: none.
    pub half_open: u32,
    /// The number that acknowledges the backend's SYN.
    pub expected: u32,
    /// The number that acknowledges the FIN which waits for it.
    pub fin: u32,
    /// The latest timestamp that the backend got from the client (RFC 7323), once it closes.
    pub last_timestamp: u32,
    /// The number after the client's SYN, which the backend's answer acknowledges; once it closes and
    /// no SYN waits ([`Flags::SYN_WAITS`]), after the latest that the backend got from the client.
    pub last_sequence: u32,
    /// Generation of the backend's slot.
    pub backend_generation: u16,
    /// Generation of the service port's slot.
    pub service_generation: u16,
    /// The interface of the next hop towards the backend.
    pub next_hop_interface: u8,
    /// How often the side that a RST or FIN was for has been asked whether it lives.
    pub asked: u8,
    /// Zero: makes the record's bytes all initialised.
    pub reserved: u16,
}

const _: () = assert!(size_of::<Cold<u32>>() == 40);
const _: () = assert!(size_of::<Cold<u128>>() == 52);

// SAFETY: integers and addresses as bytes alone, for which every bit pattern is valid.
unsafe impl<A: Address> Plain for Cold<A> {}

/// What is so of a connection, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Flags(u8);

impl Flags {
    /// The RST or FIN that counts came from the backend.
    pub const FROM_BACKEND: Self = Self(1);
    /// The client's packets carry timestamps.
    pub const TIMESTAMPS: Self = Self(2);
    /// The client's path takes less than is passed on to the backend: routers may fragment.
    pub const MAY_FRAGMENT: Self = Self(4);
    /// The client is on a link of ours: its MAC is compared.
    pub const CLIENT_ON_LINK: Self = Self(8);
    /// No table names the next hop towards the backend any more: it is kept for this connection.
    pub const OWN_NEXT_HOP: Self = Self(16);
    /// A SYN of the client went along it and waits for its answer.
    pub const SYN_WAITS: Self = Self(32);

    const ALL: u8 = Self::FROM_BACKEND.0
        | Self::TIMESTAMPS.0
        | Self::MAY_FRAGMENT.0
        | Self::CLIENT_ON_LINK.0
        | Self::SYN_WAITS.0
        | Self::OWN_NEXT_HOP.0;

    /// True where all of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// With `other` set or not.
    #[must_use]
    pub const fn with(self, other: Self, set: bool) -> Self {
        if set { Self(self.0 | other.0) } else { Self(self.0 & !other.0) }
    }
}

/// Flags that a packet has to be asked about whatever it is.
const CAREFUL: u8 = Flags::MAY_FRAGMENT.0;

impl<A: Address> Default for Entry<A> {
    /// A free one.
    fn default() -> Self {
        Self {
            client: A::NO_TUPLE,
            reply: A::NO_TUPLE,
            last_seen_ms: 0,
            backend_slot: 0,
            backend_stamp: 0,
            routes_stamp: 0,
            service_slot: 0,
            client_adjacency: AdjacencyRef::NONE,
            backend_adjacency: AdjacencyRef::NONE,
            state: 0,
            flags: Flags::default(),
            kind: 0,
            care: 0,
        }
    }
}

impl<A: Address> Entry<A> {
    /// An entry that packets with `client` as their key belong to, and those with `reply`; free
    /// until it has a state.
    pub fn new(client: &Key<A>, reply: &Key<A>) -> Self {
        let before = checksum::add(client.source.sum(), client.destination.sum());
        let after = checksum::add(reply.source.sum(), reply.destination.sum());
        let addresses = checksum::difference(before, after);
        let ports_before = checksum::add(client.source_port, client.destination_port);
        let ports_after = checksum::add(reply.source_port, reply.destination_port);
        let ports = checksum::difference(ports_before, ports_after);
        let mut entry =
            Self { client: A::tuple(client), reply: A::tuple(reply), ..Self::default() };
        A::set_spare(&mut entry.client, Difference::of(addresses).to_bytes());
        let all = Difference::of(checksum::add(addresses, ports));
        A::set_spare(&mut entry.reply, all.to_bytes());
        entry
    }
    /// The tuple of packets that travel this way.
    #[inline(always)]
    pub const fn tuple(&self, direction: Direction) -> &A::Tuple {
        match direction {
            Direction::ToBackend => &self.client,
            Direction::ToClient => &self.reply,
        }
    }
    /// The tuple of packets that travel the other way: reversed it is what a packet becomes.
    #[inline(always)]
    pub const fn other_tuple(&self, direction: Direction) -> &A::Tuple {
        match direction {
            Direction::ToBackend => &self.reply,
            Direction::ToClient => &self.client,
        }
    }
    /// The key of packets from the client.
    #[inline]
    pub fn client_key(&self) -> Key<A> {
        A::key(&self.client)
    }
    /// The key of packets from the backend.
    #[inline]
    pub fn reply_key(&self) -> Key<A> {
        A::key(&self.reply)
    }
    /// The key of packets that travel the other way.
    #[inline]
    pub fn other_key(&self, direction: Direction) -> Key<A> {
        A::key(self.other_tuple(direction))
    }
    /// What a rewrite this way adds to the sum of the addresses, and to that of addresses and ports.
    #[inline(always)]
    pub fn differences(&self, direction: Direction) -> (Difference, Difference) {
        let addresses = Difference::from_bytes(A::spare(&self.client));
        let all = Difference::from_bytes(A::spare(&self.reply));
        match direction {
            Direction::ToBackend => (addresses, all),
            Direction::ToClient => (addresses.back(), all.back()),
        }
    }
    /// How its packets are forwarded; `None` in a free entry.
    #[inline(always)]
    pub const fn kind(&self) -> Option<Kind> {
        Kind::of_number(self.kind)
    }
    /// The table of states that it lives by; `None` in a free entry.
    #[inline]
    pub fn life(&self) -> Option<Life> {
        self.kind().map(|kind| kind.life(self.protocol()))
    }
    /// The protocol's number.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.client_key().protocol
    }
    /// The adjacency that packets leave by which travel this way.
    #[inline(always)]
    pub const fn adjacency(&self, direction: Direction) -> AdjacencyRef {
        match direction {
            Direction::ToBackend => self.backend_adjacency,
            Direction::ToClient => self.client_adjacency,
        }
    }
    /// Its state; `None` in a free entry.
    #[inline(always)]
    pub fn state(&self) -> Option<ConnectionState> {
        ConnectionState::ALL.get(usize::from(self.state).wrapping_sub(1)).copied()
    }
    /// The number of its state, 0 in a free entry: for tables by state.
    #[inline(always)]
    pub const fn state_number(&self) -> usize {
        self.state as usize
    }
    /// Sets the state; `None` frees the entry.
    #[inline]
    pub fn set_state(&mut self, state: Option<ConnectionState>) {
        self.state = state.map_or(0, |state| state as u8);
        self.set_care();
    }
    /// Sets or clears a flag.
    pub fn set_flag(&mut self, flag: Flags, set: bool) {
        self.flags = self.flags.with(flag, set);
        self.set_care();
    }
    fn set_care(&mut self) {
        let steady =
            matches!(self.state(), Some(ConnectionState::Established | ConnectionState::Stream));
        self.care = u8::from(!steady) | self.flags.0 & CAREFUL;
    }
    /// True where the state and flags ask nothing of an ordinary packet.
    #[inline(always)]
    pub const fn is_steady(&self) -> bool {
        self.care == 0
    }
    /// True where this can be what a worker wrote of a connection: all of it, and nothing else. To be
    /// asked of memory that comes from elsewhere; the sums over both keys are right by chance once in
    /// 2^32.
    pub fn makes_sense(&self) -> bool {
        let Some(state) = self.state() else { return false };
        let (client, reply) = (self.client_key(), self.reply_key());
        let own = Self::new(&client, &reply);
        own.client == self.client
            && own.reply == self.reply
            && client != reply
            && client.protocol == reply.protocol
            && matches!(client.protocol, TCP | UDP)
            && self.life() == Some(Life::of(state))
            && self.flags.0 & !Flags::ALL == 0
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
    /// The backend that it was made for.
    #[inline]
    pub const fn backend_id(&self, cold: &Cold<A>) -> BackendId {
        BackendId { slot: self.backend_slot, generation: cold.backend_generation }
    }
    /// The service port that it was made for.
    #[inline]
    pub const fn service_id(&self, cold: &Cold<A>) -> ServiceId {
        ServiceId { slot: self.service_slot, generation: cold.service_generation }
    }
}

impl<A: Address> Cold<A> {
    /// The next hop towards the backend.
    pub fn next_hop(&self) -> (InterfaceId, std::net::IpAddr) {
        (InterfaceId(self.next_hop_interface), A::from_wire(self.next_hop).to_ip())
    }
}
