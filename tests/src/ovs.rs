//! Open vSwitch with its userspace datapath, whose programs lie in `PATH`: its database and its daemon live in the lab,
//! each with all it writes in a run directory of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    lab::Lab,
    netns::Netns,
    process::{self, Background, Output},
};

/// How long a daemon may take to start.
const START: Duration = Duration::from_secs(20);
/// The bridge.
pub const BRIDGE: &str = "br0";

/// How frames get from a port to the daemon and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// By packet sockets, which the daemon's main thread serves: what a port is if nothing is configured.
    Packet,
    /// By AF_XDP, in the mode that it finds best, which is native for veth; a thread of its own polls all ports without a
    /// break, on the first processor.
    Xdp,
}

/// A running Open vSwitch, stopped on drop.
#[derive(Debug)]
pub struct Ovs {
    home: Home,
    io: Io,
    daemon: Background,
    _database: Background,
}

impl Ovs {
    /// Starts it, with a bridge that has these ports, numbered from 1; they move to a network namespace of its own, as
    /// each daemon makes devices of the same names.
    pub fn start(lab: &Lab, io: Io, ports: &[&str]) -> Result<Self> {
        let name = match io {
            Io::Packet => "ovs-packet",
            Io::Xdp => "ovs-xdp",
        };
        let home = Home { netns: lab.netns(name)?, dir: Path::new("/run").join(name) };
        for port in ports {
            lab.exec("ip", &["link", "set", port, "netns", name])?.ok()?;
            home.netns.exec("ip", &["link", "set", port, "up"])?.ok()?;
            // Without it a veth takes no frames that are redirected to its peer.
            home.netns.exec("ethtool", &["-K", port, "gro", "on"])?.ok()?;
        }
        fs::create_dir_all(&home.dir)?;
        let file = home.dir.join("conf.db").display().to_string();
        home.run("ovsdb-tool", &["create", &file, &schema()?], "")?;
        let socket = home.socket();
        let database = home.spawn("ovsdb-server", &[&file, &format!("--remote=p{socket}")])?;
        let daemon = home.spawn("ovs-vswitchd", &[&socket])?;
        let ovs = Self { home, io, daemon, _database: database };
        ovs.configure(ports)?;
        Ok(ovs)
    }

    fn configure(&self, ports: &[&str]) -> Result<()> {
        let io = self.io;
        let deadline = Instant::now() + START;
        while let Err(error) = self.vsctl("--no-wait init") {
            if Instant::now() > deadline {
                return Err(error).context("the database does not answer");
            }
            thread::sleep(Duration::from_millis(50));
        }
        if io == Io::Xdp {
            self.vsctl("--no-wait set Open_vSwitch . other_config:pmd-cpu-mask=1")?;
        }
        self.vsctl(&format!("add-br {BRIDGE} -- set bridge {BRIDGE} datapath_type=netdev"))?;
        for port in ports {
            let kind =
                if io == Io::Xdp { format!(" -- set interface {port} type=afxdp") } else { String::new() };
            self.vsctl(&format!("add-port {BRIDGE} {port}{kind}"))?;
            let error = self.vsctl(&format!("get interface {port} error"))?;
            if error.trim() != "[]" {
                bail!("Open vSwitch does not take {port}: {error}");
            }
        }
        Ok(())
    }

    fn vsctl(&self, line: &str) -> Result<String> {
        let db = format!("--db={}", self.home.socket());
        let args = [&["--timeout=20", &db], &line.split(' ').collect::<Vec<_>>()[..]].concat();
        self.home.run("ovs-vsctl", &args, "")
    }

    /// Runs one of its clients to its end.
    pub fn output(&self, tool: &str, args: &[&str], input: &str) -> Result<Output> {
        self.home.output(tool, args, input)
    }

    /// What one of its clients prints, which must succeed.
    pub fn run(&self, tool: &str, args: &[&str], input: &str) -> Result<String> {
        self.home.run(tool, args, input)
    }

    /// The directory in /proc of the thread that forwards.
    pub fn forwarder(&self) -> Result<PathBuf> {
        let wanted = match self.io {
            Io::Packet => "ovs-vswitchd",
            Io::Xdp => "pmd-",
        };
        for thread in fs::read_dir(format!("/proc/{}/task", self.daemon.pid()))? {
            let thread = thread?.path();
            // Others may have ended meanwhile.
            if fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.starts_with(wanted)) {
                return Ok(thread);
            }
        }
        bail!("Open vSwitch has no thread {wanted}")
    }

    /// Stands still, so that its polling takes no time from others.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Goes on.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.daemon.pid().cast_signed()), signal)?)
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        // One that stands still does not obey.
        if let Err(error) = self.resume() {
            eprintln!("Open vSwitch does not go on: {error:#}");
        }
    }
}

/// Whether its programs are there.
pub fn is_there() -> bool {
    process::run(process::command("ovs-vswitchd").arg("--version"), b"").is_ok_and(|output| output.code == 0)
}

/// The schema of its database: beside the programs, which need not be installed to lie in `PATH`.
fn schema() -> Result<String> {
    let vsctl = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|dir| dir.join("ovs-vsctl")).find(|file| file.exists())
    });
    let root = vsctl.as_deref().and_then(|file| file.ancestors().nth(2)).context("no ovs-vsctl")?;
    Ok(root.join("share/openvswitch/vswitch.ovsschema").display().to_string())
}

/// Where it lives.
#[derive(Debug)]
struct Home {
    netns: Netns,
    /// Its run directory, and that of all else it writes.
    dir: PathBuf,
}

impl Home {
    /// The database's.
    fn socket(&self) -> String {
        format!("unix:{}", self.dir.join("db.sock").display())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.netns.command(program);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, &self.dir);
        }
        command
    }

    fn output(&self, program: &str, args: &[&str], input: &str) -> Result<Output> {
        process::run(self.command(program).args(args), input.as_bytes())
    }

    fn run(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        self.output(program, args, input)?.ok().with_context(|| format!("{program} {}", args.join(" ")))
    }

    fn spawn(&self, program: &str, args: &[&str]) -> Result<Background> {
        let mut command = self.command(program);
        command.args(args).args(["--pidfile", "--log-file", "-vconsole:off"]);
        Background::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))
    }
}
