//! The connection table in ordinary memory.

use std::cell::{RefCell, UnsafeCell};
use std::collections::{HashMap, VecDeque};
use std::ptr::NonNull;

use conntrack_core::Timeouts;
use switchd_ebpf::conntrack::Connections;
use switchd_ebpf::layout::{
    Config, Datagram, Expectation, Help, Record, Tuple, TupleBucket, TupleHash, ZONES, Zone, life,
    tuple_buckets,
};

use super::super::load::random_word;
use super::Memory;

/// The connection table in ordinary memory.
pub struct ConnectionTable {
    tuples: Vec<UnsafeCell<TupleBucket>>,
    records: Vec<UnsafeCell<Record>>,
    /// Records that were used and given back, first in, first out.
    free: RefCell<VecDeque<u32>>,
    config: UnsafeCell<Config>,
    zones: Vec<UnsafeCell<Zone>>,
    /// Boxed: the pipeline holds on to one while it adds others.
    datagrams: RefCell<HashMap<Tuple, Box<UnsafeCell<Datagram>>>>,
    helps: RefCell<HashMap<u64, Box<UnsafeCell<Help>>>>,
    expectations: RefCell<HashMap<Tuple, Expectation>>,
    timeouts: Timeouts,
}

impl ConnectionTable {
    pub(super) fn new(max_connections: u32) -> Self {
        let buckets = tuple_buckets(max_connections);
        let tuple_hash = TupleHash::new(buckets, random_word);
        let config = Config { records: max_connections, max_connections, tuple_hash, ..Config::default() };
        Self {
            tuples: (0..buckets).map(|_| UnsafeCell::new(TupleBucket::EMPTY)).collect(),
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
        let taken = |tags: u64| tags.to_ne_bytes().into_iter().filter(|&tag| tag != 0).count();
        // SAFETY: the pipeline, which changes them, is not running while this method's caller is.
        let buckets = self.tuples.iter().map(|bucket| unsafe { *bucket.get() });
        buckets.flat_map(|bucket| bucket.tags).map(taken).sum()
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
    fn tuple_bucket(&self, number: u32) -> Option<NonNull<TupleBucket>> {
        NonNull::new(self.connections.tuples.get(number as usize)?.get())
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

    fn datagram(&self, key: &Tuple) -> Option<NonNull<Datagram>> {
        NonNull::new(self.connections.datagrams.borrow().get(key)?.get())
    }

    fn insert_datagram(&self, key: &Tuple, expires: u64) {
        let fresh = || Box::new(UnsafeCell::new(Datagram { expires, ..Datagram::EMPTY }));
        self.connections.datagrams.borrow_mut().entry(*key).or_insert_with(fresh);
    }

    fn remove_datagram(&self, key: &Tuple) {
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

    fn expectation(&self, tuple: &Tuple) -> Option<Expectation> {
        self.connections.expectations.borrow().get(tuple).copied()
    }

    fn insert_expectation(&self, tuple: &Tuple, expectation: &Expectation) -> bool {
        let mut expectations = self.connections.expectations.borrow_mut();
        if expectations.contains_key(tuple) {
            return false;
        }
        expectations.insert(*tuple, *expectation);
        true
    }

    fn remove_expectation(&self, tuple: &Tuple) {
        self.connections.expectations.borrow_mut().remove(tuple);
    }

    fn timeouts(&self, _policy: u16) -> Option<&Timeouts> {
        Some(&self.connections.timeouts)
    }

    fn random(&self) -> u32 {
        0
    }

    fn listened_to(&self) -> bool {
        false
    }

    fn tell(&self, _kind: u32, _number: u32, _now: u64, _record: &Record) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ofctl::flow::Command;
    use ofctl::port::NoNames;
    use ofctl::syntax::parse_flow;
    use switchd_ebpf::layout::TUPLES_PER_BUCKET;

    use super::super::{Arrival, Memory, Sizes};
    use crate::datapath::FlowTables;
    use crate::rules::{BridgeId, Rules as _};

    const BRIDGE: BridgeId = BridgeId(0);
    const CONNECTIONS: usize = TUPLES_PER_BUCKET / 2;

    /// A switch that commits whatever comes, and whose tuples all have the same hash.
    fn colliding() -> FlowTables<Memory> {
        let mut memory = Memory::new(Sizes { flows: 4, connections: 2 * CONNECTIONS as u32 });
        memory.set_ports(BRIDGE, vec![1, 2]);
        memory.connections.config.get_mut().tuple_hash.mixers = [0; 2];
        let mut tables = FlowTables::new(memory);
        let flow = parse_flow("ip,actions=ct(commit,table=1)", Command::Add, &NoNames).unwrap();
        tables.add(BRIDGE, 0, flow.priority, &flow.matching, &flow.actions).unwrap();
        let flow = parse_flow("table=1,actions=IN_PORT", Command::Add, &NoNames).unwrap();
        tables.add(BRIDGE, 1, flow.priority, &flow.matching, &flow.actions).unwrap();
        tables.commit();
        tables
    }

    /// A datagram without a checksum of UDP's own, from one host's port to the other's port 53, or the answer.
    fn datagram(source: u8, answer: bool) -> Vec<u8> {
        let (mut hosts, mut ports) = ([[10, 0, 0, 1], [10, 0, 0, 2]], [[4, source], [0, 53]]);
        if answer {
            hosts.reverse();
            ports.reverse();
        }
        let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        let ip = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0x66, 0xcf];
        let udp = [0, 8, 0, 0];
        [&ethernet[..], &ip, &hosts.concat(), &ports.concat(), &udp].concat()
    }

    fn passes(tables: &FlowTables<Memory>, frame: &[u8], now: Duration) -> bool {
        !tables.store().run(&Arrival { bridge: BRIDGE, port: 1, now }, frame).outputs.is_empty()
    }

    #[test]
    fn tuples_of_one_hash_are_told_apart_and_a_full_bucket_takes_no_more() {
        let tables = colliding();
        let (now, later) = (Duration::from_secs(1000), Duration::from_secs(2000));
        let table = || tables.store().connections();
        let ports = |now| -> Vec<u8> {
            let records = tables.store().live_connections(now);
            let mut ports: Vec<u8> = records.iter().map(|record| record.tuples[0].ports.src as u8).collect();
            ports.sort_unstable();
            ports
        };
        for round in [now, later] {
            for connection in 0..CONNECTIONS as u8 {
                assert!(passes(&tables, &datagram(connection, false), round), "connection {connection}");
            }
            assert_eq!(ports(round), (0..CONNECTIONS as u8).collect::<Vec<_>>());
            assert_eq!(table().tuples(), TUPLES_PER_BUCKET);
            assert!(!passes(&tables, &datagram(CONNECTIONS as u8, false), round));
            assert_eq!((table().tuples(), ports(round).len()), (TUPLES_PER_BUCKET, CONNECTIONS));
            // Each packet of either direction counts where it belongs.
            for connection in (0..CONNECTIONS as u8).rev() {
                for answer in [true, true, false] {
                    assert!(passes(&tables, &datagram(connection, answer), round));
                }
            }
            let records = tables.store().live_connections(round);
            assert!(records.iter().all(|record| record.packets == [2, 2]), "{records:?}");
        }
        assert_eq!(table().free(), CONNECTIONS);
    }

    #[test]
    fn a_place_that_is_given_back_is_taken_again() {
        let tables = colliding();
        let open = |range: std::ops::Range<u8>, now| {
            range.filter(|&connection| passes(&tables, &datagram(connection, false), now)).count()
        };
        let (first, second) = (Duration::from_secs(1000), Duration::from_secs(1020));
        assert_eq!(open(0..6, first), 6);
        assert_eq!(open(6..12, second), 6);
        // The first six expire, and go when they are looked for.
        let later = Duration::from_secs(1040);
        assert_eq!(open(20..21, later), 0, "all places are taken");
        assert_eq!(open(0..6, later), 6);
        assert_eq!(tables.store().live_connections(later).len(), CONNECTIONS);
        assert_eq!(tables.store().connections().tuples(), TUPLES_PER_BUCKET);
    }
}
