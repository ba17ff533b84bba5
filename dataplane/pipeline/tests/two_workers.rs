//! Packets arrive at whichever worker: each ends at its owner after two hops at most, none is lost
//! and none doubled. With arrivals pinned, the order within a flow stays.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::packets::{ACK, Packet, SYN};
use common::workers::{Random, Workers};
use common::{BACK_PORT, Buffer, FRONT_PORT, World, at, backend_ip, client, frontend_ip, raw};
use model::desired::{BackendState, Delta};
use model::drops::DropReason;
use model::ids::{FiveTuple, Protocol};
use pipeline::Now;
use pipeline::frame::Verdict;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

const NOW: Now = Now { ms: 5 };

fn world(workers: u8) -> World {
    let mut world = World::new(workers);
    world.set_nat(2);
    let mut changed = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let backends: Vec<_> = (0..8u8)
            .flat_map(|n| {
                [false, true].map(|v6| (at(backend_ip(v6, 10 + n), 8080), BackendState::Active))
            })
            .collect();
        let frontends = [false, true].map(|v6| at(frontend_ip(v6), 80));
        changed.push(Arc::new(common::service(
            &common::key("web", protocol),
            &frontends,
            &backends,
        )));
    }
    world.publish(&Delta { changed, removed: vec![] });
    world
}

/// A flow, and what its packets said so far.
struct Flow {
    first: Packet,
    owner: usize,
    seen_by_backend: Option<(SocketAddr, SocketAddr)>,
}

struct Net {
    world: World,
    workers: Workers,
    random: Random,
}

impl Net {
    fn new(workers: u8, seed: u64) -> Self {
        let world = world(workers);
        let workers = Workers::new(&world, [4096, 4096]);
        Self { world, workers, random: Random(seed) }
    }
    fn flow(&self, udp: bool, v6: bool, port: u16) -> Flow {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let first = Packet::to_frontend(protocol, v6, 10, (port, 80));
        let (source, destination) = (first.source, first.destination);
        let owner = self.world.tables.owner(&FiveTuple { protocol, source, destination }).index();
        Flow { first, owner, seen_by_backend: None }
    }
    /// Sends frames, each to the worker that `pin` says, else to a random one. Returns what came
    /// out and where.
    fn send(&mut self, frames: &[(Vec<u8>, bool)], pin: Option<usize>) -> Vec<(Buffer, usize)> {
        let count = self.workers.pipelines.len();
        let new = |(bytes, front): &(Vec<u8>, bool)| {
            Buffer::new(bytes, common::rx(if *front { FRONT_PORT } else { BACK_PORT }))
        };
        let mut buffers: Vec<Buffer> = frames.iter().map(new).collect();
        let mut at: Vec<usize> =
            frames.iter().map(|_| pin.unwrap_or_else(|| self.random.below(count))).collect();
        self.workers.deliver(&self.world, &mut buffers, &mut at, NOW);
        buffers.into_iter().zip(at).collect()
    }

    /// One packet of each flow to the backend and its answer, mixed.
    fn round(&mut self, flows: &mut [Flow], flags: (u8, u8), pin: Option<usize>) {
        let there: Vec<_> = flows
            .iter()
            .enumerate()
            .map(|(n, flow)| {
                let packet = flow.first.clone().flags(flags.0).payload((n as u32).to_be_bytes());
                (packet.build(), true)
            })
            .collect();
        let mut back = Vec::new();
        for ((n, flow), (buffer, worker)) in
            flows.iter_mut().enumerate().zip(self.send(&there, pin))
        {
            assert_eq!(buffer.verdict, Verdict::Send(BACK_PORT), "flow {n}");
            assert!(buffer.rx.hops <= 1 && worker == flow.owner, "flow {n} ends at its owner");
            let packet = Packet::parse(buffer.frame());
            assert_eq!(packet.payload, (n as u32).to_be_bytes());
            let seen = (packet.source, packet.destination);
            assert_eq!(*flow.seen_by_backend.get_or_insert(seen), seen, "flow {n} stays");
            back.push((packet.reply(flags.1, packet.payload.clone()).build(), false));
        }
        for ((n, flow), (buffer, worker)) in flows.iter().enumerate().zip(self.send(&back, pin)) {
            assert_eq!(buffer.verdict, Verdict::Send(FRONT_PORT), "answer to flow {n}");
            assert!(buffer.rx.hops <= 1 && worker == flow.owner, "answer to flow {n}: its owner");
            let packet = Packet::parse(buffer.frame());
            let tuple = (packet.source, packet.destination);
            assert_eq!(tuple, (flow.first.destination, flow.first.source));
            assert_eq!(packet.payload, (n as u32).to_be_bytes());
        }
    }

    fn check(&self, flows: &[Flow]) {
        let mut expected = vec![0u64; self.workers.pipelines.len()];
        flows.iter().for_each(|flow| expected[flow.owner] += 1);
        let inserts: Vec<u64> =
            self.workers.pipelines.iter().map(|p| p.counters().inserts.read()).collect();
        assert_eq!(inserts, expected, "each flow was put in once, by its owner");
        let mut tuples: Vec<_> =
            flows.iter().map(|f| (f.first.protocol, f.seen_by_backend)).collect();
        tuples.sort_unstable();
        tuples.dedup();
        assert_eq!(tuples.len(), flows.len(), "NAT tuples are unique over all workers");
        assert_eq!(self.workers.dropped(), 0);
    }
}

fn flows(net: &Net, n: u16) -> Vec<Flow> {
    (0..n).map(|n| net.flow(n % 2 == 1, n % 4 > 1, 2000 + n)).collect()
}

#[test]
fn every_packet_ends_at_its_owner() {
    for workers in [2, 3, 5] {
        let mut net = Net::new(workers, u64::from(workers));
        let mut flows = flows(&net, 2000);
        for flags in [(SYN, SYN | ACK), (ACK, ACK), (ACK, ACK)] {
            net.round(&mut flows, flags, None);
        }
        net.check(&flows);
        let handed = &net.workers.handed;
        println!("{workers} workers: {} packets, handed over {handed:?}", net.workers.taken);
        for (from, to) in handed.iter().enumerate() {
            let others = to.iter().enumerate().filter(|(to, _)| *to != from);
            assert!(others.clone().all(|(_, n)| *n > 100), "both ways: {handed:?}");
        }
    }
}

#[test]
fn pinned_arrivals_keep_the_order_within_a_flow() {
    for pin in [0, 1] {
        let mut net = Net::new(2, 7);
        let mut all = flows(&net, 200);
        net.round(&mut all, (SYN, SYN | ACK), Some(pin));
        // Many packets of each flow in one go; the workers see them as they are delivered.
        let frames: Vec<_> = (0..2000u32)
            .map(|n| {
                let flow = &all[n as usize % all.len()];
                let packet = flow.first.clone().flags(ACK).payload(n.to_be_bytes());
                (packet.build(), true)
            })
            .collect();
        let mut sequence: HashMap<(Protocol, SocketAddr, SocketAddr), u32> = HashMap::new();
        let out = net.send(&frames, Some(pin));
        assert_eq!(net.workers.ended.len(), out.len(), "each ends once");
        for n in &net.workers.ended {
            let packet = Packet::parse(out[*n].0.frame());
            let number = u32::from_be_bytes(packet.payload[..].try_into().unwrap());
            let tuple = (packet.protocol, packet.source, packet.destination);
            let last = sequence.insert(tuple, number);
            assert!(last.is_none_or(|last| last < number), "in order");
        }
        assert_eq!(sequence.values().count(), all.len());
        net.check(&all);
    }
}

#[test]
fn fragments_find_the_owner_by_their_home() {
    let mut net = Net::new(2, 11);
    let mut hops = [0; 3];
    let mut ways = [[0; 2]; 2];
    for n in 0..600u32 {
        let (udp, v6) = (n % 2 == 1, n % 4 > 1);
        let flow = net.flow(udp, v6, 2000 + n as u16);
        if !udp {
            let sent = net.send(&[(flow.first.build(), true)], None);
            assert_eq!(sent[0].0.verdict, Verdict::Send(BACK_PORT));
        }
        let payload: Vec<u8> = (0..100u8).map(|byte| byte ^ n as u8).collect();
        let packet = flow.first.clone().flags(ACK).payload(payload.clone());
        let whole = packet.l4();
        let mut backend = None;
        let mut got = Vec::new();
        // One at a time, in order, each at a worker of its own.
        for fragment in raw::fragments(&packet, (70_000 + n) & 0xffff, 40) {
            let arrives = net.random.below(2);
            let (buffer, worker) = net.send(&[(fragment, true)], Some(arrives)).swap_remove(0);
            assert_eq!(buffer.verdict, Verdict::Send(BACK_PORT), "packet {n}");
            assert_eq!(worker, flow.owner, "packet {n}");
            hops[usize::from(buffer.rx.hops)] += 1;
            ways[arrives][worker] += 1;
            let bytes = buffer.frame();
            let header = if v6 { 14 + 40 + 8 } else { 14 + 20 };
            let to = bytes[if v6 { 14 + 24..14 + 40 } else { 14 + 16..14 + 20 }].to_vec();
            assert_eq!(*backend.get_or_insert(to.clone()), to, "packet {n}: all to one backend");
            got.extend_from_slice(&bytes[header..]);
        }
        let header = if udp { 8 } else { 20 };
        assert_eq!(got.len(), whole.len());
        assert_eq!(got[header..], payload, "packet {n}");
        assert_eq!(got[2..4], 8080u16.to_be_bytes(), "packet {n}");
    }
    println!("fragments by hops {hops:?}, by arrival and owner {ways:?}");
    assert!(hops.iter().all(|n| *n > 100), "straight, by one and by two hops: {hops:?}");
    assert_eq!(net.workers.dropped(), 0);
}

/// It can't be checked or translated before all of it is there, and is nobody's.
#[test]
fn an_icmp_error_in_fragments_ends_where_it_came() {
    let mut net = Net::new(2, 12);
    for n in 0..200u16 {
        let flow = net.flow(n % 2 == 1, n % 4 > 1, 2000 + n);
        let error = raw::icmp_error(&flow.first.reply(ACK, [1; 40]), 88);
        let whole = net.send(&[(error.clone(), true)], None).swap_remove(0).0;
        assert_eq!(whole.verdict, Verdict::Drop(DropReason::IcmpUnmatched), "error {n}");
        let first = raw::first_fragment(&error, 64);
        let (buffer, _) = net.send(&[(first, true)], None).swap_remove(0);
        assert_eq!(buffer.verdict, Verdict::Drop(DropReason::IcmpUnmatched), "fragment {n}");
    }
}

#[test]
fn what_was_handed_over_too_often_is_dropped() {
    let mut net = Net::new(2, 1);
    let flow = net.flow(false, false, 2000);
    let mut buffer = [Buffer::new(&flow.first.build(), common::rx(FRONT_PORT))];
    buffer[0].rx.hops = 2;
    let stranger = &mut net.workers.pipelines[1 - flow.owner];
    common::process(stranger, &net.world.tables, &mut buffer, NOW);
    assert_eq!(buffer[0].verdict, Verdict::Drop(DropReason::HandoverLoop));
    assert_eq!(common::drops(stranger.counters()), [(DropReason::HandoverLoop, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300, failure_persistence: None, ..ProptestConfig::default()
    })]
    /// Whatever arrives, garbage included: each packet ends, and is counted once.
    #[test]
    fn nothing_is_lost_or_doubled(
        seed in any::<u64>(),
        workers in 2u8..5,
        packets in proptest::collection::vec((0u8..9, any::<bool>(), 2000u16..2020), 1..100),
    ) {
        let mut net = Net::new(workers, seed);
        let mut frames = Vec::new();
        for (kind, v6, port) in packets {
            let flow = net.flow(kind & 1 == 1, v6, port);
            let packet = flow.first.clone().payload([5; 60]);
            let addresses = (client(v6, 10), frontend_ip(v6));
            match kind {
                0..4 => frames.push((packet.build(), true)),
                4 => frames.extend(
                    raw::fragments(&packet, u32::from(port), 32).into_iter().map(|f| (f, true))),
                5 => frames.push((raw::icmp_error(&packet.reply(ACK, [1; 40]), 60), true)),
                8 => {
                    let error = raw::icmp_error(&packet.reply(ACK, [1; 40]), 60);
                    frames.push((raw::first_fragment(&error, 64), true));
                }
                6 => frames.push((raw::echo((packet.from, packet.to), addresses, &[1; 9]), true)),
                _ => frames.push((vec![kind; usize::from(port) - 1980], true)),
            }
        }
        let given = frames.len() as u64;
        let out = net.send(&frames, None);
        let mut dropped = 0;
        for (buffer, _) in &out {
            prop_assert!(buffer.rx.hops <= 2);
            match buffer.verdict {
                Verdict::Drop(reason) => {
                    prop_assert!(reason != DropReason::HandoverLoop);
                    dropped += 1;
                }
                Verdict::Send(_) | Verdict::Answer(_) | Verdict::Host(_) => {}
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert_eq!(out.len() as u64, given);
        prop_assert_eq!(dropped, net.workers.dropped());
    }
}
