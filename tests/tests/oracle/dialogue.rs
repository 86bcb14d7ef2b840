//! TCP conversations: mostly as two ends would lead them, with faults.

use std::{fmt, net::SocketAddr};

use anyhow::Result;
use conntrack_core::tcp::{ACK, CWR, ECE, FIN, HEADER_LEN, PSH, RST, SYN, Segment, URG};
use proptest::{prelude::*, sample::select};
use tests::packet;

use crate::kernel::{Family, Kernel, Side};

/// A conversation before the numbers of its segments are known: they follow from what was said before.
#[derive(Clone, Debug)]
pub struct Dialogue {
    /// Where the ends begin to count.
    isns: [u32; 2],
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Say(Utterance),
    /// A segment from some way back, several times.
    Repeat {
        back: usize,
        times: usize,
    },
}

#[derive(Clone, Debug)]
struct Utterance {
    pub from: Side,
    flags: u8,
    seq: Number,
    ack: Number,
    len: u16,
    window: u16,
    options: Vec<Opt>,
}

/// A sequence or acknowledgment number.
#[derive(Clone, Copy, Debug)]
enum Number {
    /// What the end would say now, and some.
    Next(u32),
    /// For a sequence number: what the other end last acknowledged. For an acknowledgment number: the end of
    /// what the other end last sent, in order or not. And some.
    Last(u32),
    Zero,
}

#[derive(Clone, Debug)]
enum Opt {
    Scale(u8),
    SackPermitted,
    Timestamps,
    /// Blocks from the acknowledgment number on: how far the left edge is away, and how long the block is.
    Sack(Vec<(u32, u32)>),
    Raw(Vec<u8>),
}

/// A segment on its way.
#[derive(Clone, Debug)]
pub struct Packet {
    pub from: Side,
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    len: u16,
    options: Vec<u8>,
}

/// What an end has said and heard.
#[derive(Clone, Copy, Default)]
struct End {
    next: u32,
    last_end: u32,
    last_ack: u32,
}

impl Dialogue {
    pub fn packets(&self) -> Vec<Packet> {
        let mut ends = self.isns.map(|isn| End { next: isn, last_end: isn, last_ack: 0 });
        let mut packets: Vec<Packet> = Vec::new();
        for step in &self.steps {
            match step {
                Step::Say(utterance) => {
                    let packet = utterance.packet(&ends);
                    let end = packet.segment().end();
                    let sender = &mut ends[packet.from as usize];
                    if packet.flags & SYN != 0 || packet.seq == sender.next {
                        sender.next = end;
                    }
                    sender.last_end = end;
                    sender.last_ack = packet.ack;
                    packets.push(packet);
                }
                Step::Repeat { back, times } => {
                    let Some(at) = packets.len().checked_sub(back + 1) else { continue };
                    packets.extend(vec![packets[at].clone(); *times]);
                }
            }
        }
        packets
    }
}

impl Utterance {
    fn packet(&self, ends: &[End; 2]) -> Packet {
        let (own, other) = (ends[self.from as usize], ends[self.from.other() as usize]);
        let number = |number, next: u32, last: u32| match number {
            Number::Next(some) => next.wrapping_add(some),
            Number::Last(some) => last.wrapping_add(some),
            Number::Zero => 0,
        };
        let ack = number(self.ack, other.next, other.last_end);
        let mut options = Vec::new();
        for option in &self.options {
            option.write(ack, &mut options);
        }
        options.resize(options.len().next_multiple_of(4).min(40), 0);
        Packet {
            from: self.from,
            flags: self.flags,
            seq: number(self.seq, own.next, other.last_ack),
            ack,
            window: self.window,
            len: self.len,
            options,
        }
    }
}

impl Opt {
    /// `conntrack-core` reads no option behind SACK blocks, which a SYN has no use for; the kernel does.
    fn put_no_option_behind_sack(&mut self) {
        const SACK: u8 = 5;
        if let Self::Raw(bytes) = self {
            bytes.retain(|byte| *byte != SACK);
        }
    }

    fn write(&self, ack: u32, to: &mut Vec<u8>) {
        match self {
            Self::Scale(scale) => to.extend([1, 3, 3, *scale]),
            Self::SackPermitted => to.extend([4, 2]),
            Self::Timestamps => to.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
            Self::Sack(blocks) => {
                to.extend([1, 1, 5, 2 + 8 * blocks.len() as u8]);
                for (away, len) in blocks {
                    let left = ack.wrapping_add(*away);
                    to.extend(left.to_be_bytes());
                    to.extend(left.wrapping_add(*len).to_be_bytes());
                }
            }
            Self::Raw(bytes) => to.extend(bytes),
        }
    }
}

impl Packet {
    /// As `conntrack-core` sees it.
    pub fn segment(&self) -> Segment {
        let mut segment = Segment {
            seq: self.seq,
            ack: self.ack,
            payload_len: self.len.into(),
            window: self.window,
            flags: self.flags,
            ..Segment::default()
        };
        let mut header = [0; 64];
        header[HEADER_LEN..][..self.options.len()].copy_from_slice(&self.options);
        segment.parse_options(&header, self.options.len() as u32);
        segment
    }

    /// As the kernel sees it.
    pub fn frame(&self, family: Family, ports: [u16; 2]) -> Result<Vec<u8>> {
        let socket = |side| SocketAddr::new(family.address(side), ports[side as usize]);
        let payload = vec![0; self.len.into()];
        let segment = packet::Segment {
            src: socket(self.from),
            dst: socket(self.from.other()),
            flags: self.flags,
            seq: self.seq,
            ack: self.ack,
            window: self.window,
            options: &self.options,
            payload: &payload,
        };
        let mut frame = Kernel::ethernet(self.from).tcp(&segment)?;
        let tcp = if family == Family::V4 { 34 } else { 54 };
        set_congestion_flags(&mut frame[tcp..], self.flags & (ECE | CWR));
        Ok(frame)
    }
}

/// Sets flags that the packet builder does not know, in a header with its checksum (RFC 1624).
fn set_congestion_flags(tcp: &mut [u8], flags: u8) {
    tcp[13] |= flags;
    let (sum, carry) = (!u16::from_be_bytes([tcp[16], tcp[17]])).overflowing_add(flags.into());
    tcp[16..18].copy_from_slice(&(!(sum + u16::from(carry))).to_be_bytes());
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (FIN, "FIN"),
            (SYN, "SYN"),
            (RST, "RST"),
            (PSH, "PSH"),
            (ACK, "ACK"),
            (URG, "URG"),
            (ECE, "ECE"),
            (CWR, "CWR"),
        ];
        let flags: Vec<_> =
            names.iter().filter(|(bit, _)| self.flags & bit != 0).map(|(_, name)| *name).collect();
        let Self { from, seq, ack, len, window, options, .. } = self;
        let flags = flags.join("|");
        write!(f, "{from:?}: {flags} seq {seq} ack {ack} len {len} window {window} options {options:?}")
    }
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Left), Just(Side::Right)]
}

/// How far a number is off: not at all, next to it, around the edges of windows, or anywhere.
fn offset() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => -2i32..3,
        2 => -2000i32..2000,
        1 => (select(vec![8192, 65535, 66000, -8192, -65535, -66000]), -2i32..3).prop_map(|(edge, by)| edge + by),
        1 => -200_000i32..200_000,
        1 => any::<i32>(),
    ]
    .prop_map(i32::cast_unsigned)
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        10 => Just(Number::Next(0)),
        4 => offset().prop_map(Number::Next),
        2 => Just(Number::Last(0)),
        1 => offset().prop_map(Number::Last),
        1 => Just(Number::Zero),
    ]
}

fn window() -> impl Strategy<Value = u16> {
    prop_oneof![5 => Just(8192u16), 1 => 0u16..4, 1 => 1000u16..=1002, 1 => any::<u16>()]
}

fn len() -> impl Strategy<Value = u16> {
    prop_oneof![4 => Just(0u16), 2 => 1u16..10, 1 => 10u16..1400]
}

fn syn_options() -> impl Strategy<Value = Vec<Opt>> {
    let option = prop_oneof![
        3 => (0u8..=16).prop_map(Opt::Scale),
        3 => Just(Opt::SackPermitted),
        1 => Just(Opt::Timestamps),
    ];
    prop::collection::vec(option, 0..4)
}

fn options() -> impl Strategy<Value = Vec<Opt>> {
    let block = (offset(), prop_oneof![1u32..2000, any::<u32>()]);
    let sack = prop::collection::vec(block, 1..4).prop_map(Opt::Sack);
    let bytes = prop_oneof![0u8..9, any::<u8>()];
    prop_oneof![
        6 => Just(Vec::new()),
        1 => Just(vec![Opt::Timestamps]),
        2 => sack.prop_map(|sack| vec![sack]),
        1 => syn_options(),
        1 => prop::collection::vec(bytes, 0..=40).prop_map(|bytes| vec![Opt::Raw(bytes)]),
    ]
}

fn flags() -> impl Strategy<Value = u8> {
    prop_oneof![
        8 => Just(ACK),
        2 => Just(ACK | PSH),
        5 => Just(FIN | ACK),
        4 => Just(SYN),
        4 => Just(SYN | ACK),
        2 => Just(RST),
        2 => Just(RST | ACK),
        2 => any::<u8>(),
    ]
}

fn utterance() -> impl Strategy<Value = Utterance> {
    let said = (side(), flags(), number(), number(), len(), window());
    (said, syn_options(), options()).prop_map(|((from, flags, seq, ack, len, window), syn, other)| {
        let len = if flags & (SYN | RST) != 0 && len < 5 { 0 } else { len };
        let mut options = if flags & SYN != 0 && other.is_empty() { syn } else { other };
        if flags & SYN != 0 {
            options.iter_mut().for_each(Opt::put_no_option_behind_sack);
        }
        Utterance { from, flags, seq, ack, len, window, options }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => utterance().prop_map(Step::Say),
        1 => (0usize..4, 1usize..6).prop_map(|(back, times)| Step::Repeat { back, times }),
    ];
    prop::collection::vec(step, 1..14)
}

/// What is said in a conversation without faults: by the calling side or the other, flags and payload.
const OPENINGS: &[&[(bool, u8, u16)]] = &[
    // Data, and a close by one side after the other.
    &[
        (true, SYN, 0),
        (false, SYN | ACK, 0),
        (true, ACK, 0),
        (true, ACK | PSH, 100),
        (false, ACK, 20),
        (true, FIN | ACK, 0),
        (false, ACK, 0),
        (false, FIN | ACK, 0),
        (true, ACK, 0),
    ],
    // A close from both sides.
    &[
        (true, SYN, 0),
        (false, SYN | ACK, 0),
        (true, ACK, 0),
        (false, FIN | ACK, 0),
        (true, FIN | ACK, 0),
        (false, ACK, 0),
    ],
    // Aborts.
    &[(true, SYN, 0), (false, SYN | ACK, 0), (true, ACK, 0), (false, RST, 0)],
    &[(true, SYN, 0), (false, SYN | ACK, 0), (true, ACK, 0), (true, RST | ACK, 0)],
    // A call from both sides.
    &[
        (true, SYN, 0),
        (false, SYN, 0),
        (true, SYN | ACK, 0),
        (false, SYN | ACK, 0),
        (true, ACK, 0),
        (false, ACK, 0),
    ],
    // Heard from the middle on.
    &[(true, ACK, 10), (false, ACK, 0), (true, ACK, 0)],
];

/// The first part of such a conversation.
fn opening() -> impl Strategy<Value = Vec<Step>> {
    let part = (select(OPENINGS), any::<prop::sample::Index>());
    let ends = ((syn_options(), window()), (syn_options(), window()));
    (part, any::<bool>(), ends).prop_map(|((said, part), left_calls, ends)| {
        let mut called = [false; 2];
        let mut step = |&(calling, flags, len): &(bool, u8, u16)| {
            let (options, window) = if calling { &ends.0 } else { &ends.1 };
            let from = if calling == left_calls { Side::Left } else { Side::Right };
            let (mut seq, mut options) = (Number::Next(0), options.clone());
            if flags & SYN == 0 {
                options.clear();
            } else if std::mem::replace(&mut called[from as usize], true) {
                // When both call, the SYN+ACK repeats the number of the SYN.
                seq = Number::Next(u32::MAX);
            }
            Step::Say(Utterance { from, flags, seq, ack: Number::Next(0), len, window: *window, options })
        };
        said[..part.index(said.len() + 1)].iter().map(&mut step).collect()
    })
}

/// A conversation of some segments, after an opening that was heard without faults.
pub fn dialogue() -> impl Strategy<Value = Dialogue> {
    let isn = || prop_oneof![Just(1000u32), (u32::MAX - 2000)..=u32::MAX, any::<u32>()];
    (isn(), isn(), opening(), steps()).prop_map(|(left, right, opening, rest)| Dialogue {
        isns: [left, right],
        steps: [opening, rest].concat(),
    })
}
