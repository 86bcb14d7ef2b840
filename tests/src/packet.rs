//! Frames for tests, lengths and checksums right.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, bail};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type,
    IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader,
};

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// TCP flags, as in the header.
pub mod flags {
    #![expect(missing_docs, reason = "RFC 9293's own names")]
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
}

const TTL: u8 = 64;

/// The link layer of a frame; the methods put a payload behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ethernet {
    /// Source address.
    pub src: [u8; 6],
    /// Destination address.
    pub dst: [u8; 6],
    /// The tag control information (priority, DEI, VLAN id) of an 802.1Q tag, if the frame has one.
    pub vlan: Option<u16>,
}

impl Default for Ethernet {
    /// Untagged, from one locally administered address to another.
    fn default() -> Self {
        Self { src: [2, 0, 0, 0, 0, 1], dst: [2, 0, 0, 0, 0, 2], vlan: None }
    }
}

/// A TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port, of the same family.
    pub dst: SocketAddr,
    /// The flags byte, see [`flags`].
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number, sent even when the flags have no ACK.
    pub ack: u32,
    /// Window, unscaled.
    pub window: u16,
    /// Options, padded with zeros to whole words.
    pub options: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

impl Segment<'_> {
    /// An empty segment.
    pub fn new(src: SocketAddr, dst: SocketAddr, flags: u8) -> Self {
        Self { src, dst, flags, seq: 0, ack: 0, window: 8192, options: &[], payload: &[] }
    }
}

/// A TCP segment over IPv4 of which many are made that differ in a port: it costs a copy and an addition each.
#[derive(Debug, Clone)]
pub struct Template {
    frame: Vec<u8>,
    /// Where the port lies.
    port: usize,
    /// Where the checksum lies.
    checksum: usize,
}

/// Which of a segment's ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// The source port.
    Source,
    /// The destination port.
    Destination,
}

impl Template {
    /// A template whose `port` is to be filled in; the segment's own must be zero.
    pub fn new(ethernet: Ethernet, segment: &Segment<'_>, port: Port) -> Result<Self> {
        let frame = ethernet.tcp(segment)?;
        let tcp = frame.len() - segment.payload.len() - segment.options.len() - TcpHeader::MIN_LEN;
        let port = tcp + if port == Port::Source { 0 } else { 2 };
        Ok(Self { frame, port, checksum: tcp + 16 })
    }

    /// The frame with this port.
    pub fn frame(&self, port: u16) -> Vec<u8> {
        let mut frame = self.frame.clone();
        frame[self.port..self.port + 2].copy_from_slice(&port.to_be_bytes());
        // What was zero adds itself to the sum, which is one's complement.
        let checksum = &mut frame[self.checksum..self.checksum + 2];
        let sum = !u16::from_be_bytes([checksum[0], checksum[1]]);
        let (sum, carry) = sum.overflowing_add(port);
        checksum.copy_from_slice(&(!(sum + u16::from(carry))).to_be_bytes());
        frame
    }
}

/// Which half of a ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// Echo request.
    Request,
    /// Echo reply.
    Reply,
}

impl Ethernet {
    /// The way back: addresses exchanged, the same tag.
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, vlan: self.vlan }
    }

    /// A frame with any payload.
    pub fn frame(&self, ether_type: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = [self.dst, self.src].concat();
        if let Some(tci) = self.vlan {
            frame.extend(VLAN.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        frame.extend(ether_type.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// Who has `target`? Tell `sender`.
    pub fn arp_request(&self, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        self.arp(ArpOperation::REQUEST, sender, [0; 6], target)
    }

    /// `sender` is at the frame's source address; an answer to the frame's destination.
    pub fn arp_reply(&self, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        self.arp(ArpOperation::REPLY, sender, self.dst, target)
    }

    fn arp(&self, operation: ArpOperation, sender: Ipv4Addr, tha: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
        let packet = ArpEthIpv4Packet {
            operation,
            sender_mac: self.src,
            sender_ipv4: sender.octets(),
            target_mac: tha,
            target_ipv4: target.octets(),
        };
        self.frame(ARP, &packet.to_bytes())
    }

    /// An IP packet of either version with the payload as it is given.
    pub fn ip(&self, src: IpAddr, dst: IpAddr, protocol: IpNumber, payload: &[u8]) -> Result<Vec<u8>> {
        Ok(match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let length = u16::try_from(payload.len())?;
                let mut header = Ipv4Header::new(length, TTL, protocol, src.octets(), dst.octets())?;
                header.header_checksum = header.calc_header_checksum();
                self.frame(IPV4, &[&header.to_bytes(), payload].concat())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: u16::try_from(payload.len())?,
                    next_header: protocol,
                    hop_limit: TTL,
                    source: src.octets(),
                    destination: dst.octets(),
                };
                self.frame(IPV6, &[&header.to_bytes(), payload].concat())
            }
            _ => bail!("{src} and {dst} are of different families"),
        })
    }

    /// A TCP segment.
    pub fn tcp(&self, segment: &Segment<'_>) -> Result<Vec<u8>> {
        let mut header = TcpHeader::new(segment.src.port(), segment.dst.port(), segment.seq, segment.window);
        header.acknowledgment_number = segment.ack;
        header.fin = segment.flags & flags::FIN != 0;
        header.syn = segment.flags & flags::SYN != 0;
        header.rst = segment.flags & flags::RST != 0;
        header.psh = segment.flags & flags::PSH != 0;
        header.ack = segment.flags & flags::ACK != 0;
        header.urg = segment.flags & flags::URG != 0;
        header.set_options_raw(segment.options)?;
        let (src, dst) = (segment.src.ip(), segment.dst.ip());
        header.checksum = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), segment.payload)?
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), segment.payload)?
            }
            _ => bail!("{src} and {dst} are of different families"),
        };
        self.ip(src, dst, IpNumber::TCP, &[&header.to_bytes(), segment.payload].concat())
    }

    /// A UDP datagram.
    pub fn udp(&self, src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Result<Vec<u8>> {
        let (sport, dport) = (src.port(), dst.port());
        let (src, dst) = (src.ip(), dst.ip());
        let header = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut header = UdpHeader::without_ipv4_checksum(sport, dport, payload.len())?;
                header.checksum = header.calc_checksum_ipv4_raw(src.octets(), dst.octets(), payload)?;
                header
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut header = UdpHeader::without_ipv4_checksum(sport, dport, payload.len())?;
                header.checksum = header.calc_checksum_ipv6_raw(src.octets(), dst.octets(), payload)?;
                header
            }
            _ => bail!("{src} and {dst} are of different families"),
        };
        self.ip(src, dst, IpNumber::UDP, &[&header.to_bytes(), payload].concat())
    }

    /// A ping or its answer, ICMP or ICMPv6 by the family of the addresses.
    pub fn echo(
        &self,
        (src, dst): (IpAddr, IpAddr),
        echo: Echo,
        (id, seq): (u16, u16),
        payload: &[u8],
    ) -> Result<Vec<u8>> {
        let numbers = IcmpEchoHeader { id, seq };
        match (src, dst) {
            (IpAddr::V4(_), _) => {
                let kind = match echo {
                    Echo::Request => Icmpv4Type::EchoRequest(numbers),
                    Echo::Reply => Icmpv4Type::EchoReply(numbers),
                };
                let header = Icmpv4Header::with_checksum(kind, payload);
                self.ip(src, dst, IpNumber::ICMP, &[&header.to_bytes(), payload].concat())
            }
            (IpAddr::V6(src6), IpAddr::V6(dst6)) => {
                let kind = match echo {
                    Echo::Request => Icmpv6Type::EchoRequest(numbers),
                    Echo::Reply => Icmpv6Type::EchoReply(numbers),
                };
                let header = Icmpv6Header::with_checksum(kind, src6.octets(), dst6.octets(), payload)?;
                self.ip(src, dst, IpNumber::IPV6_ICMP, &[&header.to_bytes(), payload].concat())
            }
            _ => bail!("{src} and {dst} are of different families"),
        }
    }
}

/// The Internet checksum (RFC 1071) of some bytes, 0 when the right one is among them.
pub fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let sum = words.fold(0u16, |sum, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    });
    !sum
}

/// Makes the checksums of a frame right after it was changed: that of IPv4's header, and that of TCP, UDP (but
/// for one sent without), ICMP or ICMPv6 directly behind it, unless it is a later fragment. Lengths and header sizes must be.
pub fn seal(frame: &mut [u8]) {
    let ip = if frame[12..14] == VLAN.to_be_bytes() { 18 } else { 14 };
    let (l4, protocol, addresses) = match u16::from_be_bytes([frame[ip - 2], frame[ip - 1]]) {
        IPV4 => {
            let l4 = ip + usize::from(frame[ip] & 0x0f) * 4;
            put_checksum(&mut frame[ip..l4], 10, &[]);
            if u16::from_be_bytes([frame[ip + 6], frame[ip + 7]]) & 0x1fff != 0 {
                return;
            }
            (l4, frame[ip + 9], ip + 12..ip + 20)
        }
        IPV6 => (ip + 40, frame[ip + 6], ip + 8..ip + 40),
        _ => return,
    };
    let length = u32::try_from(frame.len() - l4).unwrap_or(u32::MAX).to_be_bytes();
    let pseudo = [&frame[addresses], &length, &[0, protocol]].concat();
    let transport = &mut frame[l4..];
    match IpNumber(protocol) {
        IpNumber::TCP => put_checksum(transport, 16, &pseudo),
        IpNumber::UDP if transport[6..8] == [0, 0] => {}
        IpNumber::UDP => {
            put_checksum(transport, 6, &pseudo);
            if transport[6..8] == [0, 0] {
                transport[6..8].fill(0xff);
            }
        }
        IpNumber::ICMP => put_checksum(transport, 2, &[]),
        IpNumber::IPV6_ICMP => put_checksum(transport, 2, &pseudo),
        _ => {}
    }
}

fn put_checksum(bytes: &mut [u8], at: usize, pseudo_header: &[u8]) {
    bytes[at..at + 2].fill(0);
    let sum = checksum(&[pseudo_header, bytes].concat());
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_laid_out_and_summed() {
        let mut segment = Segment::new(
            "192.168.0.2:1024".parse().unwrap(),
            "10.0.0.2:2048".parse().unwrap(),
            flags::ACK | flags::FIN,
        );
        (segment.seq, segment.ack, segment.payload) = (102, 201, b"X");
        let frame = Ethernet::default().tcp(&segment).unwrap();
        assert_eq!(frame.len(), 14 + 20 + 20 + 1);
        assert_eq!(frame[12..14], [8, 0]);
        assert_eq!(checksum(&frame[14..34]), 0, "IPv4 header");
        assert_eq!(checksum(&[&frame[26..34], &[0, 6, 0, 21], &frame[34..]].concat()), 0, "TCP");
        assert_eq!(frame[34..38], [4, 0, 8, 0]);
        assert_eq!((frame[41], frame[45], frame[47], frame[54]), (102, 201, 0x11, b'X'));
    }

    #[test]
    fn templates_make_the_same_frames() {
        let [client, server] = ["10.0.0.1:0", "10.0.0.2:80"].map(|text| text.parse::<SocketAddr>().unwrap());
        let segment = Segment { seq: 5, ..Segment::new(client, server, flags::SYN) };
        let answer = Segment { src: server, dst: client, ..segment };
        let syn = Template::new(Ethernet::default(), &segment, Port::Source).unwrap();
        let syn_ack = Template::new(Ethernet::default(), &answer, Port::Destination).unwrap();
        for port in [1, 80, 0x1234, 0xfffe, 0xffff] {
            let client = SocketAddr::new(client.ip(), port);
            let frame = |segment: &Segment<'_>| Ethernet::default().tcp(segment).unwrap();
            assert_eq!(syn.frame(port), frame(&Segment { src: client, ..segment }));
            assert_eq!(syn_ack.frame(port), frame(&Segment { dst: client, ..answer }));
        }
    }

    #[test]
    fn a_tag_comes_behind_the_addresses() {
        let tagged = Ethernet { vlan: Some(0x2064), ..Ethernet::default() };
        let frame =
            tagged.udp("[fd00::1]:5".parse().unwrap(), "[fd00::2]:6".parse().unwrap(), b"hi").unwrap();
        assert_eq!(frame[12..18], [0x81, 0, 0x20, 0x64, 0x86, 0xdd]);
        assert_eq!(checksum(&[&frame[26..58], &[0, 10, 0, 17], &frame[58..]].concat()), 0, "UDP");
    }

    #[test]
    fn sealing_a_good_frame_changes_nothing() {
        let (v4, v6) = (["10.0.0.1:5", "10.0.0.2:6"], ["[fd00::1]:5", "[fd00::2]:6"]);
        for vlan in [None, Some(5)] {
            let ethernet = Ethernet { vlan, ..Ethernet::default() };
            for addresses in [v4, v6] {
                let [src, dst] = addresses.map(|address| address.parse::<SocketAddr>().unwrap());
                let both = (src.ip(), dst.ip());
                for frame in [
                    ethernet.tcp(&Segment::new(src, dst, flags::SYN)).unwrap(),
                    ethernet.udp(src, dst, b"odd").unwrap(),
                    ethernet.echo(both, Echo::Request, (1, 2), b"odd").unwrap(),
                ] {
                    let mut sealed = frame.clone();
                    seal(&mut sealed);
                    assert_eq!(sealed, frame);
                    let (l3, l4) = if src.is_ipv4() { (14, 34) } else { (14, 54) };
                    let tag = vlan.map_or(0, |_| 4);
                    sealed[l3 + tag + 8] ^= 1; // IPv4's TTL or IPv6's source
                    sealed[l4 + tag + 1] ^= 1;
                    let changed = sealed.clone();
                    seal(&mut sealed);
                    assert_ne!(sealed, changed);
                }
            }
        }
    }

    #[test]
    fn families_do_not_mix() {
        let (v4, v6) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        assert!(Ethernet::default().echo((v4, v6), Echo::Request, (1, 1), b"").is_err());
    }
}
