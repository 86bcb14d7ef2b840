//! A blocking rtnetlink socket: one request at a time.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

use super::link::Link;

/// The kernel never sends a longer datagram (32 KiB since Linux 4.9), so none is truncated.
pub(super) const DATAGRAM_MAX: usize = 64 * 1024;

/// IFNAMSIZ, less the terminating zero.
const NAME_MAX: usize = 15;

/// How often a dump is begun anew because devices changed under it.
const DUMP_ATTEMPTS: usize = 8;

pub(super) struct Rtnl {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Rtnl {
    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM_MAX) })
    }

    pub(super) fn link_by_name(&mut self, name: &str) -> io::Result<Option<Link>> {
        if name.is_empty() || name.len() > NAME_MAX {
            return Ok(None);
        }
        let mut query = link_query();
        query.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link(query)
    }

    pub(super) fn link_by_index(&mut self, ifindex: u32) -> io::Result<Option<Link>> {
        let mut query = link_query();
        query.header.index = ifindex;
        self.link(query)
    }

    fn link(&mut self, query: LinkMessage) -> io::Result<Option<Link>> {
        match self.request(RouteNetlinkMessage::GetLink(query), 0) {
            Ok(reply) => Ok(reply.messages.into_iter().find_map(described_link)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn links(&mut self) -> io::Result<Vec<Link>> {
        for _ in 0..DUMP_ATTEMPTS {
            let reply = self.request(RouteNetlinkMessage::GetLink(link_query()), NLM_F_DUMP)?;
            if !reply.interrupted {
                return Ok(reply.messages.into_iter().filter_map(described_link).collect());
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "devices change faster than they can be listed"))
    }

    /// Sets a device up or down.
    pub(super) fn set_up(&mut self, ifindex: u32, up: bool) -> io::Result<()> {
        let mut change = LinkMessage::default();
        change.header.index = ifindex;
        change.header.change_mask = LinkFlags::Up;
        change.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.request(RouteNetlinkMessage::SetLink(change), NLM_F_ACK).map(drop)
    }

    /// The number that this namespace knows another one by; `None`: it has not given it any.
    pub(super) fn nsid(&mut self, netns: BorrowedFd<'_>) -> io::Result<Option<i32>> {
        let mut query = NsidMessage::default();
        // A file descriptor is never negative.
        query.attributes.push(NsidAttribute::Fd(netns.as_raw_fd().unsigned_abs()));
        let reply = self.request(RouteNetlinkMessage::GetNsId(query), 0)?;
        let ids = reply.messages.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewNsId(message) => Some(message.attributes),
            _ => None,
        });
        Ok(ids.flatten().find_map(|attribute| match attribute {
            NsidAttribute::Id(id) if id >= 0 => Some(id),
            _ => None,
        }))
    }

    /// Sends a request and collects the whole answer. Messages of a dump that cannot be read are left out, so
    /// that one exotic device does not hide the others.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Reply> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut reply = Reply { messages: Vec::new(), interrupted: false };
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            if reply.take(&self.buffer, self.sequence)? {
                return Ok(reply);
            }
        }
    }
}

/// The answer to a request.
struct Reply {
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

impl Reply {
    /// Takes in a datagram; true: it was the last one. Answers to an earlier request, which failed half-way,
    /// are passed over.
    fn take(&mut self, datagram: &[u8], sequence: u32) -> io::Result<bool> {
        for bytes in messages(datagram) {
            let header = NetlinkBuffer::new(bytes);
            if header.sequence_number() != sequence {
                continue;
            }
            let multipart = header.flags() & NLM_F_MULTIPART != 0;
            self.interrupted |= header.flags() & NLM_F_DUMP_INTR != 0;
            match NetlinkMessage::deserialize(bytes).map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(message)) => self.messages.push(message),
                Ok(NetlinkPayload::Done(_)) => return Ok(true),
                Ok(NetlinkPayload::Error(error)) if error.code.is_some() => return Err(error.to_io()),
                Ok(NetlinkPayload::Error(_)) => return Ok(true),
                Ok(_) => {}
                Err(error) if multipart => tracing::debug!(%error, "unreadable rtnetlink message"),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
            if !multipart {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Splits a datagram into its messages (each padded to a multiple of 4 bytes); a cut one ends it.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::try_from(NetlinkBuffer::new_checked(datagram).ok()?.length()).ok()?;
        let (message, _) = datagram.split_at_checked(length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// A request for links without their counters, which nobody here reads.
fn link_query() -> LinkMessage {
    let mut query = LinkMessage::default();
    query.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    query
}

fn described_link(message: RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Link::from_message(message),
        _ => None,
    }
}
