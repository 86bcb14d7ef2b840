//! Where the flow tables are kept: in BPF maps, or on the host.

use switchd_ebpf::layout::{Entry, Listed, Op, RuleRef, WideMask};

use crate::rules::{BridgeId, RuleStats, TableStats};

/// The flow tables' memory. What is written here is what packets see, at once; [`super::tables`] orders the
/// writes so that they never see a half of a change.
pub trait Store {
    /// Sets where a table's list begins.
    fn set_head(&mut self, bridge: BridgeId, table: u8, place: u32);

    /// Fills a place of a list that no packet can see.
    fn set_listed(&mut self, place: u32, listed: &Listed);

    /// Sets the rest of the mask of a subtable that no packet can see.
    fn set_wide_mask(&mut self, subtable: u32, mask: &WideMask);

    /// Fills an action that no entry refers to.
    fn set_op(&mut self, index: u32, op: &Op);

    /// Sets the first entry of a bucket.
    fn set_bucket(&mut self, bucket: u32, entry: u32);

    /// Fills a line of an entry that no bucket holds: its first, or one of those that go on with its masked words.
    fn set_entry(&mut self, index: u32, line: &Entry);

    /// Sets the successor of an entry that packets may be looking at.
    fn link_entry(&mut self, index: u32, next: u32);

    /// Gives packets from a version on one of an entry's two rules to see, which until now nobody looks at.
    fn turn_entry(&mut self, index: u32, since: u64, which: usize, rule: &RuleRef);

    /// Sets the version that packets see from now on.
    fn set_version(&mut self, version: u64);

    /// Waits until every packet has left that was under way when this was called.
    fn settle(&mut self);

    /// A rule's counters, over all CPUs.
    fn rule_stats(&self, rule: u32) -> RuleStats;

    /// Sets a rule's counters to zero.
    fn reset_rule(&mut self, rule: u32);

    /// A table's counters, over all CPUs.
    fn table_stats(&self, bridge: BridgeId, table: u8) -> TableStats;

    /// Sets a table's counters to zero.
    fn reset_table(&mut self, bridge: BridgeId, table: u8);

    /// Buckets of entries: a power of two.
    fn buckets(&self) -> u32;

    /// Lines of entries that there is room for.
    fn max_lines(&self) -> u32;

    /// Rules that there are counters for.
    fn max_rules(&self) -> u32;

    /// Subtables that there is room for.
    fn max_subtables(&self) -> u32;

    /// Places of lists that there is room for.
    fn max_listed(&self) -> u32;

    /// Actions that there is room for.
    fn max_ops(&self) -> u32;
}

/// [`Entry::state`]: packets from a version on see this one of an entry's two rules.
pub fn state(since: u64, which: usize) -> u64 {
    since << 1 | which as u64 & 1
}
