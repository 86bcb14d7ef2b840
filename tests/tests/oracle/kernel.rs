//! A kernel that forwards between two hosts and tracks what it forwards.

use std::{
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{lab::Lab, netns::Netns, packet::Ethernet, process, wire::Wire};

use crate::ctnetlink::{Ctnetlink, Tuple};

/// The timeout given to a connection before each packet: none of the rules' own, and longer than all that
/// only shorten, so that what a packet does to the timer can be told.
pub const WOUND: u32 = 7777;

/// How long a packet may take to come through.
const LIMIT: Duration = Duration::from_secs(2);

/// Paths below `/proc/sys/net` and their values: a plain router, and the tracker's defaults.
const SETTINGS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("netfilter/nf_conntrack_tcp_loose", "1"),
    ("netfilter/nf_conntrack_tcp_be_liberal", "0"),
    ("netfilter/nf_conntrack_tcp_ignore_invalid_rst", "0"),
    ("netfilter/nf_conntrack_tcp_max_retrans", "3"),
    ("netfilter/nf_conntrack_checksum", "1"),
];

/// Writes a packet's state into its DSCP field, by OpenFlow's numbers.
const RULES: &str = "
table inet oracle {
    chain forward {
        type filter hook forward priority filter
        meta nfproto ipv4 ct state invalid ip dscp set 0x30
        meta nfproto ipv4 ct state new ip dscp set 0x21
        meta nfproto ipv4 ct state established ct direction original ip dscp set 0x22
        meta nfproto ipv4 ct state established ct direction reply ip dscp set 0x2a
        meta nfproto ipv4 ct state related ip dscp set 0x24
        meta nfproto ipv6 ct state invalid ip6 dscp set 0x30
        meta nfproto ipv6 ct state new ip6 dscp set 0x21
        meta nfproto ipv6 ct state established ct direction original ip6 dscp set 0x22
        meta nfproto ipv6 ct state established ct direction reply ip6 dscp set 0x2a
        meta nfproto ipv6 ct state related ip6 dscp set 0x24
    }
}
";

/// One of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left = 0,
    Right = 1,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    fn host_mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 1, self as u8]
    }

    fn router_mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 2, self as u8]
    }
}

/// Which version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn address(self, side: Side) -> IpAddr {
        let net = side as u8 + 1;
        match self {
            Self::V4 => [10, 1, net, 1].into(),
            Self::V6 => [0xfd00, u16::from(net), 0, 0, 0, 0, 0, 1].into(),
        }
    }

    fn router(self, side: Side) -> &'static str {
        match (self, side) {
            (Self::V4, Side::Left) => "10.1.1.254/24",
            (Self::V4, Side::Right) => "10.1.2.254/24",
            (Self::V6, Side::Left) => "fd00:1::fe/64",
            (Self::V6, Side::Right) => "fd00:2::fe/64",
        }
    }
}

/// The router, with a raw cable for each host.
pub struct Kernel {
    cables: [Wire; 2],
    pub connections: Ctnetlink,
    _hosts: [Netns; 2],
    _lab: Lab,
}

impl Kernel {
    pub fn new() -> Result<Self> {
        let lab = Lab::new()?;
        // The tracker, and its settings, appear with the first rule that needs it.
        process::run(lab.command("nft").args(["-f", "-"]), RULES.as_bytes())?.ok()?;
        for (path, value) in SETTINGS {
            let path = format!("/proc/sys/net/{path}");
            fs::write(&path, value).with_context(|| path)?;
        }
        let hosts = [attach(&lab, Side::Left, "left")?, attach(&lab, Side::Right, "right")?];
        let cables = [hosts[0].open_wire("eth0")?, hosts[1].open_wire("eth0")?];
        Ok(Self { cables, connections: Ctnetlink::open()?, _hosts: hosts, _lab: lab })
    }

    /// The Ethernet header of a host's packets.
    pub fn ethernet(from: Side) -> Ethernet {
        Ethernet { src: from.host_mac(), dst: from.router_mac(), vlan: None }
    }

    /// Sends a frame of a host to the other and tells the `ct_state` that the packet had on its way.
    pub fn forward(&self, from: Side, frame: &[u8]) -> Result<u8> {
        self.cables[from as usize].send(frame)?;
        let forwarded = receive(&self.cables[from.other() as usize], frame)?;
        Ok(match forwarded[14] >> 4 {
            4 => forwarded[15] >> 2,
            _ => (u16::from_be_bytes([forwarded[14], forwarded[15]]) >> 6 & 0x3f) as u8,
        })
    }

    /// Sets the timer of a packet's connection, if it has one, to [`WOUND`].
    pub fn wind(&self, tuple: &Tuple) -> Result<()> {
        self.connections.set_timeout(tuple, WOUND)?;
        Ok(())
    }
}

/// A setting of the tracker, in the calling thread's network namespace.
pub fn setting(name: &str) -> Result<u32> {
    let path = format!("/proc/sys/net/netfilter/{name}");
    let text = fs::read_to_string(&path).with_context(|| path)?;
    Ok(text.trim().parse()?)
}

/// Waits for the frame, in which the router has only changed the headers below the transport's.
fn receive(cable: &Wire, sent: &[u8]) -> Result<Vec<u8>> {
    let transport = if sent[14] >> 4 == 4 { 34 } else { 54 };
    let deadline = Instant::now() + LIMIT;
    loop {
        let received = cable.recv(deadline.saturating_duration_since(Instant::now()))?;
        let received = received.context("the kernel did not forward the packet")?;
        if received.len() == sent.len() && received[transport..] == sent[transport..] {
            return Ok(received);
        }
        ensure!(Instant::now() < deadline, "the kernel forwards other packets only");
    }
}

fn attach(lab: &Lab, side: Side, name: &str) -> Result<Netns> {
    let host = lab.netns(name)?;
    lab.veth(name, "eth0", Some(&host))?;
    let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    lab.exec("ip", &["link", "set", name, "address", &text(side.router_mac())])?.ok()?;
    for family in [Family::V4, Family::V6] {
        lab.exec("ip", &["addr", "add", family.router(side), "dev", name])?.ok()?;
        let (address, mac) = (family.address(side).to_string(), text(side.host_mac()));
        lab.exec("ip", &["neigh", "add", &address, "lladdr", &mac, "dev", name, "nud", "permanent"])?.ok()?;
    }
    Ok(host)
}
