//! From changed header words back to the packet's bytes.

use core::ffi::c_void;

use crate::checksum::delta;
use crate::crc32c;
use crate::key::SHIFTS;
use crate::packet::{Changed, Packet};
use crate::parse::{Layout, VLAN_CFI, eth_type, ip_proto};
use crate::pipeline::Headers;
use crate::tables::Tables;

/// The bits of a key's first word that stand in the packet and can be changed there: the IP protocol (an ARP
/// opcode), and the traffic class. The port of entry and the connection's state do not.
const FIRST_WORD: u64 = 0xff << 32 | 0xff << 56;

/// Whether two copies have the same headers.
#[inline(always)]
#[must_use]
pub fn same(a: &Headers, b: &Headers) -> bool {
    let mut differ = (a[0] ^ b[0]) & FIRST_WORD;
    let mut i = 1;
    while i < a.len() {
        differ |= a[i] ^ b[i];
        i += 1;
    }
    differ == 0
}

/// A packet that is given other headers.
struct Rewrite<'a, P> {
    packet: &'a mut P,
    layout: &'a Layout,
    from: &'a Headers,
    to: &'a Headers,
    failed: bool,
}

/// Writes the difference between `from`, which is what the packet has, and `to` into the packet, and keeps its
/// checksums right. False if the packet refused, which leaves it unusable.
///
/// Each field is a step of its own, in a loop, for the verifier's sake: in a row, the number of ways through
/// them would double with each.
#[inline(always)]
pub fn rewrite<P: Packet, D: Tables>(
    datapath: &D,
    packet: &mut P,
    layout: &Layout,
    from: &Headers,
    to: &Headers,
) -> bool {
    let mut rewrite = Rewrite { packet, layout, from, to, failed: false };
    datapath.repeat(STEPS, step::<P>, (&raw mut rewrite).cast());
    !rewrite.failed
}

const STEPS: u32 = 14;

extern "C" fn step<P: Packet>(index: u64, rewrite: *mut c_void) -> i64 {
    // SAFETY: `rewrite` passes its own, exclusively borrowed for as long as the loop runs.
    let rewrite = unsafe { &mut *rewrite.cast::<Rewrite<'_, P>>() };
    let done = match index {
        0 => rewrite.mac_at(0, 1),
        1 => rewrite.mac_at(6, 2),
        2 => rewrite.traffic_class(),
        3 => rewrite.ttl(),
        4 => rewrite.ipv4_addresses(),
        5 => rewrite.ipv6_half(5),
        6 => rewrite.ipv6_half(6),
        7 => rewrite.ipv6_half(7),
        8 => rewrite.ipv6_half(8),
        9 => rewrite.arp(),
        10 => rewrite.ports(),
        11 => rewrite.neighbour(),
        12 => rewrite.shifts(),
        // Last, because it moves everything behind it, and `layout` holds for the packet as it came.
        _ => rewrite.vlan(),
    };
    rewrite.failed = !done;
    i64::from(!done)
}

/// ICMPv6 types of neighbour discovery, the only ones with a target and link layer addresses in the key.
const ND_SOLICITATION: u64 = 135;
/// See [`ND_SOLICITATION`].
const ND_ADVERTISEMENT: u64 = 136;

const MAC: u64 = 0xffff_ffff_ffff;

#[inline(always)]
fn mac(word: u64) -> [u8; 6] {
    let [_, _, a, b, c, d, e, f] = word.to_be_bytes();
    [a, b, c, d, e, f]
}

impl<P: Packet> Rewrite<'_, P> {
    #[inline(always)]
    fn is(&self, kind: u16) -> bool {
        self.layout.l3 != 0 && (self.from[0] >> 16) as u16 == kind
    }

    #[inline(always)]
    fn l3(&self) -> u32 {
        u32::from(self.layout.l3)
    }

    /// The bits of a word that change.
    #[inline(always)]
    fn changed(&self, word: usize) -> u64 {
        self.from[word] ^ self.to[word]
    }

    #[inline(always)]
    fn mac_at(&mut self, offset: u32, word: usize) -> bool {
        self.changed(word) & MAC == 0 || self.packet.store(offset, mac(self.to[word]))
    }

    #[inline(always)]
    fn vlan(&mut self) -> bool {
        let (old, new) = ((self.from[1] >> 48) as u16, (self.to[1] >> 48) as u16);
        if old == new {
            return true;
        }
        match (old & VLAN_CFI != 0, new & VLAN_CFI != 0) {
            (false, true) => self.packet.push_vlan(new & !VLAN_CFI),
            (true, false) => self.packet.pop_vlan(),
            (true, true) => self.packet.set_vlan(new & !VLAN_CFI),
            (false, false) => true,
        }
    }

    /// TOS of IPv4; traffic class and flow label of IPv6.
    #[inline(always)]
    fn traffic_class(&mut self) -> bool {
        let (old, new) = (self.from[0] >> 56, self.to[0] >> 56);
        let at = self.l3();
        if self.is(eth_type::IPV4) {
            return old == new
                || self.packet.store(at + 1, [new as u8])
                    && self.packet.correct_checksum(at + 10, delta(old, new), Changed::IpHeader);
        }
        if !self.is(eth_type::IPV6) || old == new && self.changed(4) & 0xf_ffff == 0 {
            return true;
        }
        let first = 6 << 28 | new << 20 | self.to[4] & 0xf_ffff;
        self.packet.store(at, (first as u32).to_be_bytes())
    }

    /// TTL of IPv4, hop limit of IPv6.
    #[inline(always)]
    fn ttl(&mut self) -> bool {
        let (old, new) = (self.from[4] >> 24 & 0xff, self.to[4] >> 24 & 0xff);
        let at = self.l3();
        if old == new {
            true
        } else if self.is(eth_type::IPV4) {
            // TTL is the high byte of its word.
            self.packet.store(at + 8, [new as u8])
                && self.packet.correct_checksum(at + 10, delta(old << 8, new << 8), Changed::IpHeader)
        } else {
            !self.is(eth_type::IPV6) || self.packet.store(at + 7, [new as u8])
        }
    }

    #[inline(always)]
    fn ipv4_addresses(&mut self) -> bool {
        let (old, new) = (self.from[3], self.to[3]);
        if old == new || !self.is(eth_type::IPV4) {
            return true;
        }
        let at = self.l3();
        self.packet.store(at + 12, new.to_be_bytes())
            && self.packet.correct_checksum(at + 10, delta(old, new), Changed::IpHeader)
            && self.correct_pseudo_header(delta(old, new))
    }

    /// Half an IPv6 address: word 5 of the key is the first.
    #[inline(always)]
    fn ipv6_half(&mut self, word: usize) -> bool {
        let (old, new) = (self.from[word], self.to[word]);
        if old == new || !self.is(eth_type::IPV6) {
            return true;
        }
        let at = self.l3() + 8 * (word as u32 - 4);
        self.packet.store(at, new.to_be_bytes()) && self.correct_pseudo_header(delta(old, new))
    }

    #[inline(always)]
    fn correct_pseudo_header(&mut self, delta: u16) -> bool {
        match self.transport_checksum() {
            Some((field, true)) => self.packet.correct_checksum(field, delta, Changed::PseudoHeader),
            _ => true,
        }
    }

    /// The offset of the transport header's checksum, and whether it covers the addresses. None: there is
    /// none, or the packet came without.
    #[inline(always)]
    fn transport_checksum(&self) -> Option<(u32, bool)> {
        let at = u32::from(self.layout.l4);
        if at == 0 {
            return None;
        }
        match (self.from[0] >> 32) as u8 {
            ip_proto::TCP => Some((at + 16, true)),
            // RFC 768: zero means that the sender computed none.
            ip_proto::UDP if self.packet.load::<2>(at + 6) != Some([0, 0]) => Some((at + 6, true)),
            ip_proto::ICMP => Some((at + 2, false)),
            ip_proto::ICMPV6 => Some((at + 2, true)),
            _ => None,
        }
    }

    #[inline(always)]
    fn arp(&mut self) -> bool {
        if !self.is(eth_type::ARP) && !self.is(eth_type::RARP) {
            return true;
        }
        let at = self.l3();
        let [s0, s1, s2, s3, t0, t1, t2, t3] = self.to[3].to_be_bytes();
        // All of it: an ARP packet that is changed at all is mostly changed all over.
        self.packet.store(at + 6, [0, (self.to[0] >> 32) as u8])
            && self.packet.store(at + 8, mac(self.to[9]))
            && self.packet.store(at + 14, [s0, s1, s2, s3])
            && self.packet.store(at + 18, mac(self.to[10]))
            && self.packet.store(at + 24, [t0, t1, t2, t3])
    }

    /// Ports, or ICMP's type and code.
    #[inline(always)]
    fn ports(&mut self) -> bool {
        let at = u32::from(self.layout.l4);
        let (old, new) = (self.from[4] >> 32, self.to[4] >> 32);
        if old == new || at == 0 {
            return true;
        }
        let protocol = (self.from[0] >> 32) as u8;
        let icmp = protocol == ip_proto::ICMP || protocol == ip_proto::ICMPV6;
        // `mod_tp_src` and `mod_tp_dst` do not ask what the packet is.
        if !icmp && !matches!(protocol, ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP) {
            return true;
        }
        let word = |both: u64| (both >> 16 & 0xff) << 8 | both & 0xff;
        let (old, new) = if icmp { (word(old), word(new)) } else { (old, new) };
        let stored = if icmp {
            self.packet.store(at, (new as u16).to_be_bytes())
        } else {
            self.packet.store(at, (new as u32).to_be_bytes())
        };
        stored
            && match self.transport_checksum() {
                Some((field, _)) => self.packet.correct_checksum(field, delta(old, new), Changed::Transport),
                None => protocol != ip_proto::SCTP || self.sctp_checksum((old ^ new) as u32),
            }
    }

    /// SCTP's checksum, for ports that differ in these bits. Of a fragment it cannot be told, as nobody knows how much
    /// follows in the others.
    #[inline(always)]
    fn sctp_checksum(&mut self, difference: u32) -> bool {
        let at = u32::from(self.layout.l4) + 8;
        let Some(old) = self.packet.load::<4>(at) else { return false };
        if old == [0; 4] {
            // There is none, or the hardware will compute it.
            return true;
        }
        if self.layout.fragment != 0 {
            return false;
        }
        let behind = u32::from(self.layout.l4_len).saturating_sub(4);
        let sum = crc32c::correct(u32::from_le_bytes(old), difference.to_be_bytes(), behind);
        self.packet.store(at, sum.to_le_bytes())
    }

    /// Neighbour discovery's target and link layer addresses.
    #[inline(always)]
    fn neighbour(&mut self) -> bool {
        let at = u32::from(self.layout.l4);
        if !self.is(eth_type::IPV6)
            || at == 0
            || (self.from[0] >> 32) as u8 != ip_proto::ICMPV6
            || !matches!(self.from[4] >> 48, ND_SOLICITATION | ND_ADVERTISEMENT)
            || self.changed(9) | self.changed(10) | self.changed(11) | self.changed(12) == 0
        {
            return true;
        }
        self.covered(at + 8, 11) && self.covered(at + 16, 12) && self.link_address(self.layout.nd_sll, 9) && {
            self.link_address(self.layout.nd_tll, 10)
        }
    }

    /// What translation adds to sequence numbers and identifiers (see [`SHIFTS`]).
    #[inline(always)]
    fn shifts(&mut self) -> bool {
        let at = u32::from(self.layout.l4);
        let (old, new) = (self.from[SHIFTS], self.to[SHIFTS]);
        if old == new || at == 0 {
            return true;
        }
        match (self.from[0] >> 32) as u8 {
            ip_proto::TCP => {
                let more = |now: [u8; 4], shift: u32| {
                    let by = ((new >> shift) as u32).wrapping_sub((old >> shift) as u32);
                    u32::from_be_bytes(now).wrapping_add(by)
                };
                let Some([s0, s1, s2, s3, a0, a1, a2, a3]) = self.packet.load::<8>(at + 4) else {
                    return false;
                };
                let before = u64::from_be_bytes([s0, s1, s2, s3, a0, a1, a2, a3]);
                let (seq, ack) = (more([s0, s1, s2, s3], 32), more([a0, a1, a2, a3], 0));
                let after = u64::from(seq) << 32 | u64::from(ack);
                self.packet.store(at + 4, after.to_be_bytes())
                    && self.packet.correct_checksum(at + 16, delta(before, after), Changed::Transport)
            }
            ip_proto::ICMP | ip_proto::ICMPV6
                if !matches!(self.from[4] >> 48, ND_SOLICITATION | ND_ADVERTISEMENT) =>
            {
                let Some(id) = self.packet.load::<2>(at + 4) else { return false };
                let id = u16::from_be_bytes(id);
                let shifted = id.wrapping_add(new as u16).wrapping_sub(old as u16);
                let sum = delta(u64::from(id), u64::from(shifted));
                self.packet.store(at + 4, shifted.to_be_bytes())
                    && self.packet.correct_checksum(at + 2, sum, Changed::Transport)
            }
            _ => true,
        }
    }

    /// A word under ICMPv6's checksum.
    #[inline(always)]
    fn covered(&mut self, at: u32, word: usize) -> bool {
        let sum = delta(self.from[word], self.to[word]);
        let field = u32::from(self.layout.l4) + 2;
        self.packet.store(at, self.to[word].to_be_bytes())
            && self.packet.correct_checksum(field, sum, Changed::Transport)
    }

    #[inline(always)]
    fn link_address(&mut self, at: u16, word: usize) -> bool {
        if at == 0 {
            // The message has no such option to be changed.
            return true;
        }
        let sum = delta(self.from[word], self.to[word]);
        let field = u32::from(self.layout.l4) + 2;
        self.packet.store(u32::from(at), mac(self.to[word]))
            && self.packet.correct_checksum(field, sum, Changed::Transport)
    }
}
