//! Which NAT port a connection of a case gets: the next towards its backend, in the order that the
//! key of the cases leads to.

use super::Flow;
use crate::world::SECRET;
use model::limits::{NAT_BLOCK_PORTS, NAT_PORT_FIRST};
use pipeline::connections::{Address, Key, challenge_number, nat_port_order};
use pipeline::parse::{TCP, UDP};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// One worker has all ports of the one NAT address of an interface and family.
const BLOCKS: u32 = (65_536 - NAT_PORT_FIRST as u32) / NAT_BLOCK_PORTS as u32;

thread_local! {
    /// Ports taken so far, by backend and protocol, of the case that is being made.
    static TAKEN: RefCell<HashMap<(SocketAddr, bool), u32>> = RefCell::default();
}

/// A new case: all ports are free.
pub(super) fn reset() {
    TAKEN.with_borrow_mut(HashMap::clear);
}

/// The port of the next connection to a backend.
pub(super) fn take(backend: SocketAddr, udp: bool) -> u16 {
    let step = TAKEN.with_borrow_mut(|taken| {
        let taken = taken.entry((backend, udp)).or_default();
        *taken += 1;
        *taken - 1
    });
    let (block, port) = match backend.ip() {
        IpAddr::V4(ip) => order(ip.to_bits(), backend.port(), udp, step),
        IpAddr::V6(ip) => order(ip.to_bits(), backend.port(), udp, step),
    };
    NAT_PORT_FIRST + block as u16 * NAT_BLOCK_PORTS as u16 + port as u16
}

/// A connection goes to another backend than was said first.
pub(super) fn give_back(backend: SocketAddr, udp: bool) {
    TAKEN.with_borrow_mut(|taken| {
        if let Some(taken) = taken.get_mut(&(backend, udp)) {
            *taken -= 1;
        }
    });
}

fn order<A: Address>(source: A, source_port: u16, udp: bool, step: u32) -> (u32, u32) {
    let protocol = if udp { UDP } else { TCP };
    let reply =
        Key { source, destination: A::default(), source_port, destination_port: 0, protocol };
    nat_port_order(&reply, SECRET, (step, BLOCKS))
}

/// The number that a segment acknowledges which asks a side of a connection whether it lives.
pub(super) fn told(flow: &Flow) -> u32 {
    let (client, frontend) = (flow.client, flow.frontend);
    let (source_port, destination_port, protocol) = (client.port(), frontend.port(), TCP);
    match (client.ip(), frontend.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.to_bits(), destination.to_bits());
            let key = Key { source, destination, source_port, destination_port, protocol };
            challenge_number(&key, SECRET)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (source, destination) = (source.to_bits(), destination.to_bits());
            let key = Key { source, destination, source_port, destination_port, protocol };
            challenge_number(&key, SECRET)
        }
        _ => 0,
    }
}
