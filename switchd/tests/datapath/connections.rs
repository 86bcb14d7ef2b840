//! The connection table: two CPUs at once, a full table, and the end of connections. Needs root, but for the
//! host's part.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use conntrack_core::{Timeouts, protocol, tcp::State};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use ofctl::flow::Command;
use ofctl::port::NoNames;
use ofctl::syntax::parse_flow;
use proptest::prelude::*;
use switchd::datapath::host::{Arrival, Memory};
use switchd::datapath::{Datapath, FlowTables, Sizes, Store, clock};
use switchd::rules::{RuleId, Rules};
use switchd_ebpf::drop_reason::DropReason;
use switchd_ebpf::layout::Record;

use crate::frames::flags::{ACK, FIN, RST, SYN};
use crate::frames::{self, Ip};
use crate::switch::{BRIDGE, Switch, action};

/// Everything is tracked; what is new is committed.
const FLOWS: [&str; 4] = [
    "table=0,ip,actions=ct(table=1)",
    "table=1,ip,ct_state=+trk+new,actions=ct(commit),2",
    "table=1,ip,ct_state=+trk+est,in_port=1,actions=2",
    "table=1,ip,ct_state=+trk+est,in_port=2,actions=1",
];

fn install<S: Store>(tables: &mut FlowTables<S>) -> [RuleId; 4] {
    let rules = FLOWS.map(|text| {
        let flow = parse_flow(text, Command::Add, &NoNames).unwrap();
        let table = flow.table.unwrap_or(0);
        tables.add(BRIDGE, table, flow.priority, &flow.matching, &flow.actions).unwrap()
    });
    tables.commit();
    rules
}

fn switch_and_rules(connections: u32) -> (Switch, [RuleId; 4]) {
    let mut switch = Switch::new(Sizes { flows: 16, connections }, 2);
    let rules = install(&mut switch.datapath.tables);
    (switch, rules)
}

fn switch(connections: u32) -> Switch {
    switch_and_rules(connections).0
}

fn syn(connection: u16) -> Vec<u8> {
    frames::tcp(Ip::V4, 0, connection, SYN, 100, 0, b"")
}

fn syn_ack(connection: u16) -> Vec<u8> {
    frames::tcp(Ip::V4, 1, connection, SYN | ACK, 500, 101, b"")
}

fn ack(connection: u16) -> Vec<u8> {
    frames::tcp(Ip::V4, 0, connection, ACK, 101, 501, b"")
}

impl Switch {
    /// Whether a frame is let through.
    fn passes(&self, port: u16, frame: &[u8]) -> bool {
        match self.run(port, frame).action {
            action::REDIRECT => true,
            action::DROP => false,
            other => panic!("action {other}"),
        }
    }

    /// Opens a connection, which is assured then. False if not all of it is let through.
    fn open(&self, connection: u16) -> bool {
        self.passes(1, &syn(connection))
            && self.passes(2, &syn_ack(connection))
            && self.passes(1, &ack(connection))
    }

    fn records(&self) -> Vec<Record> {
        self.datapath.connections.iter().map(|(_, record)| record).collect()
    }

    /// Host 0's ports of the connections that there are, as numbers of connections.
    fn connections(&self) -> Vec<u16> {
        let mut numbers: Vec<u16> =
            self.records().iter().map(|record| record.tuples[0].ports.src - 1000).collect();
        numbers.sort_unstable();
        numbers
    }

    fn drops(&self, wanted: DropReason) -> u64 {
        let drops = self.datapath.counters.drops();
        drops.into_iter().find(|(reason, _)| *reason == wanted).map_or(0, |(_, count)| count)
    }

    /// Has a packet of each direction come for each UDP connection there is, some being made before: it counts there,
    /// and nowhere else.
    fn assert_tuples_lead_to_their_records(&self) {
        (1..200).step_by(2).for_each(|connection| bring(self, connection, 0));
        let counted = || -> BTreeMap<u16, [u64; 2]> {
            let udp = |record: &Record| record.connection.protocol == protocol::UDP;
            let records = self.records().into_iter().filter(udp);
            records.map(|record| (record.tuples[0].ports.src - 5000, record.packets)).collect()
        };
        let mut expected = counted();
        assert!(expected.len() >= 100);
        for (&connection, packets) in &mut expected {
            bring(self, connection, 0);
            *packets = packets.map(|count| count + 1);
        }
        assert_eq!(counted(), expected);
    }

    /// Fills the empty table to the last record. Assured connections are not evicted: a record that has leaked would
    /// show.
    fn assert_nothing_leaked(&self, connections: u16) {
        assert_eq!(self.records().len(), 0);
        assert_eq!(self.datapath.connections.tuples(), 0);
        let (full, busy) = (self.drops(DropReason::ConntrackFull), self.drops(DropReason::ConntrackBusy));
        for connection in 0..connections {
            assert!(self.open(connection), "connection {connection} of {connections}");
        }
        assert!(!self.open(connections));
        assert_eq!(self.drops(DropReason::ConntrackFull), full + 1);
        assert_eq!(self.drops(DropReason::ConntrackBusy), busy);
        assert_eq!(self.records().len(), usize::from(connections));
        assert_eq!(self.datapath.connections.tuples(), 2 * usize::from(connections));
    }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu % thread::available_parallelism().unwrap().get()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

/// Has two CPUs bring packets of one connection at once, each in the given direction.
fn race(directions: [usize; 2]) {
    const PACKETS: u32 = 1_000_000;
    let (mut switch, rules) = switch_and_rules(16);
    assert!(switch.open(1));
    let [before] = switch.records()[..] else { panic!("not one connection") };
    let data = [
        frames::tcp(Ip::V4, 0, 1, ACK, 101, 501, b"there"),
        frames::tcp(Ip::V4, 1, 1, ACK, 501, 101, b"and back again"),
    ];
    // The flows that an established connection's packets hit, by direction. The kernel repeats a frame much faster
    // than calls could bring it, so that both CPUs want the connection at once again and again.
    let flows = [rules[2], rules[3]];
    flows.iter().for_each(|&rule| switch.datapath.tables.reset_stats(rule));
    thread::scope(|scope| {
        for (cpu, direction) in directions.into_iter().enumerate() {
            let (switch, data) = (&switch, &data);
            scope.spawn(move || {
                pin(cpu);
                switch.repeat(direction as u16 + 1, &data[direction], PACKETS);
            });
        }
    });
    let [after] = switch.records()[..] else { panic!("not one connection") };
    let passed = flows.map(|rule| switch.datapath.tables.stats(rule).packets);
    for direction in [0, 1] {
        let bytes = passed[direction] * data[direction].len() as u64;
        assert_eq!(after.packets[direction] - before.packets[direction], passed[direction]);
        assert_eq!(after.bytes[direction] - before.bytes[direction], bytes);
    }
    // All of them waited for long enough.
    assert_eq!(switch.drops(DropReason::ConntrackBusy), 0);
    assert_eq!(passed[0] + passed[1], 2 * u64::from(PACKETS));
    // Still established: the state was advanced by one packet after the other.
    assert_eq!(after.connection.status, before.connection.status);
    assert!(switch.passes(1, &frames::tcp(Ip::V4, 0, 1, FIN | ACK, 106, 501, b"")));
}

#[test]
fn two_cpus_in_the_two_directions_of_a_connection_lose_no_update() {
    race([0, 1]);
}

#[test]
fn two_cpus_in_one_direction_of_a_connection_lose_no_update() {
    race([0, 0]);
}

/// Brings packets of a connection, in an order that depends on the round: it is begun, goes on, or is closed. Those with
/// odd numbers are of UDP.
fn bring(switch: &Switch, connection: u16, round: u16) {
    if connection % 2 == 1 {
        switch.passes(1, &frames::udp(Ip::V4, 0, connection, b"there"));
        switch.passes(2, &frames::udp(Ip::V4, 1, connection, b"back"));
        return;
    }
    switch.passes(1, &syn(connection));
    switch.passes(2, &syn_ack(connection));
    match (round + connection / 2) % 4 {
        0 => drop(switch.passes(1, &ack(connection))),
        1 => drop(switch.passes(1, &frames::tcp(Ip::V4, 0, connection, FIN | ACK, 101, 501, b""))),
        // It refuses the SYN, before the answer or after.
        2 => drop(switch.passes(2, &frames::tcp(Ip::V4, 1, connection, RST | ACK, 0, 101, b""))),
        _ => {}
    }
}

/// Whether a record's tuples belong to each other.
fn is_whole(record: &Record) -> bool {
    let [original, reply] = &record.tuples;
    (original.src, original.ports.src) == (reply.dst, reply.ports.dst)
        && (original.dst, original.ports.dst) == (reply.src, reply.ports.src)
        && original.ports.protocol == record.connection.protocol
}

#[test]
fn connections_opened_closed_and_flushed_at_the_same_time_leave_nothing_behind() {
    const CONNECTIONS: u16 = 2048;
    let switch = switch(u32::from(CONNECTIONS));
    let running = AtomicUsize::new(2);
    thread::scope(|scope| {
        for cpu in [0, 1] {
            let (switch, running) = (&switch, &running);
            scope.spawn(move || {
                pin(cpu);
                // The same connections on both CPUs, so that they also race to begin them; and more than fit.
                for round in 0..6 {
                    (0..CONNECTIONS + 100).for_each(|connection| bring(switch, connection, round));
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let mut dumped = 0;
        while running.load(Ordering::Relaxed) > 0 {
            switch.datapath.connections.flush(|record| record.tuples[0].ports.src % 3 == 0);
            let records = switch.records();
            assert!(records.iter().all(is_whole));
            dumped += records.len();
            switch.datapath.connections.flush(|_| true);
        }
        assert!(dumped > 0);
    });
    switch.assert_tuples_lead_to_their_records();
    assert_eq!(switch.datapath.zones.connections(), switch.records().len() as u64);
    switch.datapath.connections.flush(|_| true);
    assert_eq!(switch.datapath.zones.connections(), 0);
    switch.assert_nothing_leaked(CONNECTIONS);
}

#[test]
fn a_full_table_gives_up_unanswered_connections_first_and_assured_ones_never() {
    let switch = switch(4);
    // Assured, answered, and two that are neither.
    assert!(switch.open(1));
    assert!(switch.passes(1, &syn(2)) && switch.passes(2, &syn_ack(2)));
    assert!(switch.passes(1, &syn(3)) && switch.passes(1, &syn(4)));
    assert!(switch.open(5) && switch.open(6));
    assert_eq!(switch.connections(), [1, 2, 5, 6]);
    assert!(switch.open(7));
    assert_eq!(switch.connections(), [1, 5, 6, 7]);
    // Nothing is left that may go: what would be new is dropped, what is known goes on.
    assert_eq!(switch.drops(DropReason::ConntrackFull), 0);
    assert!(!switch.passes(1, &syn(8)));
    assert_eq!(switch.drops(DropReason::ConntrackFull), 1);
    assert!(switch.passes(1, &ack(5)));
    assert_eq!(switch.connections(), [1, 5, 6, 7]);
    switch.datapath.connections.flush(|_| true);
    switch.assert_nothing_leaked(4);
}

#[test]
fn a_flush_takes_what_it_is_told_to() {
    let switch = switch(8);
    for connection in 1..=5 {
        assert!(switch.open(connection));
    }
    let odd = |record: &Record| (record.tuples[0].ports.src - 1000) % 2 == 1;
    assert_eq!(switch.datapath.connections.flush(odd), 3);
    assert_eq!(switch.connections(), [2, 4]);
    assert_eq!(switch.datapath.connections.sweep(), 0);
    assert_eq!(switch.datapath.connections.flush(|_| true), 2);
    switch.assert_nothing_leaked(8);
}

/// A packet that comes between the judgement and the removal does not save its connection from a flush.
#[test]
fn a_flush_takes_connections_in_use() {
    let switch = switch(8);
    assert!(switch.open(1) && switch.open(2));
    let in_use = |record: &Record| switch.passes(1, &ack(record.tuples[0].ports.src - 1000));
    assert_eq!(switch.datapath.connections.flush(in_use), 2);
    assert_eq!(switch.connections(), Vec::<u16>::new());
    switch.assert_nothing_leaked(8);
}

/// The host's datapath, and its time.
struct Host {
    tables: FlowTables<Memory>,
    now: Duration,
    connections: u32,
}

impl Host {
    fn new(connections: u32) -> Self {
        let mut memory = Memory::new(Sizes { flows: 16, connections });
        memory.set_ports(BRIDGE, vec![1, 2]);
        let mut tables = FlowTables::new(memory);
        install(&mut tables);
        Self { tables, now: Duration::from_secs(1000), connections }
    }

    fn passes(&self, port: u16, frame: &[u8]) -> bool {
        let arrival = Arrival { bridge: BRIDGE, port, now: self.now };
        !self.tables.store().run(&arrival, frame).outputs.is_empty()
    }

    /// Every connection has two tuples, and every record is free or alive.
    fn check(&self) {
        let table = self.tables.store().connections();
        let alive = table.alive().count();
        assert_eq!(table.tuples(), 2 * alive);
        assert_eq!(table.free() + alive, self.connections as usize);
    }
}

#[test]
fn an_expired_connection_is_not_there_and_can_be_opened_again() {
    let mut host = Host::new(1);
    assert!(host.passes(1, &syn(1)));
    let [first] = host.tables.store().live_connections(host.now)[..] else { panic!("not one connection") };
    host.now = Duration::from_nanos(first.expires);
    // To the last nanosecond.
    assert_eq!(host.tables.store().live_connections(host.now).len(), 1);
    assert!(host.passes(2, &syn_ack(1)));
    let [answered] = host.tables.store().live_connections(host.now)[..] else { panic!("not one connection") };
    assert_eq!((answered.created, answered.packets), (first.created, [1, 1]));

    host.now = Duration::from_nanos(answered.expires + 1);
    assert_eq!(host.tables.store().live_connections(host.now).len(), 0);
    // An answer to nothing is invalid; a SYN begins anew, in the only record that there is.
    assert!(!host.passes(2, &syn_ack(1)));
    assert!(host.passes(1, &syn(1)));
    let [again] = host.tables.store().live_connections(host.now)[..] else { panic!("not one connection") };
    assert_eq!((again.created, again.packets), (answered.expires + 1, [1, 0]));
    assert_ne!(again.life, first.life);
    host.check();
}

/// As in Linux, whose search finds the tuple of the reply first.
#[test]
fn what_a_host_sends_to_itself_is_answered_by_the_second_packet() {
    let mut host = Host::new(2);
    let frame = frames::to_itself();
    for packets in [[1, 0], [1, 1], [1, 2]] {
        assert!(host.passes(1, &frame));
        let [record] = host.tables.store().live_connections(host.now)[..] else {
            panic!("not one connection")
        };
        assert_eq!(record.tuples[0], record.tuples[1]);
        assert_eq!(record.packets, packets);
    }
    assert_eq!(host.tables.store().connections().tuples(), 1);

    // It ends as any other, and can begin again.
    host.now += Duration::from_secs(1000);
    assert!(host.passes(1, &frame));
    let [again] = host.tables.store().live_connections(host.now)[..] else { panic!("not one connection") };
    assert_eq!(again.packets, [1, 0]);
    assert_eq!(host.tables.store().connections().tuples(), 1);
    assert_eq!(host.tables.store().connections().free(), 1);
}

#[test]
fn an_expired_connection_makes_room_for_another() {
    let mut host = Host::new(1);
    assert!(host.passes(1, &syn(1)) && host.passes(2, &syn_ack(1)) && host.passes(1, &ack(1)));
    assert!(!host.passes(1, &syn(2)));
    host.now += Duration::from_secs(5 * 24 * 3600 + 1);
    assert!(host.passes(1, &syn(2)));
    host.check();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tuples_and_records_add_up_whatever_comes(
        packets in prop::collection::vec((0usize..2, 0u16..12, 0usize..6, 0u64..40), 1..200),
    ) {
        let mut host = Host::new(6);
        for (from, connection, kind, seconds) in packets {
            host.now += Duration::from_secs(seconds * seconds / 40);
            let flags = [SYN, SYN | ACK, ACK, FIN | ACK, RST, ACK][kind];
            let (seq, ack) = [(100 + u32::from(flags != SYN), 501), (500 + u32::from(flags & SYN == 0), 101)][from];
            let frame = if kind == 5 {
                frames::udp(Ip::V4, from, connection, b"?")
            } else {
                frames::tcp(Ip::V4, from, connection, flags, seq, ack, b"")
            };
            host.passes(from as u16 + 1, &frame);
            host.check();
        }
    }
}

#[test]
fn a_policy_that_a_connection_has_is_not_given_to_others() {
    let switch = switch(16);
    let Datapath { policies, zones, connections, .. } = &switch.datapath;
    let syn_sent = |seconds| {
        let (tcp_retransmission, tcp_unacknowledged) = (u32::MAX, u32::MAX);
        let mut timeouts = Timeouts { tcp_retransmission, tcp_unacknowledged, ..Timeouts::DEFAULT };
        timeouts.tcp[State::SYN_SENT.index()] = seconds;
        timeouts
    };
    let assign = |seconds| policies.assign(0, Some(syn_sent(seconds)), zones, connections);
    let left = |connection: u16| {
        let port = 1000 + connection;
        let record = switch.records().into_iter().find(|record| record.tuples[0].ports.src == port).unwrap();
        Duration::from_nanos(record.expires - clock::now_ns()).as_secs_f64().round() as u32
    };
    assign(5000);
    assert!(switch.passes(1, &syn(1)));
    // Many more than there is room for, in a zone that all connections are in.
    for seconds in 6000..10_000 {
        assign(seconds);
    }
    assert!(switch.passes(1, &syn(1)) && switch.passes(1, &syn(2)));
    assert_eq!((left(1), left(2)), (5000, 9999));
    assign(5000);
    assert!(switch.passes(1, &syn(3)));
    assert_eq!(left(3), 5000);
    policies.assign(0, None, zones, connections);
    assert!(switch.passes(1, &syn(4)));
    assert_eq!((left(1), left(4)), (5000, 120));
}
