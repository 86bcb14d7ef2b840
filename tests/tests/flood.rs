//! A flood of half-open connections, far more than there is room for, while real ones go on.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use tests::{
    lab::Lab,
    packet::{Ethernet, Segment, flags},
    tutorial::{self, FLOWS},
};

/// Real connections.
const REAL: usize = 1000;
/// Room for connections.
const ROOM: usize = 4000;
/// SYNs that nobody answers.
const FLOOD: usize = 10 * ROOM;

/// Sends back what comes.
const SERVER: &str = r#"
import resource, selectors, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
listener = socket.create_server(("10.1.1.2", 5000), backlog=1024)
waiting = selectors.DefaultSelector()
waiting.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in waiting.select():
        if key.fileobj is listener:
            waiting.register(listener.accept()[0], selectors.EVENT_READ)
        elif data := key.fileobj.recv(4096):
            key.fileobj.sendall(data)
        else:
            waiting.unregister(key.fileobj)
            key.fileobj.close()
"#;

/// Keeps connections busy, one question and answer after the other on each, until its input ends.
const CLIENT: &str = r#"
import resource, select, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
connections = [socket.create_connection(("10.1.1.2", 5000), 30) for _ in range(int(sys.argv[1]))]
open(sys.argv[2], "w").close()
rounds = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for number, connection in enumerate(connections):
        connection.sendall(b"%d %d" % (number, rounds))
    for number, connection in enumerate(connections):
        answer = connection.recv(4096)
        assert answer == b"%d %d" % (number, rounds), (number, rounds, answer)
    rounds += 1
print(rounds)
"#;

#[test]
fn a_flood_of_syns_breaks_no_connection() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.switchd(&["--max-connections", &ROOM.to_string()])?;
    let [left, right] = tutorial::set_up(&lab)?;
    for (host, interface, address) in [(&left, "veth_l1", "10.1.1.1/24"), (&right, "veth_r1", "10.1.1.2/24")]
    {
        host.exec("ip", &["addr", "add", address, "dev", interface])?.ok()?;
    }
    let arp = ["arp,in_port=veth_l0,actions=veth_r0", "arp,in_port=veth_r0,actions=veth_l0"];
    tutorial::replace_flows(&lab, &[&FLOWS[..], &arp].concat())?;

    let mut server = right.spawn("python3", &["-c", SERVER])?;
    right.wait_for_listener(5000)?;
    let ready = std::env::temp_dir().join(format!("flood-{}", std::process::id()));
    let mut client = left.command("python3");
    client.args(["-c", CLIENT, &REAL.to_string()]).arg(&ready);
    client.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut client = client.spawn()?;
    let patience = std::time::Instant::now();
    while !ready.exists() {
        ensure!(patience.elapsed() < Duration::from_secs(60), "the connections do not come about");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::remove_file(&ready)?;

    // From addresses that nobody has, so that the server's answers lead nowhere.
    let wire = left.open_wire("veth_l1")?;
    let far = SocketAddr::from(([10, 9, 9, 9], 80));
    let flood = (0..FLOOD).map(|number| {
        let address = [172, 16, (number >> 8) as u8, number as u8];
        let syn = Segment::new(SocketAddr::from((address, 1024)), far, flags::SYN);
        Ethernet::default().tcp(&syn)
    });
    wire.send_all(&flood.collect::<Result<Vec<_>>>()?)?;

    // The end of its input ends the client.
    drop(client.stdin.take());
    let output = client.wait_with_output()?;
    ensure!(output.status.success(), "a connection has broken");
    let rounds: u32 = String::from_utf8(output.stdout)?.trim().parse().context("the client's rounds")?;
    ensure!(rounds > 0, "nothing was exchanged during the flood");

    let alive: usize = lab.ovs("appctl", &["dpctl/ct-get-nconns"])?.ok()?.trim().parse()?;
    ensure!(alive <= ROOM, "{alive} connections in a table for {ROOM}");
    let dump = lab.ovs("appctl", &["dpctl/dump-conntrack"])?.ok()?;
    let real =
        dump.lines().filter(|line| line.contains("dport=5000)") && line.contains("src=10.1.1.1,")).count();
    ensure!(real >= REAL, "{real} of {REAL} connections are left");
    let zone = lab.ovs("appctl", &["dpctl/ct-zone-stats", "zone=0"])?.ok()?;
    let evicted =
        zone.split("evicted=").nth(1).and_then(|rest| rest.split(',').next()).context("no evicted=")?;
    ensure!(evicted.trim().parse::<usize>()? > FLOOD / 2, "too few had to go: {zone}");
    server.stop()?;
    switch.stop()?;
    Ok(())
}
