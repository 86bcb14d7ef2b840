//! Every field that actions can change, in the bytes that leave the switch: exactly that field differs, and
//! all checksums are right. By XDP, by tcx, and by tcx for what XDP has begun.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use etherparse::IpNumber;
use tests::{
    lab::Lab,
    packet::{Echo, Ethernet, Segment, flags, seal},
    topology::{self, Datapath},
    wire::Wire,
};

const SOON: Duration = Duration::from_secs(2);

/// A packet, actions, and what they make of it but for checksums.
struct Case {
    frame: Vec<u8>,
    /// A match that has the actions' prerequisites.
    matching: &'static str,
    actions: String,
    changed: Vec<u8>,
}

/// Cases for one kind of packet.
struct Cases {
    frame: Vec<u8>,
    matching: &'static str,
    all: Vec<Case>,
}

impl Cases {
    fn of(frame: Vec<u8>, matching: &'static str) -> Self {
        Self { frame, matching, all: Vec::new() }
    }

    /// Actions that write bytes at offsets.
    fn writes(self, actions: &str, bytes: &[(usize, &[u8])]) -> Self {
        self.makes(actions, |frame| {
            for (at, bytes) in bytes {
                frame[*at..at + bytes.len()].copy_from_slice(bytes);
            }
        })
    }

    /// Actions that do to a packet what a function does.
    fn makes(mut self, actions: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut changed = self.frame.clone();
        change(&mut changed);
        seal(&mut changed);
        self.all.push(Case {
            frame: self.frame.clone(),
            matching: self.matching,
            actions: actions.into(),
            changed,
        });
        self
    }
}

const TAG: usize = 12;

fn tag(tci: u16) -> impl FnOnce(&mut Vec<u8>) {
    move |frame| {
        let [high, low] = tci.to_be_bytes();
        frame.splice(TAG..TAG, [0x81, 0, high, low]);
    }
}

fn tcp(ethernet: &Ethernet, addresses: [&str; 2]) -> Result<Vec<u8>> {
    let [src, dst] = addresses;
    let segment = Segment {
        seq: 1,
        ack: 2,
        payload: b"payload",
        ..Segment::new(src.parse()?, dst.parse()?, flags::ACK | flags::PSH)
    };
    ethernet.tcp(&segment)
}

/// A neighbour message with its target and one option with a link layer address.
fn neighbour(kind: u8, option: u8) -> Result<Vec<u8>> {
    let (src, dst): (IpAddr, IpAddr) = ("fe80::1".parse()?, "fe80::2".parse()?);
    let target = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let body = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target, &[option, 1, 2, 0, 0, 0, 0, 1]].concat();
    let mut frame = Ethernet::default().ip(src, dst, IpNumber::IPV6_ICMP, &body)?;
    seal(&mut frame);
    Ok(frame)
}

const V4: [&str; 2] = ["10.0.0.1:1000", "10.0.0.2:80"];
const V6: [&str; 2] = ["[fd00::1]:1000", "[fd00::2]:80"];

fn cases() -> Result<Vec<Case>> {
    let (plain, tagged) = (Ethernet::default(), Ethernet { vlan: Some(0x2064), ..Ethernet::default() });
    let [src, dst] = V4;
    let udp = plain.udp(src.parse()?, dst.parse()?, b"odd")?;
    let mut unsummed = udp.clone();
    unsummed[40..42].fill(0);
    let echo = |addresses: [&str; 2]| -> Result<_> {
        let [src, dst] = addresses;
        plain.echo((src.parse()?, dst.parse()?), Echo::Request, (7, 1), b"odd")
    };
    let sets = [
        Cases::of(tcp(&plain, V4)?, "tcp")
            .writes("mod_dl_src:0a:00:00:00:00:0b", &[(6, &[10, 0, 0, 0, 0, 11])])
            .writes("mod_dl_dst:0a:00:00:00:00:0b", &[(0, &[10, 0, 0, 0, 0, 11])])
            .writes("set_field:0a:00:00:00:00:0b->eth_src", &[(6, &[10, 0, 0, 0, 0, 11])])
            .writes("set_field:00:00:00:00:ff:00/00:00:00:00:ff:00->eth_dst", &[(4, &[0xff])])
            .writes("move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]", &[(0, &[2, 0, 0, 0, 0, 1])])
            .writes("mod_nw_src:192.168.7.9", &[(26, &[192, 168, 7, 9])])
            .writes("mod_nw_dst:192.168.7.9", &[(30, &[192, 168, 7, 9])])
            .writes("set_field:1.2.3.4->ip_src", &[(26, &[1, 2, 3, 4])])
            .writes("set_field:1.2.0.0/255.255.0.0->nw_dst", &[(30, &[1, 2])])
            .writes("move:NXM_OF_IP_SRC[]->NXM_OF_IP_DST[]", &[(30, &[10, 0, 0, 1])])
            .writes("mod_nw_tos:136", &[(15, &[136])])
            .writes("set_field:46->ip_dscp", &[(15, &[46 << 2])])
            .writes("set_field:3->nw_ecn", &[(15, &[3])])
            .writes("mod_nw_ttl:5", &[(22, &[5])])
            .writes("set_field:255->nw_ttl", &[(22, &[255])])
            .writes("dec_ttl", &[(22, &[63])])
            .writes("mod_tp_src:4444", &[(34, &4444u16.to_be_bytes())])
            .writes("mod_tp_dst:5555", &[(36, &5555u16.to_be_bytes())])
            .writes("set_field:7->tcp_src", &[(34, &[0, 7])])
            .writes("load:0x1234->NXM_OF_TCP_DST[]", &[(36, &[0x12, 0x34])])
            .writes("load:0xf->NXM_OF_TCP_DST[8..11]", &[(36, &[0x0f])])
            .writes("load:0x9->NXM_NX_REG3[],move:NXM_NX_REG3[0..15]->NXM_OF_TCP_SRC[]", &[(34, &[0, 9])])
            .writes(
                "mod_dl_src:0a:00:00:00:00:0b,mod_nw_src:192.168.7.9,mod_nw_dst:1.2.3.4,mod_nw_ttl:9,mod_nw_tos:4,mod_tp_src:1,mod_tp_dst:2",
                &[
                    (6, &[10, 0, 0, 0, 0, 11]),
                    (15, &[4]),
                    (22, &[9]),
                    (26, &[192, 168, 7, 9, 1, 2, 3, 4, 0, 1, 0, 2]),
                ],
            )
            .makes("mod_vlan_vid:5", tag(5))
            .makes("mod_vlan_pcp:3", tag(3 << 13))
            .makes("mod_vlan_vid:5,mod_nw_src:192.168.7.9", |frame| {
                frame[26..30].copy_from_slice(&[192, 168, 7, 9]);
                tag(5)(frame);
            })
            .writes("strip_vlan", &[]),
        Cases::of(tcp(&tagged, V4)?, "tcp,vlan_tci=0x1000/0x1000")
            .makes("strip_vlan", |frame| drop(frame.drain(TAG..TAG + 4)))
            .writes("mod_vlan_vid:7", &[(14, &[0x20, 7])])
            .writes("mod_vlan_pcp:6", &[(14, &[0xc0, 0x64])])
            .writes("set_field:4103->vlan_vid", &[(14, &[0x20, 7])])
            .writes("set_field:5->vlan_pcp", &[(14, &[0xa0, 0x64])])
            .writes("mod_nw_src:192.168.7.9,mod_tp_dst:5", &[(30, &[192, 168, 7, 9]), (40, &[0, 5])])
            .makes("mod_nw_src:192.168.7.9,strip_vlan,mod_tp_dst:5", |frame| {
                frame[30..34].copy_from_slice(&[192, 168, 7, 9]);
                frame[40..42].copy_from_slice(&[0, 5]);
                frame.drain(TAG..TAG + 4);
            })
            .writes("strip_vlan,mod_vlan_vid:9", &[(14, &[0, 9])]),
        Cases::of(udp, "udp")
            .writes("mod_nw_src:192.168.7.9", &[(26, &[192, 168, 7, 9])])
            .writes("mod_tp_src:4444", &[(34, &4444u16.to_be_bytes())])
            .writes("set_field:53->udp_dst", &[(36, &[0, 53])])
            .writes("mod_nw_ttl:5", &[(22, &[5])]),
        Cases::of(unsummed, "udp")
            .writes("mod_nw_src:192.168.7.9,mod_tp_dst:53", &[(26, &[192, 168, 7, 9]), (36, &[0, 53])]),
        // It has no ports, whatever the flow takes it for.
        Cases::of(plain.ip("10.0.0.1".parse()?, "10.0.0.2".parse()?, IpNumber::GRE, &[7; 9])?, "ip")
            .writes("mod_tp_src:4444,mod_tp_dst:5555", &[]),
        Cases::of(echo(["10.0.0.1", "10.0.0.2"])?, "icmp")
            .writes("mod_nw_dst:192.168.7.9", &[(30, &[192, 168, 7, 9])])
            .writes("set_field:13->icmp_type", &[(34, &[13])])
            .writes("set_field:3->icmp_code", &[(35, &[3])]),
        Cases::of(tcp(&plain, V6)?, "tcp6")
            .writes("set_field:fd00::9->ipv6_src", &[(37, &[9])])
            .writes("set_field:2001:db8::/ffff:ffff::->ipv6_dst", &[(38, &[0x20, 1, 0x0d, 0xb8])])
            .writes("set_field:0x12345->ipv6_label", &[(15, &[1, 0x23, 0x45])])
            .writes("mod_nw_tos:136", &[(14, &[0x68, 0x80])])
            .writes("set_field:2->nw_ecn", &[(15, &[0x20])])
            .writes("mod_nw_ttl:5", &[(21, &[5])])
            .writes("dec_ttl", &[(21, &[63])])
            .writes("mod_tp_src:4444", &[(54, &4444u16.to_be_bytes())])
            .writes("set_field:443->tcp_dst", &[(56, &443u16.to_be_bytes())])
            .makes("mod_vlan_vid:5,mod_tp_src:9", |frame| {
                frame[54..56].copy_from_slice(&[0, 9]);
                tag(5)(frame);
            }),
        Cases::of(plain.udp(V6[0].parse()?, V6[1].parse()?, b"odd")?, "udp6")
            .writes("set_field:fd00::9->ipv6_dst,mod_tp_dst:53", &[(53, &[9]), (56, &[0, 53])]),
        Cases::of(echo(["fd00::1", "fd00::2"])?, "icmp6")
            .writes("set_field:fd00::9->ipv6_dst", &[(53, &[9])])
            .writes("set_field:129->icmpv6_type", &[(54, &[129])])
            .writes("set_field:1->icmpv6_code", &[(55, &[1])]),
        Cases::of(neighbour(135, 1)?, "icmp6,icmp_type=135,icmp_code=0")
            .writes("set_field:fe80::77->nd_target", &[(77, &[0x77])])
            .writes("set_field:0a:00:00:00:00:0b->nd_sll", &[(80, &[10, 0, 0, 0, 0, 11])]),
        Cases::of(neighbour(136, 2)?, "icmp6,icmp_type=136,icmp_code=0")
            .writes("set_field:0a:00:00:00:00:0b->nd_tll", &[(80, &[10, 0, 0, 0, 0, 11])]),
        Cases::of(plain.arp_request("10.0.0.1".parse()?, "10.0.0.2".parse()?), "arp")
            .writes("set_field:2->arp_op", &[(21, &[2])])
            .writes("set_field:0a:00:00:00:00:0b->arp_sha", &[(22, &[10, 0, 0, 0, 0, 11])])
            .writes("set_field:1.2.3.4->arp_spa", &[(28, &[1, 2, 3, 4])])
            .writes("set_field:0a:00:00:00:00:0b->arp_tha", &[(32, &[10, 0, 0, 0, 0, 11])])
            .writes("set_field:1.2.3.4->arp_tpa", &[(38, &[1, 2, 3, 4])])
            .writes("mod_dl_dst:0a:00:00:00:00:0b", &[(0, &[10, 0, 0, 0, 0, 11])])
            // What is for IP does nothing to ARP.
            .writes("mod_nw_src:1.2.3.4", &[])
            .writes("dec_ttl", &[]),
    ];
    Ok(sets.into_iter().flat_map(|set| set.all).collect())
}

/// Plays a case with the packet changed for port 2 alone, and with port 3 before it getting it as it came.
fn play(lab: &Lab, wires: &[Wire], case: &Case, first: &str) -> Result<[Option<Vec<u8>>; 2]> {
    let Case { frame, matching, actions, .. } = case;
    let flow = format!("in_port=1,{matching},actions={first}{actions},output:2");
    topology::replace_flows(lab, "br0", &[&flow]).with_context(|| flow.clone())?;
    for wire in wires {
        wire.drain(Duration::ZERO)?;
    }
    wires[0].send(frame)?;
    let changed = wires[1].recv(SOON)?;
    let unchanged = if first.is_empty() { None } else { wires[2].recv(SOON)? };
    Ok([changed, unchanged])
}

fn all(datapath: Datapath) -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let wires = topology::bridge(&lab, "br0", datapath, &["p1", "p2", "p3"])?;
    let mut wrong = Vec::new();
    for case in cases()? {
        for (first, original) in [("", None), ("output:3,", Some(&case.frame))] {
            let seen = play(&lab, &wires, &case, first)?;
            if seen != [Some(case.changed.clone()), original.cloned()] {
                wrong.push(format!(
                    "{}: {first}{}\n was {:02x?}\n must {:02x?}\n seen {:02x?}",
                    case.matching, case.actions, case.frame, case.changed, seen[0]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn by_xdp() -> Result<()> {
    all(Datapath::Xdp)
}

#[test]
fn by_tc() -> Result<()> {
    all(Datapath::Tc)
}

/// RFC 768: a sum that comes out as zero is sent as ones, for zero says that there is none.
#[test]
fn a_udp_checksum_never_becomes_zero() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let (src, dst) = (V4[0].parse()?, V4[1].parse()?);
    let frame = Ethernet::default().udp(src, dst, b"odd")?;
    let (port, expected) = (1..=u16::MAX)
        .find_map(|port| {
            let mut changed = frame.clone();
            changed[36..38].copy_from_slice(&port.to_be_bytes());
            seal(&mut changed);
            (changed[40..42] == [0xff, 0xff]).then_some((port, changed))
        })
        .context("no port makes the sum zero")?;
    for (bridge, datapath, ports) in
        [("br0", Datapath::Xdp, ["p1", "p2"]), ("br1", Datapath::Tc, ["q1", "q2"])]
    {
        let wires = topology::bridge(&lab, bridge, datapath, &ports)?;
        topology::replace_flows(
            &lab,
            bridge,
            &[&format!("udp,in_port=1,actions=mod_tp_dst:{port},output:2")],
        )?;
        wires[0].send(&frame)?;
        assert_eq!(wires[1].recv(SOON)?.as_ref(), Some(&expected), "{datapath:?}");
    }
    Ok(())
}
