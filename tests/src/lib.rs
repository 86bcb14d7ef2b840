//! End-to-end tests in network namespaces, and the lab that they and the demo run in.
//!
//! A [`lab::Lab`] is a private world: its own network namespace for the switch, its own `/run` (and so its
//! own named namespaces, sockets and pid files), both of which the kernel takes away with the processes
//! that use them. Tests may run in parallel, and nothing is left behind when one is killed.

pub mod dump;
pub mod environment;
pub mod foreign;
pub mod lab;
pub mod netns;
pub mod ovs;
pub mod packet;
pub mod ping;
pub mod process;
pub mod python;
pub mod scapy;
pub mod topology;
pub mod tutorial;
pub mod wire;
