//! Values of fields.

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Hex, write_port};
use crate::field::{CT_STATE_FLAGS, Field, Format, TCP_FLAGS, ones};
use crate::port::{PortNames, PortNo};

/// Writes a value, and its mask unless that is whole.
pub fn write_value(
    out: &mut dyn Write,
    field: Field,
    value: u128,
    mask: u128,
    ports: &dyn PortNames,
) -> fmt::Result {
    let info = field.info();
    let exact = mask & info.value_mask() == info.value_mask();
    match info.format {
        Format::Decimal if exact => write!(out, "{value}"),
        Format::Decimal => write!(out, "{value:#x}/{mask:#x}"),
        Format::Hexadecimal => write_masked(out, Hex(value), (!exact).then_some(Hex(mask))),
        Format::Ethernet => write_masked(out, Ethernet(value), (!exact).then_some(Ethernet(mask))),
        Format::Ipv4 => write_ipv4(out, value as u32, mask as u32),
        Format::Ipv6 => write_ipv6(out, value, mask),
        Format::Port => write_port(out, PortNo(value as u16), ports),
        Format::CtState => write_flags(out, value, mask, CT_STATE_FLAGS, 8),
        Format::TcpFlags => write_flags(out, value, mask, TCP_FLAGS, 12),
        Format::Frag => out.write_str(frag(value, mask)),
    }
}

fn write_masked<T: fmt::Display>(out: &mut dyn Write, value: T, mask: Option<T>) -> fmt::Result {
    match mask {
        None => write!(out, "{value}"),
        Some(mask) => write!(out, "{value}/{mask}"),
    }
}

/// `00:11:22:33:44:55`, from the low 48 bits.
pub struct Ethernet(pub u128);

impl fmt::Display for Ethernet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [_, _, a, b, c, d, e, g] = (self.0 as u64).to_be_bytes();
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

fn write_ipv4(out: &mut dyn Write, address: u32, mask: u32) -> fmt::Result {
    let address = Ipv4Addr::from_bits(address);
    match mask.count_ones() {
        32 => write!(out, "{address}"),
        prefix if mask.leading_ones() == prefix => write!(out, "{address}/{prefix}"),
        _ => write!(out, "{address}/{}", Ipv4Addr::from_bits(mask)),
    }
}

fn write_ipv6(out: &mut dyn Write, address: u128, mask: u128) -> fmt::Result {
    let address = Ipv6(address);
    match mask.count_ones() {
        128 => write!(out, "{address}"),
        prefix if mask.leading_ones() == prefix => write!(out, "{address}/{prefix}"),
        _ => write!(out, "{address}/{}", Ipv6(mask)),
    }
}

/// An address as `inet_ntop` has it, which writes the low 32 bits as an IPv4 address where only those are set.
pub struct Ipv6(pub u128);

impl fmt::Display for Ipv6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u32::try_from(self.0) {
            Ok(low @ 0x1_0000..) => write!(f, "::{}", Ipv4Addr::from_bits(low)),
            _ => write!(f, "{}", Ipv6Addr::from_bits(self.0)),
        }
    }
}

/// `a|b` where every bit counts, `+a-b` where only some do, in bit order. Bits without a name are `[800]`.
fn write_flags(out: &mut dyn Write, value: u128, mask: u128, names: &[&str], width: u8) -> fmt::Result {
    let exact = mask & ones(width) == ones(width);
    if exact && value == 0 {
        return out.write_str("0");
    }
    let mut first = true;
    for bit in (0..width).filter(|bit| if exact { value >> bit & 1 != 0 } else { mask >> bit & 1 != 0 }) {
        match (exact, first) {
            (true, true) => {}
            (true, false) => out.write_str("|")?,
            (false, _) => out.write_str(if value >> bit & 1 != 0 { "+" } else { "-" })?,
        }
        first = false;
        match names.get(usize::from(bit)) {
            Some(name) => out.write_str(name)?,
            None => write!(out, "[{:x}]", 1 << bit)?,
        }
    }
    Ok(())
}

fn frag(value: u128, mask: u128) -> &'static str {
    const ANY: u128 = 1;
    const LATER: u128 = 2;
    match (mask & (ANY | LATER), value & ANY != 0, value & LATER != 0) {
        (ANY, true, _) => "yes",
        (ANY, false, _) => "no",
        (LATER, _, true) | (_, true, true) => "later",
        (LATER, _, false) => "not_later",
        (_, true, false) => "first",
        (_, false, false) => "no",
        // A later fragment that is none: no packet is so.
        (_, false, true) => "<error>",
    }
}
