//! The layout of what the kernel side and the daemon share through BPF maps.
//!
//! Everything here is `#[repr(C)]`, without implicit padding, and valid for any bit pattern: the daemon
//! writes it through shared memory or by map calls, the kernel side reads it as it is.

use core::mem::size_of;

use conntrack_core::Connection;
use conntrack_core::ftp::Lines;
use conntrack_core::seqadj::Shifts;

use crate::key::WORDS;

/// Bridges that one datapath can hold.
pub const MAX_BRIDGES: u32 = 64;
/// Ports of all bridges together.
pub const MAX_PORTS: u32 = 1024;
/// OpenFlow tables of a bridge, 0 to 253; the index of a bridge's table is `bridge * TABLES + table`.
pub const TABLES: u32 = 256;
/// Ports that one bridge can flood to.
pub const MAX_BRIDGE_PORTS: usize = 254;

/// Values that the daemon sets and the datapath reads on every packet. One element, in shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// The version of the flow tables that packets see. Written last in a change: until then packets see none
    /// of it, afterwards all of it.
    pub version: u64,
    /// Rules that there is room for: the stride of the per-CPU counters.
    pub max_rules: u32,
    /// Records of connections that there are.
    pub records: u32,
    /// Connections that may be alive at once, at most [`Config::records`].
    pub max_connections: u32,
    /// Connections that a zone without a limit of its own may have; 0: as many as there is room for.
    pub default_limit: u32,
    /// Keys the hash that chooses translated addresses and ports; random, so that nobody can foresee it.
    pub nat_salt: u64,
    /// How tuples are hashed.
    pub tuple_hash: TupleHash,
    /// The number of buckets of the flow tables' entries, a power of two, less one.
    pub bucket_mask: u32,
    /// Not 0: somebody listens to [`Event`]s.
    pub events: u32,
    /// Zero: what follows is written by the datapath, and begins a cache line.
    pub pad: [u64; 4],
    /// Record numbers given out so far; those given back wait in the free queue. Written by the datapath
    /// alone, by atomic addition.
    pub records_used: u64,
    /// Connections that are alive, expired ones included. Written by atomic addition.
    pub connections: u64,
    /// Where the next search for a connection to evict begins. Written by atomic addition.
    pub clock_hand: u64,
    /// Frames that XDP left to tcx so far. Written by atomic addition.
    pub deferred: u64,
    /// Events that there was no room for. Written by atomic addition.
    pub events_lost: u64,
    /// Not 0: some connection has announced another one, so that first packets may be expected. Set once, by the
    /// datapath.
    pub expects: u64,
    /// Zero: fills the line.
    pub rest: [u64; 2],
}

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
    /// The zone has a limit of its own in the place of [`super::Config::default_limit`].
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

/// How many key words a subtable's mask uses, rounded up to what fills the lines of an [`Entry`]: one, two, or all
/// that there can be.
pub const WIDTHS: [usize; 3] = [3, 11, WORDS];
/// The lines of an entry of each width.
pub const LINES: [usize; 3] = [1, 2, 5];

/// A subtable in a table's list. The list is sorted by falling `rank`, so that a search ends as soon as what
/// was found ranks as high as anything that may follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// The subtable's number: the first word of its entries' keys.
    pub subtable: u32,
    /// The next node; 0 ends the list.
    pub next: u32,
    /// No rule of the subtable ranks higher (see [`RuleRef::rank`]).
    pub rank: u32,
    /// Index into [`WIDTHS`].
    pub width: u32,
    /// Bits of the mask's first word that all rules of the subtable want the same, and (in `common`) what they
    /// want: a key that differs in one of them needs no probe. Bits are only ever taken away from it, by one
    /// atomic store, before a rule that wants them otherwise can be seen.
    pub agreed: u64,
    /// See `agreed`.
    pub common: u64,
    /// The key words that the mask uses; those past the last are 31 with an empty mask.
    pub index: [u8; WORDS],
    /// Their masks.
    pub mask: [u64; WORDS],
}

impl Node {
    /// A node that matches nothing.
    pub const EMPTY: Self = Self {
        subtable: 0,
        next: 0,
        rank: 0,
        width: 0,
        agreed: 0,
        common: 0,
        index: [31; WORDS],
        mask: [0; WORDS],
    };
}

/// The key of a subtable's entry: the subtable's number and the masked words, of which as many count as the
/// subtable's width says. The last three are zero: they fill the last line of the widest entry.
pub type Probe = [u64; WORDS + 4];

/// Buckets in a line of them.
pub const BUCKETS_PER_LINE: u32 = 16;
/// A line of buckets: of each the number of its first [`Entry`], or 0. Changed by atomic stores. By lines, because an
/// element of an array map takes eight bytes at least.
pub type Buckets = [u32; BUCKETS_PER_LINE as usize];

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

/// A port, as the kernel finds it by device or by OpenFlow number. Written by the daemon before anything leads to its
/// slot. At worst a packet that was under way when a port went is sent to the next port of the same slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// The device.
    pub ifindex: u32,
    /// The port's slot in the device map and among the counters.
    pub slot: u32,
    /// Its OpenFlow number.
    pub number: u16,
    /// Its bridge.
    pub bridge: u16,
    /// See [`port_flags`].
    pub flags: u32,
}

/// Ports are found by device and by OpenFlow number. Either leads to a slot, plus one, by an array if it is below these
/// limits, which but for long-lived hosts and odd choices they are; else by a hash map, by [`far_device`] or
/// [`far_number`].
pub const NEAR_DEVICES: u32 = 4096;
/// See [`NEAR_DEVICES`]; for each bridge.
pub const NEAR_NUMBERS: u32 = 1024;

/// The key of a device that is beyond [`NEAR_DEVICES`].
#[inline(always)]
#[must_use]
pub const fn far_device(ifindex: u32) -> u64 {
    1 << 32 | ifindex as u64
}

/// The key of a port's OpenFlow number that is beyond [`NEAR_NUMBERS`].
#[inline(always)]
#[must_use]
pub const fn far_number(bridge: u32, number: u16) -> u64 {
    (bridge << 16 | number as u32) as u64
}

/// Bits of [`Port::flags`].
pub mod port_flags {
    /// The port takes XDP frames; others get theirs through the tcx program.
    pub const XDP: u32 = 1;
}

/// A port's counters on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct PortCounter {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_dropped: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_dropped: u64,
}

/// The OpenFlow numbers of a bridge's ports, for flooding. Replaced as a whole.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PortList {
    /// How many.
    pub len: u32,
    /// The numbers.
    pub ports: [u16; MAX_BRIDGE_PORTS],
}

/// What a MAC address is known by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MacKey {
    /// The address, in the low 48 bits.
    pub mac: u64,
    /// The VLAN.
    pub vlan: u32,
    /// The bridge.
    pub bridge: u32,
}

/// Where a MAC address was last seen: the port in the low 16 bits, the coarse monotonic clock's seconds above.
/// One word, so that it is read and written whole.
pub type MacSeen = u64;

/// Seconds after which a learned address is forgotten, as OVS's default.
pub const MAC_AGEING: u64 = 300;

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
    /// [`CT`]: a copy goes on in a table.
    pub const CT_TABLE: u32 = 4;
    /// [`CT`]: the zone comes from a field.
    pub const CT_ZONE_FIELD: u32 = 8;
    /// [`CT`]: translate, as the connection says, or as the preceding [`NAT`] does for a new one.
    pub const CT_NAT: u32 = 16;
    /// [`CT`]: a connection that is committed gets the helper for FTP.
    pub const CT_FTP: u32 = 32;
    /// [`CT`]: a connection that is committed gets the helper for TFTP.
    pub const CT_TFTP: u32 = 64;
}

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

/// Tuples whose hashes fall together, in two cache lines; of the second one, only what is behind the first eight. A
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
    /// One for each word of a [`Tuple`], and an odd one for their sum.
    pub keys: [u64; 6],
    /// How far the hash is shifted right to give the number of a bucket.
    pub shift: u64,
}

impl TupleHash {
    /// For a power of two of buckets, with keys that `random` gives.
    pub fn new(buckets: u32, mut random: impl FnMut() -> u64) -> Self {
        let mut keys = [0; 6];
        keys.iter_mut().for_each(|key| *key = random());
        keys[5] |= 1;
        Self { keys, shift: 64 - u64::from(buckets.trailing_zeros()) }
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
    /// The mark.
    pub mark: u32,
    /// Its timeouts: an index into them, from the zone that it was committed in.
    pub policy: u16,
    /// One of [`helper`].
    pub helper: u16,
    /// The [`life::owner`] of the connection that expected this one, if its status says that it was expected.
    pub parent: u64,
    /// The protocol's state.
    pub connection: Connection,
    /// The label, high half first.
    pub label: [u64; 2],
    /// The tuples, original and reply; mirror images of each other unless the connection is translated. IPv4
    /// addresses are in the low 32 bits of the second word.
    pub tuples: [Tuple; 2],
    /// When it was made.
    pub created: u64,
    /// Where the tuples are (see [`place`]).
    pub places: [u32; 2],
}

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

/// Frames that may be on their way from XDP to tcx at once. A power of two.
pub const DEFERRED: u32 = 1024;

/// What XDP has worked out for a frame and left to tcx to carry out. Found by the frame's number, which
/// travels in its metadata ([`Note`]); the slot is the number modulo [`DEFERRED`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Deferred {
    /// The frame's number. Another one: the slot was taken over before tcx came by.
    pub number: u64,
    /// What is to be sent.
    pub effects: crate::pipeline::Effects,
}

/// The metadata of a deferred frame.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Note {
    /// [`NOTE_MAGIC`].
    pub magic: u64,
    /// The frame's number.
    pub number: u64,
}

/// Tells our metadata from that of others.
pub const NOTE_MAGIC: u64 = 0x7377_6974_6368_6431;

/// What the daemon asks the reaper program to remove: the record, if its life is still this word.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Reap {
    /// The life that was judged.
    pub life: u64,
    /// The record.
    pub record: u32,
    /// Zero; the reaper sets it to 1 when it has removed the record.
    pub done: u32,
}

/// Records that one run of the reaper takes.
pub const REAP_BATCH: u32 = 4096;

macro_rules! assert_size {
    ($($type:ty = $size:expr),+ $(,)?) => { $(const _: () = assert!(size_of::<$type>() == $size);)+ };
}
assert_size!(
    Config = 192,
    Zone = 64,
    Record = 256,
    Event = 272,
    Node = 320,
    Entry = 64,
    RuleCounter = 32,
    Port = 16,
    PortList = 512,
    MacKey = 16,
    Op = 24,
    Tuple = 40,
    TupleBucket = 128,
    Reap = 16,
    Help = 104,
    Expectation = 24,
);

#[cfg(feature = "user")]
macro_rules! plain {
    ($($type:ty),+ $(,)?) => {
        // SAFETY: `repr(C)`, copied as bytes without implicit padding, and valid for any bit pattern.
        $(unsafe impl aya::Pod for $type {})+
    };
}
#[cfg(feature = "user")]
plain!(MacKey, Port, PortCounter, PortList, TableCounter);

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
