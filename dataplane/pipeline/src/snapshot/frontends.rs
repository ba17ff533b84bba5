//! From (address, protocol, port) to the slot of a service port: a hash map in shards that copies
//! share until they change.

use hashbrown::{DefaultHashBuilder, HashMap};
use model::ids::Protocol;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

/// Shards of each map. One change copies a shard: with 262,144 frontends 256 entries.
const SHARDS: usize = 1024;

#[derive(Clone, Debug)]
struct Sharded<K, V> {
    hasher: DefaultHashBuilder,
    shards: Vec<Arc<HashMap<K, V>>>,
}

impl<K: Eq + std::hash::Hash + Clone, V: Clone> Sharded<K, V> {
    fn new() -> Self {
        Self { hasher: DefaultHashBuilder::default(), shards: vec![Arc::default(); SHARDS] }
    }
    #[inline]
    fn shard(&self, key: &K) -> usize {
        // The lower bits choose the bucket within a shard's own map, under a hasher of its own.
        (self.hasher.hash_one(key) >> 32) as usize % SHARDS
    }
    #[inline]
    fn get(&self, key: &K) -> Option<&V> {
        self.shards[self.shard(key)].get(key)
    }
    fn shard_mut(&mut self, key: &K) -> &mut HashMap<K, V> {
        let shard = self.shard(key);
        Arc::make_mut(&mut self.shards[shard])
    }
}

/// Whose a frontend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Slot of the service port.
    pub slot: u32,
    /// True where the service port's source ranges guard it.
    pub guarded: bool,
}

/// The frontends, and how many each address has.
#[derive(Clone, Debug)]
pub struct Frontends {
    slots: Sharded<(IpAddr, Protocol, u16), Holder>,
    addresses: Sharded<IpAddr, u32>,
}

impl Default for Frontends {
    fn default() -> Self {
        Self { slots: Sharded::new(), addresses: Sharded::new() }
    }
}

impl Frontends {
    #[inline]
    pub fn find(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<Holder> {
        self.slots.get(&(address, protocol, port)).copied()
    }
    #[inline]
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.get(&address).is_some()
    }
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.shards.iter().flat_map(|shard| shard.keys().copied()).collect()
    }
    /// Adds a frontend; false, and nothing changed, where another slot has it. One that is added
    /// twice is guarded where either is.
    pub fn insert(&mut self, key: (IpAddr, Protocol, u16), holder: Holder) -> bool {
        let address = key.0;
        if let Some(had) = self.slots.get(&key).copied() {
            if had.slot == holder.slot && holder.guarded && !had.guarded {
                self.slots.shard_mut(&key).insert(key, holder);
            }
            return had.slot == holder.slot;
        }
        self.slots.shard_mut(&key).insert(key, holder);
        *self.addresses.shard_mut(&address).entry(address).or_insert(0) += 1;
        true
    }
    /// Takes a frontend away, where this slot has it.
    pub fn remove(&mut self, address: IpAddr, protocol: Protocol, port: u16, slot: u32) {
        let key = (address, protocol, port);
        if self.slots.get(&key).is_none_or(|holder| holder.slot != slot) {
            return;
        }
        self.slots.shard_mut(&key).remove(&key);
        let counts = self.addresses.shard_mut(&address);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}
