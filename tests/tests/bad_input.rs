//! Bad input: the error names the culprit, the exit code is 1, and nothing has changed.

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use tests::{
    lab::{Lab, RUNDIR},
    packet::{Ethernet, IPV4, Segment, checksum, flags},
    tutorial::{self, FLOWS, PLAIN_FLOWS, Player, STEPS},
};

const SOON: Duration = Duration::from_secs(2);

/// Tool and arguments, and the line of standard error that they end with.
const CASES: &[(&[&str], &str)] = &[
    (&["ovs-ofctl", "dump-flows", "nobr"], "ovs-ofctl: nobr is not a bridge or a socket"),
    (&["ovs-ofctl", "foo"], "ovs-ofctl: unknown command 'foo'; use --help for help"),
    (&["ovs-ofctl", "add-flow"], "ovs-ofctl: 'add-flow' command requires at least 2 arguments"),
    (&["ovs-ofctl", "add-flow", "br0", "tcp"], "ovs-ofctl: must specify an action"),
    (&["ovs-ofctl", "add-flow", "br0", "foo=1,actions=drop"], "ovs-ofctl: unknown keyword foo"),
    (
        &["ovs-ofctl", "add-flow", "br0", "priority=70000,actions=drop"],
        "ovs-ofctl: invalid priority \"70000\"",
    ),
    (&["ovs-ofctl", "add-flow", "br0", "table=256,actions=drop"], "ovs-ofctl: unknown table \"256\""),
    (
        &["ovs-ofctl", "add-flow", "br0", "in_port=foo,actions=drop"],
        "ovs-ofctl: foo: invalid or unknown port for in_port",
    ),
    (&["ovs-ofctl", "add-flow", "br0", "actions=foo"], "ovs-ofctl: unknown action foo"),
    (&["ovs-ofctl", "add-flow", "br0", "actions=output:70000"], "ovs-ofctl: 70000: output to unknown port"),
    (
        &["ovs-ofctl", "add-flow", "br0", "ip,nw_src=10.0.0.0/33,actions=drop"],
        "ovs-ofctl: 10.0.0.0/33: IPv4 network prefix bits not between 0 and 32, inclusive",
    ),
    (
        &["ovs-ofctl", "add-flow", "br0", "ct_state=foo,actions=drop"],
        "ovs-ofctl: foo: unknown ct_state flag(s)",
    ),
    (
        &["ovs-ofctl", "add-flow", "br0", "ct_zone=1/0xff,actions=drop"],
        "ovs-ofctl: 1/0xff: invalid mask for field ct_zone",
    ),
    (
        &["ovs-ofctl", "add-flow", "br0", "ip,actions=ct(foo)"],
        "ovs-ofctl: invalid argument to \"ct\" action: `foo'",
    ),
    (
        &["ovs-ofctl", "add-flow", "br0", "ip,actions=ct(force)"],
        "ovs-ofctl: \"force\" flag requires \"commit\" flag.",
    ),
    (
        &["ovs-ofctl", "add-flow", "br0", "actions=ct(commit)"],
        "ovs-ofctl: actions are invalid with specified match (OFPBAC_MATCH_INCONSISTENT)",
    ),
    (
        &["ovs-ofctl", "add-flow", "br0", "actions=drop,output:1"],
        "ovs-ofctl: \"drop\" must not be accompanied by any other action or instruction",
    ),
    (&["ovs-ofctl", "del-flows", "br0", "actions=drop"], "ovs-ofctl: unknown keyword actions"),
    (
        &["ovs-vsctl", "add-br", "br0"],
        "ovs-vsctl: cannot create a bridge named br0 because a bridge named br0 already exists",
    ),
    (
        &["ovs-vsctl", "add-port", "br0", "veth_l0"],
        "ovs-vsctl: cannot create a port named veth_l0 because a port named veth_l0 already exists on bridge br0",
    ),
    (&["ovs-vsctl", "add-port", "nobr", "other"], "ovs-vsctl: no bridge named nobr"),
    (&["ovs-vsctl", "del-br", "nobr"], "ovs-vsctl: no bridge named nobr"),
    (&["ovs-vsctl", "del-port", "nosuch"], "ovs-vsctl: no port named nosuch"),
];

#[test]
fn commands() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    tutorial::replace_flows(&lab, &FLOWS)?;
    let state = || -> Result<_> {
        Ok((
            lab.ovs("ovs-ofctl", &["--no-stats", "dump-flows", "br0"])?.ok()?,
            lab.ovs("ovs-vsctl", &["show"])?.ok()?,
        ))
    };
    let before = state()?;
    for (words, message) in CASES {
        let output = lab.ovs(words[0], &words[1..])?;
        assert_eq!((output.code, output.stderr.lines().last()), (1, Some(*message)), "{words:?}: {output}");
        assert_eq!(state()?, before, "{words:?}");
    }
    assert_eq!(lab.ovs("ovs-vsctl", &["br-exists", "nobr"])?.code, 2);
    Ok(())
}

#[test]
fn a_missing_prerequisite_is_an_error() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    for (flow, field, needs) in
        [("tcp_dst=80,actions=drop", "tcp_dst", "tcp"), ("nw_src=10.0.0.1,actions=drop", "nw_src", "ip")]
    {
        let output = lab.ovs("ovs-ofctl", &["add-flow", "br0", flow])?;
        assert_eq!(output.code, 1, "{flow}: {output}");
        assert!(output.stderr.contains(field) && output.stderr.contains(needs), "{flow}: {output}");
    }
    Ok(())
}

#[test]
fn a_bad_line_keeps_the_whole_file_out() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    lab.ovs("ovs-ofctl", &["del-flows", "br0"])?.ok()?;
    let file = "# fine\ntcp,actions=drop\n\nudp,actions=foo\n";
    let output = lab.ovs_with_input("ovs-ofctl", &["add-flows", "br0", "-"], file)?;
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains(":4: unknown action foo"), "{output}");
    let count = lab.ovs("ovs-ofctl", &["dump-aggregate", "br0"])?.ok()?;
    assert!(count.ends_with("flow_count=0\n"), "{count}");
    Ok(())
}

#[test]
fn tools_without_a_switch() -> Result<()> {
    let lab = Lab::new()?;
    let output = lab.ovs("ovs-appctl", &["version"])?;
    assert_eq!(output.code, 1);
    assert_eq!(
        output.stderr,
        format!(
            "ovs-appctl: cannot read pidfile \"{RUNDIR}/ovs-vswitchd.pid\" (No such file or directory)\n"
        )
    );
    let output = lab.ovs("ovs-ofctl", &["show", "br0"])?;
    assert_eq!((output.code, output.stderr.as_str()), (1, "ovs-ofctl: br0 is not a bridge or a socket\n"));
    Ok(())
}

/// What a stranger may write to a socket, and why it is wrong.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", vec![]),
        ("zeros", vec![0; 64]),
        ("text", b"GET / HTTP/1.0\r\n\r\n".to_vec()),
        ("a cut header", vec![1, 0, 0]),
        ("a length below the header's", vec![1, 0, 0, 4, 0, 0, 0, 1]),
        ("a length that never comes", vec![1, 14, 0xff, 0xff, 0, 0, 0, 1, 0, 0]),
        ("an unknown type behind a hello", vec![1, 0, 0, 8, 0, 0, 0, 1, 1, 200, 0, 8, 0, 0, 0, 2]),
        ("a flow mod cut short", vec![1, 0, 0, 8, 0, 0, 0, 1, 1, 14, 0, 12, 0, 0, 0, 2, 0, 0, 0, 0]),
        ("JSON of the wrong shape", b"[1,2,{\"method\":3}]".to_vec()),
        ("an unfinished request", b"{\"id\":0,\"method\":\"vers".to_vec()),
        ("deep brackets", vec![b'['; 100_000]),
        ("no UTF-8", vec![0xff; 4096]),
    ]
}

fn control_socket() -> Result<PathBuf> {
    fs::read_dir(RUNDIR)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "ctl"))
        .context("no control socket")
}

#[test]
fn garbage_on_the_sockets() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    tutorial::replace_flows(&lab, &FLOWS)?;
    let before = lab.ovs("ovs-ofctl", &["--no-stats", "dump-flows", "br0"])?.ok()?;
    let mut open = Vec::new();
    for socket in [PathBuf::from(RUNDIR).join("br0.mgmt"), control_socket()?] {
        for (what, bytes) in garbage() {
            let mut stream = UnixStream::connect(&socket).with_context(|| format!("before {what}"))?;
            stream.set_read_timeout(Some(SOON))?;
            // The switch may hang up on any of it.
            drop(stream.write_all(&bytes));
            drop(stream.shutdown(Shutdown::Write));
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer));
            let again = lab.ovs("ovs-ofctl", &["--no-stats", "dump-flows", "br0"])?;
            assert_eq!(again.ok()?, before, "after {what} on {}", socket.display());
            lab.ovs("ovs-appctl", &["version"])?.ok().with_context(|| format!("after {what}"))?;
            // Others are left hanging: they must not keep anybody out.
            let mut idle = UnixStream::connect(&socket)?;
            drop(idle.write_all(&bytes));
            open.push(idle);
        }
    }
    lab.ovs("ovs-appctl", &["version"])?.ok()?;
    assert!(!switch.log()?.contains("panicked"), "{}", switch.log()?);
    Ok(())
}

/// Makes the sums of a frame right that has a TCP header behind 20 bytes of IPv4, whatever these claim, so
/// that it is wrong in one way only.
fn repair_checksums(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[50..52].fill(0);
    let length = (frame.len() as u16 - 34).to_be_bytes();
    let sum = checksum(&[&frame[26..34], &[0, 6], &length, &frame[34..]].concat());
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
}

/// Frames that are no proper TCP over IPv4.
fn malformed() -> Result<Vec<Vec<u8>>> {
    let good = STEPS[4].frame()?;
    let altered = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        repair_checksums(&mut frame);
        frame
    };
    let mut unsummed = good.clone();
    unsummed[50] ^= 0x01;
    let mut frames: Vec<_> = (14..good.len()).map(|length| good[..length].to_vec()).collect();
    frames.extend([
        altered(14, 0x55), // version 5
        altered(14, 0x44), // a header of 16 bytes
        altered(14, 0x4f), // a header that reaches into TCP's
        altered(17, 20),   // a total length without TCP
        altered(16, 0xff), // a total length beyond the frame
        altered(46, 0x40), // a data offset of 16 bytes
        altered(46, 0xf0), // a data offset beyond the packet
        altered(47, 0x00), // no flags
        altered(47, 0xff), // all flags
        unsummed,
        Ethernet::default().frame(IPV4, &[]),
        Ethernet { vlan: Some(5), ..Ethernet::default() }.frame(0x8100, &[0; 3]),
    ]);
    Ok(frames)
}

#[test]
fn malformed_packets_are_never_tracked() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.switchd(&[])?;
    let [left, right] = tutorial::set_up(&lab)?;
    tutorial::replace_flows(&lab, &FLOWS)?;
    let (near, far) = (left.open_wire("veth_l1")?, right.open_wire("veth_r1")?);
    for frame in malformed()? {
        near.send(&frame)?;
    }
    assert_eq!(far.drain(Duration::from_millis(300))?, Vec::<Vec<u8>>::new());
    assert_eq!(lab.ovs("ovs-appctl", &["dpctl/dump-conntrack"])?.ok()?, "");

    // And the next good one is served as if nothing had been.
    let seen = Player::new(&lab)?.play(&STEPS[0])?;
    assert_eq!(seen.arrivals, STEPS[0].expected().arrivals);
    assert_eq!(seen.connections, STEPS[0].expected().connections);
    assert!(!switch.log()?.contains("panicked"), "{}", switch.log()?);
    Ok(())
}

#[test]
fn malformed_packets_pass_where_nobody_looks_inside() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let [left, right] = tutorial::set_up(&lab)?;
    tutorial::replace_flows(&lab, PLAIN_FLOWS)?;
    let (near, far) = (left.open_wire("veth_l1")?, right.open_wire("veth_r1")?);
    let segment = Segment::new("10.0.0.1:1".parse()?, "10.0.0.2:2".parse()?, flags::SYN | flags::FIN);
    let mut wrong = Ethernet::default().tcp(&segment)?;
    wrong[50] ^= 0xff;
    near.send(&wrong)?;
    assert!(far.sees(&wrong, SOON)?);
    Ok(())
}
