//! A connection as a JSON object on a line of its own.

use std::fmt::{self, Write};

use conntrack_core::{protocol, status, tcp};
use serde::Serialize;
use switchd_ebpf::layout::{self, Event, Record};

use super::dump::Printer;
use super::text::{address, helper_name, names, protocol_name};
use super::timestamp::{Timestamp, Zone};

#[derive(Serialize)]
struct Connection {
    protocol: String,
    zone: u16,
    id: u32,
    orig: Direction,
    reply: Direction,
    start: String,
    timeout: u64,
    status: Vec<&'static str>,
    mark: u32,
    labels: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Tcp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    helper: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<Tuple>,
}

#[derive(Serialize)]
struct Direction {
    #[serde(flatten)]
    tuple: Tuple,
    packets: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Tuple {
    src: String,
    dst: String,
    #[serde(flatten)]
    transport: Transport,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Transport {
    Ports {
        sport: u16,
        dport: u16,
    },
    Icmp {
        id: u16,
        #[serde(rename = "type")]
        kind: u16,
        code: u16,
    },
}

#[derive(Serialize)]
struct Tcp {
    state: &'static str,
    orig: Peer,
    reply: Peer,
}

#[derive(Serialize)]
struct Peer {
    wscale: u8,
    flags: Vec<&'static str>,
}

/// Something that has happened to a connection.
#[derive(Serialize)]
struct Happening {
    event: String,
    time: String,
    #[serde(flatten)]
    connection: Connection,
}

/// Writes a connection as a JSON object and a line break. All that is known is written, whatever was asked for.
pub(super) fn write(out: &mut dyn Write, printer: &Printer<'_>, number: u32, record: &Record) -> fmt::Result {
    write_line(out, &connection(printer, number, record))
}

/// Writes what has happened to a connection likewise.
pub(super) fn write_event(
    out: &mut dyn Write,
    printer: &Printer<'_>,
    name: &str,
    event: &Event,
) -> fmt::Result {
    let happening = Happening {
        event: name.to_ascii_lowercase(),
        time: Timestamp(printer.epoch + event.at, Zone::Utc).to_string(),
        connection: connection(printer, event.number, &event.record),
    };
    write_line(out, &happening)
}

fn write_line(out: &mut dyn Write, object: &impl Serialize) -> fmt::Result {
    out.write_str(&serde_json::to_string(object).map_err(|_| fmt::Error)?)?;
    out.write_char('\n')
}

fn connection(printer: &Printer<'_>, number: u32, record: &Record) -> Connection {
    let [original, reply] = [0, 1].map(|direction| Direction {
        tuple: tuple(&record.tuples[direction]),
        packets: record.packets[direction],
        bytes: record.bytes[direction],
    });
    Connection {
        protocol: protocol_name(record.connection.protocol).into_owned(),
        zone: record.tuples[0].ports.zone,
        id: number,
        orig: original,
        reply,
        start: Timestamp(printer.epoch + record.created, Zone::Utc).to_string(),
        timeout: printer.timeout(record),
        status: names(&status::NAMES, record.connection.status),
        mark: record.mark,
        labels: format!("{:#x}", u128::from(record.label[0]) << 64 | u128::from(record.label[1])),
        tcp: (record.connection.protocol == protocol::TCP).then(|| tcp(&record.connection.tcp)),
        helper: helper_name(record.helper),
        parent: printer.parent(record).map(|parent| tuple(&parent.tuples[0])),
    }
}

fn tuple(tuple: &layout::Tuple) -> Tuple {
    let ports = &tuple.ports;
    let transport = match ports.protocol {
        protocol::ICMP | protocol::ICMPV6 => {
            Transport::Icmp { id: ports.src, kind: ports.dst >> 8, code: ports.dst & 0xff }
        }
        _ => Transport::Ports { sport: ports.src, dport: ports.dst },
    };
    let [src, dst] = [tuple.src, tuple.dst].map(|halves| address(halves, ports.family).to_string());
    Tuple { src, dst, transport }
}

fn tcp(tcp: &tcp::Tcp) -> Tcp {
    let peer =
        |peer: &tcp::Peer| Peer { wscale: peer.scale, flags: names(&tcp::peer_flags::NAMES, peer.flags) };
    Tcp { state: tcp.state.ovs_name(), orig: peer(&tcp.peers[0]), reply: peer(&tcp.peers[1]) }
}
