//! The log: lines of tracing events, filtered by levels that can be changed at run time.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry, reload};

use super::vlog::{Destination, Levels, Spec};

/// The running log.
#[derive(Clone, Debug)]
pub struct Log {
    levels: Arc<Mutex<Levels>>,
    filter: reload::Handle<Targets, tracing_subscriber::Registry>,
}

impl Log {
    /// Starts to log, to the end of a file or to standard error. Once per process.
    ///
    /// # Errors
    /// The file cannot be opened, or something else logs already.
    pub fn start(file: Option<&Path>, specs: &[Spec]) -> io::Result<Self> {
        let destination = if file.is_some() { Destination::File } else { Destination::Console };
        let mut levels = Levels::new(destination);
        specs.iter().for_each(|spec| levels.apply(spec));
        let (layer, filter) = reload::Layer::new(levels.to_filter());
        let lines = fmt::layer();
        let started = match file {
            Some(path) => {
                let file = File::options().append(true).create(true).open(path)?;
                let lines = lines.with_ansi(false).with_writer(Mutex::new(file));
                registry().with(layer).with(lines).try_init()
            }
            None => {
                let lines = lines.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
                registry().with(layer).with(lines).try_init()
            }
        };
        started.map_err(io::Error::other)?;
        Ok(Self { levels: Arc::new(Mutex::new(levels)), filter })
    }

    /// Changes levels.
    pub fn set(&self, specs: &[Spec]) {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        specs.iter().for_each(|spec| levels.apply(spec));
        if let Err(error) = self.filter.reload(levels.to_filter()) {
            warn!(%error, "cannot change log levels");
        }
    }

    /// The levels at present.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
