//! TCP: any segments, from a connection's first one on.

use arbitrary::Arbitrary;
use conntrack_core::tcp::{HAS_SACK, HEADER_LEN, Peer, RST, SYN, Segment, State, flags_valid};
use conntrack_core::{Connection, Direction, Facts, Outcome, Timeouts, Timer, Verdict, ct_state, status};

use crate::{Check, Way};

/// A connection's first segment, and those that follow.
#[derive(Arbitrary, Debug)]
pub struct Story {
    first: Header,
    rest: Vec<(Way, Header)>,
    be_liberal: bool,
}

/// What a segment says.
#[derive(Arbitrary, Debug)]
pub struct Header {
    flags: u8,
    seq: Number,
    ack: Number,
    window: u16,
    payload_len: u16,
    options: Vec<u8>,
}

/// A sequence number, most often one that leads somewhere: near what the tracker knows.
#[derive(Arbitrary, Debug)]
enum Number {
    Next(i8),
    Edge(i8),
    Any(u32),
}

impl Number {
    /// `peer` is the end whose numbers are meant.
    fn of(&self, peer: &Peer) -> u32 {
        match *self {
            Self::Next(by) => peer.end.wrapping_add_signed(by.into()),
            Self::Edge(by) => peer.maxend.wrapping_add_signed(by.into()),
            Self::Any(number) => number,
        }
    }
}

impl Header {
    /// The segment, sent in a direction of a connection.
    pub fn segment(&self, connection: &Connection, direction: Direction) -> Segment {
        let [original, reply] = &connection.tcp.peers;
        let (sender, receiver) = match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        };
        let mut segment = Segment {
            seq: self.seq.of(sender),
            ack: self.ack.of(receiver),
            payload_len: self.payload_len.into(),
            window: self.window,
            flags: self.flags,
            ..Segment::default()
        };
        self.parse_options(&mut segment);
        segment
    }

    fn parse_options(&self, segment: &mut Segment) {
        let mut again = *segment;
        let len = self.options.len();
        for (behind, segment) in [(0x00, &mut *segment), (0xff, &mut again)] {
            let mut bytes = [behind; 64];
            let room = bytes.len() - HEADER_LEN;
            bytes[HEADER_LEN..][..len.min(room)].copy_from_slice(&self.options[..len.min(room)]);
            segment.parse_options(&bytes, len as u32);
        }
        if len <= 40 {
            assert_eq!(*segment, again, "what lies behind the options does not matter");
        }
        assert!(segment.window_scale <= 14);
        assert!(segment.options & HAS_SACK != 0 || segment.sack == segment.ack);
        assert_eq!(segment.options == 0, len == 0 || len > 40);
    }
}

impl Check for Story {
    fn check(&self) {
        let timeouts = Timeouts { be_liberal: self.be_liberal.into(), ..Timeouts::DEFAULT };
        let (mut connection, mut outcome) = (Connection::default(), Outcome::default());
        let first = self.first.segment(&connection, Direction::Original);
        if !connection.open(&Facts::Tcp(&first), 0, &timeouts, &mut outcome) {
            return;
        }
        assert!(flags_valid(first.flags) && first.flags & RST == 0);
        assert_eq!(outcome.ct_state, ct_state::TRK | ct_state::NEW);
        assert!(matches!(outcome.timer, Timer::Set(_)));
        check_state(&connection, &timeouts, outcome.timer);
        for (way, header) in &self.rest {
            let direction = Direction::from(*way);
            let segment = header.segment(&connection, direction);
            if !moves_on(&mut connection, direction, &segment, &timeouts) {
                return;
            }
        }
    }
}

/// Moves along and compares before and after; false: that was the end.
fn moves_on(
    connection: &mut Connection,
    direction: Direction,
    segment: &Segment,
    timeouts: &Timeouts,
) -> bool {
    let before = *connection;
    let mut outcome = Outcome::default();
    let verdict = connection.advance(direction, &Facts::Tcp(segment), 0, timeouts, &mut outcome);
    check_state(connection, timeouts, outcome.timer);
    assert_eq!(connection.status & before.status, before.status, "status bits only come");
    match verdict {
        Verdict::Accept | Verdict::Destroy => {
            let answered = connection.status & status::SEEN_REPLY != 0;
            assert!(answered || direction == Direction::Original);
            let expected = match direction {
                Direction::Reply => ct_state::EST | ct_state::RPL,
                Direction::Original if answered => ct_state::EST,
                Direction::Original => ct_state::NEW,
            };
            assert_eq!(outcome.ct_state, ct_state::TRK | expected);
        }
        Verdict::Invalid => {
            assert_eq!(outcome.ct_state, ct_state::TRK | ct_state::INV);
            assert_eq!((connection.tcp.state, connection.status), (before.tcp.state, before.status));
            assert_eq!(connection.tcp.retransmissions, before.tcp.retransmissions);
            assert!(!matches!(outcome.timer, Timer::Set(_)));
        }
        Verdict::Reopen => {
            assert_eq!(*connection, before);
            assert!(segment.flags & SYN != 0);
            assert!(matches!(before.tcp.state, State::TIME_WAIT | State::CLOSE));
        }
    }
    if verdict == Verdict::Destroy {
        assert!(segment.flags & RST != 0 && before.status & status::SEEN_REPLY == 0);
    }
    if !flags_valid(segment.flags) {
        assert_eq!((verdict, *connection), (Verdict::Invalid, before));
    }
    !matches!(verdict, Verdict::Destroy | Verdict::Reopen)
}

fn check_state(connection: &Connection, timeouts: &Timeouts, timer: Timer) {
    let tcp = &connection.tcp;
    assert!((1..=9).contains(&tcp.state.0), "{:?}", tcp.state);
    assert!(tcp.peers.iter().all(|peer| peer.scale <= 14));
    assert!(tcp.last_direction <= 1);
    match timer {
        Timer::Keep => {}
        Timer::Cap(seconds) => assert_eq!(seconds, timeouts.tcp_unacknowledged),
        Timer::Set(seconds) => {
            let shortened = [timeouts.tcp_retransmission, timeouts.tcp_unacknowledged];
            let known = timeouts.tcp[1..=9].iter().chain(&shortened);
            assert!(known.into_iter().any(|&timeout| timeout == seconds), "{seconds}");
            assert!(seconds <= timeouts.tcp(tcp.state).max(timeouts.tcp(State::CLOSE)));
        }
    }
}
