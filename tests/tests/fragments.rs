//! Fragments through stateful flows: each belongs to the connection of its datagram, or to none.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tests::{
    lab::{Daemon, Lab},
    packet::{Ethernet, checksum},
    topology::{self, Datapath},
    wire::Wire,
};

const QUIET: Duration = Duration::from_millis(60);
/// How long a server may take to listen.
const START: Duration = Duration::from_secs(10);

/// Port 1 may begin, port 2 may answer; what is invalid comes out of port 3.
///
/// `udp6` does not match a later fragment before `ct`: its protocol is that of the fragment header, 44, as in OVS.
const FLOWS: &[&str] = &[
    "table=0,priority=1,arp,actions=NORMAL",
    "table=0,priority=50000,icmp6,actions=NORMAL",
    "table=0,ip,ct_state=-trk,actions=ct(table=1)",
    "table=0,ipv6,ct_state=-trk,actions=ct(table=1)",
    "table=1,in_port=1,ct_state=+trk+new,ip,actions=ct(commit),output:2",
    "table=1,in_port=1,ct_state=+trk+new,ipv6,actions=ct(commit),output:2",
    "table=1,in_port=1,ct_state=+trk+est,actions=output:2",
    "table=1,in_port=2,ct_state=+trk+est,actions=output:1",
    "table=1,ct_state=+trk+inv,actions=output:3",
];

struct World {
    lab: Lab,
    _switch: Daemon,
    wires: Vec<Wire>,
}

impl World {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let switch = lab.switchd(&[])?;
        let wires = topology::bridge(&lab, "br0", Datapath::Xdp, &["p1", "p2", "p3"])?;
        topology::replace_flows(&lab, "br0", FLOWS)?;
        Ok(Self { lab, _switch: switch, wires })
    }

    /// The port that a frame comes out of, unchanged; 0: it comes out of none.
    fn send(&self, port: usize, frame: &[u8]) -> Result<usize> {
        self.wires[port - 1].send(frame)?;
        let mut out = 0;
        for (index, wire) in self.wires.iter().enumerate() {
            for arrived in wire.drain(QUIET)? {
                assert_eq!((out, &arrived[..]), (0, frame));
                out = index + 1;
            }
        }
        Ok(out)
    }

    fn connections(&self) -> Result<Vec<String>> {
        let text = self.lab.ovs("appctl", &["dpctl/dump-conntrack"])?.ok()?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// A datagram of which 24 bytes fit into a fragment.
fn datagram(id: u16, ports: [u16; 2], back: bool) -> Result<Vec<u8>> {
    let (client, server) =
        (SocketAddr::from(([10, 0, 0, 1], ports[0])), SocketAddr::from(([10, 0, 0, 2], ports[1])));
    let (src, dst, ethernet) = match back {
        false => (client, server, Ethernet::default()),
        true => (server, client, Ethernet::default().reversed()),
    };
    let mut frame =
        ethernet.udp(src, dst, b"seventy-two bytes less eight are sixty-four bytes of such a payload.")?;
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    Ok(frame)
}

/// Bytes `from` to `to` of what is behind the IPv4 header, in multiples of 8 but for the end.
fn fragment(frame: &[u8], from: usize, to: usize) -> Vec<u8> {
    let end = frame.len() - 34;
    let to = to.min(end);
    let mut part = [&frame[..34], &frame[34 + from..34 + to]].concat();
    let total = (part.len() - 14) as u16;
    let position = (from / 8) as u16 | if to < end { 0x2000 } else { 0 };
    part[16..18].copy_from_slice(&total.to_be_bytes());
    part[20..22].copy_from_slice(&position.to_be_bytes());
    part[24..26].fill(0);
    let sum = checksum(&part[14..34]);
    part[24..26].copy_from_slice(&sum.to_be_bytes());
    part
}

#[test]
fn fragments_have_the_state_of_their_datagram() -> Result<()> {
    let world = World::new()?;
    let there = datagram(7, [1000, 53], false)?;
    for (from, to) in [(0, 24), (24, 48), (48, 99)] {
        assert_eq!(world.send(1, &fragment(&there, from, to))?, 2, "{from} to {to}");
    }
    assert_eq!(
        world.connections()?,
        [
            "udp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1000,dport=53),reply=(src=10.0.0.2,dst=10.0.0.1,sport=53,dport=1000)"
        ]
    );
    let back = datagram(9, [1000, 53], true)?;
    for (from, to) in [(0, 24), (24, 48), (48, 99)] {
        assert_eq!(world.send(2, &fragment(&back, from, to))?, 1, "{from} to {to}");
    }
    // The other side may not begin, neither with a whole datagram nor with parts of one.
    let other = datagram(10, [1001, 53], true)?;
    for (from, to) in [(0, 24), (24, 48), (48, 99)] {
        assert_eq!(world.send(2, &fragment(&other, from, to))? % 3, 0, "{from} to {to}");
    }
    assert_eq!(world.connections()?.len(), 1);
    Ok(())
}

#[test]
fn a_fragment_of_no_known_datagram_is_invalid() -> Result<()> {
    let world = World::new()?;
    let known = datagram(7, [1000, 53], false)?;
    assert_eq!(world.send(1, &fragment(&known, 0, 24))?, 2);
    // Another identification, another direction: other datagrams, whose beginning nobody has seen.
    for (port, other) in [(1, datagram(8, [1000, 53], false)?), (2, datagram(7, [1000, 53], true)?)] {
        assert_eq!(world.send(port, &fragment(&other, 24, 48))?, 3);
    }
    // And another protocol.
    let mut other = fragment(&known, 24, 48);
    other[23] = 132;
    other[24..26].fill(0);
    let sum = checksum(&other[14..34]);
    other[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(world.send(1, &other)?, 3);
    assert_eq!(world.send(1, &fragment(&known, 24, 99))?, 2);
    Ok(())
}

#[test]
fn overlapping_fragments_are_invalid() -> Result<()> {
    let world = World::new()?;
    let whole = datagram(7, [1000, 53], false)?;
    assert_eq!(world.send(1, &fragment(&whole, 0, 32))?, 2);
    // It would write over the end of the first one; over all of it; over its ports.
    assert_eq!(world.send(1, &fragment(&whole, 24, 48))?, 3);
    assert_eq!(world.send(1, &fragment(&whole, 8, 32))?, 3);
    // A second first fragment, with other ports, does not take the datagram over.
    let other = datagram(7, [4000, 53], false)?;
    assert_ne!(world.send(1, &fragment(&other, 0, 32))?, 1);
    assert!(world.connections()?.len() <= 2);
    Ok(())
}

#[test]
fn a_later_fragment_does_not_overtake_the_first() -> Result<()> {
    let world = World::new()?;
    let whole = datagram(7, [1000, 53], false)?;
    // Without the first one nobody knows whether it may pass.
    assert_ne!(world.send(1, &fragment(&whole, 24, 48))?, 2);
    assert_eq!(world.connections()?, Vec::<String>::new());
    // A datagram that is sent again, in order, passes.
    let again = datagram(8, [1000, 53], false)?;
    for (from, to) in [(0, 24), (24, 48), (48, 99)] {
        assert_eq!(world.send(1, &fragment(&again, from, to))?, 2, "{from} to {to}");
    }
    Ok(())
}

/// Thousands of datagrams that never end do not keep others from passing, and make no connections.
#[test]
fn flows_see_the_ports_of_a_first_fragment_when_told() -> Result<()> {
    let world = World::new()?;
    let lab = &world.lab;
    let flows = ["priority=9,udp,tp_dst=53,actions=2", "priority=1,udp,actions=3"];
    topology::replace_flows(lab, "br0", &flows)?;
    let whole = datagram(7, [1000, 53], false)?;
    let first = fragment(&whole, 0, 24);
    let modes = || -> Result<[String; 2]> {
        Ok([
            lab.ovs("ofctl", &["get-frags", "br0"])?.ok()?,
            lab.debian("ovs-ofctl", &["get-frags", "br0"])?.ok()?,
        ])
    };
    assert_eq!(modes()?, ["normal\n"; 2]);
    assert_eq!((world.send(1, &whole)?, world.send(1, &first)?), (2, 3));

    lab.debian("ovs-ofctl", &["set-frags", "br0", "nx-match"])?.ok()?;
    assert_eq!(modes()?, ["nx-match\n"; 2]);
    assert_eq!((world.send(1, &whole)?, world.send(1, &first)?), (2, 2));

    let refused = lab.ovs("ofctl", &["set-frags", "br0", "drop"])?;
    assert_eq!(refused.code, 1);
    let words =
        "br0: setting fragment handling mode failed (this switch probably doesn't support mode \"drop\")";
    assert!(refused.stderr.contains(words), "{refused}");
    assert_eq!(world.send(1, &first)?, 2, "nothing has changed");

    // Another bridge, with the number in the datapath that the first one had.
    lab.ovs("vsctl", &["del-br", "br0", "--", "add-br", "br0", "--", "add-port", "br0", "p1"])?.ok()?;
    lab.ovs("vsctl", &["add-port", "br0", "p2", "--", "add-port", "br0", "p3"])?.ok()?;
    topology::replace_flows(lab, "br0", &flows)?;
    assert_eq!(modes()?, ["normal\n"; 2]);
    assert_eq!(world.send(1, &first)?, 3);
    lab.ovs("ofctl", &["set-frags", "br0", "nx-match"])?.ok()?;
    assert_eq!(world.send(1, &first)?, 2);
    lab.ovs("ofctl", &["set-frags", "br0", "normal"])?.ok()?;
    assert_eq!(world.send(1, &first)?, 3);
    Ok(())
}

#[test]
fn a_flood_of_fragments_leaves_room_for_others() -> Result<()> {
    let world = World::new()?;
    let attack = datagram(0, [6666, 53], true)?;
    for id in 0..20_000u16 {
        let mut part = fragment(&attack, if id % 2 == 0 { 0 } else { 24 }, 48);
        part[18..20].copy_from_slice(&id.to_be_bytes());
        part[24..26].fill(0);
        let sum = checksum(&part[14..34]);
        part[24..26].copy_from_slice(&sum.to_be_bytes());
        world.wires[1].send(&part)?;
    }
    for wire in &world.wires {
        wire.drain(QUIET)?;
    }
    assert_eq!(world.connections()?, Vec::<String>::new());
    let whole = datagram(7, [1000, 53], false)?;
    for (from, to) in [(0, 24), (24, 48), (48, 99)] {
        assert_eq!(world.send(1, &fragment(&whole, from, to))?, 2, "{from} to {to}");
    }
    Ok(())
}

/// Echoes datagrams of 8 KiB, which take six frames.
const SERVER: &str = r#"
import socket, sys
server = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
while True:
    data, peer = server.recvfrom(9000)
    server.sendto(data[::-1], peer)
"#;
const CLIENT: &str = r#"
import os, socket, sys
client = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(5)
client.connect((sys.argv[1], 53))
for _ in range(20):
    data = os.urandom(8192)
    client.send(data)
    assert client.recv(9000) == data[::-1]
print("whole")
"#;

fn sockets(addresses: [&str; 2], length: u8) -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    lab.ovs("vsctl", &["add-br", "br0"])?.ok()?;
    let mut hosts = Vec::new();
    for (name, address) in ["left", "right"].into_iter().zip(addresses) {
        let host = lab.netns(name)?;
        let port = format!("{name}0");
        lab.veth(&port, "eth0", Some(&host))?;
        host.exec("ip", &["addr", "add", &format!("{address}/{length}"), "dev", "eth0"])?.ok()?;
        lab.ovs("vsctl", &["add-port", "br0", &port])?.ok()?;
        hosts.push(host);
    }
    topology::replace_flows(&lab, "br0", FLOWS)?;
    let _server = hosts[1].spawn("python3", &["-c", SERVER, addresses[1]])?;
    let deadline = Instant::now() + START;
    while hosts[1].exec("ss", &["-Hlun", "sport = :53"])?.ok()?.is_empty() {
        if Instant::now() > deadline {
            bail!("the server does not listen");
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(hosts[0].exec("python3", &["-c", CLIENT, addresses[1]])?.ok()?, "whole\n");
    Ok(())
}

#[test]
fn ipv4_sockets_exchange_large_datagrams() -> Result<()> {
    sockets(["10.0.0.1", "10.0.0.2"], 24)
}

#[test]
fn ipv6_sockets_exchange_large_datagrams() -> Result<()> {
    sockets(["fd00::1", "fd00::2"], 64)
}
