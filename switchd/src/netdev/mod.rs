//! Network devices: looking them up, watching them, and making a veth's peer fit for XDP.
//!
//! Everything here but [`LinkWatch`] blocks, for the tens of microseconds that the kernel takes to answer an
//! rtnetlink request or an ethtool ioctl.

mod ethtool;
mod link;
mod netns;
mod prepare;
mod rtnl;
mod watch;

use std::io;

pub use ethtool::{LinkModes, Media};
pub use link::{Link, LowerLink};
pub use prepare::{PrepareError, Prepared};
pub use watch::{LinkEvent, LinkWatch};

use ethtool::Ethtool;
use rtnl::Rtnl;

/// What the bridges need from the system's network devices.
pub trait Devices {
    /// Looks a device up by name; `None`: there is no such device.
    ///
    /// # Errors
    /// The kernel's, when it could not be asked.
    fn link(&mut self, name: &str) -> io::Result<Option<Link>>;

    /// The link's speed, duplex and modes. A device that tells nothing of the kind has the default ones.
    fn media(&mut self, name: &str) -> Media;

    /// Makes a device fit for native XDP. For a veth this is a matter of its *peer*: see [`Prepared`]. `note` is told of
    /// what will have been changed, before it is.
    ///
    /// # Errors
    /// See [`PrepareError`]; nothing has been changed then.
    fn prepare(&mut self, link: &Link, note: &mut dyn FnMut(&Prepared)) -> Result<Prepared, PrepareError>;

    /// Puts back what [`prepare`](Self::prepare) changed. A peer that is gone needs nothing.
    ///
    /// # Errors
    /// See [`PrepareError`].
    fn undo(&mut self, prepared: &Prepared) -> Result<(), PrepareError>;
}

/// The network devices of one network namespace: that of the thread that opened it.
pub struct Netdevs {
    rtnl: Rtnl,
    ethtool: Ethtool,
}

impl Netdevs {
    /// Opens the calling thread's network namespace.
    ///
    /// # Errors
    /// No socket could be opened.
    pub fn open() -> io::Result<Self> {
        Ok(Self { rtnl: Rtnl::open()?, ethtool: Ethtool::open()? })
    }

    /// All devices.
    ///
    /// # Errors
    /// The kernel's, when it could not be asked.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        self.rtnl.links()
    }
}

impl Devices for Netdevs {
    fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        self.rtnl.link_by_name(name)
    }

    fn media(&mut self, name: &str) -> Media {
        self.ethtool.media(name).unwrap_or_default()
    }

    fn prepare(&mut self, link: &Link, note: &mut dyn FnMut(&Prepared)) -> Result<Prepared, PrepareError> {
        prepare::prepare(self, link, note)
    }

    fn undo(&mut self, prepared: &Prepared) -> Result<(), PrepareError> {
        prepare::undo(self, prepared)
    }
}
