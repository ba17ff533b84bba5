//! Which neighbours the kernel is asked for: those that it is to keep resolved, and those that
//! workers ask about. What somebody has set by hand is left alone. Nothing is asked twice within a second, and everything is bounded.

use super::netlink::{self, Known, Request};
use super::state::{KernelState, Key};
use model::ids::InterfaceId;
use model::limits::{ADJACENCIES_MAX, NEXT_HOPS_IN_USE_MAX};
use pipeline::adjacency::Mac;
use pipeline::mirror::{NeighbourRequest, Purpose};
use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::{Discriminant, discriminant};
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

/// How long a next hop is kept resolved after a worker has said that connections use it. They say
/// so at each sweep, every 15 s.
const IN_USE: Duration = Duration::from_secs(60);

/// How often those are looked for that nobody uses any more.
const IN_USE_LOOK: Duration = Duration::from_secs(5);

/// What the gateway needs a neighbour for, what matters most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeighbourUse {
    /// It is the gateway of a route.
    Router,
    /// Backends of the snapshot are behind it.
    NextHop,
    /// The configuration gives its MAC.
    Configured,
    /// Only connections that have lasted longer than their backend are behind it.
    InUse,
    /// None of these: a client, say.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Keep(Key),
    Release(Key),
    Use(Key),
    Learn(Key, Mac),
    Fix(Key),
}

/// Requests that wait. Those that the control side makes come first: a snapshot waits for them.
/// Workers' own and what is asked for again take turns.
#[derive(Default)]
struct Waiting {
    control: VecDeque<Ask>,
    workers: VecDeque<Ask>,
    again: VecDeque<Ask>,
    is_workers_turn: bool,
}

impl Waiting {
    fn pop(&mut self) -> Option<Ask> {
        self.is_workers_turn = !self.is_workers_turn;
        let (first, second) = if self.is_workers_turn {
            (&mut self.workers, &mut self.again)
        } else {
            (&mut self.again, &mut self.workers)
        };
        self.control.pop_front().or_else(|| first.pop_front()).or_else(|| second.pop_front())
    }
}

/// The neighbours that matter.
pub(crate) struct Managed {
    /// Those that the control side wants.
    wanted: HashSet<Key>,
    /// The gateways of routes.
    gateways: HashSet<Key>,
    /// The MACs of gateways: what comes from them has come from anywhere.
    routers: HashSet<(InterfaceId, Mac)>,
    /// Those that connections use, and when a worker last said so.
    in_use: HashMap<Key, Instant>,
    /// Those whose MAC the configuration gives.
    configured: HashMap<Key, Mac>,
    waiting: Waiting,
    recent: HashMap<(Key, Discriminant<Purpose>), Instant>,
    forget_recent: Instant,
    recheck: Instant,
    recheck_unresolved: Instant,
    look_for_unused: Instant,
}

impl Managed {
    pub fn new(configured: HashMap<Key, Mac>, now: Instant) -> Self {
        Self {
            wanted: HashSet::new(),
            gateways: HashSet::new(),
            routers: HashSet::new(),
            in_use: HashMap::new(),
            configured,
            waiting: Waiting::default(),
            recent: HashMap::new(),
            forget_recent: now,
            recheck: now + RECHECK,
            recheck_unresolved: now + RECHECK_UNRESOLVED,
            look_for_unused: now + IN_USE_LOOK,
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
    /// The gateways' MACs may be others.
    pub fn find_routers(&mut self, state: &KernelState) {
        let mac = |key: &Key| state.neighbour(key).and_then(|known| known.usable());
        let routers = self.gateways.iter().filter_map(|key| Some((key.0, mac(key)?)));
        self.routers = routers.collect();
    }
    /// Asks for what is new in a set, and lets go of what left it, unless something else keeps it.
    fn differ(
        &mut self,
        old: &HashSet<Key>,
        set: fn(&Self) -> &HashSet<Key>,
        other: fn(&Self) -> &HashSet<Key>,
    ) {
        let is_kept = |key: &Key| other(self).contains(key) || self.in_use.contains_key(key);
        let gone = old.difference(set(self)).filter(|key| !is_kept(key));
        let new = set(self).difference(old).filter(|key| !is_kept(key));
        let asks: Vec<Ask> =
            gone.copied().map(Ask::Release).chain(new.copied().map(Ask::Keep)).collect();
        self.waiting.control.extend(asks);
    }
    fn is_managed(&self, key: &Key) -> bool {
        self.wanted.contains(key) || self.gateways.contains(key) || self.in_use.contains_key(key)
    }
    /// What a neighbour is needed for.
    pub fn use_of(&self, key: &Key) -> NeighbourUse {
        if self.gateways.contains(key) {
            NeighbourUse::Router
        } else if self.wanted.contains(key) {
            NeighbourUse::NextHop
        } else if self.configured.contains_key(key) {
            NeighbourUse::Configured
        } else if self.in_use.contains_key(key) {
            NeighbourUse::InUse
        } else {
            NeighbourUse::Other
        }
    }
    /// A worker asks about a next hop, has seen one, or uses it. False where there are too many, or
    /// the request makes no sense.
    pub fn ask(&mut self, request: &NeighbourRequest, now: Instant, state: &KernelState) -> bool {
        let key = (request.interface, request.address);
        if request.address.is_multicast() {
            return false;
        }
        if request.purpose == Purpose::InUse {
            return self.keep_in_use(key, now);
        }
        let name = (key, discriminant(&request.purpose));
        if self.recent.get(&name).is_some_and(|at| now - *at < AGAIN) {
            return true;
        }
        // Not at each request of a flood: it looks at all of them.
        if self.recent.len() >= REMEMBERED_MAX && now >= self.forget_recent {
            self.forget_recent = now + AGAIN / 10;
            self.recent.retain(|_, at| now - *at < AGAIN);
        }
        if self.recent.len() >= REMEMBERED_MAX {
            return false;
        }
        let ask = match request.purpose {
            Purpose::Seen(mac) if !self.may_be_seen(key, mac, state) => return false,
            Purpose::Seen(mac) => Ask::Learn(key, mac),
            Purpose::Resolve | Purpose::InUse => Ask::Use(key),
        };
        self.recent.insert(name, now);
        self.waiting.workers.push_back(ask);
        true
    }
    /// A sender beyond a router has the router's MAC, and a source address that says nothing of
    /// this link, where it isn't the router itself.
    fn may_be_seen(&self, key: Key, mac: Mac, state: &KernelState) -> bool {
        let is_routed = self.routers.contains(&(key.0, mac)) && !self.gateways.contains(&key);
        !mac.is_multicast() && !is_routed && state.is_on_link(key)
    }
    fn keep_in_use(&mut self, key: Key, now: Instant) -> bool {
        if let Some(at) = self.in_use.get_mut(&key) {
            *at = now;
            return true;
        }
        if self.in_use.len() >= NEXT_HOPS_IN_USE_MAX {
            return false;
        }
        if !self.is_managed(&key) {
            self.waiting.workers.push_back(Ask::Keep(key));
        }
        self.in_use.insert(key, now);
        true
    }
    fn release_unused(&mut self, now: Instant) {
        let unused = |(key, at): (&Key, &Instant)| (now - *at >= IN_USE).then_some(*key);
        let unused: Vec<Key> = self.in_use.iter().filter_map(unused).collect();
        for key in unused {
            self.in_use.remove(&key);
            if !self.is_managed(&key) {
                self.waiting.again.push_back(Ask::Release(key));
            }
        }
    }
    /// The kernel has forgotten neighbours: asks again soon for those that matter.
    pub fn forgotten(&mut self, keys: &[Key], now: Instant) {
        if keys.iter().any(|key| self.use_of(key) != NeighbourUse::Other) {
            self.recheck = self.recheck.min(now + RECHECK_FORGOTTEN);
        }
    }
    /// The requests to make now. `state` has to be what the kernel holds: what somebody has set by
    /// hand would be undone by asking for it.
    pub fn round(&mut self, now: Instant, state: &KernelState) -> Vec<Request> {
        if now >= self.look_for_unused {
            self.look_for_unused = now + IN_USE_LOOK;
            self.release_unused(now);
        }
        if now >= self.recheck {
            self.recheck = now + RECHECK;
            self.ask_again(|key| state.neighbour(key).is_none_or(|known| !known.managed));
            let unset = |key: &&Key| !state.neighbour(key).is_some_and(|known| known.is_fixed());
            let unset: Vec<Ask> =
                self.configured.keys().filter(unset).copied().map(Ask::Fix).collect();
            self.waiting.again.extend(unset);
        }
        if now >= self.recheck_unresolved {
            self.recheck_unresolved = now + RECHECK_UNRESOLVED;
            self.ask_again(|key| state.neighbour(key).is_none_or(|known| known.usable().is_none()));
        }
        let mut requests = Vec::new();
        while requests.len() < ROUND_MAX {
            let Some(ask) = self.waiting.pop() else { break };
            self.translate(ask, state, &mut requests);
        }
        requests
    }
    fn ask_again(&mut self, is_due: impl Fn(&Key) -> bool) {
        // What is still waiting from the last time is asked for anyway.
        if self.waiting.again.len() > REMEMBERED_MAX {
            return;
        }
        let all = self.wanted.union(&self.gateways);
        let more = self.in_use.keys().filter(|key| self.use_of(key) > NeighbourUse::NextHop);
        let due = all.chain(more).filter(|key| is_due(key));
        let due: Vec<Ask> = due.map(|key| Ask::Keep(*key)).collect();
        self.waiting.again.extend(due);
    }
    fn translate(&self, ask: Ask, state: &KernelState, requests: &mut Vec<Request>) {
        let (Ask::Keep(key)
        | Ask::Release(key)
        | Ask::Use(key)
        | Ask::Learn(key, _)
        | Ask::Fix(key)) = ask;
        let Some(link) = state.link(key.0) else { return };
        let (index, address) = (link.index, key.1);
        let is_managed = self.is_managed(&key);
        let known = state.neighbour(&key);
        // What was set by hand is used as it is: to ask for it would undo it.
        if known.is_some_and(|known| known.is_fixed()) {
            return;
        }
        if let Some(mac) = self.configured.get(&key) {
            requests.push(netlink::fix_neighbour(index, address, *mac));
            return;
        }
        match ask {
            Ask::Fix(_) => {}
            // Wanted and given up, or the other way round, while it waited.
            Ask::Keep(_) if !is_managed => {}
            Ask::Release(_) if is_managed => {}
            Ask::Keep(_) => requests.push(netlink::keep_neighbour(index, address)),
            Ask::Use(_) if is_managed => requests.push(netlink::keep_neighbour(index, address)),
            // Nobody needs it resolved; the request is the way to clear the flag.
            Ask::Release(_) if known.is_none() => {}
            Ask::Release(_) | Ask::Use(_) => requests.push(netlink::use_neighbour(index, address)),
            Ask::Learn(_, mac) => {
                let held = match known.map(|known| known.usable()) {
                    None => Known::Stays,
                    Some(None) => Known::KeepsMac,
                    Some(Some(old)) if old == mac => return,
                    // Who has sent this is who has the address now; the kernel asks it soon.
                    Some(Some(_)) => Known::Moves,
                };
                requests.push(netlink::learn_neighbour(index, address, mac, held));
                if is_managed {
                    // Learning has cleared the flag.
                    requests.push(netlink::keep_neighbour(index, address));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
