//! The OpenFlow vocabulary: the flow model, its `ovs-ofctl` text syntax, and the wire codec.

pub mod action;
pub mod client;
pub mod field;
pub mod flow;
pub mod port;
pub mod print;
pub mod syntax;
pub mod wire;
