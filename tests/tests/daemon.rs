//! The daemon's life: one per run directory, what survives a restart, what is undone at the end.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
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
        std::thread::sleep(Duration::from_millis(50));
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
        Ok((features, link.contains("xdp"), lab.exec("tc", &["qdisc", "show", "dev", "veth_l0"])?.ok()?))
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
