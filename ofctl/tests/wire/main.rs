//! The wire codec, seen from outside.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail anywhere")]

mod messages;
mod properties;
mod reference;
mod vectors;
