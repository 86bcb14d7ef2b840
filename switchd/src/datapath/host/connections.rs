//! The connection table in ordinary memory.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::{HashMap, VecDeque};
use std::ptr::NonNull;

use conntrack_core::{Connection, Timeouts};
use switchd_ebpf::conntrack::Connections;
use switchd_ebpf::layout::{Record, Tuple6, TupleRef, life};

use super::Memory;

/// The connection table in ordinary memory.
pub struct ConnectionTable {
    /// Boxed: the pipeline holds on to a word while it adds others.
    tuples: RefCell<HashMap<Tuple6, Box<UnsafeCell<TupleRef>>>>,
    records: Vec<UnsafeCell<Record>>,
    /// Records that were used and given back, first in, first out.
    free: RefCell<VecDeque<u32>>,
    /// Records that were ever used.
    used: Cell<u32>,
    clock_hand: Cell<u32>,
    timeouts: Timeouts,
}

impl ConnectionTable {
    pub(super) fn new(max_connections: u32) -> Self {
        Self {
            tuples: RefCell::default(),
            records: (0..max_connections).map(|_| UnsafeCell::new(empty_record())).collect(),
            free: RefCell::default(),
            used: Cell::new(0),
            clock_hand: Cell::new(0),
            timeouts: Timeouts::DEFAULT,
        }
    }

    /// The connections that are alive, expired ones included, in the order of their records.
    pub fn alive(&self) -> impl Iterator<Item = Record> {
        self.records
            .iter()
            // SAFETY: the pipeline, which changes records, is not running while this method's caller is.
            .map(|record| unsafe { *record.get() })
            .filter(|record| record.life & life::ALIVE != 0)
    }

    /// How many tuples lead to connections: two to each.
    #[must_use]
    pub fn tuples(&self) -> usize {
        self.tuples.borrow().len()
    }

    /// How many records are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.records.len() - self.used.get() as usize + self.free.borrow().len()
    }
}

fn empty_record() -> Record {
    Record {
        life: 0,
        expires: 0,
        created: 0,
        packets: [0; 2],
        bytes: [0; 2],
        label: [0; 2],
        mark: 0,
        pad: 0,
        tuples: [Tuple6::default(); 2],
        connection: Connection::default(),
    }
}

impl Connections for Memory {
    fn find(&self, tuple: &Tuple6) -> Option<NonNull<TupleRef>> {
        NonNull::new(self.connections.tuples.borrow().get(tuple)?.get())
    }

    fn insert(&self, tuple: &Tuple6, to: TupleRef) -> bool {
        let mut tuples = self.connections.tuples.borrow_mut();
        if tuples.contains_key(tuple) {
            return false;
        }
        tuples.insert(*tuple, Box::new(UnsafeCell::new(to)));
        true
    }

    fn remove(&self, tuple: &Tuple6) {
        self.connections.tuples.borrow_mut().remove(tuple);
    }

    fn record(&self, number: u32) -> Option<NonNull<Record>> {
        NonNull::new(self.connections.records.get(number as usize)?.get())
    }

    fn allocate(&self) -> Option<u32> {
        let table = &self.connections;
        table.free.borrow_mut().pop_front().or_else(|| {
            let number = table.used.get();
            let fits = (number as usize) < table.records.len();
            fits.then(|| table.used.set(number + 1)).map(|()| number)
        })
    }

    fn release(&self, number: u32) {
        self.connections.free.borrow_mut().push_back(number);
    }

    fn advance_clock_hand(&self) -> u32 {
        let table = &self.connections;
        let hand = table.clock_hand.get();
        let next = hand.checked_add(1).filter(|&next| (next as usize) < table.records.len());
        table.clock_hand.set(next.unwrap_or(0));
        hand
    }

    fn timeouts(&self) -> &Timeouts {
        &self.connections.timeouts
    }
}
