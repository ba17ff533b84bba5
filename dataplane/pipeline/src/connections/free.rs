//! Which places of the table are free: a bit each, and above 64 of them a bit that says whether any
//! is. The lowest is taken first, so that a table that isn't full stays dense.

/// A set of places.
#[derive(Debug)]
pub struct FreePlaces {
    /// From the places themselves up to a level of one word.
    levels: Vec<Box<[u64]>>,
}

impl FreePlaces {
    /// All of `len` places, or none of them.
    pub fn new(len: usize, free: bool) -> Self {
        let (mut levels, mut len) = (Vec::new(), len.max(1));
        loop {
            let mut words = vec![if free { u64::MAX } else { 0 }; len.div_ceil(64)];
            if let (true, Some(last)) = (free && !len.is_multiple_of(64), words.last_mut()) {
                *last = (1 << (len % 64)) - 1;
            }
            len = words.len();
            levels.push(words.into_boxed_slice());
            if len == 1 {
                return Self { levels };
            }
        }
    }
    /// Bytes of the set.
    pub fn memory_bytes(&self) -> usize {
        self.levels.iter().map(|level| size_of_val(&**level)).sum()
    }
    /// The lowest free place.
    pub fn first(&self) -> Option<u32> {
        let mut at = 0usize;
        for level in self.levels.iter().rev() {
            let word = *level.get(at)?;
            if word == 0 {
                return None;
            }
            at = at * 64 + word.trailing_zeros() as usize;
        }
        Some(at as u32)
    }
    /// Takes a place out of the set.
    pub fn take(&mut self, place: u32) {
        let mut at = place as usize;
        for level in &mut self.levels {
            let Some(word) = level.get_mut(at / 64) else { return };
            *word &= !(1 << (at % 64));
            if *word != 0 {
                return;
            }
            at /= 64;
        }
    }
    /// Puts a place into the set.
    pub fn put(&mut self, place: u32) {
        let mut at = place as usize;
        for level in &mut self.levels {
            let Some(word) = level.get_mut(at / 64) else { return };
            *word |= 1 << (at % 64);
            at /= 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_a_set_whose_lowest_is_found(
            len in 1usize..10_000,
            steps in proptest::collection::vec((any::<bool>(), any::<u32>()), 0..300),
        ) {
            let mut free = FreePlaces::new(len, true);
            let mut model: BTreeSet<u32> = (0..len as u32).collect();
            for (take, place) in steps {
                let place = place % len as u32;
                if take {
                    free.take(place);
                    model.remove(&place);
                } else {
                    free.put(place);
                    model.insert(place);
                }
                prop_assert_eq!(free.first(), model.first().copied());
            }
        }
    }
}
