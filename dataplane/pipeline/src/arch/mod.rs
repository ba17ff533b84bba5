//! What depends on the processor. Each piece has a portable form that means the same.

pub mod memory;

/// Asks for the cache line of `value` before it is needed. Has no effect on meaning.
#[inline(always)]
#[allow(clippy::missing_const_for_fn, unused_variables)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch neither reads nor faults, and the pointer comes from a reference.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: a prefetch neither reads nor faults, and the pointer comes from a reference.
        unsafe {
            core::arch::asm!(
                "prfm pldl1keep, [{place}]",
                place = in(reg) std::ptr::from_ref(value),
                options(nostack, preserves_flags, readonly)
            );
        }
    }
}

/// The places of `tag` among eight tags: bit `i` is set where `tags[i] == tag`. Compilers make one
/// vector comparison of it where the processor has one.
#[inline(always)]
pub fn matches(tags: &[u16; 8], tag: u16) -> u32 {
    let mut mask = 0u32;
    for (place, candidate) in tags.iter().enumerate() {
        mask |= u32::from(*candidate == tag) << place;
    }
    mask
}

#[cfg(test)]
mod tests {
    #[test]
    fn matches_names_each_place() {
        let tags = [5, 1, 5, 0, 9, 5, 7, 5];
        assert_eq!(super::matches(&tags, 5), 0b1010_0101);
        assert_eq!(super::matches(&tags, 0), 0b0000_1000);
        assert_eq!(super::matches(&tags, 4), 0);
    }
}
