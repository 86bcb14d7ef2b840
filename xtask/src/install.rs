//! Puts the programs where a user wants them.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    cargo,
    setup::{self, Purpose},
};

const PROGRAMS: &[&str] = &["switchd", "ofctl", "appctl", "vsctl"];
const OVS_NAMES: &[(&str, &str)] =
    &[("ovs-ofctl", "ofctl"), ("ovs-appctl", "appctl"), ("ovs-vsctl", "vsctl")];

/// Options of `cargo xtask install`.
#[derive(Debug, Args)]
pub struct Options {
    /// Install into PREFIX/bin
    #[arg(long, default_value = "/usr/local")]
    prefix: PathBuf,
    /// Also install ovs-vsctl, ovs-ofctl and ovs-appctl as second names
    #[arg(long)]
    ovs_names: bool,
}

/// Builds the programs and installs them.
pub fn run(options: &Options) -> Result<()> {
    setup::set_up(Purpose::Build)?;
    let built = cargo::build_release()?;
    let bin = options.prefix.join("bin");
    fs::create_dir_all(&bin).with_context(|| bin.display().to_string())?;
    if options.ovs_names {
        // Before anything is changed.
        for (name, _) in OVS_NAMES {
            refuse_foreign(&bin.join(name))?;
        }
    }
    for program in PROGRAMS {
        place(&bin.join(program), |new| fs::copy(built.join(program), new).map(drop))?;
    }
    if options.ovs_names {
        for (name, program) in OVS_NAMES {
            place(&bin.join(name), |new| symlink(program, new))?;
        }
    }
    Ok(())
}

/// Somebody else's program of that name must not be lost.
fn refuse_foreign(path: &Path) -> Result<()> {
    if path.exists() && !path.is_symlink() {
        bail!("{} is there already and is not ours", path.display());
    }
    Ok(())
}

/// Makes a file beside `path` and renames it, as a running program cannot be written to.
fn place(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let new = path.with_extension("new");
    if new.is_symlink() || new.exists() {
        fs::remove_file(&new)?;
    }
    make(&new).and_then(|()| fs::rename(&new, path)).with_context(|| path.display().to_string())?;
    println!("{}", path.display());
    Ok(())
}
