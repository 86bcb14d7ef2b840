//! Looking at connections and controlling them: dumps and filters, statistics, limits, settings, flushing, each by
//! our own client or by Debian's.

use std::{
    fs,
    io::Read,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tests::{
    dump,
    lab::{BIN, Daemon, Lab},
    packet::{Echo, Ethernet, Segment, flags::SYN},
    process::{Background, Output},
    topology::{self, Datapath},
    wire::Wire,
};

const QUIET: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_secs(10);
const CLIENT: &str = "10.0.0.1:1000";
const SERVER: &str = "10.0.0.2:80";

/// What enters port 1 is committed in zone 5, with a mark; what enters port 2 in zone 7, with a label. Both leave by
/// port 3, where answers enter.
const FLOWS: [&str; 4] = [
    "in_port=1,ip,actions=ct(commit,zone=5,exec(set_field:0x2a->ct_mark)),output:3",
    "in_port=2,ip,actions=ct(commit,zone=7,exec(set_field:0x1ff->ct_label)),output:3",
    "in_port=1,ipv6,actions=ct(commit,zone=5),output:3",
    "in_port=3,ip,actions=ct(zone=5),ct(zone=7),output:1",
];

struct World {
    lab: Lab,
    switch: Daemon,
    wires: Vec<Wire>,
}

impl World {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let switch = lab.switchd(&["--max-connections", "300000"])?;
        let wires = topology::bridge(&lab, "br0", Datapath::Xdp, &["p1", "p2", "p3"])?;
        topology::replace_flows(&lab, "br0", &FLOWS)?;
        Ok(Self { lab, switch, wires })
    }

    /// Sends a frame into a port, numbered from 1, and tells whether it leaves the switch.
    fn send(&self, port: usize, frame: &[u8]) -> Result<bool> {
        self.wires[port - 1].send(frame)?;
        let out = if port == 3 { 0 } else { 2 };
        Ok(!self.wires[out].drain(QUIET)?.is_empty())
    }

    fn udp(&self, port: usize, from: &str, to: &str) -> Result<bool> {
        self.send(port, &udp(from, to)?)
    }

    fn appctl(&self, line: &str) -> Result<String> {
        self.lab.ovs("appctl", &words(line))?.ok()
    }

    /// By Debian's client.
    fn ovs_appctl(&self, line: &str) -> Result<Output> {
        self.lab.debian("ovs-appctl", &words(line))
    }

    /// The lines of a dump, sorted.
    fn dump(&self, words: &str) -> Result<Vec<String>> {
        let text = self.appctl(&format!("dpctl/dump-conntrack {words}"))?;
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }

    /// The ports that the connections of a dump come from.
    fn sources(&self, words: &str) -> Result<Vec<String>> {
        let source = |line: &String| dump::field(line, "sport").map(str::to_owned).context("a port");
        let mut sources = self.dump(words)?.iter().map(source).collect::<Result<Vec<_>>>()?;
        sources.sort();
        Ok(sources)
    }

    fn count(&self) -> Result<usize> {
        Ok(self.appctl("dpctl/ct-get-nconns")?.trim().parse()?)
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().map(|word| word.trim_matches('\'')).collect()
}

fn udp(from: &str, to: &str) -> Result<Vec<u8>> {
    Ethernet::default().udp(from.parse()?, to.parse()?, b"odd")
}

/// The text that a command is refused with.
fn refusal(output: &Output) -> Option<&str> {
    output.stderr.strip_suffix("\novs-appctl: ovs-vswitchd: server returned an error\n")
}

#[test]
fn dumps_are_filtered() -> Result<()> {
    let world = World::new()?;
    assert!(world.udp(1, "10.0.0.1:1001", SERVER)?);
    assert!(world.udp(1, "10.0.0.1:1002", "10.0.0.2:53")?);
    assert!(world.udp(2, "10.0.0.3:1003", SERVER)?);
    let (from, to): (SocketAddr, SocketAddr) = ("10.0.0.1:1004".parse()?, SERVER.parse()?);
    assert!(world.send(1, &Ethernet::default().tcp(&Segment::new(from, to, SYN))?)?);
    for (filter, wanted) in [
        ("", "1001 1002 1003 1004"),
        ("zone=7", "1003"),
        ("zone=1", ""),
        ("mark=42", "1001 1002 1004"),
        ("mark=0/0x2", "1003"),
        ("labels=0x1ff", "1003"),
        ("labels=0/0x100 zone=5", "1001 1002 1004"),
        ("ct_nw_src=10.0.0.1", "1001 1002 1004"),
        ("netdev@ovs-netdev ct_nw_proto=17,ct_tp_dst=80", "1001 1003"),
        ("zone=5 ct_nw_proto=17,ct_tp_dst=80", "1001"),
        ("'' ct_nw_src=10.0.0.2,ct_nw_proto=17,ct_tp_src=53", "1002"),
        ("ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=17,ct_tp_src=1002,ct_tp_dst=53", "1002"),
        // The tuple of the answers.
        ("ct_nw_src=10.0.0.2,ct_nw_dst=10.0.0.3,ct_nw_proto=17,ct_tp_src=80,ct_tp_dst=1003", "1003"),
    ] {
        assert_eq!(world.sources(filter)?.join(" "), wanted, "{filter}");
    }
    assert_eq!(
        world.appctl("dpctl/ct-stats-show -m zone=5")?,
        "Connections Stats:\n    Total: 3\n  TCP: 1\n    Conn per TCP states:\n\t  [SYN_SENT]=1\n  UDP: 2\n"
    );
    assert_eq!(
        world.ovs_appctl("dpctl/ct-stats-show")?.ok()?,
        "Connections Stats:\n    Total: 4\n  TCP: 1\n  UDP: 3\n"
    );
    Ok(())
}

#[test]
fn all_that_is_known_as_text_and_as_json() -> Result<()> {
    let world = World::new()?;
    assert!(world.udp(2, CLIENT, SERVER)?);
    assert!(world.udp(3, SERVER, CLIENT)?);
    let (a, b) = ("10.0.0.1".parse()?, "10.0.0.2".parse()?);
    assert!(world.send(1, &Ethernet::default().echo((a, b), Echo::Request, (7, 1), b"odd")?)?);

    let text = world.dump("-m -s zone=7")?.concat();
    let (started, timeout) = (field(&text, "start")?, field(&text, "timeout")?);
    assert_eq!(started.len(), "2026-01-02T03:04:05.678".len(), "{text}");
    assert_eq!(
        text.replace(&started, "T").replace(&format!("={timeout},"), "=30,"),
        "udp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1000,dport=80,packets=1,bytes=45),\
         reply=(src=10.0.0.2,dst=10.0.0.1,sport=80,dport=1000,packets=1,bytes=45),start=T,id=0,zone=7,\
         status=SEEN_REPLY|CONFIRMED,timeout=30,labels=0x1ff"
    );
    assert_eq!(world.dump("-s zone=7")?.concat().matches("start=").count(), 1);

    let lines = world.dump("--json")?;
    let mut objects =
        lines.iter().map(|line| serde_json::from_str(line)).collect::<Result<Vec<Value>, _>>()?;
    let since = |stamp: &Value| -> Result<u64> {
        let date = world.lab.exec("date", &["-d", stamp.as_str().context("a string")?, "+%s"])?.ok()?;
        let now = world.lab.exec("date", &["+%s"])?.ok()?;
        Ok(now.trim().parse::<u64>()? - date.trim().parse::<u64>()?)
    };
    for object in &mut objects {
        let object = object.as_object_mut().context("an object")?;
        let start = object.remove("start").context("a start")?;
        assert!(start.as_str().is_some_and(|start| start.ends_with('Z')), "{start}");
        assert!(since(&start)? < 60, "{start}");
        let timeout = object.remove("timeout").context("a timeout")?;
        assert!(timeout.as_u64().is_some_and(|timeout| (1..=30).contains(&timeout)), "{timeout}");
    }
    let ping = json!({
        "protocol": "icmp", "zone": 5, "id": 1,
        "orig": {"src": "10.0.0.1", "dst": "10.0.0.2", "id": 7, "type": 8, "code": 0, "packets": 1, "bytes": 45},
        "reply": {"src": "10.0.0.2", "dst": "10.0.0.1", "id": 7, "type": 0, "code": 0, "packets": 0, "bytes": 0},
        "status": ["CONFIRMED"], "mark": 42, "labels": "0x0",
    });
    let datagram = json!({
        "protocol": "udp", "zone": 7, "id": 0,
        "orig": {"src": "10.0.0.1", "dst": "10.0.0.2", "sport": 1000, "dport": 80, "packets": 1, "bytes": 45},
        "reply": {"src": "10.0.0.2", "dst": "10.0.0.1", "sport": 80, "dport": 1000, "packets": 1, "bytes": 45},
        "status": ["SEEN_REPLY", "CONFIRMED"], "mark": 0, "labels": "0x1ff",
    });
    assert_eq!(objects, [ping, datagram]);
    Ok(())
}

fn field(line: &str, key: &str) -> Result<String> {
    dump::field(line, key).map(str::to_owned).with_context(|| format!("{key} in {line}"))
}

#[test]
fn connections_are_flushed() -> Result<()> {
    let world = World::new()?;
    let fill = || -> Result<()> {
        world.appctl("dpctl/flush-conntrack")?;
        assert!(world.udp(1, "10.0.0.1:1001", SERVER)?);
        assert!(world.udp(1, "10.0.0.1:1002", "10.0.0.2:53")?);
        assert!(world.udp(2, "10.0.0.3:1003", SERVER)?);
        assert!(world.udp(1, "[fd00::1]:1004", "[fd00::2]:80")?);
        assert_eq!(world.count()?, 4);
        Ok(())
    };
    for (what, left) in [
        ("", ""),
        ("system@ovs-system zone=5", "1003"),
        ("ct_nw_src=10.0.0.1", "1003 1004"),
        ("zone=7 ct_nw_src=10.0.0.1", "1001 1002 1003 1004"),
        ("ct_nw_proto=17,ct_tp_dst=80", "1002"),
        ("'' ct_ipv6_src=fd00::2", "1001 1002 1003"),
        ("mark=0x2a/0x2", "1003 1004"),
        ("labels=0x1ff", "1001 1002 1004"),
        (
            "zone=5 ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=17,ct_tp_src=1002,ct_tp_dst=53",
            "1001 1003 1004",
        ),
        (
            "zone=7 ct_nw_src=10.0.0.2,ct_nw_dst=10.0.0.3,ct_nw_proto=17,ct_tp_src=80,ct_tp_dst=1003",
            "1001 1002 1004",
        ),
    ] {
        fill()?;
        assert_eq!(world.appctl(&format!("dpctl/flush-conntrack {what}"))?, "", "{what}");
        assert_eq!(world.sources("")?.join(" "), left, "{what}");
    }
    // In zone 0, as no other is named.
    fill()?;
    let whole = "dpctl/flush-conntrack ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=17,ct_tp_src=1002,ct_tp_dst=53";
    let missed = world.ovs_appctl(whole)?;
    assert_eq!(missed.code, 2, "{missed}");
    assert_eq!(refusal(&missed), Some("ovs-vswitchd: failed to flush conntrack (No such file or directory)"));
    assert_eq!(world.count()?, 4);
    world.ovs_appctl("dpctl/flush-conntrack zone=5 ct_nw_proto=17")?.ok()?;
    assert_eq!(world.sources("")?, ["1003"]);
    Ok(())
}

#[test]
fn zones_have_limits_of_their_own() -> Result<()> {
    let world = World::new()?;
    assert_eq!(world.ovs_appctl("dpctl/ct-get-limits")?.ok()?, "default limit=0\n");
    assert_eq!(world.ovs_appctl("dpctl/ct-set-limits default=1 zone=5,limit=2 zone=0,limit=0")?.ok()?, "");
    assert_eq!(
        world.ovs_appctl("dpctl/ct-get-limits")?.ok()?,
        "default limit=1\nzone=0,limit=0,count=0\nzone=5,limit=2,count=0\n"
    );
    let tries = |port: usize, first: u16| -> Result<Vec<bool>> {
        (first..first + 3).map(|source| world.udp(port, &format!("10.0.0.1:{source}"), SERVER)).collect()
    };
    assert_eq!(tries(1, 1000)?, [true, true, false]);
    assert_eq!(tries(2, 1000)?, [true, false, false]);
    assert_eq!(tries(1, 1000)?, [true, true, false], "those that are there stay");
    assert_eq!(
        world.appctl("dpctl/ct-get-limits zone=5,7,9")?,
        "default limit=1\nzone=5,limit=2,count=2\nzone=7,limit=1,count=1\nzone=9,limit=1,count=0\n"
    );
    assert_eq!(
        world.appctl("dpctl/ct-zone-stats")?,
        "zone=5,connections=2,created=2,refused=2,evicted=0,expired=0,invalid=0\n\
         zone=7,connections=1,created=1,refused=2,evicted=0,expired=0,invalid=0\n"
    );
    world.appctl("dpctl/flush-conntrack zone=7")?;
    assert_eq!(
        world.appctl("dpctl/ct-zone-stats zone=7")?,
        "zone=7,connections=0,created=1,refused=2,evicted=0,expired=0,invalid=0\n"
    );
    assert_eq!(world.ovs_appctl("dpctl/ct-del-limits zone=5,9")?.ok()?, "");
    assert!(!world.udp(1, "10.0.0.1:2000", SERVER)?, "the default counts now");
    world.appctl("dpctl/ct-del-limits default zone=0")?;
    assert_eq!(world.appctl("dpctl/ct-get-limits")?, "default limit=0\n");
    assert_eq!(tries(1, 2000)?, [true; 3]);
    Ok(())
}

#[test]
fn settings_of_all_connections() -> Result<()> {
    const BUCKETS: &str = "Total Buckets: 262144\nCurrent Connections: 0\n\n";
    let world = World::new()?;
    for (line, answer) in [
        ("dpctl/ct-get-nconns", "0\n"),
        ("dpctl/ct-get-maxconns", "300000\n"),
        ("dpctl/ct-set-maxconns 2", "setting maxconns successful\n"),
        ("dpctl/ct-get-maxconns netdev@ovs-netdev", "2\n"),
        ("dpctl/ct-get-tcp-seq-chk", "TCP sequence checking: enabled\n"),
        ("dpctl/ct-disable-tcp-seq-chk", "disabling TCP sequence checking successful\n"),
        ("dpctl/ct-get-tcp-seq-chk", "TCP sequence checking: disabled\n"),
        ("dpctl/ct-enable-tcp-seq-chk", "enabling TCP sequence checking successful\n"),
        ("dpctl/ct-get-tcp-seq-chk", "TCP sequence checking: enabled\n"),
        ("dpctl/ct-get-sweep-interval", "5000\n"),
        ("dpctl/ct-set-sweep-interval 600000", "setting sweep interval successful\n"),
        ("dpctl/ct-get-sweep-interval", "600000\n"),
        ("dpctl/ct-bkts", BUCKETS),
        ("dpctl/ct-bkts gt=3", BUCKETS),
    ] {
        assert_eq!(world.ovs_appctl(line)?.ok()?, answer, "{line}");
    }
    // One that never saw an answer gives way.
    for source in 1000..1003 {
        assert!(world.udp(1, &format!("10.0.0.1:{source}"), SERVER)?);
    }
    assert_eq!(world.appctl("dpctl/ct-get-nconns")?, "2\n");
    assert_eq!(
        world.appctl("dpctl/ct-zone-stats")?,
        "zone=5,connections=2,created=3,refused=0,evicted=1,expired=0,invalid=0\n"
    );
    world.appctl("dpctl/ct-set-maxconns 300000")?;
    for source in 1000..1003 {
        assert!(world.udp(1, &format!("10.0.0.1:{source}"), SERVER)?);
    }
    assert_eq!(world.appctl("dpctl/ct-get-nconns")?, "3\n");
    let head = "Total Buckets: 262144\nCurrent Connections: 3\n\n\
                +-----------+-----------------------------------------+\n\
                |  Buckets  |         Connections per Buckets         |\n\
                +-----------+-----------------------------------------+\n   0..  7   | ";
    for (line, shown) in [("dpctl/ct-bkts", 3), ("dpctl/ct-bkts gt=3", 0)] {
        let table = world.ovs_appctl(line)?.ok()?;
        assert!(table.starts_with(head), "{}", &table[..200]);
        let rows = table.lines().filter_map(|line| line.split_once("   | "));
        let counts: Vec<&str> = rows.flat_map(|(_, row)| row.split_whitespace()).collect();
        assert_eq!(counts.len(), 262_144);
        assert_eq!(counts.iter().filter_map(|count| count.parse::<u32>().ok()).sum::<u32>(), shown);
    }
    Ok(())
}

#[test]
fn bad_input_changes_nothing() -> Result<()> {
    let world = World::new()?;
    assert!(world.udp(1, CLIENT, SERVER)?);
    world.appctl("dpctl/ct-set-limits default=7 zone=5,limit=6")?;
    let state = || -> Result<Vec<String>> {
        [
            "dump-conntrack -m",
            "ct-get-limits",
            "ct-get-maxconns",
            "ct-get-tcp-seq-chk",
            "ct-get-sweep-interval",
        ]
        .iter()
        .map(|command| world.appctl(&format!("dpctl/{command}")))
        .collect()
    };
    let before = state()?;
    let not_found = "datapath not found";
    for (line, wanted) in [
        ("dump-conntrack foo", not_found),
        ("dump-conntrack zone=foo", not_found),
        ("dump-conntrack labels=x", "failed to parse labels"),
        ("flush-conntrack foo", "field foo missing value"),
        ("flush-conntrack zone=x", "failed to parse zone"),
        ("flush-conntrack zone=5 zone=6", "invalid conntrack tuple field: zone"),
        ("flush-conntrack mark=-1", "failed to parse mark"),
        ("flush-conntrack ct_tp_src=5", "port is set without protocol"),
        ("flush-conntrack ct_nw_proto=6,icmp_id=5", "invalid L4 fields"),
        ("flush-conntrack ct_nw_src=1.2.3.4,ct_ipv6_dst=::1", "the L3 protocol does not match ::1"),
        ("ct-stats-show zone=x", not_found),
        ("ct-bkts gt=x", not_found),
        ("ct-zone-stats zone=x", not_found),
        ("ct-set-maxconns x", "maxconns missing or malformed"),
        ("ct-set-maxconns netdev@ovs-netdev", "maxconns missing or malformed"),
        ("ct-set-maxconns foo 10", not_found),
        ("ct-get-maxconns foo", not_found),
        ("ct-get-nconns foo", not_found),
        ("ct-disable-tcp-seq-chk foo", not_found),
        ("ct-set-limits zone=5", "failed to parse zone limit"),
        ("ct-set-limits zone=6,limit=5 zone=5,limit=x", "failed to parse field limit"),
        ("ct-set-limits foo=1", "invalid zone limit field: foo"),
        ("ct-set-limits default=-1", "invalid default limit"),
        ("ct-get-limits foo", "invalid argument foo"),
        ("ct-get-limits zone=1,x", "invalid zone"),
        ("ct-del-limits zone=5,70000", "invalid zone"),
        ("ct-del-limits x", "invalid argument x"),
        ("ct-set-sweep-interval x", "sweep interval missing or malformed"),
        ("ct-set-sweep-interval 0", "sweep interval missing or malformed"),
    ] {
        let output = world.ovs_appctl(&format!("dpctl/{line}"))?;
        assert_eq!(output.code, 2, "{line}: {output}");
        assert_eq!(refusal(&output), Some(&*format!("ovs-vswitchd: {wanted} (Invalid argument)")), "{line}");
        assert_eq!(output.stdout, "", "{line}");
    }
    for (line, wanted) in [
        ("ct-set-maxconns", "\"dpctl/ct-set-maxconns\" command requires at least 1 arguments"),
        ("ct-get-nconns a b", "\"dpctl/ct-get-nconns\" command takes at most 1 arguments"),
        ("dump-conntrack --foo", "Unrecognized option --foo"),
        ("flush-conntrack -m", "Unrecognized option -m"),
        (
            "ct-set-maxconns 300001",
            "ovs-vswitchd: ct set maxconns failed: not between 1 and 300000 (--max-connections) \
             (Numerical result out of range)",
        ),
        (
            "ct-set-maxconns 0",
            "ovs-vswitchd: ct set maxconns failed: not between 1 and 300000 (--max-connections) \
             (Numerical result out of range)",
        ),
    ] {
        let output = world.ovs_appctl(&format!("dpctl/{line}"))?;
        assert_eq!((output.code, refusal(&output)), (2, Some(wanted)), "{line}");
    }
    assert_eq!(state()?, before);
    Ok(())
}

/// By our client and by Debian's, which knows neither marks nor labels yet.
#[test]
fn connections_are_flushed_by_openflow() -> Result<()> {
    let world = World::new()?;
    let fill = || -> Result<()> {
        assert!(world.udp(1, "10.0.0.1:1001", SERVER)?);
        assert!(world.udp(1, "10.0.0.1:1002", "10.0.0.2:53")?);
        assert!(world.udp(2, "10.0.0.3:1003", SERVER)?);
        Ok(())
    };
    let ours = |line: &str| world.lab.ovs("ofctl", &words(line));
    let theirs = |line: &str| world.lab.debian("ovs-ofctl", &words(line));
    for (line, left) in [
        ("ct-flush-zone br0 5", "1003"),
        ("ct-flush-zone br0 6", "1001 1002 1003"),
        ("ct-flush br0", ""),
        ("ct-flush br0 zone=5", "1003"),
        ("ct-flush br0 zone=5 ct_nw_proto=17,ct_tp_dst=53", "1001 1003"),
        ("ct-flush br0 ct_nw_src=10.0.0.1", "1003"),
        ("ct-flush br0 '' ct_nw_src=10.0.0.2,ct_nw_proto=17,ct_tp_src=80", "1002"),
        (
            "ct-flush br0 zone=5 ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=17,ct_tp_src=1002,ct_tp_dst=53",
            "1001 1003",
        ),
        // Zone 0 is meant, and that nothing is there is no error.
        (
            "ct-flush br0 ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=17,ct_tp_src=1002,ct_tp_dst=53",
            "1001 1002 1003",
        ),
    ] {
        for client in ["theirs", "ours"] {
            fill()?;
            let output = if client == "ours" { ours(line)? } else { theirs(line)? };
            assert_eq!((output.code, &*output.stdout, &*output.stderr), (0, "", ""), "{client}: {line}");
            assert_eq!(world.sources("")?.join(" "), left, "{client}: {line}");
        }
    }
    for (line, left) in
        [("mark=42", "1003"), ("labels=0x100/0x100", "1001 1002"), ("mark=0/2 zone=5", "1001 1002 1003")]
    {
        fill()?;
        ours(&format!("ct-flush br0 {line}"))?.ok()?;
        assert_eq!(world.sources("")?.join(" "), left, "{line}");
    }

    let ping = Ethernet::default().echo(
        ("10.0.0.1".parse()?, "10.0.0.2".parse()?),
        Echo::Request,
        (40, 1),
        b"odd",
    )?;
    let tuple =
        "ct-flush br0 zone=5 ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=1,icmp_type=8,icmp_code=0";
    for (line, left) in [
        (format!("{tuple},icmp_id=41"), 1),
        (format!("{tuple},icmp_id=40"), 0),
        // Debian's client sends zeros for the rest.
        ("ct-flush br0 zone=5 ct_nw_src=10.0.0.1,ct_nw_proto=1".to_owned(), 0),
    ] {
        for client in ["theirs", "ours"] {
            ours("ct-flush br0")?.ok()?;
            assert!(world.send(1, &ping)?);
            if client == "ours" { ours(&line)? } else { theirs(&line)? }.ok()?;
            assert_eq!(world.count()?, left, "{client}: {line}");
        }
    }

    fill()?;
    for (line, wanted) in [
        ("ct-flush br0 zone=x", "ofctl: Failed to parse zone\n"),
        ("ct-flush br0 mark=x", "ofctl: Failed to parse mark\n"),
        ("ct-flush br0 labels=x", "ofctl: Failed to parse labels\n"),
        ("ct-flush br0 foo", "ofctl: Failed to parse ct-tuple: field foo missing value\n"),
        (
            "ct-flush br0 zone=5 ct_nw_src=x",
            "ofctl: Failed to parse ct-tuple: failed to parse field ct_nw_src\n",
        ),
        ("ct-flush br0 ct_tp_src=5", "ofctl: Failed to parse ct-tuple: port is set without protocol\n"),
        ("ct-flush", "ofctl: 'ct-flush' command requires at least 1 arguments\n"),
        ("ct-flush br0 a b c d e f", "ofctl: 'ct-flush' command takes at most 6 arguments\n"),
        ("ct-flush nobr", "ofctl: nobr is not a bridge or a socket\n"),
        ("ct-flush-zone br0 x", "ofctl: invalid zone_id \"x\"\n"),
    ] {
        let output = ours(line)?;
        assert_eq!((output.code, &*output.stderr), (1, wanted), "{line}");
    }
    assert_eq!(world.count()?, 3);
    Ok(())
}

/// A client that listens to events; what it has printed so far.
struct Watch {
    process: Background,
    file: String,
}

impl Watch {
    fn start(world: &World, name: &str, args: &str) -> Result<Self> {
        let file = format!("/run/lab/{name}");
        let mut command = world.lab.command(Path::new(BIN).join("appctl"));
        command.arg("dpctl/ct-events").args(words(args)).stdout(fs::File::create(&file)?);
        let process = Background::spawn(&mut command)?;
        thread::sleep(Duration::from_millis(500));
        Ok(Self { process, file })
    }

    /// The lines, once there are so many.
    fn lines(&self, count: usize) -> Result<Vec<String>> {
        let deadline = Instant::now() + SOON;
        loop {
            let text = fs::read_to_string(&self.file)?;
            if text.lines().count() >= count || Instant::now() > deadline {
                return Ok(text.lines().map(str::to_owned).collect());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn events_are_told_as_they_happen() -> Result<()> {
    let world = World::new()?;
    assert!(world.udp(1, "10.0.0.9:900", SERVER)?, "before anybody listens");
    let all = Watch::start(&world, "all", "")?;
    let zone = Watch::start(&world, "zone", "zone=7 --json")?;
    assert!(world.udp(1, CLIENT, SERVER)?);
    assert!(world.udp(2, CLIENT, SERVER)?);
    assert!(world.udp(3, SERVER, CLIENT)?);
    world.appctl("dpctl/flush-conntrack zone=7")?;
    let tuples = "udp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1000,dport=80),\
                  reply=(src=10.0.0.2,dst=10.0.0.1,sport=80,dport=1000)";
    let mut lines = all.lines(5)?;
    lines[2..4].sort();
    assert_eq!(
        lines,
        [
            format!("    [NEW] {tuples},zone=5,mark=42"),
            format!("    [NEW] {tuples},zone=7,labels=0x1ff"),
            format!(" [UPDATE] {tuples},zone=5,mark=42"),
            format!(" [UPDATE] {tuples},zone=7,labels=0x1ff"),
            format!("[DESTROY] {tuples},zone=7,labels=0x1ff"),
        ]
    );
    let objects: Vec<Value> =
        zone.lines(3)?.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let events: Vec<&str> = objects.iter().filter_map(|object| object["event"].as_str()).collect();
    assert_eq!(events, ["new", "update", "destroy"]);
    assert!(objects.iter().all(|object| object["zone"] == 7 && object["time"].is_string()));
    assert_eq!(objects[2]["reply"]["packets"], 1);

    // One listener goes, the other goes on.
    let Watch { mut process, .. } = zone;
    process.stop()?;
    assert!(world.udp(1, "10.0.0.1:1001", SERVER)?);
    assert_eq!(all.lines(6)?.len(), 6);
    Ok(())
}

#[test]
fn a_slow_listener_is_told_what_it_has_lost() -> Result<()> {
    let world = World::new()?;
    let mut command = world.lab.command(Path::new(BIN).join("appctl"));
    command.args(["dpctl/ct-events"]).stdout(Stdio::piped());
    let mut slow = Background::spawn(&mut command)?;
    thread::sleep(Duration::from_millis(500));
    let total = fill(&world)?;
    // It reads at last, while nothing happens any more; then it is ended.
    let mut pipe = slow.child().stdout.take().context("a pipe")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).map(|_| text)
    });
    thread::sleep(Duration::from_secs(3));
    slow.stop()?;
    let text = reader.join().expect("a reader")?;
    let (mut told, mut lost) = (0, 0);
    for line in text.lines() {
        match line.strip_prefix("   [LOST] ").and_then(|rest| rest.strip_suffix(" events")) {
            Some(count) => lost += count.parse::<usize>()?,
            None => {
                assert!(line.starts_with("    [NEW] udp,orig=("), "{line}");
                told += 1;
            }
        }
    }
    assert!(lost > 0 && told > 0, "{told} and {lost}");
    // The very last may have been lost without one after them to say so.
    assert!(told + lost <= total, "{told} and {lost} of {total}");
    Ok(())
}

#[test]
fn zones_have_timeouts_of_their_own() -> Result<()> {
    let mut world = World::new()?;
    world.appctl("dpctl/ct-set-sweep-interval 100")?;
    let vsctl = |world: &World, line: &str| world.lab.ovs("vsctl", &words(line));
    vsctl(&world, "add-zone-tp netdev zone=5 udp_single=2 udp_multiple=3 udp_first=1")?.ok()?;
    vsctl(&world, "set-zone-limit system 7 1 -- set-zone-limit system default 1000")?.ok()?;
    let listed = "Zone:5, Timeout Policies: udp_first=1 udp_multiple=3 udp_single=2\n";
    let refused =
        vsctl(&world, "add-zone-tp netdev zone=9 udp_single=1 -- add-zone-tp system zone=5 udp_single=9")?;
    assert_eq!((refused.code, &*refused.stderr), (1, "vsctl: zone id 5 already exists\n"));
    assert_eq!(vsctl(&world, "list-zone-tp system")?.ok()?, listed);

    for restarted in [false, true] {
        if restarted {
            let World { lab, switch, wires } = world;
            assert!(switch.stop()?.success());
            let switch = lab.switchd(&["--max-connections", "300000"])?;
            topology::replace_flows(&lab, "br0", &FLOWS)?;
            world = World { lab, switch, wires };
            world.appctl("dpctl/ct-set-sweep-interval 100")?;
        }
        assert_eq!(vsctl(&world, "list-zone-tp system")?.ok()?, listed);
        assert_eq!(
            vsctl(&world, "list-zone-limits netdev")?.ok()?,
            "Default limit: 1000\nZone: 7, Limit: 1\n"
        );
        assert_eq!(world.appctl("dpctl/ct-get-limits")?, "default limit=1000\nzone=7,limit=1,count=0\n");
        assert!(world.udp(1, CLIENT, SERVER)? && world.udp(2, CLIENT, SERVER)?);
        assert!(!world.udp(2, "10.0.0.1:1001", SERVER)?, "one is there already");
        let timeouts = |world: &World| -> Result<Vec<u64>> {
            let timeout = |line: &String| Ok(field(line, "timeout")?.parse()?);
            world.dump("-s")?.iter().map(timeout).collect()
        };
        let [in_zone, elsewhere] = timeouts(&world)?[..] else { panic!("{:?}", world.dump("-s")?) };
        assert!(in_zone <= 2 && (20..=30).contains(&elsewhere), "{in_zone} {elsewhere}");
        let deadline = Instant::now() + SOON;
        while world.count()? > 1 {
            assert!(Instant::now() < deadline, "{:?}", world.dump("-s")?);
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(
            world.appctl("dpctl/ct-zone-stats zone=5")?,
            "zone=5,connections=0,created=1,refused=0,evicted=0,expired=1,invalid=0\n"
        );
    }

    vsctl(&world, "add-zone-tp netdev zone=7 udp_single=300 -- set-zone-limit system 7 9")?.ok()?;
    assert!(world.udp(2, CLIENT, SERVER)? && world.udp(2, "10.0.0.1:1001", SERVER)?);
    let mut lines = world.dump("-s zone=7")?;
    lines.sort_by_key(|line| dump::field(line, "sport").map(str::to_owned));
    let [first, second] = &lines[..] else { panic!("{lines:?}") };
    assert!(field(first, "timeout")?.parse::<u64>()? <= 30, "it keeps what it was made with: {first}");
    assert!(field(second, "timeout")?.parse::<u64>()? > 200, "{second}");
    vsctl(&world, "del-zone-tp netdev zone=5 -- del-zone-tp netdev zone=7 -- del-zone-limit netdev 7")?
        .ok()?;
    vsctl(&world, "del-zone-limit netdev default")?.ok()?;
    assert_eq!(vsctl(&world, "list-zone-tp netdev -- list-zone-limits netdev")?.ok()?, "");
    assert_eq!(world.appctl("dpctl/ct-get-limits")?, "default limit=0\n");
    world.udp(1, "10.0.0.1:1002", SERVER)?;
    assert!(field(&world.dump("-s zone=5")?.concat(), "timeout")?.parse::<u64>()? > 20);
    Ok(())
}

/// Makes connections, as many as 200 addresses and 1,000 ports give, whose packets the switch drops.
fn fill(world: &World) -> Result<usize> {
    const TOTAL: usize = 200_000;
    topology::replace_flows(&world.lab, "br0", &["in_port=1,ip,actions=ct(commit,zone=5)"])?;
    let mut frame = udp(CLIENT, SERVER)?;
    let (address, port, checksum) = (14 + 12 + 3, 14 + 20, 14 + 20 + 6);
    // IPv4 may do without; the header's sum is put right by hand.
    frame[checksum..checksum + 2].fill(0);
    let deadline = Instant::now() + 12 * SOON;
    while world.count()? < TOTAL {
        assert!(Instant::now() < deadline, "{} of {TOTAL}", world.count()?);
        for host in 0..200u8 {
            frame[address] = host;
            frame[24..26].fill(0);
            let sum = tests::packet::checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            for number in 0..1000u16 {
                frame[port..port + 2].copy_from_slice(&(2000 + number).to_be_bytes());
                world.wires[0].send(&frame)?;
            }
            // What a full queue drops is sent again in the next round.
            thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(TOTAL)
}

#[test]
fn a_large_dump_costs_no_memory_and_holds_nobody_up() -> Result<()> {
    let world = World::new()?;
    let total = fill(&world)?;
    let before = world.switch.memory()?;

    // A client that does not read: the daemon waits for it, and for it alone.
    let mut command = world.lab.command(Path::new(BIN).join("appctl"));
    command.args(["dpctl/dump-conntrack", "-m", "-s"]).stdout(Stdio::piped());
    let mut slow = Background::spawn(&mut command)?;
    thread::sleep(Duration::from_millis(500));
    for command in ["dpctl/ct-get-nconns", "dpctl/ct-zone-stats", "dpctl/show", "dpctl/ct-get-limits"] {
        let begun = Instant::now();
        world.appctl(command)?;
        assert!(begun.elapsed() < Duration::from_secs(1), "{command} took {:?}", begun.elapsed());
    }
    topology::replace_flows(&world.lab, "br0", &FLOWS)?;
    let begun = Instant::now();
    assert!(world.udp(2, CLIENT, SERVER)?, "packets go on");
    assert!(begun.elapsed() < Duration::from_secs(1));
    let during = world.switch.memory()?;
    assert!(during < before + 8 * 1024, "{before} kB became {during} kB");
    assert!(slow.ended()?.is_none());

    let mut text = String::new();
    slow.child().stdout.take().context("a pipe")?.read_to_string(&mut text)?;
    assert!(slow.wait(SOON)?.success());
    // Some may have expired meanwhile.
    let lines = text.lines().count();
    assert!((1..=total + 1).contains(&lines), "{lines}");
    assert!(text.lines().all(|line| line.starts_with("udp,orig=(") && line.contains(",timeout=")));

    let json = world.appctl("dpctl/dump-conntrack --json zone=7")?;
    assert_eq!(json.lines().count(), 1);
    Ok(())
}
