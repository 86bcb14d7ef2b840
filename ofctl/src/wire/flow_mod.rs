//! Flow-mods and flow-removed messages, in OpenFlow 1.0's own form and in Nicira's.

use std::time::Duration;

use super::actions;
use super::buf::{Put, Reader, Result, flag, padding};
use super::error::{EncodeError, ErrorCode};
use super::message::{FlowRemoved, Protocol, RemovedReason};
use super::nxm;
use super::ofp_match;
use crate::action::{Action, to_openflow10};
use crate::flow::{Command, Flags, FlowMod, Match};
use crate::port::PortNo;

// Flags (OFPFF10_*).
const SEND_FLOW_REM: u16 = 1 << 0;
const CHECK_OVERLAP: u16 = 1 << 1;
/// The emergency flow cache of OpenFlow 1.0.0, which 1.0.1 made optional.
const EMERG: u16 = 1 << 2;

/// The packet is not in the switch's buffer.
const NO_BUFFER: u32 = u32::MAX;
/// In a modify: the cookie stays.
const KEEP_COOKIE: u64 = u64::MAX;
/// In a delete: every table.
const ALL_TABLES: u8 = 0xff;

/// Appends OFPT_FLOW_MOD's body.
pub(super) fn put(out: &mut Vec<u8>, protocol: Protocol, flow: &FlowMod) -> Result<(), EncodeError> {
    ofp_match::put(out, &flow.matching);
    out.u64(wire_cookie(flow));
    put_common(out, protocol, flow)?;
    put_actions(out, flow)
}

/// Appends NXT_FLOW_MOD's body.
pub(super) fn put_nxm(out: &mut Vec<u8>, protocol: Protocol, flow: &FlowMod) -> Result<(), EncodeError> {
    out.u64(wire_cookie(flow));
    put_common(out, protocol, flow)?;
    let len_at = out.len();
    out.zeros(8);
    let len = nxm::put_padded_match(out, &flow.matching, (flow.cookie, flow.cookie_mask));
    out[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
    put_actions(out, flow)
}

fn put_actions(out: &mut Vec<u8>, flow: &FlowMod) -> Result<(), EncodeError> {
    // It would be a resubmit, an action like others, and no action may follow on `write_metadata`.
    let cut_off = |pair: &[Action]| matches!(pair, [Action::WriteMetadata { .. }, Action::GotoTable(_)]);
    if flow.actions.windows(2).any(cut_off) {
        return Err(EncodeError::Unsupported("goto_table behind write_metadata"));
    }
    actions::put(out, &to_openflow10(&flow.matching, &flow.actions))
}

/// Appends what the two forms share: from the command to the flags.
fn put_common(out: &mut Vec<u8>, protocol: Protocol, flow: &FlowMod) -> Result<(), EncodeError> {
    let flags = flow.flags;
    if flags.reset_counts || flags.no_packet_counts || flags.no_byte_counts {
        return Err(EncodeError::Unsupported("a flow's reset_counts, no_packet_counts or no_byte_counts"));
    }
    let command = match flow.command {
        Command::Add => 0,
        Command::Modify => 1,
        Command::ModifyStrict => 2,
        Command::Delete => 3,
        Command::DeleteStrict => 4,
    };
    let table = if protocol.flow_mod_table_id { flow.table.unwrap_or(ALL_TABLES) } else { 0 };
    out.u16(u16::from(table) << 8 | command);
    out.u16(flow.idle_timeout);
    out.u16(flow.hard_timeout);
    out.u16(flow.priority);
    out.u32(NO_BUFFER);
    out.u16(flow.out_port.0);
    out.u16(flag(flags.send_flow_rem, SEND_FLOW_REM) | flag(flags.check_overlap, CHECK_OVERLAP));
    Ok(())
}

fn wire_cookie(flow: &FlowMod) -> u64 {
    match (flow.command, flow.new_cookie) {
        (_, Some(cookie)) => cookie,
        (Command::Modify | Command::ModifyStrict, None) => KEEP_COOKIE,
        (_, None) => 0,
    }
}

/// Reads OFPT_FLOW_MOD's body.
pub(super) fn take(reader: &mut Reader<'_>, protocol: Protocol) -> Result<FlowMod> {
    let (matching, exact) = ofp_match::take(reader)?;
    let cookie = reader.u64()?;
    let mut flow = take_common(reader, protocol, cookie)?;
    flow.matching = matching;
    if exact {
        // A match without wildcards goes before all others in OpenFlow 1.0.
        flow.priority = u16::MAX;
    }
    flow.actions = actions::take(Reader::new(reader.rest(), ErrorCode::ActionBadLen))?;
    Ok(flow)
}

/// Reads NXT_FLOW_MOD's body.
pub(super) fn take_nxm(reader: &mut Reader<'_>, protocol: Protocol) -> Result<FlowMod> {
    let cookie = reader.u64()?;
    let mut flow = take_common(reader, protocol, cookie)?;
    let len = reader.u16()?;
    reader.skip(6)?;
    (flow.matching, (flow.cookie, flow.cookie_mask)) = take_padded_match(reader, len, true)?;
    if flow.command == Command::Add && flow.cookie_mask != 0 {
        // An add meets no flow whose cookie it could ask for.
        return Err(ErrorCode::NxmInvalid.into());
    }
    flow.actions = actions::take(Reader::new(reader.rest(), ErrorCode::ActionBadLen))?;
    Ok(flow)
}

/// Reads a match in NXM of `len` bytes and the padding behind it.
pub(super) fn take_padded_match(
    reader: &mut Reader<'_>,
    len: u16,
    cookie_allowed: bool,
) -> Result<(Match, nxm::Cookie)> {
    let len = usize::from(len);
    let bytes = reader.take(len)?;
    reader.skip(padding(len))?;
    nxm::take_match(Reader::new(bytes, ErrorCode::MatchBadLen), cookie_allowed)
}

fn take_common(reader: &mut Reader<'_>, protocol: Protocol, cookie: u64) -> Result<FlowMod> {
    let command = reader.u16()?;
    let (command, table) = if protocol.flow_mod_table_id {
        (command & 0xff, (command >> 8) as u8)
    } else {
        (command, ALL_TABLES)
    };
    let command = match command {
        0 => Command::Add,
        1 => Command::Modify,
        2 => Command::ModifyStrict,
        3 => Command::Delete,
        4 => Command::DeleteStrict,
        _ => return Err(ErrorCode::FlowModBadCommand.into()),
    };
    let delete = matches!(command, Command::Delete | Command::DeleteStrict);
    let (idle_timeout, hard_timeout) = (reader.u16()?, reader.u16()?);
    let priority = reader.u16()?;
    if reader.u32()? != NO_BUFFER && !delete {
        return Err(ErrorCode::BufferUnknown.into());
    }
    let out_port = if delete { PortNo(reader.u16()?) } else { reader.skip(2).map(|()| PortNo::NONE)? };
    let flags = reader.u16()?;
    if flags & EMERG != 0 {
        return Err(if idle_timeout != 0 || hard_timeout != 0 {
            ErrorCode::FlowModBadEmergTimeout.into()
        } else {
            ErrorCode::FlowModTableFull.into()
        });
    }
    if flags & !(SEND_FLOW_REM | CHECK_OVERLAP) != 0 {
        return Err(ErrorCode::FlowModBadFlags.into());
    }
    let new_cookie = match command {
        Command::Add => Some(cookie),
        Command::Modify | Command::ModifyStrict => (cookie != KEEP_COOKIE).then_some(cookie),
        Command::Delete | Command::DeleteStrict => None,
    };
    Ok(FlowMod {
        command,
        table: (table != ALL_TABLES).then_some(table),
        priority,
        matching: Match::default(),
        new_cookie,
        cookie: 0,
        cookie_mask: 0,
        idle_timeout,
        hard_timeout,
        importance: 0,
        out_port,
        flags: Flags {
            send_flow_rem: flags & SEND_FLOW_REM != 0,
            check_overlap: flags & CHECK_OVERLAP != 0,
            ..Flags::default()
        },
        actions: Vec::new(),
    })
}

/// Appends OFPT_FLOW_REMOVED's body.
pub(super) fn put_removed(out: &mut Vec<u8>, removed: &FlowRemoved) {
    ofp_match::put(out, &removed.matching);
    out.u64(removed.cookie);
    out.u16(removed.priority);
    out.u8(removed.reason as u8);
    out.u8(0);
    put_duration(out, removed.duration);
    out.u16(removed.idle_timeout);
    out.u16(0);
    out.u64(removed.packets);
    out.u64(removed.bytes);
}

/// Appends NXT_FLOW_REMOVED's body.
pub(super) fn put_nxm_removed(out: &mut Vec<u8>, removed: &FlowRemoved) {
    out.u64(removed.cookie);
    out.u16(removed.priority);
    out.u8(removed.reason as u8);
    out.u8(removed.table.map_or(0, |table| table.saturating_add(1)));
    put_duration(out, removed.duration);
    out.u16(removed.idle_timeout);
    let len_at = out.len();
    out.u16(0);
    out.u64(removed.packets);
    out.u64(removed.bytes);
    let len = nxm::put_padded_match(out, &removed.matching, (0, 0));
    out[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
}

/// Reads OFPT_FLOW_REMOVED's body.
pub(super) fn take_removed(reader: &mut Reader<'_>) -> Result<FlowRemoved> {
    let (matching, _) = ofp_match::take(reader)?;
    let cookie = reader.u64()?;
    let priority = reader.u16()?;
    let reason = take_reason(reader)?;
    reader.skip(1)?;
    let duration = take_duration(reader)?;
    let idle_timeout = reader.u16()?;
    reader.skip(2)?;
    let (packets, bytes) = (reader.u64()?, reader.u64()?);
    let table = None;
    Ok(FlowRemoved { matching, priority, cookie, reason, table, duration, idle_timeout, packets, bytes })
}

/// Reads NXT_FLOW_REMOVED's body.
pub(super) fn take_nxm_removed(reader: &mut Reader<'_>) -> Result<FlowRemoved> {
    let cookie = reader.u64()?;
    let priority = reader.u16()?;
    let reason = take_reason(reader)?;
    let table = reader.u8()?.checked_sub(1);
    let duration = take_duration(reader)?;
    let idle_timeout = reader.u16()?;
    let len = reader.u16()?;
    let (packets, bytes) = (reader.u64()?, reader.u64()?);
    let (matching, _) = take_padded_match(reader, len, false)?;
    Ok(FlowRemoved { matching, priority, cookie, reason, table, duration, idle_timeout, packets, bytes })
}

fn take_reason(reader: &mut Reader<'_>) -> Result<RemovedReason> {
    match reader.u8()? {
        0 => Ok(RemovedReason::IdleTimeout),
        1 => Ok(RemovedReason::HardTimeout),
        2 => Ok(RemovedReason::Delete),
        _ => Err(ErrorCode::BadReason.into()),
    }
}

/// Appends seconds and nanoseconds, 32 bits each.
pub(super) fn put_duration(out: &mut Vec<u8>, duration: Duration) {
    out.u32(u32::try_from(duration.as_secs()).unwrap_or(u32::MAX));
    out.u32(duration.subsec_nanos());
}

/// Reads seconds and nanoseconds.
pub(super) fn take_duration(reader: &mut Reader<'_>) -> Result<Duration> {
    let (seconds, nanoseconds) = (reader.u32()?, reader.u32()?);
    // The sum cannot overflow: 2^32 nanoseconds are a few seconds.
    Ok(Duration::from_secs(seconds.into()) + Duration::from_nanos(nanoseconds.into()))
}
