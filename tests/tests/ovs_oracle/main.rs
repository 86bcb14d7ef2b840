//! The whole switch beside Open vSwitch: the same flows by the same client, and the same frames.
//!
//! Random flows over several tables, then random frames into all ports. Both switches must take the flows, put out the
//! same bytes at the same ports, and count the same packets and bytes for each flow.
//!
//! Left out are frames and flows that Open vSwitch's userspace datapath and its kernel module treat differently: the comments
//! in `frames` say which. What connection tracking makes of packets has oracles of its own; here it is what flows make of
//! that.
//!
//! The stories are the same in every run. `OVS_ORACLE_SEED` draws others, `OVS_ORACLE_CASES` another number of them.

mod frames;
mod rules;
mod tracking;
mod world;

use std::{cell::Cell, fmt::Write as _};

use anyhow::{Context, Result, bail, ensure};
use frames::Sent;
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};
use rules::Rule;
use tests::{environment, topology::Datapath};
use world::{Pace, World};

const SEED: u64 = 1;
const CASES: u64 = 100;

/// Plays a story in both worlds. Returns how many frames came out of the switch.
fn play(world: &World, rules: &[Rule], frames: &[Sent], pace: Pace) -> Result<usize> {
    let flows: String = (1..).zip(rules).map(|(priority, rule)| rule.text(priority) + "\n").collect();
    world.set_flows(&flows)?;
    world.forget_connections()?;
    let frames: Vec<_> = frames.iter().map(|sent| (sent.port, sent.bytes.clone())).collect();
    let [theirs, ours] = world.send(&frames, pace).with_context(|| flows.clone())?;
    let mut differences = String::new();
    for (port, (theirs, ours)) in (1..).zip(theirs.iter().zip(&ours)) {
        for (whose, some, others) in [("Open vSwitch", theirs, ours), ("the switch", ours, theirs)] {
            let mut others = others.clone();
            for frame in some {
                if let Some(at) = others.iter().position(|other| other == frame) {
                    others.swap_remove(at);
                } else {
                    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
                    writeln!(differences, "port {port}, only of {whose}: {hex}")?;
                }
            }
        }
        if differences.is_empty() && theirs != ours {
            writeln!(differences, "port {port}: in another order")?;
        }
    }
    let [theirs_counted, ours_counted] = world.counters()?;
    ensure!(theirs_counted.len() == ours_counted.len(), "{theirs_counted:#?}\n{ours_counted:#?}");
    for (theirs, ours) in theirs_counted.iter().zip(&ours_counted) {
        if theirs != ours {
            writeln!(differences, "Open vSwitch counts {theirs:?}, the switch {ours:?}")?;
        }
    }
    if !differences.is_empty() {
        bail!("{differences}{flows}");
    }
    Ok(ours.iter().map(Vec::len).sum())
}

fn stories(
    datapath: Datapath,
    fragments: &str,
    pace: Pace,
    rule: impl Strategy<Value = Rule>,
    sent: impl Strategy<Value = Sent>,
) -> Result<()> {
    let seed = environment::number("OVS_ORACLE_SEED", SEED)?;
    let cases = environment::number("OVS_ORACLE_CASES", CASES)?;
    let config = ProptestConfig {
        cases: cases.try_into()?,
        failure_persistence: None,
        max_shrink_time: 60_000,
        max_shrink_iters: 10_000,
        ..ProptestConfig::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let world = World::new(datapath, fragments)?;
    let arrived = Cell::new(0);
    let story = (prop::collection::vec(rule, 1..40), prop::collection::vec(sent, 1..60));
    let outcome = runner.run(&story, |(rules, frames)| {
        let frames =
            play(&world, &rules, &frames, pace).map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        arrived.set(arrived.get() + frames);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, (_, frames))) => bail!("{frames:#?}\nOVS_ORACLE_SEED={seed}\n{why}"),
        Err(TestError::Abort(reason)) => bail!("{reason}"),
    }
    assert!(arrived.get() > 0, "no frame ever arrived");
    Ok(())
}

fn tables_and_actions(datapath: Datapath, fragments: &str) -> Result<()> {
    stories(datapath, fragments, Pace::Bursts, rules::rule(), frames::sent())
}

/// Behind `ct`, where a fragment's ports are seen here in any case, they are seen in Open vSwitch by `nx-match` alone.
fn connections(datapath: Datapath) -> Result<()> {
    stories(datapath, "nx-match", Pace::InOrder, tracking::rule(), tracking::sent())
}

#[test]
fn like_open_vswitch_by_xdp() -> Result<()> {
    tables_and_actions(Datapath::Xdp, "normal")
}

#[test]
fn like_open_vswitch_by_tc() -> Result<()> {
    tables_and_actions(Datapath::Tc, "nx-match")
}

#[test]
fn connections_like_open_vswitch_by_xdp() -> Result<()> {
    connections(Datapath::Xdp)
}

#[test]
fn connections_like_open_vswitch_by_tc() -> Result<()> {
    connections(Datapath::Tc)
}
