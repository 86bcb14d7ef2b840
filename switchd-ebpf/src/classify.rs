//! The classifier: which rule of a table matches a key, of those the one with the highest priority.
//!
//! Tuple space search: the rules of a table that share a mask form a subtable, whose masked keys lie in a hash table
//! that all subtables share. A search probes the subtables by falling rank, and ends as soon as none that follows can
//! beat what it has. A subtable whose rules all want something of the first word that the key does not have is passed
//! over without a probe: rules on different states of a connection mostly tell themselves apart that way. Masks
//! come from rules alone, so that no traffic can add to the work.
//!
//! The hash table is our own, and not a map of the kernel's: entries are cache lines that hold a key and its rule, in
//! chains; what there is to hash and to compare is a few words, and what a hit touches is a bucket and a line.

use core::ffi::c_void;

use crate::conntrack::Connections;
use crate::key::WORDS;
use crate::layout::{Entry, Listed, Probe, RuleRef, WIDTHS, WINDOW, WideMask};
use crate::packet::Packet;
use crate::pipeline::{Machine, Run};
use crate::tables::Tables;

/// Steps of a search before it begins to loop.
const INLINE_STEPS: u32 = 3;
/// Steps of one search: more than there are subtables and entries.
const MAX_STEPS: u32 = 1 << 23;

/// Where a search stands: the next entry of the present bucket, or else the next place of the list. No entry and no
/// place: at its end. It is worth to be kept in registers, since each entry is known only from the one before.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Position {
    place: u32,
    entry: u32,
}

impl Position {
    #[inline(always)]
    const fn is_end(self) -> bool {
        self.place | self.entry == 0
    }
}

/// Finds the rule of the machine's table for its key: `best`, with rank 0 where there is none.
#[inline(always)]
pub fn search<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let machine = &mut *run.machine;
    machine.best = RuleRef::default();
    let mut at = Position { place: run.datapath.head(machine.bridge, machine.table), entry: 0 };
    // Most searches end within the first subtables, and a call for each would cost as much as the probe.
    let mut left = INLINE_STEPS;
    while left > 0 {
        at = step(run, at);
        if at.is_end() {
            return;
        }
        left -= 1;
    }
    run.machine.at = at;
    let datapath = run.datapath;
    datapath.repeat(MAX_STEPS, next_step::<P, D>, core::ptr::from_mut(run).cast());
}

extern "C" fn next_step<P: Packet, D: Tables + Connections>(_index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `search` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    let at = step(run, run.machine.at);
    run.machine.at = at;
    i64::from(at.is_end())
}

/// The next subtable that may have a rule for the key, and a better one than was found. None: there is none, or there
/// are too many to pass over at once.
#[inline(always)]
fn candidate<'a, D: Tables>(datapath: &'a D, machine: &Machine, at: &mut Position) -> Option<&'a Listed> {
    let first = at.place;
    at.place = 0;
    let window = datapath.listed(first)?;
    let mut i = 0;
    while i < WINDOW {
        let listed = &window[i as usize];
        if listed.rank <= machine.best.rank {
            return None;
        }
        let word = machine.key.words[usize::from(listed.index[0]) & (WORDS - 1)];
        if (word ^ listed.common) & listed.agreed == 0 {
            let i = any_of(i, first);
            at.place = first + i + 1;
            return window.get(i as usize);
        }
        i += 1;
    }
    at.place = first + WINDOW;
    None
}

/// The number of a place in a window. What follows is the same for all of them, and to the verifier, which need not go
/// through it once for each, it is any: it does not know `unknown`.
#[inline(always)]
#[cfg_attr(not(target_arch = "bpf"), allow(unused_variables))]
fn any_of(place: u32, unknown: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    let place = {
        let mut hidden = u64::from(place);
        // SAFETY: the second operation undoes the first.
        unsafe {
            core::arch::asm!(
                "{0} ^= {1}", "{0} ^= {1}", inout(reg) hidden, in(reg) u64::from(unknown),
                options(pure, nomem, nostack)
            );
        }
        hidden as u32
    };
    place & (WINDOW - 1)
}

/// Looks at one entry: the next one of the present bucket, or the first of the next subtable's. Returns what comes next.
#[inline(always)]
fn step<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>, mut at: Position) -> Position {
    let machine = &mut *run.machine;
    if at.entry == 0 {
        let Some(listed) = candidate(run.datapath, machine, &mut at) else { return at };
        machine.width = u32::from(listed.width);
        let wide = || run.datapath.wide_mask(listed.subtable);
        at.entry = run.datapath.bucket(mask(&machine.key.words, listed, wide, &mut machine.probe));
    }
    let number = at.entry;
    if let Some(entry) = run.datapath.entry(number) {
        at.entry = entry.next;
        if is_of(entry, &machine.probe) && goes_on(run, number) {
            let machine = &mut *run.machine;
            let found = entry.rule(machine.version);
            if found.rank > machine.best.rank {
                machine.best = *found;
            }
            at.entry = 0;
        }
    }
    at
}

/// Whether an entry's first line is that of a masked key.
#[inline(always)]
fn is_of(entry: &Entry, probe: &Probe) -> bool {
    let mut differ = u64::from(entry.subtable) ^ probe[0];
    let mut i = 0;
    while i < WIDTHS[0] {
        differ |= entry.words[i] ^ probe[i + 1];
        i += 1;
    }
    differ == 0
}

/// Whether its other lines are.
#[inline(always)]
fn goes_on<P: Packet, D: Tables + Connections>(run: &Run<'_, P, D>, at: u32) -> bool {
    match run.machine.width {
        0 => true,
        1 => is_line(run, at, 1),
        _ => is_line(run, at, 1) && is_line(run, at, 2) && is_line(run, at, 3) && is_line(run, at, 4),
    }
}

#[inline(always)]
fn is_line<P: Packet, D: Tables + Connections>(run: &Run<'_, P, D>, at: u32, line: u32) -> bool {
    let Some(entry) = run.datapath.entry(at + line) else { return false };
    let (words, probe) = (entry.more(), &run.machine.probe);
    let start = WIDTHS[0] + 1 + (line as usize - 1) * words.len();
    let mut differ = 0;
    let mut i = 0;
    while i < words.len() {
        differ |= words[i] ^ probe[start + i];
        i += 1;
    }
    differ == 0
}

/// Gathers the words that a subtable's mask uses, and returns their hash. `wide` gives the rest of its mask, if need be.
#[inline(always)]
pub fn mask<'a>(
    key: &[u64; WORDS],
    listed: &Listed,
    wide: impl Fn() -> Option<&'a WideMask>,
    probe: &mut Probe,
) -> u32 {
    probe[0] = u64::from(listed.subtable);
    let mut hash = Hash::of(listed.subtable);
    gather::<0, { WIDTHS[0] }>(key, |i| (listed.index[i], listed.mask[i]), probe, &mut hash);
    if listed.width > 0
        && let Some(wide) = wide()
    {
        let more = |i| (wide.index[i - WIDTHS[0]], wide.mask[i - WIDTHS[0]]);
        gather::<{ WIDTHS[0] }, { WIDTHS[1] }>(key, more, probe, &mut hash);
        if listed.width > 1 {
            gather::<{ WIDTHS[1] }, { WIDTHS[2] }>(key, more, probe, &mut hash);
        }
    }
    hash.end()
}

#[inline(always)]
fn gather<const FROM: usize, const TO: usize>(
    key: &[u64; WORDS],
    used: impl Fn(usize) -> (u8, u64),
    probe: &mut Probe,
    hash: &mut Hash,
) {
    let mut i = FROM;
    while i < TO {
        let (index, mask) = used(i);
        let word = key[usize::from(index) & (WORDS - 1)] & mask;
        probe[i + 1] = word;
        hash.add(i, word);
        i += 1;
    }
}

/// The hash of a masked key, of as many words as its subtable's width says.
#[must_use]
pub fn hash(subtable: u32, masked: &[u64]) -> u32 {
    let mut hash = Hash::of(subtable);
    masked.iter().enumerate().for_each(|(i, &word)| hash.add(i, word));
    hash.end()
}

/// A hash in the making. Keys come from rules, not from packets: there is nobody to be hidden from.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    /// Odd numbers by chance, for the words that most keys are made of.
    const MULTIPLIERS: [u64; WIDTHS[0]] =
        [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];
    /// Another one, for subtables and the words that follow.
    const MULTIPLIER: u64 = 0xd6e8_feb8_6659_fd93;

    #[inline(always)]
    const fn of(subtable: u32) -> Self {
        Self(spread(subtable as u64, Self::MULTIPLIER))
    }

    /// The first words do not wait for each other; the others do, with the one multiplier.
    #[inline(always)]
    const fn add(&mut self, i: usize, word: u64) {
        self.0 = if i < WIDTHS[0] {
            self.0.wrapping_add(spread(word, Self::MULTIPLIERS[i]))
        } else {
            spread(self.0 ^ word, Self::MULTIPLIER)
        };
    }

    #[inline(always)]
    const fn end(self) -> u32 {
        (spread(self.0, Self::MULTIPLIER) >> 32) as u32
    }
}

/// Spreads each bit over the ones above it, as in Knuth's multiplicative hashing; and before that the high ones over
/// those below.
#[inline(always)]
const fn spread(word: u64, multiplier: u64) -> u64 {
    (word ^ word >> 32).wrapping_mul(multiplier)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;

    use super::*;

    /// Entries in the fullest of as many buckets as there are keys: all pairs of two runs of 256 numbers, where these
    /// say.
    fn fullest(place: impl Fn(u64, u64) -> [u64; 3]) -> u32 {
        let mut buckets = vec![0; 1 << 16];
        for (a, b) in (0..256).flat_map(|a| (0..256).map(move |b| (a, b))) {
            buckets[hash(7, &place(a, b)) as usize & 0xffff] += 1;
        }
        buckets.into_iter().max().unwrap_or(0)
    }

    #[test]
    fn numbers_in_a_row_are_spread_wherever_they_are() {
        for (i, j) in [(0, 1), (1, 2), (0, 2), (0, 0)] {
            for (first, second) in (0..=56).step_by(8).flat_map(|a| (0..=56).step_by(8).map(move |b| (a, b)))
            {
                if i == j && u32::abs_diff(first, second) < 8 {
                    continue;
                }
                let fullest = fullest(|a, b| {
                    let mut words = [0; 3];
                    words[i] |= a << first;
                    words[j] |= b << second;
                    words
                });
                assert!(fullest <= 16, "{fullest} at {i}.{first}, {j}.{second}");
            }
        }
    }

    #[test]
    fn each_word_counts() {
        let mut words = [1; WORDS];
        let before = hash(1, &words);
        assert_ne!(before, hash(2, &words));
        for i in 0..WORDS {
            words[i] ^= 1 << 63;
            assert_ne!(before, hash(1, &words), "word {i}");
            words[i] ^= 1 << 63;
        }
    }
}
