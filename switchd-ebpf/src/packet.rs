//! Access to a packet's bytes: the seam between the pipeline and the hook it runs in.

/// A packet, as one of the hooks holds it.
///
/// Offsets count from the first byte of the Ethernet header. An access that leaves the packet, or whose offset
/// exceeds [`MAX_OFFSET`], fails and changes nothing.
pub trait Packet {
    /// Length in bytes, with the VLAN tag if it is among the bytes.
    fn length(&self) -> u32;

    /// Length in bytes as it is counted: with the VLAN tag, wherever it is.
    #[inline(always)]
    fn wire_length(&self) -> u32 {
        self.length() + if self.vlan_beside().is_some() { 4 } else { 0 }
    }

    /// Whether the packet has that many bytes. Cheaper than [`Packet::length`] where the hook need not be asked.
    #[inline(always)]
    fn holds(&self, bytes: u32) -> bool {
        bytes <= self.length()
    }

    /// Reads `N` bytes, at most 16.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// Reads `len` bytes, 1 to 64, into the beginning of a buffer. On failure the buffer's content is undefined.
    fn read(&self, offset: u32, buffer: &mut Buffer, len: u32) -> bool;

    /// As [`Packet::read`], of `N` bytes, with zeros to the end of the last word of eight; cheaper where the hook need
    /// not be asked.
    #[inline(always)]
    fn read_exactly<const N: usize>(&self, offset: u32, buffer: &mut Buffer) -> bool {
        buffer.clear();
        self.read(offset, buffer, N as u32)
    }

    /// Writes `N` bytes, at most 16.
    fn store<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> bool;

    /// Ones' complement sum (RFC 1071) of a run of bytes as big-endian 16-bit words, not complemented. An odd
    /// last byte counts as the high half of a word. None if the run leaves the packet.
    fn sum(&self, offset: u32, len: u32) -> Option<u16>;

    /// Makes the packet as long as that, at its end: what is new there is of no particular value.
    fn resize(&mut self, length: u32) -> bool;

    /// The 802.1Q tag that the hook carries beside the bytes (tc takes it out of them).
    fn vlan_beside(&self) -> Option<u16>;

    /// Inserts an 802.1Q tag.
    fn push_vlan(&mut self, tci: u16) -> bool;

    /// Removes the outer tag.
    fn pop_vlan(&mut self) -> bool;

    /// Replaces the TCI of the outer tag.
    fn set_vlan(&mut self, tci: u16) -> bool;

    /// Corrects the Internet checksum at `offset` for bytes that changed under it: `delta` is the sum of the
    /// new ones less the sum of the old ones (see [`crate::checksum`]).
    fn correct_checksum(&mut self, offset: u32, delta: u16, changed: Changed) -> bool;
}

/// The highest offset at which headers are looked for: larger ones would be beyond what the verifier tracks.
pub const MAX_OFFSET: u32 = 0x3fff;

/// Which bytes a checksum is corrected for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The IPv4 header, and its own checksum.
    IpHeader,
    /// The transport header or what follows it.
    Transport,
    /// The addresses, which a transport checksum covers through its pseudo header. That matters where a
    /// checksum is still to be completed by hardware: such a one holds the pseudo header alone.
    PseudoHeader,
}

/// Room for the beginning of a transport header, aligned so that it can be summed by words.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Buffer {
    /// The bytes.
    pub bytes: [u8; 64],
}

impl Buffer {
    /// Fills it with zeros.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.bytes = [0; 64];
    }

    /// The sum (see [`Packet::sum`]), not folded, of the first `len` bytes and what fills their last word of eight:
    /// less than 2^36.
    #[inline(always)]
    #[must_use]
    pub fn sum(&self, len: u32) -> u64 {
        let words = self.bytes.as_ptr().cast::<u64>();
        let mut sum = 0;
        let mut i = 0;
        while i < 8 && i * 8 < len as usize {
            // SAFETY: the buffer has that many words, and is aligned for them.
            let word = u64::from_be(unsafe { words.add(i).read() });
            sum += (word >> 32) + (word & 0xffff_ffff);
            i += 1;
        }
        sum
    }
}
