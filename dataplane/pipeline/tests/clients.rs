//! What a service port asks for about its clients, on several workers: affinity, source ranges, and
//! the RST after drain. And that `explain` says the same beforehand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::packets::{ACK, Packet, SYN};
use common::workers::{Random, Workers};
use common::{BACK_PORT, Buffer, FRONT_PORT, World, at, backend_ip, client, frontend_ip, key};
use model::answers::FlowAnswer;
use model::desired::{Affinity, BackendState, Origin, ServicePort};
use model::drops::DropReason;
use model::ids::{FiveTuple, Protocol};
use pipeline::Now;
use pipeline::frame::{Rx, Verdict};
use std::collections::HashMap;
use std::net::SocketAddr;

const PORTS: [u16; 2] = [80, 81];

/// A service port with two frontends and these active backends, in both families.
fn port(protocol: Protocol, backends: &[u8]) -> ServicePort {
    let both = |port| [at(frontend_ip(false), port), at(frontend_ip(true), port)];
    let frontends: Vec<SocketAddr> = PORTS.into_iter().flat_map(both).collect();
    let of = |n: &u8| [false, true].map(|v6| (at(backend_ip(v6, *n), 8080), BackendState::Active));
    let backends: Vec<_> = backends.iter().flat_map(of).collect();
    common::service(&key("web", protocol), &frontends, &backends)
}

fn sticky(protocol: Protocol, backends: &[u8]) -> ServicePort {
    ServicePort { affinity: Some(Affinity { timeout_s: 100 }), ..port(protocol, backends) }
}

/// Where a new connection goes, and the worker that has it.
fn begin(
    workers: &mut Workers,
    world: &World,
    packet: &Packet,
    now: Now,
) -> (Verdict, Option<Packet>, usize) {
    let mut buffers = [Buffer::new(&packet.build(), Rx { port: FRONT_PORT, ..Rx::default() })];
    let mut at = [0];
    workers.deliver(world, &mut buffers, &mut at, now);
    let sent = matches!(buffers[0].verdict, Verdict::Send(_));
    (buffers[0].verdict, sent.then(|| Packet::parse(buffers[0].frame())), at[0])
}

fn explain(workers: &Workers, world: &World, packet: &Packet, now: Now) -> FlowAnswer {
    let flow = FiveTuple {
        protocol: packet.protocol,
        source: packet.source,
        destination: packet.destination,
    };
    let owner = world.tables.owner(&flow);
    workers.pipelines[owner.index()].explain(&world.tables, &flow, now).answer(&world.tables)
}

/// Makes a connection one that isn't half open: TCP by the rest of its handshake, UDP by an answer
/// and by lasting for three seconds.
fn verify(workers: &mut Workers, world: &World, (first, sent): (&Packet, &Packet), now: &mut Now) {
    let tcp = first.protocol == Protocol::Tcp;
    let answer = sent.reply(if tcp { SYN | ACK } else { 0 }, vec![]);
    let mut buffers = [Buffer::new(&answer.build(), Rx { port: BACK_PORT, ..Rx::default() })];
    workers.deliver(world, &mut buffers, &mut [0], *now);
    now.ms += if tcp { 0 } else { 3_000 };
    assert!(begin(workers, world, &first.clone().flags(ACK), *now).1.is_some());
}

/// Against a model of one line: a client's backend is the one it had, while that is active and less
/// than the time-out has passed since its last connection.
#[test]
fn a_client_keeps_its_backend_on_whatever_worker_it_lands() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut world = World::new(2);
        let mut workers = Workers::new(&world, [4096; 2]);
        let mut random = Random(7);
        let mut active: Vec<u8> = (10..18).collect();
        world.put(sticky(protocol, &active));
        let mut model: HashMap<SocketAddr, (SocketAddr, u64)> = HashMap::new();
        let (mut now, mut kept, mut again, mut by_worker) = (Now { ms: 1000 }, 0, 0, [0; 2]);
        for n in 0..3000u16 {
            if n % 50 == 0 {
                now.ms += 1000 * [1, 5, 40, 99, 100][random.below(5)];
                active = (10..18).filter(|_| random.below(4) > 0).collect();
                active.push(18);
                world.put(sticky(protocol, &active));
            }
            let (v6, who) = (random.below(2) == 1, 10 + random.below(4) as u8);
            let ports = (1024 + n, PORTS[random.below(2)]);
            let packet = Packet::to_frontend(protocol, v6, who, ports);
            let said = explain(&workers, &world, &packet, now);
            let (_, sent, worker) = begin(&mut workers, &world, &packet, now);
            let sent = sent.expect("forwarded");
            let to = sent.destination;
            by_worker[worker] += 1;
            assert_eq!(said.selected, Some(to));
            let known = model.get(&at(client(v6, who), 0)).filter(|(backend, s)| {
                let there = active.iter().any(|n| backend_ip(v6, *n) == backend.ip());
                there && now.ms / 1000 - s < 100
            });
            let known = known.copied();
            if let Some((backend, since)) = known {
                assert_eq!(to, backend, "{n}");
                assert_eq!(said.chosen_by, "affinity");
                let left = 100 - (now.ms / 1000 - since);
                assert_eq!(said.affinity_left_s.map(u64::from), Some(left));
                kept += 1;
            } else {
                assert_eq!((&*said.chosen_by, said.affinity_left_s), ("maglev", None));
                again += 1;
            }
            let since = now.ms / 1000;
            verify(&mut workers, &world, (&packet, &sent), &mut now);
            // What is known is kept from its first packet on; what is new, once it is verified.
            let since = if known.is_some() { since } else { now.ms / 1000 };
            model.insert(at(client(v6, who), 0), (to, since));
        }
        assert!(kept > 1000 && again > 20, "{kept} {again}");
        assert!(by_worker.iter().all(|n| *n > 500), "{by_worker:?}");
    }
}

/// Two gateways that know nothing of each other give a client the same backend.
#[test]
fn gateways_agree_about_a_client_that_neither_has_seen() {
    let mut world = World::new(1);
    world.put(sticky(Protocol::Tcp, &[10, 11, 12, 13, 14]));
    let mut to = Vec::new();
    for ports in [(2000, 80), (3000, 81)] {
        let mut workers = Workers::new(&world, [64; 2]);
        let backends = (10..14).map(|n| {
            let packet = Packet::to_frontend(Protocol::Tcp, n % 2 == 0, n, ports);
            begin(&mut workers, &world, &packet, Now { ms: 5 }).1.unwrap().destination.ip()
        });
        to.push(backends.collect::<Vec<_>>());
    }
    assert_eq!(to[0], to[1]);
}

#[test]
fn explain_names_source_ranges() {
    let mut world = World::new(1);
    let mut guarded = port(Protocol::Tcp, &[10]);
    for frontend in &mut guarded.frontends {
        frontend.origin = Origin::LoadBalancer { pool: "p".into() };
    }
    guarded.source_ranges = vec!["198.18.0.10/31".parse().unwrap()];
    world.put(guarded);
    let mut workers = Workers::new(&world, [64; 2]);
    for (v6, n, admitted) in [(false, 11, true), (false, 12, false), (true, 12, true)] {
        let packet = Packet::to_frontend(Protocol::Tcp, v6, n, (2000, 80));
        let said = explain(&workers, &world, &packet, Now { ms: 5 });
        let (verdict, sent, _) = begin(&mut workers, &world, &packet, Now { ms: 5 });
        assert_eq!(sent.is_some(), admitted);
        if !admitted {
            assert_eq!(verdict, Verdict::Drop(DropReason::SourceNotAllowed));
            let why = (&*said.chosen_by, said.drop);
            assert_eq!(why, ("source_ranges", Some(DropReason::SourceNotAllowed)));
        }
    }
}

/// A backend goes; its client is told in time, however often the tables are swept.
#[test]
fn a_silent_client_is_told_within_two_sweeps_and_not_before() {
    for v6 in [false, true] {
        let mut world = World::new(1);
        let fading = |backends: &[u8]| ServicePort {
            reset_after_s: Some(60),
            ..port(Protocol::Tcp, backends)
        };
        world.put(fading(&[10]));
        let mut workers = Workers::new(&world, [64; 2]);
        let syn = Packet::to_frontend(Protocol::Tcp, v6, 10, (2000, 80));
        let (_, sent, _) = begin(&mut workers, &world, &syn, Now { ms: 900 });
        let reply = sent.unwrap().reply(SYN | ACK, vec![]).build();
        let pipeline = &mut workers.pipelines[0];
        common::one(pipeline, &world.tables, &reply, BACK_PORT, Now { ms: 901 });
        let ack = syn.clone().flags(ACK);
        common::one(pipeline, &world.tables, &ack.build(), FRONT_PORT, Now { ms: 902 });
        world.put(fading(&[11]));
        let mut told = Vec::new();
        for ms in (1_000..200_000).step_by(100) {
            pipeline.sweep(&world.tables, Now { ms });
            told.extend(pipeline.take_generated().map(|frame| (ms, frame.bytes().to_vec())));
        }
        let (first, frame) = &told[0];
        assert!((61_000..=91_000).contains(first), "{first} ms after");
        let challenge = Packet::parse(frame);
        assert_eq!((challenge.source, challenge.destination), (syn.destination, syn.source));
        assert_eq!((challenge.flags, told.len()), (ACK, 5));
        // It never answered, and has been forgotten.
        assert_eq!(pipeline.connections(), [0, 0]);
        assert_eq!(pipeline.counters().reset_probes.read(), 5);
        assert_eq!(pipeline.counters().resets.read(), 0);
    }
}
