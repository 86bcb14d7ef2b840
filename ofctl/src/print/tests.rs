//! Lines of `dump-flows`, to the letter.

use std::time::Duration;

use crate::action::{Action, Ct, Direction, Nat};
use crate::flow::{Command, FlowEntry};
use crate::port::{NoNames, PortMap, PortNames, PortNo};
use crate::print::write_flow;
use crate::syntax::parse_flow;

fn ports() -> PortMap {
    [(PortNo(1), "veth_l0"), (PortNo(2), "veth_r0"), (PortNo(3), "p3")].into_iter().collect()
}

/// The flow of a text, with counters.
fn entry(text: &str) -> FlowEntry {
    let flow = parse_flow(text, Command::Add, &ports()).unwrap();
    FlowEntry {
        table: flow.table.unwrap_or(0),
        priority: flow.priority,
        cookie: flow.new_cookie.unwrap_or(0),
        duration: Duration::from_millis(9171),
        idle_timeout: flow.idle_timeout,
        hard_timeout: flow.hard_timeout,
        importance: flow.importance,
        flags: flow.flags,
        n_packets: 6,
        n_bytes: 325,
        idle_age: Some(0),
        hard_age: Some(9),
        matching: flow.matching,
        actions: flow.actions,
    }
}

fn line(flow: &FlowEntry, stats: bool, ports: &dyn PortNames) -> String {
    let mut line = String::new();
    write_flow(&mut line, flow, stats, ports).unwrap();
    line
}

#[test]
fn a_flow_of_the_tutorial() {
    let flow = entry("table=0, priority=50, ct_state=-trk, tcp, in_port=veth_l0, actions=ct(table=0)");
    assert_eq!(
        line(&flow, true, &NoNames),
        " cookie=0x0, duration=9.171s, table=0, n_packets=6, n_bytes=325, idle_age=0, \
         priority=50,ct_state=-trk,tcp,in_port=1 actions=ct(table=0)"
    );
    assert_eq!(line(&flow, false, &NoNames), " priority=50,ct_state=-trk,tcp,in_port=1 actions=ct(table=0)");
}

#[test]
fn names_are_quoted_unless_plain() {
    let flow = entry("in_port=veth_l0,actions=p3,output:\"veth_l0\",resubmit(veth_r0,3),LOCAL");
    assert_eq!(
        line(&flow, false, &ports()),
        r#" in_port="veth_l0" actions=output:p3,output:"veth_l0",resubmit("veth_r0",3),LOCAL"#
    );
}

#[test]
fn every_property() {
    let text = "cookie=0x12,table=3,priority=7,idle_timeout=5,hard_timeout=6,send_flow_rem,importance=2,actions=drop";
    let mut flow = entry(text);
    flow.hard_age = Some(4);
    assert_eq!(
        line(&flow, true, &NoNames),
        " cookie=0x12, duration=9.171s, table=3, n_packets=6, n_bytes=325, idle_timeout=5, hard_timeout=6, \
         send_flow_rem importance=2, idle_age=0, hard_age=4, priority=7 actions=drop"
    );
    assert_eq!(
        line(&flow, false, &NoNames),
        " cookie=0x12, table=3, idle_timeout=5, hard_timeout=6, send_flow_rem importance=2, priority=7 actions=drop"
    );
}

#[test]
fn what_only_the_wire_can_say() {
    let mut flow = entry("tcp,actions=drop");
    flow.actions = vec![
        Action::Resubmit { port: None, table: None, ct: false },
        Action::Ct(Box::new(Ct {
            commit: true,
            nat: Some(Nat { direction: Some(Direction::Src), random: true, ..Nat::default() }),
            ..Ct::default()
        })),
    ];
    assert_eq!(line(&flow, false, &NoNames), " tcp actions=resubmit(,),ct(commit,nat(src))");
}

#[test]
fn durations() {
    let mut flow = entry("actions=NORMAL");
    for (duration, text) in [
        (Duration::from_secs(3), "duration=3s,"),
        (Duration::from_millis(3007), "duration=3.007s,"),
        (Duration::from_millis(3500), "duration=3.500s,"),
        (Duration::from_nanos(3_000_000_001), "duration=3.000000001s,"),
        (Duration::from_nanos(548_000_010), "duration=0.54800001s,"),
        (Duration::from_nanos(3_123_456_000), "duration=3.123456s,"),
    ] {
        flow.duration = duration;
        assert!(line(&flow, true, &NoNames).contains(text), "{text}");
    }
}

#[test]
fn a_dumped_flow_can_be_added_again() {
    let flow =
        entry("cookie=1,table=2,priority=9,ct_state=+trk,+est,tcp,in_port=1,actions=set_field:5->reg0,2");
    let again = parse_flow(&line(&flow, true, &ports()), Command::Add, &ports()).unwrap();
    assert_eq!(again.matching, flow.matching);
    assert_eq!(again.actions, flow.actions);
    assert_eq!((again.table, again.priority, again.new_cookie), (Some(2), 9, Some(1)));
}
