//! What of the kernel's state is published, and when.
//!
//! What the control side may be waiting for is published at once: links, routes, and the next hops
//! of backends. Clients come and go all the time; their changes are gathered, on a clock of their
//! own, so that they never hold the others up.

use super::managed::{Managed, NeighbourUse};
use super::state::{KernelState, Key};
use model::limits::ADJACENCIES_MAX;
use nix::time::{ClockId, clock_gettime};
use pipeline::adjacency::{AdjacencyChange, Links, Mac};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Publications lie this far apart at least, and [`REST_FACTOR`] times what the last one took of a
/// core, but a second at most.
const EVERY: Duration = Duration::from_millis(5);
const REST_FACTOR: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(1);

/// Those of clients alone: a worker answers a client by what it has learned from its packets
/// meanwhile. The factor leaves 5 % of a core to them, also where they need all to be looked at.
const CLIENTS_EVERY: Duration = Duration::from_millis(20);
const CLIENTS_REST_FACTOR: u32 = 20;

/// Gets what is to be published, in the mirror thread.
pub(crate) type Publish = Box<dyn FnMut(AdjacencyChange) + Send>;

/// Publishes what differs from the last time.
pub(crate) struct Publications {
    publish: Publish,
    links: Option<Arc<Links>>,
    neighbours: HashMap<Key, Mac>,
    /// Usable neighbours that had no place.
    left_out: usize,
    /// Links or routes may differ.
    links_pending: bool,
    /// Neighbours that may differ.
    pending: HashSet<Key>,
    /// The control side may be waiting.
    is_urgent: bool,
    not_before: Option<Instant>,
    clients_not_before: Option<Instant>,
}

impl Publications {
    pub fn new(publish: Publish) -> Self {
        Self {
            publish,
            links: None,
            neighbours: HashMap::new(),
            left_out: 0,
            links_pending: true,
            pending: HashSet::new(),
            is_urgent: false,
            not_before: None,
            clients_not_before: None,
        }
    }
    /// Usable neighbours that aren't published, as there are too many.
    pub const fn left_out(&self) -> usize {
        self.left_out
    }
    /// Links or routes may differ.
    pub const fn links_changed(&mut self) {
        self.links_pending = true;
    }
    /// Neighbours may differ. True where routers are among them.
    pub fn neighbours_changed(
        &mut self,
        keys: impl Iterator<Item = Key>,
        managed: &Managed,
    ) -> bool {
        let mut routers = false;
        for key in keys {
            let used = managed.use_of(&key);
            routers |= used == NeighbourUse::Router;
            self.is_urgent |= used < NeighbourUse::Other;
            self.pending.insert(key);
        }
        routers
    }
    /// Other next hops matter than before.
    pub fn ranks_changed(&mut self) {
        self.is_urgent |= self.left_out > 0 || !self.pending.is_empty();
    }
    /// Publishes what is due. `is_settled` says that links and routes are known: halfway through a
    /// reading half of a change is. Readings are short, and rest longer than they take.
    pub fn publish(
        &mut self,
        state: &KernelState,
        is_settled: bool,
        managed: &Managed,
        now: Instant,
    ) {
        let links_due = self.links_pending && is_settled;
        if self.links.is_none() && !links_due {
            return;
        }
        let may = |at: Option<Instant>| at.is_none_or(|at| now >= at);
        let matters = (links_due || self.is_urgent) && may(self.not_before);
        if !matters && (self.pending.is_empty() || !may(self.clients_not_before)) {
            return;
        }
        let since = core_time();
        let change = self.change(state, managed, links_due);
        if change != AdjacencyChange::default() {
            (self.publish)(change);
        }
        let took = core_time().saturating_sub(since);
        let after =
            |factor: u32, least| Some(now + took + (took * factor).min(REST_MAX).max(least));
        if matters {
            self.not_before = after(REST_FACTOR, EVERY);
        }
        self.clients_not_before = after(CLIENTS_REST_FACTOR, CLIENTS_EVERY);
    }
    fn change(
        &mut self,
        state: &KernelState,
        managed: &Managed,
        links_due: bool,
    ) -> AdjacencyChange {
        let mut change = AdjacencyChange::default();
        if links_due {
            self.links_pending = false;
            let links = state.links();
            if self.links.as_deref() != Some(&links) {
                self.links = Some(Arc::new(links));
                change.links = self.links.clone();
            }
        }
        self.is_urgent = false;
        change.neighbours = self.choose(state, managed);
        change
    }
    /// The neighbours that differ from what is published.
    fn choose(&mut self, state: &KernelState, managed: &Managed) -> Vec<Difference> {
        let pending = std::mem::take(&mut self.pending);
        if state.usable_count() > ADJACENCIES_MAX || self.left_out > 0 {
            return self.choose_of_all(state, managed);
        }
        let usable = |key: &Key| state.neighbour(key).and_then(|known| known.usable());
        pending.iter().filter_map(|key| self.put(*key, usable(key))).collect()
    }
    /// There are more than places: those that matter come first, then those that have one.
    fn choose_of_all(&mut self, state: &KernelState, managed: &Managed) -> Vec<Difference> {
        let order = |(key, mac): (Key, Mac)| {
            (managed.use_of(&key), !self.neighbours.contains_key(&key), key, mac)
        };
        let mut all: Vec<_> = state.usable().map(order).collect();
        let left_out = all.len().saturating_sub(ADJACENCIES_MAX);
        if left_out > 0 {
            all.select_nth_unstable(ADJACENCIES_MAX - 1);
            all.truncate(ADJACENCIES_MAX);
        }
        if left_out > 0 && self.left_out == 0 {
            tracing::warn!("{}", too_many(left_out));
        }
        self.left_out = left_out;
        let chosen: HashMap<Key, Mac> = all.into_iter().map(|(.., key, mac)| (key, mac)).collect();
        let gone: Vec<Key> =
            self.neighbours.keys().filter(|key| !chosen.contains_key(*key)).copied().collect();
        let gone = gone.into_iter().map(|key| (key, None));
        let all = gone.chain(chosen.into_iter().map(|(key, mac)| (key, Some(mac))));
        all.filter_map(|(key, mac)| self.put(key, mac)).collect()
    }
    fn put(&mut self, key: Key, mac: Option<Mac>) -> Option<Difference> {
        let old = match mac {
            Some(mac) => self.neighbours.insert(key, mac),
            None => self.neighbours.remove(&key),
        };
        (old != mac).then_some((key.0, key.1, mac))
    }
}

/// How long this thread has had a core: one that had to wait for it hasn't worked meanwhile.
fn core_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// What is said of neighbours that aren't published.
pub(crate) fn too_many(left_out: usize) -> String {
    format!(
        "{left_out} neighbours too many: workers know {ADJACENCIES_MAX}, the next hops of routes \
         and backends first; clients beyond are answered by the MAC that their packets come from. \
         Put a router in front of the clients, or make their link's prefix longer"
    )
}

/// A neighbour and its new MAC; `None` where it has none any more.
type Difference = (model::ids::InterfaceId, std::net::IpAddr, Option<Mac>);

#[cfg(test)]
mod tests {
    use super::super::state::{Link, Neighbour};
    use super::*;
    use model::ids::{InterfaceId, PortId};
    use netlink_packet_route::neighbour::NeighbourState;
    use pipeline::adjacency::{Adjacencies, Interface, Role};
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Mutex;

    const MAX: u32 = ADJACENCIES_MAX as u32;

    fn key(n: u32) -> Key {
        (InterfaceId(0), IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)))
    }

    fn known(n: u32) -> Neighbour {
        let [a, b, c, d] = n.to_be_bytes();
        let mac = Some(Mac([2, 0, a, b, c, d]));
        Neighbour { mac, state: NeighbourState::Reachable, managed: false }
    }

    /// The kernel's state, what is published of it, and what workers then have.
    struct World {
        state: KernelState,
        managed: Managed,
        publications: Publications,
        table: Arc<Mutex<(Adjacencies, usize)>>,
    }

    impl World {
        fn new(start: Instant) -> Self {
            let interface = Interface {
                name: "front".into(),
                port: PortId(0),
                vlan: None,
                mac: Mac::default(),
                mtu: 1500,
                role: Role::Both,
            };
            let table = Arc::new(Mutex::new((Adjacencies::default(), 0)));
            let copy = Arc::clone(&table);
            let publish = Box::new(move |change: AdjacencyChange| {
                let mut copy = copy.lock().unwrap();
                *copy = (copy.0.with(&change), copy.1 + 1);
            });
            Self {
                state: KernelState::new(vec![Link { index: 7, interface, mtu: 1500 }]),
                managed: Managed::new(HashMap::new(), start),
                publications: Publications::new(publish),
                table,
            }
        }
        fn publish(&mut self, now: Instant) {
            self.publications.neighbours_changed(self.state.take_changed(), &self.managed);
            self.publications.publish(&self.state, true, &self.managed, now);
        }
        fn knows(&self, n: u32) -> bool {
            let (id, address) = key(n);
            self.table.lock().unwrap().0.find(id, address).is_some()
        }
        fn count(&self) -> (usize, usize) {
            let table = self.table.lock().unwrap();
            (table.0.count(), table.1)
        }
    }

    #[test]
    fn clients_are_gathered_and_hold_nothing_up() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut world = World::new(start);
        world.publish(start);
        world.managed.set_wanted(vec![key(1_000)]);
        // A client each millisecond; a next hop is resolved in the middle of it.
        for n in 1..=100 {
            world.state.set_neighbour(key(n), known(n));
            if n == 50 {
                world.state.set_neighbour(key(1_000), known(1_000));
            }
            world.publish(ms(u64::from(n)));
            assert!(n < 50 || world.knows(1_000), "the next hop is published at once");
        }
        let (neighbours, publications) = world.count();
        println!("{neighbours} neighbours in {publications} publications");
        assert!((4..=8).contains(&publications), "{publications}");
        world.publish(ms(2_000));
        assert_eq!(world.count().0, 101);
    }

    #[test]
    fn without_room_next_hops_come_first_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut world = World::new(start);
        let mut now = start;
        let mut publish = |world: &mut World| {
            now += Duration::from_secs(20);
            world.publish(now);
        };
        for n in 0..MAX + 5 {
            world.state.set_neighbour(key(n), known(n));
        }
        publish(&mut world);
        assert_eq!((world.count().0, world.publications.left_out()), (ADJACENCIES_MAX, 5));
        assert!(world.publications.links.is_some());
        // The last ones, as the link behind is the last interface.
        let hops: Vec<Key> = (MAX + 5..MAX + 105).map(key).collect();
        for n in MAX + 5..MAX + 105 {
            world.state.set_neighbour(key(n), known(n));
        }
        publish(&mut world);
        assert_eq!(world.publications.left_out(), 105);
        assert!(!world.knows(MAX + 5));
        world.managed.set_wanted(hops);
        world.publications.ranks_changed();
        publish(&mut world);
        assert!((MAX + 5..MAX + 105).all(|n| world.knows(n)));
        assert_eq!((world.count().0, world.publications.left_out()), (ADJACENCIES_MAX, 105));
        // Who has a place keeps it over who hasn't.
        let had: Vec<u32> = (0..MAX).filter(|n| world.knows(*n)).collect();
        world.publications.ranks_changed();
        publish(&mut world);
        assert!(had.iter().all(|n| world.knows(*n)));
        // Room comes again.
        for n in had.iter().take(200) {
            world.state.forget_neighbour(&key(*n));
        }
        publish(&mut world);
        assert_eq!((world.count().0, world.publications.left_out()), (MAX as usize - 95, 0));
        assert!((0..5).all(|n| world.knows(MAX + n)));
    }

    /// 200 changes a second among as many neighbours as there may be.
    #[test]
    fn churn_costs_the_thread_little() {
        let start = Instant::now();
        let mut world = World::new(start);
        for n in 0..MAX {
            world.state.set_neighbour(key(n), known(n));
        }
        world.publish(start);
        let (mut spent, before) = (Duration::ZERO, world.count().1);
        for n in 0..2_000_u32 {
            let now = start + Duration::from_secs(20) + Duration::from_millis(5) * n;
            let at = n.wrapping_mul(0x9e37_79b1) % MAX;
            let since = core_time();
            world.state.set_neighbour(key(at), known(n));
            world.publish(now);
            spent += core_time() - since;
        }
        let publications = world.count().1 - before;
        let share = spent.as_secs_f64() / 10.0 * 100.0;
        println!("10 s: {publications} publications, {spent:?}, {share:.2} % of a core");
        assert!(publications <= 501, "{publications}");
        assert!(share < 5.0, "{share} %");
    }
}
