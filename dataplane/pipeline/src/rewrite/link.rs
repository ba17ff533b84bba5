//! The Ethernet header, with or without an 802.1Q tag.

use crate::adjacency::{Interface, Mac};
use crate::frame::Frame;
use crate::parse::{ETHERNET_LEN, ETHERTYPE_VLAN, VLAN_TAG_LEN, put};

/// Writes the link header in front of the network header at `l3`, and moves the frame's start to
/// it. False where there is no room in front.
#[inline]
pub fn write_link(
    frame: &mut Frame<'_>,
    l3: usize,
    (destination, source): (Mac, Mac),
    vlan: Option<u16>,
    ethertype: u16,
) -> bool {
    let len = ETHERNET_LEN + if vlan.is_some() { VLAN_TAG_LEN } else { 0 };
    if !frame.move_start(l3 as isize - len as isize) {
        return false;
    }
    let bytes = frame.bytes_mut();
    let Some(header) = bytes.first_chunk_mut::<ETHERNET_LEN>() else { return true };
    header[..6].copy_from_slice(&destination.0);
    header[6..12].copy_from_slice(&source.0);
    header[12..].copy_from_slice(&ethertype.to_be_bytes());
    if let Some(vlan) = vlan {
        put(bytes, 12, &ETHERTYPE_VLAN.to_be_bytes());
        put(bytes, 14, &vlan.to_be_bytes());
        put(bytes, 16, &ethertype.to_be_bytes());
    }
    true
}

/// Addresses the frame back to the station that sent it, by the interface that it came in by.
/// `l3` is where its network header now is, `sender` the MAC that it came from.
pub fn turn_round(
    frame: &mut Frame<'_>,
    l3: usize,
    sender: Mac,
    interface: &Interface,
    ethertype: u16,
) -> bool {
    write_link(frame, l3, (sender, interface.mac), interface.vlan, ethertype)
}

/// Takes a VLAN tag off, keeping the addresses: a host mirror's twin is untagged.
pub fn strip_link(frame: &mut Frame<'_>, l3: usize) {
    if l3 != ETHERNET_LEN + VLAN_TAG_LEN {
        return;
    }
    let bytes = frame.bytes_mut();
    if bytes.len() >= l3 {
        bytes.copy_within(0..ETHERNET_LEN - 2, VLAN_TAG_LEN);
        frame.move_start(VLAN_TAG_LEN as isize);
    }
}
