//! Packets of the two hosts, and what of them is compared.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, bail};
use etherparse::{Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, icmpv4, icmpv6};
use tests::packet::{Echo, Ethernet, Segment};

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A segment with these flags.
    Tcp(u8),
    Udp,
    /// An echo request; the port is its identifier.
    Echo,
    /// An answer to one.
    EchoReply,
}

/// A packet without payload, from one address and port to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    kind: Kind,
    src: (IpAddr, u16),
    dst: (IpAddr, u16),
}

/// An ICMP error: a packet has not found its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    src: IpAddr,
    dst: IpAddr,
    quoted: Packet,
}

/// What hosts send.
pub trait Sent: Copy + PartialEq {
    fn frame(&self, ethernet: Ethernet) -> Result<Vec<u8>>;

    /// Reads addresses and ports from an IP packet of the same kind. None: it is cut, or of another family.
    fn read(&self, ip: &[u8]) -> Option<Self>;

    /// Reads a frame, every byte of which but the Ethernet header, TTL and IPv4's header checksum has to be as
    /// [`frame`](Self::frame) would make it. None: it is something else than this packet with other addresses.
    fn parse(&self, frame: &[u8]) -> Option<Self> {
        let packet = self.read(frame.get(LINK..)?)?;
        let made = packet.frame(Ethernet::default()).ok()?;
        (without_hop(&made) == without_hop(frame)).then_some(packet)
    }
}

const SEQ: u32 = 100;
const PAYLOAD: &[u8] = b"payload";
/// Bytes of an Ethernet header, of the two IP headers, and of an ICMP error's.
const LINK: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const ICMP: usize = 8;

/// A frame without what changes from hop to hop.
fn without_hop(frame: &[u8]) -> Vec<u8> {
    let mut ip = frame[LINK - 2..].to_vec();
    let fields: &[usize] = if ip[2] >> 4 == 4 { &[8, 10, 11] } else { &[7] };
    for field in fields {
        ip[2 + field] = 0;
    }
    ip
}

/// The addresses of an IP packet, and what is behind its header.
fn read_ip(ip: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    if ip.first()? >> 4 == 4 {
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
        Some((address(12)?.into(), address(16)?.into(), ip.get(IPV4..)?))
    } else {
        let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?));
        Some((address(8)?.into(), address(24)?.into(), ip.get(IPV6..)?))
    }
}

impl Packet {
    pub fn new(kind: Kind, src: (IpAddr, u16), dst: (IpAddr, u16)) -> Self {
        match kind {
            Kind::Tcp(_) | Kind::Udp => Self { kind, src, dst },
            Kind::Echo | Kind::EchoReply => Self { kind, src, dst: (dst.0, src.1) },
        }
    }

    /// The client's port in a packet to the server; of an echo the identifier.
    /// Whether it is of the same protocol, between the same addresses and ports.
    pub fn is_like(&self, other: &Self) -> bool {
        let protocol = |packet: &Self| std::mem::discriminant(&packet.kind);
        (protocol(self), self.src, self.dst) == (protocol(other), other.src, other.dst)
    }

    pub fn client_port(&self) -> u16 {
        self.src.1
    }

    pub fn with_client_port(mut self, port: u16) -> Self {
        self.src.1 = port;
        if self.kind == Kind::Echo {
            self.dst.1 = port;
        }
        self
    }

    /// What the server answers; with these flags, if it is TCP.
    pub fn answer(&self, flags: u8) -> Self {
        let kind = match self.kind {
            Kind::Tcp(_) => Kind::Tcp(flags),
            Kind::Udp => Kind::Udp,
            Kind::Echo | Kind::EchoReply => Kind::EchoReply,
        };
        Self { kind, src: self.dst, dst: self.src }
    }

    /// What its sender is told of it, by the server or by a router.
    pub fn report(&self, router: Option<IpAddr>) -> Report {
        Report { src: router.unwrap_or(self.dst.0), dst: self.src.0, quoted: *self }
    }
}

impl Sent for Packet {
    fn frame(&self, ethernet: Ethernet) -> Result<Vec<u8>> {
        let (src, dst) = (SocketAddr::from(self.src), SocketAddr::from(self.dst));
        let ips = (self.src.0, self.dst.0);
        match self.kind {
            Kind::Tcp(flags) => {
                ethernet.tcp(&Segment { seq: SEQ, ack: SEQ + 1, ..Segment::new(src, dst, flags) })
            }
            Kind::Udp => ethernet.udp(src, dst, PAYLOAD),
            Kind::Echo => ethernet.echo(ips, Echo::Request, (self.src.1, 1), PAYLOAD),
            Kind::EchoReply => ethernet.echo(ips, Echo::Reply, (self.src.1, 1), PAYLOAD),
        }
    }

    fn read(&self, ip: &[u8]) -> Option<Self> {
        let (src, dst, transport) = read_ip(ip)?;
        let word = |at: usize| Some(u16::from_be_bytes([*transport.get(at)?, *transport.get(at + 1)?]));
        let ports = match self.kind {
            Kind::Tcp(_) | Kind::Udp => (word(0)?, word(2)?),
            Kind::Echo | Kind::EchoReply => (word(4)?, word(4)?),
        };
        Some(Self { kind: self.kind, src: (src, ports.0), dst: (dst, ports.1) })
    }
}

impl Sent for Report {
    fn frame(&self, ethernet: Ethernet) -> Result<Vec<u8>> {
        let quoted = &self.quoted.frame(Ethernet::default())?[LINK..];
        let (protocol, header) = match (self.src, self.dst) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                let kind = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port);
                (IpNumber::ICMP, Icmpv4Header::with_checksum(kind, quoted).to_bytes().to_vec())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let kind = Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port);
                let header = Icmpv6Header::with_checksum(kind, src.octets(), dst.octets(), quoted)?;
                (IpNumber::IPV6_ICMP, header.to_bytes().to_vec())
            }
            (src, dst) => bail!("{src} and {dst} are of different families"),
        };
        ethernet.ip(self.src, self.dst, protocol, &[&header, quoted].concat())
    }

    fn read(&self, ip: &[u8]) -> Option<Self> {
        let (src, dst, message) = read_ip(ip)?;
        Some(Self { src, dst, quoted: self.quoted.read(message.get(ICMP..)?)? })
    }
}
