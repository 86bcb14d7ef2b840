//! Open vSwitch's userspace datapath, which the switch is tested and measured beside.

use std::{env, ffi::OsString, path::PathBuf};

use anyhow::Result;

use crate::{cargo, setup};

const PACKAGE: &str = "openvswitch-switch";
/// Where its programs are in the package.
const PROGRAMS: [&str; 2] = ["usr/bin", "usr/lib/openvswitch-switch"];

/// `PATH` with its programs.
pub fn path() -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(programs()?.into_iter().chain(env::split_paths(&path)))?)
}

/// The directories of its programs; none if they are where all programs are.
///
/// The package is unpacked below the target directory and not installed, so that no service of it starts on this machine,
/// neither now nor later. What it depends on comes with `openvswitch-common`, which the tests need.
pub fn programs() -> Result<Vec<PathBuf>> {
    if setup::is_program("ovs-vswitchd") {
        return Ok(Vec::new());
    }
    let root = cargo::target_dir()?.join("openvswitch");
    let programs = PROGRAMS.map(|dir| root.join(dir)).to_vec();
    if !programs.iter().all(|dir| dir.is_dir()) {
        setup::unpack(
            PACKAGE,
            "Open vSwitch's userspace datapath, to test and measure the switch beside it",
            &root,
        )?;
    }
    Ok(programs)
}
