//! `appctl` and `vsctl` as a user runs them, against a server that answers as told.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use appctl::codec::Decoder;
use appctl::message::Request;
use appctl::pidfile::write_lock;
use appctl::vsctl::{self, Failure, Outcome, Transaction};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use serde_json::json;

/// A run directory, removed in the end.
struct Rundir(PathBuf);

impl Rundir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("appctl-cli-{}-{count}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Plays the daemon for one request: sends `reply`, returns the request.
    fn answer(&self, reply: impl Into<String>) -> Answering {
        let pid = std::process::id();
        let listener = UnixListener::bind(self.0.join(format!("ovs-vswitchd.{pid}.ctl"))).unwrap();
        let mut pidfile = File::create(self.0.join("ovs-vswitchd.pid")).unwrap();
        writeln!(pidfile, "{pid}").unwrap();
        fcntl(&pidfile, FcntlArg::F_SETLK(&write_lock())).unwrap();
        let reply = reply.into();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut decoder = Decoder::new(10_000);
            let mut byte = [0];
            let request = loop {
                stream.read_exact(&mut byte).unwrap();
                decoder.push(&byte);
                if let Some(request) = decoder.next_message().unwrap() {
                    break request;
                }
            };
            stream.write_all(reply.as_bytes()).unwrap();
            request
        });
        Answering { thread, _pidfile: pidfile }
    }

    /// Runs a tool: exit code, standard output, standard error.
    fn run(&self, tool: &str, args: &[&str]) -> (i32, String, String) {
        let output = Command::new(tool).env("SWITCHD_RUNDIR", &self.0).args(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

impl Drop for Rundir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Answering {
    thread: JoinHandle<Request>,
    _pidfile: File,
}

impl Answering {
    fn request(self) -> Request {
        self.thread.join().unwrap()
    }
}

const APPCTL: &str = env!("CARGO_BIN_EXE_appctl");
const VSCTL: &str = env!("CARGO_BIN_EXE_vsctl");

fn ok(result: &str) -> String {
    json!({"id": 0, "result": result, "error": null}).to_string()
}

fn said(code: i32, stdout: &str, stderr: &str) -> (i32, String, String) {
    (code, stdout.to_owned(), stderr.to_owned())
}

#[test]
fn results_are_printed_as_they_are_and_options_after_the_command_are_its_own() {
    let rundir = Rundir::new();
    let server = rundir.answer(ok("tcp,\"x\"\tno line break"));
    assert_eq!(
        rundir.run(APPCTL, &["-T", "30", "dpctl/dump-conntrack", "-m", "--", "zone=1"]),
        said(0, "tcp,\"x\"\tno line break", "")
    );
    let args = ["-m", "--", "zone=1"].map(str::to_owned);
    assert_eq!(server.request(), Request::new("dpctl/dump-conntrack", &args));
}

#[test]
fn errors_of_the_server() {
    let rundir = Rundir::new();
    let server = rundir.answer(r#"{"id":0,"error":"no such bridge\n"}"#);
    assert_eq!(
        rundir.run(APPCTL, &["fdb/show", "nobr"]),
        said(2, "", "no such bridge\nappctl: ovs-vswitchd: server returned an error\n")
    );
    server.request();
}

#[test]
fn a_broken_connection() {
    for (reply, why) in [("{\"id\":0,\"res", "End of file"), ("HTTP/1.1 400", "Protocol error")] {
        let rundir = Rundir::new();
        let server = rundir.answer(reply);
        assert_eq!(
            rundir.run(APPCTL, &["version"]),
            said(1, "", &format!("appctl: ovs-vswitchd: transaction error ({why})\n"))
        );
        server.request();
    }
}

#[test]
fn no_daemon() {
    let rundir = Rundir::new();
    let pidfile = rundir.0.join("other.pid");
    let cannot_read = |why| format!("appctl: cannot read pidfile \"{}\" ({why})\n", pidfile.display());
    let run = || rundir.run(APPCTL, &["-t", "other", "version"]);
    assert_eq!(run(), said(1, "", &cannot_read("No such file or directory")));
    fs::write(&pidfile, "1\n").unwrap();
    assert_eq!(run(), said(1, "", &cannot_read("No such process")));
    fs::write(&pidfile, "one\n").unwrap();
    assert_eq!(run(), said(1, "", &cannot_read("Invalid argument")));
    assert_eq!(
        rundir.run(APPCTL, &["-t", "/nosuch.ctl", "version"]),
        said(1, "", "appctl: cannot connect to \"/nosuch.ctl\" (No such file or directory)\n")
    );
}

#[test]
fn a_timeout_ends_by_the_alarm_signal() {
    let rundir = Rundir::new();
    let socket = rundir.0.join("silent.ctl");
    let _silent = UnixListener::bind(&socket).unwrap();
    let status = Command::new(APPCTL).args(["-T", "1", "-t"]).arg(&socket).arg("version").status().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGALRM));
}

#[test]
fn bad_usage_is_exit_code_1() {
    let rundir = Rundir::new();
    for args in [&[][..], &["--foo", "version"], &["-T", "0", "version"]] {
        let (code, stdout, stderr) = rundir.run(APPCTL, args);
        assert_eq!((code, stdout.as_str(), stderr.is_empty()), (1, "", false), "{args:?}");
    }
    assert_eq!(
        rundir.run(APPCTL, &["--version"]),
        said(0, concat!("appctl ", env!("CARGO_PKG_VERSION"), "\n"), "")
    );
    assert_eq!(
        rundir.run(VSCTL, &["foo"]),
        said(1, "", "vsctl: unknown command 'foo'; use --help for help\n")
    );
}

#[test]
fn vsctl_sends_a_transaction_and_prints_its_outcome() {
    let rundir = Rundir::new();
    let outcome: vsctl::Reply = Ok(Outcome {
        outputs: vec![String::new(), "br0\nbr1\n".to_owned()],
        warnings: vec!["Error detected while setting up 'x': no x.".to_owned()],
    });
    let server = rundir.answer(ok(&serde_json::to_string(&outcome).unwrap()));
    assert_eq!(
        rundir.run(VSCTL, &["add-port", "br0", "x", "--", "list-br"]),
        said(0, "br0\nbr1\n", "vsctl: Error detected while setting up 'x': no x.\n")
    );
    let request = server.request();
    assert_eq!((request.method.as_str(), request.params.len()), ("vsctl/run", 1));
    let sent: Transaction = serde_json::from_str(request.params[0].as_str().unwrap()).unwrap();
    let port = vsctl::Command::AddPort { bridge: "br0".into(), port: "x".into(), may_exist: false };
    assert_eq!(sent, [port, vsctl::Command::ListBr]);
}

#[test]
fn vsctl_fails_as_the_daemon_says() {
    for (failure, code, stderr) in [
        (Failure::new("no bridge named br0"), 1, "vsctl: no bridge named br0\n"),
        (Failure::NOT_FOUND, 2, ""),
    ] {
        let rundir = Rundir::new();
        let reply: vsctl::Reply = Err(failure);
        let server = rundir.answer(ok(&serde_json::to_string(&reply).unwrap()));
        assert_eq!(rundir.run(VSCTL, &["br-exists", "br0"]), said(code, "", stderr));
        server.request();
    }
}
