//! SCTP associations: mostly as two ends would lead them, with faults.

use std::{fmt, net::IpAddr};

use anyhow::Result;
use conntrack_core::{protocol, sctp};
use etherparse::IpNumber;
use proptest::{prelude::*, sample::select};

use crate::kernel::{Family, Kernel, Side};

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// The common header's size, and where its checksum is.
const HEADER: usize = 12;
const CHECKSUM: usize = 8;

/// An association before the tags of its packets are known: they follow from what was said before.
#[derive(Clone, Debug)]
pub struct Association {
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    from: Side,
    vtag: Vtag,
    chunks: Vec<Chunk>,
}

#[derive(Clone, Copy, Debug)]
enum Vtag {
    /// What the other end wants to see.
    Right,
    /// What this end wants to see.
    Reflected,
    Zero,
    Other(u32),
}

#[derive(Clone, Debug)]
struct Chunk {
    kind: u8,
    flags: u8,
    /// For INIT and INIT ACK.
    tag: u32,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The length field says so.
    Length(u16),
    /// Not even the fixed part is there.
    Short,
}

/// A packet on its way: the SCTP part of it, without ports and checksum.
#[derive(Clone, Debug)]
pub struct Packet {
    pub from: Side,
    vtag: u32,
    chunks: Vec<Chunk>,
}

impl Association {
    pub fn packets(&self) -> Vec<Packet> {
        let mut told = [0; 2];
        let mut packets = Vec::new();
        for Step { from, vtag, chunks } in &self.steps {
            let vtag = match *vtag {
                Vtag::Right => told[from.other() as usize],
                Vtag::Reflected => told[*from as usize],
                Vtag::Zero => 0,
                Vtag::Other(tag) => tag,
            };
            let tells = chunks.iter().rfind(|chunk| matches!(chunk.kind, INIT | INIT_ACK));
            told[*from as usize] = tells.map_or(told[*from as usize], |chunk| chunk.tag);
            packets.push(Packet { from: *from, vtag, chunks: chunks.clone() });
        }
        packets
    }
}

impl Chunk {
    fn bytes(&self) -> Vec<u8> {
        let body = match (self.kind, self.fault) {
            (_, Fault::Short) => vec![0; 4],
            (INIT | INIT_ACK, _) => [&self.tag.to_be_bytes()[..], &[0; 12]].concat(),
            (DATA, _) => vec![0; 17],
            _ => vec![0; 4],
        };
        let length = match self.fault {
            Fault::Length(length) => length,
            _ => 4 + body.len() as u16,
        };
        let mut bytes = [&[self.kind, self.flags][..], &length.to_be_bytes(), &body].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

impl Packet {
    fn bytes(&self, ports: [u16; 2]) -> Vec<u8> {
        let (src, dst) = (ports[self.from as usize], ports[self.from.other() as usize]);
        let mut bytes =
            [&src.to_be_bytes()[..], &dst.to_be_bytes(), &self.vtag.to_be_bytes(), &[0; 4]].concat();
        bytes.extend(self.chunks.iter().flat_map(Chunk::bytes));
        let sum = crc32c(&bytes);
        bytes[CHECKSUM..HEADER].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// As `conntrack-core` sees it.
    pub fn facts(&self) -> sctp::Packet {
        let bytes = self.bytes([0; 2]);
        let mut facts = sctp::Packet::default();
        facts.start(self.vtag);
        let mut at = HEADER;
        while let Some(&[kind, flags, l0, l1]) = bytes.get(at..at + 4) {
            let tag = bytes
                .get(at + 4..at + 20)
                .map(|body| u32::from_be_bytes([body[0], body[1], body[2], body[3]]));
            let length = u16::from_be_bytes([l0, l1]);
            if !facts.push(kind, flags, length, tag) {
                break;
            }
            at += usize::from(length).next_multiple_of(4);
        }
        facts
    }

    /// As the kernel sees it.
    pub fn frame(&self, family: Family, ports: [u16; 2]) -> Result<Vec<u8>> {
        let (src, dst): (IpAddr, IpAddr) = (family.address(self.from), family.address(self.from.other()));
        Kernel::ethernet(self.from).ip(src, dst, IpNumber(protocol::SCTP), &self.bytes(ports))
    }
}

/// The Castagnoli CRC (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(!0, step)
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, vtag, chunks } = self;
        write!(f, "{from:?}: vtag {vtag:#x} {chunks:?}")
    }
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Left), Just(Side::Right)]
}

/// Few, so that those of different packets are often the same.
fn tag() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 1u32..4, 1 => Just(0u32), 1 => any::<u32>()]
}

fn vtag() -> impl Strategy<Value = Vtag> {
    prop_oneof![
        12 => Just(Vtag::Right),
        3 => Just(Vtag::Reflected),
        2 => Just(Vtag::Zero),
        2 => tag().prop_map(Vtag::Other),
    ]
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let kind = prop_oneof![
        20 => 0u8..=14,
        2 => Just(HEARTBEAT),
        2 => Just(HEARTBEAT_ACK),
        1 => any::<u8>(),
    ];
    let fault = prop_oneof![
        40 => Just(Fault::None),
        1 => Just(Fault::Short),
        1 => prop_oneof![0u16..9, any::<u16>()].prop_map(Fault::Length),
    ];
    (kind, prop_oneof![3 => Just(0u8), 1 => Just(1u8), 1 => any::<u8>()], tag(), fault)
        .prop_map(|(kind, flags, tag, fault)| Chunk { kind, flags, tag, fault })
}

fn step() -> impl Strategy<Value = Step> {
    let chunks = prop_oneof![
        6 => chunk().prop_map(|chunk| vec![chunk]),
        1 => prop::collection::vec(chunk(), 0..5),
    ];
    (side(), vtag(), chunks, any::<bool>()).prop_map(|(from, vtag, chunks, spoilt)| {
        let begins = chunks.iter().any(|chunk| chunk.kind == INIT);
        let vtag = if begins && !spoilt { Vtag::Zero } else { vtag };
        Step { from, vtag, chunks }
    })
}

/// What is said in an association without faults: by the calling side or the other, and the chunks.
const OPENINGS: &[&[(bool, &[u8])]] = &[
    // One side shuts down.
    &[
        (true, &[INIT]),
        (false, &[INIT_ACK]),
        (true, &[COOKIE_ECHO, DATA]),
        (false, &[COOKIE_ACK, SACK]),
        (true, &[DATA]),
        (false, &[SACK]),
        (true, &[SHUTDOWN]),
        (false, &[SHUTDOWN_ACK]),
        (true, &[SHUTDOWN_COMPLETE]),
    ],
    // The other does.
    &[
        (true, &[INIT]),
        (false, &[INIT_ACK]),
        (true, &[COOKIE_ECHO]),
        (false, &[COOKIE_ACK]),
        (false, &[SHUTDOWN]),
        (true, &[SHUTDOWN_ACK]),
        (false, &[SHUTDOWN_COMPLETE]),
    ],
    // Both call at once.
    &[
        (true, &[INIT]),
        (false, &[INIT]),
        (true, &[INIT_ACK]),
        (false, &[INIT_ACK]),
        (true, &[COOKIE_ECHO]),
        (false, &[COOKIE_ECHO]),
        (true, &[COOKIE_ACK]),
        (false, &[COOKIE_ACK]),
    ],
    // A stale cookie, and an abort.
    &[(true, &[INIT]), (false, &[INIT_ACK]), (true, &[COOKIE_ECHO]), (false, &[ERROR]), (true, &[INIT])],
    &[
        (true, &[INIT]),
        (false, &[INIT_ACK]),
        (true, &[COOKIE_ECHO]),
        (false, &[COOKIE_ACK]),
        (false, &[ABORT]),
    ],
    // A further path of an association.
    &[(true, &[HEARTBEAT]), (false, &[HEARTBEAT_ACK]), (false, &[HEARTBEAT]), (true, &[HEARTBEAT_ACK])],
    &[(true, &[SHUTDOWN_ACK]), (false, &[SHUTDOWN_COMPLETE])],
];

/// The first part of such an association.
fn opening() -> impl Strategy<Value = Vec<Step>> {
    let part = (select(OPENINGS), any::<prop::sample::Index>());
    (part, any::<bool>(), tag(), tag()).prop_map(|((said, part), left_calls, own, other)| {
        let step = |&(calling, kinds): &(bool, &[u8])| {
            let from = if calling == left_calls { Side::Left } else { Side::Right };
            let tag = if calling { own } else { other };
            let vtag = match kinds {
                [INIT] => Vtag::Zero,
                // On a further path the tags were told elsewhere.
                [HEARTBEAT | HEARTBEAT_ACK] => Vtag::Other(if calling { other } else { own }),
                _ => Vtag::Right,
            };
            let chunk = |&kind: &u8| Chunk { kind, flags: 0, tag, fault: Fault::None };
            Step { from, vtag, chunks: kinds.iter().map(chunk).collect() }
        };
        said[..part.index(said.len() + 1)].iter().map(step).collect()
    })
}

/// An association of some packets, after an opening that was heard without faults.
pub fn association() -> impl Strategy<Value = Association> {
    (opening(), prop::collection::vec(step(), 1..14))
        .prop_map(|(opening, rest)| Association { steps: [opening, rest].concat() })
}

#[test]
fn the_checksum_is_castagnolis() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
