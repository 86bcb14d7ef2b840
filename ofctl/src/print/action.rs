//! Actions.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use super::value::{Ethernet, Ipv6, write_value};
use super::{Hex, write_port};
use crate::action::{Action, Alg, Ct, Direction, Nat, Zone};
use crate::field::Subfield;
use crate::port::{PortNames, PortNo};

/// Writes a list of actions, without `actions=` before it; an empty one is `drop`.
///
/// # Errors
/// Those of the writer.
pub fn write_actions(out: &mut dyn Write, actions: &[Action], ports: &dyn PortNames) -> fmt::Result {
    if actions.is_empty() {
        return out.write_str("drop");
    }
    write_list(out, actions, ports)
}

fn write_list(out: &mut dyn Write, actions: &[Action], ports: &dyn PortNames) -> fmt::Result {
    for (i, action) in actions.iter().enumerate() {
        if i > 0 {
            out.write_str(",")?;
        }
        write_action(out, action, ports)?;
    }
    Ok(())
}

/// Writes one action.
///
/// # Errors
/// Those of the writer.
pub fn write_action(out: &mut dyn Write, action: &Action, ports: &dyn PortNames) -> fmt::Result {
    let name = action.name();
    match action {
        Action::Output { port: PortNo::CONTROLLER, max_len } => write!(out, "CONTROLLER:{max_len}"),
        Action::Output { port, .. } => {
            if port.reserved_name().is_none() {
                out.write_str("output:")?;
            }
            write_port(out, *port, ports)
        }
        Action::OutputReg(src) => write!(out, "output:{src}"),
        Action::Resubmit { port, table, ct } => write_resubmit(out, *port, *table, *ct, ports),
        Action::GotoTable(table) => write!(out, "goto_table:{table}"),
        Action::WriteMetadata { value, mask: u64::MAX } => {
            write!(out, "write_metadata:{}", Hex((*value).into()))
        }
        Action::WriteMetadata { value, mask } => {
            write!(out, "write_metadata:{}/{}", Hex((*value).into()), Hex((*mask).into()))
        }
        Action::Load { value, dst } => write!(out, "load:{}->{dst}", Hex((*value).into())),
        Action::SetField { field, value, mask } => {
            out.write_str("set_field:")?;
            write_value(out, *field, *value, *mask, ports)?;
            write!(out, "->{}", field.info().name)
        }
        Action::Move { src, dst } => write!(out, "move:{src}->{dst}"),
        Action::ModDl(_, address) => write!(out, "{name}:{}", Ethernet((*address).into())),
        Action::ModNw(_, address) => write!(out, "{name}:{}", Ipv4Addr::from_bits(*address)),
        Action::ModTp(_, number) | Action::ModVlanVid(number) => write!(out, "{name}:{number}"),
        Action::ModNwTos(number)
        | Action::ModNwEcn(number)
        | Action::ModNwTtl(number)
        | Action::ModVlanPcp(number) => write!(out, "{name}:{number}"),
        Action::PushVlan(ethertype) => write!(out, "push_vlan:{ethertype:#06x}"),
        Action::DecTtl | Action::StripVlan | Action::CtClear => out.write_str(name),
        Action::Ct(ct) => write_ct(out, ct, ports),
        Action::Clone(actions) => {
            out.write_str("clone(")?;
            write_actions(out, actions, ports)?;
            out.write_str(")")
        }
        Action::Note(note) => {
            out.write_str("note:")?;
            note.iter().enumerate().try_for_each(|(i, byte)| {
                let dot = if i > 0 { "." } else { "" };
                write!(out, "{dot}{byte:02x}")
            })
        }
    }
}

/// By the name of its NXM or OXM header, as OVS prints it: `NXM_NX_REG0[0..15]`, `NXM_NX_REG0[]`.
impl fmt::Display for Subfield {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.field.info();
        f.write_str(info.nxm_header().map_or(info.name, |header| header.name))?;
        match (self.ofs, self.n_bits) {
            (0, n_bits) if n_bits == info.bits => f.write_str("[]"),
            (ofs, 1) => write!(f, "[{ofs}]"),
            (ofs, n_bits) => write!(f, "[{ofs}..{}]", ofs + n_bits - 1),
        }
    }
}

fn write_resubmit(
    out: &mut dyn Write,
    port: Option<PortNo>,
    table: Option<u8>,
    ct: bool,
    ports: &dyn PortNames,
) -> fmt::Result {
    if let (Some(port), None, false) = (port, table, ct) {
        out.write_str("resubmit:")?;
        return write_port(out, port, ports);
    }
    out.write_str("resubmit(")?;
    if let Some(port) = port {
        write_port(out, port, ports)?;
    }
    out.write_str(",")?;
    if let Some(table) = table {
        write!(out, "{table}")?;
    }
    out.write_str(if ct { ",ct)" } else { ")" })
}

fn write_ct(out: &mut dyn Write, ct: &Ct, ports: &dyn PortNames) -> fmt::Result {
    out.write_str("ct(")?;
    let mut separator = "";
    let mut item = |out: &mut dyn Write| out.write_str(std::mem::replace(&mut separator, ","));
    for (set, flag) in [(ct.commit, "commit"), (ct.force, "force")] {
        if set {
            item(out)?;
            out.write_str(flag)?;
        }
    }
    if let Some(table) = ct.table {
        item(out)?;
        write!(out, "table={table}")?;
    }
    match ct.zone {
        Zone::Constant(0) => {}
        Zone::Constant(zone) => {
            item(out)?;
            write!(out, "zone={zone}")?;
        }
        Zone::Field(field) => {
            item(out)?;
            write!(out, "zone={field}")?;
        }
    }
    if let Some(nat) = &ct.nat {
        item(out)?;
        write_nat(out, nat)?;
    }
    if !ct.exec.is_empty() {
        item(out)?;
        out.write_str("exec(")?;
        write_list(out, &ct.exec, ports)?;
        out.write_str(")")?;
    }
    if let Some(alg) = ct.alg {
        item(out)?;
        out.write_str(match alg {
            Alg::Ftp => "alg=ftp",
            Alg::Tftp => "alg=tftp",
        })?;
    }
    out.write_str(")")
}

fn write_nat(out: &mut dyn Write, nat: &Nat) -> fmt::Result {
    out.write_str(match nat.direction {
        None => return out.write_str("nat"),
        Some(Direction::Src) => "nat(src",
        Some(Direction::Dst) => "nat(dst",
    })?;
    // As in OVS, flags are shown beside a range only: without one there is nothing to choose from.
    let Some(addresses) = &nat.addresses else { return out.write_str(")") };
    out.write_str("=")?;
    write_addresses(out, addresses, nat.ports.is_some())?;
    if let Some(ports) = &nat.ports {
        write!(out, ":{}", ports.start())?;
        if ports.end() != ports.start() {
            write!(out, "-{}", ports.end())?;
        }
    }
    for (set, flag) in [(nat.persistent, ",persistent"), (nat.hash, ",hash"), (nat.random, ",random")] {
        if set {
            out.write_str(flag)?;
        }
    }
    out.write_str(")")
}

/// IPv6 addresses stand in brackets when ports follow.
fn write_addresses(out: &mut dyn Write, range: &RangeInclusive<IpAddr>, ports_follow: bool) -> fmt::Result {
    let write = |out: &mut dyn Write, address: &IpAddr| match address {
        IpAddr::V6(address) if ports_follow => write!(out, "[{}]", Ipv6(address.to_bits())),
        IpAddr::V6(address) => write!(out, "{}", Ipv6(address.to_bits())),
        IpAddr::V4(address) => write!(out, "{address}"),
    };
    write(out, range.start())?;
    if range.end() != range.start() {
        out.write_str("-")?;
        write(out, range.end())?;
    }
    Ok(())
}
