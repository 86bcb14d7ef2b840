//! `dpctl/ct-stats-show`, `dpctl/ct-bkts` and `dpctl/ct-zone-stats`: how many connections there are, of which kind,
//! and what has happened to others.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use conntrack_core::protocol;
use switchd_ebpf::layout::Zone;

use super::super::invalid;
use super::arguments::{Arguments, without_datapath, words};
use crate::control::Registry;
use crate::switch::Switch;

/// Protocols by the names that the statistics have for them, in the order of printing.
const PROTOCOLS: [(u8, &str); 8] = [
    (protocol::TCP, "TCP"),
    (protocol::UDP, "UDP"),
    (136, "UDPLITE"),
    (132, "SCTP"),
    (protocol::ICMP, "ICMP"),
    (protocol::ICMPV6, "ICMPV6"),
    (33, "DCCP"),
    (2, "IGMP"),
];

/// OVS's states of TCP, in its order.
const TCP_STATES: [&str; 8] =
    ["CLOSED", "SYN_SENT", "ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT_1", "CLOSING", "LAST_ACK", "TIME_WAIT"];

pub(super) fn register(registry: &mut Registry, switch: &Arc<Switch>) {
    let counted = Arc::clone(switch);
    registry.register("dpctl/ct-stats-show", "[-m] [dp] [zone=N]", 0..=3, move |args, reply| {
        let arguments = Arguments::parse(args)?;
        let (mut protocols, mut states) = ([0_u64; 256], BTreeMap::<&str, u64>::new());
        for (_, record) in counted.connections().iter() {
            if arguments.selection.fits(&record) {
                let connection = &record.connection;
                protocols[usize::from(connection.protocol)] += 1;
                if connection.protocol == protocol::TCP {
                    *states.entry(connection.tcp.state.ovs_plain_name()).or_default() += 1;
                }
            }
        }
        writeln!(reply, "Connections Stats:\n    Total: {}", protocols.iter().sum::<u64>())?;
        for (number, name) in PROTOCOLS {
            let count = std::mem::take(&mut protocols[usize::from(number)]);
            if count == 0 {
                continue;
            }
            writeln!(reply, "  {name}: {count}")?;
            if number == protocol::TCP && arguments.more {
                writeln!(reply, "    Conn per TCP states:")?;
                for (state, count) in TCP_STATES.iter().filter_map(|state| states.get_key_value(state)) {
                    writeln!(reply, "\t  [{state}]={count}")?;
                }
            }
        }
        let others: u64 = protocols.iter().sum();
        if others > 0 {
            writeln!(reply, "  Other: {others}")?;
        }
        Ok(())
    });

    let hashed = Arc::clone(switch);
    registry.register("dpctl/ct-bkts", "[dp] [gt=N]", 0..=2, move |args, reply| {
        let words = words(args)?;
        match without_datapath(&words) {
            [] => {}
            // It would leave out buckets that hold less.
            [gt] if gt.strip_prefix("gt=").is_some_and(|number| number.parse::<u16>().is_ok()) => {}
            _ => return Err(invalid("datapath not found")),
        }
        let zones = hashed.zones();
        writeln!(reply, "Total Buckets: {}", hashed.connections().buckets())?;
        writeln!(reply, "Current Connections: {}\n", zones.connections())?;
        // The kernel keeps the seed of its hash to itself, and nobody should be able to fill one bucket. Without
        // these words an answer without rows would say that no bucket holds as many.
        Ok(writeln!(reply, "Connections per bucket: not known, the kernel does not tell")?)
    });

    let zoned = Arc::clone(switch);
    registry.register("dpctl/ct-zone-stats", "[dp] [zone=N]", 0..=2, move |args, reply| {
        let words = words(args)?;
        let wanted: Option<u16> = match without_datapath(&words) {
            [] => None,
            [zone] => {
                let number = zone.strip_prefix("zone=").and_then(|number| number.parse().ok());
                Some(number.ok_or_else(|| invalid("datapath not found"))?)
            }
            _ => return Err(invalid("datapath not found")),
        };
        let zones = zoned.zones();
        let mut print = |number: u16, zone: &Zone| {
            let Zone { connections, created, refused, evicted, expired, invalid, .. } = zone;
            writeln!(
                reply,
                "zone={number},connections={connections},created={created},refused={refused},\
                 evicted={evicted},expired={expired},invalid={invalid}"
            )
        };
        match wanted {
            Some(number) => print(number, &zones.get(number))?,
            None => zones
                .iter()
                .filter(|(_, zone)| has_counted(zone))
                .try_for_each(|(number, zone)| print(number, &zone))?,
        }
        Ok(())
    });
}

/// Whether anything has happened in a zone so far.
fn has_counted(zone: &Zone) -> bool {
    let Zone { connections, created, refused, evicted, expired, invalid, .. } = zone;
    connections | created | refused | evicted | expired | invalid != 0
}
