//! The switch daemon: loads the datapath, owns ports, flow tables and control sockets.

pub mod bridges;
pub mod commands;
pub mod control;
pub mod daemon;
pub mod datapath;
pub mod hooks;
pub mod netdev;
pub mod ofproto;
pub mod openflow;
pub mod rules;
pub mod switch;
