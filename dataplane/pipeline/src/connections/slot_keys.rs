//! Whose the slots are that entries name: for each slot of a service port its latest holder, by
//! generation and key, and for each interface its name. All workers' tables refer to one. It lies
//! in memory of its own, which costs what is written of it.

use super::header::{LAYOUT_VERSION, NotAdopted, same};
use crate::adjacency::Interface;
use crate::arch::memory::{Block, Memory, OutOfMemory, Plain, Slab};
use crate::hash::mum;
use crate::snapshot::Snapshot;
use hashbrown::HashMap;
use model::desired::ServicePortKey;
use model::ids::{BackendId, InterfaceId, ServiceId};
use model::limits::{INTERFACE_NAME_MAX, INTERFACES_MAX, SLOT_KEY_BYTES_MAX};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

const MAGIC: u64 = u64::from_ne_bytes(*b"hg-slots");

/// What stands before the slots.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Head {
    /// Written last.
    magic: u64,
    id: u64,
    version: u32,
    slots: u32,
    key_bytes: u32,
    reserved: u32,
    interfaces: [[u8; INTERFACE_NAME_MAX + 1]; INTERFACES_MAX],
}

// SAFETY: integers alone, for which every bit pattern is valid.
unsafe impl Plain for Head {}

/// The latest holder of a slot.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Holder {
    /// Over all the rest: what was half written doesn't fit it.
    sum: u64,
    /// 0: nobody. Written last.
    generation: u16,
    len: u16,
    reserved: u32,
    key: [u8; SLOT_KEY_BYTES_MAX],
}

// SAFETY: integers alone, for which every bit pattern is valid.
unsafe impl Plain for Holder {}

const _: () = assert!(SLOT_KEY_BYTES_MAX.is_multiple_of(8));

impl Holder {
    fn sum(&self, generation: u16) -> u64 {
        let start = u64::from(self.len) << 16 | u64::from(generation);
        self.key.chunks_exact(8).fold(start, |sum, word| {
            let word = word.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
            mum(sum ^ word ^ 0x9e37_79b9_7f4a_7c15, sum ^ 0xd1b5_4a32_d192_ed03)
        })
    }
}

/// Slot-to-key tables.
#[derive(Debug)]
pub struct SlotKeys {
    head: Slab<Head>,
    slots: Slab<Holder>,
}

impl SlotKeys {
    /// Tables of so many slots in which nobody stands yet. `id` names them in the headers of the
    /// connection tables that refer to them, and is no other's.
    pub fn new(
        memory: &mut dyn Memory,
        slots: usize,
        id: u64,
        interfaces: &[&str],
    ) -> Result<Self, OutOfMemory> {
        let bytes = slots.checked_mul(size_of::<Holder>()).ok_or(OutOfMemory(usize::MAX))?;
        let mut block = memory.block(bytes.saturating_add(size_of::<Head>()))?;
        let (head, slots) = (Slab::take(&mut block, 1)?, Slab::take(&mut block, slots)?);
        let mut keys = Self { head, slots };
        let head = &mut keys.head[0];
        (head.id, head.version, head.slots) = (id, LAYOUT_VERSION, keys.slots.len() as u32);
        head.key_bytes = SLOT_KEY_BYTES_MAX as u32;
        for (place, name) in head.interfaces.iter_mut().zip(interfaces) {
            // A name that is too long is no interface's of the kernel.
            let len = name.len().min(INTERFACE_NAME_MAX);
            place[..len].copy_from_slice(&name.as_bytes()[..len]);
        }
        compiler_fence(SeqCst);
        keys.head[0].magic = MAGIC;
        Ok(keys)
    }
    /// Those of another process.
    pub fn open(mut block: Block) -> Result<Self, NotAdopted> {
        let short = NotAdopted::TooShort { bytes: block.bytes() };
        let head = Slab::<Head>::take(&mut block, 1).map_err(|_| short)?;
        if head[0].magic != MAGIC {
            return Err(NotAdopted::NoTable);
        }
        same("layout version", head[0].version.into(), LAYOUT_VERSION.into())?;
        same("length of a key", head[0].key_bytes.into(), SLOT_KEY_BYTES_MAX as u64)?;
        let slots = Slab::take(&mut block, head[0].slots as usize).map_err(|_| short)?;
        Ok(Self { head, slots })
    }
    /// What names them.
    pub fn id(&self) -> u64 {
        self.head[0].id
    }
    /// A service port holds its slot from now on. Done before the first entry names it.
    pub fn begin(&mut self, id: ServiceId, key: &ServicePortKey) {
        let Some(holder) = self.slots.get_mut(id.slot as usize) else { return };
        let text = text(key);
        // The process may die between any two stores: until the last one, nobody holds the slot.
        holder.generation = 0;
        compiler_fence(SeqCst);
        let Some(place) = holder.key.get_mut(..text.len()) else { return };
        place.copy_from_slice(text.as_bytes());
        holder.key[text.len()..].fill(0);
        holder.len = text.len() as u16;
        holder.sum = holder.sum(id.generation);
        compiler_fence(SeqCst);
        holder.generation = id.generation;
    }
    /// The key of the service port that held, or holds, the slot in this generation, see [`text`].
    pub fn service(&self, id: ServiceId) -> Option<&str> {
        let holder = self.slots.get(id.slot as usize)?;
        if id.generation == 0 || holder.generation != id.generation {
            return None;
        }
        let key = std::str::from_utf8(holder.key.get(..usize::from(holder.len))?).ok()?;
        (holder.sum == holder.sum(id.generation)).then_some(key)
    }
    /// The name of an interface.
    pub fn interface(&self, id: InterfaceId) -> Option<&str> {
        let name = self.head[0].interfaces.get(id.index())?;
        let len = name.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&name[..len]).ok().filter(|name| !name.is_empty())
    }
}

/// A service port's key as it stands in a slot: `cluster/namespace/name/port/TCP/External`.
fn text(key: &ServicePortKey) -> String {
    let ServicePortKey { cluster, service, port_name, protocol, scope } = key;
    format!("{cluster}/{}/{}/{port_name}/{protocol}/{scope:?}", service.namespace, service.name)
}

/// Whose a slot of another process's is in this one.
pub trait Holders {
    /// What names the keys that it goes by, see [`SlotKeys::id`].
    fn keys(&self) -> u64;
    /// The slot of the service port that held this one.
    fn service(&self, old: ServiceId) -> Option<ServiceId>;
    /// The slot of a service port's backend.
    fn backend(&self, service: ServiceId, address: SocketAddr) -> Option<BackendId>;
    /// The interface that had this number.
    fn interface(&self, old: InterfaceId) -> Option<InterfaceId>;
}

/// By the keys of the other process, and the snapshot of this one.
#[derive(Debug)]
pub struct ByKey<'a> {
    keys: &'a SlotKeys,
    services: HashMap<String, ServiceId>,
    backends: HashMap<(ServiceId, SocketAddr), BackendId>,
    interfaces: HashMap<Arc<str>, InterfaceId>,
}

impl<'a> ByKey<'a> {
    /// What the slots of `keys` are in a snapshot, with these interfaces.
    pub fn new(keys: &'a SlotKeys, snapshot: &Snapshot, interfaces: &[Interface]) -> Self {
        let services = snapshot.services().map(|service| (text(&service.key), service.id));
        let backends = snapshot.backends().map(|(id, held)| ((held.service, held.address), id));
        let names = interfaces.iter().enumerate();
        let names = names.map(|(id, i)| (Arc::clone(&i.name), InterfaceId(id as u8)));
        Self {
            keys,
            services: services.collect(),
            backends: backends.collect(),
            interfaces: names.collect(),
        }
    }
}

impl Holders for ByKey<'_> {
    fn keys(&self) -> u64 {
        self.keys.id()
    }
    fn service(&self, old: ServiceId) -> Option<ServiceId> {
        self.services.get(self.keys.service(old)?).copied()
    }
    fn backend(&self, service: ServiceId, address: SocketAddr) -> Option<BackendId> {
        self.backends.get(&(service, address)).copied()
    }
    fn interface(&self, old: InterfaceId) -> Option<InterfaceId> {
        self.interfaces.get(self.keys.interface(old)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::memory::HeapMemory;
    use model::desired::{ObjectName, Scope};
    use model::ids::Protocol;

    fn key(name: &str, port_name: &str) -> ServicePortKey {
        ServicePortKey {
            cluster: "".into(),
            service: ObjectName::new("default", name),
            port_name: port_name.into(),
            protocol: Protocol::Tcp,
            scope: Scope::External,
        }
    }

    #[test]
    fn a_slot_tells_its_latest_holder_by_generation() -> Result<(), OutOfMemory> {
        let mut keys = SlotKeys::new(&mut HeapMemory, 8, 5, &["front", "back"])?;
        let id = |slot, generation| ServiceId { slot, generation };
        assert_eq!(keys.service(id(3, 0)), None, "zeroed memory names nobody");
        keys.begin(id(3, 1), &key("web", "http"));
        assert_eq!(keys.service(id(3, 1)), Some("/default/web/http/TCP/External"));
        keys.begin(id(3, 2), &key("api", ""));
        assert_eq!(keys.service(id(3, 1)), None);
        assert_eq!(keys.service(id(3, 2)), Some("/default/api//TCP/External"));
        assert_eq!(keys.service(id(8, 1)), None);
        assert_eq!(keys.interface(InterfaceId(1)), Some("back"));
        assert_eq!(keys.interface(InterfaceId(2)), None);
        keys.begin(id(3, 3), &key(&"x".repeat(300), ""));
        assert_eq!(keys.service(id(3, 3)), None, "what has no room names nobody");
        Ok(())
    }

    #[test]
    fn what_was_half_written_names_nobody() -> Result<(), OutOfMemory> {
        let mut keys = SlotKeys::new(&mut HeapMemory, 1, 5, &[])?;
        let id = ServiceId { slot: 0, generation: 1 };
        keys.begin(id, &key("web", "http"));
        keys.slots[0].key[9] ^= 1;
        assert_eq!(keys.service(id), None);
        keys.slots[0].key[9] ^= 1;
        assert!(keys.service(id).is_some());
        keys.slots[0].len -= 1;
        assert_eq!(keys.service(id), None);
        Ok(())
    }
}
