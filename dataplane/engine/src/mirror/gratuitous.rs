//! The frames that announce an address: gratuitous ARP and unsolicited neighbour advertisements.

use pipeline::adjacency::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The frame that announces `address` at `mac`.
pub(crate) fn announcement(address: IpAddr, mac: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => gratuitous_arp(address, mac),
        IpAddr::V6(address) => unsolicited_advertisement(address, mac),
    }
}

/// An ARP announcement (RFC 5227 section 3): a broadcast request whose sender and target address
/// are the announced one. Padded to the 60 bytes that Ethernet wants.
fn gratuitous_arp(address: Ipv4Addr, mac: Mac) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend([0xff; 6]);
    frame.extend(mac.0);
    frame.extend([0x08, 0x06]);
    // Ethernet, IPv4, lengths 6 and 4, request.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame.resize(60, 0);
    frame
}

/// Bytes of a neighbour advertisement with the option that holds our MAC.
const ADVERTISEMENT_BYTES: u8 = 32;

/// An unsolicited neighbour advertisement to all nodes (RFC 4861 sections 4.4 and 7.2.6): override
/// set, solicited and router not.
fn unsolicited_advertisement(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(address.octets());
    // Option 2, target link-layer address, one unit of eight bytes.
    message.extend([2, 1]);
    message.extend(mac.0);
    let checksum = icmp6_checksum(address, all_nodes, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = Vec::with_capacity(86);
    frame.extend([0x33, 0x33, 0, 0, 0, 1]);
    frame.extend(mac.0);
    frame.extend([0x86, 0xdd]);
    // Version 6, no traffic class, no flow label; ICMPv6; hop limit 255, which receivers check.
    frame.extend([0x60, 0, 0, 0, 0, ADVERTISEMENT_BYTES, 58, 255]);
    frame.extend(address.octets());
    frame.extend(all_nodes.octets());
    frame.extend(message);
    frame
}

/// The checksum over the pseudo header and a message of even length (RFC 4443 section 2.3).
fn icmp6_checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = source.segments().into_iter().chain(destination.segments());
    let header: u32 = words.map(u32::from).sum::<u32>() + message.len() as u32 + 58;
    let body: u32 =
        message.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let mut sum = header + body;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 0x0a]);

    #[test]
    fn a_gratuitous_arp_is_byte_for_byte_as_rfc_5227_says() {
        let expected = "ffffffffffff02000000000a08060001080006040001\
                        02000000000acb00710a000000000000cb00710a\
                        000000000000000000000000000000000000";
        let frame = announcement("203.0.113.10".parse().unwrap(), MAC);
        assert_eq!(hex(&frame), expected);
    }

    #[test]
    fn an_unsolicited_advertisement_is_byte_for_byte_as_rfc_4861_says() {
        let expected = "33330000000102000000000a86dd60000000002\
                        03aff20010db8000000000000000000000010ff020000000000000000000000000001\
                        8800f9032000000020010db8000000000000000000000010020102000000000a";
        let frame = announcement("2001:db8::10".parse().unwrap(), MAC);
        assert_eq!(hex(&frame), expected);
    }

    #[test]
    fn another_implementation_accepts_the_advertisement() {
        let address: Ipv6Addr = "2001:db8::ffff:10".parse().unwrap();
        let frame = announcement(address.into(), Mac([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]));
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = packet.net else { panic!("no IPv6") };
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("no ICMPv6") };
        assert_eq!(ip.header().hop_limit(), 255);
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
