//! Text that a translation replaces in a TCP stream, and the sequence numbers behind it.
//!
//! Unlike headers, which the key stands for until the packet leaves, text is changed where it is: outputs that the
//! packet has already been given get it too. So it is with the edges of SACK blocks.

use core::ffi::c_void;

use conntrack_core::seqadj::Shifts;
use conntrack_core::{Direction, status, tcp};

use super::connect::direction;
use super::examine::{pseudo_header, sum_packet};
use super::help::Reading;
use super::translate::ADJUSTS;
use super::{Connections, give_up, table};
use crate::checksum::delta;
use crate::drop_reason::DropReason;
use crate::layout::life;
use crate::packet::{Changed, Packet};
use crate::parse::eth_type;
use crate::pipeline::{Machine, Run, stage};
use crate::tables::Tables;

/// Bytes that may follow a text in its packet.
const MAX_BEHIND: u32 = 2048;
/// Offset of TCP's checksum.
const CHECKSUM: u32 = 16;
/// Steps through a TCP header's options.
const MAX_OPTIONS: u32 = 40;

/// Stage [`stage::ADJUST`]: the numbers of a segment whose connection's text was changed, as the other end counts.
#[inline(always)]
pub fn adjust<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    run.machine.stage = stage::CONNECT;
    // Whatever comes of it, it is done once, and was no attempt that failed.
    let machine = &mut *run.machine;
    machine.track.attempts -= 1;
    machine.track.translation.bits |= ADJUSTS;
    machine.track.translation.shifts = 0;
    let Some(found) = table::locate(run.datapath, &machine.last.tuples[0], machine.now) else { return };
    let Some(word) = table::lock(run.datapath, found.record, found.life) else { return };
    let mut shifts = Shifts::default();
    if let Some(help) = run.datapath.help(life::owner(found.number, word)) {
        // SAFETY: the value is valid while the program runs, and the lock is held.
        shifts = unsafe { (*help.as_ptr()).shifts };
    }
    // SAFETY: the lock is held.
    table::unlock(unsafe { &mut *found.record.as_ptr() }, word);
    let track = &mut machine.track;
    track.shifts = shifts;
    let segment = &mut track.segment;
    let (mut seq, mut ack) = (segment.seq, segment.ack);
    shifts.adjust(found.direction, &mut seq, &mut ack);
    let mut by = u64::from(seq.wrapping_sub(segment.seq)) << 32;
    if segment.flags & tcp::ACK != 0 {
        by |= u64::from(ack.wrapping_sub(segment.ack));
        // What is acknowledged is judged by what the other end has sent; what is sent, by what this one has.
        segment.ack = ack;
    }
    if segment.options & tcp::HAS_SACK != 0 {
        let mut block = [segment.sack; 2];
        shifts.adjust_block(found.direction, &mut block);
        segment.sack = block[1];
    }
    track.translation.shifts = by;
}

/// Stage [`stage::ADJUST_SACK`]: the edges of a segment's SACK blocks likewise.
#[inline(always)]
pub fn adjust_sack<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    run.machine.stage = stage::HELP;
    run.machine.track.reading.option = u32::from(run.machine.layout.l4) + tcp::HEADER_LEN as u32;
    let datapath = run.datapath;
    datapath.repeat(MAX_OPTIONS, adjust_option::<P, D>, core::ptr::from_mut(run).cast());
}

extern "C" fn adjust_option<P: Packet, D: Tables + Connections>(_index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `adjust_sack` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let Machine { layout, track, last, .. } = &mut *run.machine;
    let l4 = u32::from(layout.l4);
    let end = l4 + u32::from(layout.l4_len) - track.segment.payload_len;
    let at = track.reading.option;
    if at + 1 >= end {
        return 1;
    }
    let Some([kind, len]) = run.packet.load::<2>(at) else { return 1 };
    match kind {
        tcp::END_OF_LIST => return 1,
        tcp::NO_OPERATION => {
            track.reading.option = at + 1;
            return 0;
        }
        _ if len < 2 || at + u32::from(len) > end => return 1,
        _ => track.reading.option = at + u32::from(len),
    }
    if kind != tcp::SACK {
        return 0;
    }
    let direction = direction(last.direction);
    let mut block = 0;
    while block < 4 {
        let at = at + 2 + block * 8;
        if at + 8 <= track.reading.option && !adjust_block(&mut run.packet, at, l4, &track.shifts, direction)
        {
            return 1;
        }
        block += 1;
    }
    0
}

/// The edges of one block.
#[inline(always)]
fn adjust_block<P: Packet>(packet: &mut P, at: u32, l4: u32, shifts: &Shifts, direction: Direction) -> bool {
    let Some([l0, l1, l2, l3, r0, r1, r2, r3]) = packet.load::<8>(at) else { return false };
    let old = [u32::from_be_bytes([l0, l1, l2, l3]), u32::from_be_bytes([r0, r1, r2, r3])];
    let mut new = old;
    shifts.adjust_block(direction, &mut new);
    let word = |[left, right]: [u32; 2]| u64::from(left) << 32 | u64::from(right);
    let by = delta(word(old), word(new));
    // An option may begin at an odd place, where sums have their bytes the other way round.
    let by = if (at - l4) & 1 == 0 { by } else { by.swap_bytes() };
    packet.store(at, word(new).to_be_bytes())
        && packet.correct_checksum(l4 + CHECKSUM, by, Changed::Transport)
}

/// Stage [`stage::REPLACE`]: puts the text into the packet.
#[inline(always)]
pub fn replace<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    run.machine.stage = stage::TRACKED;
    let machine = &mut *run.machine;
    let end = u32::from(machine.layout.l4) + u32::from(machine.layout.l4_len);
    let Reading { parser, text, at, by, behind, failed, .. } = &mut machine.track.reading;
    *by = text.len as i32 - parser.command.len as i32;
    *at += parser.command.offset;
    *behind = end.wrapping_sub(*at + parser.command.len);
    *failed = u32::from(*behind > MAX_BEHIND);
    let grows = *by > 0;
    if !note(run)
        || grows && !resize(run)
        || !write(run)
        || !grows && !resize(run)
        || !set_lengths(run)
        || !set_checksum(run)
    {
        give_up(run, DropReason::Rewrite as u32);
    }
}

/// Takes note of how numbers differ from now on. False: the connection is gone.
#[inline(always)]
fn note<P, D: Tables + Connections>(run: &mut Run<'_, P, D>) -> bool {
    let machine = &mut *run.machine;
    let by = machine.track.reading.by;
    if by == 0 {
        return true;
    }
    let Some(pointer) = run.datapath.record(machine.last.number) else { return false };
    let Some(word) = table::lock(run.datapath, pointer, machine.last.life) else { return false };
    // SAFETY: the lock is held: nobody else writes to the record, and the daemon only reads it.
    let record = unsafe { &mut *pointer.as_ptr() };
    let help = run.datapath.help(life::owner(machine.last.number, word));
    if let Some(help) = help {
        // SAFETY: the value is valid while the program runs, and the lock is held.
        let shifts = unsafe { &mut (*help.as_ptr()).shifts };
        shifts.of(direction(machine.last.direction)).replaced(machine.track.segment.seq, by);
        record.connection.status |= status::SEQ_ADJUST;
    }
    table::unlock(record, word);
    help.is_some()
}

#[inline(always)]
fn resize<P: Packet, D>(run: &mut Run<'_, P, D>) -> bool {
    let by = run.machine.track.reading.by;
    by == 0 || run.packet.resize(run.packet.length().wrapping_add_signed(by))
}

/// Moves what is behind the text, and writes it.
#[inline(always)]
fn write<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) -> bool {
    let datapath = run.datapath;
    let reading = &run.machine.track.reading;
    let (behind, len) = (reading.behind, reading.text.len);
    if reading.by != 0 {
        datapath.repeat(behind, move_byte::<P, D>, core::ptr::from_mut(run).cast());
    }
    datapath.repeat(len, write_byte::<P, D>, core::ptr::from_mut(run).cast());
    run.machine.track.reading.failed == 0
}

extern "C" fn move_byte<P: Packet, D: Tables + Connections>(index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `write` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let reading = &mut run.machine.track.reading;
    // So that none is overwritten before it is moved.
    let index = index as u32;
    let place = if reading.by > 0 { reading.behind.wrapping_sub(1 + index) } else { index };
    let from = reading.at + reading.parser.command.len + place;
    let to = from.wrapping_add_signed(reading.by);
    let moved = run.packet.load::<1>(from).is_some_and(|byte| run.packet.store(to, byte));
    reading.failed |= u32::from(!moved);
    i64::from(!moved)
}

extern "C" fn write_byte<P: Packet, D: Tables + Connections>(index: u64, run: *mut c_void) -> i64 {
    // SAFETY: as in `move_byte`.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let reading = &mut run.machine.track.reading;
    let byte = reading.text.bytes[index as usize & 63];
    let written = run.packet.store(reading.at + index as u32, [byte]);
    reading.failed |= u32::from(!written);
    i64::from(!written)
}

/// The lengths of the packet, in its IP header and in the machine.
#[inline(always)]
fn set_lengths<P: Packet, D>(run: &mut Run<'_, P, D>) -> bool {
    let machine = &mut *run.machine;
    let by = machine.track.reading.by;
    if by == 0 {
        return true;
    }
    machine.len = machine.len.wrapping_add_signed(by);
    machine.layout.l4_len = machine.layout.l4_len.wrapping_add_signed(by as i16);
    let l3 = u32::from(machine.layout.l3);
    let ipv4 = (machine.key.words[0] >> 16) as u16 == eth_type::IPV4;
    let field = l3 + if ipv4 { 2 } else { 4 };
    let Some(old) = run.packet.load::<2>(field) else { return false };
    let old = u16::from_be_bytes(old);
    let Some(new) = old.checked_add_signed(by as i16) else { return false };
    run.packet.store(field, new.to_be_bytes())
        && (!ipv4 || run.packet.correct_checksum(l3 + 10, delta(old.into(), new.into()), Changed::IpHeader))
}

/// TCP's checksum, anew: the text may have an odd length, and move all that is behind it.
#[inline(always)]
fn set_checksum<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) -> bool {
    let machine = &mut *run.machine;
    let at = u32::from(machine.layout.l4) + CHECKSUM;
    let len = u32::from(machine.layout.l4_len);
    if machine.layout.partial != 0 {
        // The hardware will sum the bytes. What is there covers the length.
        let before = u64::from(len.wrapping_add_signed(-machine.track.reading.by));
        return run.packet.correct_checksum(at, delta(before, len.into()), Changed::PseudoHeader);
    }
    machine.track.pseudo = pseudo_header(machine.wire()) + u64::from(len);
    machine.track.sum_len = len;
    run.packet.store(at, [0, 0]) && {
        let sum = sum_packet(run);
        run.packet.store(at, (!sum).to_be_bytes())
    }
}
