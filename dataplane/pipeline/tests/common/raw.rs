//! Packets that are no whole TCP or UDP: fragments, ICMP, ARP, neighbour discovery.

use super::packets::{Mac, Packet};
use etherparse::checksum::Sum16BitWords;
use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn link(from: Mac, to: Mac, ether_type: EtherType) -> Vec<u8> {
    Ethernet2Header { source: from, destination: to, ether_type }.to_bytes().to_vec()
}

/// An IP packet of any protocol, without extension headers.
pub fn ip(
    (from, to): (Mac, Mac),
    (source, destination): (IpAddr, IpAddr),
    (protocol, ttl): (u8, u8),
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes = link(from, to, EtherType::IPV4);
            let (source, destination) = (source.octets(), destination.octets());
            let mut header =
                Ipv4Header::new(0, ttl, IpNumber(protocol), source, destination).unwrap();
            header.set_payload_len(payload.len()).unwrap();
            header.header_checksum = header.calc_header_checksum();
            bytes.extend(header.to_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes = link(from, to, EtherType::IPV6);
            let header = Ipv6Header {
                payload_length: payload.len() as u16,
                next_header: IpNumber(protocol),
                hop_limit: ttl,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            bytes.extend(header.to_bytes());
        }
        _ => panic!("two families"),
    }
    bytes.extend(payload);
    bytes
}

/// An ICMP or ICMPv6 message: type, code, the word after the checksum, and the rest.
pub fn icmp(
    macs: (Mac, Mac),
    (source, destination): (IpAddr, IpAddr),
    (kind, code, word): (u8, u8, u32),
    ttl: u8,
    rest: &[u8],
) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(rest);
    let protocol = if source.is_ipv4() { 1 } else { 58 };
    let mut sum = Sum16BitWords::new();
    if let (IpAddr::V6(a), IpAddr::V6(b)) = (source, destination) {
        let len = (message.len() as u16).to_be_bytes();
        sum = sum.add_16bytes(a.octets()).add_16bytes(b.octets());
        sum = sum.add_2bytes(len).add_2bytes([0, protocol]);
    }
    let sum = sum.add_slice(&message).ones_complement();
    message[2..4].copy_from_slice(&sum.to_ne_bytes());
    ip(macs, (source, destination), (protocol, ttl), &message)
}

/// An ICMP error that the receiver of `packet` sends back, quoting so many bytes of it from its IP
/// header on.
pub fn icmp_error(packet: &Packet, quote: usize) -> Vec<u8> {
    let inner = packet.build();
    let end = inner.len().min(14 + quote);
    let kind = if packet.source.is_ipv4() { (3, 4, 1400) } else { (2, 0, 1400) };
    let addresses = (packet.destination.ip(), packet.source.ip());
    icmp((packet.to, packet.from), addresses, kind, 64, &inner[14..end])
}

pub fn echo(macs: (Mac, Mac), addresses: (IpAddr, IpAddr), rest: &[u8]) -> Vec<u8> {
    let kind = if addresses.0.is_ipv4() { 8 } else { 128 };
    icmp(macs, addresses, (kind, 0, 0x0007_0001), 64, rest)
}

pub fn arp_request(from: Mac, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut bytes = link(from, [0xff; 6], EtherType::ARP);
    bytes.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    bytes.extend(from);
    bytes.extend(source.octets());
    bytes.extend([0; 6]);
    bytes.extend(target.octets());
    bytes
}

/// A neighbour solicitation with its option.
pub fn solicitation(from: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group =
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut rest = target.octets().to_vec();
    rest.extend([1, 1]);
    rest.extend(from);
    let addresses = (source.into(), group.into());
    icmp((from, [0x33, 0x33, 0xff, a, b, c]), addresses, (135, 0, 0), 255, &rest)
}

/// The packet in fragments of at most `size` bytes (a multiple of 8), with this identification.
pub fn fragments(packet: &Packet, id: u32, size: usize) -> Vec<Vec<u8>> {
    let l4 = packet.l4();
    let v4 = packet.source.is_ipv4();
    let mut out = Vec::new();
    for (n, piece) in l4.chunks(size).enumerate() {
        let more = (n + 1) * size < l4.len();
        let words = (n * size / 8) as u16;
        let mut bytes = packet.link();
        let l3 = bytes.len();
        if v4 {
            packet.ip(&mut bytes, piece.len());
            let flags = words | if more { 0x2000 } else { 0 };
            bytes[l3 + 4..l3 + 6].copy_from_slice(&(id as u16).to_be_bytes());
            bytes[l3 + 6..l3 + 8].copy_from_slice(&flags.to_be_bytes());
            fix_ipv4(&mut bytes, l3);
        } else {
            packet.ip(&mut bytes, piece.len() + 8);
            bytes[l3 + 6] = 44;
            let flags = words << 3 | u16::from(more);
            bytes.extend([packet.protocol.number(), 0]);
            bytes.extend(flags.to_be_bytes());
            bytes.extend(id.to_be_bytes());
        }
        bytes.extend(piece);
        out.push(bytes);
    }
    out
}

/// The first fragment of a whole IP packet, `len` bytes (a multiple of 8) of its payload.
pub fn first_fragment(whole: &[u8], len: usize) -> Vec<u8> {
    let v4 = whole[14] >> 4 == 4;
    let header = if v4 { 34 } else { 54 };
    let mut bytes = whole[..header].to_vec();
    if v4 {
        bytes[16..18].copy_from_slice(&(20 + len as u16).to_be_bytes());
        bytes[20] = 0x20;
        fix_ipv4(&mut bytes, 14);
    } else {
        bytes[18..20].copy_from_slice(&(8 + len as u16).to_be_bytes());
        bytes[20] = 44;
        bytes.extend([whole[20], 0, 0, 1, 0, 0, 0, 7]);
    }
    bytes.extend(&whole[header..header + len]);
    bytes
}

/// Puts the right checksum in an IPv4 header.
pub fn fix_ipv4(bytes: &mut [u8], l3: usize) {
    let len = usize::from(bytes[l3] & 15) * 4;
    bytes[l3 + 10..l3 + 12].fill(0);
    let sum = Sum16BitWords::new().add_slice(&bytes[l3..l3 + len]).ones_complement();
    bytes[l3 + 10..l3 + 12].copy_from_slice(&sum.to_ne_bytes());
}

/// An IPv6 packet with these extension headers (type and bytes, whose first is filled in here) in
/// front of its transport header.
pub fn extended(packet: &Packet, extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let l4 = packet.l4();
    let len: usize = extensions.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut bytes = packet.link();
    let l3 = bytes.len();
    packet.ip(&mut bytes, len + l4.len());
    let mut next = l3 + 6;
    for (kind, body) in extensions {
        bytes[next] = *kind;
        next = bytes.len();
        bytes.extend(body);
        bytes[next] = packet.protocol.number();
    }
    bytes.extend(l4);
    bytes
}
