//! The `netdev` module against the running kernel. Needs root; each test works in network namespaces of its
//! own, which vanish with it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use switchd::netdev::{Devices, Link, LinkEvent, LinkModes, LinkWatch, Netdevs, Prepared};

/// Moves the test's thread into a new network namespace, which lives as long as the thread.
fn private_namespace() -> Netdevs {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
    Netdevs::open().unwrap()
}

/// Runs a command in the thread's namespace.
fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A namespace with a name.
struct Named(String);

impl Named {
    fn new(test: &str) -> Self {
        let name = format!("switchd-{}-{test}", std::process::id());
        run(&format!("ip netns add {name}"));
        Self(name)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).stderr(Stdio::null()).status();
    }
}

/// A namespace that only a process holds.
struct OfProcess(Child);

impl OfProcess {
    fn new() -> Self {
        let process = Self(Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap());
        let ours = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", process.0.id());
        wait_until(|| fs::read_link(&theirs).unwrap() != ours);
        process
    }
}

impl Drop for OfProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        thread::sleep(Duration::from_millis(2));
    }
}

fn veth() {
    run("ip link add veth_a type veth peer name veth_b");
}

fn link(netdevs: &mut Netdevs, name: &str) -> Link {
    netdevs.link(name).unwrap().unwrap_or_else(|| panic!("no {name}"))
}

/// gro, tx and txvlan of a device, as ethtool tells them; `within` is the command that leads there.
fn offloads(within: &str, device: &str) -> [bool; 3] {
    let text = run(&format!("{within} ethtool -k {device}"));
    ["generic-receive-offload", "tx-checksumming", "tx-vlan-offload"].map(|name| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap();
        line.starts_with("on")
    })
}

const UNFIT: [bool; 3] = [false, true, true];
const FIT: [bool; 3] = [true, false, false];

#[test]
fn devices_are_looked_up() {
    let mut netdevs = private_namespace();
    veth();
    run("ip link set veth_a address 02:00:00:00:00:0a mtu 1400 up");

    let a = link(&mut netdevs, "veth_a");
    let b = link(&mut netdevs, "veth_b");
    assert_eq!((a.mac, a.mtu, a.kind.as_deref()), ([2, 0, 0, 0, 0, 10], 1400, Some("veth")));
    assert_eq!((a.admin_up, a.carrier, a.xdp), (true, false, false));
    let lower = a.lower.unwrap();
    assert_eq!((lower.ifindex, lower.nsid), (b.ifindex, None));
    run("ip link set veth_b up");
    assert!(link(&mut netdevs, "veth_a").carrier);
    assert!(a.ethernet && !link(&mut netdevs, "lo").ethernet);

    let media = netdevs.media("veth_a");
    assert_eq!((media.speed, media.current), (10_000, LinkModes(0xc0)));
    assert_eq!(netdevs.media("lo").speed, 0);

    assert_eq!(netdevs.link("veth_c").unwrap(), None);
    assert_eq!(netdevs.link("").unwrap(), None);
    assert_eq!(netdevs.link("a-name-that-no-device-can-have").unwrap(), None);

    let names: BTreeSet<String> = netdevs.links().unwrap().into_iter().map(|link| link.name).collect();
    assert!(["lo", "veth_a", "veth_b"].iter().all(|name| names.contains(*name)), "{names:?}");
}

#[test]
fn a_peer_in_the_same_namespace_is_prepared_and_restored() {
    let mut netdevs = private_namespace();
    veth();
    prepare_and_undo(&mut netdevs, "", "veth_b:");
}

#[test]
fn a_peer_in_a_named_namespace_is_prepared_and_restored() {
    let mut netdevs = private_namespace();
    let named = Named::new("named");
    veth();
    run(&format!("ip link set veth_b netns {}", named.0));
    prepare_and_undo(&mut netdevs, &format!("ip netns exec {}", named.0), &format!("veth_b in {}:", named.0));
}

#[test]
fn a_peer_in_a_process_s_namespace_is_prepared_and_restored() {
    let mut netdevs = private_namespace();
    let process = OfProcess::new();
    let pid = process.0.id();
    veth();
    run(&format!("ip link set veth_b netns {pid}"));
    prepare_and_undo(
        &mut netdevs,
        &format!("nsenter -t {pid} -n"),
        &format!("veth_b in /proc/{pid}/ns/net:"),
    );
}

fn prepare_and_undo(netdevs: &mut Netdevs, within: &str, description: &str) {
    let a = link(netdevs, "veth_a");
    assert_eq!(offloads(within, "veth_b"), UNFIT);

    let mut noted = Vec::new();
    let prepared = netdevs
        .prepare(&a, &mut |planned| noted.push((planned.clone(), offloads(within, "veth_b"))))
        .unwrap();
    assert_eq!(noted, [(prepared.clone(), UNFIT)], "before it is done");
    assert_eq!(offloads(within, "veth_b"), FIT);
    assert!(!prepared.is_unchanged());
    let text = prepared.to_string();
    assert!(text.starts_with(description), "{text}");
    assert!(text.contains(" rx-gro on") && text.contains(" tx-checksum-ip-generic off"), "{text}");

    assert_eq!(netdevs.prepare(&a, &mut |_| ()).unwrap(), Prepared::default(), "nothing is left to change");

    netdevs.undo(&prepared).unwrap();
    assert_eq!(offloads(within, "veth_b"), UNFIT);
}

#[test]
fn what_was_right_already_is_not_undone() {
    let mut netdevs = private_namespace();
    veth();
    run("ethtool -K veth_b gro on");
    let a = link(&mut netdevs, "veth_a");
    let prepared = netdevs.prepare(&a, &mut |_| ()).unwrap();
    assert!(!prepared.to_string().contains("gro"), "{prepared}");
    netdevs.undo(&prepared).unwrap();
    assert_eq!(offloads("", "veth_b"), [true, true, true]);
}

#[test]
fn what_was_prepared_twice_is_restored_to_what_it_was_at_first() {
    let mut netdevs = private_namespace();
    veth();
    let a = link(&mut netdevs, "veth_a");
    let mut prepared = netdevs.prepare(&a, &mut |_| ()).unwrap();
    run("ethtool -K veth_b gro off tx on");
    prepared.extend(netdevs.prepare(&a, &mut |_| ()).unwrap());
    assert_eq!(offloads("", "veth_b"), FIT);
    netdevs.undo(&prepared).unwrap();
    assert_eq!(offloads("", "veth_b"), UNFIT);

    // What was right at first is left as somebody wanted it since.
    run("ethtool -K veth_b gro on");
    let mut prepared = netdevs.prepare(&a, &mut |_| ()).unwrap();
    assert!(!prepared.to_string().contains("rx-gro"), "{prepared}");
    run("ethtool -K veth_b gro off");
    prepared.extend(netdevs.prepare(&a, &mut |_| ()).unwrap());
    netdevs.undo(&prepared).unwrap();
    assert_eq!(offloads("", "veth_b"), UNFIT);
}

#[test]
fn a_peer_is_restored_where_it_is_by_then() {
    let mut netdevs = private_namespace();
    let named = Named::new("moving");
    let within = format!("ip netns exec {}", named.0);
    veth();
    let a = link(&mut netdevs, "veth_a");
    let prepared = netdevs.prepare(&a, &mut |_| ()).unwrap();
    run(&format!("ip link set veth_b netns {}", named.0));
    assert_eq!(offloads(&within, "veth_b"), FIT, "features move with the device");
    netdevs.undo(&prepared).unwrap();
    assert_eq!(offloads(&within, "veth_b"), UNFIT);
}

#[test]
fn a_peer_is_restored_after_the_device_moved_away() {
    let mut netdevs = private_namespace();
    let (left, right) = (Named::new("left"), Named::new("right"));
    veth();
    run(&format!("ip link set veth_b netns {}", left.0));
    let a = link(&mut netdevs, "veth_a");
    let prepared = netdevs.prepare(&a, &mut |_| ()).unwrap();
    run(&format!("ip link set veth_a netns {}", right.0));
    netdevs.undo(&prepared).unwrap();
    assert_eq!(offloads(&format!("ip netns exec {}", left.0), "veth_b"), UNFIT);
}

#[test]
fn a_prepared_namespace_can_be_deleted_and_undoing_needs_nothing() {
    let mut netdevs = private_namespace();
    let named = Named::new("deleted");
    veth();
    run(&format!("ip link set veth_b netns {}", named.0));
    let a = link(&mut netdevs, "veth_a");
    let prepared = netdevs.prepare(&a, &mut |_| ()).unwrap();
    drop(named);
    // The pair goes with the namespace, so nothing of ours keeps that alive.
    wait_until(|| netdevs.link("veth_a").unwrap().is_none());
    netdevs.undo(&prepared).unwrap();
}

#[test]
fn a_namespace_that_nothing_leads_to_is_an_error() {
    let mut netdevs = private_namespace();
    veth();
    // Held by a thread alone, which is in no /proc/PID/ns.
    let (hide, hidden) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let holder = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        hide.0.send(nix::unistd::gettid()).unwrap();
        let _: Result<(), _> = hidden.1.recv();
    });
    let tid = hide.1.recv().unwrap();
    run(&format!("ip link set veth_b netns {tid}"));
    let a = link(&mut netdevs, "veth_a");
    let error = netdevs.prepare(&a, &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "peer's namespace cannot be found");
    drop(hidden.0);
    holder.join().unwrap();
}

#[test]
fn other_devices_need_no_preparation() {
    let mut netdevs = private_namespace();
    let lo = link(&mut netdevs, "lo");
    assert!(netdevs.prepare(&lo, &mut |_| ()).unwrap().is_unchanged());
}

/// Runs a test of the watch on a runtime that stays in the thread, and so in its namespace.
fn watch(test: impl AsyncFnOnce(LinkWatch)) {
    let _netdevs = private_namespace();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { test(LinkWatch::new().unwrap()).await });
}

async fn next(watch: &mut LinkWatch) -> LinkEvent {
    tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("no event came").unwrap()
}

/// The next event, of this device and after its mere changes.
async fn next_of(watch: &mut LinkWatch, device: &str) -> LinkEvent {
    loop {
        let event = next(watch).await;
        if event.name() == device && !matches!(event, LinkEvent::Changed(_)) {
            return event;
        }
    }
}

#[test]
fn coming_changing_and_going_are_seen() {
    watch(async |mut watch| {
        veth();
        let LinkEvent::Appeared(a) = next_of(&mut watch, "veth_a").await else { panic!("it appeared") };
        assert!(!a.admin_up);

        run("ip link set veth_a up");
        loop {
            match next(&mut watch).await {
                LinkEvent::Changed(link) if link.name == "veth_a" && link.admin_up => break,
                _ => {}
            }
        }

        run("ip link set veth_a down");
        run("ip link set veth_a name veth_c");
        let gone = LinkEvent::Gone { ifindex: a.ifindex, name: "veth_a".into() };
        assert_eq!(next_of(&mut watch, "veth_a").await, gone);
        let LinkEvent::Appeared(c) = next_of(&mut watch, "veth_c").await else { panic!("it appeared") };
        assert_eq!(c.ifindex, a.ifindex);

        run("ip link del veth_c");
        let gone = LinkEvent::Gone { ifindex: a.ifindex, name: "veth_c".into() };
        assert_eq!(next_of(&mut watch, "veth_c").await, gone);
    });
}

#[test]
fn moving_away_and_coming_back_are_seen() {
    watch(async |mut watch| {
        let named = Named::new("away");
        veth();
        let LinkEvent::Appeared(a) = next_of(&mut watch, "veth_a").await else { panic!("it appeared") };
        let home = format!("{}-home", named.0);
        // ip(8) can only name the way back by a process or a name; this thread is neither.
        run(&format!("ip netns attach {home} {}", nix::unistd::gettid()));
        let home = Named(home);

        run(&format!("ip link set veth_a netns {}", named.0));
        assert!(
            matches!(next_of(&mut watch, "veth_a").await, LinkEvent::Gone { ifindex, .. } if ifindex == a.ifindex)
        );

        run(&format!("ip -n {} link set veth_a netns {}", named.0, home.0));
        assert!(matches!(next_of(&mut watch, "veth_a").await, LinkEvent::Appeared(_)));
    });
}

#[test]
fn nothing_is_lost_when_the_queue_overflows() {
    const DEVICES: usize = 400;
    watch(async |mut watch| {
        veth();
        let batch = std::env::temp_dir().join(format!("switchd-netdev-{}.batch", std::process::id()));
        let mut commands: String =
            (0..DEVICES).map(|n| format!("link add d{n} type veth peer name e{n}\n")).collect();
        commands += "link del veth_a\n";
        fs::write(&batch, commands).unwrap();
        run(&format!("ip -batch {}", batch.display()));
        fs::remove_file(&batch).unwrap();

        let sockets = fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
        let drops =
            sockets.lines().skip(1).filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
        assert!(drops.sum::<u64>() > 0, "the queue did overflow");

        let mut appeared = BTreeSet::new();
        while appeared.len() < 2 * DEVICES {
            match next(&mut watch).await {
                LinkEvent::Appeared(link) if !link.name.starts_with("veth") => {
                    assert!(appeared.insert(link.name));
                }
                _ => {}
            }
        }
        run("ip link del d0");
        assert!(matches!(next_of(&mut watch, "d0").await, LinkEvent::Gone { .. }));
    });
}
