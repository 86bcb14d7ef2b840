//! The classifier: which rule of a table matches a key, of those the one with the highest priority.
//!
//! Tuple space search: the rules of a table that share a mask form a subtable, a hash table over the masked
//! words. A search probes the subtables by falling rank, and ends as soon as none that follows can beat what
//! it has. A subtable whose rules all want something of the first word that the key does not have is passed
//! over without a probe: rules on different states of a connection mostly tell themselves apart that way. Masks
//! come from rules alone, so that no traffic can add to the work.

use core::ffi::c_void;

use crate::conntrack::Connections;
use crate::key::WORDS;
use crate::layout::{Node, Probe, RuleRef, WIDTHS};
use crate::packet::Packet;
use crate::pipeline::Run;
use crate::tables::Tables;

/// Subtables that a search probes before it begins to loop.
const INLINE_PROBES: u32 = 3;
/// Subtables that one search goes through.
pub const MAX_SUBTABLES: u32 = 8192;

/// Finds the rule of the machine's table for its key: `best`, with rank 0 where there is none.
#[inline(always)]
pub fn search<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let machine = &mut *run.machine;
    machine.best = RuleRef::default();
    machine.node = run.datapath.head(machine.bridge, machine.table);
    // Most searches end within the first subtables, and a call for each would cost as much as the probe.
    let mut left = INLINE_PROBES;
    while left > 0 {
        if probe(run) {
            return;
        }
        left -= 1;
    }
    let datapath = run.datapath;
    datapath.repeat(MAX_SUBTABLES, probe_next::<P, D>, core::ptr::from_mut(run).cast());
}

extern "C" fn probe_next<P: Packet, D: Tables + Connections>(_index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `search` passes the run, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    i64::from(probe(run))
}

/// Probes one subtable. True: it was the last that can matter.
#[inline(always)]
fn probe<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) -> bool {
    let machine = &mut *run.machine;
    let Some(node) = run.datapath.node(machine.node) else { return true };
    if node.rank <= machine.best.rank {
        return true;
    }
    machine.node = node.next;
    let first = machine.key.words[usize::from(node.index[0]) & (WORDS - 1)];
    if (first ^ node.common) & node.agreed != 0 {
        return machine.node == 0;
    }
    mask(&machine.key.words, node, &mut machine.probe);
    if let Some(entry) = run.datapath.entry(node.width, &machine.probe) {
        let found = if entry.since <= machine.version { &entry.now } else { &entry.before };
        if found.rank > machine.best.rank {
            machine.best = *found;
        }
    }
    machine.node == 0
}

/// Gathers the words that the node's mask uses.
#[inline(always)]
pub fn mask(key: &[u64; WORDS], node: &Node, probe: &mut Probe) {
    probe[0] = u64::from(node.subtable);
    match node.width {
        0 => gather::<{ WIDTHS[0] }>(key, node, probe),
        1 => gather::<{ WIDTHS[1] }>(key, node, probe),
        2 => gather::<{ WIDTHS[2] }>(key, node, probe),
        3 => gather::<{ WIDTHS[3] }>(key, node, probe),
        _ => gather::<{ WIDTHS[4] }>(key, node, probe),
    }
}

#[inline(always)]
fn gather<const N: usize>(key: &[u64; WORDS], node: &Node, probe: &mut Probe) {
    let mut i = 0;
    while i < N {
        probe[i + 1] = key[usize::from(node.index[i]) & (WORDS - 1)] & node.mask[i];
        i += 1;
    }
}
