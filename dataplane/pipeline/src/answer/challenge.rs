//! A segment of our own that a TCP peer has to answer.

use super::{TTL, write_ipv4, write_ipv6};
use crate::adjacency::Adjacency;
use crate::connections::{Address, Direction, Entry};
use crate::frame::{Frame, Rx};
use crate::parse::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, TCP, TCP_ACK, VLAN_TAG_LEN, put};
use crate::rewrite::{checksum, write_adjacency};
use model::ids::{InterfaceId, PortId};
use std::net::IpAddr;

const TCP_LEN: usize = 20;
const LINK_LEN_MAX: usize = ETHERNET_LEN + VLAN_TAG_LEN;
const LEN_MAX: usize = LINK_LEN_MAX + 40 + TCP_LEN;

/// A frame that was made here, of no packet that came in.
#[derive(Clone, Copy, Debug)]
pub struct Generated {
    /// The port that it leaves by.
    pub port: PortId,
    /// The interface, whose budget it is.
    pub interface: InterfaceId,
    buffer: [u8; LEN_MAX],
    span: (usize, usize),
}

impl Generated {
    /// The frame, from the Ethernet header on.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.span.0..self.span.1).unwrap_or(&[])
    }
}

/// A bare ACK to the side of a connection that `direction` leads to, as from the other side, with a
/// sequence number that fits the receiver's window with a chance of one in thousands at most: so it
/// is answered by an ACK that says which number would (RFC 9293 section 3.10.7.4, first check), or
/// where there is no such connection by a RST with the number that this one acknowledges: nobody
/// else knows it.
pub fn challenge<A: Address>(
    entry: &Entry<A>,
    direction: Direction,
    adjacency: &Adjacency,
    (sequence, acknowledged): (u32, u32),
) -> Option<Generated> {
    let key = entry.other_key(direction).reversed();
    let mut buffer = [0; LEN_MAX];
    let (header_len, ethertype) = match key.destination.to_ip() {
        IpAddr::V4(_) => (20, ETHERTYPE_IPV4),
        IpAddr::V6(_) => (40, ETHERTYPE_IPV6),
    };
    let end = LINK_LEN_MAX + header_len + TCP_LEN;
    let mut frame = Frame::new(&mut buffer, LINK_LEN_MAX, end, 0, Rx::default());
    let bytes = frame.bytes_mut();
    match (key.source.to_ip(), key.destination.to_ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let addresses = (source.to_bits(), destination.to_bits());
            write_ipv4(bytes, 0, header_len + TCP_LEN, TCP, addresses);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let addresses = (source.to_bits(), destination.to_bits());
            write_ipv6(bytes, 0, TCP_LEN, (TCP, TTL), addresses);
        }
        _ => return None,
    }
    let tcp = bytes.get_mut(header_len..)?;
    put(tcp, 0, &key.source_port.to_be_bytes());
    put(tcp, 2, &key.destination_port.to_be_bytes());
    put(tcp, 4, &sequence.to_be_bytes());
    put(tcp, 8, &acknowledged.to_be_bytes());
    tcp[12] = (TCP_LEN as u8 / 4) << 4;
    tcp[13] = TCP_ACK;
    let addresses = checksum::add(key.source.sum(), key.destination.sum());
    let pseudo = checksum::add(addresses, checksum::pseudo(TCP, TCP_LEN));
    let sum = !checksum::fold(checksum::sum(tcp, u32::from(pseudo)));
    put(tcp, 16, &sum.to_be_bytes());
    if !write_adjacency(&mut frame, 0, adjacency, ethertype) {
        return None;
    }
    let span = frame.span();
    Some(Generated { port: adjacency.port, interface: adjacency.interface, buffer, span })
}
