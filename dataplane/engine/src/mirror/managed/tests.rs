use super::super::state::{Link, Neighbour};
use super::*;
use model::ids::PortId;
use netlink_packet_route::neighbour::NeighbourState;
use pipeline::adjacency::{Interface, Role};
use std::net::{IpAddr, Ipv4Addr};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn key(n: u32) -> Key {
    (InterfaceId(0), IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)))
}

fn state() -> KernelState {
    let interface = Interface {
        name: "front".into(),
        port: PortId(0),
        vlan: None,
        mac: Mac::default(),
        mtu: 1500,
        role: Role::Both,
    };
    KernelState::new(vec![Link { index: 7, interface, mtu: 1500 }])
}

fn keep(n: u32) -> Request {
    netlink::keep_neighbour(7, key(n).1)
}

#[test]
fn only_differences_are_asked_for() {
    let (now, mut state) = (Instant::now(), state());
    let mut managed = Managed::new(HashMap::new(), now);
    managed.set_wanted(vec![key(1), key(2)]);
    assert_eq!(managed.round(now, &state).len(), 2);
    managed.set_wanted(vec![key(1), key(2)]);
    assert!(managed.round(now, &state).is_empty());
    // A gateway that is wanted anyway costs nothing, and stays when it is no gateway any more.
    managed.set_gateways([key(2), key(3)].into_iter());
    assert_eq!(managed.round(now, &state), [keep(3)]);
    managed.set_gateways([].into_iter());
    assert!(managed.round(now, &state).is_empty(), "the kernel doesn't know 3");
    let known = Neighbour { mac: Some(MAC), state: NeighbourState::Stale, managed: true };
    state.set_neighbour(key(1), known);
    managed.set_wanted(vec![key(2)]);
    assert_eq!(managed.round(now, &state), [netlink::use_neighbour(7, key(1).1)]);
}

#[test]
fn what_the_kernel_doesnt_keep_by_itself_is_asked_for_again() {
    let (now, mut state) = (Instant::now(), state());
    let mut managed = Managed::new(HashMap::new(), now);
    managed.set_wanted(vec![key(1), key(2)]);
    managed.round(now, &state);
    for (n, managed) in [(1, true), (2, false)] {
        let known = Neighbour { mac: Some(MAC), state: NeighbourState::Stale, managed };
        state.set_neighbour(key(n), known);
    }
    assert!(managed.round(now + RECHECK / 2, &state).is_empty());
    assert_eq!(managed.round(now + RECHECK, &state), [keep(2)]);
    assert_eq!(managed.round(now + RECHECK * 2, &state), [keep(2)]);
    // One that is forgotten comes back sooner.
    state.forget_neighbour(&key(1));
    let later = now + RECHECK * 2;
    managed.forgotten(&[key(1)], later);
    let requests = managed.round(later + RECHECK_FORGOTTEN, &state);
    assert!(requests.contains(&keep(1)));
}

#[test]
fn a_flood_of_requests_is_bounded_and_paced() {
    let (now, state) = (Instant::now(), state());
    let mut managed = Managed::new(HashMap::new(), now);
    let ask = |n| {
        let (interface, address) = key(n);
        NeighbourRequest { interface, address, purpose: Purpose::Resolve }
    };
    let taken = (0..100_000).filter(|n| managed.ask(&ask(*n), now, &state)).count();
    assert_eq!(taken, REMEMBERED_MAX);
    assert_eq!(managed.waiting.workers.len(), REMEMBERED_MAX);
    assert_eq!(managed.round(now, &state).len(), ROUND_MAX);
    assert!(managed.ask(&ask(200_000), now + AGAIN, &state));
    assert_eq!(managed.recent.len(), 1);
}

fn use_it(n: u32) -> NeighbourRequest {
    let (interface, address) = key(n);
    NeighbourRequest { interface, address, purpose: Purpose::InUse }
}

#[test]
fn what_connections_use_is_kept_until_nobody_has_said_so_for_a_minute() {
    let (start, mut state) = (Instant::now(), state());
    let mut managed = Managed::new(HashMap::new(), start);
    managed.set_wanted(vec![key(1)]);
    managed.round(start, &state);
    let known = Neighbour { mac: Some(MAC), state: NeighbourState::Reachable, managed: true };
    state.set_neighbour(key(1), known);
    // A worker says so before the snapshot drops it, another one after.
    assert!(managed.ask(&use_it(1), start, &state));
    assert_eq!(managed.use_of(&key(1)), NeighbourUse::NextHop);
    managed.set_wanted(Vec::new());
    assert_eq!(managed.use_of(&key(1)), NeighbourUse::InUse);
    for sweep in 1..=20 {
        let now = start + Duration::from_secs(15) * sweep;
        assert!(managed.ask(&use_it(1), now, &state));
        assert!(managed.round(now, &state).is_empty(), "sweep {sweep}: neither asked nor let go");
    }
    let last = start + Duration::from_secs(300);
    assert!(managed.round(last + IN_USE - Duration::from_secs(1), &state).is_empty());
    let released = managed.round(last + IN_USE + IN_USE_LOOK, &state);
    assert_eq!(released, [netlink::use_neighbour(7, key(1).1)]);
    assert_eq!(managed.use_of(&key(1)), NeighbourUse::Other);
}

#[test]
fn one_in_use_that_nobody_keeps_is_asked_for_and_their_number_is_bounded() {
    let (now, state) = (Instant::now(), state());
    let mut managed = Managed::new(HashMap::new(), now);
    assert!(managed.ask(&use_it(1), now, &state) && managed.ask(&use_it(1), now, &state));
    assert_eq!(managed.round(now, &state), [keep(1)]);
    // It is unresolved: asked for again as the others are.
    assert_eq!(managed.round(now + RECHECK_UNRESOLVED, &state), [keep(1)]);
    let taken = (1..=100_000).filter(|n| managed.ask(&use_it(*n), now, &state)).count();
    assert_eq!(taken, NEXT_HOPS_IN_USE_MAX);
}

#[test]
fn what_was_set_by_hand_is_never_asked_for() {
    let (now, mut state) = (Instant::now(), state());
    let mut managed = Managed::new(HashMap::new(), now);
    let ways = [NeighbourState::Permanent, NeighbourState::Noarp];
    for (n, word) in (1..).zip(ways) {
        state.set_neighbour(key(n), Neighbour { mac: Some(MAC), state: word, managed: false });
    }
    managed.set_wanted(vec![key(1)]);
    managed.set_gateways([key(2)].into_iter());
    let other = Mac([2, 0, 0, 0, 0, 8]);
    for (n, purpose) in [1, 2].into_iter().flat_map(|n| {
        [Purpose::Resolve, Purpose::Seen(other), Purpose::InUse].map(|purpose| (n, purpose))
    }) {
        let (interface, address) = key(n);
        managed.ask(&NeighbourRequest { interface, address, purpose }, now, &state);
    }
    for after in 0..120 {
        assert!(managed.round(now + Duration::from_secs(after), &state).is_empty());
    }
    managed.set_wanted(Vec::new());
    managed.set_gateways([].into_iter());
    assert!(managed.round(now, &state).is_empty(), "nor let go");
}

#[test]
fn what_the_configuration_sets_comes_back_and_yields_to_the_operator() {
    let (now, mut state) = (Instant::now(), state());
    let mut managed = Managed::new(HashMap::from([(key(1), MAC)]), now);
    let set = netlink::fix_neighbour(7, key(1).1, MAC);
    managed.forgotten(&[key(1)], now);
    assert_eq!(managed.round(now + RECHECK_FORGOTTEN, &state), std::slice::from_ref(&set));
    managed.set_wanted(vec![key(1)]);
    assert_eq!(managed.round(now + RECHECK_FORGOTTEN, &state), [set]);
    let mac = Some(Mac([2, 0, 0, 0, 0, 8]));
    let by_hand = Neighbour { mac, state: NeighbourState::Permanent, managed: false };
    state.set_neighbour(key(1), by_hand);
    assert!(managed.round(now + RECHECK * 3, &state).is_empty());
}

#[test]
fn the_control_sides_requests_come_before_a_flood_of_the_workers() {
    let (now, state) = (Instant::now(), state());
    let mut managed = Managed::new(HashMap::new(), now);
    for n in 1..4_000 {
        let (interface, address) = key(n);
        let purpose = Purpose::Resolve;
        managed.ask(&NeighbourRequest { interface, address, purpose }, now, &state);
    }
    managed.set_wanted(vec![key(9_000)]);
    let requests = managed.round(now, &state);
    assert_eq!((requests.len(), &requests[0]), (ROUND_MAX, &keep(9_000)));
}

#[test]
fn the_list_of_next_hops_is_bounded() {
    let mut managed = Managed::new(HashMap::new(), Instant::now());
    let refused = managed.set_wanted((0..ADJACENCIES_MAX as u32 + 3).map(key).collect());
    assert_eq!((refused, managed.wanted.len()), (3, ADJACENCIES_MAX));
}
