//! UDP flows.

use super::{Book, Maker};
use crate::packet::{Body, Packet, udp};

pub(super) fn cases(book: &mut Book) {
    book.both(200, "udp_both_ways", "a question and its answer", |m, f| {
        let flow = m.dns(f);
        m.forward(&flow, &flow.up(udp(b"question")));
        m.forward(&flow, &flow.down(udp(b"an answer of odd length")));
        m.forward(&flow, &flow.up(udp(b"")));
    });
    book.case(202, "udp_no_checksum", "IPv4: UDP without a checksum stays without one", |m| {
        let flow = m.dns(super::V4);
        let without = |data: &[u8]| Body::Udp { checksum: false, data: data.to_vec() };
        m.forward(&flow, &flow.up(without(b"question")));
        m.forward(&flow, &flow.down(without(b"answer")));
    });
    book.case(
        203,
        "udp_no_checksum_v6",
        "IPv6: UDP without a checksum, which its receiver has to discard, gets none here",
        |m| {
            let flow = m.dns(super::V6);
            let without = Body::Udp { checksum: false, data: b"question".to_vec() };
            // It begins nothing.
            m.drop(super::FRONT, flow.up(without.clone()).bytes(), "l4_checksum");
            m.forward(&flow, &flow.up(udp(b"a right one")));
            m.forward(&flow, &flow.up(without));
            m.case.meta.wrong_checksums.push(2);
        },
    );
    book.both(204, "udp_checksum_zero", "a checksum that comes to 0 is sent as 0xffff", |m, f| {
        let flow = m.dns(f);
        let sent = with_checksum(|data| flow.up(udp(data)), |p| flow.forwarded(p), 0xffff);
        m.forward(&flow, &sent);
        let sent = with_checksum(|data| flow.down(udp(data)), |p| flow.forwarded(p), 0xffff);
        m.forward(&flow, &sent);
    });
    book.both(206, "udp_checksum_ffff", "a checksum of 0xffff becomes the right one", |m, f| {
        let flow = m.dns(f);
        let sent = with_checksum(|data| flow.up(udp(data)), Packet::clone, 0xffff);
        m.forward(&flow, &sent);
        let sent = with_checksum(|data| flow.down(udp(data)), Packet::clone, 0xffff);
        m.forward(&flow, &sent);
    });
    book.both(208, "udp_longest", "a datagram that fills the MTU", |m: &mut Maker, f| {
        let flow = m.dns(f);
        let room = 1500 - f.of(20, 40) - 8;
        m.forward(&flow, &flow.up(udp(&vec![7; room])));
        m.forward(&flow, &flow.down(udp(&vec![9; room])));
    });
}

/// The packet whose checksum, after `then`, is `wanted`: found by trying.
fn with_checksum(
    make: impl Fn(&[u8]) -> Packet,
    then: impl Fn(&Packet) -> Packet,
    wanted: u16,
) -> Packet {
    let fits = |packet: &Packet| then(packet).l4()[6..8] == wanted.to_be_bytes();
    (0..=u16::MAX).map(|n| make(&n.to_be_bytes())).find(fits).expect("one of all")
}
