//! Runs [`conntrack_core_fuzz::sctp`] under libFuzzer.
#![no_main]

use conntrack_core_fuzz::{Check, sctp::Association};

libfuzzer_sys::fuzz_target!(|input: Association| input.check());
