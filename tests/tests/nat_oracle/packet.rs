//! Packets of the two hosts, and what of them is compared.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
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
    src: (Ipv4Addr, u16),
    dst: (Ipv4Addr, u16),
}

const SEQ: u32 = 100;
const PAYLOAD: &[u8] = b"payload";

impl Packet {
    pub fn new(kind: Kind, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)) -> Self {
        match kind {
            Kind::Tcp(_) | Kind::Udp => Self { kind, src, dst },
            Kind::Echo | Kind::EchoReply => Self { kind, src, dst: (dst.0, src.1) },
        }
    }

    /// The client's port in a packet to the server; of an echo the identifier.
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

    pub fn frame(&self, ethernet: Ethernet) -> Result<Vec<u8>> {
        let (src, dst) = (SocketAddr::from(self.src), SocketAddr::from(self.dst));
        let ips = (IpAddr::V4(self.src.0), IpAddr::V4(self.dst.0));
        match self.kind {
            Kind::Tcp(flags) => {
                ethernet.tcp(&Segment { seq: SEQ, ack: SEQ + 1, ..Segment::new(src, dst, flags) })
            }
            Kind::Udp => ethernet.udp(src, dst, PAYLOAD),
            Kind::Echo => ethernet.echo(ips, Echo::Request, (self.src.1, 1), PAYLOAD),
            Kind::EchoReply => ethernet.echo(ips, Echo::Reply, (self.src.1, 1), PAYLOAD),
        }
    }

    /// Reads a frame, every byte of which but the Ethernet header, TTL and header checksum has to be as
    /// [`frame`](Self::frame) would make it. None: it is something else.
    pub fn parse(frame: &[u8], sent: &Self) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
        let (src, dst) = (address(26)?, address(30)?);
        let packet = match sent.kind {
            Kind::Tcp(_) | Kind::Udp => {
                Self { kind: sent.kind, src: (src, word(34)?), dst: (dst, word(36)?) }
            }
            Kind::Echo | Kind::EchoReply => {
                Self { kind: sent.kind, src: (src, word(38)?), dst: (dst, word(38)?) }
            }
        };
        let made = packet.frame(Ethernet::default()).ok()?;
        let same = made.len() == frame.len()
            && made[12..18] == frame[12..18]
            && made[20..22] == frame[20..22]
            && made[23] == frame[23]
            && made[26..] == frame[26..];
        same.then_some(packet)
    }
}
