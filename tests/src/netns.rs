//! Network namespaces.

use std::{
    ffi::OsStr,
    fs::{self, File},
    marker::PhantomData,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::{
    process::{self, Background, Output},
    wire::Wire,
};

/// Where `ip netns` keeps the named ones.
const NAMED: &str = "/run/netns";

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(10);

/// What makes a namespace quiet: no packet but those that a test sends.
const QUIET: &[(&str, &str)] =
    &[("accept_dad", "0"), ("accept_ra", "0"), ("addr_gen_mode", "1"), ("router_solicitations", "0")];

/// A named network namespace of a lab.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Opens the one that `ip netns add NAME` made.
    pub fn open(name: &str) -> Result<Self> {
        let path = PathBuf::from(NAMED).join(name);
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        Ok(Self { name: name.into(), file })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = process::command(program);
        let fd = self.file.as_raw_fd();
        let enter = move || {
            // SAFETY: the descriptor belongs to `self.file` of the parent, of which the child has a copy.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            Ok(setns(fd, CloneFlags::CLONE_NEWNET)?)
        };
        // SAFETY: the closure runs between fork and exec and makes a single system call.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a command inside to its end.
    pub fn exec(&self, program: impl AsRef<OsStr>, args: &[&str]) -> Result<Output> {
        process::run(self.command(program).args(args), b"")
    }

    /// Starts a command inside that lives until dropped; its output is thrown away.
    pub fn spawn(&self, program: impl AsRef<OsStr>, args: &[&str]) -> Result<Background> {
        Background::spawn(
            self.command(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()),
        )
    }

    /// Waits until a TCP server listens on a port.
    pub fn wait_for_listener(&self, port: u16) -> Result<()> {
        let filter = format!("sport = :{port}");
        let deadline = Instant::now() + START;
        while self.exec("ss", &["-Hltn", &filter])?.ok()?.is_empty() {
            if Instant::now() > deadline {
                bail!("nobody listens on port {port} in {}", self.name);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A raw socket on one of its interfaces.
    pub fn open_wire(&self, interface: &str) -> Result<Wire> {
        let _inside = Entered::enter(self.file.as_fd())?;
        Wire::open(interface).with_context(|| format!("{interface} in {}", self.name))
    }

    /// Brings its loopback up, and keeps it from sending packets of its own accord.
    pub(crate) fn prepare(&self) -> Result<()> {
        self.exec("ip", &["link", "set", "lo", "up"])?.ok()?;
        let _inside = Entered::enter(self.file.as_fd())?;
        quieten()
    }
}

/// Keeps the calling thread's network namespace from sending packets of its own accord.
pub(crate) fn quieten() -> Result<()> {
    for (key, value) in QUIET {
        let path = Path::new("/proc/sys/net/ipv6/conf/default").join(key);
        fs::write(&path, value).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The calling thread is inside another network namespace until this is dropped.
struct Entered {
    home: File,
    /// Namespaces belong to a thread, so must the way back.
    not_send: PhantomData<*const ()>,
}

impl Entered {
    fn enter(namespace: BorrowedFd<'_>) -> Result<Self> {
        let home = File::open("/proc/thread-self/ns/net")?;
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(Self { home, not_send: PhantomData })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            eprintln!("cannot leave a network namespace: {error}");
        }
    }
}
