//! Tables and actions: where packets go, what is counted, and why they are dropped.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tests::{
    dump,
    lab::{Daemon, Lab},
    packet::{Echo, Ethernet, seal},
    topology::{self, Datapath},
    wire::Wire,
};

const QUIET: Duration = Duration::from_millis(50);
const PORTS: [&str; 4] = ["p1", "p2", "p3", "p4"];

/// A switch with four ports.
struct World {
    lab: Lab,
    _switch: Daemon,
    wires: Vec<Wire>,
}

impl World {
    fn new(datapath: Datapath) -> Result<Self> {
        let lab = Lab::new()?;
        let switch = lab.switchd(&[])?;
        let wires = topology::bridge(&lab, "br0", datapath, &PORTS)?;
        Ok(Self { lab, _switch: switch, wires })
    }

    fn flows(&self, flows: &[&str]) -> Result<()> {
        topology::replace_flows(&self.lab, "br0", flows)
    }

    /// Sends a frame into port 1, and tells what comes out of each port.
    fn send(&self, frame: &[u8]) -> Result<Vec<Vec<Vec<u8>>>> {
        self.wires[0].send(frame)?;
        self.wires.iter().map(|wire| wire.drain(QUIET)).collect()
    }

    /// How often a frame that enters port 1 comes out of each port, unchanged.
    fn copies(&self, frame: &[u8]) -> Result<Vec<usize>> {
        let arrivals = self.send(frame)?;
        assert!(arrivals.iter().flatten().all(|arrived| arrived == frame), "{arrivals:02x?}");
        Ok(arrivals.iter().map(Vec::len).collect())
    }

    /// Reasons with dropped packets.
    fn drops(&self) -> Result<Vec<(String, u64)>> {
        let text = self.lab.ovs("appctl", &["dpctl/show", "-s"])?.ok()?;
        let drops = text.lines().filter_map(|line| line.trim().strip_prefix("drop ")?.split_once(": "));
        Ok(drops
            .map(|(reason, count)| Ok((reason.into(), count.parse().context("a count")?)))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect())
    }

    /// The reasons for which packets are dropped while a function runs.
    fn dropped(&self, work: impl FnOnce() -> Result<()>) -> Result<Vec<(String, u64)>> {
        let before = self.drops()?;
        work()?;
        let earlier = |reason: &str| before.iter().find(|(known, _)| known == reason).map_or(0, |(_, n)| *n);
        let after = self.drops()?.into_iter().map(|(reason, n)| {
            let n = n - earlier(&reason);
            (reason, n)
        });
        Ok(after.filter(|(_, n)| *n > 0).collect())
    }

    /// Packet counters of flows, by their text behind the statistics.
    fn packets(&self, rule: &str) -> Result<u64> {
        let dump = self.lab.ovs("ofctl", &["dump-flows", "br0"])?.ok()?;
        let flow = dump::flows(&dump).into_iter().find(|flow| flow.rule == rule);
        Ok(flow.with_context(|| format!("no flow {rule:?} in\n{dump}"))?.packets)
    }
}

fn frame() -> Result<Vec<u8>> {
    let host = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
    Ethernet::default().echo((host(1), host(2)), Echo::Request, (7, 1), b"payload")
}

fn reserved_ports(datapath: Datapath) -> Result<()> {
    let world = World::new(datapath)?;
    let frame = frame()?;
    for (actions, copies) in [
        ("ALL", [0, 1, 1, 1]),
        ("FLOOD", [0, 1, 1, 1]),
        ("NORMAL", [0, 1, 1, 1]),
        ("IN_PORT", [1, 0, 0, 0]),
        ("IN_PORT,ALL", [1, 1, 1, 1]),
        ("output:2", [0, 1, 0, 0]),
        ("output:2,output:3", [0, 1, 1, 0]),
        ("FLOOD,output:2", [0, 2, 1, 1]),
        ("output:2,FLOOD", [0, 2, 1, 1]),
        ("p4,p3,p4", [0, 0, 1, 2]),
        ("load:3->NXM_NX_REG1[],output:NXM_NX_REG1[]", [0, 0, 1, 0]),
        ("output:9,output:3", [0, 0, 1, 0]),
    ] {
        world.flows(&[&format!("actions={actions}")])?;
        assert_eq!(world.copies(&frame)?, copies, "{actions}");
    }
    for (actions, reason) in [
        ("drop", "flow"),
        ("output:1", "input_port"),
        ("output:9", "no_such_port"),
        ("LOCAL", "no_such_port"),
        ("load:0xffff->NXM_NX_REG1[],output:NXM_NX_REG1[]", "no_such_port"),
        ("load:0x1ffff->NXM_NX_REG1[],output:NXM_NX_REG1[]", "no_such_port"),
    ] {
        world.flows(&[&format!("actions={actions}")])?;
        let dropped = world.dropped(|| {
            assert_eq!(world.copies(&frame)?, [0; 4], "{actions}");
            Ok(())
        })?;
        assert_eq!(dropped, [(reason.to_owned(), 1)], "{actions}");
    }
    world.flows(&["in_port=2,actions=output:1"])?;
    let dropped = world.dropped(|| world.send(&frame).map(drop))?;
    assert_eq!(dropped, [("no_match".to_owned(), 1)]);
    Ok(())
}

#[test]
fn reserved_ports_by_xdp() -> Result<()> {
    reserved_ports(Datapath::Xdp)
}

#[test]
fn reserved_ports_by_tc() -> Result<()> {
    reserved_ports(Datapath::Tc)
}

fn own_bytes(datapath: Datapath) -> Result<()> {
    let world = World::new(datapath)?;
    let original = frame()?;
    let with = |changes: &[(usize, &[u8])]| {
        let mut frame = original.clone();
        for (at, bytes) in changes {
            frame[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        seal(&mut frame);
        frame
    };
    // Changes add up from one output to the next, and back again.
    world.flows(&[
        "icmp,actions=mod_nw_src:1.1.1.1,output:2,mod_nw_dst:2.2.2.2,output:3,mod_nw_src:10.0.0.1,mod_nw_ttl:3,IN_PORT,mod_nw_dst:10.0.0.2,mod_nw_ttl:64,output:4",
    ])?;
    let once = with(&[(26, &[1, 1, 1, 1])]);
    let twice = with(&[(26, &[1, 1, 1, 1, 2, 2, 2, 2])]);
    let third = with(&[(22, &[3]), (30, &[2, 2, 2, 2])]);
    assert_eq!(world.send(&original)?, [vec![third], vec![once], vec![twice], vec![original.clone()]]);

    // A clone's changes stay inside; a tag comes and goes.
    world.flows(&[
        "icmp,actions=clone(mod_nw_src:1.1.1.1,mod_vlan_vid:5,output:2),output:3,mod_vlan_vid:6,output:4,strip_vlan,IN_PORT",
    ])?;
    let tagged = |vid: u8, frame: &[u8]| {
        let mut frame = frame.to_vec();
        frame.splice(12..12, [0x81, 0, 0, vid]);
        frame
    };
    let cloned = tagged(5, &with(&[(26, &[1, 1, 1, 1])]));
    assert_eq!(
        world.send(&original)?,
        [vec![original.clone()], vec![cloned], vec![original.clone()], vec![tagged(6, &original)]]
    );
    Ok(())
}

#[test]
fn own_bytes_by_xdp() -> Result<()> {
    own_bytes(Datapath::Xdp)
}

#[test]
fn own_bytes_by_tc() -> Result<()> {
    own_bytes(Datapath::Tc)
}

#[test]
fn tables_are_chained() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    let frame = frame()?;
    for (flows, copies) in [
        // Comes back, and registers stay.
        (
            &[
                "actions=resubmit(,1),resubmit(,2)",
                "table=1,actions=load:1->NXM_NX_REG0[],output:2",
                "table=2,reg0=1,actions=output:3",
            ][..],
            [0, 1, 1, 0],
        ),
        // Nothing that a table does not know goes further than back.
        (&["actions=resubmit(,1),output:4", "table=1,udp,actions=output:2"], [0, 0, 0, 1]),
        // The port of entry of the look-up alone: port 1 is still where the packet came from.
        (
            &[
                "actions=resubmit(3,1)",
                "table=1,in_port=3,actions=FLOOD,resubmit(,2)",
                "table=2,in_port=1,actions=output:2",
            ],
            [0, 2, 1, 1],
        ),
        (
            &[
                "actions=set_field:0x5->metadata,resubmit(,7)",
                "table=7,metadata=0x5/0xf,actions=resubmit(,253)",
                "table=253,actions=output:4",
            ],
            [0, 0, 0, 1],
        ),
        // Later tables see what earlier actions made of the packet.
        (
            &[
                "icmp,actions=mod_nw_src:10.0.0.9,resubmit(,1),mod_nw_src:10.0.0.1,output:2",
                "table=1,ip,nw_src=10.0.0.9,actions=load:1->NXM_NX_REG0[]",
            ],
            [0, 1, 0, 0],
        ),
        // The highest priority wins, over several masks.
        (
            &[
                "priority=1,actions=output:2",
                "priority=3,ip,nw_src=10.0.0.0/8,actions=output:3",
                "priority=2,icmp,nw_src=10.0.0.1,actions=output:4",
            ],
            [0, 0, 1, 0],
        ),
    ] {
        world.flows(flows)?;
        assert_eq!(world.copies(&frame)?, copies, "{flows:?}");
    }
    Ok(())
}

#[test]
fn endless_pipelines_are_cut() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    let frame = frame()?;
    // Nothing at all leaves, as in OVS.
    let limit = [("resubmit_limit".to_owned(), 1)];
    world.flows(&[
        "priority=2,reg0=0,actions=load:1->NXM_NX_REG0[],output:2,resubmit(,0)",
        "priority=1,actions=resubmit(,0)",
    ])?;
    let deep = world.dropped(|| {
        assert_eq!(world.copies(&frame)?, [0; 4]);
        Ok(())
    })?;
    assert_eq!(deep, limit);

    // Not deep but broad: each table looks twice into the next.
    let flows: Vec<_> =
        (1..14).map(|n| format!("table={n},actions=resubmit(,{0}),resubmit(,{0})", n + 1)).collect();
    let mut flows: Vec<_> = flows.iter().map(String::as_str).collect();
    flows.push("priority=1,in_port=1,actions=output:2,resubmit(,1)");
    world.flows(&flows)?;
    let broad = world.dropped(|| {
        assert_eq!(world.copies(&frame)?, [0; 4]);
        Ok(())
    })?;
    assert_eq!(broad, limit);

    // Once as it came, and six times behind a ct.
    world.flows(&["ip,actions=ct(table=0)"])?;
    let again = world.dropped(|| world.send(&frame).map(drop))?;
    assert_eq!(again, [("recirculation_limit".to_owned(), 1)]);
    assert_eq!(world.packets("ip actions=ct(table=0)")?, 7);

    // The switch is none the worse for it.
    world.flows(&["actions=output:2"])?;
    assert_eq!(world.copies(&frame)?, [0, 1, 0, 0]);
    Ok(())
}

#[test]
fn a_ct_with_more_behind_it_forks() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    let frame = frame()?;
    world.flows(&[
        "ip,actions=ct(table=1),output:2",
        "table=1,ct_state=+trk+new,ip,actions=output:3,mod_nw_ttl:9,output:4",
    ])?;
    let mut late = frame.clone();
    late[22] = 9;
    seal(&mut late);
    assert_eq!(world.send(&frame)?, [vec![], vec![frame.clone()], vec![frame.clone()], vec![late]]);
    // Behind the ct the original knows nothing of it.
    world.flows(&[
        "table=0,ip,actions=ct(table=1),resubmit(,2)",
        "table=1,ct_state=+trk,ip,actions=output:3",
        "table=2,ct_state=+trk,ip,actions=output:2",
        "table=2,ct_state=-trk,ip,actions=output:4",
    ])?;
    assert_eq!(world.copies(&frame)?, [0, 0, 1, 1]);
    Ok(())
}

/// Each table doubles the copies that wait to go on.
fn doubling(tables: u32) -> Vec<String> {
    let last = format!("table={tables},actions=output:2");
    let more = |table| format!("table={table},icmp,actions=ct(table={0}),ct(table={0})", table + 1);
    (0..tables).map(more).chain([last]).collect()
}

#[test]
fn forks_fork() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    let frame = frame()?;
    let set = |tables| world.flows(&doubling(tables).iter().map(String::as_str).collect::<Vec<_>>());
    for tables in 1..=4 {
        set(tables)?;
        assert_eq!(world.copies(&frame)?, [0, 1 << tables, 0, 0], "{tables}");
    }
    // Each that is put out counts as a differing copy.
    set(5)?;
    let dropped = world.dropped(|| {
        assert_eq!(world.copies(&frame)?, [0, 16, 0, 0]);
        Ok(())
    })?;
    assert_eq!(dropped, [("output_limit".into(), 16)]);
    Ok(())
}

/// Of a frame whose tag tcx finds beside it, and counts nevertheless.
fn exact_counters(datapath: Datapath) -> Result<()> {
    let world = World::new(datapath)?;
    let mut frame = frame()?;
    frame.splice(12..12, [0x81, 0, 0, 5]);
    world.flows(&["table=0,icmp,actions=resubmit(,1)", "table=1,actions=output:2,output:3"])?;
    for _ in 0..20 {
        world.wires[0].send(&frame)?;
    }
    let length = frame.len() as u64;
    assert_eq!(world.wires[1].drain(QUIET)?.len(), 20);
    let dump = world.lab.ovs("ofctl", &["dump-flows", "br0"])?.ok()?;
    for flow in dump::flows(&dump) {
        assert_eq!((flow.packets, flow.bytes), (20, 20 * length), "{dump}");
    }
    let ports = world.lab.debian("ovs-ofctl", &["dump-ports", "br0"])?.ok()?;
    let ports: Vec<_> = ports.lines().collect();
    for (port, rx, tx) in [("1", 20, 0), ("2", 0, 20), ("3", 0, 20), ("4", 0, 0)] {
        let at = ports.iter().position(|line| line.trim().starts_with(&format!("port  {port}:")));
        let at = at.with_context(|| format!("no port {port} in {ports:#?}"))?;
        for (line, way, packets) in [(ports[at], "rx", rx), (ports[at + 1], "tx", tx)] {
            let wanted = format!("{way} pkts={packets}, bytes={},", packets * length);
            assert!(line.contains(&wanted), "no {wanted:?} in {line:?}");
        }
    }
    Ok(())
}

#[test]
fn counters_are_exact() -> Result<()> {
    exact_counters(Datapath::Xdp)
}

#[test]
fn counters_are_exact_by_tc() -> Result<()> {
    exact_counters(Datapath::Tc)
}

/// Look-ups and matches of table 0.
fn look_ups(lab: &Lab, bridge: &str) -> Result<String> {
    let tables = lab.ovs("ofctl", &["dump-tables", bridge])?.ok()?;
    let line = tables.lines().find(|line| line.contains("lookup=")).context("no table")?;
    Ok(line.trim().to_owned())
}

#[test]
fn a_bridge_does_not_go_on_with_the_table_counters_of_another() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    for _ in 0..3 {
        world.copies(&frame()?)?;
    }
    assert_eq!(look_ups(&world.lab, "br0")?, "active=1, lookup=3, matched=3");
    world.lab.ovs("vsctl", &["del-br", "br0"])?.ok()?;
    // It gets the number in the datapath that is free again.
    world.lab.ovs("vsctl", &["add-br", "br1", "--", "add-port", "br1", "p1"])?.ok()?;
    assert_eq!(look_ups(&world.lab, "br1")?, "active=1, lookup=0, matched=0");
    world.wires[0].send(&frame()?)?;
    assert!(world.wires[0].drain(QUIET)?.is_empty());
    assert_eq!(look_ups(&world.lab, "br1")?, "active=1, lookup=1, matched=1");
    Ok(())
}

#[test]
fn flows_time_out() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    let frame = frame()?;
    world.flows(&[
        "priority=1,actions=output:2",
        "priority=2,idle_timeout=2,icmp,actions=output:3",
        "priority=3,hard_timeout=1,udp,actions=output:4",
        "priority=4,idle_timeout=1,tcp,actions=output:4",
    ])?;
    let left = || -> Result<Vec<String>> {
        let dump = world.lab.ovs("ofctl", &["--no-stats", "dump-flows", "br0"])?.ok()?;
        Ok(dump.lines().filter(|line| line.contains("actions=")).map(str::to_owned).collect())
    };
    // Traffic keeps a flow alive, and time alone ends the others.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        assert_eq!(world.copies(&frame)?, [0, 0, 1, 0], "after {:?}", start.elapsed());
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(left()?.len(), 2, "{:?}", left()?);
    thread::sleep(Duration::from_secs(4));
    assert_eq!(left()?.len(), 1, "{:?}", left()?);
    assert_eq!(world.copies(&frame)?, [0, 1, 0, 0]);
    Ok(())
}

#[test]
fn cookies_select_flows() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    let ofctl = |args: &[&str]| world.lab.debian("ovs-ofctl", args)?.ok();
    world.flows(&[
        "cookie=0x15,tcp,actions=output:2",
        "cookie=0x25,udp,actions=output:2",
        "cookie=0x16,icmp,actions=output:2",
    ])?;
    let rules = |text: String| -> Vec<String> {
        let mut rules: Vec<_> = dump::flows(&text).into_iter().map(|flow| flow.rule).collect();
        rules.sort();
        rules
    };
    let fives = rules(ofctl(&["dump-flows", "br0", "cookie=0x5/0xf"])?);
    assert_eq!(fives, ["tcp actions=output:2", "udp actions=output:2"]);
    ofctl(&["mod-flows", "br0", "cookie=0x15/-1,actions=output:3"])?;
    ofctl(&["del-flows", "br0", "cookie=0x20/0xf0"])?;
    let left = ofctl(&["dump-flows", "br0"])?;
    assert!(left.contains("cookie=0x16"), "{left}");
    assert_eq!(rules(left), ["icmp actions=output:2", "tcp actions=output:3"]);
    Ok(())
}

/// Ports of both kinds on one switch: the slower kind's frames arrive as well, each with its own bytes.
#[test]
fn xdp_and_tc_bridges_side_by_side() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    let others = topology::bridge(&world.lab, "br1", Datapath::Tc, &["q1", "q2", "q3"])?;
    let frame = frame()?;
    world.flows(&["actions=FLOOD"])?;
    topology::replace_flows(&world.lab, "br1", &["actions=output:2,mod_dl_src:02:00:00:00:00:09,output:3"])?;
    let other = Ethernet { src: [2, 0, 0, 0, 0, 9], ..Ethernet::default() };
    let host = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
    let changed = other.echo((host(1), host(2)), Echo::Request, (7, 1), b"payload")?;
    assert_eq!(world.copies(&frame)?, [0, 1, 1, 1]);
    others[0].send(&frame)?;
    let seen = others.iter().map(|wire| wire.drain(QUIET)).collect::<Result<Vec<_>>>()?;
    assert_eq!(seen, [vec![], vec![frame.clone()], vec![changed]]);
    assert_eq!(world.wires[1].drain(QUIET)?.len(), 0, "bridges do not meet");
    Ok(())
}

/// A port that XDP cannot serve well is served by tcx, and frames reach it from XDP ports, and back.
#[test]
fn a_port_that_cannot_be_prepared_is_served_by_tcx() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    // We still have it open, but nobody finds it any more.
    let hidden = world.lab.netns("hidden")?;
    world.lab.veth("p5", "p5-peer", Some(&hidden))?;
    world.lab.exec("ip", &["netns", "del", "hidden"])?.ok()?;
    world.lab.ovs("vsctl", &["add-port", "br0", "p5"])?.ok()?;
    let show = world.lab.ovs("vsctl", &["show"])?.ok()?;
    assert!(show.contains("hook: \"tcx: peer's namespace cannot be found\""), "{show}");
    let fifth = hidden.open_wire("p5-peer")?;
    let frame = frame()?;
    for (actions, copies, at_fifth) in [
        ("output:5", [0, 0, 0, 0], 1),
        ("output:5,output:2", [0, 1, 0, 0], 1),
        ("output:2,output:5", [0, 1, 0, 0], 1),
        ("FLOOD", [0, 1, 1, 1], 1),
    ] {
        world.flows(&[&format!("actions={actions}")])?;
        assert_eq!(world.copies(&frame)?, copies, "{actions}");
        assert_eq!(fifth.drain(QUIET)?, vec![frame.clone(); at_fifth], "{actions}");
    }
    world.flows(&["in_port=5,icmp,actions=output:1,mod_nw_ttl:9,output:2"])?;
    let mut late = frame.clone();
    late[22] = 9;
    seal(&mut late);
    fifth.send(&frame)?;
    assert_eq!(world.wires[0].drain(QUIET)?, [frame]);
    assert_eq!(world.wires[1].drain(QUIET)?, [late]);
    Ok(())
}
