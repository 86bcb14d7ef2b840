//! Nicira's actions: vendor actions with a subtype.

use std::slice;

use super::actions;
use super::buf::{Put, Reader, Result};
use super::ct;
use super::error::{EncodeError, ErrorCode, NICIRA};
use super::nxm;
use crate::action::Action;
use crate::field::{Subfield, ones};
use crate::port::PortNo;

// Subtypes (NXAST_*).
const RESUBMIT: u16 = 1;
const REG_MOVE: u16 = 6;
const REG_LOAD: u16 = 7;
const NOTE: u16 = 8;
const RESUBMIT_TABLE: u16 = 14;
const OUTPUT_REG: u16 = 15;
const DEC_TTL: u16 = 18;
const WRITE_METADATA: u16 = 22;
const OUTPUT_REG2: u16 = 32;
const REG_LOAD2: u16 = 33;
const CT: u16 = 35;
const NAT: u16 = 36;
const CLONE: u16 = 42;
const CT_CLEAR: u16 = 43;
const RESUBMIT_TABLE_CT: u16 = 44;

/// The table number that stands for the current table.
const CURRENT_TABLE: u8 = 0xff;

/// How much of a packet a register's controller port gets.
const REG_MAX_LEN: u16 = 0xffff;

/// OpenFlow 1.0 can give a tag only to packets that have none, and those the match must tell.
const SECOND_TAG: &str =
    "push_vlan of packets that may have a tag (match vlan_tci=0, too, or strip_vlan first)";

/// What comes before a Nicira action's own fields: type, length, vendor, subtype.
const HEADER_LEN: usize = 10;

/// Appends an action that OpenFlow 1.0 itself does not have; any other goes the way of [`actions::put`].
pub(super) fn put(out: &mut Vec<u8>, action: &Action) -> Result<(), EncodeError> {
    match action {
        Action::OutputReg(src) => put_action(out, OUTPUT_REG, |out| {
            put_run(out, *src);
            nxm::put_header(out, src.field);
            out.u16(REG_MAX_LEN);
            out.zeros(6);
            Ok(())
        }),
        Action::Resubmit { port, table, ct } => {
            let subtype = if *ct { RESUBMIT_TABLE_CT } else { RESUBMIT_TABLE };
            put_action(out, subtype, |out| {
                out.u16(port.unwrap_or(PortNo::IN_PORT).0);
                out.u8(table.unwrap_or(CURRENT_TABLE));
                Ok(())
            })
        }
        Action::WriteMetadata { value, mask } => put_action(out, WRITE_METADATA, |out| {
            out.zeros(6);
            out.u64(*value);
            out.u64(*mask);
            Ok(())
        }),
        Action::Load { value, dst } => put_action(out, REG_LOAD, |out| {
            put_run(out, *dst);
            nxm::put_header(out, dst.field);
            out.u64(*value);
            Ok(())
        }),
        Action::Move { src, dst } => put_action(out, REG_MOVE, |out| {
            out.u16(u16::from(src.n_bits));
            out.u16(u16::from(src.ofs));
            out.u16(u16::from(dst.ofs));
            nxm::put_header(out, src.field);
            nxm::put_header(out, dst.field);
            Ok(())
        }),
        Action::DecTtl => put_action(out, DEC_TTL, |_| Ok(())),
        Action::Ct(ct) => put_action(out, CT, |out| ct::put(out, ct)),
        Action::CtClear => put_action(out, CT_CLEAR, |_| Ok(())),
        Action::Clone(inner) => put_action(out, CLONE, |out| {
            out.zeros(6);
            actions::put(out, inner)
        }),
        Action::Note(bytes) => put_action(out, NOTE, |out| {
            out.put(bytes);
            Ok(())
        }),
        Action::PushVlan(_) => Err(EncodeError::Unsupported(SECOND_TAG)),
        Action::Output { .. }
        | Action::SetField { .. }
        | Action::ModDl(..)
        | Action::ModNw(..)
        | Action::ModNwTos(_)
        | Action::ModNwEcn(_)
        | Action::ModNwTtl(_)
        | Action::ModTp(..)
        | Action::ModVlanVid(_)
        | Action::ModVlanPcp(_)
        | Action::StripVlan
        | Action::GotoTable(_) => actions::put(out, slice::from_ref(action)),
    }
}

/// Appends a Nicira action: header, body and padding to 8 bytes.
pub(super) fn put_action(
    out: &mut Vec<u8>,
    subtype: u16,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.u16(0xffff);
    out.u16(0);
    out.u32(NICIRA);
    out.u16(subtype);
    body(out)?;
    let len = (out.len() - start).next_multiple_of(8);
    out.resize(start + len, 0);
    let len = u16::try_from(len).map_err(|_| EncodeError::TooLong)?;
    out[start + 2..start + 4].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

/// Appends a run of bits: its offset in the high 10 bits, its length less one in the low 6.
fn put_run(out: &mut Vec<u8>, run: Subfield) {
    out.u16(u16::from(run.ofs) << 6 | u16::from(run.n_bits.wrapping_sub(1) & 0x3f));
}

/// Splits what [`put_run`] writes into offset and length.
pub(super) fn split_run(run: u16) -> (u16, u16) {
    (run >> 6, (run & 0x3f) + 1)
}

/// Reads a Nicira action from its subtype on.
pub(super) fn take(mut body: Reader<'_>, depth: u8) -> Result<Action> {
    let subtype = body.u16()?;
    let len = HEADER_LEN + body.remaining();
    let expected = match subtype {
        RESUBMIT | RESUBMIT_TABLE | RESUBMIT_TABLE_CT | DEC_TTL | CT_CLEAR => Some(16),
        REG_MOVE | REG_LOAD | OUTPUT_REG | OUTPUT_REG2 => Some(24),
        WRITE_METADATA => Some(32),
        _ => None,
    };
    if expected.is_some_and(|expected| len != expected) {
        return Err(ErrorCode::ActionBadLen.into());
    }
    match subtype {
        RESUBMIT => {
            let port = body.u16()?;
            Ok(resubmit(port, CURRENT_TABLE, false))
        }
        RESUBMIT_TABLE | RESUBMIT_TABLE_CT => {
            let port = body.u16()?;
            let table = body.u8()?;
            body.zeros(3, ErrorCode::ActionBadArgument)?;
            Ok(resubmit(port, table, subtype == RESUBMIT_TABLE_CT))
        }
        REG_MOVE => take_move(body),
        REG_LOAD => take_load(body),
        REG_LOAD2 => take_set_field(body),
        NOTE => Ok(Action::Note(body.rest().to_vec())),
        OUTPUT_REG => {
            let (ofs, n_bits) = split_run(body.u16()?);
            let field = nxm::take_header(&mut body)?;
            body.skip(2)?;
            body.zeros(6, ErrorCode::MustBeZero)?;
            Ok(Action::OutputReg(nxm::subfield(field, ofs, n_bits)?))
        }
        OUTPUT_REG2 => {
            let (ofs, n_bits) = split_run(body.u16()?);
            body.skip(2)?;
            let field = nxm::take_header(&mut body)?;
            body.zeros(body.remaining(), ErrorCode::MustBeZero)?;
            Ok(Action::OutputReg(nxm::subfield(field, ofs, n_bits)?))
        }
        DEC_TTL => Ok(Action::DecTtl),
        WRITE_METADATA => {
            body.zeros(6, ErrorCode::MustBeZero)?;
            Ok(Action::WriteMetadata { value: body.u64()?, mask: body.u64()? })
        }
        CT => Ok(Action::Ct(Box::new(ct::take(body, depth)?))),
        CT_CLEAR => Ok(Action::CtClear),
        CLONE => {
            body.skip(6)?;
            Ok(Action::Clone(actions::take_nested(body, depth + 1)?))
        }
        // Only inside ct, which reads it itself.
        NAT => Err(ErrorCode::ActionBadArgument.into()),
        _ => Err(ErrorCode::ActionBadVendorType.into()),
    }
}

fn resubmit(port: u16, table: u8, ct: bool) -> Action {
    Action::Resubmit {
        port: (port != PortNo::IN_PORT.0).then_some(PortNo(port)),
        table: (table != CURRENT_TABLE).then_some(table),
        ct,
    }
}

fn take_move(mut body: Reader<'_>) -> Result<Action> {
    let n_bits = body.u16()?;
    let (src_ofs, dst_ofs) = (body.u16()?, body.u16()?);
    let src = nxm::take_header(&mut body)?;
    let dst = nxm::take_header(&mut body)?;
    let src = nxm::subfield(src, src_ofs, n_bits)?;
    let dst = nxm::subfield(dst, dst_ofs, n_bits)?;
    Ok(Action::Move { src, dst: writable(dst)? })
}

fn take_load(mut body: Reader<'_>) -> Result<Action> {
    let (ofs, n_bits) = split_run(body.u16()?);
    let field = nxm::take_header(&mut body)?;
    let value = body.u64()?;
    let dst = writable(nxm::subfield(field, ofs, n_bits)?)?;
    if u128::from(value) & !ones(dst.n_bits) != 0 {
        return Err(ErrorCode::ActionBadArgument.into());
    }
    Ok(Action::Load { value, dst })
}

fn take_set_field(mut body: Reader<'_>) -> Result<Action> {
    body.zeros(6, ErrorCode::MustBeZero)?;
    let (field, value, mask) = nxm::take_field(&mut body)?;
    if body.remaining() >= 8 {
        return Err(ErrorCode::ActionBadLen.into());
    }
    body.zeros(body.remaining(), ErrorCode::MustBeZero)?;
    writable(field.whole())?;
    Ok(Action::SetField { field, value, mask })
}

/// A run of bits, if actions may write there.
fn writable(run: Subfield) -> Result<Subfield> {
    if run.field.info().writable { Ok(run) } else { Err(ErrorCode::ActionBadSetArgument.into()) }
}
