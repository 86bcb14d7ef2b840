//! The commands of the control socket that concern the switch.

mod conntrack;
mod datapath;
mod fdb;

use std::sync::Arc;

use appctl::vsctl::{METHOD, Transaction};

use crate::control::{CommandError, Registry};
use crate::switch::Switch;

/// Registers them all.
pub fn register(registry: &mut Registry, switch: &Arc<Switch>) {
    conntrack::register(registry, switch);
    datapath::register(registry, switch);
    fdb::register(registry, switch);

    let executor = Arc::clone(switch);
    registry.register(METHOD, "TRANSACTION", 1..=1, move |args, reply| {
        let refuse = |error: serde_json::Error| CommandError::new(format!("not a transaction: {error}"));
        let [transaction] = args else { return Err(CommandError::new("one transaction, please")) };
        let commands: Transaction = serde_json::from_str(transaction).map_err(refuse)?;
        let answer: appctl::vsctl::Reply = executor.execute(&commands);
        std::fmt::Write::write_str(reply, &serde_json::to_string(&answer).map_err(refuse)?)?;
        Ok(())
    });
}

/// The error of dpctl commands for wrong arguments, in OVS's words.
fn invalid(what: &str) -> CommandError {
    failed(what, "Invalid argument")
}

/// The error of dpctl commands, in OVS's words, with those of the C library for the reason.
fn failed(what: &str, reason: &str) -> CommandError {
    CommandError::new(format!("ovs-vswitchd: {what} ({reason})"))
}

/// Whether an argument names our datapath. There is one; it answers to the names of both of OVS's.
fn is_datapath(argument: &str) -> bool {
    matches!(argument, "system@ovs-system" | "ovs-system" | "netdev@ovs-netdev" | "ovs-netdev")
}
