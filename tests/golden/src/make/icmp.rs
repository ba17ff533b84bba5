//! ICMP: errors about connections, translated both ways, and echo.

use super::{BACK, BACKEND, Book, CLIENT, FRONT, Family, Flow, Maker, ROUTER, V4, V6, quoting};
use crate::packet::{ACK, Body, Packet, icmp, packet, tcp, udp};
use crate::world::{BACK_MAC, ROUTER_MAC, at, backend_mac, ip};
use std::net::SocketAddr;

/// An error from the backend's side about a packet that the client sent.
fn from_back(
    m: &mut Maker,
    flow: &Flow,
    source: SocketAddr,
    about: (u8, u8, u32),
    sent: &Packet,
    quote: usize,
) {
    let (kind, code, word) = about;
    let inner = flow.forwarded(sent).ip();
    let quote = quote.min(inner.len());
    let macs = (backend_mac(11), BACK_MAC);
    let error = quoting(macs, (source, flow.nat), (kind, code), word, &inner[..quote]);
    // What the client sent, but that its TTL is one less by then.
    let theirs = sent.clone().ttl(sent.ttl - 1).ip();
    let mut expected = error.clone().body(icmp(kind, code, word, &theirs[..quote])).ttl(63);
    (expected.source, expected.destination) = (flow.frontend, flow.client);
    expected.macs = (super::FRONT_MAC, flow.client_mac);
    m.translated(BACK, error.bytes(), expected.bytes());
}

/// An error from the client's side about a packet that the backend sent.
fn from_front(
    m: &mut Maker,
    flow: &Flow,
    source: SocketAddr,
    about: (u8, u8, u32),
    sent: &Packet,
    quote: usize,
) {
    let (kind, code, word) = about;
    let inner = flow.forwarded(sent).ip();
    let quote = quote.min(inner.len());
    let macs = if source == flow.client { CLIENT } else { ROUTER };
    let error = quoting(macs, (source, flow.frontend), (kind, code), word, &inner[..quote]);
    let theirs = sent.clone().ttl(sent.ttl - 1).ip();
    let mut expected = error.clone().body(icmp(kind, code, word, &theirs[..quote])).ttl(63);
    (expected.source, expected.destination) = (flow.nat, flow.backend);
    expected.macs = (BACK_MAC, flow.backend_mac);
    m.translated(FRONT, error.bytes(), expected.bytes());
}

pub(super) fn cases(book: &mut Book) {
    errors(book);
    unmatched(book);
    echo(book);
}

fn errors(book: &mut Book) {
    book.both(
        500,
        "unreachable_from_backend",
        "a closed port of a backend: the client learns it",
        |m, f| {
            let flow = m.dns(f);
            let sent = flow.up(udp(b"is there anybody?"));
            m.forward(&flow, &sent);
            let (kind, code) = f.port_unreachable();
            from_back(m, &flow, flow.backend, (kind, code, 0), &sent, 2000);
        },
    );
    book.both(
        502,
        "too_big_from_behind",
        "path MTU discovery of a client, through the gateway",
        |m, f| {
            let flow = m.web(f);
            m.handshake(&flow);
            let sent = flow.up(tcp(ACK)).data(&[8; 1400]);
            m.forward(&flow, &sent);
            let (kind, code) = f.too_big();
            from_back(m, &flow, f.back(14, 0), (kind, code, 1280), &sent, f.of(548, 1232));
        },
    );
    book.both(
        504,
        "unreachable_from_client",
        "a client that has closed its port: the backend learns it",
        |m, f| {
            let flow = m.dns(f);
            m.forward(&flow, &flow.up(udp(b"?")));
            let sent = flow.down(udp(b"the answer comes late"));
            m.forward(&flow, &sent);
            let (kind, code) = f.port_unreachable();
            from_front(m, &flow, flow.client, (kind, code, 0), &sent, 2000);
        },
    );
    book.both(
        506,
        "too_big_from_before",
        "path MTU discovery of a backend, through the gateway",
        |m, f| {
            let flow = m.web(f).client(f.far_client(9, 1025), ROUTER_MAC);
            m.handshake(&flow);
            let sent = flow.down(tcp(ACK)).data(&[8; 1400]);
            m.forward(&flow, &sent);
            let (kind, code) = f.too_big();
            from_front(m, &flow, f.client(254, 0), (kind, code, 1300), &sent, f.of(548, 1232));
        },
    );
    book.case(
        515,
        "too_big_below_the_floor_v4",
        "IPv4: one client's narrow path isn't every client's: below 1280 routers may fragment instead",
        |m| {
            let flow = m.web(V4).client(V4.far_client(9, 1025), ROUTER_MAC);
            m.handshake(&flow);
            let mut sent = flow.down(tcp(ACK)).data(&[8; 1400]);
            sent.df = true;
            m.forward(&flow, &sent);
            for mtu in [1279, 68, 0] {
                let quoted = flow.forwarded(&sent).ip();
                let ends = (V4.client(254, 0), flow.frontend);
                let error = quoting(ROUTER, ends, (3, 4), mtu, &quoted[..548]);
                m.drop(FRONT, error.bytes(), "path_mtu_floor");
            }
            for packet in 0..2 {
                let mut out = flow.forwarded(&sent);
                (out.df, out.id) = (false, m.identification(packet));
                m.forward_as(&flow, &sent, (sent.bytes(), out.bytes()));
            }
            // What the client sends is as it was.
            let mut up = flow.up(tcp(ACK)).data(b"mine");
            up.df = true;
            m.forward(&flow, &up);
        },
    );
    book.case(516, "too_big_below_1280_v6", "IPv6: nobody may ask for less than 1280", |m| {
        let flow = m.web(V6).client(V6.far_client(9, 1025), ROUTER_MAC);
        m.handshake(&flow);
        let sent = flow.down(tcp(ACK)).data(&[8; 1400]);
        m.forward(&flow, &sent);
        let quoted = flow.forwarded(&sent).ip();
        let ends = (V6.client(254, 0), flow.frontend);
        let error = quoting(ROUTER, ends, (2, 0), 1279, &quoted[..1232]);
        m.drop(FRONT, error.bytes(), "path_mtu_floor");
        m.forward(&flow, &sent);
    });
    book.both(508, "time_exceeded_short", "an error that quotes no more than the ports", |m, f| {
        let flow = m.web(f);
        m.handshake(&flow);
        let sent = flow.up(tcp(ACK)).data(b"traceroute");
        m.forward(&flow, &sent);
        let (kind, code) = f.time_exceeded();
        from_back(m, &flow, f.back(14, 0), (kind, code, 0), &sent, f.of(28, 48));
        from_back(m, &flow, f.back(14, 0), (kind, code, 0), &sent, f.of(24, 44));
    });
    book.both(
        556,
        "error_budget",
        "errors about connections beyond their budget are dropped before their checksum is looked at",
        |m, f| {
            super::budgets::rate(m, "icmp_error", 1, 1);
            let flow = m.web(f);
            m.handshake(&flow);
            let sent = flow.up(tcp(ACK)).data(b"traceroute");
            m.forward(&flow, &sent);
            let (kind, code) = f.time_exceeded();
            let source = f.back(14, 0);
            from_back(m, &flow, source, (kind, code, 0), &sent, f.of(28, 48));
            let inner = flow.forwarded(&sent).ip();
            let macs = (backend_mac(11), BACK_MAC);
            let error = quoting(macs, (source, flow.nat), (kind, code), 0, &inner[..f.of(28, 48)]);
            m.drop(BACK, error.bytes(), "icmp_limited");
            let mut wrong = error.bytes();
            let last = wrong.len() - 1;
            wrong[last] ^= 1;
            m.drop(BACK, wrong, "icmp_limited");
            // The connection itself goes on.
            m.forward(&flow, &flow.up(tcp(ACK)).data(b"more"));
        },
    );
    book.case(510, "unreachable_no_checksum", "IPv4: a quoted UDP checksum of 0 stays 0", |m| {
        let flow = m.dns(V4);
        let sent = flow.up(Body::Udp { checksum: false, data: b"?".to_vec() });
        m.forward(&flow, &sent);
        from_back(m, &flow, flow.backend, (3, 3, 0), &sent, 2000);
    });
    book.both(
        511,
        "unreachable_checksum_ffff",
        "a quoted UDP checksum comes back as it was, 0xffff",
        |m, f| {
            let flow = m.dns(f);
            let sent = (0..=u16::MAX)
                .map(|n| flow.up(udp(&n.to_be_bytes())))
                .find(|packet| packet.l4()[6..8] == [0xff, 0xff])
                .expect("one of all");
            m.forward(&flow, &sent);
            let (kind, code) = f.port_unreachable();
            from_back(m, &flow, flow.backend, (kind, code, 0), &sent, 2000);
        },
    );
    book.case(513, "unreachable_odd_quote", "IPv4: a quotation of odd length", |m| {
        let flow = m.web(V4);
        m.handshake(&flow);
        let sent = flow.up(tcp(ACK)).data(&[0xee; 99]);
        m.forward(&flow, &sent);
        from_back(m, &flow, at("198.18.1.14:0"), (3, 1, 0), &sent, 75);
    });
    book.case(514, "unreachable_quoted_options", "IPv4: the quoted packet has options", |m| {
        let flow = m.web(V4);
        let mut sent = flow.up(tcp(crate::packet::SYN));
        sent.options = vec![1, 1, 1, 0];
        m.forward(&flow, &sent);
        from_back(m, &flow, at("198.18.1.14:0"), (3, 13, 0), &sent, 2000);
    });
}

fn unmatched(book: &mut Book) {
    book.both(520, "error_unmatched", "an error about no connection is dropped", |m, f| {
        let quoted = packet(BACKEND, f.back(200, 1024), f.back(11, 8080), tcp(ACK)).ip();
        let sent =
            quoting(BACKEND, (f.back(11, 0), f.back(200, 0)), f.port_unreachable(), 0, &quoted);
        m.drop(BACK, sent.bytes(), "icmp_unmatched");
        let quoted = packet(CLIENT, f.frontend(10, 80), f.client(10, 7), tcp(ACK)).ip();
        let sent =
            quoting(CLIENT, (f.client(10, 0), f.frontend(10, 0)), f.port_unreachable(), 0, &quoted);
        m.drop(FRONT, sent.bytes(), "icmp_unmatched");
    });
    book.both(
        522,
        "error_elsewhere",
        "an error to another address than the quoted sender's",
        |m, f| {
            let flow = m.dns(f);
            let sent = flow.down(udp(b"!"));
            m.forward(&flow, &flow.up(udp(b"?")));
            let quoted = flow.forwarded(&sent).ip();
            let error =
                quoting(CLIENT, (flow.client, f.frontend(20, 0)), f.port_unreachable(), 0, &quoted);
            m.drop(FRONT, error.bytes(), "icmp_unmatched");
        },
    );
    book.both(524, "error_checksum", "an error with a wrong checksum is dropped", |m, f| {
        let flow = m.dns(f);
        let sent = flow.up(udp(b"?"));
        m.forward(&flow, &sent);
        let quoted = flow.forwarded(&sent).ip();
        let error = quoting(BACKEND, (flow.backend, flow.nat), f.port_unreachable(), 0, &quoted);
        let mut bytes = error.bytes();
        *bytes.last_mut().unwrap() ^= 1;
        m.drop(BACK, bytes, "l4_checksum");
    });
    book.both(526, "error_cut", "an error whose quotation ends before the ports", |m, f| {
        let flow = m.dns(f);
        let sent = flow.up(udp(b"?"));
        m.forward(&flow, &sent);
        let quoted = flow.forwarded(&sent).ip();
        for len in [f.of(23, 43), 19, 1, 0] {
            let about = f.port_unreachable();
            let error = quoting(BACKEND, (flow.backend, flow.nat), about, 0, &quoted[..len]);
            m.drop(BACK, error.bytes(), "icmp_unmatched");
        }
    });
    book.both(530, "error_in_fragments", "an error that comes in fragments is nobody's", |m, f| {
        let flow = m.dns(f);
        let sent = flow.up(udp(&[1; 800]));
        m.forward(&flow, &sent);
        let quoted = flow.forwarded(&sent).ip();
        let about = f.port_unreachable();
        let error = quoting(BACKEND, (flow.backend, flow.nat), about, 0, &quoted);
        let parts = error.fragments(3, &[400]);
        m.drop(BACK, parts[0].clone(), "icmp_unmatched");
        m.drop(BACK, parts[1].clone(), "fragment_unknown");
    });
    book.both(
        528,
        "error_of_fragment",
        "an error that quotes a later fragment names no ports",
        |m, f| {
            let quoted = packet(BACKEND, f.back(200, 1024), f.back(11, 5353), udp(&[0; 900]));
            let later = quoted.fragments(3, &[400]).remove(1);
            let error = quoting(
                BACKEND,
                (f.back(11, 0), f.back(200, 0)),
                f.time_exceeded(),
                0,
                &later[14..],
            );
            m.drop(BACK, error.bytes(), "icmp_unmatched");
        },
    );
}

fn echo_of(
    f: Family,
    macs: ([u8; 6], [u8; 6]),
    from: SocketAddr,
    to: SocketAddr,
    data: &[u8],
) -> Packet {
    packet(macs, from, to, icmp(f.echo_request(), 0, 0x0007_0001, data))
}

fn reply(f: Family, request: &Packet) -> Packet {
    let Body::Icmp { word, data, .. } = &request.body else { panic!("no echo") };
    request.clone().reversed().ttl(64).body(icmp(f.echo_reply(), 0, *word, data))
}

fn echo(book: &mut Book) {
    book.both(540, "echo_frontend", "ping of a frontend's address, from near and far", |m, f| {
        let near = echo_of(f, CLIENT, f.client(10, 0), f.frontend(10, 0), b"abcdefgh");
        m.answer(FRONT, near.bytes(), reply(f, &near).bytes());
        let mut far =
            echo_of(f, ROUTER, f.far_client(9, 0), f.frontend(20, 0), &[0xff; 1401]).ttl(7);
        (far.df, far.id) = (false, 0xffff);
        m.answer(FRONT, far.bytes(), reply(f, &far).bytes());
        let empty = echo_of(f, CLIENT, f.client(10, 0), f.frontend(10, 0), b"").ttl(1);
        m.answer(FRONT, empty.bytes(), reply(f, &empty).bytes());
    });
    book.both(542, "echo_nat", "ping of a NAT address", |m, f| {
        let sent = echo_of(f, BACKEND, f.back(11, 0), f.back(200, 0), b"abcdefgh");
        m.answer(BACK, sent.bytes(), reply(f, &sent).bytes());
    });
    book.both(544, "echo_checksum", "a ping with a wrong checksum gets no answer", |m, f| {
        let mut sent = echo_of(f, CLIENT, f.client(10, 0), f.frontend(10, 0), b"abcdefgh").bytes();
        *sent.last_mut().unwrap() ^= 0x80;
        m.drop(FRONT, sent, "l4_checksum");
    });
    book.both(546, "icmp_unsupported", "other ICMP for a frontend means nothing", |m, f| {
        for kind in [f.echo_reply(), f.of(13, 127), f.of(5, 200)] {
            let sent =
                packet(CLIENT, f.client(10, 0), f.frontend(10, 0), icmp(kind, 0, 0, &[0; 12]));
            m.drop(FRONT, sent.bytes(), "icmp_unsupported");
        }
    });
    book.both(548, "echo_fragments", "a ping in fragments gets no answer", |m, f| {
        let sent = echo_of(f, CLIENT, f.client(10, 0), f.frontend(10, 0), &[1; 1600]);
        let parts = sent.fragments(4, &[800]);
        m.drop(FRONT, parts[0].clone(), "icmp_unsupported");
        m.drop(FRONT, parts[1].clone(), "fragment_unknown");
    });
    book.both(550, "echo_to_group", "a ping in a frame to a group gets no answer", |m, f| {
        let sent = echo_of(f, CLIENT, f.client(10, 0), f.frontend(10, 0), b"all of you?")
            .to_mac([0xff; 6]);
        m.drop(FRONT, sent.bytes(), "icmp_unsupported");
    });
    book.both(552, "echo_own", "a ping of the gateway's own address is the host's", |m, f| {
        let own = SocketAddr::new(ip(f.of("198.18.0.1", "2001:db8:f::1")), 0);
        let sent = echo_of(f, CLIENT, f.client(10, 0), own, b"abcdefgh");
        m.host((FRONT, 0), sent.bytes(), sent.bytes());
    });
    book.case(554, "echo_extensions", "IPv6: a ping with extension headers", |m| {
        let mut sent = echo_of(V6, CLIENT, V6.client(10, 0), V6.frontend(10, 0), b"abcdefgh");
        sent.extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0])];
        m.answer(FRONT, sent.bytes(), reply(V6, &sent).bytes());
    });
    book.case(555, "echo_options", "IPv4: a ping with options", |m| {
        let mut sent = echo_of(V4, CLIENT, V4.client(10, 0), V4.frontend(10, 0), b"abcdefgh");
        sent.options = vec![1, 1, 1, 0];
        m.answer(FRONT, sent.bytes(), reply(V4, &sent).bytes());
    });
}
