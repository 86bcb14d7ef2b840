//! What holds for every sequence of packets, and for every content of memory.

mod support;

use conntrack_core::tcp::{Kind, Peer, Segment, State, Tcp};
use conntrack_core::{Connection, Direction, Facts, Timer, Verdict, ct_state, sctp, status};
use proptest::prelude::*;
use support::*;

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Original), Just(Direction::Reply)]
}

/// Sequence numbers that are near each other, so that many segments are in the window; and some that are not.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..64, 2 => 8000u32..9000, 1 => Just(u32::MAX), 1 => any::<u32>()]
}

fn any_segment() -> impl Strategy<Value = Segment> {
    let flags = prop_oneof![
        8 => prop::sample::select(vec![SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK]),
        1 => any::<u8>(),
    ];
    let window = prop_oneof![2 => Just(WINDOW), 1 => 0u16..4, 1 => any::<u16>()];
    let payload_len = prop_oneof![Just(0u32), 1u32..20, 0u32..65536];
    (flags, number(), number(), number(), payload_len, window, 0u8..16, 0u8..15).prop_map(
        |(flags, seq, ack, sack, payload_len, window, options, window_scale)| Segment {
            flags,
            seq,
            ack,
            sack,
            payload_len,
            window,
            options,
            window_scale,
            ..Segment::default()
        },
    )
}

fn any_peer() -> impl Strategy<Value = Peer> {
    (number(), number(), number(), number(), any::<u8>(), any::<u8>()).prop_map(
        |(end, maxend, maxwin, maxack, scale, flags)| Peer {
            end,
            maxend,
            maxwin,
            maxack,
            scale,
            flags,
            reserved: 0,
        },
    )
}

prop_compose! {
    /// Any bits that shared memory may hold.
    fn any_connection()(
        state in any::<u8>(),
        last_kind in any::<u8>(),
        last_direction in any::<u8>(),
        last_flags in any::<u8>(),
        numbers in (number(), number(), number()),
        small in (any::<u8>(), any::<u8>(), any::<u16>()),
        peers in (any_peer(), any_peer()),
        status in any::<u32>(),
        detail in any::<u64>(),
        protocol in any::<u8>(),
    ) -> Connection {
        Connection {
            tcp: Tcp {
                state: State(state),
                last_kind: Kind(last_kind),
                last_direction,
                last_flags,
                last_window_scale: small.0,
                retransmissions: small.1,
                last_window: small.2,
                last_seq: numbers.0,
                last_ack: numbers.1,
                last_end: numbers.2,
                peers: [peers.0, peers.1],
            },
            status,
            detail,
            protocol,
            sctp_state: sctp::State(small.0),
            sctp_flags: small.1,
            reserved: [0; 5],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn sequences_of_segments_keep_the_state_legal(
        first in any_segment(),
        rest in prop::collection::vec((direction(), any_segment()), 0..40),
    ) {
        let Ok((mut session, outcome)) = Session::start(&Facts::Tcp(&first)) else { return Ok(()) };
        prop_assert_eq!(outcome.ct_state, NEW);
        prop_assert!(matches!(outcome.timer, Timer::Set(1..=432_000)));
        let mut answered = false;
        for (direction, segment) in rest {
            let before = session.connection;
            let seen = session.packet(direction, &Facts::Tcp(&segment));
            let after = session.connection;
            prop_assert!((1..=9).contains(&after.tcp.state.0), "{:?}", after.tcp.state);
            prop_assert!(after.tcp.peers.iter().all(|peer| peer.scale <= 14));
            prop_assert!(session.remaining >= 1 && session.remaining <= 432_000);
            // Status bits only ever come.
            prop_assert_eq!(after.status & before.status, before.status);
            match seen.verdict {
                Verdict::Accept | Verdict::Destroy => {
                    let expected = match direction {
                        Direction::Reply => RPL,
                        Direction::Original if answered => EST,
                        Direction::Original => NEW,
                    };
                    prop_assert_eq!(seen.ct_state, expected);
                    answered |= direction == Direction::Reply;
                    prop_assert_eq!(after.status & status::SEEN_REPLY != 0, answered);
                }
                Verdict::Invalid => {
                    prop_assert_eq!(seen.ct_state, INV);
                    prop_assert_eq!((after.tcp.state, after.status), (before.tcp.state, before.status));
                    prop_assert!(!matches!(seen.timer, Timer::Set(_)));
                }
                Verdict::Reopen => prop_assert_eq!(after, before),
            }
            if matches!(seen.verdict, Verdict::Destroy | Verdict::Reopen) {
                break;
            }
        }
    }

    #[test]
    fn any_memory_is_a_connection(
        connection in any_connection(),
        direction in direction(),
        segment in any_segment(),
        now_ns in any::<u64>(),
        vtag in number(),
        chunks in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u16>()), 0..20),
        be_liberal in 0u32..2,
    ) {
        let mut session = established();
        session.connection = connection;
        session.now_ns = now_ns;
        session.timeouts.be_liberal = be_liberal;
        let mut packet = sctp::Packet::default();
        packet.start(vtag);
        for (kind, flags, length) in chunks {
            packet.push(kind & 15, flags, length, Some(vtag));
        }
        let of = [Facts::Tcp(&segment), Facts::Udp, Facts::Sctp(&packet), Facts::Icmp(0), Facts::Icmpv6(0)];
        for facts in of.into_iter().chain([Facts::Other(0)]) {
            let (mut once, mut again) = (session, session);
            let seen = once.packet(direction, &facts);
            prop_assert_eq!(seen, again.packet(direction, &facts));
            prop_assert_eq!(once.connection, again.connection);
            prop_assert_ne!(seen.ct_state & ct_state::TRK, 0);
        }
    }

    #[test]
    fn a_handshake_is_accepted_whatever_the_numbers(
        client in any::<u32>(),
        server in any::<u32>(),
        windows in (any::<u16>(), any::<u16>()),
    ) {
        let (next, answer) = (client.wrapping_add(1), server.wrapping_add(1));
        let mut session = Session::open(with_window(segment(SYN, client, 0, 0), windows.0));
        let syn_ack = with_window(segment(SYN | ACK, server, next, 0), windows.1);
        prop_assert_eq!(session.right(syn_ack), accepted(RPL, Timer::Set(60)));
        let ack = session.left(segment(ACK, next, answer, 0));
        prop_assert_eq!(ack, accepted(EST, Timer::Set(432_000)));
        prop_assert!(session.assured());
    }

    #[test]
    fn a_repeated_segment_never_moves_the_direction(
        start in prop::collection::vec((direction(), any_segment()), 0..10),
        direction in direction(),
        segment in any_segment(),
    ) {
        let mut session = established();
        for (direction, segment) in start {
            session.packet(direction, &Facts::Tcp(&segment));
        }
        let first = session.packet(direction, &Facts::Tcp(&segment));
        let second = session.packet(direction, &Facts::Tcp(&segment));
        if first.verdict == Verdict::Accept && second.verdict == Verdict::Accept {
            prop_assert_eq!(first.ct_state, second.ct_state);
        }
    }
}
