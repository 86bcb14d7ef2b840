//! The clock of the datapath's timestamps.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The coarse monotonic clock: what `bpf_ktime_get_coarse_ns` reads.
#[must_use]
pub fn now() -> Duration {
    // The clock exists on every Linux; should it fail all the same, everything is as old as the boot.
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Into::into)
}

/// The same in nanoseconds.
#[must_use]
pub fn now_ns() -> u64 {
    now().as_nanos() as u64
}
