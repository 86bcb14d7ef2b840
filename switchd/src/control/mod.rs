//! The control socket: commands by name, answers as text.
//!
//! A command is registered with a handler that runs on a blocking thread and writes its answer into a
//! [`Reply`]; what it writes goes to the client in pieces, at the client's pace, and is held nowhere. So a dump
//! of a million connections costs no memory and delays nobody.

pub mod builtin;
pub mod registry;
pub mod reply;
pub mod server;

pub use registry::Registry;
pub use reply::{CommandError, Reply};
pub use server::Server;
