//! A million connections at once: opened, dumped, flushed, expired, and counted all along.
//!
//! The switch has room for as many and no more. The table takes some 700 MB whatever is in it; where there is less, the
//! switch does not start, and the test fails.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader},
    net::SocketAddr,
    ops::Range,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use tests::{
    dump,
    lab::{BIN, Daemon, Lab},
    netns::Netns,
    packet::{
        Ethernet, Port, Segment, Template,
        flags::{ACK, RST, SYN},
    },
    ping::Pinger,
    process::Background,
    topology::{self, Datapath},
    wire::Wire,
};

/// The zones, each with half of the connections: what is opened and then flushed, and what is answered too and then
/// expires.
const FLUSHED: u8 = 1;
const EXPIRED: u8 = 2;
/// Clients in each zone.
const CLIENTS: Range<u8> = 0..10;
/// The ports that each of them connects from.
const PORTS: Range<u16> = 10_000..60_000;
/// All connections.
const TOTAL: usize = 2 * HALF;
/// Those of one zone.
const HALF: usize = (CLIENTS.end - CLIENTS.start) as usize * (PORTS.end - PORTS.start) as usize;
const SERVER: ([u8; 4], u16) = ([10, 9, 9, 9], 80);

/// How long it may take until what was sent has been tracked, or until what is due has expired.
const SOON: Duration = Duration::from_secs(30);
/// How much memory a dump may take: much less than all connections do.
const DUMP: u64 = 8 * 1024;

/// No connection expires before it is reset, however slow the machine; then it does so at once.
const POLICIES: [&[&str]; 2] =
    [&["zone=1", "tcp_syn_sent=3600"], &["zone=2", "tcp_syn_sent=3600", "tcp_syn_recv=3600", "tcp_close=1"]];

/// A client's zone is its second octet. Pings are looked up among all the connections, and become none.
const FLOWS: [&str; 11] = [
    "table=0,tcp,in_port=1,nw_src=10.1.0.0/16,actions=ct(zone=1,table=1)",
    "table=0,tcp,in_port=1,nw_src=10.2.0.0/16,actions=ct(zone=2,table=1)",
    "table=0,tcp,in_port=2,nw_dst=10.1.0.0/16,actions=ct(zone=1,table=1)",
    "table=0,tcp,in_port=2,nw_dst=10.2.0.0/16,actions=ct(zone=2,table=1)",
    "table=0,icmp,actions=ct(zone=3,table=1)",
    "table=1,ct_state=+trk+new,tcp,in_port=1,nw_src=10.1.0.0/16,actions=ct(commit,zone=1),output:2",
    "table=1,ct_state=+trk+new,tcp,in_port=1,nw_src=10.2.0.0/16,actions=ct(commit,zone=2),output:2",
    "table=1,ct_state=+trk-inv,tcp,priority=1,in_port=1,actions=output:2",
    "table=1,ct_state=+trk-inv,tcp,priority=1,in_port=2,actions=output:1",
    "table=1,icmp,in_port=1,actions=output:2",
    "table=1,icmp,in_port=2,actions=output:1",
];

struct World {
    lab: Lab,
    switch: Daemon,
    client: Wire,
    server: Wire,
}

impl World {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let switch = lab.switchd(&["--max-connections", &TOTAL.to_string()])?;
        let wires = topology::bridge(&lab, "br0", Datapath::Xdp, &["p1", "p2"])?;
        let [client, server] = wires.try_into().map_err(|_| anyhow!("not two wires"))?;
        topology::replace_flows(&lab, "br0", &FLOWS)?;
        for policy in POLICIES {
            lab.ovs("vsctl", &[&["add-zone-tp", "netdev"], policy].concat())?.ok()?;
        }
        Ok(Self { lab, switch, client, server })
    }

    fn appctl(&self, line: &str) -> Result<String> {
        self.lab.ovs("appctl", &line.split(' ').collect::<Vec<_>>())?.ok()
    }

    fn count(&self) -> Result<usize> {
        Ok(self.appctl("dpctl/ct-get-nconns")?.trim().parse()?)
    }

    fn books(&self, zone: u8) -> Result<String> {
        self.appctl(&format!("dpctl/ct-zone-stats zone={zone}"))
    }

    /// Waits until a command says what is wanted.
    fn wait_for(&self, line: &str, wanted: &str) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            let text = self.appctl(line)?;
            if text == wanted {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{line} says {text:?}, not {wanted:?}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends a segment of each client's connections.
    fn clients_send(&self, zone: u8, flags: u8, seq: u32) -> Result<()> {
        for client in CLIENTS {
            let segment = Segment { seq, ..Segment::new(address(zone, client), SERVER.into(), flags) };
            let template = Template::new(Ethernet::default(), &segment, Port::Source)?;
            send(&self.client, &template)?;
        }
        Ok(())
    }

    fn open(&self, zone: u8) -> Result<()> {
        self.clients_send(zone, SYN, 100)
    }

    fn answer(&self, zone: u8) -> Result<()> {
        for client in CLIENTS {
            let syn_ack = Segment::new(SERVER.into(), address(zone, client), SYN | ACK);
            let segment = Segment { seq: 200, ack: 101, ..syn_ack };
            let template = Template::new(Ethernet::default().reversed(), &segment, Port::Destination)?;
            send(&self.server, &template)?;
        }
        Ok(())
    }

    fn reset(&self, zone: u8) -> Result<()> {
        self.clients_send(zone, RST, 101)
    }

    /// Sees that a dump has each connection once, and takes next to no memory.
    fn check_dump(&self) -> Result<()> {
        let before = self.switch.memory()?;
        let mut peak = before;
        let mut command = self.lab.command(Path::new(BIN).join("appctl"));
        let mut process = Background::spawn(command.args(["dpctl/dump-conntrack"]).stdout(Stdio::piped()))?;
        let lines = BufReader::new(process.child().stdout.take().context("a pipe")?).lines();
        let mut seen = HashSet::with_capacity(TOTAL);
        for (number, line) in lines.enumerate() {
            let line = line?;
            let connection = Connection::read(&line).with_context(|| line.clone())?;
            ensure!(seen.insert(connection), "a second time: {line}");
            if number % 1000 == 0 {
                peak = peak.max(self.switch.memory()?);
            }
        }
        ensure!(process.wait(SOON)?.success(), "the dump has failed");
        // All are different, and within the ranges.
        assert_eq!(seen.len(), TOTAL);
        assert!(peak < before + DUMP, "{before} kB became {peak} kB");
        Ok(())
    }
}

fn address(zone: u8, client: u8) -> SocketAddr {
    ([10, zone, 0, client], 0).into()
}

fn send(wire: &Wire, template: &Template) -> Result<()> {
    let frames: Vec<_> = PORTS.map(|port| template.frame(port)).collect();
    wire.send_all(&frames)
}

/// One of those that were opened.
#[derive(PartialEq, Eq, Hash)]
struct Connection {
    zone: u8,
    client: u8,
    port: u16,
}

impl Connection {
    /// Reads a line of a dump, if it is just as it should be.
    fn read(line: &str) -> Option<Self> {
        let zone: u8 = dump::field(line, "zone")?.parse().ok()?;
        let client: u8 = dump::field(line, "src")?.strip_prefix(&format!("10.{zone}.0."))?.parse().ok()?;
        let port: u16 = dump::field(line, "sport")?.parse().ok()?;
        let state = if zone == EXPIRED { "ESTABLISHED" } else { "SYN_SENT" };
        let wanted = format!(
            "tcp,orig=(src=10.{zone}.0.{client},dst=10.9.9.9,sport={port},dport=80),\
             reply=(src=10.9.9.9,dst=10.{zone}.0.{client},sport=80,dport={port}),zone={zone},\
             protoinfo=(state={state})"
        );
        let known = [FLUSHED, EXPIRED].contains(&zone) && CLIENTS.contains(&client) && PORTS.contains(&port);
        (known && line == wanted).then_some(Self { zone, client, port })
    }
}

#[test]
fn a_million_connections() -> Result<()> {
    let world = World::new()?;
    world.open(FLUSHED)?;
    world.open(EXPIRED)?;
    world.answer(EXPIRED)?;
    world.wait_for(
        "dpctl/ct-stats-show -m",
        &format!(
            "Connections Stats:\n    Total: {TOTAL}\n  TCP: {TOTAL}\n    Conn per TCP states:\n\
             \t  [SYN_SENT]={HALF}\n\t  [ESTABLISHED]={HALF}\n"
        ),
    )?;
    assert_eq!(world.count()?, TOTAL);

    let hosts = Netns::open("hosts-br0")?;
    let pinger = Pinger::new(hosts.open_wire("p1-peer")?, hosts.open_wire("p2-peer")?);
    let stop = AtomicBool::new(false);
    let pings = thread::scope(|scope| {
        let pinging = scope.spawn(|| pinger.run(&stop));
        let done =
            world.check_dump().and_then(|()| world.appctl(&format!("dpctl/flush-conntrack zone={FLUSHED}")));
        stop.store(true, Ordering::Relaxed);
        let pings = pinging.join().map_err(|_| anyhow!("the pinger has panicked"))?;
        done.and(pings)
    })?;
    assert_eq!(pings.lost, 0);
    assert!(!pings.round_trips.is_empty());
    assert_eq!(world.count()?, HALF);
    assert_eq!(world.books(FLUSHED)?, books(FLUSHED, 0, 0));
    assert_eq!(world.books(EXPIRED)?, books(EXPIRED, HALF, 0));

    world.appctl("dpctl/ct-set-sweep-interval 500")?;
    world.reset(EXPIRED)?;
    world.wait_for("dpctl/ct-get-nconns", "0\n")?;
    assert_eq!(world.books(FLUSHED)?, books(FLUSHED, 0, 0));
    assert_eq!(world.books(EXPIRED)?, books(EXPIRED, 0, HALF));
    world.switch.stop()?;
    Ok(())
}

/// What is to be in a zone's books: all were created, and what is neither there nor expired was flushed.
fn books(zone: u8, connections: usize, expired: usize) -> String {
    format!(
        "zone={zone},connections={connections},created={HALF},refused=0,evicted=0,expired={expired},invalid=0\n"
    )
}
