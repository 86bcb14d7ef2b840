//! The `ct` action: from a packet to its connection, and back to the key's ct fields.
//!
//! The rules of connections are `conntrack-core`'s. Here is how they are stored: each connection is one
//! [`Record`], found through two tuples (original and reply direction), which stay valid for as long as the
//! record's [`life`] says so. See [`Record`] for who may write what.

use core::ffi::c_void;
use core::ptr::NonNull;

use conntrack_core::{
    Connection, Direction, Facts, Outcome, Timeouts, Timer, Verdict, ct_state, icmp, status, tcp,
};

use crate::atomic;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::key::{Key, WORDS};
use crate::layout::{Op, Ports, Record, TUPLE_DYING, Tuple6, TupleRef, life, op};
use crate::packet::{Buffer, Packet};
use crate::parse::{Layout, eth_type, ip_proto};
use crate::pipeline::{Machine, Run, stage};
use crate::tables::Tables;

/// Attempts to lock a record: some milliseconds. An update takes a hundred nanoseconds, but its CPU may serve an
/// interrupt, or be a virtual one that its host has put aside. The kernel's own locks have no bound at all.
const LOCK_ATTEMPTS: u32 = 1 << 20;
/// Records looked at for one that may go, when the table is full.
const EVICTION_PROBES: u32 = 64;
/// Pieces of 64 bytes in the largest IP packet.
const MAX_PIECES: u32 = 1024;
/// Attempts to find or make a connection while others remove and make it.
const TRACK_ATTEMPTS: u32 = 3;
const NANOS: u64 = 1_000_000_000;

/// Where connections are stored.
pub trait Connections {
    /// The word behind a tuple.
    fn find(&self, tuple: &Tuple6) -> Option<NonNull<TupleRef>>;

    /// Adds a tuple; false if it is there already, or there is no memory.
    fn insert(&self, tuple: &Tuple6, to: TupleRef) -> bool;

    /// Removes a tuple.
    fn remove(&self, tuple: &Tuple6);

    /// A record.
    fn record(&self, number: u32) -> Option<NonNull<Record>>;

    /// A record that nobody uses.
    fn allocate(&self) -> Option<u32>;

    /// Gives a record back.
    fn release(&self, number: u32);

    /// The record that the search for one to evict looks at next.
    fn advance_clock_hand(&self) -> u32;

    /// How long connections live.
    fn timeouts(&self) -> &Timeouts;
}

/// Connection tracking's workspace: what would not fit on a BPF stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Scratch {
    /// The packet's segment, if it is TCP.
    pub segment: tcp::Segment,
    /// Its header, or its options.
    pub header: Buffer,
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
    /// What kind of packet it is.
    pub kind: Kind,
    /// What the rules say of it.
    pub outcome: Outcome,
    /// A connection before it has a record.
    pub fresh: Connection,
    /// The search for a record to evict: one that is answered but not assured, plus one; or 0.
    pub second_best: u64,
    /// Its life.
    pub second_best_life: u64,
    /// The record that was evicted, plus one; or 0.
    pub evicted: u64,
}

/// What kind of packet it is, to the rules.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP; the segment is in the workspace.
    Tcp,
    /// UDP.
    Udp,
    /// An ICMP query or answer, by its type.
    Icmp(u8),
    /// An ICMPv6 query or answer, by its type.
    Icmpv6(u8),
    /// Any other protocol, by its number.
    Other(u8),
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
    clear(&mut machine.key);
    let kind = (machine.key.words[0] >> 16) as u16;
    if kind == eth_type::IPV4 || kind == eth_type::IPV6 {
        machine.key.words[13] = u64::from(machine.track.zone) << 32;
        machine.stage = stage::EXAMINE;
    } else {
        machine.stage = stage::TRACKED;
    }
}

/// The packet belongs to no connection, and cannot start one.
#[inline(always)]
fn invalid(machine: &mut Machine) {
    set_state(&mut machine.key, ct_state::TRK | ct_state::INV);
    machine.stage = stage::TRACKED;
}

/// Stage [`stage::EXAMINE`]: reads from the packet what the rules need.
#[inline(always)]
pub fn examine<P: Packet, D>(run: &mut Run<'_, P, D>) {
    match tuples(run) {
        Some(kind) => {
            run.machine.track.kind = kind;
            run.machine.stage = stage::VERIFY;
        }
        None => invalid(run.machine),
    }
}

/// Stage [`stage::VERIFY`]: sees whether the transport checksum is right.
#[inline(always)]
pub fn verify<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    match checksum_valid(&run.packet, run.machine) {
        Some(true) => run.machine.stage = stage::CONNECT,
        Some(false) => invalid(run.machine),
        None => run.machine.stage = stage::SUM,
    }
}

/// Stage [`stage::SUM`]: sums a packet that the hook does not hold in one piece, bit by bit.
#[inline(always)]
pub fn sum<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    run.machine.track.summed = 0;
    let datapath = run.datapath;
    datapath.repeat(MAX_PIECES, sum_piece::<P, D>, core::ptr::from_mut(run).cast());
    let track = &run.machine.track;
    if checksum::fold(track.pseudo + track.summed) == 0xffff {
        run.machine.stage = stage::CONNECT;
    } else {
        invalid(run.machine);
    }
}

extern "C" fn sum_piece<P: Packet, D: Tables + Connections>(index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `sum` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let Machine { layout, track, .. } = &mut *run.machine;
    let done = index as u32 * 64;
    if done >= track.sum_len {
        return 1;
    }
    track.header.clear();
    let at = u32::from(layout.l4) + done;
    if !run.packet.read(at, &mut track.header, (track.sum_len - done).min(64)) {
        return 1;
    }
    track.summed += u64::from(track.header.sum());
    0
}

#[inline(always)]
fn set_state(key: &mut Key, state: u8) {
    key.words[0] = key.words[0] & !(0xff << 40) | u64::from(state) << 40;
}

/// Reads what the rules need of the packet, and its tuples. None: the packet is invalid by itself.
#[inline(always)]
fn tuples<P: Packet, D>(run: &mut Run<'_, P, D>) -> Option<Kind> {
    let machine = &mut *run.machine;
    let words = &machine.key.words;
    let protocol = (words[0] >> 32) as u8;
    let ipv4 = words[0] >> 16 & 0xffff == u64::from(eth_type::IPV4);
    // A fragment does not say by itself which connection it belongs to.
    if machine.layout.l4 == 0 || words[0] >> 48 & 0xff != 0 {
        return None;
    }
    let mut ports = Ports {
        src: (words[4] >> 48) as u16,
        dst: (words[4] >> 32) as u16,
        zone: machine.track.zone,
        protocol,
        family: if ipv4 { 4 } else { 6 },
    };
    let mut answer = Ports { src: ports.dst, dst: ports.src, ..ports };
    let kind = match protocol {
        ip_proto::TCP => {
            segment(&run.packet, machine)?;
            Kind::Tcp
        }
        ip_proto::UDP => Kind::Udp,
        ip_proto::SCTP => Kind::Other(protocol),
        ip_proto::ICMP if ipv4 => {
            let (kind, inverse) = (ports.src as u8, icmp::invert(ports.src as u8)?);
            echo_ports(identifier(&run.packet, machine)?, inverse, &mut ports, &mut answer);
            Kind::Icmp(kind)
        }
        ip_proto::ICMPV6 if !ipv4 => {
            let (kind, inverse) = (ports.src as u8, icmp::invert_v6(ports.src as u8)?);
            echo_ports(identifier(&run.packet, machine)?, inverse, &mut ports, &mut answer);
            Kind::Icmpv6(kind)
        }
        _ => {
            (ports.src, ports.dst, answer.src, answer.dst) = (0, 0, 0, 0);
            Kind::Other(protocol)
        }
    };
    let machine = &mut *run.machine;
    let words = &machine.key.words;
    let (src, dst) = if ipv4 {
        ([0, words[3] >> 32], [0, words[3] & 0xffff_ffff])
    } else {
        ([words[5], words[6]], [words[7], words[8]])
    };
    machine.tuples[0] = Tuple6 { src, dst, ports };
    machine.tuples[1] = Tuple6 { src: dst, dst: src, ports: answer };
    Some(kind)
}

/// The identifier of an ICMP query.
#[inline(always)]
fn identifier<P: Packet>(packet: &P, machine: &mut Machine) -> Option<u16> {
    let header = header(packet, &machine.layout, &mut machine.track, 8)?;
    Some(u16::from_be_bytes([header[4], header[5]]))
}

/// Reads the first `len` bytes of the transport header into the workspace.
#[inline(always)]
fn header<'a, P: Packet>(
    packet: &P,
    layout: &Layout,
    track: &'a mut Scratch,
    len: u32,
) -> Option<&'a [u8; 64]> {
    packet.read(u32::from(layout.l4), &mut track.header, len).then_some(&track.header.bytes)
}

/// ICMP's stand-in for ports: the identifier, and type and code.
#[inline(always)]
fn echo_ports(id: u16, inverse: u8, ports: &mut Ports, answer: &mut Ports) {
    let (kind, code) = (ports.src, ports.dst);
    ports.src = id;
    ports.dst = kind << 8 | code;
    answer.src = ports.src;
    answer.dst = u16::from(inverse) << 8 | code;
}

/// Whether the transport checksum is right, or there is none to be judged. None: the packet is in pieces; `pseudo`
/// and `sum_len` in the workspace say what is to be summed.
#[inline(always)]
fn checksum_valid<P: Packet>(packet: &P, machine: &mut Machine) -> Option<bool> {
    let Machine { wire, layout, track, .. } = machine;
    let protocol = (wire[0] >> 32) as u8;
    let ipv4 = (wire[0] >> 16) as u16 == eth_type::IPV4;
    let (at, mut len) = (u32::from(layout.l4), u32::from(layout.l4_len));
    match protocol {
        _ if layout.partial != 0 => return Some(true),
        ip_proto::UDP => {
            let Some(header) = header(packet, layout, track, 8) else { return Some(false) };
            let [c0, c1] = [header[6], header[7]];
            let length = u32::from(u16::from_be_bytes([header[4], header[5]]));
            if length < 8 || length > len {
                return Some(false);
            }
            if c0 | c1 == 0 {
                return Some(true);
            }
            len = length;
        }
        ip_proto::TCP => {}
        ip_proto::ICMP if ipv4 => {}
        ip_proto::ICMPV6 if !ipv4 => {}
        _ => return Some(true),
    }
    let halves = |word: u64| (word >> 32) + (word & 0xffff_ffff);
    let addresses = if ipv4 {
        halves(wire[3])
    } else {
        halves(wire[5]) + halves(wire[6]) + halves(wire[7]) + halves(wire[8])
    };
    let pseudo =
        if protocol == ip_proto::ICMP { 0 } else { addresses + u64::from(protocol) + u64::from(len) };
    // A short segment fits into the workspace, and is summed there without asking the kernel piece by piece.
    let sum = if len <= 64 {
        track.header.clear();
        packet.read(at, &mut track.header, len).then(|| track.header.sum())
    } else {
        packet.sum(at, len)
    };
    track.pseudo = pseudo;
    track.sum_len = len;
    Some(checksum::fold(pseudo + u64::from(sum?)) == 0xffff)
}

/// Reads the TCP header into the workspace. None: it is cut, or its data offset impossible.
#[inline(always)]
fn segment<P: Packet>(packet: &P, machine: &mut Machine) -> Option<()> {
    let at = u32::from(machine.layout.l4);
    let &[_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] =
        header(packet, &machine.layout, &mut machine.track, 20)?;
    let header = u32::from(offset >> 4) * 4;
    let len = u32::from(machine.layout.l4_len);
    if header < 20 || header > len {
        return None;
    }
    let segment = &mut machine.track.segment;
    *segment = tcp::Segment {
        seq: u32::from_be_bytes([s0, s1, s2, s3]),
        ack: u32::from_be_bytes([a0, a1, a2, a3]),
        payload_len: len - header,
        window: u16::from_be_bytes([w0, w1]),
        flags,
        ..tcp::Segment::default()
    };
    let options = header - 20;
    if options > 0 && !packet.read(at + 20, &mut machine.track.header, options) {
        return None;
    }
    segment.parse_options(&machine.track.header.bytes, options);
    Some(())
}

/// Stage [`stage::CONNECT`]: the connection of the packet whose tuples are in the machine. If there is none,
/// [`start`] comes next.
#[inline(always)]
pub fn connect<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    if run.machine.track.attempts >= TRACK_ATTEMPTS {
        give_up(run, DropReason::ConntrackBusy);
        return;
    }
    run.machine.track.attempts += 1;
    // Where the table changes under our hands, this stage is simply run again.
    run.machine.stage = match locate(run) {
        Some(found) if advance(run, &found) => stage::TRACKED,
        Some(_) => stage::CONNECT,
        None => stage::START,
    };
}

/// Drops the packet.
#[inline(always)]
fn give_up<P, D: Tables>(run: &mut Run<'_, P, D>, reason: DropReason) {
    run.datapath.dropped(reason);
    run.machine.reason = 0;
    run.machine.end_branch();
}

/// A live connection, as a tuple led to it.
struct Found {
    record: NonNull<Record>,
    number: u32,
    life: u64,
    direction: Direction,
}

/// Follows the packet's tuple to a live record.
#[inline(always)]
fn locate<P, D: Connections>(run: &mut Run<'_, P, D>) -> Option<Found> {
    let reference = run.datapath.find(&run.machine.tuples[0])?;
    // SAFETY: the map's value is valid while the program runs, and everyone accesses it atomically.
    let reference = unsafe { atomic::load(reference.as_ptr()) };
    let number = reference as u32;
    let record = run.datapath.record(number)?;
    // SAFETY: as above, for the record's life word.
    let word = unsafe { atomic::load(&raw const (*record.as_ptr()).life) };
    if word & life::ALIVE == 0 || tag(word) != (reference >> 32) as u32 & !1 {
        return None;
    }
    // SAFETY: as above; this word is written alone.
    if unsafe { atomic::load(&raw const (*record.as_ptr()).expires) } < run.machine.now {
        remove(run.datapath, record, number, word);
        return None;
    }
    let direction = if reference >> 32 & 1 == 0 { Direction::Original } else { Direction::Reply };
    Some(Found { record, number, life: word, direction })
}

/// The upper half of a [`TupleRef`] to a record, for the original direction.
#[inline(always)]
fn tag(word: u64) -> u32 {
    life::generation(word) << 1
}

/// What a tuple of a record holds.
#[inline(always)]
fn reference(number: u32, word: u64, direction: u32) -> TupleRef {
    u64::from(tag(word) | direction) << 32 | u64::from(number)
}

/// An attempt to lock a record.
struct Locking {
    record: NonNull<Record>,
    /// The life that was found.
    found: u64,
    /// The life word before it was locked; 0, which no living record has: it is not locked (yet).
    taken: u64,
}

/// Takes the lock of a record that is still the one that was found. None: it is not, or the lock is held.
#[inline(always)]
fn lock<D: Tables>(datapath: &D, record: NonNull<Record>, found: u64) -> Option<u64> {
    let mut locking = Locking { record, found, taken: 0 };
    // Hardly ever is there anything to wait for.
    if try_lock(0, (&raw mut locking).cast()) == 0 {
        datapath.repeat(LOCK_ATTEMPTS, try_lock, (&raw mut locking).cast());
    }
    (locking.taken != 0).then_some(locking.taken)
}

extern "C" fn try_lock(_index: u64, locking: *mut c_void) -> i64 {
    // SAFETY: `lock` passes its own, exclusively borrowed for as long as this runs.
    let locking = unsafe { &mut *locking.cast::<Locking>() };
    let record = locking.record.as_ptr();
    // SAFETY: the record is valid while the program runs, and everyone accesses `life` atomically.
    let word = unsafe { atomic::load(&raw const (*record).life) };
    if word & life::ALIVE == 0 || tag(word) != tag(locking.found) {
        return 1;
    }
    if word & life::LOCKED != 0 {
        return 0;
    }
    // SAFETY: as above.
    if unsafe { atomic::compare_exchange(&raw mut (*record).life, word, word | life::LOCKED) } != word {
        return 0;
    }
    locking.taken = word;
    1
}

/// Moves a connection along with the packet. False: it is gone, or was removed on purpose.
#[inline(always)]
fn advance<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>, found: &Found) -> bool {
    let Some(word) = lock(run.datapath, found.record, found.life) else { return false };
    let machine = &mut *run.machine;
    let flags = machine.track.flags;
    // SAFETY: the lock is held: nobody else writes to the record, and the daemon only reads it.
    let record = unsafe { &mut *found.record.as_ptr() };
    let forced = flags & op::CT_COMMIT != 0
        && flags & op::CT_FORCE != 0
        && matches!(found.direction, Direction::Reply);
    let verdict = if forced {
        Verdict::Reopen
    } else {
        let timeouts = run.datapath.timeouts();
        judge(&mut record.connection, &mut machine.track, found.direction, machine.now, timeouts)
    };
    let outcome = &machine.track.outcome;
    match verdict {
        Verdict::Reopen => {
            unlock(record, word);
            remove(run.datapath, found.record, found.number, life::updated(word));
            return false;
        }
        Verdict::Invalid => {
            set_state(&mut machine.key, outcome.ct_state);
            unlock(record, word);
            return true;
        }
        Verdict::Accept | Verdict::Destroy => {}
    }
    record.expires = match outcome.timer {
        Timer::Keep => record.expires,
        Timer::Set(seconds) => machine.now + u64::from(seconds) * NANOS,
        Timer::Cap(seconds) => record.expires.min(machine.now + u64::from(seconds) * NANOS),
    };
    let direction = core::hint::black_box(found.direction as usize) & 1;
    record.packets[direction] += 1;
    record.bytes[direction] += u64::from(machine.len);
    if flags & op::CT_COMMIT != 0 {
        write_metadata(record, machine);
    }
    describe(record, machine);
    unlock(record, word);
    if matches!(verdict, Verdict::Destroy) {
        remove(run.datapath, found.record, found.number, life::updated(word));
    }
    true
}

#[inline(always)]
fn unlock(record: &mut Record, word: u64) {
    // SAFETY: the word is valid, and everyone accesses it atomically.
    unsafe { atomic::publish(&raw mut record.life, life::updated(word)) };
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
    connection.advance(direction, &facts(track.kind, &track.segment), now, timeouts, &mut track.outcome)
}

#[inline(always)]
fn facts(kind: Kind, segment: &tcp::Segment) -> Facts<'_> {
    match kind {
        Kind::Tcp => Facts::Tcp(segment),
        Kind::Udp => Facts::Udp,
        Kind::Icmp(kind) => Facts::Icmp(kind),
        Kind::Icmpv6(kind) => Facts::Icmpv6(kind),
        Kind::Other(protocol) => Facts::Other(protocol),
    }
}

/// The mark and label that `exec` asks for.
#[inline(always)]
fn write_metadata(record: &mut Record, machine: &Machine) {
    let write = &machine.write;
    record.mark = record.mark & !(write.mark_mask as u32) | write.mark as u32;
    let mut i = 0;
    while i < 2 {
        record.label[i] = record.label[i] & !write.label_mask[i] | write.label[i];
        i += 1;
    }
}

/// Sets the key's ct fields from a connection.
#[inline(always)]
fn describe(record: &Record, machine: &mut Machine) {
    let words = &mut machine.key.words;
    words[13] |= u64::from(record.mark);
    words[14] = record.label[0];
    words[15] = record.label[1];
    set_state(&mut machine.key, machine.track.outcome.ct_state);
    describe_tuple(&record.tuples[0], &mut machine.key);
}

/// Sets the key's original tuple.
#[inline(always)]
fn describe_tuple(tuple: &Tuple6, key: &mut Key) {
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
    if !open(&mut machine.track, machine.now, run.datapath.timeouts()) {
        invalid(machine);
    } else if machine.track.flags & op::CT_COMMIT != 0 {
        machine.stage = stage::COMMIT;
    } else {
        set_state(&mut machine.key, machine.track.outcome.ct_state);
        describe_tuple(&machine.tuples[0], &mut machine.key);
        machine.stage = stage::TRACKED;
    }
}

/// As [`judge`], for a connection's first packet.
#[inline(never)]
fn open(track: &mut Scratch, now: u64, timeouts: &Timeouts) -> bool {
    track.fresh.open(&facts(track.kind, &track.segment), now, timeouts, &mut track.outcome)
}

/// Stage [`stage::COMMIT`]: gives the connection in the workspace a record and its tuples.
#[inline(always)]
pub fn commit<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let datapath = run.datapath;
    let Some(number) = datapath.allocate().or_else(|| evict(run)) else {
        give_up(run, DropReason::ConntrackFull);
        return;
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
    record.tuples[0] = machine.tuples[0];
    record.tuples[1] = machine.tuples[1];
    record.connection = machine.track.fresh;
    record.connection.status |= status::CONFIRMED;
    write_metadata(record, machine);
    let word = record.life & !(life::ALIVE | life::LOCKED);
    // The reply tuple first: who finds the original one may then rely on both.
    // If another CPU was faster, its connection is the packet's.
    machine.stage = stage::CONNECT;
    if !claim(datapath, &machine.tuples[1], reference(number, word, 1)) {
        datapath.release(number);
        return;
    }
    // What is its own reply has the one tuple, and as in Linux all that follows counts as replies.
    if !is_own_reply(&machine.tuples) && !claim(datapath, &machine.tuples[0], reference(number, word, 0)) {
        forget(datapath, &machine.tuples[1], reference(number, word, 1));
        datapath.release(number);
        return;
    }
    describe(record, machine);
    // SAFETY: the word is valid, and everyone accesses it atomically.
    unsafe { atomic::publish(&raw mut record.life, word | life::ALIVE) };
    machine.stage = stage::TRACKED;
}

/// Whether both directions have the same tuple: a host sends to its own address, from and to one port.
#[inline(always)]
fn is_own_reply([there, back]: &[Tuple6; 2]) -> bool {
    // Field by field: a comparison of whole tuples would become a call of `memcmp`, which BPF does not have.
    there.src[0] == back.src[0]
        && there.src[1] == back.src[1]
        && there.ports.src == back.ports.src
        && there.ports.dst == back.ports.dst
}

/// Makes a tuple lead to a record: adds it, or takes over one that leads nowhere any more.
#[inline(always)]
fn claim<D: Connections>(datapath: &D, tuple: &Tuple6, to: TupleRef) -> bool {
    if datapath.insert(tuple, to) {
        return true;
    }
    let Some(word) = datapath.find(tuple) else { return false };
    // SAFETY: the map's value is valid while the program runs, and everyone accesses it atomically.
    let old = unsafe { atomic::load(word.as_ptr()) };
    if old == TUPLE_DYING || leads_somewhere(datapath, old) {
        return false;
    }
    // SAFETY: as above.
    unsafe { atomic::compare_exchange(word.as_ptr(), old, to) == old }
}

/// Whether a tuple's record is alive, or about to be.
#[inline(always)]
fn leads_somewhere<D: Connections>(datapath: &D, reference: TupleRef) -> bool {
    let Some(record) = datapath.record(reference as u32) else { return false };
    // SAFETY: the record is valid while the program runs, and everyone accesses `life` atomically.
    let word = unsafe { atomic::load(&raw const (*record.as_ptr()).life) };
    tag(word) == (reference >> 32) as u32 & !1
}

/// Removes a tuple if it still leads where it is thought to.
#[inline(always)]
fn forget<D: Connections>(datapath: &D, tuple: &Tuple6, to: TupleRef) {
    let Some(word) = datapath.find(tuple) else { return };
    // SAFETY: the map's value is valid while the program runs, and everyone accesses it atomically.
    if unsafe { atomic::compare_exchange(word.as_ptr(), to, TUPLE_DYING) } == to {
        // Nobody takes over a dying tuple, and nobody adds one that is there: it is still ours to remove.
        datapath.remove(tuple);
    }
}

/// Ends a connection, if its life is still the given word: unlocked, and as it was judged.
#[inline(always)]
pub fn remove<D: Connections>(datapath: &D, pointer: NonNull<Record>, number: u32, word: u64) -> bool {
    if !end(datapath, pointer, number, word) {
        return false;
    }
    datapath.release(number);
    true
}

/// As [`remove`], but keeps the record.
#[inline(always)]
fn end<D: Connections>(datapath: &D, pointer: NonNull<Record>, number: u32, word: u64) -> bool {
    if word & (life::ALIVE | life::LOCKED) != life::ALIVE {
        return false;
    }
    // SAFETY: the record is valid while the program runs, and everyone accesses `life` atomically.
    let swapped =
        unsafe { atomic::compare_exchange(&raw mut (*pointer.as_ptr()).life, word, life::dead(word)) };
    if swapped != word {
        return false;
    }
    // SAFETY: the record has just died by our hand and is not released yet: nobody else touches its tuples.
    let record = unsafe { &*pointer.as_ptr() };
    forget(datapath, &record.tuples[0], reference(number, word, 0));
    forget(datapath, &record.tuples[1], reference(number, word, 1));
    true
}

/// Finds a connection that may go because the table is full: one that never saw a reply; else one that is not
/// assured. Its record is returned.
#[inline(always)]
fn evict<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) -> Option<u32> {
    let datapath = run.datapath;
    run.machine.track.second_best = 0;
    run.machine.track.evicted = 0;
    datapath.repeat(EVICTION_PROBES, try_evict::<P, D>, core::ptr::from_mut(run).cast());
    let track = &run.machine.track;
    if track.evicted == 0 && track.second_best != 0 {
        let number = (track.second_best - 1) as u32;
        let record = datapath.record(number)?;
        return end(datapath, record, number, track.second_best_life).then_some(number);
    }
    (track.evicted != 0).then(|| (track.evicted - 1) as u32)
}

/// Looks at one record.
extern "C" fn try_evict<P: Packet, D: Tables + Connections>(_index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `evict` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let number = run.datapath.advance_clock_hand();
    let Some(pointer) = run.datapath.record(number) else { return 1 };
    // SAFETY: the record is valid while the program runs, and everyone accesses these words atomically, or
    // changes `life` when changing them, which `end` then notices.
    let (word, status, early, expires) = unsafe {
        let record = pointer.as_ptr();
        (
            atomic::load(&raw const (*record).life),
            (*record).connection.status,
            (*record).connection.can_drop_early(),
            atomic::load(&raw const (*record).expires),
        )
    };
    if word & (life::ALIVE | life::LOCKED) != life::ALIVE {
        return 0;
    }
    if status & status::SEEN_REPLY == 0 || expires < run.machine.now {
        if end(run.datapath, pointer, number, word) {
            run.machine.track.evicted = u64::from(number) + 1;
            return 1;
        }
    } else if early && run.machine.track.second_best == 0 {
        run.machine.track.second_best = u64::from(number) + 1;
        run.machine.track.second_best_life = word;
    }
    0
}
