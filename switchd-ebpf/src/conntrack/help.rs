//! Helpers: they read what a connection says, to learn which others to expect.
//!
//! FTP's control connection (see [`ftp`]) and TFTP's requests (see [`tftp`]), for connections that were committed with
//! `alg`. What is announced becomes an [`Expectation`]; [`super::expected`] is about the connection that comes of it.

use core::ffi::c_void;
use core::ptr::NonNull;

use conntrack_core::nat::MAX_ATTEMPTS;
use conntrack_core::{ct_state, ftp, status, tcp, tftp};

use super::connect::direction;
use super::translate::ADJUSTS;
use super::{Connections, Kind, NANOS, give_up, table};
use crate::drop_reason::DropReason;
use crate::layout::{Expectation, Help, Ports, Record, Tuple, helper, life};
use crate::packet::{MAX_OFFSET, Packet};
use crate::pipeline::{Run, stage};
use crate::tables::Tables;

/// Seconds for which a connection is expected (`nf_conntrack_ftp.c`, `nf_conntrack_tftp.c`).
const EXPECTED_FOR: u64 = 300;
/// Length of a UDP header.
const UDP_HEADER: u32 = 8;

/// What a helper works with.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Reading {
    /// Reads what is said in FTP.
    pub parser: ftp::Parser,
    /// What a translation says instead.
    pub text: ftp::Text,
    /// Offset of the payload in the packet.
    pub at: u32,
    /// The key of what is announced.
    pub tuple: Tuple,
    /// What is announced.
    pub expectation: Expectation,
    /// Not 0: it was written down.
    pub chosen: u32,
    /// How many bytes a text is longer than what it replaces.
    pub by: i32,
    /// How many bytes follow it.
    pub behind: u32,
    /// Not 0: the packet could not be changed.
    pub failed: u32,
    /// Offset of the TCP option to be looked at.
    pub option: u32,
    /// Zero.
    pub pad: u32,
}

/// Stage [`stage::HELP`]: what the packet of a connection with a helper announces.
#[inline(always)]
pub fn help<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    run.machine.stage = stage::TRACKED;
    let machine = &mut *run.machine;
    if machine.track.fragment.leads != 0 {
        return;
    }
    let Some(record) = run.datapath.record(machine.last.number) else { return };
    // SAFETY: the record is valid while the program runs; this word of it is read whole.
    let helper = unsafe { (&raw const (*record.as_ptr()).helper).read_volatile() };
    match (helper, machine.track.kind) {
        (helper::FTP, Kind::Tcp) => {
            let adjusted = machine.track.translation.bits & ADJUSTS != 0;
            if adjusted && machine.track.segment.options & tcp::HAS_SACK != 0 {
                machine.track.segment.options &= !tcp::HAS_SACK;
                machine.stage = stage::ADJUST_SACK;
            } else if machine.track.segment.payload_len != 0 && machine.last.state & ct_state::EST != 0 {
                machine.stage = stage::READ_TEXT;
            }
        }
        (helper::TFTP, Kind::Udp) if machine.last.direction == 0 => {
            let opcode = run.packet.load::<2>(u32::from(machine.layout.l4) + UDP_HEADER);
            if opcode.is_some_and(|opcode| tftp::announces(u16::from_be_bytes(opcode))) {
                machine.stage = stage::EXPECT;
            }
        }
        _ => {}
    }
}

/// Stage [`stage::READ_TEXT`]: what a segment of FTP's control connection says.
#[inline(always)]
pub fn read_text<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    run.machine.stage = stage::TRACKED;
    let datapath = run.datapath;
    let machine = &mut *run.machine;
    let (seq, len) = (machine.track.segment.seq, machine.track.segment.payload_len);
    let end = u32::from(machine.layout.l4) + u32::from(machine.layout.l4_len);
    let Some([last]) = run.packet.load::<1>(end - 1) else { return };
    let Some(pointer) = datapath.record(machine.last.number) else { return };
    let Some(word) = table::lock(datapath, pointer, machine.last.life) else { return };
    // SAFETY: the lock is held: nobody else writes to the record, and the daemon only reads it.
    let record = unsafe { &mut *pointer.as_ptr() };
    let mut begins = false;
    if let Some(help) = obtain(datapath, life::owner(machine.last.number, word)) {
        // SAFETY: the value is valid while the program runs, and is accessed by whoever holds the lock.
        let help = unsafe { &mut *help.as_ptr() };
        let lines = &mut help.lines[usize::from(machine.last.direction & 1)];
        begins = lines.begins_at(seq);
        lines.saw(seq, seq.wrapping_add(len), last == b'\n');
    }
    table::unlock(record, word);
    machine.track.reading.at = end - len;
    machine.track.reading.parser.start(direction(machine.last.direction), begins);
    datapath.repeat(MAX_OFFSET, read_byte::<P, D>, core::ptr::from_mut(run).cast());
    if run.machine.track.reading.parser.found() {
        run.machine.stage = stage::EXPECT;
    }
}

extern "C" fn read_byte<P: Packet, D: Tables + Connections>(index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `read_text` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let track = &mut run.machine.track;
    let index = index as u32;
    if index >= track.segment.payload_len {
        return 1;
    }
    let place = index & 63;
    if place == 0 {
        let len = (track.segment.payload_len - index).min(64);
        if !run.packet.read(track.reading.at + index, &mut track.header, len) {
            return 1;
        }
    }
    i64::from(!track.reading.parser.push(track.header.bytes[place as usize]))
}

/// What the helper of a connection keeps, whose lock is held. None: there is no room.
#[inline(always)]
fn obtain<D: Connections>(datapath: &D, owner: u64) -> Option<NonNull<Help>> {
    datapath.help(owner).or_else(|| {
        datapath.insert_help(owner);
        datapath.help(owner)
    })
}

/// Stage [`stage::EXPECT`]: from now on the announced connection is expected.
#[inline(always)]
pub fn expect<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    run.machine.stage = stage::TRACKED;
    let datapath = run.datapath;
    let machine = &mut *run.machine;
    let Some(pointer) = datapath.record(machine.last.number) else { return };
    let Some(word) = table::lock(datapath, pointer, machine.last.life) else { return };
    // SAFETY: the lock is held: nobody else writes to the record, and the daemon only reads it.
    let record = unsafe { &mut *pointer.as_ptr() };
    let translated = record.connection.status & (status::SRC_NAT | status::DST_NAT) != 0;
    let speaks = record.helper == helper::FTP;
    let owner = life::owner(machine.last.number, word);
    let mut announced = false;
    if let Some(help) = obtain(datapath, owner)
        && announces(record, &mut machine.track.reading, machine.last.direction)
    {
        announced = true;
        // SAFETY: as in `read_text`.
        let help = unsafe { &mut *help.as_ptr() };
        revoke(datapath, help, owner);
        if speaks {
            help.lines[usize::from(machine.last.direction & 1)].found(machine.track.segment.seq);
        }
        let reading = &mut machine.track.reading;
        reading.expectation.expires = machine.now + EXPECTED_FOR * NANOS;
        reading.expectation.parent = owner;
        reading.chosen = 0;
        let config = datapath.config().as_ptr();
        // SAFETY: the configuration is valid while the program runs, and this is the only value that is ever
        // written to the word.
        unsafe { (&raw mut (*config).expects).write_volatile(1) };
        let attempts = if translated && speaks { u32::from(MAX_ATTEMPTS) } else { 1 };
        datapath.repeat(attempts, try_port::<P, D>, core::ptr::from_mut(run).cast());
        let reading = &run.machine.track.reading;
        if reading.chosen != 0 {
            help.expected = reading.tuple;
            help.expects = 1;
        }
    }
    table::unlock(record, word);
    if announced && translated && speaks {
        answer(run);
    }
}

/// Works out what is announced. False: it is not the sender's to announce.
#[inline(always)]
fn announces(record: &Record, reading: &mut Reading, direction: u8) -> bool {
    let direction = usize::from(direction & 1);
    let sender = &record.tuples[direction];
    let other = &record.tuples[direction ^ 1];
    let command = &reading.parser.command;
    let mut port = other.ports.dst;
    let mut announced = sender.ports.src;
    if record.helper == helper::FTP {
        let foreign = (command.address[0] ^ sender.src[0]) | (command.address[1] ^ sender.src[1]) != 0;
        if command.family != 0 && (command.family != sender.ports.family || foreign) {
            return false;
        }
        (port, announced) = (command.port, command.port);
    }
    // Whoever the connection is with calls where it thinks that the sender is.
    reading.tuple =
        Tuple { src: other.src, dst: other.dst, ports: Ports { src: 0, dst: port, ..other.ports } };
    reading.expectation.port = announced;
    reading.expectation.direction = direction as u8;
    true
}

/// Tries to expect the connection at one port: the first one is that which was announced.
extern "C" fn try_port<P: Packet, D: Tables + Connections>(index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `expect` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let (datapath, now) = (run.datapath, run.machine.now);
    let Reading { tuple, expectation, chosen, .. } = &mut run.machine.track.reading;
    if index != 0 {
        tuple.ports.dst = tuple.ports.dst.wrapping_add(1);
    }
    if tuple.ports.dst == 0 {
        return 1;
    }
    if datapath.expectation(tuple).is_some_and(|other| other.expires < now) {
        datapath.remove_expectation(tuple);
    }
    *chosen = u32::from(datapath.insert_expectation(tuple, expectation));
    i64::from(*chosen != 0)
}

/// Under a translation the other end is told what it can call.
#[inline(always)]
fn answer<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let Reading { parser, text, tuple, chosen, .. } = &mut run.machine.track.reading;
    if *chosen == 0 {
        give_up(run, DropReason::NatExhausted as u32);
        return;
    }
    let command = &mut parser.command;
    let moved = (command.address[0] ^ tuple.dst[0]) | (command.address[1] ^ tuple.dst[1]) != 0;
    if command.family != 0 && moved || command.port != tuple.ports.dst {
        command.address = tuple.dst;
        command.port = tuple.ports.dst;
        ftp::write(command, text);
        run.machine.stage = stage::REPLACE;
    }
}

/// Takes back what a connection has announced.
#[inline(always)]
fn revoke<D: Connections>(datapath: &D, help: &mut Help, owner: u64) {
    if help.expects == 0 {
        return;
    }
    help.expects = 0;
    // It may have come to pass, or have been forgotten, and another connection's be in its place.
    if datapath.expectation(&help.expected).is_some_and(|expectation| expectation.parent == owner) {
        datapath.remove_expectation(&help.expected);
    }
}

/// The end of a connection with a helper, which has just died by our hand: nobody holds its lock any more.
#[inline(always)]
pub(super) fn retire<D: Connections>(datapath: &D, owner: u64) {
    let Some(help) = datapath.help(owner) else { return };
    // SAFETY: the value is valid while the program runs, and whoever made the connection end is the last to access it.
    revoke(datapath, unsafe { &mut *help.as_ptr() }, owner);
    datapath.remove_help(owner);
}
