//! What each request is answered with.

use std::io;
use std::sync::Arc;

use ofctl::flow::FlowFilter;
use ofctl::port::PortNo;
use ofctl::wire::{
    AggregateStats, Desc, ErrorCode, Features, FlowFormat, Message, Port, PortMod, PortStats, StatsBody,
    StatsReply, StatsRequest, SwitchConfig, Xid, capability, fragments,
};
use tracing::{info, warn};

use super::Backend;
use super::connection::{Connection, End};
use crate::datapath::Selection;
use crate::ofproto::{Cursor, N_TABLES};

/// How many flows are looked at before others get their turn at the tables.
const DUMP_STEP: u32 = 256;

/// How many flows are collected before they are sent: about as many as fit into one message.
const DUMP_PART: usize = 512;

/// OFPAT10_OUTPUT to OFPAT10_ENQUEUE: all of OpenFlow 1.0's actions.
const ACTIONS_ALL: u32 = (1 << 12) - 1;

/// The queue number that means all queues.
const ALL_QUEUES: u32 = 0xffff_ffff;

impl<B: Backend> Connection<B> {
    /// Answers one message, other than a flow-mod. The inner error is for the peer.
    pub async fn request(&mut self, xid: Xid, message: Message) -> Result<Result<(), ErrorCode>, End> {
        match message {
            Message::EchoRequest(data) => self.send(xid, &Message::EchoReply(data)),
            Message::BarrierRequest => self.send(xid, &Message::BarrierReply),
            Message::FeaturesRequest => self.features(xid),
            Message::GetConfigRequest => self.get_config(xid),
            Message::SetConfig(config) => self.set_config(config),
            Message::SetFlowFormat(format) => self.format = format,
            Message::FlowModTableId(enabled) => self.protocol.flow_mod_table_id = enabled,
            Message::SetAsyncConfig(wanted) => self.wanted = wanted,
            Message::PortMod(port_mod) => return Ok(self.port_mod(&port_mod)),
            Message::StatsRequest(request) => return self.stats(xid, request).await,
            Message::Error(error) => info!(bridge = self.shared.bridge.0, "received {}", error.code),
            // No packet-in is ever sent, so that any format will do.
            Message::Hello(_) | Message::EchoReply(_) | Message::SetPacketInFormat(_) => {}
            Message::CtFlushZone(zone) => self.flush_connections(Selection::zone(zone)).await?,
            Message::CtFlush(flush) => {
                let mut which = Selection::new(*flush);
                // Whether there was one is not told, as in Open vSwitch.
                which.make_exact();
                self.flush_connections(which).await?;
            }
            Message::PacketOut(_)
            | Message::FlowMod(..)
            | Message::FeaturesReply(_)
            | Message::GetConfigReply(_)
            | Message::BarrierReply
            | Message::PacketIn(_)
            | Message::PortStatus(..)
            | Message::FlowRemoved(..)
            | Message::StatsReply(_) => return Ok(Err(ErrorCode::BadType)),
        }
        Ok(Ok(()))
    }

    /// Forgets connections, on a thread of its own: to look through a large table takes a while.
    async fn flush_connections(&self, which: Selection) -> Result<(), End> {
        let backend = Arc::clone(&self.shared.backend);
        let flushed = tokio::task::spawn_blocking(move || backend.flush_connections(&which)).await;
        flushed.map_err(|error| End::Io(io::Error::other(error)))
    }

    fn features(&mut self, xid: Xid) {
        let (backend, bridge) = (&self.shared.backend, self.shared.bridge);
        let features = Features {
            datapath_id: backend.datapath_id(bridge),
            n_buffers: 0,
            n_tables: N_TABLES,
            capabilities: capability::FLOW_STATS
                | capability::TABLE_STATS
                | capability::PORT_STATS
                | capability::QUEUE_STATS
                | capability::ARP_MATCH_IP,
            actions: ACTIONS_ALL,
            ports: self.ports(),
        };
        self.send(xid, &Message::FeaturesReply(features));
    }

    /// The bridge's ports, by number.
    fn ports(&self) -> Vec<Port> {
        let mut ports = self.shared.backend.ports(self.shared.bridge);
        ports.sort_by_key(|port| port.number);
        ports
    }

    fn get_config(&mut self, xid: Xid) {
        let shown = self.shared.backend.shows_fragments(self.shared.bridge);
        let flags = if shown { fragments::NX_MATCH } else { fragments::NORMAL };
        self.send(xid, &Message::GetConfigReply(SwitchConfig { flags, miss_send_len: self.miss_send_len }));
    }

    fn set_config(&mut self, config: SwitchConfig) {
        let (backend, bridge) = (&self.shared.backend, self.shared.bridge);
        match config.flags {
            fragments::NORMAL => backend.show_fragments(bridge, false),
            fragments::NX_MATCH => backend.show_fragments(bridge, true),
            // Open vSwitch, too, tells only its log about a way to treat fragments that it does not have.
            other => warn!(bridge = bridge.0, "unsupported fragment handling mode {other}"),
        }
        self.miss_send_len = config.miss_send_len;
    }

    fn port_mod(&self, port_mod: &PortMod) -> Result<(), ErrorCode> {
        let ports = self.shared.backend.ports(self.shared.bridge);
        let port =
            ports.iter().find(|port| port.number == port_mod.number).ok_or(ErrorCode::PortModBadPort)?;
        if port.hw_addr != port_mod.hw_addr {
            return Err(ErrorCode::PortModBadHwAddr);
        }
        if (port.config ^ port_mod.config) & port_mod.mask == 0 {
            Ok(())
        } else {
            Err(ErrorCode::RequestEperm)
        }
    }

    async fn stats(&mut self, xid: Xid, request: StatsRequest) -> Result<Result<(), ErrorCode>, End> {
        let body = match request {
            StatsRequest::Flow(format, request) => {
                self.dump(xid, format, &request).await?;
                return Ok(Ok(()));
            }
            StatsRequest::Aggregate(format, request) => {
                StatsBody::Aggregate(format, self.aggregate(&request).await?)
            }
            StatsRequest::Desc => StatsBody::Desc(describe()),
            StatsRequest::Table => {
                let backend = &self.shared.backend;
                let tables =
                    backend.with_tables(self.shared.bridge, |tables, rules| tables.table_stats(rules));
                StatsBody::Table(tables.ok_or(End::NoBridge)?)
            }
            StatsRequest::Port(port) => StatsBody::Port(self.port_stats(port)),
            StatsRequest::PortDesc => StatsBody::PortDesc(self.ports()),
            StatsRequest::Queue { port, queue } => match self.queues(port, queue) {
                Ok(()) => StatsBody::Queue(Vec::new()),
                Err(code) => return Ok(Err(code)),
            },
        };
        self.send(xid, &Message::StatsReply(StatsReply { body, more: false }));
        Ok(Ok(()))
    }

    /// Sends the flows asked for, step by step: the tables are never held for long, and there are never
    /// more than a few hundred flows in memory.
    async fn dump(&mut self, xid: Xid, format: FlowFormat, request: &FlowFilter) -> Result<(), End> {
        let mut part = Vec::new();
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            let backend = &self.shared.backend;
            let now = backend.now();
            let (flows, rest) = backend
                .with_tables(self.shared.bridge, |tables, rules| {
                    tables.dump(rules, request, from, DUMP_STEP, now)
                })
                .ok_or(End::NoBridge)?;
            part.extend(flows);
            if rest.is_some() && part.len() >= DUMP_PART {
                let body = StatsBody::Flow(format, std::mem::take(&mut part));
                self.send(xid, &Message::StatsReply(StatsReply { body, more: true }));
                self.make_room().await?;
            }
            tokio::task::yield_now().await;
            next = rest;
        }
        let body = StatsBody::Flow(format, part);
        self.send(xid, &Message::StatsReply(StatsReply { body, more: false }));
        Ok(())
    }

    async fn aggregate(&mut self, request: &FlowFilter) -> Result<AggregateStats, End> {
        let mut sum = AggregateStats::default();
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            let backend = &self.shared.backend;
            next = backend
                .with_tables(self.shared.bridge, |tables, rules| {
                    tables.aggregate(rules, request, from, DUMP_STEP, &mut sum)
                })
                .ok_or(End::NoBridge)?;
            tokio::task::yield_now().await;
        }
        Ok(sum)
    }

    /// The counters of one port, or of all, the bridge's own port first.
    fn port_stats(&self, wanted: PortNo) -> Vec<PortStats> {
        let (backend, bridge) = (&self.shared.backend, self.shared.bridge);
        let mut numbers: Vec<PortNo> = backend.ports(bridge).iter().map(|port| port.number).collect();
        numbers.retain(|number| wanted == PortNo::NONE || wanted == *number);
        numbers.sort_by_key(|number| (*number != PortNo::LOCAL, *number));
        numbers
            .into_iter()
            .map(|number| {
                let stats = backend.port_stats(bridge, number);
                PortStats {
                    number,
                    rx_packets: stats.rx_packets,
                    tx_packets: stats.tx_packets,
                    rx_bytes: stats.rx_bytes,
                    tx_bytes: stats.tx_bytes,
                    rx_dropped: stats.rx_dropped,
                    tx_dropped: stats.tx_dropped,
                    rx_errors: stats.rx_errors,
                    tx_errors: stats.tx_errors,
                    rx_frame_errors: 0,
                    rx_over_errors: 0,
                    rx_crc_errors: 0,
                    collisions: 0,
                }
            })
            .collect()
    }

    /// There are no queues; but to ask for one that cannot be is an error.
    fn queues(&self, port: PortNo, queue: u32) -> Result<(), ErrorCode> {
        let exists = || self.shared.backend.ports(self.shared.bridge).iter().any(|p| p.number == port);
        if port != PortNo::ALL && !exists() {
            Err(ErrorCode::QueueOpBadPort)
        } else if queue != ALL_QUEUES {
            Err(ErrorCode::QueueOpBadQueue)
        } else {
            Ok(())
        }
    }
}

fn describe() -> Desc {
    Desc {
        manufacturer: "switchd".to_owned(),
        hardware: "eBPF/XDP".to_owned(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        serial: "None".to_owned(),
        datapath: "None".to_owned(),
    }
}
