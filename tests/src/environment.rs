//! What whoever runs the tests can set.

use std::env;

use anyhow::{Context, Result};

/// A number from an environment variable, or what it is without.
pub fn number(name: &str, default: u64) -> Result<u64> {
    let Some(value) = env::var_os(name) else { return Ok(default) };
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.with_context(|| format!("{name} is no number: {value:?}"))
}
