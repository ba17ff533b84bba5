//! Packets made without the pipeline's code: headers by hand and by etherparse, every checksum
//! computed in full.

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header};
use std::net::{IpAddr, SocketAddr};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// TCP flag FIN.
pub const FIN: u8 = 0x01;
/// TCP flag SYN.
pub const SYN: u8 = 0x02;
/// TCP flag RST.
pub const RST: u8 = 0x04;
/// TCP flag PSH.
pub const PSH: u8 = 0x08;
/// TCP flag ACK.
pub const ACK: u8 = 0x10;

/// What the IP packet carries. Ports stand in the packet's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// TCP.
    Tcp {
        /// Sequence number.
        sequence: u32,
        /// Acknowledgement number.
        acknowledged: u32,
        /// The 14th byte of the header.
        flags: u8,
        /// Window.
        window: u16,
        /// Options, a multiple of 4 bytes.
        options: Vec<u8>,
        /// Data.
        data: Vec<u8>,
    },
    /// UDP.
    Udp {
        /// False leaves the checksum 0.
        checksum: bool,
        /// Data.
        data: Vec<u8>,
    },
    /// ICMP or ICMPv6, by the family of the addresses.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The 32 bits after the checksum.
        word: u32,
        /// What follows.
        data: Vec<u8>,
    },
    /// Anything.
    Raw {
        /// Protocol number.
        protocol: u8,
        /// Bytes.
        data: Vec<u8>,
    },
}

/// An Ethernet frame that holds an IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source and destination MAC.
    pub macs: (Mac, Mac),
    /// 802.1Q tag, all 16 bits.
    pub tag: Option<u16>,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4: identification.
    pub id: u16,
    /// IPv4: don't fragment.
    pub df: bool,
    /// IPv4: options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// IPv6: extension headers as (number, all but the first byte).
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// What it carries.
    pub body: Body,
    /// Bytes after the IP packet.
    pub padding: Vec<u8>,
}

/// The Internet checksum of `bytes` after a sum.
fn finish(sum: Sum16BitWords, bytes: &[u8]) -> u16 {
    sum.add_slice(bytes).ones_complement().to_be()
}

/// The sum of the pseudo header.
pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Sum16BitWords {
    let mut sum = Sum16BitWords::new();
    let mut sum = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            sum.add_4bytes(source.octets()).add_4bytes(destination.octets())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            sum.add_16bytes(source.octets()).add_16bytes(destination.octets())
        }
        _ => panic!("{source} and {destination} are of different families"),
    };
    sum.add_4bytes((len as u32).to_be_bytes()).add_2bytes([0, protocol])
}

impl Packet {
    /// True for IPv4.
    pub fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }
    /// The protocol number of the body.
    pub fn protocol(&self) -> u8 {
        match &self.body {
            Body::Tcp { .. } => 6,
            Body::Udp { .. } => 17,
            Body::Icmp { .. } if self.is_v4() => 1,
            Body::Icmp { .. } => 58,
            Body::Raw { protocol, .. } => *protocol,
        }
    }
    /// The transport header and what follows, checksum included.
    pub fn l4(&self) -> Vec<u8> {
        let (source, destination) = (self.source.ip(), self.destination.ip());
        let ports = [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()];
        let mut bytes = Vec::new();
        let at = match &self.body {
            Body::Tcp { sequence, acknowledged, flags, window, options, data } => {
                bytes.extend(ports.concat());
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledged.to_be_bytes());
                bytes.extend([((5 + options.len() / 4) << 4) as u8, *flags]);
                bytes.extend(window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(options);
                bytes.extend(data);
                16
            }
            Body::Udp { checksum, data } => {
                bytes.extend(ports.concat());
                bytes.extend(((8 + data.len()) as u16).to_be_bytes());
                bytes.extend([0; 2]);
                bytes.extend(data);
                if !checksum {
                    return bytes;
                }
                6
            }
            Body::Icmp { kind, code, word, data } => {
                bytes.extend([*kind, *code, 0, 0]);
                bytes.extend(word.to_be_bytes());
                bytes.extend(data);
                2
            }
            Body::Raw { data, .. } => return data.clone(),
        };
        let sum = if matches!(self.body, Body::Icmp { .. }) && self.is_v4() {
            Sum16BitWords::new()
        } else {
            pseudo(source, destination, self.protocol(), bytes.len())
        };
        let mut checksum = finish(sum, &bytes);
        if matches!(self.body, Body::Udp { .. }) && checksum == 0 {
            checksum = 0xffff;
        }
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }
    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        self.ip_with(None, &self.l4())
    }
    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        self.frame(&self.ip())
    }
    /// The frame's fragments, the packet's payload cut at these offsets (multiples of 8).
    pub fn fragments(&self, id: u32, cuts: &[usize]) -> Vec<Vec<u8>> {
        let l4 = self.l4();
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain(std::iter::once(l4.len()));
        starts
            .zip(ends)
            .map(|(start, end)| {
                let more = end < l4.len();
                self.frame(&self.ip_with(Some((id, start, more)), &l4[start..end]))
            })
            .collect()
    }
    fn ip_with(&self, fragment: Option<(u32, usize, bool)>, payload: &[u8]) -> Vec<u8> {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (id, offset, more) =
                    fragment.map_or((self.id, 0, false), |(id, at, more)| (id as u16, at, more));
                let mut header = Ipv4Header {
                    identification: id,
                    dont_fragment: self.df && fragment.is_none(),
                    more_fragments: more,
                    fragment_offset: IpFragOffset::try_new((offset / 8) as u16).unwrap(),
                    time_to_live: self.ttl,
                    protocol: IpNumber(self.protocol()),
                    source: source.octets(),
                    destination: destination.octets(),
                    options: Ipv4Options::try_from(self.options.as_slice()).unwrap(),
                    ..Ipv4Header::default()
                };
                header.total_len = (header.header_len() + payload.len()) as u16;
                header.header_checksum = header.calc_header_checksum();
                [&header.to_bytes()[..], payload].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut chain = self.extensions.clone();
                if let Some((id, offset, more)) = fragment {
                    let word = (offset as u16 | u16::from(more)).to_be_bytes();
                    let body = [&[0], &word[..], &id.to_be_bytes()].concat();
                    chain.push((44, body));
                }
                let mut extensions = Vec::new();
                let next = |at: usize| chain.get(at).map_or(self.protocol(), |header| header.0);
                for (at, (_, body)) in chain.iter().enumerate() {
                    extensions.push(next(at + 1));
                    extensions.extend(body);
                }
                let header = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: (extensions.len() + payload.len()) as u16,
                    next_header: IpNumber(next(0)),
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                [&header.to_bytes()[..], &extensions, payload].concat()
            }
            (source, destination) => panic!("{source} to {destination}"),
        }
    }
    fn frame(&self, ip: &[u8]) -> Vec<u8> {
        let ethertype = if self.is_v4() { 0x0800 } else { 0x86dd };
        [&ethernet(self.macs, self.tag, ethertype), ip, &self.padding].concat()
    }

    /// With another TTL.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }
    /// With data.
    pub fn data(mut self, bytes: &[u8]) -> Self {
        match &mut self.body {
            Body::Tcp { data, .. }
            | Body::Udp { data, .. }
            | Body::Icmp { data, .. }
            | Body::Raw { data, .. } => *data = bytes.to_vec(),
        }
        self
    }
    /// TCP with these numbers.
    pub fn numbers(mut self, seq: u32, ack: u32) -> Self {
        if let Body::Tcp { sequence, acknowledged, .. } = &mut self.body {
            (*sequence, *acknowledged) = (seq, ack);
        }
        self
    }
    /// With another body.
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }
    /// With a tag.
    pub fn tag(mut self, tag: Option<u16>) -> Self {
        self.tag = tag;
        self
    }
    /// Sent to another MAC.
    pub fn to_mac(mut self, mac: Mac) -> Self {
        self.macs.1 = mac;
        self
    }
    /// Sent by another MAC.
    pub fn from_mac(mut self, mac: Mac) -> Self {
        self.macs.0 = mac;
        self
    }
    /// With another sender.
    pub fn from(mut self, source: SocketAddr) -> Self {
        self.source = source;
        self
    }
    /// With another receiver.
    pub fn to(mut self, destination: SocketAddr) -> Self {
        self.destination = destination;
        self
    }
    /// Back to where it came from: MACs, addresses and ports swapped.
    pub fn reversed(mut self) -> Self {
        std::mem::swap(&mut self.source, &mut self.destination);
        self.macs = (self.macs.1, self.macs.0);
        self
    }
}

/// A frame's link header.
pub fn ethernet((source, destination): (Mac, Mac), tag: Option<u16>, ethertype: u16) -> Vec<u8> {
    let mut bytes = [destination, source].concat();
    if let Some(tag) = tag {
        bytes.extend([0x81, 0x00]);
        bytes.extend(tag.to_be_bytes());
    }
    bytes.extend(ethertype.to_be_bytes());
    bytes
}

/// TCP with these flags, a window of 64,240 and no options; sequence number 1000, but for a SYN-ACK,
/// which all other segments acknowledge.
pub fn tcp(flags: u8) -> Body {
    let acknowledged = if flags & ACK != 0 { 2000 } else { 0 };
    Body::Tcp {
        sequence: if flags & (SYN | ACK) == SYN | ACK { 1999 } else { 1000 },
        acknowledged,
        flags,
        window: 64_240,
        options: Vec::new(),
        data: Vec::new(),
    }
}

/// UDP with this data and a checksum.
pub fn udp(data: &[u8]) -> Body {
    Body::Udp { checksum: true, data: data.to_vec() }
}

/// ICMP or ICMPv6.
pub fn icmp(kind: u8, code: u8, word: u32, data: &[u8]) -> Body {
    Body::Icmp { kind, code, word, data: data.to_vec() }
}

/// A packet between two sockets.
pub fn packet(macs: (Mac, Mac), source: SocketAddr, destination: SocketAddr, body: Body) -> Packet {
    Packet {
        macs,
        tag: None,
        source,
        destination,
        ttl: 64,
        id: 0x1234,
        df: true,
        options: Vec::new(),
        extensions: Vec::new(),
        body,
        padding: Vec::new(),
    }
}

/// An ARP packet for Ethernet and IPv4.
pub fn arp(
    macs: (Mac, Mac),
    operation: u16,
    (sender_mac, sender): (Mac, [u8; 4]),
    (target_mac, target): (Mac, [u8; 4]),
) -> Vec<u8> {
    let mut bytes = ethernet(macs, None, 0x0806);
    bytes.extend([0, 1, 8, 0, 6, 4]);
    bytes.extend(operation.to_be_bytes());
    bytes.extend(sender_mac);
    bytes.extend(sender);
    bytes.extend(target_mac);
    bytes.extend(target);
    bytes
}
