//! The flow tables in BPF maps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use switchd_ebpf::layout::{Config, Entry, Listed, Op, RuleCounter, RuleRef, TABLES, TableCounter, WideMask};

use super::MAX_LISTED;
use super::shared::{PerCpu, Shared};
use super::store::{Store, state};
use crate::rules::{BridgeId, RuleStats, TableStats};

/// The flow tables in BPF maps.
pub struct KernelStore {
    pub(super) heads: Shared<u32>,
    pub(super) lists: Shared<Listed>,
    pub(super) wide_masks: Shared<WideMask>,
    pub(super) ops: Shared<Op>,
    pub(super) counters: PerCpu<RuleCounter>,
    pub(super) config: Arc<Shared<Config>>,
    pub(super) buckets: Shared<u32>,
    pub(super) entries: Shared<Entry>,
    pub(super) table_counters: PerCpu<TableCounter>,
}

/// The place of a table among those of all bridges.
fn table_index(bridge: BridgeId, table: u8) -> u32 {
    u32::from(bridge.0) * TABLES + u32::from(table)
}

/// Waits until every packet has left that was under way when this was called.
pub(super) fn settle() {
    // A BPF program is one RCU read-side section, and this command waits for all of those that have begun
    // (membarrier(2), MEMBARRIER_CMD_GLOBAL: synchronize_rcu).
    // SAFETY: the call takes no pointers.
    let waited = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if waited != 0 {
        // Not offered where CPUs run without a tick (nohz_full). A packet takes microseconds.
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Store for KernelStore {
    fn set_head(&mut self, bridge: BridgeId, table: u8, place: u32) {
        if let Some(head) = self.heads.at(table_index(bridge, table)) {
            // SAFETY: within the mapping; both sides access the word whole.
            unsafe { AtomicU32::from_ptr(head.as_ptr()) }.store(place, Ordering::Release);
        }
    }

    fn set_listed(&mut self, place: u32, listed: &Listed) {
        if let Some(slot) = self.lists.at(place) {
            // SAFETY: within the mapping; the place is in no list that packets see.
            unsafe { slot.as_ptr().write(*listed) };
        }
    }

    fn set_wide_mask(&mut self, subtable: u32, mask: &WideMask) {
        if let Some(slot) = self.wide_masks.at(subtable) {
            // SAFETY: within the mapping; the subtable is in no list that packets see.
            unsafe { slot.as_ptr().write(*mask) };
        }
    }

    fn set_op(&mut self, index: u32, op: &Op) {
        if let Some(slot) = self.ops.at(index) {
            // SAFETY: within the mapping; no entry that a packet sees refers to the action.
            unsafe { slot.as_ptr().write(*op) };
        }
    }

    fn set_bucket(&mut self, bucket: u32, entry: u32) {
        if let Some(slot) = self.buckets.at(bucket) {
            // SAFETY: within the mapping; both sides access the word whole.
            unsafe { AtomicU32::from_ptr(slot.as_ptr()) }.store(entry, Ordering::Release);
        }
    }

    fn set_entry(&mut self, index: u32, line: &Entry) {
        if let Some(slot) = self.entries.at(index) {
            // SAFETY: within the mapping; no bucket holds the entry, so no packet looks at it.
            unsafe { slot.as_ptr().write(*line) };
        }
    }

    fn link_entry(&mut self, index: u32, next: u32) {
        if let Some(slot) = self.entries.at(index) {
            // SAFETY: within the mapping; both sides access the word whole.
            unsafe { AtomicU32::from_ptr(&raw mut (*slot.as_ptr()).next) }.store(next, Ordering::Release);
        }
    }

    fn turn_entry(&mut self, index: u32, since: u64, which: usize, rule: &RuleRef) {
        let Some(slot) = self.entries.at(index) else { return };
        let slot = slot.as_ptr();
        // SAFETY: within the mapping; no packet looks at this rule, and both sides access the state whole. Release:
        // whoever sees the state sees the rule.
        unsafe {
            (&raw mut (*slot).rules).cast::<RuleRef>().add(which & 1).write(*rule);
            AtomicU64::from_ptr(&raw mut (*slot).state).store(state(since, which), Ordering::Release);
        }
    }

    fn set_version(&mut self, version: u64) {
        if let Some(config) = self.config.at(0) {
            // SAFETY: within the mapping; both sides access the word whole. Release: whoever sees the version
            // sees the actions and lists that were written for it.
            unsafe { AtomicU64::from_ptr(&raw mut (*config.as_ptr()).version) }
                .store(version, Ordering::Release);
        }
    }

    fn settle(&mut self) {
        settle();
    }

    fn rule_stats(&self, rule: u32) -> RuleStats {
        let mut stats = RuleStats::default();
        let mut used = 0;
        for counter in self.counters.at(rule) {
            let counter = counter.as_ptr();
            // SAFETY: within the mapping; the datapath writes the words whole.
            let word = |word: *mut u64| unsafe { AtomicU64::from_ptr(word) }.load(Ordering::Relaxed);
            // SAFETY: the addresses of fields of a valid element.
            let (packets, bytes, last) =
                unsafe { (&raw mut (*counter).packets, &raw mut (*counter).bytes, &raw mut (*counter).used) };
            stats.packets += word(packets);
            stats.bytes += word(bytes);
            used = used.max(word(last));
        }
        stats.used = (used != 0).then(|| Duration::from_nanos(used));
        stats
    }

    fn reset_rule(&mut self, rule: u32) {
        for counter in self.counters.at(rule) {
            // SAFETY: within the mapping. The CPU that counts may undo this for a packet that it has under way.
            unsafe { counter.as_ptr().write_volatile(RuleCounter::default()) };
        }
    }

    fn table_stats(&self, bridge: BridgeId, table: u8) -> TableStats {
        let mut stats = TableStats::default();
        for counter in self.table_counters.at(table_index(bridge, table)) {
            // SAFETY: within the mapping; each count is a word that is written whole.
            let counter = unsafe { counter.as_ptr().read_volatile() };
            stats.lookups += counter.lookups;
            stats.matched += counter.matched;
        }
        stats
    }

    fn reset_table(&mut self, bridge: BridgeId, table: u8) {
        for counter in self.table_counters.at(table_index(bridge, table)) {
            // SAFETY: as in `reset_rule`.
            unsafe { counter.as_ptr().write_volatile(TableCounter::default()) };
        }
    }

    fn buckets(&self) -> u32 {
        self.buckets.len()
    }

    fn max_lines(&self) -> u32 {
        self.entries.len()
    }

    fn max_rules(&self) -> u32 {
        self.counters.len()
    }

    fn max_subtables(&self) -> u32 {
        self.wide_masks.len()
    }

    fn max_listed(&self) -> u32 {
        MAX_LISTED
    }

    fn max_ops(&self) -> u32 {
        self.ops.len()
    }
}
