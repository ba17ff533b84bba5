//! ARP replies (RFC 826) and neighbour advertisements (RFC 4861) for addresses that workers hold.

use super::{sender, write_ipv6};
use crate::adjacency::{Interface, Mac};
use crate::frame::Frame;
use crate::parse::{Addresses, ETHERTYPE_ARP, ETHERTYPE_IPV6, ICMPV6, Parsed, put};
use crate::rewrite::{checksum, turn_round, write_link};

/// Bytes of a neighbour advertisement with the option that holds our MAC.
const ADVERTISEMENT_LEN: usize = 32;
/// All nodes on the link.
const ALL_NODES: u128 = 0xff02_0000_0000_0000_0000_0000_0000_0001;
/// Neighbour discovery is valid with this hop limit alone: it proves that the sender is on the link.
const ND_HOP_LIMIT: u8 = 255;

/// Turns an ARP request into the reply that names our MAC. False where the frame has no room.
pub fn arp_reply(frame: &mut Frame<'_>, parsed: &Parsed, interface: &Interface) -> bool {
    let to = sender(frame);
    let l3 = usize::from(parsed.l3);
    if !frame.resize(l3 + 28) {
        return false;
    }
    let Addresses::V4 { source, destination } = parsed.addresses else { return false };
    let arp = &mut frame.bytes_mut()[l3..];
    let asker: [u8; 6] = arp[8..14].first_chunk().copied().unwrap_or_default();
    put(arp, 6, &2u16.to_be_bytes());
    put(arp, 8, &interface.mac.0);
    put(arp, 14, &destination.to_be_bytes());
    put(arp, 18, &asker);
    put(arp, 24, &source.to_be_bytes());
    turn_round(frame, l3, to, interface, ETHERTYPE_ARP)
}

/// Turns a neighbour solicitation for `target` into the advertisement that names our MAC. To one
/// that asks whether the address is free (its source is `::`) the answer goes to all nodes. False
/// where the frame has no room.
pub fn neighbour_advertisement(
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    interface: &Interface,
    target: u128,
) -> bool {
    let Addresses::V6 { source, .. } = parsed.addresses else { return false };
    let unsolicited = source == 0;
    let to = if unsolicited { Mac([0x33, 0x33, 0, 0, 0, 1]) } else { sender(frame) };
    let destination = if unsolicited { ALL_NODES } else { source };
    let l3 = usize::from(parsed.l3);
    if !frame.resize(l3 + 40 + ADVERTISEMENT_LEN) {
        return false;
    }
    let bytes = frame.bytes_mut();
    write_ipv6(bytes, l3, ADVERTISEMENT_LEN, (ICMPV6, ND_HOP_LIMIT), (target, destination));
    let na = &mut bytes[l3 + 40..];
    na.fill(0);
    na[0] = 136;
    // Solicited and override; a router flag would be a lie.
    na[4] = if unsolicited { 0x20 } else { 0x60 };
    put(na, 8, &target.to_be_bytes());
    put(na, 24, &[2, 1]);
    put(na, 26, &interface.mac.0);
    let addresses = checksum::add(checksum::sum128(target), checksum::sum128(destination));
    let pseudo = checksum::add(addresses, checksum::pseudo(ICMPV6, ADVERTISEMENT_LEN));
    let sum = !checksum::fold(checksum::sum(na, u32::from(pseudo)));
    put(na, 2, &sum.to_be_bytes());
    write_link(frame, l3, (to, interface.mac), interface.vlan, ETHERTYPE_IPV6)
}
