//! Plays packets through one connection and keeps its timer, as a tracker would.

#![allow(dead_code, reason = "each test binary uses its own part of this module")]
#![allow(clippy::unwrap_used, reason = "a test that cannot start must fail")]

use conntrack_core::tcp::{self, HEADER_LEN, Segment, State};
use conntrack_core::{Connection, Direction, Facts, Outcome, Timeouts, Timer, Verdict, ct_state, status};

pub const FIN: u8 = tcp::FIN;
pub const SYN: u8 = tcp::SYN;
pub const RST: u8 = tcp::RST;
pub const PSH: u8 = tcp::PSH;
pub const ACK: u8 = tcp::ACK;
pub const URG: u8 = tcp::URG;

pub const INV: u8 = ct_state::TRK | ct_state::INV;
pub const NEW: u8 = ct_state::TRK | ct_state::NEW;
pub const EST: u8 = ct_state::TRK | ct_state::EST;
pub const RPL: u8 = ct_state::TRK | ct_state::EST | ct_state::RPL;

/// The window of every segment that does not say otherwise (scapy's).
pub const WINDOW: u16 = 8192;

pub const SECOND: u64 = 1_000_000_000;

pub fn segment(flags: u8, seq: u32, ack: u32, payload_len: u32) -> Segment {
    Segment { flags, seq, ack, sack: ack, payload_len, window: WINDOW, ..Segment::default() }
}

pub fn with_window(segment: Segment, window: u16) -> Segment {
    Segment { window, ..segment }
}

/// Reads the options from their bytes.
pub fn with_options(mut segment: Segment, options: &[u8]) -> Segment {
    let mut bytes = [0; 64];
    bytes[HEADER_LEN..][..options.len()].copy_from_slice(options);
    segment.parse_options(&bytes, options.len() as u32);
    segment
}

/// What was seen of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub verdict: Verdict,
    pub ct_state: u8,
    pub timer: Timer,
}

pub fn accepted(ct_state: u8, timer: Timer) -> Seen {
    Seen { verdict: Verdict::Accept, ct_state, timer }
}

pub const INVALID: Seen = Seen { verdict: Verdict::Invalid, ct_state: INV, timer: Timer::Keep };

/// A connection with its timer.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub connection: Connection,
    pub timeouts: Timeouts,
    /// Seconds until the connection expires.
    pub remaining: u32,
    pub now_ns: u64,
}

impl Session {
    /// Opens and commits a connection; `Err` has what an invalid first packet got.
    pub fn start(facts: &Facts) -> Result<(Self, Outcome), Outcome> {
        let mut session = Self {
            connection: Connection::default(),
            timeouts: Timeouts::DEFAULT,
            remaining: 0,
            now_ns: 77 * SECOND,
        };
        let mut outcome = Outcome::default();
        if !session.connection.open(facts, session.now_ns, &session.timeouts, &mut outcome) {
            return Err(outcome);
        }
        session.connection.status |= status::CONFIRMED;
        session.wind(outcome.timer);
        Ok((session, outcome))
    }

    pub fn open(segment: Segment) -> Self {
        Self::start(&Facts::Tcp(&segment)).unwrap().0
    }

    pub fn packet(&mut self, direction: Direction, facts: &Facts) -> Seen {
        let mut outcome = Outcome::default();
        let verdict = self.connection.advance(direction, facts, self.now_ns, &self.timeouts, &mut outcome);
        self.wind(outcome.timer);
        Seen { verdict, ct_state: outcome.ct_state, timer: outcome.timer }
    }

    /// A segment from the side that opened the connection.
    pub fn left(&mut self, segment: Segment) -> Seen {
        self.packet(Direction::Original, &Facts::Tcp(&segment))
    }

    /// A segment from the side that was called.
    pub fn right(&mut self, segment: Segment) -> Seen {
        self.packet(Direction::Reply, &Facts::Tcp(&segment))
    }

    pub fn state(&self) -> State {
        self.connection.tcp.state
    }

    pub fn assured(&self) -> bool {
        self.connection.status & status::ASSURED != 0
    }

    fn wind(&mut self, timer: Timer) {
        match timer {
            Timer::Keep => {}
            Timer::Set(seconds) => self.remaining = seconds,
            Timer::Cap(seconds) => self.remaining = self.remaining.min(seconds),
        }
    }
}

/// The tutorial's connection after its three-way handshake: left has sent 100, right 200.
pub fn established() -> Session {
    let mut session = Session::open(segment(SYN, 100, 0, 0));
    assert_eq!(session.right(segment(SYN | ACK, 200, 101, 0)), accepted(RPL, Timer::Set(60)));
    assert_eq!(session.left(segment(ACK, 101, 201, 0)), accepted(EST, Timer::Set(432_000)));
    assert_eq!(session.state(), State::ESTABLISHED);
    assert!(session.assured());
    session
}

/// The tutorial's connection after both FINs and the last ACK.
pub fn closed() -> Session {
    let mut session = established();
    assert_eq!(session.left(segment(FIN | ACK, 101, 201, 0)), accepted(EST, Timer::Set(120)));
    assert_eq!(session.right(segment(FIN | ACK, 201, 102, 0)), accepted(RPL, Timer::Set(30)));
    assert_eq!(session.left(segment(ACK, 102, 202, 0)), accepted(EST, Timer::Set(120)));
    assert_eq!(session.state(), State::TIME_WAIT);
    session
}
