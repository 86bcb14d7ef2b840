//! What each `vsctl` command does to a configuration, and why it may not. The texts are ovs-vsctl's.

use std::fmt::Display;
use std::io;

use appctl::vsctl::{BridgeColumn, BridgeSetting, Command, Failure, InterfaceColumn};

use super::config::{BRIDGES_MAX, BridgeConfig, Config, PortConfig, random_mac};
use super::state::StateError;
use super::zones::{self, POLICIES_MAX};

/// The longest bridge name, in bytes: OpenFlow has room for no more in its local port's description.
const NAME_MAX: usize = 15;

/// What a command prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// This.
    Text(String),
    /// What `show` prints once the whole transaction is in effect.
    Show,
    /// An interface's columns, once the whole transaction is in effect.
    Interface(String, Vec<InterfaceColumn>),
}

impl Output {
    pub(super) const NONE: Self = Self::Text(String::new());
}

/// Why a transaction cannot be carried out.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts tell")]
pub(super) enum Refusal {
    /// `br-exists` answers by exit code alone.
    #[error("")]
    NotFound,
    #[error("no bridge named {0}")]
    NoBridge(String),
    #[error("no port named {0}")]
    NoPort(String),
    #[error("no interface named {0}")]
    NoInterface(String),
    #[error("no row \"{row}\" in table {table}")]
    NoRow { table: &'static str, row: String },
    #[error("cannot create a {what} named {name} because a bridge named {name} already exists")]
    BridgeExists { what: &'static str, name: String },
    #[error(
        "cannot create a {what} named {name} because a port named {name} already exists on bridge {bridge}"
    )]
    PortExists { what: &'static str, name: String, bridge: String },
    #[error("\"--may-exist add-port {asked} {port}\" but {port} is actually attached to bridge {bridge}")]
    OnOtherBridge { asked: String, port: String, bridge: String },
    #[error("bridge {bridge} does not have a port {port}")]
    NotOnBridge { bridge: String, port: String },
    #[error(
        "cannot delete port {0} because it is the local port for bridge {0} \
         (deleting this port requires deleting the entire bridge)"
    )]
    LocalPort(String),
    #[error("cannot create a bridge named {0} because that is not a valid name")]
    BadName(String),
    #[error("cannot create a bridge named {0} because there are {BRIDGES_MAX} already")]
    TooManyBridges(String),
    #[error("no port number is free on bridge {0}")]
    NoPortNumber(String),
    #[error("cannot make up an address for bridge {0} ({1})")]
    Random(String, io::Error),
    #[error("datapath {0} does not exist")]
    NoDatapath(String),
    #[error("datapath: {0} record not found")]
    NoDatapathRecord(String),
    #[error("zone id {0} already exists")]
    ZoneExists(u16),
    #[error("zone id {0} does not exist")]
    NoZone(u16),
    #[error("there is no default limit")]
    NoDefaultLimit,
    #[error("no more than {POLICIES_MAX} zones can have timeouts that differ")]
    TooManyPolicies,
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::NOT_FOUND,
            refusal => Self::new(refusal.to_string()),
        }
    }
}

/// Carries commands out on a configuration, which is no good any more when one of them fails.
pub(super) fn run(config: &mut Config, commands: &[Command]) -> Result<Vec<Output>, Refusal> {
    let outputs = commands.iter().map(|command| run_one(config, command)).collect::<Result<_, _>>()?;
    for bridge in &mut config.bridges {
        bridge.assign_ofports();
        if bridge.ports.iter().any(|port| port.ofport.is_none()) {
            return Err(Refusal::NoPortNumber(bridge.name.clone()));
        }
    }
    Ok(outputs)
}

fn run_one(config: &mut Config, command: &Command) -> Result<Output, Refusal> {
    match command {
        Command::AddBr { bridge, may_exist } => add_br(config, bridge, *may_exist)?,
        Command::DelBr { bridge, if_exists } => del_br(config, bridge, *if_exists)?,
        Command::AddPort { bridge, port, may_exist } => add_port(config, bridge, port, *may_exist)?,
        Command::DelPort { bridge, port, if_exists } => {
            del_port(config, bridge.as_deref(), port, *if_exists)?;
        }
        Command::SetInterface { interface, ofport_request, if_exists } => {
            set_interface(config, interface, *ofport_request, *if_exists)?;
        }
        Command::SetBridge { bridge, settings, if_exists } => {
            set_bridge(config, bridge, settings, *if_exists)?;
        }
        Command::SetFailMode { bridge, fail_mode } => {
            let found = config.bridge_mut(bridge).ok_or_else(|| Refusal::NoBridge(bridge.clone()))?;
            found.fail_mode = *fail_mode;
        }
        Command::GetFailMode { bridge } => {
            let bridge = config.bridge(bridge).ok_or_else(|| Refusal::NoBridge(bridge.clone()))?;
            return Ok(lines(bridge.fail_mode));
        }
        Command::ListBr => return Ok(sorted(config.bridges.iter().map(|bridge| &bridge.name))),
        Command::BrExists { bridge } => {
            config.bridge(bridge).ok_or(Refusal::NotFound)?;
        }
        Command::ListPorts { bridge } | Command::ListIfaces { bridge } => {
            let bridge = config.bridge(bridge).ok_or_else(|| Refusal::NoBridge(bridge.clone()))?;
            return Ok(sorted(bridge.ports.iter().map(|port| &port.name)));
        }
        Command::PortToBr { port } => {
            let (bridge, _) = config.port(port).ok_or_else(|| Refusal::NoPort(port.clone()))?;
            return Ok(lines([&bridge.name]));
        }
        Command::IfaceToBr { interface } => {
            let found = config.port(interface).ok_or_else(|| Refusal::NoInterface(interface.clone()))?;
            return Ok(lines([&found.0.name]));
        }
        Command::Show => return Ok(Output::Show),
        Command::GetInterface { interface, columns, if_exists } => {
            if config.port(interface).is_some() || config.bridge(interface).is_some() {
                return Ok(Output::Interface(interface.clone(), columns.clone()));
            }
            no_row("Interface", interface, *if_exists)?;
        }
        Command::GetBridge { bridge, columns, if_exists } => match config.bridge(bridge) {
            Some(bridge) => return Ok(lines(columns.iter().map(|column| bridge_column(bridge, *column)))),
            None => no_row("Bridge", bridge, *if_exists)?,
        },
        Command::AddZoneTp { .. }
        | Command::DelZoneTp { .. }
        | Command::ListZoneTp { .. }
        | Command::SetZoneLimit { .. }
        | Command::DelZoneLimit { .. }
        | Command::ListZoneLimits { .. } => return zones::run(&mut config.zones, command),
    }
    Ok(Output::NONE)
}

fn add_br(config: &mut Config, name: &str, may_exist: bool) -> Result<(), Refusal> {
    if may_exist && config.bridge(name).is_some() {
        return Ok(());
    }
    check_free(config, "bridge", name)?;
    // The name becomes part of a socket's path.
    if name.is_empty() || name.len() > NAME_MAX || name.starts_with('.') || name.contains(['/', '\0']) {
        return Err(Refusal::BadName(name.to_owned()));
    }
    let id = config.free_id().ok_or_else(|| Refusal::TooManyBridges(name.to_owned()))?;
    let mac = random_mac().map_err(|error| Refusal::Random(name.to_owned(), error))?;
    config.bridges.push(BridgeConfig::new(id, name, mac));
    Ok(())
}

fn del_br(config: &mut Config, name: &str, if_exists: bool) -> Result<(), Refusal> {
    if config.bridge(name).is_none() && !if_exists {
        return Err(Refusal::NoBridge(name.to_owned()));
    }
    config.bridges.retain(|bridge| bridge.name != name);
    Ok(())
}

fn add_port(config: &mut Config, asked: &str, port: &str, may_exist: bool) -> Result<(), Refusal> {
    if may_exist && let Some((bridge, _)) = config.port(port) {
        if config.bridge(asked).is_none() {
            return Err(Refusal::NoBridge(asked.to_owned()));
        }
        if bridge.name != asked {
            let (asked, port, bridge) = (asked.to_owned(), port.to_owned(), bridge.name.clone());
            return Err(Refusal::OnOtherBridge { asked, port, bridge });
        }
        return Ok(());
    }
    check_free(config, "port", port)?;
    let bridge = config.bridge_mut(asked).ok_or_else(|| Refusal::NoBridge(asked.to_owned()))?;
    bridge.ports.push(PortConfig { name: port.to_owned(), ofport: None, ofport_request: None });
    Ok(())
}

fn del_port(config: &mut Config, asked: Option<&str>, port: &str, if_exists: bool) -> Result<(), Refusal> {
    let Some((bridge, _)) = config.port(port) else {
        return match config.bridge(port) {
            _ if if_exists => Ok(()),
            Some(_) => Err(Refusal::LocalPort(port.to_owned())),
            None => Err(Refusal::NoPort(port.to_owned())),
        };
    };
    let name = bridge.name.clone();
    if let Some(asked) = asked.filter(|asked| *asked != name) {
        let (bridge, port) = (asked.to_owned(), port.to_owned());
        return Err(match config.bridge(asked) {
            Some(_) => Refusal::NotOnBridge { bridge, port },
            None => Refusal::NoBridge(bridge),
        });
    }
    if let Some(bridge) = config.bridge_mut(&name) {
        bridge.ports.retain(|candidate| candidate.name != port);
    }
    Ok(())
}

fn set_interface(
    config: &mut Config,
    name: &str,
    request: Option<u16>,
    if_exists: bool,
) -> Result<(), Refusal> {
    if config.bridge(name).is_some() {
        // A local port's number is what it is.
        return Ok(());
    }
    let mut ports = config.bridges.iter_mut().flat_map(|bridge| &mut bridge.ports);
    match ports.find(|port| port.name == name) {
        Some(port) => port.ofport_request = request,
        None => no_row("Interface", name, if_exists)?,
    }
    Ok(())
}

fn set_bridge(
    config: &mut Config,
    name: &str,
    settings: &[BridgeSetting],
    if_exists: bool,
) -> Result<(), Refusal> {
    let Some(bridge) = config.bridge_mut(name) else { return no_row("Bridge", name, if_exists) };
    for setting in settings {
        match *setting {
            BridgeSetting::DatapathType(kind) => bridge.datapath_type = kind,
            BridgeSetting::FailMode(mode) => bridge.fail_mode = mode,
        }
    }
    Ok(())
}

fn no_row(table: &'static str, row: &str, if_exists: bool) -> Result<(), Refusal> {
    if if_exists { Ok(()) } else { Err(Refusal::NoRow { table, row: row.to_owned() }) }
}

/// Bridges, their local ports and all other ports share one name space.
fn check_free(config: &Config, what: &'static str, name: &str) -> Result<(), Refusal> {
    let name = name.to_owned();
    if config.bridge(&name).is_some() {
        return Err(Refusal::BridgeExists { what, name });
    }
    if let Some((bridge, _)) = config.port(&name) {
        return Err(Refusal::PortExists { what, name, bridge: bridge.name.clone() });
    }
    Ok(())
}

fn bridge_column(bridge: &BridgeConfig, column: BridgeColumn) -> String {
    match column {
        BridgeColumn::DatapathType => bridge.datapath_type.to_string(),
        BridgeColumn::FailMode => bridge.fail_mode.map_or_else(|| "[]".to_owned(), |mode| mode.to_string()),
    }
}

fn sorted<'a>(names: impl Iterator<Item = &'a String>) -> Output {
    let mut names: Vec<_> = names.collect();
    names.sort();
    lines(names)
}

fn lines(lines: impl IntoIterator<Item = impl Display>) -> Output {
    Output::Text(lines.into_iter().map(|line| format!("{line}\n")).collect())
}
