//! Network address translation of a packet: what its connection's tuples say is written to the key, and from there,
//! as every change of headers, to the packet when it leaves.

use conntrack_core::{Direction, ct_state, status};

use crate::key::{Key, SHIFTS};
use crate::layout::{Record, op};
use crate::parse::{eth_type, ip_proto};
use crate::pipeline::Machine;

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
    /// Which of the two change: bits of ct_state. 0: nothing does.
    pub bits: u32,
}

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
    translation.bits = u32::from(snat | dnat);
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
    if words[0] >> 16 & 0xffff == u64::from(eth_type::IPV4) {
        words[3] = translation.src[1] << 32 | translation.dst[1] & 0xffff_ffff;
    } else {
        words[5] = translation.src[0];
        words[6] = translation.src[1];
        words[7] = translation.dst[0];
        words[8] = translation.dst[1];
    }
    match (words[0] >> 32) as u8 {
        ip_proto::ICMP | ip_proto::ICMPV6 => {
            words[SHIFTS] = (words[SHIFTS] + u64::from(translation.ports)) & 0xffff;
        }
        ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP => {
            words[4] = words[4] & 0xffff_ffff | u64::from(translation.ports) << 32;
        }
        _ => {}
    }
}
