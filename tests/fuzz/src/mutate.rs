//! Mutators: from a packet that means something to one that means a little less.

use crate::input::Input;
use crate::layout::{fix_ip, fix_l4, fix_lengths, layout, network};
use crate::world::octets;
use fastrand::Rng;
use pipeline::frame::ChecksumReport;
use std::net::IpAddr;

/// No frame grows beyond this.
const LEN_MAX: usize = 2048;
const BYTES: [u8; 16] = [0, 1, 2, 4, 5, 6, 8, 17, 44, 58, 0x0f, 0x40, 0x45, 0x60, 0x7f, 0xff];
const WORDS: [u16; 20] = [
    0, 1, 7, 8, 19, 20, 21, 40, 53, 80, 0x00ff, 0x0806, 0x0800, 0x1fff, 0x2000, 0x4000, 0x7fff,
    0x8100, 0x86dd, 0xffff,
];
const EXTENSIONS: [u8; 6] = [0, 43, 44, 60, 6, 17];

/// Makes another frame of this one. `other` gives bytes to splice in, `addresses` are those that
/// mean something.
pub fn mutate(rng: &mut Rng, input: &mut Input, other: &[u8], addresses: &[IpAddr]) {
    let rounds = [0, 0, 1, 1, 1, 2, 3, 6][rng.usize(..8)];
    for _ in 0..rounds {
        once(rng, &mut input.bytes, other, addresses);
        input.bytes.truncate(LEN_MAX);
    }
    if rounds > 0 {
        fix_up(rng, &mut input.bytes);
    }
    surroundings(rng, input);
}

fn once(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8], addresses: &[IpAddr]) {
    if bytes.is_empty() {
        bytes.extend(other);
        return;
    }
    match rng.u8(..20) {
        0 => {
            let at = rng.usize(..bytes.len());
            bytes[at] ^= 1 << rng.u8(..8);
        }
        1 => {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        2..=6 => field(rng, bytes),
        7 => bytes.truncate(rng.usize(..=bytes.len())),
        // Most lengths that lie do so around the headers.
        8 => bytes.truncate(rng.usize(..80)),
        9 => bytes.extend(std::iter::repeat_n(rng.u8(..), rng.usize(1..64))),
        10 => bytes.extend(std::iter::repeat_n(0, rng.usize(1..1600))),
        11 => {
            bytes.truncate(rng.usize(..=bytes.len()));
            bytes.extend(&other[rng.usize(..=other.len())..]);
        }
        12 => {
            let (from, to) = range(rng, bytes.len());
            let piece = bytes[from..to].to_vec();
            let at = rng.usize(..=bytes.len());
            bytes.splice(at..at, piece);
        }
        13 => {
            let (from, to) = range(rng, bytes.len());
            bytes.drain(from..to);
        }
        14 | 15 => address(rng, bytes, addresses),
        16 => port(rng, bytes),
        17 => tag(rng, bytes),
        18 => extension(rng, bytes),
        _ => {
            if let Some(at) = layout(bytes) {
                bytes[at.ttl()] = [0, 1, 2, 64, 255][rng.usize(..5)];
            }
        }
    }
}

fn range(rng: &mut Rng, len: usize) -> (usize, usize) {
    let from = rng.usize(..len);
    (from, (from + rng.usize(1..32)).min(len))
}

/// A telling value in one of the first fields of a header.
fn field(rng: &mut Rng, bytes: &mut [u8]) {
    let l3 = network(bytes).map_or(14, |(l3, ..)| l3);
    let l4 = layout(bytes).map_or(l3 + 20, |at| at.l4);
    // The quoted headers of an ICMP error begin 8 bytes into it.
    let header = [0, l3, l3, l4, l4, l4, l4 + 8, l4 + 28, l4 + 48][rng.usize(..9)];
    let at = header + rng.usize(..24);
    if rng.bool() {
        let value = if rng.u8(..4) == 0 { rng.u8(..) } else { BYTES[rng.usize(..BYTES.len())] };
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        return;
    }
    let at = at & !1;
    let Some(pair) = bytes.get_mut(at..at + 2) else { return };
    let old = u16::from_be_bytes([pair[0], pair[1]]);
    let new = match rng.u8(..8) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old.wrapping_add(8),
        3 => old.wrapping_sub(8),
        4 => rng.u16(..),
        _ => WORDS[rng.usize(..WORDS.len())],
    };
    pair.copy_from_slice(&new.to_be_bytes());
}

/// Another address as source or destination, or the same as both.
fn address(rng: &mut Rng, bytes: &mut [u8], addresses: &[IpAddr]) {
    let Some(at) = layout(bytes) else { return };
    let [(source, len), (destination, _)] = at.addresses();
    let (from, to) = if rng.bool() { (source, destination) } else { (destination, source) };
    if rng.u8(..16) == 0 {
        bytes.copy_within(from..from + len, to);
    } else {
        let fitting: Vec<_> = addresses.iter().filter(|ip| ip.is_ipv4() == at.v4).collect();
        let chosen = octets(*fitting[rng.usize(..fitting.len())]);
        bytes[to..to + len].copy_from_slice(&chosen);
    }
}

/// Another port: few, so that flows meet again.
fn port(rng: &mut Rng, bytes: &mut [u8]) {
    let Some(at) = layout(bytes).filter(|at| at.has_ports() && bytes.len() >= at.l4 + 4) else {
        return;
    };
    let place = at.l4 + 2 * rng.usize(..2);
    let ports = [0, 53, 80, 179, 3784, 8080, 8200, 8400, 1024 + rng.u16(..64), rng.u16(1024..)];
    let value: u16 = ports[rng.usize(..ports.len())];
    bytes[place..place + 2].copy_from_slice(&value.to_be_bytes());
}

/// A tag in or out.
fn tag(rng: &mut Rng, bytes: &mut Vec<u8>) {
    match network(bytes) {
        Some((18, ..)) if rng.bool() => drop(bytes.drain(12..16)),
        Some(_) => {
            let vlan: u16 = [0, 100, 200, 0xe064, 0x20c8, 7, 0xfff][rng.usize(..7)];
            let [high, low] = vlan.to_be_bytes();
            bytes.splice(12..12, [0x81, 0, high, low]);
        }
        None => {}
    }
}

/// An IPv6 extension header in front of what follows.
fn extension(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let Some(at) = layout(bytes).filter(|at| !at.v4) else { return };
    let place = at.l3 + 40;
    let kind = EXTENSIONS[rng.usize(..EXTENSIONS.len())];
    let next = std::mem::replace(&mut bytes[at.l3 + 6], kind);
    let len = if rng.u8(..8) == 0 { rng.u8(..) } else { 0 };
    let more = if kind == 44 { [0, 8, 1, 9][rng.usize(..4)] } else { rng.u8(..4) };
    bytes.splice(place..place, [next, len, 0, more, 0, 0, 0, rng.u8(..4)]);
    if rng.u8(..8) > 0 {
        fix_lengths(bytes);
    }
}

/// Without this nearly everything would end at a length or a checksum.
fn fix_up(rng: &mut Rng, bytes: &mut [u8]) {
    if rng.u8(..3) == 0 {
        fix_lengths(bytes);
    }
    if rng.u8(..8) > 0 {
        fix_ip(bytes);
    }
    if rng.u8(..4) > 0 {
        fix_l4(bytes);
    }
}

/// The frame's room, its segments, and what the device and other workers say about it.
fn surroundings(rng: &mut Rng, input: &mut Input) {
    let usual = rng.u8(..4) > 0;
    input.headroom = if usual { 128 } else { rng.usize(..=64) };
    input.tailroom = if usual { 1024 } else { [0, 4, 20, 64][rng.usize(..4)] };
    if rng.u8(..16) == 0 && !input.bytes.is_empty() {
        // Headers lie in the first segment, mostly.
        let head = if rng.u8(..4) == 0 { 0 } else { 64 };
        input.tail = rng.usize(..=input.bytes.len().saturating_sub(head));
    }
    let report = |rng: &mut Rng| match rng.u8(..32) {
        0 => ChecksumReport::Bad,
        1..=3 => ChecksumReport::Good,
        _ => ChecksumReport::Unknown,
    };
    input.rx.ip_checksum = report(rng);
    input.rx.l4_checksum = report(rng);
    if rng.u8(..32) == 0 {
        input.rx.vlan = Some([0, 100, 200, 7, rng.u16(..)][rng.usize(..5)]);
    }
    if rng.u8(..64) == 0 {
        input.rx.hops = rng.u8(..4);
    }
    if rng.u8(..64) == 0 {
        input.rx.fragment_ports = Some((rng.u16(1..), [80, 53, 2000][rng.usize(..3)]));
    }
    if rng.u8(..64) == 0 {
        input.rx.port.0 ^= 1;
    }
}
