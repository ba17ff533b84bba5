//! Which event of a connection's life a packet is (see [`crate::connections`]'s table). Numbers and
//! checksums are looked at before flags are believed; what can't be verified, as fragments and
//! chained segments, changes no state.

use crate::answer::{self, Checked};
use crate::begin;
use crate::connections::{
    Address, Cold, Direction, Entry, Event, Flags, Found, Opening, Shard, next,
};
use crate::forwarding::Life;
use crate::frame::Frame;
use crate::journey::Now;
use crate::parse::{Fragment, Parsed, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, be32, tcp_header_len};
use crate::turn::{Packet, Turn};
use model::record::ConnectionState;

/// Seconds after which an answered UDP flow is a stream.
const STREAM_AFTER_S: u32 = 2;
/// Kind and length of the timestamps option (RFC 7323).
const TIMESTAMPS: [u8; 2] = [8, 10];

/// What a TCP header says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledged: u32,
    /// Bytes of data.
    pub data: u32,
    /// The sender's timestamp.
    pub timestamp: Option<u32>,
}

impl Segment {
    /// Reads the header of a TCP packet.
    pub fn read(frame: &Frame<'_>, parsed: &Parsed) -> Self {
        let tcp = frame.bytes().get(usize::from(parsed.l4)..).unwrap_or(&[]);
        let header_len = tcp_header_len(tcp).unwrap_or(0);
        Self {
            sequence: be32(tcp, 4).unwrap_or(0),
            acknowledged: be32(tcp, 8).unwrap_or(0),
            data: parsed.l4_len().saturating_sub(header_len) as u32,
            timestamp: timestamp(tcp.get(20..header_len).unwrap_or(&[])),
        }
    }
    /// The number after its last.
    pub const fn end(&self, flags: u8) -> u32 {
        let controls = (flags & TCP_SYN != 0) as u32 + (flags & TCP_FIN != 0) as u32;
        self.sequence.wrapping_add(self.data).wrapping_add(controls)
    }
    /// Its place in time.
    pub const fn opening(&self) -> Opening {
        Opening { sequence: self.sequence, timestamp: self.timestamp }
    }
}

/// The timestamp among TCP's options.
fn timestamp(mut options: &[u8]) -> Option<u32> {
    while let Some((kind, rest)) = options.split_first() {
        match kind {
            0 => return None,
            1 => options = rest,
            _ if options.starts_with(&TIMESTAMPS) => return be32(options, 2),
            _ => {
                let len = usize::from(*rest.first()?);
                options = options.get(len.max(2)..)?;
            }
        }
    }
    None
}

/// What the packet changes of its connection's life.
pub fn judge<A: Address>(
    shard: &mut Shard<A>,
    turn: &mut Turn<'_>,
    packet: &Packet<'_, '_>,
    found: Found,
) {
    let parsed = packet.parsed;
    // A later fragment has no flags of its own.
    if matches!(parsed.fragment, Fragment::Later(_)) {
        return;
    }
    let Some((entry, cold)) = shard.whole_mut(found.entry) else { return };
    let Some(state) = entry.state() else { return };
    if entry.life() == Some(Life::Udp) {
        if let Some(event) = datagram(state, cold, found.direction, turn.now)
            && answer::check(packet.frame, parsed) == Checked::Right
        {
            take(shard, turn, packet, found, event);
        }
        return;
    }
    let segment = Segment::read(packet.frame, parsed);
    let events = if parsed.tcp_flags & TCP_RST != 0 {
        [shard.entry(found.entry).map(|entry| rst(shard, entry, &segment)), None]
    } else {
        events(entry, cold, parsed.tcp_flags, &segment, found.direction)
    };
    for event in events {
        let Some(event) = event else { continue };
        if answer::check(packet.frame, parsed) != Checked::Right {
            return;
        }
        take(shard, turn, packet, found, event);
    }
    if let Some((entry, cold)) = shard.whole_mut(found.entry)
        && entry.state().is_some_and(closes)
        && answer::check(packet.frame, parsed) == Checked::Right
    {
        note_end(entry, cold, parsed.tcp_flags, &segment, found.direction);
    }
}

fn datagram<A: Address>(
    state: ConnectionState,
    cold: &Cold<A>,
    direction: Direction,
    now: Now,
) -> Option<Event> {
    match (state, direction) {
        (ConnectionState::Unreplied, Direction::ToClient) => Some(Event::Reply),
        (ConnectionState::Replied, _)
            if now.seconds().saturating_sub(cold.created_s) > STREAM_AFTER_S =>
        {
            Some(Event::Lasting)
        }
        _ => None,
    }
}

/// The event that a RST is.
fn rst<A: Address>(shard: &Shard<A>, entry: &Entry<A>, segment: &Segment) -> Event {
    if segment.sequence == shard.challenge_number(entry) { Event::Refused } else { Event::Rst }
}

/// The events that another segment is, if its checksum is right: a FIN may acknowledge the other's FIN.
fn events<A: Address>(
    entry: &Entry<A>,
    cold: &Cold<A>,
    flags: u8,
    segment: &Segment,
    direction: Direction,
) -> [Option<Event>; 2] {
    use ConnectionState::{CloseWait, Closed, FinWait, LastAck, SynReceived, SynSent};
    let Some(state) = entry.state() else { return [None; 2] };
    let closer = if entry.flags.has(Flags::FROM_BACKEND) {
        Direction::ToClient
    } else {
        Direction::ToBackend
    };
    let asked = cold.asked > 0 && direction != closer;
    if flags & TCP_SYN != 0 {
        let answer = flags & TCP_ACK != 0 && direction == Direction::ToClient;
        let news = state == SynSent || segment.sequence.wrapping_add(1) != cold.expected;
        // One that answers no SYN of the client's is nothing to go by.
        let asked_for = matches!(state, SynSent | SynReceived | Closed)
            || segment.acknowledged == cold.last_sequence;
        let event = match (answer, direction) {
            (true, _) => (news && asked_for).then_some(Event::SynAck),
            (false, Direction::ToBackend) => Some(Event::Syn),
            (false, Direction::ToClient) => None,
        };
        return [event, None];
    }
    let opening = matches!(state, SynReceived | Closed);
    if opening {
        let acknowledges = direction == Direction::ToBackend
            && flags & TCP_ACK != 0
            && segment.acknowledged == cold.expected
            && (state == SynReceived || cold.expected != 0);
        // A backend sends data when it has seen the handshake's end, whatever was lost here.
        let vouches = state == SynReceived
            && direction == Direction::ToClient
            && (segment.data > 0 || flags & TCP_FIN != 0);
        let opens = (acknowledges || vouches).then_some(Event::Ack);
        return [opens, opens.filter(|_| flags & TCP_FIN != 0).map(|_| Event::Fin)];
    }
    let acknowledges_fin = matches!(state, FinWait | LastAck)
        && direction != closer
        && flags & TCP_ACK != 0
        && segment.acknowledged == cold.fin;
    let first = match state {
        _ if acknowledges_fin => Some(Event::FinAck),
        _ if asked => Some(Event::Answer),
        _ => None,
    };
    let fin = flags & TCP_FIN != 0;
    let second = match state {
        FinWait | CloseWait if fin && direction != closer => Some(Event::OtherFin),
        ConnectionState::Established if fin => Some(Event::Fin),
        _ => None,
    };
    [first, second]
}

/// Does what the event says.
fn take<A: Address>(
    shard: &mut Shard<A>,
    turn: &mut Turn<'_>,
    packet: &Packet<'_, '_>,
    found: Found,
    event: Event,
) {
    let parsed = packet.parsed;
    let Some((entry, cold)) = shard.whole_mut(found.entry) else { return };
    let Some(state) = entry.state() else { return };
    let to = next(state, event);
    let segment = || Segment::read(packet.frame, parsed);
    match event {
        Event::SynAck => {
            cold.expected = segment().sequence.wrapping_add(1);
            cold.asked = 0;
            entry.set_flag(Flags::SYN_WAITS, false);
        }
        Event::Rst | Event::Fin | Event::OtherFin if to != state => {
            entry.set_flag(Flags::FROM_BACKEND, found.direction == Direction::ToClient);
            cold.asked = 0;
            if event != Event::Rst {
                cold.fin = segment().end(parsed.tcp_flags);
            }
        }
        // What the backend's answer acknowledges.
        Event::Syn => {
            cold.last_sequence = segment().end(parsed.tcp_flags);
            entry.set_flag(Flags::SYN_WAITS, true);
        }
        Event::Answer => cold.asked = 0,
        _ => {}
    }
    if matches!(to, ConnectionState::Closed | ConnectionState::TimeWait) {
        cold.reset_s = 0;
    }
    if to == state {
        return;
    }
    shard.set_state(found.entry, to, turn.now.ms);
    if matches!(event, Event::Ack | Event::Lasting) {
        begin::verified(shard, turn, packet, found);
    }
}

/// True of states in which what the backend got last is kept.
const fn closes(state: ConnectionState) -> bool {
    use ConnectionState::{CloseWait, FinWait, LastAck, TimeWait};
    matches!(state, FinWait | CloseWait | LastAck | TimeWait)
}

/// Keeps what the backend got last from a client whose connection closes: a later SYN on its port
/// has to come after that. A FIN that is sent again, with another number, is the one that counts.
fn note_end<A: Address>(
    entry: &mut Entry<A>,
    cold: &mut Cold<A>,
    flags: u8,
    segment: &Segment,
    direction: Direction,
) {
    use ConnectionState::{FinWait, LastAck};
    let Some(state) = entry.state() else { return };
    let from_backend = direction == Direction::ToClient;
    let again = flags & TCP_FIN != 0 && matches!(state, FinWait | LastAck);
    if again && entry.flags.has(Flags::FROM_BACKEND) == from_backend {
        cold.fin = segment.end(flags);
    }
    if direction == Direction::ToBackend
        && flags & TCP_RST == 0
        && !entry.flags.has(Flags::SYN_WAITS)
    {
        cold.last_sequence = segment.end(flags);
        entry.set_flag(Flags::TIMESTAMPS, segment.timestamp.is_some());
        cold.last_timestamp = segment.timestamp.unwrap_or(0);
    }
}
