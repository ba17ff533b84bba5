//! VLANs, padding, segments.

use super::{Book, CLIENT_MAC, FRONT, Flow, Maker, V4};
use crate::case::Rx;
use crate::packet::{ACK, SYN, tcp};
use crate::world::{VLAN_FRONT, at};

/// A connection of a client on VLAN 100.
fn from_vlan(flow: Flow) -> Flow {
    let flow = flow.client(at("198.18.100.10:45000"), CLIENT_MAC);
    Flow { client_tag: Some(VLAN_FRONT), ..flow }
}

fn segments(m: &mut Maker, flow: &Flow) {
    m.handshake(flow);
    m.forward(flow, &flow.up(tcp(ACK)).data(b"there"));
    m.forward(flow, &flow.down(tcp(ACK)).data(b"and back"));
}

pub(super) fn cases(book: &mut Book) {
    book.case(300, "vlan_removed", "in by a VLAN, out without one, and back", |m| {
        let flow = from_vlan(m.web(V4));
        segments(m, &flow);
    });
    book.case(301, "vlan_added", "in without a VLAN, out by one, and back", |m| {
        let flow = m.tagged();
        segments(m, &flow);
    });
    book.case(302, "vlan_changed", "in by one VLAN, out by another, and back", |m| {
        let flow = m.tagged();
        let flow = from_vlan(flow);
        segments(m, &flow);
    });
    book.case(303, "vlan_zero", "a priority tag (VLAN 0) is no VLAN", |m| {
        let flow = m.web(V4);
        m.forward(&flow, &flow.up(tcp(SYN)).tag(Some(0xe000)));
        m.forward(&flow, &flow.down(tcp(SYN | ACK)).tag(Some(0x2000)));
    });
    book.case(304, "vlan_priority", "the priority bits of a tag don't hide its VLAN", |m| {
        let flow = from_vlan(m.web(V4));
        m.forward(&flow, &flow.up(tcp(SYN)).tag(Some(0xb000 | VLAN_FRONT)));
        m.forward(&flow, &flow.down(tcp(SYN | ACK)));
    });
    book.case(305, "vlan_by_device", "the device has taken the tag off", |m| {
        let flow = from_vlan(m.web(V4));
        m.case.meta.rx.push(Rx { packet: 1, vlan: Some(VLAN_FRONT), ..Rx::default() });
        let sent = flow.up(tcp(SYN));
        let bytes = sent.clone().tag(None).bytes();
        m.forward_as(&flow, &sent, (bytes, flow.forwarded(&sent).bytes()));
        m.forward(&flow, &flow.down(tcp(SYN | ACK)));
    });
    book.both(306, "padding", "padding after the IP packet is taken off", |m, f| {
        let flow = m.web(f);
        for sent in [flow.up(tcp(SYN)), flow.down(tcp(SYN | ACK)), flow.up(tcp(ACK))] {
            let mut sent = sent;
            sent.padding = vec![0xcc; 18];
            m.forward(&flow, &sent);
        }
    });
    book.both(308, "segments", "data in another segment stays as it is", |m, f| {
        let flow = m.web(f);
        m.forward(&flow, &flow.up(tcp(SYN)));
        m.forward(&flow, &flow.down(tcp(SYN | ACK)));
        let packet = m.next();
        m.case.meta.rx.push(Rx { packet, tail: Some(900), ..Rx::default() });
        m.forward(&flow, &flow.up(tcp(ACK)).data(&[0x42; 1000]));
    });
    book.case(310, "no_headroom", "a frame with no room for the tag in front", |m| {
        let flow = m.tagged();
        m.case.meta.headroom = Some(0);
        let sent = flow.up(tcp(SYN));
        let len = sent.ip().len() as u64;
        m.drop(FRONT, sent.bytes(), "transmit_oversize");
        let counts = m.counts("tagged");
        (counts.packets_in, counts.bytes_in) = (1, len);
    });
    book.case(
        311,
        "vlan_and_device",
        "out by a VLAN, and back with the tag taken off by the device",
        |m| {
            let flow = m.tagged();
            m.forward(&flow, &flow.up(tcp(SYN)));
            m.case.meta.rx.push(Rx { packet: 2, vlan: Some(200), ..Rx::default() });
            let sent = flow.down(tcp(SYN | ACK));
            let bytes = sent.clone().tag(None).bytes();
            m.forward_as(&flow, &sent, (bytes, flow.forwarded(&sent).bytes()));
        },
    );
    book.case(
        312,
        "vlan_twice_and_device",
        "a tag behind the one that the device took off doesn't choose the interface",
        |m| {
            let sent = from_vlan(m.web(V4)).up(tcp(SYN)).bytes();
            m.one_less(V4);
            m.counts("web").connections = 0;
            for (packet, vlan, reason) in
                [(1, 300, "vlan_unknown"), (2, VLAN_FRONT, "ethertype_unsupported")]
            {
                m.case.meta.rx.push(Rx { packet, vlan: Some(vlan), ..Rx::default() });
                m.drop(FRONT, sent.clone(), reason);
            }
        },
    );
}
