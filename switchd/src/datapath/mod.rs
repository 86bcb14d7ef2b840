//! The datapath as the daemon holds it: the programs in the kernel, and the maps that it shares with them.

pub mod clock;
mod compile;
mod connections;
mod counters;
mod events;
pub mod host;
mod kernel;
mod load;
mod policies;
mod ports;
mod selection;
mod shared;
#[cfg(test)]
mod stack;
mod store;
mod tables;
mod test_run;
mod zones;

pub use connections::Connections;
pub use counters::{Counters, LearnedMac};
pub use events::{Events, Listener, Notice};
pub use kernel::KernelStore;
pub use load::{Datapath, LoadError, Sizes, Verified, load};
pub use policies::{Policies, timeouts};
pub use ports::Ports;
pub use selection::Selection;
pub use store::Store;
pub use tables::FlowTables;
pub use test_run::{Ran, TestRun};
pub use zones::Zones;

use switchd_ebpf::layout::{MAX_BRIDGES, TABLES};

/// Tables of all bridges.
const HEADS: u32 = MAX_BRIDGES * TABLES;
