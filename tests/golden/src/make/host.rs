//! What goes to the host: unchanged, but for a tag.

use super::{BACK, BACKEND, Book, CLIENT, FRONT};
use crate::packet::{ACK, Body, SYN, icmp, packet, tcp, udp};
use crate::world::{CLIENT_MAC, at};

pub(super) fn cases(book: &mut Book) {
    book.both(
        880,
        "host_own_address",
        "TCP, UDP and others for the gateway's own addresses",
        |m, f| {
            let own = |port| f.of(at("198.18.0.1:1"), at("[2001:db8:f::1]:1")).port_to(port);
            for body in [tcp(SYN), tcp(ACK), udp(b"to the host")] {
                let sent = packet(CLIENT, f.client(10, 40_000), own(22), body).bytes();
                m.host((FRONT, 0), sent.clone(), sent);
            }
            let vrrp = Body::Raw { protocol: 112, data: vec![0x21; 16] };
            let sent = packet(CLIENT, f.client(10, 1), own(1), vrrp).bytes();
            m.host((FRONT, 0), sent.clone(), sent);
            let back = f.of(at("198.18.1.1:9"), at("[2001:db8:b::1]:9"));
            let sent = packet(BACKEND, f.back(11, 8080), back, tcp(SYN | ACK)).bytes();
            m.host((BACK, 1), sent.clone(), sent);
        },
    );
    book.both(882, "host_groups", "what is sent to groups on the link", |m, f| {
        let group = f.of(at("224.0.0.5:1"), at("[ff02::5]:1"));
        let mac = f.of([1, 0, 0x5e, 0, 0, 5], [0x33, 0x33, 0, 0, 0, 5]);
        let ospf = Body::Raw { protocol: 89, data: vec![2; 44] };
        let sent = packet((CLIENT_MAC, mac), f.client(10, 1), group, ospf).ttl(1).bytes();
        m.host((FRONT, 0), sent.clone(), sent);
        let elsewhere = f.of(at("239.1.2.3:1"), at("[ff0e::5]:1"));
        let sent = packet((CLIENT_MAC, mac), f.client(10, 7), elsewhere, udp(b"?")).bytes();
        m.drop(FRONT, sent, "not_ours");
    });
    book.case(884, "host_vlan", "the host's twin is untagged", |m| {
        let mut sent = packet(CLIENT, at("198.18.100.10:7"), at("198.18.100.1:22"), tcp(SYN));
        sent.padding = vec![0; 6];
        let mut expected = sent.clone();
        expected.padding.clear();
        m.host((FRONT, 2), sent.tag(Some(0x6064)).bytes(), expected.bytes());
    });
    book.both(885, "host_errors", "an error about what the host sent is the host's", |m, f| {
        let own = f.of(at("198.18.0.1:33434"), at("[2001:db8:f::1]:33434"));
        let quoted = packet(CLIENT, own, f.client(10, 80), udp(b"probe")).ip();
        let (kind, code) = f.port_unreachable();
        let sent = packet(CLIENT, f.client(10, 0), own, icmp(kind, code, 0, &quoted)).bytes();
        m.host((FRONT, 0), sent.clone(), sent);
    });
    book.both(
        887,
        "host_wrong_checksum",
        "the host checks for itself what is the host's",
        |m, f| {
            let own = f.of(at("198.18.0.1:22"), at("[2001:db8:f::1]:22"));
            let mut sent = packet(CLIENT, f.client(10, 7), own, tcp(SYN)).bytes();
            *sent.last_mut().unwrap() ^= 1;
            m.host((FRONT, 0), sent.clone(), sent);
        },
    );
    book.both(889, "host_fragments", "fragments for the host", |m, f| {
        let own = f.of(at("198.18.0.1:22"), at("[2001:db8:f::1]:22"));
        let sent = packet(CLIENT, f.client(10, 7), own, udp(&[6; 1600]));
        for part in sent.fragments(12, &[800]) {
            m.host((FRONT, 0), part.clone(), part);
        }
    });
}

/// An address with another port.
trait WithPort {
    fn port_to(self, port: u16) -> Self;
}

impl WithPort for std::net::SocketAddr {
    fn port_to(mut self, port: u16) -> Self {
        self.set_port(port);
        self
    }
}
