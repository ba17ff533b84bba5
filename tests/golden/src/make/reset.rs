//! A RST to clients whose backend has gone, after the time that the service port gives.

use super::{Book, FRONT, Family, Flow, Maker, ours, refusal::reset};
use crate::packet::{ACK, Body, Packet, RST, SYN, tcp};

const OTHER: [&str; 2] = ["198.18.1.12:8080", "[2001:db8:b::12]:8080"];

/// An established connection of `fading`, whose backend then goes.
fn left(m: &mut Maker, f: Family) -> Flow {
    let flow = m.flow("fading", f, (40_000, 8720, 8080));
    m.handshake(&flow);
    m.backends("fading", &OTHER);
    flow
}

/// Sequence numbers of challenges, in their order: what is drawn after the identifications.
const SEQUENCES: [u32; 6] =
    [0xd122_b816, 0x9940_9cfa, 0xc9ed_6591, 0x1919_7f1c, 0xe5d0_c5a8, 0xa4fe_8a7b];

/// The sequence number of a challenge, after so many draws.
pub(super) fn sequence(draws: usize) -> u32 {
    SEQUENCES[draws]
}

/// A sweep, which asks that the way to the backend be kept.
fn sweep(m: &mut Maker, flow: &Flow) {
    m.sweep();
    m.case.meta.requests.push(format!("back {} in use", flow.backend.ip()));
}

/// The sweep challenges the client of the connection.
fn challenge(m: &mut Maker, flow: &Flow) {
    let sequence = SEQUENCES[m.challenged];
    m.challenged += 1;
    m.generate(FRONT, challenge_with(flow, sequence).bytes());
}

/// The segment that asks a silent client for its numbers.
fn challenge_with(flow: &Flow, sequence: u32) -> Packet {
    let body = Body::Tcp {
        sequence,
        acknowledged: super::ports::told(flow),
        flags: ACK,
        window: 0,
        options: vec![],
        data: vec![],
    };
    ours(&flow.up(tcp(ACK)), body)
}

pub(super) fn cases(book: &mut Book) {
    book.both(
        770,
        "reset_after",
        "a client of a backend that has gone: forwarded, then challenged, then reset",
        |m, f| {
            let flow = left(m, f);
            sweep(m, &flow);
            m.forward(&flow, &flow.up(tcp(ACK)).data(b"still forwarded"));
            m.wait_ms(40_000);
            sweep(m, &flow);
            m.forward(&flow, &flow.up(tcp(ACK)).data(b"not a moment before"));
            m.wait_ms(15_000);
            sweep(m, &flow);
            challenge(m, &flow);
            m.forward(&flow, &flow.down(tcp(ACK)).data(b"the backend may still send"));
            m.wait_ms(15_000);
            sweep(m, &flow);
            challenge(m, &flow);
            let sent = flow.up(tcp(ACK)).numbers(7_000, 8_000);
            m.answer(FRONT, sent.bytes(), reset(&sent).bytes());
            m.one_less(f);
            let new = m.flow("fading", f, (40_000, 8720, 8080)).backend(f, 12, 8080);
            m.forward(&new, &new.up(tcp(SYN)));
        },
    );
    book.both(
        772,
        "reset_begins_anew",
        "a client that is due may begin anew, or end by itself",
        |m, f| {
            let old = left(m, f);
            sweep(m, &old);
            m.forward(&old, &old.up(tcp(ACK)));
            m.wait_ms(41_000);
            sweep(m, &old);
            challenge(m, &old);
            m.forward(&old, &old.up(tcp(RST)));
            let new = m.flow("fading", f, (40_000, 8720, 8080)).backend(f, 12, 8080);
            m.forward(&new, &new.up(tcp(SYN)).numbers(70_000, 0));
            m.one_less(f);
        },
    );
    book.both(
        774,
        "reset_silent",
        "a silent client is challenged for as long as an ended connection stays",
        |m, f| {
            let flow = left(m, f);
            sweep(m, &flow);
            m.forward(&flow, &flow.down(tcp(ACK)));
            for wait in [41_000, 15_000, 15_000, 15_000, 15_000] {
                m.wait_ms(wait);
                sweep(m, &flow);
                challenge(m, &flow);
                let stray = flow.up(tcp(RST)).from(f.client(10, 7));
                m.drop(FRONT, stray.bytes(), "tcp_no_connection");
            }
            m.wait_ms(15_000);
            m.sweep();
            m.one_less(f);
            let late = flow.up(tcp(ACK)).data(b"who is there?");
            m.answer(FRONT, late.bytes(), reset(&late).bytes());
        },
    );
    book.both(
        776,
        "reset_never",
        "without a time, or once it has ended by itself, a connection is left alone",
        |m, f| {
            let kept = m.web(f);
            m.handshake(&kept);
            m.backends("web", &OTHER);
            let ended = left(m, f);
            sweep(m, &kept);
            m.close(&ended);
            m.wait_ms(41_000);
            sweep(m, &kept);
            m.forward(&ended, &ended.up(tcp(ACK)));
            m.forward(&kept, &kept.up(tcp(ACK)));
            m.wait_ms(80_000_000);
            sweep(m, &kept);
            m.forward(&kept, &kept.up(tcp(ACK)));
            m.one_less(f);
        },
    );
    book.case(
        778,
        "reset_service_gone",
        "IPv4: the service itself goes: the time that it gave counts",
        |m| {
            let flow = m.flow("fading", Family::V4, (40_000, 8720, 8080));
            m.handshake(&flow);
            m.case.meta.change.push(crate::case::Change {
                before: m.next(),
                service: Some("fading".to_owned()),
                ..crate::case::Change::default()
            });
            sweep(m, &flow);
            m.forward(&flow, &flow.up(tcp(ACK)));
            m.wait_ms(41_000);
            sweep(m, &flow);
            challenge(m, &flow);
            let sent = flow.up(tcp(ACK)).numbers(7_000, 8_000);
            m.answer(FRONT, sent.bytes(), reset(&sent).bytes());
            m.one_less(Family::V4);
            m.case.meta.services.remove("fading");
        },
    );
}
