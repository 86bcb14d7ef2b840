//! Processes of the lab: run to the end, or kept until dropped; none outlives the thread that started it.

use std::{
    ffi::OsStr,
    fmt,
    io::Write,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
    },
    unistd::Pid,
};

/// How long a process may take to obey SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// What a command that has ended left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit code, or -1 for a command ended by a signal.
    pub code: i32,
    /// Standard output; bytes that are no UTF-8 are replaced.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
}

impl Output {
    /// The standard output of a command that must have succeeded.
    pub fn ok(self) -> Result<String> {
        if self.code == 0 { Ok(self.stdout) } else { bail!("{self}") }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}\n{}{}", self.code, self.stdout, self.stderr)
    }
}

/// A command that the kernel kills when the calling thread ends.
///
/// A lab's namespaces live as long as anyone is in them, so that a stray daemon would keep them alive.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    // SAFETY: the closure runs between fork and exec and makes a single system call.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
    command
}

/// Runs a command to its end, with `stdin` as its standard input.
pub fn run(command: &mut Command, stdin: &[u8]) -> Result<Output> {
    let describe = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {describe}"))?;
    let writer = child.stdin.take().map(|mut pipe| {
        let bytes = stdin.to_vec();
        // A command that ends without reading closes the pipe, which is no error of ours.
        thread::spawn(move || drop(pipe.write_all(&bytes)))
    });
    let output = child.wait_with_output().with_context(|| describe)?;
    if let Some(writer) = writer {
        drop(writer.join());
    }
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A process that runs in the background and is ended on drop.
#[derive(Debug)]
pub struct Background(Child);

impl Background {
    /// Starts a command; what it prints goes where the command says.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self(child))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// The exit status, if the process has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Waits for the process to end by itself; an error when it takes longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("process {} still runs after {limit:?}", self.pid());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks the process to end, and kills it when it does not obey.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM)?;
        if self.wait(GRACE).is_err() {
            self.0.kill()?;
        }
        Ok(self.0.wait()?)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("cannot stop process {}: {error:#}", self.pid());
        }
    }
}
