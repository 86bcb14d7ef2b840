//! What each command takes, and what its flows mean.

use super::*;
use crate::action::Action;
use crate::field::Field;
use crate::flow::Match;
use crate::port::{NoNames, PortMap};

fn error(text: &str, command: Command) -> String {
    parse_flow(text, command, &NoNames).unwrap_err().to_string()
}

fn matching(text: &str) -> Match {
    parse_flow_filter(text, &NoNames).unwrap().matching
}

#[test]
fn keys_of_each_command() {
    for (text, command, message) in [
        ("priority=5", Command::Delete, "unknown keyword priority"),
        ("actions=drop", Command::Delete, "unknown keyword actions"),
        ("actions=drop", Command::DeleteStrict, "unknown keyword actions"),
        ("idle_timeout=5", Command::Delete, "unknown keyword idle_timeout"),
        ("send_flow_rem", Command::Delete, "field send_flow_rem missing value"),
        ("importance=5,actions=drop", Command::Modify, "unknown keyword importance"),
        ("out_port=5,actions=drop", Command::Modify, "unknown keyword out_port"),
        ("out_port=foo", Command::Delete, "foo is not a valid OpenFlow port"),
        (
            "cookie=5",
            Command::Delete,
            "cannot set cookie (to match on a cookie, specify a mask, e.g. cookie=0x12/-1)",
        ),
        ("tcp", Command::Modify, "must specify an action"),
    ] {
        assert_eq!(error(text, command), message, "{text}");
    }
    let strict = parse_flow("priority=5,out_port=3,tcp", Command::DeleteStrict, &NoNames).unwrap();
    assert_eq!((strict.priority, strict.out_port), (5, PortNo(3)));
}

#[test]
fn cookies() {
    let flow = parse_flow("cookie=0x12,actions=drop", Command::Modify, &NoNames).unwrap();
    assert_eq!((flow.new_cookie, flow.cookie_mask), (Some(0x12), 0));
    let flow = parse_flow("cookie=0x12/0xf,actions=drop", Command::Modify, &NoNames).unwrap();
    assert_eq!((flow.new_cookie, flow.cookie, flow.cookie_mask), (None, 2, 0xf));
    let filter = parse_flow_filter("cookie=0x12/-1,table=3", &NoNames).unwrap();
    assert_eq!((filter.cookie, filter.cookie_mask, filter.table), (0x12, u64::MAX, Some(3)));
}

#[test]
fn lines_of_a_file() {
    let line = |text| parse_flow_line(text, Command::Add, &NoNames);
    assert_eq!(line("  # nothing"), Ok(None));
    assert_eq!(line("tcp,actions=drop # why").unwrap().unwrap().command, Command::Add);
    assert_eq!(line("modify_strict tcp,actions=1").unwrap().unwrap().command, Command::ModifyStrict);
    let delete = line("delete\ttable=2").unwrap().unwrap();
    assert_eq!((delete.command, delete.table), (Command::Delete, Some(2)));
    assert_eq!(line("delete").unwrap().unwrap().matching, Match::ANY);
}

#[test]
fn ports_by_name() {
    let ports: PortMap = [(PortNo(1), "veth_l0")].into_iter().collect();
    let flow = parse_flow("in_port=veth_l0,actions=veth_l0", Command::Add, &ports).unwrap();
    assert_eq!(flow.matching.exact(Field::InPort), Some(1));
    assert_eq!(flow.actions, [Action::Output { port: PortNo(1), max_len: 0 }]);
    assert_eq!(
        parse_flow("in_port=veth_x,actions=drop", Command::Add, &ports).unwrap_err().to_string(),
        "veth_x: invalid or unknown port for in_port"
    );
    assert_eq!(
        parse_flow("actions=veth_x", Command::Add, &ports).unwrap_err().to_string(),
        "unknown action veth_x"
    );
}

#[test]
fn loose_matching() {
    let subnet = matching("ip,nw_src=10.0.0.0/8");
    let host = matching("tcp,nw_src=10.1.2.3");
    let elsewhere = matching("ip,nw_src=11.0.0.0/8");
    assert!(subnet.covers(&host) && !host.covers(&subnet));
    assert!(Match::ANY.covers(&subnet) && subnet.covers(&subnet));
    assert!(!subnet.covers(&elsewhere) && !subnet.overlaps(&elsewhere));
    assert!(host.overlaps(&matching("tcp,tcp_dst=80")) && host.overlaps(&subnet));
}

#[test]
fn normalising_drops_what_means_nothing() {
    use crate::flow::{check_prerequisites, normalize};

    let mut odd = matching("tcp,tcp_dst=80,nw_src=10.0.0.1,in_port=1");
    assert_eq!(check_prerequisites(&odd), Ok(()));
    assert_eq!(normalize(&odd), odd);

    odd.set(Field::EthType, 0, 0);
    let error = check_prerequisites(&odd).unwrap_err().to_string();
    assert_eq!(error, "nw_proto needs ip or ipv6 or arp or rarp");
    assert_eq!(normalize(&odd), matching("in_port=1"));
}
