//! The host's own datapath: the pipeline of the kernel programs over tables in ordinary memory.
//!
//! Three hosts run the one pipeline: XDP, tcx, and this one. It is for the tests that compare the kernel's answers
//! with it.
//! [`Memory`] holds the tables; [`FlowTables<Memory>`](super::FlowTables) fills them from OpenFlow rules exactly as
//! it fills the kernel's maps, and [`Memory::run`] takes a frame through them.
//!
//! A [`Memory`] belongs to one thread at a time. Time is an argument.

mod connections;
mod frame;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::c_void;
use std::time::Duration;

use switchd_ebpf::classify;
use switchd_ebpf::drop_reason::DropReason;
use switchd_ebpf::key::Key;
use switchd_ebpf::layout::{
    Entry, Listed, MacKey, MacSeen, Op, Record, RuleCounter, RuleRef, TABLES, TableCounter, WINDOW, WideMask,
    port_flags,
};
use switchd_ebpf::packet::Packet as _;
use switchd_ebpf::parse;
use switchd_ebpf::pipeline::{Body, Machine, Run, port};
use switchd_ebpf::rewrite::{Due, rewrite};
use switchd_ebpf::tables::Tables;

pub use self::connections::ConnectionTable;
pub use self::frame::Frame;
use super::load::{Sizes, entry_space};
use super::store::{Store, state};
use super::{HEADS, MAX_LISTED, MAX_SUBTABLES};
use crate::rules::{BridgeId, RuleStats, TableStats};

/// The tables, in ordinary memory.
pub struct Memory {
    heads: Vec<u32>,
    lists: Vec<Listed>,
    wide_masks: Vec<WideMask>,
    ops: Vec<Op>,
    buckets: Vec<u32>,
    entries: Vec<Entry>,
    version: u64,
    /// The version at the last [`Store::settle`].
    settled: u64,
    rules: Vec<Cell<RuleCounter>>,
    tables: Vec<Cell<TableCounter>>,
    drops: Vec<Cell<u64>>,
    /// By bridge, VLAN and address.
    macs: RefCell<HashMap<(u32, u32, u64), MacSeen>>,
    ports: BTreeMap<BridgeId, Vec<u16>>,
    /// The bridges whose flows see the transport ports of fragments.
    showing: BTreeSet<BridgeId>,
    connections: ConnectionTable,
}

/// How a frame comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The bridge.
    pub bridge: BridgeId,
    /// The OpenFlow number of the port.
    pub port: u16,
    /// The time, on the clock that connections expire by (see [`super::clock`]).
    pub now: Duration,
}

/// What became of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The frames that leave, in order: the OpenFlow number of the port, and the bytes.
    pub outputs: Vec<(u16, Vec<u8>)>,
    /// The reasons for which the frame, or copies of it, went no further, and how often.
    pub drops: Vec<(DropReason, u64)>,
}

impl Memory {
    /// Empty tables with room for `sizes`.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        let ops = sizes.flows as usize * 4 + 65536;
        let (buckets, lines) = entry_space(sizes.flows);
        Self {
            heads: vec![0; HEADS as usize],
            lists: vec![Listed::END; (MAX_LISTED + WINDOW) as usize],
            wide_masks: vec![WideMask::EMPTY; MAX_SUBTABLES as usize],
            ops: vec![Op::default(); ops],
            buckets: vec![0; buckets as usize],
            entries: vec![Entry::default(); lines as usize],
            version: 0,
            settled: 0,
            rules: vec![Cell::default(); sizes.flows as usize],
            tables: vec![Cell::default(); HEADS as usize],
            drops: vec![Cell::default(); DropReason::ALL.len()],
            macs: RefCell::default(),
            ports: BTreeMap::new(),
            showing: BTreeSet::new(),
            connections: ConnectionTable::new(sizes.connections),
        }
    }

    /// Sets the ports of a bridge, by OpenFlow number.
    pub fn set_ports(&mut self, bridge: BridgeId, mut ports: Vec<u16>) {
        // The order in which the daemon lists them to the kernel.
        ports.sort_unstable();
        self.ports.insert(bridge, ports);
    }

    /// Lets the flows of a bridge see the transport ports of fragments before `ct`.
    pub fn show_fragments(&mut self, bridge: BridgeId) {
        self.showing.insert(bridge);
    }

    /// The version of the tables that frames see (see [`switchd_ebpf::layout::Config::version`]).
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The oldest version that a run may still be under.
    #[must_use]
    pub fn oldest_version(&self) -> u64 {
        self.settled
    }

    /// Drops so far, for each reason.
    #[must_use]
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        DropReason::ALL.iter().zip(&self.drops).map(|(&reason, count)| (reason, count.get())).collect()
    }

    /// The connection table.
    #[must_use]
    pub fn connections(&self) -> &ConnectionTable {
        &self.connections
    }

    /// The connections that are alive and not expired.
    #[must_use]
    pub fn live_connections(&self, now: Duration) -> Vec<Record> {
        self.connections.alive().filter(|record| record.expires >= nanoseconds(now)).collect()
    }

    /// Takes a frame through the pipeline. Counters, connections and learned addresses are left as the kernel
    /// would leave them; port counters there are none.
    #[must_use]
    pub fn run(&self, arrival: &Arrival, frame: &[u8]) -> Outcome {
        self.run_under(self.version, arrival, frame)
    }

    /// As [`Memory::run`], for a frame that came when `version` was current: the version that a frame begins with
    /// is the one that it sees to its end. There is nothing to be seen of versions before
    /// [`Memory::oldest_version`].
    #[must_use]
    pub fn run_under(&self, version: u64, arrival: &Arrival, frame: &[u8]) -> Outcome {
        let before = self.drops();
        let mut machine = new_machine();
        let packet = Frame::from(frame.to_vec());
        machine.key = Key::ZERO;
        parse::parse(&packet, arrival.port, &mut machine.key, &mut machine.layout);
        let len = packet.length();
        let flags = if self.showing.contains(&arrival.bridge) { 0 } else { port_flags::HIDES_FRAGMENTS };
        machine.start(u32::from(arrival.bridge.0), flags, len, nanoseconds(arrival.now), version);
        let mut run = Run { packet, datapath: self, machine: &mut machine };
        run.run();
        let packet = run.packet;
        machine.before_headers_change();
        let outputs = self.deliver(arrival, &machine, &packet);
        let drops = self
            .drops()
            .into_iter()
            .zip(before)
            .map(|((reason, now), (_, before))| (reason, now - before))
            .filter(|&(_, count)| count != 0)
            .collect();
        Outcome { outputs, drops }
    }

    /// Looks a key up in a table of a bridge, as a packet of a version would (see [`Memory::run_under`]). Counts
    /// nothing.
    #[must_use]
    pub fn classify(&self, version: u64, bridge: BridgeId, table: u8, key: &Key) -> Option<RuleRef> {
        let mut machine = new_machine();
        machine.key = *key;
        machine.version = version;
        machine.bridge = u32::from(bridge.0);
        machine.table = u32::from(table);
        let packet = Frame::from(Vec::new());
        classify::search(&mut Run { packet, datapath: self, machine: &mut machine });
        (machine.best.rank != 0).then_some(machine.best)
    }

    /// The frames that a run comes to.
    fn deliver(&self, arrival: &Arrival, machine: &Machine, packet: &Frame) -> Vec<(u16, Vec<u8>)> {
        let effects = &machine.effects;
        let ports = self.ports.get(&arrival.bridge).map_or(&[][..], Vec::as_slice);
        let mut delivered = Vec::new();
        for output in effects.outputs.iter().take(effects.n_outputs as usize) {
            let Some(headers) = effects.copies.get(usize::from(output.copy)) else { continue };
            let mut copy = packet.clone();
            if !rewrite(self, &mut copy, &machine.layout, &machine.wire, headers, &mut Due::default()) {
                self.dropped(DropReason::Rewrite);
                break;
            }
            if output.port >= port::IN_PORT {
                let others = ports.iter().filter(|&&number| number != arrival.port);
                delivered.extend(others.map(|&number| (number, copy.bytes().to_vec())));
            } else if ports.contains(&output.port) {
                delivered.push((output.port, copy.bytes().to_vec()));
            } else {
                self.dropped(DropReason::NoSuchPort);
            }
        }
        delivered
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A machine as it is before its first packet: all zero, like the kernel's.
fn new_machine() -> Box<Machine> {
    let mut machine = Box::<Machine>::new_uninit();
    // SAFETY: the box has room for one machine, which consists of integers, and of enums that are valid when zero:
    // in the kernel it lives in a map, and begins as zeroes as well.
    unsafe {
        machine.as_mut_ptr().write_bytes(0, 1);
        machine.assume_init()
    }
}

impl Store for Memory {
    fn set_head(&mut self, bridge: BridgeId, table: u8, place: u32) {
        self.heads[index(u32::from(bridge.0), u32::from(table))] = place;
    }

    fn set_listed(&mut self, place: u32, listed: &Listed) {
        self.lists[place as usize] = *listed;
    }

    fn set_wide_mask(&mut self, subtable: u32, mask: &WideMask) {
        self.wide_masks[subtable as usize] = *mask;
    }

    fn set_op(&mut self, index: u32, op: &Op) {
        self.ops[index as usize] = *op;
    }

    fn set_bucket(&mut self, bucket: u32, entry: u32) {
        self.buckets[bucket as usize] = entry;
    }

    fn set_entry(&mut self, index: u32, line: &Entry) {
        self.entries[index as usize] = *line;
    }

    fn link_entry(&mut self, index: u32, next: u32) {
        self.entries[index as usize].next = next;
    }

    fn turn_entry(&mut self, index: u32, since: u64, which: usize, rule: &RuleRef) {
        let entry = &mut self.entries[index as usize];
        entry.rules[which & 1] = *rule;
        entry.state = state(since, which);
    }

    fn set_version(&mut self, version: u64) {
        self.version = version;
    }

    fn settle(&mut self) {
        // No run is under way now; but none may begin under an older version any more.
        self.settled = self.version;
    }

    fn rule_stats(&self, rule: u32) -> RuleStats {
        let counter = self.rules[rule as usize].get();
        let used = (counter.used != 0).then(|| Duration::from_nanos(counter.used));
        RuleStats { packets: counter.packets, bytes: counter.bytes, used }
    }

    fn reset_rule(&mut self, rule: u32) {
        self.rules[rule as usize].set(RuleCounter::default());
    }

    fn table_stats(&self, bridge: BridgeId, table: u8) -> TableStats {
        let counter = self.tables[index(u32::from(bridge.0), u32::from(table))].get();
        TableStats { lookups: counter.lookups, matched: counter.matched }
    }

    fn reset_table(&mut self, bridge: BridgeId, table: u8) {
        self.tables[index(u32::from(bridge.0), u32::from(table))].set(TableCounter::default());
    }

    fn buckets(&self) -> u32 {
        self.buckets.len() as u32
    }

    fn max_lines(&self) -> u32 {
        self.entries.len() as u32
    }

    fn max_rules(&self) -> u32 {
        self.rules.len() as u32
    }

    fn max_subtables(&self) -> u32 {
        self.wide_masks.len() as u32
    }

    fn max_listed(&self) -> u32 {
        MAX_LISTED
    }

    fn max_ops(&self) -> u32 {
        self.ops.len() as u32
    }
}

/// The index of a bridge's table.
fn index(bridge: u32, table: u32) -> usize {
    (bridge * TABLES + table) as usize
}

impl Tables for Memory {
    fn head(&self, bridge: u32, table: u32) -> u32 {
        self.heads.get(index(bridge, table)).copied().unwrap_or(0)
    }

    fn listed(&self, place: u32) -> Option<&[Listed; WINDOW as usize]> {
        self.lists.get(place as usize..)?.first_chunk()
    }

    fn wide_mask(&self, subtable: u32) -> Option<&WideMask> {
        self.wide_masks.get(subtable as usize)
    }

    fn bucket(&self, hash: u32) -> u32 {
        self.buckets[hash as usize & (self.buckets.len() - 1)]
    }

    fn entry(&self, entry: u32) -> Option<&Entry> {
        if entry == 0 { None } else { self.entries.get(entry as usize) }
    }

    fn op(&self, pc: u32) -> Option<&Op> {
        self.ops.get(pc as usize)
    }

    fn hit(&self, rule: u32, bytes: u32, now: u64) {
        let Some(cell) = self.rules.get(rule as usize) else { return };
        let old = cell.get();
        let (packets, bytes) = (old.packets + 1, old.bytes + u64::from(bytes));
        cell.set(RuleCounter { packets, bytes, used: now, ..old });
    }

    fn looked_up(&self, bridge: u32, table: u32, hit: bool) {
        let Some(cell) = self.tables.get(index(bridge, table)) else { return };
        let old = cell.get();
        cell.set(TableCounter { lookups: old.lookups + 1, matched: old.matched + u64::from(hit) });
    }

    fn dropped_by_number(&self, reason: u32) {
        if let Some(count) = self.drops.get(reason as usize) {
            count.set(count.get() + 1);
        }
    }

    fn mac(&self, key: &MacKey) -> MacSeen {
        self.macs.borrow().get(&(key.bridge, key.vlan, key.mac)).copied().unwrap_or(0)
    }

    fn learn_mac(&self, key: &MacKey, seen: MacSeen) {
        self.macs.borrow_mut().insert((key.bridge, key.vlan, key.mac), seen);
    }

    fn repeat(&self, times: u32, body: Body, context: *mut c_void) {
        for index in 0..u64::from(times) {
            if body(index, context) != 0 {
                return;
            }
        }
    }
}
