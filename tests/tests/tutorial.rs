//! The conntrack tutorial, row by row, on the real datapath.

use std::time::Duration;

use anyhow::Result;
use tests::{
    dump::{self, Flow},
    lab::Lab,
    packet::flags::{ACK, FIN, RST, SYN},
    tutorial::{self, DUMPED_FLOWS, FLOWS, PLAIN_FLOWS, Player, STEPS, Seen, Side, Step, connection},
};

/// Plays a step and tells what was seen otherwise than expected.
fn must_be_as_told(player: &mut Player<'_>, step: &Step) -> Result<()> {
    let (seen, expected) = (player.play(step)?, step.expected());
    for check in seen.compare(&expected) {
        assert!(check.ok, "{}: {check}\nseen {seen:?}\nexpected {expected:?}", step.what);
    }
    Ok(())
}

#[test]
fn every_row() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    tutorial::replace_flows(&lab, &FLOWS)?;
    let mut player = Player::new(&lab)?;
    for step in STEPS {
        must_be_as_told(&mut player, step)?;
    }

    let mut flows = dump::flows(&lab.ovs("ofctl", &["dump-flows", "br0"])?.ok()?);
    flows.sort_by_key(|flow| DUMPED_FLOWS.iter().position(|rule| *rule == flow.rule));
    // Frames of 54 bytes, but for the two that carry a byte.
    let counted = [(7, 380), (2, 108), (3, 162), (3, 162), (5, 272)];
    let expected: Vec<_> = DUMPED_FLOWS
        .iter()
        .zip(counted)
        .map(|(rule, (packets, bytes))| Flow { packets, bytes, rule: (*rule).into() })
        .collect();
    assert_eq!(flows, expected);
    Ok(())
}

#[test]
fn flows_added_when_the_tutorial_adds_them() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    tutorial::replace_flows(&lab, &FLOWS[..2])?;
    let mut player = Player::new(&lab)?;
    must_be_as_told(&mut player, &STEPS[0])?;
    for flow in &FLOWS[2..] {
        lab.ovs("ovs-ofctl", &["add-flow", "br0", flow])?.ok()?;
    }
    for step in &STEPS[2..] {
        must_be_as_told(&mut player, step)?;
    }
    Ok(())
}

#[test]
fn plain_forwarding() -> Result<()> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    let [left, right] = tutorial::set_up(&lab)?;
    tutorial::replace_flows(&lab, PLAIN_FLOWS)?;
    let (left, right) = (left.open_wire("veth_l1")?, right.open_wire("veth_r1")?);
    for (from, to) in [(&left, &right), (&right, &left)] {
        for step in STEPS {
            let frame = step.frame()?;
            from.send(&frame)?;
            assert!(to.sees(&frame, Duration::from_secs(2))?, "{}", step.what);
        }
    }
    assert_eq!(lab.ovs("ovs-appctl", &["dpctl/dump-conntrack"])?.ok()?, "");
    Ok(())
}

/// A segment of the tutorial's connection that the tutorial itself does not send.
fn segment(sender: Side, flags: u8, (seq, ack): (u32, u32)) -> Step {
    Step { what: "", sender, flags, seq, ack, payload: "", hits: [0; 2], state: "", timeout: 0 }
}

fn played(steps: &[Step], last: &Step) -> Result<Seen> {
    let lab = Lab::new()?;
    let _switch = lab.switchd(&[])?;
    tutorial::set_up(&lab)?;
    tutorial::replace_flows(&lab, &FLOWS)?;
    let mut player = Player::new(&lab)?;
    for step in steps {
        must_be_as_told(&mut player, step)?;
    }
    player.play(last)
}

#[test]
fn a_syn_answered_by_rst_leaves_no_entry() -> Result<()> {
    let refused = segment(Side::Right, RST | ACK, (0, 101));
    let seen = played(&STEPS[..1], &refused)?;
    assert_eq!(seen.connections, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_fin_without_ack_is_invalid() -> Result<()> {
    let seen = played(&STEPS[..4], &segment(Side::Left, FIN, (102, 0)))?;
    assert_eq!(seen.hits, [1]);
    assert_eq!(seen.arrivals, [Vec::<Vec<u8>>::new(), Vec::new()]);
    assert_eq!(seen.connections, [connection("ESTABLISHED")]);
    Ok(())
}

#[test]
fn a_syn_after_the_close_starts_anew() -> Result<()> {
    let again = Step { hits: [1, 2], state: "SYN_SENT", timeout: 120, ..segment(Side::Left, SYN, (5000, 0)) };
    let seen = played(STEPS, &again)?;
    assert!(seen.compare(&again.expected()).iter().all(|check| check.ok), "{seen:?}");
    Ok(())
}
