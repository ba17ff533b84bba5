//! Hashing: what spreads keys over tables, flows over backends and fragments over workers. Each hash is
//! keyed, so that nobody outside can choose what meets; which key is whose, `secret.rs` says.

/// Multiplies to 128 bits and folds: a non-linear mix of two words.
#[inline]
pub const fn mum(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    (product >> 64) as u64 ^ product as u64
}

/// The same, but no value of either word erases the other: a product with 0 is 0, and leaves both
/// words as they were.
#[inline]
const fn mix(a: u64, b: u64) -> u64 {
    mum(a, b) ^ a ^ b
}

/// A hash of three words under a key. Not the hash of the connection table: its key is shared by
/// all gateways that serve the same addresses, so that they choose alike.
#[inline]
pub const fn keyed(key: u64, a: u64, b: u64, c: u64) -> u64 {
    // Every word is keyed: nobody outside can make a factor 0, nor tell what two words have in common.
    let left = a ^ key ^ 0xa076_1d64_78bd_642f;
    let right = b ^ key.rotate_left(17) ^ 0xe703_7ed1_a0b4_28db;
    let both = mix(left, right) ^ c ^ key.rotate_left(32);
    // The last factor is no key: one in some thousand keys would have few bits there, and spread badly.
    mix(mix(both ^ 0x5899_65cc_7537_4cc3, 0x8ebc_6af0_9c88_c6e3), 0x9fb2_1c65_1e98_df25)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]
        /// Whatever a client can choose of its address, the rest of it still counts, under every
        /// key: those included that make a factor 0.
        #[test]
        fn no_value_erases_the_rest(key in key(), word in word(), place in 0usize..3, fixed in word()) {
            let word = match word {
                Word::Any(word) => word,
                // The factors of the first product are 0 then.
                Word::Left => key ^ 0xa076_1d64_78bd_642f,
                Word::Right => key.rotate_left(17) ^ 0xe703_7ed1_a0b4_28db,
                Word::Plain => 0xe703_7ed1_a0b4_28db,
            };
            let fixed = if let Word::Any(fixed) = fixed { fixed } else { 0 };
            for other in (0..3).filter(|other| *other != place) {
                let mut tops = [0u32; 16];
                let mut seen = std::collections::HashSet::new();
                for n in 0..1024u64 {
                    let mut words = [fixed; 3];
                    words[place] = word;
                    words[other] = n;
                    let hash = keyed(key, words[0], words[1], words[2]);
                    tops[(hash >> 60) as usize] += 1;
                    seen.insert(hash);
                }
                prop_assert!(seen.len() > 1000, "{} of 1024", seen.len());
                // Maglev and buckets take the upper bits. 64 each are expected.
                prop_assert!(tops.iter().all(|n| *n < 400), "{:?}", tops);
            }
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Word {
        Any(u64),
        Left,
        Right,
        Plain,
    }

    fn word() -> impl Strategy<Value = Word> {
        prop_oneof![
            any::<u64>().prop_map(Word::Any),
            Just(Word::Left),
            Just(Word::Right),
            Just(Word::Plain),
        ]
    }

    fn key() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), any::<u64>(), Just(0)]
    }
}
