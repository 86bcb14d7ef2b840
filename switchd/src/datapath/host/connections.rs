//! The connection table in ordinary memory.

use std::cell::{RefCell, UnsafeCell};
use std::collections::{HashMap, VecDeque};
use std::ptr::NonNull;

use conntrack_core::Timeouts;
use switchd_ebpf::conntrack::Connections;
use switchd_ebpf::layout::{
    Config, Datagram, Expectation, Help, Record, Tuple6, TupleRef, ZONES, Zone, life,
};

use super::Memory;

/// The connection table in ordinary memory.
pub struct ConnectionTable {
    /// Boxed: the pipeline holds on to a word while it adds others.
    tuples: RefCell<HashMap<Tuple6, Box<UnsafeCell<TupleRef>>>>,
    records: Vec<UnsafeCell<Record>>,
    /// Records that were used and given back, first in, first out.
    free: RefCell<VecDeque<u32>>,
    config: UnsafeCell<Config>,
    zones: Vec<UnsafeCell<Zone>>,
    /// Boxed for the same reason.
    datagrams: RefCell<HashMap<Tuple6, Box<UnsafeCell<Datagram>>>>,
    helps: RefCell<HashMap<u64, Box<UnsafeCell<Help>>>>,
    expectations: RefCell<HashMap<Tuple6, Expectation>>,
    timeouts: Timeouts,
}

impl ConnectionTable {
    pub(super) fn new(max_connections: u32) -> Self {
        let config = Config { records: max_connections, max_connections, ..Config::default() };
        Self {
            tuples: RefCell::default(),
            records: (0..max_connections).map(|_| UnsafeCell::default()).collect(),
            free: RefCell::default(),
            config: UnsafeCell::new(config),
            zones: (0..ZONES).map(|_| UnsafeCell::default()).collect(),
            datagrams: RefCell::default(),
            helps: RefCell::default(),
            expectations: RefCell::default(),
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

    /// How many connections are expected.
    #[must_use]
    pub fn expectations(&self) -> usize {
        self.expectations.borrow().len()
    }

    /// How many records are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.records.len() - self.config().records_used as usize + self.free.borrow().len()
    }

    /// The limits, and the books.
    #[must_use]
    pub fn config(&self) -> Config {
        // SAFETY: the pipeline, which changes it, is not running while this method's caller is.
        unsafe { *self.config.get() }
    }

    /// What a zone may have, and what was counted in it.
    #[must_use]
    pub fn zone(&self, zone: u16) -> Zone {
        // SAFETY: as in `config`.
        unsafe { *self.zones[usize::from(zone)].get() }
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

    fn reuse(&self) -> Option<u32> {
        self.connections.free.borrow_mut().pop_front()
    }

    fn release(&self, number: u32) {
        self.connections.free.borrow_mut().push_back(number);
    }

    fn config(&self) -> NonNull<Config> {
        // SAFETY: the pointer of a cell is never null.
        unsafe { NonNull::new_unchecked(self.connections.config.get()) }
    }

    fn zone(&self, zone: u16) -> Option<NonNull<Zone>> {
        NonNull::new(self.connections.zones.get(usize::from(zone))?.get())
    }

    fn datagram(&self, key: &Tuple6) -> Option<NonNull<Datagram>> {
        NonNull::new(self.connections.datagrams.borrow().get(key)?.get())
    }

    fn insert_datagram(&self, key: &Tuple6, expires: u64) {
        let fresh = || Box::new(UnsafeCell::new(Datagram { expires, ..Datagram::EMPTY }));
        self.connections.datagrams.borrow_mut().entry(*key).or_insert_with(fresh);
    }

    fn remove_datagram(&self, key: &Tuple6) {
        self.connections.datagrams.borrow_mut().remove(key);
    }

    fn help(&self, owner: u64) -> Option<NonNull<Help>> {
        NonNull::new(self.connections.helps.borrow().get(&owner)?.get())
    }

    fn insert_help(&self, owner: u64) {
        self.connections.helps.borrow_mut().entry(owner).or_default();
    }

    fn remove_help(&self, owner: u64) {
        self.connections.helps.borrow_mut().remove(&owner);
    }

    fn expectation(&self, tuple: &Tuple6) -> Option<Expectation> {
        self.connections.expectations.borrow().get(tuple).copied()
    }

    fn insert_expectation(&self, tuple: &Tuple6, expectation: &Expectation) -> bool {
        let mut expectations = self.connections.expectations.borrow_mut();
        if expectations.contains_key(tuple) {
            return false;
        }
        expectations.insert(*tuple, *expectation);
        true
    }

    fn remove_expectation(&self, tuple: &Tuple6) {
        self.connections.expectations.borrow_mut().remove(tuple);
    }

    fn timeouts(&self, _policy: u16) -> &Timeouts {
        &self.connections.timeouts
    }

    fn random(&self) -> u32 {
        0
    }

    fn listened_to(&self) -> bool {
        false
    }

    fn tell(&self, _kind: u32, _number: u32, _now: u64, _record: &Record) {}
}
