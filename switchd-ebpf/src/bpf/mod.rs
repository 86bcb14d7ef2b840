//! What the pipeline needs of the kernel.

mod bytes;
mod maps;
pub mod reap;
pub mod tc;
pub mod xdp;
