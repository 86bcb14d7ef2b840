//! Statistics requests and replies. Flow and aggregate statistics come in OpenFlow 1.0's own form and in
//! Nicira's, which differ in how they write the match and in what they say beside it.

use super::actions;
use super::buf::{Put, Reader, Result};
use super::error::{EncodeError, ErrorCode, NICIRA};
use super::flow_mod::{put_duration, take_duration, take_padded_match};
use super::message::{
    AggregateStats, Desc, FlowFormat, PortStats, QueueStats, StatsBody, StatsReply, StatsRequest, TableStats,
};
use super::{Header, nxm, ofp_match, ports};
use crate::flow::{Flags, FlowEntry, FlowFilter};
use crate::port::PortNo;

// Types (OFPST_*).
const DESC: u16 = 0;
const FLOW: u16 = 1;
const AGGREGATE: u16 = 2;
const TABLE: u16 = 3;
const PORT: u16 = 4;
const QUEUE: u16 = 5;
const PORT_DESC: u16 = 13;
const VENDOR: u16 = 0xffff;

// Nicira's subtypes (NXST_*).
const NXST_FLOW: u32 = 0;
const NXST_AGGREGATE: u32 = 1;

/// OFPSF_REPLY_MORE: another part follows.
const MORE: u16 = 1;

/// In a request: every table.
const ALL_TABLES: u8 = 0xff;

/// Appends OFPT_STATS_REQUEST's body.
pub(super) fn put_request(out: &mut Vec<u8>, request: &StatsRequest) {
    match request {
        StatsRequest::Desc => put_type(out, DESC, 0),
        StatsRequest::Table => put_type(out, TABLE, 0),
        StatsRequest::Flow(FlowFormat::OpenFlow10, flows) => put_flow_request(out, FLOW, flows),
        StatsRequest::Aggregate(FlowFormat::OpenFlow10, flows) => put_flow_request(out, AGGREGATE, flows),
        StatsRequest::Flow(FlowFormat::Nxm, flows) => put_nxm_flow_request(out, NXST_FLOW, flows),
        StatsRequest::Aggregate(FlowFormat::Nxm, flows) => put_nxm_flow_request(out, NXST_AGGREGATE, flows),
        StatsRequest::Port(port) => {
            put_type(out, PORT, 0);
            out.u16(port.0);
            out.zeros(6);
        }
        StatsRequest::PortDesc => put_type(out, PORT_DESC, 0),
        StatsRequest::Queue { port, queue } => {
            put_type(out, QUEUE, 0);
            out.u16(port.0);
            out.zeros(2);
            out.u32(*queue);
        }
    }
}

fn put_type(out: &mut Vec<u8>, kind: u16, flags: u16) {
    out.u16(kind);
    out.u16(flags);
}

fn put_nicira_type(out: &mut Vec<u8>, subtype: u32, flags: u16) {
    put_type(out, VENDOR, flags);
    out.u32(NICIRA);
    out.u32(subtype);
    out.zeros(4);
}

fn put_flow_request(out: &mut Vec<u8>, kind: u16, flows: &FlowFilter) {
    put_type(out, kind, 0);
    ofp_match::put(out, &flows.matching);
    out.u8(flows.table.unwrap_or(ALL_TABLES));
    out.u8(0);
    out.u16(flows.out_port.0);
}

fn put_nxm_flow_request(out: &mut Vec<u8>, subtype: u32, flows: &FlowFilter) {
    put_nicira_type(out, subtype, 0);
    out.u16(flows.out_port.0);
    let len_at = out.len();
    out.u16(0);
    out.u8(flows.table.unwrap_or(ALL_TABLES));
    out.zeros(3);
    let len = nxm::put_padded_match(out, &flows.matching, (flows.cookie, flows.cookie_mask));
    out[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
}

/// Reads OFPT_STATS_REQUEST's body.
pub(super) fn take_request(reader: &mut Reader<'_>) -> Result<StatsRequest> {
    let kind = reader.u16()?;
    reader.skip(2)?;
    Ok(match kind {
        DESC => StatsRequest::Desc,
        TABLE => StatsRequest::Table,
        FLOW => StatsRequest::Flow(FlowFormat::OpenFlow10, take_flow_request(reader)?),
        AGGREGATE => StatsRequest::Aggregate(FlowFormat::OpenFlow10, take_flow_request(reader)?),
        PORT => {
            let port = PortNo(reader.u16()?);
            reader.skip(6)?;
            StatsRequest::Port(port)
        }
        PORT_DESC => StatsRequest::PortDesc,
        QUEUE => {
            let port = PortNo(reader.u16()?);
            reader.skip(2)?;
            StatsRequest::Queue { port, queue: reader.u32()? }
        }
        VENDOR => match take_nicira_type(reader)? {
            NXST_FLOW => StatsRequest::Flow(FlowFormat::Nxm, take_nxm_flow_request(reader)?),
            NXST_AGGREGATE => StatsRequest::Aggregate(FlowFormat::Nxm, take_nxm_flow_request(reader)?),
            _ => return Err(ErrorCode::BadSubtype.into()),
        },
        _ => return Err(ErrorCode::BadStat.into()),
    })
}

fn take_nicira_type(reader: &mut Reader<'_>) -> Result<u32> {
    if reader.u32()? != NICIRA {
        return Err(ErrorCode::BadVendor.into());
    }
    let subtype = reader.u32()?;
    reader.skip(4)?;
    Ok(subtype)
}

fn take_flow_request(reader: &mut Reader<'_>) -> Result<FlowFilter> {
    let (matching, _) = ofp_match::take(reader)?;
    let table = take_table(reader)?;
    reader.skip(1)?;
    Ok(FlowFilter { matching, table, out_port: PortNo(reader.u16()?), cookie: 0, cookie_mask: 0 })
}

fn take_nxm_flow_request(reader: &mut Reader<'_>) -> Result<FlowFilter> {
    let out_port = PortNo(reader.u16()?);
    let len = reader.u16()?;
    let table = take_table(reader)?;
    reader.skip(3)?;
    let (matching, (cookie, cookie_mask)) = take_padded_match(reader, len, true)?;
    Ok(FlowFilter { matching, table, out_port, cookie, cookie_mask })
}

fn take_table(reader: &mut Reader<'_>) -> Result<Option<u8>> {
    let table = reader.u8()?;
    Ok((table != ALL_TABLES).then_some(table))
}

/// Encodes a reply as one message or, where a list is too long, as several. `message` makes a message of a body.
pub(super) fn reply_parts(
    reply: &StatsReply,
    message: impl Fn(&[u8]) -> Result<Vec<u8>, EncodeError>,
) -> Result<Vec<u8>, EncodeError> {
    let mut parts = Parts { head: Vec::new(), part: Vec::new(), out: Vec::new(), message };
    match &reply.body {
        StatsBody::Desc(desc) => {
            put_type(&mut parts.head, DESC, 0);
            parts.entry(&entry(|out| put_desc(out, desc)))?;
        }
        StatsBody::Flow(FlowFormat::OpenFlow10, flows) => {
            put_type(&mut parts.head, FLOW, 0);
            flows.iter().try_for_each(|flow| parts.entry(&put_flow(flow)?))?;
        }
        StatsBody::Flow(FlowFormat::Nxm, flows) => {
            put_nicira_type(&mut parts.head, NXST_FLOW, 0);
            flows.iter().try_for_each(|flow| parts.entry(&put_nxm_flow(flow)?))?;
        }
        StatsBody::Aggregate(format, sum) => {
            match format {
                FlowFormat::OpenFlow10 => put_type(&mut parts.head, AGGREGATE, 0),
                FlowFormat::Nxm => put_nicira_type(&mut parts.head, NXST_AGGREGATE, 0),
            }
            parts.entry(&entry(|out| put_aggregate(out, sum)))?;
        }
        StatsBody::Table(tables) => {
            put_type(&mut parts.head, TABLE, 0);
            tables.iter().try_for_each(|table| parts.entry(&entry(|out| put_table(out, table))))?;
        }
        StatsBody::Port(ports) => {
            put_type(&mut parts.head, PORT, 0);
            ports.iter().try_for_each(|port| parts.entry(&entry(|out| put_port(out, port))))?;
        }
        StatsBody::PortDesc(ports) => {
            put_type(&mut parts.head, PORT_DESC, 0);
            ports.iter().try_for_each(|port| parts.entry(&entry(|out| ports::put_port(out, port))))?;
        }
        StatsBody::Queue(queues) => {
            put_type(&mut parts.head, QUEUE, 0);
            queues.iter().try_for_each(|queue| parts.entry(&entry(|out| put_queue(out, queue))))?;
        }
    }
    parts.flush(if reply.more { MORE } else { 0 })?;
    Ok(parts.out)
}

fn entry(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    out
}

/// Distributes entries over messages.
struct Parts<F> {
    /// What every part begins with.
    head: Vec<u8>,
    /// The part under way, without its head.
    part: Vec<u8>,
    /// The finished messages.
    out: Vec<u8>,
    message: F,
}

impl<F: Fn(&[u8]) -> Result<Vec<u8>, EncodeError>> Parts<F> {
    fn entry(&mut self, entry: &[u8]) -> Result<(), EncodeError> {
        let len = Header::LEN + self.head.len() + self.part.len() + entry.len();
        if len > usize::from(u16::MAX) && !self.part.is_empty() {
            self.flush(MORE)?;
        }
        self.part.put(entry);
        Ok(())
    }

    fn flush(&mut self, flags: u16) -> Result<(), EncodeError> {
        let mut body = self.head.clone();
        body[2..4].copy_from_slice(&flags.to_be_bytes());
        body.append(&mut self.part);
        self.out.put(&(self.message)(&body)?);
        Ok(())
    }
}

/// Reads OFPT_STATS_REPLY's body.
pub(super) fn take_reply(reader: &mut Reader<'_>) -> Result<StatsReply> {
    let kind = reader.u16()?;
    let more = reader.u16()? & MORE != 0;
    let body = match kind {
        DESC => StatsBody::Desc(take_desc(reader)?),
        FLOW => StatsBody::Flow(FlowFormat::OpenFlow10, take_all(reader, take_flow)?),
        AGGREGATE => StatsBody::Aggregate(FlowFormat::OpenFlow10, take_aggregate(reader)?),
        TABLE => StatsBody::Table(take_all(reader, take_table_stats)?),
        PORT => StatsBody::Port(take_all(reader, take_port)?),
        PORT_DESC => StatsBody::PortDesc(take_all(reader, ports::take_port)?),
        QUEUE => StatsBody::Queue(take_all(reader, take_queue)?),
        VENDOR => match take_nicira_type(reader)? {
            NXST_FLOW => StatsBody::Flow(FlowFormat::Nxm, take_all(reader, take_nxm_flow)?),
            NXST_AGGREGATE => StatsBody::Aggregate(FlowFormat::Nxm, take_aggregate(reader)?),
            _ => return Err(ErrorCode::BadSubtype.into()),
        },
        _ => return Err(ErrorCode::BadStat.into()),
    };
    Ok(StatsReply { body, more })
}

fn take_all<'a, T>(reader: &mut Reader<'a>, take: impl Fn(&mut Reader<'a>) -> Result<T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    while !reader.is_empty() {
        all.push(take(reader)?);
    }
    Ok(all)
}

/// The fields of `ofp_desc_stats` with their sizes.
const DESC_LENS: [usize; 5] = [256, 256, 256, 32, 256];

fn put_desc(out: &mut Vec<u8>, desc: &Desc) {
    let texts = [&desc.manufacturer, &desc.hardware, &desc.software, &desc.serial, &desc.datapath];
    for (text, len) in texts.into_iter().zip(DESC_LENS) {
        out.string(text, len);
    }
}

fn take_desc(reader: &mut Reader<'_>) -> Result<Desc> {
    let [manufacturer, hardware, software, serial, datapath] = DESC_LENS.map(|len| reader.string(len));
    Ok(Desc {
        manufacturer: manufacturer?,
        hardware: hardware?,
        software: software?,
        serial: serial?,
        datapath: datapath?,
    })
}

fn put_flow(flow: &FlowEntry) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::new();
    out.u16(0);
    out.u8(flow.table);
    out.u8(0);
    ofp_match::put(&mut out, &flow.matching);
    put_duration(&mut out, flow.duration);
    out.u16(flow.priority);
    out.u16(flow.idle_timeout);
    out.u16(flow.hard_timeout);
    out.zeros(6);
    out.u64(flow.cookie);
    out.u64(flow.n_packets);
    out.u64(flow.n_bytes);
    with_actions(out, flow)
}

fn put_nxm_flow(flow: &FlowEntry) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::new();
    out.u16(0);
    out.u8(flow.table);
    out.u8(0);
    put_duration(&mut out, flow.duration);
    out.u16(flow.priority);
    out.u16(flow.idle_timeout);
    out.u16(flow.hard_timeout);
    let len_at = out.len();
    out.u16(0);
    // Zero is "unknown", so an age is sent as one more than it is.
    out.u16(flow.idle_age.map_or(0, |age| age.saturating_add(1)));
    out.u16(flow.hard_age.map_or(0, |age| age.saturating_add(1)));
    out.u64(flow.cookie);
    out.u64(flow.n_packets);
    out.u64(flow.n_bytes);
    let len = nxm::put_padded_match(&mut out, &flow.matching, (0, 0));
    out[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
    with_actions(out, flow)
}

/// Appends a flow's actions, and writes its length into its first two bytes.
fn with_actions(mut out: Vec<u8>, flow: &FlowEntry) -> Result<Vec<u8>, EncodeError> {
    actions::put(&mut out, &flow.actions)?;
    let len = u16::try_from(out.len()).map_err(|_| EncodeError::TooLong)?;
    out[..2].copy_from_slice(&len.to_be_bytes());
    Ok(out)
}

/// The rest of an entry that begins with its own length.
fn take_entry<'a>(reader: &mut Reader<'a>) -> Result<Reader<'a>> {
    let len = usize::from(reader.u16()?).checked_sub(2).ok_or(ErrorCode::BadLen)?;
    reader.sub(len)
}

fn take_flow(reader: &mut Reader<'_>) -> Result<FlowEntry> {
    let mut entry = take_entry(reader)?;
    let table = entry.u8()?;
    entry.skip(1)?;
    let (matching, _) = ofp_match::take(&mut entry)?;
    let duration = take_duration(&mut entry)?;
    let priority = entry.u16()?;
    let (idle_timeout, hard_timeout) = (entry.u16()?, entry.u16()?);
    entry.skip(6)?;
    let cookie = entry.u64()?;
    let (packets, bytes) = (entry.u64()?, entry.u64()?);
    Ok(FlowEntry {
        table,
        priority,
        matching,
        actions: actions::take(entry)?,
        cookie,
        duration,
        idle_timeout,
        hard_timeout,
        idle_age: None,
        hard_age: None,
        flags: Flags::default(),
        importance: 0,
        n_packets: packets,
        n_bytes: bytes,
    })
}

fn take_nxm_flow(reader: &mut Reader<'_>) -> Result<FlowEntry> {
    let mut entry = take_entry(reader)?;
    let table = entry.u8()?;
    entry.skip(1)?;
    let duration = take_duration(&mut entry)?;
    let priority = entry.u16()?;
    let (idle_timeout, hard_timeout) = (entry.u16()?, entry.u16()?);
    let len = entry.u16()?;
    let (idle_age, hard_age) = (entry.u16()?.checked_sub(1), entry.u16()?.checked_sub(1));
    let cookie = entry.u64()?;
    let (packets, bytes) = (entry.u64()?, entry.u64()?);
    let (matching, _) = take_padded_match(&mut entry, len, false)?;
    Ok(FlowEntry {
        table,
        priority,
        matching,
        actions: actions::take(entry)?,
        cookie,
        duration,
        idle_timeout,
        hard_timeout,
        idle_age,
        hard_age,
        flags: Flags::default(),
        importance: 0,
        n_packets: packets,
        n_bytes: bytes,
    })
}

fn put_aggregate(out: &mut Vec<u8>, sum: &AggregateStats) {
    out.u64(sum.packets);
    out.u64(sum.bytes);
    out.u32(sum.flows);
    out.zeros(4);
}

fn take_aggregate(reader: &mut Reader<'_>) -> Result<AggregateStats> {
    let (packets, bytes) = (reader.u64()?, reader.u64()?);
    let flows = reader.u32()?;
    reader.skip(4)?;
    Ok(AggregateStats { packets, bytes, flows })
}

/// The size of a table's name, terminator included.
const TABLE_NAME_LEN: usize = 32;

fn put_table(out: &mut Vec<u8>, table: &TableStats) {
    out.u8(table.table);
    out.zeros(3);
    out.string(&table.name, TABLE_NAME_LEN);
    out.u32(table.wildcards);
    out.u32(table.max_entries);
    out.u32(table.active);
    out.u64(table.lookups);
    out.u64(table.matched);
}

fn take_table_stats(reader: &mut Reader<'_>) -> Result<TableStats> {
    let table = reader.u8()?;
    reader.skip(3)?;
    let name = reader.string(TABLE_NAME_LEN)?;
    let wildcards = reader.u32()?;
    let (max_entries, active) = (reader.u32()?, reader.u32()?);
    let (lookups, matched) = (reader.u64()?, reader.u64()?);
    Ok(TableStats { table, name, wildcards, max_entries, active, lookups, matched })
}

fn put_port(out: &mut Vec<u8>, port: &PortStats) {
    out.u16(port.number.0);
    out.zeros(6);
    for counter in [
        port.rx_packets,
        port.tx_packets,
        port.rx_bytes,
        port.tx_bytes,
        port.rx_dropped,
        port.tx_dropped,
        port.rx_errors,
        port.tx_errors,
        port.rx_frame_errors,
        port.rx_over_errors,
        port.rx_crc_errors,
        port.collisions,
    ] {
        out.u64(counter);
    }
}

fn take_port(reader: &mut Reader<'_>) -> Result<PortStats> {
    let number = PortNo(reader.u16()?);
    reader.skip(6)?;
    Ok(PortStats {
        number,
        rx_packets: reader.u64()?,
        tx_packets: reader.u64()?,
        rx_bytes: reader.u64()?,
        tx_bytes: reader.u64()?,
        rx_dropped: reader.u64()?,
        tx_dropped: reader.u64()?,
        rx_errors: reader.u64()?,
        tx_errors: reader.u64()?,
        rx_frame_errors: reader.u64()?,
        rx_over_errors: reader.u64()?,
        rx_crc_errors: reader.u64()?,
        collisions: reader.u64()?,
    })
}

fn put_queue(out: &mut Vec<u8>, queue: &QueueStats) {
    out.u16(queue.port.0);
    out.zeros(2);
    out.u32(queue.queue);
    out.u64(queue.tx_bytes);
    out.u64(queue.tx_packets);
    out.u64(queue.tx_errors);
}

fn take_queue(reader: &mut Reader<'_>) -> Result<QueueStats> {
    let port = PortNo(reader.u16()?);
    reader.skip(2)?;
    Ok(QueueStats {
        port,
        queue: reader.u32()?,
        tx_bytes: reader.u64()?,
        tx_packets: reader.u64()?,
        tx_errors: reader.u64()?,
    })
}
