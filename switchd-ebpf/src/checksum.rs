//! Internet checksum arithmetic (RFC 1071, RFC 1624), on ones' complement sums of big-endian 16-bit words.

/// Folds a sum of 16-bit words into 16 bits.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Whether a sum folds to all ones, which is what data with a right checksum sum up to: it is a multiple of 65,535, and
/// not zero. That 2^64 holds each multiple of an odd number once makes one of a product that is small, by the inverse of
/// the number (T. Granlund and P. Montgomery, "Division by Invariant Integers using Multiplication", section 9).
#[inline(always)]
#[must_use]
pub const fn is_whole(sum: u64) -> bool {
    const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    const { assert!(INVERSE.wrapping_mul(0xffff) == 1) };
    sum.wrapping_mul(INVERSE).wrapping_sub(1) < u64::MAX / 0xffff
}

/// Adds two sums.
#[inline(always)]
#[must_use]
pub const fn add(a: u16, b: u16) -> u16 {
    fold(a as u64 + b as u64)
}

/// The change from `old` to `new`, to be given to [`correct`].
#[inline(always)]
#[must_use]
pub const fn delta(old: u64, new: u64) -> u16 {
    add(fold(new), !fold(old))
}

/// The checksum after its data have changed by `delta` (RFC 1624, eqn. 3).
#[inline(always)]
#[must_use]
pub const fn correct(checksum: u16, delta: u16) -> u16 {
    !add(!checksum, delta)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    fn whole(words: &[u16]) -> u16 {
        fold(words.iter().map(|&w| u64::from(w)).sum())
    }

    proptest! {
        #[test]
        fn correcting_equals_summing_again(
            mut words in proptest::collection::vec(any::<u16>(), 1..64),
            at in any::<prop::sample::Index>(),
            new in any::<u16>(),
        ) {
            // At least one word that never changes keeps the sum away from the double zero.
            words.push(1);
            let before = !whole(&words);
            let at = at.index(words.len() - 1);
            let old = core::mem::replace(&mut words[at], new);
            let corrected = correct(before, delta(u64::from(old), u64::from(new)));
            prop_assert_eq!(corrected, !whole(&words));
        }

        #[test]
        fn whole_sums_fold_to_ones(sum: u64, near in 0u64..4, times in 0..=u64::MAX / 0xffff) {
            for sum in [sum, (times * 0xffff).saturating_add(near), times * 0xffff] {
                prop_assert_eq!(is_whole(sum), fold(sum) == 0xffff, "{:#x}", sum);
            }
        }

        #[test]
        fn folding_wide_words_equals_folding_their_halves(words in any::<Vec<u32>>()) {
            let wide = words.iter().map(|&w| u64::from(w)).sum::<u64>();
            let narrow: Vec<u16> = words.iter().flat_map(|&w| [(w >> 16) as u16, w as u16]).collect();
            prop_assert_eq!(fold(wide), whole(&narrow));
        }
    }
}
