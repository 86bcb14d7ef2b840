//! IPv6 addresses as text (RFC 4291, 2.2), byte by byte.

/// A reader. All zero is a fresh one; every bit pattern is a legal value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ipv6 {
    /// The groups that were read.
    groups: [u16; 8],
    /// The group being read, by its hexadecimal and by its decimal digits.
    hexadecimal: u16,
    decimal: u16,
    /// How many groups were read.
    count: u8,
    /// Where `::` stands, plus one; 0: nowhere yet.
    gap: u8,
    /// How many digits the group being read has.
    digits: u8,
    /// How many dots there were.
    dots: u8,
    /// How many colons came last.
    colons: u8,
    /// Explicit padding; zero.
    reserved: [u8; 3],
}

/// Stands for a number that is not decimal.
const NOT_DECIMAL: u16 = u16::MAX;

impl Ipv6 {
    /// Reads the next byte; false: this is no address.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) -> bool {
        match byte {
            b'0'..=b'9' => self.digit(byte & 15),
            b'a'..=b'f' | b'A'..=b'F' => self.digit((byte & 15).wrapping_add(9)),
            b':' => self.colon(),
            b'.' => {
                self.dots = self.dots.wrapping_add(1);
                // The last two groups may be written as an IPv4 address.
                self.dots <= 3 && self.octet()
            }
            _ => false,
        }
    }

    #[inline(always)]
    fn digit(&mut self, digit: u8) -> bool {
        // A single colon cannot be the first.
        if self.colons == 1 && self.count == 0 && self.gap == 0 {
            return false;
        }
        self.colons = 0;
        if self.digits == 0 {
            self.hexadecimal = 0;
            self.decimal = 0;
        }
        self.digits = self.digits.wrapping_add(1);
        self.hexadecimal = self.hexadecimal << 4 | u16::from(digit);
        let is_decimal = digit < 10 && self.decimal != NOT_DECIMAL;
        self.decimal =
            if is_decimal { self.decimal.wrapping_mul(10).wrapping_add(digit.into()) } else { NOT_DECIMAL };
        self.digits <= 4
    }

    #[inline(always)]
    fn colon(&mut self) -> bool {
        if self.dots > 0 {
            return false;
        }
        self.colons = self.colons.wrapping_add(1);
        if self.digits > 0 {
            let group = self.hexadecimal;
            return self.add(group);
        }
        if self.colons == 2 && self.gap == 0 {
            self.gap = self.count.wrapping_add(1);
            return true;
        }
        // The first byte of all: another one must follow.
        self.colons == 1 && self.count == 0
    }

    #[inline(always)]
    fn add(&mut self, group: u16) -> bool {
        self.digits = 0;
        if self.count >= 8 {
            return false;
        }
        self.groups[usize::from(self.count & 7)] = group;
        self.count = self.count.wrapping_add(1);
        true
    }

    /// Takes a decimal number as the next half of a group.
    #[inline(always)]
    fn octet(&mut self) -> bool {
        if self.digits == 0 || self.digits > 3 || self.decimal > 255 || self.count > 7 {
            return false;
        }
        self.digits = 0;
        let group = &mut self.groups[usize::from(self.count & 7)];
        *group = *group << 8 | self.decimal;
        // The second and the fourth number complete a group. The fourth has no dot behind it.
        if self.dots == 2 || self.dots == 4 {
            self.count = self.count.wrapping_add(1);
        }
        true
    }

    /// The end of the text; false: this was no address.
    #[inline(always)]
    pub fn end(&mut self, address: &mut [u64; 2]) -> bool {
        if self.dots > 0 {
            self.dots = self.dots.wrapping_add(1);
            if self.dots != 4 || !self.octet() {
                return false;
            }
        } else if self.digits > 0 {
            let group = self.hexadecimal;
            if !self.add(group) {
                return false;
            }
        } else if self.colons != 2 {
            return false;
        }
        // `::` stands for one group at least.
        if self.gap == 0 && self.count != 8 || self.gap != 0 && self.count > 7 {
            return false;
        }
        let before = if self.gap == 0 { 8 } else { self.gap.wrapping_sub(1) };
        let zeros = 8u8.wrapping_sub(self.count);
        *address = [0, 0];
        for place in 0..8u8 {
            let group = if place < before {
                self.groups[usize::from(place & 7)]
            } else if place >= before.wrapping_add(zeros) {
                self.groups[usize::from(place.wrapping_sub(zeros) & 7)]
            } else {
                0
            };
            let half = &mut address[usize::from(place >> 2 & 1)];
            *half = *half << 16 | u64::from(group);
        }
        true
    }
}
