//! A tracked connection and the two functions that move it.

use crate::tcp::{self, Segment, Tcp};
use crate::timeouts::Timeouts;
use crate::{Direction, ct_state, icmp, protocol, sctp, status, udp};

/// What the rules remember of a connection. All zero is a fresh one; every bit pattern is a legal value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// State and windows; unused unless the protocol is TCP.
    pub tcp: Tcp,
    /// Bits of [`status`].
    pub status: u32,
    /// What the protocol needs beside: see [`Self::stream_ns`] and [`Self::vtags`].
    pub detail: u64,
    /// The IP protocol number.
    pub protocol: u8,
    /// SCTP: the state.
    pub sctp_state: sctp::State,
    /// SCTP: what was seen that may still matter.
    pub sctp_flags: u8,
    /// Explicit padding; zero.
    pub reserved: [u8; 5],
}

const _: () = assert!(size_of::<Connection>() == 80 && align_of::<Connection>() == 8);

/// What the rules need to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facts<'a> {
    /// A TCP segment.
    Tcp(&'a Segment),
    /// A UDP datagram.
    Udp,
    /// An SCTP packet.
    Sctp(&'a sctp::Packet),
    /// An ICMP message that is not an error, by its type.
    Icmp(u8),
    /// An ICMPv6 message that is not an error, by its type.
    Icmpv6(u8),
    /// A packet of another protocol, by its number.
    Other(u8),
}

impl Facts<'_> {
    /// The IP protocol number.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        match *self {
            Self::Tcp(_) => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::Sctp(_) => protocol::SCTP,
            Self::Icmp(_) => protocol::ICMP,
            Self::Icmpv6(_) => protocol::ICMPV6,
            Self::Other(number) => number,
        }
    }
}

/// What becomes of a packet and its connection.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet belongs to the connection.
    Accept,
    /// The packet is no legal part of the connection. What little Linux notes of such packets (of TCP, which
    /// kind came last; of SCTP, the chunks before the one in error) was noted; else the state is unchanged.
    Invalid,
    /// The packet is a SYN that reuses the tuple of a closed connection: the entry is to be deleted, and
    /// the packet to be looked up anew.
    Reopen,
    /// The packet is valid and ends a connection that was never answered: the entry is to be deleted.
    Destroy,
}

/// What to do with a connection's timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timer {
    /// The timer runs on.
    #[default]
    Keep,
    /// The connection expires this many seconds from now.
    Set(u32),
    /// The connection expires this many seconds from now, unless it would sooner.
    Cap(u32),
}

/// What a packet brought about, beside the [`Verdict`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The packet's `ct_state`. Translation and relation bits are for the caller to add.
    pub ct_state: u8,
    /// What to do with the connection's timer.
    pub timer: Timer,
}

impl Connection {
    /// Starts a connection with its first packet, over whatever `self` held. False: such a packet cannot
    /// start one (it is invalid), and `self` is not to be kept.
    ///
    /// The entry is not marked [`status::CONFIRMED`]; that is for whoever commits it.
    #[inline(always)]
    pub fn open(&mut self, facts: &Facts, now_ns: u64, timeouts: &Timeouts, outcome: &mut Outcome) -> bool {
        *self = Self { protocol: facts.protocol(), ..Self::default() };
        let opened = match *facts {
            Facts::Tcp(segment) => tcp::open(self, segment),
            Facts::Udp => {
                udp::open(self, now_ns);
                true
            }
            Facts::Sctp(packet) => sctp::open(self, packet),
            Facts::Icmp(icmp_type) => icmp::opens(icmp_type),
            Facts::Icmpv6(icmp_type) => icmp::opens_v6(icmp_type),
            Facts::Other(_) => true,
        };
        if !opened {
            outcome.ct_state = ct_state::TRK | ct_state::INV;
            outcome.timer = Timer::Keep;
            return false;
        }
        matches!(self.advance(Direction::Original, facts, now_ns, timeouts, outcome), Verdict::Accept)
    }

    /// Moves the connection along with one more packet of it.
    ///
    /// `ct_state` is told by OVS's words: `new` until a reply was seen, then `est`; a reply is `est` itself.
    #[inline(always)]
    pub fn advance(
        &mut self,
        direction: Direction,
        facts: &Facts,
        now_ns: u64,
        timeouts: &Timeouts,
        outcome: &mut Outcome,
    ) -> Verdict {
        outcome.ct_state = match direction {
            Direction::Reply => ct_state::TRK | ct_state::EST | ct_state::RPL,
            Direction::Original if self.status & status::SEEN_REPLY != 0 => ct_state::TRK | ct_state::EST,
            Direction::Original => ct_state::TRK | ct_state::NEW,
        };
        outcome.timer = Timer::Keep;
        let verdict = match *facts {
            Facts::Tcp(segment) => tcp::advance(self, direction, segment, timeouts, &mut outcome.timer),
            Facts::Udp => {
                outcome.timer = udp::advance(self, now_ns, timeouts);
                Verdict::Accept
            }
            Facts::Sctp(packet) => sctp::advance(self, direction, packet, timeouts, &mut outcome.timer),
            Facts::Icmp(_) => {
                outcome.timer = Timer::Set(timeouts.icmp);
                Verdict::Accept
            }
            Facts::Icmpv6(_) => {
                outcome.timer = Timer::Set(timeouts.icmpv6);
                Verdict::Accept
            }
            Facts::Other(_) => {
                outcome.timer = Timer::Set(timeouts.generic);
                Verdict::Accept
            }
        };
        match verdict {
            Verdict::Accept | Verdict::Destroy => {
                if matches!(direction, Direction::Reply) {
                    self.status |= status::SEEN_REPLY;
                }
            }
            Verdict::Invalid => outcome.ct_state = ct_state::TRK | ct_state::INV,
            Verdict::Reopen => {}
        }
        verdict
    }

    /// Whether the connection may be dropped before its time when the table is full: any that is not
    /// assured, and a TCP connection or an SCTP association that is closing.
    #[inline]
    #[must_use]
    pub const fn can_drop_early(&self) -> bool {
        self.status & status::ASSURED == 0
            || match self.protocol {
                protocol::TCP => self.tcp.state.is_closing(),
                protocol::SCTP => self.sctp_state.is_closing(),
                _ => false,
            }
    }

    /// UDP: the time after which an exchange counts as a stream, in nanoseconds of the caller's clock.
    #[inline(always)]
    #[must_use]
    pub const fn stream_ns(&self) -> u64 {
        self.detail
    }

    /// SCTP: the verification tags that packets in the original and the reply direction carry; 0: not known.
    #[inline(always)]
    #[must_use]
    pub const fn vtags(&self) -> [u32; 2] {
        [(self.detail >> 32) as u32, self.detail as u32]
    }

    #[inline(always)]
    pub(crate) const fn set_vtags(&mut self, [original, reply]: [u32; 2]) {
        self.detail = (original as u64) << 32 | reply as u64;
    }
}
