//! A lab to play in, that stays until it is taken down.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
    sched::{CloneFlags, setns},
    sys::signal::{SigSet, Signal, kill},
    unistd::{Pid, setsid},
};
use tests::{
    lab::{self, Lab},
    tutorial,
};

use crate::{
    cargo,
    setup::{self, Purpose},
};

/// Locked by the process that holds the lab, so that a stale file deceives nobody.
const PID_FILE: &str = "/run/switchd-lab.pid";
/// What the holder says when the lab can be used.
const READY: &str = "ready";

/// `cargo xtask lab ...`
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Action {
    /// Make the tutorial's topology with a running switch, without flows of its own
    Up,
    /// Take it down
    Down,
    /// Open a shell inside, with the tools in PATH
    Shell,
    /// Hold the lab until told to end (`up` starts this)
    #[command(hide = true)]
    Hold,
}

/// Does what was asked.
pub fn run(action: Action) -> Result<()> {
    match action {
        Action::Up => up(),
        Action::Down => down(),
        Action::Shell => shell(),
        Action::Hold => hold(),
    }
}

fn up() -> Result<()> {
    if holder()?.is_some() {
        bail!("the lab is up already");
    }
    setup::set_up(Purpose::Demo)?;
    cargo::build_release()?;
    let mut command = Command::new(env::current_exe()?);
    command.args(["lab", "hold"]).stdin(Stdio::null()).stdout(Stdio::piped());
    // The holder outlives this command: it must not keep the terminal's, or a pipe's, other end.
    command.stderr(Stdio::null());
    // SAFETY: the closure runs between fork and exec and makes a single system call.
    unsafe { command.pre_exec(|| Ok(setsid().map(drop)?)) };
    let mut child = command.spawn()?;
    let answer = child.stdout.take().context("no pipe from the lab")?;
    let mut line = String::new();
    BufReader::new(answer).read_line(&mut line)?;
    if line.trim_end() != READY {
        bail!("the lab did not come up");
    }
    println!("The lab is up: namespaces left (veth_l1) and right (veth_r1), bridge br0.");
    println!("`cargo xtask lab shell` goes inside, `cargo xtask lab down` ends it.");
    Ok(())
}

fn hold() -> Result<()> {
    let mut pid_file = OpenOptions::new().write(true).create(true).truncate(false).open(PID_FILE)?;
    lock(&pid_file).context("the lab is up already")?;
    pid_file.set_len(0)?;
    writeln!(pid_file, "{}", std::process::id())?;
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    let lab = Lab::with_tools(&cargo::target_dir()?.join("release"))?;
    let switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    // Only now: what the lab starts would inherit the mask.
    signals.thread_block()?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{READY}")?;
    stdout.flush()?;
    signals.wait()?;
    switch.stop()?;
    drop(lab);
    fs::remove_file(PID_FILE)?;
    Ok(())
}

fn down() -> Result<()> {
    let pid = holder()?.context("the lab is not up")?;
    kill(pid, Signal::SIGTERM)?;
    while holder()? == Some(pid) {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn shell() -> Result<()> {
    let pid = holder()?.context("the lab is not up: `cargo xtask lab up`")?;
    for (name, kind) in [("mnt", CloneFlags::CLONE_NEWNS), ("net", CloneFlags::CLONE_NEWNET)] {
        let namespace = File::open(format!("/proc/{pid}/ns/{name}"))?;
        setns(namespace, kind).context("entering the lab needs root")?;
    }
    let mut shell = Command::new(env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into()));
    lab::with_environment(&mut shell);
    Err(shell.exec().into())
}

/// The process that holds the lab, if there is one.
fn holder() -> Result<Option<Pid>> {
    let file = match OpenOptions::new().read(true).write(true).open(PID_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(PID_FILE),
    };
    let mut question = write_lock();
    fcntl(&file, FcntlArg::F_GETLK(&mut question))?;
    let held = i32::from(question.l_type) != libc::F_UNLCK;
    Ok(held.then(|| Pid::from_raw(question.l_pid)))
}

fn lock(file: &File) -> Result<(), Errno> {
    fcntl(file, FcntlArg::F_SETLK(&write_lock())).map(drop)
}

/// A lock on a whole file.
fn write_lock() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
