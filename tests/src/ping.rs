//! A ping whose two ends are raw: nothing takes time but the way between them.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    packet::{Echo, Ethernet},
    wire::Wire,
};

/// Who pings whom.
const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))];
/// What takes longer is lost.
const LOST: Duration = Duration::from_secs(1);
/// From one ping to the next.
const INTERVAL: Duration = Duration::from_millis(1);

/// The two ends.
#[derive(Debug)]
pub struct Pinger {
    near: Wire,
    far: Wire,
}

/// What became of many pings.
#[derive(Debug, Default)]
pub struct Pings {
    /// How long each took that came back.
    pub round_trips: Vec<Duration>,
    /// How many did not.
    pub lost: usize,
}

impl Pinger {
    /// A pinger between two interfaces, both of which should be quiet otherwise.
    pub fn new(near: Wire, far: Wire) -> Self {
        Self { near, far }
    }

    /// Pings until told to stop.
    pub fn run(&self, stop: &AtomicBool) -> Result<Pings> {
        let mut pings = Pings::default();
        for sequence in (0..=u16::MAX).cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match self.ping(sequence)? {
                Some(time) => pings.round_trips.push(time),
                None => pings.lost += 1,
            }
            thread::sleep(INTERVAL);
        }
        Ok(pings)
    }

    /// How long one takes there and back, unless it is lost.
    fn ping(&self, sequence: u16) -> Result<Option<Duration>> {
        let ([near, far], ethernet) = (ADDRESSES, Ethernet::default());
        let request = ethernet.echo((near, far), Echo::Request, (1, sequence), b"ping")?;
        let reply = ethernet.reversed().echo((far, near), Echo::Reply, (1, sequence), b"ping")?;
        let begun = Instant::now();
        self.near.send(&request)?;
        if !self.far.sees(&request, LOST)? {
            return Ok(None);
        }
        self.far.send(&reply)?;
        Ok(self.near.sees(&reply, LOST)?.then(|| begun.elapsed()))
    }
}
