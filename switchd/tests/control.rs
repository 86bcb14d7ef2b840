//! A daemon as its clients see it: start, control socket, end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use appctl::client::{Client, ClientError};
use appctl::pidfile;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A daemon in the foreground, in a run directory of its own; both go with it.
struct Daemon {
    rundir: PathBuf,
    child: Child,
}

impl Daemon {
    fn start() -> Self {
        let rundir = new_rundir();
        let mut daemon = Self { child: switchd(&rundir).stderr(Stdio::null()).spawn().unwrap(), rundir };
        daemon.wait("the daemon serves", |daemon| {
            assert_eq!(daemon.child.try_wait().unwrap(), None, "the daemon ended");
            UnixStream::connect(daemon.socket()).is_ok()
        });
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.rundir.join(format!("ovs-vswitchd.{}.ctl", self.child.id()))
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).unwrap()
    }

    /// Result, or error text.
    fn call(&self, method: &str, args: &[&str]) -> Result<String, String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut out = Vec::new();
        let mut client = Client::connect(self.socket().to_str().unwrap()).unwrap();
        match client.call(method, &args, &mut out) {
            Ok(()) => Ok(String::from_utf8(out).unwrap()),
            Err(ClientError::Refused(text)) => Err(text),
            Err(error) => panic!("{error}"),
        }
    }

    fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(Instant::now() < deadline, "in vain: {what}");
            sleep(Duration::from_millis(10));
        }
    }

    fn ends_well(&mut self) {
        self.wait("the daemon ends", |daemon| match daemon.child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "{status}");
                true
            }
            None => false,
        });
        let left: Vec<_> =
            fs::read_dir(&self.rundir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_str().unwrap().starts_with("ovs-vswitchd.")), "{left:?}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.rundir);
    }
}

fn new_rundir() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("switchd-control-{}-{count}", std::process::id()))
}

fn switchd(rundir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchd"));
    command.arg("--rundir").arg(rundir);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn commands_and_errors() {
    let mut daemon = Daemon::start();
    let version = concat!("ovs-vswitchd (switchd) ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(daemon.call("version", &[]), Ok(version.to_owned()));

    let list = daemon.call("list-commands", &[]).unwrap();
    assert!(list.starts_with("The available commands are:\n"), "{list}");
    assert!(list.contains("\n  exit                    [--cleanup]\n"), "{list}");
    assert!(list.contains("\n  list-commands           \n"), "{list}");

    assert_eq!(
        daemon.call("foo/bar", &[]),
        Err("\"foo/bar\" is not a valid command (use \"list-commands\" to see a list of valid commands)\n"
            .to_owned())
    );
    assert_eq!(
        daemon.call("version", &["x"]),
        Err("\"version\" command takes at most 0 arguments\n".to_owned())
    );

    assert_eq!(daemon.call("vlog/set", &["control:console:dbg"]), Ok(String::new()));
    let levels = daemon.call("vlog/list", &[]).unwrap();
    assert!(levels.contains("\ncontrol            DBG        OFF        OFF\n"), "{levels}");
    assert_eq!(
        daemon.call("vlog/set", &["err", "foo"]),
        Err("no destination, level, or module \"foo\"\n".to_owned())
    );
    assert_eq!(daemon.call("vlog/list", &[]), Ok(levels));

    assert_eq!(daemon.call("exit", &[]), Ok(String::new()));
    daemon.ends_well();
}

#[test]
fn garbage_ends_its_own_connection_only() {
    let daemon = Daemon::start();
    let mut good = daemon.connect();
    for garbage in
        ["garbage", "[]", "\u{0}", "{\"id\":0}", "{\"id\":null,\"method\":\"version\",\"params\":[]}"]
    {
        let mut bad = daemon.connect();
        bad.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        bad.write_all(garbage.as_bytes()).unwrap();
        assert_eq!(bad.read_to_end(&mut Vec::new()).unwrap(), 0, "{garbage}");
    }
    let version = concat!("ovs-vswitchd (switchd) ", env!("CARGO_PKG_VERSION"));
    good.write_all(b"{\"id\":\"a\",\"method\":\"version\",\"params\":[]} {\"id\":1,\"method\":\"ver")
        .unwrap();
    good.write_all(b"sion\",\"params\":[]}").unwrap();
    let wanted = format!(
        r#"{{"id":"a","result":"{version}\n","error":null}}{{"id":1,"result":"{version}\n","error":null}}"#
    );
    let mut answer = vec![0; wanted.len()];
    good.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), wanted);
}

#[test]
fn one_daemon_per_run_directory() {
    let daemon = Daemon::start();
    let (path, pid) = (daemon.rundir.join("ovs-vswitchd.pid"), daemon.child.id());
    for detach in [None, Some("--detach")] {
        let second = switchd(&daemon.rundir).args(detach).output().unwrap();
        assert_eq!(second.status.code(), Some(1));
        assert_eq!(stderr(&second), format!("switchd: {}: already running as pid {pid}\n", path.display()));
    }
    assert_eq!(pidfile::read(&path).unwrap(), i32::try_from(pid).unwrap());
    assert!(daemon.call("version", &[]).is_ok());
}

#[test]
fn signals_end_it_and_idle_clients_do_not_hold_it_up() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Daemon::start();
        let _idle = daemon.connect();
        let start = Instant::now();
        kill(Pid::from_raw(daemon.child.id().try_into().unwrap()), signal).unwrap();
        daemon.ends_well();
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[test]
fn what_a_killed_daemon_left_is_no_hindrance() {
    let mut first = Daemon::start();
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let (socket, path) = (first.socket(), first.rundir.join("ovs-vswitchd.pid"));
    assert!(socket.exists());
    assert_eq!(pidfile::read(&path).unwrap_err().raw_os_error(), Some(libc::ESRCH));

    first.child = switchd(&first.rundir).stderr(Stdio::null()).spawn().unwrap();
    first.wait("the second daemon serves", |daemon| UnixStream::connect(daemon.socket()).is_ok());
    assert!(!socket.exists());
    assert_eq!(pidfile::read(&path).unwrap(), i32::try_from(first.child.id()).unwrap());
}

#[test]
fn detached_it_serves_when_the_command_returns() {
    let rundir = new_rundir();
    let start = switchd(&rundir).arg("--detach").output().unwrap();
    assert_eq!((start.status.code(), stderr(&start)), (Some(0), String::new()));
    let pid = pidfile::read(&rundir.join("ovs-vswitchd.pid")).unwrap();
    let socket = rundir.join(format!("ovs-vswitchd.{pid}.ctl"));
    let mut client = Client::connect(socket.to_str().unwrap()).unwrap();
    let mut levels = Vec::new();
    client.call("vlog/list", &[], &mut levels).unwrap();
    assert!(String::from_utf8(levels).unwrap().contains("\ncontrol            OFF        OFF       INFO\n"));
    client.call("exit", &["--cleanup".to_owned()], &mut Vec::new()).unwrap();
    let log = fs::read_to_string(rundir.join("ovs-vswitchd.log")).unwrap();
    assert!(log.contains("serving"), "{log}");
    fs::remove_dir_all(&rundir).unwrap();
}

#[test]
fn a_start_that_fails_says_why() {
    let rundir = new_rundir();
    fs::write(&rundir, "").unwrap();
    let start = switchd(&rundir).arg("--detach").output().unwrap();
    assert_eq!(start.status.code(), Some(1));
    assert_eq!(stderr(&start), format!("switchd: {}: File exists\n", rundir.display()));
    fs::remove_file(&rundir).unwrap();
}

#[test]
fn the_tool_of_ovs_is_served() {
    let mut daemon = Daemon::start();
    let rundir = daemon.rundir.clone();
    let ovs_appctl =
        |args: &[&str]| Command::new("ovs-appctl").env("OVS_RUNDIR", &rundir).args(args).output();
    let Ok(version) = ovs_appctl(&["version"]) else {
        eprintln!("ovs-appctl is not installed");
        return;
    };
    let wanted = concat!("ovs-vswitchd (switchd) ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(
        (stderr(&version), String::from_utf8(version.stdout).unwrap()),
        (String::new(), wanted.into())
    );

    let unknown = ovs_appctl(&["foo/bar"]).unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert_eq!(
        stderr(&unknown),
        "\"foo/bar\" is not a valid command (use \"list-commands\" to see a list of valid commands)\n\
         ovs-appctl: ovs-vswitchd: server returned an error\n"
    );
    assert_eq!(ovs_appctl(&["vlog/set", "ANY:dbg"]).unwrap().status.code(), Some(0));
    assert_eq!(ovs_appctl(&["exit"]).unwrap().status.code(), Some(0));
    daemon.ends_well();
}
