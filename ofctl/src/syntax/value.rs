//! The values of fields: numbers, addresses, flags, each with or without a mask.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::error::{SubfieldError, ValueError};
use super::number::{decimal, integer, is_integer, number};
use crate::field::{CT_STATE_FLAGS, Field, FieldInfo, Format, Subfield, TCP_FLAGS, ones};
use crate::port::{PortNames, PortNo};

/// A value and the bits of it that count, right-aligned; the value is zero elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masked {
    pub value: u128,
    pub mask: u128,
}

/// Reads a value of a field: `80`, `10.0.0.0/8`, `+new+trk`. `*` and the empty text are any value.
pub fn masked(field: Field, text: &str, ports: &dyn PortNames) -> Result<Masked, ValueError> {
    if text.is_empty() || text == "*" {
        return Ok(Masked { value: 0, mask: 0 });
    }
    let info = field.info();
    let (value, mask) = match info.format {
        Format::Decimal | Format::Hexadecimal => integers(info, text)?,
        Format::Port => (port_value(info, text, ports)?, ones(info.bits)),
        Format::Ethernet => {
            addresses(text, ones(48), ethernet).ok_or_else(|| ValueError::Ethernet(text.into()))?
        }
        Format::Ipv4 => ipv4(text)?,
        Format::Ipv6 => ipv6(text)?,
        Format::CtState => flags(text, CT_STATE_FLAGS, 8, "ct_state")?,
        Format::TcpFlags => flags(text, TCP_FLAGS, 12, "TCP")?,
        Format::Frag => frag(text)?,
    };
    Ok(Masked { value: value & mask, mask })
}

/// Reads the port of a text: a number, a reserved name in any case, or a name that `ports` knows, in double
/// quotes or without.
pub fn port(text: &str, ports: &dyn PortNames) -> Option<PortNo> {
    if let Some(number) = number::<u32>(text) {
        return u16::try_from(number).map(PortNo).ok().or_else(|| PortNo::from_openflow11(number));
    }
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match quoted {
        Some(name) => ports.number(name),
        None => PortNo::from_reserved_name(text).or_else(|| ports.number(text)),
    }
}

/// Reads `field`, `field[]`, `field[bit]` or `field[first..last]`.
pub fn subfield(text: &str) -> Result<Subfield, SubfieldError> {
    let (name, bits) = match text.find('[') {
        Some(at) => (&text[..at], Some(&text[at..])),
        None => (text, None),
    };
    let Some(field) = Field::by_name(name) else {
        return Err(SubfieldError::UnknownField { text: text.into(), field: name.into() });
    };
    let width = field.info().bits;
    let Some(bits) = bits else {
        return Ok(field.whole());
    };
    let syntax = || SubfieldError::Syntax(text.into());
    let range = bits.strip_prefix('[').and_then(|bits| bits.strip_suffix(']')).ok_or_else(syntax)?;

    let (start, end) = if range.is_empty() {
        (0, u32::from(width) - 1)
    } else {
        let (start, end) = range.split_once("..").unwrap_or((range, range));
        decimal(start).zip(decimal(end)).ok_or_else(syntax)?
    };
    if start > end {
        return Err(SubfieldError::Reversed { text: text.into(), start, end });
    }
    if end >= u32::from(width) {
        return Err(SubfieldError::BeyondField { text: text.into(), end, width });
    }
    Ok(Subfield { field, ofs: start as u8, n_bits: (end - start + 1) as u8 })
}

/// Six bytes of hexadecimal digits with colons between, right-aligned.
pub fn ethernet(text: &str) -> Option<u128> {
    let mut address = 0;
    let mut bytes = 0;
    for byte in text.split(':') {
        if byte.is_empty() || byte.len() > 2 || byte.starts_with('+') {
            return None;
        }
        address = address << 8 | u128::from(u8::from_str_radix(byte, 16).ok()?);
        bytes += 1;
    }
    (bytes == 6).then_some(address)
}

fn integers(info: &FieldInfo, text: &str) -> Result<(u128, u128), ValueError> {
    let part = |digits: &str, part| match integer(digits) {
        Some(value) if value <= ones(8 * info.bytes() as u8) => Ok(value),
        None if !is_integer(digits) => {
            Err(ValueError::BadSyntax { text: text.into(), field: info.name, part })
        }
        _ => Err(ValueError::TooLarge { text: text.into(), bytes: info.bytes(), field: info.name }),
    };
    // OpenFlow 1.0's number for "no VLAN" is beyond the 12 bits of the field.
    if info.field == Field::DlVlan && integer(text) == Some(0xffff) {
        return Ok((0xffff, 0xffff));
    }
    let (value, mask) = match text.split_once('/') {
        None => (part(text, "value")?, info.value_mask()),
        Some((value, mask)) => {
            let mask = part(mask, "mask")?;
            if !info.maskable && mask != ones(8 * info.bytes() as u8) {
                return Err(ValueError::InvalidMask { text: text.into(), field: info.name });
            }
            (part(value, "value")?, mask & info.value_mask())
        }
    };
    // An ARP opcode has 16 bits, of which the key holds 8; a VLAN id without the tag bit matches nothing.
    let valid = match info.field {
        Field::ArpOp => value <= 0xff,
        Field::VlanVid => value <= 0x1fff && (mask != 0x1fff || value == 0 || value & 0x1000 != 0),
        _ => value & !info.value_mask() == 0,
    };
    if valid { Ok((value, mask)) } else { Err(ValueError::NotValid { text: text.into(), field: info.name }) }
}

fn port_value(info: &FieldInfo, text: &str, ports: &dyn PortNames) -> Result<u128, ValueError> {
    match port(text, ports) {
        Some(port) => Ok(u128::from(port.0)),
        None if info.field == Field::InPortOxm => {
            Err(ValueError::PortRange { text: text.into(), field: info.name })
        }
        None => Err(ValueError::Port { text: text.into(), field: info.name }),
    }
}

/// `address`, or `address/mask` with the mask written as an address.
fn addresses(text: &str, whole: u128, read: fn(&str) -> Option<u128>) -> Option<(u128, u128)> {
    match text.split_once('/') {
        None => Some((read(text)?, whole)),
        Some((address, mask)) => Some((read(address)?, read(mask)?)),
    }
}

fn ipv4(text: &str) -> Result<(u128, u128), ValueError> {
    let read = |text: &str| text.parse::<Ipv4Addr>().ok().map(|address| u128::from(address.to_bits()));
    if let Some((address, prefix)) = prefix(text, read) {
        return match prefix {
            0..=32 => Ok((address, ones(32) & !ones(32 - prefix as u8))),
            _ => Err(ValueError::Ipv4Prefix(text.into())),
        };
    }
    addresses(text, ones(32), read).ok_or_else(|| ValueError::Ipv4(text.into()))
}

fn ipv6(text: &str) -> Result<(u128, u128), ValueError> {
    let read = |text: &str| text.parse::<Ipv6Addr>().ok().map(Ipv6Addr::to_bits);
    if let Some((address, prefix)) = prefix(text, read) {
        return match prefix {
            0..=128 => Ok((address, !ones(128 - prefix as u8))),
            _ => Err(ValueError::Ipv6Prefix(text.into())),
        };
    }
    addresses(text, u128::MAX, read).ok_or_else(|| ValueError::Ipv6(text.into()))
}

/// `address/prefix length`.
fn prefix(text: &str, read: fn(&str) -> Option<u128>) -> Option<(u128, u32)> {
    let (address, length) = text.split_once('/')?;
    Some((read(address)?, decimal(length)?))
}

/// `+a-b` (those bits), `a|b` (all bits, exactly these), a number (all bits) or number/mask. Separators inside
/// are skipped, so that `+a,+b` is `+a+b`.
fn flags(text: &str, names: &[&str], width: u8, kind: &'static str) -> Result<(u128, u128), ValueError> {
    let unknown = |text: &str| ValueError::UnknownFlag { text: text.into(), kind };
    let bit = |name: &str| -> Result<u128, ValueError> {
        // Bits without a name are printed, and so read, as [800].
        let unnamed = || {
            let bit = u128::from_str_radix(name.strip_prefix('[')?.strip_suffix(']')?, 16).ok()?;
            (bit.is_power_of_two() && bit <= ones(width)).then_some(bit)
        };
        match names.iter().position(|known| *known == name) {
            Some(position) => Ok(1 << position),
            None => unnamed().ok_or_else(|| unknown(name)),
        }
    };
    let add = |bits: &mut u128, name: &str| {
        let new = bit(name)?;
        if *bits & new != 0 {
            return Err(ValueError::FlagTwice { flag: name.into(), kind });
        }
        *bits |= new;
        Ok(new)
    };

    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let read = |part| integer(part).filter(|bits| *bits <= ones(width)).ok_or_else(|| unknown(text));
        return match text.split_once('/') {
            None => Ok((read(text)?, ones(width))),
            Some((value, mask)) => Ok((read(value)?, read(mask)?)),
        };
    }
    let (mut value, mut mask) = (0, 0);
    if text.starts_with(['+', '-']) {
        let compact: String = text.split([',', ' ', '\t', '\r', '\n']).collect();
        for (at, sign) in compact.match_indices(['+', '-']) {
            let rest = &compact[at + 1..];
            let new = add(&mut mask, &rest[..rest.find(['+', '-']).unwrap_or(rest.len())])?;
            value |= if sign == "+" { new } else { 0 };
        }
        Ok((value, mask))
    } else {
        for name in text.split('|').filter(|name| !name.is_empty()) {
            add(&mut value, name)?;
        }
        Ok((value, ones(width)))
    }
}

fn frag(text: &str) -> Result<(u128, u128), ValueError> {
    const ANY: u128 = 1;
    const LATER: u128 = 2;
    match text {
        "no" => Ok((0, ANY | LATER)),
        "yes" => Ok((ANY, ANY)),
        "first" => Ok((ANY, ANY | LATER)),
        "later" => Ok((ANY | LATER, ANY | LATER)),
        "not_later" => Ok((0, LATER)),
        _ => Err(ValueError::Frag(text.into())),
    }
}
