//! The flow tables and the OpenFlow server, over flow tables in ordinary memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod client;
mod fake_rules;
mod fake_switch;
mod flows;
mod limits;
mod model;
mod protocol;
mod semantics;
mod timeouts;
