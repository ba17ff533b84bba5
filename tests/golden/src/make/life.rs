//! Connections over time, and over changes of services and backends.

use super::{BACK, Book, FRONT, Flow, V4, ours};
use crate::packet::{ACK, Body, FIN, Packet, RST, SYN, tcp, udp};
use crate::world::{at, backend_mac};

const WEB: [&str; 4] =
    ["198.18.1.11:8080", "[2001:db8:b::11]:8080", "198.18.1.12:8080", "[2001:db8:b::12]:8080"];
const DNS: [&str; 2] = ["198.18.1.12:5353", "[2001:db8:b::12]:5353"];

fn rst(sent: &Packet, sequence: u32, acknowledged: u32, flags: u8) -> Vec<u8> {
    let body =
        Body::Tcp { sequence, acknowledged, flags, window: 0, options: vec![], data: vec![] };
    ours(sent, body).bytes()
}

pub(super) fn cases(book: &mut Book) {
    removal(book);
    draining(book);
    time(book);
}

fn removal(book: &mut Book) {
    book.both(
        900,
        "tcp_keeps_removed",
        "TCP keeps its backend after it was removed; new ones don't",
        |m, f| {
            let old = m.web(f);
            m.handshake(&old);
            m.backends("web", &WEB[2..]);
            m.forward(&old, &old.up(tcp(ACK)).data(b"still to the old one"));
            m.forward(&old, &old.down(tcp(ACK)).data(b"and from it"));
            let new = m.web(f).backend(f, 12, 8080);
            m.handshake(&new);
            m.forward(&old, &old.up(tcp(FIN | ACK)));
        },
    );
    book.both(
        902,
        "udp_leaves_removed",
        "UDP goes elsewhere when its backend was removed",
        |m, f| {
            let old = m.dns(f);
            m.forward(&old, &old.up(udp(b"?")));
            m.forward(&old, &old.down(udp(b"!")));
            m.backends("dns", &DNS);
            let new = m.dns(f).backend(f, 12, 5353);
            let new = Flow { client: old.client, ..new };
            m.forward(&new, &new.up(udp(b"??")));
            m.one_less(f);
            m.forward(&new, &new.down(udp(b"!!")));
        },
    );
    book.both(
        904,
        "syn_leaves_removed",
        "a SYN again, whose backend was removed, goes elsewhere",
        |m, f| {
            let old = m.web(f);
            m.forward(&old, &old.up(tcp(SYN)));
            m.backends("web", &WEB[2..]);
            let new = m.web(f).backend(f, 12, 8080);
            let new = Flow { client: old.client, ..new };
            m.forward(&new, &new.up(tcp(SYN)));
            m.one_less(f);
            m.forward(&new, &new.down(tcp(SYN | ACK)));
        },
    );
    book.both(
        906,
        "syn_on_established",
        "a SYN on an established connection whose backend has gone: its client is asked first",
        |m, f| {
            let old = m.web(f);
            m.handshake(&old);
            // As long as the backend is there, it is the backend's to answer.
            m.forward(&old, &old.up(tcp(SYN)).numbers(9_000_000, 0));
            m.backends("web", &WEB[2..]);
            let syn = old.up(tcp(SYN)).numbers(9_000_001, 0);
            m.drop(FRONT, syn.bytes(), "syn_in_doubt");
            m.forward(&old, &old.up(tcp(ACK)).data(b"it wasn't me"));
            m.drop(FRONT, syn.bytes(), "syn_in_doubt");
            // One that has begun anew answers by a RST with the number that it was told; others are
            // anybody's.
            m.forward(&old, &old.up(tcp(RST)).numbers(0, 0));
            m.drop(FRONT, syn.bytes(), "syn_in_doubt");
            m.forward(&old, &old.up(tcp(RST)).numbers(super::ports::told(&old), 0));
            let new = m.web(f).backend(f, 12, 8080);
            let new = Flow { client: old.client, ..new };
            m.forward(&new, &new.up(tcp(SYN)).numbers(9_000_001, 0));
            m.one_less(f);
        },
    );
    book.both(
        908,
        "no_backend_left",
        "the last backend goes: TCP stays, new ones are refused",
        |m, f| {
            let old = m.web(f);
            m.handshake(&old);
            m.backends("web", &[]);
            m.forward(&old, &old.up(tcp(ACK)).data(b"still there?"));
            let sent = old.up(tcp(SYN)).from(f.client(10, 999));
            m.answer(FRONT, sent.bytes(), rst(&sent, 0, 1001, RST | ACK));
            m.counts("web").refused = 1;
        },
    );
    book.both(
        910,
        "service_removed",
        "a Service goes: its frontends refuse, its connections stay",
        |m, f| {
            let old = m.dns(f);
            m.forward(&old, &old.up(udp(b"?")));
            let web = m.web(f);
            m.handshake(&web);
            let change = crate::case::Change {
                before: m.next(),
                service: Some("web".to_owned()),
                ..crate::case::Change::default()
            };
            m.case.meta.change.push(change);
            let sent = web.up(tcp(SYN)).from(f.client(10, 999));
            m.answer(FRONT, sent.bytes(), rst(&sent, 0, 1001, RST | ACK));
            m.forward(&web, &web.up(tcp(ACK)).data(b"established"));
            m.forward(&old, &old.up(udp(b"not concerned")));
            // Its slot is free: nothing counts any more that could be asserted here.
            m.case.meta.services.remove("web");
        },
    );
    book.case(912, "pod_removed", "a pod behind a node goes: TCP stays on the node's way", |m| {
        let flow = m.flow("pod", V4, (42_000, 8500, 8080));
        let flow = flow.to(at("10.244.3.7:8080"), backend_mac(12));
        m.handshake(&flow);
        m.backends("pod", &[]);
        // The routes' own way to it is another one.
        m.forward(&flow, &flow.up(tcp(ACK)).data(b"by the node"));
        m.forward(&flow, &flow.down(tcp(ACK)).data(b"and back"));
    });
    book.both(
        914,
        "backend_in_front",
        "a backend that routes know on the clients' side: nothing goes there",
        |m, f| {
            let old = m.web(f);
            m.handshake(&old);
            m.backends("web", &["198.51.100.9:8080", "[2001:db8:c::9]:8080"]);
            let new = old.up(tcp(SYN)).from(f.client(10, 999));
            m.drop(FRONT, new.bytes(), "no_route");
            m.forward(&old, &old.up(tcp(ACK)).data(b"to the old one"));
        },
    );
}

fn draining(book: &mut Book) {
    book.both(
        920,
        "tcp_draining",
        "a draining backend keeps TCP, and takes nothing new",
        |m, f| {
            let old = m.web(f);
            m.handshake(&old);
            let draining =
                ["198.18.1.11:8080 draining", "[2001:db8:b::11]:8080 draining", WEB[2], WEB[3]];
            m.backends("web", &draining);
            m.forward(&old, &old.down(tcp(ACK)).data(b"let me finish"));
            for _ in 0..3 {
                let new = m.web(f).backend(f, 12, 8080);
                m.forward(&new, &new.up(tcp(SYN)));
            }
            // A SYN on the established one may be forged.
            m.drop(FRONT, old.up(tcp(SYN)).bytes(), "syn_in_doubt");
            m.forward(&old, &old.up(tcp(ACK)).data(b"still me"));
        },
    );
    book.both(922, "udp_draining", "a draining backend keeps its UDP flows too", |m, f| {
        let old = m.dns(f);
        m.forward(&old, &old.up(udp(b"?")));
        let draining =
            ["198.18.1.11:5353 draining", "[2001:db8:b::11]:5353 draining", DNS[0], DNS[1]];
        m.backends("dns", &draining);
        m.forward(&old, &old.up(udp(b"and?")));
        m.forward(&old, &old.down(udp(b"that was all")));
        let new = m.dns(f).backend(f, 12, 5353);
        m.forward(&new, &new.up(udp(b"new here")));
    });
    book.both(926, "udp_unserving", "UDP leaves a backend that doesn't serve", |m, f| {
        let old = m.dns(f);
        m.forward(&old, &old.up(udp(b"?")));
        m.forward(&old, &old.down(udp(b"!")));
        let unserving =
            ["198.18.1.11:5353 unserving", "[2001:db8:b::11]:5353 unserving", DNS[0], DNS[1]];
        m.backends("dns", &unserving);
        let new = m.dns(f).backend(f, 12, 5353);
        let new = Flow { client: old.client, ..new };
        m.forward(&new, &new.up(udp(b"??")));
        m.one_less(f);
    });
    book.both(928, "tcp_unserving", "TCP stays with a backend that doesn't serve", |m, f| {
        let old = m.web(f);
        m.handshake(&old);
        let unserving =
            ["198.18.1.11:8080 unserving", "[2001:db8:b::11]:8080 unserving", WEB[2], WEB[3]];
        m.backends("web", &unserving);
        m.forward(&old, &old.down(tcp(ACK)).data(b"still here"));
        let new = m.web(f).backend(f, 12, 8080);
        m.forward(&new, &new.up(tcp(SYN)));
    });
    book.both(
        924,
        "backend_added",
        "another backend takes none of the connections that are there",
        |m, f| {
            let flows: Vec<Flow> = (0..4)
                .map(|_| {
                    let flow = m.web(f);
                    m.handshake(&flow);
                    flow
                })
                .collect();
            m.backends("web", &WEB);
            for flow in &flows {
                m.forward(flow, &flow.up(tcp(ACK)).data(b"same as ever"));
            }
        },
    );
}

fn time(book: &mut Book) {
    book.both(940, "syn_on_closed", "a SYN on a closed connection selects anew", |m, f| {
        let old = m.web(f);
        m.handshake(&old);
        m.close(&old);
        m.backends("web", &WEB[2..]);
        let new = m.web(f).backend(f, 12, 8080);
        let new = Flow { client: old.client, ..new };
        m.forward(&new, &new.up(tcp(SYN)).numbers(70_000, 0));
        m.one_less(f);
        m.forward(&new, &new.down(tcp(SYN | ACK)));
    });
    book.both(
        942,
        "syn_on_reset",
        "a SYN after a RST goes along it: the backend judges both",
        |m, f| {
            let flow = m.web(f);
            m.handshake(&flow);
            m.forward(&flow, &flow.up(tcp(RST)));
            m.forward(&flow, &flow.up(tcp(SYN)).numbers(70_000, 0));
            m.forward(&flow, &flow.down(tcp(SYN | ACK)).numbers(80_000, 70_001));
            m.forward(&flow, &flow.up(tcp(ACK)).numbers(70_001, 80_001));
            m.wait_ms(86_399_999);
            m.forward(&flow, &flow.down(tcp(ACK)).numbers(80_001, 70_001));
        },
    );
    book.both(
        984,
        "syn_on_closing",
        "a SYN on a closing connection is answered, whatever comes late between",
        |m, f| {
            let flow = m.web(f);
            m.handshake(&flow);
            m.forward(&flow, &flow.down(tcp(FIN | ACK)).numbers(501, 1001));
            m.forward(&flow, &flow.up(tcp(SYN)).numbers(70_000, 0));
            m.forward(&flow, &flow.up(tcp(ACK)).numbers(1001, 501).data(b"late"));
            m.forward(&flow, &flow.down(tcp(SYN | ACK)).numbers(80_000, 70_001));
            m.forward(&flow, &flow.up(tcp(ACK)).numbers(70_001, 80_001));
            m.wait_ms(86_399_999);
            m.forward(&flow, &flow.down(tcp(ACK)).numbers(80_001, 70_001));
        },
    );
    book.both(944, "udp_silent", "a flow that nobody has answered for 30 s ends", |m, f| {
        let old = m.dns(f);
        m.forward(&old, &old.up(udp(b"?")));
        m.wait_ms(29_999);
        m.forward(&old, &old.up(udp(b"??")));
        m.wait_ms(30_000);
        let new = m.dns(f);
        let new = Flow { client: old.client, ..new };
        m.forward(&new, &new.up(udp(b"???")));
        m.one_less(f);
    });
    book.both(952, "udp_answered", "an answered flow that doesn't last ends in 30 s", |m, f| {
        let flow = m.dns(f);
        m.forward(&flow, &flow.up(udp(b"?")));
        m.forward(&flow, &flow.down(udp(b"!")));
        m.wait_ms(1_999);
        m.forward(&flow, &flow.up(udp(b"??")));
        m.wait_ms(30_000);
        let new = m.dns(f);
        let new = Flow { client: flow.client, ..new };
        m.forward(&new, &new.up(udp(b"???")));
        m.one_less(f);
    });
    book.both(946, "udp_stream", "a flow that lasts may be silent for five minutes", |m, f| {
        let flow = m.dns(f);
        m.forward(&flow, &flow.up(udp(b"?")));
        m.forward(&flow, &flow.down(udp(b"!")));
        m.wait_ms(3_000);
        m.forward(&flow, &flow.down(udp(b"!")));
        m.wait_ms(299_999);
        m.forward(&flow, &flow.down(udp(b"!!")));
        m.wait_ms(300_000);
        let late = flow.down(udp(b"!!!"));
        m.one_less(f);
        let (kind, code) = f.port_unreachable();
        let body = crate::packet::icmp(kind, code, 0, &late.ip());
        m.answer(BACK, late.bytes(), ours(&late, body).bytes());
    });
    book.both(948, "tcp_closed_ends", "an ended connection holds its port for 70 s", |m, f| {
        let flow = m.web(f);
        m.handshake(&flow);
        m.close(&flow);
        m.wait_ms(69_999);
        m.forward(&flow, &flow.down(tcp(ACK)));
        m.wait_ms(70_000);
        let late = flow.down(tcp(ACK));
        m.answer(BACK, late.bytes(), rst(&late, 2000, 0, RST));
        m.one_less(f);
    });
    book.case(
        950,
        "tcp_idle_day",
        "IPv4: an established connection may be silent for a day",
        |m| {
            let flow = m.web(V4);
            m.handshake(&flow);
            m.wait_ms(86_399_999);
            m.forward(&flow, &flow.down(tcp(ACK)));
            m.wait_ms(86_400_000);
            let late = flow.down(tcp(ACK));
            m.answer(BACK, late.bytes(), rst(&late, 2000, 0, RST));
            m.one_less(V4);
        },
    );
}
