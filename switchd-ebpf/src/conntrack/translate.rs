//! Network address translation of a packet: what its connection's tuples say is written to the key, and from there,
//! as every change of headers, to the packet when it leaves.

use core::ffi::c_void;

use conntrack_core::nat::{MAX_ATTEMPTS, Original, flags};
use conntrack_core::{Direction, ct_state, status};

use super::Connections;
use super::commit::take_place;
use crate::key::{Key, SHIFTS};
use crate::layout::{Record, op};
use crate::packet::Packet;
use crate::parse::{eth_type, ip_proto};
use crate::pipeline::{Machine, Run};
use crate::tables::Tables;

/// Where a packet's addresses and ports are to be changed to.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Translation {
    /// The source address, as in a tuple.
    pub src: [u64; 2],
    /// The destination address.
    pub dst: [u64; 2],
    /// Source port (high half) and destination port; of an ICMP query, what is added to its identifier.
    pub ports: u32,
    /// Which of the two change: bits of ct_state; and [`ADJUSTS`]. 0: nothing does.
    pub bits: u32,
    /// Not 0: the source address stays as it is.
    pub keeps_source: u32,
    /// Not 0: the packet has no ports, or they stay as they are.
    pub keeps_ports: u32,
    /// With [`ADJUSTS`], what is added to the sequence number (high half) and to the acknowledgment number.
    pub shifts: u64,
}

/// In [`Translation::bits`]: the numbers of a TCP segment are adjusted.
pub const ADJUSTS: u32 = 1 << 8;
/// Those of ct_state.
const TRANSLATES: u32 = 0xff;

/// Notes what becomes of the packet, if the action translates and the connection is translated: it gets the addresses
/// that the other end answers to, which are those of the other direction's tuple.
#[inline(always)]
pub(super) fn plan(machine: &mut Machine, record: &Record, direction: Direction) {
    let translation = &mut machine.track.translation;
    let status = record.connection.status & (status::SRC_NAT | status::DST_NAT);
    if machine.track.flags & op::CT_NAT == 0 || status == 0 {
        return;
    }
    let (source, destination) = match direction {
        Direction::Original => (status::SRC_NAT, status::DST_NAT),
        Direction::Reply => (status::DST_NAT, status::SRC_NAT),
    };
    let snat = if status & source != 0 { ct_state::SNAT } else { 0 };
    let dnat = if status & destination != 0 { ct_state::DNAT } else { 0 };
    let other = &record.tuples[core::hint::black_box(direction as usize ^ 1) & 1];
    translation.bits |= u32::from(snat | dnat);
    translation.keeps_source = 0;
    translation.keeps_ports = 0;
    translation.src = other.dst;
    translation.dst = other.src;
    translation.ports = match other.ports.protocol {
        ip_proto::ICMP | ip_proto::ICMPV6 => {
            u32::from(other.ports.src.wrapping_sub(machine.last.tuples[0].ports.src))
        }
        _ => u32::from(other.ports.dst) << 16 | u32::from(other.ports.src),
    };
}

/// Translates a key.
#[inline(always)]
pub fn apply(translation: &Translation, key: &mut Key) {
    let words = &mut key.words;
    if translation.bits & ADJUSTS != 0 {
        let (seq, ack) = (words[SHIFTS] >> 32, words[SHIFTS] as u32);
        let seq = seq.wrapping_add(translation.shifts >> 32);
        words[SHIFTS] = seq << 32 | u64::from(ack.wrapping_add(translation.shifts as u32));
    }
    if translation.bits & TRANSLATES == 0 {
        return;
    }
    let keeps_source = translation.keeps_source != 0;
    if words[0] >> 16 & 0xffff == u64::from(eth_type::IPV4) {
        let src = if keeps_source { words[3] & !0xffff_ffff } else { translation.src[1] << 32 };
        words[3] = src | translation.dst[1] & 0xffff_ffff;
    } else {
        if !keeps_source {
            words[5] = translation.src[0];
            words[6] = translation.src[1];
        }
        words[7] = translation.dst[0];
        words[8] = translation.dst[1];
    }
    match (words[0] >> 32) as u8 {
        _ if translation.keeps_ports != 0 => {}
        ip_proto::ICMP | ip_proto::ICMPV6 => {
            words[SHIFTS] = (words[SHIFTS] + u64::from(translation.ports)) & 0xffff;
        }
        ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP => {
            words[4] = words[4] & 0xffff_ffff | u64::from(translation.ports) << 32;
        }
        _ => {}
    }
}

/// Chooses what a new connection's replies will look like, as `nat` asks, and claims that tuple: nobody else has it.
/// False: everything that `nat` allows is taken.
#[inline(always)]
pub(super) fn choose<P: Packet, D: Tables + Connections>(
    run: &mut Run<'_, P, D>,
    record: &mut Record,
) -> bool {
    let datapath = run.datapath;
    let machine = &mut *run.machine;
    // SAFETY: the configuration is valid while the program runs; the daemon wrote the word before that.
    let salt = unsafe { (&raw const (*datapath.config().as_ptr()).nat_salt).read_volatile() };
    start(machine, record, salt as u32, datapath.random());
    machine.track.chosen = 0;
    datapath.repeat(u32::from(MAX_ATTEMPTS), try_candidate::<P, D>, core::ptr::from_mut(run).cast());
    if run.machine.track.chosen == 0 {
        return false;
    }
    let [original, reply] = &record.tuples;
    let ports = !matches!(original.ports.protocol, ip_proto::ICMP | ip_proto::ICMPV6);
    let differ = |a: [u64; 2], b: [u64; 2]| (a[0] ^ b[0]) | (a[1] ^ b[1]) != 0;
    let (source, destination) = if ports {
        (original.ports.src != reply.ports.dst, original.ports.dst != reply.ports.src)
    } else {
        (original.ports.src != reply.ports.src, false)
    };
    let mut status = status::SRC_NAT_DONE;
    if source || differ(original.src, reply.dst) {
        status |= status::SRC_NAT;
    }
    if destination || differ(original.dst, reply.src) {
        status |= status::DST_NAT;
    }
    if run.machine.nat.flags & flags::DST != 0 {
        status |= status::DST_NAT_DONE;
    }
    record.connection.status |= status;
    true
}

/// Begins the search. One function of its own, so that the verifier and the stack meet it once.
#[inline(never)]
fn start(machine: &mut Machine, record: &Record, salt: u32, random: u32) {
    let [tuple, reply] = &record.tuples;
    let original = Original {
        src: tuple.src,
        // Where an expected connection really goes is settled.
        dst: reply.src,
        src_port: tuple.ports.src,
        dst_port: match tuple.ports.protocol {
            ip_proto::ICMP | ip_proto::ICMPV6 => tuple.ports.dst,
            _ => reply.ports.src,
        },
        protocol: tuple.ports.protocol,
        family: tuple.ports.family,
        reserved: [0; 2],
    };
    machine.track.search.start(&machine.nat, &original, salt, random);
}

/// Tries the next candidate of the search.
extern "C" fn try_candidate<P: Packet, D: Tables + Connections>(_index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `choose` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let machine = &mut *run.machine;
    let track = &mut machine.track;
    let Some(pointer) = run.datapath.record(track.number) else { return 1 };
    // SAFETY: the record is not alive, and is this packet's to fill; see `commit`.
    let record = unsafe { &mut *pointer.as_ptr() };
    if !track.search.advance() {
        return 1;
    }
    let search = &track.search;
    let [original, reply] = &mut record.tuples;
    if machine.nat.flags & flags::DST != 0 {
        reply.src = search.address;
    } else {
        reply.dst = search.address;
    }
    if matches!(original.ports.protocol, ip_proto::ICMP | ip_proto::ICMPV6) {
        reply.ports.src = search.src_port;
    } else {
        reply.ports.dst = search.src_port;
        reply.ports.src = search.dst_port;
    }
    track.chosen = u32::from(take_place(run.datapath, record, track.number, Direction::Reply));
    i64::from(track.chosen != 0)
}
