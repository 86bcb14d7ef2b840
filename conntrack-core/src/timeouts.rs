//! How long a connection is kept after its last packet.

use crate::sctp;
use crate::tcp::State;

/// Timeouts in seconds, and how strict TCP is; [`Timeouts::DEFAULT`] has Linux's.
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
    /// Not 0: TCP segments are not held to the windows, but for RST
    /// (`nf_conntrack_tcp_be_liberal`; OVS: `ct-disable-tcp-seq-chk`).
    pub be_liberal: u32,
    /// One for each SCTP state but [`sctp::State::NONE`], in their order.
    pub sctp: [u32; 8],
}

const _: () = assert!(size_of::<Timeouts>() == 128);

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
            be_liberal: 0,
            sctp: [10, 3, 3, 210, 3, 3, 3, 30],
        }
    };

    /// The timeout of a TCP state.
    #[inline(always)]
    #[must_use]
    pub const fn tcp(&self, state: State) -> u32 {
        self.tcp[state.index()]
    }

    /// The timeout of an SCTP state.
    #[inline(always)]
    #[must_use]
    pub const fn sctp(&self, state: sctp::State) -> u32 {
        self.sctp[(state.0.wrapping_sub(1) & 7) as usize]
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}
