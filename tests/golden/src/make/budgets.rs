//! Who may use up what: budgets for each interface and each purpose.

use super::neighbour::{asked, solicited};
use super::{BACK, BACKEND, Book, CLIENT, FRONT, Family, Maker, ROUTER, ours};
use crate::packet::{ACK, FIN, Packet, SYN, icmp, packet, tcp, udp};
use crate::world::{BACK_MAC, CLIENT_MAC, FRONT_MAC, at, backend_mac};
use std::net::SocketAddr;

pub(super) fn rate(m: &mut Maker, class: &str, per_second: u32, burst: u32) {
    m.case.meta.rates.insert(class.to_owned(), [per_second, burst]);
}

/// The gateway's own address on the front link.
fn own(f: Family, port: u16) -> SocketAddr {
    let mut address = f.of(at("198.18.0.1:1"), at("[2001:db8:f::1]:1"));
    address.set_port(port);
    address
}

pub(super) fn cases(book: &mut Book) {
    routing(book);
    begun(book);
    links(book);
    checksums(book);
}

fn host(m: &mut Maker, sent: &Packet) {
    m.host((FRONT, 0), sent.bytes(), sent.bytes());
}

fn routing(book: &mut Book) {
    book.both(
        852,
        "budget_routing",
        "what is forged as routing from afar leaves neighbours' BGP and BFD their budget",
        |m, f| {
            rate(m, "host_routing", 1, 2);
            rate(m, "host_other", 1, 1);
            let forged = |source: SocketAddr, port| {
                let body = if port == 179 { tcp(SYN) } else { udp(b"bfd") };
                packet(ROUTER, source, own(f, port), body).ttl(64)
            };
            // Of anybody, and of the very neighbour, but with the MAC of the router on the way.
            host(m, &forged(f.far_client(9, 50_000), 179));
            for port in [179, 3784, 3785, 4784, 6784] {
                m.drop(FRONT, forged(f.far_client(9, 50_000), port).bytes(), "host_limited");
                m.drop(FRONT, forged(f.client(10, 50_000), port).bytes(), "host_limited");
            }
            let answer = packet(ROUTER, f.client(10, 179), own(f, 50_000), tcp(ACK)).ttl(64);
            m.drop(FRONT, answer.bytes(), "host_limited");
            host(m, &packet(CLIENT, f.client(10, 179), own(f, 50_000), tcp(ACK)).ttl(1));
            host(m, &packet(CLIENT, f.client(77, 50_000), own(f, 3784), udp(b"bfd")).ttl(255));
            let third = packet(CLIENT, f.client(10, 50_000), own(f, 179), tcp(ACK));
            m.drop(FRONT, third.bytes(), "host_limited");
        },
    );
    book.both(
        854,
        "budget_peers",
        "peers of the configuration have a budget beside the neighbours'",
        |m, f| {
            m.case.meta.peers = vec![f.far_client(7, 0).ip().to_string()];
            rate(m, "host_routing", 1, 1);
            rate(m, "host_peer", 1, 1);
            rate(m, "host_other", 1, 0);
            let peer = packet(ROUTER, f.far_client(7, 50_000), own(f, 179), tcp(SYN)).ttl(60);
            host(m, &peer);
            m.drop(FRONT, peer.bytes(), "host_limited");
            host(m, &packet(CLIENT, f.client(10, 50_000), own(f, 179), tcp(SYN)));
            let ssh = packet(ROUTER, f.far_client(7, 50_000), own(f, 22), tcp(SYN));
            m.drop(FRONT, ssh.bytes(), "host_limited");
        },
    );
}

fn begun(book: &mut Book) {
    let about = "answers to what the host itself began have a budget beside everybody's noise";
    book.both(856, "budget_begun", about, |m, f| {
        rate(m, "host_other", 1, 1);
        let out =
            |to: SocketAddr, port, body| packet((FRONT_MAC, CLIENT_MAC), own(f, port), to, body);
        let noise = packet(ROUTER, f.far_client(66, 443), own(f, 40_000), tcp(ACK));
        host(m, &noise);
        m.drop(FRONT, noise.bytes(), "host_limited");
        // A connection, a query and a ping of the host; each answer comes in the budget of answers.
        let api = out(f.far_client(5, 443), 40_000, tcp(SYN));
        let query = out(f.far_client(5, 53), 40_001, udp(b"who?"));
        let ping = out(f.far_client(5, 0), 0, icmp(f.echo_request(), 0, 0x0007_0001, b"ping"));
        for sent in [&api, &query, &ping] {
            m.host_sends(&sent.bytes());
        }
        let answer = |sent: &Packet, body| packet(ROUTER, sent.destination, sent.source, body);
        host(m, &answer(&api, tcp(SYN | ACK)));
        host(m, &answer(&query, udp(b"me")));
        host(m, &answer(&ping, icmp(f.echo_reply(), 0, 0x0007_0001, b"ping")));
        // An error about it is one as well, from whomever.
        let (kind, code) = f.too_big();
        let quote = super::quoting(
            ROUTER,
            (f.far_client(250, 0), own(f, 0)),
            (kind, code),
            1400,
            &api.ip(),
        );
        host(m, &quote);
        // Another port, another peer, another identifier: noise.
        let others = [
            answer(&api, tcp(ACK)).from(f.far_client(5, 444)),
            answer(&api, tcp(ACK)).from(f.far_client(6, 443)),
            answer(&query, udp(b"me")).to(own(f, 40_002)),
            answer(&ping, icmp(f.echo_reply(), 0, 0x0008_0001, b"ping")),
        ];
        for other in others {
            m.drop(FRONT, other.bytes(), "host_limited");
        }
    });
    let about = "the host's answers to strangers begin nothing, and what it began ages out";
    book.both(858, "budget_begun_ages", about, |m, f| {
        rate(m, "host_other", 1, 0);
        let to = |port| f.far_client(5, port);
        let out = |(port, to), body| packet((FRONT_MAC, CLIENT_MAC), own(f, port), to, body);
        let back = |(port, to), body| packet(ROUTER, to, own(f, port), body);
        let (api, ssh, dns) = ((40_000, to(443)), (22, to(40_000)), (53, to(1_053)));
        m.host_sends(&out(ssh, tcp(SYN | ACK)).bytes());
        m.host_sends(&out(ssh, tcp(ACK)).bytes());
        m.host_sends(&out(dns, udp(b"here")).bytes());
        m.drop(FRONT, back(ssh, tcp(ACK)).bytes(), "host_limited");
        m.drop(FRONT, back(dns, udp(b"?")).bytes(), "host_limited");
        m.host_sends(&out(api, tcp(SYN)).bytes());
        host(m, &back(api, tcp(SYN | ACK)));
        m.host_sends(&out(api, tcp(ACK)).bytes());
        host(m, &back(api, tcp(ACK)));
        m.wait_ms(7_200_000);
        host(m, &back(api, tcp(ACK)));
        // What comes refreshes nothing.
        m.wait_ms(1_000_000);
        m.drop(FRONT, back(api, tcp(ACK)).bytes(), "host_limited");
        m.host_sends(&out(api, tcp(SYN)).bytes());
        m.host_sends(&out(api, tcp(FIN | ACK)).bytes());
        host(m, &back(api, tcp(ACK)));
        m.wait_ms(9_000);
        host(m, &back(api, tcp(FIN | ACK)));
        m.wait_ms(2_000);
        m.drop(FRONT, back(api, tcp(FIN | ACK)).bytes(), "host_limited");
    });
}

fn links(book: &mut Book) {
    book.case(875, "budget_arp_links", "ARP in front leaves the link behind its budget", |m| {
        rate(m, "neighbour", 1, 1);
        rate(m, "host_neighbour", 1, 1);
        let client = (CLIENT_MAC, "198.18.0.10");
        let (ask, reply) = asked(FRONT_MAC, "203.0.113.10", client);
        m.answer(FRONT, ask.clone(), reply);
        m.drop(FRONT, ask, "answer_limited");
        let (ask, _) = asked(FRONT_MAC, "198.18.0.1", client);
        m.host((FRONT, 0), ask.clone(), ask.clone());
        m.drop(FRONT, ask, "host_limited");
        let backend = (backend_mac(11), "198.18.1.11");
        let (ask, reply) = asked(BACK_MAC, "198.18.1.200", backend);
        m.answer(BACK, ask, reply);
        let (ask, _) = asked(BACK_MAC, "198.18.1.1", backend);
        m.host((BACK, 1), ask.clone(), ask);
    });
    let about = "neighbour discovery in front leaves the link behind its budget";
    book.case(876, "budget_nd_links", about, |m| {
        rate(m, "neighbour", 1, 1);
        rate(m, "host_neighbour", 1, 1);
        let client = (CLIENT_MAC, "2001:db8:f::10");
        let (ask, reply) = solicited(CLIENT, "2001:db8:a::10", client);
        m.answer(FRONT, ask.clone(), reply);
        m.drop(FRONT, ask, "answer_limited");
        let (ask, _) = solicited(CLIENT, "2001:db8:f::1", client);
        m.host((FRONT, 0), ask.clone(), ask.clone());
        m.drop(FRONT, ask, "host_limited");
        let backend = (backend_mac(11), "2001:db8:b::11");
        let (ask, reply) = solicited(BACKEND, "2001:db8:b::200", backend);
        m.answer(BACK, ask, reply);
        let (ask, _) = solicited(BACKEND, "2001:db8:b::1", backend);
        m.host((BACK, 1), ask.clone(), ask);
    });
}

/// Without a token no checksum is looked at, however long the packet.
fn checksums(book: &mut Book) {
    let about = "a checksum is verified after the token was taken";
    book.both(877, "budget_checksums", about, |m, f| {
        for class in ["refusal", "echo", "time_exceeded", "too_big"] {
            rate(m, class, 1, 1);
        }
        let flow = m.web(f);
        m.handshake(&flow);
        let wrong = |sent: &Packet| {
            let mut bytes = sent.bytes();
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        };
        let data = vec![7; 1_400];
        let echo = icmp(f.echo_request(), 0, 7, &data);
        let all = [
            packet(CLIENT, f.client(10, 7), f.frontend(10, 81), tcp(ACK)).data(&data),
            packet(CLIENT, f.client(10, 0), f.frontend(10, 0), echo),
            flow.up(tcp(ACK)).data(&data).ttl(1),
            flow.up(tcp(ACK)).data(&[7; 1_600]),
        ];
        for sent in &all {
            m.drop(FRONT, wrong(sent), "l4_checksum");
            m.drop(FRONT, wrong(sent), "answer_limited");
        }
        m.wait_ms(1_000);
        let refused = packet(CLIENT, f.client(10, 7), f.frontend(10, 81), udp(b"?"));
        let (kind, code) = f.port_unreachable();
        let answer = ours(&refused, icmp(kind, code, 0, &refused.ip()));
        m.answer(FRONT, refused.bytes(), answer.bytes());
    });
    book.case(879, "budget_checksums_nd", "a solicitation's too", |m| {
        rate(m, "neighbour", 1, 1);
        let (mut ask, _) = solicited(CLIENT, "2001:db8:a::10", (CLIENT_MAC, "2001:db8:f::10"));
        *ask.last_mut().unwrap() ^= 1;
        m.drop(FRONT, ask.clone(), "l4_checksum");
        m.drop(FRONT, ask, "answer_limited");
    });
}
