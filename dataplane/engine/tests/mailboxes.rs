//! Inquiries while traffic runs: answered by the right owner, always, and they disturb nothing.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::flows::{Flow, Load, Random, Traffic};
use common::{DNS, Shape, WEB, WEB_V6, World, at, cores, host_v4, mac, web_and_dns};
use engine::Engine;
use model::answers::ConnectionFilter;
use model::desired::ObjectName;
use model::drops::DropReason;
use model::ids::{FiveTuple, Protocol, WorkerId};
use model::record::ConnectionState;
use pipeline::adjacency::{Mac, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const FLOWS: u32 = 5_000;
const ALL: usize = 1_000_000;

#[test]
fn workers_answer_inquiries_under_traffic() {
    let wires = vec![(Role::Front, 2), (Role::Back, 2)];
    let mut world = World::new(Shape { cores: cores(2), wires, ..Shape::default() });
    world.publish(&web_and_dns(1, &[11, 12, 13]));
    let stop = Arc::new(AtomicBool::new(false));
    let mut traffic = Traffic::new(Load { flows: FLOWS, packets: 40, ..Load::default() });
    let tuples: Arc<[FiveTuple]> = traffic.flows.iter().map(Flow::tuple).collect();
    let askers: Vec<_> = (0..3)
        .map(|seed| {
            let (engine, stop) = (Arc::clone(&world.engine), Arc::clone(&stop));
            let tuples = Arc::clone(&tuples);
            std::thread::spawn(move || ask(&engine, &stop, &tuples, seed))
        })
        .collect();
    while !traffic.step(&mut world) {}
    stop.store(true, Relaxed);
    let answers: Vec<[u64; 2]> = askers.into_iter().map(|asker| asker.join().unwrap()).collect();
    assert_eq!((traffic.out_of_order, traffic.strayed), (0, 0));
    assert!(answers.iter().all(|[lists, flows]| *lists > 0 && *flows > 0), "{answers:?}");
    println!("mailboxes: [lists, flows] answered under traffic {answers:?}");

    world.settle();
    lists(&world.engine, &traffic);
    explanations(&world.engine, &traffic);
    let ledgers = world.finish("mailboxes");
    assert!(ledgers.iter().all(|ledger| ledger.dropped == 0));
}

/// Asks whatever can be asked, until told to stop; every inquiry must be answered.
fn ask(engine: &Engine, stop: &AtomicBool, tuples: &[FiveTuple], seed: u64) -> [u64; 2] {
    let mut random = Random(seed);
    let mut answered = [0; 2];
    while !stop.load(Relaxed) || answered.contains(&0) {
        let filter = ConnectionFilter {
            limit: if random.below(2) == 0 { 10 } else { ALL },
            protocol: (random.below(2) == 0).then_some(Protocol::Tcp),
            state: (random.below(2) == 0).then(|| "established".to_owned()),
            ..ConnectionFilter::default()
        };
        let found = engine.connections(&filter).unwrap();
        assert!(found.connections.len() <= filter.limit);
        for record in &found.connections {
            assert!(filter.protocol.is_none_or(|protocol| record.protocol == protocol));
            assert!(filter.state.is_none() || record.state == ConnectionState::Established);
        }
        answered[0] += 1;
        for _ in 0..20 {
            let flow = tuples[random.below(tuples.len())];
            let answer = engine.explain(flow).unwrap();
            assert_eq!(answer.owner, engine.tables().owner(&flow));
            assert_eq!(answer.drop, None);
            assert!(["maglev", "connection"].contains(&&*answer.chosen_by), "{answer:?}");
            answered[1] += 1;
        }
    }
    answered
}

fn lists(engine: &Engine, traffic: &Traffic) {
    let all = ConnectionFilter { limit: ALL, ..ConnectionFilter::default() };
    let found = engine.connections(&all).unwrap();
    assert!(!found.more);
    assert_eq!(found.connections.len(), FLOWS as usize);
    let by_client: BTreeMap<_, _> =
        found.connections.iter().map(|record| ((record.client, record.protocol), record)).collect();
    assert_eq!(by_client.len(), FLOWS as usize);
    for flow in &traffic.flows {
        let record = by_client[&(flow.client, flow.protocol)];
        let (backend, nat) = flow.seen.unwrap();
        assert_eq!((record.frontend, record.backend, record.nat), (flow.frontend, backend, nat));
        let state = match flow.protocol {
            Protocol::Tcp => ConnectionState::Established,
            _ => ConnectionState::Replied,
        };
        assert_eq!(record.state, state);
        assert!(record.backend_alive);
        assert_eq!(record.worker, engine.tables().owner(&flow.tuple()));
        let back = FiveTuple { source: backend, destination: nat, ..flow.tuple() };
        assert_eq!(record.worker, engine.tables().owner(&back), "one owner for both directions");
    }
    let workers: BTreeSet<_> = found.connections.iter().map(|record| record.worker).collect();
    assert_eq!(workers, [WorkerId(0), WorkerId(1)].into());

    let count = |filter: ConnectionFilter| {
        let found = engine.connections(&filter).unwrap();
        (found.connections.len(), found.more)
    };
    let some = &traffic.flows[77];
    let of = |limit| ConnectionFilter { limit, ..ConnectionFilter::default() };
    let quarter = FLOWS as usize / 4;
    let web = Some((at(WEB).ip(), Some(80)));
    let source = |port| Some((some.client.ip(), port));
    assert_eq!(count(ConnectionFilter { source: source(None), ..of(9) }), (1, false));
    let port = some.client.port();
    assert_eq!(count(ConnectionFilter { source: source(Some(port)), ..of(9) }), (1, false));
    assert_eq!(count(ConnectionFilter { source: source(Some(port ^ 1)), ..of(9) }), (0, false));
    assert_eq!(count(ConnectionFilter { destination: web, ..of(ALL) }), (quarter, false));
    assert_eq!(count(ConnectionFilter { destination: web, ..of(quarter) }), (quarter, false));
    assert_eq!(
        count(ConnectionFilter { destination: web, ..of(quarter - 1) }),
        (quarter - 1, true)
    );
    let both = Some((at(WEB).ip(), None));
    assert_eq!(count(ConnectionFilter { destination: both, ..of(ALL) }), (2 * quarter, false));
    let dns = ObjectName::new("default", "dns");
    let filter = ConnectionFilter { service: Some(dns), ..of(ALL) };
    assert_eq!(count(filter.clone()), (2 * quarter, false));
    assert_eq!(count(ConnectionFilter { protocol: Some(Protocol::Tcp), ..filter }), (0, false));
    let closed = ConnectionFilter { state: Some("closed".to_owned()), ..of(ALL) };
    assert_eq!(count(closed), (0, false));
    assert_eq!(count(of(0)), (0, true));
}

fn explanations(engine: &Engine, traffic: &Traffic) {
    for flow in traffic.flows.iter().step_by(23) {
        let (backend, nat) = flow.seen.unwrap();
        let answer = engine.explain(flow.tuple()).unwrap();
        assert_eq!(answer.chosen_by, "connection");
        assert_eq!(answer.selected, Some(backend));
        assert_eq!(answer.connection.unwrap().nat, nat);
        let back = FiveTuple { source: backend, destination: nat, ..flow.tuple() };
        let answer = engine.explain(back).unwrap();
        assert_eq!(answer.connection.unwrap().client, flow.client);
        assert!(answer.way.unwrap().ends_with("on wire0"));
    }
    let flow = |source: &str, destination: SocketAddr| FiveTuple {
        protocol: Protocol::Tcp,
        source: at(source),
        destination,
    };
    let mut owners = BTreeSet::new();
    for port in 1..=100 {
        let tuple = flow(&format!("198.18.0.20:{port}"), at(WEB));
        let answer = engine.explain(tuple).unwrap();
        let SocketAddr::V4(selected) = answer.selected.unwrap() else { panic!("family") };
        let host = selected.ip().octets()[3];
        let way = format!("198.18.1.{host} at {} on wire1", Mac(mac(1, host)));
        assert_eq!((&*answer.chosen_by, answer.way), ("maglev", Some(way)));
        assert_eq!(answer.service.unwrap().service, ObjectName::new("default", "web"));
        owners.insert(answer.owner);
    }
    assert_eq!(owners.len(), 2);
    let source = "198.18.0.20:1";
    for (destination, chosen_by, drop) in [
        (SocketAddr::new(at(WEB).ip(), 81), "frontend_address", None),
        (at(DNS), "frontend_address", None),
        (SocketAddr::new(host_v4(1, 200), 80), "nat_address", None),
        (SocketAddr::new(host_v4(0, 1), 22), "own_address", None),
        (at("192.0.2.1:80"), "not_ours", Some(DropReason::NotOurs)),
        (at(WEB_V6), "not_ours", Some(DropReason::NotOurs)),
    ] {
        let answer = engine.explain(flow(source, destination)).unwrap();
        assert_eq!((&*answer.chosen_by, answer.drop), (chosen_by, drop), "{destination}");
    }
    assert_eq!(engine.connection_count(), u64::from(FLOWS), "asking made none");
}
