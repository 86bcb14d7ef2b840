//! `conntrack-core` as the datapath uses it, with a table of what it tracks.

use conntrack_core::{
    Connection, Direction, Facts, Outcome, Timeouts, Timer, Verdict, ct_state, icmp, protocol, status,
};

use crate::{
    ctnetlink::{Entry, SctpEntry, TcpEntry, Transport, Tuple},
    kernel::WOUND,
};

/// The connections of one sequence of packets.
pub struct Tracker {
    timeouts: Timeouts,
    entries: Vec<Tracked>,
}

struct Tracked {
    /// Of the first packet.
    original: Tuple,
    connection: Connection,
    /// Seconds left.
    timeout: u32,
}

impl Tracker {
    pub fn new(timeouts: Timeouts) -> Self {
        Self { timeouts, entries: Vec::new() }
    }

    /// Sets the timer of a packet's connection, if it has one, to [`WOUND`].
    pub fn wind(&mut self, tuple: &Tuple) {
        if let Some((at, _)) = self.find(tuple) {
            self.entries[at].timeout = WOUND;
        }
    }

    /// Tracks and commits a packet; the answer is its `ct_state`.
    pub fn forward(&mut self, tuple: &Tuple, facts: &Facts, now_ns: u64) -> u8 {
        let mut outcome = Outcome::default();
        let Some((at, direction)) = self.find(tuple) else { return self.open(tuple, facts, now_ns) };
        let tracked = &mut self.entries[at];
        match tracked.connection.advance(direction, facts, now_ns, &self.timeouts, &mut outcome) {
            Verdict::Accept | Verdict::Invalid => tracked.wind(outcome.timer),
            Verdict::Destroy => {
                self.entries.remove(at);
            }
            Verdict::Reopen => {
                self.entries.remove(at);
                return self.open(tuple, facts, now_ns);
            }
        }
        outcome.ct_state
    }

    /// The connection of a packet, as the kernel would report it.
    pub fn get(&self, tuple: &Tuple) -> Option<Entry> {
        let (at, direction) = self.find(tuple)?;
        let Tracked { connection, timeout, .. } = &self.entries[at];
        let tcp = (connection.protocol == protocol::TCP).then(|| TcpEntry {
            state: connection.tcp.state,
            scales: connection.tcp.peers.map(|peer| peer.scale),
            flags: connection.tcp.peers.map(|peer| peer.flags),
        });
        let sctp = (connection.protocol == protocol::SCTP)
            .then(|| SctpEntry { state: connection.sctp_state, vtags: connection.vtags() });
        Some(Entry { direction, status: connection.status, timeout: *timeout, tcp, sctp })
    }

    fn open(&mut self, tuple: &Tuple, facts: &Facts, now_ns: u64) -> u8 {
        let mut connection = Connection::default();
        let mut outcome = Outcome::default();
        if inverse(tuple).is_none() {
            return ct_state::TRK | ct_state::INV;
        }
        if connection.open(facts, now_ns, &self.timeouts, &mut outcome) {
            connection.status |= status::CONFIRMED;
            let mut tracked = Tracked { original: *tuple, connection, timeout: 0 };
            tracked.wind(outcome.timer);
            self.entries.push(tracked);
        }
        outcome.ct_state
    }

    fn find(&self, tuple: &Tuple) -> Option<(usize, Direction)> {
        self.entries.iter().enumerate().find_map(|(at, tracked)| {
            if tracked.original == *tuple {
                Some((at, Direction::Original))
            } else {
                (inverse(&tracked.original) == Some(*tuple)).then_some((at, Direction::Reply))
            }
        })
    }
}

impl Tracked {
    fn wind(&mut self, timer: Timer) {
        match timer {
            Timer::Keep => {}
            Timer::Set(seconds) => self.timeout = seconds,
            Timer::Cap(seconds) => self.timeout = self.timeout.min(seconds),
        }
    }
}

/// The tuple of packets in the other direction.
fn inverse(tuple: &Tuple) -> Option<Tuple> {
    let transport = match tuple.transport {
        Transport::Tcp { src, dst } => Transport::Tcp { src: dst, dst: src },
        Transport::Udp { src, dst } => Transport::Udp { src: dst, dst: src },
        Transport::Sctp { src, dst } => Transport::Sctp { src: dst, dst: src },
        Transport::Other(number) => Transport::Other(number),
        Transport::Icmp { id, kind } if tuple.src.is_ipv4() => {
            Transport::Icmp { id, kind: icmp::invert(kind)? }
        }
        Transport::Icmp { id, kind } => Transport::Icmp { id, kind: icmp::invert_v6(kind)? },
    };
    Some(Tuple { src: tuple.dst, dst: tuple.src, transport })
}
