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

/// The wall clock's time at which the clock of the timestamps stood at zero: nanoseconds since 1970.
#[must_use]
pub fn epoch_ns() -> u64 {
    let wall = || clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or(Duration::ZERO, Duration::from);
    // Both clocks go on by the same ticks; one that came between the two readings would show as a difference.
    loop {
        let (before, wall, after) = (now(), wall(), now());
        if before == after {
            return wall.saturating_sub(before).as_nanos() as u64;
        }
    }
}
