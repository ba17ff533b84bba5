//! What may happen, at random.

use crate::common::packets::{ACK, FIN, RST, SYN};
use proptest::prelude::*;

/// A packet, before it is known what the gateway has made of earlier ones.
#[derive(Clone, Debug)]
pub enum Make {
    Client {
        udp: bool,
        v6: bool,
        n: u8,
        port: u16,
        to: u16,
        flags: u8,
        len: usize,
        ttl: u8,
    },
    Reply {
        which: usize,
        flags: u8,
        len: usize,
    },
    /// The client goes on: with the right number, where that completes a handshake.
    Onward {
        which: usize,
    },
    Fragment {
        v6: bool,
        n: u8,
        id: u32,
        piece: usize,
    },
    Error {
        which: usize,
        towards_client: bool,
        quote: usize,
    },
    Echo {
        v6: bool,
        to: u8,
    },
    Neighbour {
        v6: bool,
        to: u8,
    },
    Garbage(Vec<u8>),
    Changed {
        which: usize,
        place: usize,
        value: u8,
    },
    Again {
        back: usize,
    },
}

#[derive(Clone, Debug)]
pub enum Step {
    Burst(Vec<(Make, u8)>),
    Time(u64),
    Sweep,
    /// For each backend: 0 gone, 1 draining, 2 not serving, else active.
    Backends(Vec<u8>),
    NoService,
    /// What the service ports ask for: bit 0 affinity, 1 source ranges, 2 RST after drain.
    Policy(u8),
    /// Backends go, and the time passes after which their clients get a RST.
    Leave(Vec<u8>),
    /// True: the neighbour of this place in the list loses its MAC; false: all have theirs.
    Unresolved(Option<usize>),
    Moved(usize),
    /// So many clients open a connection each, by a whole handshake.
    Open(u8),
}

fn make() -> impl Strategy<Value = Make> {
    let flags = prop_oneof![4 => Just(SYN), 3 => Just(ACK), 1 => Just(FIN | ACK), 1 => Just(RST)];
    let reply_flags =
        prop_oneof![3 => Just(SYN | ACK), 2 => Just(ACK), 1 => Just(FIN | ACK), 1 => Just(RST)];
    let to = prop_oneof![12 => Just(80u16), 1 => Just(81u16)];
    let len = prop_oneof![8 => 0usize..90, 1 => Just(1600usize)];
    let ttl = prop_oneof![12 => Just(64u8), 1 => Just(1u8)];
    let a_client = (any::<bool>(), any::<bool>(), 10u8..26, 2000u16..2006, to, flags, len, ttl);
    prop_oneof![
        10 => a_client.prop_map(|(udp, v6, n, port, to, flags, len, ttl)|
            Make::Client { udp, v6, n, port, to, flags, len, ttl }),
        10 => (any::<usize>(), reply_flags, 0usize..90)
            .prop_map(|(which, flags, len)| Make::Reply { which, flags, len }),
        6 => any::<usize>().prop_map(|which| Make::Onward { which }),
        2 => (any::<bool>(), 10u8..12, 0u32..3, 0usize..3)
            .prop_map(|(v6, n, id, piece)| Make::Fragment { v6, n, id, piece }),
        2 => (any::<usize>(), any::<bool>(), 20usize..120).prop_map(
            |(which, towards_client, quote)| Make::Error { which, towards_client, quote }),
        1 => (any::<bool>(), 0u8..4).prop_map(|(v6, to)| Make::Echo { v6, to }),
        1 => (any::<bool>(), 0u8..4).prop_map(|(v6, to)| Make::Neighbour { v6, to }),
        1 => proptest::collection::vec(any::<u8>(), 0..80).prop_map(Make::Garbage),
        1 => (any::<usize>(), 0usize..80, any::<u8>())
            .prop_map(|(which, place, value)| Make::Changed { which, place, value }),
        4 => (0usize..8).prop_map(|back| Make::Again { back }),
    ]
}

pub fn step() -> impl Strategy<Value = Step> {
    let hops = prop_oneof![6 => Just(0u8), 1 => Just(1u8), 1 => Just(2u8)];
    let time = prop_oneof![Just(1u64), Just(900), Just(16_000), Just(31_000), Just(310_000)];
    prop_oneof![
        8 => proptest::collection::vec((make(), hops), 1..70).prop_map(Step::Burst),
        3 => time.prop_map(Step::Time),
        1 => Just(Step::Sweep),
        2 => proptest::collection::vec(0u8..5, 6).prop_map(Step::Backends),
        1 => Just(Step::NoService),
        2 => (0u8..8).prop_map(Step::Policy),
        1 => proptest::collection::vec(prop_oneof![2 => Just(0u8), 1 => Just(3)], 6)
            .prop_map(Step::Leave),
        1 => proptest::option::of(0usize..80).prop_map(Step::Unresolved),
        1 => (0usize..80).prop_map(Step::Moved),
        1 => (1u8..20).prop_map(Step::Open),
    ]
}
