//! What the rules read of an SCTP packet: its tag, and its control chunks in order.

/// Chunk types (RFC 9260, 3.2).
pub(super) mod chunk {
    pub const DATA: u8 = 0;
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const SACK: u8 = 3;
    pub const HEARTBEAT: u8 = 4;
    pub const HEARTBEAT_ACK: u8 = 5;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const ERROR: u8 = 9;
    pub const COOKIE_ECHO: u8 = 10;
    pub const COOKIE_ACK: u8 = 11;
    pub const ECNE: u8 = 12;
    pub const CWR: u8 = 13;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
    /// Stands for all others.
    pub const OTHER: u8 = 15;
}

/// In [`Packet::chunks`]: the chunk's T bit (RFC 9260, 3.3.7).
pub(super) const T_BIT: u8 = 0x80;

/// The T bit among a chunk's flags.
const T_FLAG: u8 = 0x01;

/// How many chunks of a packet are looked at. Control chunks come before DATA (RFC 9260, 6.10), so what follows
/// in a packet of many small messages does not matter.
pub const MAX_CHUNKS: usize = 16;

/// How many control chunks of a packet count: as many as an end has reason to send together, and few, for the BPF
/// verifier follows the rules for each.
pub(super) const MAX_CONTROL_CHUNKS: usize = 4;

/// An SCTP packet; numbers in host order. Filled chunk by chunk: see [`Packet::push`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// The verification tag of the common header.
    pub vtag: u32,
    /// The initiate tag of an INIT or INIT ACK.
    pub(super) init_tag: u32,
    /// The types of the control chunks, with [`T_BIT`].
    pub(super) chunks: [u8; MAX_CONTROL_CHUNKS],
    /// Which types there are, a bit each.
    pub(super) seen: u16,
    /// How many control chunks there are.
    pub(super) len: u8,
    /// How many chunks there are.
    count: u8,
    /// Not 0: chunks stand together that must not, or one is cut.
    malformed: u8,
    /// Explicit padding; zero.
    reserved: [u8; 3],
}

const _: () = assert!(size_of::<Packet>() == 20);

impl Packet {
    /// Begins with the verification tag, without chunks.
    #[inline(always)]
    pub fn start(&mut self, vtag: u32) {
        *self = Self { vtag, ..Self::default() };
    }

    /// Adds the next chunk: type, flags and length of its header, and the four bytes behind the header, if the
    /// packet has at least 16 there (the initiate tag of INIT and INIT ACK).
    ///
    /// False: no more chunks are of interest. The next one is `length` bytes on, rounded up to a multiple of
    /// four; what is shorter than a chunk's header is none (both as in Linux).
    #[inline(always)]
    pub fn push(&mut self, kind: u8, flags: u8, length: u16, init_tag: Option<u32>) -> bool {
        const ALONE: u16 = 1 << chunk::INIT | 1 << chunk::INIT_ACK | 1 << chunk::SHUTDOWN_COMPLETE;
        const FIRST: u16 = 1 << chunk::COOKIE_ECHO | 1 << chunk::COOKIE_ACK;
        const CONTROL: u16 = ALONE
            | FIRST
            | 1 << chunk::HEARTBEAT
            | 1 << chunk::HEARTBEAT_ACK
            | 1 << chunk::ABORT
            | 1 << chunk::SHUTDOWN
            | 1 << chunk::SHUTDOWN_ACK
            | 1 << chunk::ERROR;

        let kind = kind.min(chunk::OTHER);
        let bit = 1 << kind;
        self.seen |= bit;
        let follows = self.count != 0;
        if length == 0 || (follows && (self.seen & ALONE != 0 || bit & FIRST != 0)) {
            self.malformed = 1;
        }
        if bit & (1 << chunk::INIT | 1 << chunk::INIT_ACK) != 0 {
            match init_tag {
                Some(tag) => self.init_tag = tag,
                None => self.malformed = 1,
            }
        }
        if bit & CONTROL != 0 && usize::from(self.len) < MAX_CONTROL_CHUNKS {
            let t_bit = if flags & T_FLAG != 0 { T_BIT } else { 0 };
            self.chunks[usize::from(self.len) & (MAX_CONTROL_CHUNKS - 1)] = kind | t_bit;
            self.len = self.len.wrapping_add(1);
        }
        self.count = self.count.wrapping_add(1);
        self.malformed == 0 && usize::from(self.count) < MAX_CHUNKS
    }

    /// Whether there are chunks, and such as may stand together.
    #[inline(always)]
    pub(super) fn is_well_formed(&self) -> bool {
        self.malformed == 0 && self.count != 0
    }
}
