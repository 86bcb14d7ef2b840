//! How connections are stored: each is one [`Record`], found through two [`tuples`] (original and reply direction),
//! which lead to it for as long as its [`life`] says so. See [`Record`] for who may write what.

use core::ffi::c_void;
use core::ptr::NonNull;

use conntrack_core::status;

use super::Connections;
use super::help::retire;
use super::tuples::{self, Found};
use crate::atomic;
use crate::drop_reason::DropReason;
use crate::layout::{Config, Record, Tuple, Zone, event, helper, life, zone_flags};
use crate::packet::Packet;
use crate::pipeline::Run;
use crate::tables::Tables;

/// Attempts to lock a record: some milliseconds. An update takes a hundred nanoseconds, but its CPU may serve an
/// interrupt, or be a virtual one that its host has put aside. The kernel's own locks have no bound at all.
pub(super) const LOCK_ATTEMPTS: u32 = 1 << 20;
/// Records looked at for one that may go, when the table is full.
const EVICTION_PROBES: u32 = 64;

/// Why a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its time was up.
    Expired,
    /// Another one needs its place.
    Evicted,
    /// It is over, or somebody wants it gone.
    Removed,
}

/// Follows a tuple to a live record. One that has expired is removed on the way.
#[inline(always)]
pub(super) fn locate<D: Tables + Connections>(datapath: &D, tuple: &Tuple, now: u64) -> Option<Found> {
    let found = tuples::find(datapath, tuple)?;
    // SAFETY: the record is valid while the program runs; this word is written alone.
    if unsafe { atomic::load(&raw const (*found.record.as_ptr()).expires) } < now {
        remove(datapath, found.record, found.number, found.life, now, End::Expired);
        return None;
    }
    Some(found)
}

/// Whether two tuples are the same. Word by word: a comparison of the whole would become a call of `memcmp`, which BPF
/// does not have.
#[inline(always)]
pub(super) fn same(a: &Tuple, b: &Tuple) -> bool {
    (a.src[0] ^ b.src[0])
        | (a.src[1] ^ b.src[1])
        | (a.dst[0] ^ b.dst[0])
        | (a.dst[1] ^ b.dst[1])
        | (a.ports.word() ^ b.ports.word())
        == 0
}

/// Whether a record still holds the connection that it did when it had this life.
#[inline(always)]
pub(super) fn lives(record: NonNull<Record>, found: u64) -> bool {
    // SAFETY: the record is valid while the program runs, and everyone accesses `life` atomically.
    let word = unsafe { atomic::load(&raw const (*record.as_ptr()).life) };
    word & life::ALIVE != 0 && life::generation(word) == life::generation(found)
}

/// An attempt to lock a record.
struct Locking {
    record: NonNull<Record>,
    /// The life that was found.
    found: u64,
    /// The life word before it was locked; 0, which no living record has: it is not locked (yet).
    taken: u64,
}

/// Takes the lock of a record that is still the one that was found. None: it is not, or the lock is held.
#[inline(always)]
pub(super) fn lock<D: Tables>(datapath: &D, record: NonNull<Record>, found: u64) -> Option<u64> {
    let mut locking = Locking { record, found, taken: 0 };
    // Hardly ever is there anything to wait for.
    if try_lock(0, (&raw mut locking).cast()) == 0 {
        datapath.repeat(LOCK_ATTEMPTS, try_lock, (&raw mut locking).cast());
    }
    (locking.taken != 0).then_some(locking.taken)
}

extern "C" fn try_lock(_index: u64, locking: *mut c_void) -> i64 {
    // SAFETY: `lock` passes its own, exclusively borrowed for as long as this runs.
    let locking = unsafe { &mut *locking.cast::<Locking>() };
    let record = locking.record.as_ptr();
    // SAFETY: the record is valid while the program runs, and everyone accesses `life` atomically.
    let word = unsafe { atomic::load(&raw const (*record).life) };
    if word & life::ALIVE == 0 || life::generation(word) != life::generation(locking.found) {
        return 1;
    }
    if word & life::LOCKED != 0 {
        return 0;
    }
    // SAFETY: as above.
    if unsafe { atomic::compare_exchange(&raw mut (*record).life, word, word | life::LOCKED) } != word {
        return 0;
    }
    locking.taken = word;
    1
}

/// Gives the lock back, with one update more on record.
#[inline(always)]
pub(super) fn unlock(record: &mut Record, word: u64) {
    // SAFETY: the word is valid, and everyone accesses it atomically.
    unsafe { atomic::publish(&raw mut record.life, life::updated(word)) };
}

/// Ends a connection, if its life is still the given word: unlocked, and as it was judged.
#[inline(always)]
pub fn remove<D: Connections>(
    datapath: &D,
    pointer: NonNull<Record>,
    number: u32,
    word: u64,
    now: u64,
    why: End,
) -> bool {
    if !end(datapath, pointer, number, word, now, why) {
        return false;
    }
    datapath.release(number);
    true
}

/// As [`remove`], but keeps the record.
#[inline(always)]
fn end<D: Connections>(
    datapath: &D,
    pointer: NonNull<Record>,
    number: u32,
    word: u64,
    now: u64,
    why: End,
) -> bool {
    if word & (life::ALIVE | life::LOCKED) != life::ALIVE {
        return false;
    }
    // SAFETY: the record is valid while the program runs, and everyone accesses `life` atomically.
    let swapped =
        unsafe { atomic::compare_exchange(&raw mut (*pointer.as_ptr()).life, word, life::dead(word)) };
    if swapped != word {
        return false;
    }
    // SAFETY: the record has just died by our hand and is not released yet: nobody else touches it.
    let record = unsafe { &*pointer.as_ptr() };
    tuples::remove(datapath, record.places[0]);
    tuples::remove(datapath, record.places[1]);
    if record.helper != helper::NONE {
        retire(datapath, life::owner(number, word));
    }
    datapath.emit(event::DESTROY, number, now, record);
    let zone = record.tuples[0].ports.zone;
    dismiss(datapath, zone);
    match why {
        End::Expired => count(datapath, zone, Count::Expired),
        End::Evicted => count(datapath, zone, Count::Evicted),
        End::Removed => {}
    }
    true
}

/// What is counted in a [`Zone`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Created,
    Refused,
    Evicted,
    Expired,
    Invalid,
}

/// Counts something in a zone.
#[inline(always)]
pub(super) fn count<D: Connections>(datapath: &D, zone: u16, what: Count) {
    let Some(zone) = datapath.zone(zone) else { return };
    let zone: *mut Zone = zone.as_ptr();
    // SAFETY: the zone is valid while the program runs, and everyone accesses its counts atomically.
    unsafe {
        let word = match what {
            Count::Created => &raw mut (*zone).created,
            Count::Refused => &raw mut (*zone).refused,
            Count::Evicted => &raw mut (*zone).evicted,
            Count::Expired => &raw mut (*zone).expired,
            Count::Invalid => &raw mut (*zone).invalid,
        };
        atomic::fetch_add(word, 1);
    }
}

/// Takes one connection more into the books of its zone, and of the table. False: the zone has as many as it may
/// have.
#[inline(always)]
fn admit<D: Connections>(datapath: &D, zone: u16) -> bool {
    let config: *mut Config = datapath.config().as_ptr();
    let Some(zone) = datapath.zone(zone) else { return false };
    let zone: *mut Zone = zone.as_ptr();
    // SAFETY: both are valid while the program runs; the counts are accessed atomically by everyone, and the
    // limits are single words that the daemon writes whole.
    unsafe {
        let own = (&raw const (*zone).flags).read_volatile() & zone_flags::LIMIT != 0;
        let limit = if own { &raw const (*zone).limit } else { &raw const (*config).default_limit };
        let limit = u64::from(limit.read_volatile());
        let before = atomic::fetch_add(&raw mut (*zone).connections, 1);
        if limit != 0 && before >= limit {
            atomic::fetch_add(&raw mut (*zone).connections, u64::MAX);
            return false;
        }
        atomic::fetch_add(&raw mut (*config).connections, 1);
    }
    true
}

/// Takes a connection out of the books again.
#[inline(always)]
fn dismiss<D: Connections>(datapath: &D, zone: u16) {
    let config: *mut Config = datapath.config().as_ptr();
    let Some(zone) = datapath.zone(zone) else { return };
    // SAFETY: as in `admit`.
    unsafe {
        atomic::fetch_add(&raw mut (*zone.as_ptr()).connections, u64::MAX);
        atomic::fetch_add(&raw mut (*config).connections, u64::MAX);
    }
}

/// A record for a new connection in a zone, which is in the books from then on.
///
/// # Errors
/// Why there is none.
#[inline(always)]
pub(super) fn allocate<P: Packet, D: Tables + Connections>(
    run: &mut Run<'_, P, D>,
    zone: u16,
) -> Result<u32, DropReason> {
    let datapath = run.datapath;
    if !admit(datapath, zone) {
        return Err(DropReason::ConntrackZoneLimit);
    }
    let number = if within_limit(datapath) { take(datapath) } else { None };
    number.or_else(|| evict(run)).ok_or_else(|| {
        dismiss(datapath, zone);
        DropReason::ConntrackFull
    })
}

/// Gives back what [`allocate`] gave, unused, with the life that it had.
#[inline(always)]
pub(super) fn give_back<D: Connections>(
    datapath: &D,
    zone: u16,
    number: u32,
    record: &mut Record,
    word: u64,
) {
    // SAFETY: the word is valid, and everyone accesses it atomically.
    unsafe { atomic::publish(&raw mut record.life, word) };
    dismiss(datapath, zone);
    datapath.release(number);
}

/// Whether there may be as many connections as there are in the books.
#[inline(always)]
fn within_limit<D: Connections>(datapath: &D) -> bool {
    let config: *const Config = datapath.config().as_ptr();
    // SAFETY: the configuration is valid while the program runs; both words are accessed whole.
    unsafe {
        atomic::load(&raw const (*config).connections)
            <= u64::from((&raw const (*config).max_connections).read_volatile())
    }
}

/// A record that nobody uses: one that was given back, or one that was never used.
#[inline(always)]
fn take<D: Connections>(datapath: &D) -> Option<u32> {
    datapath.reuse().or_else(|| {
        let config: *mut Config = datapath.config().as_ptr();
        // SAFETY: the configuration is valid while the program runs; the number of records never changes, and the
        // other word is accessed atomically by everyone. It is read first so that it stops growing at the end.
        unsafe {
            let (used, records) = (&raw mut (*config).records_used, u64::from((*config).records));
            if atomic::load(used) >= records {
                return None;
            }
            let number = atomic::fetch_add(used, 1);
            (number < records).then_some(number as u32)
        }
    })
}

/// The record that the search for one to evict looks at next.
#[inline(always)]
fn advance_clock_hand<D: Connections>(datapath: &D) -> u32 {
    let config: *mut Config = datapath.config().as_ptr();
    // SAFETY: as in `take`.
    unsafe {
        let used = atomic::load(&raw const (*config).records_used).min(u64::from((*config).records));
        let hand = atomic::fetch_add(&raw mut (*config).clock_hand, 1);
        hand.checked_rem(used).unwrap_or(0) as u32
    }
}

/// Finds a connection that may go because the table is full: one that never saw a reply; else one that is not
/// assured. Its record is returned.
#[inline(always)]
fn evict<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) -> Option<u32> {
    let datapath = run.datapath;
    run.machine.track.second_best = 0;
    run.machine.track.evicted = 0;
    datapath.repeat(EVICTION_PROBES, try_evict::<P, D>, core::ptr::from_mut(run).cast());
    let (now, track) = (run.machine.now, &run.machine.track);
    if track.evicted == 0 && track.second_best != 0 {
        let number = (track.second_best - 1) as u32;
        let record = datapath.record(number)?;
        return end(datapath, record, number, track.second_best_life, now, End::Evicted).then_some(number);
    }
    (track.evicted != 0).then(|| (track.evicted - 1) as u32)
}

/// Looks at one record.
extern "C" fn try_evict<P: Packet, D: Tables + Connections>(_index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `evict` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let number = advance_clock_hand(run.datapath);
    let Some(pointer) = run.datapath.record(number) else { return 1 };
    let now = run.machine.now;
    // SAFETY: the record is valid while the program runs, and everyone accesses these words atomically, or
    // changes `life` when changing them, which `end` then notices.
    let (word, status, early, expires) = unsafe {
        let record = pointer.as_ptr();
        (
            atomic::load(&raw const (*record).life),
            (*record).connection.status,
            (*record).connection.can_drop_early(),
            atomic::load(&raw const (*record).expires),
        )
    };
    if word & (life::ALIVE | life::LOCKED) != life::ALIVE {
        return 0;
    }
    let expired = expires < now;
    if status & status::SEEN_REPLY == 0 || expired {
        let why = if expired { End::Expired } else { End::Evicted };
        if end(run.datapath, pointer, number, word, now, why) {
            run.machine.track.evicted = u64::from(number) + 1;
            return 1;
        }
    } else if early && run.machine.track.second_best == 0 {
        run.machine.track.second_best = u64::from(number) + 1;
        run.machine.track.second_best_life = word;
    }
    0
}
