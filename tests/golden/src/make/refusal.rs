//! What nobody takes is refused at once: RST and port unreachable.

use super::{BACK, BACKEND, Book, CLIENT, FRONT, Family, V4, ours};
use crate::packet::{ACK, Body, FIN, PSH, Packet, RST, SYN, icmp, packet, tcp, udp};

/// From the client on the link to a frontend's address.
fn to(f: Family, last: u8, port: u16, body: Body) -> Packet {
    packet(CLIENT, f.client(10, 40_000), f.frontend(last, port), body)
}

/// The RST that refuses a packet.
pub(super) fn reset(sent: &Packet) -> Packet {
    let Body::Tcp { sequence, acknowledged, flags, data, .. } = &sent.body else { panic!("TCP") };
    let (sequence, acknowledged, flags) = if flags & ACK != 0 {
        (*acknowledged, 0, RST)
    } else {
        let controls = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        (0, sequence.wrapping_add(data.len() as u32 + controls), RST | ACK)
    };
    let body =
        Body::Tcp { sequence, acknowledged, flags, window: 0, options: vec![], data: vec![] };
    ours(sent, body)
}

/// The port unreachable that refuses a packet; it quotes so many bytes at most.
pub(super) fn unreachable(f: Family, sent: &Packet) -> Packet {
    let (kind, code) = f.port_unreachable();
    let ip = sent.ip();
    let quote = ip.len().min(f.of(576 - 28, 1280 - 48));
    ours(sent, icmp(kind, code, 0, &ip[..quote]))
}

pub(super) fn cases(book: &mut Book) {
    book.both(
        700,
        "rst_closed_port",
        "a SYN to a port that no service has, with and without data",
        |m, f| {
            for sent in [
                to(f, 10, 81, tcp(SYN)),
                to(f, 10, 53, tcp(SYN)).numbers(u32::MAX, 0).data(b"early data"),
                to(f, 20, 443, tcp(SYN | 0xc0)),
            ] {
                m.answer(FRONT, sent.bytes(), reset(&sent).bytes());
            }
        },
    );
    book.both(
        702,
        "rst_to_ack",
        "a segment with ACK of no connection: RST with its number",
        |m, f| {
            for sent in [
                to(f, 10, 80, tcp(ACK)).numbers(5, 0xfedc_ba98),
                to(f, 10, 80, tcp(PSH | ACK)).data(b"a connection of yesterday"),
                to(f, 10, 80, tcp(SYN | ACK)),
                to(f, 10, 80, tcp(FIN | ACK)),
            ] {
                m.answer(FRONT, sent.bytes(), reset(&sent).bytes());
            }
        },
    );
    book.both(
        704,
        "rst_without_ack",
        "a segment without ACK: RST that acknowledges data and FIN",
        |m, f| {
            let sent = to(f, 10, 80, tcp(FIN)).numbers(u32::MAX - 2, 0).data(b"the last words");
            m.answer(FRONT, sent.bytes(), reset(&sent).bytes());
        },
    );
    book.both(706, "rst_no_connection", "a RST of no connection is never answered", |m, f| {
        m.drop(FRONT, to(f, 10, 80, tcp(RST)).bytes(), "tcp_no_connection");
        m.drop(FRONT, to(f, 10, 81, tcp(RST | ACK)).bytes(), "tcp_no_connection");
    });
    book.both(
        708,
        "rst_to_backend",
        "a backend's segment of no connection gets a RST too",
        |m, f| {
            let sent =
                packet(BACKEND, f.back(11, 8080), f.back(200, 2000), tcp(PSH | ACK)).data(b"late");
            m.answer(BACK, sent.bytes(), reset(&sent).bytes());
        },
    );
    book.both(
        710,
        "unreachable_closed_port",
        "a datagram to a port that no service has",
        |m, f| {
            let sent = to(f, 10, 80, udp(b"is there anybody?"));
            m.answer(FRONT, sent.bytes(), unreachable(f, &sent).bytes());
            let sent = packet(BACKEND, f.back(11, 5353), f.back(200, 2000), udp(b"late"));
            m.answer(BACK, sent.bytes(), unreachable(f, &sent).bytes());
        },
    );
    book.both(
        712,
        "unreachable_long",
        "a long datagram is quoted as far as every host takes it",
        |m, f| {
            let sent = to(f, 10, 80, udp(&[0x77; 1400]));
            m.answer(FRONT, sent.bytes(), unreachable(f, &sent).bytes());
        },
    );
    book.both(
        714,
        "no_backends",
        "a service without backends: refused at once, and counted",
        |m, f| {
            let sent = to(f, 20, 80, tcp(SYN));
            m.answer(FRONT, sent.bytes(), reset(&sent).bytes());
            let sent = to(f, 20, 80, udp(b"?"));
            m.answer(FRONT, sent.bytes(), unreachable(f, &sent).bytes());
            m.counts("empty").refused = 1;
            m.counts("mute").refused = 1;
        },
    );
    book.both(
        716,
        "no_backends_silent",
        "a service without backends whose policy is to drop",
        |m, f| {
            m.drop(FRONT, to(f, 21, 80, tcp(SYN)).bytes(), "no_backend");
            m.counts("silent").refused = 1;
        },
    );
    book.both(718, "refusal_checksum", "what has a wrong checksum isn't answered", |m, f| {
        for body in [tcp(SYN), udp(b"?"), tcp(ACK)] {
            let sent = to(f, 10, 81, body);
            let mut bytes = sent.bytes();
            let last = bytes.len() - 1;
            bytes[last] ^= 4;
            m.drop(FRONT, bytes, "l4_checksum");
        }
    });
    book.both(720, "refusal_to_group", "what came in a frame to a group isn't refused", |m, f| {
        let all = |body| to(f, 10, 81, body).to_mac([0xff; 6]).bytes();
        m.drop(FRONT, all(tcp(SYN)), "tcp_no_connection");
        m.drop(FRONT, all(udp(b"?")), "not_ours");
    });
    book.both(
        722,
        "refusal_vlan",
        "a refusal leaves by the VLAN that the packet came by",
        |m, f| {
            let sent = to(f, 10, 81, tcp(SYN)).tag(Some(100));
            m.answer(FRONT, sent.bytes(), reset(&sent).bytes());
        },
    );
    book.case(724, "refusal_no_checksum", "IPv4: a datagram without a checksum is refused", |m| {
        let sent = to(V4, 10, 80, Body::Udp { checksum: false, data: b"?".to_vec() });
        m.answer(FRONT, sent.bytes(), unreachable(V4, &sent).bytes());
    });
    book.case(
        725,
        "refusal_no_checksum_v6",
        "IPv6: a datagram without a checksum is dropped",
        |m| {
            let sent = to(super::V6, 10, 80, Body::Udp { checksum: false, data: b"?".to_vec() });
            m.drop(FRONT, sent.bytes(), "l4_checksum");
        },
    );
    book.case(726, "refusal_options", "IPv4: refusing a packet with options", |m| {
        for body in [tcp(SYN), udp(b"with options")] {
            let mut sent = to(V4, 10, 81, body);
            sent.options = vec![1, 1, 1, 0];
            let answer = match sent.body {
                Body::Tcp { .. } => reset(&sent),
                _ => unreachable(V4, &sent),
            };
            m.answer(FRONT, sent.bytes(), answer.bytes());
        }
    });
    book.case(727, "refusal_extensions", "IPv6: refusing a packet with extension headers", |m| {
        for body in [tcp(SYN), udp(b"with extensions")] {
            let mut sent = to(super::V6, 10, 81, body);
            sent.extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0])];
            let answer = match sent.body {
                Body::Tcp { .. } => reset(&sent),
                _ => unreachable(super::V6, &sent),
            };
            m.answer(FRONT, sent.bytes(), answer.bytes());
        }
    });
}
