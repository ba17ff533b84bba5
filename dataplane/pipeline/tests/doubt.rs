//! Connections whose end may be forged, and those whose next hop no table names any more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::packets::{ACK, Packet, RST, SYN};
use common::{BACK, BACK_PORT, FRONT_PORT, World, at, backend_ip, frontend_ip, key, one};
use model::desired::{Affinity, BackendState};
use model::ids::Protocol;
use pipeline::answer::{Class, Rate, Rates};
use pipeline::frame::Verdict;
use pipeline::mirror::Purpose;
use pipeline::{Now, Options, Pipeline};
use std::collections::HashMap;
use std::net::IpAddr;

/// A whole handshake; the client's packets go on as this one does.
fn establish(pipeline: &mut Pipeline, world: &World, v6: bool, port: u16, ms: u64) -> Packet {
    let syn = Packet::to_frontend(Protocol::Tcp, v6, 10, (port, 80));
    let out = one(pipeline, &world.tables, &syn.build(), FRONT_PORT, Now { ms });
    assert_eq!(out.verdict, Verdict::Send(BACK_PORT));
    let reply = Packet::parse(out.frame()).reply(SYN | ACK, vec![]).build();
    let out = one(pipeline, &world.tables, &reply, BACK_PORT, Now { ms });
    assert_eq!(out.verdict, Verdict::Send(FRONT_PORT));
    let ack = syn.flags(ACK);
    let out = one(pipeline, &world.tables, &ack.build(), FRONT_PORT, Now { ms });
    assert_eq!(out.verdict, Verdict::Send(BACK_PORT));
    ack
}

/// More are in doubt than may be asked: each waits for its turn.
#[test]
fn none_in_doubt_ends_unasked() {
    const MANY: usize = 40;
    for v6 in [false, true] {
        let mut world = World::new(1);
        let backend = (at(backend_ip(v6, 10), 8080), BackendState::Active);
        world.put(common::service(
            &key("web", Protocol::Tcp),
            &[at(frontend_ip(v6), 80)],
            &[backend],
        ));
        let rates = Rates::default().with(Class::Challenge, Rate { per_second: 1, burst: 1 });
        let options = Options { connections: [64; 2], rates, ..Options::default() };
        let mut pipeline = common::pipeline(&options);
        for n in 0..MANY {
            let ms = 900 + 5_000 * n as u64;
            let ack = establish(&mut pipeline, &world, v6, 2000 + n as u16, ms);
            // Somebody else's: it ends nothing by itself.
            let rst = ack.flags(RST).build();
            one(&mut pipeline, &world.tables, &rst, FRONT_PORT, Now { ms: ms + 1 });
            pipeline.sweep(&world.tables, Now { ms: ms + 2 });
        }
        let begin = 900 + 5_000 * MANY as u64;
        let mut asked: HashMap<_, u32> = HashMap::new();
        for ms in (begin..begin + 600_000).step_by(100) {
            pipeline.sweep(&world.tables, Now { ms });
            while let Some(frame) = pipeline.take_generated() {
                *asked.entry(Packet::parse(frame.bytes()).source).or_default() += 1;
            }
            let left = pipeline.connections()[usize::from(v6)];
            let twice = asked.values().filter(|times| **times >= 2).count();
            assert!(MANY - left <= twice, "{left} left, {twice} asked twice, at {ms} ms");
        }
        assert_eq!((asked.len(), pipeline.connections()), (MANY, [0, 0]));
    }
}

/// The backend stays in the tables, and what led to it, its node, goes: what is open goes on by the
/// node, and the mirror is told that it is in use.
#[test]
fn a_connection_keeps_a_node_that_no_table_names() {
    for v6 in [false, true] {
        let mut world = World::new(1);
        let pod: IpAddr = if v6 { "2001:db8:ff::5" } else { "10.244.1.5" }.parse().unwrap();
        let node = backend_ip(v6, 20);
        let put = |world: &mut World, via| {
            let backend = (at(pod, 8080), BackendState::Active);
            let key = key("web", Protocol::Tcp);
            let mut port = common::service(&key, &[at(frontend_ip(v6), 80)], &[backend]);
            port.backends[0].via = via;
            world.put(port);
        };
        put(&mut world, Some(node));
        let mut pipeline = common::pipeline(&Options::default());
        let ack = establish(&mut pipeline, &world, v6, 2000, 5).build();
        pipeline.take_requests().for_each(drop);
        put(&mut world, None);
        let in_use = |pipeline: &mut Pipeline| {
            pipeline.take_requests().filter(|r| r.purpose == Purpose::InUse).collect::<Vec<_>>()
        };
        for ms in (1_000..100_000).step_by(1_000) {
            let out = one(&mut pipeline, &world.tables, &ack, FRONT_PORT, Now { ms });
            assert_eq!(out.verdict, Verdict::Send(BACK_PORT), "at {ms} ms");
            pipeline.sweep(&world.tables, Now { ms });
        }
        let told = in_use(&mut pipeline);
        assert!(told.iter().all(|r| (r.interface, r.address) == (BACK, node)), "{told:?}");
        assert!((5..=10).contains(&told.len()), "once a sweep: {}", told.len());
        // It is named again: nobody needs to be told.
        put(&mut world, Some(node));
        one(&mut pipeline, &world.tables, &ack, FRONT_PORT, Now { ms: 100_000 });
        for ms in (100_000..140_000).step_by(1_000) {
            pipeline.sweep(&world.tables, Now { ms });
        }
        assert_eq!(in_use(&mut pipeline), []);
    }
}

/// What forged sources reach: an answered SYN keeps nobody's backend, the handshake's end does.
#[test]
fn affinity_is_kept_when_a_handshake_is_whole() {
    for v6 in [false, true] {
        let mut world = World::new(1);
        let backend = (at(backend_ip(v6, 10), 8080), BackendState::Active);
        let mut port =
            common::service(&key("web", Protocol::Tcp), &[at(frontend_ip(v6), 80)], &[backend]);
        port.affinity = Some(Affinity { timeout_s: 100 });
        world.put(port);
        let options = Options::default();
        let mut pipeline = common::pipeline(&options);
        for n in 0..100 {
            let syn = Packet::to_frontend(Protocol::Tcp, v6, 10, (2000 + n, 80));
            let out = one(&mut pipeline, &world.tables, &syn.build(), FRONT_PORT, Now { ms: 5 });
            let reply = Packet::parse(out.frame()).reply(SYN | ACK, vec![]).build();
            one(&mut pipeline, &world.tables, &reply, BACK_PORT, Now { ms: 5 });
        }
        assert_eq!((options.affinity.len(), pipeline.connections()[usize::from(v6)]), (0, 100));
        establish(&mut pipeline, &world, v6, 4000, 6);
        assert_eq!(options.affinity.len(), 1);
    }
}
