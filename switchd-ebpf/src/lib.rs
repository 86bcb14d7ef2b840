//! The datapath: the OpenFlow pipeline as plain generic Rust, and the layout of everything it shares with
//! the daemon through BPF maps.
//!
//! The same code is compiled into the XDP program, into the tcx program, and for the host, where tests run it
//! over tables in ordinary memory.
#![no_std]
#![cfg_attr(
    target_arch = "bpf",
    feature(asm_experimental_arch, core_intrinsics),
    allow(internal_features, reason = "the target's atomics are reachable only as intrinsics")
)]

pub mod atomic;
pub mod checksum;
pub mod classify;
pub mod conntrack;
pub mod crc32c;
pub mod drop_reason;
pub mod key;
pub mod layout;
mod normal;
pub mod packet;
pub mod parse;
pub mod pipeline;
pub mod rewrite;
pub mod tables;
