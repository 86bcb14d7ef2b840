//! OpenFlow port numbers and names.

use std::collections::BTreeMap;

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

    /// The reserved ports by the names that OVS prints; [`PortNo::NONE`] is `ANY`.
    const RESERVED: [(&'static str, Self); 9] = [
        ("UNSET", Self::UNSET),
        ("IN_PORT", Self::IN_PORT),
        ("TABLE", Self::TABLE),
        ("NORMAL", Self::NORMAL),
        ("FLOOD", Self::FLOOD),
        ("ALL", Self::ALL),
        ("CONTROLLER", Self::CONTROLLER),
        ("LOCAL", Self::LOCAL),
        ("ANY", Self::NONE),
    ];

    /// The name of a reserved port.
    #[must_use]
    pub fn reserved_name(self) -> Option<&'static str> {
        Self::RESERVED.iter().find(|(_, port)| *port == self).map(|(name, _)| *name)
    }

    /// The reserved port of that name, in any case; `none` is a second name of `ANY`.
    #[must_use]
    pub fn from_reserved_name(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("none") {
            return Some(Self::NONE);
        }
        Self::RESERVED.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, port)| *port)
    }

    /// The port behind OpenFlow 1.1's 32-bit number, where reserved ports start at 0xffffff00. `None` for a
    /// number between the two ranges.
    #[must_use]
    pub fn from_openflow11(number: u32) -> Option<Self> {
        match number {
            0..0xff00 | 0xffff_ff00.. => Some(Self(number as u16)),
            _ => None,
        }
    }

    /// The 32-bit number of OpenFlow 1.1 and later.
    #[must_use]
    pub fn to_openflow11(self) -> u32 {
        if self > Self::MAX { 0xffff_0000 | u32::from(self.0) } else { u32::from(self.0) }
    }
}

/// The names of a bridge's ports.
pub trait PortNames {
    /// The number of the port of that name.
    fn number(&self, name: &str) -> Option<PortNo>;

    /// The name of a port.
    fn name(&self, port: PortNo) -> Option<&str>;
}

/// No names at all: flow texts have to use numbers, and numbers are printed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNames;

impl PortNames for NoNames {
    fn number(&self, _name: &str) -> Option<PortNo> {
        None
    }

    fn name(&self, _port: PortNo) -> Option<&str> {
        None
    }
}

/// Port names in a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortMap {
    by_number: BTreeMap<PortNo, String>,
    by_name: BTreeMap<String, PortNo>,
}

impl PortMap {
    /// Adds a port.
    pub fn insert(&mut self, port: PortNo, name: impl Into<String>) {
        let name = name.into();
        self.by_number.insert(port, name.clone());
        self.by_name.insert(name, port);
    }
}

impl<S: Into<String>> FromIterator<(PortNo, S)> for PortMap {
    fn from_iter<I: IntoIterator<Item = (PortNo, S)>>(ports: I) -> Self {
        let mut map = Self::default();
        for (port, name) in ports {
            map.insert(port, name);
        }
        map
    }
}

impl PortNames for PortMap {
    fn number(&self, name: &str) -> Option<PortNo> {
        self.by_name.get(name).copied()
    }

    fn name(&self, port: PortNo) -> Option<&str> {
        self.by_number.get(&port).map(String::as_str)
    }
}
