//! Ports with fewer queues than there are workers, and a worker with several ports.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::flows::{Load, Traffic};
use common::{Shape, World, cores, eal, web_and_dns};
use dpdk::Eal;
use pipeline::adjacency::Role;

#[test]
fn workers_without_queues_and_workers_with_many() {
    let eal = eal();
    two_workers_on_one_queue(&eal);
    three_workers_on_two_queues_and_one(&eal);
    one_worker_with_four_ports(&eal);
}

/// Worker 1 receives by hand-over alone, and sends through worker 0.
fn two_workers_on_one_queue(eal: &Eal) {
    let shape = Shape { cores: cores(2), ..Shape::default() };
    let mut world = World::start(eal, "one", shape).unwrap();
    world.publish(&web_and_dns(1, &[11, 12, 13]));
    let traffic = Traffic::run(&mut world, Load { flows: 2_000, ..Load::default() });
    assert_eq!((traffic.out_of_order, traffic.strayed), (0, 0));
    world.settle();
    assert!(world.inserts(0) > 600 && world.inserts(1) > 600);
    let ledgers = world.finish("one queue");
    assert_eq!((ledgers[1].received, ledgers[1].sent, ledgers[1].dropped), (0, 0, 0));
    assert!(ledgers[1].handed_in > 20_000);
    assert_eq!(ledgers[1].handed_out, ledgers[1].handed_in, "all that it owns goes back");
    assert_eq!(ledgers[0].sent, 80_000);
}

fn three_workers_on_two_queues_and_one(eal: &Eal) {
    let wires = vec![(Role::Front, 2), (Role::Back, 1)];
    let shape = Shape { cores: cores(3), wires, ..Shape::default() };
    let mut world = World::start(eal, "three", shape).unwrap();
    world.publish(&web_and_dns(1, &[11, 12, 13]));
    let traffic = Traffic::run(&mut world, Load { flows: 2_000, ..Load::default() });
    assert_eq!((traffic.out_of_order, traffic.strayed), (0, 0));
    world.settle();
    let inserts = [0, 1, 2].map(|worker| world.inserts(worker));
    assert!(inserts.iter().all(|n| *n > 400), "{inserts:?}");
    let ledgers = world.finish("three workers");
    assert_eq!((ledgers[2].received, ledgers[2].sent), (0, 0));
    assert!(ledgers[1].sent > 0, "it has a queue of the front wire");
    assert!(ledgers.iter().all(|ledger| ledger.dropped == 0));
}

/// Two wires with clients, two with backends.
fn one_worker_with_four_ports(eal: &Eal) {
    let wires = vec![(Role::Front, 1), (Role::Back, 2), (Role::Front, 2), (Role::Back, 1)];
    let shape = Shape { wires, ..Shape::default() };
    let mut world = World::start(eal, "four", shape).unwrap();
    let mut delta = web_and_dns(1, &[11, 12]);
    for (port, more) in delta.changed.iter_mut().zip(web_and_dns(3, &[11, 12]).changed) {
        let port = std::sync::Arc::make_mut(port);
        port.backends.extend(more.backends.iter().cloned());
        port.backends.sort();
    }
    world.publish(&delta);
    let load = Load { flows: 2_000, fronts: vec![0, 2], ..Load::default() };
    let traffic = Traffic::run(&mut world, load);
    assert_eq!((traffic.out_of_order, traffic.strayed), (0, 0));
    let mut backends: Vec<_> = traffic.flows.iter().map(|f| f.seen.unwrap().0).collect();
    backends.sort();
    backends.dedup();
    assert_eq!(backends.len(), 16, "2 wires, 2 hosts, 2 families, 2 protocols");
    world.settle();
    assert!(world.books.iter().all(|books| books.injected > 5_000 && books.drained > 5_000));
    let ledgers = world.finish("four ports");
    assert_eq!((ledgers[0].received, ledgers[0].sent), (80_000, 80_000));
}
