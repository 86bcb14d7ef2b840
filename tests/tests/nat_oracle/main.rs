//! The whole switch beside a Linux router: the same packets through `ct(...,nat(...))` and through nftables, over IPv4
//! and over IPv6.
//!
//! Random packets of two hosts, and errors about them, go through both. After each, both must have let it through or
//! not, and as the same bytes from the IP addresses on (but for TTL and header checksum, which a router changes). After
//! each story both must have the same connections: tuples, TCP state, what is known of replies, timers. Where they may
//! differ is in [`same_port`] and [`TIMER_TOLERANCE`], and nowhere else.
//!
//! The stories are the same in every run. `NAT_ORACLE_SEED` draws others, `NAT_ORACLE_CASES` another number of them.

mod entry;
mod network;
mod packet;
mod world;

use std::{cell::Cell, net::IpAddr};

use anyhow::{Result, bail, ensure};
use entry::Entry;
use network::{Network, with_ports};
use packet::{Kind, Packet};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};
use tests::environment;
use world::{Router, Side, Switch, World};

const SEED: u64 = 1;
const CASES: u64 = 24;

/// Seconds that two timers may be apart: the two worlds see a packet, and are asked, one after the other.
const TIMER_TOLERANCE: u64 = 3;

const RANGE: std::ops::RangeInclusive<u16> = 40_000..=40_015;

/// What is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Translation {
    Source,
    SourcePorts,
    Destination,
}

impl Translation {
    /// What stands in `nat(...)`.
    fn of_switch(self, network: &Network) -> String {
        match self {
            Self::Source => format!("src={}", network.outside),
            Self::SourcePorts => format!("src={}", with_ports(network.outside, range())),
            Self::Destination => format!("dst={}", network.server()),
        }
    }

    /// The chain of a router.
    fn of_router(self, network: &Network) -> String {
        let words = network.words();
        let source = "type nat hook postrouting priority srcnat\noifname \"right\"";
        match self {
            Self::Source => format!("{source} snat to {}", network.outside),
            // ICMP has no ports, and nftables takes a range of them only for protocols that do.
            Self::SourcePorts => format!(
                "{source} meta l4proto {{ tcp, udp, {} }} snat to {}",
                words.icmp,
                with_ports(network.outside, range())
            ),
            Self::Destination => format!(
                "type nat hook prerouting priority dstnat\niifname \"left\" {} daddr {} dnat to {}",
                words.nft,
                network.called,
                network.server()
            ),
        }
    }

    fn called(self, network: &Network) -> IpAddr {
        match self {
            Self::Source | Self::SourcePorts => network.server(),
            Self::Destination => network.called,
        }
    }
}

fn range() -> String {
    format!("{}-{}", RANGE.start(), RANGE.end())
}

/// Something that a host does.
#[derive(Clone, Debug)]
enum Act {
    /// A client sends a packet: which client, from which of its ports.
    Call { client: usize, port: u16, kind: Kind },
    /// The server answers one of the packets that have reached it, by its number from the last one on.
    Answer { which: usize, flags: u8 },
    /// The server, or a router behind it, reports one of these packets as an error.
    Report { which: usize, by_router: bool },
    /// The server sends to the clients' outer address without having been asked.
    Intrude { port: u16, kind: Kind },
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => prop::sample::select(&[2u8, 2, 16, 17, 4][..]).prop_map(Kind::Tcp),
        3 => Just(Kind::Udp),
        2 => Just(Kind::Echo),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    // Not in a row: the port that the switch moves one client to must not be what another client asks for next.
    let port = prop::sample::select(&[1024u16, 1030, 600][..]);
    prop_oneof![
        4 => (0usize..2, port.clone(), kind()).prop_map(|(client, port, kind)| Act::Call { client, port, kind }),
        4 => (0usize..6, prop::sample::select(&[18u8, 16, 17, 4][..]))
            .prop_map(|(which, flags)| Act::Answer { which, flags }),
        1 => (0usize..6, any::<bool>()).prop_map(|(which, by_router)| Act::Report { which, by_router }),
        1 => (port, kind()).prop_map(|(port, kind)| Act::Intrude { port, kind }),
    ]
}

/// Whether the switch may have chosen another port, or ICMP identifier, than the router.
///
/// - A range of ports: the router begins anywhere in it, the switch at a port that follows from the tuple.
/// - Without a range both keep the port where nobody else has it. Else the router begins anywhere in the port's
///   class (all identifiers are one), and the switch takes the next one.
fn same_port(translation: Translation, icmp: bool, original: u16, router: u16, switch: u16) -> bool {
    let class = |port: u16| match port {
        _ if icmp => 0,
        0..=511 => 0,
        512..=1023 => 1,
        _ => 2,
    };
    let moved = |port: u16| port != original && class(port) == class(original);
    match translation {
        Translation::SourcePorts => RANGE.contains(&router) && RANGE.contains(&switch),
        Translation::Source => router == switch || moved(router) && moved(switch),
        Translation::Destination => router == switch,
    }
}

/// The same packet as each of the two worlds let it through.
struct Pair {
    /// As it was sent.
    sent: Packet,
    router: Packet,
    switch: Packet,
}

/// The packet that reached the server as one of the last, if both worlds still know whose it was. A client that begins
/// anew may get another port, or the one that it had: what comes to the old one is for nobody, or for whoever has it now,
/// and that is chance in each of the worlds.
fn to_answer(arrived: &[Pair], which: usize) -> Option<&Pair> {
    let at = arrived.len().checked_sub(which + 1)?;
    let (pair, later) = arrived[at..].split_first()?;
    later
        .iter()
        .all(|other| {
            let same = other.sent.is_like(&pair.sent);
            same == other.router.is_like(&pair.router) && same == other.switch.is_like(&pair.switch)
        })
        .then_some(pair)
}

/// Plays a story in both worlds. Returns how many errors reached a client.
fn play(
    router: &World<Router>,
    switch: &World<Switch>,
    (network, translation): (&Network, Translation),
    story: &[Act],
) -> Result<usize> {
    router.forget()?;
    switch.forget()?;
    let mut arrived: Vec<Pair> = Vec::new();
    let mut reports = 0;
    for act in story {
        match act {
            Act::Call { client, port, kind } => {
                let packet = Packet::new(
                    *kind,
                    (network.clients()[*client], *port),
                    (translation.called(network), 80),
                );
                let out = [router.cross(Side::Left, &packet)?, switch.cross(Side::Left, &packet)?];
                match out {
                    [None, None] => {}
                    [Some(router), Some(switch)] => {
                        let ports = (router.client_port(), switch.client_port());
                        ensure!(
                            same_port(
                                translation,
                                *kind == Kind::Echo,
                                packet.client_port(),
                                ports.0,
                                ports.1
                            ),
                            "{act:?}: the router takes {}, the switch {}",
                            ports.0,
                            ports.1
                        );
                        let as_router = switch.with_client_port(ports.0);
                        ensure!(as_router == router, "{act:?}: {router:?} of the router, {switch:?}");
                        arrived.push(Pair { sent: packet, router, switch });
                    }
                    [router, switch] => bail!("{act:?}: the router makes {router:?}, the switch {switch:?}"),
                }
            }
            Act::Answer { which, flags } => {
                let Some(pair) = to_answer(&arrived, *which) else { continue };
                let out = [
                    router.cross(Side::Right, &pair.router.answer(*flags))?,
                    switch.cross(Side::Right, &pair.switch.answer(*flags))?,
                ];
                ensure!(out[0] == out[1], "{act:?}: the router makes {:?}, the switch {:?}", out[0], out[1]);
            }
            Act::Report { which, by_router } => {
                let Some(pair) = to_answer(&arrived, *which) else { continue };
                let reporter = by_router.then(|| network.reporter());
                let out = [
                    router.cross(Side::Right, &pair.router.report(reporter))?,
                    switch.cross(Side::Right, &pair.switch.report(reporter))?,
                ];
                reports += usize::from(out[0].is_some());
                ensure!(out[0] == out[1], "{act:?}: the router makes {:?}, the switch {:?}", out[0], out[1]);
            }
            Act::Intrude { port, kind } => {
                let packet = Packet::new(*kind, (network.server(), 81), (network.outside, *port));
                let out = [router.cross(Side::Right, &packet)?, switch.cross(Side::Right, &packet)?];
                ensure!(out == [None, None], "{act:?}: {out:?}");
            }
        }
    }
    compare_tables(translation, &router.connections()?, switch.connections()?)?;
    Ok(reports)
}

fn compare_tables(translation: Translation, router: &[Entry], mut switch: Vec<Entry>) -> Result<()> {
    for theirs in router {
        let same = |ours: &Entry| {
            ours.protocol == theirs.protocol
                && ours.original == theirs.original
                && ours.reply.without_client_port() == theirs.reply.without_client_port()
                && same_port(
                    translation,
                    theirs.protocol.starts_with("icmp"),
                    theirs.original.client_port,
                    theirs.reply.client_port,
                    ours.reply.client_port,
                )
        };
        let Some(at) = switch.iter().position(same) else {
            bail!("only the router has {theirs:?}: {switch:?}")
        };
        let ours = switch.swap_remove(at);
        ensure!(
            (ours.replied, ours.assured, &ours.state) == (theirs.replied, theirs.assured, &theirs.state)
                && ours.timeout.abs_diff(theirs.timeout) <= TIMER_TOLERANCE,
            "the router has {theirs:?}, the switch {ours:?}"
        );
    }
    ensure!(switch.is_empty(), "only the switch has {switch:?}");
    Ok(())
}

fn stories(network: &Network, translation: Translation) -> Result<()> {
    let seed = environment::number("NAT_ORACLE_SEED", SEED)?;
    let cases = environment::number("NAT_ORACLE_CASES", CASES)?;
    let config = ProptestConfig {
        cases: cases.try_into()?,
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));

    // The labs lie within each other, and are left in the other order.
    let router = World::router(*network, &translation.of_router(network))?;
    let switch = World::switch(*network, &translation.of_switch(network))?;
    let (met, reported) = (Cell::new(0), Cell::new(0));
    let outcome = runner.run(&prop::collection::vec(act(), 1..16), |story| {
        let played = play(&router, &switch, (network, translation), &story);
        met.set(met.get() + usize::from(router.has_translated()));
        let reports = played.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        reported.set(reported.get() + reports);
        Ok(())
    });
    drop(switch);
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, story)) => bail!("NAT_ORACLE_SEED={seed}\n{why}\n{story:#?}"),
        Err(TestError::Abort(reason)) => bail!("{reason}"),
    }
    assert!(met.get() > 0, "no packet was ever translated");
    assert!(reported.get() > 0, "no error ever reached a client");
    Ok(())
}

#[test]
fn source() -> Result<()> {
    stories(&Network::v4(), Translation::Source)
}

#[test]
fn source_with_a_range_of_ports() -> Result<()> {
    stories(&Network::v4(), Translation::SourcePorts)
}

#[test]
fn destination() -> Result<()> {
    stories(&Network::v4(), Translation::Destination)
}

#[test]
fn source_of_ipv6() -> Result<()> {
    stories(&Network::v6(), Translation::Source)
}

#[test]
fn source_with_a_range_of_ports_of_ipv6() -> Result<()> {
    stories(&Network::v6(), Translation::SourcePorts)
}

#[test]
fn destination_of_ipv6() -> Result<()> {
    stories(&Network::v6(), Translation::Destination)
}
