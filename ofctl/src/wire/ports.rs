//! The switch's features and its ports.

use super::buf::{Put, Reader, Result};
use super::error::ErrorCode;
use super::message::{Features, Port, PortMod, PortReason};
use crate::port::PortNo;

/// The size of a name, terminator included.
const NAME_LEN: usize = 16;

/// The feature bits that are the same in every version: speeds up to 10 Gb/s.
const SPEEDS: u32 = 0x7f;
/// Copper, fiber, auto-negotiation and the two pauses: bits 7 to 11 in 1.0, 11 to 15 later.
const MEDIA: u32 = 0x1f;
const MEDIA_SHIFT_10: u32 = 7;
const MEDIA_SHIFT: u32 = 11;

pub(super) fn put_features(out: &mut Vec<u8>, features: &Features) {
    out.u64(features.datapath_id);
    out.u32(features.n_buffers);
    out.u8(features.n_tables);
    out.zeros(3);
    out.u32(features.capabilities);
    out.u32(features.actions);
    for port in &features.ports {
        put_port(out, port);
    }
}

pub(super) fn take_features(reader: &mut Reader<'_>) -> Result<Features> {
    let datapath_id = reader.u64()?;
    let n_buffers = reader.u32()?;
    let n_tables = reader.u8()?;
    reader.skip(3)?;
    let (capabilities, actions) = (reader.u32()?, reader.u32()?);
    let mut ports = Vec::new();
    while !reader.is_empty() {
        ports.push(take_port(reader)?);
    }
    Ok(Features { datapath_id, n_buffers, n_tables, capabilities, actions, ports })
}

pub(super) fn put_status(out: &mut Vec<u8>, reason: PortReason, port: &Port) {
    out.u8(reason as u8);
    out.zeros(7);
    put_port(out, port);
}

pub(super) fn take_status(reader: &mut Reader<'_>) -> Result<(PortReason, Port)> {
    let reason = match reader.u8()? {
        0 => PortReason::Add,
        1 => PortReason::Delete,
        2 => PortReason::Modify,
        _ => return Err(ErrorCode::BadReason.into()),
    };
    reader.skip(7)?;
    Ok((reason, take_port(reader)?))
}

pub(super) fn put_mod(out: &mut Vec<u8>, port_mod: &PortMod) {
    out.u16(port_mod.number.0);
    out.put(&port_mod.hw_addr);
    out.u32(port_mod.config);
    out.u32(port_mod.mask);
    out.u32(features_to_10(port_mod.advertise));
    out.zeros(4);
}

pub(super) fn take_mod(reader: &mut Reader<'_>) -> Result<PortMod> {
    let number = PortNo(reader.u16()?);
    let hw_addr = reader.array()?;
    let (config, mask) = (reader.u32()?, reader.u32()?);
    let advertise = features_from_10(reader.u32()?);
    reader.skip(4)?;
    Ok(PortMod { number, hw_addr, config, mask, advertise })
}

pub(super) fn put_port(out: &mut Vec<u8>, port: &Port) {
    out.u16(port.number.0);
    out.put(&port.hw_addr);
    out.string(&port.name, NAME_LEN);
    out.u32(port.config);
    out.u32(port.state);
    for features in [port.current, port.advertised, port.supported, port.peer] {
        out.u32(features_to_10(features));
    }
}

pub(super) fn take_port(reader: &mut Reader<'_>) -> Result<Port> {
    let number = PortNo(reader.u16()?);
    let hw_addr = reader.array()?;
    let name = reader.string(NAME_LEN)?;
    let (config, state) = (reader.u32()?, reader.u32()?);
    let current = features_from_10(reader.u32()?);
    let advertised = features_from_10(reader.u32()?);
    let supported = features_from_10(reader.u32()?);
    let peer = features_from_10(reader.u32()?);
    Ok(Port { number, hw_addr, name, config, state, current, advertised, supported, peer })
}

fn features_to_10(features: u32) -> u32 {
    features & SPEEDS | (features >> MEDIA_SHIFT & MEDIA) << MEDIA_SHIFT_10
}

fn features_from_10(features: u32) -> u32 {
    features & SPEEDS | (features >> MEDIA_SHIFT_10 & MEDIA) << MEDIA_SHIFT
}
