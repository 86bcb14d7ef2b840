//! Finding network namespaces, and working in them.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

/// What tells one namespace from another for as long as both live: device and inode of its nsfs file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct NetnsId {
    dev: u64,
    ino: u64,
}

/// A network namespace, held open: it lives on as long as this does, so keep it no longer than needed.
pub(super) struct Netns {
    pub(super) file: File,
    pub(super) id: NetnsId,
    path: PathBuf,
}

impl Netns {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        Ok(Self { file, id: NetnsId { dev: metadata.dev(), ino: metadata.ino() }, path })
    }

    /// What a user knows it by: its name as `ip netns` has it, else the path it was found under.
    pub(super) fn name(&self) -> String {
        let named = self.path.parent().is_some_and(|dir| dir.ends_with("run/netns"));
        let name = if named { self.path.file_name() } else { None };
        name.unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// Runs a function in this namespace, on a thread of its own: the caller stays where it is.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let worker = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, || {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                work()
            })?;
            worker.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
        })
    }
}

/// All namespaces that can be reached through a file, each once: those mounted somewhere (by `ip netns`,
/// container engines, ...) before those that only a process holds. What vanishes meanwhile is left out.
pub(super) fn reachable() -> impl Iterator<Item = Netns> {
    let mut seen = HashSet::new();
    mounted().into_iter().chain(of_processes()).filter_map(move |path| {
        // Looking at the inode first saves opening the same namespace once for each of its processes.
        let metadata = fs::metadata(&path).ok()?;
        let netns = seen.insert((metadata.dev(), metadata.ino())).then(|| Netns::open(path))?;
        netns.ok()
    })
}

fn mounted() -> Vec<PathBuf> {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    mounts.split(|&byte| byte == b'\n').filter_map(mounted_netns).collect()
}

/// The mount point in a line of mountinfo, if what is mounted is a network namespace (proc(5): mount ID, parent
/// ID, device, root, mount point, ...; a namespace's root is its name).
fn mounted_netns(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|&byte| byte == b' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    root.starts_with(b"net:[").then(|| Path::new(OsStr::from_bytes(&unescape(point))).to_owned())
}

/// Undoes mountinfo's escapes: a backslash and three octal digits for blanks and backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'\\').then(|| after.split_at_checked(3)).flatten();
        let code = escaped.and_then(|(digits, after)| {
            let code = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()?;
            Some((code, after))
        });
        let (byte, after) = code.unwrap_or((byte, after));
        plain.push(byte);
        rest = after;
    }
    plain
}

fn of_processes() -> impl Iterator<Item = PathBuf> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let is_process = entry.file_name().as_bytes().iter().all(u8::is_ascii_digit);
        is_process.then(|| entry.path().join("ns/net"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_found_among_mounts() {
        let line = b"77 41 0:4 net:[4026532281] /run/netns/left rw shared:20 - nsfs nsfs rw";
        assert_eq!(mounted_netns(line), Some(PathBuf::from("/run/netns/left")));
        let escaped = br"77 41 0:4 net:[4026532281] /run/netns/a\040b\134c rw - nsfs nsfs rw";
        assert_eq!(mounted_netns(escaped), Some(PathBuf::from(r"/run/netns/a b\c")));
        assert_eq!(mounted_netns(b"77 41 0:4 mnt:[4026532281] /run/x rw - nsfs nsfs rw"), None);
        assert_eq!(mounted_netns(b"24 30 0:22 / /proc rw,nosuid - proc proc rw"), None);
        assert_eq!(mounted_netns(b""), None);
    }

    #[test]
    fn the_own_namespace_is_reachable_and_told_once() {
        let own = fs::metadata("/proc/thread-self/ns/net").unwrap();
        let own = NetnsId { dev: own.dev(), ino: own.ino() };
        assert_eq!(reachable().filter(|netns| netns.id == own).count(), 1);
    }

    #[test]
    fn only_netns_names_are_shortened() {
        let of = |path: &str| {
            Netns { path: path.into(), ..Netns::open("/proc/self/ns/net".into()).unwrap() }.name()
        };
        assert_eq!(of("/run/netns/left"), "left");
        assert_eq!(of("/run/docker/netns/1234"), "/run/docker/netns/1234");
        assert_eq!(of("/proc/12/ns/net"), "/proc/12/ns/net");
    }
}
