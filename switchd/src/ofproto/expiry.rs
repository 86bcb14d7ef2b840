//! Idle and hard timeouts.

use std::time::Duration;

use ofctl::wire::{FlowRemoved, RemovedReason};

use super::table::Flow;
use super::{FlowRef, Ofproto, Transaction};
use crate::rules::{RuleStats, Rules};

impl Ofproto {
    /// Takes away the flows whose time is over. Tells those to report.
    ///
    /// A flow's counters are read only when its time may be over, not at every call: a flow that is in use
    /// costs one look per idle timeout.
    pub fn expire(&mut self, rules: &mut dyn Rules, now: Duration) -> Vec<FlowRemoved> {
        let mut expired = Vec::new();
        while let Some(&(deadline, at)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            let Some(flow) = self.flow_mut(at) else { continue };
            flow.deadline = None;
            let (due, reason) = due(flow, &rules.stats(flow.rule));
            if due <= now {
                expired.push((at, reason));
            } else {
                self.schedule_at(at, due);
            }
        }
        let mut transaction = Transaction::new(self, rules, now);
        for (at, reason) in expired {
            transaction.remove(at, reason);
        }
        transaction.commit()
    }

    /// When [`expire`](Self::expire) is next needed; none: no flow has a timeout.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Sees to it that a flow is looked at when its time is over if no packet hits it.
    pub(super) fn schedule(&mut self, at: FlowRef) {
        let Some(flow) = self.flow(at) else { return };
        if flow.deadline.is_none() && (flow.idle_timeout != 0 || flow.hard_timeout != 0) {
            let (due, _) = due(flow, &RuleStats::default());
            self.schedule_at(at, due);
        }
    }

    fn schedule_at(&mut self, at: FlowRef, deadline: Duration) {
        if let Some(flow) = self.flow_mut(at) {
            flow.deadline = Some(deadline);
            self.deadlines.insert((deadline, at));
        }
    }
}

/// When a flow's time is over, and why.
fn due(flow: &Flow, stats: &RuleStats) -> (Duration, RemovedReason) {
    let after = |start: Duration, timeout: u16| match timeout {
        0 => Duration::MAX,
        seconds => start.saturating_add(Duration::from_secs(seconds.into())),
    };
    let hard = after(flow.modified, flow.hard_timeout);
    let idle = after(flow.used(stats), flow.idle_timeout);
    if hard <= idle { (hard, RemovedReason::HardTimeout) } else { (idle, RemovedReason::IdleTimeout) }
}
