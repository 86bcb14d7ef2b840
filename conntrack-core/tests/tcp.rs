//! TCP beyond the tutorial: openings, closings, resets, segments out of the window, timers.

mod support;

use conntrack_core::tcp::{State, peer_flags};
use conntrack_core::{Facts, Outcome, Timer, Verdict, status};
use support::*;

#[test]
fn only_syn_and_ack_open_a_connection() {
    let opens = |flags| Session::start(&Facts::Tcp(&segment(flags, 100, 200, 0))).is_ok();
    for flags in [SYN, SYN | PSH, SYN | URG, SYN | 0xc0, ACK, ACK | PSH, ACK | URG, ACK | 0xc0] {
        assert!(opens(flags), "{flags:#x}");
    }
    for flags in [0, SYN | ACK, FIN | ACK, RST, RST | ACK, FIN, PSH, URG, SYN | FIN, SYN | RST, 0xff] {
        assert!(!opens(flags), "{flags:#x}");
        let outcome = Session::start(&Facts::Tcp(&segment(flags, 100, 200, 0))).unwrap_err();
        assert_eq!((outcome.ct_state, outcome.timer), (INV, Timer::Keep));
    }
}

#[test]
fn opening_forgets_what_the_memory_held() {
    let mut session = closed();
    let syn = segment(SYN, 9000, 0, 0);
    let mut outcome = Outcome::default();
    assert!(session.connection.open(&Facts::Tcp(&syn), 0, &session.timeouts, &mut outcome));
    let fresh = Session::open(syn).connection;
    assert_eq!(session.connection.tcp, fresh.tcp);
    assert_eq!(session.connection.status, 0);
}

#[test]
fn simultaneous_open() {
    let mut session = Session::open(segment(SYN, 100, 0, 0));
    assert_eq!(session.right(segment(SYN, 200, 0, 0)), accepted(RPL, Timer::Keep));
    assert_eq!((session.state(), session.state().ovs_name()), (State::SYN_SENT2, "SYN_SENT"));
    assert_eq!(session.left(segment(SYN | ACK, 100, 201, 0)), accepted(EST, Timer::Set(60)));
    assert_eq!(session.state(), State::SYN_RECV);
    assert_eq!(session.right(segment(SYN | ACK, 200, 101, 0)), accepted(RPL, Timer::Keep));
    assert_eq!(session.right(segment(ACK, 201, 101, 0)), accepted(RPL, Timer::Set(432_000)));
    assert_eq!(session.state(), State::ESTABLISHED);
    assert!(session.assured());
}

#[test]
fn mid_stream_pickup_is_new_until_a_reply_and_short_lived_until_assured() {
    let (mut session, outcome) = Session::start(&Facts::Tcp(&segment(ACK, 5000, 9000, 100))).unwrap();
    assert_eq!((outcome.ct_state, outcome.timer), (NEW, Timer::Set(300)));
    assert_eq!(session.state(), State::ESTABLISHED);
    assert_eq!(session.left(segment(ACK, 5100, 9000, 100)), accepted(NEW, Timer::Set(300)));
    assert_eq!(session.right(segment(ACK, 9000, 5200, 0)).ct_state, RPL);
    assert!(!session.assured());
    assert_eq!(session.left(segment(ACK, 5200, 9000, 0)).ct_state, EST);
    assert!(session.assured());
    // Nothing is out of the window of a side whose window scale is unknown.
    assert_eq!(session.left(segment(ACK, 500_000, 9000, 10)).verdict, Verdict::Accept);
}

#[test]
fn a_syn_with_a_higher_number_replaces_an_unanswered_one() {
    let mut session = Session::open(segment(SYN, 100, 0, 0));
    assert_eq!(session.left(segment(SYN, 70_000, 0, 0)), accepted(NEW, Timer::Keep));
    assert_eq!(session.connection.tcp.peers[0].end, 70_001);
    assert_eq!(session.right(segment(SYN | ACK, 200, 70_001, 0)), accepted(RPL, Timer::Set(60)));
}

#[test]
fn a_syn_ack_of_something_else_is_invalid() {
    let mut session = Session::open(segment(SYN, 100, 0, 0));
    assert_eq!(session.right(segment(SYN | ACK, 200, 4711, 0)), INVALID);
    assert_eq!(session.state(), State::SYN_SENT);
    assert_eq!(session.connection.status & status::SEEN_REPLY, 0);
}

#[test]
fn a_syn_ack_from_the_client_is_invalid() {
    let mut session = established();
    assert_eq!(session.left(segment(SYN | ACK, 101, 201, 0)), INVALID);
}

#[test]
fn fins_in_every_order() {
    // One side after the other, each FIN acknowledged by itself.
    let mut session = established();
    assert_eq!(session.left(segment(FIN | ACK, 101, 201, 0)), accepted(EST, Timer::Set(120)));
    assert_eq!(session.state(), State::FIN_WAIT);
    assert_eq!(session.right(segment(ACK, 201, 102, 0)), accepted(RPL, Timer::Set(60)));
    assert_eq!(session.state(), State::CLOSE_WAIT);
    assert_eq!(session.right(segment(ACK, 201, 102, 10)), accepted(RPL, Timer::Set(60)));
    assert_eq!(session.right(segment(FIN | ACK, 211, 102, 0)), accepted(RPL, Timer::Set(30)));
    assert_eq!(session.state(), State::LAST_ACK);
    assert_eq!(session.left(segment(ACK, 102, 212, 0)), accepted(EST, Timer::Set(120)));
    assert_eq!(session.state(), State::TIME_WAIT);

    // The called side first.
    let mut session = established();
    session.right(segment(FIN | ACK, 201, 101, 0));
    assert_eq!(session.state(), State::FIN_WAIT);
    assert_eq!(session.connection.tcp.peers[1].flags & peer_flags::CLOSE_INIT, peer_flags::CLOSE_INIT);
    assert_eq!(session.connection.tcp.peers[0].flags & peer_flags::CLOSE_INIT, 0);

    // Both at once: neither has seen the other's FIN.
    let mut session = established();
    session.left(segment(FIN | ACK, 101, 201, 0));
    assert_eq!(session.right(segment(FIN | ACK, 201, 101, 0)), accepted(RPL, Timer::Set(30)));
    assert_eq!(session.left(segment(ACK, 102, 202, 0)), accepted(EST, Timer::Set(120)));
    assert_eq!(session.right(segment(ACK, 202, 102, 0)), accepted(RPL, Timer::Set(120)));
    assert_eq!(session.state(), State::TIME_WAIT);
}

#[test]
fn a_rst_closes_with_the_exact_sequence_number_only() {
    let mut session = established();
    assert_eq!(session.right(segment(RST, 201, 0, 0)), accepted(RPL, Timer::Set(10)));
    assert_eq!((session.state(), session.state().ovs_name()), (State::CLOSE, "CLOSING"));

    // In the window, but not exact: the receiver will challenge it. Until it does, the timer is short.
    let mut session = established();
    assert_eq!(session.right(segment(RST, 300, 0, 0)), accepted(RPL, Timer::Set(10)));
    assert_eq!(session.state(), State::ESTABLISHED);
    assert_eq!(session.left(segment(ACK, 101, 201, 0)), accepted(EST, Timer::Set(300)));

    // Before what was acknowledged.
    let mut session = established();
    assert_eq!(session.right(segment(RST, 200, 0, 0)), INVALID);
    assert_eq!((session.state(), session.remaining), (State::ESTABLISHED, 432_000));

    // Right behind data that the receiver has yet to acknowledge.
    let mut session = established();
    session.right(segment(ACK, 201, 101, 19));
    assert_eq!(session.right(segment(RST | ACK, 220, 101, 0)), accepted(RPL, Timer::Set(10)));
    assert_eq!(session.state(), State::CLOSE);
}

#[test]
fn a_rst_far_beyond_the_window_is_invalid() {
    let mut session = established();
    assert_eq!(session.right(segment(RST, 2_000_000, 0, 0)), INVALID);
    assert_eq!(session.state(), State::ESTABLISHED);
}

#[test]
fn fins_and_rsts_out_of_the_window_from_both_sides_shorten_the_timer() {
    let mut session = established();
    assert_eq!(session.left(segment(FIN | ACK, 2_000_000, 201, 0)), INVALID);
    assert_eq!(session.remaining, 432_000);
    let seen = session.right(segment(FIN | ACK, 2_000_000, 101, 0));
    assert_eq!(seen, Seen { timer: Timer::Cap(300), ..INVALID });
    assert_eq!((session.remaining, session.state()), (300, State::ESTABLISHED));
}

#[test]
fn after_a_rst_the_aborting_side_may_call_again_at_once() {
    let mut session = established();
    session.left(segment(RST, 101, 0, 0));
    assert_eq!(session.state(), State::CLOSE);
    assert_eq!(session.left(segment(SYN, 9000, 0, 0)).verdict, Verdict::Reopen);
}

#[test]
fn after_a_rst_of_the_server_a_syn_counts_once_the_server_accepts_it() {
    let mut session = established();
    session.right(segment(RST, 201, 0, 0));
    let syn = with_options(segment(SYN, 9000, 0, 0), &[3, 3, 7, 4, 2]);
    assert_eq!(session.left(syn), accepted(EST, Timer::Keep));
    assert_eq!(session.state(), State::CLOSE);
    // An answer to something else changes nothing.
    let mut other = session;
    assert_eq!(other.right(segment(SYN | ACK, 7000, 4711, 0)), accepted(RPL, Timer::Keep));
    assert_eq!(other.state(), State::CLOSE);

    let syn_ack = with_options(segment(SYN | ACK, 7000, 9001, 0), &[3, 3, 2]);
    assert_eq!(session.right(syn_ack), accepted(RPL, Timer::Set(60)));
    assert_eq!(session.state(), State::SYN_RECV);
    let [left, right] = session.connection.tcp.peers;
    assert_eq!((left.end, left.scale, right.end, right.scale), (9001, 7, 7001, 2));
    assert_eq!(left.flags, peer_flags::WINDOW_SCALE | peer_flags::SACK_PERM);
    assert_eq!(session.left(segment(ACK, 9001, 7001, 0)).verdict, Verdict::Accept);
    assert_eq!(session.state(), State::ESTABLISHED);
}

#[test]
fn a_syn_on_a_running_connection_is_judged_by_the_answer() {
    let mut session = established();
    assert_eq!(session.left(segment(SYN, 9000, 0, 0)), accepted(EST, Timer::Keep));
    assert_eq!(session.state(), State::ESTABLISHED);

    // The server knows no such connection any more.
    let mut refused = session;
    assert_eq!(refused.right(segment(RST | ACK, 0, 9001, 0)), accepted(RPL, Timer::Set(10)));
    assert_eq!(refused.state(), State::CLOSE);

    // The server has lost the old connection and accepts the new one.
    let mut renewed = session;
    assert_eq!(renewed.right(segment(SYN | ACK, 7000, 9001, 0)), accepted(RPL, Timer::Set(60)));
    assert_eq!(renewed.state(), State::SYN_RECV);

    // The SYN was forged: the server challenges it, and the connection goes on.
    assert_eq!(session.right(segment(ACK, 201, 101, 0)), accepted(RPL, Timer::Set(432_000)));
    assert_eq!(session.left(segment(ACK, 101, 201, 5)).verdict, Verdict::Accept);
}

#[test]
fn a_rst_of_the_side_whose_syn_was_let_through_does_not_refuse_it() {
    let mut session = Session::open(segment(SYN, 1000, 0, 0));
    session.right(segment(SYN | ACK, 2000, 1001, 0));
    assert_eq!(session.left(segment(SYN, 1000, 0, 0)), accepted(EST, Timer::Keep));

    // Its numbers count, and are of long ago; the acknowledgment number proves nothing.
    let old = 0u32.wrapping_sub(100_000);
    let mut same_side = session;
    assert_eq!(same_side.left(segment(RST | ACK, old, 1001, 0)), accepted(EST, Timer::Keep));
    assert_eq!(same_side.state(), State::SYN_RECV);

    assert_eq!(session.right(segment(RST | ACK, old, 1001, 0)), accepted(RPL, Timer::Set(10)));
    assert_eq!(session.state(), State::CLOSE);
}

#[test]
fn a_challenge_ack_in_last_ack_is_not_the_last_ack() {
    let mut session = established();
    session.left(segment(FIN | ACK, 101, 201, 0));
    session.right(segment(FIN | ACK, 201, 102, 0));
    assert_eq!(session.left(segment(SYN, 9000, 0, 0)), accepted(EST, Timer::Keep));
    assert_eq!(session.right(segment(ACK, 202, 102, 0)), accepted(RPL, Timer::Keep));
    assert_eq!(session.state(), State::LAST_ACK);
    // Only one is expected.
    assert_eq!({ session }.right(segment(ACK, 202, 102, 0)), accepted(RPL, Timer::Set(120)));
    assert_eq!(session.left(segment(ACK, 102, 202, 0)), accepted(EST, Timer::Set(120)));
    assert_eq!(session.state(), State::TIME_WAIT);
}

#[test]
fn a_challenge_ack_to_a_syn_and_the_rst_that_answers_it() {
    let mut session = Session::open(segment(SYN, 100, 0, 0));
    // The server still holds an older connection.
    assert_eq!(session.right(segment(ACK, 7000, 5000, 0)), accepted(RPL, Timer::Keep));
    assert_eq!(session.state(), State::SYN_SENT);
    assert_eq!(session.left(segment(RST, 5000, 0, 0)), accepted(EST, Timer::Set(10)));
    assert_eq!(session.state(), State::CLOSE);
}

#[test]
fn late_segments_pass_without_renewing_the_timer() {
    let mut session = established();
    session.left(segment(ACK, 101, 201, 1000));
    session.right(segment(ACK, 201, 1101, 0));
    let before = session.connection;
    // Data that was acknowledged long ago.
    assert_eq!(session.left(segment(ACK, 0u32.wrapping_sub(1_000_000), 201, 10)), accepted(EST, Timer::Keep));
    // An acknowledgment from long ago.
    assert_eq!(session.left(segment(ACK, 1101, 0u32.wrapping_sub(1_000_000), 0)), accepted(EST, Timer::Keep));
    assert_eq!(session.connection, before);
}

#[test]
fn segments_ahead_of_the_window_are_invalid() {
    let mut session = established();
    let before = session.connection;
    assert_eq!(session.left(segment(ACK, 101 + 1_000_000, 201, 10)), INVALID);
    // An acknowledgment of what was never sent.
    assert_eq!(session.left(segment(ACK, 101, 202, 0)), INVALID);
    assert_eq!(session.connection, before);
    // The last sequence number that the receiver allowed, and the one after it.
    let limit = 101 + u32::from(WINDOW);
    assert_eq!(session.left(segment(ACK, limit, 201, 0)).verdict, Verdict::Accept);
    assert_eq!(session.connection.tcp.peers[0].maxend, limit);
    assert_eq!(established().left(segment(ACK, limit + 1 + u32::from(WINDOW), 201, 0)), INVALID);
}

#[test]
fn without_windows_only_resets_must_fit() {
    let mut session = established();
    session.timeouts.be_liberal = 1;
    let far = segment(ACK, 1_000_000, 201, 10);
    assert_eq!(session.left(far), accepted(EST, Timer::Set(432_000)));
    assert_eq!(session.right(segment(ACK, 201, 5_000_000, 0)), accepted(RPL, Timer::Set(432_000)));
    // Nothing is learned from it.
    assert_eq!(session.connection.tcp.peers, established().connection.tcp.peers);
    assert_eq!(session.left(segment(RST, 50, 0, 0)), INVALID);
    session.timeouts.be_liberal = 0;
    assert_eq!(session.left(far), INVALID);
}

#[test]
fn a_little_more_than_the_window_passes_and_may_be_acknowledged() {
    let mut session = established();
    let seq = 101 + u32::from(WINDOW) + 1;
    assert_eq!(session.left(segment(ACK, seq, 201, 10)), accepted(EST, Timer::Keep));
    assert_eq!(session.right(segment(ACK, 201, seq + 10, 0)).verdict, Verdict::Accept);
}

#[test]
fn the_edges_of_the_windows() {
    let window = u32::from(WINDOW);
    let mut after_data = established();
    after_data.left(segment(ACK, 101, 201, 1000));
    after_data.right(segment(ACK, 201, 1101, 0));
    let timer = |seq, ack, payload_len| {
        let seen = { after_data }.left(segment(ACK, seq, ack, payload_len));
        assert_eq!(seen.verdict, Verdict::Accept);
        seen.timer
    };
    // The oldest duplicate that counts, and one before it.
    let oldest = 1101u32.wrapping_sub(window);
    assert_eq!(timer(oldest, 201, 0), Timer::Set(432_000));
    assert_eq!(timer(oldest.wrapping_sub(1), 201, 0), Timer::Keep);
    assert_eq!(timer(oldest.wrapping_sub(10), 201, 10), Timer::Set(432_000));
    // The oldest acknowledgment that counts, and one before it.
    assert_eq!(timer(1101, 201u32.wrapping_sub(66_000), 0), Timer::Set(432_000));
    assert_eq!(timer(1101, 201u32.wrapping_sub(66_001), 0), Timer::Keep);
    // The most that may stand out of the window, and one more.
    let beyond = 1101 + window + 1;
    assert_eq!(timer(beyond, 201, window - 2), Timer::Keep);
    assert_eq!(after_data.left(segment(ACK, beyond, 201, window - 1)), INVALID);
}

#[test]
fn windows_are_scaled_if_both_sides_offer_it() {
    let scale_7 = [2, 4, 5, 180, 1, 3, 3, 7];
    let handshake = |answer: &[u8]| {
        let mut session = Session::open(with_options(segment(SYN, 100, 0, 0), &scale_7));
        session.right(with_options(segment(SYN | ACK, 200, 101, 0), answer));
        session.left(segment(ACK, 101, 201, 0));
        session
    };
    let mut session = handshake(&scale_7);
    assert_eq!(session.connection.tcp.peers.map(|peer| peer.scale), [7, 7]);
    assert_eq!(session.connection.tcp.peers[1].maxend, 201 + (u32::from(WINDOW) << 7));
    assert_eq!(session.right(segment(ACK, 201 + 100_000, 101, 1000)).verdict, Verdict::Accept);

    let mut session = handshake(&[2, 4, 5, 180]);
    assert_eq!(session.connection.tcp.peers.map(|peer| peer.scale), [0, 0]);
    assert_eq!(session.right(segment(ACK, 201 + 100_000, 101, 1000)).verdict, Verdict::Invalid);
}

#[test]
fn a_sack_counts_for_the_upper_bound_if_permitted() {
    let permitted = [4, 2];
    let sack = |ack, left: u32, right: u32| {
        let mut options = vec![1, 1, 5, 10];
        options.extend(left.to_be_bytes());
        options.extend(right.to_be_bytes());
        with_options(segment(ACK, 201, ack, 0), &options)
    };
    let start = |permit: bool| {
        let offer: &[u8] = if permit { &permitted } else { &[] };
        let mut session = Session::open(with_options(segment(SYN, 100, 0, 0), offer));
        session.right(with_options(segment(SYN | ACK, 200, 101, 0), offer));
        session.left(segment(ACK, 101, 201, 0));
        session.left(segment(ACK, 201, 201, 100));
        session
    };
    // Received 201 to 301, which was sent.
    let mut session = start(true);
    assert_eq!(session.right(sack(101, 201, 301)).verdict, Verdict::Accept);
    assert_eq!(session.connection.tcp.peers[1].maxwin, u32::from(WINDOW) + 200);
    // Received what was never sent.
    assert_eq!(start(true).right(sack(101, 201, 302)), INVALID);
    // Not negotiated, not looked at.
    assert_eq!(start(false).right(sack(101, 201, 302)).verdict, Verdict::Accept);
}

#[test]
fn three_repetitions_shorten_the_timer() {
    let mut session = established();
    let data = segment(ACK, 101, 201, 5);
    session.left(data);
    session.right(segment(ACK, 201, 106, 0));
    let again = segment(ACK, 106, 201, 0);
    assert_eq!(session.left(again).timer, Timer::Set(432_000));
    for _ in 0..2 {
        assert_eq!(session.left(again).timer, Timer::Set(432_000));
    }
    assert_eq!(session.left(again).timer, Timer::Set(300));
    // However often.
    for _ in 0..300 {
        assert_eq!(session.left(again).timer, Timer::Set(300));
    }
    // Anything else is progress.
    assert_eq!(session.right(segment(ACK, 201, 106, 0)).timer, Timer::Set(432_000));
}

#[test]
fn a_closed_window_shortens_the_timer() {
    let mut session = established();
    let stop = with_window(segment(ACK, 201, 101, 0), 0);
    assert_eq!(session.right(stop), accepted(RPL, Timer::Set(300)));
    // One octet may be sent as a probe.
    let edge = session.connection.tcp.peers[0].maxend;
    assert_eq!(session.left(segment(ACK, edge, 201, 1)).verdict, Verdict::Accept);
}

#[test]
fn sequence_numbers_wrap_around() {
    let mut session = Session::open(segment(SYN, u32::MAX, 0, 0));
    assert_eq!(session.right(segment(SYN | ACK, u32::MAX - 1, 0, 0)), accepted(RPL, Timer::Set(60)));
    assert_eq!(session.left(segment(ACK, 0, u32::MAX, 10)).verdict, Verdict::Accept);
    assert_eq!(session.right(segment(ACK, u32::MAX, 10, 10)).verdict, Verdict::Accept);
    assert_eq!(session.left(segment(ACK, 10, 9, 0)), accepted(EST, Timer::Set(432_000)));
}

#[test]
fn shorter_timeouts_of_a_zone_are_kept_to() {
    let mut session = established();
    session.timeouts.tcp[State::ESTABLISHED.index()] = 200;
    assert_eq!(session.left(segment(ACK, 101, 201, 1)).timer, Timer::Set(200));
}

#[test]
fn which_connections_may_be_dropped_early() {
    assert!(Session::open(segment(SYN, 100, 0, 0)).connection.can_drop_early());
    assert!(!established().connection.can_drop_early());
    assert!(closed().connection.can_drop_early());
}

#[test]
fn a_rst_closes_a_half_open_connection_within_the_window() {
    let half_open = || {
        let mut session = Session::open(segment(SYN, 100, 0, 0));
        session.right(segment(SYN | ACK, 200, 101, 0));
        session
    };
    // Not exact, and zero, which answers a SYN that was let through; but nothing older.
    for seq in [105, 0] {
        let mut session = half_open();
        assert_eq!(session.left(segment(RST, seq, 0, 0)), accepted(EST, Timer::Set(10)), "{seq}");
        assert_eq!(session.state(), State::CLOSE);
    }
    assert_eq!(half_open().left(segment(RST, 100, 0, 0)), INVALID);
}

#[test]
fn a_rst_on_a_closing_connection_is_trusted() {
    let mut session = closed();
    assert_eq!(session.right(segment(RST, 5_000_000, 0, 0)), accepted(RPL, Timer::Set(10)));
    assert_eq!(session.state(), State::CLOSE);
}

#[test]
fn a_rst_that_refuses_the_ack_of_an_older_connection() {
    let mut session = Session::open(segment(SYN, 100, 0, 0));
    session.right(segment(ACK, 7000, 5000, 0));
    assert_eq!(session.left(segment(RST | ACK, 5_000_000, 7000, 0)), accepted(EST, Timer::Set(10)));
    assert_eq!(session.state(), State::CLOSE);
}

#[test]
fn the_ack_number_of_a_rst_may_be_missing() {
    let mut session = Session::open(segment(SYN, 1_000_000, 0, 0));
    session.right(segment(SYN | ACK, 200, 1_000_001, 0));
    session.left(segment(ACK, 1_000_001, 201, 0));
    assert_eq!(session.right(segment(RST | ACK, 201, 0, 0)), accepted(RPL, Timer::Set(10)));
    assert_eq!(session.state(), State::CLOSE);
}

#[test]
fn a_rst_with_sequence_number_zero_refuses_a_syn() {
    let mut session = Session::open(segment(SYN, 100, 0, 0));
    // A SYN+ACK that does not fit tells numbers that are of no use.
    assert_eq!(session.right(segment(SYN | ACK, 5_000_000, 4711, 0)), INVALID);
    assert_eq!(session.right(segment(RST | ACK, 0, 101, 0)).verdict, Verdict::Destroy);
}

#[test]
fn windows_grow_by_what_is_seen() {
    // A segment may begin in the window and end behind it.
    let mut session = established();
    session.left(segment(ACK, 101, 201, 9000));
    assert_eq!(session.connection.tcp.peers[1].maxwin, 9000);

    // The highest acknowledgment counts, which need not be the last.
    session.right(segment(ACK, 201, 9101, 100));
    session.left(segment(ACK, 9101, 301, 0));
    session.left(segment(ACK, 9101, 201, 0));
    assert_eq!(session.connection.tcp.peers[0].maxack, 301);

    // One octet may be sent into a closed window.
    let mut session = Session::open(segment(SYN, 100, 0, 0));
    session.right(with_window(segment(SYN | ACK, 200, 101, 0), 0));
    assert_eq!(session.connection.tcp.peers[0].maxend, 102);
}

#[test]
fn a_syn_does_not_start_over_a_simultaneous_open() {
    let mut session = Session::open(segment(SYN, 100, 0, 0));
    session.right(segment(SYN, 200, 0, 0));
    assert_eq!(session.left(segment(SYN, 100, 0, 0)), accepted(EST, Timer::Set(120)));
    assert_eq!(session.left(segment(SYN, 70_000, 0, 0)), INVALID);
}

#[test]
fn a_picked_up_connection_keeps_its_leniency_and_its_limit() {
    let mut session = Session::open(segment(ACK, 999, 5000, 0));
    session.timeouts.tcp_unacknowledged = 100;
    assert_eq!(session.left(segment(ACK, 999, 5000, 0)), accepted(NEW, Timer::Set(100)));
    // The answer to a keepalive, which repeats an octet.
    session.right(segment(ACK, 5000, 1000, 0));
    assert_eq!(session.connection.tcp.peers[0].end, 1000);

    session.left(segment(SYN, 9000, 0, 0));
    session.right(with_options(segment(SYN | ACK, 7000, 9001, 0), &[4, 2]));
    assert_eq!(session.state(), State::SYN_RECV);
    assert_eq!(
        session.connection.tcp.peers[1].flags,
        peer_flags::BE_LIBERAL | peer_flags::SACK_PERM | peer_flags::MAXACK_SET
    );
}
