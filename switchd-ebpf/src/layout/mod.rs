//! The layout of what the kernel side and the daemon share through BPF maps: here the configuration, ports and frames,
//! in `flows.rs` the flow tables, in `connections.rs` connection tracking.
//!
//! Everything here is `#[repr(C)]`, without implicit padding, and valid for any bit pattern: the daemon
//! writes it through shared memory or by map calls, the kernel side reads it as it is.

macro_rules! assert_size {
    ($($type:ty = $size:expr),+ $(,)?) => { $(const _: () = assert!(size_of::<$type>() == $size);)+ };
}
mod connections;
mod flows;

use core::mem::size_of;

pub use connections::*;
pub use flows::*;

use crate::drop_reason::DropReason;

/// Bridges that one datapath can hold.
pub const MAX_BRIDGES: u32 = 64;
/// Ports of all bridges together.
pub const MAX_PORTS: u32 = 1024;
/// Counters of drops that each CPU has: one for each reason, and more to fill a cache line, so that no two CPUs share one.
pub const DROP_COUNTERS: u32 = (DropReason::ALL.len() as u32).next_multiple_of(8);
/// Hooks that a packet may come in by: XDP and tcx.
pub const HOOKS: u32 = 2;
/// OpenFlow tables of a bridge, 0 to 253; the index of a bridge's table is `bridge * TABLES + table`.
pub const TABLES: u32 = 256;
/// Ports that one bridge can flood to.
pub const MAX_BRIDGE_PORTS: usize = 254;

/// What the programs are told before they are loaded: to them, and to the verifier, constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Constants {
    /// CPUs that there may be.
    pub cpus: u32,
    /// Places of the lists of subtables at which a search may begin.
    pub listed: u32,
    /// Subtables of all tables.
    pub subtables: u32,
    /// Buckets of the flow tables' entries, a power of two.
    pub buckets: u32,
    /// Lines of these entries.
    pub entries: u32,
    /// Actions.
    pub ops: u32,
    /// Rules: the stretch of each CPU's counters.
    pub rules: u32,
    /// Buckets of tuples.
    pub tuples: u32,
    /// Records of connections.
    pub records: u32,
    /// Not 0: the kernel redirects no XDP frames that are in several pieces (before Linux 6.3).
    pub one_piece_only: u32,
}

impl Constants {
    /// What the object has until they are written.
    pub const NONE: Self = Self {
        cpus: 0,
        listed: 0,
        subtables: 0,
        buckets: 0,
        entries: 0,
        ops: 0,
        rules: 0,
        tuples: 0,
        records: 0,
        one_piece_only: 0,
    };
}

/// Values that the daemon sets and the datapath reads on every packet. One element, in shared memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// The version of the flow tables that packets see. Written last in a change: until then packets see none
    /// of it, afterwards all of it.
    pub version: u64,
    /// Records of connections that there are.
    pub records: u32,
    /// Connections that may be alive at once, at most [`Config::records`].
    pub max_connections: u32,
    /// Connections that a zone without a limit of its own may have; 0: as many as there is room for.
    pub default_limit: u32,
    /// Not 0: somebody listens to [`Event`]s.
    pub events: u32,
    /// Keys the hash that chooses translated addresses and ports; random, so that nobody can foresee it.
    pub nat_salt: u64,
    /// How tuples are hashed.
    pub tuple_hash: TupleHash,
    /// Zero: what follows is written by the datapath, and begins a cache line.
    pub pad: [u64; 4],
    /// Record numbers given out so far; those given back wait in the free queue. Written by the datapath
    /// alone, by atomic addition.
    pub records_used: u64,
    /// Connections that are alive, expired ones included. Written by atomic addition.
    pub connections: u64,
    /// Where the next search for a connection to evict begins. Written by atomic addition.
    pub clock_hand: u64,
    /// Frames that XDP left to tcx so far. Written by atomic addition.
    pub deferred: u64,
    /// Events that there was no room for. Written by atomic addition.
    pub events_lost: u64,
    /// Not 0: some connection has announced another one, so that first packets may be expected. Set once, by the
    /// datapath.
    pub expects: u64,
    /// Zero: fills the line.
    pub rest: [u64; 2],
}

/// A port, as the kernel finds it by device or by OpenFlow number. The daemon makes it [`PRESENT`](port_flags::PRESENT)
/// when all else is written. At worst a packet that was under way when a port went is sent to the next one of the same
/// number or slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// The device.
    pub ifindex: u32,
    /// The port's slot in the device map and among the counters.
    pub slot: u32,
    /// Its OpenFlow number.
    pub number: u16,
    /// Its bridge.
    pub bridge: u16,
    /// See [`port_flags`].
    pub flags: u32,
}

/// Ports are found by device and by OpenFlow number: in an array if these are below the limits, which but for long-lived
/// hosts and odd choices they are; else in a hash map, by [`far_device`] or [`far_number`].
pub const NEAR_DEVICES: u32 = 4096;
/// See [`NEAR_DEVICES`]; for each bridge.
pub const NEAR_NUMBERS: u32 = 1024;

/// The key of a device that is beyond [`NEAR_DEVICES`].
#[inline(always)]
#[must_use]
pub const fn far_device(ifindex: u32) -> u64 {
    1 << 32 | ifindex as u64
}

/// The key of a port's OpenFlow number that is beyond [`NEAR_NUMBERS`].
#[inline(always)]
#[must_use]
pub const fn far_number(bridge: u32, number: u16) -> u64 {
    (bridge << 16 | number as u32) as u64
}

/// Bits of [`Port::flags`].
pub mod port_flags {
    /// The port takes XDP frames; others get theirs through the tcx program.
    pub const XDP: u32 = 1;
    /// There is such a port.
    pub const PRESENT: u32 = 2;
    /// Look-ups do not see the transport ports of fragments that come in here, until `ct` has brought them to their
    /// datagram.
    pub const HIDES_FRAGMENTS: u32 = 4;
}

/// A port's counters on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct PortCounter {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_dropped: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_dropped: u64,
}

/// The OpenFlow numbers of a bridge's ports, for flooding. Replaced as a whole.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PortList {
    /// How many.
    pub len: u32,
    /// The numbers.
    pub ports: [u16; MAX_BRIDGE_PORTS],
}

/// What a MAC address is known by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MacKey {
    /// The address, in the low 48 bits.
    pub mac: u64,
    /// The VLAN.
    pub vlan: u32,
    /// The bridge.
    pub bridge: u32,
}

/// Where a MAC address was last seen: the port in the low 16 bits, the coarse monotonic clock's seconds above.
/// One word, so that it is read and written whole.
pub type MacSeen = u64;

/// Seconds after which a learned address is forgotten, as OVS's default.
pub const MAC_AGEING: u64 = 300;

/// Frames that may be on their way from XDP to tcx at once. A power of two.
pub const DEFERRED: u32 = 1024;

/// What XDP has worked out for a frame and left to tcx to carry out. Found by the frame's number, which
/// travels in its metadata ([`Note`]); the slot is the number modulo [`DEFERRED`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Deferred {
    /// The frame's number. Another one: the slot was taken over before tcx came by.
    pub number: u64,
    /// What is to be sent.
    pub effects: crate::pipeline::Effects,
}

/// The metadata of a deferred frame.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Note {
    /// [`NOTE_MAGIC`].
    pub magic: u64,
    /// The frame's number.
    pub number: u64,
}

/// Tells our metadata from that of others.
pub const NOTE_MAGIC: u64 = 0x7377_6974_6368_6431;

assert_size!(Config = 192, Port = 16, PortList = 512, MacKey = 16,);

#[cfg(feature = "user")]
macro_rules! plain {
    ($($type:ty),+ $(,)?) => {
        // SAFETY: `repr(C)`, copied as bytes without implicit padding, and valid for any bit pattern.
        $(unsafe impl aya::Pod for $type {})+
    };
}
#[cfg(feature = "user")]
plain!(Constants, MacKey, Port, PortList);
