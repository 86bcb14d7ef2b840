//! The datapath: the OpenFlow pipeline as plain generic Rust, and the layout of everything it shares with
//! the daemon through BPF maps.
//!
//! The same code is compiled into the XDP program, into the tcx program, and for the host, where tests and
//! `ofproto/trace` run it over tables in ordinary memory.
#![no_std]

pub mod key;
