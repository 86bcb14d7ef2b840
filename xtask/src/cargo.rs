//! Cargo, called from its own child.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// The packages that hold the programs a user runs.
const PROGRAMS: &[&str] = &["--package=switchd", "--package=ofctl", "--package=appctl"];

/// The root of the source tree that this program was built from.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Cargo's target directory, wherever the user has put it: this program lies in `TARGET/PROFILE`.
pub fn target_dir() -> Result<PathBuf> {
    let own = env::current_exe()?;
    own.ancestors().nth(2).map(Path::to_path_buf).context("no target directory")
}

/// Runs Cargo in the workspace.
pub fn cargo(args: &[&str]) -> Result<()> {
    run(&mut command(args))
}

/// A command that runs Cargo in the workspace.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(workspace());
    command
}

/// Builds the daemon and the tools as a user wants them, and tells where they are.
pub fn build_release() -> Result<PathBuf> {
    cargo(&[&["build", "--release", "--bins"], PROGRAMS].concat())?;
    Ok(target_dir()?.join("release"))
}

/// Builds the daemon and the tools for the tests.
pub fn build_debug() -> Result<()> {
    cargo(&[&["build", "--bins"], PROGRAMS].concat())
}

/// Runs a command that reports its own errors.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{} failed ({status})", command.get_program().display());
    }
    Ok(())
}
