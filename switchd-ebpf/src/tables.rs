//! What the pipeline looks up and counts: the seam between it and the maps.

use core::ffi::c_void;

use crate::drop_reason::DropReason;
use crate::layout::{Entry, Listed, MacKey, MacSeen, Op, WINDOW, WideMask};
use crate::pipeline::Body;

/// The flow tables, the MAC table, and the counters.
pub trait Tables {
    /// Where a table's list of subtables begins. That of an empty one begins and ends at place 0.
    fn head(&self, bridge: u32, table: u32) -> u32;

    /// The places of a list from one on; past the list's end they mean nothing.
    fn listed(&self, place: u32) -> Option<&[Listed; WINDOW as usize]>;

    /// The rest of a subtable's mask.
    fn wide_mask(&self, subtable: u32) -> Option<&WideMask>;

    /// The first entry of the bucket that a hash falls into; 0: none.
    fn bucket(&self, hash: u32) -> u32;

    /// An entry, or a line that goes on with one.
    fn entry(&self, entry: u32) -> Option<&Entry>;

    /// An action.
    fn op(&self, pc: u32) -> Option<&Op>;

    /// Counts a packet of a rule.
    fn hit(&self, rule: u32, bytes: u32, now: u64);

    /// Counts a look-up of a table.
    fn looked_up(&self, bridge: u32, table: u32, hit: bool);

    /// Counts a drop.
    fn dropped(&self, reason: DropReason) {
        self.dropped_by_number(reason as u32);
    }

    /// Counts a drop; a number that is no reason's counts nothing.
    fn dropped_by_number(&self, reason: u32);

    /// Where a MAC address was last seen; 0: nowhere.
    fn mac(&self, key: &MacKey) -> MacSeen;

    /// Remembers where a MAC address was seen.
    fn learn_mac(&self, key: &MacKey, seen: MacSeen);

    /// Calls `body` up to `times` times, until it returns non-zero.
    fn repeat(&self, times: u32, body: Body, context: *mut c_void);
}
