//! Runs [`conntrack_core_fuzz::seqadj`] under libFuzzer.
#![no_main]

use conntrack_core_fuzz::{Check, seqadj::Stream};

libfuzzer_sys::fuzz_target!(|input: Stream| input.check());
