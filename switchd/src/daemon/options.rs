//! The daemon's command line.

use std::io;
use std::path::{self, PathBuf};

use appctl::rundir::rundir;
use clap::Parser;

use super::rundir::DAEMON;
use super::vlog::Spec;

/// The switch daemon: an OpenFlow switch whose pipeline and connection tracker run in the kernel.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Options {
    /// Where sockets and the pid file go [default: $SWITCHD_RUNDIR, $OVS_RUNDIR, or /var/run/openvswitch].
    #[arg(long, value_name = "DIR", default_value_os_t = rundir(), hide_default_value = true)]
    pub rundir: PathBuf,

    /// Serve in the background; return as soon as the daemon serves.
    #[arg(long)]
    pub detach: bool,

    /// Log to this file [default: standard error; with --detach, RUNDIR/ovs-vswitchd.log].
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// What to log: `[MODULE:]LEVEL`, as for `appctl vlog/set`; levels are off, err, warn, info, dbg, trace.
    #[arg(short = 'v', long = "log-level", value_name = "SPEC")]
    pub log_level: Vec<Spec>,

    /// How many flows there is room for.
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_flows: u32,

    /// How many connections there is room for.
    #[arg(long, value_name = "N", default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,

    /// Where bridges and ports are kept [default: RUNDIR/switchd.state].
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
}

impl Options {
    /// The same options with absolute paths, for a process that changes its directory.
    ///
    /// # Errors
    /// A path is empty, or the current directory cannot be told.
    pub fn absolute(self) -> io::Result<Self> {
        let absolute = |file: Option<PathBuf>| file.map(path::absolute).transpose();
        Ok(Self {
            rundir: path::absolute(self.rundir)?,
            log_file: absolute(self.log_file)?,
            state: absolute(self.state)?,
            ..self
        })
    }

    /// The log file's path; `None`: standard error.
    #[must_use]
    pub fn log_file(&self) -> Option<PathBuf> {
        let default = || self.detach.then(|| self.rundir.join(format!("{DAEMON}.log")));
        self.log_file.clone().or_else(default)
    }

    /// The state file's path.
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| self.rundir.join("switchd.state"))
    }
}
