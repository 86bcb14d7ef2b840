//! What can be set for all connections: how many there may be, TCP's sequence check, how often expired ones go.

use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::super::{failed, invalid};
use super::arguments::{only_datapath, without_datapath, words};
use crate::control::{CommandError, Registry};
use crate::switch::Switch;

pub(super) fn register(registry: &mut Registry, switch: &Arc<Switch>) {
    register_maxconns(registry, switch);
    register_sequence_check(registry, switch);
    register_sweep_interval(registry, switch);
}

fn register_maxconns(registry: &mut Registry, switch: &Arc<Switch>) {
    let counter = Arc::clone(switch);
    registry.register("dpctl/ct-get-nconns", "[dp]", 0..=1, move |args, reply| {
        only_datapath(args)?;
        Ok(writeln!(reply, "{}", counter.zones().connections())?)
    });

    let getter = Arc::clone(switch);
    registry.register("dpctl/ct-get-maxconns", "[dp]", 0..=1, move |args, reply| {
        only_datapath(args)?;
        Ok(writeln!(reply, "{}", getter.zones().max_connections())?)
    });

    let setter = Arc::clone(switch);
    registry.register("dpctl/ct-set-maxconns", "[dp] maxconns", 1..=2, move |args, reply| {
        let count = number(args, "maxconns missing or malformed")?;
        if !setter.zones().set_max_connections(count) {
            let capacity = setter.zones().capacity();
            let what = format!("ct set maxconns failed: not between 1 and {capacity} (--max-connections)");
            return Err(failed(&what, "Numerical result out of range"));
        }
        Ok(writeln!(reply, "setting maxconns successful")?)
    });
}

fn register_sequence_check(registry: &mut Registry, switch: &Arc<Switch>) {
    for (name, check, verb) in [
        ("dpctl/ct-enable-tcp-seq-chk", true, "enabling"),
        ("dpctl/ct-disable-tcp-seq-chk", false, "disabling"),
    ] {
        let setter = Arc::clone(switch);
        registry.register(name, "[dp]", 0..=1, move |args, reply| {
            only_datapath(args)?;
            setter.policies().check_sequences(check);
            Ok(writeln!(reply, "{verb} TCP sequence checking successful")?)
        });
    }

    let getter = Arc::clone(switch);
    registry.register("dpctl/ct-get-tcp-seq-chk", "[dp]", 0..=1, move |args, reply| {
        only_datapath(args)?;
        let state = if getter.policies().checks_sequences() { "enabled" } else { "disabled" };
        Ok(writeln!(reply, "TCP sequence checking: {state}")?)
    });
}

fn register_sweep_interval(registry: &mut Registry, switch: &Arc<Switch>) {
    let getter = Arc::clone(switch);
    registry.register("dpctl/ct-get-sweep-interval", "[dp]", 0..=1, move |args, reply| {
        only_datapath(args)?;
        Ok(writeln!(reply, "{}", getter.sweep_interval().borrow().as_millis())?)
    });

    let setter = Arc::clone(switch);
    registry.register("dpctl/ct-set-sweep-interval", "[dp] ms", 1..=2, move |args, reply| {
        const WRONG: &str = "sweep interval missing or malformed";
        // Zero would have the daemon do nothing else.
        let milliseconds: u32 = number(args, WRONG)?;
        if milliseconds == 0 {
            return Err(invalid(WRONG));
        }
        setter.sweep_interval().send_replace(Duration::from_millis(milliseconds.into()));
        Ok(writeln!(reply, "setting sweep interval successful")?)
    });
}

/// The number of `[dp] NUMBER`; `wrong` says that it is none.
fn number<T: FromStr>(args: &[String], wrong: &str) -> Result<T, CommandError> {
    let words = words(args)?;
    match without_datapath(&words) {
        [number] => number.parse().map_err(|_| invalid(wrong)),
        [] => Err(invalid(wrong)),
        _ => Err(invalid("datapath not found")),
    }
}
