//! Which processor things run on, and what they use of it.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The calling thread, and what it starts, runs on one processor until this is dropped.
pub struct Pinned(CpuSet);

impl Pinned {
    /// Pins the calling thread.
    pub fn to(cpu: usize) -> Result<Self> {
        let before = sched_getaffinity(Pid::from_raw(0))?;
        let mut only = CpuSet::new();
        only.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &only).with_context(|| format!("processor {cpu}"))?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(Pid::from_raw(0), &self.0) {
            eprintln!("cannot go back to all processors: {error}");
        }
    }
}

/// The last processor: the first is the one that most often has other work.
pub fn last() -> Result<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    (0..CpuSet::count()).rev().find(|&cpu| allowed.is_set(cpu).unwrap_or(false)).context("no processor")
}

/// Nanoseconds that a thread has run, from its directory in /proc.
pub fn nanoseconds(thread: &Path) -> Result<u64> {
    let text = fs::read_to_string(thread.join("schedstat"))?;
    Ok(text.split_whitespace().next().context("an empty schedstat")?.parse()?)
}
