//! Packets, built with etherparse and verified in full: every checksum, every length.

use super::{BACK_MAC, FRONT_MAC, client, frontend_ip, mac_of};
use etherparse::checksum::Sum16BitWords;
use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, NetSlice,
    SingleVlanHeader, SlicedPacket, TcpHeader, TransportSlice, UdpHeader, VlanId,
};
use model::ids::Protocol;
use std::net::{IpAddr, SocketAddr};

pub type Mac = [u8; 6];

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// A TCP or UDP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub from: Mac,
    pub to: Mac,
    pub vlan: Option<u16>,
    pub protocol: Protocol,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub ttl: u8,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// Of TCP alone.
    pub flags: u8,
    /// False: a UDP checksum of 0.
    pub checksum: bool,
    pub payload: Vec<u8>,
}

impl Packet {
    /// A client's packet to the frontend address.
    pub fn to_frontend(protocol: Protocol, v6: bool, n: u8, (from, to): (u16, u16)) -> Self {
        Self {
            from: mac_of(0, n),
            to: FRONT_MAC,
            vlan: None,
            protocol,
            source: SocketAddr::new(client(v6, n), from),
            destination: SocketAddr::new(frontend_ip(v6), to),
            ttl: 64,
            options: Vec::new(),
            flags: SYN,
            checksum: true,
            payload: Vec::new(),
        }
    }
    /// A packet from a backend on its link to a NAT address and port.
    pub fn to_nat(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Self {
        let last = match from.ip() {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        };
        Self {
            from: mac_of(1, last),
            to: BACK_MAC,
            source: from,
            destination: to,
            ..Self::to_frontend(protocol, from.is_ipv6(), 10, (0, 0))
        }
    }
    pub fn flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }
    pub fn payload(self, payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), ..self }
    }

    pub fn build(&self) -> Vec<u8> {
        let l4 = self.l4();
        let mut bytes = self.link();
        self.ip(&mut bytes, l4.len());
        bytes.extend(l4);
        bytes
    }

    /// The link header.
    pub fn link(&self) -> Vec<u8> {
        let v6 = self.source.is_ipv6();
        let inner = if v6 { EtherType::IPV6 } else { EtherType::IPV4 };
        let ether_type = if self.vlan.is_some() { EtherType::VLAN_TAGGED_FRAME } else { inner };
        let link = Ethernet2Header { source: self.from, destination: self.to, ether_type };
        let mut bytes = link.to_bytes().to_vec();
        if let Some(vlan) = self.vlan {
            let tag = SingleVlanHeader {
                pcp: Default::default(),
                drop_eligible_indicator: false,
                vlan_id: VlanId::try_new(vlan).unwrap(),
                ether_type: inner,
            };
            bytes.extend(tag.to_bytes());
        }
        bytes
    }

    /// Appends the IP header for so many bytes of payload.
    pub fn ip(&self, bytes: &mut Vec<u8>, l4_len: usize) {
        let number = IpNumber(self.protocol.number());
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (source, destination) = (source.octets(), destination.octets());
                let mut header = Ipv4Header::new(0, self.ttl, number, source, destination).unwrap();
                header.options = Ipv4Options::try_from(&self.options[..]).unwrap();
                header.identification = 7;
                header.set_payload_len(l4_len).unwrap();
                header.header_checksum = header.calc_header_checksum();
                bytes.extend(header.to_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    payload_length: l4_len as u16,
                    next_header: number,
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                bytes.extend(header.to_bytes());
            }
            _ => panic!("two families"),
        }
    }

    /// The transport header and payload.
    pub fn l4(&self) -> Vec<u8> {
        let (source, destination) = (self.source.port(), self.destination.port());
        let ips = (self.source.ip(), self.destination.ip());
        let mut bytes = if self.protocol == Protocol::Udp {
            let len = 8 + self.payload.len() as u16;
            let mut udp = UdpHeader {
                source_port: source,
                destination_port: destination,
                length: len,
                checksum: 0,
            };
            if self.checksum {
                udp.checksum = match ips {
                    (IpAddr::V4(a), IpAddr::V4(b)) => {
                        udp.calc_checksum_ipv4_raw(a.octets(), b.octets(), &self.payload)
                    }
                    (IpAddr::V6(a), IpAddr::V6(b)) => {
                        udp.calc_checksum_ipv6_raw(a.octets(), b.octets(), &self.payload)
                    }
                    _ => panic!("two families"),
                }
                .unwrap();
            }
            udp.to_bytes().to_vec()
        } else {
            let mut tcp = TcpHeader::new(source, destination, 1000, 65_000);
            (tcp.fin, tcp.syn) = (self.flags & FIN != 0, self.flags & SYN != 0);
            (tcp.rst, tcp.ack) = (self.flags & RST != 0, self.flags & ACK != 0);
            tcp.acknowledgment_number = if tcp.ack { 2000 } else { 0 };
            if tcp.syn && tcp.ack {
                // What the client acknowledges.
                tcp.sequence_number = 1999;
            }
            tcp.checksum = match ips {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    tcp.calc_checksum_ipv4_raw(a.octets(), b.octets(), &self.payload)
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    tcp.calc_checksum_ipv6_raw(a.octets(), b.octets(), &self.payload)
                }
                _ => panic!("two families"),
            }
            .unwrap();
            tcp.to_bytes().to_vec()
        };
        bytes.extend(&self.payload);
        bytes
    }

    /// The packet in a frame, which must be right in everything that can be verified.
    pub fn parse(bytes: &[u8]) -> Self {
        let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
        let vlan = sliced.vlan_ids().first().map(|id| id.value());
        let l3 = if vlan.is_some() { 18 } else { 14 };
        let (ip, ttl, options) = verify_ip(&bytes[l3..], &sliced);
        let (protocol, ports, flags, checksum, payload) = match sliced.transport.unwrap() {
            TransportSlice::Tcp(tcp) => {
                let bit = |set: bool, flag: u8| if set { flag } else { 0 };
                let flags = bit(tcp.syn(), SYN)
                    | bit(tcp.ack(), ACK)
                    | bit(tcp.rst(), RST)
                    | bit(tcp.fin(), FIN);
                let ports = (tcp.source_port(), tcp.destination_port());
                (Protocol::Tcp, ports, flags, true, tcp.payload().to_vec())
            }
            TransportSlice::Udp(udp) => {
                let ports = (udp.source_port(), udp.destination_port());
                (Protocol::Udp, ports, SYN, udp.checksum() != 0, udp.payload().to_vec())
            }
            other => panic!("neither TCP nor UDP: {other:?}"),
        };
        Self {
            from: bytes[6..12].try_into().unwrap(),
            to: bytes[..6].try_into().unwrap(),
            vlan,
            protocol,
            source: SocketAddr::new(ip.0, ports.0),
            destination: SocketAddr::new(ip.1, ports.1),
            ttl,
            options,
            flags,
            checksum,
            payload,
        }
    }

    /// What the receiver answers with.
    pub fn reply(&self, flags: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            from: self.to,
            to: self.from,
            source: self.destination,
            destination: self.source,
            ttl: 64,
            options: Vec::new(),
            flags,
            payload: payload.into(),
            ..*self
        }
    }
}

/// Addresses, TTL and options of an IP packet whose checksums and lengths are right.
fn verify_ip(ip_bytes: &[u8], sliced: &SlicedPacket<'_>) -> ((IpAddr, IpAddr), u8, Vec<u8>) {
    match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let sum = Sum16BitWords::new().add_slice(header.slice()).ones_complement();
            assert_eq!(sum, 0, "IPv4 header checksum");
            assert_eq!(usize::from(header.total_len()), ip_bytes.len(), "lengths agree");
            let pseudo =
                Sum16BitWords::new().add_4bytes(header.source()).add_4bytes(header.destination());
            verify_l4(pseudo, header.protocol().0, &ip_bytes[header.slice().len()..], true);
            let addresses = (header.source_addr().into(), header.destination_addr().into());
            (addresses, header.ttl(), header.options().to_vec())
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            assert_eq!(40 + usize::from(header.payload_length()), ip_bytes.len(), "lengths agree");
            let pseudo =
                Sum16BitWords::new().add_slice(&header.source()).add_slice(&header.destination());
            verify_l4(pseudo, header.next_header().0, &ip_bytes[40..], false);
            let addresses = (header.source_addr().into(), header.destination_addr().into());
            (addresses, header.hop_limit(), Vec::new())
        }
        NetSlice::Arp(_) => panic!("ARP"),
    }
}

fn verify_l4(addresses: Sum16BitWords, protocol: u8, l4: &[u8], v4: bool) {
    if v4 && protocol == 17 && l4[6..8] == [0, 0] {
        return;
    }
    let start = if protocol == 1 {
        Sum16BitWords::new()
    } else {
        addresses.add_2bytes([0, protocol]).add_2bytes((l4.len() as u16).to_be_bytes())
    };
    assert_eq!(start.add_slice(l4).ones_complement(), 0, "checksum of protocol {protocol}");
}
