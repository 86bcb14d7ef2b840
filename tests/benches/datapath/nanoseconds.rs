//! Nanoseconds per packet, by test-run.

use anyhow::Result;
use tests::lab::Lab;

use crate::{
    cases::{Baselines, Case},
    cpu::{self, Pinned},
    statistics::{median, minimum},
};

/// Rounds, of which the best median counts: what else runs on the machine only ever adds.
const ROUNDS: usize = 5;
/// Runs of each case in a round, taken in turn.
const RUNS: usize = 5;

/// A row of the table.
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Nanoseconds per packet.
    pub nanoseconds: f64,
}

/// Measures all of it in turn. What it costs to vary frames is taken off.
pub fn measure(lab: &Lab, baselines: &Baselines, cases: &[Case]) -> Result<Vec<Row>> {
    let _pinned = Pinned::to(cpu::last()?)?;
    let all: Vec<&Case> =
        [&baselines.empty, &baselines.empty_varied, &baselines.bare].into_iter().chain(cases).collect();
    let mut medians = vec![Vec::new(); all.len()];
    for round in 0..=ROUNDS {
        let mut runs = vec![Vec::new(); all.len()];
        for _ in 0..RUNS {
            for (case, runs) in all.iter().zip(&mut runs) {
                runs.push(case.run(lab)?);
            }
        }
        // The first only warms up.
        if round > 0 {
            medians.iter_mut().zip(runs).for_each(|(medians, runs)| medians.push(median(runs)));
        }
    }
    let best: Vec<f64> = medians.into_iter().map(minimum).collect();
    let varying = best[1] - best[0];
    let row = |(case, best): (&&Case, f64)| Row {
        name: case.name.clone(),
        nanoseconds: if case.varied { best - varying } else { best },
    };
    let mut rows: Vec<Row> = all.iter().zip(best).map(row).collect();
    // By what was taken off, this one is the first.
    rows.remove(1);
    Ok(rows)
}
