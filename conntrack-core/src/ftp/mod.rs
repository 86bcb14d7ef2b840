//! What FTP's control connection tells of data connections, and how a translation changes the text.
//!
//! As Linux's `nf_conntrack_ftp.c` and `nf_nat_ftp.c` have it, and OVS's tracker (`process_ftp_ctl_v4`,
//! `process_ftp_ctl_v6`): the client's `PORT` (RFC 959) and `EPRT` (RFC 2428), and the server's answers 227 to
//! `PASV` and 229 to `EPSV`. The text of a segment is read byte by byte; a command counts only at the beginning of a
//! line, and only if all of it, with what ends it, is there.
//!
//! Where Linux drops a segment with a command that is cut or in error, it is no command here. And Linux looks at a
//! segment's first line only, but commands may come in a row.

mod address;
mod lines;
mod text;

pub use lines::Lines;
pub use text::{Text, write};

use crate::Direction;
use address::Ipv6;

/// What tells of a data connection. A newtype, as it is read back from memory.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind(pub u8);

impl Kind {
    /// `PORT h1,h2,h3,h4,p1,p2`: the client waits there.
    pub const PORT: Self = Self(1);
    /// `EPRT |1|132.235.1.2|6275|` or `EPRT |2|1080::8:800:200c:417a|5282|`, likewise.
    pub const EPRT: Self = Self(2);
    /// `227 Entering Passive Mode (h1,h2,h3,h4,p1,p2)`: the server waits there.
    pub const PASSIVE: Self = Self(3);
    /// `229 Entering Extended Passive Mode (|||6446|)`: the server waits at this port of its address.
    pub const EXTENDED_PASSIVE: Self = Self(4);
}

/// A data connection that is announced.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The address, a 128-bit number, high half first; an IPv4 address in the low 32 bits. Zero if there is none.
    pub address: [u64; 2],
    /// Where the text begins that a translation replaces: the numbers from `h1` to `p2`; else from the first `|` to
    /// the last. In bytes from the first one that was read.
    pub offset: u32,
    /// How long that text is.
    pub len: u32,
    /// The port; never 0.
    pub port: u16,
    /// What it was.
    pub kind: Kind,
    /// 4 or 6, or 0 if there is no address.
    pub family: u8,
}

const _: () = assert!(size_of::<Command>() == 32);

/// A reader of one direction's text. Every bit pattern is a legal value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parser {
    /// What was found, once [`Parser::found`].
    pub command: Command,
    ipv6: Ipv6,
    /// How many bytes were read.
    at: u32,
    /// The number being read.
    value: u32,
    /// How many digits it has.
    digits: u8,
    /// How many numbers, delimiters, or letters of the command's name came before.
    count: u8,
    /// One of [`state`].
    state: u8,
    /// What stands between the parts of an extended address.
    delimiter: u8,
    /// 1: the answers of the server are read, and not the commands of the client.
    answers: u8,
    /// Explicit padding; zero.
    reserved: [u8; 3],
}

const _: () = assert!(size_of::<Parser>() == 80);

/// What the next byte is to be.
mod state {
    /// The name of a command.
    pub const NAME: u8 = 0;
    /// Something of a line that does not matter.
    pub const REST: u8 = 1;
    /// The blank after a command, or more of them.
    pub const BLANKS: u8 = 2;
    /// What an answer says before the numbers.
    pub const BEFORE_NUMBERS: u8 = 3;
    /// One of six numbers.
    pub const NUMBERS: u8 = 4;
    /// What an answer says before the bracket.
    pub const BEFORE_BRACKET: u8 = 5;
    /// The first delimiter.
    pub const DELIMITER: u8 = 6;
    /// The number of the address family, and the delimiter behind it.
    pub const FAMILY: u8 = 7;
    /// An IPv4 address.
    pub const ADDRESS: u8 = 8;
    /// An IPv6 address.
    pub const ADDRESS6: u8 = 9;
    /// Two more delimiters with nothing between.
    pub const EMPTY: u8 = 10;
    /// The port, and the last delimiter.
    pub const PORT: u8 = 11;
    /// Nothing: there is a command.
    pub const FOUND: u8 = 12;
}

impl Parser {
    /// Begins with a segment's payload. `line_begins`: it follows the end of a line, or nothing.
    #[inline(always)]
    pub fn start(&mut self, direction: Direction, line_begins: bool) {
        *self = Self {
            answers: direction as u8,
            state: if line_begins { state::NAME } else { state::REST },
            ..Self::default()
        };
    }

    /// Whether a command was found.
    #[inline(always)]
    #[must_use]
    pub fn found(&self) -> bool {
        self.state == state::FOUND
    }

    /// Whether a line begins with the next byte.
    #[inline(always)]
    #[must_use]
    pub fn line_begins(&self) -> bool {
        self.state == state::NAME && self.count == 0
    }

    /// Reads the next byte. False: a command was found, and this and what follows is of no interest.
    #[inline]
    pub fn push(&mut self, byte: u8) -> bool {
        if self.state == state::FOUND {
            return false;
        }
        self.state = self.next(byte);
        self.at = self.at.wrapping_add(1);
        if self.state == state::FOUND {
            return false;
        }
        if byte == b'\n' {
            self.state = state::NAME;
            self.count = 0;
        }
        true
    }

    #[inline(always)]
    fn next(&mut self, byte: u8) -> u8 {
        match self.state {
            state::NAME => self.name(byte),
            state::BLANKS => match byte {
                b' ' => {
                    self.count = 1;
                    state::BLANKS
                }
                // The blank is missing.
                _ if self.count == 0 => state::REST,
                _ if self.command.kind == Kind::PORT => self.first_number(byte),
                _ => self.first_delimiter(byte),
            },
            state::BEFORE_NUMBERS if byte.is_ascii_digit() => self.first_number(byte),
            state::NUMBERS => self.numbers(byte),
            state::BEFORE_BRACKET if byte == b'(' => state::DELIMITER,
            state::DELIMITER => self.first_delimiter(byte),
            state::FAMILY => self.family(byte),
            state::ADDRESS => self.address(byte),
            state::ADDRESS6 => self.address6(byte),
            state::EMPTY => self.empty(byte),
            state::PORT => self.port(byte),
            state::BEFORE_NUMBERS | state::BEFORE_BRACKET => self.state,
            _ => state::REST,
        }
    }

    /// The name of a command, in upper or lower case, or an answer's number and the blank after it.
    #[inline(always)]
    fn name(&mut self, byte: u8) -> u8 {
        let at = self.count;
        self.count = self.count.wrapping_add(1);
        let kind = &mut self.command.kind;
        if self.answers != 0 {
            match (at, byte) {
                (0 | 1, b'2') => {}
                (2, b'7') => *kind = Kind::PASSIVE,
                (2, b'9') => *kind = Kind::EXTENDED_PASSIVE,
                (3, b' ') if *kind == Kind::PASSIVE => return state::BEFORE_NUMBERS,
                (3, b' ') => return state::BEFORE_BRACKET,
                _ => return state::REST,
            }
            return state::NAME;
        }
        match (at, byte.to_ascii_uppercase()) {
            (0, b'P') => *kind = Kind::PORT,
            (0, b'E') => *kind = Kind::EPRT,
            (1, b'O') if *kind == Kind::PORT => {}
            (1, b'P') if *kind == Kind::EPRT => {}
            (2, b'R') => {}
            (3, b'T') => {
                self.count = 0;
                return state::BLANKS;
            }
            _ => return state::REST,
        }
        state::NAME
    }

    /// The beginning of six numbers.
    #[inline(always)]
    fn first_number(&mut self, byte: u8) -> u8 {
        self.command.offset = self.at;
        self.command.address = [0, 0];
        self.command.port = 0;
        self.count = 0;
        self.begin_number();
        self.numbers(byte)
    }

    #[inline(always)]
    fn begin_number(&mut self) {
        self.value = 0;
        self.digits = 0;
    }

    /// Reads a digit; false if the number exceeds the limit.
    #[inline(always)]
    fn digit(&mut self, byte: u8, limit: u32) -> bool {
        self.value = self.value.wrapping_mul(10).wrapping_add(u32::from(byte & 15));
        self.digits = 1;
        self.value <= limit
    }

    #[inline(always)]
    fn numbers(&mut self, byte: u8) -> u8 {
        const LAST: u8 = 5;
        if byte.is_ascii_digit() {
            return if self.digit(byte, 255) { state::NUMBERS } else { state::REST };
        }
        // An answer may have other numbers before these, and anything behind them (RFC 1123, 4.1.2.6).
        let is_answer = self.command.kind == Kind::PASSIVE;
        let failed = if is_answer { state::BEFORE_NUMBERS } else { state::REST };
        if self.digits == 0 {
            return failed;
        }
        let part = self.value as u8;
        if self.count < 4 {
            self.command.address[1] = self.command.address[1] << 8 | u64::from(part);
        } else {
            self.command.port = self.command.port << 8 | u16::from(part);
        }
        if self.count >= LAST {
            let ends = is_answer || byte == b'\r' || byte == b'\n';
            self.command.family = 4;
            return if ends && self.command.port != 0 { self.find(self.at) } else { failed };
        }
        if byte != b',' {
            return failed;
        }
        self.count = self.count.wrapping_add(1);
        self.begin_number();
        state::NUMBERS
    }

    /// Notes the command whose text ends before `end`.
    #[inline(always)]
    fn find(&mut self, end: u32) -> u8 {
        self.command.len = end.wrapping_sub(self.command.offset);
        state::FOUND
    }

    #[inline(always)]
    fn first_delimiter(&mut self, byte: u8) -> u8 {
        self.command.offset = self.at;
        self.command.address = [0, 0];
        self.command.family = 0;
        self.delimiter = byte;
        self.count = 0;
        self.begin_number();
        if !byte.is_ascii_graphic() || byte.is_ascii_digit() {
            // An answer may have another bracket before.
            return if self.answers != 0 { state::BEFORE_BRACKET } else { state::REST };
        }
        if self.answers != 0 { state::EMPTY } else { state::FAMILY }
    }

    #[inline(always)]
    fn family(&mut self, byte: u8) -> u8 {
        match byte {
            b'1' if self.count == 0 => self.command.family = 4,
            b'2' if self.count == 0 => self.command.family = 6,
            _ if self.count == 1 && byte == self.delimiter => {
                self.count = 0;
                if self.command.family == 4 {
                    return state::ADDRESS;
                }
                self.ipv6 = Ipv6::default();
                return state::ADDRESS6;
            }
            _ => return state::REST,
        }
        self.count = self.count.wrapping_add(1);
        state::FAMILY
    }

    #[inline(always)]
    fn address(&mut self, byte: u8) -> u8 {
        const LAST: u8 = 3;
        if byte.is_ascii_digit() {
            return if self.digit(byte, 255) { state::ADDRESS } else { state::REST };
        }
        let separator = if self.count < LAST { b'.' } else { self.delimiter };
        if self.digits == 0 || byte != separator {
            return state::REST;
        }
        self.command.address[1] = self.command.address[1] << 8 | u64::from(self.value as u8);
        self.begin_number();
        self.count = self.count.wrapping_add(1);
        if self.count > LAST { state::PORT } else { state::ADDRESS }
    }

    #[inline(always)]
    fn address6(&mut self, byte: u8) -> u8 {
        if byte != self.delimiter {
            return if self.ipv6.push(byte) { state::ADDRESS6 } else { state::REST };
        }
        self.begin_number();
        if self.ipv6.end(&mut self.command.address) { state::PORT } else { state::REST }
    }

    #[inline(always)]
    fn empty(&mut self, byte: u8) -> u8 {
        self.count = self.count.wrapping_add(1);
        if byte != self.delimiter {
            return state::BEFORE_BRACKET;
        }
        if self.count < 2 { state::EMPTY } else { state::PORT }
    }

    #[inline(always)]
    fn port(&mut self, byte: u8) -> u8 {
        if byte.is_ascii_digit() {
            return if self.digit(byte, u16::MAX.into()) { state::PORT } else { state::REST };
        }
        self.command.port = self.value as u16;
        if byte != self.delimiter || self.command.port == 0 {
            return state::REST;
        }
        self.find(self.at.wrapping_add(1))
    }
}
