//! Builds the BPF object that the daemon carries inside (`OUT_DIR/switchd-datapath`).

#[path = "../xtask/src/bpf.rs"]
mod bpf;

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

/// What the object is made of, relative to the workspace: a change to any of these asks for a new build.
const SOURCES: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "conntrack-core/Cargo.toml",
    "conntrack-core/src",
    "switchd-ebpf/Cargo.toml",
    "switchd-ebpf/src",
    "switchd/build.rs",
    "xtask/src/bpf.rs",
];

fn main() -> Result<(), Box<dyn Error>> {
    // Asked when the script runs: a target directory may have been copied, with the script, from another clone.
    let workspace = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    match build(&workspace, &out) {
        Ok(object) => {
            fs::copy(object, out.join(bpf::OBJECT))?;
        }
        Err(error) => println!("cargo::error={error}"),
    }
    Ok(())
}

fn build(workspace: &Path, out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    Ok(bpf::Toolchain::find()?.build(workspace, &out.join("bpf"), &arch)?)
}
