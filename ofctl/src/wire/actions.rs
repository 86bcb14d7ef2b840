//! Lists of actions as OpenFlow 1.0 writes them: its own actions here, Nicira's in [`nicira_actions`].

use std::slice;

use super::buf::{Put, Reader, Result};
use super::error::{EncodeError, ErrorCode, NICIRA};
use super::nicira_actions;
use crate::action::{Action, Direction, to_openflow10};
use crate::flow::Match;
use crate::port::PortNo;

// Types (OFPAT10_*).
const OUTPUT: u16 = 0;
const SET_VLAN_VID: u16 = 1;
const SET_VLAN_PCP: u16 = 2;
const STRIP_VLAN: u16 = 3;
const SET_DL_SRC: u16 = 4;
const SET_DL_DST: u16 = 5;
const SET_NW_SRC: u16 = 6;
const SET_NW_DST: u16 = 7;
const SET_NW_TOS: u16 = 8;
const SET_TP_SRC: u16 = 9;
const SET_TP_DST: u16 = 10;
const VENDOR: u16 = 0xffff;

/// How deep `clone` and `ct` may nest: deeper than anybody writes, shallow enough for any stack.
const MAX_DEPTH: u8 = 16;

/// Appends actions, each a multiple of 8 bytes long.
pub(super) fn put(out: &mut Vec<u8>, actions: &[Action]) -> Result<(), EncodeError> {
    actions.iter().try_for_each(|action| put_one(out, action))
}

fn put_one(out: &mut Vec<u8>, action: &Action) -> Result<(), EncodeError> {
    match action {
        Action::Output { port, max_len } => put_short(out, OUTPUT, |out| {
            out.u16(port.0);
            out.u16(*max_len);
        }),
        Action::ModVlanVid(vid) => put_short(out, SET_VLAN_VID, |out| out.u16(*vid)),
        Action::ModVlanPcp(pcp) => put_short(out, SET_VLAN_PCP, |out| out.u8(*pcp)),
        Action::StripVlan => put_short(out, STRIP_VLAN, |_| ()),
        Action::ModDl(direction, address) => {
            let kind = match direction {
                Direction::Src => SET_DL_SRC,
                Direction::Dst => SET_DL_DST,
            };
            put_short(out, kind, |out| out.uint(u128::from(*address), 6));
        }
        Action::ModNw(direction, address) => {
            let kind = match direction {
                Direction::Src => SET_NW_SRC,
                Direction::Dst => SET_NW_DST,
            };
            put_short(out, kind, |out| out.u32(*address));
        }
        Action::ModTp(direction, port) => {
            let kind = match direction {
                Direction::Src => SET_TP_SRC,
                Direction::Dst => SET_TP_DST,
            };
            put_short(out, kind, |out| out.u16(*port));
        }
        Action::ModNwTos(tos) => put_short(out, SET_NW_TOS, |out| out.u8(*tos)),
        Action::SetField { .. } | Action::ModNwEcn(_) | Action::ModNwTtl(_) | Action::GotoTable(_) => {
            return put(out, &to_openflow10(&Match::ANY, slice::from_ref(action)));
        }
        _ => return nicira_actions::put(out, action),
    }
    Ok(())
}

/// Appends an action of OpenFlow's own, padded to 8 or 16 bytes.
fn put_short(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.u16(kind);
    out.u16(0);
    body(out);
    let len = (out.len() - start).next_multiple_of(8);
    out.resize(start + len, 0);
    out[start + 3] = len as u8;
}

/// Reads actions to the end of the reader.
///
/// # Errors
/// OFPBAC_BAD_TYPE, BAD_LEN, BAD_VENDOR, BAD_ARGUMENT and so on, as Open vSwitch gives them.
pub(super) fn take(reader: Reader<'_>) -> Result<Vec<Action>> {
    take_nested(reader, 0)
}

/// Reads actions that are inside `depth` others.
pub(super) fn take_nested(mut reader: Reader<'_>, depth: u8) -> Result<Vec<Action>> {
    if depth > MAX_DEPTH {
        return Err(ErrorCode::ActionTooMany.into());
    }
    let mut actions = Vec::new();
    while !reader.is_empty() {
        let (kind, body) = take_header(&mut reader)?;
        actions.push(take_one(kind, body, depth)?);
    }
    Ok(actions)
}

/// Reads an action's type and length, and gives a reader over the rest of the action.
pub(super) fn take_header<'a>(reader: &mut Reader<'a>) -> Result<(u16, Reader<'a>)> {
    let mut header = *reader;
    let kind = header.u16()?;
    let len = usize::from(header.u16()?);
    if len < 8 || !len.is_multiple_of(8) {
        return Err(ErrorCode::ActionBadLen.into());
    }
    let mut action = Reader::new(reader.take(len)?, ErrorCode::ActionBadLen);
    action.skip(4)?;
    Ok((kind, action))
}

fn take_one(kind: u16, mut body: Reader<'_>, depth: u8) -> Result<Action> {
    if kind == VENDOR {
        return match body.u32()? {
            NICIRA => nicira_actions::take(body, depth),
            _ => Err(ErrorCode::ActionBadVendor.into()),
        };
    }
    let expected = match kind {
        SET_DL_SRC | SET_DL_DST => 12,
        OUTPUT..=SET_TP_DST => 4,
        _ => return Err(ErrorCode::ActionBadType.into()),
    };
    if body.remaining() != expected {
        return Err(ErrorCode::ActionBadLen.into());
    }
    Ok(match kind {
        OUTPUT => {
            let port = output_port(body.u16()?)?;
            Action::Output { port, max_len: body.u16()? }
        }
        SET_VLAN_VID => Action::ModVlanVid(within(body.u16()?, 0x0fff)?),
        SET_VLAN_PCP => Action::ModVlanPcp(within(body.u8()?, 7)?),
        STRIP_VLAN => Action::StripVlan,
        SET_DL_SRC => Action::ModDl(Direction::Src, body.uint(6)? as u64),
        SET_DL_DST => Action::ModDl(Direction::Dst, body.uint(6)? as u64),
        SET_NW_SRC => Action::ModNw(Direction::Src, body.u32()?),
        SET_NW_DST => Action::ModNw(Direction::Dst, body.u32()?),
        SET_NW_TOS => Action::ModNwTos(within(body.u8()?, 0xfc)?),
        SET_TP_SRC => Action::ModTp(Direction::Src, body.u16()?),
        _ => Action::ModTp(Direction::Dst, body.u16()?),
    })
}

/// A port that an action may send to.
fn output_port(number: u16) -> Result<PortNo> {
    let port = PortNo(number);
    if port > PortNo::MAX && !(PortNo::IN_PORT..=PortNo::LOCAL).contains(&port) {
        return Err(ErrorCode::ActionBadOutPort.into());
    }
    Ok(port)
}

/// `value` if it has only `allowed` bits.
fn within<T>(value: T, allowed: T) -> Result<T>
where
    T: Copy + PartialEq + std::ops::BitAnd<Output = T>,
{
    if value & allowed == value { Ok(value) } else { Err(ErrorCode::ActionBadArgument.into()) }
}
