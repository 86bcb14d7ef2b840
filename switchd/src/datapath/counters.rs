//! Drops by reason, and the MAC tables of NORMAL.

use std::ptr::NonNull;
use std::time::Duration;

use aya::maps::{HashMap, MapData};
use switchd_ebpf::drop_reason::DropReason;
use switchd_ebpf::layout::{MAC_AGEING, MacKey, MacSeen};

use super::clock;
use super::shared::PerCpu;
use crate::rules::BridgeId;

/// Drops by reason, and the MAC tables of NORMAL.
pub struct Counters {
    pub(super) drops: PerCpu<u64>,
    pub(super) macs: HashMap<MapData, MacKey, MacSeen>,
}

/// A learned address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedMac {
    /// The port's OpenFlow number.
    pub port: u16,
    /// The VLAN, 0 for none.
    pub vlan: u16,
    /// The address.
    pub mac: u64,
    /// How long ago it was last seen.
    pub age: Duration,
}

impl Counters {
    /// Packets dropped for each reason, over all bridges.
    #[must_use]
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        // SAFETY: within the mapping; the datapath writes the words whole.
        let read = |count: NonNull<u64>| unsafe { count.as_ptr().read_volatile() };
        let count = |reason: DropReason| self.drops.at(reason as u32).map(read).sum();
        DropReason::ALL.iter().map(|&reason| (reason, count(reason))).collect()
    }

    /// The addresses that a bridge has learned and not yet forgotten, by VLAN and address.
    #[must_use]
    pub fn macs(&self, bridge: BridgeId) -> Vec<LearnedMac> {
        let now = clock::now().as_secs();
        let mut macs: Vec<LearnedMac> = self
            .macs
            .iter()
            .filter_map(Result::ok)
            .filter(|(key, _)| key.bridge == u32::from(bridge.0))
            .map(|(key, seen)| LearnedMac {
                port: seen as u16,
                vlan: key.vlan as u16,
                mac: key.mac,
                age: Duration::from_secs(now.saturating_sub(seen >> 16)),
            })
            .filter(|learned| learned.age.as_secs() <= MAC_AGEING)
            .collect();
        macs.sort_unstable_by_key(|learned| (learned.vlan, learned.mac));
        macs
    }

    /// Forgets the addresses of a bridge that `which` names.
    pub fn forget_macs(&mut self, bridge: BridgeId, which: impl Fn(&LearnedMac) -> bool) {
        let now = clock::now().as_secs();
        let all: Vec<(MacKey, MacSeen)> = self.macs.iter().filter_map(Result::ok).collect();
        for (key, seen) in all {
            let learned = LearnedMac {
                port: seen as u16,
                vlan: key.vlan as u16,
                mac: key.mac,
                age: Duration::from_secs(now.saturating_sub(seen >> 16)),
            };
            if key.bridge == u32::from(bridge.0) && which(&learned) {
                // Gone already is as good.
                let _ = self.macs.remove(&key);
            }
        }
    }

    /// Forgets the addresses that have not been seen for [`MAC_AGEING`] seconds.
    pub fn age_macs(&mut self) {
        let now = clock::now().as_secs();
        let old: Vec<MacKey> = self
            .macs
            .iter()
            .filter_map(Result::ok)
            .filter(|(_, seen)| now.saturating_sub(seen >> 16) > MAC_AGEING)
            .map(|(key, _)| key)
            .collect();
        for key in old {
            let _ = self.macs.remove(&key);
        }
    }
}
