//! Random flows that track connections, and frames that belong to some. Without translation, for which the switch has
//! another oracle: Open vSwitch's userspace datapath has ended at random ones.

use std::net::SocketAddr;

use proptest::{
    prelude::*,
    sample::{select, subsequence},
};
use tests::packet::{Echo, Ethernet, Segment, flags};

use crate::{
    frames::Sent,
    rules::{Rule, TABLES, ways_on},
};

const FIELDS: &[&[&str]] = &[
    &["in_port=1", "in_port=2"],
    &[
        "ct_state=-trk",
        "ct_state=+trk",
        "ct_state=+new+trk",
        "ct_state=+est+trk",
        "ct_state=+est-rpl+trk",
        "ct_state=+rpl+trk",
        "ct_state=-new+trk",
        "ct_state=-est-inv+trk",
        "ct_state=-snat-dnat+trk",
    ],
    &["ct_zone=0", "ct_zone=1", "ct_zone=5"],
    &["ct_mark=0", "ct_mark=7", "ct_mark=0x10/0xf0"],
    &["ct_label=0", "ct_label=0x3/0xf"],
    &["nw_src=10.0.0.1", "nw_src=10.0.0.2"],
    &["reg0=0", "reg0=1", "reg0=5"],
];

const EXEC: &[&str] = &[
    "",
    "exec(set_field:7->ct_mark)",
    "exec(load:3->NXM_NX_CT_LABEL[0..3])",
    "exec(set_field:0x10/0xf0->ct_mark,move:NXM_NX_REG0[0..3]->NXM_NX_CT_LABEL[0..3])",
];

const OTHERS: &[&str] =
    &["ct_clear", "load:1->NXM_NX_REG0[]", "load:5->NXM_NX_REG0[]", "move:NXM_NX_CT_MARK[]->NXM_NX_REG0[]"];

const FORCED: &str = "commit,force";

/// A `ct` whose packets go on in a later table, if in any.
///
/// What is forced has a zone of its own: in Open vSwitch's userspace datapath a packet keeps bits of `ct_state` that an
/// earlier `ct` in the same zone has told it, and forced in its turn may be new and established at once.
fn ct(table: u8) -> impl Strategy<Value = String> {
    let tables = (table + 1..TABLES).map(|next| format!("table={next}")).chain([String::new()]);
    let commits = select(&["commit", FORCED][..]);
    let executes = prop::option::of((commits, select(EXEC)));
    let zone = select(&["", "zone=1", "zone=5", "zone=NXM_NX_REG0[0..15]"][..]);
    (executes, select(tables.collect::<Vec<_>>()), zone).prop_map(|(commit, table, zone)| {
        let (commit, exec) = commit.unwrap_or_default();
        let zone = if commit == FORCED { "zone=9" } else { zone };
        let parts = [commit, &table, zone, exec].map(str::to_owned);
        format!("ct({})", parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(","))
    })
}

pub fn rule() -> impl Strategy<Value = Rule> {
    let table = prop_oneof![1 => Just(0), 2 => 1..TABLES];
    let protocol = select(&["ip", "ip", "udp", "icmp", "tcp"][..]);
    (table, protocol).prop_flat_map(|(table, protocol)| {
        let fields = subsequence(FIELDS, 0..=2)
            .prop_flat_map(|fields| fields.into_iter().map(select).collect::<Vec<_>>());
        let action = prop_oneof![
            4 => ct(table),
            2 => select(ways_on(table)),
            1 => select(OTHERS).prop_map(str::to_owned),
        ];
        let last = prop::option::weighted(0.7, select(ways_on(table)));
        (fields, prop::collection::vec(action, 0..3), last).prop_map(
            move |(mut matched, mut actions, last)| {
                matched.insert(0, protocol);
                actions.extend(last);
                Rule { table, matched, actions }
            },
        )
    })
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Echo,
    Udp,
    Tcp,
}

/// A packet of one of six connections, in one of its directions.
pub fn sent() -> impl Strategy<Value = Sent> {
    let kind = select(&[Kind::Echo, Kind::Udp, Kind::Tcp][..]);
    (0..2usize, any::<bool>(), kind, select(&[1024u16, 1025][..])).prop_map(|(port, forth, kind, number)| {
        let [client, server] = [([10, 0, 0, 1], number), ([10, 0, 0, 2], 80)].map(SocketAddr::from);
        let (src, dst) = if forth { (client, server) } else { (server, client) };
        let ethernet = Ethernet::default();
        let frame = match kind {
            Kind::Echo => {
                let echo = if forth { Echo::Request } else { Echo::Reply };
                ethernet.echo((src.ip(), dst.ip()), echo, (number, 1), b"payload")
            }
            Kind::Udp => ethernet.udp(src, dst, b"payload"),
            Kind::Tcp if forth => ethernet.tcp(&Segment { seq: 101, ..Segment::new(src, dst, flags::SYN) }),
            Kind::Tcp => {
                let answer = Segment::new(src, dst, flags::SYN | flags::ACK);
                ethernet.tcp(&Segment { seq: 200, ack: 102, ..answer })
            }
        };
        Sent { port, bytes: frame.unwrap_or_default() }
    })
}
