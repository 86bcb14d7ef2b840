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
use crate::layout::{Entry, Node, Probe, RuleRef, WIDTHS};
use crate::packet::Packet;
use crate::pipeline::Run;
use crate::tables::Tables;

/// Steps of a search before it begins to loop.
const INLINE_STEPS: u32 = 5;
/// Subtables and entries that one search goes through: more than there are.
const MAX_STEPS: u32 = 1 << 23;

/// Finds the rule of the machine's table for its key: `best`, with rank 0 where there is none.
#[inline(always)]
pub fn search<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let machine = &mut *run.machine;
    machine.best = RuleRef::default();
    machine.node = run.datapath.head(machine.bridge, machine.table);
    machine.entry = 0;
    // Most searches end within the first subtables, and a call for each would cost as much as the probe.
    let mut left = INLINE_STEPS;
    while left > 0 {
        if step(run) {
            return;
        }
        left -= 1;
    }
    let datapath = run.datapath;
    datapath.repeat(MAX_STEPS, next_step::<P, D>, core::ptr::from_mut(run).cast());
}

extern "C" fn next_step<P: Packet, D: Tables + Connections>(_index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `search` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    i64::from(step(run))
}

/// Looks at one entry: the next one of the present bucket, or the first of the next subtable's. True: it was the last
/// that can matter.
#[inline(always)]
fn step<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) -> bool {
    let machine = &mut *run.machine;
    if machine.entry == 0 {
        let Some(node) = run.datapath.node(machine.node) else { return true };
        if node.rank <= machine.best.rank {
            return true;
        }
        machine.node = node.next;
        let first = machine.key.words[usize::from(node.index[0]) & (WORDS - 1)];
        if (first ^ node.common) & node.agreed != 0 {
            return machine.node == 0;
        }
        machine.width = node.width;
        machine.entry = run.datapath.bucket(mask(&machine.key.words, node, &mut machine.probe));
    }
    let at = machine.entry;
    if let Some(entry) = run.datapath.entry(at) {
        machine.entry = entry.next;
        if is_of(entry, &machine.probe) && goes_on(run, at) {
            let machine = &mut *run.machine;
            let found = entry.rule(machine.version);
            if found.rank > machine.best.rank {
                machine.best = *found;
            }
            machine.entry = 0;
        }
    }
    run.machine.entry == 0 && run.machine.node == 0
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

/// Gathers the words that the node's mask uses, and returns their hash.
#[inline(always)]
pub fn mask(key: &[u64; WORDS], node: &Node, probe: &mut Probe) -> u32 {
    probe[0] = u64::from(node.subtable);
    match node.width {
        0 => gather::<{ WIDTHS[0] }>(key, node, probe),
        1 => gather::<{ WIDTHS[1] }>(key, node, probe),
        _ => gather::<{ WIDTHS[2] }>(key, node, probe),
    }
}

#[inline(always)]
fn gather<const N: usize>(key: &[u64; WORDS], node: &Node, probe: &mut Probe) -> u32 {
    let mut hash = Hash::of(node.subtable);
    let mut i = 0;
    while i < N {
        let word = key[usize::from(node.index[i]) & (WORDS - 1)] & node.mask[i];
        probe[i + 1] = word;
        hash = hash.with(word);
        i += 1;
    }
    hash.end()
}

/// The hash of a masked key, of as many words as its subtable's width says.
#[must_use]
pub fn hash(subtable: u32, masked: &[u64]) -> u32 {
    masked.iter().fold(Hash::of(subtable), |hash, &word| hash.with(word)).end()
}

/// A hash in the making. Keys come from rules, not from packets: there is nobody to be hidden from.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    #[inline(always)]
    const fn of(subtable: u32) -> Self {
        Self(subtable as u64).with(0)
    }

    /// Spreads each bit over the ones above it (by the golden ratio, as in Knuth's multiplicative hashing), and
    /// those over the ones below.
    #[inline(always)]
    const fn with(self, word: u64) -> Self {
        let spread = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(spread ^ spread >> 32)
    }

    #[inline(always)]
    const fn end(self) -> u32 {
        (self.with(0).0 >> 32) as u32
    }
}
