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
    /// Its MAC as seen in a packet that it sent to us: the kernel may start from it (as it does
    /// from an ARP request) and corrects it. `None`: the kernel shall ask.
    pub seen: Option<Mac>,
}
