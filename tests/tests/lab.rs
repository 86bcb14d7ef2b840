//! The lab itself: cables carry frames unchanged, worlds do not meet, nothing stays behind.

use std::{fs, path::Path, thread, time::Duration};

use anyhow::Result;
use tests::{
    lab::Lab,
    packet::{Ethernet, Segment, flags},
    wire::Wire,
};

const SOON: Duration = Duration::from_secs(2);

fn namespaces() -> Result<[std::path::PathBuf; 2]> {
    Ok([fs::read_link("/proc/thread-self/ns/net")?, fs::read_link("/proc/thread-self/ns/mnt")?])
}

#[test]
fn a_cable_carries_frames_unchanged() -> Result<()> {
    let lab = Lab::new()?;
    let left = lab.netns("left")?;
    lab.veth("veth_l0", "veth_l1", Some(&left))?;
    let (near, far) = (Wire::open("veth_l0")?, left.open_wire("veth_l1")?);

    let segment = Segment::new("10.0.0.1:1".parse()?, "10.0.0.2:2".parse()?, flags::SYN);
    for vlan in [None, Some(0x2064)] {
        let frame = Ethernet { vlan, ..Ethernet::default() }.tcp(&segment)?;
        far.send(&frame)?;
        assert_eq!(near.recv(SOON)?.as_deref(), Some(&frame[..]), "{vlan:?}");
    }
    assert_eq!(far.recv(Duration::from_millis(100))?, None, "own frames are not received");
    assert_eq!(near.recv(Duration::from_millis(100))?, None, "a quiet namespace sends nothing");
    Ok(())
}

#[test]
fn commands_run_where_they_should() -> Result<()> {
    let lab = Lab::new()?;
    let left = lab.netns("left")?;
    lab.veth("veth_l0", "veth_l1", Some(&left))?;
    assert!(left.exec("ip", &["-br", "link"])?.ok()?.contains("veth_l1"));
    assert!(!lab.exec("ip", &["-br", "link"])?.ok()?.contains("veth_l1@"));
    let failed = left.exec("ip", &["link", "show", "nosuch"])?;
    assert_eq!((failed.code, failed.stderr.as_str()), (1, "Device \"nosuch\" does not exist.\n"));
    Ok(())
}

#[test]
fn labs_do_not_meet_and_leave_nothing() -> Result<()> {
    let before = namespaces()?;
    let workers = [0, 1].map(|_| {
        thread::spawn(|| -> Result<()> {
            let lab = Lab::new()?;
            let left = lab.netns("left")?;
            lab.veth("veth_l0", "veth_l1", Some(&left))
        })
    });
    for worker in workers {
        worker.join().unwrap()?;
    }
    let lab = Lab::new()?;
    lab.netns("only-here")?;
    assert_ne!(namespaces()?, before);
    drop(lab);
    assert_eq!(namespaces()?, before);
    assert!(!Path::new("/run/netns/only-here").exists());
    Ok(())
}

#[test]
fn a_background_process_ends_with_its_guard() -> Result<()> {
    let lab = Lab::new()?;
    let left = lab.netns("left")?;
    let sleeper = left.spawn("sleep", &["1000"])?;
    let process = Path::new("/proc").join(sleeper.pid().to_string());
    assert!(process.exists());
    drop(sleeper);
    assert!(!process.exists());
    Ok(())
}
