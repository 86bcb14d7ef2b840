//! FTP: any text, cut anywhere, and what is written in its place.

use arbitrary::{Arbitrary, Result, Unstructured};
use conntrack_core::Direction;
use conntrack_core::ftp::{self, Command, Kind, Parser, write};

use crate::{Check, Way};

/// What one end says, and an announcement.
#[derive(Arbitrary, Debug)]
pub struct Text {
    way: Way,
    cut: u16,
    announced: Announced,
    line: u8,
    damage: Vec<Damage>,
    rest: Rest,
}

/// What a text begins with, so that not all of a command need be found by chance.
const LINES: [&str; 6] = [
    "",
    "PORT 192,168,1,2,5,6\r\n",
    "EPRT |1|132.235.1.2|6275|\r\n",
    "EPRT |2|1080::8:800:200C:1.2.3.4|5282|\r\n",
    "227 Entering Passive Mode (10,1,1,2,128,232).\r\n",
    "229 Entering Extended Passive Mode (|||6446|)\r\n",
];

/// Another byte, in place of one or before it.
#[derive(Arbitrary, Debug)]
struct Damage {
    at: u8,
    byte: u8,
    inserts: bool,
}

/// All bytes that are left, as they are: so libFuzzer can grow a text byte by byte.
#[derive(Debug)]
struct Rest(Vec<u8>);

impl Arbitrary<'_> for Rest {
    fn arbitrary(bytes: &mut Unstructured) -> Result<Self> {
        Ok(Self(bytes.bytes(bytes.len())?.to_vec()))
    }
}

#[derive(Arbitrary, Debug)]
struct Announced {
    kind: u8,
    is_ipv6: bool,
    address: [u64; 2],
    port: u16,
}

impl Check for Text {
    fn check(&self) {
        let direction = Direction::from(self.way);
        let text = self.text();
        check_found(direction, &text);
        check_cuts(direction, &text, usize::from(self.cut) % (text.len() + 1));
        self.announced.check();
    }
}

impl Text {
    fn text(&self) -> Vec<u8> {
        let mut text = LINES[usize::from(self.line) % LINES.len()].as_bytes().to_vec();
        for &Damage { at, byte, inserts } in &self.damage {
            match text.get_mut(usize::from(at)) {
                Some(place) if !inserts => *place = byte,
                Some(_) => text.insert(at.into(), byte),
                None => text.push(byte),
            }
        }
        text.extend_from_slice(&self.rest.0);
        text
    }
}

fn read(direction: Direction, line_begins: bool, text: &[u8]) -> Option<Command> {
    let mut parser = Parser::default();
    parser.start(direction, line_begins);
    for (at, &byte) in text.iter().enumerate() {
        let begins = if at == 0 { line_begins } else { text[at - 1] == b'\n' };
        assert_eq!(parser.line_begins(), begins);
        let goes_on = parser.push(byte);
        assert_eq!(goes_on, !parser.found());
        if !goes_on {
            let found = parser;
            assert!(!parser.push(byte));
            assert_eq!(parser, found, "what follows is of no interest");
            return Some(parser.command);
        }
    }
    None
}

/// The same command, in a text that lies so much farther on.
fn farther(by: usize, command: Option<Command>) -> Option<Command> {
    command.map(|command| Command { offset: command.offset + by as u32, ..command })
}

/// What is found is in the text, and written anew in its place it is found again.
fn check_found(direction: Direction, text: &[u8]) {
    let Some(command) = read(direction, true, text) else { return };
    let (offset, end) = (command.offset as usize, (command.offset + command.len) as usize);
    assert!(offset >= 4 && command.len >= 5 && end <= text.len());
    assert_ne!(command.port, 0);
    let (is_answer, families): (_, &[u8]) = match command.kind {
        Kind::PORT => (false, &[4]),
        Kind::EPRT => (false, &[4, 6]),
        Kind::PASSIVE => (true, &[4]),
        Kind::EXTENDED_PASSIVE => (true, &[0]),
        other => panic!("{other:?}"),
    };
    assert_eq!(is_answer, direction == Direction::Reply);
    assert!(families.contains(&command.family), "{command:?}");
    match command.family {
        6 => {}
        4 => assert!(command.address[0] == 0 && command.address[1] <= u32::MAX.into()),
        _ => assert_eq!(command.address, [0, 0]),
    }
    let anew = written(&command);
    let replaced = [&text[..offset], &anew, &text[end..]].concat();
    assert_eq!(read(direction, true, &replaced), Some(Command { len: anew.len() as u32, ..command }));
}

/// Where a text is cut into segments matters only within a line, whose rest then says nothing.
fn check_cuts(direction: Direction, text: &[u8], cut: usize) {
    let (head, tail) = text.split_at(cut);
    let line = tail.iter().position(|&byte| byte == b'\n').map_or(tail.len(), |at| at + 1);
    assert_eq!(read(direction, false, tail), farther(line, read(direction, true, &tail[line..])));

    let line = head.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let (head, tail) = text.split_at(line);
    let in_pieces = read(direction, true, head).or_else(|| farther(line, read(direction, true, tail)));
    assert_eq!(in_pieces, read(direction, true, text));
}

impl Announced {
    /// What is written is read, but for port 0, which nobody can wait at.
    fn check(&self) {
        let (direction, kind, family, before, behind): (_, _, _, &[u8], &[u8]) = match self.kind % 4 {
            0 => (Direction::Original, Kind::PORT, 4, b"PORT ", b"\r\n"),
            1 if self.is_ipv6 => (Direction::Original, Kind::EPRT, 6, b"eprt  ", b"\r\n"),
            1 => (Direction::Original, Kind::EPRT, 4, b"eprt  ", b"\r\n"),
            2 => (Direction::Reply, Kind::PASSIVE, 4, b"227 Entering (", b")"),
            _ => (Direction::Reply, Kind::EXTENDED_PASSIVE, 0, b"229 Entering (", b")"),
        };
        let address = match family {
            4 => [0, self.address[1] & u64::from(u32::MAX)],
            6 => self.address,
            _ => [0, 0],
        };
        let command = Command { kind, family, address, port: self.port, ..Command::default() };
        let text = written(&command);
        let expected = Command { offset: before.len() as u32, len: text.len() as u32, ..command };
        let line = [before, &text, behind].concat();
        assert_eq!(read(direction, true, &line), (self.port != 0).then_some(expected));
    }
}

fn written(command: &Command) -> Vec<u8> {
    let mut text = ftp::Text { bytes: [b'#'; 64], len: u32::MAX };
    write(command, &mut text);
    let (text, behind) = text.bytes.split_at(text.len as usize);
    assert!(text.is_ascii() && !text.contains(&b'#') && behind.iter().all(|&byte| byte == b'#'));
    text.to_vec()
}
