//! `ofctl`, also installed as `ovs-ofctl`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
