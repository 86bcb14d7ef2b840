//! Idle and hard timeouts.

use std::time::Duration;

use ofctl::flow::{Flags, FlowMod, Match};
use ofctl::wire::RemovedReason;
use switchd::rules::RuleStats;

use crate::flows::*;

fn used(at: Duration) -> RuleStats {
    RuleStats { packets: 1, bytes: 60, used: Some(at) }
}

fn told() -> Flags {
    Flags { send_flow_rem: true, ..Flags::default() }
}

#[test]
fn hard() {
    let (mut tables, mut rules) = empty();
    tables.apply(
        &mut rules,
        &[FlowMod { hard_timeout: 10, flags: told(), ..add(ip(), output(1)) }],
        secs(100),
    );
    assert_eq!(tables.next_expiry(), Some(secs(110)));
    rules.hit(&output(1), used(secs(109)));
    assert_eq!(tables.expire(&mut rules, secs(110) - Duration::from_nanos(1)), []);
    assert_eq!(rules.visible().len(), 1);
    let removed = tables.expire(&mut rules, secs(110));
    assert_eq!(removed.len(), 1);
    assert_eq!((removed[0].reason, removed[0].duration), (RemovedReason::HardTimeout, secs(10)));
    assert_eq!((rules.visible().len(), rules.is_settled(), tables.next_expiry()), (0, true, None));
}

#[test]
fn idle_counts_from_the_last_packet() {
    let (mut tables, mut rules) = empty();
    tables.apply(
        &mut rules,
        &[FlowMod { idle_timeout: 10, flags: told(), ..add(ip(), output(1)) }],
        secs(100),
    );
    rules.hit(&output(1), used(secs(105)));
    assert_eq!(tables.expire(&mut rules, secs(112)), []);
    assert_eq!(dump(&tables, &rules, secs(112))[0].idle_age, Some(7));
    assert_eq!(tables.next_expiry(), Some(secs(115)));
    assert_eq!(tables.expire(&mut rules, secs(115))[0].reason, RemovedReason::IdleTimeout);
    assert_eq!(dump(&tables, &rules, secs(115)), []);
}

#[test]
fn the_earlier_of_both() {
    let (mut tables, mut rules) = empty();
    let both = FlowMod { idle_timeout: 10, hard_timeout: 15, flags: told(), ..add(ip(), output(1)) };
    tables.apply(&mut rules, &[both], secs(100));
    rules.hit(&output(1), used(secs(109)));
    assert_eq!(tables.expire(&mut rules, secs(111)), []);
    assert_eq!(tables.expire(&mut rules, secs(116))[0].reason, RemovedReason::HardTimeout);
}

#[test]
fn a_modify_restarts_the_hard_timeout_only() {
    let (mut tables, mut rules) = empty();
    tables.apply(&mut rules, &[FlowMod { hard_timeout: 10, ..add(ip(), output(1)) }], secs(100));
    tables.apply(&mut rules, &[FlowMod { idle_timeout: 10, ..add(arp(), output(2)) }], secs(100));
    tables.apply(&mut rules, &[modify(Match::default(), output(3))], secs(105));
    tables.expire(&mut rules, secs(110));
    let left = dump(&tables, &rules, secs(110));
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].matching, left[0].duration, left[0].hard_age), (ip(), secs(10), Some(5)));
    tables.expire(&mut rules, secs(115));
    assert_eq!(dump(&tables, &rules, secs(115)), []);
}

#[test]
fn flows_without_timeouts_stay_and_tell_nobody() {
    let (mut tables, mut rules) = empty();
    let mods = [add(ip(), output(1)), FlowMod { hard_timeout: 1, ..add(arp(), output(2)) }];
    tables.apply(&mut rules, &mods, secs(1));
    assert_eq!(tables.expire(&mut rules, secs(1_000_000)), []);
    assert_eq!(ports(&dump(&tables, &rules, secs(2))), [1]);
}

#[test]
fn what_is_undone_keeps_its_deadline() {
    let (mut tables, mut rules) = empty();
    tables.apply(&mut rules, &[FlowMod { hard_timeout: 10, ..add(ip(), output(1)) }], secs(0));
    let reserved = FlowMod { table: Some(254), ..add(ip(), output(3)) };
    for change in [delete(ip()), modify(ip(), output(2)), add(ip(), output(2))] {
        tables.apply_all(&mut rules, &[change, reserved.clone()], secs(5)).unwrap_err();
    }
    assert_eq!(tables.next_expiry(), Some(secs(10)));
    tables.apply(&mut rules, &[delete(ip()), add(ip(), output(2))], secs(5));
    assert_eq!(tables.next_expiry(), None, "a slot's old deadline does not hit the next flow there");
}
