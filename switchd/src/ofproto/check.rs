//! What can be said against a flow-mod before looking at any table.

use ofctl::action::{Action, check_consistency};
use ofctl::flow::{Command, FlowMod, check_prerequisites};

use super::{Error, N_TABLES};

/// Checks a flow-mod by itself.
pub(super) fn flow_mod(flow_mod: &FlowMod) -> Result<(), Error> {
    match flow_mod.table {
        Some(table) if table >= N_TABLES => return Err(Error::ReservedTable(table)),
        _ => check_prerequisites(&flow_mod.matching)?,
    }
    match flow_mod.command {
        Command::Add | Command::Modify | Command::ModifyStrict => {
            Ok(check_consistency(&flow_mod.matching, &flow_mod.actions)?)
        }
        Command::Delete | Command::DeleteStrict => Ok(()),
    }
}

/// Checks that the flow's `goto_table` goes forward: that is what makes a pipeline of them end.
pub(super) fn goto(from: u8, actions: &[Action]) -> Result<(), Error> {
    let goes_back = |action: &Action| match action {
        Action::GotoTable(to) if *to <= from || *to >= N_TABLES => Some(*to),
        _ => None,
    };
    match actions.iter().find_map(goes_back) {
        Some(to) => Err(Error::BadGoto { from, to }),
        None => Ok(()),
    }
}
