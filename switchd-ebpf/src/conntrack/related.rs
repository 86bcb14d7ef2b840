//! ICMP and ICMPv6 errors: they are related to the connection whose packet they quote, and where that connection is
//! translated, so is the quotation.

use core::ffi::c_void;

use conntrack_core::{Direction, ct_state, icmp};

use super::connect::finish;
use super::{Connections, TRACK_ATTEMPTS, give_up, invalid, table, translate};
use crate::checksum::{add, correct, delta};
use crate::key::Key;
use crate::layout::{Ports, Tuple};
use crate::packet::{Changed, MAX_OFFSET, Packet};
use crate::parse::{Layout, eth_type, ip_proto};
use crate::pipeline::{Machine, Run, stage};
use crate::tables::Tables;

/// Where things are in the quoted packet, and what its rewriting comes to.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Quote {
    /// Offset of its network header.
    l3: u16,
    /// Offset of its transport header.
    l4: u16,
    /// From there to the end of the packet that quotes it.
    l4_len: u16,
    /// What its rewriting adds to the sum that the quoting packet's checksum is over.
    sum: u16,
}

/// The least of a transport header that is quoted (RFC 792).
const QUOTED: u32 = 8;
/// Extension headers that are looked through. No packet with more is tracked.
const MAX_EXTENSIONS: u32 = 8;

/// Whether a message quotes a packet: ICMP's errors and redirects, ICMPv6's errors (RFC 4443, 2.1).
#[inline(always)]
pub(super) fn quotes(ipv4: bool, kind: u8) -> bool {
    if ipv4 { matches!(kind, 3 | 4 | 5 | 11 | 12) } else { kind < 128 }
}

/// Stage [`stage::READ_QUOTE`]: the packet that an error quotes.
#[inline(always)]
pub fn read_quote<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let is_read = read_network(run).is_some() && pass_extensions(run) && read_transport(run).is_some();
    if is_read {
        run.machine.stage = stage::RELATE;
    } else {
        invalid(run);
    }
}

/// Reads the quoted network header: the addresses of the tuple, its protocol or an extension header's number, and
/// where that header begins. The tuple is that of the packets which the error goes along with: those that answer the
/// quoted one. None: it is no such packet, or cut.
#[inline(always)]
fn read_network<P: Packet, D>(run: &mut Run<'_, P, D>) -> Option<()> {
    let Machine { key, layout, track, last, .. } = &mut *run.machine;
    let packet = &run.packet;
    let l3 = u32::from(layout.l4) + 8;
    let (src, dst, protocol, l4, family);
    if key.words[0] >> 16 & 0xffff == u64::from(eth_type::IPV4) {
        let [version, _, _, _, _, _, f0, f1] = packet.load::<8>(l3)?;
        let [_, number, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = packet.load::<12>(l3 + 8)?;
        if version >> 4 != 4 || version & 0x0f < 5 || u16::from_be_bytes([f0, f1]) & 0x1fff != 0 {
            return None;
        }
        src = [0, u64::from(u32::from_be_bytes([s0, s1, s2, s3]))];
        dst = [0, u64::from(u32::from_be_bytes([d0, d1, d2, d3]))];
        (protocol, l4, family) = (number, l3 + u32::from(version & 0x0f) * 4, 4);
    } else {
        let [version, _, _, _, _, _, next, _] = packet.load::<8>(l3)?;
        if version >> 4 != 6 {
            return None;
        }
        let halves = |address: [u8; 16]| {
            let address = u128::from_be_bytes(address);
            [(address >> 64) as u64, address as u64]
        };
        src = halves(packet.load::<16>(l3 + 8)?);
        dst = halves(packet.load::<16>(l3 + 24)?);
        (protocol, l4, family) = (next, l3 + 40, 6);
    }
    track.quote = Quote { l3: l3 as u16, l4: l4 as u16, l4_len: 0, sum: 0 };
    let ports = Ports { src: 0, dst: 0, zone: track.zone, protocol, family };
    last.tuples[0] = Tuple { src: dst, dst: src, ports };
    Some(())
}

/// Goes on to the quoted transport header; false: there is none.
#[inline(always)]
fn pass_extensions<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) -> bool {
    let Ports { family, protocol, .. } = run.machine.last.tuples[0].ports;
    if family == 4 || !is_extension(protocol) {
        return true;
    }
    let datapath = run.datapath;
    datapath.repeat(MAX_EXTENSIONS, extension::<P, D>, core::ptr::from_mut(run).cast());
    !is_extension(run.machine.last.tuples[0].ports.protocol)
}

/// Whether what begins with this number is an IPv6 extension header, or nothing at all (59), and not a transport header.
#[inline(always)]
fn is_extension(number: u8) -> bool {
    matches!(number, 0 | 43 | 44 | 51 | 59 | 60)
}

/// One extension header. In a loop, for the verifier's sake; see [`crate::rewrite`].
extern "C" fn extension<P: Packet, D: Tables + Connections>(_index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `pass_extensions` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    i64::from(pass_extension(run).is_none())
}

/// Goes on to the header behind an extension header. None: it is none, is cut, or leads to no transport header.
#[inline(always)]
fn pass_extension<P: Packet, D>(run: &mut Run<'_, P, D>) -> Option<()> {
    let Machine { layout, track, last, .. } = &mut *run.machine;
    let protocol = &mut last.tuples[0].ports.protocol;
    let at = u32::from(track.quote.l4);
    let [following, length, o0, o1] = run.packet.load::<4>(at)?;
    let size = match *protocol {
        // Hop-by-hop, routing, destination options; authentication counts in words of four bytes.
        0 | 43 | 60 => (u32::from(length) + 1) * 8,
        51 => (u32::from(length) + 2) * 4,
        // Of fragments only the first one has a transport header.
        ip_proto::FRAGMENT if u16::from_be_bytes([o0, o1]) & 0xfff8 == 0 => 8,
        _ => return None,
    };
    if at + size > end(layout) || at + size > MAX_OFFSET {
        return None;
    }
    track.quote.l4 = (at + size) as u16;
    *protocol = following;
    Some(())
}

/// The end of the packet that quotes.
#[inline(always)]
fn end(layout: &Layout) -> u32 {
    u32::from(layout.l4) + u32::from(layout.l4_len)
}

/// Reads the ports of the quoted packet, which complete the tuple. None: they are cut, or nothing answers it.
#[inline(always)]
fn read_transport<P: Packet, D>(run: &mut Run<'_, P, D>) -> Option<()> {
    let Machine { layout, track, last, .. } = &mut *run.machine;
    let l4 = u32::from(track.quote.l4);
    if l4 + QUOTED > end(layout) {
        return None;
    }
    let [a, b, c, d, e, f, _, _] = run.packet.load::<8>(l4)?;
    let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let ports = &mut last.tuples[0].ports;
    (ports.src, ports.dst) = match (ports.protocol, ports.family) {
        (ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP, _) => (destination, source),
        (ip_proto::ICMP, 4) => (u16::from_be_bytes([e, f]), u16::from(icmp::invert(a)?) << 8 | u16::from(b)),
        (ip_proto::ICMPV6, 6) => {
            (u16::from_be_bytes([e, f]), u16::from(icmp::invert_v6(a)?) << 8 | u16::from(b))
        }
        _ => (0, 0),
    };
    track.quote.l4_len = (end(layout) - l4) as u16;
    Some(())
}

/// Stage [`stage::RELATE`]: the connection of the packet that an error quotes.
#[inline(always)]
pub fn relate<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    if run.machine.track.attempts >= TRACK_ATTEMPTS {
        give_up(run, run.machine.track.failure);
        return;
    }
    run.machine.track.attempts += 1;
    let Some(found) = table::locate(run.datapath, &run.machine.last.tuples[0], run.machine.now) else {
        return invalid(run);
    };
    // The error must go to who sent the packet that it quotes.
    if !goes_to(&run.machine.key, &run.machine.last.tuples[0]) {
        return invalid(run);
    }
    let Some(word) = table::lock(run.datapath, found.record, found.life) else { return };
    let machine = &mut *run.machine;
    // SAFETY: the lock is held: nobody else writes to the record.
    let record = unsafe { &*found.record.as_ptr() };
    let reply = if matches!(found.direction, Direction::Reply) { ct_state::RPL } else { 0 };
    machine.track.outcome.ct_state = ct_state::TRK | ct_state::REL | reply;
    translate::plan(machine, record, found.direction);
    let translation = &mut machine.track.translation;
    translation.keeps_ports = 1;
    // Whoever sends the error need not be an end of the connection.
    translation.keeps_source = u32::from(translation.bits & u32::from(ct_state::SNAT) == 0);
    let translated = translation.bits != 0;
    finish(run, found.record, found.number, word, found.direction, false);
    run.machine.stage = if translated { stage::QUOTE } else { stage::TRACKED };
}

/// Whether the packet goes to the destination of a tuple.
#[inline(always)]
fn goes_to(key: &Key, tuple: &Tuple) -> bool {
    let words = &key.words;
    if tuple.ports.family == 4 {
        words[3] & 0xffff_ffff == tuple.dst[1]
    } else {
        (words[7] ^ tuple.dst[0]) | (words[8] ^ tuple.dst[1]) == 0
    }
}

/// Stage [`stage::QUOTE`]: gives the quoted packet the addresses and ports that it had where the error goes to.
///
/// Unlike headers, which the key stands for until the packet leaves, the quotation is changed where it is: outputs
/// that the packet has already been given get it too.
#[inline(always)]
pub fn quote<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    run.machine.stage = stage::TRACKED;
    let datapath = run.datapath;
    datapath.repeat(STEPS, step::<P, D>, core::ptr::from_mut(run).cast());
    let at = u32::from(run.machine.layout.l4) + 2;
    run.packet.correct_checksum(at, run.machine.track.quote.sum, Changed::Transport);
}

const STEPS: u32 = 6;

/// One field of the quoted packet. In a loop, for the verifier's sake; see [`crate::rewrite`].
extern "C" fn step<P: Packet, D: Tables + Connections>(index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `quote` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let track = &run.machine.track;
    let (l3, l4) = (u32::from(track.quote.l3), u32::from(track.quote.l4));
    let to = &track.translation;
    let ipv4 = run.machine.key.words[0] >> 16 & 0xffff == u64::from(eth_type::IPV4);
    // What was quoted went the other way.
    let done = match (index, ipv4) {
        (0, true) => word(run, l3 + 12, to.dst[1] << 32 | to.src[1] & 0xffff_ffff, Some(l3 + 10)),
        (1, false) => word(run, l3 + 8, to.dst[0], None),
        (2, false) => word(run, l3 + 16, to.dst[1], None),
        (3, false) => word(run, l3 + 24, to.src[0], None),
        (4, false) => word(run, l3 + 32, to.src[1], None),
        (5, _) => ports(run, l4),
        _ => true,
    };
    i64::from(!done)
}

/// Eight bytes of addresses, which the transport checksum covers, and in IPv4 the header's.
#[inline(always)]
fn word<P: Packet, D>(run: &mut Run<'_, P, D>, at: u32, new: u64, header: Option<u32>) -> bool {
    let Some(old) = run.packet.load::<8>(at) else { return false };
    let by = delta(u64::from_be_bytes(old), new);
    if !run.packet.store(at, new.to_be_bytes()) {
        return false;
    }
    note(run, by);
    header.is_none_or(|field| sum(run, field, by))
        && transport_sum(run).is_none_or(|(field, covered)| !covered || sum(run, field, by))
}

/// The ports; or an ICMP query's identifier.
#[inline(always)]
fn ports<P: Packet, D>(run: &mut Run<'_, P, D>, l4: u32) -> bool {
    let tuple = &run.machine.last.tuples[0].ports;
    let to = run.machine.track.translation.ports;
    let by = match tuple.protocol {
        ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP => {
            let Some(old) = run.packet.load::<4>(l4) else { return false };
            let new = to.rotate_left(16);
            if !run.packet.store(l4, new.to_be_bytes()) {
                return false;
            }
            delta(u64::from(u32::from_be_bytes(old)), u64::from(new))
        }
        ip_proto::ICMP | ip_proto::ICMPV6 => {
            let Some(old) = run.packet.load::<2>(l4 + 4) else { return false };
            let old = u16::from_be_bytes(old);
            let new = old.wrapping_add(to as u16);
            if !run.packet.store(l4 + 4, new.to_be_bytes()) {
                return false;
            }
            delta(u64::from(old), u64::from(new))
        }
        _ => return true,
    };
    note(run, by);
    transport_sum(run).is_none_or(|(field, _)| sum(run, field, by))
}

/// Corrects a checksum within the quotation.
#[inline(always)]
fn sum<P: Packet, D>(run: &mut Run<'_, P, D>, at: u32, by: u16) -> bool {
    let Some(old) = run.packet.load::<2>(at) else { return false };
    let old = u16::from_be_bytes(old);
    let new = correct(old, by);
    note(run, delta(u64::from(old), u64::from(new)));
    run.packet.store(at, new.to_be_bytes())
}

/// Takes note of a change for the checksum of the whole.
#[inline(always)]
fn note<P, D>(run: &mut Run<'_, P, D>, by: u16) {
    let quote = &mut run.machine.track.quote;
    quote.sum = add(quote.sum, by);
}

/// The quoted transport header's checksum, if it is quoted and is one, and whether it covers the addresses.
#[inline(always)]
fn transport_sum<P: Packet, D>(run: &Run<'_, P, D>) -> Option<(u32, bool)> {
    let quote = &run.machine.track.quote;
    let at = u32::from(quote.l4);
    match run.machine.last.tuples[0].ports.protocol {
        ip_proto::TCP if quote.l4_len >= 18 => Some((at + 16, true)),
        ip_proto::UDP if run.packet.load::<2>(at + 6) != Some([0, 0]) => Some((at + 6, true)),
        ip_proto::ICMP => Some((at + 2, false)),
        ip_proto::ICMPV6 => Some((at + 2, true)),
        _ => None,
    }
}
