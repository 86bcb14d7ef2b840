//! How fast the datapath is: `cargo xtask bench [FILTER]`.
//!
//! All of it is the switch as users run it: bridges and flows are made by its tools, its program is found by the
//! port that it serves. Beside it, in the same run and in turn with it, an empty program and one that does
//! nothing but redirect: compare ratios, as machines differ.
//!
//! Everything lies in a lab, which goes with this process, however that ends.

mod assembler;
mod bpf;
mod cases;
mod cpu;
mod nanoseconds;
mod statistics;
mod traffic;

use std::env;

use anyhow::Result;
use tests::lab::Lab;

use crate::{
    cases::{Baselines, MAX_CONNECTIONS},
    traffic::{Comparison, Field, Sink},
};

/// The switch keeps at least this part of a bare redirect's packets per second.
const RATE_GOAL: f64 = 0.5;
/// 100,000 flows in one subtable cost at most so many times what 10 cost.
const FLOWS_GOAL: f64 = 1.2;

/// The lab's rows.
const SMALL_FRAMES: &str = "established connection, XDP drop at the far end";
const SMALL_FRAMES_SKB: &str = "established connection, skb at the far end";
const TCP: &str = "established connection, TCP throughput";

fn main() -> Result<()> {
    // Cargo adds flags of its own.
    let filter = env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let lab = Lab::new()?;
    let switch = lab.switchd(&["--max-connections", &MAX_CONNECTIONS.to_string()])?;
    let mut goals = Vec::new();
    test_runs(&lab, &filter, &mut goals)?;
    traffic(&lab, &filter, &mut goals)?;
    goals.iter().for_each(|goal| println!("{goal}"));
    switch.stop()?;
    Ok(())
}

/// A goal, and whether it is reached.
fn goal(what: &str, reached: bool, value: f64) -> String {
    format!("{} {what}: {value:.2}", if reached { "reached:" } else { "missed: " })
}

fn test_runs(lab: &Lab, filter: &str, goals: &mut Vec<String>) -> Result<()> {
    let far = lab.netns("far")?;
    let cases = cases::make(lab, &far, filter)?;
    if cases.is_empty() {
        return Ok(());
    }
    let baselines = Baselines::new()?;
    eprintln!("measuring {} programs in turn, for a minute or two", cases.len());
    let rows = nanoseconds::measure(lab, &baselines, &cases)?;
    let bare = rows.get(1).map_or(f64::NAN, |row| row.nanoseconds);
    println!("| program run over 64-byte frames | ns per packet | to bare redirect |");
    println!("|---|--:|--:|");
    for row in &rows {
        println!("| {} | {:.0} | {:.1} |", row.name, row.nanoseconds, row.nanoseconds / bare);
    }
    println!();
    let find = |name: &str| rows.iter().find(|row| row.name == name).map(|row| row.nanoseconds);
    if let (Some(few), Some(many)) = (find("10 flows"), find("100,000 flows")) {
        let what = format!("100,000 flows cost at most {FLOWS_GOAL} times what 10 cost");
        goals.push(goal(&what, many <= FLOWS_GOAL * few, many / few));
    }
    Ok(())
}

fn traffic(lab: &Lab, filter: &str, goals: &mut Vec<String>) -> Result<()> {
    let wanted = |name: &&str| name.contains(filter);
    let names: Vec<&str> = [SMALL_FRAMES, SMALL_FRAMES_SKB, TCP].into_iter().filter(wanted).collect();
    if names.is_empty() {
        return Ok(());
    }
    let field = Field::new(lab)?;
    eprintln!("measuring between two namespaces, for a minute");
    println!("| between two namespaces | bare redirect | switch | ratio |");
    println!("|---|--:|--:|--:|");
    for name in names {
        if name == TCP {
            let Comparison { rates, ratio, .. } = field.tcp()?;
            let [bare, switch] = rates.map(|rate| rate / 1e9);
            println!("| {name} | {bare:.2} Gbit/s | {switch:.2} Gbit/s | {ratio:.2} |");
            continue;
        }
        let sink = if name == SMALL_FRAMES { Sink::Xdp } else { Sink::SocketBuffer };
        let Comparison { rates, nanoseconds, ratio } = field.packets(sink)?;
        let [bare, switch] = rates.map(|rate| rate / 1e3);
        println!("| {name} | {bare:.0} kpps | {switch:.0} kpps | {ratio:.2} |");
        if let Some([bare, switch]) = nanoseconds {
            let ratio = bare / switch;
            println!("| — processor time per packet | {bare:.0} ns | {switch:.0} ns | {ratio:.2} |");
        }
        if sink == Sink::Xdp {
            let what = format!("the switch keeps {RATE_GOAL} of a bare redirect's packets per second");
            goals.push(goal(&what, ratio >= RATE_GOAL, ratio));
        }
    }
    println!();
    Ok(())
}
