//! The kernel's own connection tracker is asked for its opinion.
//!
//! Sequences of packets go through a kernel that forwards between two hosts, and through `conntrack-core`.
//! After each packet both must tell the same: the packet's `ct_state`; whether there is a connection, which
//! side began it, its status and its timer; of TCP the state, the window scales and the flags of both ends;
//! and of SCTP the state and the verification tags. What differs on purpose is listed in `duel.rs` (`DIFFERENCES`); and one difference is never provoked,
//! see `dialogue.rs`: options behind SACK blocks in a SYN.
//!
//! The random sequences are the same in every run. `ORACLE_SEED` (a number) draws others, `ORACLE_CASES`
//! another number of them.

mod association;
mod ctnetlink;
mod dialogue;
mod duel;
mod kernel;
mod tracker;

use std::{cell::RefCell, collections::HashSet, fs, net::IpAddr, thread, time::Duration};

use anyhow::{Result, bail};
use association::association;
use conntrack_core::{
    Direction, Facts, Timeouts, protocol, sctp,
    tcp::{Kind, State},
};
use ctnetlink::{Transport, Tuple};
use dialogue::dialogue;
use duel::{Duel, Packet};
use etherparse::IpNumber;
use kernel::{Family, Kernel, Side, setting};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};
use tests::{environment, packet::checksum};

const SEED: u64 = 1;
const CASES: u64 = 5_000;

const SIDES: [Side; 2] = [Side::Left, Side::Right];
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Tries random values; an error with what is said of the simplest that fails.
fn for_all<S: Strategy>(strategy: &S, check: impl Fn(S::Value) -> Result<()>) -> Result<()> {
    let seed = environment::number("ORACLE_SEED", SEED)?;
    let cases = environment::number("ORACLE_CASES", CASES)?;
    let config = ProptestConfig {
        cases: cases.try_into()?,
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let check = |value| check(value).map_err(|error| TestCaseError::fail(format!("{error:#}")));
    match runner.run(strategy, check) {
        Ok(()) => Ok(()),
        Err(TestError::Fail(story, _)) => bail!("ORACLE_SEED={seed}\n{story}"),
        Err(TestError::Abort(reason)) => bail!("{reason}"),
    }
}

/// The tuple of what a side sends to the other.
fn tuple(family: Family, from: Side, transport: Transport) -> Tuple {
    Tuple { src: family.address(from), dst: family.address(from.other()), transport }
}

/// TCP conversations; what was met in them.
fn dialogues(kernel: &Kernel, timeouts: Timeouts) -> Result<HashSet<(State, bool, Kind)>> {
    const PORTS: [u16; 2] = [1024, 2048];
    let met = RefCell::new(HashSet::new());
    for_all(&(prop::sample::select(&FAMILIES[..]), dialogue()), |(family, dialogue)| {
        let tuple = |from: Side| {
            let (src, dst) = (PORTS[from as usize], PORTS[from.other() as usize]);
            tuple(family, from, Transport::Tcp { src, dst })
        };
        let packets = dialogue.packets();
        let mut duel = Duel::by(kernel, timeouts);
        let mut before: Option<(Side, State)> = None;
        let verdict = packets.iter().try_for_each(|packet| {
            let (segment, frame) = (packet.segment(), packet.frame(family, PORTS)?);
            let seen = duel.judge(Packet {
                from: packet.from,
                tuple: tuple(packet.from),
                facts: Facts::Tcp(&segment),
                frame: &frame,
                name: packet.to_string(),
            })?;
            if let Some((caller, state)) = before {
                met.borrow_mut().insert((state, packet.from == caller, Kind::of(segment.flags)));
            }
            before = seen.entry.and_then(|entry| {
                let caller = match entry.direction {
                    Direction::Original => packet.from,
                    Direction::Reply => packet.from.other(),
                };
                Some((caller, entry.tcp?.state))
            });
            Ok(())
        });
        kernel.connections.delete(&tuple(Side::Left))?;
        verdict
    })?;
    Ok(met.into_inner())
}

#[test]
fn tcp() -> Result<()> {
    let met = dialogues(&Kernel::new()?, Timeouts::DEFAULT)?;
    for state in (State::SYN_SENT.0..=State::SYN_SENT2.0).map(State) {
        for kind in [Kind::SYN, Kind::SYN_ACK, Kind::FIN, Kind::ACK, Kind::RST] {
            for original in [true, false] {
                assert!(met.contains(&(state, original, kind)), "never met: {state:?} {original} {kind:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn tcp_without_windows() -> Result<()> {
    let kernel = Kernel::new()?;
    fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", "1")?;
    dialogues(&kernel, Timeouts { be_liberal: 1, ..Timeouts::DEFAULT }).map(drop)
}

#[test]
fn associations() -> Result<()> {
    const PORTS: [u16; 2] = [1024, 2048];
    let kernel = Kernel::new()?;
    let met = RefCell::new(HashSet::new());
    for_all(&(prop::sample::select(&FAMILIES[..]), association()), |(family, association)| {
        let tuple = |from: Side| {
            let (src, dst) = (PORTS[from as usize], PORTS[from.other() as usize]);
            tuple(family, from, Transport::Sctp { src, dst })
        };
        let mut duel = Duel::new(&kernel);
        let verdict = association.packets().iter().try_for_each(|packet| {
            let seen = duel.judge(Packet {
                from: packet.from,
                tuple: tuple(packet.from),
                facts: Facts::Sctp(&packet.facts()),
                frame: &packet.frame(family, PORTS)?,
                name: packet.to_string(),
            })?;
            met.borrow_mut().extend(seen.entry.and_then(|entry| Some(entry.sctp?.state)));
            Ok(())
        });
        kernel.connections.delete(&tuple(Side::Left))?;
        verdict
    })?;
    let met = met.into_inner();
    for state in (sctp::State::CLOSED.0..=sctp::State::HEARTBEAT_SENT.0).map(sctp::State) {
        assert!(met.contains(&state), "never met: {state:?}");
    }
    Ok(())
}

#[test]
fn udp() -> Result<()> {
    const ROUNDS: u32 = 4;
    /// Short enough to be no stream after one, and long enough to be one after two.
    const PAUSE: Duration = Duration::from_millis(1300);
    const LEFT: Side = Side::Left;
    const RIGHT: Side = Side::Right;
    /// Who sends in a round.
    const TURNS: [&[Side]; 5] = [&[], &[LEFT], &[RIGHT], &[LEFT, RIGHT], &[RIGHT, LEFT]];

    let kernel = Kernel::new()?;
    let orders =
        FAMILIES.iter().flat_map(|family| (0..TURNS.len().pow(ROUNDS)).map(move |order| (*family, order)));
    let mut duels: Vec<_> = orders.map(|(family, order)| (family, order, Duel::new(&kernel))).collect();
    for round in 0..ROUNDS {
        for (family, order, duel) in &mut duels {
            let ports = [1024 + *order as u16, 53];
            for from in TURNS[*order / TURNS.len().pow(round) % TURNS.len()] {
                let (src, dst) = (ports[*from as usize], ports[from.other() as usize]);
                let tuple = tuple(*family, *from, Transport::Udp { src, dst });
                let frame =
                    Kernel::ethernet(*from).udp((tuple.src, src).into(), (tuple.dst, dst).into(), b"?")?;
                judge(duel, *from, tuple, Facts::Udp, &frame)?;
            }
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// A packet of a protocol that knows no more than its tuple.
fn judge(duel: &mut Duel<'_>, from: Side, tuple: Tuple, facts: Facts<'_>, frame: &[u8]) -> Result<()> {
    let packet = Packet { from, tuple, facts, frame, name: format!("{tuple:?}") };
    duel.judge(packet).map(drop)
}

/// An ICMP query or answer.
fn icmp(family: Family, from: Side, kind: u8, id: u16) -> Result<Vec<u8>> {
    let tuple = tuple(family, from, Transport::Icmp { id, kind });
    let [i0, i1] = id.to_be_bytes();
    let mut message = [kind, 0, 0, 0, i0, i1, 0, 1];
    let (number, pseudo) = match (tuple.src, tuple.dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            (protocol::ICMPV6, [&src.octets()[..], &dst.octets(), &[0, protocol::ICMPV6, 0, 8]].concat())
        }
        _ => (protocol::ICMP, Vec::new()),
    };
    let sum = checksum(&[&pseudo[..], &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Kernel::ethernet(from).ip(tuple.src, tuple.dst, IpNumber(number), &message)
}

fn icmp_facts(family: Family, kind: u8) -> Facts<'static> {
    match family {
        Family::V4 => Facts::Icmp(kind),
        Family::V6 => Facts::Icmpv6(kind),
    }
}

#[test]
fn icmp_queries_in_every_order() -> Result<()> {
    const LENGTH: u32 = 5;
    let kernel = Kernel::new()?;
    for (family, kinds) in [(Family::V4, [8, 0]), (Family::V6, [128, 129]), (Family::V4, [13, 14])] {
        for order in 0..4u16.pow(LENGTH) {
            let mut duel = Duel::new(&kernel);
            // Identifiers of the timestamp queries are others than those of the echo queries.
            let id = order | u16::from(kinds[0]) << 10;
            for turn in 0..LENGTH {
                let which = usize::from(order / 4u16.pow(turn));
                let (from, kind) = (SIDES[which & 1], kinds[which >> 1 & 1]);
                let frame = icmp(family, from, kind, id)?;
                let tuple = tuple(family, from, Transport::Icmp { id, kind });
                judge(&mut duel, from, tuple, icmp_facts(family, kind), &frame)?;
            }
        }
    }
    Ok(())
}

#[test]
fn icmp_types() -> Result<()> {
    let kernel = Kernel::new()?;
    for family in FAMILIES {
        for kind in 0..=u8::MAX {
            // Errors belong to the connection of the packet that they carry.
            let is_error = match family {
                Family::V4 => matches!(kind, 3 | 4 | 5 | 11 | 12),
                Family::V6 => kind < 128,
            };
            if is_error {
                continue;
            }
            let (from, id) = (Side::Left, 7);
            let frame = icmp(family, from, kind, id)?;
            let tuple = tuple(family, from, Transport::Icmp { id, kind });
            judge(&mut Duel::new(&kernel), from, tuple, icmp_facts(family, kind), &frame)?;
        }
    }
    Ok(())
}

#[test]
fn other_protocols() -> Result<()> {
    /// For experiments (RFC 3692).
    const PROTOCOL: u8 = 253;
    let kernel = Kernel::new()?;
    for family in FAMILIES {
        let mut duel = Duel::new(&kernel);
        let senders = [Side::Left, Side::Left, Side::Right, Side::Left, Side::Right];
        for from in senders {
            let tuple = tuple(family, from, Transport::Other(PROTOCOL));
            let frame = Kernel::ethernet(from).ip(tuple.src, tuple.dst, IpNumber(PROTOCOL), b"test")?;
            judge(&mut duel, from, tuple, Facts::Other(PROTOCOL), &frame)?;
        }
    }
    Ok(())
}

#[test]
fn the_timeouts_are_the_kernels() -> Result<()> {
    let _kernel = Kernel::new()?;
    let ours = Timeouts::DEFAULT;
    let expected = [
        ("tcp_timeout_syn_sent", ours.tcp(State::SYN_SENT)),
        ("tcp_timeout_syn_recv", ours.tcp(State::SYN_RECV)),
        ("tcp_timeout_established", ours.tcp(State::ESTABLISHED)),
        ("tcp_timeout_fin_wait", ours.tcp(State::FIN_WAIT)),
        ("tcp_timeout_close_wait", ours.tcp(State::CLOSE_WAIT)),
        ("tcp_timeout_last_ack", ours.tcp(State::LAST_ACK)),
        ("tcp_timeout_time_wait", ours.tcp(State::TIME_WAIT)),
        ("tcp_timeout_close", ours.tcp(State::CLOSE)),
        ("tcp_timeout_max_retrans", ours.tcp_retransmission),
        ("tcp_timeout_unacknowledged", ours.tcp_unacknowledged),
        ("udp_timeout", ours.udp),
        ("udp_timeout_stream", ours.udp_stream),
        ("icmp_timeout", ours.icmp),
        ("icmpv6_timeout", ours.icmpv6),
        ("generic_timeout", ours.generic),
        ("sctp_timeout_closed", ours.sctp(sctp::State::CLOSED)),
        ("sctp_timeout_cookie_wait", ours.sctp(sctp::State::COOKIE_WAIT)),
        ("sctp_timeout_cookie_echoed", ours.sctp(sctp::State::COOKIE_ECHOED)),
        ("sctp_timeout_established", ours.sctp(sctp::State::ESTABLISHED)),
        ("sctp_timeout_shutdown_sent", ours.sctp(sctp::State::SHUTDOWN_SENT)),
        ("sctp_timeout_shutdown_recd", ours.sctp(sctp::State::SHUTDOWN_RECD)),
        ("sctp_timeout_shutdown_ack_sent", ours.sctp(sctp::State::SHUTDOWN_ACK_SENT)),
        ("sctp_timeout_heartbeat_sent", ours.sctp(sctp::State::HEARTBEAT_SENT)),
    ];
    for (name, seconds) in expected {
        assert_eq!(setting(&format!("nf_conntrack_{name}"))?, seconds, "{name}");
    }
    Ok(())
}
