//! What connection tracking reads from a packet: its tuples, its segment, and whether its checksum is right.

use core::ffi::c_void;

use conntrack_core::{icmp, tcp};

use super::{Connections, Kind, invalid, related};
use crate::checksum;
use crate::key::SHIFTS;
use crate::layout::{Ports, Tuple};
use crate::packet::Packet;
use crate::parse::{eth_type, ip_proto};
use crate::pipeline::{Headers, Machine, Run, stage};
use crate::tables::Tables;

/// Bytes of a packet that the workspace has room for.
const HEADER_ROOM: u32 = 64;
/// Pieces of that size in the largest IP packet.
const MAX_PIECES: u32 = 1024;

/// Stage [`stage::EXAMINE`]: reads from the packet what the rules need.
#[inline(always)]
pub fn examine<P: Packet, D: Connections>(run: &mut Run<'_, P, D>) {
    let leads = run.machine.track.fragment.leads != 0;
    if run.machine.layout.damaged != 0 {
        invalid(run);
    } else if run.machine.layout.fragment != 0 && !leads {
        run.machine.stage = stage::FRAGMENT;
    } else if read(run) {
        run.machine.stage = stage::TUPLES;
    } else {
        invalid(run);
    }
}

/// Reads the transport header into the workspace, with what follows it: all that fits. Zeros fill the last word. False: it is cut, or no header.
#[inline(always)]
fn read<P: Packet, D>(run: &mut Run<'_, P, D>) -> bool {
    let Machine { key, layout, track, .. } = &mut *run.machine;
    let protocol = (key.words[0] >> 32) as u8;
    if layout.l4 == 0 {
        return false;
    }
    if !matches!(protocol, ip_proto::TCP | ip_proto::UDP | ip_proto::ICMP | ip_proto::ICMPV6) {
        return true;
    }
    let (at, len) = (u32::from(layout.l4), u32::from(layout.l4_len).min(HEADER_ROOM));
    let is_read = match len {
        // All segments but short ones; of these the empty ones, without options and with timestamps.
        HEADER_ROOM => run.packet.read_exactly::<{ HEADER_ROOM as usize }>(at, &mut track.header),
        20 => run.packet.read_exactly::<20>(at, &mut track.header),
        32 => run.packet.read_exactly::<32>(at, &mut track.header),
        _ => {
            track.header.clear();
            run.packet.read(at, &mut track.header, len)
        }
    };
    is_read && (protocol != ip_proto::TCP || segment(run.machine))
}

/// Stage [`stage::TUPLES`]: what the packet's connection is found by.
#[inline(never)]
pub fn identify<P: Packet, D: Connections>(run: &mut Run<'_, P, D>) {
    let leads = run.machine.track.fragment.leads != 0;
    match tuples(run.machine) {
        Some(kind) => {
            run.machine.track.kind = kind;
            // The checksum is over the whole datagram.
            run.machine.stage = match kind {
                Kind::Sctp => stage::CHUNKS,
                _ if leads => verified(run.machine),
                _ => stage::VERIFY,
            };
        }
        None => invalid(run),
    }
}

/// Stage [`stage::VERIFY`]: sees whether the transport checksum is right.
#[inline(always)]
pub fn verify<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    match checksum_valid(&run.packet, run.machine) {
        Some(true) => run.machine.stage = verified(run.machine),
        Some(false) => invalid(run),
        None => run.machine.stage = stage::SUM,
    }
}

/// What comes after the checksum.
#[inline(always)]
fn verified(machine: &Machine) -> u32 {
    if machine.track.kind == Kind::Error { stage::READ_QUOTE } else { stage::CONNECT }
}

/// Stage [`stage::SUM`]: sums a packet that the hook does not hold in one piece, bit by bit.
#[inline(always)]
pub fn sum<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    if sum_packet(run) == 0xffff {
        run.machine.stage = verified(run.machine);
    } else {
        invalid(run);
    }
}

/// The sum that the workspace says is to be made.
#[inline(always)]
pub(super) fn sum_packet<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) -> u16 {
    run.machine.track.summed = 0;
    let datapath = run.datapath;
    datapath.repeat(MAX_PIECES, sum_piece::<P, D>, core::ptr::from_mut(run).cast());
    let track = &run.machine.track;
    checksum::fold(track.pseudo + track.summed)
}

extern "C" fn sum_piece<P: Packet, D: Tables + Connections>(index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `sum_packet` passes the run, exclusively borrowed for as long as the loop runs.
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
    track.summed += track.header.sum(HEADER_ROOM);
    0
}

/// The kind of the packet, whose tuples go into the machine. None: it is none that a connection could have.
#[inline(always)]
fn tuples(machine: &mut Machine) -> Option<Kind> {
    let words = &machine.key.words;
    let protocol = (words[0] >> 32) as u8;
    let ipv4 = words[0] >> 16 & 0xffff == u64::from(eth_type::IPV4);
    let mut ports = Ports {
        src: (words[4] >> 48) as u16,
        dst: (words[4] >> 32) as u16,
        zone: machine.track.zone,
        protocol,
        family: if ipv4 { 4 } else { 6 },
    };
    let mut answer = Ports { src: ports.dst, dst: ports.src, ..ports };
    let kind = match protocol {
        ip_proto::TCP => Kind::Tcp,
        ip_proto::UDP => Kind::Udp,
        ip_proto::SCTP => Kind::Sctp,
        ip_proto::ICMP | ip_proto::ICMPV6
            if ipv4 == (protocol == ip_proto::ICMP) && related::quotes(ipv4, ports.src as u8) =>
        {
            return Some(Kind::Error);
        }
        ip_proto::ICMP if ipv4 => {
            let (kind, inverse) = (ports.src as u8, icmp::invert(ports.src as u8)?);
            echo_ports(identifier(machine), inverse, &mut ports, &mut answer);
            Kind::Icmp(kind)
        }
        ip_proto::ICMPV6 if !ipv4 => {
            let (kind, inverse) = (ports.src as u8, icmp::invert_v6(ports.src as u8)?);
            echo_ports(identifier(machine), inverse, &mut ports, &mut answer);
            Kind::Icmpv6(kind)
        }
        _ => {
            (ports.src, ports.dst, answer.src, answer.dst) = (0, 0, 0, 0);
            Kind::Other(protocol)
        }
    };
    let words = &machine.key.words;
    let (src, dst) = if ipv4 {
        ([0, words[3] >> 32], [0, words[3] & 0xffff_ffff])
    } else {
        ([words[5], words[6]], [words[7], words[8]])
    };
    machine.last.tuples[0] = Tuple { src, dst, ports };
    machine.last.tuples[1] = Tuple { src: dst, dst: src, ports: answer };
    Some(kind)
}

/// The identifier of an ICMP query, as it is by now.
#[inline(always)]
fn identifier(machine: &Machine) -> u16 {
    let [_, _, _, _, i0, i1, ..] = machine.track.header.bytes;
    u16::from_be_bytes([i0, i1]).wrapping_add(machine.key.words[SHIFTS] as u16)
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
    let pseudo = pseudo_header(machine.wire());
    let Machine { key, layout, track, .. } = machine;
    let protocol = (key.words[0] >> 32) as u8;
    let ipv4 = (key.words[0] >> 16) as u16 == eth_type::IPV4;
    let (at, mut len) = (u32::from(layout.l4), u32::from(layout.l4_len));
    match protocol {
        _ if layout.partial != 0 => return Some(true),
        ip_proto::UDP => {
            let [_, _, _, _, l0, l1, c0, c1, ..] = track.header.bytes;
            let length = u32::from(u16::from_be_bytes([l0, l1]));
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
    let pseudo = if protocol == ip_proto::ICMP { 0 } else { pseudo + u64::from(len) };
    // A short packet is in the workspace as a whole, and is summed there without asking the kernel piece by piece.
    let is_read = len <= HEADER_ROOM && len == u32::from(layout.l4_len);
    let sum = if is_read { Some(track.header.sum(len)) } else { packet.sum(at, len).map(u64::from) };
    track.pseudo = pseudo;
    track.sum_len = len;
    Some(checksum::is_whole(pseudo + sum?))
}

/// The sum of the pseudo header (RFC 9293, 3.1) of a packet with these headers, but for its length.
#[inline(always)]
pub(super) fn pseudo_header(wire: &Headers) -> u64 {
    let halves = |word: u64| (word >> 32) + (word & 0xffff_ffff);
    let addresses = if (wire[0] >> 16) as u16 == eth_type::IPV4 {
        halves(wire[3])
    } else {
        halves(wire[5]) + halves(wire[6]) + halves(wire[7]) + halves(wire[8])
    };
    addresses + (wire[0] >> 32 & 0xff)
}

/// Reads the TCP header from the workspace. False: its data offset is impossible.
#[inline(always)]
fn segment(machine: &mut Machine) -> bool {
    let bytes = &machine.track.header.bytes;
    let &[_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = bytes;
    let header = u32::from(offset >> 4) * 4;
    let len = u32::from(machine.layout.l4_len);
    if header < tcp::HEADER_LEN as u32 || header > len {
        return false;
    }
    let shifts = machine.key.words[SHIFTS];
    let segment = &mut machine.track.segment;
    *segment = tcp::Segment {
        seq: u32::from_be_bytes([s0, s1, s2, s3]).wrapping_add((shifts >> 32) as u32),
        ack: u32::from_be_bytes([a0, a1, a2, a3]).wrapping_add(shifts as u32),
        payload_len: len - header,
        window: u16::from_be_bytes([w0, w1]),
        flags,
        ..tcp::Segment::default()
    };
    segment.parse_options(bytes, header - tcp::HEADER_LEN as u32);
    true
}
