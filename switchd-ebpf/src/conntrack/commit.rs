//! Connections that begin: their first packet, and the record and the tuples that a commit gives them.

use conntrack_core::{Direction, Timeouts, Timer, status};

use super::connect::{facts, next_stage, write_metadata};
use super::expected::endow;
use super::table::{self, Count, count};
use super::translate::{self, ADJUSTS};
use super::{
    Connections, Last, NANOS, Scratch, describe, describe_tuple, give_up, invalid, set_state, tuples,
};
use crate::atomic;
use crate::drop_reason::DropReason;
use crate::layout::{Record, event, helper, life, op, place};
use crate::packet::Packet;
use crate::pipeline::{Machine, Run, stage};
use crate::tables::Tables;

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
    let timeouts = run.datapath.timeouts(policy);
    if !timeouts.is_some_and(|timeouts| open(&mut machine.track, machine.now, timeouts)) {
        invalid(run);
    } else if expects != 0 {
        machine.stage = stage::RECOGNISE;
    } else {
        proceed(machine);
    }
}

/// What comes behind a connection's first packet.
#[inline(always)]
pub(super) fn proceed(machine: &mut Machine) {
    if machine.track.flags & op::CT_COMMIT != 0 {
        machine.stage = stage::COMMIT;
    } else {
        conclude_without_record(machine);
    }
}

/// The end for a packet that begins a connection, but does not commit it.
#[inline(always)]
pub(super) fn conclude_without_record(machine: &mut Machine) {
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

/// The rules for a connection's first packet, as `judge` has them for the others.
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
    record.helper = wanted_helper(machine);
    record.parent = 0;
    record.tuples = machine.last.tuples;
    record.connection = machine.track.fresh;
    record.connection.status |= status::CONFIRMED;
    endow(record, &machine.track.heritage);
    write_metadata(record, machine);
    machine.track.number = number;
    machine.stage = stage::CLAIM;
}

/// The helper that `alg` asks for. What was announced announces nothing itself: in what a file says, nobody shall find
/// commands.
#[inline(always)]
fn wanted_helper(machine: &Machine) -> u16 {
    match machine.track.flags & (op::CT_FTP | op::CT_TFTP) {
        op::CT_FTP => helper::FTP,
        op::CT_TFTP => helper::TFTP,
        _ => helper::NONE,
    }
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
pub(super) fn take_place<D: Tables + Connections>(
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
