//! Next hops move and go while connections last.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::packets::{ACK, Packet, SYN};
use common::{BACK, BACK_PORT, FRONT, FRONT_PORT, World, at, backend_ip, client, frontend_ip};
use model::desired::BackendState;
use model::drops::DropReason;
use model::ids::Protocol;
use pipeline::adjacency::Mac;
use pipeline::frame::Verdict;
use pipeline::mirror::Purpose;
use pipeline::{Now, Options};

const NOW: Now = Now { ms: 5 };

#[test]
fn connections_follow_their_next_hops() {
    for (v6, protocol) in [
        (false, Protocol::Tcp),
        (true, Protocol::Tcp),
        (false, Protocol::Udp),
        (true, Protocol::Udp),
    ] {
        let mut world = World::new(1);
        let backend = (at(backend_ip(v6, 10), 8080), BackendState::Active);
        let key = common::key("web", protocol);
        world.put(common::service(&key, &[at(frontend_ip(v6), 80)], &[backend]));
        let mut pipeline = common::pipeline(&Options::default());
        let syn = Packet::to_frontend(protocol, v6, 10, (2000, 80));
        let out = common::one(&mut pipeline, &world.tables, &syn.build(), FRONT_PORT, NOW);
        let reply = Packet::parse(out.frame()).reply(SYN | ACK, vec![]);
        let mut there = syn.flags(ACK).build();
        let back = reply.build();
        let mut send = |world: &World, bytes: &[u8], port| {
            let out = common::one(&mut pipeline, &world.tables, bytes, port, NOW);
            let requests: Vec<_> = pipeline.take_requests().collect();
            (out.verdict, out.frame()[..6].to_vec(), requests)
        };
        send(&world, &back, BACK_PORT);

        // Each changes in the table, at another place than before.
        let hops = [backend_ip(v6, 10), client(v6, 10)];
        world.input.neighbours.reverse();
        for neighbour in world.input.neighbours.iter_mut().filter(|n| hops.contains(&n.1)) {
            neighbour.2 = Mac([2, 9, 9, 9, u8::from(neighbour.0 == BACK), 9]);
        }
        world.publish_adjacencies();
        there[6..12].copy_from_slice(&[2, 9, 9, 9, 0, 9]);
        let (verdict, to, requests) = send(&world, &there, FRONT_PORT);
        assert_eq!((verdict, &to[..]), (Verdict::Send(BACK_PORT), &[2, 9, 9, 9, 1, 9][..]));
        assert!(requests.is_empty());
        let (verdict, to, _) = send(&world, &back, BACK_PORT);
        assert_eq!((verdict, &to[..]), (Verdict::Send(FRONT_PORT), &[2, 9, 9, 9, 0, 9][..]));

        // The client moves, and nobody has said so yet: its next packet does. A flow that isn't
        // verified tells the kernel nothing.
        let mut moved = there.clone();
        moved[6..12].copy_from_slice(&[2, 9, 9, 9, 0, 8]);
        let (verdict, _, requests) = send(&world, &moved, FRONT_PORT);
        assert_eq!(verdict, Verdict::Send(BACK_PORT));
        let seen: Vec<_> = requests.iter().map(|r| (r.interface, r.address, r.purpose)).collect();
        let told = (FRONT, hops[1], Purpose::Seen(Mac([2, 9, 9, 9, 0, 8])));
        assert_eq!(
            seen,
            [told].into_iter().filter(|_| protocol == Protocol::Tcp).collect::<Vec<_>>()
        );
        assert_eq!(send(&world, &back, BACK_PORT).1, [2, 9, 9, 9, 0, 8]);
        send(&world, &there, FRONT_PORT);
        assert_eq!(send(&world, &back, BACK_PORT).1, [2, 9, 9, 9, 0, 9], "and back");

        // What an operator has set stays, whatever the client's packets come from.
        world.input.fixed = vec![(FRONT, hops[1])];
        world.publish_adjacencies();
        for from in [8, 7, 8] {
            moved[11] = from;
            let (verdict, _, requests) = send(&world, &moved, FRONT_PORT);
            assert_eq!((verdict, requests), (Verdict::Send(BACK_PORT), vec![]));
            assert_eq!(send(&world, &back, BACK_PORT).1, [2, 9, 9, 9, 0, 9]);
        }
        world.input.fixed.clear();
        world.publish_adjacencies();
        send(&world, &moved, FRONT_PORT);
        assert_eq!(send(&world, &back, BACK_PORT).1, [2, 9, 9, 9, 0, 8]);
        send(&world, &there, FRONT_PORT);

        // The backend's goes: it is asked for, and the packet dropped.
        let kept = world.input.neighbours.clone();
        world.input.neighbours.retain(|neighbour| neighbour.1 != hops[0]);
        world.publish_adjacencies();
        let (verdict, _, requests) = send(&world, &there, FRONT_PORT);
        assert_eq!(verdict, Verdict::Drop(DropReason::NeighbourUnresolved));
        let asked: Vec<_> = requests.iter().map(|r| (r.interface, r.address, r.purpose)).collect();
        assert_eq!(asked, [(BACK, hops[0], Purpose::Resolve)]);

        // And comes back.
        world.input.neighbours = kept;
        world.publish_adjacencies();
        assert_eq!(send(&world, &there, FRONT_PORT).0, Verdict::Send(BACK_PORT));
        assert_eq!(send(&world, &back, BACK_PORT).0, Verdict::Send(FRONT_PORT));
        assert_eq!(pipeline.counters().inserts.read(), 1, "all on one connection");
    }
}
