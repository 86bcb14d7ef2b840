//! From a packet's bytes to the flow key.
//!
//! What cannot be parsed leaves the fields of its layer and of those above at zero, as in OVS: a frame with a
//! cut IP header still has its Ethernet fields, and matches flows on them.

use crate::checksum;
use crate::key::Key;
use crate::packet::Packet;

/// Ethernet types.
pub mod eth_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// RARP.
    pub const RARP: u16 = 0x8035;
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad tag.
    pub const QINQ: u16 = 0x88a8;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// What a frame without a type has in the flow key (OFP_DL_TYPE_NOT_ETH_TYPE).
    pub const NONE: u16 = 0x05ff;
}

/// IP protocols.
pub mod ip_proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// The bit of a VLAN TCI that says, in a flow key, that there is a tag.
pub const VLAN_CFI: u16 = 0x1000;
/// Bits of the fragment field: a fragment.
pub const FRAG_ANY: u8 = 1;
/// Bits of the fragment field: not the first one.
pub const FRAG_LATER: u8 = 2;

/// Extension headers looked through; a packet with more has no known protocol.
const MAX_EXTENSIONS: u32 = 8;
/// Bytes of options that an IPv4 header can have.
const MAX_OPTIONS: u32 = 40;
/// ND options looked at.
const MAX_ND_OPTIONS: u32 = 4;

/// Where things are in the packet. Offsets are 0 where the layer is not there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The network header.
    pub l3: u16,
    /// The transport header; 0 in later fragments and where it is cut.
    pub l4: u16,
    /// From the transport header to the end of the IP packet; of a later fragment, the length of what it carries.
    pub l4_len: u16,
    /// Length of the network header, without extension headers.
    pub l3_len: u16,
    /// ARP, ND: the source link layer address option; 0: none.
    pub nd_sll: u16,
    /// ND: the target link layer address option.
    pub nd_tll: u16,
    /// The transport checksum holds only the pseudo header's sum: the rest was left to the hardware.
    pub partial: u16,
    /// The header that makes the packet a fragment: IPv4's own, or IPv6's fragment header; 0 if it is none.
    pub fragment: u16,
    /// Not 0: the checksum of the IPv4 header is wrong.
    pub damaged: u16,
}

/// The same offset, but one of which the BPF verifier knows nothing: having gone through memory, it is not
/// followed apart for each way that led to it.
#[inline(always)]
fn forget(slot: &mut u16, offset: u32) -> u32 {
    *slot = offset as u16;
    // SAFETY: a reference is valid for reads.
    u32::from(unsafe { core::ptr::read_volatile(slot) })
}

#[inline(always)]
fn be48(bytes: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = bytes;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Fills `key`'s header words, which must be zero, and `layout`, from the packet. `in_port` goes into the key.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P, in_port: u16, key: &mut Key, layout: &mut Layout) {
    *layout = Layout::default();
    let words = &mut key.words;
    words[0] = u64::from(in_port);
    let Some(ethernet) = packet.load::<14>(0) else { return };
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = ethernet;
    words[1] = be48([d0, d1, d2, d3, d4, d5]);
    words[2] = be48([s0, s1, s2, s3, s4, s5]);
    let mut kind = u16::from_be_bytes([t0, t1]);
    let mut offset = 14;
    if let Some(tci) = packet.vlan_beside() {
        words[1] |= u64::from(tci | VLAN_CFI) << 48;
    } else if kind == eth_type::VLAN || kind == eth_type::QINQ {
        // A tag cut short leaves the type of the tag, as in OVS.
        if let Some([c0, c1, k0, k1]) = packet.load::<4>(14) {
            words[1] |= u64::from(u16::from_be_bytes([c0, c1]) | VLAN_CFI) << 48;
            kind = u16::from_be_bytes([k0, k1]);
            offset = 18;
        }
    }
    if kind < 0x600 {
        (kind, offset) = snap(packet, offset);
    }
    words[0] |= u64::from(kind) << 16;
    let offset = forget(&mut layout.l3, offset);
    layout.l3 = 0;
    match kind {
        eth_type::IPV4 => ipv4(packet, offset, key, layout),
        eth_type::IPV6 => ipv6(packet, offset, key, layout),
        eth_type::ARP | eth_type::RARP => arp(packet, offset, key, layout),
        _ => {}
    }
}

/// The type of an 802.3 frame: from its SNAP header, if it has one.
#[inline(always)]
fn snap<P: Packet>(packet: &P, offset: u32) -> (u16, u32) {
    match packet.load::<8>(offset) {
        Some([0xaa, 0xaa, 0x03, 0, 0, 0, k0, k1]) if u16::from_be_bytes([k0, k1]) >= 0x600 => {
            (u16::from_be_bytes([k0, k1]), offset + 8)
        }
        _ => (eth_type::NONE, offset),
    }
}

#[inline(always)]
fn arp<P: Packet>(packet: &P, offset: u32, key: &mut Key, layout: &mut Layout) {
    // Ethernet (1), IPv4, their address lengths, and then the opcode.
    let Some([0, 1, 8, 0, 6, 4, 0, opcode]) = packet.load::<8>(offset) else { return };
    let Some([s0, s1, s2, s3, s4, s5, a0, a1, a2, a3]) = packet.load::<10>(offset + 8) else { return };
    let Some([t0, t1, t2, t3, t4, t5, b0, b1, b2, b3]) = packet.load::<10>(offset + 18) else { return };
    key.words[0] |= u64::from(opcode) << 32;
    key.words[3] = u64::from_be_bytes([a0, a1, a2, a3, b0, b1, b2, b3]);
    key.words[9] = be48([s0, s1, s2, s3, s4, s5]);
    key.words[10] = be48([t0, t1, t2, t3, t4, t5]);
    layout.l3 = offset as u16;
    layout.l3_len = 28;
}

#[inline(always)]
fn ipv4<P: Packet>(packet: &P, offset: u32, key: &mut Key, layout: &mut Layout) {
    let Some(first) = packet.load::<8>(offset) else { return };
    let Some(second) = packet.load::<12>(offset + 8) else { return };
    let [version, tos, l0, l1, i0, i1, f0, f1] = first;
    let [ttl, protocol, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3] = second;
    let header = u32::from(version & 0x0f) * 4;
    let total = u32::from(u16::from_be_bytes([l0, l1]));
    if version >> 4 != 4 || header < 20 || total < header || !packet.holds(offset + total) {
        return;
    }
    let fragment = u16::from_be_bytes([f0, f1]);
    let later = fragment & 0x1fff != 0;
    let frag = if later {
        FRAG_ANY | FRAG_LATER
    } else if fragment & 0x2000 != 0 {
        FRAG_ANY
    } else {
        0
    };
    key.words[0] |= u64::from(protocol) << 32 | u64::from(frag) << 48 | u64::from(tos) << 56;
    key.words[3] = u64::from_be_bytes([s0, s1, s2, s3, d0, d1, d2, d3]);
    key.words[4] = u64::from(ttl) << 24;
    layout.l3 = offset as u16;
    layout.l3_len = header as u16;
    let halves = |word: u64| (word >> 32) + (word & 0xffff_ffff);
    let ttl_line = u32::from_be_bytes([ttl, protocol, c0, c1]);
    let sum = halves(u64::from_be_bytes([version, tos, l0, l1, i0, i1, f0, f1]))
        + halves(key.words[3])
        + u64::from(ttl_line)
        + options(packet, offset + 20, header - 20);
    layout.damaged = u16::from(!checksum::is_whole(sum));
    if frag != 0 {
        layout.fragment = offset as u16;
        layout.l4_len = (total - header) as u16;
    }
    if !later {
        let pseudo = (key.words[3] >> 32) + (key.words[3] & 0xffff_ffff);
        transport(packet, offset + header, total - header, protocol, pseudo, key, layout);
    }
}

/// The sum of an IPv4 header's options, by words of four bytes.
#[inline(always)]
fn options<P: Packet>(packet: &P, offset: u32, len: u32) -> u64 {
    let mut sum = 0;
    let mut done = 0;
    while done < MAX_OPTIONS && done < len {
        let Some(word) = packet.load::<4>(offset + done) else { break };
        sum += u64::from(u32::from_be_bytes(word));
        done += 4;
    }
    sum
}

#[inline(always)]
fn ipv6<P: Packet>(packet: &P, offset: u32, key: &mut Key, layout: &mut Layout) {
    let Some([v, c, label1, label0, l0, l1, next, hops]) = packet.load::<8>(offset) else { return };
    let Some(src) = packet.load::<16>(offset + 8) else { return };
    let Some(dst) = packet.load::<16>(offset + 24) else { return };
    let payload = u32::from(u16::from_be_bytes([l0, l1]));
    if v >> 4 != 6 || !packet.holds(offset + 40 + payload) {
        return;
    }
    let (src, dst) = (u128::from_be_bytes(src), u128::from_be_bytes(dst));
    key.words[5] = (src >> 64) as u64;
    key.words[6] = src as u64;
    key.words[7] = (dst >> 64) as u64;
    key.words[8] = dst as u64;
    key.words[4] = u64::from(hops) << 24 | u64::from(u32::from_be_bytes([0, c & 0x0f, label1, label0]));
    layout.l3 = offset as u16;
    layout.l3_len = 40;

    let end = offset + 40 + payload;
    let mut at = offset + 40;
    let mut protocol = next;
    let mut frag = 0;
    // One pass more: for what follows them.
    let mut left = MAX_EXTENSIONS + 1;
    let mut known = false;
    while left > 0 {
        left -= 1;
        match protocol {
            // Hop-by-hop, routing, destination options; authentication counts in words of four bytes.
            0 | 43 | 60 | 51 => {
                let Some([following, length]) = packet.load::<2>(at) else { break };
                let length = u32::from(length);
                let size = if protocol == 51 { (length + 2) * 4 } else { (length + 1) * 8 };
                if at + size > end {
                    break;
                }
                protocol = following;
                at += size;
            }
            ip_proto::FRAGMENT => {
                let Some([following, _, o0, o1, _, _, _, _]) = packet.load::<8>(at) else { break };
                if at + 8 > end {
                    break;
                }
                let position = u16::from_be_bytes([o0, o1]);
                if position & 0xfff9 != 0 {
                    layout.fragment = at as u16;
                    layout.l4_len = (end - (at + 8)) as u16;
                }
                if position & 0xfff8 != 0 {
                    frag = FRAG_ANY | FRAG_LATER;
                    known = true;
                    break;
                }
                if position & 1 != 0 {
                    frag = FRAG_ANY;
                }
                protocol = following;
                at += 8;
            }
            _ => {
                known = true;
                break;
            }
        }
    }
    let class = (v << 4) | (c >> 4);
    key.words[0] |= u64::from(protocol) << 32 | u64::from(frag) << 48 | u64::from(class) << 56;
    if known && frag & FRAG_LATER == 0 {
        let halves = |word: u64| (word >> 32) + (word & 0xffff_ffff);
        let pseudo =
            halves(key.words[5]) + halves(key.words[6]) + halves(key.words[7]) + halves(key.words[8]);
        transport(packet, at, end - at, protocol, pseudo, key, layout);
    }
}

/// The transport header at `offset`, `len` bytes to the end of the IP packet. `pseudo` is the sum of the
/// addresses.
#[inline(always)]
fn transport<P: Packet>(
    packet: &P,
    offset: u32,
    len: u32,
    protocol: u8,
    pseudo: u64,
    key: &mut Key,
    layout: &mut Layout,
) {
    if offset > crate::packet::MAX_OFFSET {
        return;
    }
    let offset = forget(&mut layout.l4, offset);
    layout.l4 = 0;
    let checksum = match protocol {
        ip_proto::TCP if len >= 20 => {
            let Some([s0, s1, d0, d1]) = packet.load::<4>(offset) else { return };
            let Some([data, flags, _, _, c0, c1]) = packet.load::<6>(offset + 12) else { return };
            key.words[2] |= u64::from(u16::from_be_bytes([data & 0x0f, flags])) << 48;
            key.words[4] |= u64::from(u32::from_be_bytes([s0, s1, d0, d1])) << 32;
            u16::from_be_bytes([c0, c1])
        }
        ip_proto::UDP if len >= 8 => {
            let Some([s0, s1, d0, d1, _, _, c0, c1]) = packet.load::<8>(offset) else { return };
            key.words[4] |= u64::from(u32::from_be_bytes([s0, s1, d0, d1])) << 32;
            u16::from_be_bytes([c0, c1])
        }
        ip_proto::SCTP if len >= 12 => {
            let Some([s0, s1, d0, d1]) = packet.load::<4>(offset) else { return };
            key.words[4] |= u64::from(u32::from_be_bytes([s0, s1, d0, d1])) << 32;
            0
        }
        ip_proto::ICMP if len >= 8 => {
            let Some([kind, code]) = packet.load::<2>(offset) else { return };
            key.words[4] |= u64::from(kind) << 48 | u64::from(code) << 32;
            0
        }
        ip_proto::ICMPV6 if len >= 4 => {
            let Some([kind, code]) = packet.load::<2>(offset) else { return };
            key.words[4] |= u64::from(kind) << 48 | u64::from(code) << 32;
            if code == 0 && (kind == 135 || kind == 136) {
                neighbour(packet, offset, len, key, layout);
            }
            0
        }
        // Other protocols have no ports, but connection tracking still wants to know where they begin.
        _ if !matches!(
            protocol,
            ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP | ip_proto::ICMP | ip_proto::ICMPV6
        ) =>
        {
            0
        }
        _ => return,
    };
    layout.l4 = offset as u16;
    layout.l4_len = len as u16;
    // A local sender that leaves the checksum to the hardware stores the pseudo header's sum.
    let expected = pseudo + u64::from(protocol) + u64::from(len);
    layout.partial = u16::from(checksum != 0 && checksum::is_whole(expected + u64::from(!checksum)));
}

/// Neighbour solicitation and advertisement (RFC 4861, 4.3 and 4.4).
#[inline(always)]
fn neighbour<P: Packet>(packet: &P, offset: u32, len: u32, key: &mut Key, layout: &mut Layout) {
    let Some(target) = packet.load::<16>(offset + 8) else { return };
    if len < 24 {
        return;
    }
    let target = u128::from_be_bytes(target);
    key.words[11] = (target >> 64) as u64;
    key.words[12] = target as u64;
    let end = offset + len;
    let mut at = offset + 24;
    let mut left = MAX_ND_OPTIONS;
    while left > 0 && at + 8 <= end && at <= crate::packet::MAX_OFFSET {
        left -= 1;
        let Some([kind, units, a0, a1, a2, a3, a4, a5]) = packet.load::<8>(at) else { return };
        let address = be48([a0, a1, a2, a3, a4, a5]);
        match (kind, units) {
            (_, 0) => return,
            (1, 1) => {
                key.words[9] = address;
                layout.nd_sll = at as u16 + 2;
            }
            (2, 1) => {
                key.words[10] = address;
                layout.nd_tll = at as u16 + 2;
            }
            _ => {}
        }
        at += u32::from(units) * 8;
    }
}
