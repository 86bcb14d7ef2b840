//! Actions and instructions, one list as in OVS: `goto_table` is simply the last.

mod check;
mod openflow10;

use std::net::IpAddr;
use std::ops::RangeInclusive;

use crate::field::{Field, Subfield};
use crate::port::PortNo;

pub use check::{CheckError, check_consistency, check_goto};
pub(crate) use openflow10::is_openflow10;
pub use openflow10::to_openflow10;

/// One action. The list keeps what the user wrote (`mod_nw_src` is not folded into `set_field`), because
/// `dump-flows` shows it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `output:N`, a port's name, or a reserved port: `IN_PORT`, `LOCAL`, `ALL`, `FLOOD`, `NORMAL`,
    /// `CONTROLLER` (`max_len` counts only there).
    Output {
        /// The port.
        port: PortNo,
        /// Bytes sent to a controller.
        max_len: u16,
    },
    /// `output:SRC[a..b]`.
    OutputReg(Subfield),
    /// `resubmit(port,table)`; both are optional.
    Resubmit {
        /// The port that the look-up takes as port of entry; none: the packet's own.
        port: Option<PortNo>,
        /// The table; none: the current one.
        table: Option<u8>,
        /// `resubmit(port,table,ct)`: the look-up has the connection's tuple in the place of the packet's.
        ct: bool,
    },
    /// `goto_table:N`.
    GotoTable(u8),
    /// `write_metadata:V[/M]`.
    WriteMetadata {
        /// The value.
        value: u64,
        /// The bits to write.
        mask: u64,
    },
    /// `load:V->DST[a..b]` (NXAST_REG_LOAD): whole run of bits.
    Load {
        /// The value, right-aligned.
        value: u64,
        /// Where to.
        dst: Subfield,
    },
    /// `set_field:V[/M]->FIELD` (OXM set-field, NXAST_REG_LOAD2).
    SetField {
        /// The field.
        field: Field,
        /// The value, right-aligned.
        value: u128,
        /// The bits to write; all ones in the field's width when no mask was given.
        mask: u128,
    },
    /// `move:SRC[a..b]->DST[c..d]`, both of one width.
    Move {
        /// Where from.
        src: Subfield,
        /// Where to.
        dst: Subfield,
    },
    /// `mod_dl_src` and `mod_dl_dst`: the field and the address.
    ModDl(Direction, u64),
    /// `mod_nw_src` and `mod_nw_dst`.
    ModNw(Direction, u32),
    /// `mod_tp_src` and `mod_tp_dst`.
    ModTp(Direction, u16),
    /// `mod_nw_tos` (the ECN bits of the packet stay).
    ModNwTos(u8),
    /// `mod_nw_ecn`.
    ModNwEcn(u8),
    /// `mod_nw_ttl`.
    ModNwTtl(u8),
    /// `dec_ttl`.
    DecTtl,
    /// `mod_vlan_vid` (adds a tag where there is none).
    ModVlanVid(u16),
    /// `mod_vlan_pcp` (adds a tag where there is none).
    ModVlanPcp(u8),
    /// `strip_vlan`, `pop_vlan`.
    StripVlan,
    /// `push_vlan:TPID`; only 0x8100 for now.
    PushVlan(u16),
    /// `ct(...)`.
    Ct(Box<Ct>),
    /// `ct_clear`.
    CtClear,
    /// `clone(...)`: what is inside works on a copy.
    Clone(Vec<Action>),
    /// `note:xx.xx`: does nothing.
    Note(Vec<u8>),
}

impl Action {
    /// Whether it writes to a connection's mark or label: within `ct` alone can it do so.
    #[must_use]
    pub(crate) fn sets_connection(&self) -> bool {
        let field = match self {
            Self::Load { dst, .. } | Self::Move { dst, .. } => dst.field,
            Self::SetField { field, .. } => *field,
            _ => return false,
        };
        matches!(field, Field::CtMark | Field::CtLabel)
    }

    /// The name, as flow texts write it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Output { port: PortNo::CONTROLLER, .. } => "controller",
            Self::Output { .. } | Self::OutputReg(_) => "output",
            Self::Resubmit { .. } => "resubmit",
            Self::GotoTable(_) => "goto_table",
            Self::WriteMetadata { .. } => "write_metadata",
            Self::Load { .. } => "load",
            Self::SetField { .. } => "set_field",
            Self::Move { .. } => "move",
            Self::ModDl(Direction::Src, _) => "mod_dl_src",
            Self::ModDl(Direction::Dst, _) => "mod_dl_dst",
            Self::ModNw(Direction::Src, _) => "mod_nw_src",
            Self::ModNw(Direction::Dst, _) => "mod_nw_dst",
            Self::ModTp(Direction::Src, _) => "mod_tp_src",
            Self::ModTp(Direction::Dst, _) => "mod_tp_dst",
            Self::ModNwTos(_) => "mod_nw_tos",
            Self::ModNwEcn(_) => "mod_nw_ecn",
            Self::ModNwTtl(_) => "mod_nw_ttl",
            Self::DecTtl => "dec_ttl",
            Self::ModVlanVid(_) => "mod_vlan_vid",
            Self::ModVlanPcp(_) => "mod_vlan_pcp",
            Self::StripVlan => "strip_vlan",
            Self::PushVlan(_) => "push_vlan",
            Self::Ct(_) => "ct",
            Self::CtClear => "ct_clear",
            Self::Clone(_) => "clone",
            Self::Note(_) => "note",
        }
    }
}

/// Source or destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Source.
    Src,
    /// Destination.
    Dst,
}

/// The `ct` action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ct {
    /// `commit`.
    pub commit: bool,
    /// `force`; needs `commit`.
    pub force: bool,
    /// `table=N`: a copy of the packet goes on there, with its connection's state.
    pub table: Option<u8>,
    /// `zone=`.
    pub zone: Zone,
    /// `nat` or `nat(...)`.
    pub nat: Option<Nat>,
    /// `exec(...)`: `SetField`, `Load` and `Move` to ct_mark and ct_label only.
    pub exec: Vec<Action>,
    /// `alg=`.
    pub alg: Option<Alg>,
}

/// The zone of a [`Ct`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// A constant.
    Constant(u16),
    /// 16 bits of a field.
    Field(Subfield),
}

impl Default for Zone {
    fn default() -> Self {
        Self::Constant(0)
    }
}

/// The application helper of a [`Ct`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alg {
    /// FTP (port 21 on the wire).
    Ftp,
    /// TFTP (port 69 on the wire).
    Tftp,
}

/// The `nat` argument of a [`Ct`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// Which side is translated, if a new binding may be made: none for a bare `nat`.
    pub direction: Option<Direction>,
    /// The range of addresses; none: the address stays.
    pub addresses: Option<RangeInclusive<IpAddr>>,
    /// The range of ports.
    pub ports: Option<RangeInclusive<u16>>,
    /// `persistent`.
    pub persistent: bool,
    /// `hash`.
    pub hash: bool,
    /// `random`.
    pub random: bool,
}
