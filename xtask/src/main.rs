//! The project's own commands: `cargo xtask help`.

mod bench;
mod bpf;
mod cargo;
mod demo;
mod fuzz;
mod guest;
mod install;
mod lab;
mod ovs;
mod setup;

use std::{env, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use setup::Purpose;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The project's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing for building, demo and tests (the others do it for themselves)
    Setup,
    /// Build the BPF object alone and print its path
    BuildEbpf,
    /// Play the conntrack tutorial on the switch and check every answer
    Demo,
    /// Run every test: unit, property, datapath, end to end
    Test {
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Run end-to-end tests on Debian's own kernel, in an emulated machine
    Guest {
        /// The names of their files, as `pipeline`; without any, a short selection that `test` has as well
        tests: Vec<String>,
    },
    /// Measure the datapath beside a bare XDP redirect and Open vSwitch's
    Bench {
        /// Only measurements whose name contains this
        filter: Option<String>,
    },
    /// Let libFuzzer look for inputs of the tracker's rules that break what must hold
    Fuzz(fuzz::Options),
    /// Keep a lab to play in
    #[command(subcommand)]
    Lab(lab::Action),
    /// Build and install switchd and the tools
    Install(install::Options),
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does a task; false when it ran to its end and found something wrong.
fn run(task: &Task) -> Result<bool> {
    match task {
        Task::Setup => setup::set_up(Purpose::Test)?,
        Task::BuildEbpf => build_ebpf()?,
        Task::Demo => return demo::run(),
        Task::Test { filter } => test(filter.as_deref())?,
        Task::Guest { tests } => guest::run(tests)?,
        Task::Bench { filter } => bench::run(filter.as_deref())?,
        Task::Fuzz(options) => fuzz::run(options)?,
        Task::Lab(action) => lab::run(*action)?,
        Task::Install(options) => install::run(options)?,
    }
    Ok(true)
}

fn build_ebpf() -> Result<()> {
    setup::set_up(Purpose::Build)?;
    let object = bpf::Toolchain::find()?.build(
        &cargo::workspace(),
        &cargo::target_dir()?.join("bpf"),
        env::consts::ARCH,
    )?;
    println!("{}", object.display());
    Ok(())
}

/// First what needs no switch, then the tests that run the built one, then some of these on another kernel.
fn test(filter: Option<&str>) -> Result<()> {
    setup::set_up(Purpose::Test)?;
    let filter: Vec<_> = filter.into_iter().collect();
    cargo::cargo(&[&["test", "--workspace", "--exclude=tests"], &filter[..]].concat())?;
    // A package by itself, outside the workspace.
    cargo::cargo(
        &[&["test", "--lib", "--manifest-path=conntrack-core/fuzz/Cargo.toml"], &filter[..]].concat(),
    )?;
    cargo::build_debug()?;
    let end_to_end = [&["test", "--package=tests"], &filter[..]].concat();
    cargo::run(cargo::command(&end_to_end).env("PATH", ovs::path()?))?;
    if filter.is_empty() { guest::run(&[]) } else { Ok(()) }
}
