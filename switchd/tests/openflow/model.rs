//! Random flow-mods against the simplest tables that there can be: a list.

use ofctl::action::Action;
use ofctl::flow::{Command, Flags, FlowMod, Match};
use ofctl::port::PortNo;
use proptest::prelude::*;
use switchd::ofproto::{Error, Ofproto};
use switchd::rules::RuleError;
use switchd_ebpf::key::{self, WORDS};

use crate::fake_rules::FakeRules;
use crate::flows::*;

const CAPACITY: usize = 6;

#[derive(Clone, Debug, PartialEq)]
struct Flow {
    table: u8,
    priority: u16,
    matching: Match,
    actions: Vec<Action>,
    cookie: u64,
    created: u64,
    modified: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    flows: Vec<Flow>,
}

fn words(a: &Match, b: &Match, f: impl Fn(u64, u64, u64) -> bool) -> bool {
    (0..WORDS).all(|i| f(a.mask.words[i], b.mask.words[i], a.key.words[i] ^ b.key.words[i]))
}

impl Model {
    fn apply(&mut self, m: &FlowMod, now: u64) -> Result<(), Error> {
        let deletes = matches!(m.command, Command::Delete | Command::DeleteStrict);
        let strict = matches!(m.command, Command::DeleteStrict | Command::ModifyStrict);
        let hit = |flow: &Flow| {
            m.table.is_none_or(|table| table == flow.table)
                && (flow.cookie ^ m.cookie) & m.cookie_mask == 0
                && (!deletes || m.out_port == PortNo::NONE || flow.actions == output(m.out_port.0))
                && if strict {
                    flow.matching == m.matching && flow.priority == m.priority
                } else {
                    words(&m.matching, &flow.matching, |mask, of_flow, differ| {
                        mask & !of_flow == 0 && differ & mask == 0
                    })
                }
        };
        if deletes {
            self.flows.retain(|flow| !hit(flow));
            return Ok(());
        }
        if m.command != Command::Add {
            let mut hits = 0;
            for flow in self.flows.iter_mut().filter(|flow| hit(flow)) {
                flow.actions.clone_from(&m.actions);
                flow.cookie = m.new_cookie.unwrap_or(flow.cookie);
                flow.modified = now;
                hits += 1;
            }
            if hits > 0 || m.cookie_mask != 0 {
                return Ok(());
            }
        }
        self.add(m, now)
    }

    fn add(&mut self, m: &FlowMod, now: u64) -> Result<(), Error> {
        let flow = Flow {
            table: m.table.unwrap_or(0),
            priority: m.priority,
            matching: m.matching,
            actions: m.actions.clone(),
            cookie: m.new_cookie.unwrap_or(0),
            created: now,
            modified: now,
        };
        let near = |f: &&mut Flow| f.table == flow.table && f.priority == flow.priority;
        if let Some(same) = self.flows.iter_mut().filter(near).find(|f| f.matching == flow.matching) {
            *same = flow;
            return Ok(());
        }
        let meets = |f: &mut Flow| words(&f.matching, &flow.matching, |a, b, differ| differ & a & b == 0);
        if m.flags.check_overlap && self.flows.iter_mut().filter(near).any(meets) {
            return Err(Error::Overlap(m.priority));
        }
        if self.flows.len() == CAPACITY {
            return Err(RuleError::TableFull(CAPACITY as u32).into());
        }
        self.flows.push(flow);
        Ok(())
    }

    fn sorted(mut self) -> Vec<Flow> {
        self.flows.sort_by_key(|f| (f.table, f.priority, f.matching.mask, f.matching.key));
        self.flows
    }
}

/// What the real one holds, after checking that packets see the same.
fn flows_of(tables: &Ofproto, rules: &FakeRules, now: u64) -> Vec<Flow> {
    let mut visible = rules.visible();
    let flows: Vec<Flow> = dump(tables, rules, secs(now))
        .into_iter()
        .map(|f| {
            let identity = (BRIDGE, f.table, f.priority, f.matching);
            let at = visible.iter().position(|rule| rule.identity == identity && rule.actions == f.actions);
            visible.swap_remove(at.expect("packets see the flow"));
            Flow {
                table: f.table,
                priority: f.priority,
                matching: f.matching,
                actions: f.actions,
                cookie: f.cookie,
                created: now - f.duration.as_secs(),
                modified: now - u64::from(f.hard_age.unwrap()),
            }
        })
        .collect();
    assert_eq!(visible, [], "packets see nothing else");
    Model { flows }.sorted()
}

fn matches() -> impl Strategy<Value = Match> {
    let field = |at: key::Location| {
        (0u128..4, 0u128..4).prop_map(move |(value, mask)| {
            let mut m = Match::default();
            m.key.set(at, value & mask);
            m.mask.set(at, mask);
            m
        })
    };
    (field(key::IN_PORT), field(key::reg(0))).prop_map(|(mut a, b)| {
        for i in 0..WORDS {
            a.key.words[i] |= b.key.words[i];
            a.mask.words[i] |= b.mask.words[i];
        }
        a
    })
}

fn mods() -> impl Strategy<Value = FlowMod> {
    use Command::*;
    let command = prop_oneof![
        4 => Just(Add), 1 => Just(Modify), 1 => Just(ModifyStrict), 1 => Just(Delete), 1 => Just(DeleteStrict)
    ];
    let cookie_mask = prop_oneof![3 => Just(0u64), 1 => 0u64..4];
    let out_port = prop_oneof![3 => Just(PortNo::NONE), 1 => (1u16..4).prop_map(PortNo)];
    let table = prop_oneof![Just(None), (0u8..3).prop_map(Some)];
    let rest = (table, 1u16..3, 1u16..4, proptest::option::of(0u64..4), 0u64..4, any::<bool>());
    (command, matches(), cookie_mask, out_port, rest).prop_map(
        |(command, matching, cookie_mask, out_port, rest)| {
            let (table, priority, port, new_cookie, cookie, check_overlap) = rest;
            let flags = Flags { check_overlap, reset_counts: true, ..Flags::default() };
            let actions = output(port);
            let cookie = cookie & cookie_mask;
            FlowMod {
                table,
                priority,
                new_cookie,
                cookie,
                cookie_mask,
                out_port,
                flags,
                ..flow_mod(command, matching, actions)
            }
        },
    )
}

proptest! {
    #[test]
    fn the_same_as_a_list(rounds in proptest::collection::vec((any::<bool>(), proptest::collection::vec(mods(), 1..5)), 1..20)) {
        let (mut tables, mut rules) = empty();
        rules.capacity = CAPACITY as u32;
        let mut model = Model::default();
        for (now, (together, mods)) in (1..).zip(rounds) {
            if together {
                let mut next = model.clone();
                let expected = mods.iter().enumerate().try_for_each(|(i, m)| next.apply(m, now).map_err(|e| (i, e)));
                prop_assert_eq!(tables.apply_all(&mut rules, &mods, secs(now)).map(|_| ()), expected.clone());
                if expected.is_ok() {
                    model = next;
                }
            } else {
                let expected: Vec<_> = mods.iter().map(|m| model.apply(m, now)).collect();
                prop_assert_eq!(tables.apply(&mut rules, &mods, secs(now)).results, expected);
            }
            prop_assert!(rules.is_settled());
            prop_assert_eq!(flows_of(&tables, &rules, now), model.clone().sorted());
        }
    }
}
