//! Toeplitz hash as network cards compute it (RSS), by DPDK's own implementation: the reference
//! for tests of ours.

/// Words of the longest input: an IPv6 5-tuple without the protocol.
const WORDS_MAX: usize = 9;

/// `rte_softrss`: the Toeplitz hash of `input` under `key`, both in network order.
///
/// `input` is source address, destination address, source port, destination port (12 bytes for
/// IPv4, 36 for IPv6; 8 and 32 without ports). `None` if its length is no multiple of 4 or above
/// 36, or if the key has fewer than `input.len() + 4` bytes.
pub fn softrss(input: &[u8], key: &[u8]) -> Option<u32> {
    let words = input.len() / 4;
    if !input.len().is_multiple_of(4) || words > WORDS_MAX || key.len() < input.len() + 4 {
        return None;
    }
    let mut tuple = [0_u32; WORDS_MAX];
    for (word, bytes) in tuple.iter_mut().zip(input.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    // The function reads the key as 32-bit words: an aligned copy.
    let mut aligned = [0_u32; WORDS_MAX + 1];
    for (word, bytes) in aligned.iter_mut().zip(key.chunks_exact(4)) {
        let mut raw = [0; 4];
        raw.copy_from_slice(bytes);
        *word = u32::from_ne_bytes(raw);
    }
    let words = u32::try_from(words).ok()?;
    // SAFETY: `tuple` holds `words` words and `aligned` one more, which is all that is read.
    Some(unsafe { dpdk_sys::dk_softrss(tuple.as_mut_ptr(), words, aligned.as_ptr().cast()) })
}

#[cfg(test)]
mod tests {
    use super::softrss;

    /// Key and vectors of Microsoft's "Verifying the RSS Hash Calculation".
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    #[test]
    fn published_vectors() {
        let input = [66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6];
        assert_eq!(softrss(&input, &KEY), Some(0x51cc_c178));
        assert_eq!(softrss(&input[..8], &KEY), Some(0x323e_8fc2));
    }

    #[test]
    fn lengths_are_checked() {
        assert_eq!(softrss(&[0; 13], &KEY), None);
        assert_eq!(softrss(&[0; 40], &KEY), None);
        assert_eq!(softrss(&[0; 12], &KEY[..15]), None);
        assert_eq!(softrss(&[0; 36], &KEY), Some(0));
    }
}
