//! Packets that aren't ours, aren't forwarded, or are another worker's.

use super::{BACK, BACKEND, Book, CLIENT, FRONT, V4, V6};
use crate::case::Rx;
use crate::packet::{ACK, Body, Packet, RST, SYN, icmp, packet, tcp, udp};
use crate::world::at;
use std::net::SocketAddr;

pub(super) fn cases(book: &mut Book) {
    book.both(
        840,
        "not_ours",
        "the gateway doesn't route: neither strangers' packets nor backends'",
        |m, f| {
            let stranger = f.far_client(77, 80);
            for body in [tcp(SYN), udp(b"?"), icmp(f.echo_request(), 0, 1, b"?")] {
                m.drop(FRONT, packet(CLIENT, f.client(10, 7), stranger, body).bytes(), "not_ours");
            }
            let out = packet(BACKEND, f.back(11, 8080), f.far_client(9, 1025), tcp(ACK));
            m.drop(BACK, out.bytes(), "not_ours");
            let raw = Body::Raw { protocol: 47, data: vec![0; 8] };
            m.drop(FRONT, packet(CLIENT, f.client(10, 7), stranger, raw).bytes(), "not_ours");
        },
    );
    book.both(
        842,
        "protocol_unsupported",
        "SCTP, GRE, nothing at all and the other family's ICMP, for a frontend",
        |m, f| {
            for protocol in [132, 47, 59, f.of(58, 1)] {
                let body = Body::Raw { protocol, data: vec![9; 16] };
                let sent = packet(CLIENT, f.client(10, 7), f.frontend(10, 80), body);
                m.drop(FRONT, sent.bytes(), "protocol_unsupported");
            }
        },
    );
    book.both(
        844,
        "handover",
        "with two workers a reply belongs to the one that holds its NAT port",
        |m, f| {
            m.case.meta.workers = Some(2);
            // Blocks of 256 ports go round: of the first NAT address the even ones to the first worker,
            // of the second address the odd ones.
            let (own, other) = f.of((0x2001, 0x2101), (0x2101, 0x2001));
            let reply = |port| packet(BACKEND, f.back(11, 8080), f.back(200, port), tcp(RST));
            m.drop(BACK, reply(own).bytes(), "tcp_no_connection");
            m.handover(BACK, reply(other).bytes(), 1);
            // An error about what the other sent is the other's too.
            let quoted = reply(other).reversed().body(tcp(ACK)).ip();
            let about = f.port_unreachable();
            let addresses = (f.back(11, 0), f.back(200, 0));
            m.handover(BACK, super::quoting(BACKEND, addresses, about, 0, &quoted).bytes(), 1);
        },
    );
    book.both(
        846,
        "handover_loop",
        "a packet that others have handed over twice already",
        |m, f| {
            m.case.meta.workers = Some(2);
            let other = f.of(0x2101, 0x2001);
            let sent = packet(BACKEND, f.back(11, 8080), f.back(200, other), tcp(ACK)).bytes();
            for (packet, hops) in [(1, 1), (2, 2)] {
                m.case.meta.rx.push(Rx { packet, hops: Some(hops), ..Rx::default() });
            }
            m.handover(BACK, sent.clone(), 1);
            m.drop(BACK, sent, "handover_loop");
        },
    );
    book.both(
        848,
        "handover_fragment",
        "a later fragment that comes from its home with its ports",
        |m, f| {
            m.case.meta.workers = Some(2);
            let own = f.of(0x2001, 0x2101);
            let sent =
                packet(BACKEND, f.back(11, 8080), f.back(200, own), tcp(ACK)).data(&[0; 1200]);
            let packet = 1;
            let ports = Some([8080, own]);
            m.case.meta.rx.push(Rx {
                packet,
                hops: Some(1),
                fragment_ports: ports,
                ..Rx::default()
            });
            m.drop(BACK, sent.fragments(9, &[600]).remove(1), "tcp_no_connection");
        },
    );
    book.case(
        850,
        "nat_unconfigured",
        "the interface towards the backend has no NAT address",
        |m| {
            let sent = packet(CLIENT, V6.client(10, 7), V6.frontend(10, 8200), tcp(SYN));
            m.drop(FRONT, sent.bytes(), "nat_unconfigured");
        },
    );
    book.case(851, "no_route", "no route to the backend, or back to the client", |m| {
        let syn = |source: SocketAddr, port| -> Packet {
            packet(CLIENT, source, V4.frontend(10, port), tcp(SYN))
        };
        m.drop(FRONT, syn(V4.client(10, 7), 8300).bytes(), "no_route");
        m.drop(FRONT, syn(at("192.0.2.7:7"), 80).bytes(), "no_route");
    });
}
