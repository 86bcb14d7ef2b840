//! The datapath's flow tables, faked: it checks what a caller of `Rules` has promised.

use std::collections::HashMap;

use ofctl::action::Action;
use ofctl::flow::Match;
use switchd::rules::{BridgeId, RuleError, RuleId, RuleStats, Rules, TableStats};

type Identity = (BridgeId, u8, u16, Match);

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub identity: Identity,
    pub actions: Vec<Action>,
}

#[derive(Default)]
pub struct FakeRules {
    /// With what is staged.
    rules: HashMap<RuleId, Rule>,
    identities: HashMap<Identity, RuleId>,
    /// What was there before each staged change, oldest first.
    staged: Vec<(RuleId, Option<Rule>)>,
    stats: HashMap<RuleId, RuleStats>,
    next: u32,
    pub capacity: u32,
    pub commits: usize,
    /// So many more modifies succeed.
    pub modifies_left: Option<u32>,
}

impl FakeRules {
    pub fn new(capacity: u32) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// What packets see.
    pub fn visible(&self) -> Vec<Rule> {
        let mut rules = self.rules.clone();
        for (id, before) in self.staged.iter().rev() {
            match before {
                Some(rule) => rules.insert(*id, rule.clone()),
                None => rules.remove(id),
            };
        }
        rules.into_values().collect()
    }

    /// Nothing waits for a commit.
    pub fn is_settled(&self) -> bool {
        self.staged.is_empty()
    }

    /// As if packets had hit the rule with these actions.
    pub fn hit(&mut self, actions: &[Action], stats: RuleStats) {
        let (id, _) =
            self.rules.iter().find(|(_, rule)| rule.actions == actions).expect("there is such a rule");
        self.stats.insert(*id, stats);
    }

    fn set(&mut self, id: RuleId, rule: Option<Rule>) -> Option<Rule> {
        match rule {
            Some(rule) => {
                self.identities.insert(rule.identity, id);
                self.rules.insert(id, rule)
            }
            None => self.rules.remove(&id).inspect(|rule| {
                self.identities.remove(&rule.identity);
            }),
        }
    }
}

fn check(actions: &[Action]) -> Result<(), RuleError> {
    match actions.iter().find(|action| matches!(action, Action::Ct(ct) if ct.nat.is_some())) {
        Some(_) => Err(RuleError::Unsupported("nat".to_owned())),
        None => Ok(()),
    }
}

impl Rules for FakeRules {
    fn add(
        &mut self,
        bridge: BridgeId,
        table: u8,
        priority: u16,
        matching: &Match,
        actions: &[Action],
    ) -> Result<RuleId, RuleError> {
        let identity = (bridge, table, priority, *matching);
        assert!(!self.identities.contains_key(&identity), "two rules with one identity");
        for (key, mask) in matching.key.words.iter().zip(&matching.mask.words) {
            assert_eq!(key & !mask, 0, "key bits outside of the mask");
        }
        check(actions)?;
        if self.rules.len() as u32 >= self.capacity {
            return Err(RuleError::TableFull(self.capacity));
        }
        let id = RuleId(self.next);
        self.next += 1;
        self.set(id, Some(Rule { identity, actions: actions.to_vec() }));
        self.staged.push((id, None));
        Ok(id)
    }

    fn modify(&mut self, id: RuleId, actions: &[Action]) -> Result<(), RuleError> {
        check(actions)?;
        if self.modifies_left == Some(0) {
            return Err(RuleError::Map("no room".to_owned()));
        }
        self.modifies_left = self.modifies_left.map(|left| left - 1);
        let identity = self.rules.get(&id).expect("modify of a rule that exists").identity;
        let before = self.set(id, Some(Rule { identity, actions: actions.to_vec() }));
        self.staged.push((id, before));
        Ok(())
    }

    fn remove(&mut self, id: RuleId) {
        let before = self.set(id, None);
        assert!(before.is_some(), "removal of a rule that exists");
        self.staged.push((id, before));
    }

    fn commit(&mut self) {
        self.commits += 1;
        for (id, _) in self.staged.drain(..) {
            if !self.rules.contains_key(&id) {
                self.stats.remove(&id);
            }
        }
    }

    fn rollback(&mut self) {
        while let Some((id, before)) = self.staged.pop() {
            self.set(id, None);
            if before.is_some() {
                self.set(id, before);
            }
        }
    }

    fn stats(&self, id: RuleId) -> RuleStats {
        assert!(self.rules.contains_key(&id), "statistics of a rule that exists");
        self.stats.get(&id).copied().unwrap_or_default()
    }

    fn reset_stats(&mut self, id: RuleId) {
        assert!(self.staged.is_empty(), "counters start anew once the change is in force");
        assert!(self.rules.contains_key(&id), "reset of a rule that exists");
        self.stats.remove(&id);
    }

    fn table_stats(&self, _: BridgeId, table: u8) -> TableStats {
        TableStats { lookups: u64::from(table) + 10, matched: u64::from(table) }
    }

    fn reset_table_stats(&mut self, _: BridgeId) {}

    fn capacity(&self) -> u32 {
        self.capacity
    }
}
