//! Flows and flow-mods.

use std::fmt::{self, Write};
use std::time::Duration;

use super::{write_actions, write_match, write_port};
use crate::action::{self, Action};
use crate::flow::{Command, DEFAULT_PRIORITY, Flags, FlowEntry, FlowMod, Match, fits_openflow10};
use crate::port::{PortNames, PortNo};
use crate::wire::Xid;

/// Writes a flow as a line of `dump-flows` has it, with the blank before it and without a line end:
/// ` cookie=0x0, duration=9.171s, table=0, n_packets=6, ... priority=50,tcp,in_port=1 actions=ct(table=0)`.
/// Without `stats` only what add-flow could set is shown, and no cookie or table of 0.
///
/// # Errors
/// Those of the writer.
pub fn write_flow(out: &mut dyn Write, flow: &FlowEntry, stats: bool, ports: &dyn PortNames) -> fmt::Result {
    out.write_str(" ")?;
    if stats || flow.cookie != 0 {
        write!(out, "cookie={:#x}, ", flow.cookie)?;
    }
    if stats {
        write!(out, "duration={}, ", Seconds(flow.duration))?;
    }
    if stats || flow.table != 0 {
        write!(out, "table={}, ", flow.table)?;
    }
    if stats {
        write!(out, "n_packets={}, n_bytes={}, ", flow.n_packets, flow.n_bytes)?;
    }
    if flow.idle_timeout != 0 {
        write!(out, "idle_timeout={}, ", flow.idle_timeout)?;
    }
    if flow.hard_timeout != 0 {
        write!(out, "hard_timeout={}, ", flow.hard_timeout)?;
    }
    write_flags(out, flow.flags)?;
    if flow.importance != 0 {
        write!(out, "importance={}, ", flow.importance)?;
    }
    if let (true, Some(age)) = (stats, flow.idle_age) {
        write!(out, "idle_age={age}, ")?;
    }
    // A flow that was never changed is as old as it is.
    if let (true, Some(age)) = (stats, flow.hard_age)
        && u64::from(age) != flow.duration.as_secs()
    {
        write!(out, "hard_age={age}, ")?;
    }
    write_match_and_blank(out, &flow.matching, flow.priority, ports)?;
    out.write_str("actions=")?;
    write_actions(out, &flow.actions, ports)
}

/// Writes a flow-mod as OVS prints the message with that transaction id, in the words that OpenFlow 1.0 with
/// Nicira's extensions has for it: `OFPT_FLOW_MOD (xid=0x1): ADD priority=50,tcp actions=drop`.
///
/// # Errors
/// Those of the writer.
pub fn write_flow_mod(out: &mut dyn Write, xid: Xid, flow: &FlowMod, ports: &dyn PortNames) -> fmt::Result {
    let message = if needs_nicira(flow) { "NXT_FLOW_MOD" } else { "OFPT_FLOW_MOD" };
    let command = match flow.command {
        Command::Add => "ADD",
        Command::Modify => "MOD",
        Command::ModifyStrict => "MOD_STRICT",
        Command::Delete => "DEL",
        Command::DeleteStrict => "DEL_STRICT",
    };
    write!(out, "{message} (xid={xid:#x}): {command} ")?;
    if let Some(table) = flow.table.filter(|table| *table != 0) {
        write!(out, "table:{table} ")?;
    }
    write_match_and_blank(out, &flow.matching, flow.priority, ports)?;
    if let Some(cookie) = flow.new_cookie.filter(|cookie| *cookie != 0 && *cookie != u64::MAX) {
        write!(out, "cookie:{cookie:#x} ")?;
    }
    if flow.cookie_mask != 0 {
        write!(out, "cookie:{:#x}/{:#x} ", flow.cookie, flow.cookie_mask)?;
    }
    if flow.idle_timeout != 0 {
        write!(out, "idle:{} ", flow.idle_timeout)?;
    }
    if flow.hard_timeout != 0 {
        write!(out, "hard:{} ", flow.hard_timeout)?;
    }
    if flow.out_port != PortNo::NONE {
        out.write_str("out_port:")?;
        write_port(out, flow.out_port, ports)?;
        out.write_str(" ")?;
    }
    write_flags(out, flow.flags)?;
    out.write_str("actions=")?;
    write_actions(out, &action::to_openflow10(&flow.matching, &flow.actions), ports)
}

/// Whether OVS sends this as Nicira's message because OpenFlow 1.0's own cannot say it.
fn needs_nicira(flow: &FlowMod) -> bool {
    flow.cookie_mask != 0 || !fits_openflow10(&flow.matching) || flow.actions.iter().any(is_extension)
}

fn is_extension(action: &Action) -> bool {
    match action {
        Action::SetField { field, .. } => !action::is_openflow10(*field),
        Action::WriteMetadata { .. } => true,
        Action::Ct(ct) => ct.exec.iter().any(is_extension),
        Action::Clone(actions) => actions.iter().any(is_extension),
        _ => false,
    }
}

fn write_match_and_blank(
    out: &mut dyn Write,
    matching: &Match,
    priority: u16,
    ports: &dyn PortNames,
) -> fmt::Result {
    write_match(out, matching, priority, ports)?;
    let nothing = *matching == Match::ANY && priority == DEFAULT_PRIORITY;
    if nothing { Ok(()) } else { out.write_str(" ") }
}

fn write_flags(out: &mut dyn Write, flags: Flags) -> fmt::Result {
    let all = [
        (flags.send_flow_rem, "send_flow_rem "),
        (flags.check_overlap, "check_overlap "),
        (flags.reset_counts, "reset_counts "),
        (flags.no_packet_counts, "no_packet_counts "),
        (flags.no_byte_counts, "no_byte_counts "),
    ];
    all.iter().filter(|(set, _)| *set).try_for_each(|(_, flag)| out.write_str(flag))
}

/// As OVS writes them: whole seconds without a fraction, whole milliseconds with three digits, anything finer with
/// as many digits as it takes.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanoseconds) = (self.0.as_secs(), self.0.subsec_nanos());
        match nanoseconds {
            0 => write!(f, "{seconds}s"),
            _ if nanoseconds % 1_000_000 == 0 => write!(f, "{seconds}.{:03}s", nanoseconds / 1_000_000),
            _ => {
                let fraction = format!("{nanoseconds:09}");
                write!(f, "{seconds}.{}s", fraction.trim_end_matches('0'))
            }
        }
    }
}
