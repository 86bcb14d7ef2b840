//! The OpenFlow flow tables of one bridge: what flow-mods mean, timeouts, statistics.
//!
//! The datapath ([`Rules`]) matches packets and counts them; it knows no cookies, timeouts or loose deletes.
//! Those are here. Time is an argument everywhere, as a [`Duration`] on the monotonic clock.

mod check;
mod error;
mod expiry;
mod packed;
mod stats;
mod table;
mod transaction;

use std::collections::BTreeSet;
use std::time::Duration;

use ofctl::action::Action;
use ofctl::flow::{Command, FlowMod};
use ofctl::port::PortNo;
use ofctl::wire::FlowRemoved;

pub use self::error::Error;
pub use self::stats::Cursor;

use self::packed::{Probe, Shapes};
use self::table::{Flow, Table};
use self::transaction::Transaction;
use crate::rules::{BridgeId, Rules};

/// How many tables there are: 0 to 253. Table 254 is the switch's own, as in Open vSwitch, and 255 means all.
pub const N_TABLES: u8 = 254;

/// Where a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FlowRef {
    table: u8,
    slot: u32,
}

/// The flow tables of one bridge.
#[derive(Debug)]
pub struct Ofproto {
    bridge: BridgeId,
    /// [`N_TABLES`] of them.
    tables: Vec<Table>,
    shapes: Shapes,
    /// The flows that have a timeout, by the time at which to look at them.
    deadlines: BTreeSet<(Duration, FlowRef)>,
}

/// What came of a row of flow-mods.
#[derive(Debug, Default)]
pub struct Applied {
    /// For each flow-mod, in order.
    pub results: Vec<Result<(), Error>>,
    /// The flows that went and whose flags ask for controllers to be told.
    pub removed: Vec<FlowRemoved>,
}

impl Ofproto {
    /// The tables of a fresh bridge, without a flow.
    pub fn new(bridge: BridgeId, rules: &mut dyn Rules) -> Self {
        // Another bridge may have had this number.
        rules.reset_table_stats(bridge);
        let mut tables = Vec::new();
        tables.resize_with(N_TABLES.into(), Table::default);
        Self { bridge, tables, shapes: Shapes::new(), deadlines: BTreeSet::new() }
    }

    /// Takes every flow away.
    pub fn clear(&mut self, rules: &mut dyn Rules, now: Duration) {
        self.apply(rules, &[FlowMod::new(Command::Delete)], now);
    }

    /// Adds the one flow that a bridge has of its own accord, `priority=0 actions=NORMAL`.
    ///
    /// # Errors
    /// The datapath has no room for it.
    pub fn add_normal(&mut self, rules: &mut dyn Rules, now: Duration) -> Result<(), Error> {
        let normal = Action::Output { port: PortNo::NORMAL, max_len: 0 };
        let flow_mod = FlowMod { actions: vec![normal], priority: 0, ..FlowMod::new(Command::Add) };
        self.apply_all(rules, &[flow_mod], now).map(drop).map_err(|(_, error)| error)
    }

    /// The bridge.
    #[must_use]
    pub fn bridge(&self) -> BridgeId {
        self.bridge
    }

    /// Applies flow-mods one after the other: each wholly or, when it is refused, not at all. Packets see no
    /// change before this returns, but for what precedes a `mod-flows` that hits several flows.
    pub fn apply(&mut self, rules: &mut dyn Rules, mods: &[FlowMod], now: Duration) -> Applied {
        let mut transaction = Transaction::new(self, rules, now);
        let results = mods.iter().map(|flow_mod| transaction.apply_alone(flow_mod)).collect();
        Applied { results, removed: transaction.commit() }
    }

    /// Applies all of these flow-mods at once, for packets too, or none. Tells which flows to report as
    /// removed.
    ///
    /// # Errors
    /// The index of the first flow-mod that is refused, and why.
    pub fn apply_all(
        &mut self,
        rules: &mut dyn Rules,
        mods: &[FlowMod],
        now: Duration,
    ) -> Result<Vec<FlowRemoved>, (usize, Error)> {
        let mut transaction = Transaction::new(self, rules, now);
        for (i, flow_mod) in mods.iter().enumerate() {
            transaction.apply(flow_mod).map_err(|error| (i, error))?;
        }
        Ok(transaction.commit())
    }

    fn table(&self, table: u8) -> Option<&Table> {
        self.tables.get(usize::from(table))
    }

    fn flow(&self, at: FlowRef) -> Option<&Flow> {
        self.table(at.table)?.get(at.slot)
    }

    fn flow_mut(&mut self, at: FlowRef) -> Option<&mut Flow> {
        self.tables.get_mut(usize::from(at.table))?.get_mut(at.slot)
    }

    /// The tables that a request means: one, or all that have flows.
    fn tables(&self, wanted: Option<u8>) -> impl Iterator<Item = (u8, &Table)> {
        (0..N_TABLES)
            .zip(&self.tables)
            .filter(move |(number, table)| wanted.unwrap_or(*number) == *number && table.len() > 0)
    }

    /// The flows that a modify or delete is about.
    fn select(&mut self, flow_mod: &FlowMod) -> Vec<FlowRef> {
        let deletes = matches!(flow_mod.command, Command::Delete | Command::DeleteStrict);
        let strict = matches!(flow_mod.command, Command::DeleteStrict | Command::ModifyStrict);
        let wanted = |flow: &Flow| {
            (flow.cookie ^ flow_mod.cookie) & flow_mod.cookie_mask == 0
                && (!deletes || flow.outputs_to(flow_mod.out_port))
        };
        let mut hits = Vec::new();
        if strict {
            let identity = self.shapes.pack(&flow_mod.matching, flow_mod.priority);
            for (number, table) in self.tables(flow_mod.table) {
                let Some(slot) = table.find(&identity) else { continue };
                if table.get(slot).is_some_and(wanted) {
                    hits.push(FlowRef { table: number, slot });
                }
            }
        } else {
            let probe = Probe::new(&flow_mod.matching);
            for (number, table) in self.tables(flow_mod.table) {
                let covered = table.iter().filter(|(_, flow)| probe.covers(&flow.identity) && wanted(flow));
                hits.extend(covered.map(|(slot, _)| FlowRef { table: number, slot }));
            }
        }
        hits
    }
}
