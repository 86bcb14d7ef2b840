//! Manages the switch's bridges and ports, in the manner of `ovs-vsctl`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use appctl::client::{Client, ClientError, DEFAULT_TARGET, program_name};
use appctl::vsctl::parse::{Invocation, help, parse};
use appctl::vsctl::{Failure, METHOD, Reply, Transaction};
use nix::unistd::alarm;

fn main() -> ExitCode {
    let name = program_name("vsctl");
    let args: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into()).collect();
    let (timeout, commands) = match parse(&args) {
        Ok(Invocation::Help) => return show(&name, &help()),
        Ok(Invocation::Version) => return show(&name, &format!("{name} {}\n", env!("CARGO_PKG_VERSION"))),
        Ok(Invocation::Run { timeout, commands }) => (timeout, commands),
        Err(error) => {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(seconds) = timeout {
        alarm::set(seconds);
    }
    match run(&commands) {
        Ok(outcome) => {
            for warning in &outcome.warnings {
                eprintln!("{name}: {warning}");
            }
            show(&name, &outcome.outputs.concat())
        }
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("{name}: {}", failure.message);
            }
            ExitCode::from(failure.exit_code)
        }
    }
}

/// Writes to the standard output; a reader that has gone is no error.
fn show(name: &str, text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("{name}: write: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn run(commands: &Transaction) -> Reply {
    let failure = |error: ClientError| Failure::new(error.to_string().trim_end());
    let malformed = |error: serde_json::Error| Failure::new(format!("{DEFAULT_TARGET}: {error}"));
    let request = serde_json::to_string(commands).map_err(malformed)?;
    let mut answer = Vec::new();
    let mut client = Client::connect(DEFAULT_TARGET).map_err(failure)?;
    client.call(METHOD, &[request], &mut answer).map_err(failure)?;
    serde_json::from_slice::<Reply>(&answer).map_err(malformed)?
}
