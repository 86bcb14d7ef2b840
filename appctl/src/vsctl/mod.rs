//! The `vsctl` commands: what the tool sends, what the daemon carries out, and how the daemon answers.
//!
//! All commands of one command line are one transaction: the daemon carries out all of them or none. They
//! travel as one unixctl request, [`METHOD`], with the JSON text of a [`Transaction`] as its only argument;
//! the result is the JSON text of a [`Reply`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

mod columns;
pub mod parse;
mod zones;

pub use zones::Timeout;

/// The unixctl method that carries a transaction.
pub const METHOD: &str = "vsctl/run";

/// The commands of one command line, in order.
pub type Transaction = Vec<Command>;

/// How a transaction went.
pub type Reply = Result<Outcome, Failure>;

/// One `vsctl` command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Creates a bridge, with its local port of the same name.
    AddBr {
        /// The new bridge.
        bridge: String,
        /// An existing bridge of that name is no error.
        may_exist: bool,
    },
    /// Deletes a bridge and its ports.
    DelBr {
        /// The bridge.
        bridge: String,
        /// A bridge that does not exist is no error.
        if_exists: bool,
    },
    /// Prints the names of all bridges, sorted, one per line.
    ListBr,
    /// Fails with [`Failure::NOT_FOUND`] when there is no such bridge.
    BrExists {
        /// The bridge.
        bridge: String,
    },
    /// Adds a network device to a bridge.
    AddPort {
        /// The bridge.
        bridge: String,
        /// The device.
        port: String,
        /// A port of that name on that bridge is no error; one on another bridge is.
        may_exist: bool,
    },
    /// Takes a port away.
    DelPort {
        /// The bridge that it must be on; `None`: whichever it is on.
        bridge: Option<String>,
        /// The port.
        port: String,
        /// A port that does not exist is no error.
        if_exists: bool,
    },
    /// Prints a bridge's ports but the local one, sorted, one per line.
    ListPorts {
        /// The bridge.
        bridge: String,
    },
    /// Prints a bridge's interfaces but the local one, sorted, one per line.
    ListIfaces {
        /// The bridge.
        bridge: String,
    },
    /// Prints the bridge that a port is on; local ports are not found.
    PortToBr {
        /// The port.
        port: String,
    },
    /// Prints the bridge that an interface is on; local ports are not found.
    IfaceToBr {
        /// The interface.
        interface: String,
    },
    /// Prints all bridges and ports.
    Show,
    /// Changes an interface's columns.
    SetInterface {
        /// The interface.
        interface: String,
        /// The OpenFlow port number wanted, 1 to 65279; `None`: any.
        ofport_request: Option<u16>,
        /// An interface that does not exist is no error.
        if_exists: bool,
    },
    /// Changes a bridge's columns.
    SetBridge {
        /// The bridge.
        bridge: String,
        /// What is to be different; of several for one column the last counts.
        settings: Vec<BridgeSetting>,
        /// A bridge that does not exist is no error.
        if_exists: bool,
    },
    /// Says whether a bridge has a flow of its own accord.
    SetFailMode {
        /// The bridge.
        bridge: String,
        /// See [`FailMode`]; `None`: not said, which is [`FailMode::Standalone`].
        fail_mode: Option<FailMode>,
    },
    /// Prints what has been said by [`SetFailMode`](Self::SetFailMode), nothing if nothing was.
    GetFailMode {
        /// The bridge.
        bridge: String,
    },
    /// Prints an interface's columns, one per line.
    GetInterface {
        /// The interface.
        interface: String,
        /// What to print.
        columns: Vec<InterfaceColumn>,
        /// An interface that does not exist is no error, and prints nothing.
        if_exists: bool,
    },
    /// Prints a bridge's columns, one per line.
    GetBridge {
        /// The bridge.
        bridge: String,
        /// What to print.
        columns: Vec<BridgeColumn>,
        /// A bridge that does not exist is no error, and prints nothing.
        if_exists: bool,
    },
    /// Says how long the connections of a zone live.
    AddZoneTp {
        /// The datapath's name.
        datapath: String,
        /// The zone.
        zone: u16,
        /// What is different from the default, at least one.
        timeouts: Timeouts,
        /// What was said of the zone before is replaced.
        may_exist: bool,
    },
    /// The default counts again for a zone's connections.
    DelZoneTp {
        /// The datapath's name.
        datapath: String,
        /// The zone.
        zone: u16,
        /// A zone of which nothing was said is no error.
        if_exists: bool,
    },
    /// Prints what has been said by [`AddZoneTp`](Self::AddZoneTp), one zone per line.
    ListZoneTp {
        /// The datapath's name.
        datapath: String,
    },
    /// Says how many connections a zone may have.
    SetZoneLimit {
        /// The datapath's name.
        datapath: String,
        /// The zone; `None`: those without a limit of their own.
        zone: Option<u16>,
        /// The limit; 0: as many as there is room for.
        limit: u32,
    },
    /// Takes a limit away.
    DelZoneLimit {
        /// The datapath's name.
        datapath: String,
        /// The zone; `None`: those without a limit of their own.
        zone: Option<u16>,
        /// A zone without a limit is no error.
        if_exists: bool,
    },
    /// Prints the limits, one per line.
    ListZoneLimits {
        /// The datapath's name.
        datapath: String,
    },
}

/// Timeouts in seconds.
pub type Timeouts = BTreeMap<Timeout, u32>;

/// Which kernel hook serves a bridge's ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatapathType {
    /// Native XDP, where the port can be prepared for it.
    #[default]
    Xdp,
    /// The tcx hook.
    Tc,
    /// OVS's kernel datapath: here as [`Xdp`](Self::Xdp).
    System,
    /// OVS's userspace datapath: here as [`Xdp`](Self::Xdp).
    Netdev,
}

impl fmt::Display for DatapathType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::System => "system",
            Self::Netdev => "netdev",
        })
    }
}

/// What a bridge does without a controller, of which there is none so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailMode {
    /// It has one flow to begin with, `priority=0 actions=NORMAL`.
    Standalone,
    /// It has none.
    Secure,
}

impl fmt::Display for FailMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Standalone => "standalone",
            Self::Secure => "secure",
        })
    }
}

/// A change of a bridge's column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeSetting {
    /// How its ports are served.
    DatapathType(DatapathType),
    /// See [`Command::SetFailMode`].
    FailMode(Option<FailMode>),
}

/// A column of the Interface table that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterfaceColumn {
    /// The OpenFlow port number: -1 for an interface with an error, `[]` before one is given.
    Ofport,
    /// The OpenFlow port number wanted, `[]` for none.
    OfportRequest,
}

/// A column of the Bridge table that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeColumn {
    /// See [`DatapathType`].
    DatapathType,
    /// See [`FailMode`]; `[]` for none.
    FailMode,
}

/// A transaction that was carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What each command printed, in order; a line break ends each line.
    pub outputs: Vec<String>,
    /// What went wrong without undoing anything (a port whose device is missing), one message each, without
    /// the tool's name. They do not change the exit code.
    pub warnings: Vec<String>,
}

/// A transaction that changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Why, without the tool's name; empty when the exit code says it all.
    pub message: String,
    /// The tool's exit code.
    pub exit_code: u8,
}

impl Failure {
    /// What `br-exists` ends with when there is no such bridge: no word, exit code 2.
    pub const NOT_FOUND: Self = Self { message: String::new(), exit_code: 2 };

    /// An error with a message: exit code 1.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 1 }
    }
}
