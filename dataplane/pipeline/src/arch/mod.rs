//! What depends on the processor. Each piece has a portable form that means the same.

pub mod memory;

/// Asks for the cache line of `value` before it is needed. Has no effect on meaning.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    prefetch_at(std::ptr::from_ref(value).cast());
}

/// Asks for all cache lines of `value`, which begins with one.
#[inline(always)]
pub fn prefetch_all<T>(value: &T) {
    const LINE: usize = 64;
    let first: *const u8 = std::ptr::from_ref(value).cast();
    for offset in (0..size_of::<T>()).step_by(LINE) {
        prefetch_at(first.wrapping_add(offset));
    }
}

#[inline(always)]
#[allow(clippy::missing_const_for_fn, unused_variables)]
fn prefetch_at(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch neither reads nor faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: a prefetch neither reads nor faults.
        unsafe {
            core::arch::asm!(
                "prfm pldl1keep, [{place}]",
                place = in(reg) place,
                options(nostack, preserves_flags, readonly)
            );
        }
    }
}

/// The places of `tag` among eight tags: bit `i` is set where `tags[i] == tag`.
#[inline(always)]
#[allow(clippy::missing_const_for_fn)]
pub fn matches(tags: &[u16; 8], tag: u16) -> u32 {
    // SAFETY: every x86-64 has SSE2.
    #[cfg(target_arch = "x86_64")]
    return unsafe { matches_sse2(tags, tag) };
    #[cfg(not(target_arch = "x86_64"))]
    matches_portable(tags, tag)
}

/// The places of `tag` among twice eight tags: the lower eight bits are the first ones'.
#[inline(always)]
#[allow(clippy::missing_const_for_fn)]
pub fn matches_in_both(tags: (&[u16; 8], &[u16; 8]), tag: u16) -> u32 {
    // SAFETY: every x86-64 has SSE2.
    #[cfg(target_arch = "x86_64")]
    return unsafe { matches_in_both_sse2(tags, tag) };
    #[cfg(not(target_arch = "x86_64"))]
    {
        matches_portable(tags.0, tag) | matches_portable(tags.1, tag) << 8
    }
}

/// One comparison of all eight.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn matches_sse2(tags: &[u16; 8], tag: u16) -> u32 {
    use core::arch::x86_64::{_mm_movemask_epi8, _mm_packs_epi16, _mm_setzero_si128};
    // Packing halves each lane, all ones or none, to a byte: one bit a tag.
    _mm_movemask_epi8(_mm_packs_epi16(equal_sse2(tags, tag), _mm_setzero_si128())).cast_unsigned()
}

/// One comparison for each eight.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn matches_in_both_sse2((first, second): (&[u16; 8], &[u16; 8]), tag: u16) -> u32 {
    use core::arch::x86_64::{_mm_movemask_epi8, _mm_packs_epi16};
    let both = _mm_packs_epi16(equal_sse2(first, tag), equal_sse2(second, tag));
    _mm_movemask_epi8(both).cast_unsigned()
}

/// All ones in each lane whose tag it is.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn equal_sse2(tags: &[u16; 8], tag: u16) -> core::arch::x86_64::__m128i {
    use core::arch::x86_64::{_mm_cmpeq_epi16, _mm_loadu_si128, _mm_set1_epi16};
    // SAFETY: the pointer comes from a reference to 16 bytes, and may be unaligned.
    let tags = unsafe { _mm_loadu_si128(std::ptr::from_ref(tags).cast()) };
    _mm_cmpeq_epi16(tags, _mm_set1_epi16(tag.cast_signed()))
}

/// What the others mean.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn matches_portable(tags: &[u16; 8], tag: u16) -> u32 {
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

    proptest::proptest! {
        #[test]
        fn matches_is_the_same_everywhere(tags: [u16; 8], tag: u16, at in 0usize..8) {
            for tag in [tag, tags[at], 0] {
                let (fast, plain) = (super::matches(&tags, tag), super::matches_portable(&tags, tag));
                proptest::prop_assert_eq!(fast, plain);
                let other = tags.map(|tag| tag / 2);
                let both = plain | super::matches_portable(&other, tag) << 8;
                proptest::prop_assert_eq!(super::matches_in_both((&tags, &other), tag), both);
            }
        }
    }
}
