//! A datapath in the kernel, with ports in a namespace of its own.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use ofctl::port::PortNo;
use switchd::datapath::{Datapath, Ran, Sizes, TestRun, Verified, load};
use switchd::hooks::{Hook, Hooks as _};
use switchd::rules::BridgeId;

/// The bridge of the tests.
pub const BRIDGE: BridgeId = BridgeId(2);

/// XDP's actions (`enum xdp_action`).
pub mod action {
    pub const DROP: u32 = 1;
    pub const PASS: u32 = 2;
    pub const REDIRECT: u32 = 4;
}

/// tc's actions (`include/uapi/linux/pkt_cls.h`).
pub mod tc_action {
    pub const SHOT: u32 = 2;
    pub const REDIRECT: u32 = 7;
}

/// A datapath in the kernel. Its ports are veths in a namespace that the test's thread moves to, and that vanishes
/// with the thread.
pub struct Switch {
    pub datapath: Datapath,
    pub verified: Verified,
    xdp: TestRun,
    tcx: TestRun,
}

/// The device of a port, by its place in the namespace.
pub fn ifindex(port: u16) -> u32 {
    100 + u32::from(port)
}

impl Switch {
    /// One with the ports 1 to `n`.
    pub fn new(sizes: Sizes, n: u16) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let (mut datapath, verified) = load(sizes).unwrap();
        for number in 1..=n {
            let (name, peer, ifindex) = (format!("p{number}"), format!("q{number}"), ifindex(number));
            let index = ifindex.to_string();
            let arguments = ["link", "add", &name, "index", &index, "type", "veth", "peer", "name", &peer];
            assert!(Command::new("ip").args(arguments).status().unwrap().success());
            datapath.ports.attach(BRIDGE, PortNo(number), ifindex, Hook::Xdp).unwrap();
        }
        let (xdp, tcx) = (datapath.xdp().unwrap(), datapath.tcx().unwrap());
        Self { datapath, verified, xdp, tcx }
    }

    /// Has a frame come in on a port, by XDP.
    pub fn run(&self, port: u16, frame: &[u8]) -> Ran {
        self.run_on_device(ifindex(port), frame)
    }

    /// Has a frame come in on a port many times in a row, by XDP. The flows must not change it.
    pub fn repeat(&self, port: u16, frame: &[u8], times: u32) {
        self.xdp.repeat(frame, ifindex(port), times).unwrap();
    }

    /// Has a frame come in on a port, by tcx.
    pub fn run_tcx(&self, port: u16, frame: &[u8]) -> Ran {
        self.tcx.run(frame, ifindex(port)).unwrap()
    }

    /// Has a frame come in on a device, by XDP.
    pub fn run_on_device(&self, ifindex: u32, frame: &[u8]) -> Ran {
        self.xdp.run(frame, ifindex).unwrap()
    }
}
