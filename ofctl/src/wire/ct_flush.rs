//! NXT_CT_FLUSH: which connections to forget, as a list of properties.

use std::net::{IpAddr, Ipv6Addr};

use super::buf::{Put, Reader, Result, padding};
use super::error::ErrorCode;
use super::message::{CtFlush, CtTuple};

// Properties (NXT_CT_*).
const ORIGINAL: u16 = 0;
const REPLY: u16 = 1;
const ZONE: u16 = 2;
const MARK: u16 = 3;
const MARK_MASK: u16 = 4;
const LABEL: u16 = 5;
const LABEL_MASK: u16 = 6;

// Properties of a tuple (NXT_CT_TUPLE_*).
const SRC: u16 = 0;
const DST: u16 = 1;
const SRC_PORT: u16 = 2;
const DST_PORT: u16 = 3;
const ICMP_ID: u16 = 4;
const ICMP_TYPE: u16 = 5;
const ICMP_CODE: u16 = 6;

/// Appends NXT_CT_FLUSH's body.
pub(super) fn put(out: &mut Vec<u8>, flush: &CtFlush) {
    out.u8(flush.ip_proto);
    out.zeros(7);
    put_tuple(out, ORIGINAL, &flush.original);
    put_tuple(out, REPLY, &flush.reply);
    if let Some(zone) = flush.zone {
        put_property(out, ZONE, &padded(zone));
    }
    if let Some((mark, mask)) = flush.mark {
        put_property(out, MARK, &mark.to_be_bytes());
        put_property(out, MARK_MASK, &mask.to_be_bytes());
    }
    if let Some((label, mask)) = flush.label {
        put_property(out, LABEL, &label.to_be_bytes());
        put_property(out, LABEL_MASK, &mask.to_be_bytes());
    }
}

/// Appends a property: type, length without the padding, value.
fn put_property(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = 4 + value.len();
    out.u16(kind);
    out.u16(len as u16);
    out.put(value);
    out.zeros(padding(len));
}

/// Appends a tuple as a property, whose header is padded to 8 bytes since properties follow in it.
fn put_tuple(out: &mut Vec<u8>, kind: u16, tuple: &CtTuple) {
    if *tuple == CtTuple::default() {
        return;
    }
    let mut inner = vec![0; 4];
    let mut put = |kind, value: Option<&[u8]>| {
        if let Some(value) = value {
            put_property(&mut inner, kind, value);
        }
    };
    put(SRC, tuple.src.map(mapped).as_ref().map(<[u8; 16]>::as_slice));
    put(DST, tuple.dst.map(mapped).as_ref().map(<[u8; 16]>::as_slice));
    put(SRC_PORT, tuple.src_port.map(padded).as_ref().map(<[u8; 4]>::as_slice));
    put(DST_PORT, tuple.dst_port.map(padded).as_ref().map(<[u8; 4]>::as_slice));
    put(ICMP_ID, tuple.icmp_id.map(padded).as_ref().map(<[u8; 4]>::as_slice));
    put(ICMP_TYPE, tuple.icmp_type.map(|kind| [kind]).as_ref().map(<[u8; 1]>::as_slice));
    put(ICMP_CODE, tuple.icmp_code.map(|code| [code]).as_ref().map(<[u8; 1]>::as_slice));
    put_property(out, kind, &inner);
}

/// A number of 16 bits, padded to 4 bytes that all count in the property's length.
fn padded(number: u16) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [high, low, 0, 0]
}

/// IPv4 addresses go as IPv4-mapped ones.
fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Reads NXT_CT_FLUSH's body.
pub(super) fn take(reader: &mut Reader<'_>) -> Result<CtFlush> {
    let ip_proto = reader.u8()?;
    reader.zeros(7, ErrorCode::MustBeZero)?;
    let mut flush = CtFlush { ip_proto, ..CtFlush::default() };
    let (mut mark, mut mark_mask, mut label, mut label_mask) = (None, None, None, None);
    while let Some((kind, mut value)) = take_property(reader)? {
        match kind {
            ORIGINAL => flush.original = take_tuple(value)?,
            REPLY => flush.reply = take_tuple(value)?,
            ZONE => flush.zone = Some(take_u16(&mut value)?),
            MARK => mark = Some(value.u32()?),
            MARK_MASK => mark_mask = Some(value.u32()?),
            LABEL => label = Some(value.uint(16)?),
            LABEL_MASK => label_mask = Some(value.uint(16)?),
            _ => return Err(ErrorCode::PropertyBadType.into()),
        }
        if !matches!(kind, ORIGINAL | REPLY) {
            value.end()?;
        }
    }
    let tuples = [flush.original, flush.reply];
    let mut addresses = tuples.iter().flat_map(|tuple| [tuple.src, tuple.dst]).flatten();
    if let Some(first) = addresses.next()
        && addresses.any(|address| address.is_ipv4() != first.is_ipv4())
    {
        return Err(ErrorCode::PropertyBadValue.into());
    }
    flush.mark = mark.map(|mark| (mark, mark_mask.unwrap_or(u32::MAX)));
    flush.label = label.map(|label| (label, label_mask.unwrap_or(u128::MAX)));
    Ok(flush)
}

/// Reads a property and its padding; none at the end.
fn take_property<'a>(reader: &mut Reader<'a>) -> Result<Option<(u16, Reader<'a>)>> {
    if reader.is_empty() {
        return Ok(None);
    }
    let kind = reader.u16()?;
    let len = usize::from(reader.u16()?);
    let value = reader.take(len.checked_sub(4).ok_or(ErrorCode::PropertyBadLen)?)?;
    reader.skip(padding(len))?;
    Ok(Some((kind, Reader::new(value, ErrorCode::PropertyBadLen))))
}

fn take_tuple(mut value: Reader<'_>) -> Result<CtTuple> {
    let mut tuple = CtTuple::default();
    value.skip(4)?;
    while let Some((kind, mut value)) = take_property(&mut value)? {
        match kind {
            SRC => tuple.src = Some(take_address(&mut value)?),
            DST => tuple.dst = Some(take_address(&mut value)?),
            SRC_PORT => tuple.src_port = Some(take_u16(&mut value)?),
            DST_PORT => tuple.dst_port = Some(take_u16(&mut value)?),
            ICMP_ID => tuple.icmp_id = Some(take_u16(&mut value)?),
            ICMP_TYPE => tuple.icmp_type = Some(value.u8()?),
            ICMP_CODE => tuple.icmp_code = Some(value.u8()?),
            _ => return Err(ErrorCode::PropertyBadType.into()),
        }
        value.end()?;
    }
    if [tuple.icmp_type, tuple.icmp_code] == [Some(0); 2] && tuple.icmp_id == Some(0) {
        // What ovs-ofctl sends where the user has named none of them.
        (tuple.icmp_id, tuple.icmp_type, tuple.icmp_code) = (None, None, None);
    }
    Ok(tuple)
}

fn take_u16(value: &mut Reader<'_>) -> Result<u16> {
    let number = value.u16()?;
    value.skip(2)?;
    Ok(number)
}

fn take_address(value: &mut Reader<'_>) -> Result<IpAddr> {
    Ok(Ipv6Addr::from(value.array::<16>()?).to_canonical())
}
