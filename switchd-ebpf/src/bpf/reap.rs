//! The reaper: removes the connections that the daemon lists, unless they have been touched meanwhile and the
//! daemon minds.
//!
//! Run by the daemon with BPF_PROG_TEST_RUN. Removal is done here and nowhere else but in the datapath itself: what
//! goes with a connection (helpers, expectations) lies in hash maps, whose values only BPF can lock and change.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use switchd_ebpf::atomic;
use switchd_ebpf::conntrack::{self, Connections as _, End};
use switchd_ebpf::layout::{REAP_BATCH, life, reap};
use switchd_ebpf::tables::Tables as _;

use super::maps::Maps;

/// Goes through the list, up to the first entry without a life.
#[inline(always)]
pub fn run() {
    let maps = Maps::open();
    maps.repeat(REAP_BATCH, reap_one, (&raw const maps).cast_mut().cast());
}

extern "C" fn reap_one(index: u64, maps: *mut c_void) -> i64 {
    // SAFETY: `run` passes its own, which lives for as long as the loop runs.
    let maps = unsafe { &*maps.cast::<Maps>() };
    let Some(wanted) = maps.to_reap(index as u32) else { return 1 };
    // SAFETY: the daemon does not touch the list while the program runs.
    let wanted = unsafe { &mut *wanted.as_ptr() };
    if wanted.life == 0 {
        return 1;
    }
    let Some(record) = maps.record(wanted.record) else { return 0 };
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    // SAFETY: the record is valid while the program runs, and this word is written alone.
    let expired = unsafe { atomic::load(&raw const (*record.as_ptr()).expires) } < now;
    let why = if expired { End::Expired } else { End::Removed };
    let mut judged = wanted.life;
    if wanted.state == reap::WHATEVER {
        // SAFETY: as above.
        let present = unsafe { atomic::load(&raw const (*record.as_ptr()).life) };
        if life::generation(present) == life::generation(judged) {
            judged = present;
        }
    }
    if conntrack::remove(maps, record, wanted.record, judged, now, why) {
        wanted.state = reap::DONE;
    }
    0
}
