//! The bridges over a datapath and devices that only take notes.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use appctl::vsctl::{BridgeColumn, BridgeSetting, DatapathType};

use super::*;
use crate::hooks::{Hook, HookError};
use crate::netdev::{Link, PrepareError, Prepared};

/// A directory of its own, removed when dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("switchd-bridges-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The system: its devices, how it refuses, and what was done to it.
#[derive(Default)]
struct World {
    links: HashMap<String, Link>,
    unpreparable: HashSet<String>,
    refusals: HashMap<(u32, bool), HookError>,
    log: Vec<String>,
}

#[derive(Clone, Default)]
struct Fake(Rc<RefCell<World>>);

impl Fake {
    fn plug(&self, name: &str, ifindex: u32) -> Link {
        let link = Link {
            ifindex,
            name: name.to_owned(),
            mac: [2, 0, 0, 0, 1, ifindex as u8],
            mtu: 1500,
            kind: Some("veth".to_owned()),
            admin_up: true,
            carrier: true,
            ethernet: true,
            xdp: false,
            lower: None,
        };
        self.0.borrow_mut().links.insert(name.to_owned(), link.clone());
        link
    }

    fn unplug(&self, name: &str) -> LinkEvent {
        let link = self.0.borrow_mut().links.remove(name).unwrap();
        LinkEvent::Gone { ifindex: link.ifindex, name: link.name }
    }

    fn refuse(&self, ifindex: u32, hook: Hook, error: HookError) {
        self.0.borrow_mut().refusals.insert((ifindex, hook == Hook::Xdp), error);
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.borrow_mut().log)
    }

    fn note(&self, text: String) {
        self.0.borrow_mut().log.push(text);
    }
}

impl Hooks for Fake {
    fn attach(&mut self, bridge: BridgeId, port: PortNo, ifindex: u32, hook: Hook) -> Result<(), HookError> {
        self.note(format!("attach {}/{} to {ifindex} by {hook:?}", bridge.0, port.0));
        self.0.borrow().refusals.get(&(ifindex, hook == Hook::Xdp)).cloned().map_or(Ok(()), Err)
    }

    fn detach(&mut self, bridge: BridgeId, port: PortNo) {
        self.note(format!("detach {}/{}", bridge.0, port.0));
    }

    fn shows_fragments(&self, _: BridgeId) -> bool {
        false
    }

    fn show_fragments(&mut self, _: BridgeId, _: bool) {}

    fn port_stats(&self, _: BridgeId, _: PortNo) -> PortStats {
        PortStats::default()
    }
}

impl Devices for Fake {
    fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        Ok(self.0.borrow().links.get(name).cloned())
    }

    fn media(&mut self, _: &str) -> Media {
        Media { speed: 10_000, ..Media::default() }
    }

    fn prepare(&mut self, link: &Link, _: &mut dyn FnMut(&Prepared)) -> Result<Prepared, PrepareError> {
        self.note(format!("prepare {}", link.name));
        match self.0.borrow().unpreparable.contains(&link.name) {
            true => Err(PrepareError::NoNamespace),
            false => Ok(Prepared::default()),
        }
    }

    fn undo(&mut self, _: &Prepared) -> Result<(), PrepareError> {
        self.note("undo".to_owned());
        Ok(())
    }
}

struct Bench {
    world: Fake,
    bridges: Bridges<Fake, Fake>,
    scratch: Scratch,
}

impl Bench {
    fn new(name: &str) -> Self {
        let (world, scratch) = (Fake::default(), Scratch::new(name));
        let bridges = open(&scratch, &world).unwrap();
        Self { world, bridges, scratch }
    }

    /// A bridge br0 with ports a (1) and b (2), on devices 11 and 12; the log is empty.
    fn with_two_ports(name: &str) -> Self {
        let mut bench = Self::new(name);
        bench.world.plug("a", 11);
        bench.world.plug("b", 12);
        bench.run(&[add_br("br0"), add_port("br0", "a"), add_port("br0", "b")]);
        bench.world.log();
        bench.bridges.take_changes();
        bench
    }

    fn run(&mut self, commands: &[Command]) -> Outcome {
        self.bridges.execute(commands).unwrap()
    }

    fn refusal(&mut self, commands: &[Command]) -> String {
        let failure = self.bridges.execute(commands).unwrap_err();
        assert_eq!(failure.exit_code, 1);
        failure.message
    }

    fn changes(&mut self) -> Vec<String> {
        let line = |change: Change| match change {
            Change::BridgeAdded(info) => format!("+{}", info.name),
            Change::BridgeReset(info) => format!("{} standalone: {}", info.name, info.standalone),
            Change::BridgeRemoved(info) => format!("-{}", info.name),
            Change::PortAdded(bridge, port) => format!("+{}/{} {}", bridge.0, port.ofport.0, port.name),
            Change::PortRemoved(bridge, port) => format!("-{}/{} {}", bridge.0, port.ofport.0, port.name),
            Change::PortChanged(bridge, port) => format!("~{}/{} {}", bridge.0, port.ofport.0, port.name),
            Change::ZonesChanged(zones) => format!("{:?} {:?}", zones.0.limits, zones.1.limits),
        };
        self.bridges.take_changes().into_iter().map(line).collect()
    }

    /// What `show` prints, from the first bridge on.
    fn show(&mut self) -> String {
        let text = self.run(&[Command::Show]).outputs.remove(0);
        text.split_once('\n').unwrap().1.to_owned()
    }

    /// The end of what `show` prints about a port.
    fn shown(&mut self, port: &str) -> String {
        let text = self.show();
        let (_, text) = text.split_once(&format!("Interface {port}\n")).unwrap();
        text.lines().next().unwrap().trim().to_owned()
    }
}

fn open(scratch: &Scratch, world: &Fake) -> Result<Bridges<Fake, Fake>, StateError> {
    Bridges::open(scratch.path().join("state.json"), world.clone(), world.clone())
}

fn add_br(bridge: &str) -> Command {
    Command::AddBr { bridge: bridge.into(), may_exist: false }
}

fn del_br(bridge: &str) -> Command {
    Command::DelBr { bridge: bridge.into(), if_exists: false }
}

fn add_port(bridge: &str, port: &str) -> Command {
    Command::AddPort { bridge: bridge.into(), port: port.into(), may_exist: false }
}

fn del_port(bridge: Option<&str>, port: &str) -> Command {
    Command::DelPort { bridge: bridge.map(str::to_owned), port: port.into(), if_exists: false }
}

fn request(interface: &str, ofport: u16) -> Command {
    Command::SetInterface { interface: interface.into(), ofport_request: Some(ofport), if_exists: false }
}

fn set_bridge(settings: &[BridgeSetting]) -> Command {
    Command::SetBridge { bridge: "br0".into(), settings: settings.to_vec(), if_exists: false }
}

fn ofport(interface: &str) -> Command {
    let columns = vec![InterfaceColumn::Ofport, InterfaceColumn::OfportRequest];
    Command::GetInterface { interface: interface.into(), columns, if_exists: false }
}

#[test]
fn ports_are_prepared_attached_and_told() {
    let mut bench = Bench::new("attached");
    bench.world.plug("a", 11);
    let outcome = bench.run(&[add_br("br0"), add_port("br0", "a"), request("a", 7)]);
    assert_eq!(outcome, Outcome { outputs: vec![String::new(); 3], warnings: Vec::new() });
    assert_eq!(bench.world.log(), ["prepare a", "attach 0/7 to 11 by Xdp"]);
    assert_eq!(bench.changes(), ["+br0", "+0/7 a"]);

    let bridge = bench.bridges.bridge_by_name("br0").unwrap().clone();
    assert_eq!(bridge.datapath_id.to_be_bytes()[2..], bridge.mac);
    let ports = bench.bridges.ports(bridge.id);
    assert_eq!(ports.len(), 2);
    assert_eq!((ports[0].ofport, ports[0].ifindex, ports[0].media.speed), (PortNo(7), Some(11), 10_000));
    assert_eq!((ports[1].ofport, &ports[1].name[..], ports[1].mac), (PortNo::LOCAL, "br0", bridge.mac));
    assert_eq!(bench.bridges.port_by_name(bridge.id, "a"), Some(PortNo(7)));
    assert_eq!(bench.bridges.port_by_name(bridge.id, "br0"), Some(PortNo::LOCAL));
    assert_eq!(bench.bridges.port_by_name(bridge.id, "b"), None);
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let mut bench = Bench::with_two_ports("all-or-nothing");
    let before = bench.show();
    let file = fs::read(bench.scratch.path().join("state.json")).unwrap();
    let message = bench.refusal(&[del_port(None, "a"), add_br("br1"), request("b", 9), add_port("br2", "c")]);
    assert_eq!(message, "no bridge named br2");
    assert_eq!(bench.show(), before);
    assert_eq!(fs::read(bench.scratch.path().join("state.json")).unwrap(), file);
    assert_eq!(bench.world.log(), Vec::<String>::new());
    assert_eq!(bench.changes(), Vec::<String>::new());
}

#[test]
fn a_transaction_that_cannot_be_kept_changes_nothing() {
    let mut bench = Bench::with_two_ports("unkept");
    fs::remove_dir_all(bench.scratch.path()).unwrap();
    let message = bench.refusal(&[del_port(None, "a")]);
    assert!(
        message.ends_with("cannot write the state file (No such file or directory (os error 2))"),
        "{message}"
    );
    assert_eq!(bench.world.log(), Vec::<String>::new());
    assert!(bench.show().contains("Port a\n"));
}

#[test]
fn refusals_are_in_the_words_of_ovs_vsctl() {
    let mut bench = Bench::with_two_ports("refusals");
    bench.run(&[add_br("br1")]);
    let may_exist = Command::AddPort { bridge: "br1".into(), port: "a".into(), may_exist: true };
    let many: Vec<Command> = (2..65).map(|number| add_br(&format!("br{number}"))).collect();
    for (commands, message) in [
        (vec![add_br("br0")], "cannot create a bridge named br0 because a bridge named br0 already exists"),
        (
            vec![add_br("a")],
            "cannot create a bridge named a because a port named a already exists on bridge br0",
        ),
        (vec![add_br("../x")], "cannot create a bridge named ../x because that is not a valid name"),
        (
            vec![add_br("a-name-of-16-byte")],
            "cannot create a bridge named a-name-of-16-byte because that is not a valid name",
        ),
        (many, "cannot create a bridge named br64 because there are 64 already"),
        (vec![del_br("br2")], "no bridge named br2"),
        (vec![add_port("br2", "c")], "no bridge named br2"),
        (
            vec![add_port("br1", "a")],
            "cannot create a port named a because a port named a already exists on bridge br0",
        ),
        (
            vec![add_port("br1", "br0")],
            "cannot create a port named br0 because a bridge named br0 already exists",
        ),
        (vec![may_exist], "\"--may-exist add-port br1 a\" but a is actually attached to bridge br0"),
        (vec![del_port(None, "c")], "no port named c"),
        (vec![del_port(Some("br1"), "a")], "bridge br1 does not have a port a"),
        (
            vec![del_port(None, "br0")],
            "cannot delete port br0 because it is the local port for bridge br0 \
             (deleting this port requires deleting the entire bridge)",
        ),
        (vec![request("c", 1)], "no row \"c\" in table Interface"),
        (vec![Command::ListPorts { bridge: "br2".into() }], "no bridge named br2"),
        (vec![Command::PortToBr { port: "br0".into() }], "no port named br0"),
        (vec![Command::IfaceToBr { interface: "c".into() }], "no interface named c"),
    ] {
        assert_eq!(bench.refusal(&commands), message);
    }
    let exists = |bridge: &str| Command::BrExists { bridge: bridge.into() };
    assert_eq!(bench.bridges.execute(&[exists("br2")]), Err(Failure::NOT_FOUND));
    assert_eq!(bench.run(&[exists("br1")]).outputs, [""]);
}

#[test]
fn repetitions_are_allowed_where_they_are_asked_for() {
    let mut bench = Bench::with_two_ports("repetitions");
    bench.run(&[
        Command::AddBr { bridge: "br0".into(), may_exist: true },
        Command::AddPort { bridge: "br0".into(), port: "a".into(), may_exist: true },
        Command::DelPort { bridge: None, port: "c".into(), if_exists: true },
        Command::DelBr { bridge: "br9".into(), if_exists: true },
        Command::SetInterface { interface: "c".into(), ofport_request: Some(3), if_exists: true },
    ]);
    assert_eq!(bench.world.log(), Vec::<String>::new());
    assert_eq!(bench.changes(), Vec::<String>::new());
}

#[test]
fn questions_are_answered_in_place() {
    let mut bench = Bench::with_two_ports("questions");
    let outcome = bench.run(&[
        Command::ListBr,
        add_br("ar0"),
        Command::ListBr,
        add_port("br0", "B"),
        Command::ListPorts { bridge: "br0".into() },
        Command::PortToBr { port: "a".into() },
        ofport("a"),
        ofport("B"),
        ofport("br0"),
        Command::GetBridge {
            bridge: "br0".into(),
            columns: vec![BridgeColumn::DatapathType, BridgeColumn::FailMode],
            if_exists: false,
        },
    ]);
    assert_eq!(
        outcome.outputs,
        [
            "br0\n",
            "",
            "ar0\nbr0\n",
            "",
            "B\na\nb\n",
            "br0\n",
            "1\n[]\n",
            "-1\n[]\n",
            "65534\n[]\n",
            "xdp\n[]\n"
        ]
    );
}

#[test]
fn a_bridge_begins_anew_when_its_fail_mode_changes() {
    let mut bench = Bench::with_two_ports("fail-mode");
    let mode = |fail_mode| Command::SetFailMode { bridge: "br0".into(), fail_mode };
    let get = Command::GetFailMode { bridge: "br0".into() };
    let secure = Some(FailMode::Secure);
    for (setting, changes, said) in [
        (mode(Some(FailMode::Standalone)), &[][..], "standalone\n"),
        (set_bridge(&[BridgeSetting::FailMode(secure)]), &["br0 standalone: false"], "secure\n"),
        (mode(secure), &[], "secure\n"),
        (mode(None), &["br0 standalone: true"], ""),
    ] {
        bench.run(&[setting]);
        assert_eq!(bench.changes(), changes);
        assert_eq!(bench.run(std::slice::from_ref(&get)).outputs, [said]);
    }
    assert_eq!(bench.world.log(), Vec::<String>::new(), "ports are none of its business");
    let error = bench.bridges.execute(&[Command::GetFailMode { bridge: "br9".into() }]).unwrap_err();
    assert_eq!(error.message, "no bridge named br9");
}

#[test]
fn a_missing_device_is_an_error_until_it_appears() {
    let mut bench = Bench::new("missing");
    let outcome = bench.run(&[add_br("br0"), add_port("br0", "x")]);
    assert_eq!(
        outcome.warnings,
        ["Error detected while setting up 'x': could not open network device x (No such device).  \
          See switchd log for details."]
    );
    assert_eq!(bench.shown("x"), "error: \"could not open network device x (No such device)\"");
    assert_eq!(bench.changes(), ["+br0"]);

    let link = bench.world.plug("x", 21);
    bench.bridges.link_event(&LinkEvent::Appeared(link));
    assert_eq!(bench.world.log(), ["prepare x", "attach 0/1 to 21 by Xdp"]);
    assert_eq!(bench.changes(), ["+0/1 x"]);
    assert_eq!(bench.shown("x"), "Port br0");
}

#[test]
fn a_device_that_comes_back_has_the_same_number() {
    let mut bench = Bench::with_two_ports("back");
    let gone = bench.world.unplug("a");
    bench.bridges.link_event(&gone);
    assert_eq!(bench.world.log(), ["detach 0/1", "undo"]);
    assert_eq!(bench.changes(), ["-0/1 a"]);
    assert_eq!(bench.bridges.ports(BridgeId(0)).len(), 2);

    let back = bench.world.plug("a", 31);
    bench.bridges.link_event(&LinkEvent::Appeared(back));
    assert_eq!(bench.world.log(), ["prepare a", "attach 0/1 to 31 by Xdp"]);
    assert_eq!(bench.changes(), ["+0/1 a"]);
}

#[test]
fn late_events_do_no_harm() {
    let mut bench = Bench::with_two_ports("late");
    // The device was replaced before the first event is handled.
    let gone = bench.world.unplug("a");
    let back = bench.world.plug("a", 31);
    bench.bridges.link_event(&gone);
    assert_eq!(bench.world.log(), ["detach 0/1", "undo", "prepare a", "attach 0/1 to 31 by Xdp"]);
    bench.bridges.link_event(&LinkEvent::Appeared(back));
    bench.bridges.link_event(&gone);
    assert_eq!(bench.world.log(), Vec::<String>::new());

    // It moved away and came back under its index: its programs may be lost.
    let gone = bench.world.unplug("a");
    bench.world.plug("a", 31);
    bench.bridges.link_event(&gone);
    assert_eq!(bench.world.log(), ["detach 0/1", "undo", "prepare a", "attach 0/1 to 31 by Xdp"]);

    // The event that tells of the replacement was lost.
    let other = bench.world.plug("b", 32);
    bench.changes();
    bench.bridges.link_event(&LinkEvent::Changed(other));
    assert_eq!(bench.world.log(), ["detach 0/2", "undo", "prepare b", "attach 0/2 to 32 by Xdp"]);
    assert_eq!(bench.changes(), ["-0/2 b", "+0/2 b"]);
}

#[test]
fn changes_of_a_device_are_told_once() {
    let mut bench = Bench::with_two_ports("changed");
    let mut link = bench.world.plug("a", 11);
    link.carrier = false;
    bench.world.0.borrow_mut().links.insert("a".into(), link.clone());
    bench.bridges.link_event(&LinkEvent::Changed(link.clone()));
    assert_eq!(bench.changes(), ["~0/1 a"]);
    assert!(bench.bridges.ports(BridgeId(0))[0].link_down);
    // Our own XDP program is nothing to tell.
    link.xdp = true;
    bench.world.0.borrow_mut().links.insert("a".into(), link.clone());
    bench.bridges.link_event(&LinkEvent::Changed(link));
    assert_eq!(bench.changes(), Vec::<String>::new());
    assert_eq!(bench.world.log(), Vec::<String>::new());
}

#[test]
fn what_xdp_cannot_serve_tcx_does_and_show_says_why() {
    let mut bench = Bench::new("fallback");
    bench.world.plug("a", 11);
    bench.world.plug("b", 12);
    bench.world.0.borrow_mut().unpreparable.insert("a".into());
    bench.world.refuse(12, Hook::Xdp, HookError::NoNativeXdp("Operation not supported".into()));
    bench.run(&[add_br("br0"), add_port("br0", "a"), add_port("br0", "b")]);
    assert_eq!(
        bench.world.log(),
        [
            "prepare a",
            "attach 0/1 to 11 by Tcx",
            "prepare b",
            "attach 0/2 to 12 by Xdp",
            "undo",
            "attach 0/2 to 12 by Tcx"
        ]
    );
    assert_eq!(bench.shown("a"), "hook: \"tcx: peer's namespace cannot be found\"");
    assert_eq!(bench.shown("b"), "hook: \"tcx: its driver has no native XDP: Operation not supported\"");
    assert_eq!(bench.bridges.ports(BridgeId(0))[0].hook, Some(Hook::Tcx));
}

#[test]
fn a_device_in_other_hands_is_tried_again_when_it_changes() {
    let mut bench = Bench::new("busy");
    let mut link = bench.world.plug("a", 11);
    bench.world.refuse(11, Hook::Xdp, HookError::Busy);
    let outcome = bench.run(&[add_br("br0"), add_port("br0", "a")]);
    assert_eq!(outcome.warnings.len(), 1);
    assert_eq!(
        bench.shown("a"),
        "error: \"could not add network device a to ofproto (another XDP program is attached to it)\""
    );
    assert_eq!(bench.world.log(), ["prepare a", "attach 0/1 to 11 by Xdp", "undo"]);

    // Nothing new about it, so nothing is tried.
    bench.bridges.link_event(&LinkEvent::Changed(link.clone()));
    bench.bridges.retry();
    assert_eq!(bench.world.log(), Vec::<String>::new());

    link.xdp = true;
    bench.world.0.borrow_mut().links.insert("a".into(), link.clone());
    bench.bridges.link_event(&LinkEvent::Changed(link.clone()));
    assert_eq!(bench.world.log(), ["prepare a", "attach 0/1 to 11 by Xdp", "undo"]);

    // The program goes without an event.
    link.xdp = false;
    bench.world.0.borrow_mut().links.insert("a".into(), link);
    bench.world.0.borrow_mut().refusals.clear();
    bench.bridges.retry();
    assert_eq!(bench.world.log(), ["prepare a", "attach 0/1 to 11 by Xdp"]);
    assert!(matches!(bench.bridges.take_changes().last(), Some(Change::PortAdded(BridgeId(0), _))));
    bench.bridges.retry();
    assert_eq!(bench.world.log(), ["prepare a"], "from now on it is looked after");
}

#[test]
fn a_device_that_carries_no_ethernet_is_no_port() {
    let mut bench = Bench::new("loopback");
    let link = Link { ethernet: false, ..bench.world.plug("lo", 1) };
    bench.world.0.borrow_mut().links.insert("lo".into(), link);
    let outcome = bench.run(&[add_br("br0"), add_port("br0", "lo")]);
    assert_eq!(outcome.warnings.len(), 1);
    let wanted = "error: \"could not add network device lo to ofproto (not an Ethernet device)\"";
    assert_eq!(bench.shown("lo"), wanted);
    bench.bridges.retry();
    assert_eq!(bench.world.log(), Vec::<String>::new(), "nothing is tried");
}

#[test]
fn ports_are_looked_after_in_turn() {
    let mut bench = Bench::new("turns");
    let names: Vec<String> = (0..AT_ONCE + 3).map(|number| format!("p{number:02}")).collect();
    bench.run(&[add_br("br0")]);
    for (name, ifindex) in names.iter().zip(11..) {
        bench.world.plug(name, ifindex);
        bench.run(&[add_port("br0", name)]);
    }
    bench.world.log();
    let prepared =
        |names: &[String]| -> Vec<String> { names.iter().map(|name| format!("prepare {name}")).collect() };
    let (first, rest) = names.split_at(AT_ONCE);
    let second = [rest, &first[..AT_ONCE - 3]].concat();
    let third = [&first[AT_ONCE - 3..], rest, &first[..AT_ONCE - 6]].concat();
    for turn in [first.to_vec(), second, third] {
        bench.bridges.retry();
        assert_eq!(bench.world.log(), prepared(&turn));
    }
}

#[test]
fn a_bridge_in_tc_mode_leaves_peers_alone() {
    let mut bench = Bench::with_two_ports("tc");
    bench.run(&[set_bridge(&[BridgeSetting::DatapathType(DatapathType::Tc)])]);
    assert_eq!(
        bench.world.log(),
        ["detach 0/1", "undo", "detach 0/2", "undo", "attach 0/1 to 11 by Tcx", "attach 0/2 to 12 by Tcx"]
    );
    bench.bridges.retry();
    assert_eq!(bench.world.log(), Vec::<String>::new());
    assert_eq!(
        bench.show(),
        "    Bridge br0\n        datapath_type: tc\n        Port a\n            Interface a\n        \
         Port b\n            Interface b\n        Port br0\n            Interface br0\n                \
         type: internal\n"
    );
}

#[test]
fn a_type_that_is_served_alike_leaves_ports_as_they_are() {
    let mut bench = Bench::with_two_ports("alike");
    for kind in [DatapathType::Netdev, DatapathType::System, DatapathType::Xdp] {
        bench.run(&[set_bridge(&[BridgeSetting::DatapathType(kind)])]);
        assert_eq!(bench.world.log(), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn a_port_with_a_new_number_is_attached_anew() {
    let mut bench = Bench::with_two_ports("renumbered");
    bench.run(&[request("a", 5)]);
    assert_eq!(bench.world.log(), ["detach 0/1", "undo", "prepare a", "attach 0/5 to 11 by Xdp"]);
    assert_eq!(bench.changes(), ["-0/1 a", "+0/5 a"]);
}

#[test]
fn a_port_can_move_between_bridges_in_one_transaction() {
    let mut bench = Bench::with_two_ports("moved");
    bench.run(&[add_br("br1"), del_port(Some("br0"), "a"), add_port("br1", "a")]);
    assert_eq!(bench.world.log(), ["detach 0/1", "undo", "prepare a", "attach 1/1 to 11 by Xdp"]);
    assert_eq!(bench.changes(), ["-0/1 a", "+br1", "+1/1 a"]);
}

#[test]
fn a_bridge_made_anew_is_another_bridge() {
    let mut bench = Bench::with_two_ports("anew");
    bench.run(&[del_br("br0"), add_br("br0"), add_port("br0", "b")]);
    assert_eq!(bench.changes(), ["-0/1 a", "-0/2 b", "-br0", "+br0", "+0/1 b"]);
}

#[test]
fn bridges_and_numbers_survive_a_restart() {
    let mut bench = Bench::with_two_ports("restart");
    bench.run(&[del_port(None, "a"), add_port("br0", "a"), add_port("br0", "x")]);
    let before = bench.run(&[Command::Show]).outputs;
    let info = bench.bridges.bridge_by_name("br0").unwrap().clone();
    bench.changes();

    bench.world.log();
    bench.bridges.shutdown();
    assert_eq!(bench.world.log(), ["detach 0/2", "undo", "detach 0/3", "undo"]);
    assert_eq!(bench.changes(), ["-0/2 b", "-0/3 a", "-br0"]);

    bench.bridges = open(&bench.scratch, &bench.world).unwrap();
    assert_eq!(bench.changes(), ["+br0", "+0/2 b", "+0/3 a"]);
    assert_eq!(bench.run(&[Command::Show]).outputs, before);
    assert_eq!(bench.bridges.bridge_by_name("br0"), Some(&info));
}

#[test]
fn zones_are_told_when_they_change_and_at_the_start() {
    let mut bench = Bench::new("zones");
    let limit = |limit| Command::SetZoneLimit { datapath: "netdev".into(), zone: Some(5), limit };
    for (wanted, told) in [(3, &["{} {5: 3}"][..]), (3, &[]), (4, &["{5: 3} {5: 4}"])] {
        bench.run(&[limit(wanted)]);
        assert_eq!(bench.changes(), told);
    }
    bench.bridges = open(&bench.scratch, &bench.world).unwrap();
    assert_eq!(bench.changes(), ["{} {5: 4}"]);
}

#[test]
fn a_damaged_state_file_stops_the_start_and_is_left_alone() {
    let bench = Bench::with_two_ports("damaged-start");
    let path = bench.scratch.path().join("state.json");
    fs::write(&path, "{\"version\": 1,").unwrap();
    let error = open(&bench.scratch, &bench.world).err().unwrap().to_string();
    assert!(error.contains("the state file is damaged"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"{\"version\": 1,");
}
