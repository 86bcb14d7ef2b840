//! The tool as a user runs it: what it prints and how it exits.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;

use ofctl::wire::{
    AggregateStats, ErrorCode, FlowFormat, Framer, Header, Message, Protocol, StatsBody, StatsReply,
    StatsRequest, VersionSet, decode, encode, error_reply,
};

fn ofctl(run_dir: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ofctl")).args(arguments).env("SWITCHD_RUNDIR", run_dir).output().unwrap()
}

fn fails(arguments: &[&str], text: &str) {
    let output = ofctl("/nonexistent", arguments);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), text, "{arguments:?}");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

#[test]
fn mistakes_are_named() {
    fails(&[], "ofctl: missing command name; use --help for help\n");
    fails(&["foo"], "ofctl: unknown command 'foo'; use --help for help\n");
    fails(&["add-flow", "br0"], "ofctl: 'add-flow' command requires at least 2 arguments\n");
    fails(&["add-flow", "a", "b", "c"], "ofctl: 'add-flow' command takes at most 2 arguments\n");
    fails(&["--foo", "show", "br0"], "ofctl: unrecognized option '--foo'\n");
    fails(&["-t", "foo", "show", "br0"], "ofctl: value foo on -t or --timeout is invalid\n");
    fails(&["-O", "foo", "show", "br0"], "ofctl: Unknown OpenFlow version: \"foo\"\n");
    fails(&["-O", "OpenFlow13", "show", "br0"], "ofctl: OpenFlow13: only OpenFlow10 is supported\n");
    fails(&["show", "nobr"], "ofctl: nobr is not a bridge or a socket\n");
    fails(
        &["show", "unix:/nonexistent/s"],
        "ofctl: connecting to unix:/nonexistent/s (No such file or directory)\n",
    );
    fails(&["ct-flush-zone", "br0", "70000"], "ofctl: invalid zone_id \"70000\"\n");
    fails(&["set-frags", "br0", "some"], "ofctl: some: unknown fragment handling mode\n");
    fails(&["parse-flow", "tcp"], "ofctl: must specify an action\n");
}

#[test]
fn parse_flow_needs_no_switch() {
    let output = ofctl("/nonexistent", &["parse-flow", "table=1,ct_state=+trk,tcp,actions=ct(commit)"]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "usable protocols: OXM,NXM+table_id\nchosen protocol: NXM+table_id\n\
         NXT_FLOW_MOD (xid=0x1): ADD table:1 ct_state=+trk,tcp actions=ct(commit)\n"
    );
    assert_eq!(output.status.code(), Some(0));
}

/// The cookie of flows whose actions the switch cannot do.
const UNSUPPORTED: u64 = 9;

/// A switch that refuses flow-mods, counts three flows, and leaves everything else alone.
struct FakeSwitch {
    run_dir: PathBuf,
}

impl FakeSwitch {
    fn new(name: &str) -> Self {
        let run_dir = std::env::temp_dir().join(format!("ofctl-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&run_dir).unwrap();
        let listener = UnixListener::bind(run_dir.join("br0.mgmt")).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let (mut framer, mut chunk) = (Framer::new(), [0; 4096]);
                    while let Ok(len @ 1..) = stream.read(&mut chunk) {
                        framer.push(&chunk[..len]);
                        while let Some(message) = framer.next_message().unwrap() {
                            stream.write_all(&answer(message)).unwrap();
                        }
                    }
                });
            }
        });
        Self { run_dir }
    }

    fn ofctl(&self, arguments: &[&str]) -> Output {
        ofctl(self.run_dir.to_str().unwrap(), arguments)
    }
}

impl Drop for FakeSwitch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.run_dir);
    }
}

fn answer(message: &[u8]) -> Vec<u8> {
    let protocol = Protocol { flow_mod_table_id: true, ..Protocol::default() };
    let xid = Header::parse(message).unwrap().xid;
    let reply = match decode(protocol, message).unwrap().1 {
        Message::Hello(_) => Message::Hello(VersionSet(0x7e)),
        Message::FeaturesRequest => Message::FeaturesReply(Default::default()),
        Message::BarrierRequest => Message::BarrierReply,
        Message::FlowMod(_, flow) if flow.new_cookie == Some(UNSUPPORTED) => {
            return error_reply(ErrorCode::ActionBadType, message);
        }
        Message::FlowMod(..) => return error_reply(ErrorCode::FlowModOverlap, message),
        Message::StatsRequest(StatsRequest::Aggregate(FlowFormat::Nxm, _)) => {
            let sum = AggregateStats { packets: 7, bytes: 1000, flows: 3 };
            Message::StatsReply(StatsReply { body: StatsBody::Aggregate(FlowFormat::Nxm, sum), more: false })
        }
        _ => return Vec::new(),
    };
    encode(protocol, xid, &reply).unwrap()
}

#[test]
fn a_refusal_is_shown_with_the_message() {
    let switch = FakeSwitch::new("refusal");
    let output = switch.ofctl(&["add-flow", "br0", "table=2,priority=5,check_overlap,ip,actions=output:1"]);
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "OFPT_ERROR (xid=0x6): OFPFMFC_OVERLAP\n\
         OFPT_FLOW_MOD (xid=0x6): ADD table:2 priority=5,ip check_overlap actions=output:1\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_action_that_the_switch_cannot_do_is_said_to_be_one() {
    let switch = FakeSwitch::new("unsupported");
    let output = switch.ofctl(&["add-flow", "br0", "cookie=9,actions=controller"]);
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "OFPT_ERROR (xid=0x4): OFPBAC_BAD_TYPE\n\
         OFPT_FLOW_MOD (xid=0x4): ADD cookie:0x9 actions=CONTROLLER:65535\n\
         (the switch cannot do one of these actions, or not in this way; its log says which)\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn refusals_name_the_lines_of_the_file() {
    let switch = FakeSwitch::new("lines");
    let file = switch.run_dir.join("flows");
    std::fs::write(&file, "# two\ntcp actions=drop\n\nudp actions=output:1\n").unwrap();
    let file = file.to_str().unwrap();
    let output = switch.ofctl(&["add-flows", "br0", file]);
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!(
            "{file}:2: refused by the switch:\n\
             OFPT_ERROR (xid=0x4): OFPFMFC_OVERLAP\n\
             OFPT_FLOW_MOD (xid=0x4): ADD tcp actions=drop\n\
             {file}:4: refused by the switch:\n\
             OFPT_ERROR (xid=0x5): OFPFMFC_OVERLAP\n\
             OFPT_FLOW_MOD (xid=0x5): ADD udp actions=output:1\n"
        )
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn many_flows_share_a_barrier() {
    let switch = FakeSwitch::new("many");
    let file = switch.run_dir.join("flows");
    let flows: String = (0..2000).map(|n| format!("priority={n},tcp actions=drop\n")).collect();
    std::fs::write(&file, flows).unwrap();
    let output = switch.ofctl(&["add-flows", "br0", file.to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let refused = stderr.matches("OFPFMFC_OVERLAP").count();
    // 72 bytes each; after the batch in which the first was refused nothing more is sent.
    assert_eq!(refused, (32 * 1024_usize).div_ceil(72));
    assert!(!stderr.contains("priority=1999"));
}

#[test]
fn replies_are_printed() {
    let switch = FakeSwitch::new("replies");
    let output = switch.ofctl(&["dump-aggregate", "br0"]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "NXST_AGGREGATE reply (xid=0x4): packet_count=7 byte_count=1000 flow_count=3\n"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_file_with_a_mistake_changes_nothing() {
    let switch = FakeSwitch::new("file");
    let file = switch.run_dir.join("flows");
    std::fs::write(&file, "# two\ntcp actions=drop\nfoo=1 actions=drop\n").unwrap();
    let file = file.to_str().unwrap();
    let output = switch.ofctl(&["add-flows", "br0", file]);
    // Had the first flow been sent, its refusal would show.
    assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("ofctl: {file}:3: unknown keyword foo\n"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn silence_ends_with_the_timeout() {
    let switch = FakeSwitch::new("silence");
    let output = switch.ofctl(&["-t", "1", "dump-ports", "br0"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "ofctl: talking to br0 (Connection timed out)\n");
    assert_eq!(output.status.code(), Some(1));
}
