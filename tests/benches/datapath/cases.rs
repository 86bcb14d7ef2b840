//! What is measured by test-run. Each case has a bridge of its own with two ports, so that all are there at the
//! same time and can be measured in turn.

use std::{fmt::Write as _, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use tests::{
    lab::Lab,
    netns::Netns,
    packet::{Ethernet, Segment, flags},
    tutorial,
};

use crate::{
    assembler::{self, DROP, REDIRECT, Variation},
    bpf::{Hook, Map, MapKind, Program},
};

/// A run's repetitions.
pub const REPEAT: u32 = 100_000;
/// A million connections.
pub const MILLION: u32 = 1_000_000;
/// Room for the connections of all cases.
pub const MAX_CONNECTIONS: u32 = MILLION + 300_000;
/// What a small frame measures, without its check sequence.
const SMALL: usize = 64;
/// The zone of the connections that are new in each run.
const NEW_ZONE: &str = "zone=7";

/// A program and what it is run over.
pub struct Case {
    /// Its row's name.
    pub name: String,
    /// Whether the frame is another one each time: see [`assembler::vary`].
    pub varied: bool,
    program: Program,
    /// What a varying program goes on in; the kernel empties the array with its last descriptor.
    _next: Option<Map>,
    frame: Vec<u8>,
    ifindex: Option<u32>,
    verdict: u32,
    forget: bool,
}

impl Case {
    /// Nanoseconds of one run.
    pub fn run(&self, lab: &Lab) -> Result<f64> {
        let (verdict, nanoseconds) = self.program.test_run(&self.frame, self.ifindex, REPEAT)?;
        ensure!(verdict == self.verdict, "{}: the verdict is {verdict}, not {}", self.name, self.verdict);
        if self.forget {
            lab.ovs("appctl", &["dpctl/flush-conntrack", NEW_ZONE])?.ok()?;
        }
        Ok(f64::from(nanoseconds))
    }
}

/// What everything is compared with.
pub struct Baselines {
    /// A program that does nothing.
    pub empty: Case,
    /// The same behind [`assembler::vary`]: the difference is what that costs.
    pub empty_varied: Case,
    /// A program that only redirects.
    pub bare: Case,
}

impl Baselines {
    /// Makes them.
    pub fn new() -> Result<Self> {
        let frame = Connection::number(0).frame(Part::Established, Some(PORTS))?;
        // Any device will do: verdicts of a test-run are not carried out.
        let devices = Map::of_device(if_nametoindex("lo")?)?;
        let empty = Program::load(Hook::Xdp, &assembler::empty())?;
        let case = |name: &str, program, next: Option<Map>, frame, verdict| Case {
            name: name.into(),
            varied: next.is_some(),
            program,
            _next: next,
            frame,
            ifindex: None,
            verdict,
            forget: false,
        };
        let any = Connection::number(0).frame(Part::Established, None)?;
        let (varying, next) = varying(&empty, Variation::scattered(1_000_000))?;
        let bare = Program::load(Hook::Xdp, &assembler::bare_redirect(devices.fd()))?;
        Ok(Self {
            empty: case("empty program", empty, None, frame.clone(), DROP),
            empty_varied: case("empty program, varied frames", varying, Some(next), any, DROP),
            bare: case("bare redirect", bare, None, frame, REDIRECT),
        })
    }
}

/// What is in a case's tables.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One flow, from port to port.
    OneFlow,
    /// The tutorial's flows, and a connection that is established.
    Established,
    /// The tutorial's flows, and a connection that begins with every frame.
    New,
    /// So many subtables, of which the last has the flow.
    Subtables(u32),
    /// So many flows in one subtable.
    Flows(u32),
    /// The tutorial's flows, and so many connections.
    Connections(u32),
}

/// Which of many flows or connections are hit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hits {
    /// All of them, in scattered order.
    Scattered,
    /// The same one again and again.
    Same,
}

/// The cases in the order of their rows. Neighbours of the same kind share a bridge and what is in it.
const CASES: &[(&str, Kind, Hits)] = &[
    ("one flow", Kind::OneFlow, Hits::Same),
    ("established connection", Kind::Established, Hits::Same),
    ("new connection", Kind::New, Hits::Scattered),
    ("1 subtable", Kind::Subtables(1), Hits::Same),
    ("10 subtables", Kind::Subtables(10), Hits::Same),
    ("100 subtables", Kind::Subtables(100), Hits::Same),
    ("10 flows", Kind::Flows(10), Hits::Scattered),
    ("1,000 flows", Kind::Flows(1000), Hits::Scattered),
    ("100,000 flows", Kind::Flows(100_000), Hits::Scattered),
    ("100,000 flows, the same one again", Kind::Flows(100_000), Hits::Same),
    ("10 connections", Kind::Connections(10), Hits::Scattered),
    ("1,000 connections", Kind::Connections(1000), Hits::Scattered),
    ("10,000 connections", Kind::Connections(10_000), Hits::Scattered),
    ("1,000,000 connections", Kind::Connections(MILLION), Hits::Scattered),
    ("1,000,000 connections, the same one again", Kind::Connections(MILLION), Hits::Same),
];

/// Whether there is a case whose name contains `filter`.
pub fn is_any(filter: &str) -> bool {
    CASES.iter().any(|(name, ..)| name.contains(filter))
}

/// Makes the cases whose names contain `filter`.
pub fn make(lab: &Lab, far: &Netns, filter: &str) -> Result<Vec<Case>> {
    let mut last: Option<(Kind, Bridge<'_>)> = None;
    let mut cases = Vec::new();
    for (number, (name, kind, hits)) in (0..).zip(CASES).filter(|(_, (name, ..))| name.contains(filter)) {
        let bridge = match last.take() {
            Some((shared, bridge)) if shared == *kind => bridge,
            _ => Bridge::filled(lab, far, number, *kind)?,
        };
        cases.push(bridge.case(name, *kind, *hits)?);
        last = Some((*kind, bridge));
    }
    Ok(cases)
}

/// A bridge with a million connections, through which pings go as connections too.
pub fn a_million<'a>(lab: &'a Lab, far: &Netns) -> Result<Bridge<'a>> {
    let bridge = Bridge::filled(lab, far, 0, Kind::Connections(MILLION))?;
    let [client, server] = &bridge.ports;
    let flows = [
        "ct_state=-trk,icmp,actions=ct(table=0)".to_owned(),
        format!("ct_state=+trk+new,icmp,in_port={client},actions=ct(commit),{server}"),
        format!("ct_state=+trk+est,icmp,in_port={client},actions={server}"),
        format!("ct_state=+trk+est,icmp,in_port={server},actions={client}"),
    ];
    lab.ovs_with_input("ofctl", &["add-flows", &bridge.name, "-"], &flows.join("\n"))?.ok()?;
    Ok(bridge)
}

/// A bridge with two ports, and what is in its tables.
pub struct Bridge<'a> {
    lab: &'a Lab,
    name: String,
    /// The client's port and the server's.
    ports: [String; 2],
    ifindexes: [u32; 2],
    connection: Connection,
}

impl<'a> Bridge<'a> {
    fn new(lab: &'a Lab, far: &Netns, number: u8) -> Result<Self> {
        let name = format!("bench{number}");
        let ports = ["c", "s"].map(|side| format!("b{number}{side}"));
        for port in &ports {
            lab.veth(port, &far_end(port), Some(far))?;
        }
        lab.ovs("vsctl", &["add-br", &name])?.ok()?;
        for port in &ports {
            lab.ovs("vsctl", &["add-port", &name, port])?.ok()?;
        }
        let ifindexes = [if_nametoindex(ports[0].as_str())?, if_nametoindex(ports[1].as_str())?];
        Ok(Self { lab, name, ports, ifindexes, connection: Connection::number(number) })
    }

    /// One that has all that a kind of case needs.
    fn filled(lab: &'a Lab, far: &Netns, number: u8, kind: Kind) -> Result<Self> {
        let bridge = Self::new(lab, far, number)?;
        bridge.add_flows(kind)?;
        match kind {
            Kind::Established => bridge.establish(1)?,
            Kind::Connections(n) => bridge.establish(n)?,
            _ => {}
        }
        Ok(bridge)
    }

    /// The far ends of its cables.
    pub fn ends(&self) -> [String; 2] {
        self.ports.each_ref().map(|port| far_end(port))
    }

    fn case(&self, name: &str, kind: Kind, hits: Hits) -> Result<Case> {
        let (variation, same) = match kind {
            Kind::OneFlow | Kind::Established | Kind::Subtables(_) => (None, PORTS),
            // As many as no run sees twice.
            Kind::New => (Some(Variation::in_order(1 << 24, false)), PORTS),
            Kind::Flows(n) | Kind::Connections(n) => {
                let (server, client) = Variation::ports(n).nth(n as usize / 2).context("an empty table")?;
                ((hits == Hits::Scattered).then(|| Variation::scattered(n)), [client, server])
            }
        };
        let part = if matches!(kind, Kind::New) { Part::Syn } else { Part::Established };
        let ports = if variation.is_none() { Some(same) } else { None };
        let switch = program_of(self.lab, &self.ports[0])?;
        let (program, next) = match variation {
            Some(variation) => varying(&switch, variation).map(|(program, next)| (program, Some(next)))?,
            None => (switch, None),
        };
        Ok(Case {
            name: name.into(),
            varied: next.is_some(),
            program,
            _next: next,
            frame: self.connection.frame(part, ports)?,
            ifindex: Some(self.ifindexes[0]),
            verdict: REDIRECT,
            forget: matches!(kind, Kind::New),
        })
    }

    fn add_flows(&self, kind: Kind) -> Result<()> {
        let [client, server] = &self.ports;
        let mut flows = String::new();
        match kind {
            Kind::OneFlow => writeln!(flows, "in_port={client},actions={server}")?,
            Kind::Established | Kind::Connections(_) => {
                flows = tutorial::FLOWS.join("\n").replace("veth_l0", client).replace("veth_r0", server);
            }
            Kind::New => {
                flows = tutorial::FLOWS.join("\n").replace("veth_l0", client).replace("veth_r0", server);
                flows = flows
                    .replace("ct(table=0)", &format!("ct(table=0,{NEW_ZONE})"))
                    .replace("ct(commit)", &format!("ct(commit,{NEW_ZONE})"));
            }
            Kind::Subtables(n) => {
                // Each pair of prefix lengths is a mask of its own. Of its two flows, one wants another source
                // and the other another destination: no bit rules out both, so the subtable must be probed.
                let [_, _, number, _] = self.connection.server;
                for other in 1..n {
                    let (src, dst) = (8 + other / 10, 8 + other % 10);
                    for (client, server) in [(63, 10), (192, 245)] {
                        let (from, to) =
                            (format!("{client}.168.0.2/{src}"), format!("{server}.0.{number}.2/{dst}"));
                        writeln!(flows, "priority=9,tcp,nw_src={from},nw_dst={to},actions=drop")?;
                    }
                }
                writeln!(flows, "priority=1,tcp,actions={server}")?;
            }
            Kind::Flows(n) => {
                for (server_port, client_port) in Variation::ports(n) {
                    writeln!(flows, "tcp,tp_src={client_port},tp_dst={server_port},actions={server}")?;
                }
            }
        }
        self.lab.ovs("ofctl", &["del-flows", &self.name])?.ok()?;
        self.lab.ovs_with_input("ofctl", &["add-flows", &self.name, "-"], &flows)?.ok()?;
        Ok(())
    }

    /// Opens `count` connections: by test-run, so that a million take a few seconds.
    fn establish(&self, count: u32) -> Result<()> {
        let switch = program_of(self.lab, &self.ports[0])?;
        for (part, side) in [(Part::Syn, 0), (Part::SynAck, 1), (Part::Established, 0)] {
            let ifindex = Some(self.ifindexes[side]);
            let (verdict, _) = if count == 1 {
                switch.test_run(&self.connection.frame(part, Some(PORTS))?, ifindex, 1)?
            } else {
                let (program, _next) = varying(&switch, Variation::in_order(count, side == 1))?;
                program.test_run(&self.connection.frame(part, None)?, ifindex, count)?
            };
            ensure!(verdict == REDIRECT, "{}: the handshake ends with verdict {verdict}", self.name);
        }
        Ok(())
    }
}

fn far_end(port: &str) -> String {
    format!("{port}-far")
}

/// The program that serves a port.
pub fn program_of(lab: &Lab, port: &str) -> Result<Program> {
    let text = lab.exec("ip", &["-json", "link", "show", "dev", port])?.ok()?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    let id = links[0]["xdp"]["prog"]["id"].as_u64();
    Program::by_id(u32::try_from(id.with_context(|| format!("{port} is not served by XDP: {text}"))?)?)
}

/// A program that varies frames and goes on in `program`, by way of the map beside it.
fn varying(program: &Program, variation: Variation) -> Result<(Program, Map)> {
    let (position, next) = (Map::new(MapKind::Array)?, Map::of_program(program)?);
    let program = Program::load(Hook::Xdp, &assembler::vary(position.fd(), next.fd(), variation))?;
    Ok((program, next))
}

/// The ports of a connection whose ports do not vary: the client's and the server's.
pub const PORTS: [u16; 2] = [1024, 2048];

/// A part of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Client to server.
    Syn,
    /// Server to client.
    SynAck,
    /// Client to server: an empty ACK.
    Established,
}

/// A connection, or many that differ in their ports.
#[derive(Clone, Copy)]
pub struct Connection {
    /// The client's address, as who answers it sees it.
    pub client: [u8; 4],
    /// The server's address.
    pub server: [u8; 4],
}

impl Connection {
    /// That of a case.
    pub const fn number(number: u8) -> Self {
        Self { client: [192, 168, 0, 2], server: [10, 0, number, 2] }
    }

    /// A small frame; without ports if they are to be filled in.
    pub fn frame(self, part: Part, ports: Option<[u16; 2]>) -> Result<Vec<u8>> {
        let [client_port, server_port] = ports.unwrap_or_default();
        let client = SocketAddr::from((self.client, client_port));
        let server = SocketAddr::from((self.server, server_port));
        let (src, dst) = if part == Part::SynAck { (server, client) } else { (client, server) };
        let (flags, seq, ack) = match part {
            Part::Syn => (flags::SYN, 100, 0),
            Part::SynAck => (flags::SYN | flags::ACK, 200, 101),
            Part::Established => (flags::ACK, 101, 201),
        };
        let mut frame = Ethernet::default().tcp(&Segment { seq, ack, ..Segment::new(src, dst, flags) })?;
        frame.resize(SMALL, 0);
        Ok(frame)
    }
}
