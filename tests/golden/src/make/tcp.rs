//! TCP connections.

use super::{Book, Flow, ROUTER_MAC};
use crate::packet::{ACK, Body, FIN, PSH, RST, SYN, tcp};

pub(super) fn cases(book: &mut Book) {
    book.both(
        100,
        "tcp_life",
        "a TCP connection, from its SYN to both FINs, data both ways",
        |m, f| {
            let flow = m.web(f);
            m.handshake(&flow);
            m.forward(&flow, &flow.up(tcp(PSH | ACK)).data(b"GET / HTTP/1.0\r\n\r\n"));
            m.forward(&flow, &flow.down(tcp(ACK)));
            m.forward(&flow, &flow.down(tcp(PSH | ACK)).data(b"HTTP/1.0 204 No Content\r\n\r\n"));
            m.forward(&flow, &flow.down(tcp(FIN | ACK)));
            m.forward(&flow, &flow.up(tcp(ACK)));
            m.forward(&flow, &flow.up(tcp(FIN | ACK)));
            m.forward(&flow, &flow.down(tcp(ACK)));
        },
    );
    book.both(
        102,
        "tcp_rst_from_client",
        "the client's RST and what comes after it pass",
        |m, f| {
            let flow = m.web(f);
            m.handshake(&flow);
            m.forward(&flow, &flow.up(tcp(RST)).numbers(77, 0));
            m.forward(&flow, &flow.down(tcp(ACK)).data(b"late"));
        },
    );
    book.both(104, "tcp_rst_from_backend", "a backend that refuses: its RST passes", |m, f| {
        let flow = m.web(f);
        m.forward(&flow, &flow.up(tcp(SYN)));
        m.forward(&flow, &flow.down(tcp(RST | ACK)).numbers(0, 1001));
    });
    book.both(106, "tcp_syn_again", "a SYN sent again keeps its NAT port", |m, f| {
        let flow = m.web(f);
        m.forward(&flow, &flow.up(tcp(SYN)));
        m.wait_ms(1000);
        m.forward(&flow, &flow.up(tcp(SYN)));
        m.wait_ms(2000);
        m.forward(&flow, &flow.up(tcp(SYN)));
        m.forward(&flow, &flow.down(tcp(SYN | ACK)));
    });
    book.both(
        108,
        "tcp_far_client",
        "a client behind a router: replies go to the router",
        |m, f| {
            let flow = m.web(f).client(f.far_client(9, 1025), ROUTER_MAC);
            m.handshake(&flow);
            m.forward(&flow, &flow.down(tcp(PSH | ACK)).data(b"to far away"));
        },
    );
    book.both(110, "tcp_options", "TCP options and data of odd length are kept", |m, f| {
        let flow = m.web(f);
        m.forward(&flow, &with_options(flow.up(tcp(SYN))));
        m.forward(&flow, &with_options(flow.down(tcp(SYN | ACK))));
        m.forward(&flow, &with_options(flow.up(tcp(PSH | ACK)).data(&[0xff; 1])));
        m.forward(&flow, &with_options(flow.down(tcp(PSH | ACK)).data(&[0x5a; 1399])));
    });
    book.both(
        112,
        "tcp_two_clients",
        "two clients of one port number get a NAT port each",
        |m, f| {
            let one = m.web(f);
            let two = m.web(f);
            let two = Flow { client: f.client(10, 40_777), ..two };
            m.forward(&one, &one.up(tcp(SYN)));
            m.forward(&two, &two.up(tcp(SYN)));
            m.forward(&two, &two.down(tcp(SYN | ACK)));
            m.forward(&one, &one.down(tcp(SYN | ACK)));
        },
    );
    book.both(114, "tcp_to_itself", "data of a connection that looks like a SYN inside", |m, f| {
        let flow = m.web(f);
        m.handshake(&flow);
        let inner = flow.up(tcp(SYN)).bytes();
        m.forward(&flow, &flow.up(tcp(ACK)).data(&inner));
        m.forward(&flow, &flow.down(tcp(ACK)).data(&inner));
    });
}

/// MSS, SACK permitted, timestamps, no operation, window scale.
fn with_options(mut packet: crate::packet::Packet) -> crate::packet::Packet {
    if let Body::Tcp { options, .. } = &mut packet.body {
        *options = vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, 1, 3, 3, 7];
    }
    packet
}
