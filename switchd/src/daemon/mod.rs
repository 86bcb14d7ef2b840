//! The daemon as a process: its command line, run directory, pid file, log, start and end.

pub mod detach;
pub mod logging;
pub mod options;
pub mod pidfile;
pub mod rundir;
pub mod shutdown;
pub mod vlog;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use appctl::client::strerror;
use tokio::runtime::Runtime;
use tracing::info;

use crate::commands;
use crate::control::{Registry, Server, builtin};
use crate::datapath::{self, LoadError, Sizes};
use crate::netdev::LinkWatch;
use crate::switch::{Switch, watch_links};
use logging::Log;
use options::Options;
use pidfile::{PidFile, PidFileError};
use rundir::DAEMON;
use shutdown::Shutdown;

/// Why the daemon cannot serve; each a line for the user.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The run directory, the log file or the control socket cannot be used.
    #[error("{}: {}", path.display(), strerror(source))]
    Path {
        /// The culprit.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// See [`PidFileError`].
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// See [`LoadError`].
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The state file, or the system's network devices, cannot be read.
    #[error("{0}")]
    Switch(String),
    /// Threads or signal handlers cannot be had.
    #[error("{}", strerror(.0))]
    Runtime(#[from] io::Error),
}

/// How often old MAC addresses are removed, which are invisible before, and ports tried again that do not work.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

async fn keep_house(switch: Arc<Switch>) {
    let mut ticks = tokio::time::interval(HOUSEKEEPING);
    loop {
        ticks.tick().await;
        let switch = Arc::clone(&switch);
        // Only a panic ends the task early, and it is reported already.
        let _ = tokio::task::spawn_blocking(move || switch.housekeep()).await;
    }
}

/// Removes expired connections, as often as is wanted at the time.
async fn sweep(switch: Arc<Switch>) {
    let mut interval = switch.sweep_interval().subscribe();
    loop {
        let wait = *interval.borrow_and_update();
        // Another interval counts at once, from its being set.
        if tokio::time::timeout(wait, interval.changed()).await.is_err() {
            let switch = Arc::clone(&switch);
            let _ = tokio::task::spawn_blocking(move || switch.sweep()).await;
        }
    }
}

/// Serves until a signal or `exit` ends it. `serves` is called once clients can connect.
///
/// # Errors
/// See [`ServeError`]; all from before `serves` is called.
pub fn serve(options: &Options, serves: impl FnOnce()) -> Result<(), ServeError> {
    let rundir = &options.rundir;
    let at = |path: PathBuf| move |source| ServeError::Path { path, source };
    rundir::create(rundir).map_err(at(rundir.clone()))?;
    let pidfile = PidFile::take(&rundir.join(format!("{DAEMON}.pid")))?;
    rundir::remove_stale_sockets(rundir).map_err(at(rundir.clone()))?;
    let log_file = options.log_file();
    let log = Log::start(log_file.as_deref(), &options.log_level)
        .map_err(at(log_file.unwrap_or_else(|| "log".into())))?;

    let sizes = Sizes { flows: options.max_flows, connections: options.max_connections };
    let (datapath, verified) = datapath::load(sizes)?;
    for (program, instructions) in verified {
        info!(program, instructions, "verified");
    }

    let runtime = Runtime::new()?;
    let ended = runtime.block_on(async {
        let shutdown = Shutdown::default();
        shutdown.on_signals()?;
        let mut registry = Registry::default();
        builtin::register(&mut registry, &shutdown, &log);
        // The watch begins before the devices are looked at, so that nothing is missed in between.
        let watch = LinkWatch::new()?;
        let switch =
            Switch::open(rundir.clone(), options.state_file(), datapath).map_err(ServeError::Switch)?;
        commands::register(&mut registry, &switch);

        let socket = rundir.join(format!("{DAEMON}.{}.ctl", std::process::id()));
        let server = Server::bind(&socket, registry).map_err(at(socket))?;
        let control = tokio::spawn(server.run(shutdown.clone()));
        let links = tokio::spawn(watch_links(Arc::clone(&switch), watch));
        let housekeeping = tokio::spawn(keep_house(Arc::clone(&switch)));
        let sweeping = tokio::spawn(sweep(Arc::clone(&switch)));
        info!(rundir = %rundir.display(), version = env!("CARGO_PKG_VERSION"), "serving");
        serves();

        shutdown.requested().await;
        links.abort();
        housekeeping.abort();
        sweeping.abort();
        switch.shutdown();
        // From here on another daemon may serve the run directory; the control socket has a name of its own.
        drop(pidfile);
        shutdown.finish();
        control.await.map_err(io::Error::other)?;
        info!("stopped");
        Ok(())
    });
    // A command that still runs for a slow client must not keep the daemon alive.
    runtime.shutdown_background();
    ended
}
