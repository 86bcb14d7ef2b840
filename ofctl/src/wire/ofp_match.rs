//! `ofp_match`, OpenFlow 1.0's fixed struct of 40 bytes, with a word of wildcard bits.

use switchd_ebpf::key::{self, Location};

use super::buf::{Put, Reader, Result};
use crate::field::{Prerequisite, ones};
use crate::flow::Match;

/// The size of an `ofp_match`.
pub(super) const LEN: usize = 40;

// Wildcard bits (OFPFW10_*): set where a field does not matter.
const IN_PORT: u32 = 1 << 0;
const DL_VLAN: u32 = 1 << 1;
const DL_SRC: u32 = 1 << 2;
const DL_DST: u32 = 1 << 3;
const DL_TYPE: u32 = 1 << 4;
const NW_PROTO: u32 = 1 << 5;
const TP_SRC: u32 = 1 << 6;
const TP_DST: u32 = 1 << 7;
/// Six bits: how many low bits of the address do not matter; 32 and more: none does.
const NW_SRC_SHIFT: u32 = 8;
const NW_DST_SHIFT: u32 = 14;
const DL_VLAN_PCP: u32 = 1 << 20;
const NW_TOS: u32 = 1 << 21;
/// The bits that are defined.
const ALL: u32 = (1 << 22) - 1;

/// `dl_vlan` of packets without a tag.
const VLAN_NONE: u16 = 0xffff;
/// Bit 12 of a TCI: there is a tag.
const VLAN_PRESENT: u16 = 0x1000;
const VLAN_VID: u16 = 0x0fff;
const VLAN_PCP: u16 = 0xe000;
const PCP_SHIFT: u32 = 13;
/// The TOS bits that are matched: the DSCP.
const DSCP: u128 = 0xfc;

/// The fields that are matched whole or not at all, with their wildcard bits.
const WHOLE: [(u32, Location); 4] =
    [(IN_PORT, key::IN_PORT), (DL_SRC, key::ETH_SRC), (DL_DST, key::ETH_DST), (DL_TYPE, key::ETH_TYPE)];

/// Appends an `ofp_match` with as much of a match as it can say.
pub(super) fn put(out: &mut Vec<u8>, matching: &Match) {
    let matched = |at: Location| matching.mask.get(at) == ones(at.bits);
    let key = |at: Location| if matched(at) { matching.key.get(at) } else { 0 };

    let mut wildcards = 0;
    for (bit, at) in WHOLE {
        if !matched(at) {
            wildcards |= bit;
        }
    }

    let (tci, tci_mask) = (matching.key.get(key::VLAN_TCI) as u16, matching.mask.get(key::VLAN_TCI) as u16);
    let (mut vid, mut pcp) = (0, 0);
    if tci_mask & VLAN_PRESENT != 0 && tci & VLAN_PRESENT == 0 {
        vid = VLAN_NONE;
    } else {
        if tci_mask & VLAN_VID == VLAN_VID {
            vid = tci & VLAN_VID;
        } else {
            wildcards |= DL_VLAN;
        }
        if tci_mask & VLAN_PCP == VLAN_PCP {
            pcp = (tci >> PCP_SHIFT) as u8;
        } else {
            wildcards |= DL_VLAN_PCP;
        }
    }

    let holds = |prerequisite: Prerequisite| prerequisite.holds(matching);
    let ip = holds(Prerequisite::Ip);
    let mut tos = 0;
    if ip && matching.mask.get(key::IP_TOS) & DSCP == DSCP {
        tos = (matching.key.get(key::IP_TOS) & DSCP) as u8;
    } else {
        wildcards |= NW_TOS;
    }
    let mut proto = 0;
    if (ip || holds(Prerequisite::Arp)) && matched(key::IP_PROTO) {
        proto = key(key::IP_PROTO) as u8;
    } else {
        wildcards |= NW_PROTO;
    }
    let mut addresses = [0; 2];
    for (at, shift, address) in [(key::IPV4_SRC, NW_SRC_SHIFT, 0), (key::IPV4_DST, NW_DST_SHIFT, 1)] {
        let mask = matching.mask.get(at) as u32;
        let wild =
            if holds(Prerequisite::Ipv4) || holds(Prerequisite::Arp) { mask.leading_ones() } else { 0 };
        let prefix = u32::MAX.checked_shl(32 - wild).unwrap_or(0);
        addresses[address] = matching.key.get(at) as u32 & prefix;
        wildcards |= (32 - wild) << shift;
    }
    let mut ports = [0; 2];
    for (at, bit, port) in [(key::TP_SRC, TP_SRC, 0), (key::TP_DST, TP_DST, 1)] {
        let at = l4_place(at, matching);
        if at.is_some_and(matched) {
            ports[port] = at.map_or(0, key) as u16;
        } else {
            wildcards |= bit;
        }
    }

    out.u32(wildcards);
    out.u16(key(key::IN_PORT) as u16);
    out.uint(key(key::ETH_SRC), 6);
    out.uint(key(key::ETH_DST), 6);
    out.u16(vid);
    out.u8(pcp);
    out.u8(0);
    out.u16(key(key::ETH_TYPE) as u16);
    out.u8(tos);
    out.u8(proto);
    out.u16(0);
    out.u32(addresses[0]);
    out.u32(addresses[1]);
    out.u16(ports[0]);
    out.u16(ports[1]);
}

/// Reads an `ofp_match`. What it says of a header without saying that packets have that header is left out, as
/// OpenFlow 1.0.1 asks. Also tells whether every wildcard bit is zero.
pub(super) fn take(reader: &mut Reader<'_>) -> Result<(Match, bool)> {
    let mut reader = reader.sub(LEN)?;
    let wildcards = reader.u32()? & ALL;
    let mut matching = Match::default();
    let mut set = |at: Location, value: u128, mask: u128| {
        matching.key.set(at, matching.key.get(at) | value & mask);
        matching.mask.set(at, matching.mask.get(at) | mask);
    };
    let values = [
        u128::from(reader.u16()?), // in_port
        reader.uint(6)?,           // dl_src
        reader.uint(6)?,           // dl_dst
    ];
    let vid = reader.u16()?;
    let pcp = reader.u8()?;
    reader.skip(1)?;
    let eth_type = u128::from(reader.u16()?);
    for ((bit, at), value) in WHOLE.into_iter().zip(values.into_iter().chain([eth_type])) {
        if wildcards & bit == 0 {
            set(at, value, ones(at.bits));
        }
    }

    let match_vid = wildcards & DL_VLAN == 0;
    let match_pcp = wildcards & DL_VLAN_PCP == 0;
    if match_vid && vid == VLAN_NONE {
        set(key::VLAN_TCI, 0, ones(16));
    } else if match_vid || match_pcp {
        let tci = u16::from(pcp) << PCP_SHIFT | vid & VLAN_VID | VLAN_PRESENT;
        let mask = VLAN_PRESENT | if match_vid { VLAN_VID } else { 0 } | if match_pcp { VLAN_PCP } else { 0 };
        set(key::VLAN_TCI, u128::from(tci), u128::from(mask));
    }

    let tos = u128::from(reader.u8()?);
    let proto = u128::from(reader.u8()?);
    reader.skip(2)?;
    let addresses = [reader.u32()?, reader.u32()?];
    let ports = [reader.u16()?, reader.u16()?];

    let ip = Prerequisite::Ip.holds(&matching);
    let arp = Prerequisite::Arp.holds(&matching);
    let ipv4 = Prerequisite::Ipv4.holds(&matching);
    let mut set = |at: Location, value: u128, mask: u128| {
        matching.key.set(at, value & mask);
        matching.mask.set(at, mask);
    };
    if ip && wildcards & NW_TOS == 0 {
        set(key::IP_TOS, tos, DSCP);
    }
    if (ip || arp) && wildcards & NW_PROTO == 0 {
        set(key::IP_PROTO, proto, ones(8));
    }
    if ipv4 || arp {
        let places = [(key::IPV4_SRC, NW_SRC_SHIFT), (key::IPV4_DST, NW_DST_SHIFT)];
        for ((at, shift), address) in places.into_iter().zip(addresses) {
            let prefix = u32::MAX.checked_shl(wildcards >> shift & 0x3f).unwrap_or(0);
            set(at, u128::from(address), u128::from(prefix));
        }
    }
    for (at, bit, port) in [(key::TP_SRC, TP_SRC, ports[0]), (key::TP_DST, TP_DST, ports[1])] {
        if wildcards & bit == 0
            && let Some(at) = l4_place(at, &matching)
        {
            let mask = ones(at.bits);
            matching.key.set(at, u128::from(port) & mask);
            matching.mask.set(at, mask);
        }
    }
    Ok((matching, wildcards == 0))
}

/// Where the ports lie, or ICMP's type and code; none: the match does not say that packets have them.
fn l4_place(at: Location, matching: &Match) -> Option<Location> {
    let holds = |prerequisite: Prerequisite| prerequisite.holds(matching);
    if holds(Prerequisite::Tcp) || holds(Prerequisite::Udp) || holds(Prerequisite::Sctp) {
        Some(at)
    } else if holds(Prerequisite::Icmp) || holds(Prerequisite::Icmpv6) {
        Some(Location { bits: 8, ..at })
    } else {
        None
    }
}
