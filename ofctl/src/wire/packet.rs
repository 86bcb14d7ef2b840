//! Packet-in and packet-out.

use super::actions;
use super::buf::{Put, Reader, Result};
use super::error::{EncodeError, ErrorCode};
use super::message::{PacketIn, PacketOut};
use crate::port::PortNo;

/// The packet is not in the switch's buffer.
const NO_BUFFER: u32 = u32::MAX;

pub(super) fn put_in(out: &mut Vec<u8>, packet: &PacketIn) {
    out.u32(packet.buffer_id.unwrap_or(NO_BUFFER));
    out.u16(packet.total_len);
    out.u16(packet.in_port.0);
    out.u8(packet.reason);
    out.u8(0);
    out.put(&packet.data);
}

pub(super) fn take_in(reader: &mut Reader<'_>) -> Result<PacketIn> {
    let buffer_id = take_buffer(reader)?;
    let total_len = reader.u16()?;
    let in_port = PortNo(reader.u16()?);
    let reason = reader.u8()?;
    reader.skip(1)?;
    Ok(PacketIn { buffer_id, total_len, in_port, reason, data: reader.rest().to_vec() })
}

pub(super) fn put_out(out: &mut Vec<u8>, packet: &PacketOut) -> Result<(), EncodeError> {
    let mut actions = Vec::new();
    actions::put(&mut actions, &packet.actions)?;
    out.u32(packet.buffer_id.unwrap_or(NO_BUFFER));
    out.u16(packet.in_port.0);
    out.u16(u16::try_from(actions.len()).map_err(|_| EncodeError::TooLong)?);
    out.put(&actions);
    out.put(&packet.data);
    Ok(())
}

pub(super) fn take_out(reader: &mut Reader<'_>) -> Result<PacketOut> {
    let buffer_id = take_buffer(reader)?;
    let in_port = PortNo(reader.u16()?);
    let actions_len = usize::from(reader.u16()?);
    let actions = actions::take(Reader::new(reader.take(actions_len)?, ErrorCode::ActionBadLen))?;
    Ok(PacketOut { buffer_id, in_port, actions, data: reader.rest().to_vec() })
}

fn take_buffer(reader: &mut Reader<'_>) -> Result<Option<u32>> {
    let id = reader.u32()?;
    Ok((id != NO_BUFFER).then_some(id))
}
