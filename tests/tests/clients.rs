//! Debian's unmodified `ovs-ofctl` and `ovs-appctl` as clients of the switch.

use anyhow::Result;
use tests::{
    dump,
    lab::Lab,
    tutorial::{self, DUMPED_FLOWS, FLOWS, Player, STEPS},
};

/// Flows 1 to 5 as a released `ovs-ofctl` reads them: without the comma between ct_state's flags.
fn flows() -> Vec<String> {
    FLOWS.iter().map(|flow| flow.replace("+trk,+", "+trk+")).collect()
}

fn ofctl(lab: &Lab, args: &[&str]) -> Result<String> {
    lab.debian("ovs-ofctl", args)?.ok()
}

fn rules(lab: &Lab) -> Result<Vec<String>> {
    let dump = ofctl(lab, &["dump-flows", "br0"])?;
    assert!(dump.starts_with("NXST_FLOW reply (xid=0x"), "{dump}");
    let mut rules: Vec<_> = dump::flows(&dump).into_iter().map(|flow| flow.rule).collect();
    rules.sort();
    Ok(rules)
}

fn sorted(rules: &[&str]) -> Vec<String> {
    let mut rules: Vec<_> = rules.iter().map(|&rule| rule.into()).collect();
    rules.sort();
    rules
}

#[test]
fn a_fresh_bridge_switches_like_any_other() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    assert_eq!(rules(&lab)?, ["priority=0 actions=NORMAL"]);
    Ok(())
}

#[test]
fn the_tutorial_by_foreign_tools() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    ofctl(&lab, &["del-flows", "br0"])?;
    for flow in flows() {
        ofctl(&lab, &["add-flow", "br0", &flow])?;
    }
    assert_eq!(rules(&lab)?, sorted(&DUMPED_FLOWS));

    let mut player = Player::new(&lab)?;
    for step in STEPS {
        player.play(step)?;
    }
    for options in [&[][..], &["-m"], &["-s"], &["zone=0"], &["zone=7"]] {
        let args = [&["dpctl/dump-conntrack"], options].concat();
        let (ours, theirs) = (lab.ovs("appctl", &args)?, lab.debian("ovs-appctl", &args)?);
        // A second may have gone by in between.
        let still = |text: &str| dump::field(text, "timeout").map_or(text.into(), |t| text.replace(t, "T"));
        assert_eq!(still(&theirs.stdout), still(&ours.stdout), "{options:?}");
    }
    assert_eq!(
        lab.debian("ovs-appctl", &["dpctl/dump-conntrack"])?.ok()?,
        format!("{}\n", tutorial::connection("TIME_WAIT"))
    );
    lab.debian("ovs-appctl", &["dpctl/flush-conntrack"])?.ok()?;
    assert_eq!(lab.debian("ovs-appctl", &["dpctl/dump-conntrack"])?.ok()?, "");

    // Packets 7 + 2 + 3 + 3 + 5, bytes 380 + 108 + 162 + 162 + 272.
    let total = ofctl(&lab, &["dump-aggregate", "br0"])?;
    assert!(total.ends_with("packet_count=20 byte_count=1084 flow_count=5\n"), "{total}");
    Ok(())
}

#[test]
fn both_tools_see_the_same_flows() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    let file = "\
        table=1,priority=7,cookie=0x5,ipv6,ipv6_src=fd00::/64 actions=drop\n\
        idle_timeout=60,hard_timeout=600,arp,arp_tpa=10.0.0.0/8,actions=NORMAL # comment\n\
        priority=9,tcp,tcp_flags=+syn-ack,nw_src=10.0.0.0/8,tp_dst=80,actions=ct(commit,zone=5,exec(load:0x1->NXM_NX_CT_MARK[])),resubmit(,1)\n\
        priority=9,ip,reg0=0x1/0xff,metadata=0x5,actions=mod_nw_ttl:3,output:1,load:0x2->NXM_NX_REG1[],IN_PORT\n\
        udp,dl_vlan=100,actions=mod_dl_src:02:00:00:00:00:09,FLOOD\n";
    let added =
        lab.exec("sh", &["-c", &format!("printf '%s' '{file}' | /usr/bin/ovs-ofctl add-flows br0 -")])?;
    assert_eq!(added.code, 0, "{added}");

    let theirs = rules(&lab)?;
    let ours = dump::flows(&lab.ovs("ofctl", &["dump-flows", "br0"])?.ok()?);
    let mut ours: Vec<_> = ours.into_iter().map(|flow| flow.rule).collect();
    ours.sort();
    assert_eq!(ours, theirs);
    assert_eq!(theirs.len(), 6, "{theirs:?}");
    Ok(())
}

#[test]
fn modify_and_delete() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    ofctl(&lab, &["del-flows", "br0"])?;
    for flow in
        ["priority=5,ip,actions=drop", "priority=6,ip,nw_src=10.1.0.0/16,actions=drop", "arp,actions=drop"]
    {
        ofctl(&lab, &["add-flow", "br0", flow])?;
    }
    ofctl(&lab, &["mod-flows", "br0", "ip,actions=output:1"])?;
    assert_eq!(
        rules(&lab)?,
        sorted(&[
            "arp actions=drop",
            "priority=5,ip actions=output:1",
            "priority=6,ip,nw_src=10.1.0.0/16 actions=output:1",
        ])
    );
    ofctl(&lab, &["--strict", "mod-flows", "br0", "priority=5,ip,actions=output:2"])?;
    ofctl(&lab, &["--strict", "del-flows", "br0", "ip,nw_src=10.1.0.0/16"])?;
    ofctl(&lab, &["del-flows", "br0", "arp"])?;
    let left = ["priority=5,ip actions=output:2", "priority=6,ip,nw_src=10.1.0.0/16 actions=output:1"];
    assert_eq!(rules(&lab)?, sorted(&left));
    ofctl(&lab, &["del-flows", "br0", "ip,nw_src=10.1.0.0/16"])?;
    assert_eq!(rules(&lab)?, sorted(&left[..1]));

    // By both clients, lines of the standard input.
    let [ours, theirs] = ["ofctl", "ovs-ofctl"];
    for tool in [ours, theirs] {
        let send = |command: &str, lines: &str| {
            let args = [command, "br0", "-"];
            if tool == ours {
                lab.ovs_with_input(tool, &args, lines)?.ok()
            } else {
                lab.debian_with_input(tool, &args, lines)?.ok()
            }
        };
        send("add-flow", "arp,actions=1\nudp,actions=2\n")?;
        send("mod-flows", "arp,actions=drop\nudp,actions=1\n")?;
        send("del-flows", "udp\n# and\ntcp\n")?;
        assert_eq!(rules(&lab)?, sorted(&["arp actions=drop", left[0]]), "{tool}");
        ofctl(&lab, &["del-flows", "br0", "arp"])?;
    }
    Ok(())
}

#[test]
fn ports_are_shown() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    let show = ofctl(&lab, &["show", "br0"])?;
    for line in
        ["OFPT_FEATURES_REPLY (xid=0x", " 1(veth_l0): addr:", " 2(veth_r0): addr:", " LOCAL(br0): addr:"]
    {
        assert!(show.lines().any(|l| l.starts_with(line)), "no {line:?} in\n{show}");
    }
    assert!(show.contains("n_tables:254, n_buffers:0\n"), "{show}");
    assert!(show.ends_with("frags=normal miss_send_len=0\n"), "{show}");
    let described =
        |text: &str| text.lines().skip_while(|line| !line.starts_with(" 1(")).collect::<Vec<_>>().join("\n");
    let ports = ofctl(&lab, &["dump-ports-desc", "br0"])?;
    assert!(described(&show).starts_with(&described(&ports)) && ports.contains(" LOCAL(br0)"), "{ports}");
    assert_eq!(described(&lab.ovs("ofctl", &["dump-ports-desc", "br0"])?.ok()?), described(&ports));

    tutorial::replace_flows(&lab, tutorial::PLAIN_FLOWS)?;
    Player::new(&lab)?.play(&STEPS[0])?;
    let ports = ofctl(&lab, &["dump-ports", "br0"])?;
    let counted = |port: &str, way: &str, packets: u64| {
        let at = ports.find(port).unwrap_or_else(|| panic!("no {port:?} in\n{ports}"));
        assert!(ports[at..].contains(&format!("{way} pkts={packets}, bytes={},", packets * 54)), "{ports}");
    };
    assert!(ports.contains(": 3 ports\n"), "{ports}");
    counted("  port  1:", "rx", 1);
    counted("  port  2:", "tx", 1);
    Ok(())
}

#[test]
fn the_control_socket() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    let commands = lab.debian("ovs-appctl", &["list-commands"])?.ok()?;
    for command in
        ["dpctl/dump-conntrack", "dpctl/flush-conntrack", "fdb/show", "vlog/set", "exit", "version"]
    {
        assert!(
            commands.lines().any(|line| line.split_whitespace().next() == Some(command)),
            "no {command} in\n{commands}"
        );
    }
    let fdb = lab.debian("ovs-appctl", &["fdb/show", "br0"])?.ok()?;
    assert_eq!(fdb.lines().next(), Some(" port  VLAN  MAC                Age"));

    let unknown = lab.debian("ovs-appctl", &["foo/bar"])?;
    assert_eq!(unknown.code, 2);
    assert_eq!(
        unknown.stderr,
        "\"foo/bar\" is not a valid command (use \"list-commands\" to see a list of valid commands)\n\
         ovs-appctl: ovs-vswitchd: server returned an error\n"
    );
    Ok(())
}

#[test]
fn exit_ends_the_switch() -> Result<()> {
    let lab = Lab::new()?;
    let switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    lab.debian("ovs-appctl", &["exit"])?.ok()?;
    let status = switch.wait(std::time::Duration::from_secs(5))?;
    assert!(status.success(), "{status}");
    assert!(!lab.exec("ip", &["-d", "link", "show", "veth_l0"])?.ok()?.contains("xdp"));
    Ok(())
}
