//! How long a ping through the switch takes while a million connections are dumped, and while none are.

use std::{
    io::Read,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use tests::{
    lab::{BIN, Lab},
    ping::{Pinger, Pings},
    process::Background,
};

use crate::{cases, statistics::median};

/// Rounds of an idle stretch and a dump.
const ROUNDS: usize = 5;
/// How long a dump may take to end when all of it has come.
const SOON: Duration = Duration::from_secs(5);

/// The row's name.
pub const NAME: &str = "a million connections are dumped";

/// Round trips of pings, in milliseconds.
pub struct RoundTrips {
    /// The median of all.
    pub median: f64,
    /// The longest of all.
    pub worst: f64,
}

/// Measures both in turn: nothing else going on, and a dump going on.
pub fn measure(lab: &Lab) -> Result<[RoundTrips; 2]> {
    let far = lab.netns("far")?;
    let crowd = cases::a_million(lab, &far)?;
    let [client, server] = crowd.ends();
    let pinger = Pinger::new(far.open_wire(&client)?, far.open_wire(&server)?);
    let (mut idle, mut dumping) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        dumping.extend(pinged(&pinger, || dump(lab))?);
        let took = begun.elapsed();
        let rest = || {
            thread::sleep(took);
            Ok(())
        };
        idle.extend(pinged(&pinger, rest)?);
    }
    Ok([idle, dumping].map(|times| RoundTrips {
        median: median(times.iter().copied()),
        worst: times.iter().copied().fold(f64::NAN, f64::max),
    }))
}

/// Round trips, in milliseconds, while something is done.
fn pinged(pinger: &Pinger, work: impl FnOnce() -> Result<()>) -> Result<Vec<f64>> {
    let stop = AtomicBool::new(false);
    let (worked, pings) = thread::scope(|scope| {
        let pinging = scope.spawn(|| pinger.run(&stop));
        let worked = work();
        stop.store(true, Ordering::Relaxed);
        (worked, pinging.join().map_err(|_| anyhow!("the pinger has panicked")))
    });
    worked?;
    let Pings { round_trips, lost } = pings??;
    ensure!(lost == 0, "{lost} pings are lost");
    Ok(round_trips.iter().map(|time| time.as_secs_f64() * 1e3).collect())
}

/// Dumps all connections.
fn dump(lab: &Lab) -> Result<()> {
    let mut command = lab.command(Path::new(BIN).join("appctl"));
    let mut process = Background::spawn(command.arg("dpctl/dump-conntrack").stdout(Stdio::piped()))?;
    let mut pipe = process.child().stdout.take().context("a pipe")?;
    let (mut piece, mut lines) = (vec![0; 1 << 16], 0);
    loop {
        match pipe.read(&mut piece)? {
            0 => break,
            length => lines += piece[..length].iter().filter(|&&byte| byte == b'\n').count(),
        }
    }
    ensure!(process.wait(SOON)?.success(), "the dump has failed");
    ensure!(lines >= cases::MILLION as usize, "a dump of only {lines} connections");
    Ok(())
}
