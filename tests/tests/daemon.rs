//! The daemon's life: one per run directory, what survives a restart, what is undone at the end.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    foreign::XdpProgram,
    lab::{Lab, RUNDIR},
    tutorial::{self, PLAIN_FLOWS, Player, STEPS},
};

#[test]
fn one_per_run_directory() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.switchd(&[])?;
    let second = lab.ovs("switchd", &[])?;
    assert_eq!(second.code, 1, "{second}");
    assert!(second.stderr.contains(RUNDIR) || second.stderr.contains(&switch.pid().to_string()), "{second}");
    lab.ovs("appctl", &["version"])?.ok()?;
    Ok(())
}

#[test]
fn detached_it_serves_when_the_command_returns() -> Result<()> {
    let lab = Lab::new()?;
    lab.ovs("switchd", &["--detach"])?.ok()?;
    let pid = fs::read_to_string(Path::new(RUNDIR).join("ovs-vswitchd.pid"))?;
    let pid = Pid::from_raw(pid.trim().parse().context("pid file")?);
    let version = lab.debian("ovs-appctl", &["version"])?;
    // Before the assertion: a detached daemon is nobody's child, and would outlive the test.
    lab.ovs("appctl", &["exit"])?;
    for _ in 0..100 {
        if kill(pid, None).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let late = kill(pid, Signal::SIGKILL).is_ok();
    version.ok()?;
    assert!(!late, "still there after exit");
    Ok(())
}

#[test]
fn bridges_and_ports_survive_a_restart() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    let ports = lab.ovs("vsctl", &["list-ports", "br0"])?.ok()?;
    assert_eq!(ports, "veth_l0\nveth_r0\n");
    assert!(switch.stop()?.success());

    let _switch = lab.switchd(&[])?;
    assert_eq!(lab.ovs("vsctl", &["list-br"])?.ok()?, "br0\n");
    assert_eq!(lab.ovs("vsctl", &["list-ports", "br0"])?.ok()?, ports);
    tutorial::replace_flows(&lab, PLAIN_FLOWS)?;
    let seen = Player::new(&lab)?.play(&STEPS[0])?;
    assert_eq!(seen.arrivals, STEPS[0].expected().arrivals);
    Ok(())
}

#[test]
fn sigterm_undoes_what_was_done_to_ports() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.switchd(&[])?;
    for line in tutorial::SETUP.iter().filter(|line| !line.starts_with("ovs-vsctl")) {
        tutorial::run(&lab, line)?.ok()?;
    }
    let state = || -> Result<_> {
        let features = lab.exec("ip", &["netns", "exec", "left", "ethtool", "-k", "veth_l1"])?.ok()?;
        let link = lab.exec("ip", &["-d", "link", "show", "veth_l0"])?.ok()?;
        let disciplines = lab.exec("tc", &["qdisc", "show", "dev", "veth_l0"])?.ok()?;
        // Where there is no tcx, it stays, since others may use it by now.
        let disciplines = disciplines.lines().filter(|line| !line.contains("clsact")).map(str::to_owned);
        Ok((features, link.contains("xdp"), disciplines.collect::<Vec<_>>()))
    };
    let before = state()?;
    for line in tutorial::SETUP.iter().filter(|line| line.starts_with("ovs-vsctl")) {
        tutorial::run(&lab, line)?.ok()?;
    }
    assert_ne!(state()?, before, "a port in XDP mode is prepared");
    assert!(switch.stop()?.success());
    assert_eq!(state()?, before);
    Ok(())
}

#[test]
fn levels_change_at_run_time() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.switchd(&[])?;
    let wrong = lab.debian("ovs-appctl", &["vlog/set", "nosuchlevel!"])?;
    assert_eq!(wrong.code, 2, "{wrong}");
    lab.debian("ovs-appctl", &["vlog/set", "dbg"])?.ok()?;
    lab.ovs("vsctl", &["add-br", "br0"])?.ok()?;
    assert!(switch.log()?.contains("DEBUG"), "{}", switch.log()?);
    Ok(())
}

#[test]
fn a_log_that_was_moved_away_goes_on_in_a_new_file() -> Result<()> {
    let lab = Lab::new()?;
    let unlogged = lab.switchd(&[])?;
    let refused = lab.debian("ovs-appctl", &["vlog/reopen"])?;
    assert_eq!(refused.code, 2, "{refused}");
    assert!(refused.stderr.contains("Logging to file not configured"), "{refused}");
    unlogged.stop()?;

    let [log, moved] = ["switchd.log", "switchd.log.1"].map(|name| Path::new(RUNDIR).join(name));
    let _switch = lab.switchd(&["--log-file", &log.display().to_string()])?;
    fs::rename(&log, &moved)?;
    lab.ovs("vsctl", &["add-br", "br0", "--", "add-port", "br0", "nodevice"])?.ok()?;
    let before = fs::read_to_string(&moved)?;
    assert!(!log.exists() && !before.is_empty());
    lab.debian("ovs-appctl", &["vlog/reopen"])?.ok()?;
    lab.debian("ovs-appctl", &["vlog/set", "dbg"])?.ok()?;
    lab.ovs("vsctl", &["del-br", "br0"])?.ok()?;
    assert!(fs::read_to_string(&log)?.contains("DEBUG"));
    assert_eq!(fs::read_to_string(&moved)?, before);
    Ok(())
}

/// Whether the tutorial's first segment comes out at the other side, tried for a while.
fn serves(lab: &Lab) -> Result<bool> {
    let mut player = Player::new(lab)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if player.play(&STEPS[0])?.arrivals == STEPS[0].expected().arrivals {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn killed_it_leaves_nothing_that_keeps_the_next_one_from_working() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    kill(Pid::from_raw(switch.pid().cast_signed()), Signal::SIGKILL)?;
    switch.wait(Duration::from_secs(10))?;
    let link = lab.exec("ip", &["-d", "link", "show", "veth_l0"])?.ok()?;
    assert!(!link.contains("xdp"), "its programs have gone with it: {link}");
    let gone = lab.ovs("ovs-appctl", &["version"])?;
    assert_eq!(gone.code, 1, "{gone}");

    let switch = lab.switchd(&[])?;
    assert_eq!(lab.ovs("vsctl", &["list-ports", "br0"])?.ok()?, "veth_l0\nveth_r0\n");
    tutorial::replace_flows(&lab, PLAIN_FLOWS)?;
    assert!(serves(&lab)?);
    assert!(switch.stop()?.success());
    // Before Linux 6.6 there is no tcx, whose programs go with the process.
    let filters = lab.exec("tc", &["filter", "show", "dev", "veth_l0", "ingress"])?.ok()?;
    assert!(!filters.contains("switch_tcx"), "{filters}");
    Ok(())
}

/// The features of veth_l0's peer, which has to be prepared for XDP.
fn peer_features(lab: &Lab) -> Result<String> {
    lab.exec("ip", &["netns", "exec", "left", "ethtool", "-k", "veth_l1"])?.ok()
}

#[test]
fn what_a_killed_one_did_to_ports_the_next_one_undoes() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.switchd(&[])?;
    for line in tutorial::SETUP.iter().filter(|line| !line.starts_with("ovs-vsctl")) {
        tutorial::run(&lab, line)?.ok()?;
    }
    let before = peer_features(&lab)?;
    for line in tutorial::SETUP.iter().filter(|line| line.starts_with("ovs-vsctl")) {
        tutorial::run(&lab, line)?.ok()?;
    }
    let prepared = peer_features(&lab)?;
    assert_ne!(prepared, before);
    // Twice: the second one, too, finds prepared what it has not prepared.
    let mut switch = switch;
    for _ in 0..2 {
        kill(Pid::from_raw(switch.pid().cast_signed()), Signal::SIGKILL)?;
        switch.wait(Duration::from_secs(10))?;
        assert_ne!(peer_features(&lab)?, before, "it had no time to undo anything");
        switch = lab.switchd(&[])?;
        assert_eq!(peer_features(&lab)?, prepared);
    }
    // As when its terminal is closed.
    kill(Pid::from_raw(switch.pid().cast_signed()), Signal::SIGHUP)?;
    assert!(switch.wait(Duration::from_secs(10))?.success());
    assert_eq!(peer_features(&lab)?, before);
    let left = fs::read_dir(RUNDIR)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    assert_eq!(left, ["switchd.state"]);
    Ok(())
}

#[test]
fn a_foreign_program_is_left_alone() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    for line in tutorial::SETUP.iter().filter(|line| !line.starts_with("ovs-vsctl")) {
        tutorial::run(&lab, line)?.ok()?;
    }
    let foreign = XdpProgram::attach("veth_l0")?;
    lab.ovs("vsctl", &["add-br", "br0", "--", "add-port", "br0", "veth_r0"])?.ok()?;
    let added = lab.ovs(
        "vsctl",
        &["add-port", "br0", "veth_l0", "--", "set", "interface", "veth_l0", "ofport_request=5"],
    )?;
    let reason = "could not add network device veth_l0 to ofproto (another XDP program is attached to it)";
    assert_eq!(added.code, 0, "{added}");
    assert!(added.stderr.contains(reason), "{added}");
    let show = lab.ovs("vsctl", &["show"])?.ok()?;
    assert!(show.contains(&format!("error: \"{reason}\"")), "{show}");

    // Once it is gone, the port is served.
    drop(foreign);
    let deadline = Instant::now() + Duration::from_secs(10);
    while lab.ovs("vsctl", &["show"])?.ok()?.contains("error") {
        assert!(Instant::now() < deadline, "{}", lab.ovs("vsctl", &["show"])?);
        thread::sleep(Duration::from_millis(100));
    }
    tutorial::replace_flows(&lab, PLAIN_FLOWS)?;
    assert!(serves(&lab)?);
    Ok(())
}

/// What a switch that cannot start says, after its own name.
fn refusal(lab: &Lab, program: &str, args: &[&str]) -> Result<String> {
    let output = lab.exec(program, args)?;
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output}");
    let last = output.stderr.lines().last().unwrap_or_default();
    Ok(last.strip_prefix("switchd: ").with_context(|| output.to_string())?.into())
}

#[test]
fn it_says_why_it_cannot_start() -> Result<()> {
    let lab = Lab::new()?;
    let without_privileges = ["--bounding-set", "-all", "switchd"];
    let message = refusal(&lab, "setpriv", &without_privileges)?;
    assert!(message.contains("root") && message.contains("CAP_BPF"), "{message}");

    let message = refusal(&lab, "switchd", &["--max-connections", "4294967295"])?;
    assert!(message.contains("4294967295") && message.contains("2097152 (--max-connections)"), "{message}");
    let message = refusal(&lab, "switchd", &["--max-flows", "4294967295"])?;
    assert!(message.contains("4294967295") && message.contains("--max-flows"), "{message}");

    fs::create_dir_all(RUNDIR)?;
    let state = Path::new(RUNDIR).join("switchd.state");
    fs::write(&state, "{ no state")?;
    let message = refusal(&lab, "switchd", &[])?;
    assert!(message.contains("switchd.state"), "{message}");
    assert_eq!(fs::read_to_string(&state)?, "{ no state", "what it cannot read it does not overwrite");

    // And nothing of it keeps a good start from working.
    fs::remove_file(&state)?;
    let switch = lab.switchd(&["--max-connections", "1000"])?;
    assert!(switch.stop()?.success());
    Ok(())
}
