//! What OpenFlow 1.0 can match without extensions.

use switchd_ebpf::key::{self, Key, Location};

use super::Match;
use crate::field::{Prerequisite, ones};

/// Whether OpenFlow 1.0's own match struct can say all of a match: 12 fields, each whole or not at all, but for
/// addresses with a prefix length.
#[must_use]
pub fn fits_openflow10(matching: &Match) -> bool {
    let tcp_or_udp = [Prerequisite::Tcp, Prerequisite::Udp].iter().any(|ports| ports.holds(matching));
    let ports = tcp_or_udp || Prerequisite::Icmp.holds(matching);
    let mut left = matching.mask;
    for (at, said) in [
        (key::IN_PORT, whole(left, key::IN_PORT)),
        (key::ETH_SRC, whole(left, key::ETH_SRC)),
        (key::ETH_DST, whole(left, key::ETH_DST)),
        (key::ETH_TYPE, whole(left, key::ETH_TYPE)),
        (key::VLAN_TCI, vlan(matching)),
        (key::IP_PROTO, !Prerequisite::Ipv6.holds(matching)),
        (key::IP_DSCP, !Prerequisite::Ipv6.holds(matching)),
        (key::IPV4_SRC, prefix(left, key::IPV4_SRC)),
        (key::IPV4_DST, prefix(left, key::IPV4_DST)),
        (key::TP_SRC, ports && transport(left, key::TP_SRC)),
        (key::TP_DST, ports && transport(left, key::TP_DST)),
    ] {
        if said {
            left.set(at, 0);
        }
    }
    left == Key::ZERO
}

fn whole(mask: Key, at: Location) -> bool {
    mask.get(at) == ones(at.bits)
}

/// No tag, or a tag with its id, its priority, or both. The bit for "there is a tag" is not on the wire, so a
/// value without it that is not zero would come out as another.
fn vlan(matching: &Match) -> bool {
    let (tci, mask) = (matching.key.get(key::VLAN_TCI), matching.mask.get(key::VLAN_TCI));
    match mask {
        0xffff => tci == 0 || tci & 0x1000 != 0,
        0x1fff | 0xf000 => tci & 0x1000 != 0,
        _ => false,
    }
}

fn prefix(mask: Key, at: Location) -> bool {
    let mask = mask.get(at) as u32;
    mask.leading_ones() == mask.count_ones()
}

/// A whole port, or a whole ICMP type or code in the low byte.
fn transport(mask: Key, at: Location) -> bool {
    matches!(mask.get(at), 0xff | 0xffff)
}
