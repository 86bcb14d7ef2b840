//! Address translation seen by real programs: who the other end believes to talk to, and that all of it arrives.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tests::{
    lab::{Daemon, Lab},
    netns::Netns,
    process::{Background, Output, run},
    topology::host,
};

const LEFT_MAC: &str = "02:00:00:00:00:01";
const RIGHT_MAC: &str = "02:00:00:00:00:02";
const PORT: u16 = 8000;
/// How long a server may take to listen.
const START: Duration = Duration::from_secs(10);

/// The hosts' own addresses. The first of each is the one that tests use if they need no other.
const LEFT: [&str; 9] = [
    "10.1.1.1",
    "10.1.1.11",
    "10.1.1.12",
    "10.1.1.13",
    "10.1.1.14",
    "10.1.1.15",
    "10.1.1.16",
    "10.1.1.17",
    "fd00::1",
];
const RIGHT: [&str; 4] = ["10.1.1.2", "10.1.1.3", "10.1.1.4", "fd00::2"];
/// Addresses that no host has: packets to them go to the host that they stand for.
const LEFT_OUTSIDE: [&str; 4] = ["10.1.1.240", "10.1.1.241", "10.1.2.240", "fd00::240"];
const RIGHT_OUTSIDE: [&str; 2] = ["10.1.1.64", "fd00::64"];

/// Tells each client which address and port it seems to come from, and which of the server's it has reached.
const SERVER: &str = r#"
import socket, sys
kind, address, port = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
server = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((address, int(port)))
if kind == "tcp":
    server.listen(64)
while True:
    if kind == "tcp":
        client, peer = server.accept()
        assert client.recv(99) == b"who am I?"
        client.sendall(f"{peer[0]} {peer[1]} at {address}".encode())
        client.close()
    else:
        asked, peer = server.recvfrom(99)
        assert asked == b"who am I?"
        server.sendto(f"{peer[0]} {peer[1]} at {address}".encode(), peer)
"#;

/// Asks a server, from a given address and port, and prints what it says, or the error.
const CLIENT: &str = r#"
import socket, sys
kind, address, port, own, own_port, ttl = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
client = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
client.settimeout(2)
client.bind((own, int(own_port)))
try:
    if family == socket.AF_INET:
        client.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: errors on the way are reported, too
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, int(ttl))
    else:
        client.setsockopt(socket.IPPROTO_IPV6, 25, 1)  # IPV6_RECVERR
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, int(ttl))
    client.connect((address, int(port)))
    client.send(b"who am I?")
    print(client.recv(99).decode())
except OSError as error:
    print(type(error).__name__, error.errno or "")
"#;

/// Sends three pings, and prints how many of them are answered. (There need be no `ping`.)
const PING: &str = r#"
import socket, struct, sys
address = sys.argv[1]
six = ":" in address
family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
request, reply, behind = (128, 129, 0) if six else (8, 0, 20)
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xffff:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
client = socket.socket(family, socket.SOCK_RAW, protocol)
client.settimeout(2)
client.connect((address, 0))
answered = 0
for sequence in range(3):
    # The kernel fills in ICMPv6's checksum.
    packet = struct.pack("!BBHHH8s", request, 0, 0, 77, sequence, b"payload!")
    packet = packet[:2] + struct.pack("!H", 0 if six else checksum(packet)) + packet[4:]
    client.send(packet)
    try:
        answer = client.recv(99)[behind:]
    except OSError:
        continue
    answered += answer[0] == reply and answer[4:] == packet[4:]
print(answered)
"#;

/// Two hosts at the ports 1 and 2 of a bridge.
struct World {
    lab: Lab,
    _switch: Daemon,
    left: Netns,
    right: Netns,
}

impl World {
    fn new(flows: &[String]) -> Result<Self> {
        let lab = Lab::new()?;
        let switch = lab.switchd(&[])?;
        lab.ovs("vsctl", &["add-br", "br0"])?.ok()?;
        let left = host(
            &lab,
            "br0",
            ("left", LEFT_MAC),
            &LEFT,
            (RIGHT_MAC, &[&RIGHT[..], &RIGHT_OUTSIDE].concat()),
        )?;
        let right = host(
            &lab,
            "br0",
            ("right", RIGHT_MAC),
            &RIGHT,
            (LEFT_MAC, &[&LEFT[..], &LEFT_OUTSIDE].concat()),
        )?;
        lab.ovs("ofctl", &["del-flows", "br0"])?.ok()?;
        lab.ovs_with_input("ofctl", &["add-flows", "br0", "-"], &flows.join("\n"))?.ok()?;
        Ok(Self { lab, _switch: switch, left, right })
    }

    /// Starts a server that tells its clients who they are.
    fn server(&self, kind: &str, address: &str) -> Result<Background> {
        let port = PORT.to_string();
        let server = self.right.spawn("python3", &["-c", SERVER, kind, address, &port])?;
        let bracketed = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let filter = format!("src {bracketed} and sport = :{PORT}");
        let listening = if kind == "tcp" { "-Hltn" } else { "-Hlun" };
        let deadline = Instant::now() + START;
        while self.right.exec("ss", &[listening, &filter])?.ok()?.is_empty() {
            if Instant::now() > deadline {
                bail!("nobody listens on {address}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// What the left host, from an address and port of its own, gets for an answer.
    fn ask(&self, kind: &str, address: &str, own: (&str, u16)) -> Result<String> {
        ask(&self.left, kind, address, own, 64)
    }

    /// Makes the right host a router to [`Family::beyond`].
    fn route_beyond(&self, family: &Family) -> Result<()> {
        let forwarding = match family.ip {
            "ip" => "net.ipv4.ip_forward=1",
            _ => "net.ipv6.conf.all.forwarding=1",
        };
        self.right.exec("sysctl", &["-qw", forwarding])?.ok()?;
        self.right.exec("ip", &["link", "add", "beyond", "type", "veth", "peer", "name", "further"])?.ok()?;
        self.right.exec("ip", &["link", "set", "beyond", "up"])?.ok()?;
        self.right.exec("ip", &["link", "set", "further", "up"])?.ok()?;
        self.right.exec("ip", &["route", "add", family.beyond, "dev", "beyond"])?.ok()?;
        self.left.exec("ip", &["route", "add", family.beyond, "via", family.server])?.ok()?;
        Ok(())
    }

    fn drops(&self, reason: &str) -> Result<u64> {
        let text = self.lab.ovs("appctl", &["dpctl/show", "-s"])?.ok()?;
        let prefix = format!("drop {reason}: ");
        let count = text.lines().find_map(|line| line.trim().strip_prefix(&prefix)).context(text.clone())?;
        Ok(count.parse()?)
    }

    fn connections(&self) -> Result<Vec<String>> {
        let text = self.lab.ovs("appctl", &["dpctl/dump-conntrack"])?.ok()?;
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }
}

fn ask(host: &Netns, kind: &str, address: &str, (own, port): (&str, u16), ttl: u8) -> Result<String> {
    let numbers = [PORT, port].map(|port| port.to_string());
    let ttl = ttl.to_string();
    let arguments = ["-c", CLIENT, kind, address, &numbers[0], own, &numbers[1], &ttl];
    Ok(host.exec("python3", &arguments)?.ok()?.trim_end().to_owned())
}

/// What the left host begins is translated as asked; answers and errors come back.
fn translated(ip: &str, nat: &str) -> Vec<String> {
    [
        format!("table=0,{ip},in_port=1,actions=ct(commit,zone=1,nat({nat}),table=1)"),
        format!("table=0,{ip},in_port=2,actions=ct(zone=1,nat,table=1)"),
        format!("table=1,{ip},in_port=1,ct_state=+trk-inv,actions=output:2"),
        format!("table=1,{ip},in_port=2,ct_state=+trk+est,actions=output:1"),
        format!("table=1,{ip},in_port=2,ct_state=+trk+rel,actions=output:1"),
    ]
    .into()
}

/// What differs between the two versions of IP.
struct Family {
    ip: &'static str,
    client: &'static str,
    server: &'static str,
    /// The client's address outside.
    outside: &'static str,
    /// A host behind the server's.
    beyond: &'static str,
    /// The address that clients call.
    called: &'static str,
}

const V4: Family = Family {
    ip: "ip",
    client: LEFT[0],
    server: RIGHT[0],
    outside: LEFT_OUTSIDE[0],
    beyond: "10.9.0.1",
    called: RIGHT_OUTSIDE[0],
};
const V6: Family = Family {
    ip: "ipv6",
    client: LEFT[8],
    server: RIGHT[3],
    outside: LEFT_OUTSIDE[3],
    beyond: "fd09::1",
    called: RIGHT_OUTSIDE[1],
};

fn source(family: &Family) -> Result<()> {
    let world = World::new(&translated(family.ip, &format!("src={}", family.outside)))?;
    for kind in ["tcp", "udp"] {
        let _server = world.server(kind, family.server)?;
        for port in [5000, 600, 511] {
            let answer = world.ask(kind, family.server, (family.client, port))?;
            assert_eq!(answer, format!("{} {port} at {}", family.outside, family.server), "{kind}");
        }
    }
    let answered = world.left.exec("python3", &["-c", PING, family.server])?.ok()?;
    assert_eq!(answered, "3\n");
    assert_eq!(world.drops("nat_exhausted")?, 0);
    Ok(())
}

#[test]
fn ipv4_source() -> Result<()> {
    source(&V4)
}

#[test]
fn ipv6_source() -> Result<()> {
    source(&V6)
}

fn destination(family: &Family) -> Result<()> {
    let world = World::new(&translated(family.ip, &format!("dst={}", family.server)))?;
    for kind in ["tcp", "udp"] {
        let _server = world.server(kind, family.server)?;
        let answer = world.ask(kind, family.called, (family.client, 5000))?;
        assert_eq!(answer, format!("{} 5000 at {}", family.client, family.server), "{kind}");
    }
    let answered = world.left.exec("python3", &["-c", PING, family.called])?.ok()?;
    assert_eq!(answered, "3\n");
    Ok(())
}

#[test]
fn ipv4_destination() -> Result<()> {
    destination(&V4)
}

#[test]
fn ipv6_destination() -> Result<()> {
    destination(&V6)
}

#[test]
fn clients_are_spread_over_several_backends_and_each_keeps_its_own() -> Result<()> {
    let world = World::new(&translated("ip", "dst=10.1.1.2-10.1.1.4"))?;
    let _servers =
        RIGHT[..3].iter().map(|address| world.server("tcp", address)).collect::<Result<Vec<_>>>()?;
    let mut met = BTreeSet::new();
    for client in &LEFT[..8] {
        let mut own = BTreeSet::new();
        for port in [5000, 5001, 5002] {
            let answer = world.ask("tcp", V4.called, (client, port))?;
            let (seen, backend) = answer.split_once(" at ").context(answer.clone())?;
            assert_eq!(seen, format!("{client} {port}"));
            assert!(RIGHT[..3].contains(&backend), "{answer}");
            own.insert(backend.to_owned());
        }
        assert_eq!(own.len(), 1, "{client} meets {own:?}");
        met.append(&mut own);
    }
    assert!(met.len() > 1, "all clients meet {met:?}");
    Ok(())
}

#[test]
fn a_page_comes_through_both_translations() -> Result<()> {
    let flows: Vec<String> = [
        "table=0,tcp,in_port=1,actions=ct(commit,zone=1,nat(dst=10.1.1.2:8000),table=1)",
        "table=1,tcp,in_port=1,ct_state=+trk-inv,actions=ct(commit,zone=2,nat(src=10.1.1.240),table=2)",
        "table=2,tcp,in_port=1,ct_state=+trk-inv,actions=output:2",
        "table=0,tcp,in_port=2,actions=ct(zone=2,nat,table=1)",
        "table=1,tcp,in_port=2,ct_state=+trk+est,actions=ct(zone=1,nat,table=2)",
        "table=2,tcp,in_port=2,ct_state=+trk+est,actions=output:1",
    ]
    .map(str::to_owned)
    .into();
    let world = World::new(&flows)?;
    let www = "/run/lab/www";
    std::fs::create_dir(www)?;
    let page: String = (0..100_000).map(|line| format!("line {line}\n")).collect();
    std::fs::write(format!("{www}/page"), &page)?;
    let arguments = ["-m", "http.server", "8000", "--bind", V4.server, "--directory", www];
    let _server = world.right.spawn("python3", &arguments)?;
    world.right.wait_for_listener(PORT)?;
    let curl = ["-sS", "--max-time", "20", "--local-port", "5000", "http://10.1.1.64/page"];
    let fetched = world.left.exec("curl", &curl)?;
    assert_eq!(fetched.code, 0, "{}", fetched.stderr);
    assert!(fetched.stdout == page, "the page is another one");
    let connections = world.connections()?;
    let seen = |zone: u8| connections.iter().find(|line| line.contains(&format!("zone={zone}"))).cloned();
    let first = "tcp,orig=(src=10.1.1.1,dst=10.1.1.64,sport=5000,dport=80),\
                 reply=(src=10.1.1.2,dst=10.1.1.1,sport=8000,dport=5000),zone=1,protoinfo=(state=";
    let second = "tcp,orig=(src=10.1.1.1,dst=10.1.1.2,sport=5000,dport=8000),\
                  reply=(src=10.1.1.2,dst=10.1.1.240,sport=8000,dport=5000),zone=2,protoinfo=(state=";
    assert!(seen(1).is_some_and(|line| line.starts_with(first)), "{connections:?}");
    assert!(seen(2).is_some_and(|line| line.starts_with(second)), "{connections:?}");
    assert_eq!(connections.len(), 2, "{connections:?}");
    Ok(())
}

#[test]
fn clients_with_the_same_port_get_different_ones() -> Result<()> {
    let world = World::new(&translated("ip", "src=10.1.1.240"))?;
    for kind in ["tcp", "udp"] {
        let _server = world.server(kind, V4.server)?;
        for (client, port) in [(LEFT[0], 5000), (LEFT[1], 5001), (LEFT[2], 5002), (LEFT[0], 5000)] {
            let answer = world.ask(kind, V4.server, (client, 5000))?;
            assert_eq!(answer, format!("10.1.1.240 {port} at 10.1.1.2"), "{kind} of {client}");
        }
    }
    Ok(())
}

#[test]
fn who_gets_no_port_is_dropped_and_counted() -> Result<()> {
    let world = World::new(&translated("ip", "src=10.1.1.240:34567-34568"))?;
    let _server = world.server("udp", V4.server)?;
    let mut seen = BTreeSet::new();
    for port in [5000, 5001] {
        seen.insert(world.ask("udp", V4.server, (V4.client, port))?);
    }
    let both = ["10.1.1.240 34567 at 10.1.1.2", "10.1.1.240 34568 at 10.1.1.2"].map(str::to_owned);
    assert_eq!(seen, both.into());
    assert_eq!(world.drops("nat_exhausted")?, 0);
    assert_eq!(world.ask("udp", V4.server, (V4.client, 5002))?, "TimeoutError");
    assert_eq!(world.drops("nat_exhausted")?, 1);
    assert_eq!(world.connections()?.len(), 2);
    // Towards another server the ports are free.
    let _other = world.server("udp", RIGHT[1])?;
    let other = world.ask("udp", RIGHT[1], (V4.client, 5002))?;
    assert!(other.starts_with("10.1.1.240 3456") && other.ends_with(" at 10.1.1.3"), "{other}");
    Ok(())
}

/// A server calls itself by the address that clients call.
#[test]
fn a_host_reaches_itself_by_its_outer_address() -> Result<()> {
    let flows: Vec<String> = [
        "table=0,ip,in_port=2,nw_dst=10.1.1.64,actions=ct(zone=2,nat,table=1)",
        // The way back: first what was translated last.
        "table=1,priority=9,ip,ct_state=+trk+est+rpl,actions=ct(zone=1,nat,table=3)",
        "table=1,priority=8,ip,actions=ct(commit,zone=1,nat(dst=10.1.1.2),table=2)",
        "table=2,ip,ct_state=+trk-inv,actions=ct(commit,zone=2,nat(src=10.1.1.64),table=3)",
        "table=3,ip,ct_state=+trk-inv,actions=mod_dl_src:02:00:00:00:00:09,mod_dl_dst:02:00:00:00:00:02,IN_PORT",
    ]
    .map(str::to_owned)
    .into();
    let world = World::new(&flows)?;
    let neighbour = ["neigh", "replace", "10.1.1.64", "lladdr", LEFT_MAC, "dev", "eth0", "nud", "permanent"];
    world.right.exec("ip", &neighbour)?.ok()?;
    for kind in ["tcp", "udp"] {
        let _server = world.server(kind, V4.server)?;
        let answer = ask(&world.right, kind, V4.called, (V4.server, 5000), 64)?;
        assert_eq!(answer, "10.1.1.64 5000 at 10.1.1.2", "{kind}");
    }
    Ok(())
}

/// Errors quote the translated packet; the client has to find the one that it sent.
fn errors(family: &Family) -> Result<()> {
    let refused = format!("ConnectionRefusedError {}", libc::ECONNREFUSED);
    let unreachable = format!("OSError {}", libc::EHOSTUNREACH);

    // A port that nobody listens on.
    let source = World::new(&translated(family.ip, &format!("src={}", family.outside)))?;
    assert_eq!(source.ask("udp", family.server, (family.client, 5000))?, refused);
    // The right host is a router on the way, at which packets come to their end.
    source.route_beyond(family)?;
    assert_eq!(ask(&source.left, "udp", family.beyond, (family.client, 5001), 1)?, unreachable);
    drop(source);

    let destination = World::new(&translated(family.ip, &format!("dst={}", family.server)))?;
    assert_eq!(destination.ask("udp", family.called, (family.client, 5000))?, refused);
    drop(destination);

    let destination = World::new(&translated(family.ip, &format!("dst={}", family.beyond)))?;
    destination.route_beyond(family)?;
    assert_eq!(ask(&destination.left, "udp", family.called, (family.client, 5001), 1)?, unreachable);
    Ok(())
}

#[test]
fn ipv4_errors_reach_the_client() -> Result<()> {
    errors(&V4)
}

#[test]
fn ipv6_errors_reach_the_client() -> Result<()> {
    errors(&V6)
}

/// nc and a file, one way through both kinds of translation.
#[test]
fn a_file_arrives_unchanged() -> Result<()> {
    for (nat, called) in [("src=10.1.1.240", V4.server), ("dst=10.1.1.2", V4.called)] {
        let world = World::new(&translated("ip", nat))?;
        let sent: Vec<u8> =
            (0..4u32 << 20).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let receiver = world.right.command("sh").args(["-c", "nc -l 10.1.1.2 8000 > /run/lab/got"]).spawn();
        let mut receiver = receiver?;
        world.right.wait_for_listener(PORT)?;
        let sender: Output = run(world.left.command("nc").args(["-N", called, "8000"]), &sent)?;
        assert_eq!(sender.code, 0, "{sender}");
        assert!(receiver.wait()?.success());
        assert!(std::fs::read("/run/lab/got")? == sent, "{nat}: another file");
    }
    Ok(())
}
