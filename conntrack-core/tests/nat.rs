//! The choice of translated tuples: cases, and what holds for every range and connection.

use std::collections::HashSet;

use conntrack_core::nat::{MAX_ATTEMPTS, Original, Range, Search, flags};
use conntrack_core::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};
use proptest::prelude::*;

const GRE: u8 = 47;
const SALT: u32 = 0x5a17;

/// Address, source port, destination port.
type Candidate = (u128, u16, u16);

fn halves(address: u128) -> [u64; 2] {
    [(address >> 64) as u64, address as u64]
}

fn wide(address: [u64; 2]) -> u128 {
    u128::from(address[0]) << 64 | u128::from(address[1])
}

fn v4(address: [u8; 4]) -> u128 {
    u32::from_be_bytes(address).into()
}

const CLIENT: [u8; 4] = [10, 1, 1, 1];
const SERVER: [u8; 4] = [10, 1, 1, 2];
const PUBLIC: [u8; 4] = [10, 1, 1, 240];

fn from_client(protocol: u8, src_port: u16, dst_port: u16) -> Original {
    Original {
        src: halves(v4(CLIENT)),
        dst: halves(v4(SERVER)),
        src_port,
        dst_port,
        protocol,
        family: 4,
        ..Original::default()
    }
}

fn addresses(of: u32, first: [u8; 4], last: [u8; 4]) -> Range {
    Range { min: halves(v4(first)), max: halves(v4(last)), flags: of | flags::ADDRESSES, ..Range::default() }
}

fn with_ports(range: Range, min_port: u16, max_port: u16) -> Range {
    Range { min_port, max_port, flags: range.flags | flags::PORTS, ..range }
}

fn with_flags(range: Range, flags: u32) -> Range {
    Range { flags: range.flags | flags, ..range }
}

fn snat() -> Range {
    addresses(flags::SRC, PUBLIC, PUBLIC)
}

fn dnat() -> Range {
    addresses(flags::DST, PUBLIC, PUBLIC)
}

fn started(range: &Range, original: &Original, random: u32) -> Search {
    // What was in the memory before must not matter.
    let mut search = Search::default();
    search.start(range, &Original { src_port: 77, ..*original }, 7, 7);
    while search.advance() {}
    search.start(range, original, SALT, random);
    search
}

/// The candidates, up to the last.
fn candidates_by(range: &Range, original: &Original, random: u32) -> Vec<Candidate> {
    let mut search = started(range, original, random);
    let mut candidates = Vec::new();
    while search.advance() {
        candidates.push((wide(search.address), search.src_port, search.dst_port));
        assert!(candidates.len() <= MAX_ATTEMPTS.into());
    }
    assert!(!search.advance(), "the end is the end");
    candidates
}

fn candidates(range: &Range, original: &Original) -> Vec<Candidate> {
    candidates_by(range, original, 1)
}

fn source_ports(range: &Range, original: &Original) -> Vec<u16> {
    candidates(range, original).iter().map(|candidate| candidate.1).collect()
}

#[test]
fn a_source_port_stays_or_moves_upward() {
    for protocol in [TCP, UDP, SCTP] {
        let tried = candidates(&snat(), &from_client(protocol, 5000, 80));
        let public = v4(PUBLIC);
        assert_eq!(tried[..3], [(public, 5000, 80), (public, 5001, 80), (public, 5002, 80)]);
        assert_eq!(tried.len(), 512);
    }
}

#[test]
fn a_source_port_stays_in_its_class() {
    let ports = |port| source_ports(&snat(), &from_client(TCP, port, 80));
    let low = ports(510);
    assert_eq!(low[..3], [510, 511, 1]);
    assert_eq!((low.len(), low[510]), (511, 509));
    let middle = ports(1023);
    assert_eq!((middle[..2].to_vec(), middle.len()), (vec![1023, 600], 424));
    assert_eq!(ports(65535)[..3], [65535, 1024, 1025]);
    // In no class by itself, or in none that may be given.
    let (between, zero) = (ports(550), ports(0));
    assert_eq!((between[..3].to_vec(), between.len()), (vec![550, 600, 601], 425));
    assert_eq!((zero[..3].to_vec(), zero.len()), (vec![0, 1, 2], 512));
}

#[test]
fn a_crowded_stretch_is_left() {
    let tried = source_ports(&snat(), &from_client(TCP, 5000, 80));
    assert!(tried[..128].iter().copied().eq(5000..5128));
    let runs = |tried: &[u16]| tried.windows(2).filter(|two| two[1] != two[0].wrapping_add(1)).count();
    // 128 + 64 + 32 + 18 × 16.
    assert_eq!(runs(&tried), 20);
    assert!(tried.iter().all(|&port| port >= 1024));
    let others = candidates_by(&snat(), &from_client(TCP, 5000, 80), 2);
    assert_ne!(others[128].1, tried[128]);
}

#[test]
fn a_range_of_ports_is_walked_whole() {
    let range = with_ports(snat(), 34567, 34570);
    let mut kept = source_ports(&range, &from_client(TCP, 34569, 80));
    assert_eq!(kept[0], 34569, "it is in the range");
    kept.sort_unstable();
    assert_eq!(kept, [34567, 34568, 34569, 34570]);
    let moved = source_ports(&range, &from_client(TCP, 5000, 80));
    assert_eq!(moved.len(), 4);
    for two in moved.windows(2) {
        assert_eq!(two[1], if two[0] == 34570 { 34567 } else { two[0] + 1 });
    }
    let starts: HashSet<u16> =
        (0..50).map(|port| source_ports(&range, &from_client(TCP, port, 80))[0]).collect();
    assert_eq!(starts.len(), 4, "not all begin at the same one");
    let hashed = with_flags(range, flags::HASH);
    assert_eq!(source_ports(&hashed, &from_client(TCP, 5000, 80)), moved);
}

#[test]
fn at_random_the_original_port_is_not_preferred() {
    for range in
        [with_flags(snat(), flags::RANDOM), with_flags(with_ports(snat(), 5000, 5999), flags::RANDOM)]
    {
        let first = |random| candidates_by(&range, &from_client(TCP, 5000, 80), random)[0].1;
        let firsts: HashSet<u16> = (0..100).map(first).collect();
        assert!(firsts.len() > 80, "{firsts:?}");
    }
}

#[test]
fn a_destination_keeps_its_port_and_moves_the_source_port() {
    let tried = candidates(&dnat(), &from_client(TCP, 1024, 80));
    let public = v4(PUBLIC);
    assert_eq!(tried[..3], [(public, 1024, 80), (public, 1025, 80), (public, 1026, 80)]);
}

#[test]
fn a_destination_with_ports_tries_them_before_the_source_port() {
    let tried = candidates(&with_ports(dnat(), 80, 81), &from_client(TCP, 1024, 80));
    let public = v4(PUBLIC);
    assert_eq!(tried[..4], [(public, 1024, 80), (public, 1024, 81), (public, 1025, 80), (public, 1025, 81)]);
    // Where there are many, the source port moves as soon as a stretch of them is crowded.
    let tried = candidates(&with_ports(dnat(), 1, 60000), &from_client(TCP, 1024, 80));
    assert!(tried[..128].iter().all(|candidate| candidate.1 == 1024));
    assert!(tried[128..192].iter().all(|candidate| candidate.1 == 1025));
    assert!(tried[192..224].iter().all(|candidate| candidate.1 == 1026));
}

#[test]
fn the_next_address_comes_when_one_has_no_port_left() {
    let last = [10, 1, 1, 243];
    let range = with_ports(addresses(flags::SRC, PUBLIC, last), 100, 101);
    let tried = candidates(&range, &from_client(UDP, 100, 53));
    assert_eq!(tried.len(), 8);
    for two in tried.chunks(2) {
        assert_eq!((two[0].0, two[0].1, two[1].0, two[1].1), (two[0].0, 100, two[0].0, 101));
    }
    for two in tried.windows(2) {
        let next = if two[0].0 == v4(last) { v4(PUBLIC) } else { two[0].0 + 1 };
        assert!(two[1].0 == two[0].0 || two[1].0 == next);
    }
    // Too many ports to try them all: other addresses have their turn nonetheless.
    let range = addresses(flags::SRC, PUBLIC, last);
    let tried = candidates(&range, &from_client(UDP, 5000, 53));
    assert_eq!(tried[..240].iter().map(|candidate| candidate.0).collect::<HashSet<_>>().len(), 1);
    let turns: Vec<_> = tried.chunks(16).skip(15).map(|turn| (turn[0].0, turn[0].1)).collect();
    assert_eq!(turns.iter().map(|turn| turn.0).collect::<HashSet<_>>().len(), 4);
    assert!(turns[..3].iter().all(|turn| turn.1 == 5000), "{turns:?}");
}

#[test]
fn a_null_binding_changes_nothing_until_there_is_a_collision() {
    let tried = candidates(&Range::default(), &from_client(TCP, 5000, 80));
    assert_eq!(tried[..2], [(v4(CLIENT), 5000, 80), (v4(CLIENT), 5001, 80)]);
    assert_eq!(candidates(&Range::default(), &from_client(GRE, 0, 0)), [(v4(CLIENT), 0, 0)]);
}

#[test]
fn identifiers_of_queries_are_ports() {
    for protocol in [ICMP, ICMPV6] {
        let echo = from_client(protocol, 7, 8 << 8);
        for range in [snat(), dnat(), Range::default()] {
            assert_eq!(source_ports(&range, &echo)[..3], [7, 8, 9]);
            let last = Original { src_port: u16::MAX, ..echo };
            assert_eq!(source_ports(&range, &last)[..2], [u16::MAX, 0]);
            assert!(candidates(&range, &echo).iter().all(|candidate| candidate.2 == 8 << 8));
        }
        let mut tried = source_ports(&with_ports(snat(), 100, 102), &echo);
        tried.sort_unstable();
        assert_eq!(tried, [100, 101, 102]);
        assert_eq!(source_ports(&with_ports(snat(), 6, 8), &echo)[0], 7);
    }
}

#[test]
fn other_protocols_have_addresses_only() {
    let range = with_ports(addresses(flags::SRC, PUBLIC, [10, 1, 1, 242]), 1, 9);
    let mut tried = candidates(&range, &from_client(GRE, 0, 0));
    tried.sort_unstable();
    assert_eq!(tried, [240, 241, 242].map(|last| (v4([10, 1, 1, last]), 0, 0)));
}

#[test]
fn no_address_keeps_the_address() {
    let zero = addresses(flags::SRC, [0; 4], [0; 4]);
    let none = Range { flags: flags::SRC, ..Range::default() };
    let of_the_other_family = with_flags(snat(), flags::IPV6);
    for range in [zero, none, of_the_other_family] {
        let tried = candidates(&range, &from_client(TCP, 5000, 80));
        assert_eq!(tried[..2], [(v4(CLIENT), 5000, 80), (v4(CLIENT), 5001, 80)]);
        let only_ports = with_ports(range, 80, 80);
        assert_eq!(candidates(&only_ports, &from_client(TCP, 5000, 80)), [(v4(CLIENT), 80, 80)]);
    }
    let zero = Range { flags: flags::DST | flags::ADDRESSES, ..Range::default() };
    assert_eq!(candidates(&zero, &from_client(GRE, 0, 0)), [(v4(SERVER), 0, 0)]);
}

#[test]
fn limits_the_wrong_way_round() {
    let mut range = with_ports(addresses(flags::SRC, [10, 1, 1, 241], PUBLIC), 9, 8);
    let reversed = candidates(&range, &from_client(TCP, 5000, 80));
    (range.min, range.max) = (range.max, range.min);
    (range.min_port, range.max_port) = (8, 9);
    assert_eq!(reversed, candidates(&range, &from_client(TCP, 5000, 80)));
}

#[test]
fn clients_are_spread_over_addresses() {
    let range = addresses(flags::SRC, PUBLIC, [10, 1, 1, 247]);
    for persistent in [0, flags::PERSISTENT] {
        let mut clients = [0; 8];
        for client in 0..800u64 {
            let original = Original { src: [0, client], ..from_client(TCP, 5000, 80) };
            let address = candidates(&with_flags(range, persistent), &original)[0].0;
            clients[(address - v4(PUBLIC)) as usize] += 1;
        }
        assert!(clients.iter().all(|&many| (60..140).contains(&many)), "{clients:?}");
    }
}

#[test]
fn a_persistent_client_has_one_address_whomever_it_calls() {
    let range = addresses(flags::SRC, PUBLIC, [10, 1, 1, 247]);
    let called = |range: &Range| -> HashSet<u128> {
        (0..200u64)
            .map(|server| {
                let original = Original { dst: [0, server], ..from_client(TCP, 5000 + server as u16, 80) };
                candidates_by(range, &original, server as u32)[0].0
            })
            .collect()
    };
    assert_eq!(called(&range).len(), 8);
    assert_eq!(called(&with_flags(range, flags::PERSISTENT)).len(), 1);
}

#[test]
fn addresses_of_a_wide_range_are_not_tried_in_a_row_for_ever() {
    let (min, max) = (0xfd00_u128 << 112, (0xfd00_u128 << 112) + (7 << 64));
    let range = Range {
        min: halves(min),
        max: halves(max),
        flags: flags::SRC | flags::ADDRESSES | flags::IPV6,
        ..Range::default()
    };
    let original = Original { protocol: GRE, family: 6, ..Original::default() };
    let tried = candidates(&range, &original);
    assert_eq!(tried.len(), 512);
    assert!(tried.iter().all(|candidate| (min..=max).contains(&candidate.0)));
    assert_eq!(tried.windows(2).filter(|two| two[1].0 != two[0].0 + 1).count(), 7);
}

fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![Just(TCP), Just(UDP), Just(SCTP), Just(ICMP), Just(ICMPV6), Just(GRE), any::<u8>()]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![any::<u16>(), 0u16..4, 508u16..516, 596u16..604, 1020u16..1028, 65532u16..=65535]
}

fn address() -> impl Strategy<Value = u128> {
    prop_oneof![0u128..4, any::<u32>().prop_map(u128::from), any::<u128>(), Just(u128::MAX)]
}

prop_compose! {
    fn any_original()(
        src in address(),
        dst in address(),
        src_port in port(),
        dst_port in port(),
        protocol in protocol(),
        family in prop_oneof![Just(4u8), Just(6u8), any::<u8>()],
    ) -> Original {
        Original { src: halves(src), dst: halves(dst), src_port, dst_port, protocol, family, reserved: [0; 2] }
    }
}

prop_compose! {
    /// Ranges of every size, the right way round.
    fn any_range()(
        min in address(),
        more in prop_oneof![0u128..5, any::<u16>().prop_map(u128::from), any::<u128>()],
        min_port in port(),
        more_ports in prop_oneof![0u16..5, any::<u16>()],
        flags in 0u32..256,
    ) -> Range {
        Range {
            min: halves(min),
            max: halves(min.saturating_add(more)),
            min_port,
            max_port: min_port.saturating_add(more_ports),
            flags,
        }
    }
}

/// The ports among which one may move, with itself.
fn class(port: u16) -> Vec<u16> {
    let mut ports: Vec<u16> = match port {
        0..512 => (1..=511).collect(),
        512..1024 => (600..=1023).collect(),
        1024.. => (1024..=65535).collect(),
    };
    if !ports.contains(&port) {
        ports.push(port);
    }
    ports
}

/// All that a search may yield: addresses, source ports, destination ports.
fn space(range: &Range, original: &Original) -> ((u128, u128), Vec<u16>, Vec<u16>) {
    let has = |flag| range.flags & flag != 0;
    let translates = has(flags::SRC) || has(flags::DST);
    let family = if has(flags::IPV6) { 6 } else { 4 };
    let given = translates && has(flags::ADDRESSES) && original.family == family && wide(range.max) != 0;
    let kept = wide(if has(flags::DST) { original.dst } else { original.src });
    let addresses = if given { (wide(range.min), wide(range.max)) } else { (kept, kept) };
    let wanted = (translates && has(flags::PORTS)).then(|| (range.min_port..=range.max_port).collect());
    let of = |port: u16| vec![port];
    let (source, destination) = match original.protocol {
        ICMP | ICMPV6 => (wanted.unwrap_or_else(|| (0..=u16::MAX).collect()), of(original.dst_port)),
        TCP | UDP | SCTP if has(flags::DST) => {
            (class(original.src_port), wanted.unwrap_or_else(|| of(original.dst_port)))
        }
        TCP | UDP | SCTP => {
            let mut ports = wanted.unwrap_or_else(|| class(original.src_port));
            if has(flags::RANDOM) && has(flags::SRC) && !has(flags::PORTS) {
                ports.retain(|port| *port != original.src_port || !matches!(port, 0 | 512..600));
            }
            (ports, of(original.dst_port))
        }
        _ => (of(original.src_port), of(original.dst_port)),
    };
    (addresses, source, destination)
}

/// Whether the first candidate is to leave the ports alone.
fn keeps_ports(range: &Range, original: &Original) -> bool {
    let has = |flag| range.flags & flag != 0;
    let translates = has(flags::SRC) || has(flags::DST);
    let within = |port| !has(flags::PORTS) || (range.min_port..=range.max_port).contains(&port);
    match original.protocol {
        _ if !translates => true,
        ICMP | ICMPV6 => !has(flags::PORTS) || (within(original.src_port) && !has(flags::RANDOM)),
        TCP | UDP | SCTP if has(flags::DST) => {
            !has(flags::PORTS) || (within(original.dst_port) && !has(flags::RANDOM))
        }
        TCP | UDP | SCTP => within(original.src_port) && !has(flags::RANDOM),
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn candidates_are_in_the_range_and_small_spaces_are_tried_whole(
        range in any_range(),
        original in any_original(),
        random in any::<u32>(),
    ) {
        let tried = candidates_by(&range, &original, random);
        let (addresses, source, destination) = space(&range, &original);
        let (source_set, destination_set): (HashSet<u16>, HashSet<u16>) =
            (source.iter().copied().collect(), destination.iter().copied().collect());
        for (address, src_port, dst_port) in &tried {
            prop_assert!((addresses.0..=addresses.1).contains(address));
            prop_assert!(source_set.contains(src_port), "{}", src_port);
            prop_assert!(destination_set.contains(dst_port), "{}", dst_port);
        }
        let ports = source_set.len() * destination_set.len();
        let size = (addresses.1 - addresses.0).saturating_add(1).saturating_mul(ports as u128);
        if size <= MAX_ATTEMPTS.into() {
            prop_assert_eq!(tried.len() as u128, size);
            prop_assert_eq!(tried.iter().collect::<HashSet<_>>().len(), tried.len());
        } else {
            prop_assert_eq!(tried.len(), usize::from(MAX_ATTEMPTS));
        }
        let first = tried[0];
        if keeps_ports(&range, &original) {
            prop_assert_eq!((first.1, first.2), (original.src_port, original.dst_port));
        }
        if range.flags & flags::DST == 0 {
            prop_assert!(tried.iter().all(|candidate| candidate.2 == original.dst_port));
        }
        prop_assert_eq!(&tried, &candidates_by(&range, &original, random));
        if range.flags & flags::PERSISTENT != 0 {
            let elsewhere = Original { dst: [1, 2], dst_port: 3, src_port: 4, ..original };
            let other = candidates_by(&range, &elsewhere, random ^ 1)[0];
            if addresses.0 != addresses.1 {
                prop_assert_eq!(other.0, first.0);
            }
        }
    }

    #[test]
    fn any_memory_is_a_range_and_a_search(
        words in any::<([u64; 4], [u64; 4])>(),
        ports in any::<([u16; 4], u8, u8)>(),
        flags in any::<u32>(),
        random in any::<u32>(),
    ) {
        let ([a, b, c, d], [e, f, g, h]) = words;
        let ([min_port, max_port, src_port, dst_port], protocol, family) = ports;
        let range = Range { min: [a, b], max: [c, d], min_port, max_port, flags };
        let original =
            Original { src: [e, f], dst: [g, h], src_port, dst_port, protocol, family, reserved: [0; 2] };
        prop_assert!(!candidates_by(&range, &original, random).is_empty());
    }

    /// The table is small enough to fill up, and no two connections ever get the same reply tuple.
    #[test]
    fn no_two_connections_share_a_tuple(
        range in (0u8..3, 0u16..8, any::<bool>(), 0u32..8).prop_map(|(more, ports, with, bits)| {
            let range = addresses(flags::SRC, PUBLIC, [10, 1, 1, 240 + more]);
            let range = if with { with_ports(range, 5000, 5000 + ports) } else { range };
            with_flags(range, bits << 5)
        }),
        clients in prop::collection::vec((0u64..20, 4998u16..5010, 0u64..2, any::<u32>()), 1..120),
    ) {
        let mut taken = HashSet::new();
        let mut made = HashSet::new();
        let (addresses, source, _) = space(&range, &from_client(TCP, 5000, 80));
        let room = (addresses.1 - addresses.0 + 1) * source.len() as u128;
        for (client, src_port, server, random) in clients {
            if !made.insert((client, src_port, server)) {
                continue;
            }
            let original = Original { src: [0, client], dst: [1, server], ..from_client(TCP, src_port, 80) };
            let mut search = started(&range, &original, random);
            let mut found = false;
            while !found && search.advance() {
                found = taken.insert((server, search.address, search.src_port));
            }
            let full = taken.iter().filter(|tuple| tuple.0 == server).count() as u128 == room;
            prop_assert!(found || full, "none found, though there is room");
        }
    }
}
