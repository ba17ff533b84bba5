//! The one form in which a connection leaves a worker: for `show connections`, tests, and whatever
//! moves connections elsewhere. It holds no positions of any table.

use crate::desired::ServicePortKey;
use crate::ids::{Protocol, WorkerId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// Raised whenever a field changes its meaning.
pub const RECORD_VERSION: u16 = 1;

/// State of a connection, from what both sides have sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ConnectionState {
    /// TCP: the client's SYN alone was seen; UDP: nothing came back yet.
    Embryonic = 1,
    /// TCP: the backend's SYN-ACK was seen, the client's ACK not yet.
    SynReceived = 2,
    /// TCP: the handshake is complete; UDP: both sides have sent.
    Established = 3,
    /// TCP: one side has sent FIN.
    Closing = 4,
    /// TCP: both have sent FIN, or one RST. Holds its ports for a while (TIME_WAIT).
    Closed = 5,
}

impl ConnectionState {
    /// The word in tables, JSON and filters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embryonic => "embryonic",
            Self::SynReceived => "syn_received",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A connection through the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRecord {
    /// [`RECORD_VERSION`] of the writer.
    pub version: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The client's address and port.
    pub client: SocketAddr,
    /// What the client sends to.
    pub frontend: SocketAddr,
    /// Where it is forwarded to.
    pub backend: SocketAddr,
    /// The source address and port that the backend sees.
    pub nat: SocketAddr,
    /// State of the connection.
    pub state: ConnectionState,
    /// Seconds since its first packet.
    pub age_s: u32,
    /// Milliseconds since its latest packet.
    pub idle_ms: u32,
    /// Milliseconds of silence after which it ends.
    pub timeout_ms: u32,
    /// The service port that it was made for, where that still exists.
    pub service: Option<ServicePortKey>,
    /// False where the backend has left the service port.
    pub backend_alive: bool,
    /// The worker that owns it.
    pub worker: WorkerId,
}
