//! Runs [`conntrack_core_fuzz::connection`] under libFuzzer.
#![no_main]

use conntrack_core_fuzz::{Check, connection::Memory};

libfuzzer_sys::fuzz_target!(|input: Memory| input.check());
