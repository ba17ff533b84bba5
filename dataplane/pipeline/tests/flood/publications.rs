//! A hundred publications of services a second, and two hundred changes of neighbours: connections
//! go on, and those alone are looked at again whose backend stands otherwise.

use super::good::{GENERATED, GOOD_LANE, Phase};
use super::hostile::Attack;
use super::{BACKENDS, FIRST_PORT, SERVICES, Test};
use crate::common::workers::Random;
use crate::common::{BACK, at, backend_ip, frontend_ip, key, mac_of, service};
use model::desired::BackendState;
use model::ids::Protocol;
use pipeline::adjacency::{AdjacencyChange, Mac};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

const SECONDS: u64 = 10;
const PUBLICATION_MS: u64 = 10;
const NEIGHBOUR_MS: u64 = 5;

/// What changes, and whom it concerns.
struct Churn {
    random: Random,
    draining: HashSet<SocketAddr>,
    /// Connections that are to be looked at again with their next packet.
    concerned: HashSet<usize>,
    looks: u64,
}

impl Churn {
    /// A backend begins to drain, or is active again.
    fn publish(&mut self, test: &mut Test) {
        let n = self.random.below(usize::from(SERVICES)) as u16;
        let backend = 10 + self.random.below(usize::from(BACKENDS)) as u8;
        let changed = at(backend_ip(self.random.below(2) == 1, backend), 8000 + n);
        if !self.draining.remove(&changed) {
            self.draining.insert(changed);
        }
        let backends: Vec<_> = (10..10 + BACKENDS)
            .flat_map(|b| [false, true].map(|v6| at(backend_ip(v6, b), 8000 + n)))
            .map(|address| match self.draining.contains(&address) {
                true => (address, BackendState::Draining),
                false => (address, BackendState::Active),
            })
            .collect();
        let frontends = [false, true].map(|v6| at(frontend_ip(v6), FIRST_PORT + n));
        let key = key(&format!("s{n}"), Protocol::Tcp);
        test.net.world.put(service(&key, &frontends, &backends));
        let flows = test.flows.iter().enumerate();
        self.concerned.extend(
            flows.filter(|(_, flow)| flow.backend == Some(changed)).map(|(number, _)| number),
        );
    }
    /// A neighbour that no connection uses has another MAC.
    fn move_neighbour(&mut self, test: &mut Test) {
        let n = 10 + BACKENDS + self.random.below(90) as u8;
        let mac = Mac(mac_of(2, self.random.below(250) as u8));
        let hop = (BACK, backend_ip(self.random.below(2) == 1, n), Some(mac));
        let change = AdjacencyChange { links: None, neighbours: vec![hop] };
        let tables = &mut test.net.world.tables;
        tables.adjacencies = Arc::new(tables.adjacencies.with(&change));
        tables.generation += 1;
    }
    /// Counts the looks that the next sample takes.
    fn foresee(&mut self, test: &Test) {
        for step in 0..test.good.div_ceil(1000) {
            let n = (test.next_sample + step) % test.flows.len();
            let sends = test.flows[n].phase == Phase::Open;
            self.looks += u64::from(sends && self.concerned.remove(&n));
        }
    }
}

#[test]
fn publications_concern_whom_they_concern() {
    let mut test = Test::new(Attack::new("publications", 16, &[]));
    test.open_good();
    test.net.time = Default::default();
    test.pass(SECONDS, 0);
    let idle_ns = test.net.ns(GOOD_LANE);
    test.net.time = Default::default();
    let revalidations = |test: &Test| -> u64 {
        test.net.pipelines.iter().map(|p| p.counters().revalidations.read()).sum()
    };
    let before = revalidations(&test);
    let mut churn =
        Churn { random: Random(16), draining: HashSet::new(), concerned: HashSet::new(), looks: 0 };
    for ms in 0..SECONDS * 1000 {
        if ms % PUBLICATION_MS == 0 {
            churn.publish(&mut test);
        }
        if ms % NEIGHBOUR_MS == 0 {
            churn.move_neighbour(&mut test);
        }
        churn.foresee(&test);
        test.net.tick(GENERATED);
        test.sample();
        test.settle();
    }
    let looks = revalidations(&test) - before;
    println!(
        "publications (seed 16): {} data packets sent, {} arrived, {looks} looks of {} that concern \
         somebody; a packet {idle_ns:.0} ns idle, {:.0} ns meanwhile",
        test.data.0,
        test.data.1,
        churn.looks,
        test.net.ns(GOOD_LANE),
    );
    test.net.balance();
    assert_eq!(test.data.0, test.data.1);
    assert!(test.net.ledger.dropped.is_empty(), "{}", test.drops());
    assert!(churn.looks > 100);
    assert_eq!(looks, churn.looks, "revalidations");
    assert_eq!(test.net.allocations, 0);
}
