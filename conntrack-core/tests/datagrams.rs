//! UDP, ICMP, ICMPv6 and all other protocols.

mod support;

use conntrack_core::{Direction, Facts, Timer, icmp, status};
use support::*;

#[test]
fn udp_is_a_stream_after_two_seconds_of_both_ways() {
    let (mut session, outcome) = Session::start(&Facts::Udp).unwrap();
    assert_eq!((outcome.ct_state, outcome.timer), (NEW, Timer::Set(30)));
    let opened = session.now_ns;
    // However old, without an answer it is no stream.
    session.now_ns = opened + 10 * SECOND;
    assert_eq!(session.packet(Direction::Original, &Facts::Udp), accepted(NEW, Timer::Set(30)));

    session.now_ns = opened + 2 * SECOND;
    assert_eq!(session.packet(Direction::Reply, &Facts::Udp), accepted(RPL, Timer::Set(30)));
    assert_eq!(session.packet(Direction::Original, &Facts::Udp), accepted(EST, Timer::Set(30)));
    assert!(!session.assured());

    session.now_ns = opened + 2 * SECOND + 1;
    assert_eq!(session.packet(Direction::Original, &Facts::Udp), accepted(EST, Timer::Set(120)));
    assert!(session.assured());
}

#[test]
fn a_first_reply_makes_no_stream_however_late() {
    let (mut session, _) = Session::start(&Facts::Udp).unwrap();
    session.now_ns += 20 * SECOND;
    assert_eq!(session.packet(Direction::Reply, &Facts::Udp), accepted(RPL, Timer::Set(30)));
    assert_eq!(session.packet(Direction::Reply, &Facts::Udp), accepted(RPL, Timer::Set(120)));
}

#[test]
fn icmp_queries_open_and_replies_do_not() {
    for icmp_type in 0..=u8::MAX {
        let v4 = Session::start(&Facts::Icmp(icmp_type));
        assert_eq!(v4.is_ok(), [8, 13, 15, 17].contains(&icmp_type), "type {icmp_type}");
        let v6 = Session::start(&Facts::Icmpv6(icmp_type));
        assert_eq!(v6.is_ok(), [128, 139].contains(&icmp_type), "type {icmp_type}");
        for outcome in [v4.err(), v6.err()].into_iter().flatten() {
            assert_eq!((outcome.ct_state, outcome.timer), (INV, Timer::Keep));
        }
    }
}

#[test]
fn icmp_is_never_assured() {
    for (query, reply) in [(Facts::Icmp(8), Facts::Icmp(0)), (Facts::Icmpv6(128), Facts::Icmpv6(129))] {
        let (mut session, outcome) = Session::start(&query).unwrap();
        assert_eq!((outcome.ct_state, outcome.timer), (NEW, Timer::Set(30)));
        assert_eq!(session.packet(Direction::Original, &query), accepted(NEW, Timer::Set(30)));
        assert_eq!(session.packet(Direction::Reply, &reply), accepted(RPL, Timer::Set(30)));
        assert_eq!(session.packet(Direction::Original, &query), accepted(EST, Timer::Set(30)));
        assert_eq!(session.connection.status, status::SEEN_REPLY | status::CONFIRMED);
    }
}

#[test]
fn every_query_is_inverted_and_back() {
    for icmp_type in 0..=u8::MAX {
        if let Some(inverse) = icmp::invert(icmp_type) {
            assert_eq!(icmp::invert(inverse), Some(icmp_type));
            assert_ne!(icmp::opens(icmp_type), icmp::opens(inverse));
        } else {
            assert!(!icmp::opens(icmp_type));
        }
        if let Some(inverse) = icmp::invert_v6(icmp_type) {
            assert_eq!(icmp::invert_v6(inverse), Some(icmp_type));
            assert_ne!(icmp::opens_v6(icmp_type), icmp::opens_v6(inverse));
        } else {
            assert!(!icmp::opens_v6(icmp_type));
        }
    }
    assert_eq!([8, 13, 15, 17].map(icmp::invert), [Some(0), Some(14), Some(16), Some(18)]);
    assert_eq!([128, 139].map(icmp::invert_v6), [Some(129), Some(140)]);
}

#[test]
fn other_protocols() {
    let gre = Facts::Other(47);
    let (mut session, outcome) = Session::start(&gre).unwrap();
    assert_eq!((outcome.ct_state, outcome.timer), (NEW, Timer::Set(600)));
    assert_eq!(session.connection.protocol, 47);
    assert_eq!(session.packet(Direction::Original, &gre), accepted(NEW, Timer::Set(600)));
    assert_eq!(session.packet(Direction::Reply, &gre), accepted(RPL, Timer::Set(600)));
    assert_eq!(session.packet(Direction::Original, &gre), accepted(EST, Timer::Set(600)));
    assert!(session.connection.can_drop_early());
}
