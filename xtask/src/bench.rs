//! Measures the datapath.

use anyhow::Result;

use crate::{
    cargo,
    setup::{self, Purpose},
};

/// Runs those measurements whose names contain `filter`, on the switch as users run it.
pub fn run(filter: Option<&str>) -> Result<()> {
    setup::set_up(Purpose::Test)?;
    cargo::build_release()?;
    let filter: Vec<_> = filter.into_iter().collect();
    cargo::cargo(&[&["bench", "--package=tests", "--bench=datapath", "--"], &filter[..]].concat())
}
