//! OpenFlow port numbers.

/// A port number as OpenFlow 1.0 has it: 16 bits, reserved ports from 0xfff8 up. (OpenFlow 1.1 and later
/// write 32 bits on the wire; the codec converts.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortNo(pub u16);

impl PortNo {
    /// The highest number of an ordinary port (OFPP_MAX is 0xff00, exclusive).
    pub const MAX: Self = Self(0xfeff);
    /// Not set (OVS extension).
    pub const UNSET: Self = Self(0xfff7);
    /// The port of entry.
    pub const IN_PORT: Self = Self(0xfff8);
    /// The tables (packet-out only).
    pub const TABLE: Self = Self(0xfff9);
    /// MAC learning.
    pub const NORMAL: Self = Self(0xfffa);
    /// All ports but the port of entry and those that flooding leaves out.
    pub const FLOOD: Self = Self(0xfffb);
    /// All ports but the port of entry.
    pub const ALL: Self = Self(0xfffc);
    /// A controller.
    pub const CONTROLLER: Self = Self(0xfffd);
    /// The bridge's own port.
    pub const LOCAL: Self = Self(0xfffe);
    /// None, or any.
    pub const NONE: Self = Self(0xffff);
}
