//! The life of a connection: its state from what both sides send, and how long each state may be
//! silent.

use super::entry::{FIN_FROM_BACKEND, FIN_FROM_CLIENT};
use super::index::Direction;
use crate::parse::{TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use model::record::ConnectionState;

/// Milliseconds of silence after which a connection ends, by protocol and state. All below 2^31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP: SYN seen, no SYN-ACK.
    pub tcp_embryonic_ms: u32,
    /// TCP: SYN-ACK seen, no ACK.
    pub tcp_syn_received_ms: u32,
    /// TCP: established.
    pub tcp_established_ms: u32,
    /// TCP: one side has sent FIN.
    pub tcp_closing_ms: u32,
    /// TCP: ended; holds its ports.
    pub tcp_closed_ms: u32,
    /// UDP: nothing came back yet.
    pub udp_embryonic_ms: u32,
    /// UDP: both sides have sent.
    pub udp_established_ms: u32,
}

impl Default for Timeouts {
    /// SYN 30 s covers a client's first five tries. Established and half-closed connections may be
    /// silent for as long as kube-proxy lets them (`conntrack.tcpEstablishedTimeout` 24 h,
    /// `tcpCloseWaitTimeout` 1 h). Closed is TIME_WAIT of 60 s; UDP as RFC 4787 REQ-5 asks.
    fn default() -> Self {
        Self {
            tcp_embryonic_ms: 30_000,
            tcp_syn_received_ms: 60_000,
            tcp_established_ms: 86_400_000,
            tcp_closing_ms: 3_600_000,
            tcp_closed_ms: 60_000,
            udp_embryonic_ms: 30_000,
            udp_established_ms: 300_000,
        }
    }
}

impl Timeouts {
    /// The silence that ends a connection of this protocol number in this state.
    #[inline]
    pub const fn of(&self, protocol: u8, state: ConnectionState) -> u32 {
        match (protocol, state) {
            (TCP, ConnectionState::Embryonic) => self.tcp_embryonic_ms,
            (TCP, ConnectionState::SynReceived) => self.tcp_syn_received_ms,
            (TCP, ConnectionState::Established) => self.tcp_established_ms,
            (TCP, ConnectionState::Closing) => self.tcp_closing_ms,
            (_, ConnectionState::Closed) => self.tcp_closed_ms,
            (_, ConnectionState::Embryonic) => self.udp_embryonic_ms,
            _ => self.udp_established_ms,
        }
    }
}

/// The state and flags after a packet. FIN and RST shorten the timer; they never delete at once,
/// since either may be forged, repeated or still to be answered.
#[inline]
pub const fn advance(
    state: ConnectionState,
    flags: u8,
    protocol: u8,
    direction: Direction,
    tcp_flags: u8,
) -> (ConnectionState, u8) {
    use ConnectionState::{Closed, Closing, Embryonic, Established, SynReceived};
    if protocol != TCP {
        return match (state, direction) {
            (Embryonic, Direction::ToClient) => (Established, flags),
            _ => (state, flags),
        };
    }
    if tcp_flags & TCP_RST != 0 {
        return (Closed, flags);
    }
    let flags = if tcp_flags & TCP_FIN == 0 {
        flags
    } else {
        match direction {
            Direction::ToBackend => flags | FIN_FROM_CLIENT,
            Direction::ToClient => flags | FIN_FROM_BACKEND,
        }
    };
    if flags & (FIN_FROM_CLIENT | FIN_FROM_BACKEND) == FIN_FROM_CLIENT | FIN_FROM_BACKEND {
        return (Closed, flags);
    }
    let next = match (state, direction) {
        (Closed, _) => Closed,
        _ if flags != 0 => Closing,
        (Embryonic, Direction::ToClient)
            if tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK =>
        {
            SynReceived
        }
        (SynReceived, Direction::ToBackend) if tcp_flags & (TCP_SYN | TCP_ACK) == TCP_ACK => {
            Established
        }
        _ => state,
    };
    (next, flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::UDP;
    use ConnectionState::{Closed, Closing, Embryonic, Established, SynReceived};
    use Direction::{ToBackend, ToClient};

    fn walk(protocol: u8, packets: &[(Direction, u8)]) -> Vec<ConnectionState> {
        let (mut state, mut flags) = (Embryonic, 0);
        packets
            .iter()
            .map(|(direction, tcp)| {
                (state, flags) = advance(state, flags, protocol, *direction, *tcp);
                state
            })
            .collect()
    }

    #[test]
    fn tcp_opens_and_closes() {
        let states = walk(
            TCP,
            &[
                (ToBackend, TCP_SYN),
                (ToClient, TCP_SYN | TCP_ACK),
                (ToBackend, TCP_ACK),
                (ToClient, TCP_ACK),
                (ToBackend, TCP_FIN | TCP_ACK),
                (ToClient, TCP_ACK),
                (ToClient, TCP_FIN | TCP_ACK),
                (ToBackend, TCP_ACK),
            ],
        );
        let expected =
            [Embryonic, SynReceived, Established, Established, Closing, Closing, Closed, Closed];
        assert_eq!(states, expected);
    }

    #[test]
    fn a_reset_closes_and_udp_is_established_by_its_answer() {
        assert_eq!(walk(TCP, &[(ToBackend, TCP_SYN), (ToClient, TCP_RST | TCP_ACK)])[1], Closed);
        assert_eq!(walk(UDP, &[(ToBackend, 0), (ToClient, 0)]), [Embryonic, Established]);
    }
}
