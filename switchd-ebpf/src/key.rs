//! The flow key: every field that a flow can match or an action can read or write, as 32 words of 64 bits.
//!
//! A field is a run of bits at a fixed [`Location`]. Values are plain integers in host order: bit 0 of a
//! field is its least significant bit, whatever the byte order on the wire. Fields that rules most often
//! match together share a word, because the classifier hashes only the words that a mask uses.
//!
//! Layers that never meet share storage, as in OVS: ARP's protocol addresses sit in [`IPV4_SRC`] and
//! [`IPV4_DST`], its opcode in [`IP_PROTO`], ICMP type and code in [`TP_SRC`] and [`TP_DST`], the ND link
//! layer addresses in [`ARP_SHA`] and [`ARP_THA`].

/// Number of words in a [`Key`]. A power of two, so that a masked index needs no bounds check; the last word
/// is free.
pub const WORDS: usize = 32;

/// A flow key, or a mask over one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The words; see the constants of this module for what lies where.
    pub words: [u64; WORDS],
}

impl Key {
    /// The key with every bit zero.
    pub const ZERO: Self = Self { words: [0; WORDS] };

    /// Reads a field, right-aligned.
    #[must_use]
    pub fn get(&self, at: Location) -> u128 {
        let word = at.word as usize;
        if at.bits == 128 {
            return (u128::from(self.words[word]) << 64) | u128::from(self.words[word + 1]);
        }
        u128::from((self.words[word] >> at.shift) & at.low_mask())
    }

    /// Writes a field from the low bits of `value`; excess bits are dropped.
    pub fn set(&mut self, at: Location, value: u128) {
        let word = at.word as usize;
        if at.bits == 128 {
            self.words[word] = (value >> 64) as u64;
            self.words[word + 1] = value as u64;
            return;
        }
        let mask = at.low_mask() << at.shift;
        self.words[word] = (self.words[word] & !mask) | (((value as u64) << at.shift) & mask);
    }
}

impl Key {
    /// The words that stand for the packet's headers.
    #[inline(always)]
    #[must_use]
    pub fn headers(&self) -> &[u64; HEADER_WORDS] {
        const { assert!(HEADER_WORDS <= WORDS) };
        // SAFETY: the array begins with that many words.
        unsafe { &*self.words.as_ptr().cast() }
    }

    /// The same, to be changed.
    #[inline(always)]
    pub fn headers_mut(&mut self) -> &mut [u64; HEADER_WORDS] {
        // SAFETY: as above.
        unsafe { &mut *self.words.as_mut_ptr().cast() }
    }
}

impl Default for Key {
    fn default() -> Self {
        Self::ZERO
    }
}

/// Where a field lies in a [`Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The word that holds it. A field of 128 bits has its high half here and its low half in the next word.
    pub word: u8,
    /// The field's bit 0 is this bit of the word; 0 for fields of 64 and 128 bits.
    pub shift: u8,
    /// The width: 1 to 64, or 128.
    pub bits: u8,
}

impl Location {
    const fn new(word: u8, shift: u8, bits: u8) -> Self {
        assert!(bits == 128 && shift == 0 || bits >= 1 && shift + bits <= 64);
        Self { word, shift, bits }
    }

    /// Ones in the field's width, right-aligned (for 128 bits: of one word).
    #[must_use]
    pub const fn low_mask(self) -> u64 {
        if self.bits >= 64 { u64::MAX } else { (1 << self.bits) - 1 }
    }
}

/// OpenFlow number of the port of entry.
pub const IN_PORT: Location = Location::new(0, 0, 16);
/// Ethernet type, after the VLAN tag if there is one; 0x05ff for 802.3 frames without SNAP.
pub const ETH_TYPE: Location = Location::new(0, 16, 16);
/// IP protocol (the last header's, for IPv6), or the ARP opcode's low 8 bits.
pub const IP_PROTO: Location = Location::new(0, 32, 8);
/// Connection state: the bits of [`conntrack_core::ct_state`].
pub const CT_STATE: Location = Location::new(0, 40, 8);
/// Bit 0: a fragment; bit 1: not the first one.
pub const IP_FRAG: Location = Location::new(0, 48, 8);
/// IPv4 TOS or IPv6 traffic class: DSCP in the high 6 bits, ECN in the low 2.
pub const IP_TOS: Location = Location::new(0, 56, 8);
/// The DSCP bits of [`IP_TOS`].
pub const IP_DSCP: Location = Location::new(0, 58, 6);
/// The ECN bits of [`IP_TOS`].
pub const IP_ECN: Location = Location::new(0, 56, 2);

/// Ethernet destination.
pub const ETH_DST: Location = Location::new(1, 0, 48);
/// VLAN tag control information, with bit 12 (CFI) set when there is a tag, all zero when there is none.
pub const VLAN_TCI: Location = Location::new(1, 48, 16);
/// The VLAN id within [`VLAN_TCI`].
pub const VLAN_VID: Location = Location::new(1, 48, 12);
/// The priority within [`VLAN_TCI`].
pub const VLAN_PCP: Location = Location::new(1, 61, 3);
/// Ethernet source.
pub const ETH_SRC: Location = Location::new(2, 0, 48);
/// TCP flags (12 bits used: NS to FIN).
pub const TCP_FLAGS: Location = Location::new(2, 48, 16);

/// IPv4 source, or ARP sender protocol address.
pub const IPV4_SRC: Location = Location::new(3, 32, 32);
/// IPv4 destination, or ARP target protocol address.
pub const IPV4_DST: Location = Location::new(3, 0, 32);

/// TCP, UDP or SCTP source port, or ICMP/ICMPv6 type.
pub const TP_SRC: Location = Location::new(4, 48, 16);
/// TCP, UDP or SCTP destination port, or ICMP/ICMPv6 code.
pub const TP_DST: Location = Location::new(4, 32, 16);
/// IPv4 TTL or IPv6 hop limit.
pub const IP_TTL: Location = Location::new(4, 24, 8);
/// IPv6 flow label.
pub const IPV6_LABEL: Location = Location::new(4, 0, 20);

/// IPv6 source.
pub const IPV6_SRC: Location = Location::new(5, 0, 128);
/// IPv6 destination.
pub const IPV6_DST: Location = Location::new(7, 0, 128);

/// ARP sender hardware address, or ND source link layer address.
pub const ARP_SHA: Location = Location::new(9, 0, 48);
/// ARP target hardware address, or ND target link layer address.
pub const ARP_THA: Location = Location::new(10, 0, 48);
/// ND target address.
pub const ND_TARGET: Location = Location::new(11, 0, 128);

/// The word of what address translation adds to numbers in the packet that are no fields of the key: for TCP, to the
/// sequence number (high half) and the acknowledgment number; for an ICMP query, to the identifier (low 16 bits). Zero
/// as parsed. It is the first of [`ND_TARGET`], which such packets do not have.
pub const SHIFTS: usize = 11;

/// The first word that is not read from or written to the packet's headers.
pub const HEADER_WORDS: usize = 13;

/// Mark of the packet's connection.
pub const CT_MARK: Location = Location::new(13, 0, 32);
/// Zone of the packet's connection.
pub const CT_ZONE: Location = Location::new(13, 32, 16);
/// IP protocol of the connection's original tuple.
pub const CT_NW_PROTO: Location = Location::new(13, 48, 8);
/// Label of the packet's connection.
pub const CT_LABEL: Location = Location::new(14, 0, 128);
/// IPv4 source of the connection's original tuple.
pub const CT_NW_SRC: Location = Location::new(16, 32, 32);
/// IPv4 destination of the connection's original tuple.
pub const CT_NW_DST: Location = Location::new(16, 0, 32);
/// Source port, or ICMP type, of the connection's original tuple.
pub const CT_TP_SRC: Location = Location::new(17, 48, 16);
/// Destination port, or ICMP code, of the connection's original tuple.
pub const CT_TP_DST: Location = Location::new(17, 32, 16);
/// Packet mark.
pub const PKT_MARK: Location = Location::new(17, 0, 32);
/// IPv6 source of the connection's original tuple.
pub const CT_IPV6_SRC: Location = Location::new(18, 0, 128);
/// IPv6 destination of the connection's original tuple.
pub const CT_IPV6_DST: Location = Location::new(20, 0, 128);

/// OpenFlow metadata.
pub const METADATA: Location = Location::new(22, 0, 64);

/// 32-bit register `n`, 0 to 15. `reg(2n)` is the high half of `xreg(n)`, as in OVS.
#[must_use]
pub const fn reg(n: u8) -> Location {
    assert!(n < 16);
    Location::new(23 + n / 2, if n.is_multiple_of(2) { 32 } else { 0 }, 32)
}

/// 64-bit register `n`, 0 to 7.
#[must_use]
pub const fn xreg(n: u8) -> Location {
    assert!(n < 8);
    Location::new(23 + n, 0, 64)
}

/// 128-bit register `n`, 0 to 3.
#[must_use]
pub const fn xxreg(n: u8) -> Location {
    assert!(n < 4);
    Location::new(23 + 2 * n, 0, 128)
}
