//! The commands about the switch itself and its ports.

use ofctl::client::{ClientError, Connection};
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
    let (mut tables, mut last) = (Vec::new(), 0);
    switch.connect()?.statistics(StatsRequest::Table, |xid, reply| match reply.body {
        StatsBody::Table(part) => {
            last = xid;
            tables.extend(part);
            Ok(())
        }
        _ => Err(ClientError::UnexpectedReply),
    })?;
    print(&format::tables(last, &tables))
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
    let (mut ports, mut last) = (Vec::new(), 0);
    switch.connect()?.statistics(StatsRequest::Port(port), |xid, reply| match reply.body {
        StatsBody::Port(part) => {
            last = xid;
            ports.extend(part);
            Ok(())
        }
        _ => Err(ClientError::UnexpectedReply),
    })?;
    let names = if context.names() { Some(port_names(&switch)?) } else { None };
    print(&format::ports(last, &ports, names.as_ref()))
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
