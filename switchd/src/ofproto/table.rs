//! One flow table: the flows at fixed slots, and an index by identity.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ofctl::action::Action;
use ofctl::flow::Flags;
use ofctl::port::PortNo;

use super::packed::Identity;
use crate::rules::{RuleId, RuleStats};

/// A flow as the switch holds it. Times are on the monotonic clock.
#[derive(Clone, Debug)]
pub struct Flow {
    pub identity: Arc<Identity>,
    pub rule: RuleId,
    pub actions: Arc<[Action]>,
    pub cookie: u64,
    pub idle_timeout: u16,
    pub hard_timeout: u16,
    pub importance: u16,
    pub flags: Flags,
    pub created: Duration,
    /// When it was added or last modified: `hard_timeout` counts from here.
    pub modified: Duration,
    /// Where it stands in the order of expiry.
    pub deadline: Option<Duration>,
}

impl Flow {
    /// When a packet last hit it; before the first packet, when it was created.
    pub fn used(&self, stats: &RuleStats) -> Duration {
        stats.used.unwrap_or_default().max(self.created)
    }

    /// Does it send packets to this port? ([`PortNo::NONE`]: any answer will do.)
    pub fn outputs_to(&self, port: PortNo) -> bool {
        port == PortNo::NONE || outputs_to(&self.actions, port)
    }
}

fn outputs_to(actions: &[Action], wanted: PortNo) -> bool {
    actions.iter().any(|action| match action {
        Action::Output { port, .. } => *port == wanted,
        Action::Clone(inner) => outputs_to(inner, wanted),
        _ => false,
    })
}

/// A table. A flow keeps its slot until it goes, so that a dump can stop and resume between changes.
#[derive(Debug, Default)]
pub struct Table {
    slots: Vec<Option<Flow>>,
    free: Vec<u32>,
    index: HashMap<Arc<Identity>, u32>,
}

impl Table {
    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Where the flow of that identity is.
    pub fn find(&self, identity: &Identity) -> Option<u32> {
        self.index.get(identity).copied()
    }

    /// The flow at a slot.
    pub fn get(&self, slot: u32) -> Option<&Flow> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// The flow at a slot. Its identity must stay.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Flow> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// All flows.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Flow)> {
        (0..).zip(&self.slots).filter_map(|(slot, flow)| Some((slot, flow.as_ref()?)))
    }

    /// One past the last slot.
    pub fn end(&self) -> u32 {
        self.slots.len() as u32
    }

    /// A slot for a new flow.
    pub fn vacant(&mut self) -> u32 {
        if let Some(slot) = self.free.last() {
            return *slot;
        }
        let slot = self.end();
        self.slots.push(None);
        self.free.push(slot);
        slot
    }

    /// Puts a flow, or none, into a slot, and gives back what was there. No other slot may have a flow of the
    /// same identity.
    pub fn put(&mut self, slot: u32, flow: Option<Flow>) -> Option<Flow> {
        let place = self.slots.get_mut(slot as usize)?;
        let before = std::mem::replace(place, flow);
        if let Some(before) = &before {
            self.index.remove(&before.identity);
            self.free.push(slot);
        }
        if let Some(flow) = place {
            self.index.insert(Arc::clone(&flow.identity), slot);
            // The slot is nearly always the one that `vacant` told, or that just became free: the last.
            if let Some(at) = self.free.iter().rposition(|free| *free == slot) {
                self.free.swap_remove(at);
            }
        }
        before
    }
}
