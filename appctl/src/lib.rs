//! The control socket of the switch: OVS's unixctl protocol (JSON-RPC 1.0 over a Unix stream socket), where
//! to find the socket, a blocking client, and the model of the `vsctl` commands that travel over it.

pub mod client;
pub mod codec;
pub mod message;
pub mod pidfile;
pub mod reply;
pub mod rundir;
pub mod vsctl;
