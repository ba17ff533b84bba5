//! No way of handling mbufs and bursts leaks or frees twice; chains and buffers keep their sums.
#![allow(clippy::unwrap_used, clippy::type_complexity)]

mod common;

use common::{eal, numbered, numbers, pool};
use dpdk::{Burst, IpChecksum, L4Checksum, Mbuf, Pool, mbuf::HEADROOM};

#[test]
fn the_pool_is_whole_after_every_path() {
    let eal = eal();
    let pool = pool(&eal, "packets", 127, 16);
    let paths: [(&str, fn(&Pool)); 9] = [
        ("exhaust", exhaust),
        ("bursts", bursts),
        ("drain", drain),
        ("swap", swap),
        ("alloc_into", alloc_into),
        ("buffers", buffers),
        ("chains", chains),
        ("chain limits", chain_gives_back),
        ("flags", flags),
    ];
    for (name, path) in paths {
        path(&pool);
        assert_eq!(pool.in_use(), 0, "after {name}");
        assert_eq!(pool.available(), 127, "after {name}");
    }

    // An mbuf that outlives its pool and the EAL handle: the memory stays.
    let mut late = numbered(&pool, 7);
    drop(pool);
    let held = eal.shutdown();
    assert!(matches!(held, Err(dpdk::ShutdownError::MbufsHeld(1))), "{held:?}");
    late.append(b"still ours").unwrap();
    assert_eq!(late.len(), 70);
}

fn exhaust(pool: &Pool) {
    let all: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!(all.len(), 127);
    assert_eq!((pool.in_use(), pool.available()), (127, 0));
}

fn bursts(pool: &Pool) {
    let mut burst = Burst::<4>::new();
    for number in 0..4 {
        burst.push(numbered(pool, number)).unwrap();
    }
    let back = burst.push(numbered(pool, 4)).unwrap_err();
    assert_eq!(common::number(&back), 4);
    assert_eq!(common::number(&burst.pop().unwrap()), 3);
    assert_eq!(numbers(&burst), [0, 1, 2]);
    assert_eq!(pool.in_use(), 4);
    burst.clear();
    assert_eq!(pool.in_use(), 1);
    assert!(burst.pop().is_none());
    burst.push(back).unwrap();
}

fn drain(pool: &Pool) {
    let mut burst = Burst::<8>::new();
    for number in 0..8 {
        burst.push(numbered(pool, number)).unwrap();
    }
    let mut drain = burst.drain();
    assert_eq!(drain.len(), 8);
    assert_eq!(drain.next().map(|mbuf| common::number(&mbuf)), Some(0));
    let kept = drain.next().unwrap();
    drop(drain);
    assert!(burst.is_empty());
    assert_eq!((pool.in_use(), common::number(&kept)), (1, 1));
    for number in 0..8 {
        burst.push(numbered(pool, number)).unwrap();
    }
    assert_eq!(burst.drain().map(|mbuf| common::number(&mbuf)).sum::<u64>(), 28);
}

fn swap(pool: &Pool) {
    let mut burst = Burst::<32>::default();
    for number in 0..4 {
        burst.push(numbered(pool, number)).unwrap();
    }
    burst.as_mut_slice().swap(0, 3);
    let second = std::mem::replace(&mut burst.as_mut_slice()[1], numbered(pool, 9));
    assert_eq!(common::number(&second), 1);
    assert_eq!(numbers(&burst), [3, 9, 2, 0]);
    assert_eq!(pool.in_use(), 5);
}

fn alloc_into(pool: &Pool) {
    let mut burst = Burst::<64>::new();
    assert!(pool.alloc_into(&mut burst, 40));
    assert!(!pool.alloc_into(&mut burst, 25), "no room in the burst");
    assert_eq!((burst.len(), pool.in_use()), (40, 40));
    let mut more = Burst::<128>::new();
    assert!(!pool.alloc_into(&mut more, 88), "too few in the pool");
    assert!(more.is_empty());
    assert!(burst.iter().all(|mbuf| mbuf.is_empty() && mbuf.meta() == [0, 0]));
}

fn buffers(pool: &Pool) {
    let mut mbuf = pool.alloc().unwrap();
    mbuf.copy_from_slice(&[7; 100]).unwrap();
    let (buffer, start, len) = mbuf.buffer_mut();
    assert_eq!((buffer.len(), start, len), (2048 + 128, HEADROOM.into(), 100));
    buffer[start - 4..start].fill(1);
    mbuf.set_head(start - 4, start + 50).unwrap();
    assert_eq!((mbuf.len(), mbuf.head_len()), (54, 54));
    assert_eq!(&mbuf.head()[..5], &[1, 1, 1, 1, 7]);
    for (start, end) in [(10, 9), (0, 2177), (2177, 2177), (usize::MAX, 0)] {
        assert!(mbuf.set_head(start, end).is_err(), "{start}..{end}");
    }
    mbuf.set_head(0, 2176).unwrap();
    assert_eq!(mbuf.append(&[0]).unwrap_err().room, 0);
    assert_eq!(mbuf.copy_from_slice(&[0; 2049]).unwrap_err().room, 2048);
    assert_eq!(mbuf.len(), 2176, "a failure changes nothing");
    mbuf.set_head(2176, 2176).unwrap();
    assert!(mbuf.is_empty());
}

fn chains(pool: &Pool) {
    let mut packet = pool.alloc().unwrap();
    packet.copy_from_slice(&[1; 10]).unwrap();
    let mut tail = pool.alloc().unwrap();
    tail.copy_from_slice(&[2; 20]).unwrap();
    let mut end = pool.alloc().unwrap();
    end.copy_from_slice(&[3; 30]).unwrap();
    tail.chain(end).unwrap();
    packet.chain(tail).unwrap();
    assert_eq!((packet.len(), packet.segments(), packet.head_len()), (60, 3, 10));
    assert_eq!(pool.in_use(), 3);

    let mut bytes = [0; 100];
    assert_eq!(packet.read_into(&mut bytes), 60);
    assert_eq!(
        (bytes[9], bytes[10], bytes[29], bytes[30], bytes[59], bytes[60]),
        (1, 2, 2, 3, 3, 0)
    );
    assert_eq!(packet.read_into(&mut bytes[..15]), 15);
    assert_eq!(packet.append(&[4]).unwrap_err().room, 0);

    // The head's length counts once in the packet's.
    let start = usize::from(HEADROOM);
    packet.set_head(start + 2, start + 10).unwrap();
    assert_eq!((packet.len(), packet.head_len()), (58, 8));

    packet.truncate_to_head();
    assert_eq!((packet.len(), packet.segments()), (8, 1));
    assert_eq!(pool.in_use(), 1);
    packet.truncate_to_head();
    assert_eq!(pool.in_use(), 1);

    // A chain dropped whole, and one freed in bulk.
    for whole in [true, false] {
        let mut packet = numbered(pool, 0);
        packet.chain(numbered(pool, 1)).unwrap();
        assert_eq!(pool.in_use(), 3);
        let mut burst = Burst::<2>::new();
        if whole {
            drop(packet);
        } else {
            burst.push(packet).unwrap();
            burst.clear();
        }
        assert_eq!(pool.in_use(), 1);
    }
}

fn chain_gives_back(pool: &Pool) {
    let mut packet = numbered(pool, 1);
    for number in 2..=127 {
        packet.chain(numbered(pool, number)).unwrap();
    }
    assert_eq!((packet.segments(), packet.len()), (127, 127 * 60));
    assert_eq!(pool.available(), 0);
    packet.copy_from_slice(b"short").unwrap();
    assert_eq!((packet.segments(), packet.len(), pool.in_use()), (1, 5, 1));
}

fn flags(pool: &Pool) {
    let mbuf = numbered(pool, 1);
    assert_eq!(mbuf.rss_hash(), None);
    assert_eq!(mbuf.vlan_tci(), None);
    assert_eq!(mbuf.rx_checksum(), (IpChecksum::Unknown, L4Checksum::Unknown));
    assert_eq!(mbuf.port(), u16::MAX);
    mbuf.prefetch();
}
