//! The ct action beyond the tutorial: zones, marks and labels, force, ct_clear, original tuples, protocols.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use tests::{
    lab::{Daemon, Lab},
    packet::{
        Echo, Ethernet, Segment,
        flags::{ACK, SYN},
    },
    topology::{self, Datapath},
    wire::Wire,
};

const QUIET: Duration = Duration::from_millis(50);
const CLIENT: &str = "10.0.0.1:1000";
const SERVER: &str = "10.0.0.2:80";

struct World {
    lab: Lab,
    _switch: Daemon,
    wires: Vec<Wire>,
}

impl World {
    fn new(flows: &[&str]) -> Result<Self> {
        let lab = Lab::new()?;
        let switch = lab.switchd(&[])?;
        let wires = topology::bridge(&lab, "br0", Datapath::Xdp, &["p1", "p2", "p3", "p4"])?;
        topology::replace_flows(&lab, "br0", flows)?;
        Ok(Self { lab, _switch: switch, wires })
    }

    /// Sends a frame into a port, numbered from 1, and tells the ports that it comes out of, unchanged.
    fn send(&self, port: usize, frame: &[u8]) -> Result<Vec<usize>> {
        self.wires[port - 1].send(frame)?;
        let mut ports = Vec::new();
        for (index, wire) in self.wires.iter().enumerate() {
            for arrived in wire.drain(QUIET)? {
                assert_eq!(arrived, frame);
                ports.push(index + 1);
            }
        }
        Ok(ports)
    }

    fn connections(&self, options: &[&str]) -> Result<Vec<String>> {
        let args = [&["dpctl/dump-conntrack"], options].concat();
        let text = self.lab.ovs("appctl", &args)?.ok()?;
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }
}

fn ethernet() -> Ethernet {
    Ethernet::default()
}

fn tcp(from: &str, to: &str, flags: u8, (seq, ack): (u32, u32)) -> Result<Vec<u8>> {
    ethernet().tcp(&Segment { seq, ack, ..Segment::new(from.parse()?, to.parse()?, flags) })
}

/// The three segments that open a connection, and the ports that each enters.
fn handshake() -> Result<[(usize, Vec<u8>); 3]> {
    Ok([
        (1, tcp(CLIENT, SERVER, SYN, (100, 0))?),
        (2, tcp(SERVER, CLIENT, SYN | ACK, (200, 101))?),
        (1, tcp(CLIENT, SERVER, ACK, (101, 201))?),
    ])
}

/// A dump's line: protocol, tuples, and what follows them.
fn line(protocol: &str, from: &str, to: &str, rest: &str) -> Result<String> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse()?, to.parse()?);
    let (a, b, p, q) = (from.ip(), to.ip(), from.port(), to.port());
    Ok(format!(
        "{protocol},orig=(src={a},dst={b},sport={p},dport={q}),reply=(src={b},dst={a},sport={q},dport={p}){rest}"
    ))
}

#[test]
fn zones_are_worlds_of_their_own() -> Result<()> {
    let world = World::new(&[
        "table=0,in_port=1,tcp,actions=ct(commit,zone=5),ct(table=1,zone=5)",
        "table=0,in_port=3,tcp,actions=load:0x10007->NXM_NX_REG0[],ct(commit,zone=NXM_NX_REG0[0..15]),ct(table=1,zone=NXM_NX_REG0[0..15])",
        // A constant zone and no commit: nothing of it stays.
        "table=0,in_port=4,tcp,actions=ct(table=1,zone=65535)",
        "table=1,tcp,ct_zone=5,actions=output:2",
        "table=1,tcp,ct_zone=7,ct_state=+trk,actions=output:4",
        "table=1,tcp,ct_zone=65535,ct_state=+trk+new,actions=output:3",
    ])?;
    let syn = tcp(CLIENT, SERVER, SYN, (100, 0))?;
    assert_eq!(world.send(1, &syn)?, [2]);
    assert_eq!(world.send(3, &syn)?, [4]);
    assert_eq!(world.send(4, &syn)?, [3]);
    let of_zone = |zone| line("tcp", CLIENT, SERVER, &format!(",zone={zone},protoinfo=(state=SYN_SENT)"));
    assert_eq!(world.connections(&[])?, [of_zone(5)?, of_zone(7)?]);
    assert_eq!(world.connections(&["zone=7"])?, [of_zone(7)?]);
    assert_eq!(world.connections(&["zone=0"])?, Vec::<String>::new());
    world.lab.ovs("appctl", &["dpctl/flush-conntrack", "zone=5"])?.ok()?;
    assert_eq!(world.connections(&[])?, [of_zone(7)?]);
    Ok(())
}

#[test]
fn marks_and_labels() -> Result<()> {
    let world = World::new(&[
        "table=0,tcp,ct_state=-trk,actions=ct(table=1)",
        "table=1,in_port=1,tcp,ct_state=+trk+new,actions=ct(commit,exec(set_field:0x12345678->ct_mark,set_field:0x1000000000000000000000000000002f->ct_label)),output:2",
        "table=1,in_port=2,tcp,ct_state=+trk+est,ct_mark=0x12345678,ct_label=0x2f/0xff,actions=ct(commit,exec(set_field:0xab00/0xff00->ct_mark,set_field:0/0xf->ct_label)),output:1",
        "table=1,in_port=1,tcp,ct_state=+trk+est,ct_mark=0xab00/0xff00,ct_label=0x10000000000000000000000000000020,actions=load:0x99->NXM_NX_REG2[],ct(commit,exec(move:NXM_NX_REG2[]->NXM_NX_CT_MARK[],load:1->NXM_NX_CT_LABEL[64..65])),output:3",
    ])?;
    let steps = handshake()?;
    let marked =
        |mark: &str, state: &str| line("tcp", CLIENT, SERVER, &format!(",{mark},protoinfo=(state={state})"));
    for ((port, frame), comes_out, mark, state) in [
        (&steps[0], 2, "mark=305419896,labels=0x1000000000000000000000000000002f", "SYN_SENT"),
        // 0x1234ab78
        (&steps[1], 1, "mark=305441656,labels=0x10000000000000000000000000000020", "ESTABLISHED"),
        (&steps[2], 3, "mark=153,labels=0x10000000000000010000000000000020", "ESTABLISHED"),
    ] {
        assert_eq!(world.send(*port, frame)?, [comes_out], "{mark}");
        assert_eq!(world.connections(&[])?, [marked(mark, state)?]);
    }
    Ok(())
}

#[test]
fn without_commit_exec_is_refused() -> Result<()> {
    let world = World::new(&[])?;
    for (actions, error) in [
        ("ct(exec(set_field:1->ct_mark))", "OFPBAC_BAD_ARGUMENT"),
        ("ct(commit,exec(mod_nw_src:1.2.3.4))", "ct_mark"),
    ] {
        let output = world.lab.ovs("ovs-ofctl", &["add-flow", "br0", &format!("tcp,actions={actions}")])?;
        assert_eq!(output.code, 1, "{actions}: {output}");
        assert!(output.stderr.contains(error) || actions.contains("mod_nw"), "{actions}: {output}");
    }
    let count = world.lab.ovs("ovs-ofctl", &["dump-aggregate", "br0"])?.ok()?;
    assert!(count.ends_with("flow_count=0\n"), "{count}");
    Ok(())
}

#[test]
fn force_starts_anew_the_other_way() -> Result<()> {
    let world = World::new(&[
        "table=0,udp,actions=ct(table=1)",
        "table=1,in_port=1,udp,ct_state=+new,actions=ct(commit),output:2",
        "table=1,in_port=1,udp,ct_state=+est,actions=output:2",
        "table=1,in_port=2,udp,ct_state=+rpl,actions=ct(commit,force),output:1",
        "table=1,in_port=2,udp,ct_state=-rpl,actions=output:3",
    ])?;
    let there = ethernet().udp(CLIENT.parse()?, SERVER.parse()?, b"there")?;
    let back = ethernet().udp(SERVER.parse()?, CLIENT.parse()?, b"back")?;
    assert_eq!(world.send(1, &there)?, [2]);
    assert_eq!(world.connections(&[])?, [line("udp", CLIENT, SERVER, "")?]);
    assert_eq!(world.send(2, &back)?, [1]);
    assert_eq!(world.connections(&[])?, [line("udp", SERVER, CLIENT, "")?]);
    assert_eq!(world.send(2, &back)?, [3], "it is the original direction now");
    Ok(())
}

#[test]
fn ct_clear_forgets() -> Result<()> {
    let world = World::new(&[
        "table=0,tcp,ct_state=-trk,actions=ct(commit,zone=3,exec(set_field:1->ct_mark)),ct(zone=3,table=1)",
        "table=1,tcp,ct_state=+trk,ct_mark=1,actions=resubmit(,2),ct_clear,resubmit(,2)",
        "table=2,ct_state=+trk+new,tcp,ct_nw_src=10.0.0.1,actions=output:2",
        "table=2,ct_state=-trk,ct_mark=0,ct_zone=0,tcp,actions=output:3",
    ])?;
    assert_eq!(world.send(1, &tcp(CLIENT, SERVER, SYN, (100, 0))?)?, [2, 3]);
    Ok(())
}

#[test]
fn replies_know_the_original_tuple() -> Result<()> {
    let world = World::new(&[
        "table=0,ip,actions=ct(table=1)",
        "table=0,ipv6,actions=ct(table=1)",
        "table=1,in_port=1,ip,ct_state=+new,actions=ct(commit),output:2",
        "table=1,in_port=1,ipv6,ct_state=+new,actions=ct(commit),output:2",
        "table=1,in_port=2,ct_state=+trk+rpl,ip,ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=17,ct_tp_src=1000,ct_tp_dst=80,actions=output:1",
        "table=1,in_port=2,ct_state=+trk+rpl,ipv6,ct_ipv6_src=fd00::1,ct_ipv6_dst=fd00::2,ct_nw_proto=17,ct_tp_src=1000,ct_tp_dst=80,actions=output:1",
    ])?;
    for (from, to) in [(CLIENT, SERVER), ("[fd00::1]:1000", "[fd00::2]:80")] {
        let (from, to) = (from.parse()?, to.parse()?);
        assert_eq!(world.send(1, &ethernet().udp(from, to, b"there")?)?, [2]);
        assert_eq!(world.send(2, &ethernet().udp(to, from, b"back")?)?, [1], "{from}");
    }
    Ok(())
}

#[test]
fn pings_and_datagrams() -> Result<()> {
    let world = World::new(&[
        "table=0,ip,actions=ct(table=1)",
        "table=0,ipv6,actions=ct(table=1)",
        "table=1,in_port=1,ct_state=+trk+new,ip,actions=ct(commit),output:2",
        "table=1,in_port=1,ct_state=+trk+new,ipv6,actions=ct(commit),output:2",
        "table=1,in_port=1,ct_state=+trk+est,actions=output:3",
        "table=1,in_port=2,ct_state=+trk+est+rpl,actions=output:1",
        "table=1,ct_state=+trk+inv,actions=output:4",
    ])?;
    for (src, dst, connection) in [
        (
            "10.0.0.1",
            "10.0.0.2",
            "icmp,orig=(src=10.0.0.1,dst=10.0.0.2,id=7,type=8,code=0),reply=(src=10.0.0.2,dst=10.0.0.1,id=7,type=0,code=0)",
        ),
        (
            "fd00::1",
            "fd00::2",
            "icmpv6,orig=(src=fd00::1,dst=fd00::2,id=7,type=128,code=0),reply=(src=fd00::2,dst=fd00::1,id=7,type=129,code=0)",
        ),
    ] {
        let (src, dst) = (src.parse()?, dst.parse()?);
        let ask = ethernet().echo((src, dst), Echo::Request, (7, 1), b"odd")?;
        let answer = ethernet().echo((dst, src), Echo::Reply, (7, 1), b"odd")?;
        let stranger = ethernet().echo((dst, src), Echo::Reply, (8, 1), b"odd")?;
        assert_eq!(world.send(2, &answer)?, [4], "nobody has asked");
        assert_eq!(world.send(1, &ask)?, [2]);
        assert_eq!(world.connections(&[])?, [connection]);
        assert_eq!(world.send(2, &stranger)?, [4], "somebody else's");
        assert_eq!(world.send(2, &answer)?, [1]);
        assert_eq!(world.send(1, &ask)?, [3]);
        world.lab.ovs("appctl", &["dpctl/flush-conntrack"])?.ok()?;
    }
    for (from, to) in [(CLIENT, SERVER), ("[fd00::1]:1000", "[fd00::2]:80")] {
        let there = ethernet().udp(from.parse()?, to.parse()?, b"odd")?;
        let back = ethernet().udp(to.parse()?, from.parse()?, b"odd")?;
        assert_eq!(world.send(1, &there)?, [2]);
        assert_eq!(world.send(1, &there)?, [2], "new until it is answered");
        assert_eq!(world.send(2, &back)?, [1]);
        assert_eq!(world.send(1, &there)?, [3]);
        assert_eq!(world.connections(&[])?, [line("udp", from, to, "")?]);
        let mut wrong = there.clone();
        *wrong.last_mut().context("a payload")? ^= 1;
        assert_eq!(world.send(1, &wrong)?, [4]);
        world.lab.ovs("appctl", &["dpctl/flush-conntrack"])?.ok()?;
    }
    Ok(())
}

#[test]
fn several_zones_on_one_way() -> Result<()> {
    let world = World::new(&[
        "table=0,tcp,actions=ct(table=1,zone=1)",
        "table=1,tcp,ct_state=+new,ct_zone=1,actions=ct(commit,zone=1),ct(table=2,zone=2)",
        "table=1,tcp,ct_state=+est,ct_zone=1,actions=ct(table=2,zone=2)",
        "table=2,in_port=1,tcp,ct_state=+new,ct_zone=2,actions=ct(commit,zone=2,exec(set_field:9->ct_mark)),output:2",
        "table=2,in_port=1,tcp,ct_state=+est,ct_zone=2,ct_mark=9,actions=output:2",
        "table=2,in_port=2,tcp,ct_state=+est+rpl,ct_zone=2,ct_mark=9,actions=output:1",
    ])?;
    for (port, frame) in handshake()? {
        assert_eq!(world.send(port, &frame)?, [3 - port]);
    }
    assert_eq!(
        world.connections(&[])?,
        [
            line("tcp", CLIENT, SERVER, ",zone=1,protoinfo=(state=ESTABLISHED)")?,
            line("tcp", CLIENT, SERVER, ",zone=2,mark=9,protoinfo=(state=ESTABLISHED)")?,
        ]
    );
    Ok(())
}
