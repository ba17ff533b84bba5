//! Two workers, each flow on one queue of each wire: handed over both ways, in order, exact.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::flows::{Load, Traffic};
use common::{Shape, World, cores, web_and_dns};
use pipeline::adjacency::Role;

#[test]
fn each_flow_on_a_queue_keeps_its_order() {
    let wires = vec![(Role::Front, 2), (Role::Back, 2)];
    let mut world = World::new(Shape { cores: cores(2), wires, ..Shape::default() });
    world.publish(&web_and_dns(1, &[11, 12, 13, 14, 15]));
    let traffic = Traffic::run(&mut world, Load { flows: 6_000, packets: 24, ..Load::default() });
    assert_eq!(traffic.came, [144_000; 2]);
    assert_eq!(traffic.out_of_order, 0, "packets of a flow overtook each other");
    assert_eq!(traffic.strayed, 0, "a flow came out of two queues");
    world.settle();
    let inserts = [world.inserts(0), world.inserts(1)];
    assert_eq!(inserts.iter().sum::<u64>(), 6_000);
    assert!(inserts.iter().all(|n| *n > 2_000), "{inserts:?}");
    assert_eq!(world.engine.connection_count(), 6_000);
    println!("pinned: inserts {inserts:?}");
    let ledgers = world.finish("pinned");
    for ledger in &ledgers {
        assert!(ledger.handed_in > 10_000 && ledger.handed_out > 10_000, "{ledger:?}");
        assert_eq!(ledger.dropped, 0);
    }
    assert_eq!(ledgers[0].handed_out, ledgers[1].handed_in);
    assert_eq!(ledgers[1].handed_out, ledgers[0].handed_in);
    assert_eq!(ledgers.iter().map(|ledger| ledger.sent).sum::<u64>(), 288_000);
}
