//! FTP and TFTP by real clients and servers through the switch: files come and go over connections that no flow but
//! those for related ones lets pass.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tests::{
    lab::{Daemon, Lab},
    netns::Netns,
    process::Background,
    python::PYTHON,
    topology::{Datapath, add_bridge, host, replace_flows},
};

const CLIENT: [&str; 2] = ["10.1.1.1", "fd00::1"];
const SERVER: [&str; 2] = ["10.1.1.2", "fd00::2"];
/// What the client is behind, or what it calls the server by.
const OUTSIDE: [&str; 2] = ["10.1.1.240", "fd00::240"];
const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
/// The lab's own directories.
const SERVED: &str = "/run/served";
const FETCHED: &str = "/run/fetched";
/// How long a server may take to listen.
const START: Duration = Duration::from_secs(10);

/// A client at port 1 of a bridge, and a server at port 2.
struct World {
    lab: Lab,
    _switch: Daemon,
    client: Netns,
    server: Netns,
    file: Vec<u8>,
}

impl World {
    fn new(datapath: Datapath) -> Result<Self> {
        let lab = Lab::new()?;
        let switch = lab.switchd(&[])?;
        add_bridge(&lab, "br0", datapath)?;
        let others = |own: [&'static str; 2]| [own, OUTSIDE].concat();
        let client = host(&lab, "br0", ("left", MACS[0]), &CLIENT, (MACS[1], &others(SERVER)))?;
        let server = host(&lab, "br0", ("right", MACS[1]), &SERVER, (MACS[0], &others(CLIENT)))?;
        // Some bytes of which no two stretches are the same.
        let file: Vec<u8> =
            (0..300_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_be_bytes()).collect();
        fs::create_dir_all(SERVED)?;
        fs::create_dir_all(FETCHED)?;
        fs::write(format!("{SERVED}/file"), &file)?;
        Ok(Self { lab, _switch: switch, client, server, file })
    }

    /// Begins anew, with other flows.
    fn with(&self, flows: &[String]) -> Result<()> {
        replace_flows(&self.lab, "br0", &flows.iter().map(String::as_str).collect::<Vec<_>>())?;
        self.lab.ovs("appctl", &["dpctl/flush-conntrack"])?.ok()?;
        Ok(())
    }

    /// Starts an FTP server.
    fn ftp(&self, address: &str) -> Result<Background> {
        let args = ["-m", "pyftpdlib", "-w", "-i", address, "-p", "21", "-d", SERVED];
        self.serve("-Hltn", address, 21, PYTHON, &args)
    }

    /// Starts a TFTP server.
    fn tftp(&self, address: &str) -> Result<Background> {
        let (root, listen) = (format!("--tftp-root={SERVED}"), format!("--listen-address={address}"));
        let args = [
            "--no-daemon",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
            "--port=0",
            "--bind-interfaces",
            "--enable-tftp",
            &root,
            &listen,
        ];
        self.serve("-Hlun", address, 69, "/usr/sbin/dnsmasq", &args)
    }

    fn serve(
        &self,
        list: &str,
        address: &str,
        port: u16,
        program: &str,
        args: &[&str],
    ) -> Result<Background> {
        let server = self.server.spawn(program, args)?;
        let filter = format!("src {} and sport = :{port}", bracketed(address));
        let deadline = Instant::now() + START;
        while self.server.exec("ss", &[list, &filter])?.ok()?.is_empty() {
            if Instant::now() > deadline {
                bail!("nobody listens on {address}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Fetches the file twice over one control connection, and puts one back.
    fn exchange(&self, called: &str, options: &[&str]) -> Result<()> {
        let url = format!("ftp://{}", bracketed(called));
        let (first, again) = (format!("{url}/file"), format!("{url}/./file"));
        let (to, back) = (format!("{FETCHED}/first"), format!("{FETCHED}/again"));
        let common = ["-sS", "--max-time", "20", "--globoff"];
        let args = [&common, options, &[&first, "-o", &to, &again, "-o", &back]].concat();
        self.client.exec("curl", &args)?.ok()?;
        for path in [&to, &back] {
            assert!(fs::read(path)? == self.file, "what was fetched with {options:?} differs");
            fs::remove_file(path)?;
        }
        let sent = format!("{FETCHED}/sent");
        fs::write(&sent, &self.file[..100_000])?;
        let put = format!("{url}/put");
        self.client.exec("curl", &[&common, options, &["-T", &sent, &put]].concat())?.ok()?;
        let arrived = fs::read(format!("{SERVED}/put"))?;
        assert!(arrived == self.file[..100_000], "what was put with {options:?} differs");
        fs::remove_file(format!("{SERVED}/put"))?;
        Ok(())
    }

    fn connections(&self) -> Result<String> {
        self.lab.ovs("appctl", &["dpctl/dump-conntrack", "-m"])?.ok()
    }
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// Every way in which FTP's two ends find each other: by the server's port and by the client's, by the old commands
/// and by the extended ones.
const PASSIVE: [&[&str]; 2] = [&["--no-ftp-skip-pasv-ip", "--disable-epsv"], &["--no-ftp-skip-pasv-ip"]];
const ACTIVE: [&[&str]; 2] = [&["-P", "-", "--disable-eprt"], &["-P", "-"]];

/// Flows under which the client's control connections are translated as asked, if at all, when they are committed.
/// What is related is let through, and nothing else.
fn before(protocol: &str, port: u16, alg: &str, nat: Option<&str>) -> Vec<String> {
    let (look, asked, follow) = match nat {
        Some(nat) => (",nat", format!(",nat({nat})"), ",nat"),
        None => ("", String::new(), ""),
    };
    let p = protocol;
    [
        format!("table=0,{p},actions=ct(zone=9,table=1{look})"),
        format!("table=1,{p},in_port=1,ct_state=+new-rel,tp_dst={port},actions=ct(commit,zone=9,alg={alg}{asked}),2"),
        format!("table=1,{p},in_port=1,ct_state=+new+rel,actions=ct(commit,zone=9{follow}),2"),
        format!("table=1,{p},in_port=2,ct_state=+new+rel,actions=ct(commit,zone=9{follow}),1"),
        format!("table=1,{p},in_port=1,ct_state=+est,actions=2"),
        format!("table=1,{p},in_port=2,ct_state=+est,actions=1"),
    ]
    .into()
}

/// The same, but packets are translated only after flows have seen them as they came.
fn after(protocol: &str, port: u16, alg: &str, nat: &str) -> Vec<String> {
    let p = protocol;
    [
        format!("table=0,{p},actions=ct(table=1)"),
        format!("table=1,{p},in_port=1,ct_state=+new-rel,tp_dst={port},actions=ct(commit,alg={alg},nat({nat}),table=2)"),
        format!("table=1,{p},ct_state=+new+rel,actions=ct(commit,nat,table=2)"),
        format!("table=1,{p},ct_state=+est,actions=ct(nat,table=2)"),
        format!("table=2,{p},in_port=1,actions=2"),
        format!("table=2,{p},in_port=2,actions=1"),
    ]
    .into()
}

#[test]
fn files_come_over_announced_connections() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    for (ip, protocol) in [(0, "tcp"), (1, "tcp6")] {
        world.with(&before(protocol, 21, "ftp", None))?;
        let _server = world.ftp(SERVER[ip])?;
        for options in PASSIVE.iter().chain(&ACTIVE) {
            world.exchange(SERVER[ip], options)?;
        }
        let connections = world.connections()?;
        assert!(connections.contains(",helper=ftp"), "{connections}");
        let parent = format!("parent=(src={},dst={},", CLIENT[ip], SERVER[ip]);
        assert!(connections.contains(&parent), "{connections}");
        assert!(connections.contains("status=EXPECTED|SEEN_REPLY|ASSURED|CONFIRMED"), "{connections}");
    }
    Ok(())
}

/// What was announced has the helper that flows give it, to be seen, but announces nothing itself.
#[test]
fn an_announced_connection_shows_its_helper() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    let mut flows = vec!["ct_state=-trk,tcp,actions=ct(table=1)".to_owned()];
    for (from, to, new) in [(1, 2, "+new"), (2, 1, "+new+rel")] {
        flows.push(format!("table=1,ct_state={new},tcp,in_port={from},actions=ct(commit,alg=ftp),{to}"));
        flows.push(format!("table=1,ct_state=+est,tcp,in_port={from},actions={to}"));
    }
    world.with(&flows)?;
    let _server = world.ftp(SERVER[0])?;
    for options in [PASSIVE[0], ACTIVE[0]] {
        world.exchange(SERVER[0], options)?;
    }
    let connections = world.connections()?;
    assert!(connections.contains(",parent="), "{connections}");
    assert!(connections.lines().all(|line| line.contains(",helper=ftp")), "{connections}");
    Ok(())
}

#[test]
fn nothing_comes_without_a_helper() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    for (protocol, port, alg) in [("tcp", 21, "ftp"), ("udp", 69, "tftp")] {
        let unhelped = |flow: &String| flow.replace(&format!(",alg={alg}"), "");
        world.with(&before(protocol, port, alg, None).iter().map(unhelped).collect::<Vec<_>>())?;
        let _server = if alg == "ftp" { world.ftp(SERVER[0])? } else { world.tftp(SERVER[0])? };
        let (url, to) = (format!("{alg}://{}/file", SERVER[0]), format!("{FETCHED}/file"));
        let fetched = world.client.exec("curl", &["-sS", "--max-time", "2", &url, "-o", &to])?;
        assert_ne!(fetched.code, 0, "{alg}: {fetched}");
    }
    Ok(())
}

fn ftp_behind_another_source_address(datapath: Datapath) -> Result<()> {
    let world = World::new(datapath)?;
    for (ip, protocol) in [(0, "tcp"), (1, "tcp6")] {
        let _server = world.ftp(SERVER[ip])?;
        let nat = format!("src={}", OUTSIDE[ip]);
        for flows in [before(protocol, 21, "ftp", Some(&nat)), after(protocol, 21, "ftp", &nat)] {
            world.with(&flows)?;
            for options in PASSIVE.iter().chain(&ACTIVE) {
                world.exchange(SERVER[ip], options)?;
            }
            let connections = world.connections()?;
            assert!(connections.contains("SEQ_ADJUST"), "{connections}");
        }
    }
    Ok(())
}

#[test]
fn ftp_behind_another_source_address_by_xdp() -> Result<()> {
    ftp_behind_another_source_address(Datapath::Xdp)
}

#[test]
fn ftp_behind_another_source_address_by_tc() -> Result<()> {
    ftp_behind_another_source_address(Datapath::Tc)
}

#[test]
fn ftp_to_another_destination_address() -> Result<()> {
    let world = World::new(Datapath::Xdp)?;
    for (ip, protocol) in [(0, "tcp"), (1, "tcp6")] {
        let _server = world.ftp(SERVER[ip])?;
        let nat = format!("dst={}", SERVER[ip]);
        for flows in [before(protocol, 21, "ftp", Some(&nat)), after(protocol, 21, "ftp", &nat)] {
            world.with(&flows)?;
            for options in PASSIVE.iter().chain(&ACTIVE) {
                world.exchange(OUTSIDE[ip], options)?;
            }
        }
    }
    Ok(())
}

fn tftp_answers_from_any_port(datapath: Datapath) -> Result<()> {
    let world = World::new(datapath)?;
    for (ip, protocol) in [(0, "udp"), (1, "udp6")] {
        let _server = world.tftp(SERVER[ip])?;
        let url = format!("tftp://{}/file", bracketed(SERVER[ip]));
        let to = format!("{FETCHED}/file");
        let nat = format!("src={}", bracketed(OUTSIDE[ip]));
        for nat in [None, Some(nat.as_str())] {
            world.with(&before(protocol, 69, "tftp", nat))?;
            let args = ["-sS", "--globoff", "--max-time", "20", "--tftp-blksize", "1200", &url, "-o", &to];
            world.client.exec("curl", &args)?.ok()?;
            assert!(fs::read(&to)? == world.file, "what was fetched differs");
            fs::remove_file(&to)?;
        }
    }
    Ok(())
}

#[test]
fn tftp_answers_from_any_port_by_xdp() -> Result<()> {
    tftp_answers_from_any_port(Datapath::Xdp)
}

#[test]
fn tftp_answers_from_any_port_by_tc() -> Result<()> {
    tftp_answers_from_any_port(Datapath::Tc)
}
