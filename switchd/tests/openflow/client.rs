//! Debian's `ovs-ofctl` as the client. Without it installed these tests say so and pass.

use std::process::Command;

use ofctl::flow::FlowMod;
use switchd::rules::RuleStats;

use crate::fake_switch::FakeSwitch;
use crate::flows::*;

/// The tutorial's flows, in the spelling that Open vSwitch itself takes.
const TUTORIAL: [&str; 5] = [
    "table=0, priority=50, ct_state=-trk, tcp, in_port=1, actions=ct(table=0)",
    "table=0, priority=50, ct_state=+trk+new, tcp, in_port=1, actions=ct(commit),2",
    "table=0, priority=50, ct_state=-trk, tcp, in_port=2, actions=ct(table=0)",
    "table=0, priority=50, ct_state=+trk+est, tcp, in_port=2, actions=1",
    "table=0, priority=50, ct_state=+trk+est, tcp, in_port=1, actions=2",
];

/// A switch and `ovs-ofctl` for it.
struct Client(FakeSwitch);

impl Client {
    fn start() -> Option<Self> {
        if Command::new("ovs-ofctl").arg("--version").output().is_err() {
            eprintln!("ovs-ofctl is not installed: not tested");
            return None;
        }
        Some(Self(FakeSwitch::start()))
    }

    /// Runs `ovs-ofctl`; gives exit status, standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new("ovs-ofctl")
            .args(["--timeout=10", "-vconsole:warn"])
            .args(arguments)
            .env("OVS_RUNDIR", &self.0.rundir)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Runs it, expects success, and gives what it printed.
    fn ok(&self, arguments: &[&str]) -> String {
        let (status, stdout, stderr) = self.run(arguments);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{arguments:?}: {stdout}");
        stdout
    }

    /// Runs it and expects an OpenFlow error.
    fn refused(&self, arguments: &[&str], code: &str) {
        let (status, stdout, stderr) = self.run(arguments);
        assert_eq!(status, Some(1), "{arguments:?}: {stdout}");
        let first = stderr.lines().next().unwrap_or_default();
        assert!(first.starts_with("OFPT_ERROR") && first.ends_with(code), "{stderr}");
    }

    fn flows(&self, arguments: &[&str]) -> Vec<String> {
        let printed = self.ok(&[&["--no-stats", "--sort", "dump-flows", "br0"], arguments].concat());
        printed.lines().map(|line| line.trim().to_owned()).collect()
    }
}

#[test]
fn the_tutorials_flows() {
    let Some(client) = Client::start() else { return };
    assert_eq!(client.flows(&[]), ["priority=0 actions=NORMAL"]);
    client.ok(&["del-flows", "br0"]);
    for flow in TUTORIAL {
        client.ok(&["add-flow", "br0", flow]);
    }
    let expected = [
        "priority=50,ct_state=+est+trk,tcp,in_port=1 actions=output:2",
        "priority=50,ct_state=+est+trk,tcp,in_port=2 actions=output:1",
        "priority=50,ct_state=+new+trk,tcp,in_port=1 actions=ct(commit),output:2",
        "priority=50,ct_state=-trk,tcp,in_port=1 actions=ct(table=0)",
        "priority=50,ct_state=-trk,tcp,in_port=2 actions=ct(table=0)",
    ];
    let mut flows = client.flows(&[]);
    flows.sort();
    assert_eq!(flows, expected);
}

#[test]
fn statistics_are_printed() {
    let Some(client) = Client::start() else { return };
    client.ok(&["del-flows", "br0"]);
    client.ok(&[
        "add-flow",
        "br0",
        "cookie=0x2a,table=3,idle_timeout=60,hard_timeout=600,priority=7,ip,actions=output:2",
    ]);
    client.0.with(|_, rules| rules.hit(&output(2), RuleStats { packets: 6, bytes: 325, used: None }));
    client.0.advance(9);
    let printed = client.ok(&["dump-flows", "br0"]);
    let mut lines = printed.lines();
    assert!(lines.next().unwrap().starts_with("NXST_FLOW reply (xid=0x"));
    let line = lines.next().unwrap();
    assert!(line.starts_with(" cookie=0x2a, duration=9."), "{line}");
    let rest = line.split_once("s, ").unwrap().1;
    assert_eq!(
        rest,
        "table=3, n_packets=6, n_bytes=325, idle_timeout=60, hard_timeout=600, idle_age=9, priority=7,ip actions=output:2"
    );
    assert_eq!(lines.next(), None);
    let sum = client.ok(&["dump-aggregate", "br0"]);
    assert!(sum.ends_with(": packet_count=6 byte_count=325 flow_count=1\n"), "{sum}");
    let none = client.ok(&["dump-aggregate", "br0", "tcp"]);
    assert!(none.ends_with(": packet_count=0 byte_count=0 flow_count=0\n"), "{none}");
}

#[test]
fn adds_modifies_and_deletes() {
    let Some(client) = Client::start() else { return };
    client.ok(&["del-flows", "br0"]);
    let file = client.0.rundir.join("flows");
    let text = "priority=7,tcp,actions=2\n# a comment\nip,actions=1\ntable=9,arp,actions=3\ncookie=5,in_port=4,actions=drop\n";
    std::fs::write(&file, text).unwrap();
    client.ok(&["add-flows", "br0", file.to_str().unwrap()]);
    let all = ["priority=7,tcp actions=output:2", "ip actions=output:1", "table=9, arp actions=output:3"];
    let sorted = |mut flows: Vec<String>| {
        flows.sort();
        flows
    };
    let with = |extra: &[&str]| sorted(all.iter().chain(extra).map(|flow| (*flow).to_owned()).collect());
    assert_eq!(sorted(client.flows(&[])), with(&["cookie=0x5, in_port=4 actions=drop"]));
    assert_eq!(client.flows(&["ip"]).len(), 2);
    assert_eq!(client.flows(&["table=9"]), ["table=9, arp actions=output:3"]);
    assert_eq!(client.flows(&["cookie=5/-1"]).len(), 1);
    assert_eq!(client.flows(&["out_port=2"]), ["priority=7,tcp actions=output:2"]);

    client.ok(&["del-flows", "br0", "cookie=5/-1"]);
    assert_eq!(sorted(client.flows(&[])), with(&[]));
    client.ok(&["--strict", "del-flows", "br0", "tcp"]);
    assert_eq!(sorted(client.flows(&[])), with(&[]), "the priority is another");
    client.ok(&["mod-flows", "br0", "ip,actions=drop"]);
    assert_eq!(client.flows(&["ip,table=0"]), ["priority=7,tcp actions=drop", "ip actions=drop"]);
    client.ok(&[
        "--strict",
        "mod-flows",
        "br0",
        "priority=7,tcp,actions=load:0x5->NXM_NX_REG0[],resubmit(,9)",
    ]);
    assert_eq!(client.flows(&["tcp"]), ["priority=7,tcp actions=load:0x5->NXM_NX_REG0[],resubmit(,9)"]);
    client.ok(&["--strict", "del-flows", "br0", "priority=7,tcp"]);
    client.ok(&["del-flows", "br0", "table=9"]);
    assert_eq!(client.flows(&[]), ["ip actions=drop"]);
}

#[test]
fn refusals_are_named() {
    let Some(client) = Client::start() else { return };
    client.ok(&["del-flows", "br0"]);
    client.refused(&["add-flow", "br0", "table=254,actions=drop"], "OFPBRC_EPERM");
    client.refused(&["add-flow", "br0", "ip,actions=ct(commit,nat(src=10.0.0.1))"], "OFPBAC_BAD_TYPE");
    client.ok(&["add-flow", "br0", "priority=5,ip,actions=1"]);
    client.refused(&["add-flow", "br0", "check_overlap,priority=5,in_port=1,actions=2"], "OFPFMFC_OVERLAP");
    client
        .refused(&["add-flow", "br0", "ct_state=+trk,ip,ct_nw_src=10.0.0.1,actions=2"], "OFPBMC_BAD_PREREQ");
    client.0.with(|_, rules| rules.capacity = 1);
    client.refused(&["add-flow", "br0", "arp,actions=1"], "OFPFMFC_TABLE_FULL");
    assert_eq!(client.flows(&[]), ["priority=5,ip actions=output:1"]);
    let (status, _, _) = client.run(&["-O", "OpenFlow13", "dump-flows", "br0"]);
    assert_eq!(status, Some(1));
}

#[test]
fn names() {
    let Some(client) = Client::start() else { return };
    client.ok(&["del-flows", "br0"]);
    client.ok(&["add-flow", "br0", "in_port=veth_l0,actions=veth_r0"]);
    let printed = client.ok(&["--names", "--no-stats", "dump-flows", "br0"]);
    assert_eq!(printed.trim(), "in_port=\"veth_l0\" actions=output:\"veth_r0\"");
}

#[test]
fn show() {
    let Some(client) = Client::start() else { return };
    let printed = client.ok(&["show", "br0"]);
    let expected = "\
OFPT_FEATURES_REPLY (xid=0x2): dpid:00006a58e7951746
n_tables:254, n_buffers:0
capabilities: FLOW_STATS TABLE_STATS PORT_STATS QUEUE_STATS ARP_MATCH_IP
actions: output enqueue set_vlan_vid set_vlan_pcp strip_vlan mod_dl_src mod_dl_dst mod_nw_src mod_nw_dst mod_nw_tos mod_tp_src mod_tp_dst
 1(veth_l0): addr:02:00:00:00:00:01
     config:     0
     state:      0
     current:    10GB-FD COPPER
     speed: 10000 Mbps now, 0 Mbps max
 2(veth_r0): addr:02:00:00:00:00:02
     config:     0
     state:      0
     current:    10GB-FD COPPER
     speed: 10000 Mbps now, 0 Mbps max
 LOCAL(br0): addr:02:00:00:00:00:fe
     config:     0
     state:      0
     speed: 0 Mbps now, 0 Mbps max
OFPT_GET_CONFIG_REPLY (xid=0x4): frags=normal miss_send_len=0
";
    assert_eq!(printed, expected);
}

#[test]
fn ports_and_tables() {
    let Some(client) = Client::start() else { return };
    let one = client.ok(&["dump-ports", "br0", "1"]);
    let expected = "\
OFPST_PORT reply (xid=0x2): 1 ports
  port  1: rx pkts=1, bytes=10, drop=3, errs=0, frame=0, over=0, crc=0
           tx pkts=2, bytes=3, drop=0, errs=0, coll=0
";
    assert_eq!(one, expected);
    let all = client.ok(&["dump-ports", "br0"]);
    let order: Vec<&str> =
        all.lines().filter_map(|line| line.split_once(": rx").map(|(port, _)| port.trim())).collect();
    assert_eq!(order, ["port LOCAL", "port  1", "port  2"]);
    assert!(client.ok(&["dump-ports", "br0", "9"]).ends_with(": 0 ports\n"));

    let tables = client.ok(&["dump-tables", "br0"]);
    let expected = "\
OFPST_TABLE reply (xid=0x2):
  table 0:
    active=1, lookup=10, matched=0
    max_entries=1000000
    matching:
      exact match or wildcard: in_port eth_{src,dst,type} vlan_{vid,pcp} ip_{src,dst} nw_{proto,tos} tcp_{src,dst}

  table 1:
    active=0, lookup=11, matched=1
";
    assert!(tables.starts_with(expected), "{tables}");
    assert!(client.ok(&["dump-desc", "br0"]).contains("\nHardware: eBPF/XDP\n"));
    assert!(client.ok(&["queue-stats", "br0"]).ends_with(": 0 queues\n"));
    client.ok(&["probe", "br0"]);
}

#[test]
fn many_flows_come_and_go() {
    let Some(client) = Client::start() else { return };
    client.ok(&["del-flows", "br0"]);
    client.0.with(|tables, rules| {
        let mods: Vec<FlowMod> =
            (0..5000).map(|i| FlowMod { priority: i, ..add(tcp(), output(1)) }).collect();
        assert!(tables.apply(rules, &mods, secs(0)).results.iter().all(Result::is_ok));
    });
    assert_eq!(client.flows(&[]).len(), 5000);
    assert!(client.ok(&["dump-aggregate", "br0"]).ends_with(" flow_count=5000\n"));
    let rare = client.ok(&["dump-flows", "br0", "udp"]);
    assert_eq!(rare.lines().count(), 1, "a filter leaves no empty parts: {rare}");
    client.ok(&["del-flows", "br0"]);
    assert_eq!(client.flows(&[]).len(), 0);
}
