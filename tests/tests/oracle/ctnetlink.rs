//! The kernel's connection table, one entry at a time: `ctnetlink` (`linux/netfilter/nfnetlink_conntrack.h`).

use std::{net::IpAddr, os::fd::AsRawFd, os::fd::OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use conntrack_core::{Direction, protocol, sctp, tcp::State};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, socket,
    },
};

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_NEW: u16 = 0;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLA_F_NESTED: u16 = 0x8000;
/// `nlmsghdr`, and behind it `nfgenmsg`.
const HEADER: usize = 16;
const NFGENMSG: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
/// Followed by those of type and code.
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMPV6_ID: u16 = 7;
const CTA_PROTOINFO_TCP: u16 = 1;
const CTA_PROTOINFO_TCP_STATE: u16 = 1;
/// Of both ends; the flags are followed by a mask.
const CTA_PROTOINFO_TCP_WSCALE: [u16; 2] = [2, 3];
const CTA_PROTOINFO_TCP_FLAGS: [u16; 2] = [4, 5];
const CTA_PROTOINFO_SCTP: u16 = 3;
const CTA_PROTOINFO_SCTP_STATE: u16 = 1;
/// Of both directions.
const CTA_PROTOINFO_SCTP_VTAG: [u16; 2] = [2, 3];

/// What the kernel knows a packet's connection by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub transport: Transport,
}

/// The part of a tuple that the transport protocol adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp {
        src: u16,
        dst: u16,
    },
    Udp {
        src: u16,
        dst: u16,
    },
    Sctp {
        src: u16,
        dst: u16,
    },
    Other(u8),
    /// ICMP, or ICMPv6 if the addresses are IPv6; the code is zero.
    Icmp {
        id: u16,
        kind: u8,
    },
}

/// A connection as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Of the tuple that was asked for.
    pub direction: Direction,
    pub status: u32,
    /// Seconds left.
    pub timeout: u32,
    pub tcp: Option<TcpEntry>,
    pub sctp: Option<SctpEntry>,
}

/// What the kernel tells of an SCTP association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SctpEntry {
    pub state: sctp::State,
    pub vtags: [u32; 2],
}

/// What the kernel tells of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpEntry {
    pub state: State,
    pub scales: [u8; 2],
    pub flags: [u8; 2],
}

/// A socket to the connection table of the calling thread's network namespace.
pub struct Ctnetlink {
    socket: OwnedFd,
}

impl Ctnetlink {
    pub fn open() -> Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// The connection of a packet with this tuple, in either direction.
    pub fn get(&self, tuple: &Tuple) -> Result<Option<Entry>> {
        let reply = self.request(IPCTNL_MSG_CT_GET, 0, tuple, &[])?;
        reply.map(|attributes| entry(tuple, &attributes)).transpose()
    }

    /// Gives the connection this many seconds from now; false if there is none.
    pub fn set_timeout(&self, tuple: &Tuple, seconds: u32) -> Result<bool> {
        let timeout = attribute(CTA_TIMEOUT, &seconds.to_be_bytes());
        Ok(self.request(IPCTNL_MSG_CT_NEW, NLM_F_ACK, tuple, &timeout)?.is_some())
    }

    /// Removes the connection; false if there is none.
    pub fn delete(&self, tuple: &Tuple) -> Result<bool> {
        Ok(self.request(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, tuple, &[])?.is_some())
    }

    /// The attributes of the answer; none if there is no such connection.
    fn request(&self, message: u16, flags: u16, tuple: &Tuple, more: &[u8]) -> Result<Option<Vec<u8>>> {
        let is_icmp = matches!(tuple.transport, Transport::Icmp { .. });
        let attributes = [tuple_attribute(tuple), more.to_vec()].concat();
        let family = if tuple.src.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let mut request = Vec::with_capacity(HEADER + NFGENMSG + attributes.len());
        request.extend(((HEADER + NFGENMSG + attributes.len()) as u32).to_ne_bytes());
        request.extend((NFNL_SUBSYS_CTNETLINK << 8 | message).to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        request.extend([0; 8]);
        request.extend([family as u8, 0, 0, 0]);
        request.extend(attributes);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty()).context("ctnetlink request")?;

        let mut answer = vec![0; 8192];
        let length = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        answer.truncate(length);
        ensure!(length >= HEADER + NFGENMSG, "ctnetlink answers with {length} bytes");
        if u16::from_ne_bytes([answer[4], answer[5]]) != NLMSG_ERROR {
            return Ok(Some(answer.split_off(HEADER + NFGENMSG)));
        }
        match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
            0 => Ok(Some(Vec::new())),
            error if Errno::from_raw(-error) == Errno::ENOENT => Ok(None),
            // An ICMP type that is neither query nor answer makes no tuple.
            error if Errno::from_raw(-error) == Errno::EINVAL && is_icmp => Ok(None),
            error => bail!("ctnetlink: {}", Errno::from_raw(-error)),
        }
    }
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + payload.len() + 3);
    bytes.extend((4 + payload.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn tuple_attribute(tuple: &Tuple) -> Vec<u8> {
    let (src, dst) =
        if tuple.src.is_ipv4() { (CTA_IP_V4_SRC, CTA_IP_V4_DST) } else { (CTA_IP_V6_SRC, CTA_IP_V6_DST) };
    let addresses = [attribute(src, &octets(tuple.src)), attribute(dst, &octets(tuple.dst))].concat();
    let transport = match tuple.transport {
        Transport::Tcp { src, dst } => ports(protocol::TCP, src, dst),
        Transport::Udp { src, dst } => ports(protocol::UDP, src, dst),
        Transport::Sctp { src, dst } => ports(protocol::SCTP, src, dst),
        Transport::Other(number) => attribute(CTA_PROTO_NUM, &[number]),
        Transport::Icmp { id, kind } => {
            let (number, first) = if tuple.src.is_ipv4() {
                (protocol::ICMP, CTA_PROTO_ICMP_ID)
            } else {
                (protocol::ICMPV6, CTA_PROTO_ICMPV6_ID)
            };
            [
                attribute(CTA_PROTO_NUM, &[number]),
                attribute(first, &id.to_be_bytes()),
                attribute(first + 1, &[kind]),
                attribute(first + 2, &[0]),
            ]
            .concat()
        }
    };
    let parts = [
        attribute(CTA_TUPLE_IP | NLA_F_NESTED, &addresses),
        attribute(CTA_TUPLE_PROTO | NLA_F_NESTED, &transport),
    ];
    attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, &parts.concat())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

fn ports(number: u8, src: u16, dst: u16) -> Vec<u8> {
    [
        attribute(CTA_PROTO_NUM, &[number]),
        attribute(CTA_PROTO_SRC_PORT, &src.to_be_bytes()),
        attribute(CTA_PROTO_DST_PORT, &dst.to_be_bytes()),
    ]
    .concat()
}

/// The payload of an attribute.
fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    while let [l0, l1, k0, k1, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        if u16::from_ne_bytes([k0, k1]) & !NLA_F_NESTED == kind {
            return rest.get(4..length);
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
    None
}

fn number(attributes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(find(attributes, kind)?.try_into().ok()?))
}

fn entry(tuple: &Tuple, attributes: &[u8]) -> Result<Entry> {
    let original = find(attributes, CTA_TUPLE_ORIG).context("an entry without tuple")?;
    let source = find(original, CTA_TUPLE_IP)
        .and_then(|addresses| find(addresses, CTA_IP_V4_SRC).or_else(|| find(addresses, CTA_IP_V6_SRC)))
        .context("an entry without source address")?;
    let direction = if source == octets(tuple.src) { Direction::Original } else { Direction::Reply };
    let tcp = find(attributes, CTA_PROTOINFO).and_then(|info| find(info, CTA_PROTOINFO_TCP)).map(|tcp| {
        let byte = |kind| find(tcp, kind).and_then(|value| value.first().copied());
        Some(TcpEntry {
            state: State(byte(CTA_PROTOINFO_TCP_STATE)?),
            scales: [byte(CTA_PROTOINFO_TCP_WSCALE[0])?, byte(CTA_PROTOINFO_TCP_WSCALE[1])?],
            flags: [byte(CTA_PROTOINFO_TCP_FLAGS[0])?, byte(CTA_PROTOINFO_TCP_FLAGS[1])?],
        })
    });
    let sctp = find(attributes, CTA_PROTOINFO).and_then(|info| find(info, CTA_PROTOINFO_SCTP)).map(|sctp| {
        Some(SctpEntry {
            state: sctp::State(find(sctp, CTA_PROTOINFO_SCTP_STATE)?.first().copied()?),
            vtags: [number(sctp, CTA_PROTOINFO_SCTP_VTAG[0])?, number(sctp, CTA_PROTOINFO_SCTP_VTAG[1])?],
        })
    });
    Ok(Entry {
        direction,
        status: number(attributes, CTA_STATUS).context("an entry without status")?,
        timeout: number(attributes, CTA_TIMEOUT).context("an entry without timeout")?,
        tcp: tcp.map(|tcp| tcp.context("a TCP entry without state, scales or flags")).transpose()?,
        sctp: sctp.map(|sctp| sctp.context("an SCTP entry without state or tags")).transpose()?,
    })
}
