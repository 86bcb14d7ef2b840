//! Matches, actions and flows as `ovs-ofctl` prints them, into any [`fmt::Write`]: the tools, the daemon's logs
//! and failing tests share it.
//!
//! Ports are printed by name where the [`PortNames`] given know one; with [`NoNames`](crate::port::NoNames)
//! as numbers.

mod action;
mod flow;
mod matching;
#[cfg(test)]
mod tests;
mod value;

use std::fmt::{self, Write};

use crate::port::{PortNames, PortNo};

pub use action::{write_action, write_actions};
pub use flow::{write_flow, write_flow_mod};
pub use matching::write_match;

/// Writes a port: reserved ones by OVS's names, others by the name that `ports` has, or the number. A name is in
/// quotes unless it is a letter with letters and digits after it.
///
/// # Errors
/// Those of the writer.
pub fn write_port(out: &mut dyn Write, port: PortNo, ports: &dyn PortNames) -> fmt::Result {
    if let Some(name) = port.reserved_name() {
        out.write_str(name)
    } else if let Some(name) = ports.name(port) {
        let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric());
        if plain { out.write_str(name) } else { write!(out, "\"{name}\"") }
    } else {
        write!(out, "{}", port.0)
    }
}

/// C's `%#x`: zero has no prefix.
struct Hex(u128);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { f.write_str("0") } else { write!(f, "{:#x}", self.0) }
    }
}
