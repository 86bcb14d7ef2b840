//! The switch's configuration: what a user asked for, and the numbers that must outlive a restart.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, Read};

use appctl::vsctl::{DatapathType, FailMode, Timeouts};
use ofctl::port::PortNo;
use serde::{Deserialize, Serialize};

use crate::hooks::Hook;
use crate::rules::BridgeId;

/// How many bridges there can be.
pub const BRIDGES_MAX: u8 = 64;

/// All bridges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What `show` prints first; made up once.
    pub uuid: String,
    /// The bridges, in the order they were added.
    pub bridges: Vec<BridgeConfig>,
    /// The zones of connection tracking.
    #[serde(default, skip_serializing_if = "ZonesConfig::is_empty")]
    pub zones: ZonesConfig,
}

/// What is wanted of the zones of connection tracking. Files of older daemons do not have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZonesConfig {
    /// How many connections zones may have that have no limit of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_limit: Option<u32>,
    /// How many connections each zone may have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<u16, u32>,
    /// How long its connections live.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub timeouts: BTreeMap<u16, Timeouts>,
}

impl ZonesConfig {
    /// Whether nothing is wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeConfig {
    /// Its number in the datapath, below [`BRIDGES_MAX`].
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Which hook its ports are served by.
    pub datapath_type: DatapathType,
    /// Whether it has a flow of its own accord. Files of older daemons do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_mode: Option<FailMode>,
    /// Its Ethernet address, and the lower 48 bits of its datapath id.
    pub mac: [u8; 6],
    /// Where the search for a free port number begins.
    pub next_ofport: u16,
    /// The ports but the local one, in the order they were added.
    pub ports: Vec<PortConfig>,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortConfig {
    /// The device.
    pub name: String,
    /// The OpenFlow port number it has; `None` only before a transaction is complete.
    pub ofport: Option<u16>,
    /// The one that was asked for.
    pub ofport_request: Option<u16>,
}

/// Why a configuration cannot be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A name is there twice.
    #[error("{0} is there twice")]
    Name(String),
    /// A bridge's number is out of range or there twice.
    #[error("bridge {0} has a bad number")]
    Id(String),
    /// A port's number is missing, out of range or there twice.
    #[error("port {0} has a bad number")]
    Ofport(String),
}

impl Config {
    /// No bridges, and an identity of its own.
    ///
    /// # Errors
    /// The kernel's random numbers could not be read.
    pub fn new() -> io::Result<Self> {
        Ok(Self { uuid: random_uuid()?, bridges: Vec::new(), zones: ZonesConfig::default() })
    }

    /// A bridge by name.
    #[must_use]
    pub fn bridge(&self, name: &str) -> Option<&BridgeConfig> {
        self.bridges.iter().find(|bridge| bridge.name == name)
    }

    /// A bridge by name, to change it.
    pub fn bridge_mut(&mut self, name: &str) -> Option<&mut BridgeConfig> {
        self.bridges.iter_mut().find(|bridge| bridge.name == name)
    }

    /// A port by name, local ports aside, and its bridge.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<(&BridgeConfig, &PortConfig)> {
        self.bridges.iter().find_map(|bridge| Some((bridge, bridge.port(name)?)))
    }

    /// The lowest bridge number that is free.
    #[must_use]
    pub fn free_id(&self) -> Option<u8> {
        (0..BRIDGES_MAX).find(|id| self.bridges.iter().all(|bridge| bridge.id != *id))
    }

    /// Checks what transactions keep true, for a configuration that comes from outside.
    ///
    /// # Errors
    /// See [`Invalid`].
    pub fn validate(&self) -> Result<(), Invalid> {
        let mut names = HashSet::new();
        let mut ids = HashSet::new();
        for bridge in &self.bridges {
            if bridge.id >= BRIDGES_MAX || !ids.insert(bridge.id) {
                return Err(Invalid::Id(bridge.name.clone()));
            }
            let mut ofports = HashSet::new();
            for port in &bridge.ports {
                let ofport = port.ofport.filter(|number| is_ordinary(*number));
                if !ofport.is_some_and(|number| ofports.insert(number)) {
                    return Err(Invalid::Ofport(port.name.clone()));
                }
            }
            for name in bridge.ports.iter().map(|port| &port.name).chain([&bridge.name]) {
                if !names.insert(name) {
                    return Err(Invalid::Name(name.clone()));
                }
            }
        }
        Ok(())
    }
}

impl BridgeConfig {
    /// A bridge without ports.
    #[must_use]
    pub fn new(id: u8, name: &str, mac: [u8; 6]) -> Self {
        let (name, datapath_type) = (name.to_owned(), DatapathType::default());
        Self { id, name, datapath_type, fail_mode: None, mac, next_ofport: 1, ports: Vec::new() }
    }

    /// Its number in the datapath.
    #[must_use]
    pub fn id(&self) -> BridgeId {
        BridgeId(self.id)
    }

    /// The hook that its ports are to be served by.
    #[must_use]
    pub fn hook(&self) -> Hook {
        match self.datapath_type {
            DatapathType::Tc => Hook::Tcx,
            DatapathType::Xdp | DatapathType::System | DatapathType::Netdev => Hook::Xdp,
        }
    }

    /// Its OpenFlow datapath id: 16 zero bits, then its Ethernet address.
    #[must_use]
    pub fn datapath_id(&self) -> u64 {
        self.mac.iter().fold(0, |id, byte| id << 8 | u64::from(*byte))
    }

    /// A port by name, the local one aside.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<&PortConfig> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// Gives numbers to the ports that have none, and to those that ask for another one, if it is free.
    ///
    /// Numbers count up, and a freed one is not given to the next port at once: flows may still name it.
    pub(super) fn assign_ofports(&mut self) {
        let mut taken: HashSet<u16> = self.ports.iter().filter_map(|port| port.ofport).collect();
        for port in &mut self.ports {
            let request = port.ofport_request.filter(|number| is_ordinary(*number) && taken.insert(*number));
            if let Some(number) = request
                && let Some(former) = port.ofport.replace(number)
            {
                taken.remove(&former);
            }
        }
        let mut next = self.next_ofport;
        for port in self.ports.iter_mut().filter(|port| port.ofport.is_none()) {
            let mut numbers = (next.max(1)..=PortNo::MAX.0).chain(1..next);
            port.ofport = numbers.find(|number| taken.insert(*number));
            next = port.ofport.map_or(next, |number| number % PortNo::MAX.0 + 1);
        }
        self.next_ofport = next;
    }
}

fn is_ordinary(ofport: u16) -> bool {
    (1..=PortNo::MAX.0).contains(&ofport)
}

/// A random, locally administered unicast address.
///
/// # Errors
/// The kernel's random numbers could not be read.
pub(super) fn random_mac() -> io::Result<[u8; 6]> {
    let mut mac = random::<6>()?;
    mac[0] = mac[0] & !1 | 2;
    Ok(mac)
}

/// A random UUID (RFC 9562, version 4).
fn random_uuid() -> io::Result<String> {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = random::<16>()?;
    let (g, i) = (g & 0x0f | 0x40, i & 0x3f | 0x80);
    Ok(format!(
        "{a:02x}{b:02x}{c:02x}{d:02x}-{e:02x}{f:02x}-{g:02x}{h:02x}-{i:02x}{j:02x}-{k:02x}{l:02x}{m:02x}{n:02x}{o:02x}{p:02x}"
    ))
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bridge() -> BridgeConfig {
        BridgeConfig::new(0, "br0", [2, 0, 0, 0, 0, 1])
    }

    fn add(bridge: &mut BridgeConfig, name: &str, ofport_request: Option<u16>) {
        bridge.ports.push(PortConfig { name: name.into(), ofport: None, ofport_request });
    }

    fn numbers(bridge: &BridgeConfig) -> Vec<u16> {
        bridge.ports.iter().map(|port| port.ofport.unwrap()).collect()
    }

    #[test]
    fn numbers_count_up_and_are_not_reused_at_once() {
        let mut bridge = bridge();
        for name in ["a", "b", "c"] {
            add(&mut bridge, name, None);
        }
        bridge.assign_ofports();
        assert_eq!(numbers(&bridge), [1, 2, 3]);
        bridge.ports.remove(1);
        add(&mut bridge, "d", None);
        bridge.assign_ofports();
        assert_eq!(numbers(&bridge), [1, 3, 4]);
    }

    #[test]
    fn requests_come_first_and_are_honoured_when_free() {
        let mut bridge = bridge();
        add(&mut bridge, "a", None);
        add(&mut bridge, "b", Some(1));
        add(&mut bridge, "c", Some(1));
        bridge.assign_ofports();
        assert_eq!(numbers(&bridge), [2, 1, 3]);
        bridge.ports[0].ofport_request = Some(10);
        bridge.assign_ofports();
        assert_eq!(numbers(&bridge), [10, 1, 3]);
    }

    #[test]
    fn numbers_wrap_around_before_the_reserved_ones() {
        let mut bridge = bridge();
        bridge.next_ofport = PortNo::MAX.0;
        for name in ["a", "b"] {
            add(&mut bridge, name, None);
        }
        bridge.assign_ofports();
        assert_eq!(numbers(&bridge), [0xfeff, 1]);
    }

    #[test]
    fn identities_are_well_formed() {
        let mac = random_mac().unwrap();
        assert_eq!(mac[0] & 3, 2, "locally administered, unicast");
        let uuid = random_uuid().unwrap();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
        assert_eq!(bridge().datapath_id(), 0x0200_0000_0001);
    }

    proptest! {
        #[test]
        fn numbers_are_always_distinct_and_stay(
            first in proptest::collection::vec(proptest::option::of(0u16..8), 0..12),
            second in proptest::collection::vec(proptest::option::of(0u16..8), 0..12),
        ) {
            let mut bridge = bridge();
            for (place, request) in first.iter().enumerate() {
                add(&mut bridge, &format!("a{place}"), *request);
            }
            bridge.assign_ofports();
            let before = numbers(&bridge);
            for (place, request) in second.iter().enumerate() {
                add(&mut bridge, &format!("b{place}"), *request);
            }
            bridge.assign_ofports();
            let config = Config {
                uuid: String::new(),
                bridges: vec![bridge.clone()],
                zones: ZonesConfig::default(),
            };
            prop_assert_eq!(config.validate(), Ok(()));
            for (port, number) in bridge.ports.iter().zip(before) {
                prop_assert!(port.ofport == Some(number) || port.ofport == port.ofport_request);
            }
        }
    }
}
