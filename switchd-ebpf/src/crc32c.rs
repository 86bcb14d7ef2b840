//! SCTP's checksum: CRC-32C, reflected (RFC 9260, appendix A).
//!
//! A CRC is linear: what a change of some bytes does to it depends on those bytes and on how many follow. So a changed
//! port needs no second look at the packet.

/// The polynomial, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What the register becomes when a byte is shifted through, by its low byte.
static BYTES: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = shifted(byte as u32, 8);
        byte += 1;
    }
    table
};

/// Lengths have that many bits.
const LENGTH_BITS: usize = 16;

/// What each bit of the register becomes when 2ⁿ zero bytes are shifted through: the rows of a matrix, for each n.
static ZEROS: [[u32; 32]; LENGTH_BITS] = {
    let mut powers = [[0; 32]; LENGTH_BITS];
    let mut bit = 0;
    while bit < 32 {
        powers[0][bit] = shifted(1 << bit, 8);
        bit += 1;
    }
    let mut n = 1;
    while n < LENGTH_BITS {
        let mut bit = 0;
        while bit < 32 {
            powers[n][bit] = times(&powers[n - 1], powers[n - 1][bit]);
            bit += 1;
        }
        n += 1;
    }
    powers
};

/// The register after `bits` zero bits.
const fn shifted(mut register: u32, bits: u32) -> u32 {
    let mut i = 0;
    while i < bits {
        register = (register >> 1) ^ ((register & 1) * POLYNOMIAL);
        i += 1;
    }
    register
}

/// A matrix times a register.
#[inline(always)]
const fn times(matrix: &[u32; 32], register: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        // Without a branch: the verifier would follow both ways, 32 times over.
        product ^= (register >> bit & 1).wrapping_neg() & matrix[bit];
        bit += 1;
    }
    product
}

/// The register that a sum begins with.
pub const START: u32 = u32::MAX;

/// Shifts a byte through the register.
#[inline(always)]
#[must_use]
pub fn push(register: u32, byte: u8) -> u32 {
    register >> 8 ^ BYTES[(opaque(register ^ u32::from(byte)) & 0xff) as usize]
}

/// The same word, but one of which LLVM knows nothing. It would mask `register` before the exclusive or, where that is as
/// good; but of an exclusive or with a number that it does not know, the verifier before Linux 6.10 knows nothing.
#[inline(always)]
fn opaque(word: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut hidden = word;
        // SAFETY: a move to itself. (An empty one breaks BTF line info.)
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) hidden, options(pure, nomem, nostack)) };
        hidden
    }
    #[cfg(not(target_arch = "bpf"))]
    word
}

/// The checksum, as a number whose low byte comes first on the wire, when four bytes have changed by exclusive-or with
/// `difference`, and `behind` bytes follow them.
#[inline(always)]
#[must_use]
pub fn correct(checksum: u32, difference: [u8; 4], behind: u32) -> u32 {
    let mut register = 0;
    let mut i = 0;
    while i < 4 {
        register = push(register, difference[i]);
        i += 1;
    }
    let mut n = 0;
    while n < LENGTH_BITS {
        let chosen = (behind >> n & 1).wrapping_neg();
        register = times(&ZEROS[n], register) & chosen | register & !chosen;
        n += 1;
    }
    checksum ^ register
}

#[cfg(test)]
mod tests {
    extern crate std;
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    fn whole(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(START, |register, &byte| push(register, byte))
    }

    /// RFC 3720, B.4.
    #[test]
    fn known_sums() {
        assert_eq!(whole(&[0; 32]), 0x8a91_36aa);
        assert_eq!(whole(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(whole(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(whole(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn correcting_equals_summing_again(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..3000),
            difference in any::<[u8; 4]>(),
            at in any::<prop::sample::Index>(),
        ) {
            let before = whole(&bytes);
            let at = at.index(bytes.len() - 3);
            (0..4).for_each(|i| bytes[at + i] ^= difference[i]);
            let behind = (bytes.len() - at - 4) as u32;
            prop_assert_eq!(correct(before, difference, behind), whole(&bytes));
        }
    }
}
