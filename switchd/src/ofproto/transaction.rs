//! Changes that are staged, and then committed or undone together.

use std::sync::Arc;
use std::time::Duration;

use ofctl::action::{Action, check_goto};
use ofctl::flow::{Command, FlowMod};
use ofctl::wire::{FlowRemoved, RemovedReason};

use super::packed::Probe;
use super::table::Flow;
use super::{Error, FlowRef, N_TABLES, Ofproto, check};
use crate::rules::{RuleId, Rules};

/// A flow that has changed, and what was there before.
struct Change {
    at: FlowRef,
    before: Option<Flow>,
}

/// Changes to a bridge's tables that packets do not see yet. What is not committed is undone on drop.
pub(super) struct Transaction<'a> {
    ofproto: &'a mut Ofproto,
    rules: &'a mut dyn Rules,
    now: Duration,
    changes: Vec<Change>,
    /// Rules whose counters start anew once the change is in force.
    resets: Vec<RuleId>,
    /// To be reported, the uncommitted ones from `committed` on.
    removed: Vec<FlowRemoved>,
    committed: usize,
}

impl<'a> Transaction<'a> {
    pub fn new(ofproto: &'a mut Ofproto, rules: &'a mut dyn Rules, now: Duration) -> Self {
        Self {
            ofproto,
            rules,
            now,
            changes: Vec::new(),
            resets: Vec::new(),
            removed: Vec::new(),
            committed: 0,
        }
    }

    /// Stages a flow-mod. On an error a part of it may be staged.
    pub fn apply(&mut self, flow_mod: &FlowMod) -> Result<(), Error> {
        check::flow_mod(flow_mod)?;
        match self.targets(flow_mod) {
            Some(hits) => self.change(&hits, flow_mod),
            None => self.add(flow_mod),
        }
    }

    /// Stages a flow-mod so that an error leaves nothing of it, and all that was staged before.
    pub fn apply_alone(&mut self, flow_mod: &FlowMod) -> Result<(), Error> {
        check::flow_mod(flow_mod)?;
        let Some(hits) = self.targets(flow_mod) else { return self.add(flow_mod) };
        if hits.len() <= 1 {
            return self.change(&hits, flow_mod);
        }
        // The datapath forgets all that is staged or nothing: so nothing else may be staged here.
        self.flush();
        let result = self.change(&hits, flow_mod);
        if result.is_err() {
            self.undo();
        }
        result
    }

    /// The flows that a flow-mod changes or deletes; none: it adds one.
    fn targets(&mut self, flow_mod: &FlowMod) -> Option<Vec<FlowRef>> {
        match flow_mod.command {
            Command::Add => None,
            Command::Delete | Command::DeleteStrict => Some(self.ofproto.select(flow_mod)),
            Command::Modify | Command::ModifyStrict => {
                let hits = self.ofproto.select(flow_mod);
                // With a cookie to look for, a modify that hits nothing does nothing (OpenFlow 1.1, 6.4).
                if hits.is_empty() && flow_mod.cookie_mask == 0 { None } else { Some(hits) }
            }
        }
    }

    fn change(&mut self, hits: &[FlowRef], flow_mod: &FlowMod) -> Result<(), Error> {
        match flow_mod.command {
            Command::Delete | Command::DeleteStrict => {
                hits.iter().for_each(|at| self.remove(*at, RemovedReason::Delete));
                Ok(())
            }
            Command::Add | Command::Modify | Command::ModifyStrict => {
                let actions = Arc::from(flow_mod.actions.as_slice());
                hits.iter().try_for_each(|at| self.modify(*at, flow_mod, &actions))
            }
        }
    }

    fn add(&mut self, flow_mod: &FlowMod) -> Result<(), Error> {
        let number = flow_mod.table.unwrap_or(0);
        check_goto(number, N_TABLES - 1, &flow_mod.actions)?;
        let identity = self.ofproto.shapes.pack(&flow_mod.matching, flow_mod.priority);
        let table = &mut self.ofproto.tables[usize::from(number)];
        let existing = table.find(&identity).and_then(|slot| Some((slot, table.get(slot)?.rule)));
        let actions = flow_mod.actions.as_slice();
        let (slot, rule) = if let Some((slot, rule)) = existing {
            self.rules.modify(rule, actions)?;
            if flow_mod.flags.reset_counts {
                self.resets.push(rule);
            }
            (slot, rule)
        } else {
            if flow_mod.flags.check_overlap {
                let probe = Probe::new(&flow_mod.matching);
                let overlaps = |flow: &Flow| {
                    flow.identity.priority() == flow_mod.priority && probe.overlaps(&flow.identity)
                };
                if table.iter().any(|(_, flow)| overlaps(flow)) {
                    return Err(Error::Overlap(flow_mod.priority));
                }
            }
            let rule = self.rules.add(
                self.ofproto.bridge,
                number,
                flow_mod.priority,
                &flow_mod.matching,
                actions,
            )?;
            (table.vacant(), rule)
        };
        let flow = Flow {
            identity: Arc::new(identity),
            rule,
            actions: Arc::from(actions),
            cookie: flow_mod.new_cookie.unwrap_or(0),
            idle_timeout: flow_mod.idle_timeout,
            hard_timeout: flow_mod.hard_timeout,
            importance: flow_mod.importance,
            flags: flow_mod.flags,
            created: self.now,
            modified: self.now,
            deadline: None,
        };
        self.put(FlowRef { table: number, slot }, Some(flow));
        Ok(())
    }

    /// Gives a flow other actions, and the new cookie if there is one. Its timeouts, flags, age and, unless
    /// `reset_counts` asks otherwise, its counters stay.
    fn modify(&mut self, at: FlowRef, flow_mod: &FlowMod, actions: &Arc<[Action]>) -> Result<(), Error> {
        check_goto(at.table, N_TABLES - 1, actions)?;
        let Some(mut flow) = self.ofproto.flow(at).cloned() else { return Ok(()) };
        if flow.actions != *actions {
            self.rules.modify(flow.rule, actions)?;
            flow.actions = Arc::clone(actions);
        }
        if flow_mod.flags.reset_counts {
            self.resets.push(flow.rule);
        }
        flow.cookie = flow_mod.new_cookie.unwrap_or(flow.cookie);
        flow.modified = self.now;
        flow.deadline = None;
        self.put(at, Some(flow));
        Ok(())
    }

    /// Takes a flow away.
    pub fn remove(&mut self, at: FlowRef, reason: RemovedReason) {
        let Some(flow) = self.ofproto.flow(at) else { return };
        let rule = flow.rule;
        if flow.flags.send_flow_rem {
            let stats = self.rules.stats(rule);
            self.removed.push(FlowRemoved {
                matching: flow.identity.matching(),
                priority: flow.identity.priority(),
                cookie: flow.cookie,
                reason,
                table: Some(at.table),
                duration: self.now.saturating_sub(flow.created),
                idle_timeout: flow.idle_timeout,
                packets: stats.packets,
                bytes: stats.bytes,
            });
        }
        self.rules.remove(rule);
        self.resets.retain(|reset| *reset != rule);
        self.put(at, None);
    }

    fn put(&mut self, at: FlowRef, flow: Option<Flow>) {
        let before = self.ofproto.tables[usize::from(at.table)].put(at.slot, flow);
        self.changes.push(Change { at, before });
    }

    /// Puts all changes in force. Tells which flows to report as removed.
    pub fn commit(mut self) -> Vec<FlowRemoved> {
        self.flush();
        std::mem::take(&mut self.removed)
    }

    fn flush(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        self.rules.commit();
        for rule in self.resets.drain(..) {
            self.rules.reset_stats(rule);
        }
        for change in self.changes.drain(..) {
            if let Some(deadline) = change.before.and_then(|flow| flow.deadline) {
                self.ofproto.deadlines.remove(&(deadline, change.at));
            }
            self.ofproto.schedule(change.at);
        }
        self.committed = self.removed.len();
    }

    fn undo(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        self.rules.rollback();
        while let Some(Change { at, before }) = self.changes.pop() {
            self.ofproto.tables[usize::from(at.table)].put(at.slot, before);
        }
        self.resets.clear();
        self.removed.truncate(self.committed);
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        self.undo();
    }
}
