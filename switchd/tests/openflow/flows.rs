//! Flow-mods and requests, short to write.

use std::time::Duration;

use ofctl::action::Action;
use ofctl::flow::{Command, Flags, FlowEntry, FlowFilter, FlowMod, Match};
use ofctl::port::PortNo;
use switchd::ofproto::{Cursor, Ofproto};
use switchd::rules::{BridgeId, Rules};
use switchd_ebpf::key::{self, Location};

use crate::fake_rules::FakeRules;

pub const BRIDGE: BridgeId = BridgeId(3);

pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A match on whole fields.
pub fn matching(fields: &[(Location, u128)]) -> Match {
    let mut matching = Match::default();
    for (at, value) in fields {
        matching.key.set(*at, *value);
        matching.mask.set(*at, u128::MAX);
    }
    matching
}

pub fn ip() -> Match {
    matching(&[(key::ETH_TYPE, 0x0800)])
}

pub fn tcp() -> Match {
    matching(&[(key::ETH_TYPE, 0x0800), (key::IP_PROTO, 6)])
}

pub fn arp() -> Match {
    matching(&[(key::ETH_TYPE, 0x0806)])
}

pub fn in_port(port: u16) -> Match {
    matching(&[(key::IN_PORT, port.into())])
}

pub fn output(port: u16) -> Vec<Action> {
    vec![Action::Output { port: PortNo(port), max_len: 0 }]
}

/// As OpenFlow 1.0 carries it: an add restarts the counters, a modify has a new cookie.
pub fn flow_mod(command: Command, matching: Match, actions: Vec<Action>) -> FlowMod {
    let flags = Flags { reset_counts: command == Command::Add, ..Flags::default() };
    FlowMod { table: Some(0), matching, new_cookie: Some(0), flags, actions, ..FlowMod::new(command) }
}

pub fn add(matching: Match, actions: Vec<Action>) -> FlowMod {
    flow_mod(Command::Add, matching, actions)
}

pub fn modify(matching: Match, actions: Vec<Action>) -> FlowMod {
    flow_mod(Command::Modify, matching, actions)
}

pub fn delete(matching: Match) -> FlowMod {
    FlowMod { table: None, ..flow_mod(Command::Delete, matching, Vec::new()) }
}

pub fn all() -> FlowFilter {
    FlowFilter { matching: Match::default(), table: None, out_port: PortNo::NONE, cookie: 0, cookie_mask: 0 }
}

/// A bridge without flows, and its datapath.
pub fn empty() -> (Ofproto, FakeRules) {
    let mut rules = FakeRules::new(1_000_000);
    (Ofproto::new(BRIDGE, &mut rules), rules)
}

/// All flows that a request asks for.
pub fn dump_if(tables: &Ofproto, rules: &dyn Rules, request: &FlowFilter, now: Duration) -> Vec<FlowEntry> {
    let (flows, next) = tables.dump(rules, request, Cursor::default(), u32::MAX, now);
    assert!(next.is_none());
    flows
}

pub fn dump(tables: &Ofproto, rules: &dyn Rules, now: Duration) -> Vec<FlowEntry> {
    dump_if(tables, rules, &all(), now)
}

/// What tells flows apart in most tests: their actions' only output port.
pub fn ports(flows: &[FlowEntry]) -> Vec<u16> {
    let mut ports: Vec<u16> = flows
        .iter()
        .map(|flow| match flow.actions.as_slice() {
            [Action::Output { port, .. }] => port.0,
            other => panic!("{other:?}"),
        })
        .collect();
    ports.sort_unstable();
    ports
}
