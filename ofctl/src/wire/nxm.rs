//! NXM: matches as lists of fields, each a header, a value and perhaps a mask.
//!
//! A header has 16 bits of class, 7 of field, one that says that there is a mask, and 8 of length (of value and
//! mask together). OpenFlow 1.0 uses Nicira's classes 0 and 1; fields that have none there use OXM's headers.

use super::buf::{Put, Reader, Result, padding};
use super::error::ErrorCode;
use crate::field::{Field, FieldInfo, Subfield, ones};
use crate::flow::Match;
use crate::port::PortNo;

/// NXM_NX_COOKIE: not a field of packets, but a condition on the flows that a message is about.
const COOKIE: (u16, u8) = (1, 30);

/// The fields in the order in which Open vSwitch sends them, which has every field after those that it needs.
/// Fields that only look at a part of another, or at a pair of registers, are sent as those others.
const ORDER: &[Field] = &[
    Field::InPort,
    Field::EthSrc,
    Field::EthDst,
    Field::EthType,
    Field::VlanTci,
    Field::Ipv4Src,
    Field::Ipv4Dst,
    Field::Ipv6Src,
    Field::Ipv6Dst,
    Field::Ipv6Label,
    Field::IpFrag,
    Field::IpTos,
    Field::IpEcn,
    Field::IpTtl,
    Field::IpProto,
    Field::TcpSrc,
    Field::TcpDst,
    Field::TcpFlags,
    Field::UdpSrc,
    Field::UdpDst,
    Field::SctpSrc,
    Field::SctpDst,
    Field::IcmpType,
    Field::IcmpCode,
    Field::Icmpv6Type,
    Field::Icmpv6Code,
    Field::NdTarget,
    Field::NdSll,
    Field::NdTll,
    Field::ArpOp,
    Field::ArpSpa,
    Field::ArpTpa,
    Field::ArpSha,
    Field::ArpTha,
    Field::Reg(0),
    Field::Reg(1),
    Field::Reg(2),
    Field::Reg(3),
    Field::Reg(4),
    Field::Reg(5),
    Field::Reg(6),
    Field::Reg(7),
    Field::Reg(8),
    Field::Reg(9),
    Field::Reg(10),
    Field::Reg(11),
    Field::Reg(12),
    Field::Reg(13),
    Field::Reg(14),
    Field::Reg(15),
    Field::PktMark,
    Field::CtState,
    Field::CtZone,
    Field::CtMark,
    Field::CtLabel,
    Field::CtNwSrc,
    Field::CtNwDst,
    Field::CtIpv6Src,
    Field::CtIpv6Dst,
    Field::CtNwProto,
    Field::CtTpSrc,
    Field::CtTpDst,
    Field::Metadata,
];

/// A condition on a flow's cookie: a value, and the bits of it that count.
pub(super) type Cookie = (u64, u64);

/// Appends a match, and what it is to say of cookies, without padding.
pub(super) fn put_match(out: &mut Vec<u8>, matching: &Match, (cookie, cookie_mask): Cookie) {
    for field in ORDER {
        let info = field.info();
        let mask = matching.mask.get(info.location) & key_mask(info);
        if mask != 0 && info.prerequisite.holds(matching) {
            // Only 8 of ct_state's 32 bits are defined, and all of the others stay wild.
            let whole = mask == key_mask(info) && *field != Field::CtState;
            let mask = (!whole).then_some(mask);
            put_field(out, info, matching.key.get(info.location) & key_mask(info), mask);
        }
    }
    if cookie_mask != 0 {
        let mask = (cookie_mask != u64::MAX).then_some(u128::from(cookie_mask));
        put_entry(out, COOKIE, 8, u128::from(cookie & cookie_mask), mask);
    }
}

/// Appends a match as [`put_match`], padded to 8 bytes; gives its length without the padding.
pub(super) fn put_padded_match(out: &mut Vec<u8>, matching: &Match, cookie: Cookie) -> u16 {
    let start = out.len();
    put_match(out, matching, cookie);
    let len = out.len() - start;
    out.zeros(padding(len));
    // Every field with a mask takes some 600 bytes.
    len as u16
}

/// Appends a field with its value and mask.
pub(super) fn put_field(out: &mut Vec<u8>, info: &FieldInfo, value: u128, mask: Option<u128>) {
    let value =
        if info.field == Field::InPortOxm { u128::from(PortNo(value as u16).to_openflow11()) } else { value };
    put_entry(out, header(info), info.bytes(), value, mask);
}

fn put_entry(out: &mut Vec<u8>, (class, field): (u16, u8), bytes: usize, value: u128, mask: Option<u128>) {
    let len = if mask.is_some() { 2 * bytes } else { bytes };
    out.u16(class);
    out.u8(field << 1 | u8::from(mask.is_some()));
    out.u8(len as u8);
    out.uint(value, bytes);
    if let Some(mask) = mask {
        out.uint(mask, bytes);
    }
}

/// Appends the header that names a field in an action.
pub(super) fn put_header(out: &mut Vec<u8>, field: Field) {
    let info = field.info();
    let (class, number) = header(info);
    out.u16(class);
    out.u8(number << 1);
    out.u8(info.bytes() as u8);
}

/// The class and number under which a field is sent. The fields of the tag that have neither are sent as the
/// OXM fields with the same bits.
fn header(info: &FieldInfo) -> (u16, u8) {
    let info = match info.field {
        Field::DlVlan => Field::VlanVid.info(),
        Field::DlVlanPcp => Field::VlanPcp.info(),
        _ => info,
    };
    info.nxm_header().map_or((0, 0), |header| (header.class, header.field))
}

/// Reads a match of exactly the reader's length.
///
/// # Errors
/// OFPBMC_BAD_FIELD, BAD_VALUE, BAD_MASK, BAD_PREREQ and DUP_FIELD as Open vSwitch gives them.
pub(super) fn take_match(mut reader: Reader<'_>, cookie_allowed: bool) -> Result<(Match, Cookie)> {
    let mut matching = Match::default();
    let mut cookie = (0, 0);
    while !reader.is_empty() {
        let entry = Entry::take(&mut reader)?;
        if entry.header == COOKIE {
            if !cookie_allowed {
                return Err(ErrorCode::NxmInvalid.into());
            }
            if cookie.1 != 0 {
                return Err(ErrorCode::MatchDupField.into());
            }
            let (value, mask) = entry.value(8, ones(64), true)?;
            cookie = (value as u64, mask as u64);
            continue;
        }
        let info = entry.info()?;
        if !info.prerequisite.holds(&matching) {
            return Err(ErrorCode::MatchBadPrereq.into());
        }
        let own = own_mask(info);
        if matching.mask.get(info.location) & own != 0 {
            return Err(ErrorCode::MatchDupField.into());
        }
        let (value, mask) = entry.field_value(info)?;
        matching.set(info.field, value, mask);
    }
    Ok((matching, cookie))
}

/// The bits of a field's place that a match on it may use.
fn key_mask(info: &FieldInfo) -> u128 {
    info.value_mask() & ones(info.location.bits)
}

/// The bits that are this field's alone: two fields of the tag may both say that there is one.
fn own_mask(info: &FieldInfo) -> u128 {
    if info.field == Field::VlanVid { 0xfff } else { key_mask(info) }
}

/// Reads a header that names a field in an action; the field has no value or mask there.
pub(super) fn take_header(reader: &mut Reader<'_>) -> Result<Field> {
    let (class, field, has_mask, len) = take_raw_header(reader)?;
    let info = info((class, field))?;
    if has_mask {
        return Err(ErrorCode::MatchBadMask.into());
    }
    if usize::from(len) != info.bytes() {
        return Err(ErrorCode::MatchBadLen.into());
    }
    Ok(info.field)
}

/// Reads a field with its value and mask: the operand of a set-field. No mask is all ones.
pub(super) fn take_field(reader: &mut Reader<'_>) -> Result<(Field, u128, u128)> {
    let entry = Entry::take(reader)?;
    let info = entry.info()?;
    let (value, mask) = entry.field_value(info)?;
    Ok((info.field, value, mask))
}

/// A run of a field's bits, checked to lie inside it.
pub(super) fn subfield(field: Field, ofs: u16, n_bits: u16) -> Result<Subfield> {
    let width = u16::from(field.info().bits);
    if n_bits == 0 || ofs >= width || n_bits > width - ofs {
        return Err(ErrorCode::ActionBadSetLen.into());
    }
    Ok(Subfield { field, ofs: ofs as u8, n_bits: n_bits as u8 })
}

fn take_raw_header(reader: &mut Reader<'_>) -> Result<(u16, u8, bool, u8)> {
    let class = reader.u16()?;
    let field = reader.u8()?;
    Ok((class, field >> 1, field & 1 != 0, reader.u8()?))
}

fn info((class, field): (u16, u8)) -> Result<&'static FieldInfo> {
    Ok(Field::by_header(class, field).ok_or(ErrorCode::MatchBadField)?.info())
}

/// A field on the wire.
struct Entry<'a> {
    header: (u16, u8),
    has_mask: bool,
    body: &'a [u8],
}

impl<'a> Entry<'a> {
    fn take(reader: &mut Reader<'a>) -> Result<Self> {
        let (class, field, has_mask, len) = take_raw_header(reader)?;
        Ok(Self { header: (class, field), has_mask, body: reader.take(usize::from(len))? })
    }

    fn info(&self) -> Result<&'static FieldInfo> {
        info(self.header)
    }

    /// Value and mask for the place that a flow key has for the field.
    fn field_value(&self, info: &FieldInfo) -> Result<(u128, u128)> {
        if info.field == Field::InPortOxm {
            let (port, mask) = self.value(4, u128::from(u32::MAX), false)?;
            let port = PortNo::from_openflow11(port as u32).ok_or(ErrorCode::MatchBadValue)?;
            return Ok((u128::from(port.0), mask & key_mask(info)));
        }
        // An ARP opcode or a ct_state has more bits on the wire than it has meanings.
        let (value, mask) = self.value(info.bytes(), key_mask(info), info.maskable)?;
        Ok((value, mask & key_mask(info)))
    }

    /// Value and mask of a field of `bytes` bytes, of which only the `allowed` bits may be in the value.
    fn value(&self, bytes: usize, allowed: u128, maskable: bool) -> Result<(u128, u128)> {
        let expected = if self.has_mask { 2 * bytes } else { bytes };
        if self.body.len() != expected {
            return Err(ErrorCode::MatchBadLen.into());
        }
        let mut reader = Reader::new(self.body, ErrorCode::MatchBadLen);
        let value = reader.uint(bytes)?;
        let full = ones(8 * bytes as u8);
        let mask = if self.has_mask { reader.uint(bytes)? } else { full };
        if value & !mask != 0 {
            return Err(ErrorCode::MatchBadWildcards.into());
        }
        if value & !allowed != 0 {
            return Err(ErrorCode::MatchBadValue.into());
        }
        if !maskable && mask != full && mask != 0 {
            return Err(ErrorCode::MatchBadMask.into());
        }
        Ok((value, mask))
    }
}
