//! Zones of connection tracking, and how many connections there are and may be.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use switchd_ebpf::layout::{Config, ZONES, Zone, zone_flags};

use super::shared::Shared;

/// The zones, and the books of the connection table. The datapath keeps the counts; the limits are the daemon's.
pub struct Zones {
    zones: Shared<Zone>,
    config: Arc<Shared<Config>>,
    /// Held while limits are changed, so that two changes do not mix.
    changing: Mutex<()>,
}

impl Zones {
    pub(super) fn new(zones: Shared<Zone>, config: Arc<Shared<Config>>) -> Self {
        Self { zones, config, changing: Mutex::new(()) }
    }

    /// A zone's limit and counts.
    #[must_use]
    pub fn get(&self, zone: u16) -> Zone {
        // SAFETY: within the mapping, and valid for any bits; each count is a word that is read whole.
        self.zones.at(zone.into()).map_or_else(Zone::default, |zone| unsafe { zone.as_ptr().read_volatile() })
    }

    /// All zones.
    pub fn iter(&self) -> impl Iterator<Item = (u16, Zone)> {
        (0..ZONES).map(|zone| (zone as u16, self.get(zone as u16)))
    }

    /// The limit that a zone has for itself, 0 for none at all; `None` if the default counts there.
    #[must_use]
    pub fn own_limit(zone: &Zone) -> Option<u32> {
        (zone.flags & zone_flags::LIMIT != 0).then_some(zone.limit)
    }

    /// The limit of zones that have none of their own; 0 for none at all.
    #[must_use]
    pub fn default_limit(&self) -> u32 {
        self.default_limit_word().map_or(0, |limit| limit.load(Ordering::Relaxed))
    }

    /// Sets limits; `None` takes a zone's own away. Connections that there are stay, also where there are more.
    pub fn set_limits(&self, default: Option<u32>, zones: &[(u16, Option<u32>)]) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(limit), Some(word)) = (default, self.default_limit_word()) {
            word.store(limit, Ordering::Relaxed);
        }
        for (zone, limit) in zones {
            let Some(zone) = self.zones.at((*zone).into()) else { continue };
            // SAFETY: within the mapping; both sides access the words whole, and the datapath reads the flag before
            // the limit.
            unsafe {
                let flags = AtomicU16::from_ptr(&raw mut (*zone.as_ptr()).flags);
                match limit {
                    Some(limit) => {
                        AtomicU32::from_ptr(&raw mut (*zone.as_ptr()).limit).store(*limit, Ordering::Release);
                        flags.fetch_or(zone_flags::LIMIT, Ordering::Release);
                    }
                    None => {
                        flags.fetch_and(!zone_flags::LIMIT, Ordering::Release);
                    }
                }
            }
        }
    }

    /// Connections that are alive, expired ones that have not been swept included.
    #[must_use]
    pub fn connections(&self) -> u64 {
        // SAFETY: within the mapping; both sides access the word whole.
        self.config(|config| unsafe { AtomicU64::from_ptr(&raw mut (*config).connections) })
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Connections that there may be.
    #[must_use]
    pub fn max_connections(&self) -> u32 {
        self.max_connections_word().map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Connections that there is room for.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        // SAFETY: within the mapping; the word never changes.
        self.config(|config| unsafe { (*config).records }).unwrap_or(0)
    }

    /// Sets how many connections there may be. False: none, or more than there is room for; nothing is changed then.
    /// Connections that there are stay, also if there are more.
    pub fn set_max_connections(&self, count: u32) -> bool {
        let fits = (1..=self.capacity()).contains(&count);
        if fits && let Some(word) = self.max_connections_word() {
            word.store(count, Ordering::Relaxed);
        }
        fits
    }

    fn default_limit_word(&self) -> Option<&AtomicU32> {
        // SAFETY: within the mapping; both sides access the word whole.
        self.config(|config| unsafe { AtomicU32::from_ptr(&raw mut (*config).default_limit) })
    }

    fn max_connections_word(&self) -> Option<&AtomicU32> {
        // SAFETY: within the mapping; both sides access the word whole.
        self.config(|config| unsafe { AtomicU32::from_ptr(&raw mut (*config).max_connections) })
    }

    fn config<T>(&self, f: impl FnOnce(*mut Config) -> T) -> Option<T> {
        self.config.at(0).map(NonNull::as_ptr).map(f)
    }
}
