//! Whatever memory holds is a connection, and whatever comes next moves it along or leaves it.

use arbitrary::Arbitrary;
use conntrack_core::tcp::{Kind, Peer, State, Tcp};
use conntrack_core::{
    Connection, Direction, Facts, Outcome, Timeouts, Timer, Verdict, ct_state, icmp, protocol, sctp, status,
    tftp,
};

use crate::{Check, Way, sctp::Chunks, tcp::Header};

/// A stored connection, and what comes.
#[derive(Arbitrary, Debug)]
pub struct Memory {
    status: u32,
    detail: u64,
    /// Protocol, SCTP's state and flags.
    small: [u8; 3],
    /// From `state` to `retransmissions`.
    tcp: [u8; 6],
    last_window: u16,
    last_numbers: [u32; 3],
    peers: [([u32; 4], u8, u8); 2],
    now_ns: u64,
    timeouts: [u32; 32],
    packets: Vec<(Way, Packet)>,
}

#[derive(Arbitrary, Debug)]
enum Packet {
    Tcp(Header),
    Udp,
    Sctp(Chunks),
    Icmp(u8),
    Icmpv6(u8),
    Other(u8),
}

impl Memory {
    fn connection(&self) -> Connection {
        let [protocol, sctp_state, sctp_flags] = self.small;
        let [state, last_kind, last_direction, last_flags, last_window_scale, retransmissions] = self.tcp;
        let [last_seq, last_ack, last_end] = self.last_numbers;
        let tcp = Tcp {
            state: State(state),
            last_kind: Kind(last_kind),
            last_direction,
            last_flags,
            last_window_scale,
            retransmissions,
            last_window: self.last_window,
            last_seq,
            last_ack,
            last_end,
            peers: self.peers.map(|([end, maxend, maxwin, maxack], scale, flags)| Peer {
                end,
                maxend,
                maxwin,
                maxack,
                scale,
                flags,
                reserved: 0,
            }),
        };
        Connection {
            tcp,
            status: self.status,
            detail: self.detail,
            protocol,
            sctp_state: sctp::State(sctp_state),
            sctp_flags,
            reserved: [0; 5],
        }
    }

    fn timeouts(&self) -> Timeouts {
        let at = |n: usize| self.timeouts[n];
        Timeouts {
            tcp: std::array::from_fn(at),
            tcp_retransmission: at(16),
            tcp_unacknowledged: at(17),
            udp: at(18),
            udp_stream: at(19),
            icmp: at(20),
            icmpv6: at(21),
            generic: at(22),
            be_liberal: at(23),
            sctp: std::array::from_fn(|n| at(24 + n)),
        }
    }
}

impl Check for Memory {
    fn check(&self) {
        let timeouts = self.timeouts();
        let mut connection = self.connection();
        for (way, packet) in &self.packets {
            let direction = Direction::from(*way);
            let (segment, chunks);
            let facts = match packet {
                Packet::Tcp(header) => {
                    segment = header.segment(&connection, direction);
                    Facts::Tcp(&segment)
                }
                Packet::Sctp(packet) => {
                    chunks = packet.packet(&connection, direction);
                    Facts::Sctp(&chunks)
                }
                Packet::Udp => Facts::Udp,
                Packet::Icmp(icmp_type) => Facts::Icmp(*icmp_type),
                Packet::Icmpv6(icmp_type) => Facts::Icmpv6(*icmp_type),
                Packet::Other(number) => Facts::Other(*number),
            };
            opens(&connection, &facts, self.now_ns, &timeouts);
            advances(&mut connection, direction, &facts, self.now_ns, &timeouts);
        }
        types_have_inverses(self.small[0]);
        assert_eq!(tftp::announces(self.last_window), matches!(self.last_window, 1 | 2));
    }
}

/// What begins over old memory is what begins over none.
fn opens(memory: &Connection, facts: &Facts, now_ns: u64, timeouts: &Timeouts) {
    let (mut old, mut fresh) = (*memory, Connection::default());
    let (mut outcome, mut fresh_outcome) =
        (Outcome { ct_state: 0xff, timer: Timer::Cap(7) }, Outcome::default());
    let opened = old.open(facts, now_ns, timeouts, &mut outcome);
    assert_eq!(opened, fresh.open(facts, now_ns, timeouts, &mut fresh_outcome));
    assert_eq!((outcome, old), (fresh_outcome, fresh));
    assert_eq!(old.protocol, facts.protocol());
    if !opened {
        assert_eq!(outcome, Outcome { ct_state: ct_state::TRK | ct_state::INV, timer: Timer::Keep });
        return;
    }
    assert_eq!(outcome.ct_state, ct_state::TRK | ct_state::NEW);
    assert!(matches!(outcome.timer, Timer::Set(_)), "{outcome:?}");
    assert_eq!(old.status & (status::SEEN_REPLY | status::ASSURED | status::CONFIRMED), 0);
    assert!(old.can_drop_early());
    if !matches!(facts, Facts::Tcp(_)) {
        assert_eq!(old.tcp, Tcp::default());
    }
}

fn advances(
    connection: &mut Connection,
    direction: Direction,
    facts: &Facts,
    now_ns: u64,
    timeouts: &Timeouts,
) {
    let before = *connection;
    let (mut outcome, mut outcome_again) =
        (Outcome::default(), Outcome { ct_state: 0xff, timer: Timer::Cap(7) });
    let verdict = connection.advance(direction, facts, now_ns, timeouts, &mut outcome);
    let mut again = before;
    let verdict_again = again.advance(direction, facts, now_ns, timeouts, &mut outcome_again);
    assert_eq!((verdict, outcome, *connection), (verdict_again, outcome_again, again));

    assert_eq!(connection.status & before.status, before.status, "status bits only come");
    assert_eq!((connection.protocol, connection.reserved), (before.protocol, before.reserved));
    assert!(outcome.ct_state & ct_state::TRK != 0);
    assert_eq!(outcome.ct_state & ct_state::INV != 0, verdict == Verdict::Invalid);
    match facts {
        Facts::Tcp(_) | Facts::Sctp(_) => {}
        _ => {
            assert_eq!((verdict, connection.tcp), (Verdict::Accept, before.tcp));
            let expected: &[u32] = match facts {
                Facts::Udp => &[timeouts.udp, timeouts.udp_stream],
                Facts::Icmp(_) => &[timeouts.icmp],
                Facts::Icmpv6(_) => &[timeouts.icmpv6],
                _ => &[timeouts.generic],
            };
            assert!(expected.iter().any(|&timeout| outcome.timer == Timer::Set(timeout)), "{outcome:?}");
        }
    }
    let closes = match connection.protocol {
        protocol::TCP => connection.tcp.state.is_closing(),
        protocol::SCTP => connection.sctp_state.is_closing(),
        _ => false,
    };
    assert_eq!(connection.can_drop_early(), connection.status & status::ASSURED == 0 || closes);
}

/// The inverse of an ICMP type's inverse is the type; of a query and its answer just one begins.
fn types_have_inverses(icmp_type: u8) {
    for (invert, opens) in [
        (icmp::invert as fn(u8) -> Option<u8>, icmp::opens as fn(u8) -> bool),
        (icmp::invert_v6, icmp::opens_v6),
    ] {
        match invert(icmp_type) {
            Some(inverse) => {
                assert_eq!(invert(inverse), Some(icmp_type));
                assert_ne!(opens(icmp_type), opens(inverse));
            }
            None => assert!(!opens(icmp_type)),
        }
    }
}
