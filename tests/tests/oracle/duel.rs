//! The kernel's tracker and `conntrack-core` judge the same packets.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use conntrack_core::{Facts, Timeouts, ct_state, status};

use crate::{
    ctnetlink::{Entry, Transport, Tuple},
    kernel::{Kernel, Side},
    tracker::Tracker,
};

/// A packet on its way, as each of the two wants to see it.
pub struct Packet<'a> {
    pub from: Side,
    pub tuple: Tuple,
    pub facts: Facts<'a>,
    pub frame: &'a [u8],
    /// For the story of a failure.
    pub name: String,
}

/// What is known after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub ct_state: u8,
    pub entry: Option<Entry>,
}

/// Where `conntrack-core` is meant to differ.
struct Difference {
    /// The kernel's view of the packet.
    theirs: Seen,
    /// The view that OVS's users rely on.
    ours: Seen,
    of: fn(&Tuple) -> bool,
}

/// The kernel leaves neighbour discovery and the management of multicast groups out of tracking altogether, as if
/// `ct` had not been asked. To OVS they are invalid.
const DIFFERENCES: &[Difference] = &[Difference {
    theirs: Seen { ct_state: 0, entry: None },
    ours: Seen { ct_state: ct_state::TRK | ct_state::INV, entry: None },
    of: |tuple| {
        let v6 = tuple.src.is_ipv6();
        v6 && matches!(tuple.transport, Transport::Icmp { kind: 130..=137 | 143 | 151..=153, .. })
    },
}];

/// A sequence of packets that the two judge.
pub struct Duel<'a> {
    kernel: &'a Kernel,
    tracker: Tracker,
    began: Instant,
    /// The packets so far, with what the kernel said of them, and what we.
    story: Vec<(String, [Seen; 2])>,
}

impl<'a> Duel<'a> {
    pub fn new(kernel: &'a Kernel) -> Self {
        Self::by(kernel, Timeouts::DEFAULT)
    }

    /// With the rules of a kernel whose settings are not the default ones.
    pub fn by(kernel: &'a Kernel, timeouts: Timeouts) -> Self {
        Self { kernel, tracker: Tracker::new(timeouts), began: Instant::now(), story: Vec::new() }
    }

    /// One more packet; an error with the whole story if the two disagree.
    ///
    /// Before, the timer of the packet's connection is wound up, to see what the packet does to it.
    pub fn judge(&mut self, packet: Packet<'_>) -> Result<Seen> {
        let tuple = &packet.tuple;
        let begun = Instant::now();
        self.tracker.wind(tuple);
        let now_ns = self.began.elapsed().as_nanos() as u64;
        let ours = self.tracker.forward(tuple, &packet.facts, now_ns);
        let ours = Seen { ct_state: ours, entry: self.tracker.get(tuple) };
        let theirs = self.ask_kernel(&packet).with_context(|| self.story() + &packet.name)?;
        let meant = DIFFERENCES.iter().any(|it| (it.of)(tuple) && (it.theirs, it.ours) == (theirs, ours));
        let agreed = meant || agree(&theirs, &ours, begun.elapsed().as_secs() as u32);
        self.story.push((packet.name, [theirs, ours]));
        ensure!(agreed, self.story());
        Ok(theirs)
    }

    fn ask_kernel(&self, packet: &Packet<'_>) -> Result<Seen> {
        self.kernel.wind(&packet.tuple)?;
        let ct_state = self.kernel.forward(packet.from, packet.frame)?;
        Ok(Seen { ct_state, entry: self.kernel.connections.get(&packet.tuple)? })
    }

    fn story(&self) -> String {
        let told = self.story.iter().map(|(packet, [theirs, ours])| {
            format!("{packet}\n    kernel: {}\n    ours:   {}\n", theirs.text(), ours.text())
        });
        told.collect()
    }
}

impl Seen {
    fn text(&self) -> String {
        const NAMES: [&str; 6] = ["new", "est", "rel", "rpl", "inv", "trk"];
        let bits = (0..NAMES.len()).filter(|bit| self.ct_state >> bit & 1 != 0);
        let ct_state: Vec<_> = bits.map(|bit| NAMES[bit]).collect();
        match self.entry {
            Some(entry) => format!("{}; {entry:?}", ct_state.join("|")),
            None => format!("{}; no connection", ct_state.join("|")),
        }
    }
}

/// Whether both say the same; the kernel's timer may have run for as long as asking took, and a second more.
fn agree(theirs: &Seen, ours: &Seen, took: u32) -> bool {
    const STATUS: u32 = status::SEEN_REPLY | status::ASSURED | status::CONFIRMED;
    let same_entry = match (theirs.entry, ours.entry) {
        (Some(theirs), Some(ours)) => {
            let ran = ours.timeout.checked_sub(theirs.timeout);
            (theirs.direction, theirs.status & STATUS, theirs.tcp, theirs.sctp)
                == (ours.direction, ours.status & STATUS, ours.tcp, ours.sctp)
                && ran.is_some_and(|ran| ran <= took + 1)
        }
        (None, None) => true,
        _ => false,
    };
    same_entry && theirs.ct_state == ours.ct_state
}
