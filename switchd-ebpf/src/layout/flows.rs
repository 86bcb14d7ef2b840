//! The flow tables: subtables, what leads from a masked key to a rule, actions, and counters.

use core::mem::size_of;

use crate::key::WORDS;

/// How many key words a subtable's mask uses, rounded up to what fills the lines of an [`Entry`]: one, two, or all
/// that there can be.
pub const WIDTHS: [usize; 3] = [3, 11, WORDS];
/// The lines of an entry of each width.
pub const LINES: [usize; 3] = [1, 2, 5];

/// Places of a list that a search sees at once.
pub const WINDOW: u32 = 8;

/// A subtable's place in the list of its table. A list is sorted by falling `rank`, so that a search ends as soon as
/// what was found ranks as high as anything that may follow. Its places lie in a row, so that the processor need not
/// wait for one to know where the next is. One that packets may see does not change: another list takes its place.
///
/// One cache line: all that a search reads of a mask of few words. Wider ones go on in a [`WideMask`].
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Listed {
    /// Bits of the mask's first word that all rules of the subtable want the same, and (in `common`) what they
    /// want: a key that differs in one of them needs no probe.
    pub agreed: u64,
    /// See `agreed`.
    pub common: u64,
    /// No rule of the subtable ranks higher (see [`RuleRef::rank`]); 0 ends the list.
    pub rank: u32,
    /// The subtable's number: the first word of its entries' keys, and where its [`WideMask`] is.
    pub subtable: u32,
    /// Index into [`WIDTHS`].
    pub width: u8,
    /// The key words that the mask uses first; where it uses fewer, 31 with an empty mask.
    pub index: [u8; WIDTHS[0]],
    /// Zero.
    pub pad: [u8; 4],
    /// Their masks.
    pub mask: [u64; WIDTHS[0]],
}

impl Listed {
    /// One that matches everything, and ends a list.
    pub const END: Self = Self {
        agreed: 0,
        common: 0,
        rank: 0,
        subtable: 0,
        width: 0,
        index: [31; WIDTHS[0]],
        pad: [0; 4],
        mask: [0; WIDTHS[0]],
    };
}

/// The key words that a mask uses after those that [`Listed`] has room for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WideMask {
    /// As [`Listed::index`]. The last three count for nothing.
    pub index: [u8; WORDS],
    /// As [`Listed::mask`].
    pub mask: [u64; WORDS - WIDTHS[0]],
}

impl WideMask {
    /// No words.
    pub const EMPTY: Self = Self { index: [31; WORDS], mask: [0; WORDS - WIDTHS[0]] };
}

/// The key of a subtable's entry: the subtable's number and the masked words, of which as many count as the
/// subtable's width says. The last three are zero: they fill the last line of the widest entry.
pub type Probe = [u64; WORDS + 4];

/// What a classifier entry says about a masked key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleRef {
    /// The rule's priority plus one; 0: no rule.
    pub rank: u32,
    /// Its counters.
    pub rule: u32,
    /// Its first action; with [`op::DIRECT`], the OpenFlow number of the port to which its only one sends.
    pub ops: u32,
}

/// The highest-priority rule of a masked key, before and after a change. One cache line: all that a hit reads of a
/// key of few words. Wider ones go on in the lines that follow (see [`Entry::more`]).
///
/// An entry changes in place, while packets look at it. What `before` says is seen by nobody: it becomes what
/// packets of the next version are to see, and then one store of `state` turns the two around.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The next entry of the same bucket; 0: none. Changed by atomic stores.
    pub next: u32,
    /// The subtable.
    pub subtable: u32,
    /// In the high 63 bits the version since which packets see one of `rules`, and in bit 0 which one; earlier ones
    /// see the other. Changed by atomic stores.
    pub state: u64,
    /// See `state`.
    pub rules: [RuleRef; 2],
    /// The first masked words.
    pub words: [u64; 3],
}

impl Entry {
    /// What packets of a version see.
    #[inline(always)]
    #[must_use]
    pub fn rule(&self, version: u64) -> &RuleRef {
        // SAFETY: a reference is valid for reads; the word is read once, since it may change meanwhile.
        let state = unsafe { core::ptr::read_volatile(&raw const self.state) };
        let other = state >> 1 > version;
        if (state & 1 != 0) ^ other { &self.rules[1] } else { &self.rules[0] }
    }

    /// A line after the first: eight masked words, or as many as are left.
    #[must_use]
    pub fn of_words(words: &[u64]) -> Self {
        let mut line = [0; 8];
        line.iter_mut().zip(words).for_each(|(to, word)| *to = *word);
        // SAFETY: of the same size, and valid for any bit pattern.
        unsafe { core::mem::transmute(line) }
    }

    /// The line as eight masked words: what those after an entry's first one are.
    #[inline(always)]
    #[must_use]
    pub fn more(&self) -> &[u64; 8] {
        const { assert!(size_of::<Self>() == size_of::<[u64; 8]>()) };
        // SAFETY: of the same size, aligned, without padding, and valid for any bit pattern.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }
}

/// A rule's counters on one CPU. Written by that CPU alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCounter {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// When the last one came: nanoseconds of the coarse monotonic clock.
    pub used: u64,
    /// Keeps four counters from sharing a cache line with a fifth.
    pub pad: u64,
}

/// A table's counters on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableCounter {
    /// Look-ups.
    pub lookups: u64,
    /// Those that found a rule.
    pub matched: u64,
}

/// One action, compiled. `code` is one of [`op`]; the other fields are what that code says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Op {
    /// What to do.
    pub code: u8,
    /// A word of the key, mostly.
    pub a: u8,
    /// Another word, a table, or a shift.
    pub b: u16,
    /// A port, flags, or a zone.
    pub c: u32,
    /// A value.
    pub value: u64,
    /// The bits that count.
    pub mask: u64,
}

/// The codes of [`Op`].
pub mod op {
    /// The end of a rule's actions. Code 0, so that unwritten memory ends a list.
    pub const END: u8 = 0;
    /// `key[a] = key[a] & !mask | value`; `value` lies within `mask`. With `b` other than 0, only for packets of
    /// that Ethernet type.
    pub const SET: u8 = 1;
    /// Bits of `key[a]` to bits of `key[b & 0xff]`: `mask` is as wide as the run and right-aligned, the low
    /// byte of `c` is the shift to read at, the next the shift to write at.
    pub const MOVE: u8 = 2;
    /// To port `c`, an OpenFlow number, reserved ones included.
    pub const OUTPUT: u8 = 3;
    /// To the port whose number is in `key[a] >> b & mask`.
    pub const OUTPUT_REG: u8 = 4;
    /// Looks up table `b` and comes back; `c`, unless [`NO_PORT`], is the look-up's port of entry.
    pub const RESUBMIT: u8 = 5;
    /// Looks up table `b`, and nothing after it.
    pub const GOTO: u8 = 6;
    /// Connection tracking: `c` holds [`CT_COMMIT`] and the like, `b` the table of `CT_TABLE`, `value` the
    /// constant zone; with `CT_ZONE_FIELD` the zone is `key[a] >> value & 0xffff`.
    pub const CT: u8 = 7;
    /// Forgets what connection tracking found.
    pub const CT_CLEAR: u8 = 8;
    /// As [`SET`], to the connection that the next [`CT`] finds.
    pub const CT_SET: u8 = 9;
    /// As [`MOVE`], to the connection that the next [`CT`] finds.
    pub const CT_MOVE: u8 = 10;
    /// One hop less; at the last one the packet goes no further.
    pub const DEC_TTL: u8 = 11;
    /// Keeps the packet's present state for the matching [`UNCLONE`].
    pub const CLONE: u8 = 12;
    /// Back to the state that [`CLONE`] kept.
    pub const UNCLONE: u8 = 13;
    /// Adds an empty 802.1Q tag.
    pub const PUSH_VLAN: u8 = 14;
    /// What the next [`CT`] may translate to: `b` holds the flags of [`conntrack_core::nat::Range`], `c` the lowest
    /// port (high half) and the highest, `value` and `mask` the low halves of the lowest and the highest address.
    pub const NAT: u8 = 15;
    /// The high halves of the addresses of the [`NAT`] before it, likewise.
    pub const NAT_HIGH: u8 = 16;

    /// In [`RuleRef::ops`](super::RuleRef::ops): the only action is an output to a port of a device.
    pub const DIRECT: u32 = 1 << 31;
    /// [`RESUBMIT`] with the packet's own port of entry.
    pub const NO_PORT: u32 = u32::MAX;
    /// [`CT`]: commit.
    pub const CT_COMMIT: u32 = 1;
    /// [`CT`]: force.
    pub const CT_FORCE: u32 = 2;
    /// [`CT`]: the packet goes on in a table, or a copy of it.
    pub const CT_TABLE: u32 = 4;
    /// [`CT`]: the zone comes from a field.
    pub const CT_ZONE_FIELD: u32 = 8;
    /// [`CT`]: translate, as the connection says, or as the preceding [`NAT`] does for a new one.
    pub const CT_NAT: u32 = 16;
    /// [`CT`]: a connection that is committed gets the helper for FTP.
    pub const CT_FTP: u32 = 32;
    /// [`CT`]: a connection that is committed gets the helper for TFTP.
    pub const CT_TFTP: u32 = 64;
    /// [`CT`]: no action follows.
    pub const CT_LAST: u32 = 128;
}

assert_size!(Listed = 64, WideMask = 264, Entry = 64, RuleCounter = 32, Op = 24,);
