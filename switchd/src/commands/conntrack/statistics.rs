//! `dpctl/ct-stats-show`, `dpctl/ct-bkts` and `dpctl/ct-zone-stats`: how many connections there are, of which kind,
//! and what has happened to others.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use conntrack_core::protocol;
use switchd_ebpf::layout::Zone;

use super::super::invalid;
use super::arguments::{Arguments, without_datapath, words};
use crate::control::{Registry, Reply};
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
        let above: u32 = match without_datapath(&words) {
            [] => 0,
            [above] => {
                let number = above.strip_prefix("gt=").and_then(|number| number.parse::<u16>().ok());
                number.ok_or_else(|| invalid("datapath not found"))?.into()
            }
            _ => return Err(invalid("datapath not found")),
        };
        let counts = hashed.connections().per_bucket();
        let total: u32 = counts.iter().sum();
        writeln!(reply, "Total Buckets: {}\nCurrent Connections: {total}\n", counts.len())?;
        if total != 0 {
            print_buckets(&counts, above, reply)?;
        }
        Ok(())
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

/// OVS's table of buckets: a dot stands for one with no more than `above` connections.
fn print_buckets(counts: &[u32], above: u32, reply: &mut Reply) -> fmt::Result {
    const PER_ROW: usize = 8;
    writeln!(reply, "+-----------+-----------------------------------------+")?;
    writeln!(reply, "|  Buckets  |         Connections per Buckets         |")?;
    write!(reply, "+-----------+-----------------------------------------+")?;
    for (row, counts) in counts.chunks(PER_ROW).enumerate() {
        write!(reply, "\n {:3}..{:3}   | ", row * PER_ROW, row * PER_ROW + PER_ROW - 1)?;
        for &count in counts {
            if count > above { write!(reply, "{count:5}")? } else { write!(reply, "{:>5}", ".")? }
        }
    }
    writeln!(reply, "\n")
}

/// Whether anything has happened in a zone so far.
fn has_counted(zone: &Zone) -> bool {
    let Zone { connections, created, refused, evicted, expired, invalid, .. } = zone;
    connections | created | refused | evicted | expired | invalid != 0
}
