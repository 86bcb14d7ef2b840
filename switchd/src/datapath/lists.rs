//! The lists of subtables, one for each table.
//!
//! A list that packets may see never changes: another one takes its place, and its own becomes free when no packet can
//! be at it any more. A list may be a little behind: to meet a subtable without rules, or one whose rules are not to
//! be seen yet, costs time alone.

use std::collections::{BTreeSet, HashMap};

use switchd_ebpf::layout::Listed;

use super::space::{Run, Runs};
use super::store::Store;
use crate::rules::BridgeId;

/// The table of a list.
pub(super) type Table = (BridgeId, u8);

/// The lists of all tables.
pub(super) struct Lists {
    lists: HashMap<Table, List>,
    space: Runs,
    /// Those that are not what packets see.
    changed: BTreeSet<Table>,
}

#[derive(Default)]
struct List {
    /// By falling rank.
    places: Vec<Place>,
    /// What packets see.
    seen: Option<Run>,
    /// Room for what they are to see next.
    reserved: Option<Run>,
    /// Subtables that packets see and that are to go.
    leaving: Vec<u32>,
}

struct Place {
    rank: u32,
    subtable: u32,
}

/// What packets may be looking at until all that are under way have left.
pub(super) struct Replaced {
    /// The list that they saw until now.
    pub list: Option<Run>,
    /// The subtables that only that one has.
    pub subtables: Vec<u32>,
}

impl Lists {
    /// No lists, with room for so many places. Place 0 is the list of all tables that have none.
    pub fn new(places: u32) -> Self {
        Self { lists: HashMap::new(), space: Runs::new(1, places), changed: BTreeSet::new() }
    }

    /// Makes room for the list that is to be, with one subtable more.
    #[must_use]
    pub fn reserve(&mut self, table: Table) -> bool {
        let list = self.lists.entry(table).or_default();
        let len = list.places.len() + 2;
        if list.reserved.is_some_and(|run| run.holds(len)) {
            return true;
        }
        if let Some(run) = list.reserved.take() {
            self.space.free(run);
        }
        list.reserved = self.space.take(len);
        list.reserved.is_some()
    }

    /// Gives a subtable the place that suits its rank.
    pub fn place(&mut self, table: Table, subtable: u32, rank: u32) {
        let places = &mut self.lists.entry(table).or_default().places;
        places.retain(|place| place.subtable != subtable);
        let at = places.partition_point(|place| place.rank > rank);
        places.insert(at, Place { rank, subtable });
        self.changed.insert(table);
    }

    /// Something that a subtable's place tells has changed.
    pub fn touch(&mut self, table: Table) {
        self.changed.insert(table);
    }

    /// Takes a subtable from its list.
    pub fn remove(&mut self, table: Table, subtable: u32) {
        let list = self.lists.entry(table).or_default();
        list.places.retain(|place| place.subtable != subtable);
        list.leaving.push(subtable);
        self.changed.insert(table);
    }

    /// Frees what packets saw.
    pub fn free(&mut self, run: Run) {
        self.space.free(run);
    }

    /// Lets packets see the lists that have changed; `listed` tells what they say of a subtable. Returns what packets saw
    /// until now. Unless it must be, a list that there is no room for stays as it is, and what is reserved is left alone.
    pub fn publish(
        &mut self,
        store: &mut impl Store,
        must: bool,
        listed: impl Fn(u32) -> Listed,
    ) -> Vec<Replaced> {
        let mut replaced = Vec::new();
        let space = &mut self.space;
        let lists = &mut self.lists;
        self.changed.retain(|&table| {
            let Some(mut list) = lists.remove(&table) else { return false };
            if list.places.is_empty() {
                store.set_head(table.0, table.1, 0);
                list.reserved.into_iter().for_each(|run| space.free(run));
                replaced.push(Replaced { list: list.seen, subtables: list.leaving });
                return false;
            }
            let reserved = if must { list.reserved.take() } else { None };
            let room = reserved.or_else(|| space.take(list.places.len() + 1));
            if let Some(run) = room {
                let places = list.places.iter().map(|place| listed(place.subtable));
                for (at, place) in (run.start..).zip(places.chain([Listed::END])) {
                    store.set_listed(at, &place);
                }
                store.set_head(table.0, table.1, run.start);
                let old = list.seen.replace(run);
                replaced.push(Replaced { list: old, subtables: std::mem::take(&mut list.leaving) });
            }
            lists.insert(table, list);
            room.is_none()
        });
        replaced
    }
}

#[cfg(test)]
mod tests {
    use switchd_ebpf::tables::Tables as _;

    use super::*;
    use crate::datapath::Sizes;
    use crate::datapath::host::Memory;

    const A: Table = (BridgeId(0), 0);
    const B: Table = (BridgeId(0), 1);

    fn listed(subtable: u32) -> Listed {
        Listed { subtable, rank: 1, ..Listed::END }
    }

    /// The subtables that packets see.
    fn seen(memory: &Memory, table: Table) -> Vec<u32> {
        let window = memory.listed(memory.head(table.0.0.into(), table.1.into())).unwrap();
        window.iter().take_while(|listed| listed.rank != 0).map(|listed| listed.subtable).collect()
    }

    #[test]
    fn subtables_are_listed_by_rank() {
        let (mut lists, mut memory) = (Lists::new(64), Memory::new(Sizes { flows: 1, connections: 1 }));
        for (subtable, rank) in [(1, 5), (2, 9), (3, 7), (1, 8)] {
            assert!(lists.reserve(A));
            lists.place(A, subtable, rank);
        }
        assert!(seen(&memory, A).is_empty());
        lists.publish(&mut memory, true, listed);
        assert_eq!(seen(&memory, A), [2, 1, 3]);
    }

    #[test]
    fn a_list_that_cannot_change_stays_until_there_is_room() {
        let (mut lists, mut memory) = (Lists::new(6), Memory::new(Sizes { flows: 1, connections: 1 }));
        for subtable in [1, 2] {
            assert!(lists.reserve(A));
            lists.place(A, subtable, subtable);
        }
        assert!(lists.publish(&mut memory, true, listed)[0].list.is_none());
        assert!(lists.reserve(B), "the rest");
        assert!(!lists.reserve(A), "no room for three");

        lists.remove(A, 2);
        assert!(lists.publish(&mut memory, false, listed).is_empty(), "what is reserved for B is left alone");
        assert_eq!(seen(&memory, A), [2, 1]);
        lists.place(B, 3, 1);
        lists.publish(&mut memory, true, listed);
        assert_eq!((seen(&memory, A), seen(&memory, B)), (vec![2, 1], vec![3]));

        lists.remove(B, 3);
        let replaced = lists.publish(&mut memory, false, listed);
        assert_eq!(replaced.len(), 1);
        assert_eq!((seen(&memory, B), &replaced[0].subtables), (vec![], &vec![3]));
        lists.free(replaced[0].list.unwrap());
        let replaced = lists.publish(&mut memory, false, listed);
        assert_eq!((seen(&memory, A), &replaced[0].subtables), (vec![1], &vec![2]));
    }

    #[test]
    fn an_empty_list_takes_no_room() {
        let (mut lists, mut memory) = (Lists::new(8), Memory::new(Sizes { flows: 1, connections: 1 }));
        for table in 0..=u8::MAX {
            let table = (BridgeId(0), table);
            assert!(lists.reserve(table));
            lists.place(table, 1, 1);
            lists.publish(&mut memory, true, listed);
            assert!(lists.reserve(table), "for a rule that changes nothing");
            lists.remove(table, 1);
            let replaced = lists.publish(&mut memory, false, listed);
            lists.free(replaced[0].list.unwrap());
        }
    }
}
