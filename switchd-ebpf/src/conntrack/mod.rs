//! The `ct` action: from a packet to its connection, and back to the key's ct fields.
//!
//! The rules of connections are `conntrack-core`'s; how connections are stored is [`table`]'s business. What is
//! here goes from stage to stage (see [`stage`]): [`examine`] reads the packet, [`connect`] finds its connection and
//! moves it along, [`start`] and [`commit`] make one. `Run::tracked` is the end of it.

mod chunks;
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
use conntrack_core::{
    Connection, Direction, Facts, Outcome, Timeouts, Timer, Verdict, ct_state, sctp, status, tcp,
};

use crate::atomic;
use crate::drop_reason::DropReason;
use crate::key::{Key, WORDS};
use crate::layout::{
    Config, Datagram, Expectation, Help, Op, Record, Tuple, TupleBucket, Zone, event, helper, life, op, place,
};
use crate::packet::{Buffer, Packet};
use crate::parse::{eth_type, ip_proto};
use crate::pipeline::{Machine, Run, stage};
use crate::tables::Tables;

pub use chunks::{chunks, crc};
pub use examine::{examine, identify, sum, verify};
pub use expected::{Heritage, inherit, recognise};
pub use fragments::{Fragment, assemble, conclude, follow, fragment};
pub use help::{Reading, expect, help, read_text};
pub use related::{Quote, quote, read_quote, relate};
pub use replace::{adjust, adjust_sack, replace};
pub use table::{End, remove};
pub use translate::{Translation, apply};

use expected::endow;
use table::{Count, count};
use translate::ADJUSTS;
use tuples::Found;

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

    /// What the helper of a connection keeps, by the [`life::owner`] of its record.
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

    /// How long connections of a policy live.
    fn timeouts(&self, policy: u16) -> &Timeouts;

    /// A number by chance.
    fn random(&self) -> u32;

    /// Whether somebody wants to hear of what happens to connections.
    fn listened_to(&self) -> bool;

    /// Tells of it: `kind` is one of [`event`].
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
    /// The packet's [`Direction`].
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

/// Stage [`stage::RESUME`]: the packet has been through this zone before.
#[inline(always)]
pub fn resume<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let last = &run.machine.last;
    let (number, life, state) = (last.number, last.life, last.state);
    let translated = state & (ct_state::SNAT | ct_state::DNAT) != 0;
    if run.machine.track.kind == Kind::Error && !translated {
        run.machine.stage = stage::RELATE;
        return;
    }
    // What a later fragment was told; other packets are judged anew where it is not kept.
    run.machine.track.outcome.ct_state = state;
    // A connection that is not there yet may be by now; one that is gone may have to be made again.
    run.machine.stage = if run.machine.track.kind == Kind::Fragment { stage::FOLLOW } else { stage::CONNECT };
    if number == Last::NO_RECORD {
        return;
    }
    let Some(pointer) = run.datapath.record(number) else { return };
    let Some(word) = table::lock(run.datapath, pointer, life) else { return };
    let machine = &mut *run.machine;
    // SAFETY: the lock is held: nobody else writes to the record, and the daemon only reads it.
    let record = unsafe { &mut *pointer.as_ptr() };
    let direction = direction(machine.last.direction);
    if forced(machine.track.flags, direction) {
        table::unlock(record, word);
        remove(run.datapath, pointer, number, life::updated(word), machine.now, End::Removed);
        return;
    }
    if !translated {
        translate::plan(machine, record, direction);
    }
    // Helpers have read the packet already.
    let next = finish(run, pointer, number, word, direction, false);
    run.machine.stage = if next == stage::HELP { stage::TRACKED } else { next };
}

#[inline(always)]
fn direction(number: u8) -> Direction {
    if number == 0 { Direction::Original } else { Direction::Reply }
}

/// Whether the action wants the connection to begin anew with this packet.
#[inline(always)]
fn forced(flags: u32, direction: Direction) -> bool {
    flags & op::CT_COMMIT != 0 && flags & op::CT_FORCE != 0 && matches!(direction, Direction::Reply)
}

/// Stage [`stage::CONNECT`]: the connection of the packet whose tuples are in the machine. If there is none,
/// [`start`] comes next.
#[inline(always)]
pub fn connect<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    if run.machine.track.attempts >= TRACK_ATTEMPTS {
        count(run.datapath, run.machine.track.zone, Count::Refused);
        give_up(run, run.machine.track.failure);
        return;
    }
    run.machine.track.attempts += 1;
    // Where the table changes under our hands, this stage is simply run again.
    run.machine.stage = match table::locate(run.datapath, &run.machine.last.tuples[0], run.machine.now) {
        Some(found) if needs_adjusting(run.machine, &found) => stage::ADJUST,
        Some(found) => advance(run, &found),
        None => stage::START,
    };
}

/// Whether sequence numbers of the connection are adjusted, and have not been in this packet.
#[inline(always)]
fn needs_adjusting(machine: &Machine, found: &Found) -> bool {
    // SAFETY: the record is valid while the program runs; the word is read whole, and this bit of it comes but once.
    let status = unsafe { (&raw const (*found.record.as_ptr()).connection.status).read_volatile() };
    status & status::SEQ_ADJUST != 0 && machine.track.translation.bits & ADJUSTS == 0
}

/// Moves a connection along with the packet. Returns the stage that comes next: `CONNECT` if the connection is gone,
/// or was removed on purpose.
#[inline(always)]
fn advance<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>, found: &Found) -> u32 {
    let Some(word) = table::lock(run.datapath, found.record, found.life) else {
        return stage::CONNECT;
    };
    let machine = &mut *run.machine;
    // SAFETY: the lock is held: nobody else writes to the record, and the daemon only reads it.
    let record = unsafe { &mut *found.record.as_ptr() };
    let before = visible(&record.connection);
    let verdict = if forced(machine.track.flags, found.direction) {
        Verdict::Reopen
    } else {
        let timeouts = run.datapath.timeouts(record.policy);
        judge(&mut record.connection, &mut machine.track, found.direction, machine.now, timeouts)
    };
    match verdict {
        Verdict::Reopen => {
            table::unlock(record, word);
            let (word, now) = (life::updated(word), machine.now);
            remove(run.datapath, found.record, found.number, word, now, End::Removed);
            return stage::CONNECT;
        }
        Verdict::Invalid => {
            table::unlock(record, word);
            invalid(run);
            return stage::TRACKED;
        }
        Verdict::Accept | Verdict::Destroy => {}
    }
    record.expires = match machine.track.outcome.timer {
        Timer::Keep => record.expires,
        Timer::Set(seconds) => machine.now + u64::from(seconds) * NANOS,
        Timer::Cap(seconds) => record.expires.min(machine.now + u64::from(seconds) * NANOS),
    };
    let direction = core::hint::black_box(found.direction as usize) & 1;
    record.packets[direction] += 1;
    record.bytes[direction] += u64::from(machine.len);
    let changed = before != visible(&record.connection);
    translate::plan(machine, record, found.direction);
    let next = finish(run, found.record, found.number, word, found.direction, changed);
    if matches!(verdict, Verdict::Destroy) {
        let (word, now) = (life::updated(word), run.machine.now);
        remove(run.datapath, found.record, found.number, word, now, End::Removed);
    }
    next
}

/// What listeners hear of when it changes: state and status.
#[inline(always)]
fn visible(connection: &Connection) -> u64 {
    let state = u64::from(connection.tcp.state.0) << 8 | u64::from(connection.sctp_state.0);
    state << 32 | u64::from(connection.status)
}

/// What follows from a packet's connection, whose lock is held and given back here: `exec` writes to it, the key gets
/// its ct fields, and whoever listens hears of it if it has changed. Returns the stage that comes next.
#[inline(always)]
fn finish<P: Packet, D: Tables + Connections>(
    run: &mut Run<'_, P, D>,
    pointer: NonNull<Record>,
    number: u32,
    word: u64,
    direction: Direction,
    changed: bool,
) -> u32 {
    let machine = &mut *run.machine;
    // SAFETY: the caller holds the lock.
    let record = unsafe { &mut *pointer.as_ptr() };
    let written = machine.track.flags & op::CT_COMMIT != 0 && write_metadata(record, machine);
    describe(record, machine);
    if changed || written {
        run.datapath.emit(event::UPDATE, number, machine.now, record);
    }
    machine.last.zone = u32::from(machine.track.zone) + 1;
    machine.last.number = number;
    machine.last.life = word;
    machine.last.direction = direction as u8;
    machine.last.state = machine.track.outcome.ct_state | machine.track.translation.bits as u8;
    let next = next_stage(record, machine);
    table::unlock(record, word);
    next
}

/// What comes behind the packet's connection.
#[inline(always)]
fn next_stage(record: &Record, machine: &mut Machine) -> u32 {
    if record.connection.status & status::EXPECTED != 0 {
        machine.track.heritage.parent = record.parent;
        stage::INHERIT
    } else if record.helper != helper::NONE {
        stage::HELP
    } else {
        stage::TRACKED
    }
}

/// `conntrack-core`'s rules. One function of its own, so that the verifier and the stack meet it once.
#[inline(never)]
fn judge(
    connection: &mut Connection,
    track: &mut Scratch,
    direction: Direction,
    now: u64,
    timeouts: &Timeouts,
) -> Verdict {
    let facts = facts(track.kind, &track.segment, &track.chunks);
    connection.advance(direction, &facts, now, timeouts, &mut track.outcome)
}

#[inline(always)]
fn facts<'a>(kind: Kind, segment: &'a tcp::Segment, chunks: &'a sctp::Packet) -> Facts<'a> {
    match kind {
        Kind::Tcp => Facts::Tcp(segment),
        Kind::Sctp => Facts::Sctp(chunks),
        Kind::Udp => Facts::Udp,
        Kind::Icmp(kind) => Facts::Icmp(kind),
        Kind::Icmpv6(kind) => Facts::Icmpv6(kind),
        Kind::Other(protocol) => Facts::Other(protocol),
        // These do not move a connection along, and do not get here.
        Kind::Error | Kind::Fragment => Facts::Other(0),
    }
}

/// The mark and label that `exec` asks for, and the helper that `alg` does. Returns whether that changed something.
#[inline(always)]
fn write_metadata(record: &mut Record, machine: &Machine) -> bool {
    if machine.track.flags & (op::CT_FTP | op::CT_TFTP) != 0 && record.helper == helper::NONE {
        record.helper = if machine.track.flags & op::CT_FTP != 0 { helper::FTP } else { helper::TFTP };
    }
    let write = &machine.write;
    let mark = record.mark & !(write.mark_mask as u32) | write.mark as u32;
    let mut changed = u64::from(mark ^ record.mark);
    record.mark = mark;
    let mut i = 0;
    while i < 2 {
        let half = record.label[i] & !write.label_mask[i] | write.label[i];
        changed |= half ^ record.label[i];
        record.label[i] = half;
        i += 1;
    }
    changed != 0
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

/// Stage [`stage::START`]: a connection's first packet.
#[inline(always)]
pub fn start<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let machine = &mut *run.machine;
    if machine.track.translation.bits & ADJUSTS != 0 {
        // The connection that its numbers were adjusted to is gone: they count as they are in the packet.
        machine.track.translation.bits = 0;
        machine.stage = stage::EXAMINE;
        return;
    }
    let policy = policy(run.datapath, machine.track.zone);
    machine.track.heritage.expected = 0;
    // SAFETY: the configuration is valid while the program runs; the word is accessed whole.
    let expects = unsafe { (&raw const (*run.datapath.config().as_ptr()).expects).read_volatile() };
    if !open(&mut machine.track, machine.now, run.datapath.timeouts(policy)) {
        invalid(run);
    } else if expects != 0 {
        machine.stage = stage::RECOGNISE;
    } else {
        proceed(machine);
    }
}

/// What comes behind a connection's first packet.
#[inline(always)]
fn proceed(machine: &mut Machine) {
    if machine.track.flags & op::CT_COMMIT != 0 {
        machine.stage = stage::COMMIT;
    } else {
        conclude_without_record(machine);
    }
}

/// The end for a packet that begins a connection, but does not commit it.
#[inline(always)]
fn conclude_without_record(machine: &mut Machine) {
    set_state(&mut machine.key, machine.track.outcome.ct_state);
    let heritage = &machine.track.heritage;
    if heritage.expected != 0 {
        machine.key.words[13] |= u64::from(heritage.mark);
        machine.key.words[14] = heritage.label[0];
        machine.key.words[15] = heritage.label[1];
        describe_tuple(&heritage.original, &mut machine.key);
    } else {
        describe_tuple(&machine.last.tuples[0], &mut machine.key);
    }
    machine.last.zone = u32::from(machine.track.zone) + 1;
    machine.last.number = Last::NO_RECORD;
    machine.last.direction = Direction::Original as u8;
    machine.last.state = machine.track.outcome.ct_state;
    machine.stage = stage::TRACKED;
}

/// The timeout policy of a zone's new connections.
#[inline(always)]
fn policy<D: Connections>(datapath: &D, zone: u16) -> u16 {
    // SAFETY: the zone is valid while the program runs; the daemon writes the word whole.
    datapath.zone(zone).map_or(0, |zone| unsafe { (&raw const (*zone.as_ptr()).policy).read_volatile() })
}

/// As [`judge`], for a connection's first packet.
#[inline(never)]
fn open(track: &mut Scratch, now: u64, timeouts: &Timeouts) -> bool {
    let facts = facts(track.kind, &track.segment, &track.chunks);
    track.fresh.open(&facts, now, timeouts, &mut track.outcome)
}

/// Stage [`stage::COMMIT`]: gives the connection in the workspace a record.
#[inline(always)]
pub fn commit<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let datapath = run.datapath;
    let zone = run.machine.track.zone;
    let number = match table::allocate(run, zone) {
        Ok(number) => number,
        Err(reason) => {
            count(datapath, zone, Count::Refused);
            give_up(run, reason as u32);
            return;
        }
    };
    let Some(pointer) = datapath.record(number) else { return };
    let machine = &mut *run.machine;
    // SAFETY: the record is not alive and was just allocated: nobody else writes to it, and whoever reads it
    // sees by its life that it does not count.
    let record = unsafe { &mut *pointer.as_ptr() };
    let seconds = match machine.track.outcome.timer {
        Timer::Keep => 0,
        Timer::Set(seconds) | Timer::Cap(seconds) => seconds,
    };
    record.expires = machine.now + u64::from(seconds) * NANOS;
    record.created = machine.now;
    record.packets = [1, 0];
    record.bytes = [u64::from(machine.len), 0];
    record.label = [0, 0];
    record.mark = 0;
    record.policy = policy(datapath, zone);
    record.helper = helper::NONE;
    record.parent = 0;
    record.tuples = machine.last.tuples;
    record.connection = machine.track.fresh;
    record.connection.status |= status::CONFIRMED;
    endow(record, &machine.track.heritage);
    write_metadata(record, machine);
    machine.track.number = number;
    machine.stage = stage::CLAIM;
}

/// Stage [`stage::CLAIM`]: gives the new connection's record its tuples. If another CPU was faster, its connection is
/// the packet's.
#[inline(always)]
pub fn claim<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let datapath = run.datapath;
    let number = run.machine.track.number;
    let Some(pointer) = datapath.record(number) else { return };
    let machine = &mut *run.machine;
    // SAFETY: as in `commit`, whose record this still is.
    let record = unsafe { &mut *pointer.as_ptr() };
    let word = record.life & !(life::ALIVE | life::LOCKED);
    // From its first tuple on, others shall know that it is about to be alive.
    // SAFETY: the word is valid, and everyone accesses it atomically.
    unsafe { atomic::publish(&raw mut record.life, word | life::LOCKED) };
    record.places = [place::NONE; 2];
    machine.stage = stage::CONNECT;
    // The reply tuple first: who finds the original one may then rely on both.
    if machine.track.flags & op::CT_NAT != 0 {
        if !translate::choose(run, record) {
            let zone = run.machine.track.zone;
            table::give_back(datapath, zone, number, record, word);
            count(datapath, zone, Count::Refused);
            give_up(run, DropReason::NatExhausted as u32);
            return;
        }
    } else if !take_place(datapath, record, number, Direction::Reply) {
        machine.track.failure = DropReason::ConntrackClash as u32;
        table::give_back(datapath, machine.track.zone, number, record, word);
        return;
    }
    let machine = &mut *run.machine;
    // What is its own reply has the one tuple, and as in Linux all that follows counts as replies.
    let [original, reply] = &record.tuples;
    if !table::same(original, reply) && !take_place(datapath, record, number, Direction::Original) {
        tuples::remove(datapath, record.places[1]);
        table::give_back(datapath, machine.track.zone, number, record, word);
        return;
    }
    translate::plan(machine, record, Direction::Original);
    describe(record, machine);
    if machine.track.heritage.expected != 0 {
        datapath.remove_expectation(&machine.track.heritage.key);
    }
    count(datapath, machine.track.zone, Count::Created);
    datapath.emit(event::NEW, number, machine.now, record);
    machine.last.zone = u32::from(machine.track.zone) + 1;
    machine.last.number = number;
    machine.last.life = word;
    machine.last.direction = Direction::Original as u8;
    machine.last.state = machine.track.outcome.ct_state | machine.track.translation.bits as u8;
    let next = next_stage(record, machine);
    // SAFETY: the word is valid, and everyone accesses it atomically.
    unsafe { atomic::publish(&raw mut record.life, word | life::ALIVE) };
    machine.stage = next;
}

/// Makes one of a new record's tuples lead to it, unless it leads to another connection.
#[inline(always)]
fn take_place<D: Tables + Connections>(
    datapath: &D,
    record: &mut Record,
    number: u32,
    direction: Direction,
) -> bool {
    let direction = direction as usize;
    let place = tuples::add(datapath, &record.tuples[direction], number, direction as u32);
    record.places[direction] = place.unwrap_or(place::NONE);
    place.is_some()
}
