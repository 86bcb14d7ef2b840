//! The tutorial's connection, row by row: ct_state, verdict, state as OVS prints it, and timer.

mod support;

use conntrack_core::{Direction, Facts, Timer, Verdict, status};
use support::*;

#[test]
fn every_row() {
    let (mut session, outcome) = Session::start(&Facts::Tcp(&segment(SYN, 100, 0, 0))).unwrap();
    assert_eq!((outcome.ct_state, outcome.timer), (NEW, Timer::Set(120)));
    assert_eq!(session.state().ovs_plain_name(), "SYN_SENT");

    use Direction::{Original, Reply};
    let rows = [
        ("1b", Original, segment(SYN, 100, 0, 0), NEW, "SYN_SENT", 120),
        ("2", Reply, segment(SYN | ACK, 200, 101, 0), RPL, "ESTABLISHED", 60),
        ("3", Original, segment(ACK, 101, 201, 0), EST, "ESTABLISHED", 432_000),
        ("4", Original, segment(ACK, 101, 201, 1), EST, "ESTABLISHED", 300),
        ("5", Reply, segment(ACK, 201, 102, 0), RPL, "ESTABLISHED", 432_000),
        ("6", Original, segment(FIN | ACK, 102, 201, 0), EST, "FIN_WAIT_1", 120),
        ("7", Reply, segment(FIN | ACK, 201, 103, 0), RPL, "LAST_ACK", 30),
        ("8", Original, segment(ACK, 103, 202, 0), EST, "TIME_WAIT", 120),
        ("9", Original, segment(ACK, 101, 201, 1), EST, "TIME_WAIT", 120),
    ];
    for (row, direction, segment, ct_state, name, seconds) in rows {
        let seen = session.packet(direction, &Facts::Tcp(&segment));
        assert_eq!((seen.verdict, seen.ct_state), (Verdict::Accept, ct_state), "row {row}");
        assert_eq!((session.state().ovs_plain_name(), session.remaining), (name, seconds), "row {row}");
    }
    assert_eq!(session.connection.status, status::SEEN_REPLY | status::ASSURED | status::CONFIRMED);
}

#[test]
fn a_repeated_syn_does_not_renew_the_timer() {
    let mut session = Session::open(segment(SYN, 100, 0, 0));
    session.remaining = 5;
    assert_eq!(session.left(segment(SYN, 100, 0, 0)), accepted(NEW, Timer::Keep));
    assert_eq!(session.remaining, 5);
}

#[test]
fn a_syn_answered_by_rst_leaves_no_entry() {
    for flags in [RST, RST | ACK] {
        let mut session = Session::open(segment(SYN, 100, 0, 0));
        let seen = session.right(segment(flags, 0, 101, 0));
        assert_eq!(seen, Seen { verdict: Verdict::Destroy, ct_state: RPL, timer: Timer::Keep });
    }
}

#[test]
fn a_fin_without_ack_is_invalid() {
    let mut session = established();
    let before = session.connection;
    assert_eq!(session.left(segment(FIN, 101, 0, 0)), INVALID);
    assert_eq!(session.connection, before);
}

#[test]
fn a_syn_after_the_close_starts_anew() {
    let mut session = closed();
    let seen = session.left(segment(SYN, 5000, 0, 0));
    assert_eq!((seen.verdict, seen.timer), (Verdict::Reopen, Timer::Keep));

    // The server may be the client of the next connection.
    let seen = closed().right(segment(SYN, 5000, 0, 0));
    assert_eq!(seen.verdict, Verdict::Reopen);
}
