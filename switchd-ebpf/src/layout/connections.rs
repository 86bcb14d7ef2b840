//! Connection tracking: zones, tuples, records, and what goes with them.

use core::mem::{offset_of, size_of};

use conntrack_core::Connection;
use conntrack_core::ftp::Lines;
use conntrack_core::seqadj::Shifts;

/// Timeout policies that there can be. Policy 0 is that of all zones without one of their own.
pub const MAX_POLICIES: u32 = 1024;

/// Zones of connection tracking: all that 16 bits can name.
pub const ZONES: u32 = 65536;

/// What the daemon wants of a zone, and what the datapath has counted in it. One of [`ZONES`] elements, in shared
/// memory. The counts are written by the datapath alone, by atomic addition, so that they are exact.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Connections that are alive, expired ones included.
    pub connections: u64,
    /// Connections made so far.
    pub created: u64,
    /// Packets dropped because their connection could not be made: no room, the limit, no free translation.
    pub refused: u64,
    /// Connections removed to make room.
    pub evicted: u64,
    /// Connections removed because they had expired.
    pub expired: u64,
    /// Packets found invalid.
    pub invalid: u64,
    /// With [`zone_flags::LIMIT`], the most connections that the zone may have; 0: as many as there is room for.
    pub limit: u32,
    /// The policy that its new connections get: an index into the timeouts, kept in [`Record::policy`].
    pub policy: u16,
    /// See [`zone_flags`].
    pub flags: u16,
    /// Zero: fills a cache line.
    pub pad: u64,
}

/// Bits of [`Zone::flags`].
pub mod zone_flags {
    /// The zone has a limit of its own in the place of [`Config::default_limit`](crate::layout::Config::default_limit).
    pub const LIMIT: u16 = 1;
}

/// What happened to a connection, as the datapath tells whoever listens.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// One of [`event`].
    pub kind: u32,
    /// The record's number.
    pub number: u32,
    /// When: nanoseconds of the coarse monotonic clock.
    pub at: u64,
    /// The connection as it is then; of one that ends, as it was.
    pub record: Record,
}

/// The kinds of [`Event`].
pub mod event {
    /// A connection was made.
    pub const NEW: u32 = 0;
    /// Its state or status changed, or its mark or label.
    pub const UPDATE: u32 = 1;
    /// It ended.
    pub const DESTROY: u32 = 2;
}

/// Bytes of the ring that events go through. A power of two.
pub const EVENTS_SIZE: u32 = 1 << 20;

/// A connection's tuple in one direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address, high half first. IPv4 addresses are in the low 32 bits of the second word.
    pub src: [u64; 2],
    /// Destination address likewise.
    pub dst: [u64; 2],
    /// See [`Ports`].
    pub ports: Ports,
}

/// What a tuple has beside its addresses.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ports {
    /// Source port; the identifier for ICMP.
    pub src: u16,
    /// Destination port; type (high byte) and code for ICMP.
    pub dst: u16,
    /// The zone.
    pub zone: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
}

impl Ports {
    /// All of it in one word.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        // SAFETY: of the same size and alignment, and without padding.
        unsafe { core::mem::transmute(self) }
    }
}

/// Words of a datagram's bits, one for each unit of eight octets. A power of two.
pub const DATAGRAM_WORDS: u32 = 128;

/// Datagrams whose fragments are known at once.
pub const MAX_DATAGRAMS: u32 = 4096;

/// A datagram that comes in fragments. All but `expires` is accessed by atomic operations: fragments of one datagram
/// may come on two CPUs.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    /// When it is forgotten: nanoseconds of the coarse monotonic clock.
    pub expires: u64,
    /// What its first fragment was told: the ports of its tuple (source in the high 16 bits, then destination), the
    /// bits of [`datagram`], the protocol from bit 16, and the ct_state from bit 0.
    pub result: u64,
    /// Its length in octets, once its last fragment has come; 0 until then.
    pub end: u64,
    /// Units that have come.
    pub received: u64,
    /// TCP: the sequence number of its first octet, if the header's octets counted.
    pub base: u64,
    /// Zero.
    pub pad: u64,
    /// The units that have come: unit `n` is bit `n % 64` of word `n / 64`.
    pub seen: [u64; DATAGRAM_WORDS as usize],
}

impl Datagram {
    /// One of which nothing has come.
    pub const EMPTY: Self = Self {
        expires: 0,
        result: 0,
        end: 0,
        received: 0,
        base: 0,
        pad: 0,
        seen: [0; DATAGRAM_WORDS as usize],
    };
}

/// Bits of [`Datagram::result`].
pub mod datagram {
    /// The first fragment has come, and the rest of the word is valid.
    pub const READY: u64 = 1 << 31;
    /// Fragments overlap, or do not fit.
    pub const BAD: u64 = 1 << 30;
    /// All have come.
    pub const WHOLE: u64 = 1 << 29;
}

/// Tuples that one [`TupleBucket`] has room for.
pub const TUPLES_PER_BUCKET: usize = 24;

/// Tuples whose hashes fall together, in two cache lines: the first has all that a search needs for eight of them. A
/// place is taken and given back without regard to its neighbours, and nothing ever moves: who looks for a tuple needs
/// no lock.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct TupleBucket {
    /// Held (1) by whoever adds a tuple, so that there are never two equal ones. Accessed atomically.
    pub lock: u64,
    /// Of each tuple eight bits of its hash, never 0; 0: the place is free. The first place is the lowest byte. Changed
    /// by atomic addition.
    pub tags: [u64; TUPLES_PER_BUCKET / 8],
    /// Of each tuple the number of its record, shifted left by one, with the direction in bit 0. Written whole, before
    /// the tag.
    pub references: [u32; TUPLES_PER_BUCKET],
}

impl TupleBucket {
    /// One that holds nothing.
    pub const EMPTY: Self =
        Self { lock: 0, tags: [0; TUPLES_PER_BUCKET / 8], references: [0; TUPLES_PER_BUCKET] };
}

/// Buckets for the tuples of so many connections: four tuples to each, so that one that is full is not to be expected
/// in any switch's life (for a mean of 4, the Poisson distribution has more than 24 once in 10^12).
#[must_use]
pub fn tuple_buckets(connections: u32) -> u32 {
    connections.div_ceil(2).clamp(2, 1 << 27).next_power_of_two()
}

/// How tuples are hashed: with keys by chance, so that nobody can choose packets that fall into one bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TupleHash {
    /// One for each word of a [`Tuple`].
    pub keys: [u64; 5],
    /// Two odd ones for their sum.
    pub mixers: [u64; 2],
    /// How far the hash is shifted right to give the number of a bucket.
    pub shift: u64,
}

impl TupleHash {
    /// For a power of two of buckets, with keys that `random` gives.
    pub fn new(buckets: u32, mut random: impl FnMut() -> u64) -> Self {
        let keys = core::array::from_fn(|_| random());
        let mixers = core::array::from_fn(|_| random() | 1);
        Self { keys, mixers, shift: 64 - u64::from(buckets.trailing_zeros()) }
    }
}

/// A connection. Its tuples lead here from their [`TupleBucket`]s; whether it is one is said by [`Record::life`].
///
/// Races. The two directions of a connection run on two CPUs. All but `life` and `expires` are
/// written only while the lock bit of `life` is held, or before the record is alive. `life` itself changes
/// only by compare-and-swap, but for the unlock, which only the holder of the lock writes. The daemon reads
/// a record without the lock and takes it for consistent when `life` is the same before and after; it never
/// writes to one: removal is the reaper program's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Record {
    /// See [`life`].
    pub life: u64,
    /// When it expires: nanoseconds of the coarse monotonic clock.
    pub expires: u64,
    /// Packets, original and reply direction.
    pub packets: [u64; 2],
    /// Bytes likewise.
    pub bytes: [u64; 2],
    /// The label, high half first.
    pub label: [u64; 2],
    /// The protocol's state.
    pub connection: Connection,
    /// The mark.
    pub mark: u32,
    /// Its timeouts: an index into them, from the zone that it was committed in.
    pub policy: u16,
    /// One of [`helper`].
    pub helper: u16,
    /// The tuples, original and reply; mirror images of each other unless the connection is translated. IPv4
    /// addresses are in the low 32 bits of the second word.
    pub tuples: [Tuple; 2],
    /// The [`life::owner`] of the connection that expected this one, if its status says that it was expected.
    pub parent: u64,
    /// When it was made.
    pub created: u64,
    /// Where the tuples are (see [`place`]).
    pub places: [u32; 2],
}

// The original tuple ends with a cache line: all packets show it, and those that have it need not look at the next line.
const _: () = assert!(size_of::<Record>() == 256 && offset_of!(Record, tuples) + size_of::<Tuple>() == 192);

/// Where a tuple is: the number of its [`TupleBucket`], shifted left by five, and the place in that.
pub mod place {
    /// Nowhere: a place that no bucket has.
    pub const NONE: u32 = u32::MAX;

    /// The place of a bucket.
    #[inline(always)]
    #[must_use]
    pub const fn of(bucket: u32, place: usize) -> u32 {
        bucket << 5 | place as u32
    }

    /// The bucket, and the place in it.
    #[inline(always)]
    #[must_use]
    pub const fn parts(place: u32) -> (u32, usize) {
        (place >> 5, place as usize & 31)
    }
}

/// What reads the packets of a connection, to learn which others to expect.
pub mod helper {
    /// Nothing does.
    pub const NONE: u16 = 0;
    /// FTP's control connection.
    pub const FTP: u16 = 1;
    /// TFTP.
    pub const TFTP: u16 = 2;
}

/// Connections with a helper that can announce others at once, and announcements that can be open.
pub const MAX_HELPED: u32 = 65536;

/// What a helper keeps of its connection. Found by the record's [`life::owner`]; made, changed and read while the
/// record's lock is held, so that none is made for a connection that is gone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Help {
    /// How sequence numbers are adjusted.
    pub shifts: Shifts,
    /// Where lines begin in what is sent in the original and the reply direction.
    pub lines: [Lines; 2],
    /// The key of the [`Expectation`] that the connection made last.
    pub expected: Tuple,
    /// Not 0: there is one.
    pub expects: u64,
}

/// A connection that another one has announced. Found by the tuple of its first packet, with source port 0: it may
/// come from any.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// When it is forgotten: nanoseconds of the coarse monotonic clock.
    pub expires: u64,
    /// The [`life::owner`] of the record whose connection announced it.
    pub parent: u64,
    /// The port that was announced; a translation may have put another one in its place.
    pub port: u16,
    /// The [`conntrack_core::Direction`] in which it was announced.
    pub direction: u8,
    /// Zero.
    pub pad: [u8; 5],
}

/// The word that says whether a record is alive, whose it is, and that serialises its updates.
///
/// From the top: 32 bits of generation, which go up when the record dies; 30 bits that go up with each
/// update; the lock; and whether it is alive. One that is locked but not alive is about to be. A reader who finds the same word twice has read one state in
/// between. A removal swaps exactly the word that was judged, and so fails if the connection has been
/// touched since.
pub mod life {
    /// Alive: look-ups may find it.
    pub const ALIVE: u64 = 1;
    /// Locked: somebody changes it.
    pub const LOCKED: u64 = 2;
    /// One update.
    pub const UPDATE: u64 = 4;
    /// One generation.
    pub const GENERATION: u64 = 1 << 32;

    /// The generation.
    #[must_use]
    pub const fn generation(word: u64) -> u32 {
        (word >> 32) as u32
    }

    /// Which connection a record holds, for others to refer to: the record's number in the low half, its generation
    /// in the high half.
    #[must_use]
    pub const fn owner(number: u32, word: u64) -> u64 {
        word & !0xffff_ffff | number as u64
    }

    /// The word after an update: unlocked, the update counter one up, carrying nothing into the generation.
    #[must_use]
    pub const fn updated(word: u64) -> u64 {
        let counted = word.wrapping_add(UPDATE) & 0xffff_fffc;
        word & !0xffff_ffff | counted | word & ALIVE
    }

    /// The word after the death of the record: the next generation, neither alive nor locked.
    #[must_use]
    pub const fn dead(word: u64) -> u64 {
        (word & !0xffff_ffff).wrapping_add(GENERATION)
    }
}

/// What the daemon asks the reaper program to remove: the record, if its life is still this word, or at least of the same
/// generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Reap {
    /// The life that was judged.
    pub life: u64,
    /// The record.
    pub record: u32,
    /// One of [`reap`].
    pub state: u32,
}

/// States of a [`Reap`].
pub mod reap {
    /// Updates since the judgement save the connection.
    pub const AS_JUDGED: u32 = 0;
    /// They do not.
    pub const WHATEVER: u32 = 1;
    /// The reaper has removed it.
    pub const DONE: u32 = 2;
}

/// Records that one run of the reaper takes.
pub const REAP_BATCH: u32 = 4096;

assert_size!(
    Zone = 64,
    Record = 256,
    Event = 272,
    Tuple = 40,
    TupleBucket = 128,
    Reap = 16,
    Help = 104,
    Expectation = 24,
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::life;

    proptest! {
        #[test]
        fn an_update_unlocks_and_changes_nothing_but_the_counter(word in any::<u64>()) {
            let after = life::updated(word);
            prop_assert_eq!(life::generation(after), life::generation(word));
            prop_assert_eq!(after & life::ALIVE, word & life::ALIVE);
            prop_assert_eq!(after & life::LOCKED, 0);
            let counter = |word: u64| (word as u32) >> 2;
            prop_assert_eq!(counter(after), (counter(word) + 1) & 0x3fff_ffff);
        }

        #[test]
        fn a_dead_record_is_of_the_next_generation_and_nothing_else(word in any::<u64>()) {
            let after = life::dead(word);
            prop_assert_eq!(life::generation(after), life::generation(word).wrapping_add(1));
            prop_assert_eq!(after as u32, 0);
        }
    }
}
