//! Buffers that drivers attach, and mbufs that others hold.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{Eal, EalOptions};

/// Memory that a driver would attach.
fn attached(pool: &Pool, memory: &mut [u64; 256], bytes: &[u8]) -> Mbuf {
    let mut mbuf = pool.alloc().unwrap();
    let len = size_of_val(memory) as u16;
    // SAFETY: the memory outlives the mbuf in each test, and is used by nobody else meanwhile.
    let result =
        unsafe { dpdk_sys::dk_mbuf_attach(mbuf.0.as_ptr(), memory.as_mut_ptr().cast(), len) };
    assert_eq!(result, 0);
    mbuf.copy_from_slice(bytes).unwrap();
    mbuf
}

fn second_holder(mbuf: &Mbuf, pool: &Pool) -> Mbuf {
    // SAFETY: a valid chain and a live pool; the clone is ours.
    let clone = unsafe { dpdk_sys::rte_pktmbuf_clone(mbuf.0.as_ptr(), pool.as_ptr()) };
    // SAFETY: as above.
    unsafe { Mbuf::from_raw(NonNull::new(clone).unwrap()) }
}

#[test]
fn nothing_is_written_that_others_hold_or_that_lies_elsewhere() {
    let eal = Eal::init(EalOptions::no_huge(64)).unwrap();
    let pool = Pool::new(&eal, "attached", 63, 0, 2_048).unwrap();
    attached_buffers_are_written_within_their_bounds(&pool);
    what_others_hold_is_copied(&pool);
    lengths_that_lie_reach_nothing(&pool);
    assert_eq!(pool.in_use(), 0);
}

fn attached_buffers_are_written_within_their_bounds(pool: &Pool) {
    let mut memory = Box::new([0; 256]);
    let mut mbuf = attached(pool, &mut memory, b"attached");
    assert!(mbuf.is_writable());
    let (buffer, start, len) = mbuf.buffer_mut();
    // The driver's own bytes behind the buffer are no part of it.
    assert!(buffer.len() < 2_048 && buffer.len() > 1_900, "{}", buffer.len());
    assert_eq!((start, len), (usize::from(HEADROOM), 8));
    let most = buffer.len();
    assert!(mbuf.set_head(most - 8, most).is_ok());
    assert!(mbuf.set_head(most - 8, most + 1).is_err());
    assert!(mbuf.copy_from_slice(&[1; 2_000]).is_err());
}

fn what_others_hold_is_copied(pool: &Pool) {
    let mut memory = Box::new([0; 256]);
    let mut own = pool.alloc().unwrap();
    own.copy_from_slice(b"both read").unwrap();
    own.set_meta([7, 9]);
    for mut first in [own, attached(pool, &mut memory, b"both read")] {
        let mut second = second_holder(&first, pool);
        for mbuf in [&mut first, &mut second] {
            assert_eq!(mbuf.head(), b"both read");
        }
        assert!(!second.is_writable(), "a clone isn't written");
        assert_eq!(second.buffer_mut().0.len(), 0);
        assert!(second.append(b"!").is_err() && second.copy_from_slice(b"!").is_err());
        let mut copy = second.copy(pool).unwrap();
        assert!(copy.is_writable());
        copy.buffer_mut().0.fill(0);
        assert_eq!((first.head(), second.head()), (&b"both read"[..], &b"both read"[..]));
        assert!(!first.is_writable(), "nor the original while a clone is out");
        assert!(first.set_head(0, 4).is_err() || first.buffer_mut().0.is_empty());
        drop(second);
        assert!(first.is_writable(), "but then it is");
        assert_eq!(first.copy(pool).unwrap().meta(), first.meta());
    }
}

fn lengths_that_lie_reach_nothing(pool: &Pool) {
    let mut mbuf = pool.alloc().unwrap();
    mbuf.copy_from_slice(b"data").unwrap();
    let good = mbuf.raw().data_off;
    for (data_off, data_len) in [(u16::MAX, 4), (good, u16::MAX), (mbuf.raw().buf_len, 1)] {
        let raw = mbuf.raw_mut();
        (raw.data_off, raw.data_len, raw.pkt_len) = (data_off, data_len, data_len.into());
        assert!(!mbuf.is_writable());
        assert_eq!(mbuf.buffer_mut().0.len(), 0);
        assert!(mbuf.head().len() < 2_048);
        assert!(mbuf.copy(pool).is_none());
        assert!(mbuf.append(b"!").is_err());
    }
}
