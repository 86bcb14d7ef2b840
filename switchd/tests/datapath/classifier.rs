//! The classifier against a linear table, under random sequences of changes.

use std::collections::BTreeMap;

use ofctl::action::Action;
use ofctl::flow::Match;
use ofctl::port::PortNo;
use proptest::prelude::*;
use switchd::datapath::host::Memory;
use switchd::datapath::{FlowTables, Sizes};
use switchd::rules::{BridgeId, RuleError, RuleId, Rules};
use switchd_ebpf::key::{Key, WORDS};
use switchd_ebpf::layout::op;
use switchd_ebpf::tables::Tables as _;

const BRIDGE: BridgeId = BridgeId(1);
const TABLE: u8 = 3;

/// A rule as the linear table has it. `output` tells versions of its actions apart.
#[derive(Clone, Debug)]
struct Rule {
    id: RuleId,
    priority: u16,
    matching: Match,
    output: u16,
}

/// The table that is obviously right.
type Linear = Vec<Rule>;

/// The rules of the highest priority among those that match.
fn best<'a>(table: &'a Linear, key: &Key) -> Vec<&'a Rule> {
    let matches = |rule: &&Rule| {
        (0..WORDS).all(|i| key.words[i] & rule.matching.mask.words[i] == rule.matching.key.words[i])
    };
    let matching: Vec<&Rule> = table.iter().filter(matches).collect();
    let highest = matching.iter().map(|rule| rule.priority).max();
    matching.into_iter().filter(|rule| Some(rule.priority) == highest).collect()
}

#[derive(Clone, Debug)]
enum Change {
    Add(Box<Match>, u16),
    Modify(prop::sample::Index),
    Remove(prop::sample::Index),
    Commit,
    Rollback,
    Collect,
}

/// Both tables, and what the real one's versions look like.
struct Both {
    real: FlowTables<Memory>,
    staged: Linear,
    /// By version.
    committed: BTreeMap<u64, Linear>,
    outputs: u16,
}

impl Both {
    fn new(flows: u32) -> Self {
        let real = FlowTables::new(Memory::new(Sizes { flows, connections: 1 }));
        let committed = BTreeMap::from([(real.store().version(), Linear::new())]);
        Self { real, staged: Linear::new(), committed, outputs: 0 }
    }

    /// Actions that begin with an output: every other time they are no more than that.
    fn next_output(&mut self) -> (u16, Vec<Action>) {
        self.outputs += 1;
        let output = Action::Output { port: PortNo(self.outputs), max_len: 0 };
        (self.outputs, vec![output; 1 + usize::from(self.outputs % 2)])
    }

    fn add(&mut self, priority: u16, matching: Match) -> Result<(), RuleError> {
        // What the daemon sees to: one rule for a match and priority.
        if self.staged.iter().any(|rule| rule.priority == priority && rule.matching == matching) {
            return Ok(());
        }
        let (output, actions) = self.next_output();
        let id = self.real.add(BRIDGE, TABLE, priority, &matching, &actions)?;
        self.staged.push(Rule { id, priority, matching, output });
        Ok(())
    }

    fn remove(&mut self, at: usize) {
        let rule = self.staged.remove(at);
        self.real.remove(rule.id);
    }

    fn commit(&mut self) {
        self.real.commit();
        self.committed.insert(self.real.store().version(), self.staged.clone());
    }

    fn rollback(&mut self) {
        self.real.rollback();
        self.staged = self.committed.values().next_back().unwrap().clone();
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Add(matching, priority) => self.add(*priority, **matching).unwrap(),
            Change::Modify(which) if !self.staged.is_empty() => {
                let (output, actions) = self.next_output();
                let at = which.index(self.staged.len());
                self.staged[at].output = output;
                self.real.modify(self.staged[at].id, &actions).unwrap();
            }
            Change::Remove(which) if !self.staged.is_empty() => self.remove(which.index(self.staged.len())),
            Change::Modify(_) | Change::Remove(_) => {}
            Change::Commit => self.commit(),
            Change::Rollback => self.rollback(),
            Change::Collect => self.real.collect(),
        }
    }

    /// Compares what every version that a packet may be under finds for a key.
    fn check(&self, key: &Key) {
        let memory = self.real.store();
        for (&version, table) in self.committed.range(memory.oldest_version()..) {
            let found = memory.classify(version, BRIDGE, TABLE, key).map(|found| {
                let output = if found.ops & op::DIRECT != 0 {
                    found.ops & !op::DIRECT
                } else {
                    let first = memory.op(found.ops).copied().unwrap();
                    assert_eq!(first.code, op::OUTPUT);
                    first.c
                };
                (RuleId(found.rule), found.rank, output)
            });
            let wanted: Vec<(RuleId, u32, u32)> = best(table, key)
                .iter()
                .map(|rule| (rule.id, u32::from(rule.priority) + 1, u32::from(rule.output)))
                .collect();
            match found {
                Some(found) => assert!(wanted.contains(&found), "{found:?} instead of {wanted:?}, {version}"),
                None => assert!(wanted.is_empty(), "nothing instead of {wanted:?}, {version}"),
            }
        }
    }

    /// Aims keys at each rule there ever was in a version: one that hits, and those that miss by a bit.
    fn check_aimed(&self, noise: &Key) {
        let mut rules: Vec<&Rule> = self.committed.values().rev().take(3).flatten().collect();
        rules.extend(&self.staged);
        for rule in rules {
            let Match { key, mask } = &rule.matching;
            let hit = Key { words: std::array::from_fn(|i| key.words[i] | noise.words[i] & !mask.words[i]) };
            self.check(&hit);
            for i in (0..WORDS).filter(|&i| mask.words[i] != 0) {
                let mut miss = hit;
                miss.words[i] ^= 1 << mask.words[i].trailing_zeros();
                self.check(&miss);
            }
        }
    }
}

/// Two bits of some words: few enough that rules overlap.
fn keys() -> impl Strategy<Value = Key> {
    prop::array::uniform32(0u64..4).prop_map(|words| Key { words })
}

/// Masks of every width that there is a map for. The last word of a key is never used.
fn masks() -> impl Strategy<Value = Key> {
    let narrow = prop::collection::vec((0usize..4, 0u64..4), 0..4);
    let wide = prop::sample::select(vec![5, 7, 8, 15, 16, WORDS - 1]);
    prop_oneof![
        8 => narrow.prop_map(|bits| {
            let mut mask = Key::ZERO;
            bits.into_iter().for_each(|(word, bits)| mask.words[word] |= bits);
            mask
        }),
        1 => wide.prop_map(|n| Key { words: std::array::from_fn(|i| u64::from(i < n)) }),
    ]
}

fn changes() -> impl Strategy<Value = Change> {
    let priority = prop::sample::select(vec![0, 1, 2, 100, 65535]);
    prop_oneof![
        6 => (masks(), keys(), priority).prop_map(|(mask, key, priority)| {
            let words = std::array::from_fn(|i| key.words[i] & mask.words[i]);
            Change::Add(Box::new(Match { key: Key { words }, mask }), priority)
        }),
        2 => any::<prop::sample::Index>().prop_map(Change::Modify),
        4 => any::<prop::sample::Index>().prop_map(Change::Remove),
        4 => Just(Change::Commit),
        1 => Just(Change::Rollback),
        1 => Just(Change::Collect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_classifier_agrees_with_a_linear_table(
        changes in prop::collection::vec(changes(), 1..60),
        probes in prop::collection::vec(keys(), 4),
    ) {
        let mut both = Both::new(256);
        for change in &changes {
            both.change(change);
            probes.iter().for_each(|key| both.check(key));
            both.check_aimed(&probes[0]);
        }
    }
}

/// A match on the low bits of a word.
fn on(word: usize, value: u64) -> Match {
    let mut matching = Match::default();
    matching.mask.words[word] = 0xff;
    matching.key.words[word] = value;
    matching
}

#[test]
fn a_rollback_keeps_the_subtable_of_a_rule_that_was_to_be_replaced() {
    let mut both = Both::new(16);
    both.add(1, on(1, 7)).unwrap();
    both.commit();
    both.remove(0);
    both.add(1, on(1, 8)).unwrap();
    both.rollback();
    both.real.collect();
    both.check_aimed(&Key::ZERO);
    assert_eq!(best(&both.staged, &on(1, 7).key).len(), 1);
}

#[test]
fn a_refused_rule_keeps_the_subtable_of_one_that_is_to_go() {
    let mut both = Both::new(1);
    both.add(1, on(1, 7)).unwrap();
    both.commit();
    both.remove(0);
    assert_eq!(both.add(1, on(1, 8)), Err(RuleError::TableFull(1)));
    both.rollback();
    both.real.collect();
    both.check_aimed(&Key::ZERO);
}

#[test]
fn garbage_of_an_earlier_removal_does_not_take_a_rule_that_is_only_staged_to_go() {
    let mut both = Both::new(16);
    both.add(1, on(1, 7)).unwrap();
    both.commit();
    both.remove(0);
    both.add(2, on(1, 7)).unwrap();
    both.commit();
    both.remove(0);
    both.real.collect();
    both.check_aimed(&Key::ZERO);
    both.rollback();
    both.check_aimed(&Key::ZERO);
}

#[test]
fn rules_that_were_removed_leave_room_for_others() {
    let mut both = Both::new(8);
    // More masks than there is room for, more rules than there is room for, but few at a time.
    for round in 0..10_000u64 {
        let mut matching = on(1, 1);
        (matching.mask.words[2], matching.key.words[2]) = (round + 1, round + 1);
        both.add((round % 7) as u16, matching).unwrap();
        if both.staged.len() == 4 {
            both.remove(0);
        }
        both.real.commit();
    }
    let version = both.real.store().version();
    both.committed = BTreeMap::from([(version, both.staged.clone())]);
    both.check_aimed(&Key::ZERO);
}

#[test]
fn one_table_may_have_all_masks_that_there_are() {
    const MASKS: u64 = 8192;
    let mut both = Both::new(10_000);
    let rule = |number: u64| {
        let mut matching = on(1, 1);
        (matching.mask.words[2], matching.key.words[2]) = (number + 1, number + 1);
        matching
    };
    // Lists of every length come and go on the way.
    for number in 0..MASKS {
        both.add((number * 7919 % 60000) as u16, rule(number)).unwrap();
        if number % 16 == 0 {
            both.real.commit();
        }
    }
    let refused = both.add(1, rule(MASKS)).unwrap_err();
    assert_eq!(refused, RuleError::Map("more than 8192 distinct masks".into()));
    both.remove(0);
    both.commit();
    both.add(1, rule(MASKS)).unwrap();
    both.commit();
}

#[test]
fn a_full_table_refuses_a_rule_and_keeps_the_others() {
    let mut both = Both::new(2);
    both.add(1, on(1, 1)).unwrap();
    both.add(1, on(1, 2)).unwrap();
    assert_eq!(both.add(1, on(1, 3)), Err(RuleError::TableFull(2)));
    assert_eq!(both.add(1, on(2, 3)), Err(RuleError::TableFull(2)));
    both.commit();
    both.check_aimed(&Key::ZERO);
    both.remove(0);
    both.commit();
    both.add(1, on(1, 3)).unwrap();
    both.commit();
    both.check_aimed(&Key::ZERO);
}
