//! What comes back from the outside: replies to packets that were sent, ICMP errors about them,
//! and the next packet of whoever sent them.

use crate::input::Input;
use crate::layout::{Piece, fix_ip, fix_l4, layout, word};
use fastrand::Rng;
use model::ids::PortId;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// The number of every SYN-ACK.
const FIRST_NUMBER: u32 = 1999;

/// The other end's reply to a frame that left by `port`.
pub fn reply(rng: &mut Rng, sent: &[u8], port: PortId) -> Option<Input> {
    let at = layout(sent)?;
    let mut bytes = sent.to_vec();
    swap(&mut bytes, 0, 6, 6);
    let [(source, len), (destination, _)] = at.addresses();
    swap(&mut bytes, source, destination, len);
    bytes[at.ttl()] = 64;
    if at.has_ports() && sent.len() >= at.l4 + 4 {
        swap(&mut bytes, at.l4, at.l4 + 2, 2);
        if at.protocol == 6 && sent.len() >= at.l4 + 20 {
            let flags = bytes[at.l4 + 13];
            let (sequence, acknowledged) = numbers(&bytes, at.l4);
            let answers = flags & (SYN | ACK) == SYN;
            let own = if answers { FIRST_NUMBER } else { acknowledged };
            let length =
                (at.end - at.l4).saturating_sub(20) as u32 + u32::from(flags & (SYN | FIN) != 0);
            set_numbers(&mut bytes, at.l4, (own, sequence.wrapping_add(length)));
            bytes[at.l4 + 13] = match rng.u8(..16) {
                0 => RST,
                1 => FIN | ACK,
                2 => rng.u8(..),
                _ if flags & (SYN | ACK) == SYN => SYN | ACK,
                _ => ACK,
            };
        }
    }
    fix_ip(&mut bytes);
    fix_l4(&mut bytes);
    Some(Input::new(bytes, port))
}

/// The SYN-ACK for a SYN that left by `port`.
pub fn accept(sent: &[u8], port: PortId) -> Option<Input> {
    let mut reply = reply(&mut Rng::with_seed(0), sent, port)?;
    let at = layout(&reply.bytes)?;
    *reply.bytes.get_mut(at.l4 + 13)? = SYN | ACK;
    fix_l4(&mut reply.bytes);
    Some(reply)
}

/// The client's ACK that completes a handshake which began with this SYN.
pub fn complete(syn: &Input) -> Option<Input> {
    let mut ack = syn.clone();
    let at = layout(&ack.bytes)?;
    let (sequence, _) = numbers(&ack.bytes, at.l4);
    set_numbers(&mut ack.bytes, at.l4, (sequence.wrapping_add(1), FIRST_NUMBER + 1));
    *ack.bytes.get_mut(at.l4 + 13)? = ACK;
    fix_l4(&mut ack.bytes);
    Some(ack)
}

/// Sequence and acknowledgement number of a TCP header that is whole.
fn numbers(bytes: &[u8], l4: usize) -> (u32, u32) {
    let number = |at: usize| u32::from(word(bytes, at)) << 16 | u32::from(word(bytes, at + 2));
    (number(l4 + 4), number(l4 + 8))
}

fn set_numbers(bytes: &mut [u8], l4: usize, (sequence, acknowledged): (u32, u32)) {
    bytes[l4 + 4..l4 + 8].copy_from_slice(&sequence.to_be_bytes());
    bytes[l4 + 8..l4 + 12].copy_from_slice(&acknowledged.to_be_bytes());
}

/// The same sender's next packet: an ACK, data, an end.
pub fn next(rng: &mut Rng, input: &Input) -> Option<Input> {
    let at = layout(&input.bytes)?;
    let mut next = Input::new(input.bytes.clone(), input.rx.port);
    next.rx.vlan = input.rx.vlan;
    if at.protocol == 6 && at.has_ports() && next.bytes.len() >= at.l4 + 20 {
        next.bytes[at.l4 + 13] = [ACK, ACK, ACK, SYN, FIN | ACK, RST][rng.usize(..6)];
        // Mostly the number that completes a handshake, or that of a FIN after it.
        let (sequence, _) = numbers(&next.bytes, at.l4);
        let acknowledged = match rng.u8(..8) {
            0 => rng.u32(..),
            1 => FIRST_NUMBER + 2,
            _ => FIRST_NUMBER + 1,
        };
        set_numbers(&mut next.bytes, at.l4, (sequence.wrapping_add(1), acknowledged));
        fix_l4(&mut next.bytes);
    }
    Some(next)
}

/// An ICMP error about a frame that left by `port`, from its receiver or a router on the way.
pub fn error(rng: &mut Rng, sent: &[u8], port: PortId) -> Option<Input> {
    let at = layout(sent)?;
    if at.piece == Piece::Later {
        return None;
    }
    let quoted_len = (sent.len() - at.l3).min([28, 48, 68, 552, 1232][rng.usize(..5)]);
    let quoted = &sent[at.l3..at.l3 + quoted_len];
    let mut bytes = [&sent[6..12], &sent[..6], &sent[12..at.l3]].concat();
    let [(source, len), (destination, _)] = at.addresses();
    let (source, destination) = (&sent[source..source + len], &sent[destination..][..len]);
    let (kind, code): (u8, u8) = match (at.v4, rng.u8(..3)) {
        (true, 0) => (3, 4),
        (true, 1) => (11, 0),
        (true, _) => (3, 3),
        (false, 0) => (2, 0),
        (false, 1) => (3, 0),
        (false, _) => (1, 4),
    };
    let icmp_len = (8 + quoted_len) as u16;
    if at.v4 {
        let [high, low] = (20 + icmp_len).to_be_bytes();
        bytes.extend([0x45, 0, high, low, 0, 1, 0, 0, 64, 1, 0, 0]);
    } else {
        let [high, low] = icmp_len.to_be_bytes();
        bytes.extend([0x60, 0, 0, 0, high, low, 58, 64]);
    }
    bytes.extend(destination);
    bytes.extend(source);
    bytes.extend([kind, code, 0, 0, 0, 0, 5, 0]);
    bytes.extend(quoted);
    fix_ip(&mut bytes);
    fix_l4(&mut bytes);
    Some(Input::new(bytes, port))
}

/// True for a TCP packet that may begin a connection.
pub fn is_syn(bytes: &[u8]) -> bool {
    layout(bytes).is_some_and(|at| {
        at.protocol == 6 && at.has_ports() && word(bytes, at.l4 + 12) & 0x17 == u16::from(SYN)
    })
}

fn swap(bytes: &mut [u8], a: usize, b: usize, len: usize) {
    for at in 0..len {
        bytes.swap(a + at, b + at);
    }
}
