//! Fragments: a datagram is tracked by its first one, and the later ones get what that one was told.
//!
//! A later fragment has no ports. So the first one leaves the datagram's ports and state in a [`Datagram`], found by
//! addresses and identification (RFC 791, RFC 8200 4.5), and the later ones look there. They are not held back until
//! the datagram is whole, as there is nowhere to hold them: one that comes before its datagram's first is invalid.
//!
//! Which octets have come is kept, so that no octet comes twice (RFC 5722, RFC 8200): a fragment that overlaps another
//! makes its datagram invalid from there on, one that repeats another is invalid alone. Memory is bounded by the
//! number of datagrams; under a flood the longest unused is forgotten, and what is left of it is invalid.

use core::ffi::c_void;
use core::ptr::NonNull;

use conntrack_core::{ct_state, icmp};

use super::commit::conclude_without_record;
use super::connect::finish;
use super::{Connections, Kind, TRACK_ATTEMPTS, give_up, invalid, table};
use crate::atomic;
use crate::drop_reason::DropReason;
use crate::layout::{DATAGRAM_WORDS, Datagram, Ports, Tuple, datagram, op};
use crate::packet::Packet;
use crate::parse::{FRAG_ANY, eth_type, ip_proto};
use crate::pipeline::{Machine, Run, stage};
use crate::tables::Tables;

/// How long the rest of a datagram may take, as Linux's ip_frag_time.
const LIFETIME: u64 = 30 * super::NANOS;
/// The last octet that a datagram can have, plus one.
const LARGEST: u32 = 65535;

/// A fragment's place in its datagram.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Fragment {
    /// What the datagram is known by: its addresses, and its identification in the place of ports.
    pub key: Tuple,
    /// The first unit of eight octets.
    pub start: u32,
    /// How many.
    pub units: u32,
    /// How many of them had come before.
    pub known: u32,
    /// Where the fragment ends, in octets of the datagram.
    pub end: u32,
    /// 1: another one follows.
    pub more: u32,
    /// 1: this is the first fragment, and what it is told is to be kept for the others.
    pub leads: u32,
    /// TCP: the sequence number of the datagram's first octet, if the header's octets counted.
    pub base: u32,
    /// Zero.
    pub pad: u32,
}

/// Stage [`stage::FRAGMENT`]: where a fragment belongs.
#[inline(always)]
pub fn fragment<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let machine = &mut *run.machine;
    machine.track.fragment = Fragment::default();
    if read(&run.packet, machine).is_none() {
        return invalid(run);
    }
    run.machine.stage = stage::ASSEMBLE;
}

/// Reads a fragment's place. None: there is no such place in a datagram.
#[inline(always)]
fn read<P: Packet>(packet: &P, machine: &mut Machine) -> Option<()> {
    let Machine { key, layout, track, .. } = machine;
    let words = &key.words;
    let ipv4 = words[0] >> 16 & 0xffff == u64::from(eth_type::IPV4);
    let at = u32::from(layout.fragment);
    let len = if layout.l4 == 0 || ipv4 {
        u32::from(layout.l4_len)
    } else {
        u32::from(layout.l4) + u32::from(layout.l4_len) - (at + 8)
    };
    let (id, start, more);
    let fragment = &mut track.fragment;
    if ipv4 {
        let [i0, i1, f0, f1] = packet.load::<4>(at + 4)?;
        let flags = u16::from_be_bytes([f0, f1]);
        id = u32::from(u16::from_be_bytes([i0, i1]));
        (start, more) = (u32::from(flags & 0x1fff), u32::from(flags >> 13 & 1));
        (fragment.key.src, fragment.key.dst) = ([0, words[3] >> 32], [0, words[3] & 0xffff_ffff]);
    } else {
        let [_, _, f0, f1, i0, i1, i2, i3] = packet.load::<8>(at)?;
        let flags = u16::from_be_bytes([f0, f1]);
        id = u32::from_be_bytes([i0, i1, i2, i3]);
        (start, more) = (u32::from(flags >> 3), u32::from(flags & 1));
        (fragment.key.src, fragment.key.dst) = ([words[5], words[6]], [words[7], words[8]]);
    }
    fragment.key.ports = Ports {
        src: (id >> 16) as u16,
        dst: id as u16,
        zone: track.zone,
        // IPv6 tells datagrams apart by addresses and identification alone.
        protocol: if ipv4 { (words[0] >> 32) as u8 } else { 0 },
        family: if ipv4 { 4 } else { 6 },
    };
    fragment.start = start;
    fragment.end = start * 8 + len;
    fragment.units = len.div_ceil(8);
    fragment.more = more;
    fragment.leads = u32::from(start == 0);
    (len != 0 && (more == 0 || len & 7 == 0) && fragment.end <= LARGEST).then_some(())
}

/// Stage [`stage::ASSEMBLE`]: whether the fragment fits the others.
#[inline(always)]
pub fn assemble<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let datapath = run.datapath;
    let now = run.machine.now;
    let key = &run.machine.track.fragment.key;
    let expires = |found: NonNull<Datagram>| {
        // SAFETY: the value is valid while the program runs; the word never changes once it can be found.
        unsafe { (*found.as_ptr()).expires }
    };
    if datapath.datagram(key).is_some_and(|found| expires(found) < now) {
        datapath.remove_datagram(key);
    }
    if datapath.datagram(key).is_none() {
        datapath.insert_datagram(key, now + LIFETIME);
    }
    datapath.repeat(DATAGRAM_WORDS, mark::<P, D>, core::ptr::from_mut(run).cast());
    let Some(found) = datapath.datagram(&run.machine.track.fragment.key) else { return invalid(run) };
    let found: *mut Datagram = found.as_ptr();
    let Fragment { known, units, end, more, leads, .. } = run.machine.track.fragment;
    // SAFETY: the value is valid while the program runs, and everyone accesses these words atomically.
    let (result, base) = unsafe {
        let (result, last) = (&raw mut (*found).result, &raw mut (*found).end);
        let received =
            atomic::fetch_add(&raw mut (*found).received, u64::from(units - known)) as u32 + units - known;
        if more == 0 {
            atomic::compare_exchange(last, 0, u64::from(end));
        }
        let last = atomic::load(last) as u32;
        let beyond = last != 0 && (end > last || received > last.div_ceil(8) || more == 0 && end != last);
        if beyond || known != 0 && known != units {
            atomic::fetch_or(result, datagram::BAD);
        }
        if last != 0 && received == last.div_ceil(8) {
            atomic::fetch_or(result, datagram::WHOLE);
        }
        (atomic::load(result), atomic::load(&raw const (*found).base))
    };
    let ready = result & datagram::READY != 0;
    if result & datagram::BAD != 0 || known != 0 || leads == 0 && !ready {
        return invalid(run);
    }
    if leads != 0 {
        run.machine.stage = stage::EXAMINE;
        return;
    }
    run.machine.track.fragment.base = base as u32;
    restore(run.machine, result);
    run.machine.stage = stage::FOLLOW;
    if result & datagram::WHOLE != 0 {
        // The identification may be used again.
        datapath.remove_datagram(&run.machine.track.fragment.key);
    }
}

/// Marks the units of one word as seen.
extern "C" fn mark<P: Packet, D: Tables + Connections>(index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `assemble` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let fragment = &mut run.machine.track.fragment;
    let word = fragment.start / 64 + index as u32;
    let (first, end) = (word * 64, fragment.start + fragment.units);
    if first >= end {
        return 1;
    }
    let from = fragment.start.saturating_sub(first) & 63;
    let to = (end - first).min(64);
    let mask = u64::MAX << from & u64::MAX >> ((64 - to) & 63);
    let Some(found) = run.datapath.datagram(&fragment.key) else { return 1 };
    // SAFETY: the value is valid while the program runs, and everyone accesses its words atomically.
    let before = unsafe {
        let seen = &raw mut (*found.as_ptr()).seen;
        atomic::fetch_or(seen.cast::<u64>().add(word as usize & (DATAGRAM_WORDS as usize - 1)), mask)
    };
    fragment.known += ones(before & mask);
    0
}

/// The number of ones, by halves: BPF has no instruction for it.
#[inline(always)]
fn ones(word: u64) -> u32 {
    let word = word - (word >> 1 & 0x5555_5555_5555_5555);
    let word = (word & 0x3333_3333_3333_3333) + (word >> 2 & 0x3333_3333_3333_3333);
    let word = (word + (word >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    (word.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
}

/// Gives a later fragment the fields that its datagram's first one has, as if the datagram had come whole, and the
/// tuples.
#[inline(always)]
fn restore(machine: &mut Machine, result: u64) {
    let (src, dst) = ((result >> 48) as u16, (result >> 32) as u16);
    let protocol = (result >> 16) as u8;
    let key = &machine.track.fragment.key;
    let icmp = protocol == ip_proto::ICMP || protocol == ip_proto::ICMPV6;
    let words = &mut machine.key.words;
    words[0] = words[0] & !(0xff << 32 | 0xff << 48) | u64::from(protocol) << 32 | u64::from(FRAG_ANY) << 48;
    let shown = if icmp {
        u32::from(dst >> 8) << 16 | u32::from(dst & 0xff)
    } else {
        u32::from(src) << 16 | u32::from(dst)
    };
    words[4] = words[4] & 0xffff_ffff | u64::from(shown) << 32;
    let ports = Ports { src, dst, protocol, ..key.ports };
    let inverse = if protocol == ip_proto::ICMP {
        icmp::invert((dst >> 8) as u8)
    } else {
        icmp::invert_v6((dst >> 8) as u8)
    };
    let answer = match inverse {
        Some(kind) if icmp => Ports { dst: u16::from(kind) << 8 | dst & 0xff, ..ports },
        _ => Ports { src: dst, dst: src, ..ports },
    };
    machine.last.tuples[0] = Tuple { src: key.src, dst: key.dst, ports };
    machine.last.tuples[1] = Tuple { src: key.dst, dst: key.src, ports: answer };
    machine.track.kind = Kind::Fragment;
    machine.track.outcome.ct_state = result as u8;
}

/// Stage [`stage::FOLLOW`]: a later fragment's connection. It does not move along again, but counts the packet.
#[inline(always)]
pub fn follow<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    if run.machine.track.attempts >= TRACK_ATTEMPTS {
        return give_up(run, run.machine.track.failure);
    }
    run.machine.track.attempts += 1;
    let Some(found) = table::locate(run.datapath, &run.machine.last.tuples[0], run.machine.now) else {
        return follow_nobody(run);
    };
    let Some(word) = table::lock(run.datapath, found.record, found.life) else { return };
    // SAFETY: the lock is held: nobody else writes to the record, and the daemon only reads it.
    let record = unsafe { &mut *found.record.as_ptr() };
    let direction = core::hint::black_box(found.direction as usize) & 1;
    record.packets[direction] += 1;
    record.bytes[direction] += u64::from(run.machine.len);
    if record.connection.protocol == ip_proto::TCP {
        extend(&run.machine.track.fragment, &mut record.connection.tcp.peers[direction].end);
    }
    super::translate::plan(run.machine, record, found.direction);
    finish(run, found.record, found.number, word, found.direction, false);
    run.machine.stage = stage::TRACKED;
}

/// Takes into account that a segment goes on in this fragment: `end` is the sequence number behind what its sender
/// has sent.
#[inline(always)]
fn extend(fragment: &Fragment, end: &mut u32) {
    let reached = fragment.base.wrapping_add(fragment.end);
    if (reached.wrapping_sub(*end) as i32) > 0 {
        *end = reached;
    }
}

/// A later fragment of a datagram that has no connection, as it was not committed.
#[inline(always)]
fn follow_nobody<P, D: Tables>(run: &mut Run<'_, P, D>) {
    let machine = &mut *run.machine;
    if machine.track.flags & op::CT_COMMIT != 0 {
        return give_up(run, DropReason::ConntrackFragment as u32);
    }
    conclude_without_record(machine);
}

/// Stage [`stage::CONCLUDE`]: keeps what a datagram's first fragment was told.
#[inline(always)]
pub fn conclude<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let machine = &mut *run.machine;
    machine.stage = stage::TRACKED;
    machine.track.fragment.leads = 0;
    let Some(found) = run.datapath.datagram(&machine.track.fragment.key) else { return };
    let found: *mut Datagram = found.as_ptr();
    let state = (machine.key.words[0] >> 40) as u8 & !(ct_state::SNAT | ct_state::DNAT);
    let ports = &machine.last.tuples[0].ports;
    let result = u64::from(ports.src) << 48 | u64::from(ports.dst) << 32 | u64::from(ports.protocol) << 16;
    let header = u32::from(machine.layout.l4_len).wrapping_sub(machine.track.segment.payload_len);
    let base = machine.track.segment.seq.wrapping_sub(header);
    // An invalid first fragment leaves the others invalid.
    if state & ct_state::INV != 0 {
        return;
    }
    // SAFETY: the value is valid while the program runs, and everyone accesses these words atomically.
    unsafe {
        atomic::publish(&raw mut (*found).base, u64::from(base));
        let before = atomic::fetch_or(&raw mut (*found).result, result | datagram::READY | u64::from(state));
        if before & datagram::WHOLE != 0 {
            run.datapath.remove_datagram(&machine.track.fragment.key);
        }
    }
}
