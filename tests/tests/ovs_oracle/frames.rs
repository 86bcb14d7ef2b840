//! Random frames.

use std::fmt;

use proptest::{
    prelude::*,
    sample::{Index, select},
};
use tests::packet::{ARP, Ethernet, IPV4, IPV6, VLAN, seal};

/// A frame, and the port that it enters, from 0.
#[derive(Clone)]
pub struct Sent {
    pub port: usize,
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}: ", self.port + 1)?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a later fragment has: too little to be a transport header, for which Open vSwitch's userspace datapath takes it
/// when it corrects checksums.
const NO_HEADER: usize = 6;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
/// A protocol without a checksum. What has one is handled differently in fragments: SCTP's cannot be corrected, for which the
/// switch drops the packet, and Open vSwitch's userspace datapath lets it go with a wrong one, as it does with all others
/// over IPv6.
const GRE: u8 = 47;

/// The layers below IP.
#[derive(Clone, Debug)]
struct Link {
    ethernet: Ethernet,
    /// Whether there is a tag around that of `ethernet`.
    outer: bool,
}

fn link() -> impl Strategy<Value = Link> {
    let macs: &[[u8; 6]] =
        &[[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3], [1, 0, 0x5e, 0, 0, 1], [0xff; 6]];
    let vlan = prop_oneof![
        4 => Just(None),
        3 => select(&[Some(5u16), Some(0x6005), Some(6), Some(0x4000)][..]),
    ];
    (select(&macs[..3]), select(macs), vlan, prop::bool::weighted(0.05))
        .prop_map(|(src, dst, vlan, outer)| Link { ethernet: Ethernet { src, dst, vlan }, outer })
}

/// What follows IP's header, with checksums to be filled in: `kind` is ICMP's type and code, and `flags` decides what is
/// optional.
fn transport(protocol: u8, flags: u8, ports: [u16; 2], kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let [src, dst] = ports.map(u16::to_be_bytes);
    let mut bytes = [src, dst].concat();
    match protocol {
        TCP => bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x20, 0, 0, 0, 0, 0]),
        UDP => {
            bytes.extend(u16::try_from(8 + payload.len()).unwrap_or(0).to_be_bytes());
            bytes.extend([if flags & 2 != 0 { 0 } else { 1 }, 0]);
        }
        SCTP => bytes.extend([0, 0, 0, 1, 0x12, 0x34, 0x56, 0x78]),
        ICMP | ICMPV6 => {
            bytes = kind.to_vec();
            bytes.extend([0, 0, 0, 0, 0, 0]);
            if protocol == ICMPV6 && (kind[0] == 135 || kind[0] == 136) {
                bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
                if flags & 1 != 0 {
                    bytes.extend([if kind[0] == 135 { 1 } else { 2 }, 1, 2, 0, 0, 0, 0, 1]);
                }
                return bytes;
            }
        }
        _ => {}
    }
    bytes.extend(payload);
    bytes
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 8..40)
}

/// A protocol and what follows IP's header.
fn l4(protocols: &'static [u8], kinds: &'static [[u8; 2]]) -> impl Strategy<Value = (u8, Vec<u8>)> {
    let ports = || select(&[1024u16, 1025, 80, 81, 99, 0][..]);
    (select(protocols), select(&[2u8, 0x12, 0x10, 0x11, 4][..]), [ports(), ports()], select(kinds), payload())
        .prop_map(|(protocol, flags, ports, kind, payload)| {
            (protocol, transport(protocol, flags, ports, kind, &payload))
        })
}

fn ipv4() -> impl Strategy<Value = Vec<u8>> {
    let source = select(&[[10u8, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 9], [10, 0, 1, 7]][..]);
    let fragment =
        prop_oneof![8 => Just(0u16), 1 => Just(0x4000), 1 => Just(0x2000), 1 => Just(0x2003), 1 => Just(3)];
    let options = prop_oneof![6 => Just(0usize), 1 => Just(4), 1 => Just(40)];
    (
        (source.clone(), source),
        select(&[0u8, 184, 3, 187][..]),
        select(&[64u8, 64, 63, 2, 1, 0][..]),
        fragment,
        options,
        l4(&[TCP, TCP, UDP, UDP, ICMP, SCTP, GRE, 2], &[[8, 0], [0, 0], [3, 1]]),
    )
        .prop_map(|((src, dst), tos, ttl, fragment, options, (protocol, mut l4))| {
            if fragment & 0x1fff != 0 {
                l4.truncate(NO_HEADER);
            }
            let protocol = if fragment & 0x3fff != 0 && protocol == SCTP { GRE } else { protocol };
            let length = u16::try_from(20 + options + l4.len()).unwrap_or(0).to_be_bytes();
            let words = u8::try_from(options / 4).unwrap_or(0);
            let mut bytes = vec![0x45 + words, tos, length[0], length[1], 0, 7];
            bytes.extend(fragment.to_be_bytes());
            bytes.extend([ttl, protocol, 0, 0]);
            bytes.extend([src, dst].concat());
            bytes.resize(20 + options, 1);
            bytes.extend(l4);
            sealed(IPV4, &bytes)
        })
}

/// A packet with the right checksums.
fn sealed(kind: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = Ethernet::default().frame(kind, packet);
    seal(&mut frame);
    frame.split_off(14)
}

/// Headers between that of IPv6 and the transport: with the number of the first one, and a place for that of the next.
fn extensions() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let one = select(vec![
        (0u8, vec![0u8, 0, 1, 4, 0, 0, 0, 0]),
        (60, vec![0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (43, vec![0, 0, 59, 0, 0, 0, 0, 0]),
        (44, vec![0, 0, 0, 1, 0, 0, 0, 9]),
        (44, vec![0, 0, 0, 8, 0, 0, 0, 9]),
        (44, vec![0, 0, 0, 0, 0, 0, 0, 9]),
    ]);
    prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(one, 1..3)]
}

fn ipv6() -> impl Strategy<Value = Vec<u8>> {
    let address = || {
        select(
            &[
                [0xfdu8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
                [0xfd, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7],
            ][..],
        )
    };
    (
        (address(), address()),
        select(&[0u32, 0x0b8_00000, 0x003_12345, 0x5][..]),
        select(&[64u8, 64, 63, 2, 1, 0][..]),
        extensions(),
        l4(
            &[TCP, TCP, UDP, UDP, ICMPV6, ICMPV6, SCTP, GRE, 59],
            &[[128, 0], [129, 0], [135, 0], [136, 0], [1, 4]],
        ),
    )
        .prop_map(|((src, dst), word, ttl, extensions, (protocol, l4))| {
            let header = |next: u8, length: usize| {
                let mut header = (0x6000_0000 | word).to_be_bytes().to_vec();
                header.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
                header.extend([next, ttl]);
                header.extend([src, dst].concat());
                header
            };
            let whole = [header(protocol, l4.len()), l4].concat();
            let (mut next, mut rest) = (protocol, sealed(IPV6, &whole)[40..].to_vec());
            for (_, header) in extensions.iter().filter(|(number, _)| *number == 44) {
                next = GRE;
                if header[3] > 1 {
                    rest.truncate(NO_HEADER);
                }
            }
            for (number, mut header) in extensions.into_iter().rev() {
                header[0] = next;
                header.extend(rest);
                (next, rest) = (number, header);
            }
            [header(next, rest.len()), rest].concat()
        })
}

fn arp() -> impl Strategy<Value = Vec<u8>> {
    (select(&[1u8, 2, 3, 4][..]), select(&[1u8, 2, 9][..]), select(&[2u8, 1, 3][..])).prop_map(
        |(op, spa, tpa)| {
            let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, op];
            bytes.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, spa, 0, 0, 0, 0, 0, 0, 10, 0, 0, tpa]);
            bytes.resize(46, 0);
            bytes
        },
    )
}

fn network() -> impl Strategy<Value = (u16, Vec<u8>)> {
    prop_oneof![
        6 => ipv4().prop_map(|bytes| (IPV4, bytes)),
        4 => ipv6().prop_map(|bytes| (IPV6, bytes)),
        1 => arp().prop_map(|bytes| (ARP, bytes)),
        1 => arp().prop_map(|bytes| (0x8035, bytes)),
        1 => payload().prop_map(|bytes| (0x88cc, bytes)),
        // A length and LLC; and with SNAP, which has an EtherType.
        1 => Just((40, vec![0x42; 46])),
        1 => ipv4().prop_map(|bytes| {
            let length = u16::try_from(8 + bytes.len()).unwrap_or(0);
            (length, [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &bytes].concat())
        }),
    ]
}

/// A frame. Some end too early, or have a byte that is not as it should be.
pub fn sent() -> impl Strategy<Value = Sent> {
    let damage = prop_oneof![8 => Just(None), 1 => any::<Index>().prop_map(Some)];
    (0..super::world::PORTS, link(), network(), damage, any::<bool>()).prop_map(
        |(port, link, (kind, payload), damage, cut)| {
            let mut bytes = link.ethernet.frame(kind, &payload);
            if link.outer {
                bytes.splice(12..12, [VLAN.to_be_bytes(), 9u16.to_be_bytes()].concat());
            }
            let tags = usize::from(link.outer) + usize::from(link.ethernet.vlan.is_some());
            let start = 16 + 4 * tags;
            if let Some(at) = damage {
                // Where nothing is left behind a tag, the kernel does not give the frame to Open vSwitch.
                let at = start + at.index(bytes.len() - start);
                if cut {
                    bytes.truncate(at);
                } else {
                    // What makes a fragment stays, as does the size of TCP's header, which Open vSwitch's datapaths look at
                    // differently.
                    let fragment = start + 4..start + 6;
                    bytes[at] ^= if fragment.contains(&at) { 0 } else { 1 << (at % 4) };
                }
            }
            Sent { port, bytes }
        },
    )
}
