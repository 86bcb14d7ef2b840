//! The NORMAL action: a learning switch.

use std::time::Duration;

use ofctl::action::Action;
use ofctl::flow::Match;
use ofctl::port::PortNo;
use switchd::datapath::host::{Arrival, Memory, Outcome};
use switchd::datapath::{FlowTables, Sizes};
use switchd::rules::{BridgeId, Rules};
use switchd_ebpf::drop_reason::DropReason;

use crate::frames;

const START: Duration = Duration::from_secs(5000);

/// Two bridges with four ports each, on which everything is NORMAL.
fn bridges() -> FlowTables<Memory> {
    let mut memory = Memory::new(Sizes { flows: 2, connections: 1 });
    for bridge in [BridgeId(0), BridgeId(1)] {
        memory.set_ports(bridge, vec![1, 2, 3, 4]);
    }
    let mut tables = FlowTables::new(memory);
    let normal = [Action::Output { port: PortNo::NORMAL, max_len: 0 }];
    for bridge in [BridgeId(0), BridgeId(1)] {
        tables.add(bridge, 0, 0, &Match::ANY, &normal).unwrap();
    }
    tables.commit();
    tables
}

/// A frame from the station `from` to the station `to`.
fn frame(from: u8, to: u8) -> Vec<u8> {
    let mut frame = frames::ethernet(0, 0x1234, b"...");
    (frame[5], frame[11]) = (to, from);
    frame
}

fn send_on(tables: &FlowTables<Memory>, bridge: u8, port: u16, after: u64, frame: &[u8]) -> Outcome {
    let now = START + Duration::from_secs(after);
    tables.store().run(&Arrival { bridge: BridgeId(bridge), port, now }, frame)
}

/// The ports that a frame leaves by, on the first bridge.
fn send(tables: &FlowTables<Memory>, port: u16, after: u64, frame: &[u8]) -> Vec<u16> {
    let outcome = send_on(tables, 0, port, after, frame);
    assert!(outcome.outputs.iter().all(|(_, bytes)| bytes == frame));
    outcome.outputs.into_iter().map(|(port, _)| port).collect()
}

#[test]
fn a_station_is_found_where_it_was_last_seen() {
    let tables = bridges();
    assert_eq!(send(&tables, 1, 0, &frame(1, 2)), [2, 3, 4]);
    assert_eq!(send(&tables, 2, 0, &frame(2, 1)), [1]);
    assert_eq!(send(&tables, 1, 1, &frame(1, 2)), [2]);
    // It moves.
    assert_eq!(send(&tables, 4, 2, &frame(2, 1)), [1]);
    assert_eq!(send(&tables, 1, 3, &frame(1, 2)), [4]);
    // Where it already is, nothing is to be done.
    let outcome = send_on(&tables, 0, 4, 4, &frame(9, 2));
    assert_eq!(outcome, Outcome { outputs: vec![], drops: vec![(DropReason::InputPort, 1)] });
    // The other bridge knows nothing of it.
    assert_eq!(send_on(&tables, 1, 1, 5, &frame(1, 2)).outputs.len(), 3);
}

#[test]
fn a_station_is_forgotten_after_five_minutes_of_silence() {
    let tables = bridges();
    send(&tables, 2, 0, &frame(2, 1));
    assert_eq!(send(&tables, 1, 300, &frame(1, 2)), [2]);
    assert_eq!(send(&tables, 1, 301, &frame(1, 2)), [2, 3, 4]);
    send(&tables, 2, 302, &frame(2, 1));
    assert_eq!(send(&tables, 1, 602, &frame(1, 2)), [2]);
}

#[test]
fn a_station_is_known_by_vlan() {
    let tables = bridges();
    send(&tables, 2, 0, &frames::tagged(&frame(2, 1), 5));
    assert_eq!(send(&tables, 1, 0, &frames::tagged(&frame(1, 2), 6)), [2, 3, 4]);
    assert_eq!(send(&tables, 1, 0, &frame(1, 2)), [2, 3, 4]);
    assert_eq!(send(&tables, 1, 0, &frames::tagged(&frame(1, 2), 5)), [2]);
    // The priority is not the VLAN.
    assert_eq!(send(&tables, 1, 0, &frames::tagged(&frame(1, 2), 0xe005)), [2]);
}

#[test]
fn groups_are_flooded_and_never_learned() {
    let tables = bridges();
    let mut group = frame(1, 2);
    group[0] = 1;
    assert_eq!(send(&tables, 1, 0, &group), [2, 3, 4]);
    let mut from_group = frame(1, 2);
    from_group[6] = 3;
    send(&tables, 3, 0, &from_group);
    let mut to_it = frame(2, 1);
    to_it[0] = 3;
    assert_eq!(send(&tables, 2, 0, &to_it), [1, 3, 4]);
}

#[test]
fn bridge_protocols_stay_on_their_link() {
    let tables = bridges();
    let mut bpdu = frame(1, 0);
    bpdu[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0x0f]);
    let outcome = send_on(&tables, 0, 1, 0, &bpdu);
    assert_eq!(outcome, Outcome { outputs: vec![], drops: vec![(DropReason::ReservedAddress, 1)] });
    for (address, stays) in [
        ([1, 0x80, 0xc2, 0, 0, 0], true),
        ([1, 0x80, 0xc2, 0, 0, 0x10], false),
        // Discovery and spanning trees of other makers.
        ([1, 0, 0xc, 0, 0, 0], true),
        ([1, 0, 0xc, 0xcc, 0xcc, 0xbf], false),
        ([1, 0, 0xc, 0xcc, 0xcc, 0xc0], true),
        ([1, 0, 0xc, 0xcc, 0xcc, 0xc7], true),
        ([1, 0, 0xc, 0xcc, 0xcc, 0xc8], false),
        ([1, 0, 0xc, 0xcc, 0xcc, 0xcc], true),
        ([1, 0, 0xc, 0xcc, 0xcc, 0xcd], true),
        ([1, 0, 0xc, 0xcd, 0xcd, 0xcd], true),
        ([0, 0xe0, 0x2b, 0, 0, 0], true),
        ([0, 0xe0, 0x2b, 0, 0, 1], false),
        ([0, 0xe0, 0x2b, 0, 0, 4], true),
        ([0, 0xe0, 0x2b, 0, 0, 6], true),
    ] {
        bpdu[..6].copy_from_slice(&address);
        let ports = send(&tables, 1, 0, &bpdu);
        assert_eq!(ports, if stays { vec![] } else { vec![2, 3, 4] }, "{address:x?}");
    }
}
