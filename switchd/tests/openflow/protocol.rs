//! Messages, byte by byte. What Open vSwitch 3.1 answers was read off a running one.

use ofctl::flow::FlowMod;
use ofctl::wire::CtFlush;
use switchd::datapath::Selection;
use switchd::rules::RuleStats;

use crate::fake_switch::{FakeSwitch, message};
use crate::flows::*;

const ERROR: u8 = 1;

/// An OFPT_ERROR of OpenFlow 1.0's own about a message with transaction id 5.
fn error(kind: u16, code: u16, offender: &[u8]) -> Vec<u8> {
    message(ERROR, 5, &[&kind.to_be_bytes(), &code.to_be_bytes(), offender].concat())
}

#[test]
fn hello_comes_first_and_older_versions_are_fine() {
    let switch = FakeSwitch::start();
    let mut newer = switch.connect();
    let mut hello = message(0, 7, &[]);
    hello[0] = 6;
    assert_eq!(newer.ask(&hello), message(0, 0, &[]));
    assert_eq!(newer.ask(&message(18, 5, &[])), message(19, 5, &[]), "barrier");

    let mut mute = switch.connect();
    mute.send(&message(2, 5, &[]));
    assert!(mute.is_closed(), "an echo is no HELLO");
}

#[test]
fn without_a_common_version_there_is_an_error_and_the_end() {
    let switch = FakeSwitch::start();
    let mut client = switch.connect();
    let only_13: &[u8] = &[0, 1, 0, 8, 0, 0, 0, 1 << 4];
    let mut hello = message(0, 7, only_13);
    hello[0] = 4;
    assert_eq!(client.ask(&hello), message(0, 0, &[]));
    let error = client.receive();
    assert_eq!(
        (error[0], error[1], &error[4..12]),
        (4, ERROR, &[0, 0, 0, 7, 0, 0, 0, 0][..]),
        "HELLO_FAILED, INCOMPATIBLE"
    );
    assert!(client.is_closed());
}

#[test]
fn echo() {
    let switch = FakeSwitch::start();
    assert_eq!(switch.client().ask(&message(2, 5, b"abc")), message(3, 5, b"abc"));
}

#[test]
fn what_cannot_be_served_is_answered_by_its_error() {
    let switch = FakeSwitch::start();
    let mut client = switch.client();
    let stats = |kind: u16| message(16, 5, &[&kind.to_be_bytes()[..], &[0, 0]].concat());
    let vendor =
        |vendor: u32, subtype: u32| message(4, 5, &[vendor.to_be_bytes(), subtype.to_be_bytes()].concat());
    let packet_out = message(13, 5, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    let cases = [
        ((1, 1), message(99, 5, b"abc")),
        ((1, 2), stats(77)),
        ((1, 3), vendor(0x1234, 1)),
        ((1, 4), vendor(0x2320, 9999)),
        ((1, 6), message(16, 5, &[])),
        ((1, 6), message(5, 5, b"zzzz")),
        ((1, 6), message(14, 5, &[0; 20])),
        ((1, 1), message(6, 5, &[0; 24])),
        ((1, 1), packet_out),
        ((4, 0), message(15, 5, &[0; 24])),
    ];
    for ((kind, code), request) in cases {
        assert_eq!(client.ask(&request), error(kind, code, &request), "{request:x?}");
    }
    assert_eq!(client.ask(&message(2, 5, b"still here")), message(3, 5, b"still here"));
}

#[test]
fn another_version_after_the_hellos_is_an_error() {
    let switch = FakeSwitch::start();
    let mut request = message(5, 5, &[]);
    request[0] = 4;
    let answer = switch.client().ask(&request);
    assert_eq!(answer[1..], error(1, 0, &request)[1..]);
}

/// A flow-mod with everything wildcarded but the port of entry.
fn flow_mod_bytes(
    xid: u32,
    command: u16,
    in_port: u16,
    flags: u16,
    hard_timeout: u16,
    actions: &[u8],
) -> Vec<u8> {
    let wildcards = 0x003f_ffff_u32 & !1;
    let mut body = wildcards.to_be_bytes().to_vec();
    body.extend(in_port.to_be_bytes());
    body.resize(40, 0);
    body.extend([0; 8]);
    body.extend(command.to_be_bytes());
    body.extend([0, 0]);
    body.extend(hard_timeout.to_be_bytes());
    body.extend([0x80, 0]);
    body.extend([0xff; 4]);
    body.extend([0xff, 0xff]);
    body.extend(flags.to_be_bytes());
    body.extend(actions);
    message(14, xid, &body)
}

#[test]
fn flow_mods_in_a_row_succeed_and_fail_one_by_one() {
    let switch = FakeSwitch::start();
    let commits = switch.with(|_, rules| rules.commits);
    let mut row = Vec::new();
    let check_overlap = 2;
    for port in 1..=20 {
        row.extend(flow_mod_bytes(100 + u32::from(port), 0, port, 0, 0, &[]));
    }
    // Port 5, said twice with different priorities, does not overlap; everything at 0x8000 does.
    let overlapping = {
        let mut bytes = flow_mod_bytes(5, 0, 7, check_overlap, 0, &[]);
        bytes[8..12].copy_from_slice(&0x003f_ffff_u32.to_be_bytes());
        bytes
    };
    row.extend(&overlapping);
    row.extend(flow_mod_bytes(200, 0, 21, 0, 0, &[]));
    row.extend(message(18, 6, &[]));
    let mut client = switch.client();
    assert_eq!(client.ask(&row), error(3, 1, &overlapping));
    assert_eq!(client.receive(), message(19, 6, &[]), "the barrier is answered last");
    switch.with(|tables, rules| {
        assert_eq!(dump(tables, rules, secs(1000)).len(), 22);
        assert!(rules.commits <= commits + 3, "{} commits", rules.commits - commits);
    });
}

#[test]
fn an_add_restarts_counters() {
    let switch = FakeSwitch::start();
    let mut client = switch.client();
    let add = flow_mod_bytes(1, 0, 1, 0, 0, &[]);
    client.send(&add);
    client.ask(&message(18, 2, &[]));
    switch.with(|_, rules| rules.hit(&[], RuleStats { packets: 5, bytes: 500, used: Some(secs(1)) }));
    client.send(&add);
    client.ask(&message(18, 2, &[]));
    switch.with(|tables, rules| {
        let flows = dump(tables, rules, secs(1000));
        assert_eq!(flows.iter().map(|flow| flow.n_packets).collect::<Vec<_>>(), [0, 0]);
    });
}

#[test]
fn a_long_dump_comes_in_parts() {
    let switch = FakeSwitch::start();
    let count = 3000;
    switch.with(|tables, rules| {
        let mods: Vec<FlowMod> = (1..=count).map(|port| add(in_port(port), output(port))).collect();
        tables.apply(rules, &mods, secs(0));
    });
    let mut body = vec![0, 1, 0, 0];
    body.extend(0x003f_ffff_u32.to_be_bytes());
    body.resize(4 + 40, 0);
    body.extend([0xff, 0, 0xff, 0xff]);
    let mut client = switch.client();
    client.send(&message(16, 9, &body));
    let (mut bytes, mut parts) = (0, 0);
    loop {
        let part = client.receive();
        assert_eq!((part[1], &part[4..10]), (17, &[0, 0, 0, 9, 0, 1][..]));
        bytes += part.len() - 12;
        parts += 1;
        if part[11] & 1 == 0 {
            break;
        }
    }
    // An ofp10_flow_stats with one output action has 88 + 8 bytes; NORMAL is there, too.
    assert_eq!(bytes, (usize::from(count) + 1) * 96);
    assert!(parts > 4);
    assert_eq!(client.ask(&message(18, 5, &[])), message(19, 5, &[]), "nothing comes after the last part");
}

#[test]
fn those_who_want_are_told_of_flows_that_go() {
    let switch = FakeSwitch::start();
    let (mut teller, mut silent) = (switch.client(), switch.client());
    teller.send(&message(9, 1, &[0, 0, 0, 128]));
    teller.ask(&message(18, 2, &[]));
    let send_flow_rem = 1;
    let add = flow_mod_bytes(3, 0, 1, send_flow_rem, 30, &[]);
    teller.send(&add);
    teller.ask(&message(18, 4, &[]));
    switch.advance(31);
    let removed = teller.receive();
    assert_eq!((removed[1], removed.len()), (11, 88), "OFPT_FLOW_REMOVED");
    assert_eq!(removed[12..48], add[12..48], "the match; its wildcards may be written in several ways");
    assert_eq!(removed[58], 1, "hard timeout");
    assert_eq!(silent.ask(&message(18, 5, &[])), message(19, 5, &[]), "nothing unasked");

    silent.send(&add);
    silent.send(&flow_mod_bytes(6, 3, 1, 0, 0, &[]));
    assert_eq!(teller.receive()[58], 2, "deleted by another");
}

#[test]
fn port_mods_and_queues() {
    let switch = FakeSwitch::start();
    let mut client = switch.client();
    let port_mod = |mac: u8, mask: u8| {
        let mut body = [0; 24];
        body[1] = 1;
        body[2..8].copy_from_slice(&[2, 0, 0, 0, 0, mac]);
        body[11] = 1;
        body[15] = mask;
        message(15, 5, &body)
    };
    assert_eq!(client.ask(&port_mod(9, 1)), error(4, 1, &port_mod(9, 1)), "another address");
    assert_eq!(client.ask(&port_mod(1, 1)), error(1, 5, &port_mod(1, 1)), "ports cannot be changed");
    client.send(&port_mod(1, 0));
    assert_eq!(client.ask(&message(18, 5, &[])), message(19, 5, &[]), "no change is no error");

    let queues = |port: u16, queue: u32| {
        message(16, 5, &[&[0, 5, 0, 0][..], &port.to_be_bytes(), &[0, 0], &queue.to_be_bytes()].concat())
    };
    assert_eq!(client.ask(&queues(9, !0)), error(5, 0, &queues(9, !0)));
    assert_eq!(client.ask(&queues(1, 0)), error(5, 1, &queues(1, 0)));
    assert_eq!(client.ask(&queues(0xfffc, !0)), message(17, 5, &[0, 5, 0, 0]));
}

#[test]
fn connections_are_forgotten() {
    let switch = FakeSwitch::start();
    let mut client = switch.client();
    // NXT_CT_FLUSH_ZONE: the vendor, the subtype, six bytes of zeros, the zone.
    client.send(&message(4, 1, &[0, 0, 0x23, 0x20, 0, 0, 0, 29, 0, 0, 0, 0, 0, 0, 1, 2]));
    // NXT_CT_FLUSH: UDP; a zone as a property, padded.
    let mut body = vec![0, 0, 0x23, 0x20, 0, 0, 0, 32, 17, 0, 0, 0, 0, 0, 0, 0];
    body.extend([0, 2, 0, 8, 0, 7, 0, 0]);
    client.send(&message(4, 2, &body));
    assert_eq!(client.ask(&message(18, 3, &[])), message(19, 3, &[]));
    let flush = CtFlush { ip_proto: 17, zone: Some(7), ..CtFlush::default() };
    assert_eq!(switch.take_flushed(), [Selection::zone(0x102), Selection::new(flush)]);

    // A property that does not exist.
    body[17] = 99;
    let refused = client.ask(&message(4, 4, &body));
    assert_eq!((refused[1], &refused[4..8]), (1, &[0, 0, 0, 4][..]));
    assert_eq!(switch.take_flushed(), []);
}
