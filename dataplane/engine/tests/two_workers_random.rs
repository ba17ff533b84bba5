//! Two workers, every packet on a queue at random: everything but the order.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::flows::{Load, Traffic};
use common::{Shape, World, cores, web_and_dns};
use pipeline::adjacency::Role;

#[test]
fn any_packet_on_any_queue() {
    let wires = vec![(Role::Front, 2), (Role::Back, 2)];
    let mut world = World::new(Shape { cores: cores(2), wires, ..Shape::default() });
    world.publish(&web_and_dns(1, &[11, 12, 13, 14, 15]));
    let load = Load { flows: 6_000, packets: 24, random_queues: true, seed: 2, ..Load::default() };
    let traffic = Traffic::run(&mut world, load);
    assert_eq!(traffic.came, [144_000; 2]);
    assert_eq!(traffic.strayed, 0, "the owner sends on its own queue");
    println!("at random: {} packets overtook an earlier one", traffic.out_of_order);
    world.settle();
    let inserts = [world.inserts(0), world.inserts(1)];
    assert_eq!(inserts.iter().sum::<u64>(), 6_000);
    assert!(inserts.iter().all(|n| *n > 2_000), "{inserts:?}");
    println!("at random: inserts {inserts:?}");
    let ledgers = world.finish("at random");
    for ledger in &ledgers {
        assert!(ledger.handed_in > 10_000 && ledger.handed_out > 10_000, "{ledger:?}");
        assert_eq!(ledger.dropped, 0);
    }
    assert_eq!(ledgers[0].handed_out, ledgers[1].handed_in);
    assert_eq!(ledgers[1].handed_out, ledgers[0].handed_in);
}
