//! Runs [`conntrack_core_fuzz::nat`] under libFuzzer.
#![no_main]

use conntrack_core_fuzz::{Check, nat::Table};

libfuzzer_sys::fuzz_target!(|input: Table| input.check());
