//! The text that a translation puts in place of an announced address.

use super::{Command, Kind};

/// Room for the longest text, `|2|`, 39 characters of address, `|65535|`; and a masked index is inside it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text, and what was there before behind it.
    pub bytes: [u8; 64],
    /// How long it is.
    pub len: u32,
}

/// Writes the text for what `command` says of address and port, to be put where its original was.
///
/// It is as `nf_nat_ftp.c` writes it, but for leading zeros of IPv6 addresses: an extended address is parted by
/// `|`, whatever the original had.
#[inline]
pub fn write(command: &Command, text: &mut Text) {
    text.len = 0;
    let [high, low] = command.address;
    let [p1, p2] = command.port.to_be_bytes();
    match command.kind {
        Kind::PORT | Kind::PASSIVE => {
            text.octets(low as u32, b',');
            text.put(b',');
            text.decimal(p1.into());
            text.put(b',');
            text.decimal(p2.into());
            return;
        }
        Kind::EPRT => {
            text.put(b'|');
            text.put(if command.family == 6 { b'2' } else { b'1' });
            text.put(b'|');
            if command.family == 6 {
                for half in [high, low] {
                    for shift in [48, 32, 16, 0] {
                        text.hexadecimal((half >> shift) as u16);
                        text.put(b':');
                    }
                }
                // In place of the last colon.
                text.len = text.len.wrapping_sub(1);
            } else {
                text.octets(low as u32, b'.');
            }
            text.put(b'|');
        }
        _ => {
            for _ in 0..3 {
                text.put(b'|');
            }
        }
    }
    text.decimal(command.port.into());
    text.put(b'|');
}

impl Text {
    /// Nothing.
    pub const EMPTY: Self = Self { bytes: [0; 64], len: 0 };

    #[inline(always)]
    fn put(&mut self, byte: u8) {
        self.bytes[self.len as usize & 63] = byte;
        self.len = self.len.wrapping_add(1);
    }

    #[inline(always)]
    fn decimal(&mut self, number: u32) {
        let mut begun = false;
        for unit in [10_000, 1000, 100, 10, 1] {
            let digit = (number / unit % 10) as u8;
            begun |= digit != 0 || unit == 1;
            if begun {
                self.put(b'0' | digit);
            }
        }
    }

    #[inline(always)]
    fn hexadecimal(&mut self, number: u16) {
        let mut begun = false;
        for shift in [12, 8, 4, 0] {
            let digit = (number >> shift & 15) as u8;
            begun |= digit != 0 || shift == 0;
            if begun {
                self.put(if digit < 10 { b'0' | digit } else { (b'a' - 10).wrapping_add(digit) });
            }
        }
    }

    #[inline(always)]
    fn octets(&mut self, address: u32, separator: u8) {
        let [a, b, c, d] = address.to_be_bytes();
        self.decimal(a.into());
        for octet in [b, c, d] {
            self.put(separator);
            self.decimal(octet.into());
        }
    }
}
