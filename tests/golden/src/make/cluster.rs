//! Clients inside: pods and nodes on the back link, and ClusterIPs.

use super::{BACK, Book, CLIENT, FRONT, Family, Flow, Maker, refusal::reset, refusal::unreachable};
use crate::packet::{ACK, Packet, SYN, packet, tcp, udp};
use crate::world::{BACK_MAC, backend_mac};

/// The MACs of a host on the back link towards us.
const fn from_back(last: u8) -> ([u8; 6], [u8; 6]) {
    (backend_mac(last), BACK_MAC)
}

/// A connection whose client is on the back link: all its packets come and leave there.
fn inside(flow: Flow, f: Family, last: u8, port: u16) -> Flow {
    flow.client(f.back(last, port), backend_mac(last))
}

fn up(flow: &Flow, body: crate::packet::Body) -> Packet {
    packet((flow.client_mac, BACK_MAC), flow.client, flow.frontend, body)
}

/// A packet that leaves by the port that it came by.
fn forward(m: &mut Maker, flow: &Flow, sent: &Packet) {
    let mut expected = flow.forwarded(sent);
    expected.macs.0 = BACK_MAC;
    let (len, client) = (expected.ip().len() as u64, sent.destination == flow.frontend);
    let counts = m.counts(flow.service);
    if client {
        counts.packets_in += 1;
        counts.bytes_in += len;
    } else {
        counts.packets_out += 1;
        counts.bytes_out += len;
    }
    let us = m.send(BACK, sent.bytes(), "send back".to_owned());
    m.case.expected[BACK].push((us, expected.bytes()));
}

fn handshake(m: &mut Maker, flow: &Flow) {
    forward(m, flow, &up(flow, tcp(SYN)));
    forward(m, flow, &flow.down(tcp(SYN | ACK)));
    forward(m, flow, &up(flow, tcp(ACK)));
}

pub(super) fn cases(book: &mut Book) {
    hairpin(book);
    cluster_ip(book);
}

fn hairpin(book: &mut Book) {
    book.both(750, "inside_client", "a pod is another pod's client, by the frontend", |m, f| {
        let flow = inside(m.web(f), f, 12, 40_000);
        handshake(m, &flow);
        let flow = inside(m.dns(f), f, 12, 40_000);
        forward(m, &flow, &up(&flow, udp(b"?")));
        forward(m, &flow, &flow.down(udp(b"!")));
    });
    book.both(752, "hairpin", "the backend is its own client", |m, f| {
        let flow = inside(m.web(f), f, 11, 40_000);
        handshake(m, &flow);
        let flow = inside(m.dns(f), f, 11, 40_000);
        forward(m, &flow, &up(&flow, udp(b"?")));
        forward(m, &flow, &flow.down(udp(b"!")));
    });
    book.both(
        754,
        "hairpin_same_port",
        "the backend is its own client, from the very port that it serves on",
        |m, f| {
            let flow = inside(m.web(f), f, 11, 8080);
            handshake(m, &flow);
            let other = m.web(f);
            m.handshake(&other);
        },
    );
    book.both(
        756,
        "inside_refused",
        "who is inside is refused by the port that it came by",
        |m, f| {
            for sent in [
                packet(from_back(12), f.back(12, 40_000), f.frontend(10, 81), tcp(SYN)),
                packet(from_back(12), f.back(12, 40_000), f.frontend(10, 80), tcp(ACK)),
            ] {
                m.answer(BACK, sent.bytes(), reset(&sent).bytes());
            }
            let sent = packet(from_back(12), f.back(12, 40_000), f.frontend(10, 81), udp(b"?"));
            m.answer(BACK, sent.bytes(), unreachable(f, &sent).bytes());
        },
    );
}

fn cluster_ip(book: &mut Book) {
    book.both(760, "cluster_ip", "a ClusterIP serves clients of either side", |m, f| {
        let flow = m.flow("inner", f, (40_000, 80, 8080));
        let flow = Flow { frontend: f.cluster(10, 80), ..flow };
        m.handshake(&flow);
        let flow = m.flow("inner", f, (40_000, 80, 8080));
        let flow = inside(Flow { frontend: f.cluster(10, 80), ..flow }, f, 12, 40_000);
        handshake(m, &flow);
    });
    book.both(
        762,
        "cluster_ip_refused",
        "an unused port of a ClusterIP, and one without endpoints, refuse",
        |m, f| {
            let to =
                |last, port, body| packet(CLIENT, f.client(10, 7), f.cluster(last, port), body);
            for sent in [to(10, 81, tcp(SYN)), to(20, 80, tcp(SYN)), to(20, 81, tcp(SYN))] {
                m.answer(FRONT, sent.bytes(), reset(&sent).bytes());
            }
            let sent = to(10, 80, udp(b"?"));
            m.answer(FRONT, sent.bytes(), unreachable(f, &sent).bytes());
            m.counts("hollow").refused = 1;
            // No Service has this one.
            m.drop(FRONT, to(99, 80, tcp(SYN)).bytes(), "not_ours");
            m.drop(FRONT, to(99, 80, udp(b"?")).bytes(), "not_ours");
        },
    );
    book.both(764, "cluster_ip_apart", "silence and refusal by family", |m, f| {
        let sent = packet(CLIENT, f.client(10, 7), f.cluster(30, 80), tcp(SYN));
        match f {
            Family::V4 => m.drop(FRONT, sent.bytes(), "no_backend"),
            Family::V6 => m.answer(FRONT, sent.bytes(), reset(&sent).bytes()),
        }
        m.counts("apart").refused = 1;
    });
}
