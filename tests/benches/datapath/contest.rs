//! The switch beside Open vSwitch's userspace datapath, in turn: the same frames, flows and cables.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use tests::{
    lab::Lab,
    netns::Netns,
    ovs::{self, Io, Ovs},
    wire::Wire,
};

use crate::{
    assembler::{self, DROP, Variation},
    bpf::{Hook, Link, Map, MapKind, Program},
    cases::{Connection, Part},
    cpu,
    generator::{Frames, Generator, inside},
    statistics::median,
};

/// Rounds; in each, everyone has one turn.
const ROUNDS: usize = 7;
/// How long the load runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(400);
/// For how long it is measured.
const WINDOW: Duration = Duration::from_millis(400);
/// Room for the connections of the switch.
const MAX_CONNECTIONS: &str = "2000000";
/// Connections that begin, one with every frame: as many as no turn sees twice.
const NEW: u32 = 1 << 24;
/// The zone of all connections.
const ZONE: &str = "zone=9";
/// The address that clients get.
const TRANSLATED: [u8; 4] = [10, 77, 0, 1];
/// Frames of a handshake that are sent in a row, and how long nothing is sent then: receive queues are short.
const BURST: usize = 64;
const PAUSE: Duration = Duration::from_micros(500);
/// Attempts to establish all connections.
const ATTEMPTS: usize = 10;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Frames of so many established connections, in scattered order.
    Established(u32),
    /// A new connection with every frame.
    New,
}

/// A row of the table.
pub struct Row {
    /// Its name.
    pub name: &'static str,
    /// The load.
    pub load: Load,
    translated: bool,
}

/// The rows.
pub const ROWS: &[Row] = &[
    row("one connection, beside OVS", Load::Established(1), false),
    row("1,000 connections, beside OVS", Load::Established(1000), false),
    row("100,000 connections, beside OVS", Load::Established(100_000), false),
    row("new connections, beside OVS", Load::New, false),
    row("one translated connection, beside OVS", Load::Established(1), true),
    row("1,000 translated connections, beside OVS", Load::Established(1000), true),
    row("100,000 translated connections, beside OVS", Load::Established(100_000), true),
    row("new translated connections, beside OVS", Load::New, true),
];

const fn row(name: &'static str, load: Load, translated: bool) -> Row {
    Row { name, load, translated }
}

impl Row {
    /// Flows between two ports: what comes from the first may open connections, the second may answer.
    fn flows(&self, [client, server]: [&str; 2]) -> String {
        let (nat, source) = if self.translated {
            (",nat", format!(",nat(src={})", TRANSLATED.map(|byte| byte.to_string()).join(".")))
        } else {
            ("", String::new())
        };
        [
            format!("ct_state=-trk,tcp,in_port={client},actions=ct(table=0,{ZONE}{nat})"),
            format!("ct_state=+trk+new,tcp,in_port={client},actions=ct(commit,{ZONE}{source}),{server}"),
            format!("ct_state=+trk+est,tcp,in_port={client},actions={server}"),
            format!("ct_state=-trk,tcp,in_port={server},actions=ct(table=0,{ZONE}{nat})"),
            format!("ct_state=+trk+est,tcp,in_port={server},actions={client}"),
        ]
        .join("\n")
    }

    /// The three parts of all handshakes, with the side that each is sent from.
    fn handshakes(&self, count: u32) -> Result<[(usize, Vec<Vec<u8>>); 3]> {
        let seen_by_client = Connection::number(0);
        let seen_by_server = if self.translated {
            Connection { client: TRANSLATED, ..seen_by_client }
        } else {
            seen_by_client
        };
        let frames = |connection: Connection, part| -> Result<Vec<Vec<u8>>> {
            Variation::ports(count)
                .map(|(server, client)| connection.frame(part, Some([client, server])))
                .collect()
        };
        Ok([
            (0, frames(seen_by_client, Part::Syn)?),
            (1, frames(seen_by_server, Part::SynAck)?),
            (0, frames(seen_by_client, Part::Established)?),
        ])
    }
}

/// Who is compared.
pub const NAMES: [&str; 3] = ["OVS, AF_PACKET", "OVS, AF_XDP", "switch"];

/// What a row came to: medians.
pub struct Outcome {
    /// Packets at the far end for each second that the forwarding thread has run, in the order of [`NAMES`]. That is
    /// what a processor of one's own would forward; what else runs on the machine does not count.
    pub rates: [f64; 3],
    /// The rounds' ratios of the switch to the better Open vSwitch.
    pub ratio: f64,
}

/// One of those that are compared.
struct Contender<'a> {
    switch: Switch<'a>,
    /// Its ports, the client's and the server's, and the far ends of their cables.
    ports: [&'static str; 2],
    ends: [&'static str; 2],
}

enum Switch<'a> {
    Own(&'a Lab),
    Ovs(Ovs),
}

impl Contender<'_> {
    fn run(&self, tool: &str, args: &[&str], input: &str) -> Result<String> {
        match &self.switch {
            Switch::Own(lab) => lab.ovs_with_input(tool, args, input)?.ok(),
            Switch::Ovs(ovs) => ovs.run(tool, args, input),
        }
    }

    /// Processor time of the thread that forwards; for the switch that is the one which sends, too.
    fn nanoseconds(&self, generator: &Generator) -> Result<u64> {
        if let Switch::Ovs(ovs) = &self.switch {
            // What the kernel's own threads do for it does not count.
            cpu::nanoseconds(&ovs.forwarder()?)
        } else {
            generator.nanoseconds()
        }
    }

    fn begin_turn(&self) -> Result<()> {
        if let Switch::Ovs(ovs) = &self.switch { ovs.resume() } else { Ok(()) }
    }

    fn end_turn(&self) -> Result<()> {
        if let Switch::Ovs(ovs) = &self.switch { ovs.pause() } else { Ok(()) }
    }

    fn forget(&self) -> Result<()> {
        self.run("ovs-appctl", &["dpctl/flush-conntrack", ZONE], "").map(drop)
    }

    fn set_flows(&self, row: &Row) -> Result<()> {
        self.run("ovs-ofctl", &["del-flows", ovs::BRIDGE], "")?;
        self.run("ovs-ofctl", &["add-flows", ovs::BRIDGE, "-"], &row.flows(self.ports))?;
        self.forget()
    }

    fn established(&self) -> Result<u32> {
        let text = self.run("ovs-appctl", &["dpctl/ct-stats-show", "-m", ZONE], "")?;
        let count = text.lines().find_map(|line| line.trim().strip_prefix("[ESTABLISHED]="));
        Ok(count.map(str::parse).transpose()?.unwrap_or(0))
    }

    /// Opens connections through the ports, again until all of them are there.
    fn establish(&self, row: &Row, hosts: &[Netns; 2], count: u32) -> Result<()> {
        let wires = [hosts[0].open_wire(self.ends[0])?, hosts[1].open_wire(self.ends[1])?];
        let handshakes = row.handshakes(count)?;
        for _ in 0..ATTEMPTS {
            for (side, frames) in &handshakes {
                send_slowly(&wires[*side], frames)?;
            }
            if self.established()? == count {
                return Ok(());
            }
        }
        let established = self.established()?;
        anyhow::bail!("{}: only {established} connections are established", row.name)
    }
}

fn send_slowly(wire: &Wire, frames: &[Vec<u8>]) -> Result<()> {
    for burst in frames.chunks(BURST) {
        wire.send_all(burst)?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Two hosts with a cable to each contender.
pub struct Contest<'a> {
    hosts: [Netns; 2],
    contenders: [Contender<'a>; 3],
    /// Counts what arrives at the server's end of whoever has its turn.
    counter: Map,
    _links: Vec<Link>,
}

/// What the switch needs to be started with.
pub const OPTIONS: [&str; 2] = ["--max-connections", MAX_CONNECTIONS];

impl<'a> Contest<'a> {
    /// Sets it up; the switch must be running.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        ensure!(ovs::is_there(), "ovs-vswitchd is not in PATH: `cargo xtask bench` puts it there");
        let hosts = [lab.netns("client")?, lab.netns("server")?];
        let cables = [
            (["packet0", "packet1"], ["packet0-far", "packet1-far"]),
            (["afxdp0", "afxdp1"], ["afxdp0-far", "afxdp1-far"]),
            (["switch0", "switch1"], ["switch0-far", "switch1-far"]),
        ];
        for (ports, ends) in cables {
            for side in 0..2 {
                lab.veth(ports[side], ends[side], Some(&hosts[side]))?;
            }
        }
        let ovs = |io, ports: [&str; 2]| -> Result<Switch<'a>> {
            let ovs = Ovs::start(lab, io, &ports)?;
            ovs.pause()?;
            Ok(Switch::Ovs(ovs))
        };
        let switches = [ovs(Io::Packet, cables[0].0)?, ovs(Io::Xdp, cables[1].0)?, own(lab, cables[2].0)?];
        let mut numbered = switches.into_iter().zip(cables);
        let mut contender = || {
            let (switch, (ports, ends)) = numbered.next().context("a contender")?;
            anyhow::Ok(Contender { switch, ports, ends })
        };
        let contenders = [contender()?, contender()?, contender()?];

        let counter = Map::new(MapKind::Array)?;
        let program = Program::load(Hook::Xdp, &assembler::count(counter.fd(), DROP))?;
        let links = inside(&hosts[1], || {
            cables.iter().map(|(_, ends)| program.attach(Hook::Xdp, if_nametoindex(ends[1])?)).collect()
        })?;
        Ok(Self { hosts, contenders, counter, _links: links })
    }

    /// Measures a row.
    pub fn measure(&self, row: &Row) -> Result<Outcome> {
        for contender in &self.contenders {
            contender.begin_turn()?;
            contender.set_flows(row)?;
            if let Load::Established(count) = row.load {
                contender.establish(row, &self.hosts, count)?;
            }
            contender.end_turn()?;
        }
        let rounds = (0..ROUNDS).map(|_| self.round(row)).collect::<Result<Vec<_>>>()?;
        Ok(Outcome {
            rates: [0, 1, 2].map(|contender| median(rounds.iter().map(|round| round[contender]))),
            ratio: median(rounds.iter().map(|[packet, xdp, switch]| switch / packet.max(*xdp))),
        })
    }

    /// Everybody's turn.
    fn round(&self, row: &Row) -> Result<[f64; 3]> {
        let mut rates = [0.0; 3];
        for (contender, rate) in self.contenders.iter().zip(&mut rates) {
            contender.begin_turn()?;
            *rate = self.rate(contender, row.load)?;
            if row.load == Load::New {
                contender.forget()?;
            }
            contender.end_turn()?;
        }
        Ok(rates)
    }

    /// Packets at the far end per second of processor time, while as many are sent as can be.
    fn rate(&self, contender: &Contender<'_>, load: Load) -> Result<f64> {
        let (part, variation) = match load {
            Load::Established(count) => (Part::Established, Variation::scattered(count)),
            Load::New => (Part::Syn, Variation::in_order(NEW, false)),
        };
        let frame = Connection::number(0).frame(part, None)?;
        let generator =
            Generator::start(&self.hosts[0], contender.ends[0], Frames::Varied(frame, variation))?;
        thread::sleep(WARM_UP);
        let before = (self.counter.word()?, contender.nanoseconds(&generator)?);
        thread::sleep(WINDOW);
        let after = (self.counter.word()?, contender.nanoseconds(&generator)?);
        generator.stop()?;
        Ok((after.0 - before.0) as f64 / Duration::from_nanos(after.1 - before.1).as_secs_f64())
    }
}

fn own<'a>(lab: &'a Lab, ports: [&str; 2]) -> Result<Switch<'a>> {
    lab.ovs("vsctl", &["add-br", ovs::BRIDGE])?.ok()?;
    for port in ports {
        lab.ovs("vsctl", &["add-port", ovs::BRIDGE, port])?.ok()?;
    }
    Ok(Switch::Own(lab))
}
