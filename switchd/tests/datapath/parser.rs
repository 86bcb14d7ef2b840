//! From bytes to the flow key, and back.

use proptest::prelude::*;
use switchd::datapath::FlowTables;
use switchd::datapath::Sizes;
use switchd::datapath::host::{Frame, Memory};
use switchd_ebpf::key::{self, Key, Location};
use switchd_ebpf::parse::{Layout, eth_type, parse};
use switchd_ebpf::rewrite::{Due, rewrite};

use crate::frames::{self, Ip, flags};

const PORT: u16 = 7;

fn parsed(frame: &[u8]) -> (Key, Layout) {
    let (mut key, mut layout) = (Key::ZERO, Layout::default());
    parse(&Frame::from(frame.to_vec()), PORT, &mut key, &mut layout);
    (key, layout)
}

/// A key with these fields, and those that all frames of these tests have.
fn key(fields: &[(Location, u128)]) -> Key {
    let mut key = Key::ZERO;
    key.set(key::IN_PORT, PORT.into());
    key.set(key::ETH_SRC, 0x0200_0000_0001);
    key.set(key::ETH_DST, 0x0200_0000_0002);
    for &(at, value) in fields {
        key.set(at, value);
    }
    key
}

const V4: [(Location, u128); 4] =
    [(key::ETH_TYPE, 0x0800), (key::IPV4_SRC, 0x0a00_0001), (key::IPV4_DST, 0x0a00_0002), (key::IP_TTL, 64)];
const V6: [(Location, u128); 4] = [
    (key::ETH_TYPE, 0x86dd),
    (key::IPV6_SRC, 0xfd00_0000_0000_0000_0000_0000_0000_0001),
    (key::IPV6_DST, 0xfd00_0000_0000_0000_0000_0000_0000_0002),
    (key::IP_TTL, 64),
];

/// A SYN of connection 4, as most of these tests have it.
const SYN: [(Location, u128); 4] =
    [(key::IP_PROTO, 6), (key::TP_SRC, 1004), (key::TP_DST, 80), (key::TCP_FLAGS, 2)];

fn syn(ip: Ip) -> Vec<u8> {
    frames::tcp(ip, 0, 4, flags::SYN, 1, 0, b"")
}

#[test]
fn frames_without_a_known_protocol_have_their_type() {
    assert_eq!(parsed(&frames::ethernet(0, 0x88cc, b"lldp")).0, key(&[(key::ETH_TYPE, 0x88cc)]));
    let none = key(&[(key::ETH_TYPE, 0x05ff)]);
    assert_eq!(parsed(&frames::ethernet(0, 46, &[0x42, 0x42, 3, 0, 0, 0, 8, 0])).0, none);
    // SNAP: the type is behind its header, unless another organisation says what it means.
    let mut snap = vec![0xaa, 0xaa, 3, 0, 0, 0];
    snap.extend(&syn(Ip::V4)[12..]);
    let (found, layout) = parsed(&frames::ethernet(0, snap.len() as u16, &snap));
    assert_eq!(found, key(&[V4, SYN].concat()));
    assert_eq!((layout.l3, layout.l4), (22, 42));
    snap[5] = 1;
    assert_eq!(parsed(&frames::ethernet(0, snap.len() as u16, &snap)).0, none);
}

#[test]
fn the_outer_tag_is_the_one_that_counts() {
    let tagged = frames::tagged(&syn(Ip::V4), 0xa005);
    let tci = [(key::VLAN_TCI, 0xb005)];
    let (found, layout) = parsed(&tagged);
    assert_eq!(found, key(&[&V4[..], &SYN, &tci].concat()));
    assert_eq!((found.get(key::VLAN_VID), found.get(key::VLAN_PCP)), (5, 5));
    assert_eq!((layout.l3, layout.l4), (18, 38));
    let twice = frames::tagged(&tagged, 9);
    assert_eq!(parsed(&twice).0, key(&[(key::VLAN_TCI, 0x1009), (key::ETH_TYPE, 0x8100)]));
    // A tag cut short is only a type.
    assert_eq!(parsed(&tagged[..17]).0, key(&[(key::ETH_TYPE, 0x8100)]));
}

#[test]
fn arp_has_its_addresses() {
    let fields = [
        (key::ETH_DST, 0xffff_ffff_ffff),
        (key::ETH_TYPE, 0x0806),
        (key::IP_PROTO, 1),
        (key::ARP_SHA, 0x0200_0000_0001),
        (key::IPV4_SRC, 0x0a00_0001),
        (key::IPV4_DST, 0x0a00_0002),
    ];
    assert_eq!(parsed(&frames::arp()).0, key(&fields));
    // Not for IPv4 over Ethernet: nothing is known of it.
    for (at, byte) in [(15, 6), (17, 1), (18, 8), (19, 16)] {
        let mut other = frames::arp();
        other[at] = byte;
        assert_eq!(parsed(&other).0, key(&fields[..2]), "byte {at}");
    }
}

#[test]
fn ip_headers_have_their_fields() {
    for (ip, fields, l4) in [(Ip::V4, V4, 34), (Ip::V6, V6, 54)] {
        let (found, layout) = parsed(&syn(ip));
        assert_eq!(found, key(&[fields, SYN].concat()));
        assert_eq!((layout.l3, layout.l4, layout.l4_len, layout.partial), (14, l4, 20, 0));
        let udp = [(key::IP_PROTO, 17), (key::TP_SRC, 5001), (key::TP_DST, 53)];
        assert_eq!(parsed(&frames::udp(ip, 0, 1, b"?")).0, key(&[&fields[..], &udp].concat()));
        let icmp = match ip {
            Ip::V4 => [(key::IP_PROTO, 1), (key::TP_SRC, 8)],
            Ip::V6 => [(key::IP_PROTO, 58), (key::TP_SRC, 128)],
        };
        assert_eq!(parsed(&frames::echo(ip, 0, 77)).0, key(&[&fields[..], &icmp].concat()));
    }
    let mut four = syn(Ip::V4);
    four[15] = 0xba;
    assert_eq!(parsed(&four).0, key(&[&V4[..], &SYN, &[(key::IP_TOS, 0xba)]].concat()));
    let mut six = syn(Ip::V6);
    six[14..18].copy_from_slice(&[0x6b, 0xaf, 0xed, 0xcb]);
    let fields = [(key::IP_TOS, 0xba), (key::IPV6_LABEL, 0xf_edcb)];
    assert_eq!(parsed(&six).0, key(&[&V6[..], &SYN, &fields].concat()));
    let sctp = [&[0, 1, 0, 2][..], &[0; 12]].concat();
    let ports = [(key::IP_PROTO, 132), (key::TP_SRC, 1), (key::TP_DST, 2)];
    assert_eq!(parsed(&frames::ipv4(0, 132, &[], &sctp)).0, key(&[&V4[..], &ports].concat()));
}

#[test]
fn ipv4_options_are_passed_over_and_wrong_lengths_leave_only_the_ethernet_header() {
    let segment = &syn(Ip::V4)[34..];
    let (found, layout) = parsed(&frames::ipv4(0, 6, &[1; 40], segment));
    assert_eq!(found, key(&[V4, SYN].concat()));
    assert_eq!((layout.l3_len, layout.l4, layout.l4_len), (60, 74, 20));
    let ethernet = key(&V4[..1]);
    // Version, header length, total length too long for the frame and too short for the header.
    for (at, bytes) in [(14, [0x55, 0]), (14, [0x44, 0]), (16, [0, 41]), (16, [0, 19])] {
        let mut frame = syn(Ip::V4);
        frame[at..at + 2].copy_from_slice(&bytes);
        assert_eq!(parsed(&frame).0, ethernet, "{bytes:02x?} at {at}");
    }
    // A header too short for its protocol.
    let (found, layout) = parsed(&frames::ipv4(0, 6, &[], &segment[..19]));
    assert_eq!((found, layout.l4), (key(&[&V4[..], &SYN[..1]].concat()), 0));
}

#[test]
fn fragments_are_told_apart() {
    for (offset, frag) in [([0x40, 0], 0), ([0x20, 0], 1), ([0x20, 1], 3), ([0, 1], 3)] {
        let mut frame = syn(Ip::V4);
        frame[20..22].copy_from_slice(&offset);
        let (found, layout) = parsed(&frame);
        let ports = if frag & 2 == 0 { &SYN[..] } else { &SYN[..1] };
        assert_eq!(found, key(&[&V4, ports, &[(key::IP_FRAG, frag)]].concat()), "{offset:02x?}");
        assert_eq!(layout.l4 != 0, frag & 2 == 0);
    }
    let segment = &syn(Ip::V6)[54..];
    for (offset, frag) in [([0, 0], 0), ([0, 1], 1), ([0, 9], 3), ([0, 8], 3)] {
        let header = [6, 0, offset[0], offset[1], 0, 0, 0, 1];
        let (found, layout) = parsed(&frames::ipv6(0, 44, &[&header, segment].concat()));
        // Of a later fragment the kind of header that it begins with is all that is known: itself.
        let protocol = if frag & 2 == 0 { 6 } else { 44 };
        let ports = if frag & 2 == 0 { &SYN[1..] } else { &[] };
        let fields = [&V6, ports, &[(key::IP_FRAG, frag), (key::IP_PROTO, protocol)]].concat();
        assert_eq!(found, key(&fields), "{offset:02x?}");
        assert_eq!(layout.l4 != 0, frag & 2 == 0);
    }
}

#[test]
fn extension_headers_are_passed_over_up_to_a_limit() {
    let segment = &syn(Ip::V6)[54..];
    let options =
        [&[43, 0, 1, 4, 0, 0, 0, 0][..], &[60, 1], &[0; 14], &[51, 0, 0, 0, 0, 0, 0, 0], &[6, 4], &[0; 22]];
    let (found, layout) = parsed(&frames::ipv6(0, 0, &[&options.concat(), segment].concat()));
    assert_eq!(found, key(&[V6, SYN].concat()));
    assert_eq!((layout.l3_len, layout.l4, layout.l4_len), (40, 54 + 8 + 16 + 8 + 24, 20));
    let many: Vec<u8> = [60u8, 0, 1, 4, 0, 0, 0, 0].repeat(9);
    let (found, layout) = parsed(&frames::ipv6(0, 60, &[&many, segment].concat()));
    assert_eq!((found, layout.l4), (key(&[&V6[..], &[(key::IP_PROTO, 60)]].concat()), 0));
    // One that ends behind the packet.
    let (found, layout) = parsed(&frames::ipv6(0, 0, &[6, 200, 1, 4, 0, 0, 0, 0]));
    assert_eq!((found, layout.l4), (key(&V6), 0));
}

#[test]
fn neighbour_discovery_has_its_addresses() {
    let fields = [
        (key::IP_PROTO, 58),
        (key::TP_SRC, 135),
        (key::ND_TARGET, V6[2].1),
        (key::ARP_SHA, 0x0200_0000_0001),
    ];
    let frame = frames::solicitation();
    let (found, layout) = parsed(&frame);
    assert_eq!(found, key(&[V6, fields].concat()));
    assert_eq!((layout.nd_sll, layout.nd_tll), (54 + 26, 0));
    // An option of no length ends them; an unknown one is passed over.
    let mut endless = frame.clone();
    endless[54 + 25] = 0;
    assert_eq!(parsed(&endless).0, key(&[&V6[..], &fields[..3]].concat()));
    let message = [&frame[54..78], &[14, 1, 0, 0, 0, 0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 9]].concat();
    let target = [(key::ARP_THA, 0x0200_0000_0009)];
    let (found, layout) = parsed(&frames::ipv6(0, 58, &message));
    assert_eq!(found, key(&[&V6[..], &fields[..3], &target].concat()));
    assert_eq!((layout.nd_sll, layout.nd_tll), (0, 54 + 34));
}

#[test]
fn a_checksum_left_to_the_hardware_is_recognised() {
    for (ip, at) in [(Ip::V4, 50), (Ip::V6, 70)] {
        let mut frame = syn(ip);
        let addresses = if ip == Ip::V4 { 26..34 } else { 22..54 };
        let words = frame[addresses].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum = words.sum::<u32>() + 6 + 20;
        let sum = ((sum & 0xffff) + (sum >> 16)) as u16;
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(parsed(&frame).1.partial, 1);
        frame[at + 1] ^= 1;
        assert_eq!(parsed(&frame).1.partial, 0);
    }
}

const FIELDS: [Location; 17] = [
    key::ETH_SRC,
    key::ETH_DST,
    key::VLAN_TCI,
    key::IP_PROTO,
    key::IP_FRAG,
    key::IP_TOS,
    key::IP_TTL,
    key::IPV4_SRC,
    key::IPV4_DST,
    key::IPV6_SRC,
    key::IPV6_DST,
    key::IPV6_LABEL,
    key::TP_SRC,
    key::TP_DST,
    key::TCP_FLAGS,
    key::ARP_SHA,
    key::ND_TARGET,
];

/// What was cut off is not in the key, and nothing else is there instead.
#[test]
fn frames_cut_anywhere_have_no_fields_of_what_was_cut() {
    for frame in frames::corpus() {
        let (whole, _) = parsed(&frame);
        for len in 0..frame.len() {
            let (cut, layout) = parsed(&frame[..len]);
            for at in FIELDS {
                let value = cut.get(at);
                assert!(
                    value == 0 || value == whole.get(at),
                    "{at:?} is {value:#x} in {:02x?}",
                    &frame[..len]
                );
            }
            let layers = [usize::from(layout.l3 + layout.l3_len), usize::from(layout.l4 + layout.l4_len)];
            assert!(layers.iter().all(|&end| end <= len));
            if len < 14 {
                assert_eq!(cut.words[1..], Key::ZERO.words[1..]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_can_be_parsed(
        mut frame in prop::collection::vec(any::<u8>(), 0..200),
        kind in prop::sample::select(vec![0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 46]),
        first in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60]),
    ) {
        if frame.len() > 14 {
            frame[12..14].copy_from_slice(&kind.to_be_bytes());
            frame[14] = first;
        }
        let (found, layout) = parsed(&frame);
        prop_assert_eq!(found.get(key::IN_PORT), u128::from(PORT));
        prop_assert!(usize::from(layout.l4) + usize::from(layout.l4_len) <= frame.len());
        // Only headers are read from a packet.
        prop_assert_eq!(&found.words[key::HEADER_WORDS..], &Key::ZERO.words[key::HEADER_WORDS..]);
    }

    #[test]
    fn a_rewritten_frame_has_the_wanted_fields_and_right_checksums(
        frame in prop::sample::select(frames::corpus()),
        values in prop::collection::vec(prop::option::of(any::<u128>()), FIELDS.len()),
    ) {
        let (old, layout) = parsed(&frame);
        let mut wanted = old;
        for (at, value) in FIELDS.into_iter().zip(values) {
            let Some(value) = value else { continue };
            if let Some(value) = settable(&old, &layout, at, value) {
                wanted.set(at, value);
            }
        }
        let tables = FlowTables::new(Memory::new(Sizes { flows: 1, connections: 1 }));
        let mut packet = Frame::from(frame.clone());
        let due = &mut Due::default();
        prop_assert!(rewrite(tables.store(), &mut packet, &layout, old.headers(), wanted.headers(), due));
        let (found, new_layout) = parsed(packet.bytes());
        prop_assert_eq!(found.headers(), wanted.headers());
        prop_assert_eq!(sums(packet.bytes(), &found, &new_layout), sums(&frame, &old, &layout));
    }
}

/// The value that a field of a frame can be set to, if it can.
fn settable(old: &Key, layout: &Layout, at: Location, value: u128) -> Option<u128> {
    let kind = old.get(key::ETH_TYPE) as u16;
    let protocol = old.get(key::IP_PROTO);
    let ip = layout.l3 != 0 && (kind == eth_type::IPV4 || kind == eth_type::IPV6);
    let arp = layout.l3 != 0 && kind == eth_type::ARP;
    let ports = layout.l4 != 0 && ip && matches!(protocol, 6 | 17);
    let icmp = layout.l4 != 0 && ip && protocol == 1;
    let nd = old.get(key::ND_TARGET) != 0;
    let can = match at {
        key::ETH_SRC | key::ETH_DST => true,
        // To take one of two tags away would show the other.
        key::VLAN_TCI => kind != eth_type::VLAN,
        key::IP_TOS | key::IP_TTL => ip,
        key::IPV4_SRC | key::IPV4_DST => layout.l3 != 0 && kind != eth_type::IPV6,
        key::IPV6_SRC | key::IPV6_DST | key::IPV6_LABEL => layout.l3 != 0 && kind == eth_type::IPV6,
        key::TP_SRC | key::TP_DST => ports || icmp,
        key::IP_PROTO => arp,
        key::ARP_SHA => arp || layout.nd_sll != 0,
        key::ND_TARGET => nd,
        _ => false,
    };
    can.then_some(match at {
        key::VLAN_TCI if value & 1 == 0 => 0,
        key::VLAN_TCI => value & 0xffff | 0x1000,
        key::TP_SRC | key::TP_DST if icmp => value & 0xff,
        _ => value & (u128::MAX >> (128 - u32::from(at.bits))),
    })
}

/// The sums over the IPv4 header, and over the transport header with pseudo header and payload: what a receiver
/// looks at. 0xffff, if the checksum is right. A checksum left out stays out.
fn sums(frame: &[u8], key: &Key, layout: &Layout) -> [Option<u16>; 2] {
    let sum = |parts: &[&[u8]]| {
        let words = parts.iter().flat_map(|part| part.chunks(2));
        let mut sum: u64 =
            words.map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // Zero and all ones are the same number.
        if sum == 0 { 0xffff } else { sum as u16 }
    };
    let (l3, l4) = (usize::from(layout.l3), usize::from(layout.l4));
    let kind = key.get(key::ETH_TYPE) as u16;
    let header =
        (l3 != 0 && kind == eth_type::IPV4).then(|| sum(&[&frame[l3..l3 + usize::from(layout.l3_len)]]));
    if l4 == 0 {
        return [header, None];
    }
    let segment = &frame[l4..l4 + usize::from(layout.l4_len)];
    let addresses = if kind == eth_type::IPV4 { &frame[l3 + 12..l3 + 20] } else { &frame[l3 + 8..l3 + 40] };
    let protocol = key.get(key::IP_PROTO) as u8;
    let pseudo = [addresses, &u32::from(layout.l4_len).to_be_bytes(), &[0, protocol]];
    let transport = match protocol {
        17 if segment[6..8] == [0, 0] => None,
        6 | 17 | 58 => Some(sum(&[pseudo[0], pseudo[1], pseudo[2], segment])),
        1 => Some(sum(&[segment])),
        _ => None,
    };
    [header, transport]
}
