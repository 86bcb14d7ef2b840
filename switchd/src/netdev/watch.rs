//! Watching devices come, change and go.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::link::Link;
use super::rtnl::{DATAGRAM_MAX, Rtnl, messages};

/// What happened to a device.
///
/// Events tell what to look at again, in order, but not how things stand now: by the time one is handled the
/// device may have changed once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A device was made, moved into this namespace, or got this name.
    Appeared(Link),
    /// Something about it is different.
    Changed(Link),
    /// It was deleted, moved to another namespace, or got another name.
    Gone {
        /// The index it had.
        ifindex: u32,
        /// The name it had.
        name: String,
    },
}

impl LinkEvent {
    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Appeared(link) | Self::Changed(link) => &link.name,
            Self::Gone { name, .. } => name,
        }
    }
}

/// A subscription to the link events of a network namespace.
pub struct LinkWatch {
    socket: TokioSocket,
    rtnl: Rtnl,
    buffer: Vec<u8>,
    known: Known,
    /// Events were lost, and the devices have not been listed since.
    overflowed: bool,
}

impl LinkWatch {
    /// Begins to watch the calling thread's network namespace. Devices that are there already are no events;
    /// whoever looks at them after this call misses nothing. To be called within a tokio runtime.
    ///
    /// # Errors
    /// A socket could not be opened or the devices not be listed.
    pub fn new() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        socket.socket_mut().add_membership(MulticastGroup::Link as u32)?;
        let mut rtnl = Rtnl::open()?;
        let known = Known::of(rtnl.links()?);
        Ok(Self { socket, rtnl, buffer: Vec::with_capacity(DATAGRAM_MAX), known, overflowed: false })
    }

    /// Waits for the next event. May be dropped while it waits, and called again after an error, without
    /// losing any.
    ///
    /// When the kernel's queue overflowed (ENOBUFS), the devices are listed anew and the differences told.
    ///
    /// # Errors
    /// The socket failed, or the devices could not be listed.
    pub async fn next(&mut self) -> io::Result<LinkEvent> {
        loop {
            if self.overflowed {
                self.resynchronise()?;
                self.overflowed = false;
            }
            if let Some(event) = self.known.events.pop_front() {
                return Ok(event);
            }
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) => self.known.take(&self.buffer),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.overflowed = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn resynchronise(&mut self) -> io::Result<()> {
        // What is still queued is older than the list to come, and must not be applied after it.
        loop {
            self.buffer.clear();
            match self.socket.socket_ref().recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        let now = self.rtnl.links()?;
        self.known.replace(now);
        Ok(())
    }
}

/// The devices that the events so far have told of, and the events not yet handed out.
struct Known {
    links: HashMap<u32, Link>,
    events: VecDeque<LinkEvent>,
}

impl Known {
    fn of(links: Vec<Link>) -> Self {
        Self { links: links.into_iter().map(|link| (link.ifindex, link)).collect(), events: VecDeque::new() }
    }

    fn take(&mut self, datagram: &[u8]) {
        for bytes in messages(datagram) {
            match NetlinkMessage::deserialize(bytes).map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message))) => {
                    if let Some(link) = Link::from_message(message) {
                        self.present(link);
                    }
                }
                Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message))) => {
                    if let Some(link) = Link::from_message(message) {
                        self.absent(link.ifindex);
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "unreadable rtnetlink message"),
            }
        }
    }

    fn replace(&mut self, links: Vec<Link>) {
        let present: HashSet<u32> = links.iter().map(|link| link.ifindex).collect();
        let gone: Vec<u32> =
            self.links.keys().copied().filter(|ifindex| !present.contains(ifindex)).collect();
        for ifindex in gone {
            self.absent(ifindex);
        }
        for link in links {
            self.present(link);
        }
    }

    fn present(&mut self, link: Link) {
        match self.links.insert(link.ifindex, link.clone()) {
            Some(before) if before == link => {}
            Some(before) if before.name == link.name => self.events.push_back(LinkEvent::Changed(link)),
            Some(before) => {
                self.events.push_back(LinkEvent::Gone { ifindex: before.ifindex, name: before.name });
                self.events.push_back(LinkEvent::Appeared(link));
            }
            None => self.events.push_back(LinkEvent::Appeared(link)),
        }
    }

    fn absent(&mut self, ifindex: u32) {
        if let Some(link) = self.links.remove(&ifindex) {
            self.events.push_back(LinkEvent::Gone { ifindex, name: link.name });
        }
    }
}
