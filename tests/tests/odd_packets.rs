//! Packets out of the ordinary: tagged, in fragments, with options and extension headers, larger than usual, or
//! wrong. They are forwarded, dropped with a reason, or invalid, and never taken for what they are not.
#![allow(clippy::unwrap_used, reason = "a frame of a test that cannot be built is a failure of the test")]

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use etherparse::IpNumber;
use tests::{
    lab::{Daemon, Lab},
    netns::Netns,
    packet::{Ethernet, IPV4, IPV6, Segment, VLAN, checksum, flags, seal},
    topology::{self, Datapath},
    wire::Wire,
};

const QUIET: Duration = Duration::from_millis(60);
const JUMBO: &str = "9000";

/// Everything is tracked; what is good comes out of port 2, and what is not of port 3.
const SORTED: &[&str] = &[
    "ip,ct_state=-trk,actions=ct(table=1)",
    "ipv6,ct_state=-trk,actions=ct(table=1)",
    "table=1,ip,ct_state=+trk+new,actions=ct(commit),output:2",
    "table=1,ipv6,ct_state=+trk+new,actions=ct(commit),output:2",
    "table=1,ct_state=+trk+est,actions=output:2",
    "table=1,ct_state=+trk+inv,actions=output:3",
];

struct World {
    lab: Lab,
    switch: Daemon,
    hosts: Netns,
    wires: Vec<Wire>,
}

impl World {
    /// A bridge of three ports with room for jumbo frames.
    fn new(datapath: Datapath) -> Result<Self> {
        let lab = Lab::new()?;
        let switch = lab.switchd(&[])?;
        let wires = topology::bridge(&lab, "br0", datapath, &["p1", "p2", "p3"])?;
        let hosts = Netns::open("hosts-br0")?;
        for port in ["p1", "p2", "p3"] {
            hosts.exec("ip", &["link", "set", &format!("{port}-peer"), "mtu", JUMBO])?.ok()?;
            lab.exec("ip", &["link", "set", port, "mtu", JUMBO])?.ok()?;
        }
        topology::replace_flows(&lab, "br0", SORTED)?;
        Ok(Self { lab, switch, hosts, wires })
    }

    /// What comes out of ports 2 and 3 when a frame goes into port 1.
    fn send(&self, frame: &[u8]) -> Result<[Vec<Vec<u8>>; 2]> {
        self.wires[0].send(frame)?;
        Ok([self.wires[1].drain(QUIET)?, self.wires[2].drain(QUIET)?])
    }

    fn connections(&self) -> Result<Vec<String>> {
        let text = self.lab.ovs("appctl", &["dpctl/dump-conntrack"])?.ok()?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The frame is tracked, and its connection is the only one.
    fn is_tracked(&self, what: &str, frame: &[u8], connection: &str) -> Result<()> {
        assert_eq!(self.send(frame)?, [vec![frame.to_vec()], vec![]], "{what}");
        assert_eq!(self.connections()?, [connection], "{what}");
        self.lab.ovs("appctl", &["dpctl/flush-conntrack"])?.ok()?;
        Ok(())
    }

    /// The frame is invalid, and starts nothing.
    fn is_invalid(&self, what: &str, frame: &[u8]) -> Result<()> {
        assert_eq!(self.send(frame)?, [vec![], vec![frame.to_vec()]], "{what}");
        assert_eq!(self.connections()?, Vec::<String>::new(), "{what}");
        Ok(())
    }
}

const V4: [&str; 2] = ["10.0.0.1:1000", "10.0.0.2:80"];
const V6: [&str; 2] = ["[fd00::1]:1000", "[fd00::2]:80"];

fn segment(addresses: [&str; 2], payload: &[u8]) -> Result<Vec<u8>> {
    let [src, dst] = addresses;
    Ethernet::default().tcp(&Segment { payload, ..Segment::new(src.parse()?, dst.parse()?, flags::SYN) })
}

fn connection(addresses: [&str; 2]) -> Result<String> {
    let [src, dst]: [std::net::SocketAddr; 2] = [addresses[0].parse()?, addresses[1].parse()?];
    let (a, b, p, q) = (src.ip(), dst.ip(), src.port(), dst.port());
    Ok(format!(
        "tcp,orig=(src={a},dst={b},sport={p},dport={q}),reply=(src={b},dst={a},sport={q},dport={p}),protoinfo=(state=SYN_SENT)"
    ))
}

/// A frame with options in its IPv4 header, a multiple of four bytes.
fn with_options(frame: &[u8], options: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.splice(34..34, options.iter().copied());
    let words = 5 + options.len() / 4;
    frame[14] = 0x40 | words as u8;
    let total = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34 + options.len()]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// A frame with extension headers in front of its transport header: each with its own number, and without the
/// number of the next one in its first byte.
fn with_extensions(frame: &[u8], extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let mut at = 54;
    let mut field = 20;
    for (number, body) in extensions {
        let next = std::mem::replace(&mut frame[field], *number);
        frame.splice(at..at, [&[next], &body[..]].concat());
        (field, at) = (at, at + 1 + body.len());
    }
    let payload = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&payload.to_be_bytes());
    frame
}

/// Options that say nothing, of 8 * (1 + n) bytes in all.
fn padding(number: u8, n: u8) -> (u8, Vec<u8>) {
    let room = usize::from(n) * 8 + 4;
    let mut body = vec![n, 1, room as u8];
    body.resize(3 + room, 0);
    (number, body)
}

/// Part of an IPv4 packet: `from` and `to` count from the transport header on, in multiples of 8.
fn fragment(frame: &[u8], from: usize, to: usize) -> Vec<u8> {
    let more = to < frame.len() - 34;
    let to = to.min(frame.len() - 34);
    let mut part = [&frame[..34], &frame[34 + from..34 + to]].concat();
    let total = (part.len() - 14) as u16;
    let position = (from / 8) as u16 | if more { 0x2000 } else { 0 };
    part[16..18].copy_from_slice(&total.to_be_bytes());
    part[18..20].copy_from_slice(&[0x12, 0x34]);
    part[20..22].copy_from_slice(&position.to_be_bytes());
    part[24..26].fill(0);
    let sum = checksum(&part[14..34]);
    part[24..26].copy_from_slice(&sum.to_be_bytes());
    part
}

fn tracked_or_invalid(datapath: Datapath) -> Result<()> {
    let world = World::new(datapath)?;
    let (v4, v6) = (segment(V4, b"odd")?, segment(V6, b"odd")?);
    let (of_v4, of_v6) = (connection(V4)?, connection(V6)?);

    for length in [4, 8, 20, 40] {
        let frame = with_options(&v4, &vec![1; length]);
        world.is_tracked(&format!("{length} bytes of IP options"), &frame, &of_v4)?;
    }
    for (what, extensions) in [
        ("hop by hop", vec![padding(0, 0)]),
        ("large hop by hop", vec![padding(0, 30)]),
        ("several", vec![padding(0, 1), padding(60, 0), padding(43, 2), padding(60, 5)]),
    ] {
        world.is_tracked(what, &with_extensions(&v6, &extensions), &of_v6)?;
    }
    for tci in [5, 0x2064, 0xefff] {
        let [src, dst] = V4;
        let tagged = Ethernet { vlan: Some(tci), ..Ethernet::default() };
        let frame = tagged.tcp(&Segment::new(src.parse()?, dst.parse()?, flags::SYN))?;
        world.is_tracked(&format!("tag {tci:#x}"), &frame, &of_v4)?;
    }
    // Ethernet's padding is no payload.
    let padded = [&segment(V4, b"")?[..], &[0xaa; 6]].concat();
    world.is_tracked("padded", &padded, &of_v4)?;

    let (long_v4, long_v6) = (segment(V4, &[7; 64])?, segment(V6, &[7; 4])?);
    let first_v6 = with_extensions(&long_v6, &[(44, vec![0, 0, 1, 0, 0, 0, 8])]);
    world.is_tracked("first fragment", &fragment(&long_v4, 0, 40), &of_v4)?;
    world.is_tracked("first IPv6 fragment", &first_v6, &of_v6)?;

    let of_another = |mut frame: Vec<u8>| {
        frame[19] ^= 0xff;
        frame[24..26].fill(0);
        let sum = checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    for (what, frame) in [
        ("the same first fragment again", fragment(&long_v4, 0, 40)),
        ("tiny first fragment", of_another(fragment(&long_v4, 0, 8))),
        ("later fragment without the first", of_another(fragment(&long_v4, 40, 64))),
        ("last fragment without the first", of_another(fragment(&long_v4, 64, 1000))),
        ("first IPv6 fragment of 23 bytes", with_extensions(&v6, &[(44, vec![0, 0, 1, 0, 0, 0, 7])])),
        ("later IPv6 fragment without the first", with_extensions(&v6, &[(44, vec![0, 0, 8, 0, 0, 0, 7])])),
        ("nine extension headers", with_extensions(&v6, &vec![padding(60, 0); 9])),
        ("an extension header beyond the packet", with_extensions(&v6, &[(60, vec![200, 1, 4, 0, 0, 0, 0])])),
    ] {
        world.is_invalid(what, &frame)?;
    }
    // The header's checksum alone covers the hops and the identification.
    let wrong_at = [
        ("TCP checksum", 50),
        ("payload", 54),
        ("address", 29),
        ("header checksum", 24),
        ("hops", 22),
        ("id", 19),
    ];
    for (what, at) in wrong_at {
        for (options, shift) in [(&[][..], 0), (&[1; 40], if at < 34 { 0 } else { 40 })] {
            let mut frame = with_options(&v4, options);
            frame[at + shift] ^= 0xff;
            world.is_invalid(&format!("{what}, {} bytes of options", options.len()), &frame)?;
        }
    }
    let mut wrong = with_options(&v4, &[1; 12]);
    wrong[44] ^= 0xff;
    world.is_invalid("an option", &wrong)?;
    let mut wrong = of_another(fragment(&long_v4, 0, 40));
    wrong[24] ^= 0xff;
    world.is_invalid("header checksum of a fragment", &wrong)?;
    assert!(!world.switch.log()?.contains("panicked"), "{}", world.switch.log()?);
    Ok(())
}

#[test]
fn tracked_or_invalid_by_xdp() -> Result<()> {
    tracked_or_invalid(Datapath::Xdp)
}

#[test]
fn tracked_or_invalid_by_tc() -> Result<()> {
    tracked_or_invalid(Datapath::Tc)
}

fn jumbo(datapath: Datapath) -> Result<()> {
    let world = World::new(datapath)?;
    let (v4, v6) = (segment(V4, &[0x5a; 8001])?, segment(V6, &[0xa5; 8001])?);
    world.is_tracked("IPv4", &v4, &connection(V4)?)?;
    world.is_tracked("IPv6", &v6, &connection(V6)?)?;
    // Changed, and several copies.
    topology::replace_flows(
        &world.lab,
        "br0",
        &["tcp,actions=output:3,mod_nw_src:10.9.9.9,mod_vlan_vid:5,output:2"],
    )?;
    let mut changed = v4.clone();
    changed[26..30].copy_from_slice(&[10, 9, 9, 9]);
    seal(&mut changed);
    changed.splice(12..12, [0x81, 0, 0, 5]);
    assert!(world.send(&v4)? == [vec![changed.clone()], vec![v4.clone()]]);
    topology::replace_flows(&world.lab, "br0", &["tcp,actions=mod_nw_src:10.9.9.9,mod_vlan_vid:5,output:2"])?;
    assert!(world.send(&v4)? == [vec![changed], vec![]]);
    Ok(())
}

/// The sum covers all bytes, those in a frame's further buffers too.
fn jumbo_checksum(datapath: Datapath) -> Result<()> {
    let world = World::new(datapath)?;
    let right = segment(V4, &[0x5a; 8001])?;
    for (what, at) in [("early", 100), ("in the middle", 4096), ("at the end", 8050)] {
        let mut wrong = right.clone();
        wrong[at] ^= 0x10;
        let [good, invalid] = world.send(&wrong)?.map(|frames| frames.len());
        assert_eq!((good, invalid), (0, 1), "{what}");
        assert_eq!(world.connections()?, Vec::<String>::new(), "{what}");
    }
    Ok(())
}

#[test]
fn jumbo_checksum_by_xdp() -> Result<()> {
    jumbo_checksum(Datapath::Xdp)
}

#[test]
fn jumbo_checksum_by_tc() -> Result<()> {
    jumbo_checksum(Datapath::Tc)
}

#[test]
fn jumbo_frames_by_xdp() -> Result<()> {
    jumbo(Datapath::Xdp)
}

#[test]
fn jumbo_frames_by_tc() -> Result<()> {
    jumbo(Datapath::Tc)
}

fn pass_unchanged(datapath: Datapath) -> Result<()> {
    let world = World::new(datapath)?;
    let ethernet = Ethernet::default();
    let v4 = segment(V4, &[7; 64])?;
    let inner = [&5u16.to_be_bytes()[..], &IPV4.to_be_bytes(), &v4[14..]].concat();
    let mut service = ethernet.frame(0x88a8, &[&[0, 9, 0x81, 0][..], &inner].concat());
    let llc = ethernet.frame(20, &[&[0x42, 0x42, 3][..], &[0; 17]].concat());
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0][..], &IPV4.to_be_bytes(), &v4[14..]].concat();
    let frames = [
        ("two tags", ethernet.frame(VLAN, &[&[0, 9, 0x81, 0][..], &inner].concat())),
        ("a tag of the service's", service.clone()),
        ("802.3 with LLC", llc),
        ("802.3 with SNAP", ethernet.frame(u16::try_from(snap.len())?, &snap)),
        ("an unknown type", ethernet.frame(0x1234, &[1; 50])),
        ("nothing but an Ethernet header", ethernet.frame(0x1234, &[])),
        ("first fragment", fragment(&v4, 0, 40)),
        ("last fragment", fragment(&v4, 40, 1000)),
        ("IPv4 that is cut", v4[..30].to_vec()),
        ("IPv6 that is cut", segment(V6, b"")?[..50].to_vec()),
        ("an extension header that is cut", with_extensions(&segment(V6, b"")?, &[(60, vec![200])])),
    ];
    // Where nobody looks inside, all of it passes, one copy or several.
    for actions in ["output:2", "NORMAL", "output:2,output:3"] {
        topology::replace_flows(&world.lab, "br0", &[&format!("actions={actions}")])?;
        for (what, frame) in &frames {
            let [at_second, _] = world.send(frame)?;
            assert_eq!(at_second, std::slice::from_ref(frame), "{what}, {actions}");
        }
    }
    // The addresses can be written in any of them; ports of a protocol that was not found cannot, and nothing
    // else is touched.
    topology::replace_flows(
        &world.lab,
        "br0",
        &["actions=mod_dl_src:0a:00:00:00:00:0b,mod_tp_dst:9,mod_nw_tos:4,output:2"],
    )?;
    service[6..12].copy_from_slice(&[10, 0, 0, 0, 0, 11]);
    assert_eq!(world.send(&frames[1].1)?, [vec![service.clone()], vec![]]);
    // A tag keeps its type.
    for (actions, copies) in [("mod_vlan_vid:10,output:2", 1), ("mod_vlan_vid:10,output:2,output:3", 2)] {
        topology::replace_flows(
            &world.lab,
            "br0",
            &[&format!("actions=mod_dl_src:0a:00:00:00:00:0b,{actions}")],
        )?;
        service[15] = 10;
        let [second, third] = world.send(&frames[1].1)?;
        assert_eq!([second, third].concat(), vec![service.clone(); copies], "{actions}");
    }
    Ok(())
}

#[test]
fn pass_unchanged_by_xdp() -> Result<()> {
    pass_unchanged(Datapath::Xdp)
}

#[test]
fn pass_unchanged_by_tc() -> Result<()> {
    pass_unchanged(Datapath::Tc)
}

fn fragments(datapath: Datapath) -> Result<()> {
    let world = World::new(datapath)?;
    let [src, dst] = V4;
    let datagram = Ethernet::default().udp(src.parse()?, dst.parse()?, &[7; 100])?;
    let (first, later) = (fragment(&datagram, 0, 48), fragment(&datagram, 48, 1000));
    for (mode, matching, [of_whole, of_first, of_later]) in [
        ("normal", "ip,ip_frag=no", [true, false, false]),
        ("normal", "ip,ip_frag=yes", [false, true, true]),
        ("normal", "ip,ip_frag=first", [false, true, false]),
        ("normal", "ip,ip_frag=later", [false, false, true]),
        ("normal", "ip,ip_frag=not_later", [true, true, false]),
        ("normal", "udp", [true, true, true]),
        ("normal", "udp,tp_dst=80", [true, false, false]),
        ("normal", "udp,tp_dst=0", [false, true, true]),
        ("nx-match", "udp,tp_dst=80", [true, true, false]),
        ("nx-match", "udp,tp_dst=0", [false, false, true]),
    ] {
        world.lab.ovs("ofctl", &["set-frags", "br0", mode])?.ok()?;
        topology::replace_flows(&world.lab, "br0", &[&format!("{matching},actions=output:2")])?;
        for (frame, passes) in [(&datagram, of_whole), (&first, of_first), (&later, of_later)] {
            let expected = if passes { vec![frame.clone()] } else { vec![] };
            assert_eq!(world.send(frame)?[0], expected, "{mode} {matching}");
        }
    }
    world.lab.ovs("ofctl", &["set-frags", "br0", "normal"])?.ok()?;
    // A later fragment has no ports and no checksum of its own: what looks like them is payload.
    topology::replace_flows(&world.lab, "br0", &["udp,actions=mod_nw_src:10.9.9.9,mod_tp_dst:9,output:2"])?;
    let mut whole = datagram.clone();
    whole[26..30].copy_from_slice(&[10, 9, 9, 9]);
    whole[36..38].copy_from_slice(&[0, 9]);
    seal(&mut whole);
    assert_eq!(world.send(&datagram)?[0], [whole.clone()]);
    assert_eq!(world.send(&first)?[0], [fragment(&whole, 0, 48)]);
    assert_eq!(world.send(&later)?[0], [fragment(&whole, 48, 1000)]);
    Ok(())
}

#[test]
fn fragments_by_xdp() -> Result<()> {
    fragments(Datapath::Xdp)
}

#[test]
fn fragments_by_tc() -> Result<()> {
    fragments(Datapath::Tc)
}

/// Answers each datagram with itself.
const ECHO: &str = r"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.7.0.2', 7))
while True:
    s.sendto(*s.recvfrom(65535))
";
/// Sends a datagram of so many bytes until it comes back the same.
const ASK: &str = r"
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.5)
data = os.urandom(int(sys.argv[1]))
for attempt in range(10):
    s.sendto(data, ('10.7.0.2', 7))
    try:
        sys.exit(s.recv(65535) != data)
    except OSError:
        pass
sys.exit('no answer')
";

/// Sockets whose packets are larger than a page, and than one frame: the kernel cuts the datagrams.
#[test]
fn real_sockets_with_jumbo_frames() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    // A second host, or the kernel would deliver without any cable.
    let far = world.lab.netns("far")?;
    world.hosts.exec("ip", &["link", "set", "p2-peer", "netns", "far"])?.ok()?;
    far.exec("ip", &["link", "set", "p2-peer", "up", "mtu", JUMBO])?.ok()?;
    for (host, interface, address) in
        [(&world.hosts, "p1-peer", "10.7.0.1/24"), (&far, "p2-peer", "10.7.0.2/24")]
    {
        host.exec("ip", &["addr", "add", address, "dev", interface])?.ok()?;
    }
    // The port's peer has moved, and so must what was done to it.
    world.lab.ovs("vsctl", &["del-port", "br0", "p2", "--", "add-port", "br0", "p2"])?.ok()?;
    world.lab.ovs("vsctl", &["set", "interface", "p2", "ofport_request=2"])?.ok()?;
    topology::replace_flows(&world.lab, "br0", &["actions=NORMAL"])?;
    let _echo = far.spawn("/usr/bin/python3", &["-c", ECHO])?;
    for size in ["100", "4000", "8972", "20000", "60000"] {
        let asked = world.hosts.exec("/usr/bin/python3", &["-c", ASK, size])?;
        assert_eq!(asked.code, 0, "{size}: {asked}");
    }
    let mut server = far.spawn("iperf3", &["-s", "-1", "-B", "10.7.0.2"])?;
    far.wait_for_listener(5201)?;
    let report =
        world.hosts.exec("iperf3", &["-c", "10.7.0.2", "-n", "50M", "-J", "--connect-timeout", "5000"])?;
    let report: serde_json::Value = serde_json::from_str(&report.ok()?)?;
    assert!(report["end"]["sum_received"]["bytes"].as_f64() > Some(40e6), "{report}");
    server.wait(Duration::from_secs(10))?;
    Ok(())
}

/// A protocol without ports is tracked by its addresses.
#[test]
fn other_protocols() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    let (src, dst): (IpAddr, IpAddr) = ("10.0.0.1".parse()?, "10.0.0.2".parse()?);
    for protocol in [47, 50, 89, 255] {
        let frame = Ethernet::default().ip(src, dst, IpNumber(protocol), &[1, 2, 3, 4, 5])?;
        assert_eq!(world.send(&frame)?, [vec![frame], vec![]], "{protocol}");
        assert_eq!(world.connections()?.len(), 1, "{protocol}");
        world.lab.ovs("appctl", &["dpctl/flush-conntrack"])?.ok()?;
    }
    // IPv6 that says it were IPv4, and the other way round.
    let v6 = segment(V6, b"")?;
    for (kind, packet) in [(IPV4, &v6[14..]), (IPV6, &segment(V4, b"")?[14..])] {
        world.is_invalid("the wrong version", &Ethernet::default().frame(kind, packet))?;
    }
    Ok(())
}
