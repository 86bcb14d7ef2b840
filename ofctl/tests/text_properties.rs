//! What is printed can be read again, and is the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on had better panic")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ofctl::action::{Action, Alg, Ct, Direction, Nat, Zone};
use ofctl::field::{Field, Subfield, ones};
use ofctl::flow::{Command, DEFAULT_PRIORITY, Match, check_prerequisites};
use ofctl::port::{NoNames, PortMap, PortNo};
use ofctl::print::{write_actions, write_match};
use ofctl::syntax::{parse_actions, parse_flow, parse_flow_filter};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// What a match says of the protocol, and the fields that packets of it have.
const KINDS: &[(&str, &[Field])] = &[
    ("", &[]),
    ("dl_type=0x88cc", &[]),
    ("arp", &[Field::ArpOp, Field::ArpSpa, Field::ArpTpa, Field::ArpSha, Field::ArpTha]),
    ("rarp", &[Field::ArpSpa]),
    ("ip", &[Field::IpProto, Field::Ipv4Src, Field::Ipv4Dst, Field::IpTos, Field::IpEcn, Field::IpTtl]),
    ("tcp", &[Field::TcpSrc, Field::TcpDst, Field::TcpFlags, Field::Ipv4Src, Field::IpDscp]),
    ("udp,nw_frag=not_later", &[Field::UdpSrc, Field::UdpDst]),
    ("sctp,nw_frag=first", &[Field::SctpSrc, Field::SctpDst]),
    ("icmp", &[Field::IcmpType, Field::IcmpCode]),
    ("ipv6", &[Field::Ipv6Src, Field::Ipv6Dst, Field::Ipv6Label, Field::IpTtl]),
    ("tcp6", &[Field::TcpSrc, Field::TcpFlags]),
    ("icmp6", &[Field::Icmpv6Type]),
    ("icmp6,icmpv6_type=135", &[Field::Icmpv6Code, Field::NdTarget, Field::NdSll]),
    ("icmp6,icmpv6_type=136", &[Field::NdTarget, Field::NdTll]),
    ("ip,ct_state=+trk-inv,ct_nw_proto=6", &[Field::CtNwSrc, Field::CtNwDst, Field::CtTpSrc, Field::CtTpDst]),
    ("ipv6,ct_state=new|trk", &[Field::CtNwProto, Field::CtIpv6Src, Field::CtIpv6Dst]),
];

const ANYWHERE: &[Field] = &[
    Field::InPort,
    Field::EthSrc,
    Field::EthDst,
    Field::VlanTci,
    Field::DlVlan,
    Field::DlVlanPcp,
    Field::Metadata,
    Field::Reg(0),
    Field::Reg(15),
    Field::Xreg(1),
    Field::Xxreg(3),
    Field::PktMark,
    Field::CtZone,
    Field::CtMark,
    Field::CtLabel,
];

const WRITABLE: &[Field] = &[
    Field::Reg(3),
    Field::Xreg(0),
    Field::Xxreg(1),
    Field::EthSrc,
    Field::Metadata,
    Field::VlanTci,
    Field::Ipv4Dst,
    Field::Ipv6Src,
    Field::TcpDst,
    Field::IpTtl,
    Field::IpTos,
    Field::ArpOp,
];

const CT_WRITABLE: &[Field] = &[Field::CtMark, Field::CtLabel];

fn operand(field: Field) -> impl Strategy<Value = (u128, u128)> {
    let info = field.info();
    let whole = info.value_mask() & ones(info.location.bits);
    let mask = prop_oneof![
        2 => Just(whole),
        1 => (0..=info.location.bits).prop_map(move |n| whole & !ones(n)),
        1 => any::<u128>().prop_map(move |mask| mask & whole),
    ];
    let mask = mask.prop_map(move |mask| if info.maskable { mask } else { whole });
    (any::<u128>(), mask).prop_map(|(value, mask)| (value & mask, mask))
}

fn matching() -> impl Strategy<Value = Match> {
    let demands = |fields: Vec<Field>| {
        fields.into_iter().map(|field| operand(field).prop_map(move |op| (field, op))).collect::<Vec<_>>()
    };
    let kind = select(KINDS).prop_flat_map(move |(text, fields)| {
        let fields = proptest::sample::subsequence(fields, 0..=fields.len());
        (Just(text), fields.prop_flat_map(demands))
    });
    let anywhere = proptest::sample::subsequence(ANYWHERE, 0..5).prop_flat_map(demands);
    (kind, anywhere, option::of(any::<u8>())).prop_map(|((text, of_kind), anywhere, ct_state)| {
        let mut matching = parse_flow_filter(text, &NoNames).unwrap().matching;
        if let (Some(mask), (_, 0)) = (ct_state, matching.get(Field::CtState)) {
            matching.set(Field::CtState, 0x21, mask.into());
        }
        for (field, (value, mask)) in of_kind.into_iter().chain(anywhere) {
            matching.set(field, value, mask);
        }
        matching
    })
}

fn direction() -> impl Strategy<Value = Direction> {
    select(vec![Direction::Src, Direction::Dst])
}

fn subfield(fields: &'static [Field], width: RangeInclusive<u8>) -> impl Strategy<Value = Subfield> {
    (select(fields), width, any::<u8>()).prop_map(|(field, width, ofs)| {
        let bits = field.info().bits;
        let n_bits = width.min(bits);
        Subfield { field, ofs: ofs % (bits - n_bits + 1), n_bits }
    })
}

fn load(fields: &'static [Field]) -> impl Strategy<Value = Action> {
    (subfield(fields, 1..=64), any::<u64>())
        .prop_map(|(dst, value)| Action::Load { value: value & ones(dst.n_bits) as u64, dst })
}

fn set_field(fields: &'static [Field]) -> impl Strategy<Value = Action> {
    select(fields).prop_flat_map(|field| {
        operand(field).prop_map(move |(value, mask)| {
            // An opcode is wider in a packet than in the key.
            let mask = if field == Field::ArpOp { 0xffff } else { mask };
            Action::SetField { field, value, mask }
        })
    })
}

fn copy(fields: &'static [Field]) -> impl Strategy<Value = Action> {
    let ends =
        (1..=8u8).prop_flat_map(move |bits| (subfield(WRITABLE, bits..=bits), subfield(fields, bits..=bits)));
    ends.prop_map(|(src, dst)| Action::Move { src, dst })
}

fn nat() -> impl Strategy<Value = Nat> {
    let v4 = any::<(u32, u32)>()
        .prop_map(|(a, b)| IpAddr::from(Ipv4Addr::from(a.min(b)))..=IpAddr::from(Ipv4Addr::from(a.max(b))));
    let v6 = any::<(u128, u128)>()
        .prop_map(|(a, b)| IpAddr::from(Ipv6Addr::from(a.min(b)))..=IpAddr::from(Ipv6Addr::from(a.max(b))));
    let ports = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| a.min(b)..=a.max(b));
    let range = option::of((prop_oneof![v4, v6], option::of(ports)));
    let bound =
        (direction(), range, any::<bool>(), 0..3).prop_map(|(direction, range, persistent, order)| {
            let (addresses, ports) =
                range.map_or((None, None), |(addresses, ports)| (Some(addresses), ports));
            // Flags are printed beside a range only, as in OVS.
            let persistent = persistent && addresses.is_some();
            let order = if addresses.is_some() { order } else { 0 };
            let (hash, random) = (order == 1, order == 2);
            Nat { direction: Some(direction), addresses, ports, persistent, hash, random }
        });
    prop_oneof![Just(Nat::default()), bound]
}

fn ct() -> impl Strategy<Value = Ct> {
    let zone =
        prop_oneof![any::<u16>().prop_map(Zone::Constant), subfield(WRITABLE, 16..=16).prop_map(Zone::Field)];
    let exec = vec(prop_oneof![load(CT_WRITABLE), set_field(CT_WRITABLE), copy(CT_WRITABLE)], 0..3);
    let alg = option::of(select(vec![Alg::Ftp, Alg::Tftp]));
    (0..3, option::of(0..255u8), zone, option::of(nat()), exec, alg).prop_map(
        |(flags, table, zone, nat, exec, alg)| Ct {
            commit: flags > 0,
            force: flags > 1,
            table,
            zone,
            nat,
            exec,
            alg,
        },
    )
}

fn port() -> impl Strategy<Value = PortNo> {
    prop_oneof![(0..0xff00u16).prop_map(PortNo), (0xfff8..=0xfffeu16).prop_map(PortNo)]
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let leaf = prop_oneof![
        (port(), any::<u16>()).prop_map(|(port, max_len)| {
            Action::Output { port, max_len: if port == PortNo::CONTROLLER { max_len } else { 0 } }
        }),
        subfield(WRITABLE, 1..=64).prop_map(Action::OutputReg),
        (option::of((0..0xff00u16).prop_map(PortNo)), 0..255u8, any::<bool>())
            .prop_map(|(port, table, ct)| Action::Resubmit { port, table: Some(table), ct }),
        (0..0xff00u16).prop_map(|port| Action::Resubmit { port: Some(PortNo(port)), table: None, ct: false }),
        load(WRITABLE),
        set_field(WRITABLE),
        copy(WRITABLE),
        (direction(), 0..1u64 << 48).prop_map(|(direction, address)| Action::ModDl(direction, address)),
        (direction(), any::<u32>()).prop_map(|(direction, address)| Action::ModNw(direction, address)),
        (direction(), any::<u16>()).prop_map(|(direction, port)| Action::ModTp(direction, port)),
        (0..64u8).prop_map(|dscp| Action::ModNwTos(dscp << 2)),
        (0..4u8).prop_map(Action::ModNwEcn),
        any::<u8>().prop_map(Action::ModNwTtl),
        (0..4096u16).prop_map(Action::ModVlanVid),
        (0..8u8).prop_map(Action::ModVlanPcp),
        select(vec![Action::StripVlan, Action::PushVlan(0x8100), Action::DecTtl, Action::CtClear]),
        ct().prop_map(|ct| Action::Ct(Box::new(ct))),
        (0..3usize, any::<u8>()).prop_map(|(n, byte)| Action::Note(vec![byte; 6 + 8 * n])),
    ];
    let nested = leaf.prop_recursive(2, 8, 3, |inner| vec(inner, 0..3).prop_map(Action::Clone));
    let metadata = option::of(any::<(u64, u64)>());
    (vec(nested, 0..5), metadata, option::of(0..255u8)).prop_map(|(mut actions, metadata, table)| {
        actions.extend(metadata.map(|(value, mask)| Action::WriteMetadata { value: value & mask, mask }));
        actions.extend(table.map(Action::GotoTable));
        actions
    })
}

fn names() -> PortMap {
    (1..100).map(|n| (PortNo(n), format!("{}{n}", if n % 2 == 0 { "eth" } else { "veth_l" }))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn matches_are_read_back(matching in matching()) {
        prop_assume!(check_prerequisites(&matching).is_ok());
        let mut text = String::new();
        write_match(&mut text, &matching, DEFAULT_PRIORITY, &names()).unwrap();
        let read = parse_flow_filter(&text, &names());
        prop_assert_eq!(read.map(|filter| filter.matching), Ok(matching), "{}", text);
    }

    #[test]
    fn actions_are_read_back(actions in actions()) {
        let mut text = String::new();
        write_actions(&mut text, &actions, &names()).unwrap();
        prop_assert_eq!(parse_actions(&text, &names()), Ok(actions), "{}", text);
    }

    #[test]
    fn no_text_panics(text in "[ -~\t]{0,60}") {
        let _ = parse_flow(&text, Command::Add, &NoNames);
        let _ = parse_flow_filter(&text, &NoNames);
    }

    /// Texts that are nearly right get further than noise does.
    #[test]
    fn no_nearly_right_text_panics(
        parts in vec(select(vec![
            "tcp", "ip", "ct_state", "=", "+trk", ",", "-new", "/", "(", ")", "reg0", "[", "0..7", "]", "->", "ct", "nat",
            "src", "1.2.3.4", "fe80::1", "-", ":", "actions=", "set_field:", "exec", "0x", "5", "note:", "é", "resubmit",
            "\"", "load:", "in_port",
        ]), 0..20),
    ) {
        let text = parts.concat();
        let _ = parse_flow(&text, Command::Add, &NoNames);
        let _ = parse_flow(&format!("actions={text}"), Command::Add, &NoNames);
        let _ = parse_flow_filter(&text, &NoNames);
    }
}
