//! Sends a command to the switch's control socket and prints the answer, in the manner of `ovs-appctl`.

use std::io;
use std::process::ExitCode;

use appctl::client::{Client, ClientError, DEFAULT_TARGET, program_name};
use clap::Parser;
use nix::unistd::alarm;

/// Queries and controls the running switch daemon.
#[derive(Parser)]
#[command(version, override_usage = "appctl [OPTIONS] COMMAND [ARG...]")]
struct Options {
    /// The daemon: the absolute path of its control socket, or its name in the run directory.
    #[arg(short, long, default_value = DEFAULT_TARGET)]
    target: String,

    /// Give up after so many seconds, by the alarm signal.
    #[arg(short = 'T', long, value_name = "SECS", value_parser = clap::value_parser!(u32).range(1..))]
    timeout: Option<u32>,

    /// The command with its arguments; `list-commands` prints all that there are.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(usage) => {
            // Help that cannot be printed is no reason to fail.
            let _ = usage.print();
            return if usage.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    if let Some(seconds) = options.timeout {
        alarm::set(seconds);
    }
    let name = program_name("appctl");
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ClientError::Refused(text)) => {
            eprint!("{text}");
            eprintln!("{name}: {}: server returned an error", options.target);
            ExitCode::from(2)
        }
        // The reader of our output has had enough (`| head`).
        Err(ClientError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), ClientError> {
    let [method, args @ ..] = options.command.as_slice() else {
        return Ok(());
    };
    Client::connect(&options.target)?.call(method, args, &mut io::stdout().lock())
}
