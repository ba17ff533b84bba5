//! Which slots of a table are free, and which is given out next.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// A slot that became free rests while as many others become free after it. A stale id of it lives
/// on in entries until the sweep has looked at them, 15 s at most, and in the affinity table for a
/// day: with 16 bits of generation an id comes again after 65,535 holders of its slot, which are 67
/// million frees at least. The price is that the slots in use, whose counters lie side by side,
/// spread over 1,024 more: 32 KiB of counters.
const REST: usize = 1024;

/// The slots. The lowest that has rested is given out first, so that those in use stay together
/// however long the process runs; where all rest, the one that has longest.
#[derive(Debug)]
pub struct Slots {
    resting: VecDeque<u32>,
    rested: BinaryHeap<Reverse<u32>>,
    /// From here on nobody has had one.
    next: u32,
    max: u32,
}

impl Slots {
    /// So many free slots.
    pub const fn new(max: u32) -> Self {
        Self { resting: VecDeque::new(), rested: BinaryHeap::new(), next: 0, max }
    }
    /// A free slot.
    pub fn take(&mut self) -> Option<u32> {
        if let Some(Reverse(slot)) = self.rested.pop() {
            return Some(slot);
        }
        if self.next < self.max {
            self.next += 1;
            return Some(self.next - 1);
        }
        self.resting.pop_front()
    }
    /// Gives a slot back.
    pub fn free(&mut self, slot: u32) {
        self.resting.push_back(slot);
        if self.resting.len() > REST {
            self.rested.extend(self.resting.pop_front().map(Reverse));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// A slot rests, then the lowest that has rested is used again; where there is no other, the
        /// one that has rested longest. Nobody gets what another holds.
        #[test]
        fn the_lowest_rested_slot_is_used_again(
            max in prop_oneof![1u32..40, 3000u32..4000],
            // Runs of taking and giving back, and which of those held is given back.
            runs in proptest::collection::vec((any::<bool>(), 1usize..900, any::<u32>()), 1..30),
        ) {
            let mut slots = Slots::new(max);
            let mut held: Vec<u32> = Vec::new();
            // When each free slot that somebody had became free, counted in frees.
            let mut freed: BTreeMap<u32, usize> = BTreeMap::new();
            let (mut frees, mut most) = (0, 0);
            for (takes, times, pick) in runs {
                for n in 0..times {
                    if !takes {
                        if held.is_empty() { break }
                        let slot = held.swap_remove((pick as usize + 7 * n) % held.len());
                        frees += 1;
                        freed.insert(slot, frees);
                        slots.free(slot);
                        continue;
                    }
                    let rested = freed.iter().find(|(_, at)| frees - **at >= REST);
                    let lowest = rested.map(|(slot, _)| *slot);
                    let fresh = u32::try_from(held.len() + freed.len()).unwrap();
                    let fresh = (fresh < max).then_some(fresh);
                    let longest = freed.iter().min_by_key(|(_, at)| **at).map(|(slot, _)| *slot);
                    let slot = slots.take();
                    prop_assert_eq!(slot, lowest.or(fresh).or(longest));
                    held.extend(slot);
                    if let Some(slot) = slot { freed.remove(&slot); }
                    most = most.max(held.len());
                    let highest = held.iter().max().map_or(0, |slot| *slot as usize);
                    prop_assert!(highest < most + REST, "{} of {} held", highest, most);
                }
            }
        }
    }
}
