//! Runs [`conntrack_core_fuzz::tcp`] under libFuzzer.
#![no_main]

use conntrack_core_fuzz::{Check, tcp::Story};

libfuzzer_sys::fuzz_target!(|input: Story| input.check());
