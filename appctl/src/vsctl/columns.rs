//! `get` and `set`: the few database columns that this switch has, by OVS's names for tables and columns.

use std::convert::Infallible;

use super::zones::timeout_names;
use super::{BridgeColumn, BridgeSetting, Command, DatapathType, FailMode, InterfaceColumn};

/// What is wrong with a table, a column or a value. The texts are `ovs-vsctl`'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ColumnError {
    #[error("unknown table \"{0}\"")]
    UnknownTable(String),
    #[error("multiple table names match \"{0}\"")]
    AmbiguousTable(String),
    #[error("{table} does not contain a column whose name matches \"{column}\"")]
    UnknownColumn { table: &'static str, column: String },
    #[error("{table} contains more than one column whose name matches \"{column}\"")]
    AmbiguousColumn { table: &'static str, column: String },
    #[error("cannot modify read-only column {column} in table {table}")]
    ReadOnly { table: &'static str, column: &'static str },
    #[error("cannot specify key to {verb} for non-map column {column}")]
    Key { verb: &'static str, column: String },
    #[error("{0}: argument does not end in \"=\" followed by a value.")]
    NoValue(String),
    #[error("\"{0}\" is not a valid integer or range")]
    NotAnInteger(String),
    #[error("constraint violation: {0} is not in the valid range 1 to 65279 (inclusive)")]
    OutOfRange(i64),
    #[error("constraint violation: {0} is not one of the allowed values ([netdev, system, tc, xdp])")]
    NotADatapathType(String),
    #[error("constraint violation: {0} is not one of the allowed values ([secure, standalone])")]
    NotAFailMode(String),
    #[error("fail-mode must be \"standalone\" or \"secure\"")]
    FailMode,
    #[error("constraint violation: {number} is not in the valid range 0 to {max} (inclusive)")]
    NotUpTo { number: i64, max: String },
    #[error("constraint violation: {name} is not one of the allowed values ([{allowed}])", allowed = timeout_names())]
    NotATimeout { name: String },
}

/// A table and its columns.
struct Table<C: 'static> {
    name: &'static str,
    columns: &'static [(&'static str, C)],
    /// Columns that only OVS has, as far as their names could be meant where one of ours is abbreviated.
    others: &'static [&'static str],
}

/// OVS's tables. Their names, like those of columns, may be abbreviated to what only one of them begins with.
const TABLES: [&str; 19] = [
    "AutoAttach",
    "Bridge",
    "CT_Timeout_Policy",
    "CT_Zone",
    "Controller",
    "Datapath",
    "Flow_Sample_Collector_Set",
    "Flow_Table",
    "IPFIX",
    "Interface",
    "Manager",
    "Mirror",
    "NetFlow",
    "Open_vSwitch",
    "Port",
    "QoS",
    "Queue",
    "SSL",
    "sFlow",
];

const INTERFACE: Table<InterfaceColumn> = Table {
    name: "Interface",
    columns: &[("ofport", InterfaceColumn::Ofport), ("ofport_request", InterfaceColumn::OfportRequest)],
    others: &["options", "other_config"],
};

const BRIDGE: Table<BridgeColumn> = Table {
    name: "Bridge",
    columns: &[("datapath_type", BridgeColumn::DatapathType), ("fail_mode", BridgeColumn::FailMode)],
    others: &["datapath_id", "datapath_version", "flood_vlans", "flow_tables"],
};

/// Ports have columns in OVS only.
const PORT: Table<Infallible> = Table { name: "Port", columns: &[], others: &[] };

/// Why a name means none of those that there are.
enum Unmatched {
    None,
    Several,
}

/// The name that a text means: it may be written in either case, and end early where only one goes on like that.
fn matching<'n>(names: impl Iterator<Item = &'n str>, text: &str) -> Result<&'n str, Unmatched> {
    let begins = |name: &&str| name.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text));
    let mut found: Vec<&str> = names.filter(begins).collect();
    if let Some(whole) = found.iter().position(|name| name.len() == text.len()) {
        return Ok(found.swap_remove(whole));
    }
    match found[..] {
        [] => Err(Unmatched::None),
        [name] => Ok(name),
        _ => Err(Unmatched::Several),
    }
}

/// The table that a text means; it may be one of those that are OVS's alone.
fn table(text: &str) -> Result<&'static str, ColumnError> {
    matching(TABLES.into_iter(), text).map_err(|reason| match reason {
        Unmatched::None => ColumnError::UnknownTable(text.to_owned()),
        Unmatched::Several => ColumnError::AmbiguousTable(text.to_owned()),
    })
}

impl<C: Copy> Table<C> {
    /// The column that `COLUMN[:KEY]` names, with `-` or `_` between words. No column of ours has keys.
    fn column(&self, verb: &'static str, text: &str) -> Result<C, ColumnError> {
        let (name, key) = text.split_once(':').map_or((text, None), |(name, key)| (name, Some(key)));
        let names = self.columns.iter().map(|(name, _)| *name).chain(self.others.iter().copied());
        let unknown = || ColumnError::UnknownColumn { table: self.name, column: name.to_owned() };
        let wanted = matching(names, &name.replace('-', "_")).map_err(|reason| match reason {
            Unmatched::None => unknown(),
            Unmatched::Several => ColumnError::AmbiguousColumn { table: self.name, column: name.to_owned() },
        })?;
        let (_, column) = self.columns.iter().find(|(column, _)| *column == wanted).ok_or_else(unknown)?;
        match key {
            None => Ok(*column),
            Some(_) => Err(ColumnError::Key { verb, column: name.to_owned() }),
        }
    }

    /// The column and the value of `COLUMN[:KEY]=VALUE`.
    fn setting<'a>(&self, text: &'a str) -> Result<(C, &'a str), ColumnError> {
        match text.split_once('=') {
            Some((column, value)) => Ok((self.column("set", column)?, value)),
            None => {
                self.column("set", text)?;
                Err(ColumnError::NoValue(text.to_owned()))
            }
        }
    }

    fn columns(&self, texts: &[String]) -> Result<Vec<C>, ColumnError> {
        texts.iter().map(|text| self.column("get", text)).collect()
    }
}

/// `set TABLE RECORD COLUMN=VALUE...`, with at least one setting; of several for one column the last counts.
pub(super) fn set(
    text: &str,
    record: String,
    settings: &[String],
    if_exists: bool,
) -> Result<Command, ColumnError> {
    let table = table(text)?;
    if table == INTERFACE.name {
        let mut ofport_request = None;
        for setting in settings {
            match INTERFACE.setting(setting)? {
                (InterfaceColumn::OfportRequest, value) => ofport_request = parse_ofport(value)?,
                (InterfaceColumn::Ofport, _) => {
                    return Err(ColumnError::ReadOnly { table: INTERFACE.name, column: "ofport" });
                }
            }
        }
        Ok(Command::SetInterface { interface: record, ofport_request, if_exists })
    } else if table == BRIDGE.name {
        let setting = |text: &String| match BRIDGE.setting(text)? {
            (BridgeColumn::DatapathType, value) => {
                Ok(BridgeSetting::DatapathType(parse_datapath_type(value)?))
            }
            (BridgeColumn::FailMode, "[]") => Ok(BridgeSetting::FailMode(None)),
            (BridgeColumn::FailMode, value) => {
                let mode =
                    parse_fail_mode(value).ok_or_else(|| ColumnError::NotAFailMode(value.to_owned()))?;
                Ok(BridgeSetting::FailMode(Some(mode)))
            }
        };
        let settings = settings.iter().map(setting).collect::<Result<_, _>>()?;
        Ok(Command::SetBridge { bridge: record, settings, if_exists })
    } else {
        Err(ColumnError::UnknownTable(text.to_owned()))
    }
}

/// `get TABLE RECORD [COLUMN]...`.
pub(super) fn get(
    text: &str,
    record: String,
    columns: &[String],
    if_exists: bool,
) -> Result<Command, ColumnError> {
    let table = table(text)?;
    if table == INTERFACE.name {
        let columns = INTERFACE.columns(columns)?;
        Ok(Command::GetInterface { interface: record, columns, if_exists })
    } else if table == BRIDGE.name {
        let columns = BRIDGE.columns(columns)?;
        Ok(Command::GetBridge { bridge: record, columns, if_exists })
    } else {
        Err(ColumnError::UnknownTable(text.to_owned()))
    }
}

/// The settings that may follow `add-port BRIDGE PORT`: none.
pub(super) fn no_port_settings(settings: &[String]) -> Result<(), ColumnError> {
    settings.iter().try_for_each(|setting| PORT.setting(setting).map(drop))
}

/// A port number, or `[]` for none.
fn parse_ofport(value: &str) -> Result<Option<u16>, ColumnError> {
    if value == "[]" {
        return Ok(None);
    }
    let number: i64 = value.parse().map_err(|_| ColumnError::NotAnInteger(value.to_owned()))?;
    match u16::try_from(number) {
        Ok(port @ 1..=0xfeff) => Ok(Some(port)),
        _ => Err(ColumnError::OutOfRange(number)),
    }
}

fn parse_datapath_type(value: &str) -> Result<DatapathType, ColumnError> {
    match value {
        // OVS's way to say that it is as it is by default.
        "xdp" | "" | "\"\"" => Ok(DatapathType::Xdp),
        "tc" => Ok(DatapathType::Tc),
        "system" => Ok(DatapathType::System),
        "netdev" => Ok(DatapathType::Netdev),
        other => Err(ColumnError::NotADatapathType(other.to_owned())),
    }
}

/// The argument of `set-fail-mode`.
pub(super) fn fail_mode(value: &str) -> Result<FailMode, ColumnError> {
    parse_fail_mode(value).ok_or(ColumnError::FailMode)
}

fn parse_fail_mode(value: &str) -> Option<FailMode> {
    match value {
        "standalone" => Some(FailMode::Standalone),
        "secure" => Some(FailMode::Secure),
        _ => None,
    }
}
