//! The datapath as the daemon holds it: the programs in the kernel, and the maps that it shares with them.

pub mod clock;
mod compile;
mod connections;
mod counters;
pub mod host;
mod kernel;
mod load;
mod ports;
mod shared;
mod store;
mod tables;
mod test_run;

pub use connections::Connections;
pub use counters::{Counters, LearnedMac};
pub use kernel::KernelStore;
pub use load::{Datapath, LoadError, Sizes, Verified, load};
pub use ports::Ports;
pub use store::Store;
pub use tables::FlowTables;
pub use test_run::{Ran, TestRun};

use switchd_ebpf::layout::{MAX_BRIDGES, TABLES};

/// Tables of all bridges.
const HEADS: u32 = MAX_BRIDGES * TABLES;
