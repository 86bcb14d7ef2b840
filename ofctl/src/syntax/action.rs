//! Lists of actions.

use super::ct;
use super::error::{ActionError, SubfieldError, ValueError};
use super::items::{GrammarError, Item, Items};
use super::number::{integer, number, u64_or_minus_one};
use super::value::{self, ethernet};
use crate::action::{Action, Direction};
use crate::field::{Field, Subfield, ones};
use crate::port::{PortNames, PortNo};

/// How many bytes of a packet a controller gets where the text does not say.
const WHOLE_PACKET: u16 = u16::MAX;

/// Reads what follows `actions=`. An empty list is a drop, as is `drop`.
///
/// # Errors
/// Says what is wrong, in OVS's words.
pub fn parse_actions(text: &str, ports: &dyn PortNames) -> Result<Vec<Action>, ActionError> {
    let actions = list(text, ports, Context::Flow)?;
    check_order(&actions)?;
    Ok(actions)
}

/// Where a list of actions stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    /// In a flow.
    Flow,
    /// In `ct(exec(..))`, where alone the mark and the label of a connection can be written.
    CtExec,
}

pub(super) fn list(text: &str, ports: &dyn PortNames, context: Context) -> Result<Vec<Action>, ActionError> {
    let mut actions = Vec::new();
    let mut drop = false;
    for item in Items::new(text) {
        let item = item?;
        let drops = item.key.eq_ignore_ascii_case("drop");
        if drop && !drops {
            return Err(ActionError::DropAccompanied);
        }
        if drops {
            no_argument(item)?;
            drop = true;
        } else {
            action(item, ports, context, &mut actions)?;
        }
    }
    if drop && !actions.is_empty() {
        return Err(ActionError::DropAccompanied);
    }
    Ok(actions)
}

fn action(
    item: Item<'_>,
    ports: &dyn PortNames,
    context: Context,
    actions: &mut Vec<Action>,
) -> Result<(), ActionError> {
    let argument = item.argument();
    let action = match item.key.to_ascii_lowercase().as_str() {
        "output" => output(argument, ports)?,
        "controller" => controller(argument)?,
        "resubmit" => resubmit(argument, ports)?,
        "goto_table" => Action::GotoTable(table(argument)?),
        "write_metadata" => write_metadata(argument)?,
        "load" => return load(argument, context, actions),
        "set_field" => set_field(argument, ports, context)?,
        "move" => move_bits(argument, context)?,
        "mod_dl_src" => Action::ModDl(Direction::Src, mac(argument)?),
        "mod_dl_dst" => Action::ModDl(Direction::Dst, mac(argument)?),
        "mod_nw_src" => Action::ModNw(Direction::Src, ip(argument)?),
        "mod_nw_dst" => Action::ModNw(Direction::Dst, ip(argument)?),
        "mod_tp_src" => Action::ModTp(Direction::Src, named_number("source port", argument)?),
        "mod_tp_dst" => Action::ModTp(Direction::Dst, named_number("destination port", argument)?),
        "mod_nw_tos" => Action::ModNwTos(limited("TOS", argument, |tos: u8| tos & 3 == 0)?),
        "mod_nw_ecn" => Action::ModNwEcn(limited("ECN", argument, |ecn: u8| ecn <= 3)?),
        "mod_nw_ttl" => Action::ModNwTtl(named_number("TTL", argument)?),
        "dec_ttl" => plain(item, Action::DecTtl)?,
        "mod_vlan_vid" | "set_vlan_vid" => {
            Action::ModVlanVid(limited("VLAN VID", argument, |vid: u16| vid <= 0xfff)?)
        }
        "mod_vlan_pcp" | "set_vlan_pcp" => {
            Action::ModVlanPcp(limited("VLAN PCP", argument, |pcp: u8| pcp <= 7)?)
        }
        "strip_vlan" | "pop_vlan" => plain(item, Action::StripVlan)?,
        "push_vlan" => push_vlan(argument)?,
        "ct" => Action::Ct(Box::new(ct::arguments(argument, ports)?)),
        "ct_clear" => plain(item, Action::CtClear)?,
        "clone" => Action::Clone(clone(argument, ports)?),
        "note" => note(argument)?,
        // Unlike those of actions, the names of ports are taken to the letter.
        _ => match value::port(item.key, ports) {
            Some(port) => plain(item, Action::Output { port, max_len: 0 })?,
            None => return Err(ActionError::Unknown(item.key.into())),
        },
    };
    actions.push(action);
    Ok(())
}

fn plain(item: Item<'_>, action: Action) -> Result<Action, ActionError> {
    no_argument(item).map(|()| action)
}

fn no_argument(item: Item<'_>) -> Result<(), ActionError> {
    match item.argument() {
        "" => Ok(()),
        argument => Err(ActionError::NeedlessArgument { action: item.key.into(), argument: argument.into() }),
    }
}

fn output(text: &str, ports: &dyn PortNames) -> Result<Action, ActionError> {
    if let Some(port) = value::port(text, ports) {
        let max_len = if port == PortNo::CONTROLLER { WHOLE_PACKET } else { 0 };
        return Ok(Action::Output { port, max_len });
    }
    value::subfield(text).map(Action::OutputReg).map_err(|error| match error {
        // Whatever is no field was more likely meant to be a port.
        SubfieldError::UnknownField { .. } => ActionError::OutputPort(text.into()),
        error => error.into(),
    })
}

/// `controller`, `controller:100` or `controller(max_len=100)`.
fn controller(text: &str) -> Result<Action, ActionError> {
    let max_len = match text {
        "" => WHOLE_PACKET,
        _ if text.starts_with(|c: char| c.is_ascii_digit()) => named_number("max_len", text)?,
        _ => {
            let mut max_len = WHOLE_PACKET;
            for item in Items::new(text) {
                let item = item?;
                if item.key != "max_len" {
                    return Err(ActionError::ControllerKey(item.key.into()));
                }
                max_len = named_number("max_len", item.argument())?;
            }
            max_len
        }
    };
    Ok(Action::Output { port: PortNo::CONTROLLER, max_len })
}

/// `resubmit:port`, `resubmit(port)`, `resubmit(port,table)`, `resubmit(port,table,ct)`; port and table may be
/// left empty, but not both: the packet's own port and the current table would resubmit without an end.
fn resubmit(text: &str, ports: &dyn PortNames) -> Result<Action, ActionError> {
    const CURRENT: u8 = 0xff;
    let mut parameters = text.split(',').map(str::trim);
    let mut parameter = || parameters.next().filter(|parameter| !parameter.is_empty());
    let port = parameter()
        .map(|text| value::port(text, ports).ok_or_else(|| ActionError::ResubmitPort(text.into())))
        .transpose()?
        .filter(|port| *port != PortNo::IN_PORT);
    let table = parameter()
        .map(|text| number(text).ok_or_else(|| ActionError::ResubmitTable(text.into())))
        .transpose()?
        .filter(|table| *table != CURRENT);
    let ct = match parameter() {
        None => false,
        Some("ct") => true,
        Some(unknown) => return Err(ActionError::ResubmitParameter(unknown.into())),
    };
    if let Some(unknown) = parameters.next() {
        return Err(ActionError::ResubmitParameter(unknown.into()));
    }
    if port.is_none() && table.is_none() {
        return Err(ActionError::ResubmitNothing);
    }
    Ok(Action::Resubmit { port, table, ct })
}

fn table(text: &str) -> Result<u8, ActionError> {
    const ALL: u8 = 0xff;
    number(text).filter(|table| *table != ALL).ok_or_else(|| ActionError::UnknownTable(text.into()))
}

fn write_metadata(text: &str) -> Result<Action, ActionError> {
    let read = |text: &str| match text {
        "" => Err(ActionError::MissingNumber),
        _ => u64_or_minus_one(text).ok_or_else(|| ActionError::InvalidNumericFormat(text.into())),
    };
    let (value, mask) = match text.split_once('/') {
        None => (read(text)?, u64::MAX),
        Some((value, mask)) => (read(value)?, read(mask)?),
    };
    Ok(Action::WriteMetadata { value: value & mask, mask })
}

/// `VALUE->FIELD[first..last]`. A run of more than 64 bits becomes two loads, low half first.
fn load(text: &str, context: Context, actions: &mut Vec<Action>) -> Result<(), ActionError> {
    let (digits, dst) = arrow(text)?;
    let value = integer(digits).ok_or_else(|| ActionError::NotAnInteger(text.into()))?;
    let dst = destination(dst, context)?;
    if value & !ones(dst.n_bits) != 0 {
        let (text, value) = (text.into(), digits.into());
        return Err(SubfieldError::DoesNotFit { text, value, bits: dst.n_bits }.into());
    }
    let low = dst.n_bits.min(64);
    actions.push(Action::Load { value: value as u64, dst: Subfield { n_bits: low, ..dst } });
    if dst.n_bits > low {
        let high = Subfield { ofs: dst.ofs + low, n_bits: dst.n_bits - low, ..dst };
        actions.push(Action::Load { value: (value >> low) as u64, dst: high });
    }
    Ok(())
}

fn set_field(text: &str, ports: &dyn PortNames, context: Context) -> Result<Action, ActionError> {
    let (value, name) = arrow(text)?;
    if name.is_empty() {
        return Err(ActionError::MissingFieldName(text.into()));
    }
    let field = Field::by_name(name).ok_or_else(|| ActionError::UnknownField(name.into()))?;
    let info = field.info();
    writable(field, context)?;
    if value.is_empty() {
        let (text, part) = (value.into(), "value");
        return Err(ValueError::BadSyntax { text, field: info.name, part }.into());
    }
    let masked = value::masked(field, value, ports)?;
    Ok(Action::SetField { field, value: masked.value, mask: masked.mask })
}

fn move_bits(text: &str, context: Context) -> Result<Action, ActionError> {
    let (src, dst) =
        text.split_once("->").ok_or_else(|| ActionError::MissingArrowAfterSource(text.into()))?;
    let src = value::subfield(src)?;
    let dst = value::subfield(dst)?;
    if src.n_bits != dst.n_bits {
        return Err(ActionError::WidthsDiffer { text: text.into(), src: src.n_bits, dst: dst.n_bits });
    }
    writable(dst.field, context)?;
    Ok(Action::Move { src, dst })
}

fn arrow(text: &str) -> Result<(&str, &str), ActionError> {
    text.split_once("->").ok_or_else(|| ActionError::MissingArrow(text.into()))
}

fn destination(text: &str, context: Context) -> Result<Subfield, ActionError> {
    let dst = value::subfield(text)?;
    writable(dst.field, context)?;
    Ok(dst)
}

fn writable(field: Field, context: Context) -> Result<(), ActionError> {
    if !field.info().writable {
        return Err(ActionError::ReadOnly(field.info().name));
    }
    match (field, context) {
        (Field::CtMark | Field::CtLabel, Context::Flow) => Err(ActionError::CtFieldOutsideCt),
        _ => Ok(()),
    }
}

fn named_number<T: TryFrom<u128>>(name: &'static str, text: &str) -> Result<T, ActionError> {
    number(text).ok_or_else(|| ActionError::InvalidNumber { name, text: text.into() })
}

fn limited<T>(name: &'static str, text: &str, valid: fn(T) -> bool) -> Result<T, ActionError>
where
    T: TryFrom<u128> + Copy,
{
    let value = named_number(name, text)?;
    if valid(value) { Ok(value) } else { Err(ActionError::NotValid { name, text: text.into() }) }
}

fn mac(text: &str) -> Result<u64, ActionError> {
    ethernet(text).map(|address| address as u64).ok_or_else(|| ActionError::Mac(text.into()))
}

fn ip(text: &str) -> Result<u32, ActionError> {
    let address = text.parse::<std::net::Ipv4Addr>().map_err(|_| ActionError::Ip(text.into()))?;
    Ok(address.to_bits())
}

fn push_vlan(text: &str) -> Result<Action, ActionError> {
    const VLAN: u16 = 0x8100;
    limited("VLAN ethertype", text, |ethertype| ethertype == VLAN).map(Action::PushVlan)
}

fn clone(text: &str, ports: &dyn PortNames) -> Result<Vec<Action>, ActionError> {
    let actions = list(text, ports, Context::Flow)?;
    match actions.iter().find_map(instruction) {
        Some(name) => Err(ActionError::NotAllowedHere(name)),
        None => Ok(actions),
    }
}

/// Hexadecimal bytes with or without dots between. On the wire a note fills its action, which is a multiple of
/// 8 bytes, 10 of them header; so it does here.
fn note(text: &str) -> Result<Action, ActionError> {
    let mut note = Vec::new();
    let mut rest = text.trim_start_matches('.');
    while !rest.is_empty() {
        let byte = rest.get(..2).filter(|byte| byte.chars().all(|c| c.is_ascii_hexdigit()));
        let byte = byte.and_then(|byte| u8::from_str_radix(byte, 16).ok()).ok_or(ActionError::NoteDigit)?;
        note.push(byte);
        rest = rest[2..].trim_start_matches('.');
    }
    note.resize((note.len() + 10).next_multiple_of(8).max(16) - 10, 0);
    Ok(Action::Note(note))
}

/// The name of an action that is an instruction in OpenFlow 1.1 and later.
fn instruction(action: &Action) -> Option<&'static str> {
    match action {
        Action::WriteMetadata { .. } => Some("write_metadata"),
        Action::GotoTable(_) => Some("goto_table"),
        _ => None,
    }
}

/// Instructions run in a fixed order in OpenFlow 1.1, so the text has to have that order: actions, then
/// `write_metadata`, then `goto_table`.
fn check_order(actions: &[Action]) -> Result<(), ActionError> {
    const ORDER: [&str; 3] = ["apply_actions", "write_metadata", "goto_table"];
    let rank = |action: &Action| match instruction(action) {
        None => 0,
        Some("write_metadata") => 1,
        Some(_) => 2,
    };
    for (before, after) in actions.iter().zip(actions.iter().skip(1)) {
        let (before, after) = (rank(before), rank(after));
        if before > after {
            return Err(ActionError::Ordering { first: ORDER[after], second: ORDER[before] });
        }
        if before == after && before != 0 {
            return Err(ActionError::Duplicate(ORDER[before]));
        }
    }
    Ok(())
}

impl From<GrammarError<'_>> for ActionError {
    fn from(error: GrammarError<'_>) -> Self {
        match error {
            GrammarError::Unbalanced(text) => Self::Unbalanced(text.into()),
            GrammarError::TrailingText(text) => Self::TrailingText(text.into()),
        }
    }
}
