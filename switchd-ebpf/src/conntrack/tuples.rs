//! Which record a tuple leads to: a hash table whose buckets are cache lines (see [`TupleBucket`]).
//!
//! It is our own, and not a map of the kernel's, for three reasons. A bucket leads to the record at once, with nothing
//! in between that would be one more line, and mostly one more page, to wait for. Nothing is allocated for a new
//! connection. And of a tuple that dies only its place is to be known, so that it goes without a search or a lock.
//!
//! Whether a tuple that was found still counts is said by its record: by [`Record::life`], and by the tuple in it. A
//! bucket holds only numbers, of which at any time two at most lead to the same tuple: one to a record that has just
//! died, one to its successor.

use core::ffi::c_void;
use core::ptr::NonNull;

use conntrack_core::Direction;

use super::Connections;
use super::table::{LOCK_ATTEMPTS, same};
use crate::atomic;
use crate::layout::{Record, TUPLES_PER_BUCKET, Tuple, TupleBucket, TupleHash, life, place};
use crate::tables::Tables;

/// Places whose tags are in one word.
const TAGS: usize = 8;
/// A one in each tag.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The lower bits of each tag.
const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

/// A record that a tuple leads to.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub record: NonNull<Record>,
    pub number: u32,
    /// Its life when it had the tuple.
    pub life: u64,
    pub direction: Direction,
}

/// Where a tuple belongs.
#[derive(Clone, Copy)]
struct Home {
    bucket: u32,
    tag: u8,
}

/// The record that a tuple leads to, if it is alive.
#[inline(always)]
pub(super) fn find<D: Tables + Connections>(datapath: &D, tuple: &Tuple) -> Option<Found> {
    let home = home(datapath, tuple);
    let bucket = datapath.tuple_bucket(home.bucket)?;
    let mut search =
        Search { datapath, bucket, tuple, tag: home.tag, wanted: life::ALIVE, found: 0, life: 0 };
    // Mostly it is the first of the first eight that has the tag, or none.
    let near = equal(tags(bucket, 0), home.tag);
    if near == 0 || !search.look_at(first(near)) {
        let others =
            near & near.wrapping_sub(1) | equal(tags(bucket, 1), home.tag) | equal(tags(bucket, 2), home.tag);
        if others == 0 {
            return None;
        }
        search.look_everywhere();
    }
    search.result()
}

/// Makes a tuple lead to a record, unless it leads to another one. Returns its place.
#[inline(always)]
pub(super) fn add<D: Tables + Connections>(
    datapath: &D,
    tuple: &Tuple,
    number: u32,
    direction: u32,
) -> Option<u32> {
    let home = home(datapath, tuple);
    let bucket = datapath.tuple_bucket(home.bucket)?;
    let mut locking = Locking { bucket, taken: 0 };
    datapath.repeat(LOCK_ATTEMPTS, try_lock, (&raw mut locking).cast());
    if locking.taken == 0 {
        return None;
    }
    let place = if is_taken(datapath, bucket, home.tag, tuple) { None } else { free(bucket) };
    if let Some(place) = place {
        // SAFETY: the bucket is valid while the program runs. The place is free, and who adds holds the lock: the
        // reference is written by nobody else, and read as a whole. The tag, which everyone accesses atomically, is
        // zero before, so that adding to it carries nothing.
        unsafe {
            let bucket = bucket.as_ptr();
            (&raw mut (*bucket).references[place]).write_volatile(number << 1 | direction);
            atomic::fetch_add(&raw mut (*bucket).tags[place / TAGS], shifted(home.tag, place));
        }
    }
    // SAFETY: the bucket is valid while the program runs, and everyone accesses this word atomically.
    unsafe { atomic::publish(&raw mut (*bucket.as_ptr()).lock, 0) };
    place.map(|place| place::of(home.bucket, place))
}

/// Removes the tuple at a place. Only whose record it leads to may do so, and only once.
#[inline(always)]
pub(super) fn remove<D: Connections>(datapath: &D, place: u32) {
    let (bucket, place) = place::parts(place);
    if place >= TUPLES_PER_BUCKET {
        return;
    }
    let Some(bucket) = datapath.tuple_bucket(bucket) else { return };
    let tag = (tags(bucket, place / TAGS) >> (place % TAGS * 8)) as u8;
    // SAFETY: the bucket is valid while the program runs, and everyone accesses its tags atomically. This one changes
    // by our hand alone, and taking it away borrows nothing from its neighbours.
    unsafe {
        let word = &raw mut (*bucket.as_ptr()).tags[place / TAGS];
        atomic::fetch_add(word, shifted(tag, place).wrapping_neg());
    }
}

/// A tag where the place has it in its word.
#[inline(always)]
const fn shifted(tag: u8, place: usize) -> u64 {
    (tag as u64) << (place % TAGS * 8)
}

#[inline(always)]
fn home<D: Connections>(datapath: &D, tuple: &Tuple) -> Home {
    // SAFETY: the configuration is valid while the program runs, and this part of it never changes.
    let by = unsafe { &(*datapath.config().as_ptr()).tuple_hash };
    let hash = hash(tuple, by);
    Home { bucket: (hash >> by.shift) as u32, tag: ((hash >> (by.shift - 8)) as u8).max(1) }
}

/// A universal hash, so that for any two tuples it depends on the keys alone whether they meet: of each word the halves,
/// each with a key added, are multiplied, and the products summed (NH of UMAC, RFC 4418, section 5.2). Sums of tuples in
/// a row, as of ports that count up, are in a row as well, which some keys would lay into few buckets: so the sum is
/// mixed, by turns of folding and multiplying (as in the finaliser of MurmurHash3).
#[inline(always)]
fn hash(tuple: &Tuple, by: &TupleHash) -> u64 {
    let product = |word: u64, key: u64| {
        let low = (word as u32).wrapping_add(key as u32);
        let high = ((word >> 32) as u32).wrapping_add((key >> 32) as u32);
        u64::from(low).wrapping_mul(u64::from(high))
    };
    let sum = product(tuple.src[0], by.keys[0])
        .wrapping_add(product(tuple.src[1], by.keys[1]))
        .wrapping_add(product(tuple.dst[0], by.keys[2]))
        .wrapping_add(product(tuple.dst[1], by.keys[3]))
        .wrapping_add(product(tuple.ports.word(), by.keys[4]));
    let mixed = (sum ^ sum >> 32).wrapping_mul(by.mixers[0]);
    (mixed ^ mixed >> 32).wrapping_mul(by.mixers[1])
}

/// A word of a bucket's tags.
#[inline(always)]
fn tags(bucket: NonNull<TupleBucket>, word: usize) -> u64 {
    // SAFETY: the bucket is valid while the program runs, and everyone accesses its tags atomically.
    unsafe { atomic::load(&raw const (*bucket.as_ptr()).tags[word]) }
}

/// The top bit of each tag that equals one.
#[inline(always)]
const fn equal(tags: u64, tag: u8) -> u64 {
    let differ = tags ^ ONES.wrapping_mul(tag as u64);
    // Adding carries a one to the top of each tag that has any lower bit, and to no other one.
    !(((differ & LOW) + LOW) | differ | LOW)
}

/// The place, in its word, of the lowest bit that [`equal`] gave. BPF cannot count zeroes: to multiply by the one bit
/// that there is shifts the place's own number to the top.
#[inline(always)]
const fn first(equal: u64) -> usize {
    let lowest = (equal & equal.wrapping_neg()) >> 7;
    (lowest.wrapping_mul(0x0001_0203_0405_0607) >> 56) as usize & (TAGS - 1)
}

/// A free place.
#[inline(always)]
fn free(bucket: NonNull<TupleBucket>) -> Option<usize> {
    let mut word = 0;
    while word < TUPLES_PER_BUCKET / TAGS {
        let free = equal(tags(bucket, word), 0);
        if free != 0 {
            return Some(word * TAGS + first(free));
        }
        word += 1;
    }
    None
}

/// Whether a tuple leads to a record that is alive, or about to be.
#[inline(always)]
fn is_taken<D: Tables + Connections>(
    datapath: &D,
    bucket: NonNull<TupleBucket>,
    tag: u8,
    tuple: &Tuple,
) -> bool {
    let any = equal(tags(bucket, 0), tag) | equal(tags(bucket, 1), tag) | equal(tags(bucket, 2), tag);
    if any == 0 {
        return false;
    }
    let wanted = life::ALIVE | life::LOCKED;
    let mut search = Search { datapath, bucket, tuple, tag, wanted, found: 0, life: 0 };
    search.look_everywhere();
    search.found != 0
}

/// A search for a tuple's record in its bucket.
struct Search<'a, D> {
    datapath: &'a D,
    bucket: NonNull<TupleBucket>,
    tuple: &'a Tuple,
    tag: u8,
    /// The bits of [`life`] of which one at least is set in the record that is looked for.
    wanted: u64,
    /// The reference that led there, plus one; 0: none. (A number, and not the record, since what a loop has done to
    /// a pointer is beyond the verifier.)
    found: u64,
    /// The record's life then.
    life: u64,
}

impl<D: Tables + Connections> Search<'_, D> {
    /// Looks at the place of one tuple. Whether it is the right one.
    #[inline(always)]
    fn look_at(&mut self, place: usize) -> bool {
        // SAFETY: the bucket is valid while the program runs; the reference is written whole.
        let reference = unsafe { (&raw const (*self.bucket.as_ptr()).references[place]).read_volatile() };
        let Some(record) = self.datapath.record(reference >> 1) else { return false };
        let record = record.as_ptr();
        // SAFETY: the record is valid while the program runs, and everyone accesses `life` atomically.
        let life = unsafe { atomic::acquire(&raw const (*record).life) };
        // SAFETY: as above. A tuple has been written before its record is alive, and before it has a place; if it is
        // another connection's now, so is the record's life, which whoever wants to lock the record finds out.
        let tuple = unsafe { &(*record).tuples[reference as usize & 1] };
        if life & self.wanted == 0 || !same(tuple, self.tuple) {
            return false;
        }
        self.found = u64::from(reference) + 1;
        self.life = life;
        true
    }

    /// Looks at all places that have the tag.
    #[inline(always)]
    fn look_everywhere(&mut self) {
        let datapath = self.datapath;
        datapath.repeat(TUPLES_PER_BUCKET as u32, look::<D>, core::ptr::from_mut(self).cast());
    }

    #[inline(always)]
    fn result(&self) -> Option<Found> {
        let reference = self.found.checked_sub(1)? as u32;
        let record = self.datapath.record(reference >> 1)?;
        let direction = if reference & 1 == 0 { Direction::Original } else { Direction::Reply };
        Some(Found { record, number: reference >> 1, life: self.life, direction })
    }
}

extern "C" fn look<D: Tables + Connections>(place: u64, search: *mut c_void) -> i64 {
    // SAFETY: `look_everywhere` passes its own, exclusively borrowed for as long as the loop runs.
    let search = unsafe { &mut *search.cast::<Search<'_, D>>() };
    let place = place as usize;
    if place >= TUPLES_PER_BUCKET {
        return 1;
    }
    let tag = tags(search.bucket, place / TAGS) >> (place % TAGS * 8);
    i64::from(tag as u8 == search.tag && search.look_at(place))
}

/// An attempt to lock a bucket.
struct Locking {
    bucket: NonNull<TupleBucket>,
    taken: u64,
}

extern "C" fn try_lock(_index: u64, locking: *mut c_void) -> i64 {
    // SAFETY: `add` passes its own, exclusively borrowed for as long as this runs.
    let locking = unsafe { &mut *locking.cast::<Locking>() };
    // SAFETY: the bucket is valid while the program runs, and everyone accesses this word atomically.
    let before = unsafe { atomic::compare_exchange(&raw mut (*locking.bucket.as_ptr()).lock, 0, 1) };
    locking.taken = u64::from(before == 0);
    i64::from(before == 0)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;

    use super::*;
    use crate::layout::{Ports, tuple_buckets};

    /// Fills a table with the connections of as many clients as there are, each with as many ports in a row, and
    /// returns how many tuples the fullest bucket gets.
    fn fullest(clients: u32, ports: u32, seed: u64) -> u32 {
        // SplitMix64: any generator will do that gives the same each time.
        let mut state = seed;
        let random = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        };
        let buckets = tuple_buckets(clients * ports);
        let by = TupleHash::new(buckets, random);
        let mut counts = vec![0; buckets as usize];
        for (client, port) in (0..clients).flat_map(|client| (0..ports).map(move |port| (client, port))) {
            let (client, server) = ([0, u64::from(0x0a00_0001 + client)], [0, 0x0a01_0001]);
            let ports = Ports { src: port as u16, dst: 80, zone: 0, protocol: 6, family: 4 };
            let answer = Ports { src: 80, dst: port as u16, ..ports };
            for tuple in
                [Tuple { src: client, dst: server, ports }, Tuple { src: server, dst: client, ports: answer }]
            {
                counts[(hash(&tuple, &by) >> by.shift) as usize] += 1;
            }
        }
        counts.into_iter().max().unwrap_or(0)
    }

    #[test]
    fn tuples_in_a_row_are_spread_whatever_the_keys() {
        for seed in 0..40 {
            assert!(fullest(1, 65536, seed) <= TUPLES_PER_BUCKET as u32 * 3 / 4, "seed {seed}");
            assert!(fullest(65536, 1, seed) <= TUPLES_PER_BUCKET as u32 * 3 / 4, "seed {seed}");
            assert!(fullest(256, 256, seed) <= TUPLES_PER_BUCKET as u32 * 3 / 4, "seed {seed}");
        }
    }

    #[test]
    fn equal_tags_are_found_and_no_others() {
        let words = [0, u64::MAX, 0x0001_0203_0405_0607, 0x8000_7f80_ff01_fe00, 0x0101_0101_0101_0101];
        for (word, tag) in words.into_iter().flat_map(|word| (0..=u8::MAX).map(move |tag| (word, tag))) {
            let places = (0..TAGS).filter(|place| (word >> (place * 8)) as u8 == tag);
            assert_eq!(equal(word, tag), places.clone().map(|place| 0x80 << (place * 8)).sum::<u64>());
            if let Some(lowest) = places.min() {
                assert_eq!(first(equal(word, tag)), lowest);
            }
        }
    }
}
