//! What is the host's: how much of it may pass, by whose it is.

use crate::answer::{Class, sender};
use crate::frame::{Frame, Verdict};
use crate::host_flows::Flow;
use crate::miss::{Whose, whose};
use crate::parse::Parsed;
use crate::rewrite::strip_link;
use crate::tables::Tables;
use crate::turn::{Packet, Turn};
use model::drops::DropReason;

/// TCP port of BGP, and UDP ports of BFD: single hop, echo, multihop, LAG.
const ROUTING_PORTS: [u16; 5] = [179, 3784, 3785, 4784, 6784];
/// Protocol number of OSPF.
const OSPF: u8 = 89;
/// Protocol number of VRRP.
const VRRP: u8 = 112;
/// A packet that still has all of it has passed no router (RFC 5082, and RFC 5881 for BFD).
const TTL_OF_THE_LINK: u8 = 255;

/// Gives the packet to the host, within the budget of its class.
pub fn to_host(turn: &mut Turn<'_>, packet: &mut Packet<'_, '_>) -> Verdict {
    to_host_as(class(turn, packet), turn, packet)
}

/// Gives the packet to the host under a class.
pub fn to_host_as(class: Class, turn: &mut Turn<'_>, packet: &mut Packet<'_, '_>) -> Verdict {
    let parsed = packet.parsed;
    if !turn.context.may(class, parsed.interface, turn.now) {
        return Verdict::Drop(DropReason::HostLimited);
    }
    strip_link(packet.frame, usize::from(parsed.l3));
    Verdict::Host(parsed.interface)
}

/// The class whose budget the packet takes from. Ports are anybody's to write: what looks like
/// routing takes from routing's budget only where its sender is somebody who may.
fn class(turn: &Turn<'_>, packet: &Packet<'_, '_>) -> Class {
    let parsed = packet.parsed;
    if is_routing(parsed) {
        if is_of_the_link(turn.tables, packet.frame, parsed) {
            return Class::HostRouting;
        }
        if turn.context.peers.contains(&parsed.addresses.source()) {
            return Class::HostPeer;
        }
    }
    match Flow::answered_by(packet.frame.bytes(), parsed) {
        Some(flow) if turn.context.host_flows.is_begun(&flow, turn.now) => Class::HostBegun,
        _ => Class::HostOther,
    }
}

fn is_routing(parsed: &Parsed) -> bool {
    matches!(parsed.protocol, OSPF | VRRP)
        || parsed.has_ports()
            && (ROUTING_PORTS.contains(&parsed.destination_port)
                || ROUTING_PORTS.contains(&parsed.source_port))
}

/// True where the sender is on the link: no router has passed the packet on, or its MAC is that of
/// the neighbour with this address. The address alone would prove nothing: from afar it comes with
/// a router's MAC. OSPF sends with a TTL of 1 to groups of the link, which no router passes on.
fn is_of_the_link(tables: &Tables, frame: &Frame<'_>, parsed: &Parsed) -> bool {
    if parsed.ttl == TTL_OF_THE_LINK {
        return true;
    }
    if parsed.protocol == OSPF && whose(tables, parsed.addresses.destination()) == Whose::LinkGroup
    {
        return true;
    }
    let neighbour = tables.adjacencies.find(parsed.interface, parsed.addresses.source());
    let adjacency = neighbour.and_then(|neighbour| tables.adjacencies.adjacency(neighbour));
    adjacency.is_some_and(|adjacency| adjacency.destination() == sender(frame))
}
