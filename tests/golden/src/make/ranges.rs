//! Source ranges: who may begin connections at guarded frontends.

use super::{Book, CLIENT, FRONT, Flow, Maker, ROUTER, ROUTER_MAC};
use super::{Family, refusal::reset};
use crate::packet::{ACK, Body, FIN, Packet, RST, SYN, packet, tcp, udp};

/// A connection of a client behind the router: `.5` and `.200` may begin one, `.130` may not.
fn far(m: &mut Maker, f: Family, last: u8, service: &'static str, ports: (u16, u16, u16)) -> Flow {
    m.flow(service, f, ports).client(f.far_client(last, ports.0), ROUTER_MAC)
}

/// The same client's packet to a port of the frontend address.
fn to(f: Family, last: u8, port: u16, body: Body) -> Packet {
    packet(ROUTER, f.far_client(last, 40_000), f.frontend(10, port), body)
}

pub(super) fn cases(book: &mut Book) {
    book.both(730, "ranges_admit", "clients of the source ranges, TCP and UDP", |m, f| {
        for last in [5, 200] {
            let flow = far(m, f, last, "walled", (40_000, 8700, 8080));
            m.handshake(&flow);
            let flow = far(m, f, last, "walldns", (50_000, 8700, 5353));
            m.forward(&flow, &flow.up(udp(b"?")));
            m.forward(&flow, &flow.down(udp(b"!")));
        }
    });
    book.both(
        732,
        "ranges_block",
        "other clients get silence, whatever they send and whether there is a backend or not",
        |m, f| {
            let all = [
                to(f, 130, 8700, tcp(SYN)),
                to(f, 130, 8700, tcp(ACK)).data(b"of no connection"),
                to(f, 130, 8700, tcp(RST)),
                to(f, 130, 8700, tcp(FIN | ACK)),
                to(f, 130, 8700, udp(b"?")),
                packet(CLIENT, f.client(10, 40_000), f.frontend(10, 8700), tcp(SYN)),
            ];
            for sent in &all {
                m.drop(FRONT, sent.bytes(), "source_not_allowed");
            }
            m.backends("walled", &[]);
            m.drop(FRONT, all[0].bytes(), "source_not_allowed");
            // Who may ask is refused.
            let sent = to(f, 5, 8700, tcp(SYN));
            m.answer(FRONT, sent.bytes(), reset(&sent).bytes());
            m.counts("walled").refused = 1;
        },
    );
    book.both(
        734,
        "ranges_guard_no_more",
        "an externalIP of the same service is open, and a port of no service refuses",
        |m, f| {
            let flow = far(m, f, 130, "walled", (40_000, 8701, 8080));
            m.handshake(&flow);
            let sent = to(f, 130, 8703, tcp(SYN));
            m.answer(FRONT, sent.bytes(), reset(&sent).bytes());
        },
    );
    book.case(736, "ranges_one_family", "IPv4 ranges block IPv4 and leave IPv6 open", |m| {
        m.drop(FRONT, to(Family::V4, 5, 8702, tcp(SYN)).bytes(), "source_not_allowed");
        let flow = far(m, Family::V6, 5, "half", (40_000, 8702, 8080));
        m.handshake(&flow);
    });
    book.both(
        737,
        "ranges_withdrawn",
        "a client whose range is withdrawn keeps its connections and begins none",
        |m, f| {
            let old = far(m, f, 5, "walled", (40_000, 8700, 8080));
            m.handshake(&old);
            let dns = far(m, f, 5, "walldns", (50_000, 8700, 5353));
            m.forward(&dns, &dns.up(udp(b"?")));
            let others = ["192.0.2.0/24", "2001:db8:d::/64"];
            m.source_ranges("walled", &others);
            m.source_ranges("walldns", &others);
            m.forward(&old, &old.up(tcp(ACK)).data(b"established"));
            m.forward(&old, &old.down(tcp(ACK)).data(b"as before"));
            m.forward(&dns, &dns.up(udp(b"??")));
            let again = |port| old.up(tcp(SYN)).from(f.far_client(5, port)).bytes();
            m.drop(FRONT, again(40_001), "source_not_allowed");
            // A SYN on its connection isn't the backend's to judge any more, nor begins it another.
            m.drop(FRONT, again(40_000), "source_not_allowed");
            m.close(&old);
            m.drop(FRONT, again(40_000), "source_not_allowed");
            m.source_ranges("walled", &["198.51.100.0/24", "2001:db8:c::/64"]);
            let new = far(m, f, 130, "walled", (40_002, 8700, 8080));
            m.forward(&new, &new.up(tcp(SYN)));
        },
    );
}
