//! `dpctl/show` and `dpctl/dump-dps`: the datapath as a whole.

use std::fmt::Write as _;
use std::sync::Arc;

use super::{invalid, is_datapath};
use crate::control::Registry;
use crate::switch::Switch;

/// The name that the datapath shows: that of OVS's kernel datapath, whose place it takes.
const NAME: &str = "system@ovs-system";

pub(super) fn register(registry: &mut Registry, switch: &Arc<Switch>) {
    registry.register("dpctl/dump-dps", "", 0..=0, |_, reply| Ok(writeln!(reply, "{NAME}")?));

    // Scripts call these before they read counters; nothing is cached that could be out of date.
    for name in ["revalidator/purge", "revalidator/wait"] {
        registry.register(name, "", 0..=0, |_, _| Ok(()));
    }

    let switch = Arc::clone(switch);
    registry.register("dpctl/show", "[-s] [dp...]", 0..=usize::MAX, move |args, reply| {
        let mut statistics = false;
        for arg in args {
            match arg.as_str() {
                "-s" | "--statistics" => statistics = true,
                name if is_datapath(name) => {}
                _ => return Err(invalid("datapath not found")),
            }
        }
        let totals = switch.totals();
        writeln!(reply, "{NAME}:")?;
        writeln!(reply, "  lookups: hit:{} missed:{} lost:0", totals.hits, totals.misses)?;
        writeln!(reply, "  flows: {}", totals.flows)?;
        if statistics {
            // In the place of the masks and caches that OVS reports.
            for (reason, packets) in switch.drops() {
                writeln!(reply, "  drop {}: {packets}", reason.name())?;
            }
        }
        let mut number = 0;
        for (bridge, ports) in switch.ports_by_bridge() {
            for port in ports {
                let kind = if port.name == bridge { " (internal)" } else { "" };
                writeln!(reply, "  port {number}: {}{kind}", port.name)?;
                number += 1;
            }
        }
        Ok(())
    });
}
