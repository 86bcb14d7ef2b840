//! Bridges and ports: learning, flooding, coming and going.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use tests::{
    lab::Lab,
    packet::{Echo, Ethernet},
    topology::{self, Datapath},
    tutorial::{self, PLAIN_FLOWS, STEPS},
    wire::Wire,
};

const SOON: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_millis(100);

/// An XDP bridge and the far ends of its cables.
fn bridge(lab: &Lab, name: &str, ports: &[&str]) -> Result<Vec<Wire>> {
    topology::bridge(lab, name, Datapath::Xdp, ports)
}

/// Whose cables a frame comes out of.
fn arrivals(wires: &[Wire], frame: &[u8]) -> Result<Vec<bool>> {
    wires.iter().map(|wire| wire.sees(frame, QUIET)).collect()
}

fn ping(ethernet: &Ethernet) -> Result<Vec<u8>> {
    let host = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
    ethernet.echo((host(1), host(2)), Echo::Request, (7, 1), b"payload")
}

#[test]
fn normal_floods_until_it_has_learned() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let wires = bridge(&lab, "br0", &["p1", "p2", "p3"])?;
    let there = Ethernet::default();
    let frame = ping(&there)?;
    wires[0].send(&frame)?;
    assert_eq!(arrivals(&wires, &frame)?, [false, true, true], "nobody knows the destination yet");

    let back = ping(&there.reversed())?;
    wires[1].send(&back)?;
    assert_eq!(arrivals(&wires, &back)?, [true, false, false], "the sender was learned");
    wires[0].send(&frame)?;
    assert_eq!(arrivals(&wires, &frame)?, [false, true, false], "and so was the answerer");

    let fdb = lab.ovs("appctl", &["fdb/show", "br0"])?.ok()?;
    for (port, mac) in [("1", "02:00:00:00:00:01"), ("2", "02:00:00:00:00:02")] {
        let known = fdb.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>());
        assert_eq!(known.filter(|words| *words == [port, "0", mac]).count(), 1, "{fdb}");
    }
    lab.ovs("appctl", &["fdb/flush", "br0"])?.ok()?;
    wires[0].send(&frame)?;
    assert_eq!(arrivals(&wires, &frame)?, [false, true, true], "flushed");
    Ok(())
}

#[test]
fn tags_pass_unchanged_and_keep_vlans_apart() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let wires = bridge(&lab, "br0", &["p1", "p2", "p3"])?;
    let tagged = |vlan| Ethernet { vlan, ..Ethernet::default() };
    let in_five = ping(&tagged(Some(0x2005)))?;
    wires[0].send(&in_five)?;
    assert_eq!(arrivals(&wires, &in_five)?, [false, true, true]);
    let answer = ping(&tagged(Some(6)).reversed())?;
    wires[1].send(&answer)?;
    assert_eq!(arrivals(&wires, &answer)?, [true, false, true], "learned in VLAN 5, not in 6");
    Ok(())
}

#[test]
fn each_port_gets_its_own_bytes() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let wires = bridge(&lab, "br0", &["p1", "p2", "p3"])?;
    let flow = "in_port=p1,actions=output:2,mod_dl_src:02:00:00:00:00:09,output:3,IN_PORT";
    tutorial::replace_flows(&lab, &[flow])?;
    let before = ping(&Ethernet::default())?;
    let after = ping(&Ethernet { src: [2, 0, 0, 0, 0, 9], ..Ethernet::default() })?;
    wires[0].send(&before)?;
    assert_eq!(wires[1].recv(SOON)?.as_ref(), Some(&before));
    assert_eq!(wires[2].recv(SOON)?.as_ref(), Some(&after));
    assert_eq!(wires[0].recv(SOON)?.as_ref(), Some(&after));
    for wire in &wires {
        assert_eq!(wire.recv(QUIET)?, None);
    }
    Ok(())
}

#[test]
fn bridges_do_not_meet() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let (one, two) = (bridge(&lab, "br0", &["p1", "p2"])?, bridge(&lab, "br1", &["q1", "q2"])?);
    let frame = Ethernet { dst: [0xff; 6], ..Ethernet::default() }
        .arp_request(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    one[0].send(&frame)?;
    assert_eq!(arrivals(&one, &frame)?, [false, true]);
    assert_eq!(arrivals(&two, &frame)?, [false, false]);
    assert_eq!(lab.ovs("vsctl", &["list-br"])?.ok()?, "br0\nbr1\n");
    assert_eq!(lab.ovs("vsctl", &["list-ports", "br1"])?.ok()?, "q1\nq2\n");
    assert_eq!(lab.ovs("vsctl", &["port-to-br", "q2"])?.ok()?, "br1\n");

    lab.ovs("vsctl", &["del-br", "br1"])?.ok()?;
    two[0].send(&frame)?;
    assert_eq!(arrivals(&two, &frame)?, [false, false]);
    assert_eq!(lab.ovs("vsctl", &["br-exists", "br1"])?.code, 2);
    Ok(())
}

/// As labs for OVS's userspace datapath set up their bridges.
#[test]
fn a_secure_bridge_has_no_flow_of_its_own() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.switchd(&[])?;
    let columns = ["datapath_type=netdev", "fail-mode=secure"];
    lab.ovs("vsctl", &[&["add-br", "br0", "--", "set", "Bridge", "br0"][..], &columns].concat())?.ok()?;
    let hosts = lab.netns("hosts")?;
    let mut wires = Vec::new();
    for port in ["p1", "p2"] {
        let peer = format!("{port}-peer");
        lab.veth(port, &peer, Some(&hosts))?;
        lab.ovs("vsctl", &["add-port", "br0", port])?.ok()?;
        wires.push(hosts.open_wire(&peer)?);
    }
    let frame = ping(&Ethernet::default())?;
    let passes = || -> Result<bool> {
        wires[0].send(&frame)?;
        wires[1].sees(&frame, QUIET)
    };
    let flows = || lab.debian("ovs-ofctl", &["dump-flows", "br0"])?.ok();
    assert_eq!(flows()?.lines().count(), 1, "the heading alone");
    assert!(!passes()?);

    lab.ovs("vsctl", &["set-fail-mode", "br0", "standalone"])?.ok()?;
    assert!(flows()?.contains("priority=0 actions=NORMAL"));
    assert!(passes()?);

    lab.ovs("ofctl", &["add-flow", "br0", "in_port=1,actions=2"])?.ok()?;
    lab.ovs("vsctl", &["set-fail-mode", "br0", "secure"])?.ok()?;
    assert_eq!(flows()?.lines().count(), 1, "flows go when the mode changes");
    assert!(!passes()?);
    lab.ovs("ofctl", &["add-flow", "br0", "in_port=1,actions=2"])?.ok()?;
    assert!(passes()?);

    assert!(switch.stop()?.success());
    let _switch = lab.switchd(&[])?;
    assert_eq!(flows()?.lines().count(), 1);
    assert_eq!(
        lab.ovs("vsctl", &["get", "bridge", "br0", "fail_mode", "datapath_type"])?.ok()?,
        "secure\nnetdev\n"
    );
    Ok(())
}

/// As OVS's own tests and many scripts make their hosts.
#[test]
fn a_peer_may_be_set_up_after_its_port_was_added() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    topology::add_bridge(&lab, "br0", Datapath::Xdp)?;
    let hosts = lab.netns("hosts")?;
    let mut wires = Vec::new();
    for (port, moved_late) in [("p1", false), ("p2", true)] {
        let peer = format!("{port}-peer");
        lab.exec("ip", &["link", "add", port, "type", "veth", "peer", &peer])?.ok()?;
        let moved = || lab.exec("ip", &["link", "set", &peer, "netns", hosts.name()])?.ok();
        if !moved_late {
            moved()?;
        }
        lab.exec("ip", &["link", "set", port, "up"])?.ok()?;
        lab.ovs("vsctl", &["add-port", "br0", port])?.ok()?;
        if moved_late {
            moved()?;
        }
        hosts.exec("ip", &["link", "set", &peer, "up"])?.ok()?;
        wires.push(hosts.open_wire(&peer)?);
    }
    topology::replace_flows(&lab, "br0", &["in_port=p1,actions=p2", "in_port=p2,actions=p1"])?;
    let frame = ping(&Ethernet::default())?;
    for [from, to] in [[0, 1], [1, 0]] {
        wires[from].send(&frame)?;
        assert!(wires[to].sees(&frame, SOON)?, "from {from}: {}", lab.ovs("vsctl", &["show"])?);
    }
    Ok(())
}

/// Without the offload the kernel drops every frame that is redirected to the host.
#[test]
fn a_host_that_turns_gro_off_is_reached_again() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.switchd(&[])?;
    let [left, right] = tutorial::set_up(&lab)?;
    tutorial::replace_flows(&lab, PLAIN_FLOWS)?;
    let (near, far) = (left.open_wire("veth_l1")?, right.open_wire("veth_r1")?);
    let frame = STEPS[0].frame()?;
    right.exec("ethtool", &["-K", "veth_r1", "gro", "off"])?.ok()?;
    near.send(&frame)?;
    assert!(!far.sees(&frame, QUIET)?);
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        near.send(&frame)?;
        if far.sees(&frame, QUIET)? {
            break;
        }
        assert!(Instant::now() < deadline, "{}", switch.log()?);
        thread::sleep(QUIET);
    }
    assert!(switch.log()?.contains("veth_r1 in right: rx-gro on"), "{}", switch.log()?);
    Ok(())
}

#[test]
fn a_veth_that_comes_back_is_served_again() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let [left, right] = tutorial::set_up(&lab)?;
    tutorial::replace_flows(&lab, PLAIN_FLOWS)?;
    lab.exec("ip", &["link", "del", "veth_l0"])?.ok()?;
    lab.veth("veth_l0", "veth_l1", Some(&left))?;
    let (near, far) = (left.open_wire("veth_l1")?, right.open_wire("veth_r1")?);
    let frame = STEPS[0].frame()?;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        near.send(&frame)?;
        if far.sees(&frame, QUIET)? {
            return Ok(());
        }
        assert!(Instant::now() < deadline, "{}", lab.ovs("vsctl", &["show"])?);
        thread::sleep(QUIET);
    }
}

/// Devices and ports have other places in the datapath when their numbers are high.
#[test]
fn high_numbers_of_devices_and_ports_are_served_as_well() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let hosts = lab.netns("hosts")?;
    for bridge in ["br0", "br1"] {
        topology::add_bridge(&lab, bridge, Datapath::Xdp)?;
    }
    let add = |bridge: &str, port: &str, number: &str| {
        let request = format!("ofport_request={number}");
        lab.ovs("vsctl", &["add-port", bridge, port, "--", "set", "interface", port, &request])?.ok()
    };
    let mut wires = Vec::new();
    for (port, index, number) in [("p1", "70001", "65000"), ("p2", "70002", "1024"), ("p3", "70003", "7")] {
        let peer = format!("{port}-peer");
        lab.exec("ip", &["link", "add", port, "index", index, "type", "veth", "peer", &peer])?.ok()?;
        lab.exec("ip", &["link", "set", port, "up"])?.ok()?;
        lab.exec("ip", &["link", "set", &peer, "netns", hosts.name()])?.ok()?;
        hosts.exec("ip", &["link", "set", &peer, "up"])?.ok()?;
        add("br0", port, number)?;
        wires.push(hosts.open_wire(&peer)?);
    }
    let frame = ping(&Ethernet::default())?;
    let sent_to = |flow: &str| -> Result<Vec<bool>> {
        topology::replace_flows(&lab, "br0", &[flow])?;
        wires[0].send(&frame)?;
        arrivals(&wires, &frame)
    };
    assert_eq!(sent_to("in_port=65000,actions=1024")?, [false, true, false], "by XDP");
    assert_eq!(sent_to("in_port=65000,actions=1024,7,IN_PORT")?, [true, true, true], "by tcx");
    assert_eq!(sent_to("in_port=7,actions=1024")?, [false, false, false], "from another port");

    lab.ovs("vsctl", &["del-port", "p2"])?.ok()?;
    assert_eq!(sent_to("in_port=65000,actions=1024")?, [false, false, false], "the port has gone");
    add("br1", "p2", "1024")?;
    assert_eq!(sent_to("in_port=65000,actions=1024")?, [false, false, false], "it is another bridge's now");
    topology::replace_flows(&lab, "br1", &["in_port=1024,actions=IN_PORT"])?;
    wires[1].send(&frame)?;
    assert_eq!(arrivals(&wires, &frame)?, [false, true, false], "which it serves");
    Ok(())
}
