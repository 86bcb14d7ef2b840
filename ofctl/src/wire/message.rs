//! The messages, without regard to how a version of OpenFlow writes them.

use std::net::IpAddr;
use std::time::Duration;

use super::error::ErrorCode;
use crate::action::Action;
use crate::flow::{FlowEntry, FlowFilter, FlowMod, Match};
use crate::port::PortNo;

/// A message's transaction id; an answer has the one of its request.
pub type Xid = u32;

/// An OpenFlow message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// OFPT_HELLO: the versions that the sender speaks.
    Hello(VersionSet),
    /// OFPT_ERROR.
    Error(ErrorMessage),
    /// OFPT_ECHO_REQUEST, with anything inside.
    EchoRequest(Vec<u8>),
    /// OFPT_ECHO_REPLY, with what the request had.
    EchoReply(Vec<u8>),
    /// OFPT_FEATURES_REQUEST.
    FeaturesRequest,
    /// OFPT_FEATURES_REPLY.
    FeaturesReply(Features),
    /// OFPT_GET_CONFIG_REQUEST.
    GetConfigRequest,
    /// OFPT_GET_CONFIG_REPLY.
    GetConfigReply(SwitchConfig),
    /// OFPT_SET_CONFIG.
    SetConfig(SwitchConfig),
    /// OFPT_BARRIER_REQUEST.
    BarrierRequest,
    /// OFPT_BARRIER_REPLY.
    BarrierReply,
    /// OFPT_PACKET_IN.
    PacketIn(PacketIn),
    /// OFPT_PACKET_OUT.
    PacketOut(PacketOut),
    /// OFPT_PORT_STATUS.
    PortStatus(PortReason, Port),
    /// OFPT_PORT_MOD.
    PortMod(PortMod),
    /// OFPT_FLOW_MOD or NXT_FLOW_MOD.
    FlowMod(FlowFormat, FlowMod),
    /// OFPT_FLOW_REMOVED or NXT_FLOW_REMOVED.
    FlowRemoved(FlowFormat, FlowRemoved),
    /// OFPT_STATS_REQUEST.
    StatsRequest(StatsRequest),
    /// OFPT_STATS_REPLY. What does not fit into one message is encoded as several.
    StatsReply(StatsReply),
    /// NXT_SET_FLOW_FORMAT: how the switch shall write matches in what it sends unasked.
    SetFlowFormat(FlowFormat),
    /// NXT_FLOW_MOD_TABLE_ID: whether flow-mods on this connection name a table.
    FlowModTableId(bool),
    /// NXT_SET_PACKET_IN_FORMAT.
    SetPacketInFormat(PacketInFormat),
    /// NXT_SET_ASYNC_CONFIG.
    SetAsyncConfig(AsyncConfig),
    /// NXT_CT_FLUSH_ZONE: forget the connections of a zone.
    CtFlushZone(u16),
    /// NXT_CT_FLUSH: forget the connections that fit.
    CtFlush(Box<CtFlush>),
}

/// What a connection's two ends have agreed on, which decides how a flow-mod reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// The version of every message.
    pub version: Version,
    /// NXT_FLOW_MOD_TABLE_ID is in force: the high byte of a flow-mod's command is its table.
    pub flow_mod_table_id: bool,
}

impl Default for Protocol {
    /// As a connection starts.
    fn default() -> Self {
        Self { version: Version::V10, flow_mod_table_id: false }
    }
}

/// A version of OpenFlow that the codec knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.0.
    V10 = 1,
}

impl Version {
    /// The number in a message's first byte.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// A set of OpenFlow versions: bit `n` stands for the version with the number `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionSet(pub u32);

impl VersionSet {
    /// What this codec speaks.
    pub const SUPPORTED: Self = Self(1 << Version::V10 as u8);

    /// The version to speak with a peer: the highest that both know.
    #[must_use]
    pub fn negotiate(self) -> Option<Version> {
        (self.0 & Self::SUPPORTED.0 != 0).then_some(Version::V10)
    }

    /// The highest version's number; 0 when the set is empty.
    #[must_use]
    pub fn highest(self) -> u8 {
        self.0.checked_ilog2().unwrap_or(0) as u8
    }
}

/// OFPT_ERROR's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorMessage {
    /// What is wrong.
    pub code: ErrorCode,
    /// The start of the offending message, at least 64 bytes of it; text where HELLO failed.
    pub data: Vec<u8>,
}

/// How a match is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowFormat {
    /// `ofp_match`: a fixed struct with OpenFlow 1.0's fields.
    #[default]
    OpenFlow10,
    /// NXM: a list of fields with masks.
    Nxm,
}

/// OFPT_FEATURES_REPLY's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The switch's identity.
    pub datapath_id: u64,
    /// How many packets it can keep for a controller.
    pub n_buffers: u32,
    /// How many tables it has.
    pub n_tables: u8,
    /// OFPC10_* bits.
    pub capabilities: u32,
    /// OFPAT10_* bits.
    pub actions: u32,
    /// The ports.
    pub ports: Vec<Port>,
}

/// Capability bits (OFPC10_*).
pub mod capability {
    /// Flow statistics.
    pub const FLOW_STATS: u32 = 1 << 0;
    /// Table statistics.
    pub const TABLE_STATS: u32 = 1 << 1;
    /// Port statistics.
    pub const PORT_STATS: u32 = 1 << 2;
    /// 802.1d spanning tree.
    pub const STP: u32 = 1 << 3;
    /// IP reassembly.
    pub const IP_REASM: u32 = 1 << 5;
    /// Queue statistics.
    pub const QUEUE_STATS: u32 = 1 << 6;
    /// Can match the addresses in ARP packets.
    pub const ARP_MATCH_IP: u32 = 1 << 7;
}

/// A port, with OpenFlow 1.1's numbering of the feature bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub number: PortNo,
    /// Its MAC address.
    pub hw_addr: [u8; 6],
    /// Its name: at most 15 bytes survive OpenFlow 1.0.
    pub name: String,
    /// [`port_config`] bits.
    pub config: u32,
    /// [`port_state`] bits.
    pub state: u32,
    /// [`port_feature`] bits in use.
    pub current: u32,
    /// [`port_feature`] bits that it advertises.
    pub advertised: u32,
    /// [`port_feature`] bits that it can do.
    pub supported: u32,
    /// [`port_feature`] bits that its peer advertises.
    pub peer: u32,
}

/// What an administrator sets on a port (OFPPC_*).
pub mod port_config {
    /// Down.
    pub const PORT_DOWN: u32 = 1 << 0;
    /// No spanning tree.
    pub const NO_STP: u32 = 1 << 1;
    /// Drops what it receives, but for spanning tree.
    pub const NO_RECV: u32 = 1 << 2;
    /// Drops the spanning tree that it receives.
    pub const NO_RECV_STP: u32 = 1 << 3;
    /// Left out when flooding.
    pub const NO_FLOOD: u32 = 1 << 4;
    /// Drops what it is to send.
    pub const NO_FWD: u32 = 1 << 5;
    /// Sends no packet-in.
    pub const NO_PACKET_IN: u32 = 1 << 6;
}

/// What a port is found to be (OFPPS_*).
pub mod port_state {
    /// No link.
    pub const LINK_DOWN: u32 = 1 << 0;
    /// The two bits that hold the state of spanning tree in OpenFlow 1.0.
    pub const STP_MASK: u32 = 3 << 8;
}

/// What a port can do (OFPPF_*, numbered as from OpenFlow 1.1 on).
pub mod port_feature {
    /// 10 Mb/s, half duplex. The next 6 bits are 10 full, 100 half, 100 full, 1000 half, 1000 full, 10,000 full.
    pub const MB10_HD: u32 = 1 << 0;
    /// 10 Gb/s, full duplex: the fastest that OpenFlow 1.0 knows.
    pub const GB10_FD: u32 = 1 << 6;
    /// Copper. The next 4 bits are fiber, auto-negotiation, pause and asymmetric pause.
    pub const COPPER: u32 = 1 << 11;
}

/// OFPT_GET_CONFIG_REPLY's and OFPT_SET_CONFIG's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchConfig {
    /// How fragments are treated: one of [`fragments`].
    pub flags: u16,
    /// Bytes of a packet that a controller gets on a table miss.
    pub miss_send_len: u16,
}

/// Ways to treat fragments (OFPC_FRAG_*). There are two more, to drop and to reassemble them.
pub mod fragments {
    /// Flows do not see their transport ports.
    pub const NORMAL: u16 = 0;
    /// Flows see those of first fragments (Nicira's).
    pub const NX_MATCH: u16 = 3;
}

/// Why a port-status is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortReason {
    /// The port is new.
    Add = 0,
    /// The port is gone.
    Delete = 1,
    /// The port has changed.
    Modify = 2,
}

/// OFPT_PORT_MOD's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMod {
    /// The port.
    pub number: PortNo,
    /// Its address, as a check that it is still the same port.
    pub hw_addr: [u8; 6],
    /// New values of [`port_config`] bits.
    pub config: u32,
    /// The bits to change.
    pub mask: u32,
    /// [`port_feature`] bits to advertise; 0 changes nothing.
    pub advertise: u32,
}

/// OFPT_PACKET_IN's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketIn {
    /// Where the switch keeps the packet; none: all of it is here.
    pub buffer_id: Option<u32>,
    /// How long the packet is.
    pub total_len: u16,
    /// Where it came in.
    pub in_port: PortNo,
    /// Why it is sent: 0 no match, 1 an action.
    pub reason: u8,
    /// Its first bytes.
    pub data: Vec<u8>,
}

/// OFPT_PACKET_OUT's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketOut {
    /// Where the switch keeps the packet; none: it is in `data`.
    pub buffer_id: Option<u32>,
    /// Where it shall seem to have come in.
    pub in_port: PortNo,
    /// What to do with it.
    pub actions: Vec<Action>,
    /// The packet.
    pub data: Vec<u8>,
}

/// OFPT_FLOW_REMOVED's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRemoved {
    /// What the flow matched.
    pub matching: Match,
    /// Its priority.
    pub priority: u16,
    /// Its cookie.
    pub cookie: u64,
    /// Why it went.
    pub reason: RemovedReason,
    /// Its table; OpenFlow 1.0's own form does not say.
    pub table: Option<u8>,
    /// How long it lived.
    pub duration: Duration,
    /// Its idle timeout in seconds.
    pub idle_timeout: u16,
    /// Packets that hit it.
    pub packets: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// Why a flow went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovedReason {
    /// No packet for `idle_timeout`.
    IdleTimeout = 0,
    /// `hard_timeout` passed.
    HardTimeout = 1,
    /// A flow-mod.
    Delete = 2,
}

/// OFPT_STATS_REQUEST's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsRequest {
    /// OFPST_DESC.
    Desc,
    /// OFPST_FLOW or NXST_FLOW. OpenFlow 1.0's own form cannot ask for cookies.
    Flow(FlowFormat, FlowFilter),
    /// OFPST_AGGREGATE or NXST_AGGREGATE.
    Aggregate(FlowFormat, FlowFilter),
    /// OFPST_TABLE.
    Table,
    /// OFPST_PORT; [`PortNo::NONE`]: all.
    Port(PortNo),
    /// OFPST_PORT_DESC, which OVS has in OpenFlow 1.0 as well.
    PortDesc,
    /// OFPST_QUEUE; [`PortNo::ALL`] and 0xffff_ffff: all.
    Queue {
        /// The port.
        port: PortNo,
        /// The queue.
        queue: u32,
    },
}

/// OFPT_STATS_REPLY's body. Where it is a list, the sender may give any number; the receiver gets it in
/// parts, all but the last with `more`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsReply {
    /// The statistics.
    pub body: StatsBody,
    /// Another part follows. The encoder says so, too, in all but the last of the messages that it splits `body`
    /// into.
    pub more: bool,
}

/// The statistics of a [`StatsReply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsBody {
    /// OFPST_DESC.
    Desc(Desc),
    /// OFPST_FLOW or NXST_FLOW. OpenFlow 1.0's own form has no ages, and neither has flags and importance.
    Flow(FlowFormat, Vec<FlowEntry>),
    /// OFPST_AGGREGATE or NXST_AGGREGATE.
    Aggregate(FlowFormat, AggregateStats),
    /// OFPST_TABLE.
    Table(Vec<TableStats>),
    /// OFPST_PORT.
    Port(Vec<PortStats>),
    /// OFPST_PORT_DESC.
    PortDesc(Vec<Port>),
    /// OFPST_QUEUE.
    Queue(Vec<QueueStats>),
}

/// What a switch says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desc {
    /// Who made it.
    pub manufacturer: String,
    /// The hardware.
    pub hardware: String,
    /// The software.
    pub software: String,
    /// The serial number.
    pub serial: String,
    /// The datapath, for people.
    pub datapath: String,
}

/// The sum over some flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AggregateStats {
    /// Packets that hit them.
    pub packets: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// How many flows.
    pub flows: u32,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStats {
    /// Its number.
    pub table: u8,
    /// Its name.
    pub name: String,
    /// OFPFW10_* bits of the fields that it can wildcard.
    pub wildcards: u32,
    /// How many flows it has room for.
    pub max_entries: u32,
    /// How many flows it has.
    pub active: u32,
    /// Packets looked up.
    pub lookups: u64,
    /// Packets that hit a flow.
    pub matched: u64,
}

/// One port's counters; `u64::MAX` is one that the switch does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are OpenFlow's")]
pub struct PortStats {
    pub number: PortNo,
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_frame_errors: u64,
    pub rx_over_errors: u64,
    pub rx_crc_errors: u64,
    pub collisions: u64,
}

/// One queue's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are OpenFlow's")]
pub struct QueueStats {
    pub port: PortNo,
    pub queue: u32,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
}

/// How the switch shall write packet-ins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketInFormat {
    /// OFPT_PACKET_IN.
    Standard = 0,
    /// NXT_PACKET_IN.
    Nxt = 1,
    /// NXT_PACKET_IN2.
    Nxt2 = 2,
}

/// Which messages a controller wants unasked: a bit per reason, as primary (0) and as secondary (1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are OpenFlow's")]
pub struct AsyncConfig {
    pub packet_in: [u32; 2],
    pub port_status: [u32; 2],
    pub flow_removed: [u32; 2],
}

/// Which connections NXT_CT_FLUSH means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CtFlush {
    /// The zone; none: all.
    pub zone: Option<u16>,
    /// The IP protocol of both tuples; 0: any.
    pub ip_proto: u8,
    /// The original direction.
    pub original: CtTuple,
    /// The reply direction.
    pub reply: CtTuple,
    /// The mark and the bits of it that count.
    pub mark: Option<(u32, u32)>,
    /// The label and the bits of it that count.
    pub label: Option<(u128, u128)>,
}

/// What of a tuple has to agree: nothing that is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtTuple {
    /// Source address.
    pub src: Option<IpAddr>,
    /// Destination address.
    pub dst: Option<IpAddr>,
    /// Source port.
    pub src_port: Option<u16>,
    /// Destination port.
    pub dst_port: Option<u16>,
    /// ICMP identifier.
    pub icmp_id: Option<u16>,
    /// ICMP type.
    pub icmp_type: Option<u8>,
    /// ICMP code.
    pub icmp_code: Option<u8>,
}
