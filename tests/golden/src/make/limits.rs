//! What is bounded: rates, tables, NAT ports.

use super::budgets::rate;
use super::{BACK, Book, CLIENT, FRONT, Flow, V4, ours};
use crate::packet::{ACK, Body, RST, SYN, arp, icmp, packet, tcp};
use crate::world::{CLIENT_MAC, FRONT_MAC, at};

pub(super) fn cases(book: &mut Book) {
    book.both(
        860,
        "limit_refusals",
        "refusals are limited; a token a second comes back",
        |m, f| {
            rate(m, "refusal", 1, 2);
            let sent = packet(CLIENT, f.client(10, 7), f.frontend(10, 81), tcp(SYN));
            let body = Body::Tcp {
                sequence: 0,
                acknowledged: 1001,
                flags: RST | ACK,
                window: 0,
                options: vec![],
                data: vec![],
            };
            let answer = ours(&sent, body).bytes();
            m.answer(FRONT, sent.bytes(), answer.clone());
            m.answer(FRONT, sent.bytes(), answer.clone());
            m.drop(FRONT, sent.bytes(), "answer_limited");
            m.wait_ms(999);
            m.drop(FRONT, sent.bytes(), "answer_limited");
            m.wait_ms(1);
            m.answer(FRONT, sent.bytes(), answer);
            m.drop(FRONT, sent.bytes(), "answer_limited");
        },
    );
    book.both(862, "limit_echo", "echo replies are limited apart from refusals", |m, f| {
        rate(m, "echo", 1, 1);
        rate(m, "refusal", 1, 0);
        let body = |kind| icmp(kind, 0, 7, b"abcd");
        let sent = packet(CLIENT, f.client(10, 0), f.frontend(10, 0), body(f.echo_request()));
        let reply = sent.clone().reversed().body(body(f.echo_reply()));
        m.answer(FRONT, sent.bytes(), reply.bytes());
        m.drop(FRONT, sent.bytes(), "answer_limited");
        let refused = packet(CLIENT, f.client(10, 7), f.frontend(10, 81), tcp(SYN));
        m.drop(FRONT, refused.bytes(), "answer_limited");
    });
    book.both(864, "limit_errors", "time exceeded and packet too big are limited apart", |m, f| {
        rate(m, "time_exceeded", 1, 1);
        rate(m, "too_big", 1, 1);
        let flow = m.web(f);
        m.handshake(&flow);
        let sent = flow.up(tcp(ACK)).ttl(1);
        let (kind, code) = f.time_exceeded();
        m.answer(FRONT, sent.bytes(), ours(&sent, icmp(kind, code, 0, &sent.ip())).bytes());
        m.drop(FRONT, sent.bytes(), "answer_limited");
        let long = flow.up(tcp(ACK)).data(&[0; 1600]);
        let (kind, code) = f.too_big();
        let quote = &long.ip()[..f.of(548, 1232)];
        m.answer(FRONT, long.bytes(), ours(&long, icmp(kind, code, 1500, quote)).bytes());
        m.drop(FRONT, long.bytes(), "answer_limited");
    });
    book.case(866, "limit_arp", "ARP replies are limited", |m| {
        rate(m, "neighbour", 1, 1);
        let (asker, target) = ([198, 18, 0, 10], [203, 0, 113, 10]);
        let sent = arp((CLIENT_MAC, [0xff; 6]), 1, (CLIENT_MAC, asker), ([0; 6], target));
        let reply = arp((FRONT_MAC, CLIENT_MAC), 2, (FRONT_MAC, target), (CLIENT_MAC, asker));
        m.answer(FRONT, sent.clone(), reply);
        m.drop(FRONT, sent, "answer_limited");
    });
    book.both(
        867,
        "limit_host",
        "a flood for the host leaves routing and neighbours their share",
        |m, f| {
            rate(m, "host_other", 1, 2);
            rate(m, "host_routing", 1, 1);
            let own = f.of(at("198.18.0.1:22"), at("[2001:db8:f::1]:22"));
            let ssh = packet(CLIENT, f.client(10, 40_000), own, tcp(SYN)).bytes();
            m.host((FRONT, 0), ssh.clone(), ssh.clone());
            m.host((FRONT, 0), ssh.clone(), ssh.clone());
            m.drop(FRONT, ssh, "host_limited");
            let mut bgp_port = own;
            bgp_port.set_port(179);
            let bgp = packet(CLIENT, f.client(10, 40_000), bgp_port, tcp(SYN)).bytes();
            m.host((FRONT, 0), bgp.clone(), bgp.clone());
            m.drop(FRONT, bgp, "host_limited");
            let me = (CLIENT_MAC, [198, 18, 0, 10]);
            let sent = arp((CLIENT_MAC, [0xff; 6]), 1, me, ([0; 6], [198, 18, 0, 1]));
            m.host((FRONT, 0), sent.clone(), sent);
        },
    );
    book.case(869, "limit_requests", "requests about next hops are limited", |m| {
        rate(m, "request", 1, 1);
        let flow = m.flow("unresolved", V4, (43_000, 8400, 8080));
        for _ in 0..3 {
            m.drop(FRONT, flow.up(tcp(SYN)).bytes(), "neighbour_unresolved");
        }
        // Nothing is kept for a packet that isn't forwarded.
        m.one_less(V4);
        m.counts("unresolved").connections = 0;
        m.wait_ms(1000);
        m.drop(FRONT, flow.up(tcp(SYN)).bytes(), "neighbour_unresolved");
        m.case.meta.requests = vec!["back 198.18.1.99".to_owned(); 2];
    });
    book.both(
        870,
        "table_full",
        "a full table keeps what is established and takes nothing new",
        |m, f| {
            m.case.meta.capacity = Some([4, 4]);
            let flows: Vec<Flow> = (0..4).map(|_| m.web(f)).collect();
            for flow in &flows {
                m.handshake(flow);
            }
            let sent = packet(CLIENT, f.client(10, 7), f.frontend(10, 80), tcp(SYN));
            m.drop(FRONT, sent.bytes(), "table_full");
            for flow in &flows {
                m.forward(flow, &flow.down(tcp(ACK)).data(b"still here"));
            }
        },
    );
    book.both(
        872,
        "half_open_overwritten",
        "a full pool of half-open connections: after three seconds the oldest goes",
        |m, f| {
            // An eighth of the table, and at least one.
            m.case.meta.capacity = Some([4, 4]);
            let kept = m.web(f);
            m.handshake(&kept);
            let first = m.web(f);
            m.forward(&first, &first.up(tcp(SYN)));
            let second = m.web(f);
            m.drop(FRONT, second.up(tcp(SYN)).bytes(), "half_open_full");
            m.wait_ms(2_999);
            m.drop(FRONT, second.up(tcp(SYN)).bytes(), "half_open_full");
            m.wait_ms(1);
            m.forward(&second, &second.up(tcp(SYN)));
            m.one_less(f);
            // The first's answer finds nothing, and is refused.
            let late = first.down(tcp(SYN | ACK));
            let body = Body::Tcp {
                sequence: 2000,
                acknowledged: 0,
                flags: RST,
                window: 0,
                options: vec![],
                data: vec![],
            };
            m.answer(BACK, late.bytes(), ours(&late, body).bytes());
            m.forward(&second, &second.down(tcp(SYN | ACK)));
            m.forward(&kept, &kept.up(tcp(ACK)));
        },
    );
    book.both(
        898,
        "new_connections_limited",
        "more new connections than a worker takes: those that are there go on",
        |m, f| {
            m.case.meta.new_connections = Some([1, 1]);
            let flow = m.web(f);
            m.handshake(&flow);
            for port in [7, 8] {
                let sent = packet(CLIENT, f.client(10, port), f.frontend(10, 80), tcp(SYN));
                m.drop(FRONT, sent.bytes(), "new_connections_limited");
            }
            m.forward(&flow, &flow.up(tcp(ACK)).data(b"not concerned"));
            m.wait_ms(1000);
            let next = m.web(f);
            m.handshake(&next);
        },
    );
    book.case(874, "nat_ports_exhausted", "every NAT port towards a backend is in use", |m| {
        m.case.meta.capacity = Some([70_000, 16]);
        m.case.meta.exhausted = Some("web".to_owned());
        m.case.meta.connections = [64_512, 0];
        let sent = packet(CLIENT, V4.client(10, 7), V4.frontend(10, 80), tcp(SYN));
        m.drop(FRONT, sent.bytes(), "nat_ports_exhausted");
    });
}
