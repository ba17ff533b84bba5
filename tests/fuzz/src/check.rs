//! What must hold for every frame, whatever came in.

use crate::input::Input;
use crate::layout::{Layout, Piece, ip_sum, l4_sum, layout, network, word};
use crate::world::World;
use model::ids::{PortId, WorkerId};
use model::limits::HANDOVERS_MAX;
use pipeline::frame::{Frame, Verdict};

/// Type of a neighbour advertisement and of an echo reply, ICMP and ICMPv6.
const ADVERTISEMENT: u8 = 136;
const ECHO_REPLIES: [u8; 2] = [0, 129];

type Checked = Result<(), String>;

fn hold(holds: bool, what: &str) -> Checked {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// What must hold for a frame that a worker has processed.
pub fn frame(world: &World, me: WorkerId, input: &Input, frame: &Frame<'_>) -> Checked {
    let (start, end) = frame.span();
    let room = input.headroom + input.bytes.len() - input.tail.min(input.bytes.len());
    hold(start <= end && end <= room + input.tailroom, "the frame left its buffer")?;
    hold(frame.tail_len() == 0 || frame.tail_len() == input.tail, "the tail changed its length")?;
    let out = input.bytes_of(frame);
    match frame.verdict {
        Verdict::Pending => Err("no verdict".to_owned()),
        Verdict::Drop(_) => Ok(()),
        Verdict::Handover(worker) => {
            hold(world.has_worker(worker) && worker != me, "handed over to nobody")?;
            hold(input.rx.hops < HANDOVERS_MAX, "handed over too often")?;
            unchanged(&input.bytes, &out)
        }
        Verdict::Host(interface) => {
            let known = world.tables.adjacencies.interface(interface).is_some();
            hold(known, "to the host by an interface that isn't there")?;
            let mut expected = input.bytes.clone();
            if matches!(network(&expected), Some((18, ..))) {
                expected.drain(12..16);
            }
            unchanged(&expected, &out)
        }
        Verdict::Send(port) => {
            link(world, port, &out)?;
            sent(world, port, input, &out)
        }
        Verdict::Answer(port) => {
            link(world, port, &out)?;
            hold(port == input.rx.port, "an answer by another port")?;
            hold(
                out[..6] == input.bytes[6..12] || out[..6] == [0x33, 0x33, 0, 0, 0, 1],
                "an answer to another station",
            )?;
            answer(world, input, &out)
        }
    }
}

/// A frame that the gateway made itself: TCP from an address of ours, all checksums right.
pub fn generated(world: &World, port: PortId, out: &[u8]) -> Checked {
    link(world, port, out)?;
    let Some(at) = layout(out) else { return Err("made, but no IP packet".to_owned()) };
    hold(at.protocol == 6 && at.end == out.len(), "made, but no TCP segment alone")?;
    let [(source, len), _] = at.addresses();
    hold(world.ours.contains(&out[source..source + len]), "made, from an address not ours")?;
    let right = (!at.v4 || ip_sum(out, &at) == 0) && l4_sum(out, &at) == Some(0);
    hold(right, "made with a wrong checksum")
}

/// The same bytes, but for padding taken off.
fn unchanged(before: &[u8], after: &[u8]) -> Checked {
    hold(before.starts_with(after), "bytes changed that had to stay")?;
    let end = layout(before).map_or(before.len(), |at| at.end);
    hold(after.len() == before.len() || after.len() >= end, "cut by more than its padding")
}

/// The link header of a frame of ours.
fn link(world: &World, port: PortId, out: &[u8]) -> Checked {
    let Some((_, ethertype, vlan)) = network(out) else {
        return Err("sent without a link header".to_owned());
    };
    hold(matches!(ethertype, 0x0800 | 0x86dd | 0x0806), "sent with an odd ethertype")?;
    let Some(id) = world.interface(port.0, vlan) else {
        return Err(format!("no interface has port {port} and VLAN {vlan:?}"));
    };
    let ours = world.tables.adjacencies.interface(id).is_some_and(|i| i.mac.0[..] == out[6..12]);
    hold(ours, "the source MAC isn't ours")
}

/// A frame that was forwarded: translated, one hop older, and nothing else.
fn sent(world: &World, port: PortId, input: &Input, out: &[u8]) -> Checked {
    let before = &input.bytes;
    let (Some(old), Some(new)) = (layout(before), layout(out)) else {
        return Err("forwarded, but no IP packet".to_owned());
    };
    hold(
        (old.v4, old.protocol, old.piece, old.end - old.l3, old.l4 - old.l3)
            == (new.v4, new.protocol, new.piece, new.end - new.l3, new.l4 - new.l3),
        "forwarded with other lengths or another protocol",
    )?;
    hold(new.end <= out.len(), "forwarded and cut short")?;
    hold(new.end == out.len() || input.tail > 0, "forwarded with padding")?;
    let ttl = before[old.ttl()].checked_sub(1).filter(|ttl| *ttl > 0);
    hold(ttl == Some(out[new.ttl()]), "the TTL isn't one less")?;
    let [(source, len), _] = new.addresses();
    hold(world.ours.contains(&out[source..source + len]), "forwarded from an address not ours")?;
    let interface = world.interface(port.0, network(out).and_then(|(_, _, vlan)| vlan));
    let mtu = interface.and_then(|id| world.tables.adjacencies.interface(id)).map(|i| i.mtu);
    hold(mtu.is_some_and(|mtu| new.end - new.l3 <= usize::from(mtu)), "longer than the MTU")?;
    checksums_kept(before, &old, out, &new)?;
    let quoting = matches!(old.protocol, 1 | 58);
    if quoting {
        return hold(
            before[old.l4..old.l4 + 2] == out[new.l4..new.l4 + 2]
                && before[old.l4 + 4..old.l4 + 8] == out[new.l4 + 4..new.l4 + 8],
            "an ICMP error changed what it says",
        );
    }
    let udp = old.protocol == 17 && old.piece != Piece::Later;
    let without = |bytes: &[u8], at: &Layout| word(bytes, at.l4 + 6) == 0;
    hold(!udp || without(before, &old) == without(out, &new), "a UDP checksum came or went")?;
    let softened =
        old.v4 && before[old.l3 + 6] & DONT_FRAGMENT != 0 && out[new.l3 + 6] & DONT_FRAGMENT == 0;
    hold(
        masked(&before[old.l3..old.end], &old, softened)
            == masked(&out[new.l3..new.end], &new, softened),
        "bytes changed that had to stay",
    )
}

/// What was right is right, and what was wrong isn't covered up.
fn checksums_kept(before: &[u8], old: &Layout, out: &[u8], new: &Layout) -> Checked {
    hold(
        !old.v4 || (ip_sum(before, old) == 0) == (ip_sum(out, new) == 0),
        "the IPv4 header checksum was right and is wrong, or the other way round",
    )?;
    match (l4_sum(before, old), l4_sum(out, new)) {
        (Some(before), Some(after)) => hold(
            (before == 0) == (after == 0),
            "the transport checksum was right and is wrong, or the other way round",
        ),
        _ => Ok(()),
    }
}

/// "Don't fragment" in the first byte of IPv4's flags.
const DONT_FRAGMENT: u8 = 0x40;

/// The IP packet without what translation may change: of a fragment its identification, and of one
/// that routers may fragment from here on that it is so, too.
fn masked(ip: &[u8], at: &Layout, softened: bool) -> Vec<u8> {
    let mut ip = ip.to_vec();
    if let Some((field, len)) = at.identification {
        ip[field - at.l3..][..len].fill(0);
    }
    if softened {
        ip[4..6].fill(0);
        ip[6] &= !DONT_FRAGMENT;
    }
    let l4 = at.l4 - at.l3;
    if at.v4 {
        ip[8] = 0;
        ip[10..20].fill(0);
    } else {
        ip[7..40].fill(0);
    }
    if at.has_ports() {
        ip[l4..l4 + 4].fill(0);
        if let Some(field) = at.l4_checksum().and_then(|field| ip.get_mut(field - at.l3..)) {
            field.iter_mut().take(2).for_each(|byte| *byte = 0);
        }
    }
    ip
}

/// A frame that was turned round.
fn answer(world: &World, input: &Input, out: &[u8]) -> Checked {
    let before = &input.bytes;
    if matches!(network(out), Some((_, 0x0806, _))) {
        let (l3, ..) = network(out).unwrap();
        hold(out.len() == l3 + 28 && word(out, l3 + 6) == 2, "an ARP answer that is no reply")?;
        return hold(world.ours.contains(&out[l3 + 14..l3 + 18]), "an ARP reply for another");
    }
    let (Some(old), Some(new)) = (layout(before), layout(out)) else {
        return Err("an answer that is neither ARP nor IP".to_owned());
    };
    hold(new.end == out.len() || input.tail > 0 && new.end < out.len(), "an answer cut or padded")?;
    let [(source, len), (destination, _)] = new.addresses();
    let (source, destination) = (&out[source..source + len], &out[destination..][..len]);
    hold(world.ours.contains(source), "an answer from an address not ours")?;
    let kind = out[new.l4];
    let icmp = matches!(new.protocol, 1 | 58);
    let advertisement = icmp && kind == ADVERTISEMENT;
    let unspecified = destination.iter().all(|byte| *byte == 0);
    let group = if new.v4 { destination[0] >= 224 } else { destination[0] == 0xff };
    hold(!unspecified && (advertisement || !group), "an answer to no single host")?;
    hold(advertisement || before[0] & 1 == 0, "an answer to what was sent to a group")?;
    let was_error = match old.protocol {
        1 => matches!(before.get(old.l4), Some(3 | 4 | 11 | 12)),
        58 => matches!(before.get(old.l4), Some(0..=127)),
        _ => false,
    };
    hold(!was_error, "an answer to an ICMP error")?;
    let was_reset = old.protocol == 6 && before.get(old.l4 + 13).is_some_and(|f| f & 4 != 0);
    hold(!(was_reset && new.protocol == 6), "a RST for a RST")?;
    hold(old.piece != Piece::Later, "an answer to a later fragment")?;
    if icmp && ECHO_REPLIES.contains(&kind) {
        return checksums_kept(before, &old, out, &new);
    }
    hold(!new.v4 || ip_sum(out, &new) == 0, "an answer with a wrong header checksum")?;
    hold(l4_sum(out, &new) == Some(0), "an answer with a wrong transport checksum")
}
