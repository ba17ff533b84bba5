//! IP: options, extension headers, fragments, TTL, MTU, routes.

use super::{BACK, Book, CLIENT, FRONT, ROUTER_MAC, V4, V6, ours, quoting};
use crate::packet::{ACK, PSH, SYN, icmp, packet, tcp, udp};
use crate::world::{BACK_MAC, at, backend_mac};

pub(super) fn cases(book: &mut Book) {
    book.case(400, "options_v4", "IPv4 options pass, with the header checksum right", |m| {
        let flow = m.web(V4);
        let mut sent = flow.up(tcp(SYN));
        sent.options = vec![7, 7, 4, 0, 0, 0, 0, 1];
        m.forward(&flow, &sent);
        let mut back = flow.down(tcp(SYN | ACK));
        back.options = vec![0x94, 4, 0, 0];
        m.forward(&flow, &back);
        let mut full = flow.up(tcp(ACK)).data(b"with forty bytes of options");
        full.options = vec![1; 40];
        m.forward(&flow, &full);
    });
    book.case(401, "extensions_v6", "IPv6 extension headers pass, in chains up to eight", |m| {
        let flow = m.web(V6);
        let pad = |number| (number, vec![0, 1, 4, 0, 0, 0, 0]);
        let mut sent = flow.up(tcp(SYN));
        sent.extensions = vec![pad(60)];
        m.forward(&flow, &sent);
        let mut back = flow.down(tcp(SYN | ACK));
        // Hop-by-hop, destination options, routing of type 2 with nothing left.
        back.extensions = vec![pad(0), pad(60), (43, vec![0, 2, 0, 0, 0, 0, 0])];
        m.forward(&flow, &back);
        let mut longest = flow.up(tcp(ACK)).data(b"behind eight");
        longest.extensions = vec![(60, [vec![1, 1, 12], vec![0; 12]].concat()); 8];
        m.forward(&flow, &longest);
    });
    book.both(402, "fragments", "fragments pass once the first was seen, both ways", |m, f| {
        let flow = m.dns(f);
        for (sent, id) in
            [(flow.up(udp(&[0x31; 2000])), 0xbeef), (flow.down(udp(&[0x32; 2500])), 0xcafe)]
        {
            let forwarded = flow.forwarded(&sent);
            let cuts = [808, 1608];
            let out = forwarded.fragments(m.fragment_id(), &cuts);
            for pair in sent.fragments(id, &cuts).into_iter().zip(out) {
                m.forward_as(&flow, &sent, pair);
            }
        }
    });
    book.both(
        404,
        "fragment_unknown",
        "a later fragment without a first one is dropped",
        |m, f| {
            let flow = m.dns(f);
            m.forward(&flow, &flow.up(udp(b"the flow is there")));
            let later = flow.up(udp(&[1; 1600])).fragments(7, &[800]).remove(1);
            m.drop(FRONT, later, "fragment_unknown");
            let later = flow.down(udp(&[1; 1600])).fragments(7, &[800]).remove(1);
            m.drop(BACK, later, "fragment_unknown");
        },
    );
    book.both(
        406,
        "fragments_overtake",
        "what overtook the first is dropped, the rest passes",
        |m, f| {
            let flow = m.dns(f);
            let sent = flow.up(udp(&[5; 2400]));
            let cuts = [800, 1600];
            let parts = sent.fragments(99, &cuts);
            let out = flow.forwarded(&sent).fragments(m.fragment_id(), &cuts);
            m.drop(FRONT, parts[2].clone(), "fragment_unknown");
            m.forward_as(&flow, &sent, (parts[0].clone(), out[0].clone()));
            m.forward_as(&flow, &sent, (parts[1].clone(), out[1].clone()));
            m.wait_ms(15_000);
            m.drop(FRONT, parts[1].clone(), "fragment_unknown");
        },
    );
    book.both(
        408,
        "fragments_apart",
        "fragments of one id but another sender don't mix",
        |m, f| {
            let flow = m.dns(f);
            let sent = flow.up(udp(&[5; 1600]));
            let out = flow.forwarded(&sent).fragments(m.fragment_id(), &[800]);
            m.forward_as(&flow, &sent, (sent.fragments(5, &[800])[0].clone(), out[0].clone()));
            let other = sent.clone().from(f.client(77, 50_000)).fragments(5, &[800]).remove(1);
            m.drop(FRONT, other, "fragment_unknown");
            let later = sent.fragments(5, &[800]).remove(1);
            m.forward_as(&flow, &sent, (later, out[1].clone()));
        },
    );
    book.both(
        430,
        "fragments_of_two_clients",
        "two clients' fragments with one identification leave with two",
        |m, f| {
            let flows = [9, 8].map(|n| m.dns(f).client(f.far_client(n, 50_000), ROUTER_MAC));
            let cut = [800];
            let parts = flows.clone().map(|flow| {
                let sent = flow.up(udp(&[5; 1600]));
                let out = flow.forwarded(&sent).fragments(m.fragment_id(), &cut);
                (flow, sent.clone(), sent.fragments(5, &cut), out)
            });
            for part in 0..2 {
                for (flow, sent, from, to) in &parts {
                    m.forward_as(flow, sent, (from[part].clone(), to[part].clone()));
                }
            }
        },
    );
    book.both(
        410,
        "tcp_fragments",
        "a TCP segment in fragments, and a FIN in its first",
        |m, f| {
            let flow = m.web(f);
            m.handshake(&flow);
            let sent = flow.up(tcp(PSH | ACK)).data(&[3; 1200]);
            let out = flow.forwarded(&sent).fragments(m.fragment_id(), &[600]);
            for pair in sent.fragments(0x0101, &[600]).into_iter().zip(out) {
                m.forward_as(&flow, &sent, pair);
            }
        },
    );
    book.both(
        428,
        "syn_in_pieces",
        "a SYN in fragments begins nothing, and one that is whole does",
        |m, f| {
            let flow = m.web(f);
            let sent = flow.up(tcp(SYN)).data(&[3; 1200]);
            let parts = sent.fragments(0x0202, &[600]);
            m.drop(FRONT, parts[0].clone(), "syn_fragment");
            m.drop(FRONT, parts[1].clone(), "fragment_unknown");
            m.handshake(&flow);
        },
    );
    book.both(
        412,
        "ttl_from_client",
        "TTL 1 from a client: time exceeded, from the frontend",
        |m, f| {
            let flow = m.web(f);
            m.handshake(&flow);
            for ttl in [1, 0] {
                let sent = flow.up(tcp(PSH | ACK)).data(b"too far").ttl(ttl);
                let (kind, code) = f.time_exceeded();
                let answer = ours(&sent, icmp(kind, code, 0, &sent.ip()));
                m.answer(FRONT, sent.bytes(), answer.bytes());
            }
        },
    );
    book.both(
        432,
        "first_goes_no_further",
        "what isn't forwarded begins nothing: TTL 1, too long, a wrong checksum",
        |m, f| {
            let client = f.client(10, 40_100);
            let to = |frontend, body| packet(CLIENT, client, frontend, body);
            let (kind, code) = f.time_exceeded();
            let syn = to(f.frontend(10, 80), tcp(SYN));
            let short = syn.clone().ttl(1);
            let answer = ours(&short, icmp(kind, code, 0, &short.ip()));
            m.answer(FRONT, short.bytes(), answer.bytes());
            let (kind, code) = f.too_big();
            let quoted = f.of(576 - 28, 1280 - 48);
            let mut long = to(f.frontend(10, 53), udp(&[1; 1600]));
            long.df = true;
            let answer = ours(&long, icmp(kind, code, 1500, &long.ip()[..quoted]));
            m.answer(FRONT, long.bytes(), answer.bytes());
            for sent in [syn, to(f.frontend(10, 53), udp(b"?"))] {
                let mut wrong = sent.bytes();
                let checksum = wrong.len() - if sent.body == tcp(SYN) { 4 } else { 3 };
                wrong[checksum] ^= 1;
                m.drop(FRONT, wrong, "l4_checksum");
            }
        },
    );
    book.both(
        414,
        "ttl_from_backend",
        "TTL 1 from a backend: time exceeded, from the NAT address",
        |m, f| {
            let flow = m.dns(f);
            m.forward(&flow, &flow.up(udp(b"?")));
            let sent = flow.down(udp(b"!")).ttl(1);
            let (kind, code) = f.time_exceeded();
            m.answer(BACK, sent.bytes(), ours(&sent, icmp(kind, code, 0, &sent.ip())).bytes());
        },
    );
    book.both(416, "ttl_two", "TTL 2 and 255 leave as 1 and 254", |m, f| {
        let flow = m.web(f);
        m.forward(&flow, &flow.up(tcp(SYN)).ttl(2));
        m.forward(&flow, &flow.down(tcp(SYN | ACK)).ttl(255));
    });
    book.both(418, "mtu", "too long for the way out: the sender is told the MTU", |m, f| {
        let flow = m.web(f);
        m.handshake(&flow);
        let (kind, code) = f.too_big();
        let quoted = f.of(576 - 28, 1280 - 48);
        let sent = flow.up(tcp(ACK)).data(&[1; 1600]);
        let answer = ours(&sent, icmp(kind, code, 1500, &sent.ip()[..quoted]));
        m.answer(FRONT, sent.bytes(), answer.bytes());
        let sent = flow.down(tcp(ACK)).data(&[2; 1600]);
        let answer = ours(&sent, icmp(kind, code, 1500, &sent.ip()[..quoted]));
        m.answer(BACK, sent.bytes(), answer.bytes());
    });
    book.case(
        420,
        "mtu_of_vlan",
        "IPv4: the MTU of the interface that it would leave by counts",
        |m| {
            let flow = m.tagged();
            m.handshake(&flow);
            m.forward(&flow, &flow.up(tcp(ACK)).data(&[1; 1360]));
            let sent = flow.up(tcp(ACK)).data(&[1; 1361]);
            let answer = ours(&sent, icmp(3, 4, 1400, &sent.ip()[..548]));
            m.answer(FRONT, sent.bytes(), answer.bytes());
        },
    );
    book.case(421, "mtu_without_df", "IPv4: too long, but fragments are allowed: dropped", |m| {
        let flow = m.web(V4);
        m.handshake(&flow);
        let mut sent = flow.up(tcp(ACK)).data(&[1; 1600]);
        sent.df = false;
        m.drop(FRONT, sent.bytes(), "mtu_exceeded");
    });
    book.case(422, "node_as_next_hop", "a pod behind a node of ours: the node's MAC", |m| {
        let flow = m.flow("pod", V4, (42_000, 8500, 8080));
        let flow = flow.to(at("10.244.3.7:8080"), backend_mac(12));
        m.handshake(&flow);
    });
    book.case(423, "route_to_backend", "a backend behind a router: the router's MAC", |m| {
        let flow = m.flow("routed", V4, (42_000, 8600, 8080));
        let flow = flow.to(at("10.244.3.8:8080"), backend_mac(14));
        m.handshake(&flow);
    });
    book.both(424, "ttl_of_error", "an ICMP error with TTL 1 gets no answer", |m, f| {
        let flow = m.dns(f);
        m.forward(&flow, &flow.up(udp(b"?")));
        let quoted = flow.forwarded(&flow.up(udp(b"?"))).ip();
        let addresses = (flow.backend, flow.nat);
        let macs = (backend_mac(11), BACK_MAC);
        let sent = quoting(macs, addresses, f.port_unreachable(), 0, &quoted).ttl(1);
        m.drop(BACK, sent.bytes(), "ttl_expired");
    });
}
