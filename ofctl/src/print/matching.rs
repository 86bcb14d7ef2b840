//! Matches, in OVS's order: connection, protocol, registers, port, Ethernet, IP, transport.

use std::fmt::{self, Write};

use switchd_ebpf::key;

use super::value::write_value;
use crate::field::{Field, Prerequisite};
use crate::flow::{DEFAULT_PRIORITY, Match};
use crate::port::PortNames;

/// Writes a match, after its priority where that is not the default one: `priority=50,tcp,in_port=1`. The match
/// of all packets at the default priority is nothing at all.
///
/// # Errors
/// Those of the writer.
pub fn write_match(
    out: &mut dyn Write,
    matching: &Match,
    priority: u16,
    ports: &dyn PortNames,
) -> fmt::Result {
    let mut list = List { out, matching, ports, empty: true };
    if priority != DEFAULT_PRIORITY {
        write!(list.item()?, "priority={priority}")?;
    }
    list.field("pkt_mark", Field::PktMark)?;
    list.connection()?;
    let protocol = protocol(matching);
    if let Some((word, _)) = protocol {
        list.item()?.write_str(word)?;
    }
    for n in 0..16 {
        list.field(Field::Reg(n).info().name, Field::Reg(n))?;
    }
    list.field("metadata", Field::Metadata)?;
    list.field("in_port", Field::InPort)?;
    list.vlan()?;
    list.field("dl_src", Field::EthSrc)?;
    list.field("dl_dst", Field::EthDst)?;
    if protocol.is_none() {
        list.eth_type()?;
    }
    list.network(protocol.is_some_and(|(_, whole)| whole))?;
    list.transport()
}

/// The word for what is matched, and whether it says the IP protocol, too.
fn protocol(matching: &Match) -> Option<(&'static str, bool)> {
    let eth_type = matching.exact(Field::EthType)?;
    let words: &[(u128, &str)] = match eth_type {
        0x0800 => &[(1, "icmp"), (6, "tcp"), (17, "udp"), (132, "sctp")],
        0x86dd => &[(58, "icmp6"), (6, "tcp6"), (17, "udp6"), (132, "sctp6")],
        0x0806 => return Some(("arp", false)),
        0x8035 => return Some(("rarp", false)),
        0x8847 => return Some(("mpls", false)),
        0x8848 => return Some(("mplsm", false)),
        _ => return None,
    };
    let word = matching.exact(Field::IpProto).and_then(|number| words.iter().find(|(of, _)| *of == number));
    Some(match word {
        Some((_, word)) => (word, true),
        None if eth_type == 0x0800 => ("ip", false),
        None => ("ipv6", false),
    })
}

/// A list with commas between its items.
struct List<'a> {
    out: &'a mut dyn Write,
    matching: &'a Match,
    ports: &'a dyn PortNames,
    empty: bool,
}

impl List<'_> {
    /// Starts an item.
    fn item(&mut self) -> Result<&mut dyn Write, fmt::Error> {
        if !std::mem::take(&mut self.empty) {
            self.out.write_str(",")?;
        }
        Ok(self.out)
    }

    /// Writes a field, if anything is demanded of it.
    fn field(&mut self, name: &str, field: Field) -> fmt::Result {
        let (value, mask) = self.matching.get(field);
        if mask == 0 {
            return Ok(());
        }
        let ports = self.ports;
        let out = self.item()?;
        write!(out, "{name}=")?;
        write_value(out, field, value, mask, ports)
    }

    fn fields(&mut self, fields: &[(&str, Field)]) -> fmt::Result {
        fields.iter().try_for_each(|(name, field)| self.field(name, *field))
    }

    fn connection(&mut self) -> fmt::Result {
        self.fields(&[("ct_state", Field::CtState)])?;
        // OVS writes the zone in decimal here, though the field is a hexadecimal one.
        if let Some(zone) = self.matching.exact(Field::CtZone) {
            write!(self.item()?, "ct_zone={zone}")?;
        }
        self.fields(&[
            ("ct_mark", Field::CtMark),
            ("ct_label", Field::CtLabel),
            ("ct_nw_src", Field::CtNwSrc),
            ("ct_ipv6_src", Field::CtIpv6Src),
            ("ct_nw_dst", Field::CtNwDst),
            ("ct_ipv6_dst", Field::CtIpv6Dst),
            ("ct_nw_proto", Field::CtNwProto),
            ("ct_tp_src", Field::CtTpSrc),
            ("ct_tp_dst", Field::CtTpDst),
        ])
    }

    /// The tag as `dl_vlan` and `dl_vlan_pcp` if these can say it, else as `vlan_tci`.
    fn vlan(&mut self) -> fmt::Result {
        const TAG: u128 = 0x1000;
        let (tci, mask) = self.matching.get(Field::VlanTci);
        let (id, priority) = (mask & 0xfff, mask >> 13);
        let tagged = tci & TAG != 0;
        if mask == 0 {
            Ok(())
        } else if tagged && matches!((id, priority), (0xfff, 0 | 7) | (0, 7)) {
            if id != 0 {
                write!(self.item()?, "dl_vlan={}", tci & 0xfff)?;
            }
            if priority != 0 {
                write!(self.item()?, "dl_vlan_pcp={}", tci >> 13)?;
            }
            Ok(())
        } else if mask == 0xffff {
            write!(self.item()?, "vlan_tci={tci:#06x}")
        } else {
            write!(self.item()?, "vlan_tci={tci:#06x}/{mask:#06x}")
        }
    }

    fn eth_type(&mut self) -> fmt::Result {
        match self.matching.exact(Field::EthType) {
            Some(eth_type) => write!(self.item()?, "dl_type={eth_type:#06x}"),
            None => Ok(()),
        }
    }

    fn network(&mut self, protocol_said: bool) -> fmt::Result {
        let arp = Prerequisite::Arp.holds(self.matching);
        if Prerequisite::Ipv6.holds(self.matching) {
            self.fields(&[("ipv6_src", Field::Ipv6Src), ("ipv6_dst", Field::Ipv6Dst)])?;
            self.ipv6_label()?;
        } else if arp {
            self.fields(&[("arp_spa", Field::ArpSpa), ("arp_tpa", Field::ArpTpa)])?;
        } else {
            self.fields(&[("nw_src", Field::Ipv4Src), ("nw_dst", Field::Ipv4Dst)])?;
        }
        if !protocol_said {
            self.field(if arp { "arp_op" } else { "nw_proto" }, Field::IpProto)?;
        }
        if arp {
            self.fields(&[("arp_sha", Field::ArpSha), ("arp_tha", Field::ArpTha)])?;
        }
        let (tos, mask) = (self.matching.key.get(key::IP_TOS), self.matching.mask.get(key::IP_DSCP));
        if mask != 0 {
            write!(self.item()?, "nw_tos={}", tos & 0xfc)?;
        }
        self.fields(&[("nw_ecn", Field::IpEcn), ("nw_ttl", Field::IpTtl), ("nw_frag", Field::IpFrag)])
    }

    /// The label has five digits always.
    fn ipv6_label(&mut self) -> fmt::Result {
        match self.matching.get(Field::Ipv6Label) {
            (_, 0) => Ok(()),
            (label, 0xf_ffff) => write!(self.item()?, "ipv6_label={label:#07x}"),
            (label, mask) => write!(self.item()?, "ipv6_label={label:#07x}/{mask:#07x}"),
        }
    }

    fn transport(&mut self) -> fmt::Result {
        if Prerequisite::Icmp.holds(self.matching) {
            self.fields(&[("icmp_type", Field::IcmpType), ("icmp_code", Field::IcmpCode)])
        } else if Prerequisite::Icmpv6.holds(self.matching) {
            self.fields(&[
                ("icmp_type", Field::Icmpv6Type),
                ("icmp_code", Field::Icmpv6Code),
                ("nd_target", Field::NdTarget),
                ("nd_sll", Field::NdSll),
                ("nd_tll", Field::NdTll),
            ])
        } else {
            self.fields(&[
                ("tp_src", Field::TcpSrc),
                ("tp_dst", Field::TcpDst),
                ("tcp_flags", Field::TcpFlags),
            ])
        }
    }
}
