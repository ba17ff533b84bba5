//! Taking over a table whose process has ended. The entries are what counts, and each is looked at:
//! a process that was killed leaves whole entries and free ones, but memory may have been damaged
//! since. All else is made anew from them. An entry's slots become this process's, by key.

use super::{Direction, Shard, protocol_index};
use crate::adjacency::AdjacencyRef;
use crate::arch::memory::Block;
use crate::connections::entry::{Cold, Entry, GONE_SLOT, NO_SLOT};
use crate::connections::header::{Header, NotAdopted, Origin};
use crate::connections::index::Bucket;
use crate::connections::key::Address;
use crate::connections::slot_keys::Holders;
use crate::snapshot::NEVER;
use model::ids::InterfaceId;
use model::record::ConnectionState;
use std::net::SocketAddr;

/// What was found in the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Connections that go on.
    pub kept: usize,
    /// Places whose bytes were no connection.
    pub torn: usize,
    /// Connections that had a key of another, older one.
    pub twice: usize,
    /// Connections for whose keys the index has no room.
    pub without_room: usize,
    /// Of those that go on: service ports that are there no more, or backends that have left.
    pub gone: usize,
}

/// What becomes of a place.
enum Fate {
    Free,
    Kept { gone: bool, younger: usize },
    Torn,
    Twice,
    WithoutRoom,
}

impl<A: Address> Shard<A> {
    /// Takes over the table of a process that is no more. `origin` is this process's: the worker is
    /// to be the same, and `keys` names the slots from now on; secret and epoch stay what they were.
    /// `holders` says whose the slots are now. Until this returns the memory holds no table for
    /// anybody else.
    pub fn adopt(
        block: Block,
        origin: &Origin,
        holders: &impl Holders,
    ) -> Result<(Self, Adopted), NotAdopted> {
        let short = NotAdopted::TooShort { bytes: block.bytes() };
        let header: Header = block.peek().ok_or(short)?;
        header.check::<A>(origin, holders.keys())?;
        if header.bytes().is_none_or(|bytes| block.bytes() < bytes) {
            return Err(short);
        }
        let mut shard = Self::over(block, &header).map_err(|_| short)?;
        shard.set_whole(false);
        shard.buckets.fill(Bucket::EMPTY);
        let adopted = shard.take_over_all(holders);
        shard.header[0].set_keys(origin.keys);
        shard.set_whole(true);
        Ok((shard, adopted))
    }

    fn take_over_all(&mut self, holders: &impl Holders) -> Adopted {
        let mut adopted = Adopted::default();
        for at in 0..self.entries.len() as u32 {
            match self.take_over(at, holders) {
                Fate::Free => continue,
                Fate::Kept { gone, younger } => {
                    adopted.gone += usize::from(gone);
                    adopted.twice += younger;
                    continue;
                }
                Fate::Torn => adopted.torn += 1,
                Fate::Twice => adopted.twice += 1,
                Fate::WithoutRoom => adopted.without_room += 1,
            }
            self.entries[at as usize].set_state(None);
        }
        self.restore_rings();
        adopted.kept = self.used;
        adopted
    }

    fn take_over(&mut self, at: u32, holders: &impl Holders) -> Fate {
        let (entry, cold) = (&mut self.entries[at as usize], &mut self.cold[at as usize]);
        if !entry.is_used() {
            return Fate::Free;
        }
        if !entry.makes_sense() {
            return Fate::Torn;
        }
        let gone = rename(entry, cold, holders);
        let (entry, created_s) = (*entry, cold.created_s);
        let both = [Direction::ToBackend, Direction::ToClient];
        let rivals = both.map(|direction| {
            let tuple = entry.tuple(direction);
            self.find(self.hash(tuple), tuple)
        });
        let older = |rival: u32| self.cold[rival as usize].created_s <= created_s;
        if rivals.iter().flatten().any(|rival| older(rival.entry)) {
            return Fate::Twice;
        }
        let before = self.used;
        for rival in rivals.into_iter().flatten() {
            self.remove(rival.entry);
        }
        let younger = before - self.used;
        if !self.index(at) {
            return Fate::WithoutRoom;
        }
        self.free.take(at);
        self.fresh = self.fresh.max(at + 1);
        self.used += 1;
        self.targets.begin(&entry.reply_key());
        Fate::Kept { gone, younger }
    }

    /// Half-open connections in the order in which they were admitted. Those beyond the rings go
    /// without, as they did before.
    fn restore_rings(&mut self) {
        let half_open = |entry: &Entry<A>| entry.state().is_some_and(ConnectionState::is_half_open);
        let places = 0..self.fresh;
        let mut admitted: Vec<(u32, u32)> = places
            .filter(|at| half_open(&self.entries[*at as usize]))
            .map(|at| (self.cold[at as usize].created_s, at))
            .collect();
        admitted.sort_unstable();
        for (created_s, at) in admitted {
            let ring = protocol_index(self.entries[at as usize].protocol());
            let since_ms = created_s.wrapping_mul(1000);
            let place = self.half_open[ring].restore(at, since_ms);
            self.cold[at as usize].half_open = place.unwrap_or(0);
        }
    }
}

/// The entry in this process's words, to be looked at again by whoever meets it first. True where
/// its service port or backend is no more.
fn rename<A: Address>(entry: &mut Entry<A>, cold: &mut Cold<A>, holders: &impl Holders) -> bool {
    let service = holders.service(entry.service_id(cold));
    let reply = entry.reply_key();
    let address = SocketAddr::new(reply.source.to_ip(), reply.source_port);
    let backend = service.and_then(|service| holders.backend(service, address));
    let left = entry.backend_slot == NO_SLOT;
    entry.service_slot = service.map_or(NO_SLOT, |id| id.slot);
    cold.service_generation = service.map_or(0, |id| id.generation);
    // One that had left stays so: an address that comes back is another backend.
    let slot = if left { NO_SLOT } else { backend.map_or(GONE_SLOT, |id| id.slot) };
    entry.backend_slot = slot;
    cold.backend_generation = backend.filter(|_| !left).map_or(0, |id| id.generation);
    entry.backend_stamp = NEVER;
    entry.routes_stamp = NEVER;
    entry.client_adjacency = AdjacencyRef::NONE;
    entry.backend_adjacency = AdjacencyRef::NONE;
    let interface = holders.interface(InterfaceId(cold.next_hop_interface));
    cold.next_hop_interface = interface.map_or(u8::MAX, |id| id.0);
    cold.half_open = 0;
    // What is derived from the state may be of the one before.
    entry.set_state(entry.state());
    service.is_none() || left || backend.is_none()
}

#[cfg(test)]
#[path = "adopt_tests.rs"]
mod tests;
