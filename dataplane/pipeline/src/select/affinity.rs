//! Which backend a client had last, for service ports with session affinity: one table that all
//! workers share, looked at for new connections alone.
//!
//! A place is two words, each an atomic. `value` packs the backend and the second at which the
//! client is forgotten; `check` is the client's hash mixed with the backend's part of `value`. A
//! reader believes a place only if both agree, so that words of two writers are a place that nobody
//! finds, and no lock is needed. A new connection of a client that is known changes the time alone.
//!
//! No service has more than a quarter of the table while others need it. Whose a place is, `value`
//! says too, by the low ten bits of the service port's slot: places are counted by them, each time
//! that a `value` is swapped, so that the counts are exact whatever threads do. Slots are given out
//! densely: only where there are more than 1,024 service ports do some share a share.

use crate::hash::keyed;
use model::ids::{BackendId, ServiceId};
use model::limits::BACKENDS_MAX;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Bits of a backend's slot in a value.
const SLOT_BITS: u32 = 20;
/// Bits of a time in a value: seconds, three days of them. A time-out is at most one.
const TIME_BITS: u32 = 18;
/// Bits of a service port's slot in a value.
const GROUP_BITS: u32 = 10;
const GROUPS: usize = 1 << GROUP_BITS;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Places of a bucket: a cache line.
const BUCKET_PLACES: usize = 4;
/// A whole sweep takes so many seconds.
const SWEEP_S: u64 = 60;

const _: () = assert!(BACKENDS_MAX <= 1 << SLOT_BITS);
const _: () = assert!(16 + SLOT_BITS + GROUP_BITS + TIME_BITS == 64);
/// Kubernetes allows a day (`timeoutSeconds` of `sessionAffinityConfig`), which is less than half of
/// what it takes times to wrap: one that is over isn't taken for one to come.
const TIMEOUT_MAX_S: u32 = 86_400;
const _: () = assert!((TIMEOUT_MAX_S as u64) < TIME_MASK / 2);

/// A client of a service port, hashed: where it is looked for, and what it is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityClient {
    place: u64,
    check: u64,
    group: u16,
}

/// A client's backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// The backend that it had last.
    pub backend: BackendId,
    /// Seconds until it is forgotten.
    pub left_s: u32,
}

/// There was no place for another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityFull;

#[derive(Debug, Default)]
struct Place {
    value: AtomicU64,
    check: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([Place; BUCKET_PLACES]);

/// The table. Made once at start, for all workers.
#[derive(Debug)]
pub struct AffinityTable {
    buckets: Box<[Bucket]>,
    secret: u64,
    used: AtomicU64,
    /// Places taken by each group.
    groups: Box<[AtomicU32]>,
    swept: AtomicU64,
}

impl AffinityTable {
    /// An empty table with room for so many clients. `secret` keys its hash, so that nobody can
    /// choose addresses that share a bucket.
    pub fn new(clients: usize, secret: u64) -> Self {
        let buckets = clients.div_ceil(BUCKET_PLACES).max(2);
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            secret,
            used: AtomicU64::new(0),
            groups: (0..GROUPS).map(|_| AtomicU32::new(0)).collect(),
            swept: AtomicU64::new(0),
        }
    }
    /// Clients that it has room for.
    pub const fn capacity(&self) -> usize {
        self.buckets.len() * BUCKET_PLACES
    }
    /// Clients that are remembered, those included whose time has run out since the last sweep.
    pub fn len(&self) -> u64 {
        self.used.load(Relaxed)
    }
    /// True where no client is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// A client of a service port, by the two words of its address.
    pub const fn client(&self, service: ServiceId, (a, b): (u64, u64)) -> AffinityClient {
        let whose = (service.generation as u64) << 32 | service.slot as u64;
        AffinityClient {
            place: keyed(self.secret, a, b, whose),
            check: keyed(self.secret.rotate_left(32) ^ 0x5899_65cc_7537_4cc3, a, b, whose),
            group: (service.slot % GROUPS as u32) as u16,
        }
    }
    /// The client's backend, where it is still remembered.
    pub fn find(&self, client: AffinityClient, now_s: u32) -> Option<Sticky> {
        self.places(client).find_map(|place| {
            let value = place.value.load(Relaxed);
            is_of(place, value, client).then(|| sticky(value, now_s)).flatten()
        })
    }
    /// Remembers that the client has this backend, from now on for so many seconds.
    pub fn keep(
        &self,
        client: AffinityClient,
        backend: BackendId,
        now_s: u32,
        timeout_s: u32,
    ) -> Result<(), AffinityFull> {
        let new = pack(backend, client.group, now_s, timeout_s);
        let known = self.places(client).find_map(|place| {
            let value = place.value.load(Relaxed);
            is_of(place, value, client).then_some((place, value))
        });
        // Whoever is overtaken by another worker has lost nothing but a refresh.
        if let Some((place, value)) = known {
            if value != new && self.swap(place, value, new) && part(value) != part(new) {
                place.check.store(client.check ^ part(new), Relaxed);
            }
            return Ok(());
        }
        if self.has_its_share(client.group) && 2 * self.len() >= self.capacity() as u64 {
            return Err(AffinityFull);
        }
        let over = |value| value == 0 || sticky(value, now_s).is_none();
        self.take(client, new, over)
            // Whoever has more than a share gives way to one that has less.
            .or_else(|full| {
                let may = !self.has_its_share(client.group);
                let gives_way = |value| self.count(group(value)) > self.share();
                if may { self.take(client, new, gives_way) } else { Err(full) }
            })
    }
    /// Puts a client in the first of its places whose value may be replaced.
    fn take(
        &self,
        client: AffinityClient,
        new: u64,
        may: impl Fn(u64) -> bool,
    ) -> Result<(), AffinityFull> {
        for place in self.places(client) {
            let value = place.value.load(Relaxed);
            if may(value) && self.swap(place, value, new) {
                place.check.store(client.check ^ part(new), Relaxed);
                return Ok(());
            }
        }
        Err(AffinityFull)
    }
    /// Places that a service may have while others need them.
    const fn share(&self) -> u32 {
        (self.capacity() / 4) as u32
    }
    fn count(&self, group: usize) -> u32 {
        self.groups[group % GROUPS].load(Relaxed)
    }
    fn has_its_share(&self, group: u16) -> bool {
        self.count(usize::from(group)) >= self.share()
    }
    /// Swaps a place's value, and counts it.
    fn swap(&self, place: &Place, from: u64, to: u64) -> bool {
        if place.value.compare_exchange(from, to, Relaxed, Relaxed).is_err() {
            return false;
        }
        match (from, to) {
            (0, _) => self.used.fetch_add(1, Relaxed),
            (_, 0) => self.used.fetch_sub(1, Relaxed),
            _ => 0,
        };
        if from == 0 || to == 0 || group(from) != group(to) {
            if to != 0 {
                self.groups[group(to)].fetch_add(1, Relaxed);
            }
            if from != 0 {
                self.groups[group(from)].fetch_sub(1, Relaxed);
            }
        }
        true
    }
    /// Forgets clients whose time has run out: as much of the table as is due after `elapsed_ms`,
    /// so that a whole sweep takes a minute.
    pub fn sweep(&self, elapsed_ms: u64, now_s: u32) {
        let buckets = self.buckets.len() as u64;
        let due = (buckets * elapsed_ms).div_ceil(SWEEP_S * 1000).min(buckets);
        let from = self.swept.fetch_add(due, Relaxed);
        for n in from..from + due {
            for place in &self.buckets[(n % buckets) as usize].0 {
                let value = place.value.load(Relaxed);
                let over = value != 0 && sticky(value, now_s).is_none();
                if over {
                    self.swap(place, value, 0);
                }
            }
        }
    }

    /// The places where a client may be, in order.
    fn places(&self, client: AffinityClient) -> impl Iterator<Item = &Place> {
        let len = self.buckets.len() as u64;
        let first = ((client.place >> 32) * len) >> 32;
        // Another one than the first.
        let second = (first + 1 + (((client.place & 0xffff_ffff) * (len - 1)) >> 32)) % len;
        [first, second].into_iter().flat_map(|at| &self.buckets[at as usize].0)
    }
}

fn is_of(place: &Place, value: u64, client: AffinityClient) -> bool {
    value != 0 && place.check.load(Relaxed) ^ part(value) == client.check
}

/// The backend's part of a value, and its service's.
const fn part(value: u64) -> u64 {
    value & !TIME_MASK
}

/// The group that a value is counted under.
const fn group(value: u64) -> usize {
    (value >> TIME_BITS) as usize % GROUPS
}

/// A value; never 0, since no backend has generation 0.
const fn pack(backend: BackendId, group: u16, now_s: u32, timeout_s: u32) -> u64 {
    let timeout_s = if timeout_s < TIMEOUT_MAX_S { timeout_s } else { TIMEOUT_MAX_S };
    let until = (now_s as u64 + timeout_s as u64) & TIME_MASK;
    (backend.generation as u64) << (SLOT_BITS + GROUP_BITS + TIME_BITS)
        | (backend.slot as u64) << (GROUP_BITS + TIME_BITS)
        | (group as u64) << TIME_BITS
        | until
}

/// What a value says, unless its time is over. Times wrap, and no time-out is half as long as it
/// takes them to.
const fn sticky(value: u64, now_s: u32) -> Option<Sticky> {
    let left = (value & TIME_MASK).wrapping_sub(now_s as u64) & TIME_MASK;
    if left == 0 || left > TIME_MASK / 2 {
        return None;
    }
    let slot = (value >> (GROUP_BITS + TIME_BITS)) as u32 & ((1 << SLOT_BITS) - 1);
    let generation = (value >> (SLOT_BITS + GROUP_BITS + TIME_BITS)) as u16;
    Some(Sticky { backend: BackendId { slot, generation }, left_s: left as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const SERVICE: ServiceId = ServiceId { slot: 3, generation: 1 };
    const fn backend(slot: u32) -> BackendId {
        BackendId { slot, generation: 1 + slot as u16 }
    }

    proptest! {
        /// With room for all it is a map from client and service to backend and time.
        #[test]
        fn behaves_as_a_map(
            steps in proptest::collection::vec((0u32..40, 0u64..30, 0u32..2, 0u32..5, 1u32..90), 1..200),
            start in prop_oneof![Just(0u32), Just(TIME_MASK as u32 - 200)],
        ) {
            let table = AffinityTable::new(4096, 7);
            let mut model: HashMap<(u64, u32), (BackendId, u32)> = HashMap::new();
            let mut now = start;
            for (passed, address, slot, to, timeout) in steps {
                now += passed;
                let client = table.client(ServiceId { slot, generation: 1 }, (0, address));
                let known = model.get(&(address, slot)).filter(|(_, until)| *until > now);
                let wanted = known.map(|(backend, until)| Sticky { backend: *backend, left_s: until - now });
                prop_assert_eq!(table.find(client, now), wanted);
                prop_assert_eq!(table.keep(client, backend(to), now, timeout), Ok(()));
                model.insert((address, slot), (backend(to), now + timeout));
            }
            let alive = model.values().filter(|(_, until)| *until > now).count() as u64;
            table.sweep(60_000, now);
            prop_assert_eq!(table.len(), alive);
            counted(&table);
        }
    }

    #[test]
    fn clients_are_told_apart_whatever_the_secret() {
        for secret in [0, 7, u64::MAX] {
            let table = AffinityTable::new(8, secret);
            let checks: std::collections::HashSet<u64> =
                (0..1000).map(|n| table.client(SERVICE, (0, n)).check).collect();
            assert_eq!(checks.len(), 1000, "{secret}");
        }
    }

    /// The counts are those of the places.
    fn counted(table: &AffinityTable) {
        let mut groups = vec![0; GROUPS];
        let places = table.buckets.iter().flat_map(|bucket| &bucket.0);
        let values = places.map(|place| place.value.load(Relaxed)).filter(|value| *value != 0);
        values.for_each(|value| groups[group(value)] += 1);
        let counts: Vec<u32> = table.groups.iter().map(|count| count.load(Relaxed)).collect();
        assert_eq!(counts, groups);
        assert_eq!(table.len(), u64::from(groups.iter().sum::<u32>()));
    }

    /// A service that a million clients come to, and others that come after it.
    #[test]
    fn a_service_leaves_others_room() {
        let table = AffinityTable::new(4096, 7);
        let service = |slot| ServiceId { slot, generation: 1 };
        let keep = |slot, n| table.keep(table.client(service(slot), (0, n)), backend(slot), 5, 100);
        let flood = (0..1_000_000).filter(|n| keep(3, *n).is_ok()).count();
        counted(&table);
        assert!((2000..=2100).contains(&flood), "alone it has half: {flood}");
        for slot in 4..7 {
            let kept = (0..600).filter(|n| keep(slot, *n).is_ok()).count();
            assert!(kept > 590, "service {slot}: {kept} of 600");
        }
        counted(&table);
        // They may have their quarter, and with it more than is left: the first one gives way.
        let kept: usize =
            (4..7).map(|slot| (600..1000).filter(|n| keep(slot, *n).is_ok()).count()).sum();
        assert!(kept > 1080, "{kept} of 1200");
        counted(&table);
        let left = table.count(3);
        assert!((1024..1300).contains(&left), "{left} of the flood's clients are left");
        assert!(keep(3, 2_000_000).is_err());
        let found =
            (0..1000).filter(|n| table.find(table.client(service(5), (0, *n)), 6).is_some());
        assert!(found.count() > 940, "those of others stay");
    }

    #[test]
    fn a_full_table_says_so_and_keeps_what_it_has() {
        let table = AffinityTable::new(64, 7);
        // Of a service of its own each, so that none has more than a share.
        let client = |n: u64| table.client(ServiceId { slot: n as u32, generation: 1 }, (0, n));
        let kept: Vec<u64> =
            (0..1000).filter(|n| table.keep(client(*n), backend(1), 5, 100).is_ok()).collect();
        assert!(kept.len() > 48 && kept.len() <= 64, "{}", kept.len());
        assert_eq!(table.len(), kept.len() as u64);
        assert!(kept.iter().all(|n| table.find(client(*n), 104).is_some()));
        assert!(kept.iter().all(|n| table.find(client(*n), 105).is_none()), "their time is over");
        assert_eq!(
            table.keep(client(2000), backend(2), 105, 100),
            Ok(()),
            "so there is room again"
        );
        table.sweep(60_000, 105);
        assert_eq!(table.len(), 1);
    }

    /// Two writers and a reader on few places: whatever is found was kept for that very client.
    #[test]
    fn nobody_finds_what_was_kept_for_another() {
        let table = AffinityTable::new(8, 7);
        let slot_of = |client: u64, round: u32| ((client as u32) << 8) | (round % 200);
        std::thread::scope(|scope| {
            for thread in 0..2u64 {
                let table = &table;
                scope.spawn(move || {
                    for round in 0..20_000u32 {
                        let n = (u64::from(round) * 7 + thread) % 12;
                        let client = table.client(SERVICE, (0, n));
                        let _ = table.keep(client, backend(slot_of(n, round)), round / 64, 1);
                        table.sweep(10_000, round / 64);
                    }
                });
            }
            for round in 0..20_000u32 {
                let n = u64::from(round) % 12;
                if let Some(found) = table.find(table.client(SERVICE, (0, n)), round / 64) {
                    assert_eq!(u64::from(found.backend.slot >> 8), n);
                }
            }
        });
        counted(&table);
    }
}
