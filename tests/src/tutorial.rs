//! The conntrack tutorial as data, and the player that the demo and the tests share.

use std::{fmt, net::SocketAddr, thread, time::Duration};

use anyhow::{Context, Result};

use crate::{
    dump,
    lab::Lab,
    netns::Netns,
    packet::{Ethernet, Segment},
    process::Output,
    scapy::Scapy,
    wire::Wire,
};

/// The commands that make the topology. The tutorial leaves out that the four ends must be up.
pub const SETUP: &[&str] = &[
    "ip netns add left",
    "ip netns add right",
    "ip link add veth_l0 type veth peer name veth_l1",
    "ip link set veth_l1 netns left",
    "ip link add veth_r0 type veth peer name veth_r1",
    "ip link set veth_r1 netns right",
    "ip link set veth_l0 up",
    "ip link set veth_r0 up",
    "ip -n left link set veth_l1 up",
    "ip -n right link set veth_r1 up",
    "ovs-vsctl add-br br0",
    "ovs-vsctl add-port br0 veth_l0",
    "ovs-vsctl add-port br0 veth_r0",
];

/// Plain forwarding, which the flows of the tutorial proper replace.
pub const PLAIN_FLOWS: &[&str] = &[
    "table=0, priority=10, in_port=veth_l0, actions=veth_r0",
    "table=0, priority=10, in_port=veth_r0, actions=veth_l0",
];

/// Flows 1 to 5, to the letter.
pub const FLOWS: [&str; 5] = [
    "table=0, priority=50, ct_state=-trk, tcp, in_port=veth_l0, actions=ct(table=0)",
    "table=0, priority=50, ct_state=+trk,+new, tcp, in_port=veth_l0, actions=ct(commit),veth_r0",
    "table=0, priority=50, ct_state=-trk, tcp, in_port=veth_r0, actions=ct(table=0)",
    "table=0, priority=50, ct_state=+trk,+est, tcp, in_port=veth_r0, actions=veth_l0",
    "table=0, priority=50, ct_state=+trk,+est, tcp, in_port=veth_l0, actions=veth_r0",
];

/// Flows 1 to 5 as `dump-flows` prints them, veth_l0 being port 1 and veth_r0 port 2.
pub const DUMPED_FLOWS: [&str; 5] = [
    "priority=50,ct_state=-trk,tcp,in_port=1 actions=ct(table=0)",
    "priority=50,ct_state=+new+trk,tcp,in_port=1 actions=ct(commit),output:2",
    "priority=50,ct_state=-trk,tcp,in_port=2 actions=ct(table=0)",
    "priority=50,ct_state=+est+trk,tcp,in_port=2 actions=output:1",
    "priority=50,ct_state=+est+trk,tcp,in_port=1 actions=output:2",
];

/// Makes the topology by the tutorial's own commands; the switch must be running.
pub fn set_up(lab: &Lab) -> Result<[Netns; 2]> {
    for line in SETUP {
        run(lab, line)?.ok().context(*line)?;
    }
    hosts()
}

/// Runs a line of [`SETUP`]. A namespace that it makes is kept from sending packets of its own accord.
pub fn run(lab: &Lab, line: &str) -> Result<Output> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    let output = lab.exec(program, &words.collect::<Vec<_>>())?;
    if let Some(name) = line.strip_prefix("ip netns add ") {
        Netns::open(name)?.prepare()?;
    }
    Ok(output)
}

/// Replaces all flows of br0.
pub fn replace_flows(lab: &Lab, flows: &[&str]) -> Result<()> {
    lab.ovs("ovs-ofctl", &["del-flows", "br0"])?.ok()?;
    for flow in flows {
        lab.ovs("ovs-ofctl", &["add-flow", "br0", flow])?.ok().with_context(|| (*flow).to_owned())?;
    }
    Ok(())
}

const LEFT: ([u8; 4], u16) = ([192, 168, 0, 2], 1024);
const RIGHT: ([u8; 4], u16) = ([10, 0, 0, 2], 2048);

/// How much of a connection's time may have gone by when the dump is taken, in seconds.
const TIMER_TOLERANCE: u64 = 5;
/// How long a frame may be on its way.
const ARRIVAL: Duration = Duration::from_secs(2);
/// How long to listen for frames that should not be there.
const SILENCE: Duration = Duration::from_millis(30);

/// One of the two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// 192.168.0.2, the client.
    Left,
    /// 10.0.0.2, the server.
    Right,
}

impl Side {
    /// The other host.
    pub fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    /// The host's namespace.
    pub fn netns(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }

    /// The host's interface.
    pub fn interface(self) -> &'static str {
        match self {
            Self::Left => "veth_l1",
            Self::Right => "veth_r1",
        }
    }

    /// The host's address and port.
    pub fn address(self) -> SocketAddr {
        match self {
            Self::Left => LEFT.into(),
            Self::Right => RIGHT.into(),
        }
    }
}

/// A row of the tutorial: a segment and what must be seen of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What the segment is.
    pub what: &'static str,
    /// Who sends it; it comes out at the other side.
    pub sender: Side,
    /// TCP flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number.
    pub ack: u32,
    /// Payload.
    pub payload: &'static str,
    /// The flows it hits, numbered from 1.
    pub hits: [usize; 2],
    /// The connection's state behind it, in OVS's words.
    pub state: &'static str,
    /// The connection's timer when it has just been set, in seconds.
    pub timeout: u64,
}

/// The rows of the tutorial.
pub const STEPS: &[Step] = &[
    left("SYN", 0x02, (100, 0), "", [1, 2], ("SYN_SENT", 120)),
    left("SYN again", 0x02, (100, 0), "", [1, 2], ("SYN_SENT", 120)),
    right("SYN-ACK", 0x12, (200, 101), [3, 4], ("ESTABLISHED", 60)),
    left("ACK", 0x10, (101, 201), "", [1, 5], ("ESTABLISHED", 432_000)),
    left("data", 0x10, (101, 201), "X", [1, 5], ("ESTABLISHED", 300)),
    right("ACK of the data", 0x10, (201, 102), [3, 4], ("ESTABLISHED", 432_000)),
    left("FIN", 0x11, (102, 201), "", [1, 5], ("FIN_WAIT_1", 120)),
    right("FIN of the server", 0x11, (201, 103), [3, 4], ("LAST_ACK", 30)),
    left("last ACK", 0x10, (103, 202), "", [1, 5], ("TIME_WAIT", 120)),
    left("data again", 0x10, (101, 201), "X", [1, 5], ("TIME_WAIT", 120)),
];

const fn left(
    what: &'static str,
    flags: u8,
    (seq, ack): (u32, u32),
    payload: &'static str,
    hits: [usize; 2],
    (state, timeout): (&'static str, u64),
) -> Step {
    Step { what, sender: Side::Left, flags, seq, ack, payload, hits, state, timeout }
}

const fn right(
    what: &'static str,
    flags: u8,
    (seq, ack): (u32, u32),
    hits: [usize; 2],
    (state, timeout): (&'static str, u64),
) -> Step {
    Step { what, sender: Side::Right, flags, seq, ack, payload: "", hits, state, timeout }
}

impl Step {
    /// The segment.
    pub fn segment(&self) -> Segment<'static> {
        let (src, dst) = (self.sender.address(), self.sender.other().address());
        Segment {
            seq: self.seq,
            ack: self.ack,
            payload: self.payload.as_bytes(),
            ..Segment::new(src, dst, self.flags)
        }
    }

    /// The frame as scapy would send it.
    pub fn frame(&self) -> Result<Vec<u8>> {
        Ethernet::default().tcp(&self.segment())
    }

    /// The statement of the tutorial that sends it in scapy.
    pub fn scapy(&self) -> String {
        let (src, dst) = (self.sender.address(), self.sender.other().address());
        let ack = if self.ack == 0 { String::new() } else { format!(", ack={}", self.ack) };
        let payload = if self.payload.is_empty() { String::new() } else { format!("/\"{}\"", self.payload) };
        format!(
            "sendp(Ether()/IP(src=\"{}\", dst=\"{}\")/TCP(sport={}, dport={}, flags={:#04x}, seq={}{ack}){payload}, iface=\"{}\")",
            src.ip(),
            dst.ip(),
            src.port(),
            dst.port(),
            self.flags,
            self.seq,
            self.sender.interface(),
        )
    }

    /// What must be seen.
    pub fn expected(&self) -> Seen {
        let segment = self.frame().map(|frame| frame[L4..].to_vec()).unwrap_or_default();
        let mut arrivals = [Vec::new(), Vec::new()];
        arrivals[self.sender.other() as usize].push(segment);
        Seen {
            hits: self.hits.to_vec(),
            arrivals,
            connections: vec![connection(self.state)],
            timeout: Some(self.timeout),
        }
    }
}

/// Where the TCP header starts in an untagged frame without IP options.
const L4: usize = 14 + 20;

/// The line of `dpctl/dump-conntrack` for the tutorial's connection.
pub fn connection(state: &str) -> String {
    let (left, right) = (Side::Left.address(), Side::Right.address());
    let (l, r, lp, rp) = (left.ip(), right.ip(), left.port(), right.port());
    format!(
        "tcp,orig=(src={l},dst={r},sport={lp},dport={rp}),reply=(src={r},dst={l},sport={rp},dport={lp}),protoinfo=(state={state})"
    )
}

/// What is seen of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The flows whose packet counter has grown, numbered from 1, once for each packet.
    pub hits: Vec<usize>,
    /// The TCP segments (header and payload) that have come out at the left and at the right.
    pub arrivals: [Vec<Vec<u8>>; 2],
    /// The lines of `dpctl/dump-conntrack` with the client's address.
    pub connections: Vec<String>,
    /// The time that the connection has left, in seconds.
    pub timeout: Option<u64>,
}

impl Seen {
    /// Each thing looked at, with whether it is as expected.
    pub fn compare(&self, expected: &Self) -> [Check; 4] {
        let timer = |seen: &Self| seen.timeout.map_or("none".into(), |seconds| format!("{seconds} s"));
        let timer_ok = match (self.timeout, expected.timeout) {
            (Some(seen), Some(set)) => seen <= set && seen + TIMER_TOLERANCE >= set,
            (seen, expected) => seen == expected,
        };
        let check = |what: &str, print: &dyn Fn(&Self) -> String, ok| Check {
            what: what.into(),
            seen: print(self),
            expected: print(expected),
            ok,
        };
        [
            check("flows hit", &|seen| format!("{:?}", seen.hits), self.hits == expected.hits),
            check("comes out at", &Self::ports, self.arrivals == expected.arrivals),
            check("conntrack", &|seen| seen.connections.join("\n"), self.connections == expected.connections),
            check("timer", &timer, timer_ok),
        ]
    }

    fn ports(&self) -> String {
        let count = |side: Side| match self.arrivals[side as usize].len() {
            0 => None,
            1 => Some(side.interface().to_owned()),
            n => Some(format!("{} ({n} times)", side.interface())),
        };
        let ports: Vec<_> = [Side::Left, Side::Right].into_iter().filter_map(count).collect();
        if ports.is_empty() { "nowhere".into() } else { ports.join(", ") }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What it is.
    pub what: String,
    /// What was seen.
    pub seen: String,
    /// What the tutorial says.
    pub expected: String,
    /// Whether the two agree.
    pub ok: bool,
}

impl Check {
    /// A thing that must be exactly as told.
    pub fn new(what: &str, seen: impl Into<String>, expected: impl Into<String>) -> Self {
        let (seen, expected) = (seen.into(), expected.into());
        let ok = seen == expected;
        Self { what: what.into(), seen, expected, ok }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, seen, expected, ok } = self;
        if *ok {
            write!(f, "✓ {what}: {seen}")
        } else {
            write!(f, "✗ {what}: {seen}\n     the tutorial says: {expected}")
        }
    }
}

/// Packets and bytes of each flow when all steps have been played.
pub fn totals() -> Result<[(u64, u64); 5]> {
    let mut totals = [(0, 0); 5];
    for step in STEPS {
        let length = u64::try_from(step.frame()?.len())?;
        for flow in step.hits {
            totals[flow - 1].0 += 1;
            totals[flow - 1].1 += length;
        }
    }
    Ok(totals)
}

/// Sends the segments and looks at what becomes of them. [`SETUP`] and the flows are the caller's.
#[derive(Debug)]
pub struct Player<'a> {
    lab: &'a Lab,
    wires: [Wire; 2],
    scapy: Option<[Scapy; 2]>,
    packets: [u64; 5],
}

impl<'a> Player<'a> {
    /// A player that sends from raw sockets.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        let [left, right] = hosts()?;
        let wires = [left.open_wire(Side::Left.interface())?, right.open_wire(Side::Right.interface())?];
        Ok(Self { lab, wires, scapy: None, packets: [0; 5] })
    }

    /// A player that sends by scapy, as the tutorial does.
    pub fn with_scapy(lab: &'a Lab) -> Result<Self> {
        let [left, right] = hosts()?;
        let scapy = Some([Scapy::start(&left)?, Scapy::start(&right)?]);
        Ok(Self { scapy, ..Self::new(lab)? })
    }

    /// Sends one segment and looks.
    pub fn play(&mut self, step: &Step) -> Result<Seen> {
        for wire in &self.wires {
            wire.drain(Duration::ZERO)?;
        }
        match &mut self.scapy {
            Some(sessions) => sessions[step.sender as usize].run(&step.scapy())?,
            None => self.wires[step.sender as usize].send(&step.frame()?)?,
        }
        let arrivals = self.arrivals(step.sender.other())?;
        Ok(Seen {
            hits: self.hits()?,
            arrivals,
            connections: self.connections(&[])?,
            timeout: self.timeout()?,
        })
    }

    /// Waits for a frame at the side where one should come, then until no more come.
    fn arrivals(&self, side: Side) -> Result<[Vec<Vec<u8>>; 2]> {
        let first = self.wires[side as usize].recv(ARRIVAL)?;
        thread::sleep(SILENCE);
        let mut arrivals = [self.wires[0].drain(Duration::ZERO)?, self.wires[1].drain(Duration::ZERO)?];
        if let Some(first) = first {
            arrivals[side as usize].insert(0, first);
        }
        Ok(arrivals.map(|frames| frames.iter().filter_map(|f| f.get(L4..)).map(<[u8]>::to_vec).collect()))
    }

    /// The flows that packets have hit since the last look.
    fn hits(&mut self) -> Result<Vec<usize>> {
        let flows = dump::flows(&self.lab.ovs("ovs-ofctl", &["dump-flows", "br0"])?.ok()?);
        let mut hits = Vec::new();
        for (index, rule) in DUMPED_FLOWS.iter().enumerate() {
            let packets = flows.iter().find(|flow| flow.rule == *rule).map_or(0, |flow| flow.packets);
            hits.extend((self.packets[index]..packets).map(|_| index + 1));
            self.packets[index] = packets;
        }
        Ok(hits)
    }

    fn connections(&self, options: &[&str]) -> Result<Vec<String>> {
        let args = [&["dpctl/dump-conntrack"], options].concat();
        let text = self.lab.ovs("ovs-appctl", &args)?.ok()?;
        let client = Side::Left.address().ip().to_string();
        Ok(text.lines().filter(|line| line.contains(&client)).map(str::to_owned).collect())
    }

    fn timeout(&self) -> Result<Option<u64>> {
        let lines = self.connections(&["-s"])?;
        lines
            .first()
            .map(|line| dump::field(line, "timeout").context("no timeout=")?.parse().context("timeout"))
            .transpose()
    }
}

fn hosts() -> Result<[Netns; 2]> {
    Ok([Netns::open(Side::Left.netns())?, Netns::open(Side::Right.netns())?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_the_statements_of_the_tutorial() {
        assert_eq!(
            STEPS[4].scapy(),
            r#"sendp(Ether()/IP(src="192.168.0.2", dst="10.0.0.2")/TCP(sport=1024, dport=2048, flags=0x10, seq=101, ack=201)/"X", iface="veth_l1")"#
        );
    }

    #[test]
    fn a_wrong_thing_is_told_apart() {
        let expected = STEPS[0].expected();
        let ok = |seen: &Seen| seen.compare(&expected).map(|check| check.ok);
        assert_eq!(ok(&expected), [true; 4]);
        assert_eq!(ok(&Seen { hits: vec![1], ..expected.clone() }), [false, true, true, true]);
        assert_eq!(ok(&Seen { arrivals: Default::default(), ..expected.clone() }), [true, false, true, true]);
        assert_eq!(ok(&Seen { connections: vec![], ..expected.clone() }), [true, true, false, true]);
        for (timeout, right) in [(120, true), (115, true), (114, false), (121, false)] {
            let seen = Seen { timeout: Some(timeout), ..expected.clone() };
            assert_eq!(ok(&seen), [true, true, true, right], "{timeout}");
        }
    }
}
