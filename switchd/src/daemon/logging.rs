//! The log: lines of tracing events, filtered by levels that can be changed at run time.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    file: Option<Arc<LogFile>>,
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
        let file = file.map(LogFile::open).transpose()?.map(Arc::new);
        let started = match &file {
            Some(file) => {
                let lines = lines.with_ansi(false).with_writer(Arc::clone(file));
                registry().with(layer).with(lines).try_init()
            }
            None => {
                let lines = lines.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
                registry().with(layer).with(lines).try_init()
            }
        };
        started.map_err(io::Error::other)?;
        Ok(Self { levels: Arc::new(Mutex::new(levels)), file, filter })
    }

    /// Changes levels.
    pub fn set(&self, specs: &[Spec]) {
        let mut levels = lock(&self.levels);
        specs.iter().for_each(|spec| levels.apply(spec));
        if let Err(error) = self.filter.reload(levels.to_filter()) {
            warn!(%error, "cannot change log levels");
        }
    }

    /// The levels at present.
    #[must_use]
    pub fn levels(&self) -> Levels {
        lock(&self.levels).clone()
    }
    /// Goes on in a new file of the same name, for whoever has moved the old one away.
    ///
    /// # Errors
    /// There is no file, or it cannot be opened; then the old one stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        let none = || io::Error::other("Logging to file not configured");
        self.file.as_ref().ok_or_else(none)?.reopen()
    }
}

/// The file that is logged to.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: Mutex::new(append_to(path)?) })
    }

    fn reopen(&self) -> io::Result<()> {
        let file = append_to(&self.path)?;
        *lock(&self.file) = file;
        Ok(())
    }
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.file).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        lock(&self.file).flush()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
