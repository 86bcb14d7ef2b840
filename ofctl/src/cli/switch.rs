//! The commands about the switch itself and its ports.

use ofctl::client::{ClientError, Connection, Switch};
use ofctl::port::PortNo;
use ofctl::syntax::{parse_ct_flush, parse_port};
use ofctl::wire::{Message, StatsBody, StatsRequest, SwitchConfig, Xid};

use super::{CliError, Context, format, port_names, refusal, show as print};

pub fn show(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let switch = context.switch(&arguments[0])?;
    match switch.connect()?.request(&Message::FeaturesRequest)? {
        (xid, Message::FeaturesReply(features)) => print(&format::features(xid, features))?,
        _ => return Err(ClientError::UnexpectedReply.into()),
    }
    let (xid, config) = config(&mut switch.connect()?)?;
    print(&format::config(xid, config))
}

fn config(connection: &mut Connection<'_>) -> Result<(Xid, SwitchConfig), CliError> {
    match connection.request(&Message::GetConfigRequest)? {
        (xid, Message::GetConfigReply(config)) => Ok((xid, config)),
        _ => Err(ClientError::UnexpectedReply.into()),
    }
}

pub fn get_frags(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let switch = context.switch(&arguments[0])?;
    let (_, config) = config(&mut switch.connect()?)?;
    print(&format!("{}\n", format::fragments(config)))
}

pub fn set_frags(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let mode = &arguments[1];
    let flags = format::FRAGMENTS.iter().position(|name| name == mode);
    let flags = flags.ok_or_else(|| CliError::UnknownFragments(mode.clone()))? as u16;
    let switch = context.switch(&arguments[0])?;
    let mut connection = switch.connect()?;
    let (_, before) = config(&mut connection)?;
    connection.command(&Message::SetConfig(SwitchConfig { flags, ..before }))?;
    let (_, after) = config(&mut connection)?;
    if after.flags == flags {
        Ok(())
    } else {
        Err(CliError::Fragments { target: switch.target().into(), mode: mode.clone() })
    }
}

pub fn dump_desc(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let switch = context.switch(&arguments[0])?;
    match switch.connect()?.statistic(StatsRequest::Desc)? {
        (xid, StatsBody::Desc(desc)) => print(&format::desc(xid, &desc)),
        _ => Err(ClientError::UnexpectedReply.into()),
    }
}

pub fn dump_tables(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let switch = context.switch(&arguments[0])?;
    let (xid, tables) = all(&switch, StatsRequest::Table, |body| match body {
        StatsBody::Table(tables) => Some(tables),
        _ => None,
    })?;
    print(&format::tables(xid, &tables))
}

/// All parts of a reply that is a list, and the last one's number.
fn all<T>(
    switch: &Switch,
    request: StatsRequest,
    part: impl Fn(StatsBody) -> Option<Vec<T>>,
) -> Result<(Xid, Vec<T>), ClientError> {
    let (mut list, mut last) = (Vec::new(), 0);
    switch.connect()?.statistics(request, |xid, reply| {
        last = xid;
        list.extend(part(reply.body).ok_or(ClientError::UnexpectedReply)?);
        Ok::<_, ClientError>(())
    })?;
    Ok((last, list))
}

pub fn dump_ports(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let switch = context.switch(&arguments[0])?;
    let port = match arguments.get(1) {
        None => PortNo::NONE,
        // Numbers need no names.
        Some(text) => match text.parse() {
            Ok(number) => PortNo(number),
            Err(_) => parse_port(text, &port_names(&switch)?).ok_or_else(|| CliError::UnknownPort {
                target: switch.target().into(),
                port: text.clone(),
            })?,
        },
    };
    let (xid, ports) = all(&switch, StatsRequest::Port(port), |body| match body {
        StatsBody::Port(ports) => Some(ports),
        _ => None,
    })?;
    let names = if context.names() { Some(port_names(&switch)?) } else { None };
    print(&format::ports(xid, &ports, names.as_ref()))
}

pub fn dump_ports_desc(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let switch = context.switch(&arguments[0])?;
    let (xid, ports) = all(&switch, StatsRequest::PortDesc, |body| match body {
        StatsBody::PortDesc(ports) => Some(ports),
        _ => None,
    })?;
    print(&format::port_descriptions(xid, ports))
}

pub fn ct_flush_zone(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let zone = arguments[1].parse().map_err(|_| CliError::Zone(arguments[1].clone()))?;
    command(context, &arguments[0], &Message::CtFlushZone(zone))
}

pub fn ct_flush(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let flush = parse_ct_flush(&arguments[1..]).map_err(CliError::CtFlush)?;
    command(context, &arguments[0], &Message::CtFlush(Box::new(flush)))
}

/// Has the switch carry out a command that it answers only when it refuses.
fn command(context: &Context, target: &str, message: &Message) -> Result<(), CliError> {
    let switch = context.switch(target)?;
    let mut connection = switch.connect()?;
    connection.command(message).map_err(|error| match error {
        ClientError::Refused(xid, error) => {
            CliError::Refused(refusal::describe(connection.protocol(), xid, &error))
        }
        error => error.into(),
    })
}
