//! What a worker and the mirror thread pass to each other, as plain data.

use crate::adjacency::Mac;
use model::ids::InterfaceId;
use std::net::IpAddr;

/// A worker's request about a next hop, made at most so often (a token bucket).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourRequest {
    /// The interface on whose link it is.
    pub interface: InterfaceId,
    /// The next hop.
    pub address: IpAddr,
    /// What for.
    pub purpose: Purpose,
}

/// What a worker has to say about a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The kernel shall ask for its MAC.
    Resolve,
    /// Its MAC as seen in a packet that it sent to us, and that nobody else can have sent in its
    /// name: the kernel may start from it, as it does from an ARP request, and corrects it.
    Seen(Mac),
    /// Connections use it: it shall be kept resolved, also where no snapshot names it any more.
    /// Holds for a minute, within which it has to be said again.
    InUse,
}
