//! What can be said against a flow-mod before looking at any table.

use ofctl::action::check_consistency;
use ofctl::flow::{Command, FlowMod, check_prerequisites};
use ofctl::wire::{self, Protocol};

use super::{Error, N_TABLES};

/// How many bytes of actions a flow may have: with any match and all counters it then fits into one statistics
/// reply, whose length has 16 bits.
const MAX_ACTIONS_LEN: usize = 60_000;

/// Checks a flow-mod by itself.
pub(super) fn flow_mod(flow_mod: &FlowMod) -> Result<(), Error> {
    match flow_mod.table {
        Some(table) if table >= N_TABLES => return Err(Error::ReservedTable(table)),
        _ => check_prerequisites(&flow_mod.matching)?,
    }
    match flow_mod.command {
        Command::Add | Command::Modify | Command::ModifyStrict => {
            check_consistency(&flow_mod.matching, &flow_mod.actions)?;
            match wire::actions_len(Protocol::default(), &flow_mod.actions) {
                Ok(len) if len > MAX_ACTIONS_LEN => Err(Error::TooManyActions(len)),
                // What OpenFlow 1.0 cannot say cannot have come by it.
                _ => Ok(()),
            }
        }
        Command::Delete | Command::DeleteStrict => Ok(()),
    }
}
