//! The connection tracker's rules: tuples, TCP/UDP/ICMP state machines and timeouts, as pure no_std functions.
#![no_std]
