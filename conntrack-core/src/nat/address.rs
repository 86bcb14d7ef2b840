//! 128-bit arithmetic on addresses, of two halves, the high one first: the BPF target has no wider numbers than
//! its registers, and no functions to call for them.

/// The distance from `min` up to `max`.
#[inline(always)]
pub(super) fn span(min: &[u64; 2], max: &[u64; 2]) -> [u64; 2] {
    let (low, borrow) = max[1].overflowing_sub(min[1]);
    [max[0].wrapping_sub(min[0]).wrapping_sub(u64::from(borrow)), low]
}

#[inline(always)]
pub(super) fn add(a: &[u64; 2], b: &[u64; 2]) -> [u64; 2] {
    let (low, carry) = a[1].overflowing_add(b[1]);
    [a[0].wrapping_add(b[0]).wrapping_add(u64::from(carry)), low]
}

/// The address after this one, around the end of the range.
#[inline(always)]
pub(super) fn next_within(address: &[u64; 2], min: &[u64; 2], max: &[u64; 2]) -> [u64; 2] {
    if address[0] == max[0] && address[1] == max[1] { *min } else { add(address, &[0, 1]) }
}

/// A number from 0 to `span` by hash.
#[inline(always)]
pub(super) fn from_hash(hash: u64, span: &[u64; 2]) -> [u64; 2] {
    if span[0] == 0 && span[1] < u64::MAX {
        // Not by zero: `span` is less than the largest number.
        return [0, hash % span[1].wrapping_add(1)];
    }
    // No more bits than the span has: at most twice the numbers wanted, whose upper half is folded down.
    let number = [mix(hash) & ones_below(span[0]), hash];
    let above = number[0] > span[0] || (number[0] == span[0] && number[1] > span[1]);
    if !above {
        return number;
    }
    let rest = self::span(span, &number);
    self::span(&[0, 1], &rest)
}

/// The least number of the kind 2ⁿ - 1 that is not less.
#[inline(always)]
fn ones_below(mut number: u64) -> u64 {
    let mut shift = 1;
    while shift < 64 {
        number |= number >> shift;
        shift <<= 1;
    }
    number
}

/// Scatters a number's bits over all of it: the finalizer of `SplitMix64`.
#[inline(always)]
pub(super) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wide(halves: &[u64; 2]) -> u128 {
        u128::from(halves[0]) << 64 | u128::from(halves[1])
    }

    fn halves(number: u128) -> [u64; 2] {
        [(number >> 64) as u64, number as u64]
    }

    /// Numbers of every length, with their carries.
    fn number() -> impl Strategy<Value = u128> {
        (any::<u128>(), 0u32..128, -1i128..=1)
            .prop_map(|(number, shift, by)| (number >> shift).wrapping_add_signed(by))
    }

    proptest! {
        #[test]
        fn sums_and_differences_are_those_of_wide_numbers(a in number(), b in number()) {
            prop_assert_eq!(wide(&add(&halves(a), &halves(b))), a.wrapping_add(b));
            prop_assert_eq!(wide(&span(&halves(a), &halves(b))), b.wrapping_sub(a));
        }

        #[test]
        fn a_hash_leads_into_the_span(hash in any::<u64>(), span in number()) {
            prop_assert!(wide(&from_hash(hash, &halves(span))) <= span);
        }

        #[test]
        fn the_next_one_is_in_the_range(min in number(), span in number(), at in number()) {
            let max = min.saturating_add(span);
            let at = min + at % (max - min).max(1);
            let next = wide(&next_within(&halves(at), &halves(min), &halves(max)));
            prop_assert_eq!(next, if at == max { min } else { at + 1 });
        }
    }

    #[test]
    fn wide_spans_are_used_from_end_to_end() {
        for span in [u128::from(u64::MAX), 1 << 64, 3 << 64, u128::MAX] {
            let numbers: std::vec::Vec<u128> =
                (0..4000).map(|n| wide(&from_hash(mix(n), &halves(span)))).collect();
            let within =
                |part: u128| numbers.iter().filter(|&&number| number / (span / 8 + 1) == part).count();
            for part in 0..8 {
                assert!(within(part) > 150, "{span:#x}: part {part} of 8 has {}", within(part));
            }
        }
    }
}
