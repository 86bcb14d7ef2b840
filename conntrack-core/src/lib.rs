//! The connection tracker's rules: TCP, UDP, ICMP and SCTP state machines and timeouts, as pure functions.
//!
//! Nothing here keeps a table, reads a clock or allocates: a [`Connection`] is plain data that the caller
//! stores where it likes, [`Connection::open`] starts one from the first packet, and [`Connection::advance`]
//! moves it along with each further packet. All functions are total: they return for every input, and no
//! bit pattern of a stored connection makes them panic. The same code runs inside the kernel as BPF, so
//! values of more than 16 bytes go by reference and table look-ups are masked instead of checked.
//!
//! The rules are those of Linux's `nf_conntrack` (6.8 and later) with its default settings: mid-stream
//! pickup is on (`nf_conntrack_tcp_loose`), out-of-window segments are invalid (unless
//! [`Timeouts::be_liberal`]), three retransmissions shorten the timer.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod connection;
pub mod ftp;
pub mod icmp;
pub mod nat;
pub mod sctp;
pub mod seqadj;
pub mod status;
pub mod tcp;
pub mod tftp;
mod timeouts;
mod udp;

pub use connection::{Connection, Facts, Outcome, Timer, Verdict};
pub use timeouts::Timeouts;

/// The bits of a packet's `ct_state`, as OpenFlow numbers them.
pub mod ct_state {
    /// The connection has not been answered yet.
    pub const NEW: u8 = 0x01;
    /// The connection has seen packets in both directions, this one included.
    pub const EST: u8 = 0x02;
    /// The packet is related to another connection: an ICMP error, or an expected data connection.
    pub const REL: u8 = 0x04;
    /// The packet goes against the direction of the connection's first packet.
    pub const RPL: u8 = 0x08;
    /// The packet belongs to no connection and cannot start one.
    pub const INV: u8 = 0x10;
    /// The packet has been through the connection tracker.
    pub const TRK: u8 = 0x20;
    /// The packet's source was translated.
    pub const SNAT: u8 = 0x40;
    /// The packet's destination was translated.
    pub const DNAT: u8 = 0x80;
}

/// IP protocol numbers whose connections have rules of their own.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Which way a packet goes, relative to the first packet of its connection.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// As the first packet.
    Original = 0,
    /// Against it.
    Reply = 1,
}

impl Direction {
    /// The other direction.
    #[inline]
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

/// The same value, with nothing known of it.
///
/// The BPF verifier follows both ways out of a branch, apart, until it finds that they no longer differ. What
/// they tell of a value keeps them apart; to forget it where they meet again saves the verifier seven of
/// eight instructions of the TCP state machine.
#[inline(always)]
fn forget<T: Copy>(value: T) -> T {
    core::hint::black_box(value)
}
