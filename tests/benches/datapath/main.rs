//! How fast the datapath is: `cargo xtask bench [FILTER]`.
//!
//! All of it is the switch as users run it: bridges and flows are made by its tools, its program is found by the
//! port that it serves. Beside it, in the same run and in turn with it, an empty program, one that does
//! nothing but redirect, and Open vSwitch's userspace datapath: compare ratios, as machines differ.
//!
//! Everything lies in labs, which go with this process, however that ends.

mod assembler;
mod bpf;
mod cases;
mod contest;
mod cpu;
mod dumping;
mod generator;
mod nanoseconds;
mod statistics;
mod traffic;

use std::env;

use anyhow::Result;
use tests::lab::Lab;

use crate::{
    cases::{Baselines, MAX_CONNECTIONS},
    contest::{Contest, Load, Outcome},
    dumping::RoundTrips,
    traffic::{Comparison, Field, Sink},
};

/// The switch keeps at least this part of a bare redirect's packets per second.
const RATE_GOAL: f64 = 0.5;
/// 100,000 flows in one subtable cost at most so many times what 10 cost.
const FLOWS_GOAL: f64 = 1.2;
/// 1,000,000 connections cost at most so many times what 1,000 cost.
const CONNECTIONS_GOAL: f64 = 1.5;
/// So many times the packets of established connections, and the new connections, of Open vSwitch.
const ESTABLISHED_GOAL: f64 = 10.0;
const NEW_GOAL: f64 = 3.0;
/// By so many milliseconds at most a dump delays the slowest ping.
const DUMP_GOAL: f64 = 5.0;

/// The lab's rows.
const SMALL_FRAMES: &str = "established connection, XDP drop at the far end";
const SMALL_FRAMES_SKB: &str = "established connection, skb at the far end";
const TCP: &str = "established connection, TCP throughput";
const TRAFFIC: [&str; 3] = [SMALL_FRAMES, SMALL_FRAMES_SKB, TCP];

fn main() -> Result<()> {
    // Cargo adds flags of its own.
    let filter = env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let mut goals = Vec::new();
    alone(&filter, &mut goals)?;
    dumps(&filter, &mut goals)?;
    beside_ovs(&filter, &mut goals)?;
    goals.iter().for_each(|goal| println!("{goal}"));
    Ok(())
}

/// The switch beside programs that do less.
fn alone(filter: &str, goals: &mut Vec<String>) -> Result<()> {
    if !cases::is_any(filter) && !TRAFFIC.iter().any(|name| name.contains(filter)) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let switch = lab.switchd(&["--max-connections", &MAX_CONNECTIONS.to_string()])?;
    test_runs(&lab, filter, goals)?;
    traffic(&lab, filter, goals)?;
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
    for (many, few, factor) in [
        ("100,000 flows", "10 flows", FLOWS_GOAL),
        ("100,000 flows, the same one again", "10 flows", FLOWS_GOAL),
        ("1,000,000 connections", "1,000 connections", CONNECTIONS_GOAL),
        ("1,000,000 connections, the same one again", "1,000 connections", CONNECTIONS_GOAL),
    ] {
        if let (Some(cost), Some(least)) = (find(many), find(few)) {
            let what = format!("{many} cost at most {factor} times what {few} cost");
            goals.push(goal(&what, cost <= factor * least, cost / least));
        }
    }
    Ok(())
}

fn dumps(filter: &str, goals: &mut Vec<String>) -> Result<()> {
    if !dumping::NAME.contains(filter) {
        return Ok(());
    }
    let lab = Lab::new()?;
    let switch = lab.switchd(&["--max-connections", &MAX_CONNECTIONS.to_string()])?;
    eprintln!("pinging while connections are dumped, for half a minute");
    let [idle, dumping] = dumping::measure(&lab)?;
    println!("| pings through the switch | median | worst |");
    println!("|---|--:|--:|");
    for (name, RoundTrips { median, worst }) in [("nothing else goes on", &idle), (dumping::NAME, &dumping)] {
        println!("| {name} | {median:.3} ms | {worst:.2} ms |");
    }
    println!();
    let delay = dumping.worst - idle.worst;
    let what = format!("a dump delays the slowest ping by at most {DUMP_GOAL} ms");
    goals.push(goal(&what, delay <= DUMP_GOAL, delay));
    switch.stop()?;
    Ok(())
}

fn beside_ovs(filter: &str, goals: &mut Vec<String>) -> Result<()> {
    let rows: Vec<_> = contest::ROWS.iter().filter(|row| row.name.contains(filter)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let lab = Lab::new()?;
    let switch = lab.switchd(&contest::OPTIONS)?;
    let contest = Contest::new(&lab)?;
    eprintln!("measuring beside Open vSwitch's userspace datapath, for some minutes");
    println!("| kpps of a whole processor | {} | to the better OVS |", contest::NAMES.join(" | "));
    println!("|---|--:|--:|--:|--:|");
    for row in rows {
        let Outcome { rates, ratio } = contest.measure(row)?;
        let cells = rates.map(|rate| format!("{:.0}", rate / 1e3)).join(" | ");
        println!("| {} | {cells} | {ratio:.1} |", row.name);
        let wanted = if row.load == Load::New { NEW_GOAL } else { ESTABLISHED_GOAL };
        goals.push(goal(&format!("{}: {wanted} times its packets", row.name), ratio >= wanted, ratio));
    }
    println!();
    switch.stop()?;
    Ok(())
}

fn traffic(lab: &Lab, filter: &str, goals: &mut Vec<String>) -> Result<()> {
    let wanted = |name: &&str| name.contains(filter);
    let names: Vec<&str> = TRAFFIC.into_iter().filter(wanted).collect();
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
