//! One segment after the other: from the state, a direction and a segment to a verdict, the next state and
//! a timer.

use super::segment::{Segment, flags_valid};
use super::sequence::before;
use super::state::{IGNORE, INVALID, Kind, State, transition};
use super::window::{self, Fit};
use super::{Peer, Tcp, peer_flags};
use crate::connection::{Connection, Timer, Verdict};
use crate::timeouts::Timeouts;
use crate::{Direction, forget, status};

/// In `last_flags`: a challenge ACK (RFC 5961) may answer the SYN that was let through.
const EXPECT_CHALLENGE_ACK: u8 = 0x40;
/// In `last_flags`: both sides sent a SYN before either had seen the other's.
const SIMULTANEOUS_OPEN: u8 = 0x80;

/// How many times an end may repeat itself before its timer is shortened.
const MAX_RETRANSMISSIONS: u8 = 3;

/// Prepares a fresh connection for its first segment: a SYN, or an ACK out of the midst of a connection.
/// False: no connection begins like that.
#[inline(always)]
pub(crate) fn open(connection: &mut Connection, segment: &Segment) -> bool {
    let [original, reply] = &mut connection.tcp.peers;
    match transition(Direction::Original, Kind::of(segment.flags), State::NONE) {
        State::SYN_SENT => window::start(original, segment),
        State::ESTABLISHED => {
            original.end = segment.end();
            original.maxwin = u32::from(segment.window).max(1);
            original.maxend = original.end.wrapping_add(original.maxwin);
            original.flags = peer_flags::SACK_PERM | peer_flags::BE_LIBERAL;
            reply.flags = original.flags;
        }
        _ => return false,
    }
    true
}

/// Moves a connection along with one more segment.
#[inline]
pub(crate) fn advance(
    connection: &mut Connection,
    direction: Direction,
    segment: &Segment,
    timeouts: &Timeouts,
    timer: &mut Timer,
) -> Verdict {
    if !flags_valid(segment.flags) {
        return Verdict::Invalid;
    }
    let kind = forget(Kind::of(segment.flags));
    let old = connection.tcp.state;
    let new = match step(connection, direction, kind, segment) {
        Step::Invalid => return Verdict::Invalid,
        Step::Pass => return Verdict::Accept,
        Step::Reopen => return Verdict::Reopen,
        Step::Trust(new) => new,
        Step::Check(new) => match window::check(&mut connection.tcp, direction, kind, segment, timeouts) {
            Fit::Inside => new,
            Fit::Tolerated => return Verdict::Accept,
            Fit::Outside => {
                note_outside(connection, direction, kind, timeouts, timer);
                return Verdict::Invalid;
            }
        },
    };

    let (old, new) = (forget(old), forget(new));
    let tcp = &mut connection.tcp;
    tcp.last_kind = kind;
    tcp.last_direction = direction as u8;
    tcp.state = new;
    if old != new && new == State::FIN_WAIT {
        sender(tcp, direction).flags |= peer_flags::CLOSE_INIT;
    }
    settle(connection, kind, old, timeouts, timer)
}

/// What the state machine says of a segment, before its sequence numbers are looked at.
enum Step {
    /// To this state, if the segment fits the windows.
    Check(State),
    /// To this state, whether it fits or not: the windows are known to be out of date.
    Trust(State),
    /// It passes, and nothing follows from it yet.
    Pass,
    /// It has no place in this state.
    Invalid,
    /// It is a SYN on a closed connection.
    Reopen,
}

#[inline(always)]
fn step(connection: &mut Connection, direction: Direction, kind: Kind, segment: &Segment) -> Step {
    let tcp = &mut connection.tcp;
    let old = tcp.state;
    match transition(direction, kind, old) {
        INVALID => Step::Invalid,
        IGNORE => ignore(tcp, direction, kind, segment),
        State::SYN_SENT if matches!(old, State::TIME_WAIT | State::CLOSE) => {
            if is_over(tcp, direction) {
                Step::Reopen
            } else {
                ignore(tcp, direction, kind, segment)
            }
        }
        State::SYN_SENT2 => {
            tcp.last_flags |= SIMULTANEOUS_OPEN;
            Step::Check(State::SYN_SENT2)
        }
        // After SYNs from both sides, this ACK answers the SYN+ACK of the original direction.
        State::SYN_RECV
            if kind == Kind::ACK
                && direction == Direction::Reply
                && tcp.last_flags & SIMULTANEOUS_OPEN != 0 =>
        {
            Step::Check(State::ESTABLISHED)
        }
        // The ACK may answer not the last FIN, but a SYN that was let through (RFC 5961, 4.2).
        State::TIME_WAIT
            if old == State::LAST_ACK
                && kind == Kind::ACK
                && tcp.last_kind == Kind::SYN
                && tcp.last_direction != direction as u8
                && tcp.last_flags & EXPECT_CHALLENGE_ACK != 0 =>
        {
            tcp.last_flags &= !EXPECT_CHALLENGE_ACK;
            Step::Pass
        }
        State::CLOSE if kind == Kind::RST => reset(connection, direction, segment),
        new => Step::Check(new),
    }
}

/// Whether a closed connection may be followed by another at once: it was closed by FIN, or aborted by the
/// side that now sends a SYN. (After a RST of the other side alone, that RST may have been forged.)
#[inline(always)]
fn is_over(tcp: &Tcp, direction: Direction) -> bool {
    let [original, reply] = &tcp.peers;
    (original.flags | reply.flags) & peer_flags::CLOSE_INIT != 0
        || (tcp.last_kind == Kind::RST && tcp.last_direction == direction as u8)
}

/// Lets a segment pass that fits the connection of the two ends, but not what is known of it here. It is
/// noted, so that the answer tells who is right: a RST or a challenge ACK refuses it, a SYN+ACK accepts it.
#[inline(always)]
fn ignore(tcp: &mut Tcp, direction: Direction, kind: Kind, segment: &Segment) -> Step {
    if kind == Kind::SYN_ACK
        && tcp.last_kind == Kind::SYN
        && tcp.last_direction != direction as u8
        && segment.ack == tcp.last_end
    {
        resume(tcp, direction);
        return Step::Check(State::SYN_RECV);
    }
    tcp.last_kind = kind;
    tcp.last_direction = direction as u8;
    tcp.last_seq = segment.seq;
    tcp.last_end = segment.end();
    tcp.last_window = segment.window;
    if kind == Kind::SYN && direction == Direction::Original {
        tcp.last_flags = window::offers(segment);
        tcp.last_window_scale = segment.window_scale;
        if tcp.state == State::LAST_ACK {
            tcp.last_flags |= EXPECT_CHALLENGE_ACK;
        }
    }
    if kind == Kind::ACK && direction == Direction::Reply && tcp.state == State::SYN_SENT {
        tcp.last_ack = segment.ack;
    }
    Step::Pass
}

/// Gets in step with both ends again: a SYN+ACK accepts a SYN that was let through, so that SYN began the
/// connection.
#[inline(always)]
fn resume(tcp: &mut Tcp, direction: Direction) {
    let (last_end, last_window) = (tcp.last_end, tcp.last_window);
    let scale = tcp.last_window_scale;
    tcp.last_flags &= !EXPECT_CHALLENGE_ACK;
    let offers = tcp.last_flags & (peer_flags::WINDOW_SCALE | peer_flags::SACK_PERM);
    let caller = sender(tcp, direction.reverse());
    caller.end = last_end;
    caller.maxend = last_end;
    caller.maxwin = u32::from(last_window).max(1);
    caller.scale = scale;
    caller.flags = offers;
    let called = sender(tcp, direction);
    *called = Peer { flags: called.flags & peer_flags::BE_LIBERAL, ..Peer::default() };
}

/// Judges a RST. On a running connection it closes only with the very sequence number that the other end
/// expects, for an attacker can guess one that is merely in the window (RFC 5961, 3.2).
#[inline(always)]
fn reset(connection: &Connection, direction: Direction, segment: &Segment) -> Step {
    let tcp = &connection.tcp;
    // The ends may already use the tuple for another connection, of which nothing is known here.
    if tcp.state.is_closing() {
        return Step::Trust(State::CLOSE);
    }
    let [original, reply] = &tcp.peers;
    let receiver = match direction {
        Direction::Original => reply,
        Direction::Reply => original,
    };
    let assured = connection.status & status::ASSURED != 0;
    let mut new = State::CLOSE;
    // After a SYN was let through, the number that the receiver expects may be out of date.
    if receiver.flags & peer_flags::MAXACK_SET != 0 && tcp.last_kind != Kind::SYN {
        let established = assured && tcp.state == State::ESTABLISHED;
        if segment.seq == 0 && !established {
            // It refuses a SYN that was let through before.
            return Step::Check(State::CLOSE);
        }
        if before(segment.seq, receiver.maxack) {
            return Step::Invalid;
        }
        let follows_data = tcp.last_kind == Kind::ACK
            && tcp.last_direction == direction as u8
            && tcp.last_end == segment.seq;
        if !established || segment.seq == receiver.maxack || follows_data {
            return Step::Check(State::CLOSE);
        }
        // The receiver will answer with a challenge ACK; if that is answered by an exact RST, so be it.
        new = tcp.state;
    }
    // It refuses a SYN of the other side, or an ACK of a half-open connection, that was let through.
    let answered = connection.status & status::SEEN_REPLY != 0;
    let may_refuse = (answered && tcp.last_kind == Kind::SYN && tcp.last_direction != direction as u8)
        || (!assured && tcp.last_kind == Kind::ACK);
    if may_refuse && segment.ack == tcp.last_end {
        return Step::Trust(new);
    }
    // It answers a challenge ACK that answered a SYN.
    if tcp.state == State::SYN_SENT
        && tcp.last_kind == Kind::ACK
        && tcp.last_direction == Direction::Reply as u8
        && segment.seq == tcp.last_ack
    {
        return Step::Trust(new);
    }
    Step::Check(new)
}

/// Notes a FIN or RST that does not fit. If both sides send such, the ends are closing by numbers that are
/// unknown here, and the entry should not stay for days.
#[inline(always)]
fn note_outside(
    connection: &mut Connection,
    direction: Direction,
    kind: Kind,
    timeouts: &Timeouts,
    timer: &mut Timer,
) {
    if connection.status & status::ASSURED == 0 || !matches!(kind, Kind::FIN | Kind::RST) {
        return;
    }
    let tcp = &mut connection.tcp;
    if tcp.last_direction != direction as u8 && matches!(tcp.last_kind, Kind::FIN | Kind::RST) {
        *timer = Timer::Cap(timeouts.tcp_unacknowledged);
        return;
    }
    tcp.last_kind = kind;
    tcp.last_direction = direction as u8;
}

/// What follows for status and timer from a segment that fits, with the state already moved on from `old`.
#[inline(always)]
fn settle(
    connection: &mut Connection,
    kind: Kind,
    old: State,
    timeouts: &Timeouts,
    timer: &mut Timer,
) -> Verdict {
    let new = connection.tcp.state;
    let mut timeout = timeout(&connection.tcp, kind, timeouts);
    if connection.status & status::SEEN_REPLY == 0 {
        if kind == Kind::RST {
            return Verdict::Destroy;
        }
        // A repeated SYN must not keep an entry alive that nobody answers.
        if kind == Kind::SYN && old == State::SYN_SENT {
            return Verdict::Accept;
        }
        // Picked up in its midst, it has yet to prove that there is a connection at all.
        if new == State::ESTABLISHED {
            timeout = timeout.min(timeouts.tcp_unacknowledged);
        }
    } else if new == State::ESTABLISHED && matches!(old, State::SYN_RECV | State::ESTABLISHED) {
        connection.status |= status::ASSURED;
    }
    *timer = Timer::Set(timeout);
    Verdict::Accept
}

/// The timeout of the state, shortened when an end repeats itself, resets, does not acknowledge or has
/// closed its window.
#[inline(always)]
fn timeout(tcp: &Tcp, kind: Kind, timeouts: &Timeouts) -> u32 {
    let full = timeouts.tcp(tcp.state);
    let [original, reply] = &tcp.peers;
    let unacknowledged = (original.flags | reply.flags) & peer_flags::DATA_UNACKNOWLEDGED != 0;
    if tcp.retransmissions >= MAX_RETRANSMISSIONS && full > timeouts.tcp_retransmission {
        timeouts.tcp_retransmission
    } else if kind == Kind::RST {
        timeouts.tcp(State::CLOSE)
    } else if unacknowledged && full > timeouts.tcp_unacknowledged {
        timeouts.tcp_unacknowledged
    } else if tcp.last_window == 0 && full > timeouts.tcp_retransmission {
        timeouts.tcp_retransmission
    } else {
        full
    }
}

/// The peer that sends in this direction.
#[inline(always)]
fn sender(tcp: &mut Tcp, direction: Direction) -> &mut Peer {
    let [original, reply] = &mut tcp.peers;
    match direction {
        Direction::Original => original,
        Direction::Reply => reply,
    }
}
