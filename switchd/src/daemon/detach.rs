//! Going to the background.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::process::ExitCode;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};

/// Whoever waits to hear how the start went: the process that forked this one, or in the foreground nobody
/// but the reader of standard error.
#[derive(Debug, Default)]
pub struct Starter(Option<PipeWriter>);

/// Which side of the fork this is.
#[derive(Debug)]
pub enum Detached {
    /// The process that the user started, to end now.
    Parent(ExitCode),
    /// The daemon to be.
    Daemon(Starter),
}

/// Forks. The parent waits until the child reports how its start went, repeats an error on standard error and
/// ends with the child's exit code. The child leads a session of its own, in the root directory, with its
/// standard streams closed, so it must be told by absolute paths.
///
/// # Errors
/// A system call's.
///
/// # Safety
/// The process must have one thread only: of a fork's child with more, nothing but the calling one lives on,
/// and locks held by the others stay held.
pub unsafe fn detach() -> io::Result<Detached> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: there is one thread only, as the caller promises.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(writer);
            Ok(Detached::Parent(wait_for_start(reader, child)?))
        }
        ForkResult::Child => {
            drop(reader);
            setsid()?;
            chdir("/")?;
            let null = File::options().read(true).write(true).open("/dev/null")?;
            dup2_stdin(&null)?;
            dup2_stdout(&null)?;
            dup2_stderr(&null)?;
            Ok(Detached::Daemon(Starter(Some(writer))))
        }
    }
}

impl Starter {
    /// Reports that the daemon serves.
    pub fn serves(&mut self) {
        self.report(0, "");
    }

    /// Reports why it does not; a line for the user.
    pub fn failed(&mut self, message: &str) {
        if self.0.is_some() {
            self.report(1, message);
        } else {
            eprintln!("{message}");
        }
    }

    /// A report is the exit code in one byte, and the text for standard error. Only the first one is heard.
    fn report(&mut self, code: u8, message: &str) {
        if let Some(mut parent) = self.0.take() {
            // The parent may have been killed; that is no reason not to serve.
            let _ = parent.write_all(&[&[code], message.as_bytes()].concat());
        }
    }
}

fn wait_for_start(mut reader: PipeReader, child: Pid) -> io::Result<ExitCode> {
    let mut report = Vec::new();
    reader.read_to_end(&mut report)?;
    let Some((code, message)) = report.split_first() else {
        let end = match waitpid(child, None)? {
            WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
            other => format!("{other:?}"),
        };
        eprintln!("the daemon ended before it served: {end}");
        return Ok(ExitCode::FAILURE);
    };
    if !message.is_empty() {
        eprintln!("{}", String::from_utf8_lossy(message));
    }
    Ok(ExitCode::from(*code))
}
