//! What fields need beside them: a TCP port means nothing in a match that does not say TCP.

use std::fmt;

use switchd_ebpf::key::{self, Location};
use switchd_ebpf::parse::FRAG_LATER;
use thiserror::Error;

use super::Match;
use crate::field::{Field, Prerequisite};

const ETH_TYPE_IPV4: u128 = 0x0800;
const ETH_TYPE_ARP: u128 = 0x0806;
const ETH_TYPE_RARP: u128 = 0x8035;
const ETH_TYPE_IPV6: u128 = 0x86dd;

/// ct_state bits that only a packet with a connection has: new, est, rel, rpl, snat, dnat.
const CT_HAS_CONNECTION: u128 = 0xcf;
const CT_INVALID: u128 = 0x10;
const CT_TRACKED: u128 = 0x20;

impl Prerequisite {
    /// Whether the match says what is needed.
    #[must_use]
    pub fn holds(self, matching: &Match) -> bool {
        let eth_type = || matching.exact(Field::EthType);
        let all = |needed: &[Self]| needed.iter().all(|one| one.holds(matching));
        let protocol = |number| Self::Ip.holds(matching) && matching.exact(Field::IpProto) == Some(number);
        // A later fragment has no ports. As in OVS, only its bit in the value counts, and ICMP is let pass.
        let later = matching.key.get(key::IP_FRAG) & u128::from(FRAG_LATER) != 0;
        let nd =
            |icmp_type| Self::Icmpv6.holds(matching) && matching.exact(Field::Icmpv6Type) == Some(icmp_type);
        match self {
            Self::None => true,
            Self::Vlan => matching.key.get(key::VLAN_TCI) & 0x1000 != 0,
            Self::Arp => matches!(eth_type(), Some(ETH_TYPE_ARP | ETH_TYPE_RARP)),
            Self::Ipv4 => eth_type() == Some(ETH_TYPE_IPV4),
            Self::Ipv6 => eth_type() == Some(ETH_TYPE_IPV6),
            Self::Ip => matches!(eth_type(), Some(ETH_TYPE_IPV4 | ETH_TYPE_IPV6)),
            Self::Tcp => protocol(6) && !later,
            Self::Udp => protocol(17) && !later,
            Self::Sctp => protocol(132) && !later,
            Self::Icmp => Self::Ipv4.holds(matching) && protocol(1),
            Self::Icmpv6 => Self::Ipv6.holds(matching) && protocol(58),
            Self::Nd => nd(135) || nd(136),
            Self::NdSolicit => nd(135),
            Self::NdAdvert => nd(136),
            Self::Ct => {
                let (state, mask) = matching.get(Field::CtState);
                let valid = state & CT_TRACKED != 0 && mask & CT_INVALID != 0 && state & CT_INVALID == 0;
                state & CT_HAS_CONNECTION != 0 || valid
            }
            Self::CtIpv4 => all(&[Self::Ct, Self::Ipv4]),
            Self::CtIpv6 => all(&[Self::Ct, Self::Ipv6]),
            Self::CtProto => Self::Ct.holds(matching) && matching.exact(Field::CtNwProto).is_some(),
        }
    }
}

/// As flow texts write it.
impl fmt::Display for Prerequisite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CT: &str = "a ct_state with +new, +est, +rel, +rpl, +snat, +dnat or +trk-inv";
        match self {
            Self::None => f.write_str("nothing"),
            Self::Vlan => f.write_str("vlan_vid"),
            Self::Arp => f.write_str("arp or rarp"),
            Self::Ipv4 => f.write_str("ip"),
            Self::Ipv6 => f.write_str("ipv6"),
            Self::Ip => f.write_str("ip or ipv6"),
            Self::Tcp => f.write_str("tcp or tcp6"),
            Self::Udp => f.write_str("udp or udp6"),
            Self::Sctp => f.write_str("sctp or sctp6"),
            Self::Icmp => f.write_str("icmp"),
            Self::Icmpv6 => f.write_str("icmp6"),
            Self::Nd => f.write_str("icmp6 with icmpv6_type=135 or icmpv6_type=136"),
            Self::NdSolicit => f.write_str("icmp6 with icmpv6_type=135"),
            Self::NdAdvert => f.write_str("icmp6 with icmpv6_type=136"),
            Self::Ct => f.write_str(CT),
            Self::CtIpv4 => write!(f, "ip and {CT}"),
            Self::CtIpv6 => write!(f, "ipv6 and {CT}"),
            Self::CtProto => write!(f, "ct_nw_proto and {CT}"),
        }
    }
}

/// A field that is matched without what gives it a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{field} needs {}", Alternatives(.needs))]
pub struct MissingPrerequisite {
    /// The field, by the name that the user wrote, or a name for its place.
    pub field: &'static str,
    /// Any of these would do.
    pub needs: &'static [Prerequisite],
}

struct Alternatives<'a>(&'a [Prerequisite]);

impl fmt::Display for Alternatives<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, prerequisite) in self.0.iter().enumerate() {
            write!(f, "{}{prerequisite}", if i == 0 { "" } else { " or " })?;
        }
        Ok(())
    }
}

/// A place in the key, a name for what lies there, and what gives it a meaning. Where layers share a place
/// (ARP's addresses and IPv4's), any of them does.
type Slot = (Location, &'static str, &'static [Prerequisite]);

#[rustfmt::skip]
const SLOTS: [Slot; 22] = [
    (key::IP_PROTO, "nw_proto", &[Prerequisite::Ip, Prerequisite::Arp]),
    (key::IP_TOS, "nw_tos", &[Prerequisite::Ip]),
    (key::IP_TTL, "nw_ttl", &[Prerequisite::Ip]),
    (key::IP_FRAG, "ip_frag", &[Prerequisite::Ip]),
    (key::IPV4_SRC, "nw_src", &[Prerequisite::Ipv4, Prerequisite::Arp]),
    (key::IPV4_DST, "nw_dst", &[Prerequisite::Ipv4, Prerequisite::Arp]),
    (key::IPV6_SRC, "ipv6_src", &[Prerequisite::Ipv6]),
    (key::IPV6_DST, "ipv6_dst", &[Prerequisite::Ipv6]),
    (key::IPV6_LABEL, "ipv6_label", &[Prerequisite::Ipv6]),
    (key::TP_SRC, "tp_src", TRANSPORT),
    (key::TP_DST, "tp_dst", TRANSPORT),
    (key::TCP_FLAGS, "tcp_flags", &[Prerequisite::Tcp]),
    (key::ARP_SHA, "arp_sha", &[Prerequisite::Arp, Prerequisite::NdSolicit]),
    (key::ARP_THA, "arp_tha", &[Prerequisite::Arp, Prerequisite::NdAdvert]),
    (key::ND_TARGET, "nd_target", &[Prerequisite::Nd]),
    (key::CT_NW_PROTO, "ct_nw_proto", &[Prerequisite::Ct]),
    (key::CT_NW_SRC, "ct_nw_src", &[Prerequisite::CtIpv4]),
    (key::CT_NW_DST, "ct_nw_dst", &[Prerequisite::CtIpv4]),
    (key::CT_IPV6_SRC, "ct_ipv6_src", &[Prerequisite::CtIpv6]),
    (key::CT_IPV6_DST, "ct_ipv6_dst", &[Prerequisite::CtIpv6]),
    (key::CT_TP_SRC, "ct_tp_src", &[Prerequisite::CtProto]),
    (key::CT_TP_DST, "ct_tp_dst", &[Prerequisite::CtProto]),
];

const TRANSPORT: &[Prerequisite] =
    &[Prerequisite::Tcp, Prerequisite::Udp, Prerequisite::Sctp, Prerequisite::Icmp, Prerequisite::Icmpv6];

/// Checks that nothing is matched without its prerequisite.
///
/// # Errors
/// Names the first field that lacks it.
pub fn check_prerequisites(matching: &Match) -> Result<(), MissingPrerequisite> {
    match meaningless(matching) {
        Some(&(_, field, needs)) => Err(MissingPrerequisite { field, needs }),
        None => Ok(()),
    }
}

/// The match without the fields that lack their prerequisite, as OVS reads a match on the wire.
#[must_use]
pub fn normalize(matching: &Match) -> Match {
    let mut normal = *matching;
    // Dropping a field can take the prerequisite of another away: a protocol without IP, then its ports.
    while let Some(&(at, ..)) = meaningless(&normal) {
        normal.key.set(at, 0);
        normal.mask.set(at, 0);
    }
    normal
}

/// The first place that is matched without what gives it a meaning.
fn meaningless(matching: &Match) -> Option<&'static Slot> {
    SLOTS.iter().find(|(at, _, needs)| {
        matching.mask.get(*at) != 0 && !needs.iter().any(|prerequisite| prerequisite.holds(matching))
    })
}

/// Checks one field by the name that it was given in a flow text. Old names stay usable across the layers that
/// share their place, as in OVS: `arp,nw_src=10.0.0.1`, `udp,tp_dst=53`, `icmp6,icmp_type=135`.
///
/// # Errors
/// Names the field and what it needs.
pub fn check_named(name: &str, field: Field, matching: &Match) -> Result<(), MissingPrerequisite> {
    let shared: Option<(&'static str, &'static [Prerequisite])> = match name {
        "tp_src" => Some(("tp_src", &[Prerequisite::Tcp, Prerequisite::Udp, Prerequisite::Sctp])),
        "tp_dst" => Some(("tp_dst", &[Prerequisite::Tcp, Prerequisite::Udp, Prerequisite::Sctp])),
        "nw_src" => Some(("nw_src", &[Prerequisite::Ipv4, Prerequisite::Arp])),
        "nw_dst" => Some(("nw_dst", &[Prerequisite::Ipv4, Prerequisite::Arp])),
        "nw_proto" => Some(("nw_proto", &[Prerequisite::Ip, Prerequisite::Arp])),
        "icmp_type" => Some(("icmp_type", &[Prerequisite::Icmp, Prerequisite::Icmpv6])),
        "icmp_code" => Some(("icmp_code", &[Prerequisite::Icmp, Prerequisite::Icmpv6])),
        _ => None,
    };
    let info = field.info();
    let (field, needs) = shared.unwrap_or((info.name, std::slice::from_ref(&info.prerequisite)));
    if needs.iter().any(|prerequisite| prerequisite.holds(matching)) {
        Ok(())
    } else {
        Err(MissingPrerequisite { field, needs })
    }
}
