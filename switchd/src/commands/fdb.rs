//! `fdb/show` and `fdb/flush`: the MAC tables of NORMAL.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::control::{CommandError, Registry};
use crate::switch::Switch;

pub(super) fn register(registry: &mut Registry, switch: &Arc<Switch>) {
    let shown = Arc::clone(switch);
    registry.register("fdb/show", "bridge", 1..=1, move |args, reply| {
        let bridge = args.first().and_then(|name| shown.bridge(name));
        let Some(bridge) = bridge else { return Err(CommandError::new("no such bridge")) };
        writeln!(reply, " port  VLAN  MAC                Age")?;
        for learned in shown.macs(bridge) {
            let [_, _, a, b, c, d, e, f] = learned.mac.to_be_bytes();
            writeln!(
                reply,
                "{:5}  {:4}  {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}  {:3}",
                learned.port,
                learned.vlan,
                learned.age.as_secs(),
            )?;
        }
        Ok(())
    });

    let flushed = Arc::clone(switch);
    registry.register("fdb/flush", "[bridge]", 0..=1, move |args, reply| {
        let bridge = match args.first() {
            Some(name) => Some(flushed.bridge(name).ok_or_else(|| CommandError::new("no such bridge"))?),
            None => None,
        };
        flushed.flush_macs(bridge);
        Ok(writeln!(reply, "table successfully flushed")?)
    });
}
