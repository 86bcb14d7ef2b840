//! Translation: connections that choose their tuples from one table.

use std::collections::HashSet;

use arbitrary::Arbitrary;
use conntrack_core::nat::{MAX_ATTEMPTS, Original, Range, Search, flags};
use conntrack_core::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};

use crate::Check;

/// A `nat(...)`, and connections that it is done to.
#[derive(Arbitrary, Debug)]
pub struct Table {
    flags: u32,
    min: Address,
    max: Address,
    ports: [u16; 2],
    salt: u32,
    connections: Vec<Connection>,
}

/// An address, most often one of a few, so that connections meet.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Address {
    Near(u8),
    Ipv4(u32),
    Any([u64; 2]),
}

impl From<Address> for [u64; 2] {
    fn from(address: Address) -> Self {
        match address {
            Address::Near(address) => [0, address.into()],
            Address::Ipv4(address) => [0, address.into()],
            Address::Any(address) => address,
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Connection {
    src: Address,
    dst: Address,
    ports: [u16; 2],
    protocol: u8,
    family: u8,
    random: u32,
}

impl Connection {
    fn original(&self) -> Original {
        let known = [TCP, UDP, SCTP, ICMP, ICMPV6];
        Original {
            src: self.src.into(),
            dst: self.dst.into(),
            src_port: self.ports[0],
            dst_port: self.ports[1],
            protocol: known.get(usize::from(self.protocol)).copied().unwrap_or(self.protocol),
            family: if self.family < 2 { 4 + 2 * self.family } else { self.family },
            reserved: [0; 2],
        }
    }
}

/// So many connections fill small tables; more only take time.
const MAX_CONNECTIONS: usize = 64;

impl Check for Table {
    fn check(&self) {
        let range = Range {
            min: self.min.into(),
            max: self.max.into(),
            min_port: self.ports[0],
            max_port: self.ports[1],
            flags: self.flags,
        };
        let mut table = HashSet::new();
        for connection in self.connections.iter().take(MAX_CONNECTIONS) {
            let original = connection.original();
            let candidates = candidates(&range, &original, self.salt, connection.random);
            check_candidates(&candidates, &range, &original);
            let mut replies = candidates.iter().map(|candidate| candidate.reply(&range, &original));
            // What the datapath does: the first tuple that can be claimed is the connection's.
            if let Some(free) = replies.find(|tuple| !table.contains(tuple)) {
                table.insert(free);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Candidate {
    address: [u64; 2],
    src_port: u16,
    dst_port: u16,
}

/// Protocol and family; source and destination of the replies, with their ports.
type Tuple = (u8, u8, ([u64; 2], u16), ([u64; 2], u16));

impl Candidate {
    fn reply(&self, range: &Range, original: &Original) -> Tuple {
        let (src, dst) = if range.flags & flags::DST != 0 {
            (self.address, original.src)
        } else {
            (original.dst, self.address)
        };
        (original.protocol, original.family, (src, self.dst_port), (dst, self.src_port))
    }
}

fn candidates(range: &Range, original: &Original, salt: u32, random: u32) -> Vec<Candidate> {
    let mut search = Search::default();
    search.start(range, original, salt, random);
    let mut candidates = Vec::new();
    while search.advance() {
        let Search { address, src_port, dst_port, .. } = search;
        candidates.push(Candidate { address, src_port, dst_port });
        assert!(candidates.len() <= usize::from(MAX_ATTEMPTS));
    }
    assert!(!search.advance(), "the end is the end");

    // What was in the memory before does not matter.
    let mut again = search;
    again.start(range, original, salt, random);
    assert!(again.advance());
    assert_eq!((again.address, again.src_port), (candidates[0].address, candidates[0].src_port));
    candidates
}

/// All candidates are what was asked for; each of them is tried once, if they are not too many.
fn check_candidates(candidates: &[Candidate], range: &Range, original: &Original) {
    let (lowest, highest) = addresses(range, original);
    let (source, destination) = ports(range, original);
    for candidate in candidates {
        let address = wide(candidate.address);
        assert!((lowest..=highest).contains(&address), "{candidate:?}");
        assert!(source.contain(candidate.src_port), "{candidate:?}");
        assert!(destination.contain(candidate.dst_port), "{candidate:?}");
    }
    let size = (highest - lowest).saturating_add(1).saturating_mul(source.size() * destination.size());
    if size <= MAX_ATTEMPTS.into() {
        assert_eq!(candidates.len() as u128, size);
        assert_eq!(candidates.iter().collect::<HashSet<_>>().len() as u128, size);
    } else {
        assert_eq!(candidates.len(), usize::from(MAX_ATTEMPTS));
    }
}

fn wide(address: [u64; 2]) -> u128 {
    u128::from(address[0]) << 64 | u128::from(address[1])
}

/// The lowest and the highest address that may be chosen.
fn addresses(range: &Range, original: &Original) -> (u128, u128) {
    let family = if range.flags & flags::IPV6 != 0 { 6 } else { 4 };
    let (min, max) = (wide(range.min), wide(range.max));
    let given = range.flags & flags::ADDRESSES != 0 && translates(range) && (min, max) != (0, 0);
    if given && original.family == family {
        return (min.min(max), min.max(max));
    }
    let kept = wide(if range.flags & flags::DST != 0 { original.dst } else { original.src });
    (kept, kept)
}

fn translates(range: &Range) -> bool {
    range.flags & (flags::SRC | flags::DST) != 0
}

/// Ports that may be chosen: those between two limits, and perhaps one more.
struct Ports {
    min: u16,
    max: u16,
    also: Option<u16>,
}

impl Ports {
    fn between(a: u16, b: u16) -> Self {
        Self { min: a.min(b), max: a.max(b), also: None }
    }

    /// The class of a port, and itself.
    fn class(port: u16) -> Self {
        let (min, max) = match port {
            0..512 => (1, 511),
            512..1024 => (600, 1023),
            1024.. => (1024, u16::MAX),
        };
        Self { min, max, also: (!(min..=max).contains(&port)).then_some(port) }
    }

    fn contain(&self, port: u16) -> bool {
        (self.min..=self.max).contains(&port) || self.also == Some(port)
    }

    fn size(&self) -> u128 {
        u128::from(self.max - self.min) + 1 + u128::from(self.also.is_some())
    }
}

/// The source and the destination ports that may be chosen.
fn ports(range: &Range, original: &Original) -> (Ports, Ports) {
    let kept = |port| Ports::between(port, port);
    let given = || Ports::between(range.min_port, range.max_port);
    let (src_port, dst_port) = (original.src_port, original.dst_port);
    let has_ports = translates(range) && range.flags & flags::PORTS != 0;
    let is_destination = range.flags & flags::DST != 0;
    match original.protocol {
        ICMP | ICMPV6 if has_ports => (given(), kept(dst_port)),
        ICMP | ICMPV6 => (Ports::between(0, u16::MAX), kept(dst_port)),
        TCP | UDP | SCTP if is_destination && has_ports => (Ports::class(src_port), given()),
        TCP | UDP | SCTP if is_destination => (Ports::class(src_port), kept(dst_port)),
        TCP | UDP | SCTP if has_ports => (given(), kept(dst_port)),
        TCP | UDP | SCTP if translates(range) && range.flags & flags::RANDOM != 0 => {
            (Ports { also: None, ..Ports::class(src_port) }, kept(dst_port))
        }
        TCP | UDP | SCTP => (Ports::class(src_port), kept(dst_port)),
        _ => (kept(src_port), kept(dst_port)),
    }
}
