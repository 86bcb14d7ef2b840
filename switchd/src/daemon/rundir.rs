//! The run directory.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// The name under which OVS's tools look for the daemon.
pub const DAEMON: &str = "ovs-vswitchd";

/// Creates the run directory with the mode that OVS gives it, unless it is there.
///
/// # Errors
/// The file system's.
pub fn create(rundir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(rundir)
}

/// Removes the control sockets of daemons that did not end in order. Only the holder of the pid file may do
/// so: nobody else serves this directory then.
///
/// # Errors
/// The file system's.
pub fn remove_stale_sockets(rundir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(rundir)? {
        let entry = entry?;
        if is_control_socket(&entry.file_name()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a file name is `DAEMON.PID.ctl`.
fn is_control_socket(name: &OsStr) -> bool {
    let pid =
        name.to_str().and_then(|name| name.strip_prefix(DAEMON)?.strip_prefix('.')?.strip_suffix(".ctl"));
    pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_control_sockets_are_stale() {
        let ours = |name: &str| is_control_socket(OsStr::new(name));
        assert!(ours("ovs-vswitchd.17.ctl"));
        for other in
            ["ovs-vswitchd..ctl", "ovs-vswitchd.17", "ovs-vswitchd.a7.ctl", "ovsdb-server.17.ctl", "br0.mgmt"]
        {
            assert!(!ours(other), "{other}");
        }
    }
}
