//! OpenFlow 1.0's messages by type, and Nicira's by subtype.

use super::buf::{Put, Reader, Result};
use super::error::{EncodeError, ErrorCode, NICIRA};
use super::message::{
    AsyncConfig, ErrorMessage, FlowFormat, Message, PacketInFormat, Protocol, SwitchConfig, Version, Xid,
};
use super::{ct_flush, flow_mod, frame, packet, ports, stats};

// Types (OFPT10_*).
pub(super) const HELLO: u8 = 0;
pub(super) const ERROR: u8 = 1;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const VENDOR: u8 = 4;
const FEATURES_REQUEST: u8 = 5;
const FEATURES_REPLY: u8 = 6;
const GET_CONFIG_REQUEST: u8 = 7;
const GET_CONFIG_REPLY: u8 = 8;
const SET_CONFIG: u8 = 9;
const PACKET_IN: u8 = 10;
const FLOW_REMOVED: u8 = 11;
const PORT_STATUS: u8 = 12;
const PACKET_OUT: u8 = 13;
const FLOW_MOD: u8 = 14;
const PORT_MOD: u8 = 15;
const STATS_REQUEST: u8 = 16;
const STATS_REPLY: u8 = 17;
const BARRIER_REQUEST: u8 = 18;
const BARRIER_REPLY: u8 = 19;

// Subtypes of Nicira's messages (NXT_*).
const NXT_SET_FLOW_FORMAT: u32 = 12;
const NXT_FLOW_MOD: u32 = 13;
const NXT_FLOW_REMOVED: u32 = 14;
const NXT_FLOW_MOD_TABLE_ID: u32 = 15;
const NXT_SET_PACKET_IN_FORMAT: u32 = 16;
const NXT_SET_ASYNC_CONFIG: u32 = 19;
const NXT_CT_FLUSH_ZONE: u32 = 29;
const NXT_CT_FLUSH: u32 = 32;

// NXT_SET_FLOW_FORMAT's values (NXFF_*).
const NXFF_OPENFLOW10: u32 = 0;
const NXFF_NXM: u32 = 2;

/// The error type under which OpenFlow 1.0 carries the errors of vendors (NXET_VENDOR).
const VENDOR_ERROR: u16 = 0xb0c2;

/// Encodes every message but HELLO.
pub(super) fn encode(protocol: Protocol, xid: Xid, message: &Message) -> Result<Vec<u8>, EncodeError> {
    let plain = |kind, body: &[u8]| message_of(kind, xid, |out| put_all(out, body));
    let nicira = |subtype, body: &[u8]| nicira_message(subtype, xid, |out| put_all(out, body));
    match message {
        Message::Hello(versions) => Ok(super::hello::encode(xid, *versions)),
        Message::Error(error) => Ok(encode_error(Version::V10.number(), xid, error.code, &error.data)),
        Message::EchoRequest(data) => plain(ECHO_REQUEST, data),
        Message::EchoReply(data) => plain(ECHO_REPLY, data),
        Message::FeaturesRequest => plain(FEATURES_REQUEST, &[]),
        Message::FeaturesReply(features) => message_of(FEATURES_REPLY, xid, |out| {
            ports::put_features(out, features);
            Ok(())
        }),
        Message::GetConfigRequest => plain(GET_CONFIG_REQUEST, &[]),
        Message::GetConfigReply(config) => message_of(GET_CONFIG_REPLY, xid, |out| put_config(out, config)),
        Message::SetConfig(config) => message_of(SET_CONFIG, xid, |out| put_config(out, config)),
        Message::BarrierRequest => plain(BARRIER_REQUEST, &[]),
        Message::BarrierReply => plain(BARRIER_REPLY, &[]),
        Message::PacketIn(packet) => message_of(PACKET_IN, xid, |out| {
            packet::put_in(out, packet);
            Ok(())
        }),
        Message::PacketOut(packet) => message_of(PACKET_OUT, xid, |out| packet::put_out(out, packet)),
        Message::PortStatus(reason, port) => message_of(PORT_STATUS, xid, |out| {
            ports::put_status(out, *reason, port);
            Ok(())
        }),
        Message::PortMod(port_mod) => message_of(PORT_MOD, xid, |out| {
            ports::put_mod(out, port_mod);
            Ok(())
        }),
        Message::FlowMod(FlowFormat::OpenFlow10, flow) => {
            message_of(FLOW_MOD, xid, |out| flow_mod::put(out, protocol, flow))
        }
        Message::FlowMod(FlowFormat::Nxm, flow) => {
            nicira_message(NXT_FLOW_MOD, xid, |out| flow_mod::put_nxm(out, protocol, flow))
        }
        Message::FlowRemoved(FlowFormat::OpenFlow10, removed) => message_of(FLOW_REMOVED, xid, |out| {
            flow_mod::put_removed(out, removed);
            Ok(())
        }),
        Message::FlowRemoved(FlowFormat::Nxm, removed) => nicira_message(NXT_FLOW_REMOVED, xid, |out| {
            flow_mod::put_nxm_removed(out, removed);
            Ok(())
        }),
        Message::StatsRequest(request) => message_of(STATS_REQUEST, xid, |out| {
            stats::put_request(out, request);
            Ok(())
        }),
        Message::StatsReply(reply) => {
            stats::reply_parts(reply, |part| message_of(STATS_REPLY, xid, |out| put_all(out, part)))
        }
        Message::SetFlowFormat(format) => {
            let number = match format {
                FlowFormat::OpenFlow10 => NXFF_OPENFLOW10,
                FlowFormat::Nxm => NXFF_NXM,
            };
            nicira(NXT_SET_FLOW_FORMAT, &number.to_be_bytes())
        }
        Message::FlowModTableId(on) => nicira(NXT_FLOW_MOD_TABLE_ID, &[u8::from(*on), 0, 0, 0, 0, 0, 0, 0]),
        Message::SetPacketInFormat(format) => {
            nicira(NXT_SET_PACKET_IN_FORMAT, &(*format as u32).to_be_bytes())
        }
        Message::SetAsyncConfig(config) => nicira_message(NXT_SET_ASYNC_CONFIG, xid, |out| {
            for word in [config.packet_in, config.port_status, config.flow_removed].as_flattened() {
                out.u32(*word);
            }
            Ok(())
        }),
        Message::CtFlushZone(zone) => {
            let [high, low] = zone.to_be_bytes();
            nicira(NXT_CT_FLUSH_ZONE, &[0, 0, 0, 0, 0, 0, high, low])
        }
        Message::CtFlush(flush) => nicira_message(NXT_CT_FLUSH, xid, |out| {
            ct_flush::put(out, flush);
            Ok(())
        }),
    }
}

fn put_all(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), EncodeError> {
    out.put(bytes);
    Ok(())
}

fn put_config(out: &mut Vec<u8>, config: &SwitchConfig) -> Result<(), EncodeError> {
    out.u16(config.flags);
    out.u16(config.miss_send_len);
    Ok(())
}

fn message_of(
    kind: u8,
    xid: Xid,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<Vec<u8>, EncodeError> {
    frame(Version::V10.number(), kind, xid, body)
}

fn nicira_message(
    subtype: u32,
    xid: Xid,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<Vec<u8>, EncodeError> {
    message_of(VENDOR, xid, |out| {
        out.u32(NICIRA);
        out.u32(subtype);
        body(out)
    })
}

/// OFPT_ERROR. What OpenFlow 1.0 has no code for goes as NXBRC_UNENCODABLE_ERROR; data is cut to what fits.
pub(super) fn encode_error(version: u8, xid: Xid, code: ErrorCode, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.u8(version);
    out.u8(ERROR);
    out.u16(0);
    out.u32(xid);
    match code.wire10().or_else(|| ErrorCode::Unencodable.wire10()) {
        Some((0, kind, code)) => {
            out.u16(kind);
            out.u16(code);
        }
        Some((vendor, kind, code)) => {
            out.u16(VENDOR_ERROR);
            out.u16(0);
            out.u32(vendor);
            out.u16(kind);
            out.u16(code);
        }
        None => out.u32(0),
    }
    let room = usize::from(u16::MAX) - out.len();
    out.put(&data[..data.len().min(room)]);
    let len = out.len() as u16;
    out[2..4].copy_from_slice(&len.to_be_bytes());
    out
}

/// Reads OFPT_ERROR's body.
pub(super) fn take_error(body: &[u8]) -> Result<ErrorMessage> {
    let mut reader = Reader::new(body, ErrorCode::BadLen);
    let (kind, code) = (reader.u16()?, reader.u16()?);
    let code = if kind == VENDOR_ERROR {
        let vendor = reader.u32()?;
        ErrorCode::from_wire10(vendor, reader.u16()?, reader.u16()?)
    } else {
        ErrorCode::from_wire10(0, kind, code)
    };
    Ok(ErrorMessage { code, data: reader.rest().to_vec() })
}

/// Reads the body of every message but HELLO and ERROR.
pub(super) fn take(protocol: Protocol, kind: u8, body: &[u8]) -> Result<Message> {
    let mut reader = Reader::new(body, ErrorCode::BadLen);
    let message = match kind {
        ECHO_REQUEST => Message::EchoRequest(reader.rest().to_vec()),
        ECHO_REPLY => Message::EchoReply(reader.rest().to_vec()),
        VENDOR => take_vendor(protocol, &mut reader)?,
        FEATURES_REQUEST => Message::FeaturesRequest,
        FEATURES_REPLY => Message::FeaturesReply(ports::take_features(&mut reader)?),
        GET_CONFIG_REQUEST => Message::GetConfigRequest,
        GET_CONFIG_REPLY => Message::GetConfigReply(take_config(&mut reader)?),
        SET_CONFIG => Message::SetConfig(take_config(&mut reader)?),
        PACKET_IN => Message::PacketIn(packet::take_in(&mut reader)?),
        FLOW_REMOVED => Message::FlowRemoved(FlowFormat::OpenFlow10, flow_mod::take_removed(&mut reader)?),
        PORT_STATUS => {
            let (reason, port) = ports::take_status(&mut reader)?;
            Message::PortStatus(reason, port)
        }
        PACKET_OUT => Message::PacketOut(packet::take_out(&mut reader)?),
        FLOW_MOD => Message::FlowMod(FlowFormat::OpenFlow10, flow_mod::take(&mut reader, protocol)?),
        PORT_MOD => Message::PortMod(ports::take_mod(&mut reader)?),
        STATS_REQUEST => Message::StatsRequest(stats::take_request(&mut reader)?),
        STATS_REPLY => Message::StatsReply(stats::take_reply(&mut reader)?),
        BARRIER_REQUEST => Message::BarrierRequest,
        BARRIER_REPLY => Message::BarrierReply,
        _ => return Err(ErrorCode::BadType.into()),
    };
    reader.end()?;
    Ok(message)
}

fn take_config(reader: &mut Reader<'_>) -> Result<SwitchConfig> {
    Ok(SwitchConfig { flags: reader.u16()?, miss_send_len: reader.u16()? })
}

fn take_vendor(protocol: Protocol, reader: &mut Reader<'_>) -> Result<Message> {
    if reader.u32()? != NICIRA {
        return Err(ErrorCode::BadVendor.into());
    }
    Ok(match reader.u32()? {
        NXT_SET_FLOW_FORMAT => Message::SetFlowFormat(match reader.u32()? {
            NXFF_OPENFLOW10 => FlowFormat::OpenFlow10,
            NXFF_NXM => FlowFormat::Nxm,
            _ => return Err(ErrorCode::RequestEperm.into()),
        }),
        NXT_FLOW_MOD => Message::FlowMod(FlowFormat::Nxm, flow_mod::take_nxm(reader, protocol)?),
        NXT_FLOW_REMOVED => Message::FlowRemoved(FlowFormat::Nxm, flow_mod::take_nxm_removed(reader)?),
        NXT_FLOW_MOD_TABLE_ID => {
            let on = reader.u8()? != 0;
            reader.skip(7)?;
            Message::FlowModTableId(on)
        }
        NXT_SET_PACKET_IN_FORMAT => Message::SetPacketInFormat(match reader.u32()? {
            0 => PacketInFormat::Standard,
            1 => PacketInFormat::Nxt,
            2 => PacketInFormat::Nxt2,
            _ => return Err(ErrorCode::RequestEperm.into()),
        }),
        NXT_SET_ASYNC_CONFIG => {
            let mut pair = || Ok::<_, super::DecodeError>([reader.u32()?, reader.u32()?]);
            Message::SetAsyncConfig(AsyncConfig {
                packet_in: pair()?,
                port_status: pair()?,
                flow_removed: pair()?,
            })
        }
        NXT_CT_FLUSH_ZONE => {
            reader.zeros(6, ErrorCode::MustBeZero)?;
            Message::CtFlushZone(reader.u16()?)
        }
        NXT_CT_FLUSH => Message::CtFlush(Box::new(ct_flush::take(reader)?)),
        _ => return Err(ErrorCode::BadSubtype.into()),
    })
}
