//! What the host itself began: its watch of the API server, its probes, DNS, NTP, outgoing BGP. The
//! answers have a budget of their own, which nobody else can use up.
//!
//! The worker that carries a frame from the host's twin to a port notes its flow here; whichever
//! worker receives the answer looks for it. So there is one table for all workers: fixed places of
//! one atomic word each, which holds a part of the flow's hash, where the flow is in its life, and
//! the second of the host's latest packet. Only what the host sends makes or refreshes a place; it
//! ages out by itself. Where a bucket is full of flows that live, another isn't noted, and its
//! answers count as anything else.
//!
//! A TCP connection begins with a bare SYN of the host and is refreshed by whatever the host sends
//! on it. A UDP flow is the host's where it sends from a port that its kernel gives out and to one
//! that it doesn't: what a server on the host answers to a stranger isn't that. An echo request is
//! known by its identifier. Of a packet in fragments the host's first one holds the ports and is
//! enough. The ports of an answer in fragments are found as those of any other; fragments of an
//! echo reply but the first count as anything else.

use crate::journey::Now;
use crate::parse::quoted::quoted;
use crate::parse::{
    Addresses, ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, Fragment, ICMP,
    ICMPV6, Parsed, TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, UDP, VLAN_TAG_LEN, be16, be32, be128,
};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Places of a bucket: a cache line.
const BUCKET_PLACES: usize = 8;
/// Bits of a time: seconds, eight years of them.
const TIME_BITS: u32 = 28;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const STAGE_BITS: u32 = 2;
/// A place in use has this bit, so that it isn't 0.
const USED: u64 = 1 << 63;
/// The ports that Linux gives out by itself begin here (`net.ipv4.ip_local_port_range`).
const EPHEMERAL_FIRST: u16 = 32_768;
/// Protocol number of the IPv6 fragment header.
const FRAGMENT: u8 = 44;

/// Where a flow is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// The host has sent a SYN, a datagram, an echo request.
    Begun,
    /// The host goes on, so the other side has answered.
    Lasting,
    /// The host has sent FIN or RST.
    Ending,
}

impl Stage {
    const fn of(place: u64) -> Self {
        match (place >> TIME_BITS) & ((1 << STAGE_BITS) - 1) {
            0 => Self::Begun,
            1 => Self::Lasting,
            _ => Self::Ending,
        }
    }
    /// Seconds after the host's latest packet for which answers are known. TCP tells that it still
    /// lives after two hours of silence.
    const fn life_s(self) -> u64 {
        match self {
            Self::Begun => 30,
            Self::Lasting => 8_100,
            Self::Ending => 10,
        }
    }
}

/// A flow between the host and another: of ICMP echo the identifier stands for the host's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    host: (IpAddr, u16),
    other: (IpAddr, u16),
    protocol: u8,
}

/// What a packet of the host does to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begins,
    GoesOn,
    Ends,
}

impl Flow {
    /// The flow that a packet for the host would be the answer of: its own, turned round; that of
    /// the echo request; that of the packet that an error quotes.
    pub fn answered_by(bytes: &[u8], parsed: &Parsed) -> Option<Self> {
        let (host, other) = (parsed.addresses.destination(), parsed.addresses.source());
        if parsed.has_ports() {
            let (host, other) = ((host, parsed.destination_port), (other, parsed.source_port));
            return Some(Self { host, other, protocol: parsed.protocol });
        }
        if let Some(quoted) = quoted(bytes, parsed) {
            let sender = quoted.addresses.source();
            return (sender == host).then_some(Self {
                host: (sender, quoted.source_port),
                other: (quoted.addresses.destination(), quoted.destination_port),
                protocol: quoted.protocol,
            });
        }
        let l4 = usize::from(parsed.l4);
        let reply = matches!((parsed.protocol, bytes.get(l4)?), (ICMP, 0) | (ICMPV6, 129));
        if !reply || matches!(parsed.fragment, Fragment::Later(_)) {
            return None;
        }
        let host = (host, be16(bytes, l4 + 4)?);
        Some(Self { host, other: (other, 0), protocol: parsed.protocol })
    }

    /// The flow of a frame that the host sends, and what the frame does to it.
    fn sent_in(frame: &[u8]) -> Option<(Self, Step)> {
        let (addresses, protocol, l4) = headers(frame)?;
        let (host, other) = (addresses.source(), addresses.destination());
        let (first, second) = (be16(l4, 0)?, be16(l4, 2)?);
        let flow = Self { host: (host, first), other: (other, second), protocol };
        let step = match protocol {
            TCP => match *l4.get(13)? {
                flags if flags & (TCP_FIN | TCP_RST) != 0 => Step::Ends,
                flags if flags & (TCP_SYN | TCP_ACK) == TCP_SYN => Step::Begins,
                flags if flags & TCP_SYN == 0 => Step::GoesOn,
                _ => return None,
            },
            UDP if first >= EPHEMERAL_FIRST && second < EPHEMERAL_FIRST => Step::Begins,
            ICMP | ICMPV6 if matches!((protocol, l4[0]), (ICMP, 8) | (ICMPV6, 128)) => {
                let flow = Self { host: (host, be16(l4, 4)?), other: (other, 0), protocol };
                return Some((flow, Step::Begins));
            }
            _ => return None,
        };
        Some((flow, step))
    }
}

/// Addresses, protocol and transport header of a frame of the host, where it has one: the kernel
/// sends no extension header but that of fragments with what matters here.
fn headers(frame: &[u8]) -> Option<(Addresses, u8, &[u8])> {
    let tagged = be16(frame, ETHERNET_LEN - 2)? == ETHERTYPE_VLAN;
    let l3 = ETHERNET_LEN + if tagged { VLAN_TAG_LEN } else { 0 };
    let packet = frame.get(l3..)?;
    match be16(frame, l3 - 2)? {
        ETHERTYPE_IPV4 => {
            let l4 = usize::from(packet.first()? & 0x0f) * 4;
            let later = be16(packet, 6)? & 0x1fff != 0;
            let (source, destination) = (be32(packet, 12)?, be32(packet, 16)?);
            let addresses = Addresses::V4 { source, destination };
            (!later).then_some((addresses, packet[9], packet.get(l4..)?))
        }
        ETHERTYPE_IPV6 => {
            let (source, destination) = (be128(packet, 8)?, be128(packet, 24)?);
            let addresses = Addresses::V6 { source, destination };
            if packet[6] != FRAGMENT {
                return Some((addresses, packet[6], packet.get(40..)?));
            }
            let later = be16(packet, 42)? & 0xfff8 != 0;
            (!later).then_some((addresses, packet[40], packet.get(48..)?))
        }
        _ => None,
    }
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; BUCKET_PLACES]);

/// The table. Made once at start, for all workers.
#[derive(Debug)]
pub struct HostFlows {
    buckets: Box<[Bucket]>,
    /// At random, so that nobody can choose flows that look like another.
    keys: RandomState,
}

impl HostFlows {
    /// An empty table with room for so many flows.
    pub fn new(flows: usize) -> Self {
        let buckets = flows.div_ceil(BUCKET_PLACES).max(1);
        let buckets = (0..buckets).map(|_| Bucket::default()).collect();
        Self { buckets, keys: RandomState::new() }
    }

    /// Notes what the host sends, before it is sent. `frame` begins with the Ethernet header.
    pub fn note(&self, frame: &[u8], now: Now) {
        let Some((flow, step)) = Flow::sent_in(frame) else { return };
        let (places, tag) = self.places(&flow);
        for place in places {
            let value = place.load(Relaxed);
            if is_of(value, tag) && lives(value, now) {
                let stage = match (step, Stage::of(value)) {
                    (Step::Ends, _) | (Step::GoesOn, Stage::Ending) => Stage::Ending,
                    (Step::GoesOn, _) => Stage::Lasting,
                    (Step::Begins, _) => Stage::Begun,
                };
                // Whoever is overtaken by another worker has lost nothing but a refresh.
                swap(place, value, pack(tag, stage, now));
                return;
            }
        }
        if step != Step::Begins {
            return;
        }
        for place in places {
            let value = place.load(Relaxed);
            if !lives(value, now) && swap(place, value, pack(tag, Stage::Begun, now)) {
                return;
            }
        }
    }

    /// True where the host began this flow, and answers to it are still to be expected.
    pub fn is_begun(&self, flow: &Flow, now: Now) -> bool {
        let (places, tag) = self.places(flow);
        places.iter().any(|place| {
            let value = place.load(Relaxed);
            is_of(value, tag) && lives(value, now)
        })
    }

    /// The places where a flow may be, and what it is known by there: 33 bits, so that a packet of
    /// no flow is taken for one of eight with a chance of one in a billion.
    fn places(&self, flow: &Flow) -> (&[AtomicU64; BUCKET_PLACES], u64) {
        let hash = self.keys.hash_one(flow);
        let at = ((hash & 0xffff_ffff) * self.buckets.len() as u64) >> 32;
        let tag = hash & !((1 << (TIME_BITS + STAGE_BITS)) - 1) | USED;
        (&self.buckets[at as usize].0, tag)
    }
}

const fn is_of(value: u64, tag: u64) -> bool {
    value >> (TIME_BITS + STAGE_BITS) == tag >> (TIME_BITS + STAGE_BITS)
}

const fn pack(tag: u64, stage: Stage, now: Now) -> u64 {
    tag | (stage as u64) << TIME_BITS | now.seconds() as u64 & TIME_MASK
}

fn lives(value: u64, now: Now) -> bool {
    let age_s = u64::from(now.seconds()).wrapping_sub(value) & TIME_MASK;
    // Another worker's clock may have been read a moment later.
    let is_ahead = age_s == TIME_MASK;
    value & USED != 0 && (is_ahead || age_s < Stage::of(value).life_s())
}

/// Writes the place, unless somebody else has. A word that is the same isn't written.
fn swap(place: &AtomicU64, from: u64, to: u64) -> bool {
    from == to || place.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
}
