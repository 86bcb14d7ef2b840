//! SCTP associations, case by case, and what holds for any packets.

#![allow(clippy::unwrap_used, reason = "a test that cannot start must fail")]

mod support;

use conntrack_core::sctp::{MAX_CHUNKS, Packet, State};
use conntrack_core::{Direction, Facts, Timer, Verdict, ct_state, status};
use proptest::prelude::*;
use support::*;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;
/// The T bit.
const T: u8 = 1;

/// The tags that the caller and the called one want to see.
const CALLER: u32 = 0xc;
const CALLED: u32 = 0xd;

fn packet(vtag: u32, kinds: &[u8]) -> Packet {
    telling(vtag, kinds, 0)
}

fn telling(vtag: u32, kinds: &[u8], tag: u32) -> Packet {
    let mut packet = Packet::default();
    packet.start(vtag);
    for &kind in kinds {
        packet.push(kind, 0, 20, Some(tag));
    }
    packet
}

fn flagged(vtag: u32, kind: u8, flags: u8) -> Packet {
    let mut packet = Packet::default();
    packet.start(vtag);
    packet.push(kind, flags, 4, None);
    packet
}

fn begin(packet: &Packet) -> Option<Session> {
    Session::start(&Facts::Sctp(packet)).ok().map(|(session, _)| session)
}

fn left(session: &mut Session, packet: Packet) -> Seen {
    session.packet(Direction::Original, &Facts::Sctp(&packet))
}

fn right(session: &mut Session, packet: Packet) -> Seen {
    session.packet(Direction::Reply, &Facts::Sctp(&packet))
}

fn state(session: &Session) -> (State, [u32; 2]) {
    (session.connection.sctp_state, session.connection.vtags())
}

fn called() -> Session {
    let (session, outcome) = Session::start(&Facts::Sctp(&telling(0, &[INIT], CALLER))).unwrap();
    assert_eq!((outcome.ct_state, outcome.timer), (NEW, Timer::Set(10)));
    assert_eq!(state(&session), (State::CLOSED, [0, CALLER]));
    session
}

fn associated() -> Session {
    let mut session = called();
    let ack = telling(CALLER, &[INIT_ACK], CALLED);
    assert_eq!(right(&mut session, ack), accepted(RPL, Timer::Set(3)));
    assert_eq!(state(&session), (State::COOKIE_WAIT, [CALLED, CALLER]));
    assert_eq!(left(&mut session, packet(CALLED, &[COOKIE_ECHO, DATA])), accepted(EST, Timer::Set(3)));
    assert_eq!(state(&session).0, State::COOKIE_ECHOED);
    assert!(!session.assured());
    assert_eq!(right(&mut session, packet(CALLER, &[COOKIE_ACK, SACK])), accepted(RPL, Timer::Set(210)));
    assert_eq!(state(&session), (State::ESTABLISHED, [CALLED, CALLER]));
    assert!(session.assured());
    session
}

#[test]
fn an_association_is_shut_down_by_the_caller() {
    let mut session = associated();
    assert!(!session.connection.can_drop_early());
    assert_eq!(left(&mut session, packet(CALLED, &[DATA])), accepted(EST, Timer::Set(210)));
    assert_eq!(left(&mut session, packet(CALLED, &[SHUTDOWN])), accepted(EST, Timer::Set(3)));
    assert_eq!(state(&session).0, State::SHUTDOWN_SENT);
    assert!(session.connection.can_drop_early());
    assert_eq!(right(&mut session, packet(CALLER, &[SHUTDOWN_ACK])), accepted(RPL, Timer::Set(3)));
    assert_eq!(state(&session).0, State::SHUTDOWN_ACK_SENT);
    assert_eq!(left(&mut session, packet(CALLED, &[SHUTDOWN_COMPLETE])), accepted(EST, Timer::Set(10)));
    assert_eq!(state(&session).0, State::CLOSED);
}

#[test]
fn an_association_is_shut_down_by_the_called_one() {
    let mut session = associated();
    assert_eq!(right(&mut session, packet(CALLER, &[SACK, SHUTDOWN])), accepted(RPL, Timer::Set(3)));
    assert_eq!(state(&session).0, State::SHUTDOWN_RECD);
    assert_eq!(left(&mut session, packet(CALLED, &[SHUTDOWN_ACK])), accepted(EST, Timer::Set(3)));
    assert_eq!(right(&mut session, packet(CALLER, &[SHUTDOWN_COMPLETE])), accepted(RPL, Timer::Set(10)));
    assert_eq!(state(&session).0, State::CLOSED);
}

#[test]
fn packets_with_a_wrong_tag_are_invalid() {
    for kinds in [&[DATA][..], &[SACK], &[SHUTDOWN], &[ERROR], &[COOKIE_ECHO], &[COOKIE_ACK], &[ABORT]] {
        for tag in [0, CALLER, 77] {
            let mut session = associated();
            assert_eq!(left(&mut session, packet(tag, kinds)), INVALID, "{kinds:?} with {tag}");
            assert_eq!(session.connection, associated().connection);
        }
    }
    assert_eq!(left(&mut associated(), telling(CALLED, &[INIT], 5)), INVALID);
}

#[test]
fn an_abort_carries_the_tag_of_either_direction() {
    for (vtag, flags, fits) in [(CALLER, 0, true), (CALLED, T, true), (CALLED, 0, false), (CALLER, T, false)]
    {
        let mut session = associated();
        let seen = right(&mut session, flagged(vtag, ABORT, flags));
        assert_eq!(seen, if fits { accepted(RPL, Timer::Set(10)) } else { INVALID }, "{vtag} {flags}");
        assert_eq!(state(&session).0 == State::CLOSED, fits);
    }
}

#[test]
fn what_may_not_stand_together_is_invalid() {
    for kinds in
        [&[][..], &[DATA, COOKIE_ACK], &[SACK, COOKIE_ECHO], &[DATA, INIT], &[SHUTDOWN_COMPLETE, DATA]]
    {
        assert_eq!(right(&mut associated(), packet(CALLER, kinds)), INVALID, "{kinds:?}");
    }
    assert_eq!(left(&mut associated(), telling(0, &[INIT, DATA], 5)), INVALID);
    let mut cut = Packet::default();
    cut.start(0);
    assert!(!cut.push(INIT, 0, 20, None));
    assert_eq!(left(&mut associated(), cut), INVALID);
    let mut empty = Packet::default();
    empty.start(CALLED);
    assert!(!empty.push(DATA, 0, 0, None));
    assert_eq!(left(&mut associated(), empty), INVALID);
}

#[test]
fn only_some_packets_begin_an_association() {
    let begins = |vtag, kinds: &[u8]| begin(&telling(vtag, kinds, 5)).is_some();
    assert!(begins(0, &[INIT]) && begins(9, &[SHUTDOWN_ACK]) && begins(9, &[HEARTBEAT]));
    assert!(!begins(9, &[INIT]), "an INIT has no tag");
    for kinds in
        [&[DATA][..], &[SACK], &[ABORT], &[SHUTDOWN_COMPLETE], &[COOKIE_ACK], &[200], &[HEARTBEAT, DATA]]
    {
        assert!(!begins(0, kinds), "{kinds:?}");
    }
}

#[test]
fn a_repeated_init_does_not_renew_the_timer() {
    let mut session = called();
    assert_eq!(left(&mut session, telling(0, &[INIT], CALLER)), accepted(NEW, Timer::Keep));
    assert_eq!(left(&mut session, telling(0, &[INIT], 0xe)), accepted(NEW, Timer::Keep));
    assert_eq!(state(&session), (State::CLOSED, [0, 0xe]));
}

#[test]
fn both_ends_call_at_once() {
    let mut session = called();
    assert_eq!(right(&mut session, telling(0, &[INIT], CALLED)), accepted(RPL, Timer::Keep));
    // A tag that its end has not told in its INIT.
    assert_eq!(right(&mut session, telling(CALLER, &[INIT_ACK], 0xe)), INVALID);
    assert_eq!(right(&mut session, telling(CALLER, &[INIT_ACK], CALLED)), accepted(RPL, Timer::Set(3)));
    assert_eq!(left(&mut session, telling(CALLED, &[INIT_ACK], CALLER)), accepted(EST, Timer::Set(3)));
    assert_eq!(left(&mut session, packet(CALLED, &[COOKIE_ECHO])), accepted(EST, Timer::Set(3)));
    assert_eq!(right(&mut session, packet(CALLER, &[COOKIE_ACK])), accepted(RPL, Timer::Set(210)));
    // In answer to no INIT, another tag is none.
    assert_eq!(right(&mut session, telling(CALLER, &[INIT_ACK], 0xe)), INVALID);
}

#[test]
fn a_further_path_is_established_by_heartbeats() {
    let mut session = begin(&packet(CALLED, &[HEARTBEAT])).unwrap();
    assert_eq!(state(&session), (State::HEARTBEAT_SENT, [CALLED, 0]));
    assert_eq!(session.remaining, 30);
    assert_eq!(right(&mut session, packet(CALLER, &[HEARTBEAT_ACK])), accepted(RPL, Timer::Set(210)));
    assert_eq!(state(&session), (State::ESTABLISHED, [CALLED, CALLER]));
    assert!(session.assured());
    assert_eq!(left(&mut session, packet(CALLED, &[DATA])), accepted(EST, Timer::Set(210)));
}

#[test]
fn a_tag_changes_when_both_ends_say_so() {
    let mut session = associated();
    assert_eq!(left(&mut session, packet(5, &[HEARTBEAT])), accepted(EST, Timer::Keep));
    assert_eq!(left(&mut session, packet(5, &[HEARTBEAT_ACK])), INVALID, "its own end confirms nothing");
    assert_eq!(right(&mut session, packet(6, &[HEARTBEAT_ACK])), accepted(RPL, Timer::Set(210)));
    assert_eq!(state(&session), (State::ESTABLISHED, [0, 6]));
    assert_eq!(left(&mut session, packet(7, &[HEARTBEAT])), accepted(EST, Timer::Set(210)));
    assert_eq!(state(&session), (State::ESTABLISHED, [7, 6]));

    let mut session = associated();
    assert_eq!(left(&mut session, packet(5, &[HEARTBEAT, DATA])), INVALID);
    assert_eq!(left(&mut session, packet(5, &[HEARTBEAT, HEARTBEAT])), INVALID);
    // The first of the two was noted, until one with the right tag shows that nothing has changed.
    assert_eq!(left(&mut session, packet(CALLED, &[HEARTBEAT])), accepted(EST, Timer::Set(210)));
    assert_eq!(right(&mut session, packet(6, &[HEARTBEAT_ACK])), INVALID);
}

#[test]
fn states_have_ovs_names() {
    let names: Vec<_> = (0..=9).map(|number| State(number).ovs_name()).collect();
    assert_eq!(
        names,
        [
            "CLOSED",
            "CLOSED",
            "COOKIE_WAIT",
            "COOKIE_ECHOED",
            "ESTABLISHED",
            "SHUTDOWN_SENT",
            "SHUTDOWN_RECD",
            "SHUTDOWN_ACK_SENT",
            "HEARTBEAT_SENT",
            "CLOSED"
        ]
    );
}

#[test]
fn many_small_messages_are_not_all_looked_at() {
    let mut packet = Packet::default();
    packet.start(CALLED);
    let asked = (0..100).take_while(|_| packet.push(DATA, 3, 17, Some(1))).count();
    assert_eq!(asked, MAX_CHUNKS - 1);
    assert_eq!(left(&mut associated(), packet), accepted(EST, Timer::Set(210)));
}

#[test]
fn four_control_chunks_count() {
    let mut session = associated();
    let seen = left(&mut session, packet(CALLED, &[ERROR, ERROR, DATA, ERROR, SHUTDOWN, ERROR]));
    assert_eq!(seen, accepted(EST, Timer::Set(3)));
    assert_eq!(left(&mut associated(), packet(CALLED, &[ERROR; 20])), accepted(EST, Timer::Set(210)));
    let mut session = associated();
    assert_eq!(
        left(&mut session, packet(CALLED, &[ERROR, ERROR, ERROR, ERROR, SHUTDOWN])),
        accepted(EST, Timer::Set(210))
    );
}

/// Few, so that those of different packets are often the same.
fn tag() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..4, any::<u32>()]
}

prop_compose! {
    fn any_packet()(
        vtag in tag(),
        chunks in prop::collection::vec(
            (prop_oneof![0u8..16, any::<u8>()], any::<u8>(), prop_oneof![9 => Just(16u16), 1 => any::<u16>()], prop::option::weighted(0.9, tag())),
            0..20,
        ),
    ) -> Packet {
        let mut packet = Packet::default();
        packet.start(vtag);
        for (kind, flags, length, tag) in chunks {
            packet.push(kind, flags, length, tag);
        }
        packet
    }
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Original), Just(Direction::Reply)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn sequences_of_packets_keep_the_state_legal(
        first in prop_oneof![
            any_packet(),
            tag().prop_map(|tag| telling(0, &[INIT], tag)),
            tag().prop_map(|tag| packet(tag, &[HEARTBEAT])),
        ],
        rest in prop::collection::vec((direction(), any_packet()), 0..40),
    ) {
        let Some(mut session) = begin(&first) else { return Ok(()) };
        for (direction, packet) in rest {
            let before = session.connection;
            let seen = session.packet(direction, &Facts::Sctp(&packet));
            let after = session.connection;
            prop_assert!((1..=8).contains(&after.sctp_state.0), "{:?}", after.sctp_state);
            prop_assert!(session.remaining >= 1 && session.remaining <= 210);
            prop_assert_eq!(after.status & before.status, before.status);
            prop_assert_eq!(after.tcp, before.tcp);
            match seen.verdict {
                Verdict::Accept => prop_assert_ne!(seen.ct_state & (ct_state::EST | ct_state::NEW), 0),
                Verdict::Invalid => {
                    prop_assert_eq!((seen.ct_state, seen.timer), (INV, Timer::Keep));
                    prop_assert_eq!(after.status & status::SEEN_REPLY, before.status & status::SEEN_REPLY);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
