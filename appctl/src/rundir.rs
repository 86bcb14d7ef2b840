//! Where the switch keeps its sockets and its pid file.

use std::env;
use std::path::PathBuf;

/// The directory when no environment variable names one: OVS's, so that its tools find the switch.
pub const DEFAULT: &str = "/var/run/openvswitch";

/// The run directory: `SWITCHD_RUNDIR`, else `OVS_RUNDIR`, else [`DEFAULT`]. Empty variables count as unset.
#[must_use]
pub fn rundir() -> PathBuf {
    ["SWITCHD_RUNDIR", "OVS_RUNDIR"]
        .into_iter()
        .filter_map(env::var_os)
        .find(|value| !value.is_empty())
        .map_or_else(|| PathBuf::from(DEFAULT), PathBuf::from)
}
