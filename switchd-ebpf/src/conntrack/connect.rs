//! A packet's connection: found, moved along by `conntrack-core`'s rules, and written to.

use core::ptr::NonNull;

use conntrack_core::{Connection, Direction, Facts, Timeouts, Timer, Verdict, ct_state, sctp, status, tcp};

use super::table::{self, Count, End, count, remove};
use super::translate::{self, ADJUSTS};
use super::tuples::Found;
use super::{Connections, Kind, Last, NANOS, Scratch, TRACK_ATTEMPTS, describe, give_up, invalid};
use crate::layout::{Record, event, helper, life, op};
use crate::packet::Packet;
use crate::pipeline::{Machine, Run, stage};
use crate::tables::Tables;

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
pub(super) fn direction(number: u8) -> Direction {
    if number == 0 { Direction::Original } else { Direction::Reply }
}

/// Whether the action wants the connection to begin anew with this packet.
#[inline(always)]
fn forced(flags: u32, direction: Direction) -> bool {
    flags & op::CT_COMMIT != 0 && flags & op::CT_FORCE != 0 && matches!(direction, Direction::Reply)
}

/// Stage [`stage::CONNECT`]: the connection of the packet whose tuples are in the machine. If there is none,
/// [`START`](stage::START) comes next.
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
        let Some(timeouts) = run.datapath.timeouts(record.policy) else {
            table::unlock(record, word);
            invalid(run);
            return stage::TRACKED;
        };
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
pub(super) fn finish<P: Packet, D: Tables + Connections>(
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
pub(super) fn next_stage(record: &Record, machine: &mut Machine) -> u32 {
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
pub(super) fn facts<'a>(kind: Kind, segment: &'a tcp::Segment, chunks: &'a sctp::Packet) -> Facts<'a> {
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

/// The mark and label that `exec` asks for. Returns whether that changed something.
#[inline(always)]
pub(super) fn write_metadata(record: &mut Record, machine: &Machine) -> bool {
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
