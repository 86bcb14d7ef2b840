//! The text that a translation puts in place of an announced address.

use super::{Command, Kind};
use crate::forget;

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
/// It is as `nf_nat_ftp.c` writes it, an extended address parted by `|`, whatever the original had; but IPv6 addresses
/// are in their canonical form (RFC 5952), because there are servers that compare them as text.
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
                text.groups([high, low]);
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

    /// An IPv6 address: the longest run of zeros, the first if there are several, is left out.
    #[inline(always)]
    fn groups(&mut self, [high, low]: [u64; 2]) {
        let group = |place: u32| {
            let half = if place < 4 { high } else { low };
            (half >> (48 - (place & 3) * 16)) as u16
        };
        // Without branches, whose outcomes the verifier would follow one by one.
        let chosen = |yes: u32, then: u32, or: u32| or ^ (or ^ then) & forget(yes.wrapping_neg());
        let (mut start, mut len, mut run) = (8u32, 1u32, 0u32);
        for place in 0..8 {
            let is_zero = u32::from(group(place)).wrapping_sub(1) >> 31;
            run = chosen(is_zero, run.wrapping_add(1), 0);
            let is_longer = len.wrapping_sub(run) >> 31;
            start = chosen(is_longer, place.wrapping_add(1).wrapping_sub(run), start);
            len = chosen(is_longer, run, len);
        }
        let end = start.wrapping_add(len);
        for place in 0..8 {
            if place < start || place >= end {
                if place != 0 {
                    self.put(b':');
                }
                self.hexadecimal(group(place));
            } else if place == start {
                self.put(b':');
            }
        }
        if end == 8 {
            self.put(b':');
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
