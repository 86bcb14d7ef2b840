//! Matches and flow-mods.

mod openflow10;
mod prerequisites;

use std::time::Duration;

use switchd_ebpf::key::{self, Key};

use crate::action::Action;
use crate::field::{Field, ones};
use crate::port::PortNo;

pub use openflow10::fits_openflow10;
pub(crate) use prerequisites::check_named;
pub use prerequisites::{MissingPrerequisite, check_prerequisites, normalize};

/// What a flow matches. `key` is zero wherever `mask` is: two equal matches are equal bit for bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// The wanted bits.
    pub key: Key,
    /// The bits that count.
    pub mask: Key,
}

impl Match {
    /// The match of every packet.
    pub const ANY: Self = Self { key: Key::ZERO, mask: Key::ZERO };

    /// Demands that `field` be `value` in the bits of `mask`, both right-aligned, in the place of what was
    /// demanded of the field before.
    ///
    /// The VLAN fields share the tag: `dl_vlan`, `dl_vlan_pcp` and `vlan_pcp` also demand that there be one.
    /// `dl_vlan=0xffff` and `vlan_vid=0` mean that there is none.
    pub fn set(&mut self, field: Field, value: u128, mask: u128) {
        const TAG: u128 = 0x1000;
        let untagged = match field {
            Field::DlVlan => value == 0xffff,
            Field::VlanVid => value == 0 && mask == 0x1fff,
            _ => false,
        };
        let (at, value, mask) = match field {
            _ if untagged => (key::VLAN_TCI, 0, 0xffff),
            Field::DlVlan => (Field::VlanVid.info().location, TAG | value, 0x1fff),
            Field::DlVlanPcp | Field::VlanPcp => {
                let old = self.mask.get(key::VLAN_TCI) & 0xfff;
                let id = self.key.get(key::VLAN_TCI) & old;
                (key::VLAN_TCI, TAG | id | value << 13, 0xf000 | old)
            }
            Field::IpTos => {
                let ecn = self.mask.get(key::IP_ECN);
                (key::IP_TOS, value & 0xfc | self.key.get(key::IP_ECN), mask & 0xfc | ecn)
            }
            _ => (field.info().location, value, mask),
        };
        self.mask.set(at, mask);
        self.key.set(at, value & mask);
    }

    /// What is demanded of a field: value and mask, right-aligned in the width of its
    /// [`location`](crate::field::FieldInfo::location).
    #[must_use]
    pub fn get(&self, field: Field) -> (u128, u128) {
        let at = field.info().location;
        (self.key.get(at), self.mask.get(at))
    }

    /// The value of a field that is matched whole.
    #[must_use]
    pub fn exact(&self, field: Field) -> Option<u128> {
        let (value, mask) = self.get(field);
        let whole = ones(field.info().location.bits) & field.info().value_mask();
        (mask & whole == whole).then_some(value & whole)
    }

    /// Whether every packet that `other` matches is one that this matches, by the masks alone: what loose
    /// modifies, deletes and dumps go by.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.words().zip(other.words()).all(|((key, mask), (other_key, other_mask))| {
            other_mask & mask == mask && (other_key ^ key) & mask == 0
        })
    }

    /// Whether some packet could match both (OFPFF_CHECK_OVERLAP).
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.words()
            .zip(other.words())
            .all(|((key, mask), (other_key, other_mask))| (other_key ^ key) & mask & other_mask == 0)
    }

    fn words(&self) -> impl Iterator<Item = (u64, u64)> {
        self.key.words.into_iter().zip(self.mask.words)
    }
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
    /// The cookie that a new or modified flow gets. None: a modified flow keeps what it has.
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

impl FlowMod {
    /// The change that `command` makes with all else at its default: every packet, no actions.
    #[must_use]
    pub fn new(command: Command) -> Self {
        Self {
            command,
            table: None,
            priority: DEFAULT_PRIORITY,
            matching: Match::ANY,
            new_cookie: None,
            cookie: 0,
            cookie_mask: 0,
            idle_timeout: 0,
            hard_timeout: 0,
            importance: 0,
            out_port: PortNo::NONE,
            flags: Flags::default(),
            actions: Vec::new(),
        }
    }
}

/// Which flows a dump or an aggregate wants: what a loose delete takes, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowFilter {
    /// The table; none: all.
    pub table: Option<u8>,
    /// Flows that this covers.
    pub matching: Match,
    /// Flows whose cookie agrees in the bits of `cookie_mask`.
    pub cookie: u64,
    /// See `cookie`.
    pub cookie_mask: u64,
    /// Flows that output to this port ([`PortNo::NONE`]: any).
    pub out_port: PortNo,
}

/// A flow with its counters, as a dump shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEntry {
    /// The table.
    pub table: u8,
    /// The priority.
    pub priority: u16,
    /// The cookie.
    pub cookie: u64,
    /// Time since the flow was added.
    pub duration: Duration,
    /// Seconds; 0: none.
    pub idle_timeout: u16,
    /// Seconds; 0: none.
    pub hard_timeout: u16,
    /// OpenFlow 1.4 eviction importance.
    pub importance: u16,
    /// The flags; OpenFlow 1.0 does not carry them.
    pub flags: Flags,
    /// Packets so far.
    pub n_packets: u64,
    /// Bytes so far.
    pub n_bytes: u64,
    /// Seconds since the last packet; none where the protocol does not say.
    pub idle_age: Option<u16>,
    /// Seconds since the flow was last changed.
    pub hard_age: Option<u16>,
    /// The match.
    pub matching: Match,
    /// The actions; empty is drop.
    pub actions: Vec<Action>,
}
