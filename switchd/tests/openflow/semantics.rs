//! What flow-mods do.

use std::slice;

use ofctl::action::{Action, CheckError, Ct, Nat};
use ofctl::field::Field;
use ofctl::flow::{Command, Flags, FlowFilter, FlowMod, Match};
use ofctl::port::PortNo;
use ofctl::wire::{AggregateStats, RemovedReason};
use switchd::ofproto::{Cursor, Error, Ofproto};
use switchd::rules::{RuleError, RuleStats, Rules};
use switchd_ebpf::key;

use crate::fake_rules::FakeRules;
use crate::flows::*;

fn hits(packets: u64) -> RuleStats {
    RuleStats { packets, bytes: 100 * packets, used: Some(secs(5)) }
}

fn apply(tables: &mut Ofproto, rules: &mut FakeRules, mods: &[FlowMod]) {
    let applied = tables.apply(rules, mods, secs(10));
    assert!(applied.results.iter().all(Result::is_ok), "{:?}", applied.results);
    assert!(rules.is_settled());
}

/// Three flows, one more specific than the other: output to 1, 2, 3.
fn nested() -> (Ofproto, FakeRules) {
    let (mut tables, mut rules) = empty();
    let specific = FlowMod { priority: 7, ..add(tcp(), output(2)) };
    apply(&mut tables, &mut rules, &[add(ip(), output(1)), specific, add(arp(), output(3))]);
    (tables, rules)
}

#[test]
fn the_flow_of_a_fresh_bridge_forwards_normally() {
    let mut rules = FakeRules::new(1);
    let mut tables = Ofproto::new(BRIDGE, &mut rules);
    tables.add_normal(&mut rules, secs(1)).unwrap();
    let flows = dump(&tables, &rules, secs(3));
    assert_eq!(flows.len(), 1);
    assert_eq!((flows[0].table, flows[0].priority, flows[0].cookie), (0, 0, 0));
    assert_eq!(flows[0].matching, Match::default());
    assert_eq!(flows[0].actions, output(PortNo::NORMAL.0));
    assert_eq!((flows[0].duration, flows[0].idle_age, flows[0].hard_age), (secs(2), Some(2), Some(2)));
    assert_eq!(rules.visible().len(), 1);
}

#[test]
fn an_add_replaces_the_flow_of_the_same_identity() {
    let (mut tables, mut rules) = nested();
    rules.hit(&output(1), hits(4));
    let again = FlowMod { new_cookie: Some(9), idle_timeout: 30, ..add(ip(), output(4)) };
    tables.apply(&mut rules, &[again], secs(20)).results[0].as_ref().unwrap();
    let flows = dump(&tables, &rules, secs(21));
    assert_eq!(ports(&flows), [2, 3, 4]);
    let new = flows.iter().find(|flow| flow.actions == output(4)).unwrap();
    assert_eq!(
        (new.n_packets, new.n_bytes, new.duration, new.cookie, new.idle_timeout),
        (0, 0, secs(1), 9, 30)
    );
    assert_eq!(rules.visible().len(), 3);
}

#[test]
fn an_add_keeps_the_counters_unless_told() {
    let (mut tables, mut rules) = nested();
    rules.hit(&output(1), hits(4));
    let again = FlowMod { flags: Flags::default(), ..add(ip(), output(1)) };
    apply(&mut tables, &mut rules, &[again]);
    let flows = dump_if(&tables, &rules, &FlowFilter { out_port: PortNo(1), ..all() }, secs(10));
    assert_eq!((flows[0].n_packets, flows[0].n_bytes), (4, 400));
}

#[test]
fn another_priority_or_table_is_another_flow() {
    let (mut tables, mut rules) = nested();
    let mods = [
        FlowMod { priority: 1, ..add(ip(), output(4)) },
        FlowMod { table: Some(253), ..add(ip(), output(5)) },
        FlowMod { table: None, priority: 2, ..add(ip(), output(6)) },
    ];
    apply(&mut tables, &mut rules, &mods);
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [1, 2, 3, 4, 5, 6]);
    let table = |table| dump_if(&tables, &rules, &FlowFilter { table: Some(table), ..all() }, secs(10));
    assert_eq!(ports(&table(0)), [1, 2, 3, 4, 6], "an add without a table goes to table 0");
    assert_eq!(ports(&table(253)), [5]);
}

#[test]
fn a_loose_modify_hits_equal_and_more_specific_flows_of_any_priority() {
    let (mut tables, mut rules) = nested();
    apply(&mut tables, &mut rules, &[modify(ip(), output(9))]);
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [3, 9, 9]);
}

#[test]
fn a_strict_modify_hits_exactly_one() {
    let (mut tables, mut rules) = nested();
    let strict = FlowMod { priority: 7, ..flow_mod(Command::ModifyStrict, tcp(), output(9)) };
    apply(&mut tables, &mut rules, &[strict]);
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [1, 3, 9]);
    // The same match at another priority is no hit, so that it is added.
    apply(&mut tables, &mut rules, &[flow_mod(Command::ModifyStrict, tcp(), output(8))]);
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [1, 3, 8, 9]);
}

#[test]
fn a_modify_without_a_hit_adds_unless_it_looks_for_a_cookie() {
    let (mut tables, mut rules) = empty();
    let looking = FlowMod { cookie: 1, cookie_mask: 1, ..modify(ip(), output(1)) };
    apply(
        &mut tables,
        &mut rules,
        &[looking, FlowMod { table: None, idle_timeout: 5, ..modify(arp(), output(2)) }],
    );
    let flows = dump(&tables, &rules, secs(10));
    assert_eq!(ports(&flows), [2]);
    assert_eq!((flows[0].table, flows[0].idle_timeout), (0, 5));
}

#[test]
fn a_modify_changes_actions_and_cookie_only() {
    let (mut tables, mut rules) = empty();
    let flags = Flags { send_flow_rem: true, ..Flags::default() };
    let first =
        FlowMod { new_cookie: Some(7), idle_timeout: 100, hard_timeout: 200, flags, ..add(ip(), output(1)) };
    apply(&mut tables, &mut rules, &[first]);
    rules.hit(&output(1), hits(4));
    let mods = FlowMod { idle_timeout: 50, ..modify(ip(), output(2)) };
    tables.apply(&mut rules, &[mods], secs(12)).results[0].as_ref().unwrap();
    let flow = &dump(&tables, &rules, secs(13))[0];
    assert_eq!((flow.idle_timeout, flow.hard_timeout, flow.flags), (100, 200, flags));
    assert_eq!((flow.n_packets, flow.n_bytes, flow.duration, flow.hard_age), (4, 400, secs(3), Some(1)));
    assert_eq!(
        (flow.cookie, &flow.actions),
        (0, &output(2)),
        "without cookie= it is 0, as over OpenFlow 1.0"
    );
    apply(&mut tables, &mut rules, &[FlowMod { new_cookie: Some(6), ..modify(ip(), output(2)) }]);
    apply(&mut tables, &mut rules, &[FlowMod { new_cookie: None, ..modify(ip(), output(3)) }]);
    assert_eq!(dump(&tables, &rules, secs(13))[0].cookie, 6, "none: it stays");
}

#[test]
fn a_loose_delete_hits_equal_and_more_specific_flows_of_all_tables() {
    let (mut tables, mut rules) = nested();
    apply(&mut tables, &mut rules, &[FlowMod { table: Some(9), ..add(tcp(), output(4)) }]);
    apply(&mut tables, &mut rules, &[FlowMod { table: Some(5), ..delete(ip()) }]);
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [1, 2, 3, 4]);
    apply(&mut tables, &mut rules, &[delete(tcp())]);
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [1, 3]);
    apply(&mut tables, &mut rules, &[delete(Match::default())]);
    assert!(dump(&tables, &rules, secs(10)).is_empty());
    assert_eq!(rules.visible(), []);
}

#[test]
fn a_strict_delete_needs_the_priority() {
    let (mut tables, mut rules) = nested();
    apply(&mut tables, &mut rules, &[flow_mod(Command::DeleteStrict, tcp(), Vec::new())]);
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [1, 2, 3]);
    apply(
        &mut tables,
        &mut rules,
        &[FlowMod { priority: 7, ..flow_mod(Command::DeleteStrict, tcp(), Vec::new()) }],
    );
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [1, 3]);
}

#[test]
fn deletes_and_dumps_filter_by_cookie_and_port() {
    let (mut tables, mut rules) = empty();
    let with_cookie = |cookie, port| FlowMod { new_cookie: Some(cookie), ..add(in_port(port), output(port)) };
    let inner = Action::Clone(output(8));
    let mods = [with_cookie(0x11, 1), with_cookie(0x12, 2), with_cookie(0x23, 3), add(ip(), vec![inner])];
    apply(&mut tables, &mut rules, &mods);
    let count = |request| dump_if(&tables, &rules, &request, secs(10)).len();
    assert_eq!(count(FlowFilter { cookie: 0x10, cookie_mask: 0xf0, ..all() }), 2);
    assert_eq!(count(FlowFilter { cookie: 0x12, cookie_mask: u64::MAX, ..all() }), 1);
    assert_eq!(count(FlowFilter { out_port: PortNo(3), ..all() }), 1);
    assert_eq!(count(FlowFilter { out_port: PortNo(8), ..all() }), 1, "inside of clone, too");
    assert_eq!(count(FlowFilter { matching: in_port(1), out_port: PortNo(3), ..all() }), 0);

    apply(&mut tables, &mut rules, &[FlowMod { out_port: PortNo(8), ..delete(Match::default()) }]);
    apply(
        &mut tables,
        &mut rules,
        &[FlowMod { cookie: 0x12, cookie_mask: u64::MAX, ..delete(Match::default()) }],
    );
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [1, 3]);
    let strict = FlowMod {
        cookie: 0x20,
        cookie_mask: 0xf0,
        ..flow_mod(Command::DeleteStrict, in_port(1), Vec::new())
    };
    apply(&mut tables, &mut rules, &[strict]);
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [1, 3]);
}

#[test]
fn an_out_port_is_nothing_to_a_modify() {
    let (mut tables, mut rules) = nested();
    apply(&mut tables, &mut rules, &[FlowMod { out_port: PortNo(77), ..modify(arp(), output(9)) }]);
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [1, 2, 9]);
}

#[test]
fn check_overlap_refuses_overlaps_of_the_same_priority() {
    let (mut tables, mut rules) = nested();
    let check_overlap = Flags { check_overlap: true, ..Flags::default() };
    let checked = |m, port| FlowMod { flags: check_overlap, ..add(m, output(port)) };
    let mods = [
        checked(in_port(1), 4),
        checked(tcp(), 5),
        FlowMod { priority: 1, ..checked(in_port(1), 6) },
        FlowMod { table: Some(1), ..checked(in_port(1), 7) },
        // The same identity is replaced, not overlapped, as in Open vSwitch.
        checked(ip(), 8),
    ];
    let results = tables.apply(&mut rules, &mods, secs(10)).results;
    assert_eq!(results, [Err(Error::Overlap(0x8000)), Err(Error::Overlap(0x8000)), Ok(()), Ok(()), Ok(())]);
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [2, 3, 6, 7, 8]);
}

#[test]
fn tables_and_goto_are_checked() {
    let (mut tables, mut rules) = nested();
    let goto = |from, to| FlowMod { table: from, ..add(in_port(1), vec![Action::GotoTable(to)]) };
    let mods = [
        FlowMod { table: Some(254), ..add(in_port(1), output(4)) },
        FlowMod { table: Some(254), ..delete(Match::default()) },
        goto(Some(3), 2),
        goto(Some(3), 3),
        goto(None, 0),
        goto(Some(3), 254),
        goto(Some(3), 4),
    ];
    let results = tables.apply(&mut rules, &mods, secs(10)).results;
    let bad = || Err(Error::BadActions(CheckError::BadTableId));
    let reserved = || Err(Error::ReservedTable(254));
    assert_eq!(results, [reserved(), reserved(), bad(), bad(), bad(), bad(), Ok(())]);
    assert_eq!(rules.visible().len(), 4);
}

#[test]
fn resubmit_and_ct_may_go_to_the_switchs_own_table() {
    // As in Open vSwitch: nothing of a user's is there, so packets are dropped.
    let (mut tables, mut rules) = empty();
    let resubmit = Action::Resubmit { port: None, table: Some(254), ct: false };
    let ct = Action::Ct(Box::new(Ct { table: Some(254), ..Ct::default() }));
    let results =
        tables.apply(&mut rules, &[add(ip(), vec![resubmit]), add(tcp(), vec![ct])], secs(10)).results;
    assert_eq!(results, [Ok(()), Ok(())]);
}

#[test]
fn what_a_dump_could_not_show_is_refused() {
    let (mut tables, mut rules) = empty();
    let note = |bytes: usize| add(ip(), vec![Action::Note(vec![0; bytes - 10])]);
    let results = tables.apply(&mut rules, &[note(60_008), note(60_000)], secs(10)).results;
    assert_eq!(results, [Err(Error::TooManyActions(60_008)), Ok(())]);
}

#[test]
fn matches_and_actions_are_checked() {
    let (mut tables, mut rules) = empty();
    let no_ip = matching(&[(key::TP_DST, 80)]);
    let ct = vec![Action::Ct(Box::default())];
    let mods = [
        add(no_ip, output(1)),
        delete(no_ip),
        add(arp(), ct.clone()),
        modify(arp(), ct.clone()),
        add(ip(), ct),
    ];
    let results = tables.apply(&mut rules, &mods, secs(10)).results;
    let bad_match = |result: &Result<(), Error>| matches!(result, Err(Error::BadMatch(_)));
    assert!(results[..2].iter().all(bad_match), "{results:?}");
    let inconsistent = || Err(Error::BadActions(CheckError::MatchInconsistent));
    assert_eq!(results[2..], [inconsistent(), inconsistent(), Ok(())]);
    assert_eq!(rules.visible().len(), 1);

    // What ovs-ofctl could not show.
    let metadata = Action::WriteMetadata { value: 1, mask: 1 };
    let resubmit = Action::Resubmit { port: None, table: Some(5), ct: false };
    let mark = Action::Load { value: 1, dst: Field::CtMark.whole() };
    let mods = [
        add(ip(), vec![metadata.clone(), resubmit]),
        add(ip(), vec![Action::Clone(vec![mark.clone()])]),
        add(ip(), vec![mark.clone()]),
        add(
            ip(),
            vec![Action::Ct(Box::new(Ct { commit: true, exec: vec![mark], ..Ct::default() })), metadata],
        ),
    ];
    let results = tables.apply(&mut rules, &mods, secs(10)).results;
    let out_of_place = || Err(Error::BadActions(CheckError::BadSetArgument));
    let order = Err(Error::BadActions(CheckError::UnsupportedOrder));
    assert_eq!(results, [order, out_of_place(), out_of_place(), Ok(())]);
}

#[test]
fn a_refused_flow_mod_leaves_the_others() {
    let (mut tables, mut rules) = nested();
    rules.capacity = 4;
    let udp = matching(&[(key::ETH_TYPE, 0x0800), (key::IP_PROTO, 17)]);
    let nat = vec![Action::Ct(Box::new(Ct { nat: Some(Nat::default()), ..Ct::default() }))];
    let mods = [
        add(udp, nat.clone()),
        add(udp, output(4)),
        add(in_port(2), output(5)),
        add(udp, nat),
        flow_mod(Command::DeleteStrict, arp(), Vec::new()),
        add(in_port(2), output(6)),
    ];
    let commits = rules.commits;
    let results = tables.apply(&mut rules, &mods, secs(10)).results;
    let unsupported = || Err(Error::Rules(RuleError::Unsupported("nat".to_owned())));
    let full = Err(Error::Rules(RuleError::TableFull(4)));
    assert_eq!(results, [unsupported(), Ok(()), full, unsupported(), Ok(()), Ok(())]);
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [1, 2, 4, 6]);
    assert_eq!(rules.commits, commits + 1, "packets see all of it at once");
}

#[test]
fn a_modify_that_fails_half_way_changes_nothing() {
    let (mut tables, mut rules) = nested();
    rules.modifies_left = Some(1);
    let mods = [add(in_port(1), output(4)), modify(ip(), output(9)), add(in_port(2), output(5))];
    let results = tables.apply(&mut rules, &mods, secs(10)).results;
    assert_eq!(results, [Ok(()), Err(Error::Rules(RuleError::Map("no room".to_owned()))), Ok(())]);
    assert_eq!(ports(&dump(&tables, &rules, secs(10))), [1, 2, 3, 4, 5]);
    assert_eq!(rules.visible().len(), 5);
}

#[test]
fn all_or_nothing() {
    let (mut tables, mut rules) = nested();
    rules.hit(&output(1), hits(4));
    let mut mods = vec![
        delete(arp()),
        add(arp(), output(4)),
        add(ip(), output(5)),
        add(in_port(1), output(6)),
        modify(ip(), output(7)),
        FlowMod { table: Some(254), ..add(ip(), output(8)) },
    ];
    let before = (dump(&tables, &rules, secs(10)), rules.commits);
    assert_eq!(tables.apply_all(&mut rules, &mods, secs(10)), Err((5, Error::ReservedTable(254))));
    assert_eq!((dump(&tables, &rules, secs(10)), rules.commits), before);
    assert!(rules.is_settled());

    mods.pop();
    assert_eq!(tables.apply_all(&mut rules, &mods, secs(10)), Ok(Vec::new()));
    let flows = dump(&tables, &rules, secs(10));
    assert_eq!(ports(&flows), [4, 6, 7, 7]);
    assert!(flows.iter().all(|flow| flow.n_packets == 0), "the add of ip restarted its counters");
    assert_eq!(rules.commits, before.1 + 1);
}

#[test]
fn deleted_flows_are_reported_when_asked() {
    let (mut tables, mut rules) = nested();
    let told = Flags { send_flow_rem: true, reset_counts: true, ..Flags::default() };
    let flow =
        FlowMod { new_cookie: Some(5), priority: 3, table: Some(2), flags: told, ..add(tcp(), output(4)) };
    apply(&mut tables, &mut rules, slice::from_ref(&flow));
    rules.hit(&output(4), hits(2));
    assert_eq!(
        tables.apply(&mut rules, slice::from_ref(&flow), secs(11)).removed,
        [],
        "replaced is not removed"
    );
    rules.hit(&output(4), hits(3));
    let failed =
        tables.apply_all(&mut rules, &[delete(ip()), FlowMod { table: Some(254), ..flow }], secs(12));
    assert!(failed.is_err());
    let removed = tables.apply(&mut rules, &[delete(Match::default())], secs(13)).removed;
    assert_eq!(removed.len(), 1);
    let flow = &removed[0];
    assert_eq!((flow.matching, flow.priority, flow.table, flow.cookie), (tcp(), 3, Some(2), 5));
    assert_eq!(
        (flow.reason, flow.duration, flow.packets, flow.bytes),
        (RemovedReason::Delete, secs(2), 3, 300)
    );
}

#[test]
fn sums_and_tables() {
    let (mut tables, mut rules) = nested();
    rules.hit(&output(1), hits(4));
    rules.hit(&output(2), hits(5));
    let mut sum = AggregateStats::default();
    let request = FlowFilter { matching: ip(), ..all() };
    assert!(tables.aggregate(&rules, &request, Cursor::default(), 1000, &mut sum).is_none());
    assert_eq!(sum, AggregateStats { packets: 9, bytes: 900, flows: 2 });

    apply(&mut tables, &mut rules, &[FlowMod { table: Some(253), ..add(ip(), output(5)) }]);
    let stats = tables.table_stats(&rules);
    assert_eq!(stats.len(), 254);
    let brief: Vec<_> =
        stats.iter().map(|t| (t.table, t.active, t.lookups, t.matched, t.max_entries)).collect();
    assert_eq!(brief[0], (0, 3, 10, 0, rules.capacity()));
    assert_eq!(brief[1], (1, 0, 11, 1, rules.capacity()));
    assert_eq!(brief[253], (253, 1, 263, 253, rules.capacity()));
}

#[test]
fn a_dump_goes_on_between_changes() {
    let (mut tables, mut rules) = empty();
    for port in 1..=10 {
        apply(
            &mut tables,
            &mut rules,
            &[FlowMod { table: Some((port % 3) as u8), ..add(in_port(port), output(port)) }],
        );
    }
    let mut seen = Vec::new();
    let mut next = Some(Cursor::default());
    let mut steps = 0;
    while let Some(from) = next {
        let (flows, rest) = tables.dump(&rules, &all(), from, 2, secs(10));
        assert!(flows.len() <= 2);
        seen.extend(ports(&flows));
        next = rest;
        steps += 1;
        if steps == 1 {
            apply(&mut tables, &mut rules, &[delete(in_port(10)), add(in_port(11), output(11))]);
        }
    }
    seen.sort_unstable();
    let kept: Vec<u16> = seen.into_iter().filter(|port| *port <= 9).collect();
    assert_eq!(kept, [1, 2, 3, 4, 5, 6, 7, 8, 9], "each that stayed, once");
    assert!(steps > 4);
}
