//! A fault for tests alone: it shows that a lost packet can't hide from the ledger.

use dpdk::Burst;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static TO_LOSE: AtomicUsize = AtomicUsize::new(0);

/// Lets workers lose the next `count` packets without counting them.
pub fn lose_packets(count: usize) {
    TO_LOSE.store(count, Relaxed);
}

/// Loses a packet of the burst, where one is to be lost.
pub(crate) fn lose<const N: usize>(burst: &mut Burst<N>) {
    let due = !burst.is_empty() && TO_LOSE.load(Relaxed) > 0;
    if due && TO_LOSE.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1)).is_ok() {
        drop(burst.pop());
    }
}
