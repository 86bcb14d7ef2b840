//! The switch daemon: loads the datapath, owns ports, flow tables and control sockets.

pub mod hooks;
pub mod rules;
