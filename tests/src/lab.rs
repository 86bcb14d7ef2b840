//! The private world of a test or of the demo.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    marker::PhantomData,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use crate::{
    netns::{self, Netns},
    process::{self, Background, Output},
};

/// The switch's run directory, in the lab's own `/run`.
pub const RUNDIR: &str = "/run/switchd";
/// The tools under their own names and under those of OVS.
pub const BIN: &str = "/run/lab/bin";

const LOG: &str = "/run/lab/switchd.log";
/// Loading the datapath through the verifier takes most of it.
const START: Duration = Duration::from_secs(60);

/// The project's programs.
const PROGRAMS: &[&str] = &["switchd", "vsctl", "ofctl", "appctl"];
/// The OVS names that tools also answer to in a lab.
const OVS_NAMES: &[(&str, &str)] =
    &[("ovs-vsctl", "vsctl"), ("ovs-ofctl", "ofctl"), ("ovs-appctl", "appctl")];

/// A network namespace for the switch and a mount namespace with its own `/run` and `/sys`, entered by the
/// calling thread and by what it starts from now on; left on drop.
///
/// Nothing of it is visible outside, and the kernel removes it with the last process inside, all of which
/// end with the calling thread.
#[derive(Debug)]
pub struct Lab {
    home: [(File, CloneFlags); 2],
    /// Namespaces belong to a thread, so must the way back.
    not_send: PhantomData<*const ()>,
}

impl Lab {
    /// Makes a lab and enters it, with the programs that Cargo has put beside the running test.
    pub fn new() -> Result<Self> {
        let own = env::current_exe()?;
        // A test lives in a subdirectory of its own.
        let dir =
            own.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).context("no target directory")?;
        Self::with_tools(dir)
    }

    /// Makes a lab and enters it, with the programs in a directory.
    pub fn with_tools(tools: &Path) -> Result<Self> {
        for program in PROGRAMS {
            let path = tools.join(program);
            if !path.exists() {
                bail!("{} is not built: `cargo xtask test` builds all that the tests need", path.display());
            }
        }
        let home = [
            (File::open("/proc/thread-self/ns/mnt")?, CloneFlags::CLONE_NEWNS),
            (File::open("/proc/thread-self/ns/net")?, CloneFlags::CLONE_NEWNET),
        ];
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .context("a lab needs root: cannot make namespaces")?;
        let lab = Self { home, not_send: PhantomData };
        private_mounts().context("cannot make the lab's own /run and /sys")?;
        fs::create_dir_all(BIN)?;
        let bin = Path::new(BIN);
        for program in PROGRAMS {
            symlink(tools.join(program), bin.join(program))?;
        }
        for (ovs, own) in OVS_NAMES {
            symlink(tools.join(own), bin.join(ovs))?;
        }
        netns::quieten()?;
        lab.exec("ip", &["link", "set", "lo", "up"])?.ok()?;
        Ok(lab)
    }

    /// Adds a network namespace.
    pub fn netns(&self, name: &str) -> Result<Netns> {
        self.exec("ip", &["netns", "add", name])?.ok()?;
        let netns = Netns::open(name)?;
        netns.prepare()?;
        Ok(netns)
    }

    /// Adds a pair of interfaces: `port` here, `peer` in a namespace or here as well; both are up.
    pub fn veth(&self, port: &str, peer: &str, netns: Option<&Netns>) -> Result<()> {
        self.exec("ip", &["link", "add", port, "type", "veth", "peer", "name", peer])?.ok()?;
        self.exec("ip", &["link", "set", port, "up"])?.ok()?;
        match netns {
            Some(netns) => {
                self.exec("ip", &["link", "set", peer, "netns", netns.name()])?.ok()?;
                netns.exec("ip", &["link", "set", peer, "up"])?.ok()?;
            }
            None => {
                self.exec("ip", &["link", "set", peer, "up"])?.ok()?;
            }
        }
        Ok(())
    }

    /// A command that finds the tools, and they the switch.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = process::command(program);
        with_environment(&mut command);
        command
    }

    /// Runs a command to its end.
    pub fn exec(&self, program: impl AsRef<OsStr>, args: &[&str]) -> Result<Output> {
        process::run(self.command(program).args(args), b"")
    }

    /// Runs one of the project's tools, by its own or its OVS name.
    pub fn ovs(&self, tool: &str, args: &[&str]) -> Result<Output> {
        self.exec(Path::new(BIN).join(tool), args)
    }

    /// The same with standard input, for `add-flows BRIDGE -`.
    pub fn ovs_with_input(&self, tool: &str, args: &[&str], input: &str) -> Result<Output> {
        process::run(self.command(Path::new(BIN).join(tool)).args(args), input.as_bytes())
    }

    /// Runs Debian's own, unmodified client.
    pub fn debian(&self, tool: &str, args: &[&str]) -> Result<Output> {
        self.exec(Path::new("/usr/bin").join(tool), args)
    }

    /// The same with standard input.
    pub fn debian_with_input(&self, tool: &str, args: &[&str], input: &str) -> Result<Output> {
        process::run(self.command(Path::new("/usr/bin").join(tool)).args(args), input.as_bytes())
    }

    /// Starts the switch and waits until it serves.
    pub fn switchd(&self, args: &[&str]) -> Result<Daemon> {
        let log = File::create(LOG)?;
        let mut command = self.command(Path::new(BIN).join("switchd"));
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut daemon = Daemon { process: Background::spawn(&mut command)?, log_wanted: true };
        let deadline = Instant::now() + START;
        while self.ovs("appctl", &["version"])?.code != 0 {
            if let Some(status) = daemon.process.ended()? {
                bail!("switchd ended at once: {status}");
            }
            if Instant::now() > deadline {
                bail!("switchd does not answer after {START:?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(daemon)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (namespace, kind) in &self.home {
            if let Err(error) = setns(namespace, *kind) {
                eprintln!("cannot leave the lab: {error}");
            }
        }
    }
}

/// A running switch, stopped on drop.
///
/// One that is dropped without [`stop`](Self::stop) prints its log, which the test runner shows for
/// failing tests only.
#[derive(Debug)]
pub struct Daemon {
    process: Background,
    log_wanted: bool,
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Memory that it has for itself, in kibibytes: what it shares with the kernel, the tables, does not count.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// What it has logged so far.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(LOG)?)
    }

    /// Waits until it has ended by itself.
    pub fn wait(mut self, limit: Duration) -> Result<ExitStatus> {
        let status = self.process.wait(limit)?;
        self.log_wanted = false;
        Ok(status)
    }

    /// Stops it by SIGTERM.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let status = self.process.stop()?;
        self.log_wanted = false;
        Ok(status)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.log_wanted {
            eprintln!("--- switchd's log\n{}---", self.log().unwrap_or_default());
        }
    }
}

/// Lets a command find the lab's tools, and those the lab's switch.
pub fn with_environment(command: &mut Command) {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = [PathBuf::from(BIN), "/usr/sbin".into()].into_iter().chain(env::split_paths(&path));
    if let Ok(path) = env::join_paths(path) {
        command.env("PATH", path);
    }
    command.env("OVS_RUNDIR", RUNDIR).env_remove("SWITCHD_RUNDIR");
}

/// Replaces what would show the machine's own world, or change it.
fn private_mounts() -> Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    // A sysfs shows the network devices of the namespace it was mounted from.
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none)?;
    Ok(())
}
