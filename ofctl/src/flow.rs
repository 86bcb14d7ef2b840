//! Matches and flow-mods.

use switchd_ebpf::key::Key;

use crate::action::Action;
use crate::port::PortNo;

/// What a flow matches. `key` is zero wherever `mask` is: two equal matches are equal bit for bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// The wanted bits.
    pub key: Key,
    /// The bits that count.
    pub mask: Key,
}

/// The default priority (OFP_DEFAULT_PRIORITY).
pub const DEFAULT_PRIORITY: u16 = 0x8000;

/// What a flow-mod asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Adds a flow, or replaces the one with the same table, priority and match.
    Add,
    /// Changes the actions of every flow that the match covers; adds one where there is none.
    Modify,
    /// The same for exactly this match and priority.
    ModifyStrict,
    /// Deletes every flow that the match covers.
    Delete,
    /// Deletes exactly this match and priority.
    DeleteStrict,
}

/// The flags of a flow-mod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Tell controllers when the flow goes.
    pub send_flow_rem: bool,
    /// Refuse when a flow of the same priority overlaps.
    pub check_overlap: bool,
    /// Counters start anew.
    pub reset_counts: bool,
    /// OpenFlow 1.3: no packet counter.
    pub no_packet_counts: bool,
    /// OpenFlow 1.3: no byte counter.
    pub no_byte_counts: bool,
}

/// A change to the flow tables, as `add-flow` and OFPT_FLOW_MOD carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowMod {
    /// What to do.
    pub command: Command,
    /// The table; none: all of them for a delete, table 0 for an add.
    pub table: Option<u8>,
    /// The priority, ignored by loose modifies and deletes.
    pub priority: u16,
    /// The match.
    pub matching: Match,
    /// The cookie that a new or modified flow gets. None (a modify without `cookie=`): it keeps what it has.
    pub new_cookie: Option<u64>,
    /// Modifies and deletes touch only flows whose cookie agrees in the mask's bits.
    pub cookie: u64,
    /// See `cookie`.
    pub cookie_mask: u64,
    /// Seconds without a packet after which the flow goes; 0: never.
    pub idle_timeout: u16,
    /// Seconds after which the flow goes; 0: never.
    pub hard_timeout: u16,
    /// OpenFlow 1.4 eviction importance.
    pub importance: u16,
    /// Deletes touch only flows that output to this port ([`PortNo::NONE`]: any).
    pub out_port: PortNo,
    /// The flags.
    pub flags: Flags,
    /// The actions; empty is drop.
    pub actions: Vec<Action>,
}
