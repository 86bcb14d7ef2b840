//! The pid file, which says who serves a run directory and keeps a second daemon out.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use appctl::client::strerror;
use appctl::pidfile::{lock_holder, write_lock};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use tracing::warn;

/// Why the pid file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// Another daemon holds it.
    #[error("{}: already running as pid {pid}", path.display())]
    Running {
        /// The pid file.
        path: PathBuf,
        /// Its holder.
        pid: i32,
    },
    /// The file system's or `fcntl`'s error.
    #[error("{}: {}", path.display(), strerror(source))]
    Io {
        /// The pid file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

/// The pid file, held: locked, with this process's pid in it. Dropping it removes the file.
///
/// The lock is the kind that OVS's tools look for: it belongs to the process, and the kernel lets go of it as
/// soon as the process closes *any* descriptor of the file. Nothing else in the daemon may open it.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _locked: File,
}

impl PidFile {
    /// Takes the pid file of this process, which is to serve: the lock does not pass to children.
    ///
    /// # Errors
    /// See [`PidFileError`].
    pub fn take(path: &Path) -> Result<Self, PidFileError> {
        let failed = |source| PidFileError::Io { path: path.to_owned(), source };
        loop {
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .open(path)
                .map_err(failed)?;
            match fcntl(&file, FcntlArg::F_SETLK(&write_lock())) {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => match lock_holder(&file).map_err(failed)? {
                    Some(pid) => return Err(PidFileError::Running { path: path.to_owned(), pid }),
                    // It has just let go.
                    None => continue,
                },
                Err(errno) => return Err(failed(errno.into())),
            }
            // The last holder may have removed the file between our opening and our locking it.
            if is_at(&file, path).map_err(failed)? {
                file.set_len(0).map_err(failed)?;
                writeln!(file, "{}", std::process::id()).map_err(failed)?;
                return Ok(Self { path: path.to_owned(), _locked: file });
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Before the lock goes with the file: afterwards it could be another daemon's.
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(%error, path = %self.path.display(), "cannot remove the pid file");
        }
    }
}

/// Whether an open file is the one at `path`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
