//! Replies as OVS prints them.

use std::fmt::Write;

use ofctl::port::{NoNames, PortMap, PortNames};
use ofctl::print::write_port;
use ofctl::wire::{Desc, Features, Port, PortStats, SwitchConfig, TableStats, Xid};

const CAPABILITIES: &[(u32, &str)] = &[
    (1 << 0, "FLOW_STATS"),
    (1 << 1, "TABLE_STATS"),
    (1 << 2, "PORT_STATS"),
    (1 << 3, "STP"),
    (1 << 5, "IP_REASM"),
    (1 << 6, "QUEUE_STATS"),
    (1 << 7, "ARP_MATCH_IP"),
];

const ACTIONS: &[(u32, &str)] = &[
    (1 << 0, "output"),
    (1 << 11, "enqueue"),
    (1 << 1, "set_vlan_vid"),
    (1 << 2, "set_vlan_pcp"),
    (1 << 3, "strip_vlan"),
    (1 << 4, "mod_dl_src"),
    (1 << 5, "mod_dl_dst"),
    (1 << 6, "mod_nw_src"),
    (1 << 7, "mod_nw_dst"),
    (1 << 8, "mod_nw_tos"),
    (1 << 9, "mod_tp_src"),
    (1 << 10, "mod_tp_dst"),
];

const PORT_CONFIG: &[(u32, &str)] = &[
    (1 << 0, "PORT_DOWN"),
    (1 << 1, "NO_STP"),
    (1 << 2, "NO_RECV"),
    (1 << 3, "NO_RECV_STP"),
    (1 << 4, "NO_FLOOD"),
    (1 << 5, "NO_FWD"),
    (1 << 6, "NO_PACKET_IN"),
];

const PORT_STATE: &[(u32, &str)] = &[(1 << 0, "LINK_DOWN"), (1 << 1, "BLOCKED"), (1 << 2, "LIVE")];

const PORT_FEATURES: &[(u32, &str)] = &[
    (1 << 0, "10MB-HD"),
    (1 << 1, "10MB-FD"),
    (1 << 2, "100MB-HD"),
    (1 << 3, "100MB-FD"),
    (1 << 4, "1GB-HD"),
    (1 << 5, "1GB-FD"),
    (1 << 6, "10GB-FD"),
    (1 << 7, "40GB-FD"),
    (1 << 8, "100GB-FD"),
    (1 << 9, "1TB-FD"),
    (1 << 10, "OTHER"),
    (1 << 11, "COPPER"),
    (1 << 12, "FIBER"),
    (1 << 13, "AUTO_NEG"),
    (1 << 14, "AUTO_PAUSE"),
    (1 << 15, "AUTO_PAUSE_ASYM"),
];

/// Mb/s of the first ten feature bits.
const SPEEDS: [u32; 10] = [10, 10, 100, 100, 1_000, 1_000, 10_000, 40_000, 100_000, 1_000_000];

/// The names of the bits that are set, or `0`.
fn bits(value: u32, names: &[(u32, &str)]) -> String {
    let set: Vec<&str> = names.iter().filter(|(bit, _)| value & bit != 0).map(|(_, name)| *name).collect();
    if set.is_empty() { "0".into() } else { set.join(" ") }
}

fn speed(features: u32) -> u32 {
    let bits = (0..SPEEDS.len()).filter(|bit| features & 1 << bit != 0);
    bits.map(|bit| SPEEDS[bit]).max().unwrap_or(0)
}

pub fn features(xid: Xid, features: Features) -> String {
    let mut text = format!("OFPT_FEATURES_REPLY (xid={xid:#x}): dpid:{:016x}\n", features.datapath_id);
    let _ = writeln!(text, "n_tables:{}, n_buffers:{}", features.n_tables, features.n_buffers);
    let _ = writeln!(text, "capabilities: {}", bits(features.capabilities, CAPABILITIES));
    let _ = writeln!(text, "actions: {}", bits(features.actions, ACTIONS));
    describe_ports(&mut text, features.ports);
    text
}

pub fn port_descriptions(xid: Xid, ports: Vec<Port>) -> String {
    let mut text = format!("OFPST_PORT_DESC reply (xid={xid:#x}):\n");
    describe_ports(&mut text, ports);
    text
}

fn describe_ports(text: &mut String, mut ports: Vec<Port>) {
    ports.sort_by_key(|port| port.number);
    for port in &ports {
        describe_port(text, port);
    }
}

fn describe_port(text: &mut String, port: &Port) {
    text.push(' ');
    let _ = write_port(text, port.number, &NoNames);
    let [a, b, c, d, e, f] = port.hw_addr;
    let _ = writeln!(text, "({}): addr:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}", port.name);
    let _ = writeln!(text, "     config:     {}", bits(port.config, PORT_CONFIG));
    let _ = writeln!(text, "     state:      {}", bits(port.state, PORT_STATE));
    for (title, features) in [
        ("current:   ", port.current),
        ("advertised:", port.advertised),
        ("supported: ", port.supported),
        ("peer:      ", port.peer),
    ] {
        if features != 0 {
            let _ = writeln!(text, "     {title} {}", bits(features, PORT_FEATURES));
        }
    }
    let (now, max) = (speed(port.current), speed(port.supported));
    let _ = writeln!(text, "     speed: {now} Mbps now, {max} Mbps max");
}

/// The ways to treat fragments, by their numbers.
pub const FRAGMENTS: [&str; 4] = ["normal", "drop", "reassemble", "nx-match"];

pub fn fragments(config: SwitchConfig) -> &'static str {
    FRAGMENTS[usize::from(config.flags & 3)]
}

pub fn config(xid: Xid, config: SwitchConfig) -> String {
    let fragments = fragments(config);
    let len = config.miss_send_len;
    format!("OFPT_GET_CONFIG_REPLY (xid={xid:#x}): frags={fragments} miss_send_len={len}\n")
}

pub fn desc(xid: Xid, desc: &Desc) -> String {
    format!(
        "OFPST_DESC reply (xid={xid:#x}):\nManufacturer: {}\nHardware: {}\nSoftware: {}\nSerial Num: {}\nDP Description: {}\n",
        desc.manufacturer, desc.hardware, desc.software, desc.serial, desc.datapath
    )
}

pub fn ports(xid: Xid, ports: &[PortStats], names: Option<&PortMap>) -> String {
    let names: &dyn PortNames = match names {
        Some(names) => names,
        None => &NoNames,
    };
    let mut text = format!("OFPST_PORT reply (xid={xid:#x}): {} ports\n", ports.len());
    for port in ports {
        // One digit and its name are indented as two digits are.
        text.push_str(if port.number.0 < 10 { "  port  " } else { "  port " });
        let _ = write_port(&mut text, port.number, names);
        text.push_str(": ");
        let received = [
            ("pkts", port.rx_packets),
            ("bytes", port.rx_bytes),
            ("drop", port.rx_dropped),
            ("errs", port.rx_errors),
            ("frame", port.rx_frame_errors),
            ("over", port.rx_over_errors),
            ("crc", port.rx_crc_errors),
        ];
        let sent = [
            ("pkts", port.tx_packets),
            ("bytes", port.tx_bytes),
            ("drop", port.tx_dropped),
            ("errs", port.tx_errors),
            ("coll", port.collisions),
        ];
        let _ = writeln!(text, "rx {}", counters(&received));
        let _ = writeln!(text, "           tx {}", counters(&sent));
    }
    text
}

/// `pkts=1, bytes=2`, with `?` for what is not counted.
fn counters(counters: &[(&str, u64)]) -> String {
    let one = |(name, value): &(&str, u64)| match *value {
        u64::MAX => format!("{name}=?"),
        value => format!("{name}={value}"),
    };
    counters.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A table like the one before it is not described again, and a run of equal ones takes one line.
pub fn tables(xid: Xid, tables: &[TableStats]) -> String {
    let mut text = format!("OFPST_TABLE reply (xid={xid:#x}):\n");
    let mut previous: Option<&TableStats> = None;
    let mut dittos: Option<(u8, u8)> = None;
    for table in tables {
        let same = |other: &TableStats| other.name == table.name && numbers(other) == numbers(table);
        let same_features = |other: &TableStats| features_of(other) == features_of(table);
        match previous {
            Some(other) if same(other) && same_features(other) => {
                let first = dittos.map_or(table.table, |(first, _)| first);
                dittos = Some((first, table.table));
            }
            other => {
                write_dittos(&mut text, dittos.take());
                let title =
                    if table.name.is_empty() { String::new() } else { format!(" (\"{}\")", table.name) };
                let _ = writeln!(text, "  table {}{title}:", table.table);
                let (active, lookups, matched) = numbers(table);
                let _ = writeln!(text, "    active={active}, lookup={lookups}, matched={matched}");
                if other.is_some_and(same_features) {
                    let _ = writeln!(text, "    (same features)\n");
                } else {
                    let _ = writeln!(text, "    max_entries={}", table.max_entries);
                    let _ = writeln!(text, "    matching:");
                    let _ = writeln!(text, "      exact match or wildcard: {}\n", fields(table.wildcards));
                }
            }
        }
        previous = Some(table);
    }
    write_dittos(&mut text, dittos);
    // Empty lines part the tables, and follow none.
    text.truncate(text.trim_end().len() + 1);
    text
}

fn numbers(table: &TableStats) -> (u32, u64, u64) {
    (table.active, table.lookups, table.matched)
}

fn features_of(table: &TableStats) -> (u32, u32) {
    (table.max_entries, table.wildcards)
}

fn write_dittos(text: &mut String, dittos: Option<(u8, u8)>) {
    let _ = match dittos {
        None => Ok(()),
        Some((first, last)) if first == last => writeln!(text, "  table {first}: ditto\n"),
        Some((first, last)) => writeln!(text, "  tables {first}...{last}: ditto\n"),
    };
}

/// The fields behind OpenFlow 1.0's wildcard bits, those that share the start of their names as one word.
fn fields(wildcards: u32) -> String {
    const GROUPS: &[(&str, &[(u32, &str)])] = &[
        ("", &[(0, "in_port")]),
        ("eth_", &[(2, "src"), (3, "dst"), (4, "type")]),
        ("vlan_", &[(1, "vid"), (20, "pcp")]),
        ("ip_", &[(8, "src"), (14, "dst")]),
        ("nw_", &[(5, "proto"), (21, "tos")]),
        ("tcp_", &[(6, "src"), (7, "dst")]),
    ];
    let group = |(start, fields): &(&str, &[(u32, &str)])| {
        let set: Vec<&str> =
            fields.iter().filter(|(bit, _)| wildcards & 1 << bit != 0).map(|(_, name)| *name).collect();
        match set.as_slice() {
            [] => None,
            [one] => Some(format!("{start}{one}")),
            several => Some(format!("{start}{{{}}}", several.join(","))),
        }
    };
    GROUPS.iter().filter_map(group).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use ofctl::port::PortNo;

    use super::*;

    #[test]
    fn equal_tables_are_ditto() {
        let table = |table, active| TableStats {
            table,
            name: String::new(),
            wildcards: 0x3f_ffff,
            max_entries: 1_000_000,
            active,
            lookups: 0,
            matched: 0,
        };
        let text = tables(2, &[table(0, 1), table(1, 0), table(2, 0), table(3, 0)]);
        assert_eq!(
            text,
            "OFPST_TABLE reply (xid=0x2):
  table 0:
    active=1, lookup=0, matched=0
    max_entries=1000000
    matching:
      exact match or wildcard: in_port eth_{src,dst,type} vlan_{vid,pcp} ip_{src,dst} nw_{proto,tos} tcp_{src,dst}

  table 1:
    active=0, lookup=0, matched=0
    (same features)

  tables 2...3: ditto
"
        );
    }

    #[test]
    fn port_numbers_of_one_digit_and_their_names_are_indented() {
        let stats = |number| PortStats {
            number,
            rx_packets: 1,
            tx_packets: 2,
            rx_bytes: 60,
            tx_bytes: 120,
            rx_dropped: 0,
            tx_dropped: 0,
            rx_errors: 0,
            tx_errors: 0,
            rx_frame_errors: 0,
            rx_over_errors: 0,
            rx_crc_errors: 0,
            collisions: u64::MAX,
        };
        let starts = |names: Option<&PortMap>| -> Vec<String> {
            let text = ports(2, &[PortNo(1), PortNo(12), PortNo::LOCAL].map(stats), names);
            let line = |line: &str| line.split(": ").next().unwrap_or_default().to_owned();
            text.lines().skip(1).step_by(2).map(line).collect()
        };
        assert_eq!(starts(None), ["  port  1", "  port 12", "  port LOCAL"]);
        let names = [(PortNo(1), "p1"), (PortNo(12), "veth_l0")].into_iter().collect();
        assert_eq!(starts(Some(&names)), ["  port  p1", "  port \"veth_l0\"", "  port LOCAL"]);
    }

    #[test]
    fn a_port_is_described() {
        let port = Port {
            number: PortNo::LOCAL,
            hw_addr: [0, 1, 2, 3, 4, 5],
            name: "br0".into(),
            config: 1,
            state: 0,
            current: 0x840,
            advertised: 0,
            supported: 0,
            peer: 0,
        };
        let mut text = String::new();
        describe_port(&mut text, &port);
        assert_eq!(
            text,
            " LOCAL(br0): addr:00:01:02:03:04:05
     config:     PORT_DOWN
     state:      0
     current:    10GB-FD COPPER
     speed: 10000 Mbps now, 0 Mbps max
"
        );
    }
}
