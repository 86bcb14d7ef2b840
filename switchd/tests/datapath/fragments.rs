//! Fragments, in the kernel and on the host.

use std::net::Ipv6Addr;

use crate::frames::{self, Ip, flags};
use crate::kernel::Twins;

/// Host 0 may ask host 1 about port 53, under another address.
const FLOWS: &[&str] = &[
    "table=0,priority=0,actions=drop",
    "table=0,ip,ct_state=-trk,actions=ct(table=1,zone=5,nat)",
    "table=0,ipv6,ct_state=-trk,actions=ct(table=1,zone=5,nat)",
    "table=1,priority=9,ct_state=+inv,actions=drop",
    "table=1,udp,in_port=1,ct_state=+new,tp_dst=53,actions=ct(commit,zone=5,nat(src=192.0.2.1)),2",
    "table=1,udp6,in_port=1,ct_state=+new,tp_dst=53,actions=ct(commit,zone=5,nat(src=2001:db8::1)),2",
    "table=1,udp,in_port=1,ct_state=+est,tp_dst=53,actions=2",
    "table=1,udp,in_port=2,ct_state=+est+rpl,tp_src=53,actions=1",
    "table=1,udp6,in_port=2,ct_state=+est+rpl,tp_src=53,actions=1",
];

/// The whole that host 0 sends, and the fragments of it.
fn datagram(ip: Ip, connection: u16, id: u16) -> (Vec<u8>, Vec<Vec<u8>>) {
    let payload: Vec<u8> = (0..4000u32).map(|i| (i * 7) as u8).collect();
    let whole = frames::udp(ip, 0, connection, &payload);
    let pieces = frames::fragments(&whole, id, 1000);
    assert_eq!(pieces.len(), 5);
    (whole, pieces)
}

/// What of some frames comes out at a port of the twins.
fn passed(twins: &Twins, port: u16, pieces: &[&Vec<u8>]) -> Vec<Vec<u8>> {
    pieces.iter().flat_map(|piece| twins.passed(port, piece)).collect()
}

/// The payload of fragments that came out in order.
fn payload(pieces: &[Vec<u8>]) -> Vec<u8> {
    let header = |piece: &[u8]| if piece[14] >> 4 == 4 { 34 } else { 62 };
    pieces.iter().flat_map(|piece| piece[header(piece)..].to_vec()).skip(8).collect()
}

#[test]
fn the_fragments_of_a_datagram_share_its_connection_and_its_translation() {
    for ip in [Ip::V4, Ip::V6] {
        let twins = Twins::new(FLOWS);
        let (whole, pieces) = datagram(ip, 1, 77);
        let out = passed(&twins, 1, &pieces.iter().collect::<Vec<_>>());
        assert_eq!(out.len(), 5, "{ip:?}");
        assert_eq!(payload(&out), whole[whole.len() - 4000..], "{ip:?}");
        // In each of them.
        let (source, translated) = match ip {
            Ip::V4 => (26..30, vec![192, 0, 2, 1]),
            Ip::V6 => (22..38, "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets().to_vec()),
        };
        assert!(out.iter().all(|piece| piece[source.clone()] == translated), "{ip:?}");
        assert_eq!(twins.packets(), [[5, 0]]);

        // And back: the answer goes to whom the question came from.
        let reply = frames::answer(&frames::joined(&out)).unwrap();
        let back = passed(&twins, 2, &frames::fragments(&reply, 78, 1000).iter().collect::<Vec<_>>());
        assert_eq!(back.len(), 5, "{ip:?}");
        assert_eq!(payload(&back), whole[whole.len() - 4000..], "{ip:?}");
        assert_eq!(twins.packets(), [[5, 5]]);
    }
}

#[test]
fn later_fragments_come_in_any_order_behind_the_first() {
    let twins = Twins::new(FLOWS);
    let (_, pieces) = datagram(Ip::V4, 1, 77);
    let order: Vec<&Vec<u8>> = [0, 4, 2, 1, 3].map(|i| &pieces[i]).into();
    assert_eq!(passed(&twins, 1, &order).len(), 5);
    // The identification is free again.
    let (_, again) = datagram(Ip::V4, 2, 77);
    assert_eq!(passed(&twins, 1, &again.iter().collect::<Vec<_>>()).len(), 5);
    assert_eq!(twins.packets(), [[5, 0], [5, 0]]);
}

#[test]
fn what_comes_before_the_first_is_invalid() {
    let twins = Twins::new(FLOWS);
    let (_, pieces) = datagram(Ip::V4, 1, 77);
    assert_eq!(passed(&twins, 1, &[&pieces[1], &pieces[2]]).len(), 0);
    assert_eq!(passed(&twins, 1, &[&pieces[0], &pieces[3], &pieces[4]]).len(), 3);
}

#[test]
fn overlapping_fragments_spoil_their_datagram_and_repeated_ones_nothing() {
    for ip in [Ip::V4, Ip::V6] {
        let twins = Twins::new(FLOWS);
        let (whole, pieces) = datagram(ip, 1, 77);
        assert_eq!(passed(&twins, 1, &[&pieces[0], &pieces[1]]).len(), 2);
        assert_eq!(passed(&twins, 1, &[&pieces[1]]).len(), 0, "twice");
        assert_eq!(passed(&twins, 1, &[&pieces[2]]).len(), 1, "{ip:?}");
        assert_eq!(passed(&twins, 1, &[&frames::fragment(&whole, 77, 2992, 1000)]).len(), 0, "overlapping");
        assert_eq!(passed(&twins, 1, &[&pieces[3], &pieces[4]]).len(), 0, "after that");
        // Others are not touched.
        let (_, other) = datagram(ip, 2, 78);
        assert_eq!(passed(&twins, 1, &other.iter().collect::<Vec<_>>()).len(), 5, "{ip:?}");
    }
}

#[test]
fn fragments_do_not_reach_beyond_their_datagram() {
    let twins = Twins::new(FLOWS);
    let (whole, pieces) = datagram(Ip::V4, 1, 77);
    let longer = frames::udp(Ip::V4, 0, 1, &[0; 5000]);
    assert_eq!(passed(&twins, 1, &[&pieces[0], &pieces[4]]).len(), 2);
    assert_eq!(passed(&twins, 1, &[&frames::fragment(&longer, 77, 4008, 992)]).len(), 0);
    assert_eq!(passed(&twins, 1, &[&pieces[1]]).len(), 0);
    // Nor beyond the largest packet, nor do they carry odd numbers of bytes in its midst, or nothing.
    let mut largest = pieces[1].clone();
    largest[20..22].copy_from_slice(&0x1fffu16.to_be_bytes());
    let mut odd = frames::fragment(&whole, 79, 8, 1001);
    odd[20] |= 0x20;
    for piece in [largest, odd] {
        assert_eq!(passed(&twins, 1, &[&piece]).len(), 0);
    }
}

#[test]
fn fragments_of_others_match_no_connection() {
    let twins = Twins::new(FLOWS);
    let (_, pieces) = datagram(Ip::V4, 1, 77);
    assert_eq!(passed(&twins, 1, &[&pieces[0]]).len(), 1);
    // Another identification; and from the other side.
    let (_, others) = datagram(Ip::V4, 1, 78);
    assert_eq!(passed(&twins, 1, &[&others[1]]).len(), 0);
    assert_eq!(passed(&twins, 2, &[&pieces[1]]).len(), 0);
}

#[test]
fn a_fragmented_segment_moves_the_window_by_all_that_it_carries() {
    let twins = Twins::new(&["table=0,tcp,actions=ct(commit,table=1)", "table=1,ct_state=-inv,actions=2"]);
    let send = |port, frame: Vec<u8>| assert_eq!(twins.passed(port, &frame).len(), 1, "{frame:02x?}");
    send(1, frames::tcp(Ip::V4, 0, 1, flags::SYN, 100, 0, b""));
    send(3, frames::tcp(Ip::V4, 1, 1, flags::SYN | flags::ACK, 500, 101, b""));
    send(1, frames::tcp(Ip::V4, 0, 1, flags::ACK, 101, 501, b""));
    for piece in frames::fragments(&frames::tcp(Ip::V4, 0, 1, flags::ACK, 101, 501, &[7; 3000]), 9, 1000) {
        send(1, piece);
    }
    // Acknowledging more than was seen would be invalid.
    send(3, frames::tcp(Ip::V4, 1, 1, flags::ACK, 501, 3101, b""));
    assert!(twins.passed(3, &frames::tcp(Ip::V4, 1, 1, flags::ACK, 501, 3102, b"")).is_empty());
}

#[test]
fn flows_see_the_ports_of_fragments_when_told_or_behind_ct() {
    let flows: &[&str] = &[
        "table=0,priority=9,udp,tp_dst=53,actions=mod_tp_dst:54,2",
        "table=0,priority=8,udp6,tp_dst=53,actions=resubmit(7,2)",
        "table=0,priority=1,in_port=1,udp,actions=move:NXM_OF_UDP_DST[]->NXM_NX_REG0[0..15],ct(table=1)",
        "table=0,priority=1,in_port=1,ipv6,actions=resubmit(7,2),ct(table=1)",
        "table=1,priority=9,udp,tp_dst=53,reg0=53,actions=3",
        "table=1,priority=9,udp6,tp_dst=53,actions=3",
        "table=2,udp6,in_port=7,tp_dst=53,actions=2",
    ];
    for ip in [Ip::V4, Ip::V6] {
        let (whole, pieces) = datagram(ip, 1, 77);
        let hidden = Twins::new(flows);
        assert_eq!(hidden.leaves_by(1, &whole), [2], "{ip:?}: a whole datagram has nothing to hide");
        assert_eq!(hidden.leaves_by(1, &pieces[0]), [3], "{ip:?}: only a tracked fragment is seen");
        let shown = Twins::showing_fragments(flows);
        assert_eq!(shown.leaves_by(1, &pieces[0]), [2], "{ip:?}");
        assert!(shown.leaves_by(1, &pieces[1]).is_empty(), "{ip:?}: later ones have no ports");
    }
}
