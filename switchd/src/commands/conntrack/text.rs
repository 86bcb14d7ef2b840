//! A connection as OVS prints it.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conntrack_core::{protocol, status, tcp};
use switchd_ebpf::layout::{Record, Tuple, helper};

use super::dump::Printer;
use super::timestamp::{Timestamp, Zone};

/// Writes a connection's line.
pub(super) fn write(out: &mut dyn Write, printer: &Printer<'_>, number: u32, record: &Record) -> fmt::Result {
    let connection = &record.connection;
    let (more, statistics) = (printer.more, printer.statistics);
    out.write_str(&protocol_name(connection.protocol))?;
    for (direction, name) in ["orig", "reply"].into_iter().enumerate() {
        write!(out, ",{name}=(")?;
        write_tuple(out, &record.tuples[direction])?;
        if statistics && record.packets[direction] != 0 {
            write!(out, ",packets={},bytes={}", record.packets[direction], record.bytes[direction])?;
        }
        out.write_char(')')?;
    }
    if statistics {
        write!(out, ",start={}", Timestamp(printer.epoch + record.created, Zone::Local))?;
    }
    if more {
        write!(out, ",id={number}")?;
    }
    let zone = record.tuples[0].ports.zone;
    if zone != 0 {
        write!(out, ",zone={zone}")?;
    }
    if more {
        let names: Vec<&str> = names(&status::NAMES, connection.status);
        write!(out, ",status={}", if names.is_empty() { "0".to_owned() } else { names.join("|") })?;
    }
    if statistics {
        write!(out, ",timeout={}", printer.timeout(record))?;
    }
    if record.mark != 0 {
        write!(out, ",mark={}", record.mark)?;
    }
    let label = u128::from(record.label[0]) << 64 | u128::from(record.label[1]);
    if label != 0 {
        write!(out, ",labels={label:#x}")?;
    }
    match connection.protocol {
        protocol::TCP => write_protoinfo(out, &connection.tcp, more)?,
        protocol::SCTP => {
            let (state, [orig, reply]) = (connection.sctp_state.ovs_name(), connection.vtags());
            write!(out, ",protoinfo=(state={state},vtag_orig={orig},vtag_reply={reply})")?;
        }
        _ => {}
    }
    if let Some(name) = helper_name(record.helper) {
        write!(out, ",helper={name}")?;
    }
    if more && let Some(parent) = printer.parent(record) {
        out.write_str(",parent=(")?;
        write_tuple(out, &parent.tuples[0])?;
        out.write_char(')')?;
    }
    out.write_char('\n')
}

/// OVS's name of a protocol, or its number.
pub(super) fn protocol_name(number: u8) -> Cow<'static, str> {
    Cow::Borrowed(match number {
        protocol::ICMP => "icmp",
        2 => "igmp",
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        33 => "dccp",
        protocol::ICMPV6 => "icmpv6",
        protocol::SCTP => "sctp",
        136 => "udplite",
        other => return Cow::Owned(other.to_string()),
    })
}

/// The name of a helper, if there is one.
pub(super) fn helper_name(number: u16) -> Option<&'static str> {
    match number {
        helper::FTP => Some("ftp"),
        helper::TFTP => Some("tftp"),
        _ => None,
    }
}

/// The names of the bits that are set.
pub(super) fn names<T>(all: &[(T, &'static str)], bits: T) -> Vec<&'static str>
where
    T: Copy + std::ops::BitAnd<Output = T> + Default + PartialEq,
{
    all.iter().filter(|&&(bit, _)| bits & bit != T::default()).map(|&(_, name)| name).collect()
}

/// An address of a tuple.
pub(super) fn address(halves: [u64; 2], family: u8) -> IpAddr {
    if family == 4 {
        Ipv4Addr::from(halves[1] as u32).into()
    } else {
        Ipv6Addr::from(u128::from(halves[0]) << 64 | u128::from(halves[1])).into()
    }
}

fn write_tuple(out: &mut dyn Write, tuple: &Tuple) -> fmt::Result {
    let ports = &tuple.ports;
    write!(out, "src={},dst={}", address(tuple.src, ports.family), address(tuple.dst, ports.family))?;
    match ports.protocol {
        protocol::ICMP | protocol::ICMPV6 => {
            write!(out, ",id={},type={},code={}", ports.src, ports.dst >> 8, ports.dst & 0xff)
        }
        _ => write!(out, ",sport={},dport={}", ports.src, ports.dst),
    }
}

fn write_protoinfo(out: &mut dyn Write, tcp: &tcp::Tcp, more: bool) -> fmt::Result {
    if !more {
        return write!(out, ",protoinfo=(state={})", tcp.state.ovs_plain_name());
    }
    let state = tcp.state.ovs_name();
    write!(out, ",protoinfo=(state_orig={state},state_reply={state}")?;
    let peers = &tcp.peers;
    write!(out, ",wscale_orig={},wscale_reply={}", peers[0].scale, peers[1].scale)?;
    for (peer, name) in peers.iter().zip(["orig", "reply"]) {
        let names = names(&tcp::peer_flags::NAMES, peer.flags);
        write!(out, ",flags_{name}={}", if names.is_empty() { "0".to_owned() } else { names.join("|") })?;
    }
    out.write_char(')')
}
