//! The states of a TCP connection and how each kind of segment moves them.

use super::segment::{ACK, FIN, RST, SYN};
use crate::Direction;

/// The state of a TCP connection as seen from the middle, with Linux's numbers. A newtype and not an enum,
/// for it is read back from shared memory, where any byte may stand.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State(pub u8);

impl State {
    /// Nothing seen yet.
    pub const NONE: Self = Self(0);
    /// A SYN was seen.
    pub const SYN_SENT: Self = Self(1);
    /// A SYN was answered by a SYN+ACK.
    pub const SYN_RECV: Self = Self(2);
    /// The SYN+ACK was acknowledged, or the connection was picked up in its midst.
    pub const ESTABLISHED: Self = Self(3);
    /// One side sent a FIN.
    pub const FIN_WAIT: Self = Self(4);
    /// That FIN was acknowledged.
    pub const CLOSE_WAIT: Self = Self(5);
    /// Both sides sent a FIN.
    pub const LAST_ACK: Self = Self(6);
    /// The last FIN was acknowledged.
    pub const TIME_WAIT: Self = Self(7);
    /// A RST was seen.
    pub const CLOSE: Self = Self(8);
    /// A SYN was seen from both sides.
    pub const SYN_SENT2: Self = Self(9);

    /// The state as an index into tables of 16.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> usize {
        (self.0 & 15) as usize
    }

    /// Whether the connection is past its useful life.
    #[inline(always)]
    #[must_use]
    pub const fn is_closing(self) -> bool {
        matches!(self, Self::FIN_WAIT | Self::CLOSE_WAIT | Self::LAST_ACK | Self::TIME_WAIT | Self::CLOSE)
    }

    /// OVS's name, as verbose dumps print it.
    #[must_use]
    pub const fn ovs_name(self) -> &'static str {
        match self {
            Self::SYN_SENT | Self::SYN_SENT2 => "SYN_SENT",
            Self::SYN_RECV => "SYN_RECV",
            Self::ESTABLISHED => "ESTABLISHED",
            Self::FIN_WAIT => "FIN_WAIT_1",
            Self::CLOSE_WAIT => "CLOSE_WAIT",
            Self::LAST_ACK => "LAST_ACK",
            Self::TIME_WAIT => "TIME_WAIT",
            Self::CLOSE => "CLOSING",
            _ => "CLOSED",
        }
    }

    /// OVS's name, as plain dumps print it: they do not tell `SYN_RECV` from `ESTABLISHED`.
    #[must_use]
    pub const fn ovs_plain_name(self) -> &'static str {
        match self {
            Self::SYN_RECV => Self::ESTABLISHED.ovs_name(),
            _ => self.ovs_name(),
        }
    }
}

/// What a segment is to the state machine. As [`State`], any byte may be read back.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// No flag that matters.
    pub const NONE: Self = Self(0);
    /// SYN without ACK.
    pub const SYN: Self = Self(1);
    /// SYN with ACK.
    pub const SYN_ACK: Self = Self(2);
    /// FIN.
    pub const FIN: Self = Self(3);
    /// ACK alone.
    pub const ACK: Self = Self(4);
    /// RST.
    pub const RST: Self = Self(5);

    /// The kind of a segment with these flags; RST counts before SYN, SYN before FIN, FIN before ACK.
    #[inline(always)]
    #[must_use]
    pub const fn of(flags: u8) -> Self {
        if flags & RST != 0 {
            Self::RST
        } else if flags & SYN != 0 {
            if flags & ACK != 0 { Self::SYN_ACK } else { Self::SYN }
        } else if flags & FIN != 0 {
            Self::FIN
        } else if flags & ACK != 0 {
            Self::ACK
        } else {
            Self::NONE
        }
    }
}

/// The packet is let through and noted, but the state stays: it may be in error, and the receiver's answer
/// will tell.
pub(crate) const IGNORE: State = State(10);
/// The packet has no place in this state.
pub(crate) const INVALID: State = State(11);

const NO: u8 = State::NONE.0;
const SS: u8 = State::SYN_SENT.0;
const SR: u8 = State::SYN_RECV.0;
const ES: u8 = State::ESTABLISHED.0;
const FW: u8 = State::FIN_WAIT.0;
const CW: u8 = State::CLOSE_WAIT.0;
const LA: u8 = State::LAST_ACK.0;
const TW: u8 = State::TIME_WAIT.0;
const CL: u8 = State::CLOSE.0;
const S2: u8 = State::SYN_SENT2.0;
const IG: u8 = IGNORE.0;
const IV: u8 = INVALID.0;

/// By direction, kind and state; rows and columns beyond the known ones are invalid.
static TRANSITIONS: [[[u8; 16]; 8]; 2] = [
    [
        // NO  SS  SR  ES  FW  CW  LA  TW  CL  S2
        [IV, IV, IV, IV, IV, IV, IV, IV, IV, IV, IV, IV, IV, IV, IV, IV], // none
        [SS, SS, IG, IG, IG, IG, IG, SS, SS, S2, IV, IV, IV, IV, IV, IV], // SYN
        [IV, IV, SR, IV, IV, IV, IV, IV, IV, SR, IV, IV, IV, IV, IV, IV], // SYN+ACK
        [IV, IV, FW, FW, LA, LA, LA, TW, CL, IV, IV, IV, IV, IV, IV, IV], // FIN
        [ES, IV, ES, ES, CW, CW, TW, TW, CL, IV, IV, IV, IV, IV, IV, IV], // ACK
        [IV, CL, CL, CL, CL, CL, CL, CL, CL, CL, IV, IV, IV, IV, IV, IV], // RST
        [IV; 16],
        [IV; 16],
    ],
    [
        // NO  SS  SR  ES  FW  CW  LA  TW  CL  S2
        [IV, IV, IV, IV, IV, IV, IV, IV, IV, IV, IV, IV, IV, IV, IV, IV], // none
        [IV, S2, IV, IV, IV, IV, IV, SS, IV, S2, IV, IV, IV, IV, IV, IV], // SYN
        [IV, SR, IG, IG, IG, IG, IG, IG, IG, SR, IV, IV, IV, IV, IV, IV], // SYN+ACK
        [IV, IV, FW, FW, LA, LA, LA, TW, CL, IV, IV, IV, IV, IV, IV, IV], // FIN
        [IV, IG, SR, ES, CW, CW, TW, TW, CL, IG, IV, IV, IV, IV, IV, IV], // ACK
        [IV, CL, CL, CL, CL, CL, CL, CL, CL, CL, IV, IV, IV, IV, IV, IV], // RST
        [IV; 16],
        [IV; 16],
    ],
];

/// Where a segment of this kind leads: a state, [`IGNORE`] or [`INVALID`].
#[inline(always)]
pub(crate) fn transition(direction: Direction, kind: Kind, state: State) -> State {
    // The compiler knows that a direction is 0 or 1, and would leave the mask out; the verifier needs it.
    let direction = crate::forget(direction as usize) & 1;
    State(TRANSITIONS[direction][kind.0 as usize & 7][state.index()])
}

const _: () = assert!(NO == 0, "all-zero memory is a fresh connection");

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// The table of `nf_conntrack_proto_tcp.c`: rows are segments, columns the current state.
    const TABLE: &str = "
        ORIG    NO  SS  SR  ES  FW  CW  LA  TW  CL  S2
        syn     SS  SS  IG  IG  IG  IG  IG  SS  SS  S2
        synack  IV  IV  SR  IV  IV  IV  IV  IV  IV  SR
        fin     IV  IV  FW  FW  LA  LA  LA  TW  CL  IV
        ack     ES  IV  ES  ES  CW  CW  TW  TW  CL  IV
        rst     IV  CL  CL  CL  CL  CL  CL  CL  CL  CL
        none    IV  IV  IV  IV  IV  IV  IV  IV  IV  IV
        REPLY   NO  SS  SR  ES  FW  CW  LA  TW  CL  S2
        syn     IV  S2  IV  IV  IV  IV  IV  SS  IV  S2
        synack  IV  SR  IG  IG  IG  IG  IG  IG  IG  SR
        fin     IV  IV  FW  FW  LA  LA  LA  TW  CL  IV
        ack     IV  IG  SR  ES  CW  CW  TW  TW  CL  IG
        rst     IV  CL  CL  CL  CL  CL  CL  CL  CL  CL
        none    IV  IV  IV  IV  IV  IV  IV  IV  IV  IV";

    fn named(name: &str) -> State {
        match name {
            "NO" => State::NONE,
            "SS" => State::SYN_SENT,
            "SR" => State::SYN_RECV,
            "ES" => State::ESTABLISHED,
            "FW" => State::FIN_WAIT,
            "CW" => State::CLOSE_WAIT,
            "LA" => State::LAST_ACK,
            "TW" => State::TIME_WAIT,
            "CL" => State::CLOSE,
            "S2" => State::SYN_SENT2,
            "IG" => IGNORE,
            "IV" => INVALID,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn every_cell_of_the_table() {
        let mut direction = Direction::Original;
        let mut columns = Vec::new();
        let mut cells = 0;
        for line in TABLE.lines().skip(1) {
            let (row, rest) = line.trim().split_once(' ').unwrap();
            let states: Vec<State> = rest.split_whitespace().map(named).collect();
            let kind = match row {
                "ORIG" | "REPLY" => {
                    direction = if row == "ORIG" { Direction::Original } else { Direction::Reply };
                    columns = states;
                    continue;
                }
                "syn" => Kind::of(SYN),
                "synack" => Kind::of(SYN | ACK),
                "fin" => Kind::of(FIN | ACK),
                "ack" => Kind::of(ACK),
                "rst" => Kind::of(RST | SYN | FIN | ACK),
                _ => Kind::of(0),
            };
            for (from, to) in columns.iter().zip(&states) {
                assert_eq!(transition(direction, kind, *from), *to, "{row} {direction:?} {from:?}");
                cells += 1;
            }
        }
        assert_eq!(cells, 120);
    }

    #[test]
    fn unknown_bytes_lead_nowhere() {
        for direction in [Direction::Original, Direction::Reply] {
            for byte in 0..=u8::MAX {
                let to = transition(direction, Kind(byte), State(byte));
                assert!(to.0 <= INVALID.0);
                if byte & 15 > 9 {
                    assert_eq!(transition(direction, Kind::ACK, State(byte)), INVALID);
                }
                if byte & 7 > 5 {
                    assert_eq!(transition(direction, Kind(byte), State::ESTABLISHED), INVALID);
                }
            }
        }
    }

    #[test]
    fn names() {
        let names: Vec<_> = (0..11).map(|n| (State(n).ovs_plain_name(), State(n).ovs_name())).collect();
        assert_eq!(
            names,
            [
                ("CLOSED", "CLOSED"),
                ("SYN_SENT", "SYN_SENT"),
                ("ESTABLISHED", "SYN_RECV"),
                ("ESTABLISHED", "ESTABLISHED"),
                ("FIN_WAIT_1", "FIN_WAIT_1"),
                ("CLOSE_WAIT", "CLOSE_WAIT"),
                ("LAST_ACK", "LAST_ACK"),
                ("TIME_WAIT", "TIME_WAIT"),
                ("CLOSING", "CLOSING"),
                ("SYN_SENT", "SYN_SENT"),
                ("CLOSED", "CLOSED"),
            ]
        );
    }
}
