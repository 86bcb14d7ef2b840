//! The datapath as the daemon holds it: the programs in the kernel, and the maps that it shares with them.

mod arrays;
pub mod clock;
mod compile;
mod connections;
mod counters;
mod events;
pub mod host;
mod kernel;
mod lists;
mod load;
mod policies;
mod ports;
mod selection;
mod shared;
mod space;
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
/// Distinct masks, over all tables and bridges.
const MAX_SUBTABLES: u32 = 8192;
/// Places of the lists of them. Old lists stay until no packet can be at them.
const MAX_LISTED: u32 = 65536;
