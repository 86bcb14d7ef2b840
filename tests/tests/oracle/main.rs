//! The kernel's own connection tracker is asked for its opinion.
//!
//! Random sequences of packets go through a kernel that forwards between two hosts, and through
//! `conntrack-core`. After each packet both must tell the same: the packet's `ct_state`; whether there is a
//! connection, which side began it, its status and its timer; and of TCP the state, the window scales and
//! the flags of both ends. There are no exceptions: the rules are Linux's.
//!
//! The sequences are the same in every run. `ORACLE_SEED` (a number) draws others, `ORACLE_CASES` another
//! number of them.

mod ctnetlink;
mod dialogue;
mod kernel;
mod tracker;

use std::{
    env,
    fmt::Write,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use conntrack_core::{Facts, Timeouts, ct_state, status, tcp::State};
use ctnetlink::{Entry, Transport, Tuple};
use etherparse::IpNumber;
use kernel::{Family, Kernel, Side};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};
use tests::packet::checksum;
use tracker::Tracker;

const SEED: u64 = 1;

fn port(side: Side) -> u16 {
    match side {
        Side::Left => 1024,
        Side::Right => 2048,
    }
}

fn number_from_environment(name: &str) -> Result<Option<u64>> {
    let Some(value) = env::var_os(name) else { return Ok(None) };
    let number = value.to_str().and_then(|text| text.parse().ok());
    Ok(Some(number.with_context(|| format!("{name} is no number: {value:?}"))?))
}

/// Tries random values; panics with the simplest that fails.
fn for_all<S: Strategy>(cases: u32, strategy: &S, check: impl Fn(S::Value) -> Result<(), String>) {
    let seed = number_from_environment("ORACLE_SEED").unwrap().unwrap_or(SEED);
    let cases = number_from_environment("ORACLE_CASES").unwrap().map_or(cases, |cases| cases as u32);
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..ProptestConfig::with_cases(cases)
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    match runner.run(strategy, |value| check(value).map_err(TestCaseError::fail)) {
        Ok(()) => {}
        Err(TestError::Fail(reason, _)) => panic!("ORACLE_SEED={seed}\n{reason}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// What is known after a packet.
#[derive(Clone, Copy, Debug)]
struct Seen {
    ct_state: u8,
    entry: Option<Entry>,
}

/// A sequence of packets goes through the kernel and through `conntrack-core`.
struct Duel<'a> {
    kernel: &'a Kernel,
    tracker: Tracker,
    began: Instant,
    /// The packets so far and what both said.
    record: String,
}

impl<'a> Duel<'a> {
    fn new(kernel: &'a Kernel) -> Self {
        Self { kernel, tracker: Tracker::default(), began: Instant::now(), record: String::new() }
    }

    /// One more packet; an error with the whole story if they disagree.
    fn packet(
        &mut self,
        from: Side,
        tuple: &Tuple,
        facts: &Facts,
        frame: &[u8],
        name: &str,
    ) -> Result<(), String> {
        let begun = Instant::now();
        let now_ns = self.began.elapsed().as_nanos() as u64;
        self.tracker.wind(tuple);
        let ours =
            Seen { ct_state: self.tracker.forward(tuple, facts, now_ns), entry: self.tracker.get(tuple) };
        let theirs = self.ask_kernel(from, tuple, frame);
        let theirs = theirs.map_err(|error| format!("{}{name}\n    {error:#}", self.record))?;
        let took = begun.elapsed().as_secs() as u32;
        self.record += &format!("{name}\n    kernel: {}\n    ours:   {}\n", theirs.text(), ours.text());
        if agree(&ours, &theirs, took) { Ok(()) } else { Err(self.record.clone()) }
    }

    fn ask_kernel(&self, from: Side, tuple: &Tuple, frame: &[u8]) -> Result<Seen> {
        self.kernel.wind(tuple)?;
        Ok(Seen { ct_state: self.kernel.forward(from, frame)?, entry: self.kernel.connections.get(tuple)? })
    }
}

impl Seen {
    fn text(&self) -> String {
        const NAMES: [&str; 8] = ["new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"];
        let bits = (0..8).filter(|bit| self.ct_state >> bit & 1 != 0);
        let ct_state: Vec<_> = bits.map(|bit| NAMES[bit]).collect();
        match self.entry {
            Some(entry) => format!("{}; {entry:?}", ct_state.join("|")),
            None => format!("{}; no connection", ct_state.join("|")),
        }
    }
}

/// Whether both say the same. The kernel tells whole seconds, of which the first is over at once.
fn agree(ours: &Seen, theirs: &Seen, took: u32) -> bool {
    const STATUS: u32 = status::SEEN_REPLY | status::ASSURED | status::CONFIRMED;
    let entries = match (ours.entry, theirs.entry) {
        (Some(ours), Some(theirs)) => {
            let late = ours.timeout.checked_sub(theirs.timeout);
            (ours.direction, ours.status & STATUS, ours.tcp)
                == (theirs.direction, theirs.status & STATUS, theirs.tcp)
                && late.is_some_and(|late| late <= took + 1)
        }
        (None, None) => true,
        _ => false,
    };
    entries && ours.ct_state == theirs.ct_state
}

#[test]
fn tcp() {
    let kernel = Kernel::new().unwrap();
    for_all(30_000, &dialogue::dialogue(), |dialogue| {
        let tuple = |from: Side| Tuple {
            src: Family::V4.address(from),
            dst: Family::V4.address(from.other()),
            transport: Transport::Tcp { src: port(from), dst: port(from.other()) },
        };
        let mut duel = Duel::new(&kernel);
        let verdict = dialogue.packets().iter().try_for_each(|packet| {
            let frame = packet.frame(Family::V4, port);
            let segment = packet.segment();
            duel.packet(packet.from, &tuple(packet.from), &Facts::Tcp(&segment), &frame, &packet.to_string())
        });
        kernel.connections.delete(&tuple(Side::Left)).map_err(|error| error.to_string())?;
        verdict
    });
}
