//! The table behind [`Field::info`]: numbers and access rules are those of OVS's `meta-flow.h`.

use switchd_ebpf::key::{self, Location};

use super::Format::{CtState, Decimal, Ethernet, Frag, Hexadecimal, Ipv4, Ipv6, Port, TcpFlags};
use super::{Field, FieldInfo, Format, Header, Prerequisite};

/// Maskable or exact, writable or not.
type Access = (bool, bool);
const MASK_RW: Access = (true, true);
const MASK_RO: Access = (true, false);
const EXACT_RW: Access = (false, true);
const EXACT_RO: Access = (false, false);

/// The VLAN id together with the bit that says that there is a tag.
const VLAN_VID: Location = Location { bits: 13, ..key::VLAN_VID };
/// ICMP type and code fill the low byte of a port's place.
const ICMP_TYPE: Location = Location { bits: 8, ..key::TP_SRC };
const ICMP_CODE: Location = Location { bits: 8, ..key::TP_DST };

const fn row(
    field: Field,
    name: &'static str,
    location: Location,
    format: Format,
    (maskable, writable): Access,
    prerequisite: Prerequisite,
) -> FieldInfo {
    FieldInfo {
        field,
        name,
        aliases: &[],
        location,
        bits: location.bits,
        maskable,
        prerequisite,
        writable,
        nxm: None,
        oxm: None,
        format,
    }
}

impl FieldInfo {
    const fn alias(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    const fn bits(self, bits: u8) -> Self {
        Self { bits, ..self }
    }

    const fn nxm_of(self, field: u8, name: &'static str) -> Self {
        Self { nxm: Some(Header { class: 0x0000, field, name }), ..self }
    }

    const fn nxm_nx(self, field: u8, name: &'static str) -> Self {
        Self { nxm: Some(Header { class: 0x0001, field, name }), ..self }
    }

    const fn oxm_of(self, field: u8, name: &'static str) -> Self {
        Self { oxm: Some(Header { class: 0x8000, field, name }), ..self }
    }

    const fn packet_register(self, field: u8, name: &'static str) -> Self {
        Self { oxm: Some(Header { class: 0x8001, field, name }), ..self }
    }
}

macro_rules! reg {
    ($n:literal) => {
        row(Field::Reg($n), concat!("reg", $n), key::reg($n), Hexadecimal, MASK_RW, Prerequisite::None)
            .nxm_nx($n, concat!("NXM_NX_REG", $n))
    };
}

macro_rules! xreg {
    ($n:literal) => {
        row(Field::Xreg($n), concat!("xreg", $n), key::xreg($n), Hexadecimal, MASK_RW, Prerequisite::None)
            .packet_register($n, concat!("OXM_OF_PKT_REG", $n))
    };
}

macro_rules! xxreg {
    ($n:literal) => {
        row(Field::Xxreg($n), concat!("xxreg", $n), key::xxreg($n), Hexadecimal, MASK_RW, Prerequisite::None)
            .nxm_nx(111 + $n, concat!("NXM_NX_XXREG", $n))
    };
}

/// All fields, sorted by [`Field`].
#[rustfmt::skip]
pub static FIELDS: [FieldInfo; 81] = [
    row(Field::InPort, "in_port", key::IN_PORT, Port, EXACT_RW, Prerequisite::None)
        .nxm_of(0, "NXM_OF_IN_PORT"),
    row(Field::InPortOxm, "in_port_oxm", key::IN_PORT, Port, EXACT_RW, Prerequisite::None)
        .bits(32).oxm_of(0, "OXM_OF_IN_PORT"),
    row(Field::Metadata, "metadata", key::METADATA, Hexadecimal, MASK_RW, Prerequisite::None)
        .oxm_of(2, "OXM_OF_METADATA"),
    reg!(0), reg!(1), reg!(2), reg!(3), reg!(4), reg!(5), reg!(6), reg!(7),
    reg!(8), reg!(9), reg!(10), reg!(11), reg!(12), reg!(13), reg!(14), reg!(15),
    xreg!(0), xreg!(1), xreg!(2), xreg!(3), xreg!(4), xreg!(5), xreg!(6), xreg!(7),
    xxreg!(0), xxreg!(1), xxreg!(2), xxreg!(3),
    row(Field::PktMark, "pkt_mark", key::PKT_MARK, Hexadecimal, MASK_RW, Prerequisite::None)
        .nxm_nx(33, "NXM_NX_PKT_MARK"),

    row(Field::CtState, "ct_state", key::CT_STATE, CtState, MASK_RO, Prerequisite::None)
        .bits(32).nxm_nx(105, "NXM_NX_CT_STATE"),
    row(Field::CtZone, "ct_zone", key::CT_ZONE, Hexadecimal, EXACT_RO, Prerequisite::None)
        .nxm_nx(106, "NXM_NX_CT_ZONE"),
    row(Field::CtMark, "ct_mark", key::CT_MARK, Hexadecimal, MASK_RW, Prerequisite::None)
        .nxm_nx(107, "NXM_NX_CT_MARK"),
    row(Field::CtLabel, "ct_label", key::CT_LABEL, Hexadecimal, MASK_RW, Prerequisite::None)
        .nxm_nx(108, "NXM_NX_CT_LABEL"),
    row(Field::CtNwProto, "ct_nw_proto", key::CT_NW_PROTO, Decimal, EXACT_RO, Prerequisite::Ct)
        .nxm_nx(119, "NXM_NX_CT_NW_PROTO"),
    row(Field::CtNwSrc, "ct_nw_src", key::CT_NW_SRC, Ipv4, MASK_RO, Prerequisite::CtIpv4)
        .nxm_nx(120, "NXM_NX_CT_NW_SRC"),
    row(Field::CtNwDst, "ct_nw_dst", key::CT_NW_DST, Ipv4, MASK_RO, Prerequisite::CtIpv4)
        .nxm_nx(121, "NXM_NX_CT_NW_DST"),
    row(Field::CtIpv6Src, "ct_ipv6_src", key::CT_IPV6_SRC, Ipv6, MASK_RO, Prerequisite::CtIpv6)
        .nxm_nx(122, "NXM_NX_CT_IPV6_SRC"),
    row(Field::CtIpv6Dst, "ct_ipv6_dst", key::CT_IPV6_DST, Ipv6, MASK_RO, Prerequisite::CtIpv6)
        .nxm_nx(123, "NXM_NX_CT_IPV6_DST"),
    row(Field::CtTpSrc, "ct_tp_src", key::CT_TP_SRC, Decimal, MASK_RO, Prerequisite::CtProto)
        .nxm_nx(124, "NXM_NX_CT_TP_SRC"),
    row(Field::CtTpDst, "ct_tp_dst", key::CT_TP_DST, Decimal, MASK_RO, Prerequisite::CtProto)
        .nxm_nx(125, "NXM_NX_CT_TP_DST"),

    row(Field::EthSrc, "eth_src", key::ETH_SRC, Ethernet, MASK_RW, Prerequisite::None)
        .alias(&["dl_src"]).nxm_of(2, "NXM_OF_ETH_SRC").oxm_of(4, "OXM_OF_ETH_SRC"),
    row(Field::EthDst, "eth_dst", key::ETH_DST, Ethernet, MASK_RW, Prerequisite::None)
        .alias(&["dl_dst"]).nxm_of(1, "NXM_OF_ETH_DST").oxm_of(3, "OXM_OF_ETH_DST"),
    row(Field::EthType, "eth_type", key::ETH_TYPE, Hexadecimal, EXACT_RO, Prerequisite::None)
        .alias(&["dl_type"]).nxm_of(3, "NXM_OF_ETH_TYPE").oxm_of(5, "OXM_OF_ETH_TYPE"),
    row(Field::VlanTci, "vlan_tci", key::VLAN_TCI, Hexadecimal, MASK_RW, Prerequisite::None)
        .nxm_of(4, "NXM_OF_VLAN_TCI"),
    row(Field::DlVlan, "dl_vlan", key::VLAN_VID, Decimal, EXACT_RW, Prerequisite::None),
    row(Field::DlVlanPcp, "dl_vlan_pcp", key::VLAN_PCP, Decimal, EXACT_RW, Prerequisite::None),
    row(Field::VlanVid, "vlan_vid", VLAN_VID, Decimal, MASK_RW, Prerequisite::None)
        .bits(12).oxm_of(6, "OXM_OF_VLAN_VID"),
    row(Field::VlanPcp, "vlan_pcp", key::VLAN_PCP, Decimal, EXACT_RW, Prerequisite::Vlan)
        .oxm_of(7, "OXM_OF_VLAN_PCP"),

    row(Field::Ipv4Src, "ip_src", key::IPV4_SRC, Ipv4, MASK_RW, Prerequisite::Ipv4)
        .alias(&["nw_src"]).nxm_of(7, "NXM_OF_IP_SRC").oxm_of(11, "OXM_OF_IPV4_SRC"),
    row(Field::Ipv4Dst, "ip_dst", key::IPV4_DST, Ipv4, MASK_RW, Prerequisite::Ipv4)
        .alias(&["nw_dst"]).nxm_of(8, "NXM_OF_IP_DST").oxm_of(12, "OXM_OF_IPV4_DST"),
    row(Field::Ipv6Src, "ipv6_src", key::IPV6_SRC, Ipv6, MASK_RW, Prerequisite::Ipv6)
        .nxm_nx(19, "NXM_NX_IPV6_SRC").oxm_of(26, "OXM_OF_IPV6_SRC"),
    row(Field::Ipv6Dst, "ipv6_dst", key::IPV6_DST, Ipv6, MASK_RW, Prerequisite::Ipv6)
        .nxm_nx(20, "NXM_NX_IPV6_DST").oxm_of(27, "OXM_OF_IPV6_DST"),
    row(Field::Ipv6Label, "ipv6_label", key::IPV6_LABEL, Hexadecimal, MASK_RW, Prerequisite::Ipv6)
        .nxm_nx(27, "NXM_NX_IPV6_LABEL").oxm_of(28, "OXM_OF_IPV6_FLABEL"),
    row(Field::IpProto, "nw_proto", key::IP_PROTO, Decimal, EXACT_RO, Prerequisite::Ip)
        .alias(&["ip_proto"]).nxm_of(6, "NXM_OF_IP_PROTO").oxm_of(10, "OXM_OF_IP_PROTO"),
    row(Field::IpTos, "nw_tos", key::IP_TOS, Decimal, EXACT_RW, Prerequisite::Ip)
        .nxm_of(5, "NXM_OF_IP_TOS"),
    row(Field::IpDscp, "ip_dscp", key::IP_DSCP, Decimal, EXACT_RW, Prerequisite::Ip)
        .oxm_of(8, "OXM_OF_IP_DSCP"),
    row(Field::IpEcn, "nw_ecn", key::IP_ECN, Decimal, EXACT_RW, Prerequisite::Ip)
        .alias(&["ip_ecn"]).nxm_nx(28, "NXM_NX_IP_ECN").oxm_of(9, "OXM_OF_IP_ECN"),
    row(Field::IpTtl, "nw_ttl", key::IP_TTL, Decimal, EXACT_RW, Prerequisite::Ip)
        .nxm_nx(29, "NXM_NX_IP_TTL"),
    row(Field::IpFrag, "ip_frag", Location { bits: 2, ..key::IP_FRAG }, Frag, MASK_RO, Prerequisite::Ip)
        .alias(&["nw_frag"]).nxm_nx(26, "NXM_NX_IP_FRAG"),

    row(Field::ArpOp, "arp_op", key::IP_PROTO, Decimal, EXACT_RW, Prerequisite::Arp)
        .bits(16).nxm_of(15, "NXM_OF_ARP_OP").oxm_of(21, "OXM_OF_ARP_OP"),
    row(Field::ArpSpa, "arp_spa", key::IPV4_SRC, Ipv4, MASK_RW, Prerequisite::Arp)
        .nxm_of(16, "NXM_OF_ARP_SPA").oxm_of(22, "OXM_OF_ARP_SPA"),
    row(Field::ArpTpa, "arp_tpa", key::IPV4_DST, Ipv4, MASK_RW, Prerequisite::Arp)
        .nxm_of(17, "NXM_OF_ARP_TPA").oxm_of(23, "OXM_OF_ARP_TPA"),
    row(Field::ArpSha, "arp_sha", key::ARP_SHA, Ethernet, MASK_RW, Prerequisite::Arp)
        .nxm_nx(17, "NXM_NX_ARP_SHA").oxm_of(24, "OXM_OF_ARP_SHA"),
    row(Field::ArpTha, "arp_tha", key::ARP_THA, Ethernet, MASK_RW, Prerequisite::Arp)
        .nxm_nx(18, "NXM_NX_ARP_THA").oxm_of(25, "OXM_OF_ARP_THA"),

    row(Field::TcpSrc, "tcp_src", key::TP_SRC, Decimal, MASK_RW, Prerequisite::Tcp)
        .alias(&["tp_src"]).nxm_of(9, "NXM_OF_TCP_SRC").oxm_of(13, "OXM_OF_TCP_SRC"),
    row(Field::TcpDst, "tcp_dst", key::TP_DST, Decimal, MASK_RW, Prerequisite::Tcp)
        .alias(&["tp_dst"]).nxm_of(10, "NXM_OF_TCP_DST").oxm_of(14, "OXM_OF_TCP_DST"),
    row(Field::TcpFlags, "tcp_flags", key::TCP_FLAGS, TcpFlags, MASK_RO, Prerequisite::Tcp)
        .bits(12).nxm_nx(34, "NXM_NX_TCP_FLAGS").oxm_of(42, "OXM_OF_TCP_FLAGS"),
    row(Field::UdpSrc, "udp_src", key::TP_SRC, Decimal, MASK_RW, Prerequisite::Udp)
        .nxm_of(11, "NXM_OF_UDP_SRC").oxm_of(15, "OXM_OF_UDP_SRC"),
    row(Field::UdpDst, "udp_dst", key::TP_DST, Decimal, MASK_RW, Prerequisite::Udp)
        .nxm_of(12, "NXM_OF_UDP_DST").oxm_of(16, "OXM_OF_UDP_DST"),
    row(Field::SctpSrc, "sctp_src", key::TP_SRC, Decimal, MASK_RW, Prerequisite::Sctp)
        .oxm_of(17, "OXM_OF_SCTP_SRC"),
    row(Field::SctpDst, "sctp_dst", key::TP_DST, Decimal, MASK_RW, Prerequisite::Sctp)
        .oxm_of(18, "OXM_OF_SCTP_DST"),

    row(Field::IcmpType, "icmp_type", ICMP_TYPE, Decimal, EXACT_RW, Prerequisite::Icmp)
        .nxm_of(13, "NXM_OF_ICMP_TYPE").oxm_of(19, "OXM_OF_ICMPV4_TYPE"),
    row(Field::IcmpCode, "icmp_code", ICMP_CODE, Decimal, EXACT_RW, Prerequisite::Icmp)
        .nxm_of(14, "NXM_OF_ICMP_CODE").oxm_of(20, "OXM_OF_ICMPV4_CODE"),
    row(Field::Icmpv6Type, "icmpv6_type", ICMP_TYPE, Decimal, EXACT_RW, Prerequisite::Icmpv6)
        .nxm_nx(21, "NXM_NX_ICMPV6_TYPE").oxm_of(29, "OXM_OF_ICMPV6_TYPE"),
    row(Field::Icmpv6Code, "icmpv6_code", ICMP_CODE, Decimal, EXACT_RW, Prerequisite::Icmpv6)
        .nxm_nx(22, "NXM_NX_ICMPV6_CODE").oxm_of(30, "OXM_OF_ICMPV6_CODE"),
    row(Field::NdTarget, "nd_target", key::ND_TARGET, Ipv6, MASK_RW, Prerequisite::Nd)
        .nxm_nx(23, "NXM_NX_ND_TARGET").oxm_of(31, "OXM_OF_IPV6_ND_TARGET"),
    row(Field::NdSll, "nd_sll", key::ARP_SHA, Ethernet, MASK_RW, Prerequisite::NdSolicit)
        .nxm_nx(24, "NXM_NX_ND_SLL").oxm_of(32, "OXM_OF_IPV6_ND_SLL"),
    row(Field::NdTll, "nd_tll", key::ARP_THA, Ethernet, MASK_RW, Prerequisite::NdAdvert)
        .nxm_nx(25, "NXM_NX_ND_TLL").oxm_of(33, "OXM_OF_IPV6_ND_TLL"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_sorted_and_found() {
        assert!(FIELDS.windows(2).all(|pair| pair[0].field < pair[1].field));
        for info in &FIELDS {
            assert_eq!(info.field.info().name, info.name);
            for name in info.aliases.iter().copied().chain([info.name]) {
                assert_eq!(Field::by_name(name), Some(info.field));
            }
            for header in [info.nxm, info.oxm].into_iter().flatten() {
                assert_eq!(Field::by_header(header.class, header.field), Some(info.field), "{}", header.name);
            }
        }
        assert_eq!(Field::by_name("tp_src"), Some(Field::TcpSrc));
        assert_eq!(Field::by_header(0x8001, 7), Some(Field::Xreg(7)));
        assert_eq!(Field::by_header(1, 99), None);
    }
}
