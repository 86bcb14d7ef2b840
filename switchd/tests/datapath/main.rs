//! The datapath: its tables against a slow and obvious one, and the kernel's programs against the host's build of
//! the same pipeline.

mod classifier;
