//! Ethernet II, one 802.1Q tag, and ARP (RFC 826).

use super::{Addresses, ETHERTYPE_VLAN, Kind, Parsed, be16, be32};
use crate::adjacency::{Adjacencies, Ingress, Mac};
use crate::frame::Rx;
use model::drops::DropReason;

/// Bytes of an Ethernet header without a tag.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of an 802.1Q tag.
pub const VLAN_TAG_LEN: usize = 4;
/// Bytes of an ARP packet for Ethernet and IPv4.
const ARP_LEN: usize = 28;
/// Hardware type, protocol type, hardware and protocol length of ARP for Ethernet and IPv4.
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What the link header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'a> {
    /// The interface that the frame came in by.
    pub ingress: &'a Ingress,
    /// Offset of the network header.
    pub l3: usize,
    /// What that is.
    pub ethertype: u16,
    /// True where the destination is our MAC, false for a group.
    pub for_us: bool,
}

/// Reads the link header of a frame that is for us or for a group.
#[inline(always)]
pub(super) fn link<'a>(
    bytes: &[u8],
    rx: &Rx,
    adjacencies: &'a Adjacencies,
) -> Result<Link<'a>, DropReason> {
    let header: &[u8; ETHERNET_LEN] = bytes.first_chunk().ok_or(DropReason::EthernetTruncated)?;
    let mut ethertype = u16::from_be_bytes([header[12], header[13]]);
    let mut l3 = ETHERNET_LEN;
    let mut vlan = rx.vlan;
    // One tag alone: what a device leaves behind the one that it took off is an unknown Ethertype.
    if ethertype == ETHERTYPE_VLAN && rx.vlan.is_none() {
        let tag = be16(bytes, l3).ok_or(DropReason::EthernetTruncated)?;
        ethertype = be16(bytes, l3 + 2).ok_or(DropReason::EthernetTruncated)?;
        l3 += VLAN_TAG_LEN;
        vlan = Some(tag);
    }
    // The upper four bits are priority and drop eligibility; VLAN 0 is priority alone (802.1Q).
    let vlan = vlan.map(|tag| tag & 0x0fff).filter(|tag| *tag != 0);
    let ingress = adjacencies.ingress(rx.port, vlan).ok_or(DropReason::VlanUnknown)?;
    let [a, b, c, d, e, f, ..] = *header;
    let destination = Mac([a, b, c, d, e, f]);
    let for_us = ingress.mac == destination;
    if !for_us && !destination.is_multicast() {
        return Err(DropReason::NotOurMac);
    }
    Ok(Link { ingress, l3, ethertype, for_us })
}

/// ARP: the addresses are those of its payload, the transport offset that of its operation.
pub(super) fn parse_arp(bytes: &[u8], parsed: &mut Parsed) -> Result<(), DropReason> {
    let l3 = usize::from(parsed.l3);
    let arp = bytes.get(l3..l3 + ARP_LEN).ok_or(DropReason::ArpMalformed)?;
    if arp[..6] != ARP_ETHERNET_IPV4 {
        return Err(DropReason::ArpMalformed);
    }
    let source = be32(arp, 14).ok_or(DropReason::ArpMalformed)?;
    let destination = be32(arp, 24).ok_or(DropReason::ArpMalformed)?;
    parsed.kind = Kind::Arp;
    parsed.l4 = parsed.l3 + 6;
    parsed.addresses = Addresses::V4 { source, destination };
    Ok(())
}
