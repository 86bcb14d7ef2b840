//! The commands about flows.

use std::fs;
use std::io::{self, Read};

use ofctl::client::{ClientError, Refusal, Switch};
use ofctl::flow::{Command, FlowFilter, FlowMod, Match};
use ofctl::port::{NoNames, PortMap, PortNames, PortNo};
use ofctl::print::{write_flow, write_flow_mod};
use ofctl::syntax;
use ofctl::wire::{self, FlowFormat, Message, Protocol, StatsBody, StatsRequest};

use super::{CliError, Context, port_names, refusal, show};

pub fn add_flow(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    change(context, &arguments[0], &arguments[1], Command::Add)
}

pub fn mod_flows(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let command = if context.options.strict { Command::ModifyStrict } else { Command::Modify };
    change(context, &arguments[0], &arguments[1], command)
}

pub fn del_flows(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let command = if context.options.strict { Command::DeleteStrict } else { Command::Delete };
    change(context, &arguments[0], arguments.get(1).map_or("", String::as_str), command)
}

/// What a text says, or with `-` each line of the standard input.
fn change(context: &Context, target: &str, text: &str, command: Command) -> Result<(), CliError> {
    if text == "-" {
        return change_by_file(context, target, text, command);
    }
    let switch = context.switch(target)?;
    let names = port_names(&switch)?;
    let flow = syntax::parse_flow(text, command, &names)?;
    send(&switch, &[flow], |_| String::new())
}

pub fn add_flows(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    change_by_file(context, &arguments[0], &arguments[1], Command::Add)
}

/// All lines are read before any is sent, so that a mistake in the last changes nothing. `command` is meant by those that
/// begin with none.
fn change_by_file(context: &Context, target: &str, file: &str, command: Command) -> Result<(), CliError> {
    let switch = context.switch(target)?;
    let names = port_names(&switch)?;
    let text = read(file)?;
    let (mut flows, mut lines) = (Vec::new(), Vec::new());
    for (line, number) in text.lines().zip(1..) {
        let flow = syntax::parse_flow_line(line, command, &names).map_err(|error| CliError::Line {
            file: file.to_owned(),
            line: number,
            error,
        })?;
        if let Some(flow) = flow {
            flows.push(flow);
            lines.push(number);
        }
    }
    send(&switch, &flows, |flow| format!("{file}:{}: refused by the switch:\n", lines[flow]))
}

/// The text of a file, or of the standard input for `-`.
fn read(file: &str) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    let result = if file == "-" {
        io::stdin().lock().read_to_end(&mut bytes).map(|_| ())
    } else {
        fs::read(file).map(|read| bytes = read)
    };
    result.map_err(|error| {
        let reason = error.to_string();
        let reason = reason.split(" (os error").next().unwrap_or_default().to_owned();
        CliError::Open { file: file.into(), reason }
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Sends flow-mods; `place` says before each refusal where the flow of that index stands.
fn send(switch: &Switch, flows: &[FlowMod], place: impl Fn(usize) -> String) -> Result<(), CliError> {
    let mut connection = switch.connect()?;
    let refusals = connection.flow_mods(flows)?;
    if refusals.is_empty() {
        return Ok(());
    }
    let describe = |Refusal { flow, xid, error }: &Refusal| {
        place(*flow) + &refusal::describe(connection.protocol(), *xid, error)
    };
    Err(CliError::Refused(refusals.iter().map(describe).collect()))
}

pub fn dump_flows(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let switch = context.switch(&arguments[0])?;
    let filter = filter(&switch, arguments.get(1))?;
    let names: Option<PortMap> = if context.names() { Some(port_names(&switch)?) } else { None };
    let stats = context.options.stats();
    // The reply is shown as a message only where nothing is left out or put in.
    let as_message = stats && names.is_none();
    let names: &dyn PortNames = match &names {
        Some(names) => names,
        None => &NoNames,
    };
    let mut connection = switch.connect()?;
    connection.use_nxm()?;
    connection.statistics(StatsRequest::Flow(FlowFormat::Nxm, filter), |xid, reply| {
        let StatsBody::Flow(_, flows) = reply.body else { return Err(ClientError::UnexpectedReply.into()) };
        let mut text = String::new();
        if as_message {
            let more = if reply.more { " flags=[more]" } else { "" };
            text = format!("NXST_FLOW reply (xid={xid:#x}):{more}\n");
        }
        for mut flow in flows {
            if !as_message {
                (flow.idle_age, flow.hard_age) = (None, None);
            }
            // Writing to a string cannot fail.
            let _ = write_flow(&mut text, &flow, stats, names);
            text.push('\n');
        }
        show(&text)
    })
}

pub fn dump_aggregate(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let switch = context.switch(&arguments[0])?;
    let filter = filter(&switch, arguments.get(1))?;
    let mut connection = switch.connect()?;
    connection.use_nxm()?;
    match connection.statistic(StatsRequest::Aggregate(FlowFormat::Nxm, filter))? {
        (xid, StatsBody::Aggregate(_, sum)) => show(&format!(
            "NXST_AGGREGATE reply (xid={xid:#x}): packet_count={} byte_count={} flow_count={}\n",
            sum.packets, sum.bytes, sum.flows
        )),
        _ => Err(ClientError::UnexpectedReply.into()),
    }
}

/// The flows that are asked for: those of the text, or all.
fn filter(switch: &Switch, text: Option<&String>) -> Result<FlowFilter, CliError> {
    match text {
        Some(text) => Ok(syntax::parse_flow_filter(text, &port_names(switch)?)?),
        None => Ok(FlowFilter {
            table: None,
            matching: Match::ANY,
            cookie: 0,
            cookie_mask: 0,
            out_port: PortNo::NONE,
        }),
    }
}

pub fn parse_flow(context: &Context, arguments: &[String]) -> Result<(), CliError> {
    let command = if context.options.strict { Command::ModifyStrict } else { Command::Add };
    let flow = syntax::parse_flow(&arguments[0], command, &NoNames)?;
    let format = wire::flow_format(&flow.matching, flow.cookie_mask);
    let message = Message::FlowMod(format, flow.clone());
    let xid = 1;
    wire::encode(Protocol::default(), xid, &message)?;
    let mut line = String::new();
    let _ = write_flow_mod(&mut line, xid, &flow, &NoNames);
    // OVS chooses NXM for the sake of an action, too, though OpenFlow 1.0's own flow-mod could carry it.
    let format = if line.starts_with("NXT") { FlowFormat::Nxm } else { format };
    let (usable, chosen) = match (format, flow.table) {
        (FlowFormat::OpenFlow10, None) => ("any", "OpenFlow10-table_id"),
        (FlowFormat::OpenFlow10, Some(_)) => {
            ("OXM,OpenFlow10+table_id,NXM+table_id,OpenFlow11", "OpenFlow10+table_id")
        }
        (FlowFormat::Nxm, None) => ("NXM,OXM", "NXM-table_id"),
        (FlowFormat::Nxm, Some(_)) => ("OXM,NXM+table_id", "NXM+table_id"),
    };
    show(&format!("usable protocols: {usable}\nchosen protocol: {chosen}\n{line}\n"))
}
