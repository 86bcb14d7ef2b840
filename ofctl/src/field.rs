//! The registry of match fields: names, widths, prerequisites, wire codes.

mod registry;

use switchd_ebpf::key::Location;

/// A field by its own name. Several fields may look at one [`Location`]: `tcp_src` and `udp_src` differ in
/// their prerequisites, `reg0` is half of `xreg0`.
#[rustfmt::skip]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the OVS field of that name")]
pub enum Field {
    InPort, InPortOxm, Metadata, Reg(u8), Xreg(u8), Xxreg(u8), PktMark,
    CtState, CtZone, CtMark, CtLabel, CtNwProto, CtNwSrc, CtNwDst, CtIpv6Src, CtIpv6Dst, CtTpSrc, CtTpDst,
    EthSrc, EthDst, EthType, VlanTci, DlVlan, DlVlanPcp, VlanVid, VlanPcp,
    Ipv4Src, Ipv4Dst, Ipv6Src, Ipv6Dst, Ipv6Label, IpProto, IpTos, IpDscp, IpEcn, IpTtl, IpFrag,
    ArpOp, ArpSpa, ArpTpa, ArpSha, ArpTha,
    TcpSrc, TcpDst, TcpFlags, UdpSrc, UdpDst, SctpSrc, SctpDst,
    IcmpType, IcmpCode, Icmpv6Type, Icmpv6Code, NdTarget, NdSll, NdTll,
}

impl Field {
    /// Every field, in the order of the enum.
    pub const ALL: &'static [FieldInfo] = &registry::FIELDS;

    /// What is known about the field.
    ///
    /// # Panics
    /// On a register that does not exist (`Reg(16)`, `Xreg(8)`, `Xxreg(4)`), which no parser or decoder makes.
    #[must_use]
    pub fn info(self) -> &'static FieldInfo {
        match registry::FIELDS.binary_search_by_key(&self, |info| info.field) {
            Ok(index) => &registry::FIELDS[index],
            Err(_) => unreachable!("{self:?} is not a field"),
        }
    }

    /// The field with this name, as flow texts write it: `tcp_src`, the alias `tp_src`, or the name of its
    /// NXM or OXM header, `NXM_OF_TCP_SRC`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let named = |info: &&FieldInfo| {
            info.name == name
                || info.aliases.contains(&name)
                || info.nxm.is_some_and(|header| header.name == name)
                || info.oxm.is_some_and(|header| header.name == name)
        };
        Self::ALL.iter().find(named).map(|info| info.field)
    }

    /// The field with this NXM or OXM header.
    #[must_use]
    pub fn by_header(class: u16, field: u8) -> Option<Self> {
        let is = |header: Option<Header>| header.is_some_and(|h| h.class == class && h.field == field);
        Self::ALL.iter().find(|info| is(info.nxm) || is(info.oxm)).map(|info| info.field)
    }

    /// The whole of the field as a [`Subfield`].
    #[must_use]
    pub fn whole(self) -> Subfield {
        Subfield { field: self, ofs: 0, n_bits: self.info().bits }
    }
}

/// What is known about a [`Field`].
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    /// Whose this is.
    pub field: Field,
    /// The name that OVS prints.
    pub name: &'static str,
    /// Other names that a flow text may use.
    pub aliases: &'static [&'static str],
    /// Where it lies in a flow key. May be narrower than `bits`: an ARP opcode has 16 bits on the wire, 8 here.
    pub location: Location,
    /// The width that `field[a..b]` counts in, 1 to 64 or 128.
    pub bits: u8,
    /// Whether a match may mask it bit by bit. If not, it is matched whole or not at all.
    pub maskable: bool,
    /// What else a match must say for the field to mean anything.
    pub prerequisite: Prerequisite,
    /// Whether actions may write it.
    pub writable: bool,
    /// The header in NXM (OpenFlow 1.0 with Nicira's extensions, classes 0 and 1).
    pub nxm: Option<Header>,
    /// The header in OXM (OpenFlow 1.2 and later). A field without an NXM header is sent with this one there.
    pub oxm: Option<Header>,
    /// How values are written.
    pub format: Format,
}

impl FieldInfo {
    /// The size of a value on the wire, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        match self.bits {
            0..=8 => 1,
            9..=16 => 2,
            17..=32 => 4,
            33..=48 => 6,
            49..=64 => 8,
            _ => 16,
        }
    }

    /// The bits that a value may have. `vlan_vid` has 12 bits, but a value may also say in bit 12 that there is
    /// a tag; `nw_tos` is the DSCP in place, without the ECN bits below it.
    #[must_use]
    pub const fn value_mask(&self) -> u128 {
        match self.field {
            Field::VlanVid => 0x1fff,
            Field::IpTos => 0xfc,
            _ => ones(self.bits),
        }
    }

    /// The header for OpenFlow 1.0 with Nicira's extensions.
    #[must_use]
    pub fn nxm_header(&self) -> Option<Header> {
        self.nxm.or(self.oxm)
    }
}

/// `bits` ones, right-aligned.
#[must_use]
pub const fn ones(bits: u8) -> u128 {
    if bits >= 128 { u128::MAX } else { (1 << bits) - 1 }
}

/// The class and number of a field on the wire (NXM and OXM headers without length and mask bit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 0x0000 and 0x0001: NXM; 0x8000 and 0x8001: OXM.
    pub class: u16,
    /// The number in the class, 0 to 127.
    pub field: u8,
    /// The name, `NXM_OF_IN_PORT`.
    pub name: &'static str,
}

/// How the values of a field are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `80`, masked `0x50/0xfff0`.
    Decimal,
    /// `0x50`.
    Hexadecimal,
    /// `00:11:22:33:44:55`.
    Ethernet,
    /// `10.0.0.0/8`.
    Ipv4,
    /// `fe80::/64`.
    Ipv6,
    /// A port's number or name.
    Port,
    /// `+new+trk`.
    CtState,
    /// `+syn-ack`.
    TcpFlags,
    /// `no`, `yes`, `first`, `later`, `not_later`.
    Frag,
}

/// What a match must say for a field, or an action on it, to mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prerequisite {
    /// Nothing.
    None,
    /// There is a VLAN tag.
    Vlan,
    /// ARP or RARP.
    Arp,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// IPv4 or IPv6.
    Ip,
    /// TCP over either.
    Tcp,
    /// UDP over either.
    Udp,
    /// SCTP over either.
    Sctp,
    /// ICMP.
    Icmp,
    /// ICMPv6.
    Icmpv6,
    /// A neighbour solicitation or advertisement.
    Nd,
    /// A neighbour solicitation.
    NdSolicit,
    /// A neighbour advertisement.
    NdAdvert,
    /// A connection state in which the original tuple is known.
    Ct,
    /// That, over IPv4.
    CtIpv4,
    /// That, over IPv6.
    CtIpv6,
    /// That, and the protocol of the connection.
    CtProto,
}

/// A run of bits of a field: `reg0[0..15]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subfield {
    /// The field.
    pub field: Field,
    /// The first bit, counted from the least significant.
    pub ofs: u8,
    /// How many bits.
    pub n_bits: u8,
}

/// The names of ct_state's bits, from bit 0 up.
pub const CT_STATE_FLAGS: &[&str] = &["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];

/// The names of the TCP flags, from bit 0 up; the three bits above have none.
pub const TCP_FLAGS: &[&str] = &["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"];
