//! Does a segment fit the windows that both ends have announced?
//!
//! After G. van Rooij, "Real Stateful TCP Packet Filtering in IP Filter", with Linux's changes. With `end`
//! the sequence number after the segment and `sack` the highest (selectively) acknowledged number, a
//! segment fits if
//!
//! 1. `seq  <= sender.maxend`: it begins inside what the receiver allowed,
//! 2. `end  >= sender.end - receiver.maxwin`: it is no old duplicate,
//! 3. `sack <= receiver.end`: it acknowledges only what was sent,
//! 4. `sack >= receiver.end - max(66000, sender.maxwin)`: and not something long gone.
//!
//! A segment that fails 2 or 4 is only late: it passes, but teaches nothing.

use super::segment::{ACK, HAS_OPTIONS, HAS_SACK, HAS_SACK_PERMITTED, HAS_WINDOW_SCALE, RST, SYN};
use super::sequence::{after, before};
use super::state::{Kind, State};
use super::{Peer, Segment, Tcp, peer_flags};
use crate::Direction;
use crate::timeouts::Timeouts;

/// How far an acknowledgment may lag behind at least: the largest window without scaling, and some.
const MIN_ACK_LAG: u32 = 66000;

/// How a segment relates to the windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It fits, and the windows were moved.
    Inside,
    /// It is late, or a little too long; it passes, but does not count.
    Tolerated,
    /// It does not fit.
    Outside,
}

/// Checks a segment and moves the windows accordingly.
#[inline(always)]
pub(crate) fn check(
    tcp: &mut Tcp,
    direction: Direction,
    kind: Kind,
    segment: &Segment,
    timeouts: &Timeouts,
) -> Fit {
    let opening = matches!(tcp.state, State::SYN_SENT | State::SYN_RECV);
    let state = tcp.state;
    let [original, reply] = &mut tcp.peers;
    let (sender, receiver) = match direction {
        Direction::Original => (original, reply),
        Direction::Reply => (reply, original),
    };
    let is_syn = segment.flags & SYN != 0;
    let is_ack = segment.flags & ACK != 0;
    let is_rst = segment.flags & RST != 0;
    let mut seq = segment.seq;
    let mut end = segment.end();
    let mut ack = segment.ack;
    let mut sack = ack;
    if receiver.flags & peer_flags::SACK_PERM != 0 && segment.options & HAS_SACK != 0 {
        sack = segment.sack;
    }

    if is_syn && (sender.maxwin == 0 || (opening && after(end, sender.end))) {
        // The sender's first word; or it starts over, with other numbers and perhaps other options
        // (RFC 9293, 3.4.2: it need only use higher ones than before).
        start(sender, segment);
        if matches!(direction, Direction::Reply) && !both_scale(sender, receiver) {
            sender.scale = 0;
            receiver.scale = 0;
        }
        // A SYN from the called side opens the connection from both sides: no ACK to check.
        if !is_ack && matches!(direction, Direction::Reply) {
            return Fit::Inside;
        }
    } else if sender.maxwin == 0 {
        pick_up(sender, receiver, segment, sack);
    }

    // Some stacks send RST+ACK with zero for the acknowledgment number.
    if !is_ack || (is_rst && ack == 0) {
        ack = receiver.end;
        sack = ack;
    }
    // A RST that refuses a SYN has no sequence number to go by.
    if is_rst && seq == 0 && state == State::SYN_SENT {
        end = sender.end;
        seq = end;
    }

    match fit(sender, receiver, seq, end, sack) {
        Fit::Inside => {}
        // Nothing can be held against a sender whose window scale is unknown, and nothing is to be held against
        // any.
        _ if sender.flags & peer_flags::BE_LIBERAL != 0 || timeouts.be_liberal != 0 => return Fit::Inside,
        unfit => return unfit,
    }
    let window = scaled(segment.window, if is_syn { 0 } else { sender.scale });
    note_sent(sender, end, window.wrapping_add(sack.wrapping_sub(ack)));
    if is_ack {
        note_ack(sender, ack);
    }
    note_allowed(sender, receiver, end, sack, window);
    if ack == receiver.end {
        receiver.flags &= !peer_flags::DATA_UNACKNOWLEDGED;
    }
    if kind == Kind::ACK {
        count_repetition(tcp, direction, segment.window, [seq, ack, end]);
    }
    Fit::Inside
}

/// Begins the record of a peer with its SYN or SYN+ACK.
#[inline(always)]
pub(crate) fn start(sender: &mut Peer, segment: &Segment) {
    sender.end = segment.end();
    sender.maxend = sender.end;
    sender.maxwin = u32::from(segment.window).max(1);
    if segment.options & HAS_OPTIONS != 0 {
        sender.scale = segment.window_scale;
        sender.flags = (sender.flags & peer_flags::BE_LIBERAL) | offers(segment);
    }
}

/// What a SYN offers, as bits of [`peer_flags`].
#[inline(always)]
pub(crate) fn offers(segment: &Segment) -> u8 {
    let mut flags = 0;
    if segment.options & HAS_WINDOW_SCALE != 0 {
        flags |= peer_flags::WINDOW_SCALE;
    }
    if segment.options & HAS_SACK_PERMITTED != 0 {
        flags |= peer_flags::SACK_PERM;
    }
    flags
}

/// Begins the record of the called peer in the midst of a connection, with the first segment seen of it.
#[inline(always)]
fn pick_up(sender: &mut Peer, receiver: &mut Peer, segment: &Segment, sack: u32) {
    sender.end = segment.end();
    sender.maxwin = scaled(segment.window, sender.scale).max(1);
    sender.maxend = sender.end.wrapping_add(sender.maxwin);
    if sack == receiver.end.wrapping_add(1) {
        // Probably the answer to a keepalive, which sends one octet of old.
        receiver.end = sack;
    }
}

/// RFC 7323: windows are scaled in either direction only if both ends offered it.
#[inline(always)]
fn both_scale(a: &Peer, b: &Peer) -> bool {
    a.flags & b.flags & peer_flags::WINDOW_SCALE != 0
}

#[inline(always)]
fn scaled(window: u16, scale: u8) -> u32 {
    u32::from(window).wrapping_shl(u32::from(scale))
}

/// Rules 1 to 4. The only change made: a segment that fails no rule but the first, by no more than a
/// window, counts as sent, for else its acknowledgment, and all after it, would fail rule 3.
#[inline(always)]
fn fit(sender: &mut Peer, receiver: &Peer, seq: u32, end: u32, sack: u32) -> Fit {
    let lag = sender.maxwin.max(MIN_ACK_LAG);
    let acks_recent = after(sack, receiver.end.wrapping_sub(lag).wrapping_sub(1));
    let acks_sent = before(sack, receiver.end.wrapping_add(1));
    let sends_recent = after(end, sender.end.wrapping_sub(receiver.maxwin).wrapping_sub(1));

    if !before(seq, sender.maxend.wrapping_add(1)) {
        let overshot = end.wrapping_sub(sender.maxend).wrapping_add(1);
        if receiver.maxwin != 0 && sends_recent && acks_recent && acks_sent && overshot <= receiver.maxwin {
            sender.end = end;
            sender.flags |= peer_flags::DATA_UNACKNOWLEDGED;
            return Fit::Tolerated;
        }
        return Fit::Outside;
    }
    if !acks_sent {
        return Fit::Outside;
    }
    if (receiver.maxwin != 0 && !sends_recent) || !acks_recent {
        return Fit::Tolerated;
    }
    Fit::Inside
}

#[inline(always)]
fn note_sent(sender: &mut Peer, end: u32, window: u32) {
    sender.maxwin = sender.maxwin.max(window);
    if after(end, sender.end) {
        sender.end = end;
        sender.flags |= peer_flags::DATA_UNACKNOWLEDGED;
    }
}

#[inline(always)]
fn note_ack(sender: &mut Peer, ack: u32) {
    if sender.flags & peer_flags::MAXACK_SET == 0 || after(ack, sender.maxack) {
        sender.maxack = ack;
        sender.flags |= peer_flags::MAXACK_SET;
    }
}

/// Moves the upper edges: a segment beyond the window shows that the receiver's was larger than known, and
/// the sender's own acknowledgment and window allow the receiver to send more.
#[inline(always)]
fn note_allowed(sender: &Peer, receiver: &mut Peer, end: u32, sack: u32, window: u32) {
    if receiver.maxwin != 0 && after(end, sender.maxend) {
        receiver.maxwin = receiver.maxwin.wrapping_add(end.wrapping_sub(sender.maxend));
    }
    let edge = sack.wrapping_add(window);
    if after(edge, receiver.maxend.wrapping_sub(1)) {
        // A closed window still lets one octet through: the probe that asks whether it has opened.
        receiver.maxend = if window == 0 { edge.wrapping_add(1) } else { edge };
    }
}

/// Counts how often the very same ACK comes again.
#[inline(always)]
fn count_repetition(tcp: &mut Tcp, direction: Direction, window: u16, [seq, ack, end]: [u32; 3]) {
    if tcp.last_direction == direction as u8
        && [tcp.last_seq, tcp.last_ack, tcp.last_end] == [seq, ack, end]
        && tcp.last_window == window
    {
        tcp.retransmissions = tcp.retransmissions.saturating_add(1);
        return;
    }
    tcp.last_direction = direction as u8;
    [tcp.last_seq, tcp.last_ack, tcp.last_end] = [seq, ack, end];
    tcp.last_window = window;
    tcp.retransmissions = 0;
}
