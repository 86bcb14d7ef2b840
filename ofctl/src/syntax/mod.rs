//! The text syntax of flows: what `ovs-ofctl add-flow` and its relatives take.
//!
//! As in OVS, with these differences. A field without its prerequisite is an error, where OVS drops it and
//! so matches more than was asked for. A comma in `ct_state=+trk,+new` continues the field. Numbers that do
//! not fit a field, unbalanced parentheses, and text or arguments where none belong are errors.

mod action;
mod ct;
mod ct_flush;
mod error;
mod items;
mod matching;
mod number;
#[cfg(test)]
mod tests;
mod value;

use crate::action::{check_consistency, check_goto};
use crate::flow::{Command, Flags, FlowFilter, FlowMod};
use crate::port::{PortNames, PortNo};
use items::{GrammarError, Item, Items, split_actions};
use matching::MatchBuilder;
use number::{number, u64_or_minus_one};

pub use action::parse_actions;
pub use ct_flush::{CtFlushError, CtTupleError, parse_ct_flush};
pub use error::{ActionError, CtError, ParseError, SubfieldError, ValueError};
pub use value::port as parse_port;

/// The highest table number: 255 means all tables, or the current one.
const LAST_TABLE: u8 = 254;

/// Reads a flow: `table=0, priority=50, tcp, in_port=1, actions=output:2`.
///
/// Which keys are taken depends on the command: deletes take `out_port` but no actions, timeouts or flags, and
/// only the strict one takes a priority. The counters of a dumped flow are skipped.
///
/// # Errors
/// Says what is wrong and where, in OVS's words.
pub fn parse_flow(text: &str, command: Command, ports: &dyn PortNames) -> Result<FlowMod, ParseError> {
    let mut flow = FlowMod::new(command);
    let items = if Keys::of(command).actions {
        let (items, actions) = split_actions(text).ok_or(ParseError::MissingAction)?;
        flow.actions = parse_actions(actions, ports)?;
        items
    } else {
        text
    };
    parse_items(items, &mut flow, ports)?;
    check_consistency(&flow.matching, &flow.actions)?;
    if let Some(table) = flow.table {
        check_goto(table, LAST_TABLE, &flow.actions)?;
    }
    let modifies = matches!(command, Command::Modify | Command::ModifyStrict);
    if modifies && flow.cookie_mask == 0 {
        // A modify that looks for no cookie may add the flow, which then needs one; so OVS always sends one.
        flow.new_cookie.get_or_insert(0);
    }
    Ok(flow)
}

/// Reads what `dump-flows` and `dump-aggregate` filter by: a match, `table`, `cookie` with a mask, `out_port`.
///
/// # Errors
/// As [`parse_flow`].
pub fn parse_flow_filter(text: &str, ports: &dyn PortNames) -> Result<FlowFilter, ParseError> {
    let FlowMod { table, matching, cookie, cookie_mask, out_port, .. } =
        parse_flow(text, Command::Delete, ports)?;
    Ok(FlowFilter { table, matching, cookie, cookie_mask, out_port })
}

/// Reads a line of a file of flows. It may start with what to do: `add`, `delete`, `delete_strict`, `modify` or
/// `modify_strict`; else it is `default`. `None` for a line that is empty but for a comment.
///
/// # Errors
/// As [`parse_flow`].
pub fn parse_flow_line(
    line: &str,
    default: Command,
    ports: &dyn PortNames,
) -> Result<Option<FlowMod>, ParseError> {
    let text = line.split('#').next().unwrap_or_default().trim();
    if text.is_empty() {
        return Ok(None);
    }
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    let command = match word {
        "add" => Some(Command::Add),
        "modify" => Some(Command::Modify),
        "modify_strict" => Some(Command::ModifyStrict),
        "delete" => Some(Command::Delete),
        "delete_strict" => Some(Command::DeleteStrict),
        _ => None,
    };
    match command {
        Some(command) => parse_flow(rest, command, ports).map(Some),
        None => parse_flow(text, default, ports).map(Some),
    }
}

/// The keys that a command takes.
struct Keys {
    actions: bool,
    out_port: bool,
    timeouts: bool,
    priority: bool,
    flags: bool,
    importance: bool,
}

impl Keys {
    fn of(command: Command) -> Self {
        let modify = matches!(command, Command::Modify | Command::ModifyStrict);
        let add = command == Command::Add;
        Self {
            actions: add || modify,
            out_port: !add && !modify,
            timeouts: add || modify,
            priority: command != Command::Delete,
            flags: add || modify,
            importance: add,
        }
    }
}

fn parse_items(text: &str, flow: &mut FlowMod, ports: &dyn PortNames) -> Result<(), ParseError> {
    let keys = Keys::of(flow.command);
    let mut matching = MatchBuilder::default();
    let mut items = Items::new(text);
    while let Some(item) = items.next() {
        let item = item?;
        let taken = keys.flags && set_flag(&mut flow.flags, item)?
            || matching.take(item, &mut items, ports)?
            || set_property(flow, &keys, item, ports)?;
        if !taken {
            return Err(ParseError::UnknownKeyword(item.key.into()));
        }
    }
    flow.matching = matching.finish()?;
    Ok(())
}

fn set_flag(flags: &mut Flags, item: Item<'_>) -> Result<bool, ParseError> {
    let flag = match item.key {
        "send_flow_rem" => &mut flags.send_flow_rem,
        "check_overlap" => &mut flags.check_overlap,
        "reset_counts" => &mut flags.reset_counts,
        "no_packet_counts" => &mut flags.no_packet_counts,
        "no_byte_counts" => &mut flags.no_byte_counts,
        _ => return Ok(false),
    };
    if let Some(value) = item.value {
        return Err(ParseError::NeedlessValue { key: item.key.into(), value: value.into() });
    }
    *flag = true;
    Ok(true)
}

fn set_property(
    flow: &mut FlowMod,
    keys: &Keys,
    item: Item<'_>,
    ports: &dyn PortNames,
) -> Result<bool, ParseError> {
    let value = item.argument();
    if value.is_empty() {
        return Err(ParseError::MissingValue(item.key.into()));
    }
    let seconds = |name| number(value).ok_or_else(|| ParseError::InvalidNumber { name, text: value.into() });
    match item.key {
        "table" => flow.table = parse_table(value).ok_or_else(|| ParseError::UnknownTable(value.into()))?,
        "out_port" if keys.out_port => flow.out_port = out_port(value, ports)?,
        "priority" if keys.priority => flow.priority = seconds("priority")?,
        "idle_timeout" if keys.timeouts => flow.idle_timeout = seconds("idle_timeout")?,
        "hard_timeout" if keys.timeouts => flow.hard_timeout = seconds("hard_timeout")?,
        "importance" if keys.importance => flow.importance = seconds("importance")?,
        "cookie" => set_cookie(flow, value)?,
        "duration" | "n_packets" | "n_bytes" | "idle_age" | "hard_age" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

/// A table's number; 255 means all of them. The outer `None`: not a table.
fn parse_table(text: &str) -> Option<Option<u8>> {
    const ALL: u8 = 0xff;
    number(text).map(|table| (table != ALL).then_some(table))
}

fn out_port(text: &str, ports: &dyn PortNames) -> Result<PortNo, ParseError> {
    parse_port(text, ports).ok_or_else(|| ParseError::InvalidOutPort(text.into()))
}

/// With a mask, the cookie is one to look for; without, one to set.
fn set_cookie(flow: &mut FlowMod, text: &str) -> Result<(), ParseError> {
    let read =
        |text: &str| u64_or_minus_one(text).ok_or_else(|| ParseError::InvalidNumericFormat(text.into()));
    match text.split_once('/') {
        Some(_) if flow.command == Command::Add => return Err(ParseError::CookieMaskInAdd),
        Some((cookie, mask)) => {
            flow.cookie_mask = read(mask)?;
            flow.cookie = read(cookie)? & flow.cookie_mask;
        }
        None if matches!(flow.command, Command::Delete | Command::DeleteStrict) => {
            return Err(ParseError::CookieWithoutMask);
        }
        None => flow.new_cookie = Some(read(text)?),
    }
    Ok(())
}

impl From<GrammarError<'_>> for ParseError {
    fn from(error: GrammarError<'_>) -> Self {
        match error {
            GrammarError::Unbalanced(text) => Self::Unbalanced(text.into()),
            GrammarError::TrailingText(text) => Self::TrailingText(text.into()),
        }
    }
}
