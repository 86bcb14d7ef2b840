//! The `ct` action: from a packet to its connection, and back to the key's ct fields.
//!
//! The rules of connections are `conntrack-core`'s; how connections are stored is `table.rs`'s business. A packet goes
//! from stage to stage (see [`stage`]): `examine.rs` reads it, `connect.rs` finds its connection
//! and moves it along, `commit.rs` makes one. `Run::tracked` is the end of it.

mod chunks;
mod commit;
mod connect;
mod examine;
mod expected;
mod fragments;
mod help;
mod related;
mod replace;
mod table;
mod translate;
mod tuples;

use core::ptr::NonNull;

use conntrack_core::nat::Search;
use conntrack_core::seqadj::Shifts;
use conntrack_core::{Connection, Outcome, Timeouts, ct_state, sctp, tcp};

use crate::drop_reason::DropReason;
use crate::key::{Key, WORDS};
use crate::layout::{Config, Datagram, Expectation, Help, Op, Record, Tuple, TupleBucket, Zone, op};
use crate::packet::Buffer;
use crate::parse::{eth_type, ip_proto};
use crate::pipeline::{Machine, Run, stage};
use crate::tables::Tables;

pub use chunks::{chunks, crc};
pub use commit::{claim, commit, start};
pub use connect::{connect, resume};
pub use examine::{examine, identify, sum, verify};
pub use expected::{Heritage, inherit, recognise};
pub use fragments::{Fragment, assemble, conclude, follow, fragment};
pub use help::{Reading, expect, help, read_text};
pub use related::{Quote, quote, read_quote, relate};
pub use replace::{adjust, adjust_sack, replace};
pub use table::{End, remove};
pub use translate::{Translation, apply};

use table::{Count, count};

/// Attempts to find or make a connection while others remove and make it.
const TRACK_ATTEMPTS: u32 = 3;
/// Nanoseconds of a second.
const NANOS: u64 = 1_000_000_000;

/// Where connections are stored.
pub trait Connections {
    /// A bucket of tuples.
    fn tuple_bucket(&self, number: u32) -> Option<NonNull<TupleBucket>>;

    /// A record.
    fn record(&self, number: u32) -> Option<NonNull<Record>>;

    /// A record that was given back.
    fn reuse(&self) -> Option<u32>;

    /// Gives a record back.
    fn release(&self, number: u32);

    /// The limits, and the books.
    fn config(&self) -> NonNull<Config>;

    /// A zone.
    fn zone(&self, zone: u16) -> Option<NonNull<Zone>>;

    /// The datagram that a fragment belongs to.
    fn datagram(&self, key: &Tuple) -> Option<NonNull<Datagram>>;

    /// Adds an empty datagram, unless there is one.
    fn insert_datagram(&self, key: &Tuple, expires: u64);

    /// Forgets a datagram.
    fn remove_datagram(&self, key: &Tuple);

    /// What the helper of a connection keeps, by the [`life::owner`](crate::layout::life::owner) of its record.
    fn help(&self, owner: u64) -> Option<NonNull<Help>>;

    /// Adds an empty one, if there is room.
    fn insert_help(&self, owner: u64);

    /// Removes it.
    fn remove_help(&self, owner: u64);

    /// What is expected to begin with a tuple, whose source port is 0.
    fn expectation(&self, tuple: &Tuple) -> Option<Expectation>;

    /// Expects a connection; false if one is expected there already, or there is no room.
    fn insert_expectation(&self, tuple: &Tuple, expectation: &Expectation) -> bool;

    /// Expects it no longer.
    fn remove_expectation(&self, tuple: &Tuple);

    /// How long connections of a policy live. None never happens: the verifier wants it said.
    fn timeouts(&self, policy: u16) -> Option<&Timeouts>;

    /// A number by chance.
    fn random(&self) -> u32;

    /// Whether somebody wants to hear of what happens to connections.
    fn listened_to(&self) -> bool;

    /// Tells of it: `kind` is one of [`event`](crate::layout::event).
    fn tell(&self, kind: u32, number: u32, now: u64, record: &Record);

    /// Tells of it if somebody listens.
    #[inline(always)]
    fn emit(&self, kind: u32, number: u32, now: u64, record: &Record) {
        if self.listened_to() {
            self.tell(kind, number, now, record);
        }
    }
}

/// Connection tracking's workspace: what would not fit on a BPF stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Scratch {
    /// The packet's segment, if it is TCP.
    pub segment: tcp::Segment,
    /// Its header, or its options.
    pub header: Buffer,
    /// The packet's chunks, if it is SCTP.
    pub chunks: sctp::Packet,
    /// Offset of the next one.
    pub chunk_at: u32,
    /// The register of its checksum.
    pub crc: u32,
    /// Zero.
    pub reserved: u32,
    /// The action's flags: [`op::CT_COMMIT`] and the like.
    pub flags: u32,
    /// The action's table.
    pub table: u16,
    /// The action's zone.
    pub zone: u16,
    /// The pseudo header's sum, how many bytes are to be summed with it, and what they come to.
    pub pseudo: u64,
    /// See `pseudo`.
    pub summed: u64,
    /// See `pseudo`.
    pub sum_len: u32,
    /// How often the connection was looked for.
    pub attempts: u32,
    /// Why it was not found or made, as a number of [`DropReason`].
    pub failure: u32,
    /// The record that a new connection gets.
    pub number: u32,
    /// What kind of packet it is.
    pub kind: Kind,
    /// What the rules say of it.
    pub outcome: Outcome,
    /// A connection before it has a record.
    pub fresh: Connection,
    /// Where the packet's addresses and ports are to be changed to.
    pub translation: Translation,
    /// Where things are in the packet that an error quotes.
    pub quote: Quote,
    /// A fragment's place in its datagram.
    pub fragment: Fragment,
    /// The search for a translation of a new connection.
    pub search: Search,
    /// Whether it has come to an end.
    pub chosen: u32,
    /// Zero.
    pub pad: u32,
    /// The search for a record to evict: one that is answered but not assured, plus one; or 0.
    pub second_best: u64,
    /// Its life.
    pub second_best_life: u64,
    /// The record that was evicted, plus one; or 0.
    pub evicted: u64,
    /// How the numbers of the packet's connection are adjusted.
    pub shifts: Shifts,
    /// What a helper works with.
    pub reading: Reading,
    /// What an expected connection takes over.
    pub heritage: Heritage,
}

/// What a branch of the packet knows from its last `ct`. Another one in the same zone goes on from there, as in OVS:
/// the packet is not tracked twice, and its connection is still found when its addresses have been translated.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Last {
    /// The zone, plus one; 0: there was no `ct`, or the packet was invalid.
    pub zone: u32,
    /// The connection's record; [`Last::NO_RECORD`]: the packet would begin a connection.
    pub number: u32,
    /// The record's life at that time.
    pub life: u64,
    /// The packet's ct_state.
    pub state: u8,
    /// The packet's [`Direction`](conntrack_core::Direction).
    pub direction: u8,
    /// Zero.
    pub pad: [u8; 6],
    /// The tuple of the packet and, behind it, the tuple of the packets that answer it.
    pub tuples: [Tuple; 2],
}

impl Last {
    /// The packet has no connection yet.
    pub const NO_RECORD: u32 = u32::MAX;
}

/// What kind of packet it is, to the rules.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP; the segment is in the workspace.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP; the chunks are in the workspace.
    Sctp,
    /// An ICMP query or answer, by its type.
    Icmp(u8),
    /// An ICMPv6 query or answer, by its type.
    Icmpv6(u8),
    /// Any other protocol, by its number.
    Other(u8),
    /// An ICMP or ICMPv6 error: the tuple is that of the packets that it goes along with.
    Error,
    /// A later fragment: the tuple is that of its datagram.
    Fragment,
}

/// Takes all ct fields out of a key.
#[inline(always)]
pub fn clear(key: &mut Key) {
    key.words[0] &= !(0xff << 40);
    key.words[17] &= 0xffff_ffff;
    let mut i = 13;
    while i < 22 {
        if i != 17 {
            key.words[i] = 0;
        }
        i += 1;
    }
}

/// Begins to track the packet, as the action says. The stages that follow set the key's ct fields, and commit.
#[inline(always)]
pub fn begin(machine: &mut Machine, op: &Op) {
    let zone = if op.c & op::CT_ZONE_FIELD != 0 {
        machine.key.words[usize::from(op.a) & (WORDS - 1)] >> (op.value & 63)
    } else {
        op.value
    };
    machine.track.zone = zone as u16;
    machine.track.flags = op.c;
    machine.track.table = op.b;
    machine.track.attempts = 0;
    machine.track.failure = DropReason::ConntrackBusy as u32;
    machine.track.translation.bits = 0;
    machine.track.heritage.expected = 0;
    machine.track.fragment.leads = 0;
    clear(&mut machine.key);
    let kind = (machine.key.words[0] >> 16) as u16;
    machine.stage = if kind != eth_type::IPV4 && kind != eth_type::IPV6 {
        stage::TRACKED
    } else if machine.last.zone == u32::from(machine.track.zone) + 1 {
        stage::RESUME
    } else {
        stage::EXAMINE
    };
    if machine.stage != stage::TRACKED {
        machine.key.words[13] = u64::from(machine.track.zone) << 32;
    }
}

/// The packet belongs to no connection, and cannot start one.
#[inline(always)]
fn invalid<P, D: Connections>(run: &mut Run<'_, P, D>) {
    let machine = &mut *run.machine;
    set_state(&mut machine.key, ct_state::TRK | ct_state::INV);
    machine.track.translation.bits = 0;
    machine.last.zone = 0;
    machine.stage = stage::TRACKED;
    count(run.datapath, machine.track.zone, Count::Invalid);
}

#[inline(always)]
fn set_state(key: &mut Key, state: u8) {
    key.words[0] = key.words[0] & !(0xff << 40) | u64::from(state) << 40;
}

/// Drops the packet.
#[inline(always)]
fn give_up<P, D: Tables>(run: &mut Run<'_, P, D>, reason: u32) {
    run.datapath.dropped_by_number(reason);
    run.machine.reason = 0;
    run.machine.end_branch();
}

/// Sets the key's ct fields from a connection.
#[inline(always)]
fn describe(record: &Record, machine: &mut Machine) {
    let words = &mut machine.key.words;
    words[13] |= u64::from(record.mark);
    words[14] = record.label[0];
    words[15] = record.label[1];
    let state = machine.track.outcome.ct_state | machine.track.translation.bits as u8;
    set_state(&mut machine.key, state);
    describe_tuple(&record.tuples[0], &mut machine.key);
}

/// Sets the key's original tuple.
#[inline(always)]
fn describe_tuple(tuple: &Tuple, key: &mut Key) {
    let words = &mut key.words;
    words[13] |= u64::from(tuple.ports.protocol) << 48;
    let (mut src, mut dst) = (tuple.ports.src, tuple.ports.dst);
    if tuple.ports.protocol == ip_proto::ICMP || tuple.ports.protocol == ip_proto::ICMPV6 {
        (src, dst) = (dst >> 8, dst & 0xff);
    }
    words[17] = words[17] & 0xffff_ffff | u64::from(src) << 48 | u64::from(dst) << 32;
    if tuple.ports.family == 4 {
        words[16] = tuple.src[1] << 32 | tuple.dst[1];
    } else {
        words[18] = tuple.src[0];
        words[19] = tuple.src[1];
        words[20] = tuple.dst[0];
        words[21] = tuple.dst[1];
    }
}
