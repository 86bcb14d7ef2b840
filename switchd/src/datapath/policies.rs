//! Timeout policies: how long connections live.

use std::sync::atomic::{AtomicU32, Ordering};

use conntrack_core::Timeouts;

use super::shared::Shared;

/// The timeout policies. Number 0 is that of all zones without one of their own.
pub struct Policies {
    timeouts: Shared<Timeouts>,
}

impl Policies {
    pub(super) fn new(timeouts: Shared<Timeouts>) -> Self {
        Self { timeouts }
    }

    /// Whether TCP segments are held to the window.
    #[must_use]
    pub fn checks_sequences(&self) -> bool {
        self.liberal(0).is_none_or(|word| word.load(Ordering::Relaxed) == 0)
    }

    /// Says whether TCP segments are held to the window, for all policies, those that nobody uses yet included.
    pub fn check_sequences(&self, check: bool) {
        for word in (0..self.timeouts.len()).filter_map(|policy| self.liberal(policy)) {
            word.store(u32::from(!check), Ordering::Relaxed);
        }
    }

    /// The word of a policy that says whether TCP segments outside of the window are let through.
    fn liberal(&self, policy: u32) -> Option<&AtomicU32> {
        let timeouts = self.timeouts.at(policy)?;
        // SAFETY: within the mapping; both sides access the word whole.
        Some(unsafe { AtomicU32::from_ptr(&raw mut (*timeouts.as_ptr()).be_liberal) })
    }
}
