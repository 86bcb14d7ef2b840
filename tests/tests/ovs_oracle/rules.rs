//! Random flows.

use std::fmt;

use proptest::{
    prelude::*,
    sample::{select, subsequence},
};

/// Tables that flows are in.
pub const TABLES: u8 = 4;
/// Clauses of a match beside the protocol, at most.
const CLAUSES: usize = 2;
/// Actions of a flow, at most, but for what `clone` holds.
const ACTIONS: usize = 4;

/// A flow without its priority: each has one of its own, as nothing says which of two of the same wins.
#[derive(Clone, PartialEq, Eq)]
pub struct Rule {
    pub table: u8,
    /// Clauses of its match.
    pub matched: Vec<&'static str>,
    pub actions: Vec<String>,
}

impl Rule {
    /// As text.
    pub fn text(&self, priority: usize) -> String {
        let matched: String = self.matched.iter().map(|clause| format!("{clause},")).collect();
        let actions = if self.actions.is_empty() { "drop".into() } else { self.actions.join(",") };
        format!("table={},priority={priority},{matched}actions={actions}", self.table)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(0))
    }
}

/// A protocol with what flows can match of it, a field at a time, and what they can do to it.
struct Protocol {
    name: &'static str,
    fields: &'static [&'static [&'static str]],
    actions: &'static [&'static str],
}

/// What all packets have.
const ANY: &[&[&str]] = &[
    &["in_port=1", "in_port=2", "in_port=3"],
    &[
        "dl_src=02:00:00:00:00:01",
        "dl_src=02:00:00:00:00:00/ff:ff:ff:ff:ff:fd",
        "dl_src=00:00:00:00:00:00/01:00:00:00:00:00",
    ],
    &[
        "dl_dst=02:00:00:00:00:02",
        "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00",
        "dl_dst=00:00:00:00:00:02/00:00:00:00:00:0f",
    ],
    &[
        "dl_vlan=5",
        "dl_vlan=0xffff",
        "dl_vlan_pcp=3",
        "vlan_tci=0x1000/0x1000",
        "vlan_tci=0",
        "vlan_tci=0x1006/0x1006",
        "dl_vlan=5,dl_vlan_pcp=3",
        "dl_vlan=0",
    ],
    &["metadata=0", "metadata=1", "metadata=0x10/0xf0"],
    &["reg0=0", "reg0=1", "reg0=0x100/0xff00"],
    &["reg7=0xa000002", "reg7=0/0xffff"],
    &["xxreg1=0", "xreg1=5"],
    &["ct_state=-trk", "ct_mark=0", "ct_state=+trk"],
];

const IP: &[&[&str]] = &[
    &["nw_src=10.0.0.1", "nw_src=10.0.0.0/24", "nw_src=0.0.0.1/0.0.0.3", "nw_src=10.0.0.9"],
    &["nw_dst=10.0.0.2", "nw_dst=10.0.1.0/24", "nw_dst=10.0.0.0/255.0.255.0"],
    &["nw_tos=184", "ip_dscp=46", "nw_tos=0"],
    &["nw_ecn=0", "nw_ecn=3"],
    &["nw_ttl=1", "nw_ttl=64", "nw_ttl=63"],
    &["ip_frag=no", "ip_frag=first", "ip_frag=later", "ip_frag=yes", "ip_frag=not_later"],
];

const IPV6: &[&[&str]] = &[
    &["ipv6_src=fd00::1", "ipv6_src=fd00::/64", "ipv6_src=::1/::3"],
    &["ipv6_dst=fd00::2", "ipv6_dst=fd00:0:0:1::/64"],
    &["ipv6_label=0", "ipv6_label=0x12345", "ipv6_label=0x5/0xf"],
    &["nw_tos=184", "nw_tos=0"],
    &["nw_ecn=0", "nw_ecn=3"],
    &["nw_ttl=1", "nw_ttl=64", "nw_ttl=63"],
    &["ip_frag=no", "ip_frag=first", "ip_frag=later", "ip_frag=yes", "ip_frag=not_later"],
];

const TCP: &[&[&str]] = &[
    &["tcp_src=1024", "tcp_src=0x400/0xfffc", "tcp_src=0"],
    &["tcp_dst=80", "tcp_dst=81/0xfff1", "tcp_dst=99"],
    &["tcp_flags=+syn-ack", "tcp_flags=0x010/0x017", "tcp_flags=+ack"],
];

const UDP: &[&[&str]] = &[
    &["udp_src=1024", "udp_src=0x400/0xfffc", "udp_src=0"],
    &["udp_dst=80", "udp_dst=81/0xfff1", "udp_dst=99"],
];

const SCTP: &[&[&str]] = &[&["sctp_src=1024"], &["sctp_dst=80", "sctp_dst=0x50/0xfff0"]];

const ON_ANY: &[&str] = &[
    "mod_dl_src:02:00:00:00:00:05",
    "mod_dl_dst:02:00:00:00:00:01",
    "set_field:02:00:00:00:00:00/00:00:00:00:00:ff->eth_dst",
    "mod_vlan_vid:5",
    "mod_vlan_vid:6",
    "mod_vlan_pcp:3",
    "strip_vlan",
    "load:1->NXM_NX_REG0[]",
    "load:0x1->NXM_NX_REG0[8..15]",
    "load:5->NXM_NX_XXREG1[0..63]",
    "set_field:0x11->metadata",
    "load:1->OXM_OF_METADATA[0..3]",
    "move:NXM_OF_ETH_SRC[0..31]->NXM_NX_REG7[]",
    "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]",
    "move:NXM_OF_VLAN_TCI[0..11]->NXM_NX_REG0[0..11]",
    "move:NXM_NX_REG0[]->NXM_NX_REG7[]",
    "note:01.02.03",
    "ct_clear",
    "load:3->NXM_NX_REG5[],output:NXM_NX_REG5[]",
    "output:NXM_NX_REG0[0..7]",
    "clone(mod_dl_src:02:00:00:00:00:06,load:1->NXM_NX_REG0[],output:3),output:4",
];

/// What does not ask for a protocol, and leaves packets of others alone.
const ON_SOME: &[&str] = &["mod_nw_src:10.0.0.9", "mod_nw_tos:184", "mod_tp_src:1025", "mod_tp_dst:99"];

const ON_IP: &[&str] = &[
    "mod_nw_src:10.0.0.9",
    "mod_nw_dst:10.0.1.7",
    "mod_nw_tos:184",
    "mod_nw_ecn:2",
    "mod_nw_ttl:63",
    "dec_ttl",
    "set_field:10.0.0.0/0.0.0.255->ip_dst",
    "load:0x0a000001->NXM_OF_IP_SRC[]",
    "move:NXM_OF_IP_SRC[]->NXM_NX_REG7[]",
    "move:NXM_OF_IP_SRC[]->NXM_OF_IP_DST[]",
    "move:NXM_OF_IP_DST[0..15]->NXM_OF_IP_SRC[0..15]",
    "move:NXM_NX_IP_TTL[]->NXM_NX_REG0[0..7]",
    "set_field:46->ip_dscp",
];

const ON_IPV6: &[&str] = &[
    "mod_nw_tos:184",
    "mod_nw_ecn:2",
    "mod_nw_ttl:63",
    "dec_ttl",
    "set_field:fd00::9->ipv6_src",
    "set_field:fd00:0:0:1::7->ipv6_dst",
    "set_field:::5/::f->ipv6_dst",
    "set_field:0x12345->ipv6_label",
    "move:NXM_NX_IPV6_SRC[]->NXM_NX_IPV6_DST[]",
    "move:NXM_NX_IPV6_SRC[0..31]->NXM_NX_REG7[]",
    "move:NXM_NX_IPV6_SRC[]->NXM_NX_XXREG1[]",
];

const ON_TCP: &[&str] = &[
    "mod_tp_src:1025",
    "mod_tp_dst:99",
    "load:99->NXM_OF_TCP_DST[]",
    "set_field:0x400/0xff00->tcp_src",
    "move:NXM_OF_TCP_SRC[]->NXM_OF_TCP_DST[]",
    "move:NXM_OF_TCP_DST[]->NXM_NX_REG0[0..15]",
    "move:NXM_NX_TCP_FLAGS[0..7]->NXM_NX_REG0[0..7]",
];

const ON_UDP: &[&str] = &[
    "mod_tp_src:1025",
    "mod_tp_dst:99",
    "load:99->NXM_OF_UDP_DST[]",
    "move:NXM_OF_UDP_SRC[]->NXM_OF_UDP_DST[]",
    "move:NXM_OF_UDP_DST[]->NXM_NX_REG0[0..15]",
];

const PROTOCOLS: &[Protocol] = &[
    Protocol { name: "", fields: &[], actions: ON_SOME },
    Protocol { name: "dl_type=0x88cc", fields: &[], actions: &[] },
    Protocol { name: "dl_type=0x5ff", fields: &[], actions: &[] },
    Protocol {
        name: "arp",
        fields: &[
            &["arp_op=1", "arp_op=2"],
            &["arp_spa=10.0.0.1", "arp_spa=10.0.0.0/24"],
            &["arp_tpa=10.0.0.2", "arp_tpa=0.0.0.2/0.0.0.3"],
            &["arp_sha=02:00:00:00:00:01"],
            &["arp_tha=00:00:00:00:00:00", "arp_tha=02:00:00:00:00:02"],
        ],
        actions: &[
            "set_field:2->arp_op",
            "set_field:10.0.0.9->arp_spa",
            "load:0x0a000007->NXM_OF_ARP_TPA[]",
            "set_field:02:00:00:00:00:07->arp_sha",
            "move:NXM_OF_ETH_SRC[]->NXM_NX_ARP_THA[]",
            "move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[]",
        ],
    },
    Protocol { name: "rarp", fields: &[&["arp_op=3"]], actions: &[] },
    Protocol { name: "ip", fields: IP, actions: ON_IP },
    Protocol { name: "ip,nw_proto=47", fields: IP, actions: ON_IP },
    Protocol { name: "ip,nw_proto=0", fields: IP, actions: ON_IP },
    Protocol { name: "ipv6", fields: IPV6, actions: ON_IPV6 },
    Protocol { name: "ipv6,nw_proto=44", fields: IPV6, actions: ON_IPV6 },
    Protocol { name: "tcp", fields: TCP, actions: ON_TCP },
    Protocol { name: "tcp,nw_dst=10.0.0.2,ip_frag=no", fields: TCP, actions: ON_TCP },
    Protocol { name: "tcp6", fields: TCP, actions: ON_TCP },
    Protocol { name: "udp", fields: UDP, actions: ON_UDP },
    Protocol { name: "udp", fields: IP, actions: ON_IP },
    Protocol { name: "udp6", fields: UDP, actions: ON_UDP },
    Protocol { name: "udp6", fields: IPV6, actions: ON_IPV6 },
    Protocol {
        name: "sctp",
        fields: SCTP,
        actions: &["load:99->OXM_OF_SCTP_DST[]", "set_field:1025->sctp_src", "mod_nw_dst:10.0.0.9"],
    },
    Protocol { name: "sctp6", fields: SCTP, actions: &["load:99->OXM_OF_SCTP_DST[]"] },
    Protocol {
        name: "icmp",
        fields: &[&["icmp_type=8", "icmp_type=0", "icmp_type=3"], &["icmp_code=0", "icmp_code=1"]],
        actions: &["set_field:0->icmp_type", "load:1->NXM_OF_ICMP_CODE[]", "mod_nw_dst:10.0.0.9", "dec_ttl"],
    },
    Protocol {
        name: "icmp6",
        fields: &[&["icmp_type=128", "icmp_type=135", "icmp_type=136"], &["icmp_code=0", "icmp_code=1"]],
        actions: &[
            "set_field:129->icmpv6_type",
            "load:1->NXM_NX_ICMPV6_CODE[]",
            "set_field:fd00::9->ipv6_src",
        ],
    },
    Protocol {
        name: "icmp6,icmp_type=135,icmp_code=0",
        fields: &[&["nd_target=fd00::2", "nd_target=fd00::/64"], &["nd_sll=02:00:00:00:00:01"]],
        actions: &["set_field:fd00::8->nd_target", "set_field:02:00:00:00:00:08->nd_sll"],
    },
    Protocol {
        name: "icmp6,icmp_type=136,icmp_code=0",
        fields: &[&["nd_target=fd00::2"], &["nd_tll=02:00:00:00:00:02"]],
        actions: &["set_field:fd00::8->nd_target", "set_field:02:00:00:00:00:08->nd_tll"],
    },
];

/// Outputs, and look-ups in later tables.
pub fn ways_on(table: u8) -> Vec<String> {
    let mut ways: Vec<String> = (1..=super::world::PORTS).map(|port| format!("output:{port}")).collect();
    ways.extend(["IN_PORT", "ALL", "FLOOD"].map(String::from));
    for next in table + 1..TABLES {
        for _ in 0..4 {
            ways.push(format!("resubmit(,{next})"));
        }
        ways.push(format!("resubmit(2,{next})"));
        ways.push(format!("clone(resubmit(,{next}),mod_vlan_vid:5),output:2"));
    }
    ways
}

pub fn rule() -> impl Strategy<Value = Rule> {
    let table = prop_oneof![2 => Just(0), 1 => 1..TABLES];
    let protocol = prop_oneof![1 => Just(0), 3 => 0..PROTOCOLS.len()];
    (table, protocol).prop_flat_map(|(table, protocol)| {
        let protocol = &PROTOCOLS[protocol];
        let fields: Vec<_> = ANY.iter().chain(protocol.fields).chain(protocol.fields).copied().collect();
        let fields = subsequence(fields, 0..=CLAUSES).prop_flat_map(|mut fields| {
            fields.dedup();
            fields.into_iter().map(select).collect::<Vec<_>>()
        });
        let changes: Vec<_> = ON_ANY.iter().chain(protocol.actions).chain(protocol.actions).collect();
        let action = prop_oneof![
            1 => select(ways_on(table)),
            1 => select(changes).prop_map(|change| (*change).to_owned()),
        ];
        let last = prop::option::weighted(0.8, select(ways_on(table)));
        let actions = prop::collection::vec(action, 0..ACTIONS);
        (fields, actions, last).prop_map(move |(mut matched, mut actions, last)| {
            actions.extend(last);
            if !protocol.name.is_empty() {
                matched.insert(0, protocol.name);
            }
            Rule { table, matched, actions }
        })
    })
}
