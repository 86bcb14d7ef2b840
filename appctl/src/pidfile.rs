//! Reading a daemon's pid file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// The pid of the daemon that holds a pid file.
///
/// A daemon holds its pid file under an fcntl write lock for as long as it lives. A file without a lock, or
/// whose lock another process holds, was left behind, and the pid in it may be anybody's by now.
///
/// # Errors
/// The file cannot be read, holds no pid (`EINVAL`), or is not held by that pid (`ESRCH`).
pub fn read(path: &Path) -> io::Result<i32> {
    let mut file = File::open(path)?;
    let mut text = String::new();
    file.by_ref().take(32).read_to_string(&mut text)?;
    let pid: i32 = text.trim_end().parse().map_err(|_| Errno::EINVAL)?;
    match lock_holder(&file)? {
        Some(holder) if holder == pid => Ok(pid),
        _ => Err(Errno::ESRCH.into()),
    }
}

/// The process that holds a lock on a file, other than the caller.
///
/// # Errors
/// `fcntl`'s.
pub fn lock_holder(file: &File) -> io::Result<Option<i32>> {
    let mut lock = write_lock();
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then_some(lock.l_pid))
}

/// The lock that a daemon takes on its pid file: for writing, on all of it.
#[must_use]
pub fn write_lock() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
