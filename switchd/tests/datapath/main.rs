//! The datapath: its tables against a slow and obvious one, and the kernel's programs against the host's build of
//! the same pipeline.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "helpers of tests fail like tests"
)]

mod classifier;
mod connections;
mod fragments;
mod frames;
mod helpers;
mod kernel;
mod normal;
mod parser;
mod sctp;
mod switch;
