//! The registry of match fields: names, widths, prerequisites, wire codes.

use switchd_ebpf::key::{self, Location};

/// A field by its own name. Several fields may look at one [`Location`]: `tcp_src` and `udp_src` differ in
/// their prerequisites, `reg0` is half of `xreg0`.
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
