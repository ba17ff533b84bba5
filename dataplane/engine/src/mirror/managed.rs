//! Which neighbours the kernel is asked for: those that it is to keep resolved, and those that
//! workers ask about. Nothing is asked twice within a second, and everything is bounded.

use super::netlink::{self, Request};
use super::state::{KernelState, Key};
use model::limits::ADJACENCIES_MAX;
use pipeline::adjacency::Mac;
use pipeline::mirror::NeighbourRequest;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Requests sent in one round of the thread: the kernel takes a few microseconds for each.
const ROUND_MAX: usize = 32;

/// The same request of a worker isn't passed on again within this.
const AGAIN: Duration = Duration::from_secs(1);

/// Requests of workers that are remembered, and that may wait. Beyond them requests are lost; the
/// next packet makes them again.
const REMEMBERED_MAX: usize = 4_096;

/// How often neighbours that should be kept resolved, and aren't, are asked for again: with
/// kernels before 5.16, all of them. A reachable time is 15 to 45 s.
const RECHECK: Duration = Duration::from_secs(10);

/// How often those without a usable MAC are asked for again. The kernel by itself tries a failed
/// one every 5 s: too long for the first client of a backend that has just come up.
const RECHECK_UNRESOLVED: Duration = Duration::from_secs(1);

/// How soon after the kernel has forgotten one.
const RECHECK_FORGOTTEN: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Keep(Key),
    Release(Key),
    Use(Key),
    Learn(Key, Mac),
}

/// The neighbours that matter.
pub(crate) struct Managed {
    /// Those that the control side wants.
    wanted: HashSet<Key>,
    /// The gateways of routes.
    gateways: HashSet<Key>,
    waiting: VecDeque<Ask>,
    recent: HashMap<Key, Instant>,
    recheck: Instant,
    recheck_unresolved: Instant,
}

impl Managed {
    pub fn new(now: Instant) -> Self {
        Self {
            wanted: HashSet::new(),
            gateways: HashSet::new(),
            waiting: VecDeque::new(),
            recent: HashMap::new(),
            recheck: now + RECHECK,
            recheck_unresolved: now + RECHECK_UNRESOLVED,
        }
    }
    /// Takes over what the control side wants. Those beyond [`ADJACENCIES_MAX`] are left out;
    /// gives their number.
    pub fn set_wanted(&mut self, list: Vec<Key>) -> usize {
        let total = list.len();
        let wanted: HashSet<Key> = list.into_iter().take(ADJACENCIES_MAX).collect();
        let old = std::mem::replace(&mut self.wanted, wanted);
        self.differ(&old, |managed| &managed.wanted, |managed| &managed.gateways);
        total.saturating_sub(ADJACENCIES_MAX)
    }
    /// Takes over the gateways of routes.
    pub fn set_gateways(&mut self, gateways: impl Iterator<Item = Key>) {
        let gateways: HashSet<Key> = gateways.take(ADJACENCIES_MAX).collect();
        let old = std::mem::replace(&mut self.gateways, gateways);
        self.differ(&old, |managed| &managed.gateways, |managed| &managed.wanted);
    }
    /// Asks for what is new in a set, and lets go of what left it and isn't in the other.
    fn differ(
        &mut self,
        old: &HashSet<Key>,
        set: fn(&Self) -> &HashSet<Key>,
        other: fn(&Self) -> &HashSet<Key>,
    ) {
        let gone = old.difference(set(self)).filter(|key| !other(self).contains(*key));
        let new = set(self).difference(old).filter(|key| !other(self).contains(*key));
        let asks: Vec<Ask> =
            gone.copied().map(Ask::Release).chain(new.copied().map(Ask::Keep)).collect();
        self.waiting.extend(asks);
    }
    fn is_managed(&self, key: &Key) -> bool {
        self.wanted.contains(key) || self.gateways.contains(key)
    }
    /// A worker asks about a next hop, or has seen one. False where there are too many, or the
    /// request makes no sense.
    pub fn ask(&mut self, request: &NeighbourRequest, now: Instant, state: &KernelState) -> bool {
        let key = (request.interface, request.address);
        if self.recent.get(&key).is_some_and(|at| now - *at < AGAIN) {
            return true;
        }
        if self.recent.len() >= REMEMBERED_MAX {
            self.recent.retain(|_, at| now - *at < AGAIN);
        }
        if self.recent.len() >= REMEMBERED_MAX || request.address.is_multicast() {
            return false;
        }
        let ask = match request.seen {
            // A sender beyond a router has the router's MAC.
            Some(mac) if mac.is_multicast() || !state.is_on_link(key) => return false,
            Some(mac) => Ask::Learn(key, mac),
            None => Ask::Use(key),
        };
        self.recent.insert(key, now);
        self.waiting.push_back(ask);
        true
    }
    /// The kernel has forgotten neighbours: asks again soon for those that matter.
    pub fn forgotten(&mut self, keys: &[Key], now: Instant) {
        if keys.iter().any(|key| self.is_managed(key)) {
            self.recheck = self.recheck.min(now + RECHECK_FORGOTTEN);
        }
    }
    /// The requests to make now.
    pub fn round(&mut self, now: Instant, state: &KernelState) -> Vec<Request> {
        if now >= self.recheck {
            self.recheck = now + RECHECK;
            self.ask_again(|key| state.neighbour(key).is_none_or(|known| !known.managed));
        }
        if now >= self.recheck_unresolved {
            self.recheck_unresolved = now + RECHECK_UNRESOLVED;
            self.ask_again(|key| state.neighbour(key).is_none_or(|known| known.usable().is_none()));
        }
        let mut requests = Vec::new();
        while requests.len() < ROUND_MAX {
            let Some(ask) = self.waiting.pop_front() else { break };
            self.translate(ask, state, &mut requests);
        }
        requests
    }
    fn ask_again(&mut self, is_due: impl Fn(&Key) -> bool) {
        // What is still waiting from the last time is asked for anyway.
        if self.waiting.len() > REMEMBERED_MAX {
            return;
        }
        let all = self.wanted.union(&self.gateways);
        let due: Vec<Ask> = all.filter(|key| is_due(key)).map(|key| Ask::Keep(*key)).collect();
        self.waiting.extend(due);
    }
    fn translate(&self, ask: Ask, state: &KernelState, requests: &mut Vec<Request>) {
        let (Ask::Keep(key) | Ask::Release(key) | Ask::Use(key) | Ask::Learn(key, _)) = ask;
        let Some(link) = state.link(key.0) else { return };
        let (index, address) = (link.index, key.1);
        let is_managed = self.is_managed(&key);
        match ask {
            // Wanted and given up, or the other way round, while it waited.
            Ask::Keep(_) if !is_managed => {}
            Ask::Release(_) if is_managed => {}
            Ask::Keep(_) => requests.push(netlink::keep_neighbour(index, address)),
            Ask::Use(_) if is_managed => requests.push(netlink::keep_neighbour(index, address)),
            // Nobody needs it resolved; the request is the way to clear the flag.
            Ask::Release(_) if state.neighbour(&key).is_none() => {}
            Ask::Release(_) | Ask::Use(_) => requests.push(netlink::use_neighbour(index, address)),
            Ask::Learn(_, mac) => {
                let known = state.neighbour(&key);
                if known.is_some_and(|known| known.usable().is_some()) {
                    return;
                }
                let create = known.is_none();
                requests.push(netlink::learn_neighbour(index, address, mac, create));
                if is_managed {
                    // Learning has cleared the flag.
                    requests.push(netlink::keep_neighbour(index, address));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::{Link, Neighbour};
    use super::*;
    use model::ids::{InterfaceId, PortId};
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
        let mut managed = Managed::new(now);
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
        let mut managed = Managed::new(now);
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
        let mut managed = Managed::new(now);
        let ask = |n| {
            let (interface, address) = key(n);
            NeighbourRequest { interface, address, seen: None }
        };
        let taken = (0..100_000).filter(|n| managed.ask(&ask(*n), now, &state)).count();
        assert_eq!(taken, REMEMBERED_MAX);
        assert_eq!(managed.waiting.len(), REMEMBERED_MAX);
        assert_eq!(managed.round(now, &state).len(), ROUND_MAX);
        assert!(managed.ask(&ask(200_000), now + AGAIN, &state));
        assert_eq!(managed.recent.len(), 1);
    }

    #[test]
    fn the_list_of_next_hops_is_bounded() {
        let mut managed = Managed::new(Instant::now());
        let refused = managed.set_wanted((0..ADJACENCIES_MAX as u32 + 3).map(key).collect());
        assert_eq!((refused, managed.wanted.len()), (3, ADJACENCIES_MAX));
    }
}
