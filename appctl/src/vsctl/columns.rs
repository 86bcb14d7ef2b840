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
    #[error("{table} does not contain a column whose name matches \"{column}\"")]
    UnknownColumn { table: &'static str, column: String },
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
}

const INTERFACE: Table<InterfaceColumn> = Table {
    name: "Interface",
    columns: &[("ofport", InterfaceColumn::Ofport), ("ofport_request", InterfaceColumn::OfportRequest)],
};

const BRIDGE: Table<BridgeColumn> = Table {
    name: "Bridge",
    columns: &[("datapath_type", BridgeColumn::DatapathType), ("fail_mode", BridgeColumn::FailMode)],
};

/// Ports have columns in OVS only.
const PORT: Table<Infallible> = Table { name: "Port", columns: &[] };

impl<C: Copy> Table<C> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The column that `COLUMN[:KEY]` names, with `-` or `_` between words. No column of ours has keys.
    fn column(&self, verb: &'static str, text: &str) -> Result<C, ColumnError> {
        let (name, key) = text.split_once(':').map_or((text, None), |(name, key)| (name, Some(key)));
        let wanted = name.replace('-', "_").to_ascii_lowercase();
        let Some((_, column)) = self.columns.iter().find(|(column, _)| *column == wanted) else {
            return Err(ColumnError::UnknownColumn { table: self.name, column: name.to_owned() });
        };
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
    table: &str,
    record: String,
    settings: &[String],
    if_exists: bool,
) -> Result<Command, ColumnError> {
    if INTERFACE.is(table) {
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
    } else if BRIDGE.is(table) {
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
        Err(ColumnError::UnknownTable(table.to_owned()))
    }
}

/// `get TABLE RECORD [COLUMN]...`.
pub(super) fn get(
    table: &str,
    record: String,
    columns: &[String],
    if_exists: bool,
) -> Result<Command, ColumnError> {
    if INTERFACE.is(table) {
        let columns = INTERFACE.columns(columns)?;
        Ok(Command::GetInterface { interface: record, columns, if_exists })
    } else if BRIDGE.is(table) {
        let columns = BRIDGE.columns(columns)?;
        Ok(Command::GetBridge { bridge: record, columns, if_exists })
    } else {
        Err(ColumnError::UnknownTable(table.to_owned()))
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
        "xdp" => Ok(DatapathType::Xdp),
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
