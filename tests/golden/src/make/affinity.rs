//! Session affinity: a client keeps its backend whatever its port and the frontend.

use super::{Book, Family, Flow, Maker};
use crate::packet::{tcp, udp};

/// Backends of both families by the last bytes of their addresses.
fn list(last: &[u8], port: u16, word: &str) -> Vec<String> {
    let both =
        |n: &u8| [format!("198.18.1.{n}:{port}{word}"), format!("[2001:db8:b::{n}]:{port}{word}")];
    let mut list: Vec<String> = last.iter().flat_map(both).collect();
    list.sort();
    list
}

fn backends(m: &mut Maker, active: &[u8], draining: &[u8]) {
    for (service, port) in [("sticky", 8080), ("stickydns", 5353)] {
        let all = [list(active, port, ""), list(draining, port, " draining")].concat();
        m.backends(service, &all.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// A new connection of the client `.10` or, further away, `.20`, to the backend.
fn begin(m: &mut Maker, f: Family, (client, frontend_port, backend): (u8, u16, u8)) -> Flow {
    let port = 40_000 + m.next() as u16;
    let flow = m.flow("sticky", f, (port, frontend_port, 8080)).backend(f, backend, 8080);
    let flow = match client {
        10 => flow,
        far => flow.client(f.far_client(far, port), super::ROUTER_MAC),
    };
    m.handshake(&flow);
    flow
}

pub(super) fn cases(book: &mut Book) {
    book.both(740, "affinity_keeps", "each client keeps its backend when others come", |m, f| {
        begin(m, f, (10, 8710, 11));
        backends(m, &[12], &[]);
        begin(m, f, (20, 8710, 12));
        // The first has gone, and back it is another one; the client keeps the one it has now.
        begin(m, f, (10, 8711, 12));
        backends(m, &[13], &[]);
        begin(m, f, (10, 8710, 13));
        backends(m, &[11, 12, 13, 14], &[]);
        for port in [8710, 8711] {
            begin(m, f, (10, port, 13));
        }
    });
    book.both(742, "affinity_draining", "a draining backend takes nobody back", |m, f| {
        let old = begin(m, f, (10, 8710, 11));
        backends(m, &[12], &[11]);
        begin(m, f, (10, 8710, 12));
        m.forward(&old, &old.down(tcp(crate::packet::ACK)));
        backends(m, &[11, 12], &[]);
        begin(m, f, (10, 8711, 12));
    });
    book.both(
        744,
        "affinity_timer",
        "the timer restarts with each new connection, and ends",
        |m, f| {
            begin(m, f, (10, 8710, 11));
            backends(m, &[11, 12, 13, 14], &[]);
            for _ in 0..3 {
                m.wait_ms(59_000);
                begin(m, f, (10, 8711, 11));
            }
            m.wait_ms(60_000);
            // What the hash of the client's address says under the cases' key.
            begin(m, f, (10, 8710, f.of(12, 11)));
            begin(m, f, (10, 8711, f.of(12, 11)));
        },
    );
    book.both(746, "affinity_udp", "UDP flows of one client go to one backend", |m, f| {
        let flow = |m: &mut Maker, port| m.flow("stickydns", f, (port, 8710, 5353));
        let one = flow(m, 50_000);
        // It is kept once the flow lasts.
        m.forward(&one, &one.up(udp(b"?")));
        m.forward(&one, &one.down(udp(b"!")));
        m.wait_ms(3_000);
        m.forward(&one, &one.up(udp(b"??")));
        backends(m, &[11, 12, 13, 14], &[]);
        for port in 50_001..50_004 {
            let next = flow(m, port);
            m.forward(&next, &next.up(udp(b"?")));
        }
    });
}
