//! The OpenFlow vocabulary: the flow model, its `ovs-ofctl` text syntax, and the wire codec.

pub mod action;
pub mod field;
pub mod flow;
pub mod port;
