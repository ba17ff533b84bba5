//! The Ethernet header, with or without an 802.1Q tag.

use crate::adjacency::{Adjacency, Interface, Mac};
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

/// As [`write_link`], for a next hop whose header is ready made.
#[inline]
pub fn write_adjacency(
    frame: &mut Frame<'_>,
    l3: usize,
    adjacency: &Adjacency,
    ethertype: u16,
) -> bool {
    let Some(tagged) = adjacency.tagged() else {
        if !frame.move_start(l3 as isize - ETHERNET_LEN as isize) {
            return false;
        }
        if let Some(header) = frame.bytes_mut().first_chunk_mut::<ETHERNET_LEN>() {
            header[..ETHERNET_LEN - 2].copy_from_slice(adjacency.macs());
            header[ETHERNET_LEN - 2..].copy_from_slice(&ethertype.to_be_bytes());
        }
        return true;
    };
    if !frame.move_start(l3 as isize - tagged.len() as isize) {
        return false;
    }
    if let Some(header) = frame.bytes_mut().first_chunk_mut::<{ ETHERNET_LEN + VLAN_TAG_LEN }>() {
        *header = *tagged;
        header[ETHERNET_LEN + VLAN_TAG_LEN - 2..].copy_from_slice(&ethertype.to_be_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adjacency::Role;
    use crate::frame::Rx;
    use crate::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
    use model::ids::{InterfaceId, PortId};

    const TO: Mac = Mac([2, 1, 2, 3, 4, 5]);

    fn interface(vlan: Option<u16>) -> Interface {
        let mac = Mac([2, 9, 8, 7, 6, 5]);
        Interface { name: "back".into(), port: PortId(0), vlan, mac, mtu: 1500, role: Role::Back }
    }

    /// For both families, tagged or not, from and to each kind of link.
    #[test]
    fn a_ready_made_header_is_what_would_be_written() {
        for (from, vlan, ethertype) in [(14, None), (14, Some(7)), (18, None), (18, Some(4094))]
            .into_iter()
            .flat_map(|(l3, vlan)| {
                [ETHERTYPE_IPV4, ETHERTYPE_IPV6].map(|ethertype| (l3, vlan, ethertype))
            })
        {
            let interface = interface(vlan);
            let adjacency = Adjacency::new(InterfaceId(0), &interface, TO);
            let mut buffers = [[0xaa_u8; 100]; 2];
            let [one, two] = buffers.each_mut().map(|buffer| {
                let mut frame = Frame::new(buffer, 8, 100, 0, Rx::default());
                frame.bytes_mut()[from] = 0x45;
                frame
            });
            let mut frames = [one, two];
            assert!(write_link(&mut frames[0], from, (TO, interface.mac), vlan, ethertype));
            assert!(write_adjacency(&mut frames[1], from, &adjacency, ethertype));
            assert_eq!(frames[0].span(), frames[1].span());
            assert_eq!(frames[0].bytes(), frames[1].bytes());
            let l3 = if vlan.is_some() { 18 } else { 14 };
            assert_eq!(frames[1].bytes()[l3], 0x45, "the network header stays");
        }
    }

    #[test]
    fn without_room_in_front_nothing_is_written() {
        for (vlan, l3) in [(None, 13), (Some(7), 17)] {
            let adjacency = Adjacency::new(InterfaceId(0), &interface(vlan), TO);
            let mut buffer = [0xaa_u8; 64];
            let mut frame = Frame::new(&mut buffer, 0, 64, 0, Rx::default());
            assert!(!write_adjacency(&mut frame, l3, &adjacency, ETHERTYPE_IPV4));
            assert_eq!((frame.span(), frame.bytes()[0]), ((0, 64), 0xaa));
        }
    }
}
