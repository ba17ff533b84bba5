//! Thousands of publications under load: connections stay where they are, and nothing that was
//! published before is kept.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::flows::{Load, Random, Traffic};
use common::{
    DNS, DNS_V6, Shape, WEB, WEB_V6, World, adjacencies, backend, cores, host_v4, host_v6, service,
    wait, web_and_dns,
};
use model::desired::{BackendState, Delta};
use model::ids::Protocol;
use pipeline::adjacency::Role;
use pipeline::snapshot::{Compiler, Snapshot};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

const PUBLICATIONS: u64 = 4_000;
/// Hosts that always take connections, and hosts that come and go.
const KEPT: std::ops::RangeInclusive<u8> = 11..=14;
const CHURNED: std::ops::RangeInclusive<u8> = 15..=40;

#[test]
fn connections_outlive_thousands_of_publications() {
    let wires = vec![(Role::Front, 2), (Role::Back, 2)];
    let shape = Shape { cores: cores(2), wires: wires.clone(), ..Shape::default() };
    let mut world = World::new(shape);
    let mut compiler = Compiler::new(8, 400);
    let (snapshot, _) = compiler.apply(&web_and_dns(1, &[11, 12, 13, 14]));
    let first = world.engine.publish(snapshot);

    let engine = Arc::clone(&world.engine);
    let published = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let churn = {
        let (published, stop) = (Arc::clone(&published), Arc::clone(&stop));
        std::thread::spawn(move || {
            let shape = Shape { wires, ..Shape::default() };
            let mut random = Random(3);
            let mut old: Vec<Weak<Snapshot>> = Vec::new();
            while !stop.load(Relaxed) {
                let number = published.load(Relaxed);
                if number.is_multiple_of(8) {
                    // The same next hops in another order.
                    engine.publish_adjacencies(adjacencies(&shape, random.below(64)));
                } else {
                    let (snapshot, report) = compiler.apply(&change(&mut random));
                    assert!(report.problems.is_empty(), "{:?}", report.problems);
                    old.push(Arc::downgrade(&snapshot));
                    engine.publish(snapshot);
                }
                published.fetch_add(1, Relaxed);
                std::thread::yield_now();
            }
            old
        })
    };

    // Flows of 60 packets that live through most of it, as often as it takes.
    let (mut rounds, mut packets, mut backends) = (0, 0, std::collections::BTreeSet::new());
    while published.load(Relaxed) < PUBLICATIONS {
        assert!(!churn.is_finished(), "who publishes has panicked");
        rounds += 1;
        let load = Load {
            flows: 1_500,
            packets: 60,
            at_once: 1_500,
            window: 200,
            seed: 10 + rounds,
            ..Load::default()
        };
        let traffic = Traffic::run(&mut world, load);
        assert_eq!((traffic.out_of_order, traffic.strayed), (0, 0));
        packets += traffic.came.iter().sum::<u64>();
        backends.extend(traffic.flows.iter().map(|flow| flow.seen.unwrap().0));
    }
    stop.store(true, Relaxed);
    let old = churn.join().unwrap();
    let drops = common::drops(&world.engine);
    assert!(drops.is_empty(), "{drops:?}");
    assert!(backends.len() > 30, "those that come and go were chosen too: {}", backends.len());

    let [latest, _] = world.engine.generations();
    assert_eq!(latest, first + published.load(Relaxed));
    wait("every worker has the last generation", || {
        let [latest, everywhere] = world.engine.generations();
        (latest == everywhere).then_some(())
    });
    world.engine.refresh_ways();
    let kept = old.iter().filter(|snapshot| snapshot.strong_count() > 0).count();
    assert_eq!(kept, 1, "the latest alone, of {}", old.len());
    println!(
        "publishing: {} publications under {packets} packets of {} connections, {} backends, \
         snapshots kept {kept} of {}",
        published.load(Relaxed),
        1_500 * rounds,
        backends.len(),
        old.len(),
    );
    world.finish("publishing");
}

/// Some of the hosts that come and go are there, some of them draining, others with other weights.
/// UDP would leave a backend that goes, as it shall, so there weights alone change, and hosts that
/// never took a connection.
fn change(random: &mut Random) -> Delta {
    let both = |host: u8| [host_v4(1, host), host_v6(1, host)];
    let mut web = Vec::new();
    let mut dns = Vec::new();
    for host in KEPT {
        let weight = 1 + random.below(4) as u16;
        web.extend(both(host).map(|ip: IpAddr| backend(ip, 8080, BackendState::Active, weight)));
        dns.extend(both(host).map(|ip: IpAddr| backend(ip, 5353, BackendState::Active, weight)));
    }
    for host in CHURNED {
        let state = match random.below(3) {
            0 => BackendState::Active,
            1 => BackendState::Draining,
            _ => continue,
        };
        web.extend(both(host).map(|ip: IpAddr| backend(ip, 8080, state, 1)));
        dns.extend(both(host).map(|ip: IpAddr| backend(ip, 5353, BackendState::Draining, 1)));
    }
    Delta {
        changed: vec![
            service("web", Protocol::Tcp, &[WEB, WEB_V6], web),
            service("dns", Protocol::Udp, &[DNS, DNS_V6], dns),
        ],
        removed: Vec::new(),
    }
}
