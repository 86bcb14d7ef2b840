//! What must hold for conntrack-core whatever comes, as assertions on inputs that are made of any bytes.
//!
//! Each module is a target of its own in `fuzz_targets`, where libFuzzer looks for bytes that lead elsewhere. The
//! tests here only show that the checks hold for bytes by chance.

use arbitrary::Arbitrary;
use conntrack_core::Direction;

pub mod connection;
pub mod ftp;
pub mod nat;
pub mod sctp;
pub mod seqadj;
pub mod tcp;

/// An input with something to be shown of it.
pub trait Check: for<'a> Arbitrary<'a> {
    /// Panics if it does not hold.
    fn check(&self);
}

/// [`Direction`], made of bytes.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Way {
    /// As the first packet.
    Original,
    /// Against it.
    Reply,
}

impl From<Way> for Direction {
    fn from(way: Way) -> Self {
        match way {
            Way::Original => Self::Original,
            Way::Reply => Self::Reply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arbitrary::Unstructured;

    /// Numbers by chance, the same in each run (splitmix64).
    fn chance(seed: u64) -> impl Iterator<Item = u8> {
        (1u64..)
            .map(move |n| {
                let mixed = n.wrapping_add(seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                mixed ^ (mixed >> 31)
            })
            .flat_map(u64::to_le_bytes)
    }

    /// Miri is slow.
    const INPUTS: u64 = if cfg!(miri) { 20 } else { 3000 };

    fn holds_for_any_bytes<T: Check>() {
        for seed in 0..INPUTS {
            let bytes: Vec<u8> = chance(seed).take(seed as usize % 500).collect();
            if let Ok(input) = T::arbitrary_take_rest(Unstructured::new(&bytes)) {
                input.check();
            }
        }
    }

    #[test]
    fn connection() {
        holds_for_any_bytes::<connection::Memory>();
    }

    #[test]
    fn ftp() {
        holds_for_any_bytes::<ftp::Text>();
    }

    #[test]
    fn nat() {
        holds_for_any_bytes::<nat::Table>();
    }

    #[test]
    fn sctp() {
        holds_for_any_bytes::<sctp::Association>();
    }

    #[test]
    fn seqadj() {
        holds_for_any_bytes::<seqadj::Stream>();
    }

    #[test]
    fn tcp() {
        holds_for_any_bytes::<tcp::Story>();
    }
}
