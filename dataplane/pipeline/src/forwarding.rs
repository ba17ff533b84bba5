//! Forwarding kinds: which keys a connection has, who owns each direction, what is rewritten and
//! which life applies. Whoever adds a kind answers these here. To whom a packet is steered is asked of
//! its addresses alone, before any connection is known (`steer.rs`): what comes to a NAT address goes by
//! the lease of its port, everything else by its hash, as [`Kind::owner`] says of what begins.

use crate::connections::{Address, Direction, Entry, Key};
use crate::parse::UDP;
use model::desired::Forwarding;
use model::record::ConnectionState;

/// How packets reach the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Source and destination are rewritten (RFC 3022): replies come to a NAT address.
    Nat = 1,
}

/// By what the owner of a direction's packets is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// By the hash of the packet's own addresses and ports.
    Flow,
    /// By the lease of its destination port.
    PortLease,
}

/// Which table of states a connection lives by; both are drawn in `connections/life.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// TCP's: it is opened and closed, and kept whatever the tables say.
    Tcp,
    /// UDP's: by time alone, and over when its backend doesn't serve any more.
    Udp,
}

impl Kind {
    /// The kind that a service port asks for; `None` where that isn't forwarded yet.
    pub const fn of(wanted: Forwarding) -> Option<Self> {
        match wanted {
            Forwarding::Nat => Some(Self::Nat),
            Forwarding::Transparent | Forwarding::Dsr => None,
        }
    }
    /// The kind with this number in an entry.
    pub const fn of_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Nat),
            _ => None,
        }
    }
    /// Who owns packets that travel this way.
    pub const fn owner(self, direction: Direction) -> Owner {
        match (self, direction) {
            (Self::Nat, Direction::ToBackend) => Owner::Flow,
            (Self::Nat, Direction::ToClient) => Owner::PortLease,
        }
    }
    /// The key of packets from the backend, whose address and port are given, as are those that it
    /// is to see as the source.
    pub const fn reply_key<A: Address>(
        self,
        protocol: u8,
        backend: (A, u16),
        source: (A, u16),
    ) -> Key<A> {
        match self {
            Self::Nat => Key {
                source: backend.0,
                destination: source.0,
                source_port: backend.1,
                destination_port: source.1,
                protocol,
            },
        }
    }
    /// The life of connections of this protocol number.
    #[inline]
    pub const fn life(self, protocol: u8) -> Life {
        match (self, protocol) {
            (Self::Nat, UDP) => Life::Udp,
            (Self::Nat, _) => Life::Tcp,
        }
    }
    /// What addresses and ports of a packet that travels this way become.
    #[inline(always)]
    pub fn rewritten<A: Address>(self, entry: &Entry<A>, direction: Direction) -> A::Tuple {
        match self {
            Self::Nat => A::turned(entry.other_tuple(direction)),
        }
    }
}

impl Life {
    /// The state that a connection begins in.
    pub const fn first_state(self) -> ConnectionState {
        match self {
            Self::Tcp => ConnectionState::SynSent,
            Self::Udp => ConnectionState::Unreplied,
        }
    }
    /// The life that has this state.
    pub const fn of(state: ConnectionState) -> Self {
        match state {
            ConnectionState::Unreplied | ConnectionState::Replied | ConnectionState::Stream => {
                Self::Udp
            }
            _ => Self::Tcp,
        }
    }
}
