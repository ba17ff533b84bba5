//! The books can fail: one packet that vanishes shows, whoever loses it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::flows::{Load, Traffic};
use common::packets::{Packet, SYN};
use common::{ROUTER, Shape, World, cores, mac, wait, web_and_dns};
use dpdk::Burst;

#[test]
fn a_lost_packet_makes_the_ledger_differ() {
    let mut world = World::new(Shape { cores: cores(2), ..Shape::default() });
    world.publish(&web_and_dns(1, &[11, 12]));
    Traffic::run(&mut world, Load { flows: 200, ..Load::default() });
    world.settle();
    assert_eq!(world.disagreements(), Vec::<String>::new());

    // All packets come in at worker 0.
    engine::fault::lose_packets(1);
    world.send(0, 0, &[0; 60]);
    let lost = "worker 0 came and went: 1 and 0";
    wait("the books show it", || (world.disagreements() == [lost]).then_some(()));
    assert_eq!(world.engine.ledger().difference(), 1);
    println!("lost by a worker: {:?}", world.disagreements());

    // What vanishes on a wire shows too: a frame is taken off it behind the books' back.
    let flow = Traffic::new(Load::default()).flows.swap_remove(0);
    let packet = Packet {
        from: mac(0, ROUTER),
        to: mac(0, 1),
        protocol: flow.protocol,
        source: flow.client,
        destination: flow.frontend,
        ttl: 64,
        flags: SYN,
        payload: Vec::new(),
    };
    world.send(0, 0, &packet.build());
    let mut burst = Burst::<1>::new();
    wait("it comes out", || (world.wires[1][0].drain(&mut burst) == 1).then_some(()));
    drop(burst);
    let stolen = [lost, "sent and drained: 8001 and 8000", "wire1 opackets: 4001 and 4000"];
    wait("the books show that", || (world.disagreements() == stolen).then_some(()));
    println!("lost on a wire: {:?}", world.disagreements());
}
