//! The classifier's tables, as the daemon maintains them.
//!
//! Packets run all the time, and a change must be seen by them whole or not at all. So each entry holds what
//! packets of the present version see beside what those of the next one will ([`Entry`]); a transaction writes
//! entries of the next version, which nobody sees, and then moves the version. What only older versions need is
//! taken away after the last packet of an older version has left ([`Store::settle`]).
//!
//! Lists of subtables need no version (see [`super::lists`]).

use std::collections::{BTreeSet, HashMap};

use ofctl::action::Action;
use ofctl::flow::Match;
use switchd_ebpf::classify;
use switchd_ebpf::key::Key;
use switchd_ebpf::layout::{Entry, LINES, Listed, Op, Probe, RuleRef, WIDTHS, WideMask, op};
use switchd_ebpf::pipeline::port;

use super::compile::compile;
use super::lists::Lists;
use super::space::{Block, Run, Slots, Space};
use super::store::{Store, state};
use crate::rules::{BridgeId, RuleError, RuleId, RuleStats, Rules, TableStats};

/// What is left to be taken away is taken away when there is this much of it.
const GARBAGE_LIMIT: usize = 1024;

/// The flow tables of all bridges.
pub struct FlowTables<S> {
    store: S,
    /// The version that packets see.
    version: u64,
    /// The oldest version that a packet may still be running under.
    settled: u64,
    rules: Slots<Rule>,
    subtables: Slots<Subtable>,
    by_mask: HashMap<(BridgeId, u8, Key), u32>,
    lists: Lists,
    /// The entries of each bucket, the last one first.
    chains: HashMap<u32, Vec<u32>>,
    ops: Space,
    lines: Space,
    undo: Vec<Undo>,
    /// Subtables that what is staged, or was refused, may leave without a rule.
    emptied: BTreeSet<u32>,
    garbage: Vec<Garbage>,
}

struct Rule {
    subtable: u32,
    priority: u16,
    masked: Box<[u64]>,
    ops: Actions,
}

/// A rule's actions in the store: as [`RuleRef::ops`] names them, and where they are, if anywhere.
#[derive(Clone, Copy)]
struct Actions {
    name: u32,
    block: Option<Block>,
}

struct Subtable {
    bridge: BridgeId,
    table: u8,
    mask: Key,
    /// What its list says of it.
    listed: Listed,
    /// The rest of its mask.
    wide: Box<WideMask>,
    entries: HashMap<Box<[u64]>, Vec<(u16, u32)>>,
    /// What the store has for each masked key.
    stored: HashMap<Box<[u64]>, Stored>,
}

/// An entry in the store.
#[derive(Clone, Copy)]
struct Stored {
    lines: Block,
    bucket: u32,
    /// What packets see that run under version `since` or a later one.
    now: RuleRef,
    /// What earlier ones see.
    before: RuleRef,
    since: u64,
    /// Which of the two rules in the entry `now` is.
    which: usize,
}

/// How to take back what was staged.
enum Undo {
    Add(u32),
    Modify(u32, Actions),
    Remove(u32),
}

/// What packets of older versions may still be using.
enum Garbage {
    /// A rule's number and counters.
    Rule(u32),
    /// Actions.
    Ops(Actions),
    /// An entry without a rule.
    Entry(u32, Box<[u64]>),
    /// The lines of an entry that no bucket holds any more.
    Lines(Block),
    /// A subtable without a rule.
    Emptied(u32),
    /// A list of subtables that another one has replaced.
    List(Run),
    /// A subtable's number.
    Subtable(u32),
}

impl<S: Store> FlowTables<S> {
    /// Empty tables.
    pub fn new(mut store: S) -> Self {
        store.set_version(1);
        let (max_rules, max_subtables) = (store.max_rules(), store.max_subtables());
        let (max_ops, max_lines, max_listed) = (store.max_ops(), store.max_lines(), store.max_listed());
        Self {
            store,
            version: 1,
            settled: 1,
            rules: Slots::new(max_rules),
            subtables: Slots::new(max_subtables),
            by_mask: HashMap::new(),
            lists: Lists::new(max_listed),
            chains: HashMap::new(),
            // Entry 0 ends a chain; action 0 is never a rule's first.
            ops: Space::new(1, max_ops),
            lines: Space::new(1, max_lines),
            undo: Vec::new(),
            emptied: BTreeSet::new(),
            garbage: Vec::new(),
        }
    }

    /// Where the tables are kept.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Waits until no packet runs under an older version, and takes away what only those needed.
    pub fn collect(&mut self) {
        while !self.garbage.is_empty() {
            self.store.settle();
            self.settled = self.version;
            for garbage in std::mem::take(&mut self.garbage) {
                self.dispose(garbage);
            }
            self.publish_lists(false);
        }
    }

    fn dispose(&mut self, garbage: Garbage) {
        match garbage {
            Garbage::Rule(rule) => {
                self.rules.free(rule);
            }
            Garbage::Ops(actions) => self.free_ops(actions),
            Garbage::Entry(number, masked) => {
                let Some(subtable) = self.subtables.get_mut(number) else { return };
                // A rule may have come back to it meanwhile, even if it is to go again with what is staged now.
                let unused = |entry: &Stored| {
                    entry.now.rank == 0 && (entry.before.rank == 0 || entry.since <= self.version)
                };
                if subtable.stored.get(&masked).is_some_and(unused)
                    && let Some(entry) = subtable.stored.remove(&masked)
                {
                    self.unchain(&entry);
                    self.garbage.push(Garbage::Lines(entry.lines));
                }
            }
            Garbage::Lines(block) => self.lines.free(block),
            Garbage::Emptied(number) => {
                if let Some(subtable) = self.subtables.get(number) {
                    self.lists.remove((subtable.bridge, subtable.table), number);
                }
            }
            Garbage::List(run) => self.lists.free(run),
            Garbage::Subtable(number) => {
                self.subtables.free(number);
            }
        }
    }

    /// The subtable for a mask, with a place in its table's list that suits `rank`.
    fn subtable(&mut self, bridge: BridgeId, table: u8, mask: &Key, rank: u32) -> Result<u32, RuleError> {
        let number = match self.by_mask.get(&(bridge, table, *mask)) {
            Some(&number) => number,
            None => self.new_subtable(bridge, table, mask)?,
        };
        // The list may have to change, were it only that the subtable's rules agree in less.
        if !self.lists.reserve((bridge, table)) {
            self.collect();
            if !self.lists.reserve((bridge, table)) {
                self.emptied.insert(number);
                return Err(RuleError::Map("no room for the lists of masks".into()));
            }
        }
        if let Some(subtable) = self.subtables.get_mut(number)
            && subtable.listed.rank < rank
        {
            subtable.listed.rank = rank;
            self.lists.place((bridge, table), number, rank);
        }
        Ok(number)
    }

    fn new_subtable(&mut self, bridge: BridgeId, table: u8, mask: &Key) -> Result<u32, RuleError> {
        let (listed, wide) = masks(mask);
        let (mask, wide) = (*mask, Box::new(wide));
        let (entries, stored) = (HashMap::new(), HashMap::new());
        if self.subtables.is_full() {
            self.collect();
        }
        let subtable = Subtable { bridge, table, mask, listed, wide, entries, stored };
        let Some(number) = self.subtables.insert(subtable) else {
            let limit = self.subtables.limit();
            return Err(RuleError::Map(format!("more than {limit} distinct masks")));
        };
        if let Some(subtable) = self.subtables.get_mut(number) {
            subtable.listed.subtable = number;
            self.store.set_wide_mask(number, &subtable.wide);
        }
        self.by_mask.insert((bridge, table, mask), number);
        Ok(number)
    }

    /// Gives up the subtables that no rule is in. While something is staged, that cannot be told: a rule that is
    /// to go may stay.
    fn drop_emptied(&mut self) {
        for number in std::mem::take(&mut self.emptied) {
            let Some(subtable) = self.subtables.get(number) else { continue };
            let (table, mask) = ((subtable.bridge, subtable.table), subtable.mask);
            // It may be given up already.
            if subtable.entries.is_empty() && self.by_mask.get(&(table.0, table.1, mask)) == Some(&number) {
                self.by_mask.remove(&(table.0, table.1, mask));
                self.garbage.push(Garbage::Emptied(number));
            }
        }
    }

    /// Lets packets see the lists as they are to be; if it must not be at once, where there is room.
    fn publish_lists(&mut self, must: bool) {
        let subtables = &self.subtables;
        let listed = |number| subtables.get(number).map_or(Listed::END, |subtable| subtable.listed);
        for replaced in self.lists.publish(&mut self.store, must, listed) {
            self.garbage.extend(replaced.list.map(Garbage::List));
            self.garbage.extend(replaced.subtables.into_iter().map(Garbage::Subtable));
        }
    }

    /// Stages what the rules of a masked key now come to.
    fn stage(&mut self, number: u32, masked: &[u64]) -> Result<(), RuleError> {
        let next = self.version + 1;
        let Some(subtable) = self.subtables.get_mut(number) else { return Ok(()) };
        let best = subtable.entries.get(masked).and_then(|rules| rules.first().copied());
        let now = match best {
            Some((priority, rule)) => RuleRef {
                rank: u32::from(priority) + 1,
                rule,
                ops: self.rules.get(rule).map_or(0, |rule| rule.ops.name),
            },
            None => RuleRef::default(),
        };
        let Some(entry) = subtable.stored.get_mut(masked) else {
            // Without a rule there is nothing to be found, and nothing to be put right.
            return if now.rank == 0 { Ok(()) } else { self.chain(number, masked, now) };
        };
        if entry.since != next {
            if entry.since > self.settled {
                // Packets may still run under the version before the last change of this entry, and it has no
                // room for a third.
                self.store.settle();
                self.settled = self.version;
            }
            (entry.before, entry.since, entry.which) = (entry.now, next, 1 - entry.which);
        }
        entry.now = now;
        self.store.turn_entry(entry.lines.start, next, entry.which, &now);
        Ok(())
    }

    /// Makes an entry for a masked key, with a rule that packets of the next version see.
    fn chain(&mut self, number: u32, masked: &[u64], now: RuleRef) -> Result<(), RuleError> {
        let width = self.subtables.get(number).map_or(0, |subtable| subtable.listed.width);
        let len = LINES[usize::from(width)];
        let lines = match self.lines.take(len) {
            Some(lines) => lines,
            None => {
                self.collect();
                self.lines.take(len).ok_or_else(|| self.full())?
            }
        };
        let Some(subtable) = self.subtables.get_mut(number) else { return Ok(()) };
        let bucket = classify::hash(number, masked) & (self.store.buckets() - 1);
        let since = self.version + 1;
        let stored = Stored { lines, bucket, now, before: RuleRef::default(), since, which: 0 };
        subtable.stored.insert(masked.into(), stored);
        let chain = self.chains.entry(bucket).or_default();
        let (first, more) = masked.split_at(WIDTHS[0]);
        let mut words = [0; WIDTHS[0]];
        words.copy_from_slice(first);
        for (line, more) in (1..).zip(more.chunks(8)) {
            self.store.set_entry(lines.start + line, &Entry::of_words(more));
        }
        let next = chain.last().copied().unwrap_or(0);
        let entry =
            Entry { next, subtable: number, state: state(since, 0), rules: [now, RuleRef::default()], words };
        self.store.set_entry(lines.start, &entry);
        self.store.set_bucket(bucket, lines.start);
        chain.push(lines.start);
        Ok(())
    }

    /// Takes an entry out of its bucket. Packets at it still find their way on.
    fn unchain(&mut self, entry: &Stored) {
        let Some(chain) = self.chains.get_mut(&entry.bucket) else { return };
        let Some(at) = chain.iter().position(|&start| start == entry.lines.start) else { return };
        chain.remove(at);
        let next = at.checked_sub(1).map_or(0, |after| chain[after]);
        match chain.get(at) {
            Some(&before) => self.store.link_entry(before, next),
            None => self.store.set_bucket(entry.bucket, next),
        }
        if chain.is_empty() {
            self.chains.remove(&entry.bucket);
        }
    }

    /// Puts a rule among those of its masked key, or takes it out.
    fn enlist(&mut self, id: u32, present: bool) -> Result<(), RuleError> {
        let Some(rule) = self.rules.get(id) else { return Ok(()) };
        let (number, priority, masked) = (rule.subtable, rule.priority, rule.masked.clone());
        if present {
            self.agree(number, &masked);
        }
        let Some(subtable) = self.subtables.get_mut(number) else { return Ok(()) };
        let rules = subtable.entries.entry(masked.clone()).or_default();
        if present {
            let at = rules.partition_point(|&(other, _)| other >= priority);
            rules.insert(at, (priority, id));
        } else {
            rules.retain(|&(_, other)| other != id);
            if rules.is_empty() {
                subtable.entries.remove(&masked);
            }
        }
        self.stage(number, &masked)
    }

    /// Sees to it that a subtable is not passed over by what a rule with these masked words wants.
    fn agree(&mut self, number: u32, masked: &[u64]) {
        let Some(subtable) = self.subtables.get_mut(number) else { return };
        let Some(&first) = masked.first() else { return };
        let listed = &mut subtable.listed;
        let agreed = listed.agreed & !(listed.common ^ first);
        if subtable.entries.is_empty() && subtable.stored.is_empty() {
            // The first rule.
            (listed.common, listed.agreed) = (first, listed.mask[0]);
        } else if agreed == listed.agreed {
            return;
        } else {
            listed.agreed = agreed;
        }
        self.lists.touch((subtable.bridge, subtable.table));
    }

    fn store_ops(&mut self, ops: &[Op]) -> Result<Actions, RuleError> {
        if let [Op { code: op::OUTPUT, c: number, .. }, Op { code: op::END, .. }] = *ops
            && number < u32::from(port::FIRST_RESERVED)
        {
            return Ok(Actions { name: op::DIRECT | number, block: None });
        }
        let block = match self.ops.take(ops.len()) {
            Some(block) => block,
            None => {
                self.collect();
                self.ops.take(ops.len()).ok_or_else(|| self.full())?
            }
        };
        for (i, op) in (0..).zip(ops) {
            self.store.set_op(block.start + i, op);
        }
        Ok(Actions { name: block.start, block: Some(block) })
    }

    fn free_ops(&mut self, actions: Actions) {
        if let Some(block) = actions.block {
            self.ops.free(block);
        }
    }

    fn full(&self) -> RuleError {
        RuleError::TableFull(self.store.max_rules())
    }
}

impl<S: Store> Rules for FlowTables<S> {
    fn add(
        &mut self,
        bridge: BridgeId,
        table: u8,
        priority: u16,
        matching: &Match,
        actions: &[Action],
    ) -> Result<RuleId, RuleError> {
        let ops = self.store_ops(&compile(table, actions)?)?;
        let subtable = match self.subtable(bridge, table, &matching.mask, u32::from(priority) + 1) {
            Ok(subtable) => subtable,
            Err(error) => {
                self.free_ops(ops);
                return Err(error);
            }
        };
        let masked = self.subtables.get(subtable).map_or_else(Box::default, |subtable| {
            let mut probe: Probe = [0; _];
            classify::mask(&matching.key.words, &subtable.listed, || Some(&*subtable.wide), &mut probe);
            probe[1..=WIDTHS[usize::from(subtable.listed.width)]].into()
        });
        let rule = Rule { subtable, priority, masked, ops };
        if self.rules.is_full() {
            self.collect();
        }
        let Some(id) = self.rules.insert(rule) else {
            self.free_ops(ops);
            self.emptied.insert(subtable);
            return Err(self.full());
        };
        self.store.reset_rule(id);
        if let Err(error) = self.enlist(id, true) {
            // There was no room for an entry; only the books have to be put right, which cannot fail.
            let _ = self.enlist(id, false);
            self.rules.free(id);
            self.free_ops(ops);
            self.emptied.insert(subtable);
            return Err(error);
        }
        self.undo.push(Undo::Add(id));
        Ok(RuleId(id))
    }

    fn modify(&mut self, rule: RuleId, actions: &[Action]) -> Result<(), RuleError> {
        let Some((number, masked)) = self.rules.get(rule.0).map(|rule| (rule.subtable, rule.masked.clone()))
        else {
            return Ok(());
        };
        let table = self.subtables.get(number).map_or(0, |subtable| subtable.table);
        let ops = self.store_ops(&compile(table, actions)?)?;
        let Some(found) = self.rules.get_mut(rule.0) else { return Ok(()) };
        let old = std::mem::replace(&mut found.ops, ops);
        // The rule's entry is there: no room is needed.
        self.stage(number, &masked)?;
        self.undo.push(Undo::Modify(rule.0, old));
        Ok(())
    }

    fn remove(&mut self, rule: RuleId) {
        // An entry that exists is replaced in place: no room is needed.
        if let Err(error) = self.enlist(rule.0, false) {
            tracing::error!(%error, rule = rule.0, "an entry of the flow table could not be replaced");
        }
        self.undo.push(Undo::Remove(rule.0));
    }

    fn commit(&mut self) {
        if !self.undo.is_empty() {
            // What is new must be in the lists when packets are to find it.
            self.publish_lists(true);
            self.version += 1;
            self.store.set_version(self.version);
        }
        for undo in std::mem::take(&mut self.undo) {
            match undo {
                Undo::Add(_) => {}
                Undo::Modify(_, old) => self.garbage.push(Garbage::Ops(old)),
                Undo::Remove(id) => {
                    let Some(rule) = self.rules.get(id) else { continue };
                    let (number, block) = (rule.subtable, rule.ops);
                    self.garbage.push(Garbage::Entry(number, rule.masked.clone()));
                    self.garbage.push(Garbage::Ops(block));
                    self.garbage.push(Garbage::Rule(id));
                    self.emptied.insert(number);
                }
            }
        }
        self.drop_emptied();
        if self.garbage.len() > GARBAGE_LIMIT {
            self.collect();
        }
    }

    fn rollback(&mut self) {
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            // Each step replaces an entry that is there: no room is needed.
            let result = match undo {
                Undo::Add(id) => {
                    let result = self.enlist(id, false);
                    if let Some(rule) = self.rules.free(id) {
                        self.emptied.insert(rule.subtable);
                        self.garbage.push(Garbage::Entry(rule.subtable, rule.masked));
                        self.free_ops(rule.ops);
                    }
                    result
                }
                Undo::Modify(id, old) => match self.rules.get_mut(id) {
                    Some(rule) => {
                        let new = std::mem::replace(&mut rule.ops, old);
                        let (number, masked) = (rule.subtable, rule.masked.clone());
                        self.free_ops(new);
                        self.stage(number, &masked)
                    }
                    None => Ok(()),
                },
                Undo::Remove(id) => self.enlist(id, true),
            };
            if let Err(error) = result {
                tracing::error!(%error, "a change of the flow table could not be taken back");
            }
        }
        self.drop_emptied();
    }

    fn stats(&self, rule: RuleId) -> RuleStats {
        self.store.rule_stats(rule.0)
    }

    fn reset_stats(&mut self, rule: RuleId) {
        self.store.reset_rule(rule.0);
    }

    fn table_stats(&self, bridge: BridgeId, table: u8) -> TableStats {
        self.store.table_stats(bridge, table)
    }

    fn reset_table_stats(&mut self, bridge: BridgeId) {
        for table in 0..=u8::MAX {
            self.store.reset_table(bridge, table);
        }
    }

    fn capacity(&self) -> u32 {
        self.store.max_rules()
    }
}

/// A mask, as the datapath has it.
fn masks(mask: &Key) -> (Listed, WideMask) {
    let (mut listed, mut wide) = (Listed::END, WideMask::EMPTY);
    let used: Vec<(u8, u64)> = (0..).zip(mask.words).filter(|&(_, bits)| bits != 0).collect();
    for (at, &(word, bits)) in used.iter().enumerate() {
        match at.checked_sub(WIDTHS[0]) {
            None => (listed.index[at], listed.mask[at]) = (word, bits),
            Some(at) => (wide.index[at], wide.mask[at]) = (word, bits),
        }
    }
    listed.width = WIDTHS.iter().position(|&width| used.len() <= width).unwrap_or(WIDTHS.len() - 1) as u8;
    (listed, wide)
}
