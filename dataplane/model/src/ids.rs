//! Identities. A port number, a worker and a slot are not bare integers.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// Address family of a packet, a table or an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4 (RFC 791).
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6 (RFC 8200).
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// The family of `address`.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
    /// 0 for IPv4, 1 for IPv6: for arrays with one element a family.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Transport protocol of a service port, spelt as Kubernetes spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260. Accepted by the model; the packet path doesn't forward it yet.
    Sctp,
}

impl Protocol {
    /// The number in the IP header (IANA protocol numbers).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
    /// The protocol with this number in the IP header.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
    /// `TCP`, `UDP` or `SCTP`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Protocol {
    type Err = UnknownProtocol;
    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text.to_ascii_uppercase().as_str() {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Ok(Self::Sctp),
            _ => Err(UnknownProtocol(text.to_owned())),
        }
    }
}

/// A protocol name that is none of TCP, UDP, SCTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownProtocol(pub String);

impl fmt::Display for UnknownProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown protocol \"{}\": expected TCP, UDP or SCTP", self.0)
    }
}

impl std::error::Error for UnknownProtocol {}

macro_rules! small_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
            Deserialize,
        )]
        #[repr(transparent)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// As an index into an array with one element for each.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

small_id!(
    /// A poll-mode core, numbered from 0 in the order of the configuration.
    WorkerId, u8
);
small_id!(
    /// A DPDK port, numbered from 0 in the order of the configuration.
    PortId, u8
);
small_id!(
    /// An interface, which is a (port, VLAN); numbered from 0 in the order of the configuration.
    InterfaceId, u8
);
small_id!(
    /// A place in the adjacency table. Whose it is, the generation beside it says.
    AdjacencyId, u16
);

/// A place in a table of the snapshot that is used again when its holder has gone. The generation
/// tells the holders apart: a stale one means gone.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SlotId {
    /// Position in the table.
    pub slot: u32,
    /// Counts the holders of the slot, from 1, skipping 0 when it wraps.
    pub generation: u16,
}

/// The slot of a backend, counted over all service ports.
pub type BackendId = SlotId;
/// The slot of a service port.
pub type ServiceId = SlotId;

/// The five fields that name a flow, in the direction in which the packet travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FiveTuple {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Sender.
    pub source: std::net::SocketAddr,
    /// Receiver.
    pub destination: std::net::SocketAddr,
}

impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.protocol, self.source, self.destination)
    }
}
