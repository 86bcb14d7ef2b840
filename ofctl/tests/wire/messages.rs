//! Random messages, as both ends could send them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ofctl::action::{Action, Alg, Ct, Direction, Nat, Zone};
use ofctl::field::{Field, Subfield, ones};
use ofctl::flow::{Command, Flags, FlowEntry, FlowFilter, FlowMod, Match};
use ofctl::port::PortNo;
use ofctl::wire::{
    AggregateStats, AsyncConfig, CtFlush, CtTuple, Desc, ErrorCode, ErrorMessage, Features, FlowFormat,
    FlowRemoved, Message, PacketIn, PacketInFormat, PacketOut, Port, PortMod, PortReason, PortStats,
    Protocol, QueueStats, RemovedReason, StatsBody, StatsReply, StatsRequest, SwitchConfig, TableStats,
    VersionSet, flow_format,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What makes packets of a kind, and the fields that such packets have.
type Kind = (&'static [(Field, u128)], &'static [Field]);

const KINDS: &[Kind] = &[
    (&[], &[]),
    (&[(Field::EthType, 0x88cc)], &[]),
    (
        &[(Field::EthType, 0x0806)],
        &[Field::ArpOp, Field::ArpSpa, Field::ArpTpa, Field::ArpSha, Field::ArpTha],
    ),
    (&[(Field::EthType, 0x0800)], &[Field::IpProto, Field::Ipv4Src, Field::Ipv4Dst]),
    (
        &[(Field::EthType, 0x0800), (Field::IpProto, 6)],
        &[Field::TcpSrc, Field::TcpDst, Field::TcpFlags, Field::Ipv4Src, Field::IpTos, Field::IpEcn],
    ),
    (
        &[(Field::EthType, 0x0800), (Field::IpProto, 17)],
        &[Field::UdpSrc, Field::UdpDst, Field::IpTtl, Field::Ipv4Dst, Field::IpTos],
    ),
    (
        &[(Field::EthType, 0x0800), (Field::IpProto, 1)],
        &[Field::IcmpType, Field::IcmpCode, Field::Ipv4Src, Field::Ipv4Dst],
    ),
    (
        &[(Field::EthType, 0x86dd), (Field::IpProto, 132)],
        &[Field::SctpSrc, Field::SctpDst, Field::Ipv6Src, Field::Ipv6Dst, Field::Ipv6Label, Field::IpTos],
    ),
    (
        &[(Field::EthType, 0x86dd), (Field::IpProto, 58), (Field::Icmpv6Type, 135), (Field::Icmpv6Code, 0)],
        &[Field::NdTarget, Field::NdSll, Field::Ipv6Src],
    ),
    (&[(Field::EthType, 0x86dd), (Field::IpProto, 58), (Field::Icmpv6Type, 136)], &[Field::NdTll]),
    (
        &[(Field::EthType, 0x0800), (Field::IpProto, 6), (Field::CtState, 0x21), (Field::CtNwProto, 6)],
        &[Field::CtNwSrc, Field::CtNwDst, Field::CtTpSrc, Field::CtTpDst],
    ),
    (
        &[(Field::EthType, 0x86dd), (Field::CtState, 0x22)],
        &[Field::CtIpv6Src, Field::CtIpv6Dst, Field::CtNwProto],
    ),
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
    Field::Xreg(1),
    Field::Xxreg(3),
    Field::PktMark,
    Field::CtZone,
    Field::CtMark,
    Field::CtLabel,
];

fn demand(matching: &mut Match, field: Field, value: u128, mask: u128) {
    let info = field.info();
    let whole = info.value_mask() & ones(info.location.bits);
    let mask = if info.maskable { mask & whole } else { whole };
    // No frame has a tag's priority or id without a tag.
    let value = if field == Field::VlanTci { value | 0x1000 } else { value };
    matching.set(field, value & mask, mask);
}

/// Values are wild, masks mostly whole or prefixes.
fn operand() -> impl Strategy<Value = (u128, u128)> {
    let mask =
        prop_oneof![3 => Just(u128::MAX), 1 => (0..32u32).prop_map(|n| u128::MAX << n), 1 => any::<u128>()];
    (prop_oneof![any::<u128>(), any::<u16>().prop_map(u128::from)], mask)
}

pub fn matching() -> BoxedStrategy<Match> {
    let kind = proptest::sample::select(KINDS).prop_flat_map(|(needed, fields)| {
        let operands = vec(option::of(operand()), fields.len());
        operands.prop_map(move |operands| (needed, fields.iter().copied().zip(operands).collect::<Vec<_>>()))
    });
    let anywhere = proptest::sample::subsequence(ANYWHERE, 0..4)
        .prop_flat_map(|fields| vec(operand(), fields.len()).prop_map(move |ops| (fields.clone(), ops)));
    (kind, anywhere)
        .prop_map(|((needed, operands), (fields, anywhere))| {
            let mut matching = Match::default();
            for (field, value) in needed {
                demand(&mut matching, *field, *value, u128::MAX);
            }
            for (field, operand) in operands {
                if let Some((value, mask)) = operand {
                    demand(&mut matching, field, value, mask);
                }
            }
            for (field, (value, mask)) in fields.into_iter().zip(anywhere) {
                demand(&mut matching, field, value, mask);
            }
            matching
        })
        .boxed()
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Src), Just(Direction::Dst)]
}

pub fn port() -> impl Strategy<Value = PortNo> {
    prop_oneof![(1..0xff00u16).prop_map(PortNo), (PortNo::IN_PORT.0..=PortNo::LOCAL.0).prop_map(PortNo),]
}

fn subfield(fields: &'static [Field], max: u8) -> impl Strategy<Value = Subfield> {
    proptest::sample::select(fields).prop_flat_map(move |field| {
        let bits = field.info().bits;
        (0..bits).prop_flat_map(move |ofs| {
            (1..=(bits - ofs).min(max)).prop_map(move |n_bits| Subfield { field, ofs, n_bits })
        })
    })
}

const WRITABLE: &[Field] = &[
    Field::Reg(3),
    Field::Xreg(0),
    Field::Xxreg(1),
    Field::EthSrc,
    Field::Metadata,
    Field::Ipv4Dst,
    Field::Ipv6Src,
    Field::TcpDst,
    Field::InPort,
    Field::IpTtl,
];

fn load(fields: &'static [Field]) -> impl Strategy<Value = Action> {
    (subfield(fields, 64), any::<u64>())
        .prop_map(|(dst, value)| Action::Load { value: value & ones(dst.n_bits) as u64, dst })
}

fn copy(fields: &'static [Field]) -> impl Strategy<Value = Action> {
    (subfield(WRITABLE, 16), proptest::sample::select(fields)).prop_map(|(src, field)| {
        let n_bits = src.n_bits.min(field.info().bits);
        Action::Move { src: Subfield { n_bits, ..src }, dst: Subfield { field, ofs: 0, n_bits } }
    })
}

fn nat() -> impl Strategy<Value = Nat> {
    let v4 = (any::<u32>(), any::<u32>())
        .prop_map(|(a, b)| Ipv4Addr::from(a.min(b)).into()..=Ipv4Addr::from(a.max(b)).into());
    let v6 = (any::<u128>(), any::<u128>())
        .prop_map(|(a, b)| Ipv6Addr::from(a.min(b)).into()..=IpAddr::from(Ipv6Addr::from(a.max(b))));
    let ports = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| a.min(b)..=a.max(b));
    let range = option::of((prop_oneof![v4, v6], option::of(ports)))
        .prop_map(|range| range.map_or((None, None), |(addresses, ports)| (Some(addresses), ports)));
    let binding = (direction(), range, any::<bool>(), 0..3);
    let binding = binding.prop_map(|(direction, (addresses, ports), persistent, order)| {
        // The flags say how to choose from a range, and go only with one.
        let choice = addresses.is_some();
        Nat {
            direction: Some(direction),
            addresses,
            ports,
            persistent: choice && persistent,
            hash: choice && order == 1,
            random: choice && order == 2,
        }
    });
    prop_oneof![Just(Nat::default()), binding]
}

fn ct() -> impl Strategy<Value = Ct> {
    const CT_FIELDS: &[Field] = &[Field::CtMark, Field::CtLabel];
    let zone = prop_oneof![
        any::<u16>().prop_map(Zone::Constant),
        (0..16u8).prop_map(|ofs| Zone::Field(Subfield { field: Field::Reg(2), ofs, n_bits: 16 })),
    ];
    let alg = option::of(prop_oneof![Just(Alg::Ftp), Just(Alg::Tftp)]);
    let exec = vec(prop_oneof![load(CT_FIELDS), copy(CT_FIELDS)], 0..3);
    (any::<bool>(), option::of(0..255u8), zone, option::of(nat()), exec, alg).prop_map(
        |(force, table, zone, nat, exec, alg)| {
            let commit = force || !exec.is_empty() || nat.as_ref().is_some_and(|nat| nat.direction.is_some());
            Ct { commit, force, table, zone, nat, exec, alg }
        },
    )
}

/// Actions in the form in which they come off the wire.
pub fn actions() -> BoxedStrategy<Vec<Action>> {
    let leaf = prop_oneof![
        (port(), any::<u16>()).prop_map(|(port, max_len)| Action::Output { port, max_len }),
        subfield(WRITABLE, 64).prop_map(Action::OutputReg),
        (option::of((1..0xff00u16).prop_map(PortNo)), option::of(0..255u8), any::<bool>())
            .prop_filter("a form without a text", |(port, table, ct)| table.is_some()
                || port.is_some() && !ct)
            .prop_map(|(port, table, ct)| Action::Resubmit { port, table, ct }),
        load(WRITABLE),
        copy(WRITABLE),
        (direction(), 0..1u64 << 48).prop_map(|(direction, address)| Action::ModDl(direction, address)),
        (direction(), any::<u32>()).prop_map(|(direction, address)| Action::ModNw(direction, address)),
        (direction(), any::<u16>()).prop_map(|(direction, port)| Action::ModTp(direction, port)),
        (0..64u8).prop_map(|dscp| Action::ModNwTos(dscp << 2)),
        (0..4096u16).prop_map(Action::ModVlanVid),
        (0..8u8).prop_map(Action::ModVlanPcp),
        Just(Action::StripVlan),
        Just(Action::DecTtl),
        Just(Action::CtClear),
        ct().prop_map(|ct| Action::Ct(Box::new(ct))),
        (0..4usize, any::<u8>()).prop_map(|(n, byte)| Action::Note(vec![byte; 6 + 8 * n])),
    ];
    let nested = leaf.prop_recursive(3, 12, 4, |inner| vec(inner, 0..4).prop_map(Action::Clone));
    // An instruction in OpenFlow 1.1 and later: never inside another action.
    let metadata = option::of(any::<(u64, u64)>());
    (vec(nested, 0..6), metadata)
        .prop_map(|(mut actions, metadata)| {
            actions.extend(metadata.map(|(value, mask)| Action::WriteMetadata { value, mask }));
            actions
        })
        .boxed()
}

fn flags() -> impl Strategy<Value = Flags> {
    (any::<bool>(), any::<bool>()).prop_map(|(send_flow_rem, check_overlap)| Flags {
        send_flow_rem,
        check_overlap,
        ..Flags::default()
    })
}

fn table() -> impl Strategy<Value = Option<u8>> {
    option::of(0..255u8)
}

pub fn flow_mod() -> impl Strategy<Value = FlowMod> {
    let command = proptest::sample::select(vec![
        Command::Add,
        Command::Modify,
        Command::ModifyStrict,
        Command::Delete,
        Command::DeleteStrict,
    ]);
    let numbers = (any::<u16>(), any::<u16>(), any::<u16>());
    let cookies = (option::of(0..u64::MAX), any::<u64>(), prop_oneof![Just(0), any::<u64>()]);
    (command, table(), matching(), numbers, cookies, port(), flags(), actions()).prop_map(
        |(command, table, matching, numbers, cookies, out_port, flags, actions)| {
            let delete = matches!(command, Command::Delete | Command::DeleteStrict);
            let (new_cookie, cookie, cookie_mask) = match command {
                Command::Add => (cookies.0.or(Some(0)), 0, 0),
                _ if delete => (None, cookies.1 & cookies.2, cookies.2),
                _ => (cookies.0, cookies.1 & cookies.2, cookies.2),
            };
            FlowMod {
                table,
                priority: numbers.0,
                matching,
                new_cookie,
                cookie,
                cookie_mask,
                idle_timeout: numbers.1,
                hard_timeout: numbers.2,
                out_port: if delete { out_port } else { PortNo::NONE },
                flags,
                actions,
                ..FlowMod::new(command)
            }
        },
    )
}

fn filter() -> impl Strategy<Value = (FlowFormat, FlowFilter)> {
    let cookie = prop_oneof![Just((0, 0)), any::<(u64, u64)>()];
    (table(), matching(), cookie, port()).prop_map(|(table, matching, (cookie, cookie_mask), out_port)| {
        let filter = FlowFilter { table, matching, cookie: cookie & cookie_mask, cookie_mask, out_port };
        (flow_format(&matching, cookie_mask), filter)
    })
}

fn duration() -> impl Strategy<Value = Duration> {
    (any::<u32>(), 0..1_000_000_000u32).prop_map(|(s, ns)| Duration::new(s.into(), ns))
}

pub fn flow_entry() -> impl Strategy<Value = FlowEntry> {
    let age = || option::of(0..u16::MAX);
    let head = (0..255u8, any::<u16>(), any::<u64>(), duration(), any::<u16>(), any::<u16>());
    (head, age(), age(), any::<u64>(), any::<u64>(), matching(), actions()).prop_map(
        |(head, idle_age, hard_age, n_packets, n_bytes, matching, actions)| {
            let (table, priority, cookie, duration, idle_timeout, hard_timeout) = head;
            FlowEntry {
                table,
                priority,
                cookie,
                duration,
                idle_timeout,
                hard_timeout,
                importance: 0,
                flags: Flags::default(),
                n_packets,
                n_bytes,
                idle_age,
                hard_age,
                matching,
                actions,
            }
        },
    )
}

fn phy_port() -> impl Strategy<Value = Port> {
    (any::<u16>(), any::<[u8; 6]>(), "[a-z0-9_]{1,15}", any::<[u32; 6]>()).prop_map(
        |(number, hw_addr, name, [config, state, current, advertised, supported, peer])| {
            let known = 0xf87f;
            Port {
                number: PortNo(number),
                hw_addr,
                name,
                config,
                state,
                current: current & known,
                advertised: advertised & known,
                supported: supported & known,
                peer: peer & known,
            }
        },
    )
}

fn port_stats() -> impl Strategy<Value = PortStats> {
    (any::<u16>(), any::<[u64; 12]>()).prop_map(|(number, c)| PortStats {
        number: PortNo(number),
        rx_packets: c[0],
        tx_packets: c[1],
        rx_bytes: c[2],
        tx_bytes: c[3],
        rx_dropped: c[4],
        tx_dropped: c[5],
        rx_errors: c[6],
        tx_errors: c[7],
        rx_frame_errors: c[8],
        rx_over_errors: c[9],
        rx_crc_errors: c[10],
        collisions: c[11],
    })
}

fn stats_body() -> impl Strategy<Value = StatsBody> {
    let text = || "[ -~]{0,31}";
    let desc = (text(), text(), text(), text(), text()).prop_map(
        |(manufacturer, hardware, software, serial, datapath)| {
            StatsBody::Desc(Desc { manufacturer, hardware, software, serial, datapath })
        },
    );
    let own_flow = flow_entry()
        .prop_filter("needs NXM", |flow| flow_format(&flow.matching, 0) == FlowFormat::OpenFlow10);
    let own_flow = own_flow.prop_map(|flow| FlowEntry { idle_age: None, hard_age: None, ..flow });
    let format = || prop_oneof![Just(FlowFormat::OpenFlow10), Just(FlowFormat::Nxm)];
    let table = (any::<u8>(), text(), any::<[u32; 3]>(), any::<u64>(), any::<u64>()).prop_map(
        |(table, name, [wildcards, max_entries, active], lookups, matched)| TableStats {
            table,
            name,
            wildcards,
            max_entries,
            active,
            lookups,
            matched,
        },
    );
    let queue = (any::<u16>(), any::<u32>(), any::<[u64; 3]>()).prop_map(
        |(port, queue, [tx_bytes, tx_packets, tx_errors])| QueueStats {
            port: PortNo(port),
            queue,
            tx_bytes,
            tx_packets,
            tx_errors,
        },
    );
    prop_oneof![
        desc,
        vec(own_flow, 0..4).prop_map(|flows| StatsBody::Flow(FlowFormat::OpenFlow10, flows)),
        vec(flow_entry(), 0..4).prop_map(|flows| StatsBody::Flow(FlowFormat::Nxm, flows)),
        (format(), any::<(u64, u64, u32)>()).prop_map(|(format, (packets, bytes, flows))| {
            StatsBody::Aggregate(format, AggregateStats { packets, bytes, flows })
        }),
        vec(table, 0..4).prop_map(StatsBody::Table),
        vec(port_stats(), 0..4).prop_map(StatsBody::Port),
        vec(phy_port(), 0..4).prop_map(StatsBody::PortDesc),
        vec(queue, 0..4).prop_map(StatsBody::Queue),
    ]
}

fn tuple(ipv4: bool) -> impl Strategy<Value = CtTuple> {
    let address = move || {
        option::of(any::<u128>()).prop_map(move |bits| match bits {
            Some(bits) if ipv4 => Some(IpAddr::from(Ipv4Addr::from(bits as u32))),
            // Not an IPv4-mapped one.
            Some(bits) => Some(IpAddr::from(Ipv6Addr::from(bits | 1 << 127))),
            None => None,
        })
    };
    let ports = (option::of(any::<u16>()), option::of(any::<u16>()), option::of(any::<u16>()));
    (address(), address(), ports, option::of(any::<u8>()), option::of(any::<u8>())).prop_map(
        |(src, dst, (src_port, dst_port, icmp_id), icmp_type, icmp_code)| CtTuple {
            src,
            dst,
            src_port,
            dst_port,
            icmp_id,
            icmp_type,
            icmp_code,
        },
    )
}

pub fn message() -> impl Strategy<Value = Message> {
    let data = || vec(any::<u8>(), 0..100);
    let config =
        || (0..4u16, any::<u16>()).prop_map(|(flags, miss_send_len)| SwitchConfig { flags, miss_send_len });
    let code = prop_oneof![
        proptest::sample::select(ErrorCode::NAMED)
            .prop_filter("not in OpenFlow 1.0", |code| code.wire10().is_some()),
        any::<u16>().prop_map(|code| ErrorCode::Unknown { vendor: 0, kind: 77, code }),
    ];
    let features =
        (any::<u64>(), any::<u32>(), any::<u8>(), any::<u32>(), any::<u32>(), vec(phy_port(), 0..3))
            .prop_map(|(datapath_id, n_buffers, n_tables, capabilities, actions, ports)| Features {
                datapath_id,
                n_buffers,
                n_tables,
                capabilities,
                actions,
                ports,
            });
    let packet_in = (option::of(0..u32::MAX), any::<u16>(), any::<u16>(), any::<u8>(), data()).prop_map(
        |(buffer_id, total_len, in_port, reason, data)| PacketIn {
            buffer_id,
            total_len,
            in_port: PortNo(in_port),
            reason,
            data,
        },
    );
    let packet_out = (option::of(0..u32::MAX), any::<u16>(), actions(), data()).prop_map(
        |(buffer_id, in_port, actions, data)| PacketOut {
            buffer_id,
            in_port: PortNo(in_port),
            actions,
            data,
        },
    );
    let removed = (
        matching(),
        any::<u16>(),
        any::<u64>(),
        proptest::sample::select(vec![
            RemovedReason::IdleTimeout,
            RemovedReason::HardTimeout,
            RemovedReason::Delete,
        ]),
        table(),
        duration(),
        any::<(u16, u64, u64)>(),
    )
        .prop_map(
            |(matching, priority, cookie, reason, table, duration, (idle_timeout, packets, bytes))| {
                let format = flow_format(&matching, 0);
                let table = if format == FlowFormat::Nxm { table } else { None };
                let removed = FlowRemoved {
                    matching,
                    priority,
                    cookie,
                    reason,
                    table,
                    duration,
                    idle_timeout,
                    packets,
                    bytes,
                };
                Message::FlowRemoved(format, removed)
            },
        );
    let request = prop_oneof![
        Just(StatsRequest::Desc),
        Just(StatsRequest::Table),
        Just(StatsRequest::PortDesc),
        filter().prop_map(|(format, filter)| StatsRequest::Flow(format, filter)),
        filter().prop_map(|(format, filter)| StatsRequest::Aggregate(format, filter)),
        any::<u16>().prop_map(|port| StatsRequest::Port(PortNo(port))),
        any::<(u16, u32)>().prop_map(|(port, queue)| StatsRequest::Queue { port: PortNo(port), queue }),
    ];
    let flush = (
        option::of(any::<u16>()),
        any::<u8>(),
        any::<bool>().prop_flat_map(|ipv4| (tuple(ipv4), tuple(ipv4))),
        option::of(any::<(u32, u32)>()),
        option::of(any::<(u128, u128)>()),
    )
        .prop_map(|(zone, ip_proto, (original, reply), mark, label)| CtFlush {
            zone,
            ip_proto,
            original,
            reply,
            mark,
            label,
        });
    let packet_in_format =
        proptest::sample::select(vec![PacketInFormat::Standard, PacketInFormat::Nxt, PacketInFormat::Nxt2]);
    let reason = proptest::sample::select(vec![PortReason::Add, PortReason::Delete, PortReason::Modify]);
    let control = prop_oneof![
        (1..u32::MAX >> 1).prop_map(|versions| Message::Hello(VersionSet(versions << 1))),
        (code, data()).prop_map(|(code, data)| Message::Error(ErrorMessage { code, data })),
        data().prop_map(Message::EchoRequest),
        data().prop_map(Message::EchoReply),
        Just(Message::FeaturesRequest),
        features.prop_map(Message::FeaturesReply),
        Just(Message::GetConfigRequest),
        config().prop_map(Message::GetConfigReply),
        config().prop_map(Message::SetConfig),
        Just(Message::BarrierRequest),
        Just(Message::BarrierReply),
        packet_in.prop_map(Message::PacketIn),
        packet_out.prop_map(Message::PacketOut),
        (reason, phy_port()).prop_map(|(reason, port)| Message::PortStatus(reason, port)),
        (any::<u16>(), any::<[u8; 6]>(), any::<[u32; 3]>()).prop_map(
            |(number, hw_addr, [config, mask, advertise])| Message::PortMod(PortMod {
                number: PortNo(number),
                hw_addr,
                config,
                mask,
                advertise: advertise & 0xf87f,
            })
        ),
    ];
    let tables = prop_oneof![
        flow_mod().prop_map(|flow| {
            // A match without wildcards has OpenFlow 1.0's highest priority, so no other survives there.
            let format = flow_format(&flow.matching, flow.cookie_mask);
            Message::FlowMod(format, flow)
        }),
        removed,
        request.prop_map(Message::StatsRequest),
        (stats_body(), any::<bool>()).prop_map(|(body, more)| Message::StatsReply(StatsReply { body, more })),
    ];
    let nicira = prop_oneof![
        Just(Message::SetFlowFormat(FlowFormat::Nxm)),
        Just(Message::SetFlowFormat(FlowFormat::OpenFlow10)),
        any::<bool>().prop_map(Message::FlowModTableId),
        packet_in_format.prop_map(Message::SetPacketInFormat),
        any::<[[u32; 2]; 3]>().prop_map(|[packet_in, port_status, flow_removed]| {
            Message::SetAsyncConfig(AsyncConfig { packet_in, port_status, flow_removed })
        }),
        any::<u16>().prop_map(Message::CtFlushZone),
        flush.prop_map(|flush| Message::CtFlush(Box::new(flush))),
    ];
    // Boxed, because all of it together is more than a test thread's stack holds in a debug build.
    prop_oneof![control.boxed(), tables.boxed(), nicira.boxed()]
}

/// Tables named in flow-mods, so that none gets lost.
pub const PROTOCOL: Protocol = Protocol { version: ofctl::wire::Version::V10, flow_mod_table_id: true };
