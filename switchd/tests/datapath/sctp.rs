//! SCTP in the kernel and on the host.

use conntrack_core::sctp::State;
use switchd_ebpf::crc32c;

use crate::frames::{self, Ip};
use crate::kernel::Twins;

/// The ranges have one port: where there are several, the kernel and the host start at different ones.
const FLOWS: &[&str] = &[
    "table=0,priority=9,in_port=1,ip,actions=ct(commit,nat(src=192.0.2.1:7000),table=1)",
    "table=0,priority=9,in_port=1,ipv6,actions=ct(commit,nat(src=[2001:db8::1]:7000),table=1)",
    "table=0,priority=8,ip,actions=ct(nat,table=1)",
    "table=0,priority=8,ipv6,actions=ct(nat,table=1)",
    "table=1,priority=9,ct_state=+inv,actions=drop",
    "table=1,priority=8,in_port=1,actions=2",
    "table=1,priority=8,in_port=2,ct_state=+est+rpl,actions=1",
];

/// The checksum in its place.
fn sealed(mut packet: Vec<u8>) -> Vec<u8> {
    packet[8..12].fill(0);
    let sum = !packet.iter().fold(crc32c::START, |register, &byte| crc32c::push(register, byte));
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

/// A packet with one chunk.
fn sctp(ip: Ip, from: usize, ports: [u16; 2], tag: u32, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut packet = [ports[0].to_be_bytes(), ports[1].to_be_bytes()].concat();
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([kind, 0]);
    packet.extend((4 + value.len() as u16).to_be_bytes());
    packet.extend(value);
    packet.resize(packet.len().next_multiple_of(4), 0);
    frames::wrap(ip, from, 132, &sealed(packet))
}

/// What INIT and INIT ACK carry.
fn tag(tag: u32) -> Vec<u8> {
    [&tag.to_be_bytes()[..], &[0; 12]].concat()
}

fn transport(frame: &[u8]) -> Vec<u8> {
    frame[if frame[14] >> 4 == 4 { 34 } else { 54 }..].to_vec()
}

#[test]
fn an_association_is_followed_and_its_ports_are_translated() {
    const CLIENT: [u16; 2] = [5000, 80];
    for ip in [Ip::V4, Ip::V6] {
        let twins = Twins::new(FLOWS);
        let there = |tag, kind, value: &[u8]| twins.passed(1, &sctp(ip, 0, CLIENT, tag, kind, value));
        // What the server sees tells it where to answer.
        let mut seen = there(0, 1, &tag(77));
        let back = |seen: &[u8], tag, kind, value: &[u8]| {
            let mut answer = frames::answer(seen).unwrap();
            let l4 = answer.len() - transport(&answer).len();
            let mut packet = answer[l4..l4 + 4].to_vec();
            packet.extend(tag_bytes(tag));
            packet.extend([kind, 0]);
            packet.extend((4 + value.len() as u16).to_be_bytes());
            packet.extend(value);
            answer.truncate(l4);
            let len = packet.len() as u16;
            match ip {
                Ip::V4 => frames::set_ipv4_length(&mut answer, 20 + len),
                Ip::V6 => answer[18..20].copy_from_slice(&len.to_be_bytes()),
            }
            twins.passed(2, &[answer, sealed(packet)].concat())
        };
        for (kind, state) in [(2, State::COOKIE_WAIT), (11, State::ESTABLISHED)] {
            let [out] = &seen[..] else { panic!("{ip:?}: it does not go out") };
            let packet = transport(out);
            assert_eq!(packet, sealed(packet.clone()), "the checksum");
            assert_eq!(packet[..2], 7000u16.to_be_bytes());
            let value = if kind == 2 { tag(88) } else { Vec::new() };
            let [answer] = &back(out, 77, kind, &value)[..] else {
                panic!("{ip:?}: {kind} does not come back")
            };
            assert_eq!(transport(answer)[..4], [0, 80, 0x13, 0x88], "{ip:?}");
            assert_eq!(transport(answer), sealed(transport(answer)), "the checksum");
            assert_eq!(twins.connections()[0].connection.sctp_state, state, "{ip:?}");
            seen = there(88, 10, b"cookie");
        }
        // A wrong tag, and a wrong checksum.
        assert!(there(99, 0, b"data").is_empty());
        let mut damaged = sctp(ip, 0, CLIENT, 88, 0, b"data");
        *damaged.last_mut().unwrap() ^= 1;
        assert!(twins.passed(1, &damaged).is_empty());
        assert_eq!(there(88, 0, &[7; 100]).len(), 1);
    }
}

fn tag_bytes(tag: u32) -> Vec<u8> {
    [tag.to_be_bytes(), [0; 4]].concat()
}

/// How much follows its ports is known of a whole packet alone, and with that what they do to the CRC.
#[test]
fn the_ports_of_a_fragment_are_not_changed() {
    for ip in [Ip::V4, Ip::V6] {
        let whole = sctp(ip, 0, [5000, 80], 88, 0, &[7; 100]);
        let pieces = frames::fragments(&whole, 77, 48);
        let twins = Twins::new(&["sctp,actions=mod_tp_src:7000,2", "sctp6,actions=mod_tp_src:7000,2"]);
        assert_eq!(twins.passed(1, &whole).len(), 1, "{ip:?}");
        assert!(twins.passed(1, &pieces[0]).is_empty(), "{ip:?}");
        // Other headers are.
        let twins = Twins::new(&["ip,actions=mod_nw_tos:8,2", "ipv6,actions=mod_nw_tos:8,2"]);
        assert!(pieces.iter().all(|piece| twins.passed(1, piece).len() == 1), "{ip:?}");
    }
}
