//! What floods are made of, and what backends make of them.

use super::good::{FLOOD, FLOOD_LANE, FORGED};
use super::{FIRST_PORT, SERVICES, Test};
use crate::common::net::Parcel;
use crate::common::packets::{ACK, Mac, RST, SYN};
use crate::common::wire::{L3, Segment, TCP, UDP};
use crate::common::workers::Random;
use crate::common::{BACK_PORT, FRONT_MAC, FRONT_PORT, ROUTER_MAC, at, frontend_ip, nat_ip, raw};
use model::drops::DropReason;
use pipeline::frame::Verdict;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

const MACS: (Mac, Mac) = (ROUTER_MAC, FRONT_MAC);
/// Milliseconds after which a datagram comes once more: by then its flow is no short one.
const ONCE_MORE_MS: u64 = 3_000;

/// What backends do about the flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backends {
    /// As with SYN cookies.
    Answer,
    Silent,
    Refuse,
}

/// What a flood fills at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fills {
    /// So many rings of half-open connections: TCP's or UDP's, or both.
    Rings(usize),
    /// The whole table, with flows that last.
    Table,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Syns,
    Datagrams,
    Fragments,
    Echoes,
    Errors,
    Closed,
    Forged(u8),
}

#[derive(Clone, Copy, Debug)]
pub struct Attack {
    pub name: &'static str,
    pub seed: u64,
    /// All the reasons for which packets may be dropped.
    pub drops: &'static [DropReason],
    /// What it fills.
    pub fills: Fills,
    kind: Kind,
    frontends: u16,
    backends: Backends,
    acks: bool,
}

impl Attack {
    pub const fn new(name: &'static str, seed: u64, drops: &'static [DropReason]) -> Self {
        Self {
            name,
            seed,
            drops,
            fills: Fills::Rings(1),
            kind: Kind::Syns,
            frontends: SERVICES,
            backends: Backends::Silent,
            acks: false,
        }
    }
    pub const fn syns(self, frontends: u16, backends: Backends) -> Self {
        Self { kind: Kind::Syns, frontends, backends, ..self }
    }
    /// Each SYN-ACK is acknowledged, by a number that can't be known.
    pub const fn with_acks(self) -> Self {
        Self { acks: true, ..self }
    }
    pub const fn datagrams(self, backends: Backends) -> Self {
        Self { kind: Kind::Datagrams, backends, ..self }
    }
    /// Each datagram that was forwarded comes once more.
    pub const fn again(self) -> Self {
        Self { fills: Fills::Table, ..self }
    }
    pub const fn fragments(self) -> Self {
        Self { kind: Kind::Fragments, fills: Fills::Rings(1), ..self }
    }
    pub const fn echoes(self) -> Self {
        Self { kind: Kind::Echoes, ..self }
    }
    pub const fn errors(self) -> Self {
        Self { kind: Kind::Errors, ..self }
    }
    pub const fn closed(self) -> Self {
        Self { kind: Kind::Closed, ..self }
    }
    pub const fn forged(self, flags: u8) -> Self {
        Self { kind: Kind::Forged(flags), ..self }
    }
}

/// An address that isn't ours, no good client's, and may be a source.
fn anybody(random: &mut Random, v6: bool) -> SocketAddr {
    let n = random.next();
    let ip = if v6 {
        Ipv6Addr::from_bits(0x2a00_0000 << 96 | u128::from(n) << 16 | 1).into()
    } else {
        Ipv4Addr::from_bits(0x0b00_0000 + (n >> 32) as u32 % 0x6000_0000).into()
    };
    at(ip, 1 + (n % 65_535) as u16)
}

impl Test {
    /// One packet of the flood; half of them of IPv6.
    pub fn strike(&mut self) {
        let v6 = self.net.random.below(2) == 1;
        let from = anybody(&mut self.net.random, v6);
        let port = FIRST_PORT + self.net.random.below(usize::from(self.attack.frontends)) as u16;
        let to = at(frontend_ip(v6), port);
        let n = self.net.random.next();
        match self.attack.kind {
            Kind::Syns => {
                let syn = Segment::tcp(from, to, SYN).numbers(n as u32, 0);
                self.net.push(FLOOD_LANE, FLOOD, FRONT_PORT, &syn);
            }
            Kind::Datagrams => self.datagram(from, to),
            Kind::Fragments => self.fragment(from, to, n),
            Kind::Echoes => {
                let bytes = raw::echo(MACS, (from.ip(), to.ip()), &n.to_be_bytes());
                self.net.push_bytes(FLOOD_LANE, FLOOD, FRONT_PORT, &bytes);
            }
            Kind::Errors => self.error(from, to, n),
            Kind::Closed => {
                let to = at(to.ip(), 1000 + (n % 50_000) as u16);
                let segment = match n % 3 {
                    0 => Segment::tcp(from, to, SYN),
                    1 => Segment::tcp(from, to, ACK).numbers(n as u32, 7),
                    _ => Segment::udp(from, to, n),
                };
                self.net.push(FLOOD_LANE, FLOOD, FRONT_PORT, &segment);
            }
            Kind::Forged(flags) => {
                let victim = self.net.random.below(self.good);
                let flow = &self.flows[victim];
                let numbers = (n as u32, (n >> 32) as u32);
                let forged = Segment::tcp(flow.client, flow.frontend, flags);
                let forged = forged.numbers(numbers.0, numbers.1);
                self.net.push(FLOOD_LANE, FORGED | victim as u64, FRONT_PORT, &forged);
            }
        }
    }

    fn datagram(&mut self, from: SocketAddr, to: SocketAddr) {
        self.net.push(FLOOD_LANE, FLOOD, FRONT_PORT, &Segment::udp(from, to, 0));
    }

    /// Datagrams that were forwarded come once more.
    pub fn strike_again(&mut self) {
        while let Some((due, from, to)) = self.again.front().copied()
            && due <= self.net.now.ms
        {
            self.again.pop_front();
            self.net.push(FLOOD_LANE, FLOOD, FRONT_PORT, &Segment::udp(from, to, 1));
        }
    }

    /// A first fragment of a datagram or SYN, or a later one without a first.
    fn fragment(&mut self, from: SocketAddr, to: SocketAddr, n: u64) {
        let mut whole = [0; 128];
        let segment = if n & 1 == 0 {
            Segment::udp(from, to, n)
        } else {
            Segment::tcp(from, to, SYN).data(n)
        };
        let len = segment.write(&mut whole, MACS);
        let first = if segment.protocol == TCP { 24 } else { 8 };
        let mut bytes = raw::first_fragment(&whole[..len], first);
        let id = (n >> 8) as u32;
        if from.is_ipv4() {
            bytes[L3 + 4..L3 + 6].copy_from_slice(&id.to_be_bytes()[..2]);
            if n & 2 == 0 {
                bytes[L3 + 6..L3 + 8].copy_from_slice(&[0, 3]);
            }
            raw::fix_ipv4(&mut bytes, L3);
        } else {
            bytes[L3 + 44..L3 + 48].copy_from_slice(&id.to_be_bytes());
            if n & 2 == 0 {
                bytes[L3 + 42..L3 + 44].copy_from_slice(&[0, 24]);
            }
        }
        self.net.push_bytes(FLOOD_LANE, FLOOD, FRONT_PORT, &bytes);
    }

    /// An ICMP error about a packet that was never sent, from a frontend or a NAT address.
    fn error(&mut self, from: SocketAddr, to: SocketAddr, n: u64) {
        let ours =
            if n & 1 == 0 { to } else { at(nat_ip(to.is_ipv6(), 0), (n >> 8) as u16 | 1024) };
        let mut quoted = [0; 128];
        let len = Segment::tcp(ours, from, ACK).numbers(n as u32, 7).write(&mut quoted, MACS);
        let kind = match (from.is_ipv4(), n & 2 == 0) {
            (true, true) => (3, 4, 600),
            (true, false) => (3, 3, 0),
            (false, true) => (2, 0, 1280),
            (false, false) => (1, 4, 0),
        };
        let bytes = raw::icmp(MACS, (from.ip(), ours.ip()), kind, 64, &quoted[L3..len]);
        self.net.push_bytes(FLOOD_LANE, FLOOD, FRONT_PORT, &bytes);
    }

    /// A packet of the flood, or what it led to, has come to its end.
    pub fn flood_arrived(&mut self, verdict: Verdict, parcel: &Parcel) {
        match (verdict, self.attack.kind) {
            (Verdict::Send(BACK_PORT), Kind::Syns | Kind::Datagrams) => {
                self.flood_at_backend(&parcel.segment(false));
            }
            (Verdict::Send(FRONT_PORT), Kind::Syns | Kind::Datagrams) => {
                self.flood_at_victim(&parcel.segment(false));
            }
            _ => {}
        }
    }

    fn flood_at_backend(&mut self, segment: &Segment) {
        let (me, other) = (segment.destination, segment.source);
        let random = self.net.random.next() as u32;
        let answer = match (segment.protocol, self.attack.backends) {
            (_, Backends::Silent) => return,
            (UDP, _) if segment.data == Some(1) => return,
            (UDP, _) => Segment::udp(me, other, 2),
            (_, Backends::Refuse) => {
                Segment::tcp(me, other, RST | ACK).numbers(0, segment.sequence.wrapping_add(1))
            }
            // The ACK of a handshake that never was.
            _ if segment.flags & SYN == 0 => {
                Segment::tcp(me, other, RST).numbers(segment.acknowledged, 0)
            }
            _ => {
                let next = segment.sequence.wrapping_add(1);
                Segment::tcp(me, other, SYN | ACK).numbers(random, next)
            }
        };
        self.net.push(FLOOD_LANE, FLOOD, BACK_PORT, &answer);
    }

    /// Whoever has the address in truth is silent; the attacker sees nothing, but may guess.
    fn flood_at_victim(&mut self, segment: &Segment) {
        let (from, to) = (segment.destination, segment.source);
        if segment.protocol == UDP && self.attack.fills == Fills::Table {
            self.again.push_back((self.net.now.ms + ONCE_MORE_MS, from, to));
        } else if segment.flags == SYN | ACK && self.attack.acks {
            let random = self.net.random.next();
            let ack = Segment::tcp(from, to, ACK).numbers(random as u32, (random >> 32) as u32);
            self.net.push(FLOOD_LANE, FLOOD, FRONT_PORT, &ack);
        }
    }
}
