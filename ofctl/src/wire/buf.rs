//! Big-endian reading with checked lengths, and writing.

use super::error::{DecodeError, ErrorCode};

/// What every decoding function returns.
pub(super) type Result<T, E = DecodeError> = std::result::Result<T, E>;

/// Reads a byte slice from the front.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// What is wrong when there are too few bytes, or too many.
    code: ErrorCode,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], code: ErrorCode) -> Self {
        Self { bytes, code }
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(self.code)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// The next `len` bytes as a reader of their own.
    pub(super) fn sub(&mut self, len: usize) -> Result<Self> {
        Ok(Self { bytes: self.take(len)?, code: self.code })
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(self.code)?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// An integer of `len` bytes, at most 16.
    pub(super) fn uint(&mut self, len: usize) -> Result<u128> {
        Ok(self.take(len)?.iter().fold(0, |value, byte| value << 8 | u128::from(*byte)))
    }

    pub(super) fn skip(&mut self, len: usize) -> Result<()> {
        self.take(len).map(|_| ())
    }

    /// Skips `len` bytes that have to be zero.
    pub(super) fn zeros(&mut self, len: usize, otherwise: ErrorCode) -> Result<()> {
        if self.take(len)?.iter().any(|byte| *byte != 0) {
            return Err(otherwise.into());
        }
        Ok(())
    }

    /// Says that nothing may be left.
    pub(super) fn end(&self) -> Result<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.code.into()) }
    }

    /// A string in a field of `len` bytes, ended by a zero byte if it is shorter.
    pub(super) fn string(&mut self, len: usize) -> Result<String> {
        let bytes = self.take(len)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(len);
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}

/// Writes to the end of a buffer.
pub(super) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }

    /// The low `len` bytes of an integer, at most 16.
    fn uint(&mut self, value: u128, len: usize) {
        self.put(&value.to_be_bytes()[16 - len..]);
    }

    fn zeros(&mut self, len: usize) {
        for _ in 0..len {
            self.u8(0);
        }
    }

    /// A string in a field of `len` bytes; at least the last of them is zero.
    fn string(&mut self, text: &str, len: usize) {
        let mut end = text.len().min(len - 1);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.put(&text.as_bytes()[..end]);
        self.zeros(len - end);
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// How many bytes bring `len` to a multiple of 8.
pub(super) fn padding(len: usize) -> usize {
    len.next_multiple_of(8) - len
}

/// `bit` if it is to be set.
pub(super) const fn flag(set: bool, bit: u16) -> u16 {
    if set { bit } else { 0 }
}
