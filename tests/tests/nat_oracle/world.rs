//! The two worlds: two hosts with a router between them, and two hosts at a switch.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tests::{
    lab::{Daemon, Lab},
    netns::Netns,
    packet::Ethernet,
    process,
    topology::{self, Datapath},
    wire::Wire,
};

use crate::{
    entry::{self, Entry},
    network::Network,
    packet::Sent,
};

/// How long to wait for a packet before it counts as dropped.
const PATIENCE: Duration = Duration::from_millis(60);
/// Where the hosts send to.
const ROUTER_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 2, 0], [2, 0, 0, 0, 2, 1]];
const HOST_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 0], [2, 0, 0, 0, 1, 1]];

/// Which of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left = 0,
    Right = 1,
}

/// What is between the hosts.
pub trait Between {
    /// Forgets all connections.
    fn forget(&self, lab: &Lab) -> Result<()>;

    /// All connections.
    fn connections(&self, lab: &Lab) -> Result<Vec<Entry>>;
}

/// Two hosts and what is between them.
pub struct World<B> {
    cables: [Wire; 2],
    translated: Cell<bool>,
    between: B,
    lab: Lab,
}

impl<B: Between> World<B> {
    /// Sends a host's packet, and tells what arrives at the other one.
    pub fn cross<P: Sent>(&self, from: Side, packet: &P) -> Result<Option<P>> {
        let [src, dst] = [HOST_MACS[from as usize], ROUTER_MACS[from as usize]];
        self.cables[from as usize].send(&packet.frame(Ethernet { src, dst, vlan: None })?)?;
        let deadline = Instant::now() + PATIENCE;
        let cable = &self.cables[1 - from as usize];
        while let Some(frame) = cable.recv(deadline.saturating_duration_since(Instant::now()))? {
            if let Some(arrived) = packet.parse(&frame) {
                self.translated.set(self.translated.get() || arrived != *packet);
                return Ok(Some(arrived));
            }
        }
        Ok(None)
    }

    /// Whether a packet has arrived with other addresses or ports than it was sent with.
    pub fn has_translated(&self) -> bool {
        self.translated.get()
    }

    pub fn forget(&self) -> Result<()> {
        self.between.forget(&self.lab)
    }

    pub fn connections(&self) -> Result<Vec<Entry>> {
        self.between.connections(&self.lab)
    }
}

/// A kernel that forwards and translates.
pub struct Router {
    /// The namespace that forwards: the lab's own is left for that of the switch.
    router: Netns,
    network: Network,
    _hosts: [Netns; 2],
}

/// The switch.
pub struct Switch {
    _switch: Daemon,
}

impl World<Router> {
    /// A router with a chain that translates. What it has not translated the right host cannot begin.
    pub fn router(network: Network, chain: &str) -> Result<Self> {
        let lab = Lab::new()?;
        let router = lab.netns("router")?;
        let table = network.words().nft;
        let rules = format!(
            "table {table} nat {{\nchain translate {{\n{chain}\n}}\n}}\n\
             table {table} guard {{\nchain forward {{\ntype filter hook forward priority filter\n\
             ct state invalid drop\niifname \"right\" ct state new drop\n}}\n}}\n"
        );
        process::run(router.command("nft").args(["-f", "-"]), rules.as_bytes())?.ok()?;
        for setting in [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
            "net.ipv6.conf.all.forwarding=1",
        ] {
            router.exec("sysctl", &["-qw", setting])?.ok()?;
        }
        let mut hosts = Vec::new();
        for (side, name) in ["left", "right"].into_iter().enumerate() {
            let host = lab.netns(name)?;
            lab.exec(
                "ip",
                &[
                    "link", "add", name, "netns", "router", "type", "veth", "peer", "name", "eth0", "netns",
                    name,
                ],
            )?
            .ok()?;
            let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
            router.exec("ip", &["link", "set", name, "address", &text(ROUTER_MACS[side]), "up"])?.ok()?;
            host.exec("ip", &["link", "set", "eth0", "up"])?.ok()?;
            let address = format!("{}/{}", network.routers[side], network.words().prefix_len);
            // Nobody else has it: there is no need to ask around first.
            let flags: &[&str] = if network.routers[side].is_ipv6() { &["nodad"] } else { &[] };
            router.exec("ip", &[&["addr", "add", &address, "dev", name], flags].concat())?.ok()?;
            for neighbour in network.hosts[side] {
                let (neighbour, mac) = (neighbour.to_string(), text(HOST_MACS[side]));
                router
                    .exec(
                        "ip",
                        &["neigh", "add", &neighbour, "lladdr", &mac, "dev", name, "nud", "permanent"],
                    )?
                    .ok()?;
            }
            hosts.push(host);
        }
        let hosts: [Netns; 2] = hosts.try_into().map_err(|_| anyhow::anyhow!("two hosts"))?;
        let cables = [hosts[0].open_wire("eth0")?, hosts[1].open_wire("eth0")?];
        Ok(Self {
            cables,
            translated: Cell::new(false),
            between: Router { router, network, _hosts: hosts },
            lab,
        })
    }
}

impl Between for Router {
    fn forget(&self, _: &Lab) -> Result<()> {
        self.router.exec("conntrack", &["-F"])?.ok().map(drop)
    }

    fn connections(&self, _: &Lab) -> Result<Vec<Entry>> {
        let text = self.router.exec("conntrack", &["-L", "-f", self.network.words().conntrack])?.ok()?;
        // What the hosts' kernels answer to frames that are none of theirs is not part of the story.
        let own = self.network.routers.map(|address| format!("={address} "));
        text.lines().filter(|line| !own.iter().any(|own| line.contains(own))).map(entry::of_kernel).collect()
    }
}

impl World<Switch> {
    /// A switch that translates what the left host begins; the right one can only answer.
    pub fn switch(network: Network, nat: &str) -> Result<Self> {
        let lab = Lab::new()?;
        let switch = lab.switchd(&[])?;
        let cables = topology::bridge(&lab, "br0", Datapath::Xdp, &["p1", "p2"])?;
        let ip = network.words().flow;
        let flows = [
            format!("table=0,{ip},in_port=1,actions=ct(commit,nat({nat}),table=1)"),
            format!("table=0,{ip},in_port=2,actions=ct(nat,table=1)"),
            format!("table=1,{ip},in_port=1,ct_state=+trk-inv,actions=output:2"),
            format!("table=1,{ip},in_port=2,ct_state=+trk+est,actions=output:1"),
            format!("table=1,{ip},in_port=2,ct_state=+trk+rel,actions=output:1"),
        ];
        topology::replace_flows(&lab, "br0", &flows.each_ref().map(String::as_str))?;
        let cables: [Wire; 2] = cables.try_into().ok().context("two ports")?;
        Ok(Self { cables, translated: Cell::new(false), between: Switch { _switch: switch }, lab })
    }
}

impl Between for Switch {
    fn forget(&self, lab: &Lab) -> Result<()> {
        lab.ovs("appctl", &["dpctl/flush-conntrack"])?.ok().map(drop)
    }

    fn connections(&self, lab: &Lab) -> Result<Vec<Entry>> {
        let text = lab.ovs("appctl", &["dpctl/dump-conntrack", "-m", "-s"])?.ok()?;
        text.lines().map(entry::of_switch).collect()
    }
}
