//! What the pipeline needs of the kernel.

mod bytes;
mod maps;
mod memory;
pub mod reap;
pub mod tc;
pub mod xdp;
