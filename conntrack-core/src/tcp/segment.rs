//! What the rules read of a TCP segment: its header fields and three of its options.

use super::sequence::after;
use crate::forget;

/// FIN flag.
pub const FIN: u8 = 0x01;
/// SYN flag.
pub const SYN: u8 = 0x02;
/// RST flag.
pub const RST: u8 = 0x04;
/// PSH flag.
pub const PSH: u8 = 0x08;
/// ACK flag.
pub const ACK: u8 = 0x10;
/// URG flag.
pub const URG: u8 = 0x20;
/// ECE flag.
pub const ECE: u8 = 0x40;
/// CWR flag.
pub const CWR: u8 = 0x80;

/// The header carries options, of whatever kind.
pub const HAS_OPTIONS: u8 = 0x01;
/// A window scale option is among them.
pub const HAS_WINDOW_SCALE: u8 = 0x02;
/// A SACK-permitted option is among them.
pub const HAS_SACK_PERMITTED: u8 = 0x04;
/// A SACK option is among them.
pub const HAS_SACK: u8 = 0x08;

/// A TCP segment; numbers in host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number, whether or not the ACK flag is set.
    pub ack: u32,
    /// With [`HAS_SACK`]: the highest right edge of the SACK blocks, or `ack` if none is beyond it. Each is compared
    /// with the highest one before it, as in Linux: edges that no real end sends, more than half the numbers apart,
    /// may lead all the way round, to one before `ack`.
    pub sack: u32,
    /// Bytes of payload, by the IP header's length.
    pub payload_len: u32,
    /// The window field as it stands, not scaled.
    pub window: u16,
    /// The flags byte: [`FIN`] to [`CWR`].
    pub flags: u8,
    /// What [`Segment::parse_options`] found: [`HAS_OPTIONS`] to [`HAS_SACK`].
    pub options: u8,
    /// The window scale, 0 to 14; 0 without [`HAS_WINDOW_SCALE`].
    pub window_scale: u8,
    /// Explicit padding; zero.
    pub reserved: [u8; 3],
}

const _: () = assert!(size_of::<Segment>() == 24);

/// The option that ends the list.
pub const END_OF_LIST: u8 = 0;
/// The option that fills, of one byte.
pub const NO_OPERATION: u8 = 1;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
/// The option with blocks of what has come out of order (RFC 2018).
pub const SACK: u8 = 5;

/// NOP, NOP, timestamps of 10 bytes: what all but a few segments of a running connection carry.
const ALIGNED_TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];

/// The largest shift that RFC 7323 allows; larger ones mean this one.
const MAX_WINDOW_SCALE: u8 = 14;

/// The largest number of option bytes a TCP header holds.
const MAX_OPTIONS_LEN: u32 = 40;

/// Bit n is set if the flags with value n, PSH, ECE and CWR left out, may stand together.
const VALID_FLAGS: u64 = 1 << SYN
    | 1 << (SYN | URG)
    | 1 << (SYN | ACK)
    | 1 << RST
    | 1 << (RST | ACK)
    | 1 << (FIN | ACK)
    | 1 << (FIN | ACK | URG)
    | 1 << ACK
    | 1 << (ACK | URG);

/// Whether a segment with these flags is legal. PSH, ECE and CWR go with all others.
#[inline(always)]
#[must_use]
pub const fn flags_valid(flags: u8) -> bool {
    VALID_FLAGS >> (flags & (FIN | SYN | RST | ACK | URG)) & 1 != 0
}

impl Segment {
    /// The sequence number after the segment's last octet; SYN and FIN count as one each.
    #[inline(always)]
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.seq
            .wrapping_add(self.payload_len)
            .wrapping_add((self.flags >> 1 & 1) as u32)
            .wrapping_add((self.flags & 1) as u32)
    }

    /// Reads the options into `self`: the `len` bytes behind the fixed part of the header, with which `bytes` begins.
    /// `ack` must be set before.
    ///
    /// The buffer is larger than options can be, so that a masked index is always inside it. Parsing stops
    /// at an option that is cut or has an impossible length, and what came before it counts, as in Linux;
    /// and after SACK blocks, for the two other options come with a SYN only, which has nothing to SACK.
    #[inline(always)]
    pub fn parse_options(&mut self, bytes: &[u8; 64], len: u32) {
        self.options = 0;
        self.window_scale = 0;
        self.sack = self.ack;
        if len == 0 || len > MAX_OPTIONS_LEN {
            return;
        }
        self.options = HAS_OPTIONS;
        if len == 12 && word(bytes, 0).to_be_bytes() == ALIGNED_TIMESTAMPS {
            return;
        }
        // By a counter, and not by leaps from option to option, so that the BPF verifier knows every index.
        let mut skip = 0u32;
        for at in 0..MAX_OPTIONS_LEN {
            if at >= len {
                return;
            }
            if skip > 0 {
                skip = skip.wrapping_sub(1);
                continue;
            }
            let kind = byte(bytes, at);
            if kind == END_OF_LIST {
                return;
            }
            if kind == NO_OPERATION {
                continue;
            }
            let left = len.wrapping_sub(at);
            let size = u32::from(byte(bytes, at.wrapping_add(1)));
            if left < 2 || size < 2 || size > left {
                return;
            }
            match (kind, size) {
                (WINDOW_SCALE, 3) => {
                    self.window_scale = byte(bytes, at.wrapping_add(2)).min(MAX_WINDOW_SCALE);
                    self.options |= HAS_WINDOW_SCALE;
                }
                (SACK_PERMITTED, 2) => self.options |= HAS_SACK_PERMITTED,
                (SACK, 10 | 18 | 26 | 34) => {
                    self.options |= HAS_SACK;
                    self.note_sack_blocks(bytes, at, size);
                    return;
                }
                _ => {}
            }
            skip = forget(size.wrapping_sub(1));
        }
    }

    /// Takes the highest right edge of the SACK option at `at`; it is the second word of each block.
    #[inline(always)]
    fn note_sack_blocks(&mut self, bytes: &[u8; 64], at: u32, size: u32) {
        for edge_at in [6, 14, 22, 30] {
            if edge_at >= size {
                return;
            }
            let edge = word(bytes, at.wrapping_add(edge_at));
            if after(edge, self.sack) {
                self.sack = edge;
            }
        }
    }
}

/// The length of a header without options (RFC 9293, 3.1).
pub const HEADER_LEN: usize = 20;

/// A byte of the options.
#[inline(always)]
fn byte(bytes: &[u8; 64], at: u32) -> u8 {
    bytes[(HEADER_LEN + at as usize) & 63]
}

#[inline(always)]
fn word(bytes: &[u8; 64], at: u32) -> u32 {
    u32::from_be_bytes([
        byte(bytes, at),
        byte(bytes, at.wrapping_add(1)),
        byte(bytes, at.wrapping_add(2)),
        byte(bytes, at.wrapping_add(3)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(options: &[u8]) -> Segment {
        let mut bytes = [0xff; 64];
        bytes[HEADER_LEN..][..options.len()].copy_from_slice(options);
        let mut segment = Segment { ack: 1000, ..Segment::default() };
        segment.parse_options(&bytes, options.len() as u32);
        segment
    }

    fn found(options: &[u8]) -> (u8, u8, u32) {
        let segment = parse(options);
        (segment.options, segment.window_scale, segment.sack)
    }

    #[test]
    fn flags() {
        let valid = [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG];
        for flags in 0..=u8::MAX {
            assert_eq!(flags_valid(flags), valid.contains(&(flags & !(PSH | ECE | CWR))), "{flags:#04x}");
        }
    }

    #[test]
    fn end_counts_syn_and_fin() {
        let end =
            |flags, payload_len| Segment { seq: u32::MAX, flags, payload_len, ..Segment::default() }.end();
        assert_eq!([end(ACK, 0), end(SYN, 0), end(FIN | ACK, 0), end(ACK | PSH, 5)], [u32::MAX, 0, 0, 4]);
        assert_eq!(end(SYN | FIN, 1), 2);
    }

    #[test]
    fn options_of_a_syn() {
        assert_eq!(found(&[]), (0, 0, 1000));
        let linux = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
        assert_eq!(found(&linux), (HAS_OPTIONS | HAS_WINDOW_SCALE | HAS_SACK_PERMITTED, 7, 1000));
        assert_eq!(found(&[3, 3, 15, 0]), (HAS_OPTIONS | HAS_WINDOW_SCALE, 14, 1000));
        assert_eq!(found(&[1, 1, 8, 10, 3, 3, 7, 0, 4, 2, 0, 0]), (HAS_OPTIONS, 0, 1000));
    }

    #[test]
    fn parsing_stops_at_what_makes_no_sense() {
        assert_eq!(found(&[0, 3, 3, 7]), (HAS_OPTIONS, 0, 1000), "end of list");
        assert_eq!(found(&[8, 1, 3, 3, 7]), (HAS_OPTIONS, 0, 1000), "length below 2");
        assert_eq!(found(&[8, 0, 3, 3, 7]), (HAS_OPTIONS, 0, 1000), "length of zero");
        assert_eq!(found(&[1, 3, 3]), (HAS_OPTIONS, 0, 1000), "cut");
        assert_eq!(found(&[1, 3]), (HAS_OPTIONS, 0, 1000), "cut before its length");
        assert_eq!(found(&[4, 2, 3, 4]), (HAS_OPTIONS | HAS_SACK_PERMITTED, 0, 1000), "cut after another");
        assert_eq!(found(&[3, 4, 7, 0]), (HAS_OPTIONS, 0, 1000), "window scale of another length");
        let mut segment = Segment { ack: 5, sack: 9, options: 0xff, window_scale: 3, ..Segment::default() };
        segment.parse_options(&[1; 64], 41);
        assert_eq!((segment.options, segment.window_scale, segment.sack), (0, 0, 5), "longer than a header");
    }

    #[test]
    fn the_highest_sack_edge_beyond_the_ack() {
        let block = |left: u32, right: u32| [left.to_be_bytes(), right.to_be_bytes()].concat();
        let sack = |blocks: &[u8]| {
            let mut options = std::vec![1, 1, 5, 2 + blocks.len() as u8];
            options.extend(blocks);
            found(&options)
        };
        let with_sack = HAS_OPTIONS | HAS_SACK;
        assert_eq!(sack(&block(2000, 3000)), (with_sack, 0, 3000));
        let three = [block(2000, 3000), block(7000, 8000), block(4000, 5000)].concat();
        assert_eq!(sack(&three), (with_sack, 0, 8000));
        let four = [three, block(8500, 9000)].concat();
        assert_eq!(sack(&four), (with_sack, 0, 9000));
        assert_eq!(sack(&block(500, 700)), (with_sack, 0, 1000), "a duplicate reported (RFC 2883)");
        let (half, back) = (1000 + 0x7000_0000, 1000u32.wrapping_add(0xe000_0000));
        assert_eq!(
            sack(&[block(0, half), block(0, back)].concat()),
            (with_sack, 0, back),
            "all the way round"
        );
        assert_eq!(sack(&block(0, back)), (with_sack, 0, 1000), "by itself it is old");
        let and_scale = [block(2000, 3000), [3, 3, 7, 0].to_vec()].concat();
        assert_eq!(found(&[&[5, 10], &and_scale[..]].concat()), (with_sack, 0, 3000), "the last one read");
        assert_eq!(sack(&block(2000, 3000)[..7]), (HAS_OPTIONS, 0, 1000), "half a block");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed(bytes: [[u8; 32]; 2], len: u32, short in 0u32..64) {
            let bytes: [u8; 64] = core::array::from_fn(|i| bytes[i / 32][i % 32]);
            for len in [len, short] {
                let mut segment = Segment::default();
                segment.parse_options(&bytes, len);
                prop_assert!(segment.window_scale <= 14);
                prop_assert!(segment.options & HAS_SACK != 0 || segment.sack == segment.ack);
            }
        }

        #[test]
        fn bytes_beyond_the_length_do_not_matter(
            options in prop::collection::vec(prop_oneof![0u8..9, any::<u8>()], 0..=40),
            rest: u8,
        ) {
            let mut bytes = [rest; 64];
            bytes[HEADER_LEN..][..options.len()].copy_from_slice(&options);
            let mut segment = Segment { ack: 1000, ..Segment::default() };
            segment.parse_options(&bytes, options.len() as u32);
            prop_assert_eq!(segment, parse(&options));
        }
    }
}
