//! Runs [`conntrack_core_fuzz::ftp`] under libFuzzer.
#![no_main]

use conntrack_core_fuzz::{Check, ftp::Text};

libfuzzer_sys::fuzz_target!(|input: Text| input.check());
