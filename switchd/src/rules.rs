//! What the OpenFlow side asks of the datapath's flow tables.

use std::time::Duration;

use ofctl::action::Action;
use ofctl::flow::Match;

/// A bridge's number in the datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BridgeId(pub u8);

/// A rule's slot in the datapath. It may be given to another rule once the removal is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// What has hit a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleStats {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the Ethernet header on, without the checksum.
    pub bytes: u64,
    /// When the last packet came, on the monotonic clock; none came: `None`.
    pub used: Option<Duration>,
}

/// What has gone through a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Packets looked up.
    pub lookups: u64,
    /// Packets that hit a rule.
    pub matched: u64,
}

/// Why a rule cannot be installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The tables are full.
    #[error("the flow table is full ({0} flows)")]
    TableFull(u32),
    /// The datapath cannot do that yet, named.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A BPF map refused.
    #[error("flow tables: {0}")]
    Map(String),
}

/// The datapath's flow tables. Changes are staged, and packets see all of those staged, or none of them,
/// from [`commit`](Rules::commit) on. One writer at a time.
pub trait Rules {
    /// Stages a new rule. The caller sees to it that no other rule has this bridge, table, priority and match.
    ///
    /// # Errors
    /// See [`RuleError`]; nothing is staged then.
    fn add(
        &mut self,
        bridge: BridgeId,
        table: u8,
        priority: u16,
        matching: &Match,
        actions: &[Action],
    ) -> Result<RuleId, RuleError>;

    /// Stages other actions for a rule; its counters go on.
    ///
    /// # Errors
    /// See [`RuleError`]; nothing is staged then.
    fn modify(&mut self, rule: RuleId, actions: &[Action]) -> Result<(), RuleError>;

    /// Stages the removal of a rule.
    fn remove(&mut self, rule: RuleId);

    /// Makes all that was staged visible, at once.
    fn commit(&mut self);

    /// Forgets all that was staged since the last commit.
    fn rollback(&mut self);

    /// A rule's counters, up to a moment ago.
    fn stats(&self, rule: RuleId) -> RuleStats;

    /// Starts a rule's counters anew.
    fn reset_stats(&mut self, rule: RuleId);

    /// A table's counters.
    fn table_stats(&self, bridge: BridgeId, table: u8) -> TableStats;

    /// Starts the counters of all tables of a bridge anew.
    fn reset_table_stats(&mut self, bridge: BridgeId);

    /// How many rules there is room for.
    fn capacity(&self) -> u32;
}
