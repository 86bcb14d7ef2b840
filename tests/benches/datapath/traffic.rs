//! Packets and bytes per second between two namespaces: through the switch, and beside it through a bare XDP
//! redirect.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use tests::{
    lab::Lab,
    netns::Netns,
    tutorial::{self, FLOWS},
};

use crate::{
    assembler::{self, DROP, REDIRECT, SHOT},
    bpf::{Hook, Link, Map, MapKind, Program},
    cases::{Connection, PORTS, Part, program_of},
    generator::{Frames, Generator, inside},
    statistics::median,
};

/// Rounds; in each, both ways are measured one after the other.
const ROUNDS: usize = 9;
/// How long the load runs before it is measured.
const WARM_UP: Duration = Duration::from_millis(100);
/// For how long it is measured.
const WINDOW: Duration = Duration::from_millis(400);
/// Rounds of TCP, which take longer.
const TCP_ROUNDS: usize = 3;

/// A way from the left namespace to the right one.
struct Way {
    /// The interfaces at its ends.
    ends: [&'static str; 2],
    /// Their addresses.
    addresses: [&'static str; 2],
}

/// The bare redirect, and the switch.
const WAYS: [Way; 2] = [
    Way { ends: ["bare_l1", "bare_r1"], addresses: ["10.2.2.1", "10.2.2.2"] },
    Way { ends: ["veth_l1", "veth_r1"], addresses: ["10.1.1.1", "10.1.1.2"] },
];

/// The ports of the bare redirect.
const BARE_PORTS: [&str; 2] = ["bare_l0", "bare_r0"];

/// A comparison of the two ways.
pub struct Comparison {
    /// Medians, of the bare redirect and of the switch: packets, or bits, per second.
    pub rates: [f64; 2],
    /// Likewise the processor time that the sending side uses for a packet, in nanoseconds; where measured.
    pub nanoseconds: Option<[f64; 2]>,
    /// The median of the rounds' ratios of the rates.
    pub ratio: f64,
}

/// Who takes the frames at the far end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// XDP drops them as they come.
    Xdp,
    /// They become socket buffers, which tcx drops.
    SocketBuffer,
}

/// Two namespaces and the two ways between them.
pub struct Field<'a> {
    lab: &'a Lab,
    hosts: [Netns; 2],
    _redirects: [Link; 2],
}

impl<'a> Field<'a> {
    /// Makes both ways; the switch must be running.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let hosts = tutorial::set_up(lab)?;
        for ((host, port), end) in hosts.iter().zip(BARE_PORTS).zip(WAYS[0].ends) {
            lab.veth(port, end, Some(host))?;
            // What the switch does by itself: without it a veth takes no redirected frames, and sends ones
            // whose checksums are left to a card that is not there.
            host.exec("ethtool", &["-K", end, "gro", "on", "tx", "off"])?.ok()?;
        }
        let ports = [if_nametoindex(BARE_PORTS[0])?, if_nametoindex(BARE_PORTS[1])?];
        let redirect = |from: u32, to: u32| -> Result<Link> {
            let devices = Map::of_device(to)?;
            Program::load(Hook::Xdp, &assembler::bare_redirect(devices.fd()))?.attach(Hook::Xdp, from)
        };
        let redirects = [redirect(ports[0], ports[1])?, redirect(ports[1], ports[0])?];
        for way in &WAYS {
            for ((host, end), address) in hosts.iter().zip(way.ends).zip(way.addresses) {
                host.exec("ip", &["addr", "add", &format!("{address}/24"), "dev", end])?.ok()?;
            }
        }
        let arp = ["arp,in_port=veth_l0,actions=veth_r0", "arp,in_port=veth_r0,actions=veth_l0"];
        tutorial::replace_flows(lab, &[&FLOWS[..], &arp[..]].concat())?;
        let field = Self { lab, hosts, _redirects: redirects };
        field.establish()?;
        Ok(field)
    }

    /// Opens the connection whose frames are the load.
    fn establish(&self) -> Result<()> {
        for (part, port) in
            [(Part::Syn, "veth_l0"), (Part::SynAck, "veth_r0"), (Part::Established, "veth_l0")]
        {
            let frame = Connection::number(0).frame(part, Some(PORTS))?;
            let ifindex = if_nametoindex(port)?;
            let (verdict, _) = program_of(self.lab, port)?.test_run(&frame, Some(ifindex), 1)?;
            ensure!(verdict == REDIRECT, "the handshake ends with verdict {verdict} at {port}");
        }
        Ok(())
    }

    /// Packets per second of small frames of an established connection.
    pub fn packets(&self, sink: Sink) -> Result<Comparison> {
        let (hook, verdict) = match sink {
            Sink::Xdp => (Hook::Xdp, DROP),
            Sink::SocketBuffer => (Hook::Tcx, SHOT),
        };
        let counter = Map::new(MapKind::Array)?;
        let program = Program::load(hook, &assembler::count(counter.fd(), verdict))?;
        let _links: Vec<Link> = inside(&self.hosts[1], || {
            WAYS.iter().map(|way| program.attach(hook, if_nametoindex(way.ends[1])?)).collect()
        })?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push([self.load(&WAYS[0], &counter)?, self.load(&WAYS[1], &counter)?]);
        }
        let medians = |value: fn(&Load) -> f64| {
            [0, 1].map(|way| median(rounds.iter().map(|round: &[Load; 2]| value(&round[way]))))
        };
        Ok(Comparison {
            rates: medians(|load| load.rate),
            nanoseconds: Some(medians(|load| load.nanoseconds)),
            ratio: median(rounds.iter().map(|[bare, switch]| switch.rate / bare.rate)),
        })
    }

    /// Sends as fast as it goes for a while.
    fn load(&self, way: &Way, counter: &Map) -> Result<Load> {
        let frame = Connection::number(0).frame(Part::Established, Some(PORTS))?;
        let generator = Generator::start(&self.hosts[0], way.ends[0], Frames::Same(frame))?;
        thread::sleep(WARM_UP);
        let before = (Instant::now(), counter.word()?, generator.nanoseconds()?);
        thread::sleep(WINDOW);
        let after = (Instant::now(), counter.word()?, generator.nanoseconds()?);
        generator.stop()?;
        let packets = (after.1 - before.1) as f64;
        Ok(Load {
            rate: packets / (after.0 - before.0).as_secs_f64(),
            nanoseconds: (after.2 - before.2) as f64 / packets,
        })
    }

    /// Bits per second of one TCP stream.
    pub fn tcp(&self) -> Result<Comparison> {
        let mut rounds = Vec::new();
        for _ in 0..TCP_ROUNDS {
            rounds.push([self.stream(&WAYS[0])?, self.stream(&WAYS[1])?]);
        }
        Ok(Comparison {
            rates: [0, 1].map(|way| median(rounds.iter().map(|round| round[way]))),
            nanoseconds: None,
            ratio: median(rounds.iter().map(|[bare, switch]| switch / bare)),
        })
    }

    fn stream(&self, way: &Way) -> Result<f64> {
        let [left, right] = &self.hosts;
        let server = way.addresses[1];
        let mut listener = right.spawn("iperf3", &["-s", "-1", "-B", server])?;
        right.wait_for_listener(5201)?;
        let report =
            left.exec("iperf3", &["-c", server, "-t", "2", "-J", "--connect-timeout", "5000"])?.ok()?;
        listener.wait(Duration::from_secs(10))?;
        let report: serde_json::Value = serde_json::from_str(&report)?;
        report["end"]["sum_received"]["bits_per_second"]
            .as_f64()
            .context("no sum_received in iperf3's report")
    }
}

/// What a load came to.
struct Load {
    /// Packets per second at the far end.
    rate: f64,
    /// Processor time per packet: the sender's thread does all of it, but for what the kernel's own thread takes
    /// over.
    nanoseconds: f64,
}
