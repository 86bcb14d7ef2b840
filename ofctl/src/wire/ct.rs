//! NXAST_CT and, inside it, NXAST_NAT.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::actions;
use super::buf::{Put, Reader, Result, flag};
use super::error::{EncodeError, ErrorCode, NICIRA};
use super::nicira_actions::{self, split_run};
use super::nxm;
use crate::action::{Action, Alg, Ct, Direction, Nat, Zone};

// Flags of NXAST_CT.
const COMMIT: u16 = 1 << 0;
const FORCE: u16 = 1 << 1;

/// The table number that stands for no table.
const NO_TABLE: u8 = 0xff;

// The ports by which the helpers go.
const ALG_NONE: u16 = 0;
const ALG_FTP: u16 = 21;
const ALG_TFTP: u16 = 69;

const NAT_SUBTYPE: u16 = 36;

// Flags of NXAST_NAT.
const NAT_SRC: u16 = 1 << 0;
const NAT_DST: u16 = 1 << 1;
const NAT_PERSISTENT: u16 = 1 << 2;
const NAT_HASH: u16 = 1 << 3;
const NAT_RANDOM: u16 = 1 << 4;
const NAT_FLAGS: u16 = 0x1f;

// What of a range NXAST_NAT has.
const IPV4_MIN: u16 = 1 << 0;
const IPV4_MAX: u16 = 1 << 1;
const IPV6_MIN: u16 = 1 << 2;
const IPV6_MAX: u16 = 1 << 3;
const PORT_MIN: u16 = 1 << 4;
const PORT_MAX: u16 = 1 << 5;

/// Appends a ct action's body.
pub(super) fn put(out: &mut Vec<u8>, ct: &Ct) -> Result<(), EncodeError> {
    out.u16(flag(ct.commit, COMMIT) | flag(ct.force, FORCE));
    match ct.zone {
        Zone::Constant(zone) => {
            out.u32(0);
            out.u16(zone);
        }
        Zone::Field(src) => {
            nxm::put_header(out, src.field);
            out.u16(u16::from(src.ofs) << 6 | u16::from(src.n_bits.wrapping_sub(1) & 0x3f));
        }
    }
    out.u8(ct.table.unwrap_or(NO_TABLE));
    out.zeros(3);
    out.u16(match ct.alg {
        None => ALG_NONE,
        Some(Alg::Ftp) => ALG_FTP,
        Some(Alg::Tftp) => ALG_TFTP,
    });
    if let Some(nat) = &ct.nat {
        nicira_actions::put_action(out, NAT_SUBTYPE, |out| {
            put_nat(out, nat);
            Ok(())
        })?;
    }
    actions::put(out, &ct.exec)
}

fn put_nat(out: &mut Vec<u8>, nat: &Nat) {
    let direction = match nat.direction {
        None => 0,
        Some(Direction::Src) => NAT_SRC,
        Some(Direction::Dst) => NAT_DST,
    };
    out.zeros(2);
    out.u16(
        direction
            | flag(nat.persistent, NAT_PERSISTENT)
            | flag(nat.hash, NAT_HASH)
            | flag(nat.random, NAT_RANDOM),
    );
    let mut present = 0;
    let mut range = Vec::new();
    if let Some(addresses) = &nat.addresses {
        let (min, max) =
            if addresses.start().is_ipv4() { (IPV4_MIN, IPV4_MAX) } else { (IPV6_MIN, IPV6_MAX) };
        put_range(&mut range, &mut present, addresses, (min, max), |out, address| match address {
            IpAddr::V4(address) => out.put(&address.octets()),
            IpAddr::V6(address) => out.put(&address.octets()),
        });
    }
    if let Some(ports) = &nat.ports {
        put_range(&mut range, &mut present, ports, (PORT_MIN, PORT_MAX), |out, port| out.u16(*port));
    }
    out.u16(present);
    out.put(&range);
}

/// Appends a range's first value, and its last one where that differs.
fn put_range<T: PartialEq>(
    out: &mut Vec<u8>,
    present: &mut u16,
    range: &RangeInclusive<T>,
    (min, max): (u16, u16),
    put: impl Fn(&mut Vec<u8>, &T),
) {
    *present |= min;
    put(out, range.start());
    if range.end() != range.start() {
        *present |= max;
        put(out, range.end());
    }
}

/// Reads a ct action from its flags on.
pub(super) fn take(mut body: Reader<'_>, depth: u8) -> Result<Ct> {
    let flags = body.u16()?;
    let zone = take_zone(&mut body)?;
    let table = body.u8()?;
    body.skip(3)?;
    let alg = match body.u16()? {
        ALG_NONE => None,
        ALG_FTP => Some(Alg::Ftp),
        ALG_TFTP => Some(Alg::Tftp),
        _ => return Err(ErrorCode::ActionBadArgument.into()),
    };
    let commit = flags & COMMIT != 0;
    let force = flags & FORCE != 0;
    let (nat, exec) = take_nested(body, depth)?;
    let new_binding = nat.as_ref().is_some_and(|nat| nat.direction.is_some());
    if !commit && (force || new_binding || !exec.is_empty()) {
        return Err(ErrorCode::ActionBadArgument.into());
    }
    let table = (table != NO_TABLE).then_some(table);
    Ok(Ct { commit, force, table, zone, nat, exec, alg })
}

/// Reads the zone: a constant where there is no field, else 16 bits of the field.
fn take_zone(body: &mut Reader<'_>) -> Result<Zone> {
    let mut ahead = *body;
    if ahead.u32()? == 0 {
        body.skip(4)?;
        return Ok(Zone::Constant(body.u16()?));
    }
    let field = nxm::take_header(body)?;
    let (ofs, n_bits) = split_run(body.u16()?);
    if n_bits != 16 {
        return Err(ErrorCode::ActionBadSetLen.into());
    }
    Ok(Zone::Field(nxm::subfield(field, ofs, n_bits)?))
}

/// Reads the actions inside a ct: at most one nat, and what sets the connection's mark and label.
fn take_nested(mut body: Reader<'_>, depth: u8) -> Result<(Option<Nat>, Vec<Action>)> {
    let mut nat = None;
    let mut exec = Vec::new();
    while !body.is_empty() {
        let start = body;
        let (kind, mut action) = actions::take_header(&mut body)?;
        if kind == 0xffff && action.u32()? == NICIRA && action.u16()? == NAT_SUBTYPE {
            if nat.replace(take_nat(action)?).is_some() {
                return Err(ErrorCode::ActionBadArgument.into());
            }
            continue;
        }
        let mut whole = start;
        let one = whole.sub(start.remaining() - body.remaining())?;
        for action in actions::take_nested(one, depth + 1)? {
            if !action.sets_connection() {
                return Err(ErrorCode::ActionBadArgument.into());
            }
            exec.push(action);
        }
    }
    Ok((nat, exec))
}

fn take_nat(mut body: Reader<'_>) -> Result<Nat> {
    body.zeros(2, ErrorCode::ActionMustBeZero)?;
    let flags = body.u16()?;
    if flags & !NAT_FLAGS != 0 {
        return Err(ErrorCode::ActionBadArgument.into());
    }
    let direction = match (flags & NAT_SRC != 0, flags & NAT_DST != 0) {
        (false, false) => None,
        (true, false) => Some(Direction::Src),
        (false, true) => Some(Direction::Dst),
        (true, true) => return Err(ErrorCode::ActionBadArgument.into()),
    };
    let hash = flags & NAT_HASH != 0;
    let random = flags & NAT_RANDOM != 0;
    let present = body.u16()?;
    let v4 = take_range(&mut body, present, (IPV4_MIN, IPV4_MAX), |body| {
        Ok(IpAddr::from(Ipv4Addr::from(body.u32()?)))
    })?;
    let v6 = take_range(&mut body, present, (IPV6_MIN, IPV6_MAX), |body| {
        Ok(IpAddr::from(Ipv6Addr::from(body.array::<16>()?)))
    })?;
    let ports = take_range(&mut body, present, (PORT_MIN, PORT_MAX), Reader::u16)?;
    if direction.is_none() && flags & !(NAT_SRC | NAT_DST) != 0
        || direction.is_none() && present != 0
        || hash && random
        || v4.is_some() && v6.is_some()
        || [&v4, &v6].into_iter().flatten().any(|addresses| addresses.start().is_unspecified())
        || ports.as_ref().is_some_and(|ports| *ports.start() == 0 || v4.is_none() && v6.is_none())
    {
        return Err(ErrorCode::ActionBadArgument.into());
    }
    let persistent = flags & NAT_PERSISTENT != 0;
    Ok(Nat { direction, addresses: v4.or(v6), ports, persistent, hash, random })
}

/// Reads a range's first and last value, as far as they are present.
fn take_range<'a, T: PartialOrd + Copy>(
    body: &mut Reader<'a>,
    present: u16,
    (min, max): (u16, u16),
    take: impl Fn(&mut Reader<'a>) -> Result<T>,
) -> Result<Option<RangeInclusive<T>>> {
    if present & min == 0 {
        // A last value alone is no range.
        return if present & max == 0 { Ok(None) } else { Err(ErrorCode::ActionBadArgument.into()) };
    }
    let first = take(body)?;
    let last = if present & max == 0 { first } else { take(body)? };
    if last < first {
        return Err(ErrorCode::ActionBadArgument.into());
    }
    Ok(Some(first..=last))
}
