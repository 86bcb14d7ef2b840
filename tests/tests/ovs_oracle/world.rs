//! The two worlds: the switch and Open vSwitch's userspace datapath, each with hosts at four ports of the same numbers.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{
    dump,
    lab::{Daemon, Lab},
    ovs::{self, Io, Ovs},
    packet::Ethernet,
    process::Output,
    topology::{self, Datapath},
    wire::Wire,
};

/// Ports of each bridge, numbered from 1.
pub const PORTS: usize = 4;
/// The EtherType of the frames that tell that all before them are through: one for local experiments (IEEE 802).
const LAST: u16 = 0x88b5;
/// How long those may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What XDP and tcx send may overtake each other: so long no frame must come for all to be through.
const QUIET: Duration = Duration::from_millis(10);

/// Frames that are sent in a row, and how long nothing is sent then: each may be put out many times, and a veth's receive
/// queue holds 256.
const BURST: usize = 4;
const PAUSE: Duration = Duration::from_micros(300);

/// How frames follow each other.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Those of different ports may overtake each other.
    Bursts,
    /// Each is through before the next one is sent.
    InOrder,
}

/// Both, in a lab.
pub struct World {
    ovs: (Ovs, Vec<Wire>),
    switch: (Daemon, Vec<Wire>),
    lab: Lab,
}

/// What came out of each port; sorted, where frames from different ports may overtake each other.
pub type Arrivals = Vec<Vec<Vec<u8>>>;

/// A flow's text, packets and bytes.
pub type Counted = (String, u64, u64);

impl World {
    /// Both, with a way to treat fragments of `ovs-ofctl set-frags`.
    pub fn new(datapath: Datapath, fragments: &str) -> Result<Self> {
        ensure!(ovs::is_there(), "ovs-vswitchd is not in PATH: `cargo xtask test` puts it there");
        let lab = Lab::new()?;
        let names = |letter: char| (1..=PORTS).map(|number| format!("{letter}{number}")).collect::<Vec<_>>();
        let (own, theirs) = (names('p'), names('o'));
        let [own, theirs] = [&own, &theirs].map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
        let daemon = lab.switchd(&[])?;
        let wires = topology::bridge(&lab, ovs::BRIDGE, datapath, &own)?;
        let switch = (daemon, wires);

        let hosts = lab.netns("hosts-ovs")?;
        let far = |port: &str| format!("{port}-far");
        for port in &theirs {
            lab.veth(port, &far(port), Some(&hosts))?;
        }
        let ovs = Ovs::start(&lab, Io::Packet, &theirs)?;
        let wires = theirs.iter().map(|port| hosts.open_wire(&far(port))).collect::<Result<_>>()?;
        let world = Self { ovs: (ovs, wires), switch, lab };
        world.both(&["set-frags", ovs::BRIDGE, fragments], "")?;
        Ok(world)
    }

    /// Replaces all flows in both, by the same client.
    pub fn set_flows(&self, flows: &str) -> Result<()> {
        self.both(&["del-flows", ovs::BRIDGE], "")?;
        let last = format!("table=0,priority=65535,dl_type={LAST:#x},actions=ALL\n{flows}");
        self.both(&["add-flows", ovs::BRIDGE, "-"], &last)
    }

    /// Forgets all connections, in both.
    pub fn forget_connections(&self) -> Result<()> {
        self.ovs.0.output("ovs-appctl", &["dpctl/flush-conntrack"], "")?.ok()?;
        self.lab.debian("ovs-appctl", &["dpctl/flush-conntrack"])?.ok().map(drop)
    }

    fn both(&self, args: &[&str], input: &str) -> Result<()> {
        let theirs = self.ovs.0.output("ovs-ofctl", args, input)?;
        let ours = self.lab.debian_with_input("ovs-ofctl", args, input)?;
        ensure!(theirs == ours, "{args:?}: Open vSwitch says\n{theirs}the switch\n{ours}{input}");
        ours.ok().map(drop)
    }

    /// Sends frames into ports, in both, and tells what comes out: of Open vSwitch, and of the switch.
    pub fn send(&self, frames: &[(usize, Vec<u8>)], pace: Pace) -> Result<[Arrivals; 2]> {
        Ok([
            cross(&self.ovs.1, frames, pace).context("Open vSwitch")?,
            cross(&self.switch.1, frames, pace).context("the switch")?,
        ])
    }

    /// Packets and bytes of each flow, by its text: of Open vSwitch, and of the switch.
    pub fn counters(&self) -> Result<[Vec<Counted>; 2]> {
        // What its datapath has counted is collected at the end of its flows.
        self.ovs.0.output("ovs-appctl", &["revalidator/purge"], "")?.ok()?;
        let args = ["dump-flows", "--no-names", ovs::BRIDGE];
        let dumps = [self.ovs.0.output("ovs-ofctl", &args, "")?, self.lab.debian("ovs-ofctl", &args)?];
        let [theirs, ours] = dumps.map(counted);
        Ok([theirs?, ours?])
    }
}

/// What a dump says of each flow.
fn counted(dump: Output) -> Result<Vec<Counted>> {
    let flows = dump::flows(&dump.ok()?).into_iter().map(|flow| (flow.rule, flow.packets, flow.bytes));
    let mut flows: Vec<_> = flows.collect();
    flows.sort();
    Ok(flows)
}

/// Sends frames, and waits until all are through.
fn cross(wires: &[Wire], frames: &[(usize, Vec<u8>)], pace: Pace) -> Result<Arrivals> {
    let mut arrivals = vec![Vec::new(); wires.len()];
    for burst in frames.chunks(BURST) {
        for (port, frame) in burst {
            wires[*port].send(frame)?;
            if let Pace::InOrder = pace {
                settle(wires, &[*port], &mut arrivals)?;
            }
        }
        if let Pace::Bursts = pace {
            thread::sleep(PAUSE);
        }
    }
    settle(wires, &(0..wires.len()).collect::<Vec<_>>(), &mut arrivals)?;
    for (wire, arrived) in wires.iter().zip(&mut arrivals) {
        arrived.extend(wire.drain(QUIET)?);
        if let Pace::Bursts = pace {
            arrived.sort();
        }
    }
    Ok(arrivals)
}

/// Waits until what was sent from some ports is through.
fn settle(wires: &[Wire], from: &[usize], arrivals: &mut Arrivals) -> Result<()> {
    let last = Ethernet::default().frame(LAST, &[0; 46]);
    for &port in from {
        wires[port].send(&last)?;
    }
    let deadline = Instant::now() + PATIENCE;
    for (port, (wire, arrived)) in wires.iter().zip(arrivals).enumerate() {
        let mut missing = from.iter().filter(|&&other| other != port).count();
        while missing > 0 {
            let frame = wire.recv(deadline.saturating_duration_since(Instant::now()))?;
            match frame.with_context(|| format!("{missing} last frames are missing at port {}", port + 1))? {
                frame if frame == last => missing -= 1,
                frame => arrived.push(frame),
            }
        }
    }
    Ok(())
}
