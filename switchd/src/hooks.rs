//! What the port side asks of the datapath.

use ofctl::port::PortNo;

use crate::rules::BridgeId;

/// Which kernel hook serves a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Native XDP, with the tcx program behind it for frames that XDP cannot finish.
    Xdp,
    /// The tcx program alone.
    Tcx,
}

/// A port's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are OpenFlow's")]
pub struct PortStats {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_dropped: u64,
    pub rx_errors: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_dropped: u64,
    pub tx_errors: u64,
}

/// Why a port cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// Somebody else's XDP program holds the device.
    #[error("another XDP program is attached to it")]
    Busy,
    /// There is no such device (any more).
    #[error("No such device")]
    NoDevice,
    /// It carries something else than Ethernet frames.
    #[error("not an Ethernet device")]
    NotEthernet,
    /// The driver has no native XDP.
    #[error("its driver has no native XDP: {0}")]
    NoNativeXdp(String),
    /// Every port slot is taken.
    #[error("no more than {0} ports")]
    TooMany(u32),
    /// Anything else, with the kernel's words.
    #[error("{0}")]
    Kernel(String),
}

/// The datapath's ports.
pub trait Hooks {
    /// Attaches the datapath to a device and makes it a port of a bridge: from here on it takes the device's
    /// frames and may send to it.
    ///
    /// # Errors
    /// See [`HookError`]; the device is left as it was.
    fn attach(&mut self, bridge: BridgeId, port: PortNo, ifindex: u32, hook: Hook) -> Result<(), HookError>;

    /// Takes a port away. The device may be gone already.
    fn detach(&mut self, bridge: BridgeId, port: PortNo);

    /// Whether flows see the transport ports of a bridge's fragments before `ct`; to begin with they do not.
    fn shows_fragments(&self, bridge: BridgeId) -> bool;

    /// Changes that.
    fn show_fragments(&mut self, bridge: BridgeId, show: bool);

    /// A port's counters; zero for a port that is not attached.
    fn port_stats(&self, bridge: BridgeId, port: PortNo) -> PortStats;
}
