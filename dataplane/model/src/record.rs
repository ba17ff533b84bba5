//! The one form in which a connection leaves a worker: for `show connections`, tests, and whatever
//! moves connections elsewhere. It holds no positions of any table.

use crate::desired::ServicePortKey;
use crate::ids::{Protocol, WorkerId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// Raised whenever a field changes its meaning.
pub const RECORD_VERSION: u16 = 2;

/// State of a connection, from what both sides have sent. `connections/life.rs` of the pipeline has
/// the table by which one follows the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ConnectionState {
    /// TCP: the client's SYN alone was seen.
    SynSent = 1,
    /// TCP: the backend's SYN-ACK was seen; the client hasn't acknowledged its number yet.
    SynReceived = 2,
    /// TCP: the handshake is complete, its numbers verified.
    Established = 3,
    /// TCP: one side has sent FIN, which the other hasn't acknowledged.
    FinWait = 4,
    /// TCP: one side's FIN is acknowledged; the other may still send.
    CloseWait = 5,
    /// TCP: both have sent FIN, the later of which isn't acknowledged.
    LastAck = 6,
    /// TCP: both have sent FIN, and the later is acknowledged. Holds its port for a while.
    TimeWait = 7,
    /// TCP: a RST was seen on a verified connection. Whether it was believed isn't known: before the
    /// connection ends the receiver is asked.
    Reset = 8,
    /// TCP: refused, or ended before the handshake was complete.
    Closed = 9,
    /// TCP: its backend has gone for so long that the client's next packet gets a RST.
    Due = 10,
    /// UDP: nothing came back yet.
    Unreplied = 11,
    /// UDP: both sides have sent.
    Replied = 12,
    /// UDP: replied to, and more than two seconds old when a packet came.
    Stream = 13,
}

impl ConnectionState {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Reset,
        Self::Closed,
        Self::Due,
        Self::Unreplied,
        Self::Replied,
        Self::Stream,
    ];
    /// The word in tables, JSON and filters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn_sent",
            Self::SynReceived => "syn_received",
            Self::Established => "established",
            Self::FinWait => "fin_wait",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::TimeWait => "time_wait",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Due => "due",
            Self::Unreplied => "unreplied",
            Self::Replied => "replied",
            Self::Stream => "stream",
        }
    }
    /// True until both sides have shown that they hear each other: TCP by the client's
    /// acknowledgement of the backend's number, UDP by lasting. Such a connection is bounded in
    /// number, and the oldest gives way.
    #[inline]
    pub const fn is_half_open(self) -> bool {
        matches!(
            self,
            Self::SynSent | Self::SynReceived | Self::Closed | Self::Unreplied | Self::Replied
        )
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
