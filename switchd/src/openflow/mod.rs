//! The OpenFlow server: each bridge listens on `BRIDGE.mgmt` in the run directory.
//!
//! A connection is one task, which reads, answers and only then reads on. So a peer that does not take its
//! answers holds up nobody but itself, and a connection never has more than a few messages in memory.

mod connection;
mod reply;
mod server;

use std::time::Duration;

use ofctl::action::CheckError;
use ofctl::port::PortNo;
use ofctl::wire::{ErrorCode, Port};

pub use self::server::BridgeServer;

use crate::datapath::Selection;
use crate::hooks::PortStats;
use crate::ofproto::{Error, Ofproto};
use crate::rules::{BridgeId, RuleError, Rules};

/// What the server serves.
pub trait Backend: Send + Sync + 'static {
    /// Runs `f` on a bridge's flow tables, while nobody else does; none when there is no such bridge (any
    /// more). The server keeps what it does there short.
    fn with_tables<T>(
        &self,
        bridge: BridgeId,
        f: impl FnOnce(&mut Ofproto, &mut dyn Rules) -> T,
    ) -> Option<T>;

    /// A bridge's identity: 48 bits of MAC address below 16 bits of zeros, as in Open vSwitch.
    fn datapath_id(&self, bridge: BridgeId) -> u64;

    /// A bridge's ports, [`PortNo::LOCAL`] among them.
    fn ports(&self, bridge: BridgeId) -> Vec<Port>;

    /// Whether flows see the transport ports of fragments before `ct`.
    fn shows_fragments(&self, bridge: BridgeId) -> bool;

    /// Changes that.
    fn show_fragments(&self, bridge: BridgeId, show: bool);

    /// A port's counters.
    fn port_stats(&self, bridge: BridgeId, port: PortNo) -> PortStats;

    /// Forgets connections, of whatever bridge's packets.
    fn flush_connections(&self, which: &Selection);

    /// The time on the clock of [`RuleStats::used`](crate::rules::RuleStats::used).
    fn now(&self) -> Duration;
}

/// What a peer is told when its flow-mod is refused.
fn error_code(error: &Error) -> ErrorCode {
    match error {
        Error::ReservedTable(_) => ErrorCode::RequestEperm,
        Error::Overlap(_) => ErrorCode::FlowModOverlap,
        Error::BadMatch(_) => ErrorCode::MatchBadPrereq,
        Error::BadActions(CheckError::MatchInconsistent) => ErrorCode::ActionMatchInconsistent,
        Error::BadActions(CheckError::BadOutPort) => ErrorCode::ActionBadOutPort,
        Error::BadActions(CheckError::BadSetArgument) => ErrorCode::ActionBadSetArgument,
        Error::BadActions(CheckError::BadSetLen) => ErrorCode::ActionBadSetLen,
        Error::BadActions(CheckError::BadArgument) => ErrorCode::ActionBadArgument,
        Error::BadActions(CheckError::UnsupportedOrder) => ErrorCode::ActionUnsupportedOrder,
        Error::BadActions(CheckError::BadTableId) => ErrorCode::InstructionBadTableId,
        Error::TooManyActions(_) => ErrorCode::ActionTooMany,
        Error::Rules(RuleError::TableFull(_)) => ErrorCode::FlowModTableFull,
        Error::Rules(RuleError::Unsupported(_)) => ErrorCode::ActionBadType,
        Error::Rules(RuleError::Map(_)) => ErrorCode::FlowModHardware,
    }
}
