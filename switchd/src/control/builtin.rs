//! The commands of the daemon itself.

use std::fmt::Write as _;

use tokio::runtime::Handle;

use super::registry::Registry;
use super::reply::CommandError;
use crate::daemon::logging::Log;
use crate::daemon::rundir::DAEMON;
use crate::daemon::shutdown::Shutdown;
use crate::daemon::vlog::{Spec, SpecError};

/// Registers `version`, `exit`, and `vlog/set`, `vlog/list` and `vlog/reopen`. (`list-commands` comes from the server.)
pub fn register(registry: &mut Registry, shutdown: &Shutdown, log: &Log) {
    registry.register("version", "", 0..=0, |_, reply| {
        Ok(writeln!(reply, "{DAEMON} (switchd) {}", env!("CARGO_PKG_VERSION"))?)
    });

    // OVS leaves its datapath in place unless asked to clean up; here there is nothing that could outlive the
    // daemon, so the option is taken and means nothing.
    let shutdown = shutdown.clone();
    registry.register("exit", "[--cleanup]", 0..=1, move |args, _| {
        if let [other] = args
            && other != "--cleanup"
        {
            return Err(CommandError::Refused(format!("exit: unknown argument \"{other}\"")));
        }
        shutdown.request();
        // The answer says that all has been undone.
        Handle::current().block_on(shutdown.finished());
        Ok(())
    });

    let setter = log.clone();
    registry.register("vlog/set", "{spec}...", 0..=usize::MAX, move |args, _| {
        let specs: Result<Vec<Spec>, SpecError> = args.iter().map(|arg| arg.parse()).collect();
        setter.set(&specs.map_err(|error| CommandError::new(error.to_string()))?);
        Ok(())
    });

    let lister = log.clone();
    registry.register("vlog/list", "", 0..=0, move |_, reply| Ok(write!(reply, "{}", lister.levels())?));
    let reopener = log.clone();
    registry.register("vlog/reopen", "", 0..=0, move |_, _| {
        reopener.reopen().map_err(|error| CommandError::new(error.to_string()))
    });
}
