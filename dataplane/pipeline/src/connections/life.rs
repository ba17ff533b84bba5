//! The life of a connection: one table of states and events for TCP and one for UDP, drawn here and
//! executed; and how long each state may be silent.
//!
//! ```text
//! TCP          Syn        SynAck       Ack          Fin      OtherFin  FinAck     Rst     Refused  Answer
//! syn_sent     .          syn_received .            .        .         .          closed  closed   .
//! syn_received .          .            established  .        .         .          closed  closed   .
//! established  .          syn_received .            fin_wait .         .          reset   closed   .
//! fin_wait     .          syn_received .            .        last_ack  close_wait reset   closed   established
//! close_wait   .          syn_received .            .        last_ack  .          reset   closed   .
//! last_ack     .          syn_received .            .        .         time_wait  reset   closed   established
//! time_wait    .          syn_received .            .        .         .          .       .        .
//! reset        .          syn_received .            .        .         .          .       closed   established
//! closed       syn_sent   syn_received established  .        .         .          .       .        .
//! due          .          .            .            .        .         .          closed  closed   .
//!
//! UDP          Request    Reply        Lasting
//! unreplied    .          replied      .
//! replied      .          .            stream
//! stream       .          .            .
//! ```
//!
//! A dot: the state stays. Which event a packet is, `judge.rs` finds out: an event is never believed
//! for a flag alone. `SynAck` carries a number that is new, `Ack` acknowledges exactly that number
//! (so a forged handshake ends here), `FinAck` acknowledges the FIN to the byte. `Rst` and `Fin` may
//! be forged: before the short time of `reset`, `fin_wait` and `last_ack` ends a connection, the side
//! that they were for is asked ([`ends_in_doubt`]); `Answer` says that it lives, `Refused` that it
//! doesn't.

use model::record::ConnectionState::{
    self, CloseWait, Closed, Due, Established, FinWait, LastAck, Replied, Reset, Stream,
    SynReceived, SynSent, TimeWait, Unreplied,
};

/// What a packet, or the lack of one, means to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// The client's SYN.
    Syn,
    /// The backend's SYN-ACK, with a number that wasn't seen before.
    SynAck,
    /// The client acknowledges the backend's first number.
    Ack,
    /// The FIN of the side that closes first.
    Fin,
    /// The FIN of the other side.
    OtherFin,
    /// The FIN that waited is acknowledged, to the byte.
    FinAck,
    /// A RST that may be forged.
    Rst,
    /// The side that was asked has no such connection: it says so with the number that it was told.
    Refused,
    /// The side that was asked lives.
    Answer,
    /// UDP: the client's datagram.
    Request,
    /// UDP: the backend's datagram.
    Reply,
    /// UDP: a datagram more than two seconds after the first.
    Lasting,
}

const EVENTS: usize = Event::Lasting as usize + 1;
const STATES: usize = ConnectionState::ALL.len() + 1;

/// The next state; `None`: it stays.
#[derive(Debug)]
struct Table([[Option<ConnectionState>; EVENTS]; STATES]);

impl Table {
    const fn with(mut self, from: &[ConnectionState], event: Event, to: ConnectionState) -> Self {
        let mut at = 0;
        while at < from.len() {
            self.0[from[at] as usize][event as usize] = Some(to);
            at += 1;
        }
        self
    }
}

/// Both tables: no state is of both protocols.
static TABLE: Table = Table([[None; EVENTS]; STATES])
    .with(&[Closed], Event::Syn, SynSent)
    .with(
        &[SynSent, Established, FinWait, CloseWait, LastAck, TimeWait, Reset, Closed],
        Event::SynAck,
        SynReceived,
    )
    .with(&[SynReceived, Closed], Event::Ack, Established)
    .with(&[Established], Event::Fin, FinWait)
    .with(&[FinWait, CloseWait], Event::OtherFin, LastAck)
    .with(&[FinWait], Event::FinAck, CloseWait)
    .with(&[LastAck], Event::FinAck, TimeWait)
    .with(&[SynSent, SynReceived, Due], Event::Rst, Closed)
    .with(&[Established, FinWait, CloseWait, LastAck], Event::Rst, Reset)
    .with(
        &[SynSent, SynReceived, Established, FinWait, CloseWait, LastAck, Reset, Due],
        Event::Refused,
        Closed,
    )
    .with(&[FinWait, LastAck, Reset], Event::Answer, Established)
    .with(&[Unreplied], Event::Reply, Replied)
    .with(&[Replied], Event::Lasting, Stream);

/// The state after an event.
#[inline]
pub fn next(state: ConnectionState, event: Event) -> ConnectionState {
    TABLE.0[state as usize][event as usize].unwrap_or(state)
}

/// True where nobody but a packet that may be forged says that the connection ends: the side that
/// the packet was for is asked first.
pub const fn ends_in_doubt(state: ConnectionState) -> bool {
    matches!(state, FinWait | LastAck | Reset)
}

/// Milliseconds of silence after which a connection ends, by state. All below 2^31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP: SYN seen, no SYN-ACK.
    pub tcp_syn_sent_ms: u32,
    /// TCP: SYN-ACK seen, not acknowledged.
    pub tcp_syn_received_ms: u32,
    /// TCP: established.
    pub tcp_established_ms: u32,
    /// TCP: a FIN that nobody has acknowledged.
    pub tcp_fin_wait_ms: u32,
    /// TCP: one side has closed, and the other knows.
    pub tcp_close_wait_ms: u32,
    /// TCP: both have closed, or a RST was seen. Holds its port.
    pub tcp_time_wait_ms: u32,
    /// TCP: refused.
    pub tcp_closed_ms: u32,
    /// UDP: no stream yet.
    pub udp_ms: u32,
    /// UDP: a stream.
    pub udp_stream_ms: u32,
}

impl Default for Timeouts {
    /// SYN 30 s covers a client's first five tries. Established and half-closed connections may be
    /// silent for as long as kube-proxy lets them (`conntrack.tcpEstablishedTimeout` 24 h,
    /// `tcpCloseWaitTimeout` 1 h); the others as Linux' conntrack has them, but for TIME_WAIT, which
    /// is that of hosts and more: Linux' minute ends up to 5.1 s late (its timers of that length have
    /// a grain of 512 ticks, at 100 Hz), and a port that is free too early meets a backend that
    /// still waits and drops the SYN; UDP streams as RFC 4787 REQ-5 asks.
    fn default() -> Self {
        Self {
            tcp_syn_sent_ms: 30_000,
            tcp_syn_received_ms: 60_000,
            tcp_established_ms: 86_400_000,
            tcp_fin_wait_ms: 120_000,
            tcp_close_wait_ms: 3_600_000,
            tcp_time_wait_ms: 70_000,
            tcp_closed_ms: 10_000,
            udp_ms: 30_000,
            udp_stream_ms: 300_000,
        }
    }
}

impl Timeouts {
    /// The silence that ends a connection in this state.
    pub const fn of(&self, state: ConnectionState) -> u32 {
        match state {
            SynSent => self.tcp_syn_sent_ms,
            SynReceived => self.tcp_syn_received_ms,
            Established => self.tcp_established_ms,
            FinWait | LastAck => self.tcp_fin_wait_ms,
            CloseWait => self.tcp_close_wait_ms,
            TimeWait | Reset | Due => self.tcp_time_wait_ms,
            Closed => self.tcp_closed_ms,
            Unreplied | Replied => self.udp_ms,
            Stream => self.udp_stream_ms,
        }
    }
    /// The same by the number of the state: a look-up for each packet.
    pub fn by_number(&self) -> [u32; STATES] {
        let mut table = [0; STATES];
        for state in ConnectionState::ALL {
            table[state as usize] = self.of(state);
        }
        table
    }
}

/// Silence that ends a connection, by the number of its state. A free place has none.
pub type TimeoutTable = [u32; STATES];

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [(&str, Event); EVENTS] = [
        ("Syn", Event::Syn),
        ("SynAck", Event::SynAck),
        ("Ack", Event::Ack),
        ("Fin", Event::Fin),
        ("OtherFin", Event::OtherFin),
        ("FinAck", Event::FinAck),
        ("Rst", Event::Rst),
        ("Refused", Event::Refused),
        ("Answer", Event::Answer),
        ("Request", Event::Request),
        ("Reply", Event::Reply),
        ("Lasting", Event::Lasting),
    ];

    fn state(word: &str) -> Option<ConnectionState> {
        ConnectionState::ALL.into_iter().find(|state| state.name() == word)
    }

    /// The drawing at the head of this file, word by word.
    #[test]
    fn what_is_drawn_is_what_is_executed() {
        let source = include_str!("life.rs");
        let drawn = source.split("```").nth(1).unwrap_or_default().lines();
        let (mut columns, mut cells) = (Vec::new(), 0);
        for line in drawn.skip(1) {
            let mut words = line.trim_start_matches("//!").split_whitespace();
            let Some(first) = words.next() else { continue };
            let Some(from) = state(first) else {
                columns = words
                    .filter_map(|word| NAMES.iter().find(|(name, _)| *name == word))
                    .map(|(_, event)| *event)
                    .collect();
                continue;
            };
            let words: Vec<&str> = words.collect();
            assert_eq!(words.len(), columns.len(), "{first}");
            for (word, event) in words.iter().zip(&columns) {
                let drawn = if *word == "." { Some(from) } else { state(word) };
                assert_eq!(Some(next(from, *event)), drawn, "{first} on {event:?}");
                cells += 1;
            }
        }
        assert_eq!(cells, 10 * 9 + 3 * 3, "every state and event is drawn");
    }

    #[test]
    fn whoever_is_established_was_acknowledged() {
        for from in ConnectionState::ALL {
            for (_, event) in NAMES {
                if from.is_half_open() && next(from, event) == Established {
                    assert_eq!(event, Event::Ack, "from {from}");
                }
            }
        }
    }
}
