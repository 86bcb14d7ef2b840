//! How long a connection is kept after its last packet.

use crate::tcp::State;

/// Timeouts in seconds; [`Timeouts::DEFAULT`] has Linux's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// One for each TCP state, at index [`State::index`]; the rest is unused.
    pub tcp: [u32; 16],
    /// Upper limit while a TCP peer keeps repeating itself, or has closed its window.
    pub tcp_retransmission: u32,
    /// Upper limit while TCP data or a picked-up connection waits for an answer.
    pub tcp_unacknowledged: u32,
    /// UDP without an answer, or answered for a short time only.
    pub udp: u32,
    /// UDP that went both ways for more than two seconds.
    pub udp_stream: u32,
    /// ICMP queries.
    pub icmp: u32,
    /// ICMPv6 queries.
    pub icmpv6: u32,
    /// All other protocols.
    pub generic: u32,
    /// Room that keeps the size a multiple of 8; zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Timeouts>() == 96);

impl Timeouts {
    /// Linux's defaults (`net/netfilter/nf_conntrack_*` of sysctl).
    pub const DEFAULT: Self = {
        let mut tcp = [0; 16];
        tcp[State::SYN_SENT.index()] = 120;
        tcp[State::SYN_RECV.index()] = 60;
        tcp[State::ESTABLISHED.index()] = 5 * 24 * 60 * 60;
        tcp[State::FIN_WAIT.index()] = 120;
        tcp[State::CLOSE_WAIT.index()] = 60;
        tcp[State::LAST_ACK.index()] = 30;
        tcp[State::TIME_WAIT.index()] = 120;
        tcp[State::CLOSE.index()] = 10;
        tcp[State::SYN_SENT2.index()] = 120;
        Self {
            tcp,
            tcp_retransmission: 300,
            tcp_unacknowledged: 300,
            udp: 30,
            udp_stream: 120,
            icmp: 30,
            icmpv6: 30,
            generic: 600,
            reserved: 0,
        }
    };

    /// The timeout of a TCP state.
    #[inline(always)]
    #[must_use]
    pub const fn tcp(&self, state: State) -> u32 {
        self.tcp[state.index()]
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}
