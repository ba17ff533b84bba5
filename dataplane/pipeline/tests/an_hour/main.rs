//! An hour of simulated time through one NAT address to three backends: 5,000 questions and answers
//! a second over UDP, and 5,000 connections a second that the server closes first, one in a hundred
//! of whose clients vanishes. Two workers; one test for each family.
//!
//! Connections that have ended hold a port for 70 s: three backends have not ports enough for
//! them, so ports must be used again that backends still wait on. What Linux' TIME_WAIT would make
//! of that is modelled here. `HOUR_SECONDS` says how much of the hour is played.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod server;
mod traffic;

use common::net::Net;
use common::{World, at, backend_ip, frontend_ip, key, service};
use model::desired::{BackendState, Delta};
use model::ids::Protocol;
use model::record::ConnectionState::{
    self, CloseWait, Established, FinWait, Replied, Stream, SynReceived, TimeWait,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use traffic::{LIVES_ON_S, Traffic, VANISHED_S};

const WORKERS: u8 = 2;
const BACKENDS: u8 = 3;
const TCP_PORT: u16 = 8080;
const UDP_PORT: u16 = 5353;
/// Connections a second, and as many questions.
const PER_SECOND: u64 = 5_000;
/// Ports of one NAT address.
const PORTS: usize = 64_512;
/// Seconds that a sweep takes.
const SWEEP_S: f64 = 15.0;
const PLACES: usize = 1 << 20;
/// Connections that are just being served, at most.
const UNDER_WAY: f64 = 100.0;

/// Seconds that are played: the whole hour where this is built for speed.
fn seconds() -> u64 {
    let usual = if cfg!(debug_assertions) { 75 } else { 3600 };
    std::env::var("HOUR_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual).max(75)
}

fn world(v6: bool) -> World {
    let mut world = World::new(WORKERS);
    let port = |protocol, from, to| {
        let backends: Vec<_> = (10..10 + BACKENDS)
            .map(|n| (at(backend_ip(v6, n), to), BackendState::Active))
            .collect();
        Arc::new(service(&key("web", protocol), &[at(frontend_ip(v6), from)], &backends))
    };
    let changed = vec![port(Protocol::Tcp, 80, TCP_PORT), port(Protocol::Udp, 53, UDP_PORT)];
    world.publish(&Delta { changed, removed: vec![] });
    world
}

fn an_hour(v6: bool, seed: u64) {
    let began = Instant::now();
    let places = if v6 { [1, PLACES] } else { [PLACES, 1] };
    let mut traffic = Traffic::new(Net::new(world(v6), places, seed), v6);
    for _ in 0..seconds() * 1000 {
        traffic.millisecond();
    }
    let states = traffic.net.states();
    println!(
        "{} s of IPv{} (seed {seed}) in {:.1?}: {}; {states:?}; {:.0} ns a packet of TCP, {:.0} of \
         UDP; dropped: {:?}",
        seconds(),
        if v6 { 6 } else { 4 },
        began.elapsed(),
        traffic.summary(),
        traffic.net.ns(traffic::TCP_LANE),
        traffic.net.ns(traffic::UDP_LANE),
        traffic.net.ledger.dropped,
    );
    traffic.net.balance();
    assert_eq!(traffic.net.ledger.dropped, BTreeMap::new(), "nothing is exhausted");
    traffic.all_served();
    as_computed(&states);
}

/// Little's law: what is in a state is what enters it a second, times the seconds that it stays; a
/// sweep takes it out within [`SWEEP_S`] more.
fn as_computed(states: &BTreeMap<ConnectionState, usize>) {
    let count = |state| states.get(&state).copied().unwrap_or(0);
    let ports = usize::from(BACKENDS) * PORTS;
    let within = |state, per_second: f64, life_s: f64| {
        let of = |life_s: f64| (per_second * life_s.min(seconds() as f64)).min(ports as f64);
        let (least, most) = (of(life_s), of(life_s + SWEEP_S));
        let (found, chance) = (count(state) as f64, 5.0 * most.sqrt());
        println!("{state}: {found}, computed {least:.0} to {most:.0}");
        assert!(found >= least - chance && found <= most + chance + UNDER_WAY, "{state}: {found}");
    };
    let vanished = PER_SECOND as f64 / 100.0 / VANISHED_S.len() as f64;
    for (state, seen_for_s) in VANISHED_S {
        let silent_s = match state {
            SynReceived => 60.0,
            // Twice it is asked for, a sweep apart, whether its client lives.
            FinWait => 120.0 + 2.0 * SWEEP_S,
            CloseWait => 3600.0,
            _ => LIVES_ON_S,
        };
        within(state, vanished, seen_for_s + silent_s);
    }
    within(Replied, PER_SECOND as f64, 30.0);
    assert_eq!(count(Stream), 0);
    // All ports would not be enough for those that have ended: they have what others leave.
    let others: usize = [SynReceived, Established, FinWait, CloseWait].map(count).into_iter().sum();
    let ended = ports - others;
    assert!(PER_SECOND as f64 * 70.0 > ports as f64);
    let found = count(TimeWait);
    println!("time_wait: {found}, computed {ended}");
    assert!(found <= ended && found * 100 >= ended * 99, "{found} of {ended}");
}

#[test]
fn an_hour_of_ipv4() {
    an_hour(false, 21);
}

#[test]
fn an_hour_of_ipv6() {
    an_hour(true, 22);
}
