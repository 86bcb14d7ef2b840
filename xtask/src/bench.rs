//! Measures the datapath.

use anyhow::Result;

use crate::{
    cargo, ovs,
    setup::{self, Purpose},
};

/// Runs those measurements whose names contain `filter`, on the switch as users run it.
pub fn run(filter: Option<&str>) -> Result<()> {
    setup::set_up(Purpose::Test)?;
    let path = ovs::path()?;
    cargo::build_release()?;
    let filter: Vec<_> = filter.into_iter().collect();
    let bench = [&["bench", "--package=tests", "--bench=datapath", "--"], &filter[..]].concat();
    cargo::run(cargo::command(&bench).env("PATH", path))
}
