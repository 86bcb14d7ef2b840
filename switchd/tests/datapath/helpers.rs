//! FTP and TFTP, in the kernel and on the host.

use std::net::IpAddr;

use conntrack_core::status;
use switchd_ebpf::layout::helper;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::frames::{Reporter, Segment, flags, time_exceeded};
use crate::kernel::Twins;

const CLIENT: &str = "10.0.0.1";
const SERVER: &str = "10.0.0.2";
/// Who is behind port 2 sees clients under this address, or calls the server by it.
const OUTSIDE: &str = "192.0.2.100";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What the two ends of a TCP connection through the twins have sent, and expect to see.
struct Talk<'a> {
    twins: &'a Twins,
    /// The client's address as it and as the server sees it.
    client: [(IpAddr, u16); 2],
    /// The server's address likewise.
    server: [(IpAddr, u16); 2],
    /// What comes next of each.
    seq: [u32; 2],
    /// What each has seen of the other.
    seen: [u32; 2],
}

impl<'a> Talk<'a> {
    /// Opens a connection. What came out for its first segment tells what the server sees.
    fn open(twins: &'a Twins, client: (&str, u16), server: (&str, u16)) -> Self {
        Self::open_from(twins, 1, (ip(client.0), client.1), (ip(server.0), server.1)).expect("it passes")
    }

    /// The same from a port of the switch. None: it does not pass.
    fn open_from(twins: &'a Twins, port: u16, client: (IpAddr, u16), server: (IpAddr, u16)) -> Option<Self> {
        let (first, second) = (1_000_000, 0xffff_ff00);
        let mut segment = Segment {
            protocol: 6,
            src: client,
            dst: server,
            flags: flags::SYN,
            seq: first,
            ack: 0,
            options: Vec::new(),
            payload: Vec::new(),
        };
        let frames = twins.passed(port, &segment.frame());
        let seen = Segment::read(frames.first()?);
        assert_eq!((seen.seq, seen.flags), (first, flags::SYN));
        let mut talk = Self {
            twins,
            client: [client, seen.src],
            server: [server, seen.dst],
            seq: [first.wrapping_add(1), second],
            seen: [second, first.wrapping_add(1)],
        };
        segment = talk.segment(1, b"");
        segment.flags = flags::SYN | flags::ACK;
        let frames = twins.passed(3 - port, &segment.frame());
        assert_eq!(Segment::read(frames.first()?).ack, talk.seq[0]);
        talk.seq[1] = second.wrapping_add(1);
        talk.seen[0] = talk.seq[1];
        talk.say(0, "", "");
        Some(talk)
    }

    /// The port of the switch that an end is behind.
    fn port(&self, from: usize) -> u16 {
        let inside = self.client[0].0 == ip(CLIENT) || self.client[0].0 == ip("fd00::1");
        if (from == 0) == inside { 1 } else { 2 }
    }

    /// What an end sends next.
    fn segment(&self, from: usize, payload: &[u8]) -> Segment {
        let (src, dst) =
            if from == 0 { (self.client[0], self.server[0]) } else { (self.server[1], self.client[1]) };
        Segment {
            protocol: 6,
            src,
            dst,
            flags: flags::ACK,
            seq: self.seq[from],
            ack: self.seen[from],
            options: Vec::new(),
            payload: payload.to_vec(),
        }
    }

    /// An end says something, which the other sees otherwise, in the order in which it was said; and all that an end
    /// sees acknowledged is what it has said.
    fn say(&mut self, from: usize, said: &str, heard: &str) {
        let seen = self.pass(&self.segment(from, said.as_bytes()), from);
        assert_eq!(String::from_utf8_lossy(&seen.payload), heard);
        assert_eq!(seen.seq, self.seen[1 - from], "the sequence number of {heard:?}");
        assert_eq!(seen.ack, self.seq[1 - from], "what is acknowledged with {heard:?}");
        self.seq[from] = self.seq[from].wrapping_add(said.len() as u32);
        self.seen[1 - from] = self.seen[1 - from].wrapping_add(heard.len() as u32);
    }

    /// Has a segment go through the switch.
    fn pass(&self, segment: &Segment, from: usize) -> Segment {
        let frames = self.twins.passed(self.port(from), &segment.frame());
        let seen = Segment::read(frames.first().expect("it passes"));
        let (src, dst) =
            if from == 0 { (self.client[1], self.server[1]) } else { (self.server[0], self.client[0]) };
        assert_eq!((seen.src, seen.dst), (src, dst));
        seen
    }

    /// The greeting, after which commands are read.
    fn greet(&mut self) {
        self.say(1, "220 ready\r\n", "220 ready\r\n");
        self.say(0, "USER me\r\n", "USER me\r\n");
    }
}

/// Nothing is translated. What is related passes to both sides; that it asks for a helper as well counts for nothing.
const PLAIN: &[&str] = &[
    "table=0,priority=1,arp,actions=drop",
    "table=0,tcp,ct_state=-trk,actions=ct(table=1,zone=3)",
    "table=0,udp,ct_state=-trk,actions=ct(table=1,zone=3)",
    "table=0,tcp6,ct_state=-trk,actions=ct(table=1,zone=3)",
    "table=1,priority=9,tcp,in_port=1,tp_dst=21,ct_state=+new-rel,actions=ct(commit,alg=ftp,zone=3,exec(set_field:7->ct_mark,set_field:8->ct_label)),2",
    "table=1,priority=9,tcp6,in_port=1,tp_dst=21,ct_state=+new-rel,actions=ct(commit,alg=ftp,zone=3),2",
    "table=1,priority=9,udp,in_port=1,tp_dst=69,ct_state=+new-rel,actions=ct(commit,alg=tftp,zone=3),2",
    "table=1,priority=8,tcp,in_port=1,ct_state=+new+rel-est,ct_mark=7,ct_label=8,ct_nw_proto=6,ct_tp_dst=21,actions=ct(commit,alg=ftp,zone=3),2",
    "table=1,priority=8,tcp,in_port=2,ct_state=+new+rel-est,ct_mark=7,ct_label=8,ct_nw_proto=6,ct_tp_dst=21,actions=ct(commit,alg=ftp,zone=3),1",
    "table=1,priority=8,tcp6,in_port=1,ct_state=+new+rel-est,actions=ct(commit,zone=3),2",
    "table=1,priority=8,tcp6,in_port=2,ct_state=+new+rel-est,actions=ct(commit,zone=3),1",
    "table=1,priority=8,udp,in_port=2,ct_state=+new+rel-est,ct_nw_proto=17,ct_tp_dst=69,actions=ct(commit,zone=3),1",
    "table=1,priority=7,in_port=1,ct_state=+est+rel,ct_nw_src=10.0.0.1,ip,ct_nw_proto=6,ct_tp_dst=21,actions=2",
    "table=1,priority=7,in_port=2,ct_state=+est+rel,ct_nw_src=10.0.0.1,ip,ct_nw_proto=6,ct_tp_dst=21,actions=1",
    "table=1,priority=7,in_port=1,ct_state=+est+rel,udp,actions=2",
    "table=1,priority=7,in_port=2,ct_state=+est+rel,udp,actions=1",
    "table=1,priority=7,in_port=1,ct_state=+est+rel,ipv6,actions=2",
    "table=1,priority=7,in_port=2,ct_state=+est+rel,ipv6,actions=1",
    "table=1,priority=6,in_port=1,ct_state=+est-rel,actions=2",
    "table=1,priority=6,in_port=2,ct_state=+est-rel,actions=1",
];

/// The client is behind another address.
const SOURCE: &[&str] = &[
    "table=0,priority=1,arp,actions=drop",
    "table=0,priority=9,tcp,in_port=1,ct_state=-trk,actions=ct(table=1,nat)",
    "table=0,priority=9,tcp,in_port=2,ct_state=-trk,actions=ct(table=1,nat)",
    "table=0,priority=9,udp,ct_state=-trk,actions=ct(table=1,nat)",
    "table=0,priority=9,tcp6,ct_state=-trk,actions=ct(table=1,nat)",
    "table=1,priority=9,tcp,in_port=1,tp_dst=21,ct_state=+new-rel,actions=ct(commit,alg=ftp,nat(src=192.0.2.100)),2",
    "table=1,priority=9,tcp6,in_port=1,tp_dst=21,ct_state=+new-rel,actions=ct(commit,alg=ftp,nat(src=2001:db8::100)),2",
    "table=1,priority=9,udp,in_port=1,tp_dst=69,ct_state=+new-rel,actions=ct(commit,alg=tftp,nat(src=192.0.2.100:4000)),2",
    "table=1,priority=8,tcp,in_port=1,ct_state=+new+rel,actions=ct(commit,nat),2",
    "table=1,priority=8,tcp,in_port=2,ct_state=+new+rel,actions=ct(commit,nat),1",
    "table=1,priority=8,tcp6,in_port=1,ct_state=+new+rel,actions=ct(commit,nat),2",
    "table=1,priority=8,tcp6,in_port=2,ct_state=+new+rel,actions=ct(commit,nat),1",
    "table=1,priority=8,udp,in_port=2,ct_state=+new+rel,actions=ct(commit,nat),1",
    "table=1,priority=7,in_port=1,ct_state=+est,actions=2",
    "table=1,priority=7,in_port=2,ct_state=+est,actions=1",
];

/// The server is behind another address.
const DESTINATION: &[&str] = &[
    "table=0,priority=1,arp,actions=drop",
    "table=0,priority=9,tcp,ct_state=-trk,actions=ct(table=1,nat)",
    "table=1,priority=9,tcp,in_port=1,tp_dst=21,ct_state=+new-rel,actions=ct(commit,alg=ftp,nat(dst=10.0.0.2)),2",
    "table=1,priority=8,tcp,in_port=1,ct_state=+new+rel,actions=ct(commit,nat),2",
    "table=1,priority=8,tcp,in_port=2,ct_state=+new+rel,actions=ct(commit,nat),1",
    "table=1,priority=7,in_port=1,ct_state=+est,actions=2",
    "table=1,priority=7,in_port=2,ct_state=+est,actions=1",
];

#[test]
fn a_server_waits_for_the_client() {
    let twins = Twins::new(PLAIN);
    let mut control = Talk::open(&twins, (CLIENT, 4000), (SERVER, 21));
    assert!(Talk::open_from(&twins, 1, (ip(CLIENT), 4001), (ip(SERVER), 5000)).is_none(), "not announced");
    control.greet();
    let text = "227 Entering Passive Mode (10,0,0,2,19,136).\r\n";
    control.say(1, text, text);
    // Another one's port is not his to announce.
    let text = "227 Entering Passive Mode (10,0,0,9,19,137).\r\n";
    control.say(1, text, text);
    let data = Talk::open_from(&twins, 1, (ip(CLIENT), 4001), (ip(SERVER), 5000));
    data.expect("it was announced").say(1, "list", "list");
    let records = twins.connections();
    assert_eq!((records[0].helper, records[1].helper), (helper::FTP, helper::FTP), "as the flows say");
    assert_ne!(records[1].connection.status & status::EXPECTED, 0);
    assert_eq!((records[1].parent as u32, records[1].mark, records[1].label), (0, 7, [0, 8]));
    assert!(Talk::open_from(&twins, 1, (ip(CLIENT), 4002), (ip(SERVER), 5000)).is_none(), "once only");
    assert!(Talk::open_from(&twins, 1, (ip(CLIENT), 4002), (ip("10.0.0.9"), 5001)).is_none(), "a third one");
}

#[test]
fn a_connection_that_is_known_gets_no_helper_any_more() {
    let twins = Twins::new(&[
        "table=0,tcp,ct_state=-trk,actions=ct(table=1,zone=3)",
        "table=1,priority=9,tcp,in_port=1,ct_state=+new-rel,actions=ct(commit,zone=3),2",
        "table=1,priority=9,tcp,in_port=1,ct_state=+est,actions=ct(commit,alg=ftp,zone=3),2",
        "table=1,priority=9,tcp,in_port=2,ct_state=+est,actions=1",
        "table=1,priority=9,tcp,in_port=2,ct_state=+new+rel,actions=ct(commit,zone=3),1",
    ]);
    let mut control = Talk::open(&twins, (CLIENT, 4000), (SERVER, 21));
    control.greet();
    control.say(0, "PORT 10,0,0,1,19,136\r\n", "PORT 10,0,0,1,19,136\r\n");
    assert_eq!(twins.connections()[0].helper, helper::NONE);
    assert!(Talk::open_from(&twins, 2, (ip(SERVER), 20), (ip(CLIENT), 5000)).is_none());
}

#[test]
fn a_client_waits_for_the_server() {
    let twins = Twins::new(PLAIN);
    let mut control = Talk::open(&twins, (CLIENT, 4000), (SERVER, 21));
    control.greet();
    for text in ["PORT 10,0,0,1,19,136\r\n", "EPRT |1|10.0.0.1|5000|\r\n"] {
        control.say(0, text, text);
        let data = Talk::open_from(&twins, 2, (ip(SERVER), 20), (ip(CLIENT), 5000)).expect(text);
        assert_eq!(data.client[1].1, 20);
        // The next one is another connection.
        twins.forget(1);
    }
    assert!(Talk::open_from(&twins, 2, (ip(SERVER), 20), (ip(CLIENT), 5000)).is_none());
}

#[test]
fn text_is_no_command_amid_a_line_or_in_another_protocol() {
    let twins = Twins::new(PLAIN);
    let mut control = Talk::open(&twins, (CLIENT, 4000), (SERVER, 21));
    control.greet();
    control.say(1, "200 what follows is text: ", "200 what follows is text: ");
    let text = "227 Entering Passive Mode (10,0,0,2,19,136).\r\n";
    control.say(1, text, text);
    assert!(Talk::open_from(&twins, 1, (ip(CLIENT), 4001), (ip(SERVER), 5000)).is_none());
    // The server's answer, from the client.
    control.say(0, text, text);
    assert!(Talk::open_from(&twins, 1, (ip(CLIENT), 4001), (ip(SERVER), 5000)).is_none());
}

#[test]
fn announcements_go_with_their_connection() {
    let twins = Twins::new(PLAIN);
    let mut control = Talk::open(&twins, (CLIENT, 4000), (SERVER, 21));
    control.greet();
    let text = "229 Entering Extended Passive Mode (|||5000|)\r\n";
    control.say(1, text, text);
    assert_eq!(twins.expectations(), 1);
    twins.forget(0);
    assert_eq!((twins.expectations(), twins.connections().len()), (0, 0));
    assert!(Talk::open_from(&twins, 1, (ip(CLIENT), 4001), (ip(SERVER), 5000)).is_none());
}

#[test]
fn an_announced_address_is_translated_and_the_stream_goes_on() {
    let twins = Twins::new(SOURCE);
    let mut control = Talk::open(&twins, (CLIENT, 4000), (SERVER, 21));
    assert_eq!(control.client[1], (ip(OUTSIDE), 4000));
    control.greet();
    // Longer, as long as before, shorter; with something before and behind it.
    for (n, (said, heard)) in [
        ("PORT 10,0,0,1,19,136\r\n", "PORT 192,0,2,100,19,136\r\n"),
        ("NOOP\r\nport 10,0,0,1,19,136\r\nLIST\r\n", "NOOP\r\nport 192,0,2,100,19,136\r\nLIST\r\n"),
        ("EPRT |1|10.0.0.1|5000|\r\n", "EPRT |1|192.0.2.100|5000|\r\n"),
        ("PORT 010,000,000,001,019,136\r\n", "PORT 192,0,2,100,19,136\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        control.say(0, said, heard);
        control.say(1, "200 as you say\r\n", "200 as you say\r\n");
        control.say(0, "", "");
        let data = Talk::open_from(&twins, 2, (ip(SERVER), 2000 + n as u16), (ip(OUTSIDE), 5000));
        let mut data = data.expect(said);
        assert_eq!(data.server[1], (ip(CLIENT), 5000));
        data.say(0, "here it is", "here it is");
        data.say(1, "", "");
    }
    let master = &twins.connections()[0];
    assert_ne!(master.connection.status & status::SEQ_ADJUST, 0);
}

#[test]
fn a_segment_that_comes_again_is_changed_again() {
    let twins = Twins::new(SOURCE);
    let mut control = Talk::open(&twins, (CLIENT, 4000), (SERVER, 21));
    control.greet();
    let lost = control.segment(0, b"PORT 10,0,0,1,19,136\r\n");
    let first = control.pass(&lost, 0);
    assert_eq!(first, control.pass(&lost, 0));
    control.say(0, "PORT 10,0,0,1,19,136\r\n", "PORT 192,0,2,100,19,136\r\n");
    control.say(1, "200 yes\r\n", "200 yes\r\n");
    let behind = control.segment(0, b"NLST\r\n");
    assert_eq!(control.pass(&behind, 0).seq, control.seen[1]);
    // And the old one, when newer ones have been seen.
    let again = control.pass(&lost, 0);
    assert_eq!((again.seq, again.payload), (first.seq, first.payload));
    assert_eq!(twins.expectations(), 1);
}

#[test]
fn a_connection_that_begins_anew_is_not_adjusted() {
    let twins = Twins::new(SOURCE);
    for _ in 0..2 {
        let mut control = Talk::open(&twins, (CLIENT, 4000), (SERVER, 21));
        control.greet();
        control.say(0, "PORT 10,0,0,1,19,136\r\n", "PORT 192,0,2,100,19,136\r\n");
        control.say(1, "200 yes\r\n", "200 yes\r\n");
        control.say(0, "QUIT\r\n", "QUIT\r\n");
        let mut reset = control.segment(0, b"");
        reset.flags = flags::RST;
        assert_eq!(control.pass(&reset, 0).seq, control.seen[1]);
        assert_eq!(twins.connections().len(), 1);
    }
}

#[test]
fn what_is_invalid_is_left_as_it_is() {
    let flows = [SOURCE, &["table=1,priority=10,tcp,in_port=2,ct_state=+inv,actions=3"]].concat();
    let twins = Twins::new(&flows);
    let mut control = Talk::open(&twins, (CLIENT, 4000), (SERVER, 21));
    control.greet();
    control.say(0, "PORT 10,0,0,1,19,136\r\n", "PORT 192,0,2,100,19,136\r\n");
    let mut beyond = control.segment(1, b"far out");
    beyond.ack = beyond.ack.wrapping_add(1 << 20);
    assert_eq!(twins.passed(2, &beyond.frame()), [beyond.frame()]);
}

#[test]
fn blocks_that_are_acknowledged_out_of_order_are_adjusted() {
    let twins = Twins::new(SOURCE);
    let mut control = Talk::open(&twins, (CLIENT, 4000), (SERVER, 21));
    control.greet();
    control.say(0, "PORT 10,0,0,1,19,136\r\n", "PORT 192,0,2,100,19,136\r\n");
    // The server lacks ten bytes and has the twenty behind them.
    let next = control.seen[1];
    control.pass(&control.segment(0, &[b'x'; 30]), 0);
    for fill in [[1, 1].to_vec(), [1, 3, 3, 7, 1, 1].to_vec()] {
        let mut segment = control.segment(1, b"");
        let edges = [next.wrapping_add(10).to_be_bytes(), next.wrapping_add(30).to_be_bytes()].concat();
        segment.options = [&fill[..], &[5, 10], &edges].concat();
        segment.options.resize(segment.options.len().next_multiple_of(4), 0);
        let seen = control.pass(&segment, 1);
        let at = fill.len() + 2;
        let told = |at: usize| u32::from_be_bytes(seen.options[at..at + 4].try_into().unwrap());
        let sent = control.seq[0];
        assert_eq!((told(at), told(at + 4)), (sent.wrapping_add(10), sent.wrapping_add(30)));
        assert_eq!(seen.ack, sent);
    }
}

#[test]
fn a_server_behind_a_translation_is_called_where_it_is() {
    let twins = Twins::new(DESTINATION);
    let mut control = Talk::open(&twins, (CLIENT, 4000), (OUTSIDE, 21));
    assert_eq!(control.server[1], (ip(SERVER), 21));
    control.greet();
    let (said, heard) = (
        "227 Entering Passive Mode (10,0,0,2,19,136).\r\n",
        "227 Entering Passive Mode (192,0,2,100,19,136).\r\n",
    );
    control.say(1, said, heard);
    control.say(0, "RETR file\r\n", "RETR file\r\n");
    let data = Talk::open_from(&twins, 1, (ip(CLIENT), 4001), (ip(OUTSIDE), 5000)).expect("it was announced");
    assert_eq!(data.server[1], (ip(SERVER), 5000));
    // And it calls by the address that the client knows.
    control.say(0, "PORT 10,0,0,1,19,136\r\n", "PORT 10,0,0,1,19,136\r\n");
    let data = Talk::open_from(&twins, 2, (ip(SERVER), 20), (ip(CLIENT), 5000)).expect("it was announced");
    assert_eq!(data.client[1], (ip(OUTSIDE), 20));
}

#[test]
fn addresses_of_ipv6_are_translated() {
    let twins = Twins::new(SOURCE);
    let mut control = Talk::open(&twins, ("fd00::1", 4000), ("fd00::2", 21));
    control.greet();
    let heard = "EPRT |2|2001:db8::100|5000|\r\n";
    control.say(0, "EPRT |2|fd00::1|5000|\r\n", heard);
    control.say(1, "200 yes\r\n", "200 yes\r\n");
    let data = Talk::open_from(&twins, 2, (ip("fd00::2"), 20), (ip("2001:db8::100"), 5000));
    assert_eq!(data.expect("it was announced").server[1], (ip("fd00::1"), 5000));
    // The server says a port alone.
    let text = "229 Entering Extended Passive Mode (|||6000|)\r\n";
    control.say(1, text, text);
    let data = Talk::open_from(&twins, 1, (ip("fd00::1"), 4001), (ip("fd00::2"), 6000));
    assert_eq!(data.expect("it was announced").client[1], (ip("2001:db8::100"), 4001));
}

#[test]
fn tcx_translates_likewise() {
    let twins = Twins::by_tcx(SOURCE);
    let mut control = Talk::open(&twins, (CLIENT, 4000), (SERVER, 21));
    control.greet();
    for said in
        ["NOOP\r\nPORT 10,0,0,1,19,136\r\nNLST\r\n", "NOOP\r\nPORT 010,000,000,001,019,136\r\nNLST\r\n"]
    {
        control.say(0, said, "NOOP\r\nPORT 192,0,2,100,19,136\r\nNLST\r\n");
        control.say(1, "200 yes\r\n", "200 yes\r\n");
        let mut segment = control.segment(1, b"");
        let sent = control.seen[1];
        segment.options =
            [&[1, 1, 5, 10][..], &sent.to_be_bytes(), &sent.wrapping_add(9).to_be_bytes()].concat();
        let seen = control.pass(&segment, 1);
        assert_eq!(seen.options[4..8], control.seq[0].to_be_bytes());
        let data = Talk::open_from(&twins, 2, (ip(SERVER), 2000 + said.len() as u16), (ip(OUTSIDE), 5000));
        assert_eq!(data.expect(said).server[1], (ip(CLIENT), 5000));
    }
}

#[test]
fn two_clients_that_announce_one_port_get_two() {
    let twins = Twins::new(SOURCE);
    let mut first = Talk::open(&twins, (CLIENT, 4000), (SERVER, 21));
    let mut second = Talk::open(&twins, (CLIENT, 4001), (SERVER, 21));
    first.greet();
    second.greet();
    first.say(0, "PORT 10,0,0,1,19,136\r\n", "PORT 192,0,2,100,19,136\r\n");
    second.say(0, "PORT 10,0,0,1,19,136\r\n", "PORT 192,0,2,100,19,137\r\n");
    let data = Talk::open_from(&twins, 2, (ip(SERVER), 20), (ip(OUTSIDE), 5001)).expect("it was announced");
    assert_eq!(data.server[1], (ip(CLIENT), 5000));
}

#[test]
fn what_a_request_asks_for_comes_from_any_port() {
    for (flows, seen) in [(PLAIN, (ip(CLIENT), 3000)), (SOURCE, (ip(OUTSIDE), 4000))] {
        let twins = Twins::new(flows);
        let datagram = |src, dst, payload: &[u8]| Segment {
            protocol: 17,
            src,
            dst,
            flags: 0,
            seq: 0,
            ack: 0,
            options: Vec::new(),
            payload: payload.to_vec(),
        };
        let (client, server) = ((ip(CLIENT), 3000), (ip(SERVER), 69));
        let request = datagram(client, server, b"\0\x01file\0octet\0");
        let passed = twins.passed(1, &request.frame());
        assert_eq!(Segment::read(&passed[0]).src, seen);
        let answer = datagram((ip(SERVER), 7777), seen, b"\0\x03\0\x01data");
        let passed = twins.passed(2, &answer.frame());
        assert_eq!(Segment::read(passed.first().expect("it was announced")).dst, client);
        let acknowledgment = datagram(client, (ip(SERVER), 7777), b"\0\x04\0\x01");
        let passed = twins.passed(1, &acknowledgment.frame());
        assert_eq!(Segment::read(passed.first().expect("it is established")).src, seen);
        // Anything else is not asked for.
        let other = datagram((ip(SERVER), 7778), seen, b"\0\x03\0\x01data");
        assert!(twins.passed(2, &other.frame()).is_empty());
    }
}

/// What one end of a control connection may say.
const SAYINGS: [&str; 12] = [
    "USER me\r\n",
    "PORT 10,0,0,1,19,136\r\n",
    "PORT 10,0,0,1,7,",
    "EPRT |1|10.0.0.1|5000|\r\n",
    "EPRT |1|10.0.0.9|5000|\r\n",
    "NOOP\r\nPORT 10,0,0,1,255,255\r\nEPRT |1|10.0.0.1|65534|\r\n",
    "227 Entering Passive Mode (10,0,0,2,19,136).\r\n",
    "227 Entering Passive Mode 10,0,0,2,999,1\r\n",
    "229 Entering Extended Passive Mode (|||5000|)\r\n",
    "200 anything",
    "\r\n",
    "",
];

/// Segments in any order, again, cut, damaged and quoted by errors: the kernel makes of them what the host does.
#[test]
fn any_talk_comes_to_the_same_on_the_host() {
    for (flows, by_tcx) in [(PLAIN, false), (SOURCE, false), (DESTINATION, false), (SOURCE, true)] {
        let twins = if by_tcx { Twins::by_tcx(flows) } else { Twins::new(flows) };
        let called = if flows == DESTINATION { OUTSIDE } else { SERVER };
        // An end, what it says, how far it steps back or ahead first, what of it is cut, and one byte of damage.
        let step = (
            0usize..2,
            prop::sample::select(&SAYINGS[..]),
            prop_oneof![6 => Just(0i32), 3 => -40i32..0, 1 => 1..10i32],
            prop_oneof![9 => Just(0usize), 1 => 0usize..20],
            prop::option::weighted(0.2, any::<(u8, u8)>()),
        );
        // No shrinking: twins that have come apart stay so.
        let config =
            Config { cases: 60, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
        let port = std::cell::Cell::new(4000);
        TestRunner::new(config)
            .run(&prop::collection::vec(step, 1..14), |steps| {
                while !twins.connections().is_empty() {
                    twins.forget(0);
                }
                assert_eq!(twins.expectations(), 0);
                port.set(port.get() + 1);
                let mut talk = Talk::open(&twins, (CLIENT, port.get()), (called, 21));
                for (from, said, back, cut, damage) in steps {
                    let mut segment = talk.segment(from, said.as_bytes());
                    segment.seq = segment.seq.wrapping_add_signed(back);
                    let mut frame = segment.frame();
                    if let Some((at, byte)) = damage {
                        let at = 14 + usize::from(at) % (frame.len() - 14);
                        frame[at] = byte;
                    }
                    frame.truncate(frame.len() - cut);
                    for out in twins.passed(talk.port(from), &frame) {
                        twins.passed(talk.port(1 - from), &time_exceeded(&out, Reporter::Router, 60));
                        let heard = Segment::read(&out);
                        let end = heard.seq.wrapping_add(heard.payload.len() as u32);
                        talk.seen[1 - from] = end;
                    }
                    if back == 0 {
                        talk.seq[from] = talk.seq[from].wrapping_add(said.len() as u32);
                    }
                    // Whoever is called may answer; nobody else may call.
                    let data = if from == 0 { (2, SERVER, OUTSIDE) } else { (1, CLIENT, called) };
                    let to = if flows == SOURCE || from == 1 { data.2 } else { CLIENT };
                    Talk::open_from(&twins, data.0, (ip(data.1), 20), (ip(to), 5000));
                }
                Ok(())
            })
            .unwrap();
    }
}
