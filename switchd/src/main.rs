//! The switch daemon.

use std::error::Error;
use std::process::ExitCode;

use appctl::client::program_name;
use clap::Parser;
use switchd::daemon::detach::{Detached, Starter, detach};
use switchd::daemon::options::Options;
use switchd::daemon::serve;

fn main() -> ExitCode {
    let mut starter = Starter::default();
    let options = match Options::parse().absolute() {
        Ok(options) => options,
        Err(error) => return fail(&mut starter, &error),
    };
    if options.detach {
        // SAFETY: no thread has been started yet.
        match unsafe { detach() } {
            Ok(Detached::Parent(code)) => return code,
            Ok(Detached::Daemon(parent)) => starter = parent,
            Err(error) => return fail(&mut starter, &error),
        }
    }
    match serve(&options, || starter.serves()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&mut starter, &error),
    }
}

fn fail(starter: &mut Starter, error: &dyn Error) -> ExitCode {
    starter.failed(&format!("{}: {error}", program_name("switchd")));
    ExitCode::FAILURE
}
