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

/// What is still to be written of a packet's headers: bits of [`due`].
#[repr(transparent)]
#[derive(Default)]
pub struct Due(u64);

/// Which words of the headers are to be written: to each belongs the bit of its number.
mod due {
    pub const FIRST: u64 = 1;
    pub const ETH_DST: u64 = 1 << 1;
    pub const ETH_SRC: u64 = 1 << 2;
    pub const IPV4: u64 = 1 << 3;
    pub const TTL_AND_PORTS: u64 = 1 << 4;
    pub const IPV6_SRC_HIGH: u64 = 1 << 5;
    pub const IPV6_SRC_LOW: u64 = 1 << 6;
    pub const IPV6_DST_HIGH: u64 = 1 << 7;
    pub const IPV6_DST_LOW: u64 = 1 << 8;
    pub const ARP_SHA: u64 = 1 << 9;
    pub const ARP_THA: u64 = 1 << 10;
    pub const ND_TARGET_HIGH: u64 = 1 << 11;
    pub const ND_TARGET_LOW: u64 = 1 << 12;
    /// Beside the destination address in its word. The last, because it moves everything behind it, and the layout
    /// holds for the packet as it came.
    pub const VLAN: u64 = 1 << 13;
    /// How many there are.
    pub const MOST: u32 = 14;
}

impl Due {
    /// Notes what differs between the headers that a packet has and those that it is to get. False: nothing does.
    #[inline(always)]
    fn note(&mut self, from: &Headers, to: &Headers) -> bool {
        self.0 = 0;
        let mut i = 0;
        while i < from.len() {
            let matters = match i {
                0 => FIRST_WORD,
                1 => MAC,
                _ => !0,
            };
            if (from[i] ^ to[i]) & matters != 0 {
                self.add(1 << i);
            }
            i += 1;
        }
        if (from[1] ^ to[1]) >> 48 != 0 {
            self.add(due::VLAN);
        }
        self.0 != 0
    }

    /// In memory, where the verifier knows nothing of it: in a register it would follow each combination of bits.
    #[inline(always)]
    fn add(&mut self, bit: u64) {
        let due = &raw mut self.0;
        // SAFETY: a reference is valid for reads and writes.
        unsafe { due.write_volatile(due.read_volatile() | bit) };
    }

    /// Takes the next one out; 0: there is none.
    #[inline(always)]
    fn next(&mut self) -> u64 {
        let next = self.0 & self.0.wrapping_neg();
        self.0 ^= next;
        next
    }
}

/// A packet that is given other headers.
struct Rewrite<'a, P> {
    packet: &'a mut P,
    layout: &'a Layout,
    from: &'a Headers,
    to: &'a Headers,
    due: &'a mut Due,
    failed: bool,
}

/// Writes the difference between `from`, which is what the packet has, and `to` into the packet, and keeps its
/// checksums right; `due` is workspace. False if the packet refused, which leaves it unusable.
///
/// Each word is a step of its own, in a loop, for the verifier's sake: in a row, the number of ways through
/// them would double with each.
#[inline(always)]
pub fn rewrite<P: Packet, D: Tables>(
    datapath: &D,
    packet: &mut P,
    layout: &Layout,
    from: &Headers,
    to: &Headers,
    due: &mut Due,
) -> bool {
    if !due.note(from, to) {
        return true;
    }
    let mut rewrite = Rewrite { packet, layout, from, to, due, failed: false };
    datapath.repeat(due::MOST, step::<P>, (&raw mut rewrite).cast());
    !rewrite.failed
}

extern "C" fn step<P: Packet>(_index: u64, rewrite: *mut c_void) -> i64 {
    // SAFETY: `rewrite` passes its own, exclusively borrowed for as long as the loop runs.
    let rewrite = unsafe { &mut *rewrite.cast::<Rewrite<'_, P>>() };
    let done = match rewrite.due.next() {
        due::FIRST => rewrite.first_word(),
        due::ETH_DST => rewrite.packet.store(0, mac(rewrite.to[1])),
        due::ETH_SRC => rewrite.packet.store(6, mac(rewrite.to[2])),
        due::IPV4 => rewrite.ipv4_addresses(),
        due::TTL_AND_PORTS => rewrite.label() && rewrite.ttl() && rewrite.ports(),
        due::IPV6_SRC_HIGH => rewrite.ipv6_half(5),
        due::IPV6_SRC_LOW => rewrite.ipv6_half(6),
        due::IPV6_DST_HIGH => rewrite.ipv6_half(7),
        due::IPV6_DST_LOW => rewrite.ipv6_half(8),
        due::ARP_SHA => rewrite.hardware_address(9, 8, rewrite.layout.nd_sll),
        due::ARP_THA => rewrite.hardware_address(10, 18, rewrite.layout.nd_tll),
        due::ND_TARGET_HIGH if rewrite.is_neighbour_discovery() => rewrite.target(11),
        due::ND_TARGET_HIGH => rewrite.shifts(),
        due::ND_TARGET_LOW => !rewrite.is_neighbour_discovery() || rewrite.target(12),
        due::VLAN => rewrite.vlan(),
        _ => true,
    };
    rewrite.failed = !done;
    i64::from(!done || rewrite.due.0 == 0)
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
    fn is_arp(&self) -> bool {
        self.is(eth_type::ARP) || self.is(eth_type::RARP)
    }

    #[inline(always)]
    fn l3(&self) -> u32 {
        u32::from(self.layout.l3)
    }

    #[inline(always)]
    fn vlan(&mut self) -> bool {
        let (old, new) = ((self.from[1] >> 48) as u16, (self.to[1] >> 48) as u16);
        match (old & VLAN_CFI != 0, new & VLAN_CFI != 0) {
            (false, true) => self.packet.push_vlan(new & !VLAN_CFI),
            (true, false) => self.packet.pop_vlan(),
            (true, true) => self.packet.set_vlan(new & !VLAN_CFI),
            (false, false) => true,
        }
    }

    /// TOS of IPv4, traffic class of IPv6; opcode of ARP.
    #[inline(always)]
    fn first_word(&mut self) -> bool {
        let at = self.l3();
        if self.is(eth_type::IPV4) {
            let (old, new) = (self.from[0] >> 56, self.to[0] >> 56);
            self.packet.store(at + 1, [new as u8])
                && self.packet.correct_checksum(at + 10, delta(old, new), Changed::IpHeader)
        } else if self.is(eth_type::IPV6) {
            self.class_and_label()
        } else {
            !self.is_arp() || self.packet.store(at + 6, [0, (self.to[0] >> 32) as u8])
        }
    }

    /// The first four bytes of IPv6.
    #[inline(always)]
    fn class_and_label(&mut self) -> bool {
        let first = 6 << 28 | self.to[0] >> 56 << 20 | self.to[4] & 0xf_ffff;
        self.packet.store(self.l3(), (first as u32).to_be_bytes())
    }

    /// Flow label of IPv6.
    #[inline(always)]
    fn label(&mut self) -> bool {
        (self.from[4] ^ self.to[4]) & 0xf_ffff == 0 || !self.is(eth_type::IPV6) || self.class_and_label()
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

    /// Those of IPv4, or of ARP.
    #[inline(always)]
    fn ipv4_addresses(&mut self) -> bool {
        let (old, new) = (self.from[3], self.to[3]);
        let at = self.l3();
        if self.is(eth_type::IPV4) {
            return self.packet.store(at + 12, new.to_be_bytes())
                && self.packet.correct_checksum(at + 10, delta(old, new), Changed::IpHeader)
                && self.correct_pseudo_header(delta(old, new));
        }
        let [s0, s1, s2, s3, t0, t1, t2, t3] = new.to_be_bytes();
        !self.is_arp()
            || self.packet.store(at + 14, [s0, s1, s2, s3]) && self.packet.store(at + 24, [t0, t1, t2, t3])
    }

    /// Half an IPv6 address: word 5 of the key is the first.
    #[inline(always)]
    fn ipv6_half(&mut self, word: usize) -> bool {
        let (old, new) = (self.from[word], self.to[word]);
        if !self.is(eth_type::IPV6) {
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

    #[inline(always)]
    fn is_neighbour_discovery(&self) -> bool {
        self.is(eth_type::IPV6)
            && self.layout.l4 != 0
            && (self.from[0] >> 32) as u8 == ip_proto::ICMPV6
            && matches!(self.from[4] >> 48, ND_SOLICITATION | ND_ADVERTISEMENT)
    }

    /// A word of the hardware address in ARP, at this distance from its header; or of the link layer address in an
    /// option of neighbour discovery.
    #[inline(always)]
    fn hardware_address(&mut self, word: usize, in_arp: u32, in_option: u16) -> bool {
        if self.is_arp() {
            return self.packet.store(self.l3() + in_arp, mac(self.to[word]));
        }
        // The message may have no such option to be changed.
        in_option == 0
            || !self.is_neighbour_discovery()
            || self.packet.store(u32::from(in_option), mac(self.to[word])) && self.correct_for(word)
    }

    /// Half the target of neighbour discovery: word 11 of the key is the first.
    #[inline(always)]
    fn target(&mut self, word: usize) -> bool {
        let at = u32::from(self.layout.l4) + 8 * (word as u32 - 10);
        self.packet.store(at, self.to[word].to_be_bytes()) && self.correct_for(word)
    }

    /// Corrects ICMPv6's checksum for a word under it.
    #[inline(always)]
    fn correct_for(&mut self, word: usize) -> bool {
        let field = u32::from(self.layout.l4) + 2;
        let sum = delta(self.from[word], self.to[word]);
        self.packet.correct_checksum(field, sum, Changed::Transport)
    }

    /// What translation adds to sequence numbers and identifiers (see [`SHIFTS`]).
    #[inline(always)]
    fn shifts(&mut self) -> bool {
        let at = u32::from(self.layout.l4);
        let (old, new) = (self.from[SHIFTS], self.to[SHIFTS]);
        if at == 0 {
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
            ip_proto::ICMP | ip_proto::ICMPV6 => {
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
}
