//! Statistics: flows, their sums, tables.

use std::time::Duration;

use ofctl::flow::{FlowEntry, FlowFilter};
use ofctl::wire::{AggregateStats, TableStats};

use super::packed::Probe;
use super::table::Flow;
use super::{FlowRef, N_TABLES, Ofproto};
use crate::rules::Rules;

/// OFPFW10_ALL: OpenFlow 1.0's tables can leave any of its fields out.
const WILDCARDS_ALL: u32 = (1 << 22) - 1;

/// How far a dump has come. Flows that come or go meanwhile may or may not be in it; every other flow is in
/// it once.
#[derive(Clone, Copy, Debug)]
pub struct Cursor(FlowRef);

impl Default for Cursor {
    fn default() -> Self {
        Self(FlowRef { table: 0, slot: 0 })
    }
}

impl Ofproto {
    /// Goes on with a dump: the flows asked for among the next `limit` flow slots, and where to go on, if there
    /// are more. The limit bounds how long this takes.
    #[must_use]
    pub fn dump(
        &self,
        rules: &dyn Rules,
        request: &FlowFilter,
        from: Cursor,
        limit: u32,
        now: Duration,
    ) -> (Vec<FlowEntry>, Option<Cursor>) {
        let mut flows = Vec::new();
        let next =
            self.scan(request, from, limit, |table, flow| flows.push(flow_stats(rules, table, flow, now)));
        (flows, next)
    }

    /// The same for the sum: adds to `sum` the flows asked for among the next `limit`.
    pub fn aggregate(
        &self,
        rules: &dyn Rules,
        request: &FlowFilter,
        from: Cursor,
        limit: u32,
        sum: &mut AggregateStats,
    ) -> Option<Cursor> {
        self.scan(request, from, limit, |_, flow| {
            let stats = rules.stats(flow.rule);
            sum.packets = sum.packets.saturating_add(stats.packets);
            sum.bytes = sum.bytes.saturating_add(stats.bytes);
            sum.flows += 1;
        })
    }

    /// All tables, in order.
    #[must_use]
    pub fn table_stats(&self, rules: &dyn Rules) -> Vec<TableStats> {
        let max_entries = rules.capacity();
        (0..N_TABLES)
            .zip(&self.tables)
            .map(|(number, table)| {
                let stats = rules.table_stats(self.bridge, number);
                TableStats {
                    table: number,
                    name: String::new(),
                    wildcards: WILDCARDS_ALL,
                    max_entries,
                    active: table.len() as u32,
                    lookups: stats.lookups,
                    matched: stats.matched,
                }
            })
            .collect()
    }

    fn scan(
        &self,
        request: &FlowFilter,
        Cursor(from): Cursor,
        mut limit: u32,
        mut visit: impl FnMut(u8, &Flow),
    ) -> Option<Cursor> {
        let probe = Probe::new(&request.matching);
        let wanted = |flow: &Flow| {
            (flow.cookie ^ request.cookie) & request.cookie_mask == 0
                && flow.outputs_to(request.out_port)
                && probe.covers(&flow.identity)
        };
        for (number, table) in self.tables(request.table).skip_while(|(number, _)| *number < from.table) {
            let first = if number == from.table { from.slot } else { 0 };
            let stop = table.end().min(first.saturating_add(limit));
            for flow in (first..stop).filter_map(|slot| table.get(slot)).filter(|flow| wanted(flow)) {
                visit(number, flow);
            }
            limit -= stop.saturating_sub(first);
            if limit == 0 {
                return Some(Cursor(FlowRef { table: number, slot: stop }));
            }
        }
        None
    }
}

fn flow_stats(rules: &dyn Rules, table: u8, flow: &Flow, now: Duration) -> FlowEntry {
    let stats = rules.stats(flow.rule);
    let age = |since: Duration| Some(now.saturating_sub(since).as_secs().try_into().unwrap_or(u16::MAX));
    FlowEntry {
        table,
        priority: flow.identity.priority(),
        matching: flow.identity.matching(),
        actions: flow.actions.to_vec(),
        cookie: flow.cookie,
        duration: now.saturating_sub(flow.created),
        idle_timeout: flow.idle_timeout,
        hard_timeout: flow.hard_timeout,
        idle_age: age(flow.used(&stats)),
        hard_age: age(flow.modified),
        flags: flow.flags,
        importance: flow.importance,
        n_packets: stats.packets,
        n_bytes: stats.bytes,
    }
}
