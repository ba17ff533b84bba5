//! What the tests share. The EAL works once a process: one test function a file.
#![allow(dead_code, clippy::expect_used)]

use dpdk::{Burst, Eal, EalOptions, Mbuf, Pool};

/// An EAL without huge pages: runs anywhere.
pub fn eal() -> Eal {
    Eal::init(EalOptions::no_huge(256)).expect("an EAL without huge pages")
}

/// A pool with buffers of 2048 bytes behind the headroom.
pub fn pool(eal: &Eal, name: &str, mbufs: u32, cache: u32) -> Pool {
    Pool::new(eal, name, mbufs, cache, 2048 + 128).expect("a pool")
}

/// A packet of 60 bytes that carries `number`.
pub fn numbered(pool: &Pool, number: u64) -> Mbuf {
    let mut mbuf = pool.alloc().expect("an mbuf");
    let mut bytes = [0; 60];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    mbuf.copy_from_slice(&bytes).expect("60 bytes");
    mbuf
}

/// The number in such a packet.
pub fn number(mbuf: &Mbuf) -> u64 {
    let bytes = mbuf.head().first_chunk::<8>().expect("8 bytes");
    u64::from_be_bytes(*bytes)
}

/// The numbers of a burst.
pub fn numbers<const N: usize>(burst: &Burst<N>) -> Vec<u64> {
    burst.iter().map(number).collect()
}
