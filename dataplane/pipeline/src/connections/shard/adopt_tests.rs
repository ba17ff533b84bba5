use super::*;
use crate::arch::memory::{HeapMemory, Memory, OutOfMemory};
use crate::connections::header::HEADER_LEN;
use crate::connections::slot_keys::SlotKeys;
use crate::connections::{Flags, Key, LAYOUT_VERSION};
use crate::forwarding::Kind;
use crate::parse::{TCP, UDP};
use model::ids::{BackendId, ServiceId, WorkerId};
use model::limits::HALF_OPEN_LIFE_MIN_MS;
use proptest::prelude::*;
use std::collections::HashMap;

const CAPACITY: usize = 64;
const BACKENDS: u32 = 3;

/// Memory that is still there when its first owner has gone.
#[derive(Default)]
struct Outliving(Option<Block>);

impl Memory for Outliving {
    fn block(&mut self, len: usize) -> Result<Block, OutOfMemory> {
        let block = HeapMemory.block(len)?;
        self.0 = Some(block.twin());
        Ok(block)
    }
}

/// Slot n is slot n + 100 here, in another generation; service ports above 5 are no more, and
/// backends whose address ends in 2 have left.
struct Shifted;

impl Holders for Shifted {
    fn keys(&self) -> u64 {
        3
    }
    fn service(&self, old: ServiceId) -> Option<ServiceId> {
        let new = ServiceId { slot: old.slot + 100, generation: old.generation + 1 };
        (old.slot <= 5).then_some(new)
    }
    fn backend(&self, service: ServiceId, address: SocketAddr) -> Option<BackendId> {
        let id = BackendId { slot: service.slot + 1000, generation: 9 };
        (!address.ip().to_string().ends_with('2')).then_some(id)
    }
    fn interface(&self, old: InterfaceId) -> Option<InterfaceId> {
        Some(InterfaceId(old.0 ^ 1))
    }
}

fn origin(keys: u64) -> Origin {
    Origin { secret: 7, worker: WorkerId(1), workers: 2, epoch_ms: 1_000_000, keys }
}

/// Connection n: its keys, and where it begins.
fn connection(n: u32) -> (Entry<u32>, Cold<u32>, ConnectionState) {
    let protocol = if n.is_multiple_of(3) { UDP } else { TCP };
    let client = Key {
        source: 0xc612_0000 + n,
        destination: 0xcb00_710a,
        source_port: 1000,
        destination_port: 80,
        protocol,
    };
    let reply = Key {
        source: 0xc612_0100 + n % BACKENDS,
        destination: 0xc612_01c8,
        source_port: 8080,
        destination_port: 1024 + n as u16,
        protocol,
    };
    let mut entry = Entry::new(&client, &reply);
    (entry.service_slot, entry.backend_slot) = (n % 8, n % 50);
    entry.kind = Kind::Nat as u8;
    entry.last_seen_ms = n;
    let cold =
        Cold { created_s: n, service_generation: 1, backend_generation: 1, ..Cold::default() };
    (entry, cold, Kind::Nat.life(protocol).first_state())
}

fn advanced(protocol: u8, n: u8) -> ConnectionState {
    use ConnectionState::{Established, FinWait, Replied, Stream, TimeWait};
    match protocol {
        UDP => [Replied, Stream][usize::from(n) % 2],
        _ => [Established, FinWait, TimeWait][usize::from(n) % 3],
    }
}

/// What a process leaves that began these connections, took some of them on and some out.
fn left(steps: &[(u8, u32)]) -> Result<Block, OutOfMemory> {
    let mut memory = Outliving::default();
    let mut shard = Shard::<u32>::new(&mut memory, CAPACITY, &origin(3))?;
    let mut at = HashMap::new();
    for (now, (kind, n)) in steps.iter().enumerate() {
        let now_ms = now as u64 * u64::from(HALF_OPEN_LIFE_MIN_MS);
        let known = at.get(n).copied().filter(|at| {
            let (own, _, _) = connection(*n);
            shard.entry(*at).is_some_and(|e| e.is_used() && e.client_key() == own.client_key())
        });
        match known {
            None => {
                let (entry, cold, state) = connection(*n);
                if let Ok((place, _)) = shard.insert(entry, cold, state, now_ms) {
                    at.insert(*n, place);
                }
            }
            Some(at) if kind % 4 == 0 => shard.remove(at),
            Some(at) => {
                let protocol = shard.entry(at).map_or(0, Entry::protocol);
                shard.set_state(at, advanced(protocol, *kind), now_ms);
            }
        }
    }
    drop(shard);
    Ok(memory.0.unwrap_or(HeapMemory.block(0)?))
}

/// All that is derived is what the entries say.
fn consistent(shard: &mut Shard<u32>) -> Result<(), TestCaseError> {
    let used: Vec<u32> =
        (0..CAPACITY as u32).filter(|at| shard.entries[*at as usize].is_used()).collect();
    prop_assert_eq!(shard.len(), used.len());
    let mut targets: HashMap<(u32, u16, u8), u32> = HashMap::new();
    for at in &used {
        let entry = shard.entries[*at as usize];
        prop_assert!(entry.makes_sense());
        for direction in [Direction::ToBackend, Direction::ToClient] {
            let tuple = entry.tuple(direction);
            let found = shard.find(shard.hash(tuple), tuple);
            prop_assert_eq!(found.map(|f| (f.entry, f.direction)), Some((*at, direction)));
        }
        let reply = entry.reply_key();
        *targets.entry((reply.source, reply.source_port, reply.protocol)).or_default() += 1;
    }
    let places = shard.buckets.iter().flat_map(|bucket| (0..8).filter_map(|at| bucket.place(at)));
    prop_assert_eq!(places.count(), 2 * used.len(), "the index has nothing else");
    let mut free = 0;
    while let Some(at) = shard.free.first() {
        prop_assert!(!used.contains(&at));
        shard.free.take(at);
        free += 1;
    }
    prop_assert_eq!(free, CAPACITY - used.len());
    (0..CAPACITY as u32).filter(|at| !used.contains(at)).for_each(|at| shard.free.put(at));
    for ring in &shard.half_open {
        for (place, at) in ring.admitted() {
            prop_assert_eq!(shard.cold[at as usize].half_open, place);
        }
    }
    for at in &used {
        let half_open = shard.entries[*at as usize].state().is_some_and(|s| s.is_half_open());
        let protocol = shard.entries[*at as usize].protocol();
        let ring = &shard.half_open[protocol_index(protocol)];
        let (in_ring, all) = (ring.admitted().any(|(_, own)| own == *at), ring.admitted().count());
        prop_assert!(in_ring == half_open || !in_ring && all == CAPACITY / 8);
    }
    for at in &used {
        let reply = shard.entries[*at as usize].reply_key();
        let seed = shard.targets.seed(&reply);
        let counted = shard.targets.peek(&reply, seed).map(|target| target.used);
        let own = targets[&(reply.source, reply.source_port, reply.protocol)];
        prop_assert!(counted == Some(own) || targets.len() > 4, "{counted:?} {own}");
    }
    Ok(())
}

/// Damage to the memory: bytes, or whole records where they don't belong.
#[derive(Clone, Debug)]
enum Damage {
    Byte(usize, u8),
    Entry(usize, usize),
    Cold(usize, usize),
    Created(usize, u32),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = || 0..CAPACITY;
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, xor)| Damage::Byte(at, xor)),
        // An entry's last four bytes: state, flags, kind, care.
        (place(), 60usize..64, any::<u8>()).prop_map(|(n, at, xor)| Damage::Byte(n * 64 + at, xor)),
        (place(), place()).prop_map(|(from, to)| Damage::Entry(from, to)),
        (place(), place()).prop_map(|(from, to)| Damage::Cold(from, to)),
        (place(), 0u32..100).prop_map(|(at, second)| Damage::Created(at, second)),
    ]
}

fn harm(bytes: &mut [u8], damage: &Damage) {
    const COLD: usize = CAPACITY * size_of::<Entry<u32>>();
    let record = size_of::<Cold<u32>>();
    match *damage {
        Damage::Byte(at, xor) => bytes[at % bytes.len()] ^= xor,
        Damage::Entry(from, to) => bytes.copy_within(from * 64..from * 64 + 64, to * 64),
        Damage::Cold(from, to) => {
            let from = COLD + from * record;
            bytes.copy_within(from..from + record, COLD + to * record);
        }
        Damage::Created(at, second) => {
            let at = COLD + at * record + std::mem::offset_of!(Cold<u32>, created_s);
            bytes[at..at + 4].copy_from_slice(&second.to_ne_bytes());
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<(u8, u32)>> {
    proptest::collection::vec((any::<u8>(), 0u32..90), 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, ..Default::default() })]
    #[test]
    fn what_was_left_goes_on(steps in steps()) {
        let mut block = left(&steps)?;
        let before = block.contents().to_vec();
        let (mut shard, adopted) = Shard::<u32>::adopt(block, &origin(4), &Shifted).unwrap();
        consistent(&mut shard)?;
        let used = before[HEADER_LEN..].chunks_exact(64).take(CAPACITY).filter(|e| e[60] != 0);
        let expected = Adopted { kept: used.count(), gone: adopted.gone, ..Adopted::default() };
        prop_assert_eq!(adopted, expected);
        for (entry, cold) in shard.page(0, CAPACITY).0 {
            let n = entry.client_key().source - 0xc612_0000;
            let (own, own_cold, _) = connection(n);
            prop_assert_eq!(entry.reply_key(), own.reply_key());
            prop_assert_eq!(cold.created_s, own_cold.created_s);
            let (service, left) = (n % 8, n % BACKENDS == 2);
            let slots = match (service <= 5, left) {
                (true, false) => (service + 100, service + 1100),
                (true, true) => (service + 100, GONE_SLOT),
                (false, _) => (NO_SLOT, GONE_SLOT),
            };
            prop_assert_eq!((entry.service_slot, entry.backend_slot), slots);
            prop_assert_eq!((entry.backend_stamp, entry.adjacency(Direction::ToClient)), (NEVER, AdjacencyRef::NONE));
            prop_assert_eq!(cold.next_hop_interface, 1);
        }
        prop_assert_eq!(shard.header().epoch_ms(), 1_000_000);
    }

    /// Whatever the bytes are, nothing panics, and what is kept agrees with all that is derived; it
    /// can be used and ended.
    #[test]
    fn damaged_memory_is_never_believed(
        steps in steps(),
        damages in proptest::collection::vec(damage(), 0..60),
        header in proptest::option::weighted(0.2, (0usize..128, any::<u8>())),
    ) {
        let mut block = left(&steps)?;
        damages.iter().for_each(|damage| harm(&mut block.contents()[HEADER_LEN..], damage));
        if let Some((at, xor)) = header {
            block.contents()[at] ^= xor;
        }
        let Ok((mut shard, _)) = Shard::<u32>::adopt(block, &origin(4), &Shifted) else {
            prop_assert!(header.is_some(), "the header alone decides");
            return Ok(());
        };
        if shard.capacity() != CAPACITY {
            prop_assert!(header.is_some(), "a table of another size, as the harmed header says");
            return Ok(());
        }
        consistent(&mut shard)?;
        for n in 1000..1010 {
            let (entry, cold, state) = connection(n);
            let _ = shard.insert(entry, cold, state, 1_000_000);
        }
        consistent(&mut shard)?;
        (0..CAPACITY as u32).for_each(|at| shard.remove(at));
        consistent(&mut shard)?;
        prop_assert_eq!(shard.len(), 0);
    }

    #[test]
    fn any_bytes_are_refused_or_consistent(mut bytes in proptest::collection::vec(any::<u8>(), 0..20_000), whole: bool) {
        let steps: Vec<_> = (0..40).map(|n| (1, n)).collect();
        let mut block = left(&steps)?;
        let from = if whole { HEADER_LEN } else { 0 };
        let len = (block.bytes() - from).min(bytes.len());
        block.contents()[from..from + len].swap_with_slice(&mut bytes[..len]);
        if let Ok((mut shard, _)) = Shard::<u32>::adopt(block, &origin(4), &Shifted) {
            consistent(&mut shard)?;
        }
    }
}

#[test]
fn another_layout_family_or_worker_is_refused() -> Result<(), OutOfMemory> {
    let adopt = |block: Block| Shard::<u32>::adopt(block, &origin(4), &Shifted).map(|_| ());
    let told = |harm: fn(&mut Header)| -> Result<String, OutOfMemory> {
        let block = left(&[(1, 1)])?;
        let mut header: Header = block.peek().unwrap_or(Header::new::<u32>(&origin(0), 0, 0));
        harm(&mut header);
        let mut slab = crate::arch::memory::Slab::<Header>::take(&mut block.twin(), 1)?;
        slab[0] = header;
        drop(slab);
        Ok(adopt(block).err().map_or("taken".into(), |e| e.to_string()))
    };
    assert_eq!(told(|_| ())?, "taken");
    let wrong = format!("its layout version is 1, expected is {LAYOUT_VERSION}");
    assert!(told(|header| header.set_version(1))?.ends_with(&wrong));
    assert!(told(|header| header.set_whole(false))?.ends_with("it isn't one, or isn't whole"));
    assert!(told(|header| header.set_keys(9))?.ends_with("keys is 9, expected is 3"));
    let v6 = Shard::<u128>::adopt(left(&[(1, 1)])?, &origin(4), &Shifted).map(|_| ());
    assert_eq!(v6, Err(NotAdopted::Differs { what: "family", found: 4, expected: 6 }));
    let other = Origin { worker: WorkerId(0), ..origin(4) };
    let other = Shard::<u32>::adopt(left(&[(1, 1)])?, &other, &Shifted).map(|_| ());
    assert_eq!(other, Err(NotAdopted::Differs { what: "worker", found: 1, expected: 0 }));
    let mut short = left(&[(1, 1)])?;
    let short = short.take(8000)?;
    assert_eq!(adopt(short), Err(NotAdopted::TooShort { bytes: 8000 }));
    assert_eq!(adopt(HeapMemory.block(10)?), Err(NotAdopted::TooShort { bytes: 10 }));
    Ok(())
}

/// A process that dies while it takes over leaves entries in two processes' words.
#[test]
fn a_table_is_taken_over_once_by_each_keys() -> Result<(), OutOfMemory> {
    let block = left(&[(1, 1), (1, 2)])?;
    let twin = block.twin();
    drop(Shard::<u32>::adopt(block, &origin(4), &Shifted));
    let again = Shard::<u32>::adopt(twin, &origin(5), &Shifted).map(|_| ());
    let expected = NotAdopted::Differs { what: "name of the slots' keys", found: 4, expected: 3 };
    assert_eq!(again, Err(expected));
    Ok(())
}

/// Of two with one key the younger goes, in whichever order they lie.
#[test]
fn who_has_the_key_of_an_older_one_goes() -> Result<(), OutOfMemory> {
    for (first, second) in [(5, 9), (9, 5)] {
        let mut block = left(&[(1, 1), (1, 2)])?;
        let bytes = &mut block.contents()[HEADER_LEN..];
        harm(bytes, &Damage::Entry(0, 1));
        harm(bytes, &Damage::Created(0, first));
        harm(bytes, &Damage::Created(1, second));
        let (mut shard, adopted) =
            Shard::<u32>::adopt(block, &origin(4), &Shifted).map_err(|_| OutOfMemory(0))?;
        let kept: Vec<u32> = shard.page(0, CAPACITY).0.map(|(_, cold)| cold.created_s).collect();
        assert_eq!((adopted.kept, adopted.twice, kept), (1, 1, vec![5]));
        assert!(consistent(&mut shard).is_ok());
    }
    Ok(())
}

#[test]
fn flags_that_nobody_knows_are_torn() -> Result<(), OutOfMemory> {
    let mut block = left(&[(1, 1), (1, 2)])?;
    block.contents()[HEADER_LEN + 61] = 0x80;
    let adopted = Shard::<u32>::adopt(block, &origin(4), &Shifted).map(|(_, adopted)| adopted);
    let adopted = adopted.unwrap_or_default();
    assert_eq!((adopted.kept, adopted.torn), (1, 1));
    assert!(!Flags::default().has(Flags::TIMESTAMPS));
    Ok(())
}

#[test]
fn slot_keys_of_another_process_are_read() -> Result<(), OutOfMemory> {
    let mut memory = Outliving::default();
    drop(SlotKeys::new(&mut memory, 4, 77, &["front"])?);
    let opened = memory.0.map(SlotKeys::open).and_then(Result::ok);
    let opened = opened.map(|keys| (keys.id(), keys.interface(InterfaceId(0)).map(str::to_owned)));
    assert_eq!(opened, Some((77, Some("front".to_owned()))));
    assert!(SlotKeys::open(HeapMemory.block(20_000)?).is_err(), "zeroes are none");
    Ok(())
}
