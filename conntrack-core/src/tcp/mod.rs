//! The TCP state machine, with Linux's rules.
//!
//! A tracker in the middle sees segments that may never arrive, and may miss others. So it does not only
//! step from state to state: it checks that sequence numbers fit what both ends can know (`window`), lets
//! doubtful segments pass and judges by the answer, and shortens timers when an end seems to be gone.

mod segment;
mod sequence;
mod state;
mod tracker;
mod window;

pub use segment::{
    ACK, CWR, ECE, END_OF_LIST, FIN, HAS_OPTIONS, HAS_SACK, HAS_SACK_PERMITTED, HAS_WINDOW_SCALE, HEADER_LEN,
    NO_OPERATION, PSH, RST, SACK, SYN, Segment, URG, flags_valid,
};
pub(crate) use sequence::after;
pub use state::{Kind, State};
pub(crate) use tracker::{advance, open};

/// The flags of a [`Peer`], with Linux's numbers.
pub mod peer_flags {
    /// It offered window scaling.
    pub const WINDOW_SCALE: u8 = 0x01;
    /// It permits selective acknowledgments.
    pub const SACK_PERM: u8 = 0x02;
    /// It sent the first FIN.
    pub const CLOSE_INIT: u8 = 0x04;
    /// Its segments are not held to the window: the connection was picked up in its midst, so that the
    /// window scale is unknown.
    pub const BE_LIBERAL: u8 = 0x08;
    /// It sent something that was not acknowledged yet.
    pub const DATA_UNACKNOWLEDGED: u8 = 0x10;
    /// Its `maxack` is set.
    pub const MAXACK_SET: u8 = 0x20;

    /// Every flag with the name that `dump-conntrack -m` prints, in the order of printing.
    pub const NAMES: [(u8, &str); 6] = [
        (WINDOW_SCALE, "WINDOW_SCALE"),
        (SACK_PERM, "SACK_PERM"),
        (CLOSE_INIT, "CLOSE_INIT"),
        (BE_LIBERAL, "BE_LIBERAL"),
        (DATA_UNACKNOWLEDGED, "DATA_UNACKNOWLEDGED"),
        (MAXACK_SET, "MAXACK_SET"),
    ];
}

/// What is known of one end of the connection, from what it sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The sequence number after the last octet it sent.
    pub end: u32,
    /// The highest sequence number it may send: what the other end acknowledged and its window.
    pub maxend: u32,
    /// The largest window it announced, scaled; zero: nothing was seen from it yet.
    pub maxwin: u32,
    /// The highest acknowledgment number it sent, with [`peer_flags::MAXACK_SET`].
    pub maxack: u32,
    /// By how many bits its windows are shifted, once both ends agreed.
    pub scale: u8,
    /// Bits of [`peer_flags`].
    pub flags: u8,
    /// Explicit padding; zero.
    pub reserved: u16,
}

/// What is remembered of a TCP connection. All zero is a fresh one; every bit pattern is a legal value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// The state.
    pub state: State,
    /// The kind of the last segment that was in the window, or was let through though it did not fit.
    pub last_kind: Kind,
    /// Its direction, as a number of [`Direction`](crate::Direction).
    pub last_direction: u8,
    /// Of the last SYN that was let through: its offers, as bits of [`peer_flags`]; beside them, whether a
    /// challenge ACK may answer it, and whether the connection was opened from both sides.
    pub last_flags: u8,
    /// The window scale that SYN offered.
    pub last_window_scale: u8,
    /// How often the last ACK was repeated, at most 255 times.
    pub retransmissions: u8,
    /// Window of the last ACK, or of the last SYN that was let through, not scaled.
    pub last_window: u16,
    /// Sequence number of the same.
    pub last_seq: u32,
    /// Acknowledgment number of the last ACK.
    pub last_ack: u32,
    /// End ([`Segment::end`]) of the last ACK, or of the last SYN that was let through.
    pub last_end: u32,
    /// The ends: who opened the connection, and who was called.
    pub peers: [Peer; 2],
}

const _: () = assert!(size_of::<Peer>() == 20);
const _: () = assert!(size_of::<Tcp>() == 60 && align_of::<Tcp>() == 4);
