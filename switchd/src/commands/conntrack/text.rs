//! `dpctl/dump-conntrack` and `dpctl/flush-conntrack`.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use conntrack_core::{protocol, status, tcp};
use switchd_ebpf::layout::{Record, Tuple6};

use super::{invalid, is_datapath};
use crate::control::{CommandError, Registry};
use crate::datapath::clock;
use crate::switch::Switch;

pub(super) fn register(registry: &mut Registry, switch: &Arc<Switch>) {
    let dumped = Arc::clone(switch);
    registry.register("dpctl/dump-conntrack", "[-m] [-s] [dp] [zone=N]", 0..=4, move |args, reply| {
        let wanted = Wanted::parse(args)?;
        let now = clock::now_ns();
        for (number, record) in dumped.connections().iter() {
            if wanted.zone.is_none_or(|zone| zone == record.tuples[0].ports.zone) {
                write_connection(reply, number, &record, &wanted, now)?;
            }
        }
        Ok(())
    });

    let flushed = Arc::clone(switch);
    registry.register("dpctl/flush-conntrack", "[dp] [zone=N]", 0..=2, move |args, _| {
        let wanted = Wanted::parse(args)?;
        let in_zone = |record: &Record| wanted.zone.is_none_or(|zone| zone == record.tuples[0].ports.zone);
        flushed.connections().flush(in_zone);
        Ok(())
    });
}

/// What a command's arguments ask for.
#[derive(Default)]
struct Wanted {
    /// `-m`: ids, status, and the state of each side.
    more: bool,
    /// `-s`: counters and timeouts.
    statistics: bool,
    /// `zone=N`.
    zone: Option<u16>,
}

impl Wanted {
    fn parse(args: &[String]) -> Result<Self, CommandError> {
        let mut wanted = Self::default();
        for arg in args {
            match arg.as_str() {
                "-m" | "--more" => wanted.more = true,
                "-s" | "--statistics" => wanted.statistics = true,
                name if is_datapath(name) => {}
                other => match other.strip_prefix("zone=").map(str::parse) {
                    Some(Ok(zone)) => wanted.zone = Some(zone),
                    // OVS takes what it cannot read for a datapath's name.
                    _ => return Err(invalid("datapath not found")),
                },
            }
        }
        Ok(wanted)
    }
}

/// One line of `dump-conntrack`, as OVS writes it.
fn write_connection(
    out: &mut dyn Write,
    number: u32,
    record: &Record,
    wanted: &Wanted,
    now: u64,
) -> fmt::Result {
    let connection = &record.connection;
    match connection.protocol {
        protocol::ICMP => out.write_str("icmp")?,
        2 => out.write_str("igmp")?,
        protocol::TCP => out.write_str("tcp")?,
        protocol::UDP => out.write_str("udp")?,
        33 => out.write_str("dccp")?,
        protocol::ICMPV6 => out.write_str("icmpv6")?,
        132 => out.write_str("sctp")?,
        136 => out.write_str("udplite")?,
        other => write!(out, "{other}")?,
    }
    for (direction, name) in ["orig", "reply"].into_iter().enumerate() {
        write!(out, ",{name}=(")?;
        write_tuple(out, &record.tuples[direction])?;
        if wanted.statistics && record.packets[direction] != 0 {
            write!(out, ",packets={},bytes={}", record.packets[direction], record.bytes[direction])?;
        }
        out.write_char(')')?;
    }
    if wanted.more {
        write!(out, ",id={number}")?;
    }
    let zone = record.tuples[0].ports.zone;
    if zone != 0 {
        write!(out, ",zone={zone}")?;
    }
    if wanted.more {
        let names: Vec<&str> = names(&status::NAMES, connection.status);
        write!(out, ",status={}", if names.is_empty() { "0".to_owned() } else { names.join("|") })?;
    }
    if wanted.statistics {
        write!(out, ",timeout={}", record.expires.saturating_sub(now) / 1_000_000_000)?;
    }
    if record.mark != 0 {
        write!(out, ",mark={}", record.mark)?;
    }
    let label = u128::from(record.label[0]) << 64 | u128::from(record.label[1]);
    if label != 0 {
        write!(out, ",labels={label:#x}")?;
    }
    if connection.protocol == protocol::TCP {
        write_protoinfo(out, &connection.tcp, wanted.more)?;
    }
    out.write_char('\n')
}

/// The names of the bits that are set.
fn names<T>(all: &[(T, &'static str)], bits: T) -> Vec<&'static str>
where
    T: Copy + std::ops::BitAnd<Output = T> + Default + PartialEq,
{
    all.iter().filter(|&&(bit, _)| bits & bit != T::default()).map(|&(_, name)| name).collect()
}

fn write_tuple(out: &mut dyn Write, tuple: &Tuple6) -> fmt::Result {
    if tuple.ports.family == 4 {
        let (src, dst) = (Ipv4Addr::from(tuple.src[1] as u32), Ipv4Addr::from(tuple.dst[1] as u32));
        write!(out, "src={src},dst={dst}")?;
    } else {
        let address = |halves: [u64; 2]| Ipv6Addr::from(u128::from(halves[0]) << 64 | u128::from(halves[1]));
        write!(out, "src={},dst={}", address(tuple.src), address(tuple.dst))?;
    }
    let ports = &tuple.ports;
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
