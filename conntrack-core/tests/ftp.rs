//! What FTP's control connection announces: cases, and what holds for any text.

#![allow(clippy::unwrap_used, reason = "a test that cannot read what it wrote must fail")]

use std::net::{Ipv4Addr, Ipv6Addr};

use conntrack_core::Direction;
use conntrack_core::ftp::{Command, Kind, Parser, Text, write};
use proptest::collection::vec;
use proptest::prelude::*;

fn parse(direction: Direction, text: &[u8]) -> Option<Command> {
    let mut parser = Parser::default();
    parser.start(direction, true);
    for &byte in text {
        if !parser.push(byte) {
            assert!(parser.found() && !parser.push(byte));
            return Some(parser.command);
        }
        assert!(!parser.found());
    }
    None
}

fn said(text: &str) -> Option<Command> {
    parse(Direction::Original, text.as_bytes())
}

fn answered(text: &str) -> Option<Command> {
    parse(Direction::Reply, text.as_bytes())
}

/// Kind, family, address, port, and the text to be replaced.
fn told(text: &str, command: Option<Command>) -> Option<(Kind, u8, u128, u16, &str)> {
    let command = command?;
    let (offset, len) = (command.offset as usize, command.len as usize);
    let address = u128::from(command.address[0]) << 64 | u128::from(command.address[1]);
    Some((command.kind, command.family, address, command.port, &text[offset..offset + len]))
}

fn v4(address: [u8; 4]) -> u128 {
    u32::from_be_bytes(address).into()
}

fn v6(text: &str) -> Option<u128> {
    let command = said(&format!("EPRT |2|{text}|80|\r\n"))?;
    assert_eq!((command.kind, command.family, command.port), (Kind::EPRT, 6, 80));
    Some(u128::from(command.address[0]) << 64 | u128::from(command.address[1]))
}

#[test]
fn a_client_waits_at_a_port() {
    let expected = Some((Kind::PORT, 4, v4([192, 168, 1, 2]), 1286, "192,168,1,2,5,6"));
    for text in ["PORT 192,168,1,2,5,6\r\n", "port 192,168,1,2,5,6\n", "pOrT   192,168,1,2,5,6\r"] {
        assert_eq!(told(text, said(text)), expected, "{text:?}");
    }
    let pipelined = "USER me\r\nPORT 192,168,1,2,5,6\r\n";
    assert_eq!(told(pipelined, said(pipelined)), expected);
}

#[test]
fn a_client_waits_at_an_extended_address() {
    let text = "EPRT |1|132.235.1.2|6275|\r\n";
    assert_eq!(
        told(text, said(text)),
        Some((Kind::EPRT, 4, v4([132, 235, 1, 2]), 6275, "|1|132.235.1.2|6275|"))
    );
    let text = "eprt !2!1080::8:800:200C:417A!5282!\r\n";
    let address = "1080::8:800:200c:417a".parse::<Ipv6Addr>().unwrap().to_bits();
    assert_eq!(
        told(text, said(text)),
        Some((Kind::EPRT, 6, address, 5282, "!2!1080::8:800:200C:417A!5282!"))
    );
}

#[test]
fn a_server_waits_at_a_port() {
    let expected = Some((Kind::PASSIVE, 4, v4([10, 1, 1, 2]), 33000, "10,1,1,2,128,232"));
    for text in [
        "227 Entering Passive Mode (10,1,1,2,128,232).\r\n",
        "227 =10,1,1,2,128,232\r\n",
        "227 Mode 2 of 3, (10,1,1,2,128,232)",
        "331 Password?\r\n227 (10,1,1,2,128,232)\r\n",
    ] {
        assert_eq!(told(text, answered(text)), expected, "{text:?}");
    }
}

#[test]
fn a_server_waits_at_an_extended_port() {
    for text in
        ["229 Entering Extended Passive Mode (|||6446|)\r\n", "229 (EPSV) (|||6446|)", "229 (|||6446|"]
    {
        assert_eq!(
            told(text, answered(text)),
            Some((Kind::EXTENDED_PASSIVE, 0, 0, 6446, "|||6446|")),
            "{text:?}"
        );
    }
    let text = "229 (!!!1!)";
    assert_eq!(told(text, answered(text)), Some((Kind::EXTENDED_PASSIVE, 0, 0, 1, "!!!1!")));
}

#[test]
fn what_is_no_command() {
    for text in [
        "",
        "PORT",
        "PORT192,168,1,2,5,6\r\n",
        "XPORT 192,168,1,2,5,6\r\n",
        " PORT 192,168,1,2,5,6\r\n",
        "SITE PORT 192,168,1,2,5,6\r\n",
        "PORT 192,168,1,2,5\r\n",
        "PORT 192,168,1,2,5,6",
        "PORT 192,168,1,2,5,6,7\r\n",
        "PORT 192,168,1,256,5,6\r\n",
        "PORT 192,168,1,99999999999999999999,5,6\r\n",
        "PORT 192,168,,2,5,6\r\n",
        "PORT 192,168,1,2,5,\r\n",
        "PORT 192,168,1,2,0,0\r\n",
        "PORT 192.168.1.2.5.6\r\n",
        "PORT 192,\n168,1,2,5,6\r\n",
        "227 Entering Passive Mode (10,1,1,2,128,232).\r\n",
        "EPRT 1|132.235.1.2|6275|\r\n",
        "EPRT |1|132.235.1|6275|\r\n",
        "EPRT |1|132.235.1.2.3|6275|\r\n",
        "EPRT |1|132.235.1.300|6275|\r\n",
        "EPRT |1|132.235.1.2|65536|\r\n",
        "EPRT |1|132.235.1.2|0|\r\n",
        "EPRT |1|132.235.1.2|6275\r\n",
        "EPRT |1|132.235.1.2!6275|\r\n",
        "EPRT |2|132.235.1.2|6275|\r\n",
        "EPRT |3|132.235.1.2|6275|\r\n",
        "EPRT 11132.235.1.216275|\r\n",
    ] {
        assert_eq!(said(text), None, "{text:?}");
    }
    for text in [
        "227-Entering Passive Mode (10,1,1,2,128,232).\r\n",
        "2270 (10,1,1,2,128,232).\r\n",
        "227 (10,1,1,2,128,2567,1,2,3)\r\n",
        "227 (10,1,1,2,128,23",
        "228 (10,1,1,2,128,232).\r\n",
        "229 |||6446|\r\n",
        "229 (||6446|)\r\n",
        "229 (|||6446)\r\n",
        "229 (||||)\r\n",
        "229 (|||70000|)\r\n",
        "229 (\n|||6446|)\r\n",
        "PORT 192,168,1,2,5,6\r\n",
    ] {
        assert_eq!(answered(text), None, "{text:?}");
    }
}

#[test]
fn a_command_counts_where_a_line_begins() {
    let mut parser = Parser::default();
    let text = b"PORT 1,2,3,4,5,6\r\n";
    let read = |parser: &mut Parser, text: &[u8]| text.iter().all(|&byte| parser.push(byte));
    parser.start(Direction::Original, false);
    assert!(!parser.line_begins());
    assert!(read(&mut parser, text) && parser.line_begins());
    assert!(!read(&mut parser, text));
    parser.start(Direction::Original, true);
    assert!(parser.line_begins());
    assert!(read(&mut parser, b"P") && !parser.line_begins());
}

#[test]
fn ipv6_addresses() {
    for text in [
        "::",
        "::1",
        "1::",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7::",
        "::2:3:4:5:6:7:8",
        "fe80::abcd:EF01",
        "::ffff:10.1.1.2",
        "64:ff9b::192.0.2.33",
        "1:2:3:4:5:6:192.0.2.255",
        "0001:0:0::0",
    ] {
        assert_eq!(v6(text), Some(text.parse::<Ipv6Addr>().unwrap().to_bits()), "{text}");
    }
    for text in [
        "",
        ":",
        ":::",
        "1",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7:8::",
        "::1:2:3:4:5:6:7:8",
        "1::2::3",
        "1:",
        ":1::",
        "1:::2",
        "12345::",
        "g::",
        "::1.2.3",
        "::1.2.3.4.5",
        "::1.2.3.256",
        "::1..3.4",
        "::1.2.3.4:5",
        "::a.2.3.4",
        "1:2:3:4:5:6:7:1.2.3.4",
        "1.2.3.4",
        "fe80::1%eth0",
    ] {
        assert_eq!(v6(text), None, "{text}");
        assert!(text.parse::<Ipv6Addr>().is_err(), "{text}");
    }
}

fn written(command: &Command) -> String {
    let mut text =
        Text { bytes: *b"################################################################", len: 9 };
    write(command, &mut text);
    String::from_utf8(text.bytes[..text.len as usize].to_vec()).unwrap()
}

#[test]
fn the_text_of_a_translation() {
    let of = |kind, family, address| Command { kind, family, address, port: 1286, ..Command::default() };
    assert_eq!(written(&of(Kind::PORT, 4, [0, 0xc0a8_0102])), "192,168,1,2,5,6");
    assert_eq!(written(&of(Kind::PASSIVE, 4, [0, 0])), "0,0,0,0,5,6");
    assert_eq!(written(&of(Kind::EPRT, 4, [0, 0x0a01_01ff])), "|1|10.1.1.255|1286|");
    let address = [0xfd00_0001_0000_0000, 0xabcd];
    assert_eq!(written(&of(Kind::EPRT, 6, address)), "|2|fd00:1::abcd|1286|");
    assert_eq!(written(&of(Kind::EXTENDED_PASSIVE, 0, [0, 0])), "|||1286|");
    let longest = Command { port: u16::MAX, ..of(Kind::EPRT, 6, [u64::MAX; 2]) };
    assert_eq!(written(&longest).len(), 49);
}

/// Text of the kind that is looked for, but damaged.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("PORT 192,168,1,2,5,6\r\n"),
        Just("EPRT |1|132.235.1.2|6275|\r\n"),
        Just("EPRT |2|1080::8:800:200C:1.2.3.4|5282|\r\n"),
        Just("227 Entering Passive Mode (10,1,1,2,128,232).\r\n"),
        Just("229 Entering Extended Passive Mode (|||6446|)\r\n"),
    ];
    let byte = prop_oneof![any::<u8>(), prop::sample::select(&b"0123456789abcdefPORTEPRT|,.:()\r\n "[..])];
    let change = (any::<prop::sample::Index>(), byte, any::<bool>());
    (vec(line, 1..3), vec(change, 0..4)).prop_map(|(lines, changes)| {
        let mut text: Vec<u8> = lines.concat().into_bytes();
        for (at, byte, inserts) in changes {
            let at = at.index(text.len());
            if inserts { text.insert(at, byte) } else { text[at] = byte }
        }
        text
    })
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Original), Just(Direction::Reply)]
}

fn check(direction: Direction, text: &[u8]) -> Result<(), TestCaseError> {
    let Some(command) = parse(direction, text) else { return Ok(()) };
    let (offset, end) = (command.offset as usize, (command.offset + command.len) as usize);
    prop_assert!(end <= text.len() && offset >= 4);
    prop_assert!(command.port != 0);
    let answers = matches!(command.kind, Kind::PASSIVE | Kind::EXTENDED_PASSIVE);
    prop_assert_eq!(answers, direction == Direction::Reply);
    prop_assert!(command.family == 6 || command.address[0] == 0 && command.address[1] <= u32::MAX.into());
    // The replaced text says what was read: written anew in its place, it is read again.
    let anew = written(&command);
    let replaced = [&text[..offset], anew.as_bytes(), &text[end..]].concat();
    let again = parse(direction, &replaced);
    prop_assert_eq!(again, Some(Command { len: anew.len() as u32, ..command }));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_is_read(direction in direction(), text in vec(any::<u8>(), 0..100)) {
        check(direction, &text)?;
    }

    #[test]
    fn damaged_commands_are_read_right_or_not_at_all(direction in direction(), text in nearly()) {
        check(direction, &text)?;
    }

    #[test]
    fn ipv6_addresses_are_in_their_canonical_form(groups in vec(prop_oneof![Just(0u16), any::<u16>()], 8)) {
        let address = Ipv6Addr::from(<[u16; 8]>::try_from(groups).unwrap());
        // What stands for an IPv4 address may be written in two ways.
        prop_assume!(address.to_ipv4_mapped().is_none());
        let bits = address.to_bits();
        let address = [(bits >> 64) as u64, bits as u64];
        let command = Command { kind: Kind::EPRT, family: 6, address, port: 80, ..Command::default() };
        prop_assert_eq!(written(&command), format!("|2|{}|80|", Ipv6Addr::from(bits)));
    }

    #[test]
    fn what_is_written_is_read(
        address in any::<[u64; 2]>(),
        port in 1u16..,
        (kind, family) in prop_oneof![
            Just((Kind::PORT, 4u8)),
            Just((Kind::EPRT, 4)),
            Just((Kind::EPRT, 6)),
            Just((Kind::PASSIVE, 4)),
            Just((Kind::EXTENDED_PASSIVE, 0)),
        ],
    ) {
        let address = match family {
            4 => [0, address[1] & 0xffff_ffff],
            6 => address,
            _ => [0, 0],
        };
        let command = Command { kind, family, address, port, ..Command::default() };
        let (direction, before, behind) = match kind {
            Kind::PORT => (Direction::Original, "PORT ", "\r\n"),
            Kind::EPRT => (Direction::Original, "EPRT ", "\r\n"),
            Kind::PASSIVE => (Direction::Reply, "227 Entering (", ")"),
            _ => (Direction::Reply, "229 Entering (", ")"),
        };
        let text = written(&command);
        let line = [before, &text, behind].concat();
        let expected = Command { offset: before.len() as u32, len: text.len() as u32, ..command };
        prop_assert_eq!(parse(direction, line.as_bytes()), Some(expected));
    }

    #[test]
    fn ipv6_addresses_are_read_as_the_standard_library_does(
        text in "[0-9a-f]{0,5}(:[0-9a-f]{0,5}){0,9}(\\.[0-9]{1,3}){0,4}",
        bits in any::<u128>(),
        zeros in 0u32..128,
    ) {
        // Leading zeros in a dotted part, which the library refuses, are nothing to refuse a command for.
        let dotted_zero = text.rsplit(':').next().is_some_and(|last| {
            last.contains('.') && last.split('.').any(|part| part.len() > 1 && part.starts_with('0'))
        });
        if !dotted_zero {
            prop_assert_eq!(v6(&text), text.parse::<Ipv6Addr>().ok().map(Ipv6Addr::to_bits), "{}", text);
        }
        let address = Ipv6Addr::from_bits(bits & (u128::MAX << zeros) >> (zeros / 2));
        prop_assert_eq!(v6(&address.to_string()), Some(address.to_bits()));
    }

    #[test]
    fn ipv4_numbers_are_read(address in any::<u32>(), port in 1u16..) {
        let dotted = Ipv4Addr::from_bits(address).to_string();
        let command = said(&format!("EPRT |1|{dotted}|{port}|\r\n")).unwrap();
        prop_assert_eq!((command.address, command.port), ([0, address.into()], port));
    }
}
