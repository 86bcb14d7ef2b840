//! The arguments of `ct`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use nom::bytes::complete::take_while1;
use nom::character::complete::char;
use nom::combinator::{map_opt, map_res, opt};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

use super::action::{Context, list};
use super::error::{ActionError, CtError};
use super::items::{Item, Items};
use super::number::number;
use super::value;
use crate::action::{Action, Alg, Ct, Direction, Nat, Zone};
use crate::field::Field;
use crate::port::PortNames;

/// Reads what is between the parentheses of `ct(..)`.
pub(super) fn arguments(text: &str, ports: &dyn PortNames) -> Result<Ct, ActionError> {
    let mut ct = Ct::default();
    for item in Items::new(text) {
        let item = item?;
        let argument = item.argument();
        match item.key {
            "commit" => ct.commit = flag(item)?,
            "force" => ct.force = flag(item)?,
            "table" => ct.table = Some(table(argument)?),
            "zone" => ct.zone = zone(argument)?,
            "nat" => ct.nat = Some(nat(argument)?),
            "exec" => ct.exec = exec(argument, ports)?,
            "alg" => ct.alg = Some(alg(argument)?),
            key => return Err(CtError::Argument(key.into()).into()),
        }
    }
    if ct.force && !ct.commit {
        return Err(CtError::ForceWithoutCommit.into());
    }
    Ok(ct)
}

fn flag(item: Item<'_>) -> Result<bool, ActionError> {
    match item.value {
        None => Ok(true),
        Some(argument) => {
            Err(ActionError::NeedlessArgument { action: item.key.into(), argument: argument.into() })
        }
    }
}

fn table(text: &str) -> Result<u8, CtError> {
    match number(text) {
        None => Err(CtError::UnknownTable(text.into())),
        Some(0xff) => Err(CtError::InvalidTable(0xff)),
        Some(table) => Ok(table),
    }
}

/// A number, or a field. The width of the field is checked later, with the rest of what the switch would refuse.
fn zone(text: &str) -> Result<Zone, ActionError> {
    match number(text) {
        Some(zone) => Ok(Zone::Constant(zone)),
        None => Ok(Zone::Field(value::subfield(text)?)),
    }
}

fn alg(text: &str) -> Result<Alg, CtError> {
    match text {
        "ftp" => Ok(Alg::Ftp),
        "tftp" => Ok(Alg::Tftp),
        _ => Err(CtError::Helper(text.into())),
    }
}

fn exec(text: &str, ports: &dyn PortNames) -> Result<Vec<Action>, ActionError> {
    let actions = list(text, ports, Context::CtExec)?;
    for action in &actions {
        let field = match action {
            Action::SetField { field, .. } => *field,
            Action::Load { dst, .. } | Action::Move { dst, .. } => dst.field,
            other => return Err(CtError::NestedAction(other.name()).into()),
        };
        if !matches!(field, Field::CtMark | Field::CtLabel) {
            return Err(CtError::NestedModification(field.info().name).into());
        }
    }
    Ok(actions)
}

fn nat(text: &str) -> Result<Nat, ActionError> {
    let mut nat = Nat::default();
    for item in Items::new(text) {
        let item = item?;
        match item.key {
            "src" => nat_range(&mut nat, Direction::Src, item.argument())?,
            "dst" => nat_range(&mut nat, Direction::Dst, item.argument())?,
            "persistent" => nat.persistent = flag(item)?,
            "hash" => nat.hash = flag(item)?,
            "random" => nat.random = flag(item)?,
            key => return Err(CtError::NatKey(key.into()).into()),
        }
    }
    if nat.direction.is_none() && (nat.persistent || nat.hash || nat.random) {
        return Err(CtError::NatFlagsWithoutDirection.into());
    }
    if nat.hash && nat.random {
        return Err(CtError::NatHashAndRandom.into());
    }
    Ok(nat)
}

fn nat_range(nat: &mut Nat, direction: Direction, text: &str) -> Result<(), CtError> {
    if nat.direction.is_some_and(|old| old != direction) {
        return Err(CtError::NatBothDirections);
    }
    nat.direction = Some(direction);
    if text.is_empty() {
        return Ok(());
    }
    let invalid = || CtError::NatRange(text.into());
    let (rest, addresses) = range(address, text).map_err(|_| no_address(text))?;
    let (rest, ports) =
        opt(preceded(char(':'), |rest| range(port, rest))).parse(rest).map_err(|_| invalid())?;
    if rest.starts_with([':', '-']) {
        return Err(invalid());
    }
    if !rest.is_empty() {
        return Err(garbage(text, rest));
    }
    // IPv4 addresses compare as lower than all IPv6 ones, so families are looked at first.
    if addresses.start().is_ipv4() != addresses.end().is_ipv4() || addresses.is_empty() {
        return Err(invalid());
    }
    // Zeros alone are no range, as in OVS.
    let ports = ports.filter(|ports| *ports != (0..=0));
    if ports.as_ref().is_some_and(|ports| ports.is_empty() || *ports.start() == 0) {
        return Err(invalid());
    }
    let unspecified = addresses.start().is_unspecified();
    if unspecified && (addresses.start() != addresses.end() || ports.is_some()) {
        return Err(invalid());
    }
    nat.addresses = (!unspecified).then_some(addresses);
    nat.ports = ports;
    Ok(())
}

/// Names the first character that can be in no address, if there is one.
fn no_address(text: &str) -> CtError {
    match text.trim_start_matches(|c: char| c.is_ascii_hexdigit() || ":.-".contains(c)) {
        "" => CtError::NatRange(text.into()),
        rest => garbage(text, rest),
    }
}

fn garbage(text: &str, rest: &str) -> CtError {
    CtError::NatGarbage { garbage: rest.into(), range: text.into(), position: text.len() - rest.len() }
}

/// `first-last`, or one that is both.
fn range<T: Copy>(one: impl Fn(&str) -> IResult<&str, T>, text: &str) -> IResult<&str, RangeInclusive<T>> {
    let (rest, first) = one(text)?;
    let (rest, last) = opt(preceded(char('-'), &one)).parse(rest)?;
    Ok((rest, first..=last.unwrap_or(first)))
}

/// `10.0.0.1`, `[fe80::1]`, or `fe80::1` where no port can follow.
fn address(text: &str) -> IResult<&str, IpAddr> {
    let v4 = map_res(take_while1(|c: char| c.is_ascii_digit() || c == '.'), |text: &str| {
        text.parse::<Ipv4Addr>().map(IpAddr::V4)
    });
    let v6_text = || take_while1(|c: char| c.is_ascii_hexdigit() || ":.".contains(c));
    let v6 = || map_res(v6_text(), |text: &str| text.parse::<Ipv6Addr>().map(IpAddr::V6));
    nom::branch::alt((delimited(char('['), v6(), char(']')), v6(), v4)).parse(text)
}

fn port(text: &str) -> IResult<&str, u16> {
    map_opt(take_while1(|c: char| c.is_ascii_digit()), |digits: &str| digits.parse().ok()).parse(text)
}
