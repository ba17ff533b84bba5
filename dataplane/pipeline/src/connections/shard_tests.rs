use super::*;
use crate::arch::memory::HeapMemory;
use crate::connections::Timeouts;
use crate::parse::TCP;
use model::limits::HALF_OPEN_LIFE_MIN_MS;
use model::record::ConnectionState::{Established, SynSent};
use proptest::prelude::*;
use std::collections::HashMap;

fn keys(n: u32) -> (Key<u32>, Key<u32>) {
    let client = Key {
        source: 0xc612_0000 + n,
        destination: 0xcb00_710a,
        source_port: 1000,
        destination_port: 80,
        protocol: TCP,
    };
    let reply = Key {
        source: 0xc612_0100 + n % 7,
        destination: 0xc612_01c8,
        source_port: 8080,
        destination_port: 1024 + n as u16,
        protocol: TCP,
    };
    (client, reply)
}

/// Inserts connection `n` at a time, and takes it to a state.
fn put(
    shard: &mut Shard<u32>,
    n: u32,
    state: ConnectionState,
    now_ms: u64,
) -> Result<(u32, bool), Refusal> {
    let (client, reply) = keys(n);
    let mut entry = Entry::new(&client, &reply);
    entry.last_seen_ms = now_ms as u32;
    let inserted = shard.insert(entry, Cold::default(), SynSent, now_ms)?;
    shard.set_state(inserted.0, state, now_ms);
    Ok(inserted)
}

fn find(shard: &Shard<u32>, n: u32) -> [Option<Direction>; 2] {
    let (client, reply) = keys(n);
    [client, reply].map(|key| shard.find_key(&key).map(|found| found.direction))
}

const BOTH: [Option<Direction>; 2] = [Some(Direction::ToBackend), Some(Direction::ToClient)];

proptest! {
    #[test]
    fn behaves_as_a_map(steps in proptest::collection::vec((any::<bool>(), 0u32..48), 1..300)) {
        let mut shard = Shard::<u32>::new(&mut HeapMemory, 32, &Origin::of_secret(7))?;
        let mut model: HashMap<u32, u32> = HashMap::new();
        for (insert, n) in steps {
            match (insert, model.get(&n).copied()) {
                (true, None) => match put(&mut shard, n, Established, 5) {
                    Ok((at, _)) => { model.insert(n, at); }
                    Err(refusal) => prop_assert!(
                        model.len() >= 30 && refusal == Refusal::TableFull,
                        "{} of 32: {:?}", model.len(), refusal
                    ),
                },
                (false, Some(at)) => {
                    shard.remove(at);
                    model.remove(&n);
                }
                _ => {}
            }
            prop_assert_eq!(shard.len(), model.len());
            for n in 0..48 {
                let expected = if model.contains_key(&n) { BOTH } else { [None; 2] };
                prop_assert_eq!(find(&shard, n), expected);
            }
        }
    }
}

#[test]
fn a_full_table_takes_all_it_promised() -> Result<(), OutOfMemory> {
    for secret in 0..4 {
        let mut shard = Shard::<u32>::new(&mut HeapMemory, 60_000, &Origin::of_secret(secret))?;
        for n in 0..60_000 {
            assert!(put(&mut shard, n, Established, 5).is_ok(), "at {n}, secret {secret}");
        }
        assert_eq!(put(&mut shard, 60_001, Established, 5), Err(Refusal::TableFull));
    }
    Ok(())
}

#[test]
fn a_table_full_of_ended_connections_takes_new_ones() -> Result<(), OutOfMemory> {
    let mut shard = Shard::<u32>::new(&mut HeapMemory, 100, &Origin::of_secret(7))?;
    for n in 0..100 {
        let state = if n % 10 == 0 { Established } else { TimeWait };
        assert!(put(&mut shard, n, state, 5).is_ok());
    }
    for n in 100..190 {
        assert!(put(&mut shard, n, Established, 5).is_ok(), "at {n}");
    }
    assert_eq!(put(&mut shard, 190, Established, 5), Err(Refusal::TableFull));
    for n in (0..100).step_by(10) {
        assert_eq!(find(&shard, n), BOTH, "{n} was not ended");
    }
    Ok(())
}

/// Small tables fill their buckets unevenly, so that room is made again and again.
#[test]
fn making_room_loses_nobody() -> Result<(), OutOfMemory> {
    for secret in 0..200 {
        let mut shard = Shard::<u32>::new(&mut HeapMemory, 150, &Origin::of_secret(secret))?;
        let taken: Vec<u32> =
            (0..150).filter(|n| put(&mut shard, *n, Established, 5).is_ok()).collect();
        for n in taken {
            assert_eq!(find(&shard, n), BOTH, "secret {secret}");
        }
    }
    Ok(())
}

#[test]
fn half_open_connections_are_bounded_and_never_push_out_others() -> Result<(), OutOfMemory> {
    let mut shard = Shard::<u32>::new(&mut HeapMemory, 80, &Origin::of_secret(7))?;
    assert!(put(&mut shard, 0, Established, 0).is_ok());
    let admitted = (1..1000).filter(|n| put(&mut shard, *n, SynSent, 1).is_ok()).count();
    assert_eq!((admitted, shard.len()), (10, 11), "an eighth of 80 places");
    let later = u64::from(HALF_OPEN_LIFE_MIN_MS) + 1;
    let evicted = (1000..1100).filter(|n| put(&mut shard, *n, SynSent, later) == Ok((*n, true)));
    assert_eq!(evicted.count(), 0, "places are used again, the lowest first");
    assert_eq!(shard.len(), 11);
    assert_eq!(find(&shard, 0), BOTH);
    assert_eq!(find(&shard, 1), [None; 2], "the oldest went");
    Ok(())
}

/// What may be a forger's work ends when there was time to ask.
#[test]
fn in_doubt_a_connection_stays_until_it_was_asked() -> Result<(), OutOfMemory> {
    let timeouts = Timeouts::default().by_number();
    let mut shard = Shard::<u32>::new(&mut HeapMemory, 8, &Origin::of_secret(7))?;
    for (n, state) in [(0, TimeWait), (1, ConnectionState::Reset)] {
        assert!(put(&mut shard, n, state, 0).is_ok());
    }
    let over = |ms| [0, 1].map(|at| shard.is_over(at, ms, &timeouts));
    assert_eq!(over(69_999), [false, false]);
    assert_eq!(over(70_000), [true, false]);
    assert_eq!(over(130_000), [true, true]);
    Ok(())
}

#[test]
fn memory_is_as_promised() -> Result<(), OutOfMemory> {
    let v4 = Shard::<u32>::new(&mut HeapMemory, 1_000_000, &Origin::of_secret(7))?.memory_bytes();
    let v6 = Shard::<u128>::new(&mut HeapMemory, 1_000_000, &Origin::of_secret(7))?.memory_bytes();
    assert!(v4 <= 129_500_000, "{v4}: 128 bytes a connection, and 24 a backend");
    assert!(v6 <= 224_000_000, "{v6}");
    Ok(())
}

/// Whoever gets answers to datagrams has streams at will: they keep nobody out, wherever they lie.
#[test]
fn a_table_full_of_streams_takes_new_ones() -> Result<(), OutOfMemory> {
    let mut shard = Shard::<u32>::new(&mut HeapMemory, 1000, &Origin::of_secret(7))?;
    for n in 0..1000 {
        let state = if n < 600 { Established } else { Stream };
        assert!(put(&mut shard, n, state, 5 + u64::from(n)).is_ok());
    }
    for n in 1000..1300 {
        assert!(put(&mut shard, n, Established, 2000).is_ok(), "at {n}");
    }
    for n in 0..600 {
        assert_eq!(find(&shard, n), BOTH, "{n} was established");
    }
    let late = (900..1000).filter(|n| find(&shard, *n) == BOTH).count();
    assert!(late > 60, "{late} of the 100 that were heard of last");
    Ok(())
}
