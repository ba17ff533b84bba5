//! When the status of one Service is written, on a clock of the test's own.

use super::*;
use std::net::Ipv4Addr;
use translate::writes::{Ingress, IpMode};

fn name() -> ObjectName {
    ObjectName::new("default", "web")
}

fn wish(addresses: &[u8]) -> StatusWrite {
    let ingress = addresses.iter().map(|last| Ingress {
        address: Ipv4Addr::new(203, 0, 113, *last).into(),
        mode: IpMode::Proxy,
        ports: Vec::new(),
    });
    StatusWrite {
        service: name(),
        uid: "1".into(),
        ingress: ingress.collect(),
        programmed: None,
        finalizer: false,
        take_over: false,
    }
}

/// Wishes, and what happens to them.
struct Desk {
    wanted: Wanted,
    now: Instant,
    /// The version that the watch has told.
    known: u64,
}

impl Desk {
    fn new() -> Self {
        let mut wanted = Wanted::new(Jitter::seeded(1));
        wanted.want(wish(&[1]), 1);
        let now = super::super::super::inbox::now() + Duration::from_secs(1);
        Self { wanted, now, known: 5 }
    }
    /// How many addresses are to be written now; `None` where nothing is due.
    fn next(&mut self) -> Option<usize> {
        let known = self.known;
        self.wanted.next(self.now, |_| Some(known)).map(|write| write.ingress.len())
    }
    fn settle(&mut self, settled: Settled) -> bool {
        self.wanted.settle(&name(), settled, Some(self.known), self.now)
    }
    fn changed(&mut self, version: u64) {
        self.known = version;
        self.wanted.changed(&[name()].into(), |_| Some(version));
    }
    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

/// A Service leaves type LoadBalancer while its address is on its way: the address is refused,
/// and what is wanted now is none.
#[test]
fn a_wish_for_less_outlives_the_refusal_of_the_one_before() {
    for (later, settled, expected) in [
        (wish(&[]), Settled::Conflict, Some(0)),
        (wish(&[1, 2]), Settled::Conflict, None),
        (wish(&[1, 2]), Settled::Refused, Some(2)),
        (wish(&[1, 2]), Settled::Altered(Some(7)), Some(2)),
    ] {
        let mut desk = Desk::new();
        assert_eq!(desk.next(), Some(1));
        desk.wanted.want(later, 1);
        desk.settle(settled);
        assert_eq!(desk.next(), expected);
        assert_eq!(desk.wanted.sent(), usize::from(expected.is_some()));
    }
}

#[test]
fn a_refusal_is_told_when_it_is_the_second_of_the_same_wish() {
    let mut desk = Desk::new();
    assert_eq!(desk.next(), Some(1));
    assert!(!desk.settle(Settled::Refused), "the Service may have changed its type");
    assert_eq!(desk.next(), None);
    desk.pass(1);
    assert_eq!(desk.next(), Some(1));
    assert!(desk.settle(Settled::Refused));
    desk.pass(299);
    assert_eq!(desk.next(), None, "not before the Service changes");
    desk.changed(6);
    assert_eq!(desk.next(), Some(1));
    assert!(!desk.settle(Settled::Refused), "told once");
    desk.pass(299);
    assert_eq!(desk.next(), None);
    desk.pass(80);
    assert_eq!(desk.next(), Some(1), "what refuses it may have changed by itself");
    assert!(!desk.settle(Settled::Refused), "told once");
    // Another wish is another matter.
    desk.wanted.want(wish(&[2]), 1);
    assert_eq!(desk.next(), Some(1));
    assert!(!desk.settle(Settled::Refused));
    desk.wanted.want(wish(&[]), 1);
    assert_eq!(desk.next(), Some(0));
    assert!(!desk.settle(Settled::Written(Some(7))));
    assert_eq!(desk.wanted.waiting(), 0);
}

#[test]
fn what_changes_while_a_write_is_on_its_way_is_looked_at() {
    // The other controller lets go before its conflict has come in.
    let mut desk = Desk::new();
    assert_eq!(desk.next(), Some(1));
    desk.changed(6);
    assert!(desk.settle(Settled::Conflict));
    assert_eq!(desk.next(), None);
    desk.pass(2);
    assert_eq!(desk.next(), Some(1));
    // Our write is version 7, and somebody took it out as version 8.
    desk.changed(8);
    desk.settle(Settled::Written(Some(7)));
    assert_eq!(desk.next(), Some(1));
    desk.settle(Settled::Written(Some(9)));
    assert_eq!(desk.next(), None);
}

#[test]
fn the_same_is_written_again_and_again_ever_more_seldom() {
    let mut desk = Desk::new();
    assert_eq!(desk.next(), Some(1));
    assert!(!desk.wanted.too_soon(&name(), desk.now), "it has never been written");
    desk.settle(Settled::Written(Some(6)));
    let mut waits = Vec::new();
    for version in 7..18 {
        // Somebody takes it out at once, which is told and said again.
        desk.changed(version * 2);
        desk.wanted.want(wish(&[1]), 1);
        let mut waited = 0;
        while desk.next().is_none() || desk.wanted.too_soon(&name(), desk.now) {
            desk.wanted.want(wish(&[1]), 1);
            desk.pass(1);
            waited += 1;
        }
        waits.push(waited);
        desk.settle(Settled::Written(Some(version * 2 + 1)));
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    // Something else is wanted: at once.
    desk.wanted.want(wish(&[2]), 1);
    assert!(desk.next().is_some() && !desk.wanted.too_soon(&name(), desk.now));
    desk.settle(Settled::Written(Some(50)));
    // Nobody has touched it for long.
    for _ in 0..2 {
        desk.pass(1_000);
        desk.changed(60);
        assert!(desk.next().is_some() && !desk.wanted.too_soon(&name(), desk.now));
        desk.settle(Settled::Written(Some(61)));
    }
}

#[test]
fn what_is_altered_on_its_way_is_told_once_and_waits() {
    let mut desk = Desk::new();
    assert_eq!(desk.next(), Some(1));
    assert!(desk.settle(Settled::Altered(Some(6))));
    desk.changed(6);
    desk.wanted.want(wish(&[1]), 1);
    desk.pass(1_000);
    assert_eq!(desk.next(), None, "our own change is none");
    for version in [7, 9, 11] {
        desk.changed(version);
        desk.pass(400);
        assert_eq!(desk.next(), Some(1));
        assert!(!desk.settle(Settled::Altered(Some(version + 1))));
    }
}

#[test]
fn another_wish_does_not_shorten_the_wait_after_a_failure() {
    let mut desk = Desk::new();
    assert_eq!(desk.next(), Some(1));
    desk.settle(Settled::Failed(Some(Duration::from_secs(20))));
    assert!(!desk.wanted.is_well());
    desk.wanted.want(wish(&[2, 3]), 1);
    desk.pass(19);
    assert_eq!(desk.next(), None);
    desk.pass(1);
    assert_eq!(desk.next(), Some(2));
    desk.settle(Settled::Gone);
    assert!(desk.wanted.is_well());
}

#[test]
fn wishes_of_an_earlier_term_are_dropped() {
    let mut desk = Desk::new();
    assert_eq!(desk.next(), Some(1));
    desk.wanted.of_term(None);
    desk.settle(Settled::Failed(None));
    desk.pass(100);
    assert_eq!((desk.next(), desk.wanted.waiting()), (None, 0));
    assert!(desk.wanted.is_well());
    // One that is on its way while the next term says the same.
    desk.wanted.want(wish(&[1]), 2);
    assert_eq!(desk.next(), Some(1));
    desk.wanted.want(wish(&[1]), 3);
    desk.settle(Settled::Conflict);
    assert_eq!(desk.next(), None, "who owns it owns it still");
    desk.wanted.of_term(Some(4));
    assert_eq!(desk.wanted.waiting(), 0);
}
