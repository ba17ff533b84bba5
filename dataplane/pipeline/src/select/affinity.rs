//! Which backend a client had last, for service ports with session affinity: one table that all
//! workers share, looked at for new connections alone.
//!
//! A place is two words, each an atomic. `value` packs the backend and the second at which the
//! client is forgotten; `check` is the client's hash mixed with the backend's part of `value`. A
//! reader believes a place only if both agree, so that words of two writers are a place that nobody
//! finds, and no lock is needed. A new connection of a client that is known changes the time alone.

use super::keyed;
use model::ids::{BackendId, ServiceId};
use model::limits::BACKENDS_MAX;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of a backend's slot in a value.
const SLOT_BITS: u32 = 20;
/// Bits of a time in a value: seconds, eight years of them.
const TIME_BITS: u32 = 28;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Places of a bucket: a cache line.
const BUCKET_PLACES: usize = 4;
/// A whole sweep takes so many seconds.
const SWEEP_S: u64 = 60;

const _: () = assert!(BACKENDS_MAX <= 1 << SLOT_BITS);

/// A client of a service port, hashed: where it is looked for, and what it is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityClient {
    place: u64,
    check: u64,
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
        let new = pack(backend, now_s, timeout_s);
        let known = self.places(client).find_map(|place| {
            let value = place.value.load(Relaxed);
            is_of(place, value, client).then_some((place, value))
        });
        // Whoever is overtaken by another worker has lost nothing but a refresh.
        if let Some((place, value)) = known {
            if value != new && swap(place, value, new) && part(value) != part(new) {
                place.check.store(client.check ^ part(new), Relaxed);
            }
            return Ok(());
        }
        for place in self.places(client) {
            let value = place.value.load(Relaxed);
            if (value == 0 || sticky(value, now_s).is_none()) && swap(place, value, new) {
                place.check.store(client.check ^ part(new), Relaxed);
                if value == 0 {
                    self.used.fetch_add(1, Relaxed);
                }
                return Ok(());
            }
        }
        Err(AffinityFull)
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
                if over && swap(place, value, 0) {
                    self.used.fetch_sub(1, Relaxed);
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

fn swap(place: &Place, from: u64, to: u64) -> bool {
    place.value.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
}

fn is_of(place: &Place, value: u64, client: AffinityClient) -> bool {
    value != 0 && place.check.load(Relaxed) ^ part(value) == client.check
}

/// The backend's part of a value.
const fn part(value: u64) -> u64 {
    value & !TIME_MASK
}

/// A value; never 0, since no backend has generation 0.
const fn pack(backend: BackendId, now_s: u32, timeout_s: u32) -> u64 {
    let until = (now_s as u64 + timeout_s as u64) & TIME_MASK;
    (backend.generation as u64) << (SLOT_BITS + TIME_BITS)
        | (backend.slot as u64) << TIME_BITS
        | until
}

/// What a value says, unless its time is over. Times wrap, and no time-out is half as long as it
/// takes them to.
const fn sticky(value: u64, now_s: u32) -> Option<Sticky> {
    let left = (value & TIME_MASK).wrapping_sub(now_s as u64) & TIME_MASK;
    if left == 0 || left > TIME_MASK / 2 {
        return None;
    }
    let slot = (value >> TIME_BITS) as u32 & ((1 << SLOT_BITS) - 1);
    let generation = (value >> (SLOT_BITS + TIME_BITS)) as u16;
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

    #[test]
    fn a_full_table_says_so_and_keeps_what_it_has() {
        let table = AffinityTable::new(64, 7);
        let client = |n| table.client(SERVICE, (0, n));
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
    }
}
