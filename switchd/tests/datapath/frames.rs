//! Frames, byte by byte.

use std::net::IpAddr;

/// Addresses of the two hosts that talk to each other.
pub const IPV4: [[u8; 4]; 2] = [[10, 0, 0, 1], [10, 0, 0, 2]];
/// The same in IPv6.
pub const IPV6: [[u8; 16]; 2] = [
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
];
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// TCP's flags.
pub mod flags {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
}

/// The Internet checksum of some bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An Ethernet frame from host `from` to the other.
pub fn ethernet(from: usize, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&MACS[1 - from][..], &MACS[from], &kind.to_be_bytes(), payload].concat()
}

/// The frame with all addresses and ports the other way round, and an echo request turned into its answer: checksums
/// mind only the latter. None: it is neither TCP, UDP, SCTP nor an echo request, or has options.
pub fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let mut frame = frame.to_vec();
    (0..6).for_each(|i| frame.swap(i, 6 + i));
    let (l4, protocol) = match frame[12..15] {
        [0x08, 0x00, 0x45] => {
            (0..4).for_each(|i| frame.swap(26 + i, 30 + i));
            (34, frame[23])
        }
        [0x86, 0xdd, 0x60] => {
            (0..16).for_each(|i| frame.swap(22 + i, 38 + i));
            (54, frame[20])
        }
        _ => return None,
    };
    match (protocol, frame[l4]) {
        (6 | 17 | 132, _) => (0..2).for_each(|i| frame.swap(l4 + i, l4 + 2 + i)),
        (1, 8) | (58, 128) => {
            let kind = if protocol == 1 { 0 } else { 129 };
            let by = i32::from(frame[l4]) - kind;
            frame[l4] = kind as u8;
            let sum = i32::from(u16::from_be_bytes([frame[l4 + 2], frame[l4 + 3]])) + (by << 8);
            let sum = (sum + (sum >> 16)) as u16;
            frame[l4 + 2..l4 + 4].copy_from_slice(&sum.to_be_bytes());
        }
        _ => return None,
    }
    Some(frame)
}

/// Who reports an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporter {
    /// A router on the way, whose address ends in 99.
    Router,
    /// The packet's destination.
    Destination,
}

/// What the sender of an IP packet that goes no further is told: an error that quotes the packet's first `quoted`
/// bytes.
pub fn time_exceeded(frame: &[u8], reporter: Reporter, quoted: usize) -> Vec<u8> {
    let is_router = reporter == Reporter::Router;
    let quote = &frame[14..frame.len().min(14 + quoted)];
    let mut frame = frame[..14].to_vec();
    (0..6).for_each(|i| frame.swap(i, 6 + i));
    let (kind, protocol) = if quote[0] >> 4 == 4 { (11, 1) } else { (3, 58) };
    let mut message = [&[kind, 0, 0, 0, 0, 0, 0, 0], quote].concat();
    let mut header;
    if protocol == 1 {
        header = vec![0x45, 0];
        header.extend((20 + message.len() as u16).to_be_bytes());
        header.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
        header.extend(if is_router { &[10, 0, 0, 99] } else { &quote[16..20] });
        header.extend(&quote[12..16]);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    } else {
        header = vec![0x60, 0, 0, 0];
        header.extend((message.len() as u16).to_be_bytes());
        header.extend([protocol, 64]);
        let router = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99];
        header.extend(if is_router { &router } else { &quote[24..40] });
        header.extend(&quote[8..24]);
        let length = (message.len() as u32).to_be_bytes();
        let sum = checksum(&[&header[8..40], &length, &[0, 0, 0, protocol], &message].concat());
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    [frame, header, message].concat()
}

/// Sets the length of an IPv4 packet without options.
pub fn set_ipv4_length(frame: &mut [u8], len: u16) {
    frame[16..18].copy_from_slice(&len.to_be_bytes());
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// Cuts an IP packet without options or extension headers into fragments that carry at most `size` bytes each.
pub fn fragments(frame: &[u8], id: u16, size: usize) -> Vec<Vec<u8>> {
    (0..)
        .step_by(size)
        .take_while(|start| *start < carried(frame))
        .map(|start| fragment(frame, id, start, size))
        .collect()
}

/// The packet that was cut into these fragments, which are in order.
pub fn joined(pieces: &[Vec<u8>]) -> Vec<u8> {
    let is_ipv4 = pieces[0][14] >> 4 == 4;
    let (keeps, header) = if is_ipv4 { (34, 34) } else { (54, 62) };
    let mut whole = pieces[0][..keeps].to_vec();
    pieces.iter().for_each(|piece| whole.extend(&piece[header..]));
    if is_ipv4 {
        whole[20..22].fill(0);
    } else {
        whole[20] = pieces[0][54];
    }
    whole
}

/// How much an IP packet carries behind its header.
pub fn carried(frame: &[u8]) -> usize {
    frame.len() - if frame[14] >> 4 == 4 { 34 } else { 54 }
}

/// The fragment of a packet that begins at `start` and carries at most `size` bytes.
pub fn fragment(frame: &[u8], id: u16, start: usize, size: usize) -> Vec<u8> {
    let end = (start + size).min(carried(frame));
    let more = u16::from(end < carried(frame));
    let unit = (start / 8) as u16;
    if frame[14] >> 4 == 4 {
        let mut header = frame[14..34].to_vec();
        header[2..4].copy_from_slice(&((20 + end - start) as u16).to_be_bytes());
        header[4..6].copy_from_slice(&id.to_be_bytes());
        header[6..8].copy_from_slice(&(more << 13 | unit).to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [&frame[..14], &header, &frame[34 + start..34 + end]].concat()
    } else {
        let mut header = frame[14..54].to_vec();
        header[4..6].copy_from_slice(&((8 + end - start) as u16).to_be_bytes());
        let protocol = std::mem::replace(&mut header[6], 44);
        let [o0, o1] = (unit << 3 | more).to_be_bytes();
        let [i0, i1] = id.to_be_bytes();
        [&frame[..14], &header, &[protocol, 0, o0, o1, 0, 0, i0, i1], &frame[54 + start..54 + end]].concat()
    }
}

/// Inserts a VLAN tag.
pub fn tagged(frame: &[u8], tci: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00], &tci.to_be_bytes(), &frame[12..]].concat()
}

/// An IPv4 packet in a frame, with options (a multiple of four bytes).
pub fn ipv4(from: usize, protocol: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
    packet.extend(IPV4[from]);
    packet.extend(IPV4[1 - from]);
    packet.extend(options);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    ethernet(from, 0x0800, &packet)
}

/// An IPv6 packet in a frame; `payload` begins with the header `next`.
pub fn ipv6(from: usize, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(IPV6[from]);
    packet.extend(IPV6[1 - from]);
    packet.extend(payload);
    ethernet(from, 0x86dd, &packet)
}

/// An IPv6 packet with extension headers before what it carries: each with its own number, and without the number of
/// the next one, which comes first in it.
pub fn with_extensions(frame: &[u8], extensions: &[(u8, &[u8])]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let (mut field, mut at) = (20, 54);
    for (number, body) in extensions {
        let next = std::mem::replace(&mut frame[field], *number);
        frame.splice(at..at, [&[next], *body].concat());
        (field, at) = (at, at + 1 + body.len());
    }
    let payload = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&payload.to_be_bytes());
    frame
}

/// The IP version of a packet to be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    V4,
    V6,
}

/// Puts the checksum of a transport header and its payload in its place, pseudo header included.
fn seal(ip: Ip, from: usize, protocol: u8, at: usize, mut segment: Vec<u8>) -> Vec<u8> {
    let mut covered = match ip {
        Ip::V4 => [IPV4[from], IPV4[1 - from]].concat(),
        Ip::V6 => [IPV6[from], IPV6[1 - from]].concat(),
    };
    covered.extend((segment.len() as u32).to_be_bytes());
    covered.extend(u32::from(protocol).to_be_bytes());
    covered.extend(&segment);
    let sum = checksum(&covered);
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    segment
}

pub fn wrap(ip: Ip, from: usize, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match ip {
        Ip::V4 => ipv4(from, protocol, &[], payload),
        Ip::V6 => ipv6(from, protocol, payload),
    }
}

/// A TCP segment: ports 1000 + `connection` of host 0, and 80 of host 1.
pub fn tcp(ip: Ip, from: usize, connection: u16, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    let ports = [1000 + connection, 80];
    let mut segment = ports[from].to_be_bytes().to_vec();
    segment.extend(ports[1 - from].to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    wrap(ip, from, 6, &seal(ip, from, 6, 16, segment))
}

/// A UDP datagram: ports 5000 + `connection` of host 0, and 53 of host 1.
pub fn udp(ip: Ip, from: usize, connection: u16, payload: &[u8]) -> Vec<u8> {
    let ports = [5000 + connection, 53];
    let mut datagram = ports[from].to_be_bytes().to_vec();
    datagram.extend(ports[1 - from].to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    wrap(ip, from, 17, &seal(ip, from, 17, 6, datagram))
}

/// A UDP datagram from a port of host 0 to that same port.
pub fn to_itself() -> Vec<u8> {
    let mut frame = udp(Ip::V4, 0, 8, b"mine");
    // Addresses, ports, the header's checksum; UDP's is left out.
    frame.copy_within(26..30, 30);
    frame.copy_within(34..36, 36);
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[40..42].fill(0);
    frame
}

/// An echo request (from host 0) or its answer.
pub fn echo(ip: Ip, from: usize, id: u16) -> Vec<u8> {
    let (kind, protocol) = match ip {
        Ip::V4 => ([8, 0][from], 1),
        Ip::V6 => ([128, 129][from], 58),
    };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 1, 0xab, 0xcd]);
    if ip == Ip::V6 {
        return wrap(ip, from, protocol, &seal(ip, from, protocol, 2, message));
    }
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    wrap(ip, from, protocol, &message)
}

/// A neighbour solicitation with a source link layer address.
pub fn solicitation() -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(IPV6[1]);
    message.extend([1, 1]);
    message.extend(MACS[0]);
    wrap(Ip::V6, 0, 58, &seal(Ip::V6, 0, 58, 2, message))
}

/// An ARP request.
pub fn arp() -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, 1];
    message.extend(MACS[0]);
    message.extend(IPV4[0]);
    message.extend([0; 6]);
    message.extend(IPV4[1]);
    let mut frame = ethernet(0, 0x0806, &message);
    frame[..6].fill(0xff);
    frame
}

/// One frame of each kind that the parser tells apart.
pub fn corpus() -> Vec<Vec<u8>> {
    use flags::{ACK, FIN, RST, SYN};
    let mut frames = vec![arp(), solicitation(), ethernet(0, 0x88cc, &[1, 2, 3]), ethernet(0, 40, &[0; 60])];
    for ip in [Ip::V4, Ip::V6] {
        frames.extend([
            tcp(ip, 0, 1, SYN, 100, 0, b""),
            tcp(ip, 1, 1, SYN | ACK, 500, 101, b""),
            tcp(ip, 0, 1, ACK, 101, 501, b""),
            tcp(ip, 0, 1, ACK, 101, 501, b"odd"),
            tcp(ip, 0, 1, ACK, 101, 501, &[7; 1300]),
            tcp(ip, 1, 1, ACK, 501, 1401, &[9; 700]),
            tcp(ip, 0, 1, FIN | ACK, 1401, 1201, b""),
            tcp(ip, 0, 1, RST, 1402, 0, b""),
            tcp(ip, 0, 2, ACK, 5, 5, b"picked up"),
            tcp(ip, 0, 3, 0, 5, 5, b"no flags"),
            udp(ip, 0, 1, b"question"),
            udp(ip, 1, 1, b"answer"),
            udp(ip, 0, 2, b""),
            echo(ip, 0, 77),
            echo(ip, 1, 77),
            echo(ip, 1, 78),
            wrap(ip, 0, 132, &[0, 1, 0, 2, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 4]),
            wrap(ip, 0, 47, &[0; 24]),
        ]);
    }
    // A checksum that is zero without being left out.
    frames.extend((0..).map(|seq| tcp(Ip::V4, 0, 6, SYN, seq, 0, b"")).find(|frame| frame[50..52] == [0, 0]));
    // A right checksum that equals the pseudo header's sum, as one that was left to the hardware would.
    let pseudo = (0x0a00 + 1 + 0x0a00 + 2 + 6 + 20u16).to_be_bytes();
    frames.extend((0..).map(|seq| tcp(Ip::V4, 0, 7, SYN, seq, 0, b"")).find(|frame| frame[50..52] == pseudo));
    let long = tcp(Ip::V4, 0, 4, SYN, 1, 0, b"");
    let (ip_header, segment) = (14, 34);
    frames.push(ipv4(0, 6, &[1; 40], &long[segment..]));
    frames.push(tagged(&long, 0x2005));
    frames.push(tagged(&tagged(&long, 7), 9));
    // A first fragment, and a later one.
    for offset in [[0x20, 0], [0, 8]] {
        let mut fragment = long.clone();
        fragment[ip_header + 6..ip_header + 8].copy_from_slice(&offset);
        frames.push(fragment);
    }
    // Hop-by-hop options and a fragment header before the segment.
    let six = tcp(Ip::V6, 0, 4, SYN, 1, 0, b"");
    frames.push(ipv6(0, 0, &[&[6, 0, 1, 4, 0, 0, 0, 0], &six[54..]].concat()));
    frames.push(ipv6(0, 44, &[&[6, 0, 0, 1, 0, 0, 0, 9], &six[54..]].concat()));
    frames.push(ipv6(0, 44, &[&[6, 0, 1, 0, 0, 0, 0, 9], &six[54..]].concat()));
    // What is its own reply: with ports, and without.
    frames.push(to_itself());
    let mut tunnel = wrap(Ip::V6, 0, 47, &[0; 24]);
    tunnel.copy_within(22..38, 38);
    frames.push(tunnel);
    // A wrong checksum, one left out, and bytes behind the packet.
    let mut wrong = tcp(Ip::V4, 0, 5, SYN, 1, 0, b"");
    wrong[segment + 16] ^= 1;
    frames.push(wrong);
    let mut none = udp(Ip::V4, 0, 5, b"unsummed");
    none[segment + 6..segment + 8].fill(0);
    frames.push(none);
    frames.push([&long[..], &[0xaa; 9]].concat());
    // Errors about what is there, about what is not, and cut.
    for ip in [Ip::V4, Ip::V6] {
        let sent = [
            tcp(ip, 0, 2, ACK, 5, 5, b"picked up"),
            udp(ip, 0, 2, b""),
            echo(ip, 0, 77),
            udp(ip, 0, 99, b""),
        ];
        frames
            .extend(sent.iter().flat_map(|frame| {
                [28, 48, 100].map(|quoted| time_exceeded(frame, Reporter::Router, quoted))
            }));
    }
    frames
}

/// A TCP segment or a UDP datagram between any two ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// 6 or 17.
    pub protocol: u8,
    pub src: (IpAddr, u16),
    pub dst: (IpAddr, u16),
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    /// TCP options, a multiple of four bytes.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Segment {
    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut l4 = [self.src.1.to_be_bytes(), self.dst.1.to_be_bytes()].concat();
        let at = if self.protocol == 6 {
            l4.extend(self.seq.to_be_bytes());
            l4.extend(self.ack.to_be_bytes());
            l4.extend([0x50 + (self.options.len() as u8 / 4 * 16), self.flags, 0xff, 0xff, 0, 0, 0, 0]);
            l4.extend(&self.options);
            16
        } else {
            l4.extend((8 + self.payload.len() as u16).to_be_bytes());
            l4.extend([0, 0]);
            6
        };
        l4.extend(&self.payload);
        let sum = self.checksum(&l4);
        l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        match (self.src.0, self.dst.0) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut frame = ipv4(0, self.protocol, &[], &l4);
                frame[26..30].copy_from_slice(&src.octets());
                frame[30..34].copy_from_slice(&dst.octets());
                let len = (frame.len() - 14) as u16;
                set_ipv4_length(&mut frame, len);
                frame
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut frame = ipv6(0, self.protocol, &l4);
                frame[22..38].copy_from_slice(&src.octets());
                frame[38..54].copy_from_slice(&dst.octets());
                frame
            }
            _ => panic!("of two families"),
        }
    }

    /// What a frame says; its lengths and checksums must be right.
    pub fn read(frame: &[u8]) -> Self {
        let is_ipv4 = frame[14] >> 4 == 4;
        let (l4, protocol) = if is_ipv4 { (34, frame[23]) } else { (54, frame[20]) };
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let address = |at: usize| -> IpAddr {
            if is_ipv4 {
                IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap())
            } else {
                IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap())
            }
        };
        if is_ipv4 {
            assert_eq!(usize::from(word(16)), frame.len() - 14, "length of {frame:02x?}");
            assert_eq!(checksum(&frame[14..34]), 0, "header checksum of {frame:02x?}");
        } else {
            assert_eq!(usize::from(word(18)), frame.len() - 54, "length of {frame:02x?}");
        }
        let (src, dst) = if is_ipv4 { (26, 30) } else { (22, 38) };
        let long = |at: usize| u32::from(word(at)) << 16 | u32::from(word(at + 2));
        let (src, dst) = ((address(src), word(l4)), (address(dst), word(l4 + 2)));
        let mut segment = Self {
            protocol,
            src,
            dst,
            flags: 0,
            seq: 0,
            ack: 0,
            options: Vec::new(),
            payload: frame[l4 + 8..].to_vec(),
        };
        if protocol == 6 {
            let header = usize::from(frame[l4 + 12] >> 4) * 4;
            segment.flags = frame[l4 + 13];
            (segment.seq, segment.ack) = (long(l4 + 4), long(l4 + 8));
            segment.options = frame[l4 + 20..l4 + header].to_vec();
            segment.payload = frame[l4 + header..].to_vec();
        }
        assert_eq!(segment.checksum(&frame[l4..]), 0, "checksum of {frame:02x?}");
        segment
    }

    fn checksum(&self, l4: &[u8]) -> u16 {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mut covered = [octets(self.src.0), octets(self.dst.0)].concat();
        covered.extend((l4.len() as u32).to_be_bytes());
        covered.extend(u32::from(self.protocol).to_be_bytes());
        covered.extend(l4);
        checksum(&covered)
    }
}
