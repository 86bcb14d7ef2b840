//! Real TCP sockets through the tutorial's five flows, with nothing prepared by hand.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use tests::{
    dump,
    lab::Lab,
    netns::Netns,
    process::{Background, run},
    tutorial::{self, FLOWS},
};

const PORT: u16 = 5000;
const LIMIT: Duration = Duration::from_secs(60);
/// Enough for a window to open and for segments to be offloaded.
const BYTES: usize = 8 << 20;

/// What differs between the two versions of IP.
struct Family {
    /// Addresses with prefix length, left and right.
    hosts: [&'static str; 2],
    server: &'static str,
    /// The protocol word that takes the place of `tcp` in the tutorial's flows.
    tcp: &'static str,
    /// The protocol that resolves addresses.
    neighbours: &'static str,
}

const IPV4: Family =
    Family { hosts: ["10.1.1.1/24", "10.1.1.2/24"], server: "10.1.1.2", tcp: "tcp", neighbours: "arp" };
const IPV6: Family =
    Family { hosts: ["fd00::1/64", "fd00::2/64"], server: "fd00::2", tcp: "tcp6", neighbours: "icmp6" };

/// The tutorial's topology with addresses on the hosts, its flows, and two for address resolution.
fn network(lab: &Lab, family: &Family) -> Result<[Netns; 2]> {
    let hosts = tutorial::set_up(lab)?;
    for ((host, interface), address) in hosts.iter().zip(["veth_l1", "veth_r1"]).zip(family.hosts) {
        host.exec("ip", &["addr", "add", address, "dev", interface])?.ok()?;
    }
    let mut flows: Vec<_> =
        FLOWS.iter().map(|flow| flow.replace(" tcp,", &format!(" {},", family.tcp))).collect();
    for (from, to) in [("veth_l0", "veth_r0"), ("veth_r0", "veth_l0")] {
        flows.push(format!("{},in_port={from},actions={to}", family.neighbours));
    }
    tutorial::replace_flows(lab, &flows.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(hosts)
}

fn noise() -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = vec![0; BYTES];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Both directions of one connection at once, each with its own noise. Each end closes only when it has all that
/// the other one sent. `nc -N` does not do: it leaves when the other end has sent all, though it has not done so
/// itself, over any network (over a plain bridge in 14 of 113 runs).
const EXCHANGE: &str = r#"
import socket, sys, threading
role, family, address, port, source, target = sys.argv[1:]
family = socket.AF_INET6 if family == "6" else socket.AF_INET
if role == "server":
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, int(port)))
    listener.listen(1)
    connection = listener.accept()[0]
else:
    connection = socket.socket(family)
    connection.connect((address, int(port)))
def send():
    connection.sendall(open(source, "rb").read())
    connection.shutdown(socket.SHUT_WR)
sender = threading.Thread(target=send)
sender.start()
with open(target, "wb") as received:
    while data := connection.recv(1 << 16):
        received.write(data)
sender.join()
"#;

fn both_ways(family: &Family) -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let [left, right] = network(&lab, family)?;
    let (up, down) = (noise()?, noise()?);
    fs::write("/run/lab/up", &up)?;
    fs::write("/run/lab/down", &down)?;

    let port = PORT.to_string();
    let version = if family.server.contains(':') { "6" } else { "4" };
    let end = |at: &Netns, role: &str, source: &str, target: &str| {
        let mut command = at.command("python3");
        command.args(["-c", EXCHANGE, role, version, family.server, &port, source, target]);
        Background::spawn(&mut command)
    };
    let mut server = end(&right, "server", "/run/lab/down", "/run/lab/up.got")?;
    right.wait_for_listener(PORT)?;
    let mut client = end(&left, "client", "/run/lab/up", "/run/lab/down.got")?;
    client.wait(LIMIT).context("client")?;
    server.wait(LIMIT).context("server")?;

    // Not assert_eq!, which would print megabytes.
    assert!(fs::read("/run/lab/up.got")? == up, "what the server received is not what was sent");
    assert!(fs::read("/run/lab/down.got")? == down, "what the client received is not what was sent");
    all_flows_hit(&lab)
}

fn all_flows_hit(lab: &Lab) -> Result<()> {
    let dump = lab.ovs("ofctl", &["dump-flows", "br0"])?.ok()?;
    let flows = dump::flows(&dump);
    assert_eq!(flows.len(), FLOWS.len() + 2, "{dump}");
    assert!(flows.iter().all(|flow| flow.packets > 0), "{dump}");
    Ok(())
}

/// Throughput of a few seconds; `args` chooses the direction.
fn iperf(family: &Family, args: &[&str]) -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let [left, right] = network(&lab, family)?;
    let mut server = right.spawn("iperf3", &["-s", "-1", "-B", family.server])?;
    right.wait_for_listener(5201)?;
    let args = [&["-c", family.server, "-t", "2", "-J", "--connect-timeout", "5000"], args].concat();
    let report = left.exec("iperf3", &args)?.ok()?;
    server.wait(LIMIT)?;
    let report: serde_json::Value = serde_json::from_str(&report)?;
    let received = report["end"]["sum_received"]["bytes"].as_f64().context("no sum_received")?;
    assert!(received > 10e6, "{received} bytes in two seconds");
    all_flows_hit(&lab)
}

#[test]
fn ipv4_payload_arrives_unchanged() -> Result<()> {
    both_ways(&IPV4)
}

#[test]
fn ipv6_payload_arrives_unchanged() -> Result<()> {
    both_ways(&IPV6)
}

#[test]
fn ipv4_throughput_up() -> Result<()> {
    iperf(&IPV4, &[])
}

#[test]
fn ipv4_throughput_down() -> Result<()> {
    iperf(&IPV4, &["-R"])
}

#[test]
fn ipv6_throughput_up() -> Result<()> {
    iperf(&IPV6, &[])
}

#[test]
fn ipv6_throughput_down() -> Result<()> {
    iperf(&IPV6, &["-R"])
}

#[test]
fn curl_fetches_a_page() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let [left, right] = network(&lab, &IPV4)?;
    fs::create_dir("/run/lab/www")?;
    fs::write("/run/lab/www/page", "a page\n")?;
    let _server = right.spawn(
        "/usr/bin/python3",
        &["-m", "http.server", "80", "--bind", IPV4.server, "--directory", "/run/lab/www"],
    )?;
    right.wait_for_listener(80)?;
    let page = left.exec("curl", &["-sS", "--max-time", "10", "http://10.1.1.2/page"])?;
    assert_eq!((page.code, page.stdout.as_str()), (0, "a page\n"), "{page}");
    Ok(())
}

#[test]
fn the_server_side_cannot_begin() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let [left, right] = network(&lab, &IPV4)?;
    let _server = left.spawn("nc", &["-l", "10.1.1.1", "5000"])?;
    left.wait_for_listener(PORT)?;
    let refused = run(right.command("nc").args(["-z", "-w", "2", "10.1.1.1", "5000"]), b"")?;
    assert_eq!(refused.code, 1, "no flow lets the right side open a connection");
    Ok(())
}
