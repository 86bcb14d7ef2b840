//! Debian's Python, which its packages of modules belong to; another one in `PATH` would not find them.

use std::{path::Path, process::Command};

/// The interpreter.
pub const PYTHON: &str = "/usr/bin/python3";

/// Whether a module is installed.
pub fn has(module: &str) -> bool {
    let search = format!("import importlib.util as u; exit(u.find_spec({module:?}) is None)");
    Path::new(PYTHON).exists()
        && Command::new(PYTHON).args(["-c", &search]).status().is_ok_and(|status| status.success())
}
