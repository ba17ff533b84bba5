//! Packets that may be forged: what they say is believed when numbers or the other side confirm it.

use super::{BACK, Book, FRONT, Family, Flow, Maker, ours, refusal::reset};
use crate::packet::{ACK, Body, FIN, Packet, RST, SYN, tcp};

const DAY_MS: u64 = 86_400_000;

/// The sweep asks the backend whether it lives, by an ACK that doesn't fit.
fn asked(m: &mut Maker, flow: &Flow, number: usize) {
    let body = Body::Tcp {
        sequence: super::reset::sequence(m.challenged + number),
        acknowledged: super::ports::told(flow),
        flags: ACK,
        window: 0,
        options: vec![],
        data: vec![],
    };
    m.generate(BACK, ours(&flow.down(tcp(ACK)), body).bytes());
}

/// An established connection, a forged RST, and the backend asked.
fn in_doubt(m: &mut Maker, f: Family) -> Flow {
    let flow = m.web(f);
    m.handshake(&flow);
    m.forward(&flow, &flow.up(tcp(RST)).numbers(77, 0));
    m.wait_ms(70_000);
    m.sweep();
    asked(m, &flow, 0);
    flow
}

pub(super) fn cases(book: &mut Book) {
    handshakes(book);
    endings(book);
}

fn handshakes(book: &mut Book) {
    book.both(
        960,
        "ack_forged",
        "a handshake is complete when the client acknowledges the backend's number, not before",
        |m, f| {
            m.case.meta.capacity = Some([8, 8]);
            let forged = m.web(f);
            m.forward(&forged, &forged.up(tcp(SYN)));
            m.forward(&forged, &forged.down(tcp(SYN | ACK)));
            for number in [0, 1999, 2001, 0x8000_0000] {
                m.forward(&forged, &forged.up(tcp(ACK)).numbers(1001, number));
            }
            // So it is still one that gives way.
            m.wait_ms(3_000);
            let good = m.web(f);
            m.handshake(&good);
            m.one_less(f);
            let late = forged.up(tcp(ACK));
            m.answer(FRONT, late.bytes(), reset(&late).bytes());
        },
    );
    book.both(
        962,
        "backend_vouches",
        "the client's ACK was lost: a backend that sends data has seen it",
        |m, f| {
            let flow = m.web(f);
            m.forward(&flow, &flow.up(tcp(SYN)));
            m.forward(&flow, &flow.down(tcp(SYN | ACK)));
            m.forward(&flow, &flow.down(tcp(ACK)).data(b"220 ready"));
            m.wait_ms(DAY_MS - 1);
            m.forward(&flow, &flow.down(tcp(ACK)).data(b"still here"));
        },
    );
    book.both(964, "rst_in_handshake", "a forged RST doesn't end a handshake", |m, f| {
        let flow = m.web(f);
        m.forward(&flow, &flow.up(tcp(SYN)));
        m.forward(&flow, &flow.up(tcp(RST)).numbers(77, 0));
        m.forward(&flow, &flow.down(tcp(SYN | ACK)));
        m.forward(&flow, &flow.up(tcp(ACK)));
        m.wait_ms(DAY_MS - 1);
        m.forward(&flow, &flow.up(tcp(ACK)).data(b"as ever"));
    });
}

fn endings(book: &mut Book) {
    book.both(
        966,
        "rst_forged",
        "a RST that its receiver ignored: asked, it answers, and the connection has its day",
        |m, f| {
            let flow = in_doubt(m, f);
            m.forward(&flow, &flow.down(tcp(ACK)));
            m.wait_ms(DAY_MS - 1);
            m.forward(&flow, &flow.up(tcp(ACK)).data(b"what RST?"));
        },
    );
    book.both(
        968,
        "rst_believed",
        "a RST that its receiver believed: asked, it answers by another",
        |m, f| {
            let flow = m.web(f);
            m.handshake(&flow);
            m.forward(&flow, &flow.up(tcp(RST)));
            m.wait_ms(70_000);
            m.sweep();
            asked(m, &flow, 0);
            m.forward(&flow, &flow.down(tcp(RST)).numbers(super::ports::told(&flow), 0));
            m.wait_ms(10_000);
            let late = flow.down(tcp(ACK));
            m.answer(BACK, late.bytes(), reset(&late).bytes());
            m.one_less(f);
        },
    );
    book.both(978, "rst_guessed", "a RST that doesn't know what was asked ends nothing", |m, f| {
        let flow = in_doubt(m, f);
        for number in [0, 77, 1_001, 2_000] {
            m.forward(&flow, &flow.down(tcp(RST)).numbers(number, 0));
        }
        m.forward(&flow, &flow.down(tcp(ACK)));
        m.wait_ms(DAY_MS - 1);
        m.forward(&flow, &flow.up(tcp(ACK)).data(b"who, me?"));
    });
    book.both(980, "syn_ack_forged", "a SYN-ACK that answers no SYN changes nothing", |m, f| {
        let flow = m.web(f);
        m.handshake(&flow);
        m.forward(&flow, &flow.down(tcp(SYN | ACK)).numbers(0x7777_0000, 0x5555_0000));
        m.wait_ms(DAY_MS - 1);
        m.forward(&flow, &flow.up(tcp(ACK)).data(b"as ever"));
    });
    book.both(
        982,
        "reply_from_front",
        "a backend's packets are a backend's where backends are",
        |m, f| {
            let flow = m.web(f);
            m.handshake(&flow);
            let macs = flow.up(tcp(ACK)).macs;
            let front = |packet: Packet| Packet { macs, ..packet };
            let forged = flow.down(tcp(SYN | ACK)).numbers(0x7777_0000, 1_001);
            m.drop(FRONT, front(forged).bytes(), "reply_from_front");
            let forged = flow.down(tcp(ACK)).data(b"injected");
            m.drop(FRONT, front(forged).bytes(), "reply_from_front");
            m.forward(&flow, &flow.down(tcp(ACK)).data(b"the real one"));
        },
    );
    book.both(972, "fin_forged", "a FIN that nobody acknowledges: the same", |m, f| {
        let flow = m.web(f);
        m.handshake(&flow);
        m.forward(&flow, &flow.up(tcp(FIN | ACK)).numbers(0x7777_0000, 0));
        m.forward(&flow, &flow.down(tcp(ACK)));
        m.wait_ms(120_000);
        m.sweep();
        asked(m, &flow, 0);
        m.forward(&flow, &flow.down(tcp(ACK)));
        m.wait_ms(DAY_MS - 1);
        m.forward(&flow, &flow.up(tcp(ACK)).data(b"what FIN?"));
    });
    book.both(974, "half_closed", "a FIN that is acknowledged leaves the other an hour", |m, f| {
        let flow = m.web(f);
        m.handshake(&flow);
        m.forward(&flow, &flow.up(tcp(FIN | ACK)).numbers(1000, 2000));
        m.forward(&flow, &flow.down(tcp(ACK)).numbers(2000, 1001));
        m.wait_ms(3_599_999);
        m.forward(&flow, &flow.down(tcp(ACK)).numbers(2000, 1001).data(b"the long answer"));
    });
    book.both(976, "checksum_wrong", "a RST with a wrong checksum changes nothing", |m, f| {
        let flow = m.web(f);
        m.handshake(&flow);
        let rst = flow.up(tcp(RST));
        let flip = |mut bytes: Vec<u8>| {
            bytes[f.of(41, 61)] ^= 0x55;
            bytes
        };
        m.case.meta.wrong_checksums.push(4);
        m.forward_as(&flow, &rst, (flip(rst.bytes()), flip(flow.forwarded(&rst).bytes())));
        m.wait_ms(DAY_MS - 1);
        m.forward(&flow, &flow.up(tcp(ACK)).data(b"as ever"));
    });
}
