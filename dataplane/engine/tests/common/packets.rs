//! Packets, built with etherparse and verified in full: every checksum, every length.

use etherparse::checksum::Sum16BitWords;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};
use model::ids::Protocol;
use std::net::{IpAddr, SocketAddr};

pub type Mac = [u8; 6];

pub const SYN: u8 = 1;
pub const ACK: u8 = 2;
pub const RST: u8 = 4;
pub const FIN: u8 = 8;

/// A TCP or UDP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub from: Mac,
    pub to: Mac,
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub ttl: u8,
    /// Of TCP alone.
    pub flags: u8,
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn build(&self) -> Vec<u8> {
        let link = PacketBuilder::ethernet2(self.from, self.to);
        let ip = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                link.ipv4(source.octets(), destination.octets(), self.ttl)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                link.ipv6(source.octets(), destination.octets(), self.ttl)
            }
            _ => panic!("two families"),
        };
        let (source, destination) = (self.source.port(), self.destination.port());
        let mut bytes = Vec::with_capacity(ip.size(0) + 40 + self.payload.len());
        if self.protocol == Protocol::Udp {
            ip.udp(source, destination).write(&mut bytes, &self.payload).unwrap();
            return bytes;
        }
        let mut header = TcpHeader::new(source, destination, 1000, 65_000);
        (header.syn, header.ack) = (self.flags & SYN != 0, self.flags & ACK != 0);
        (header.rst, header.fin) = (self.flags & RST != 0, self.flags & FIN != 0);
        header.acknowledgment_number = if header.ack { 2000 } else { 0 };
        if header.syn && header.ack {
            // What the client acknowledges.
            header.sequence_number = 1999;
        }
        ip.tcp_header(header).write(&mut bytes, &self.payload).unwrap();
        bytes
    }

    /// The packet in a frame, which must be right in everything that can be verified.
    pub fn parse(bytes: &[u8]) -> Self {
        let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
        let to = bytes[..6].try_into().unwrap();
        let from = bytes[6..12].try_into().unwrap();
        let (ip, ttl) = verify_ip(bytes, &sliced);
        let (protocol, ports, flags, payload) = match sliced.transport.unwrap() {
            TransportSlice::Tcp(tcp) => {
                let bit = |set: bool, flag: u8| if set { flag } else { 0 };
                let flags = bit(tcp.syn(), SYN)
                    | bit(tcp.ack(), ACK)
                    | bit(tcp.rst(), RST)
                    | bit(tcp.fin(), FIN);
                let ports = (tcp.source_port(), tcp.destination_port());
                (Protocol::Tcp, ports, flags, tcp.payload().to_vec())
            }
            TransportSlice::Udp(udp) => {
                let ports = (udp.source_port(), udp.destination_port());
                (Protocol::Udp, ports, 0, udp.payload().to_vec())
            }
            other => panic!("neither TCP nor UDP: {other:?}"),
        };
        Self {
            from,
            to,
            protocol,
            source: SocketAddr::new(ip.0, ports.0),
            destination: SocketAddr::new(ip.1, ports.1),
            ttl,
            flags,
            payload,
        }
    }

    /// What the receiver answers with.
    pub fn reply(&self, flags: u8, payload: Vec<u8>) -> Self {
        Self {
            from: self.to,
            to: self.from,
            source: self.destination,
            destination: self.source,
            ttl: 64,
            flags,
            payload,
            ..*self
        }
    }
}

/// Addresses and TTL of a packet whose checksums are right.
pub fn verify_ip(bytes: &[u8], sliced: &SlicedPacket<'_>) -> ((IpAddr, IpAddr), u8) {
    match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let sum = Sum16BitWords::new().add_slice(header.slice()).ones_complement();
            assert_eq!(sum, 0, "IPv4 header checksum");
            assert_eq!(14 + usize::from(header.total_len()), bytes.len(), "lengths agree");
            let l4 = &bytes[14 + header.slice().len()..];
            let pseudo = Sum16BitWords::new()
                .add_4bytes(header.source())
                .add_4bytes(header.destination())
                .add_2bytes([0, header.protocol().0]);
            verify_l4(pseudo, header.protocol().0, l4);
            ((header.source_addr().into(), header.destination_addr().into()), header.ttl())
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            assert_eq!(54 + usize::from(header.payload_length()), bytes.len(), "lengths agree");
            let pseudo = Sum16BitWords::new()
                .add_slice(&header.source())
                .add_slice(&header.destination())
                .add_2bytes([0, header.next_header().0]);
            verify_l4(pseudo, header.next_header().0, &bytes[54..]);
            ((header.source_addr().into(), header.destination_addr().into()), header.hop_limit())
        }
        NetSlice::Arp(_) => panic!("ARP"),
    }
}

fn verify_l4(pseudo: Sum16BitWords, protocol: u8, l4: &[u8]) {
    let start = if protocol == 1 {
        Sum16BitWords::new()
    } else {
        pseudo.add_2bytes((l4.len() as u16).to_be_bytes())
    };
    assert_eq!(start.add_slice(l4).ones_complement(), 0, "checksum of protocol {protocol}");
}
