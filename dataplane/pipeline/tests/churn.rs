//! Neighbours come, move and go all the time: connections whose own next hops stay notice nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::packets::{ACK, Mac, Packet, SYN};
use common::{BACK, BACK_PORT, FRONT, FRONT_PORT, World, at, backend_ip, client, frontend_ip};
use model::desired::BackendState;
use model::ids::{InterfaceId, Protocol};
use pipeline::adjacency::{self, AdjacencyChange, AdjacencyRef};
use pipeline::frame::Verdict;
use pipeline::{Now, Options, Pipeline};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Neighbours that no connection uses.
const OTHERS: u32 = 60_000;
const SECONDS: u64 = 10;

type Hop = (InterfaceId, IpAddr);

struct Flow {
    there: Vec<u8>,
    back: Vec<u8>,
    hops: [Hop; 2],
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) as usize % n
    }
}

fn other(n: usize) -> Hop {
    (FRONT, Ipv4Addr::from_bits(0x0a00_0000 + n as u32).into())
}

fn mac_of(world: &World, hop: Hop) -> Mac {
    let of = world.tables.adjacencies.find(hop.0, hop.1).unwrap();
    world.tables.adjacencies.adjacency(of).unwrap().destination().0
}

/// Connections of both families, from clients on the link and beyond the router.
fn flows(world: &World, pipeline: &mut Pipeline, now: Now) -> Vec<Flow> {
    let mut flows = Vec::new();
    for (n, v6) in (0..200_u16).map(|n| (n, n % 2 == 1)) {
        let from = 10 + (n % 4) as u8;
        let syn = Packet::to_frontend(Protocol::Tcp, v6, from, (2000 + n, 80));
        let out = common::one(pipeline, &world.tables, &syn.build(), FRONT_PORT, now);
        assert_eq!(out.verdict, Verdict::Send(BACK_PORT));
        let seen = Packet::parse(out.frame());
        let reply = seen.reply(SYN | ACK, vec![]);
        let behind = (BACK, seen.destination.ip());
        let flow = Flow {
            there: syn.flags(ACK).build(),
            back: reply.build(),
            hops: [behind, (FRONT, client(v6, from))],
        };
        let out = common::one(pipeline, &world.tables, &flow.back, BACK_PORT, now);
        assert_eq!(out.verdict, Verdict::Send(FRONT_PORT));
        flows.push(flow);
    }
    flows
}

fn world() -> World {
    let mut world = World::new(1);
    for v6 in [false, true] {
        let key = common::key(if v6 { "six" } else { "four" }, Protocol::Tcp);
        let backends: Vec<_> =
            (10..110).map(|n| (at(backend_ip(v6, n), 8080), BackendState::Active)).collect();
        world.put(common::service(&key, &[at(frontend_ip(v6), 80)], &backends));
    }
    let mac = |n: u32| adjacency::Mac([2, 1, 0, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
    world.input.neighbours.extend((0..OTHERS).map(|n| {
        let (id, address) = other(n as usize);
        (id, address, mac(n))
    }));
    world.publish_adjacencies();
    world
}

/// A change of a neighbour that nobody uses: it moves, goes, or comes (back).
fn noise(random: &mut Random) -> (InterfaceId, IpAddr, Option<adjacency::Mac>) {
    let (id, address) = other(random.below(OTHERS as usize + 1_000));
    let last = random.below(256) as u8;
    (id, address, (random.below(3) > 0).then_some(adjacency::Mac([2, 2, 0, 0, 0, last])))
}

/// 200 changes and 100 publications a second, while every connection sends. One used next hop a
/// tenth of a second gets another MAC, and one a second leaves and comes back.
#[test]
fn churn_of_neighbours_loses_nothing_and_concerns_whom_it_concerns() {
    let (mut world, mut random) = (world(), Random(5));
    let mut pipeline = common::pipeline(&Options::default());
    let mut flows = flows(&world, &mut pipeline, Now { ms: 1 });
    let find = |world: &World, hop: Hop| world.tables.adjacencies.find(hop.0, hop.1).unwrap();
    let mut hops: Vec<Hop> = flows.iter().flat_map(|flow| flow.hops).collect();
    hops.sort_unstable();
    hops.dedup();
    let mut refs: Vec<AdjacencyRef> = hops.iter().map(|hop| find(&world, *hop)).collect();
    let mut used: Vec<[AdjacencyRef; 2]> =
        flows.iter().map(|flow| flow.hops.map(|hop| find(&world, hop))).collect();
    let before = pipeline.counters().revalidations.read();
    let mut concerned = 0;
    let stamp = world.tables.routes_stamp();
    let (mut changed, mut returned, mut sent) = (0, 0, 0);
    let mut cost = Duration::ZERO;
    let mut publish = |world: &mut World, neighbours| {
        let since = Instant::now();
        let next = world.tables.adjacencies.with(&AdjacencyChange { links: None, neighbours });
        world.tables.adjacencies = Arc::new(next);
        world.tables.generation += 1;
        cost += since.elapsed();
    };
    for ms in 2..SECONDS * 1_000 {
        if ms % 10 == 0 {
            let mut change = vec![noise(&mut random), noise(&mut random)];
            let (id, address) = hops[random.below(hops.len())];
            let mac = adjacency::Mac([2, 3, 0, 0, 0, random.below(256) as u8]);
            if ms % 1_000 == 0 {
                publish(&mut world, vec![(id, address, None)]);
                returned += 1;
            }
            if ms % 100 == 0 {
                change.push((id, address, Some(mac)));
            }
            publish(&mut world, change);
        }
        if ms % 10 == 5 {
            // Somebody else's Service, a hundred times a second.
            let key = common::key("another", Protocol::Tcp);
            let backend = (at(backend_ip(false, random.below(100) as u8), 9), BackendState::Active);
            world.put(common::service(&key, &[at(frontend_ip(false), 81)], &[backend]));
        }
        for (hop, of) in hops.iter().zip(&mut refs) {
            let now = find(&world, *hop);
            changed += u32::from(now != *of);
            *of = now;
        }
        for _ in 0..2 {
            let number = random.below(flows.len());
            let flow = &mut flows[number];
            flow.there[6..12].copy_from_slice(&mac_of(&world, flow.hops[1]));
            for (way, (bytes, port, out_port, hop)) in [
                (&flow.there, FRONT_PORT, BACK_PORT, flow.hops[0]),
                (&flow.back, BACK_PORT, FRONT_PORT, flow.hops[1]),
            ]
            .into_iter()
            .enumerate()
            {
                let of = find(&world, hop);
                concerned += u64::from(std::mem::replace(&mut used[number][way], of) != of);
                let out = common::one(&mut pipeline, &world.tables, bytes, port, Now { ms });
                assert_eq!(out.verdict, Verdict::Send(out_port), "at {ms} ms");
                assert_eq!(out.frame()[..6], mac_of(&world, hop), "at {ms} ms");
                sent += 1;
            }
        }
    }
    let publications = SECONDS * 100;
    println!(
        "{sent} packets over {publications} publications of 2 changes among {OTHERS} neighbours: \
         none lost; {changed} references changed, for {returned} next hops that came back; {:?} a \
         publication",
        cost / publications as u32
    );
    assert_eq!((changed, returned), (returned, SECONDS as u32 - 1));
    assert_eq!(world.tables.routes_stamp(), stamp);
    assert!(concerned > 0);
    assert_eq!(pipeline.counters().revalidations.read() - before, concerned, "whom it concerns");
    assert_eq!(common::drops(pipeline.counters()), []);
    assert_eq!(pipeline.counters().inserts.read(), flows.len() as u64);
    assert!(pipeline.take_requests().next().is_none());
}

/// Prefixes of a full table come and go a hundred times a second: who is beyond another one notices
/// nothing, and who is beyond it leaves by the router that it is behind now.
#[test]
fn routes_that_flap_concern_whom_they_lead_to() {
    const CLIENTS: usize = 40;
    // None of these is dealt to the same place as the backends.
    const FIRST: u8 = 64;
    let (mut world, mut random) = (world(), Random(6));
    let second = (FRONT, client(false, 77));
    let macs = [common::ROUTER_MAC, [2, 7, 7, 7, 7, 7]];
    world.input.neighbours.push((second.0, second.1, adjacency::Mac(macs[1])));
    world.publish_adjacencies();
    let mut pipeline = common::pipeline(&Options::default());
    let flows: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let mut syn = Packet::to_frontend(Protocol::Tcp, false, 10, (2000, 80));
            syn.source.set_ip(Ipv4Addr::new(10, FIRST + n as u8, 0, 5).into());
            syn.from = common::ROUTER_MAC;
            let out =
                common::one(&mut pipeline, &world.tables, &syn.build(), FRONT_PORT, Now { ms: 1 });
            assert_eq!(out.verdict, Verdict::Send(BACK_PORT));
            let back = Packet::parse(out.frame()).reply(SYN | ACK, vec![]).build();
            (syn.flags(ACK).build(), back)
        })
        .collect();
    let before = pipeline.counters().revalidations.read();
    let fixed = world.input.routes.len();
    let (mut by_second, mut changed) = ([false; 100], [false; 100]);
    let (mut concerned, mut looked) = (0, 0);
    for ms in 2..4_000 {
        if ms % 10 == 0 {
            let n = random.below(by_second.len());
            (by_second[n], changed[n]) = (!by_second[n], true);
            world.input.routes.truncate(fixed);
            for n in (0..by_second.len()).filter(|n| by_second[*n]) {
                let net = format!("10.{}.0.0/16", usize::from(FIRST) + n).parse().unwrap();
                let route = adjacency::Route { interface: FRONT, via: Some(second.1) };
                world.input.routes.push((net, route));
            }
            world.publish_adjacencies();
        }
        let n = random.below(CLIENTS);
        let (there, back) = &flows[n];
        let out = common::one(&mut pipeline, &world.tables, there, FRONT_PORT, Now { ms });
        assert_eq!(out.verdict, Verdict::Send(BACK_PORT));
        let out = common::one(&mut pipeline, &world.tables, back, BACK_PORT, Now { ms });
        assert_eq!(out.verdict, Verdict::Send(FRONT_PORT));
        assert_eq!(out.frame()[..6], macs[usize::from(by_second[n])], "client {n} at {ms} ms");
        concerned += u64::from(std::mem::take(&mut changed[n]));
        looked += 1;
    }
    println!("{looked} looks at connections, {concerned} of them concerned by one of 399 changes");
    assert!(concerned > 20);
    assert_eq!(pipeline.counters().revalidations.read() - before, concerned);
    assert_eq!(common::drops(pipeline.counters()), []);
}
