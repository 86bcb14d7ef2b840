//! The kernel's programs against the host's build of the same pipeline. Needs root.

use conntrack_core::protocol;
use ofctl::flow::Command;
use ofctl::port::NoNames;
use ofctl::syntax::parse_flow;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use switchd::datapath::host::{Arrival, Frame, Memory};
use switchd::datapath::{FlowTables, Ran, Sizes, clock};
use switchd::hooks::Hooks as _;
use switchd::rules::{RuleId, Rules};
use switchd_ebpf::conntrack::{self, Connections as _, End};
use switchd_ebpf::drop_reason::DropReason;
use switchd_ebpf::key::Key;
use switchd_ebpf::layout::{Record, life};
use switchd_ebpf::parse::{Layout, parse};

use crate::frames::{self, Ip, Reporter, flags};
use crate::switch::{BRIDGE, Switch, action, tc_action};

/// The kernel's datapath and the host's, with the same flows.
pub struct Twins {
    switch: Switch,
    memory: FlowTables<Memory>,
    rules: Vec<(RuleId, RuleId, String)>,
    by_tcx: bool,
}

impl Twins {
    /// Both, with three ports.
    pub fn new(flows: &[&str]) -> Self {
        Self::build(flows, false)
    }

    /// The same, where flows see the ports of fragments.
    pub fn showing_fragments(flows: &[&str]) -> Self {
        Self::build(flows, true)
    }

    fn build(flows: &[&str], show_fragments: bool) -> Self {
        let sizes = Sizes { flows: 64, connections: 32 };
        let mut switch = Switch::new(sizes, 3);
        let mut memory = Memory::new(sizes);
        if show_fragments {
            switch.datapath.ports.show_fragments(BRIDGE, true);
            memory.show_fragments(BRIDGE);
        }
        memory.set_ports(BRIDGE, vec![1, 2, 3]);
        let mut memory = FlowTables::new(memory);
        let mut rules = Vec::new();
        for text in flows {
            let flow = parse_flow(text, Command::Add, &NoNames).expect(text);
            let table = flow.table.unwrap_or(0);
            let kernel = &mut switch.datapath.tables;
            let real = kernel.add(BRIDGE, table, flow.priority, &flow.matching, &flow.actions).unwrap();
            let twin = memory.add(BRIDGE, table, flow.priority, &flow.matching, &flow.actions).unwrap();
            rules.push((real, twin, (*text).to_owned()));
        }
        switch.datapath.tables.commit();
        memory.commit();
        Self { switch, memory, rules, by_tcx: false }
    }

    /// The same, where frames that are to pass come in by tcx.
    pub fn by_tcx(flows: &[&str]) -> Self {
        Self { by_tcx: true, ..Self::new(flows) }
    }

    /// Has a frame come in on a port of both, by XDP, and compares all that can be seen.
    fn send(&self, port: u16, frame: &[u8]) {
        if is_partial(port, frame) {
            self.send_past_xdp(port, frame);
            return;
        }
        let (ran, outputs) = self.compare(port, frame, Switch::run);
        match outputs.as_slice() {
            [] => assert_eq!(ran.action, action::DROP, "{frame:02x?}"),
            [(_, bytes)] => {
                assert_eq!(ran.action, action::REDIRECT, "{frame:02x?}");
                assert_eq!(&ran.frame, bytes, "what became of {frame:02x?}");
            }
            // tcx makes the copies; the frame gets there as it came.
            _ => {
                assert_eq!(ran.action, action::PASS, "{frame:02x?}");
                assert_eq!(ran.frame, frame);
            }
        }
    }

    /// What comes out of both for a frame.
    pub fn passed(&self, port: u16, frame: &[u8]) -> Vec<Vec<u8>> {
        if self.by_tcx {
            return self.passed_by_tcx(port, frame);
        }
        let (ran, outputs) = self.compare(port, frame, Switch::run);
        if let [(_, bytes)] = outputs.as_slice() {
            assert_eq!((ran.action, &ran.frame), (action::REDIRECT, bytes), "what became of {frame:02x?}");
        }
        outputs.into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// The ports by which both have a frame leave.
    pub fn leaves_by(&self, port: u16, frame: &[u8]) -> Vec<u16> {
        self.compare(port, frame, Switch::run).1.into_iter().map(|(port, _)| port).collect()
    }

    /// The connections of both.
    pub fn connections(&self) -> Vec<Record> {
        self.memory.store().live_connections(clock::now())
    }

    /// How many connections are expected.
    pub fn expectations(&self) -> usize {
        self.memory.store().connections().expectations()
    }

    /// Removes a connection of both, by its place among them.
    pub fn forget(&self, place: usize) {
        let tuple = self.connections()[place].tuples[0];
        assert_eq!(self.switch.datapath.connections.flush(|record| record.tuples[0] == tuple), 1);
        let memory = self.memory.store();
        let now = clock::now().as_nanos() as u64;
        let removed =
            (0..).map_while(|number| Some((number, memory.record(number)?))).filter(|(_, record)| {
                // SAFETY: nobody else accesses the table now.
                unsafe { record.as_ref().life & life::ALIVE != 0 && record.as_ref().tuples[0] == tuple }
            });
        for (number, record) in removed {
            // SAFETY: as above.
            let word = unsafe { record.as_ref().life };
            assert!(conntrack::remove(memory, record, number, word, now, End::Removed));
        }
    }

    /// The packets of each connection, in both directions.
    pub fn packets(&self) -> Vec<[u64; 2]> {
        self.connections().iter().map(|record| record.packets).collect()
    }

    /// Has a frame come in by XDP that is for tcx alone: XDP leaves no trace of it. The host, which is XDP's twin
    /// here, does not get it.
    fn send_past_xdp(&self, port: u16, frame: &[u8]) {
        let drops = self.switch.datapath.counters.drops();
        let ran = self.switch.run(port, frame);
        assert_eq!((ran.action, &ran.frame[..]), (action::PASS, frame), "{frame:02x?}");
        assert_eq!(self.switch.datapath.counters.drops(), drops, "drops of {frame:02x?}");
        self.compare_counters(frame);
        self.compare_connections(frame);
    }

    /// The same by tcx, which sends all but the last of several outputs by itself: one at most can be compared.
    fn passed_by_tcx(&self, port: u16, frame: &[u8]) -> Vec<Vec<u8>> {
        let (ran, outputs) = self.compare(port, frame, Switch::run_tcx);
        match outputs.as_slice() {
            [] => assert_eq!(ran.action, tc_action::SHOT, "{frame:02x?}"),
            [(_, bytes)] => {
                assert_eq!(ran.action, tc_action::REDIRECT, "{frame:02x?}");
                assert_eq!(&ran.frame, bytes, "what became of {frame:02x?}");
            }
            _ => panic!("these flows have one output: {frame:02x?}"),
        }
        outputs.into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// Has a frame come in on a port of both, and compares what is left behind. Returns what became of the frame.
    fn compare(
        &self,
        port: u16,
        frame: &[u8],
        run: impl Fn(&Switch, u16, &[u8]) -> Ran,
    ) -> (Ran, Vec<(u16, Vec<u8>)>) {
        let drops = self.switch.datapath.counters.drops();
        let ran = run(&self.switch, port, frame);
        let arrival = Arrival { bridge: BRIDGE, port, now: clock::now() };
        let outcome = self.memory.store().run(&arrival, frame);

        let dropped: Vec<(DropReason, u64)> = self
            .switch
            .datapath
            .counters
            .drops()
            .into_iter()
            .zip(drops)
            .map(|((reason, now), (_, before))| (reason, now - before))
            .filter(|&(_, count)| count != 0)
            .collect();
        assert_eq!(dropped, outcome.drops, "drops of {frame:02x?}");
        self.compare_counters(frame);
        self.compare_connections(frame);
        (ran, outcome.outputs)
    }

    fn compare_counters(&self, frame: &[u8]) {
        for (real, twin, text) in &self.rules {
            let (real, twin) = (self.switch.datapath.tables.stats(*real), self.memory.stats(*twin));
            assert_eq!((real.packets, real.bytes), (twin.packets, twin.bytes), "{text} after {frame:02x?}");
        }
        for table in 0..4 {
            let real = self.switch.datapath.tables.table_stats(BRIDGE, table);
            assert_eq!(real, self.memory.table_stats(BRIDGE, table), "table {table} after {frame:02x?}");
        }
    }

    fn compare_connections(&self, frame: &[u8]) {
        let real: Vec<Record> = self.switch.datapath.connections.iter().map(|(_, record)| record).collect();
        let twin = self.memory.store().live_connections(clock::now());
        assert_eq!(real.len(), twin.len(), "connections after {frame:02x?}");
        for (real, twin) in real.iter().zip(&twin) {
            let visible = |of: &Record| {
                let mut connection = of.connection;
                if connection.protocol == protocol::UDP {
                    connection.detail = connection.stream_ns().saturating_sub(of.created);
                }
                (of.tuples, connection, of.packets, of.bytes, of.mark, of.label, of.life)
            };
            assert_eq!(visible(real), visible(twin), "after {frame:02x?}");
            // The two ran one after the other.
            let apart = (real.expires - real.created).abs_diff(twin.expires - twin.created);
            assert!(apart < 1_000_000_000, "{apart} ns between {real:?} and {twin:?}");
        }
    }
}

/// Whether the transport checksum looks like one that a local sender leaves to the hardware. About one damaged frame
/// in 65,536 does by accident.
fn is_partial(port: u16, frame: &[u8]) -> bool {
    let mut layout = Layout::default();
    parse(&Frame::from(frame.to_vec()), port, &mut Key { ..Key::ZERO }, &mut layout);
    layout.partial != 0
}

const FLOWS: [&[&str]; 7] = [NOTHING, FIREWALL, COMMIT, REWRITE, TAGS, COPIES, GATEWAY];
/// Those with one output at most, and without VLAN tags, which tc keeps beside the bytes.
const SINGLE: [&[&str]; 5] = [NOTHING, FIREWALL, COMMIT, REWRITE, GATEWAY];

/// Nothing at all.
const NOTHING: &[&str] = &[];
/// A firewall: what host 0 begins may be answered.
const FIREWALL: &[&str] = &[
    "table=0,priority=0,actions=drop",
    "table=0,priority=10,arp,actions=3",
    "table=0,priority=50,ip,ct_state=-trk,actions=ct(table=1,zone=5)",
    "table=0,priority=50,ipv6,ct_state=-trk,actions=ct(table=1)",
    "table=1,priority=60,ct_state=+trk+inv,actions=drop",
    "table=1,priority=50,in_port=1,ct_state=+trk+new,ip,actions=ct(commit,zone=5,exec(set_field:0x7/0xf->ct_mark,set_field:0x1234->ct_label)),2",
    "table=1,priority=50,in_port=1,ct_state=+trk+new,ipv6,actions=ct(commit,exec(load:9->NXM_NX_CT_MARK[])),2",
    "table=1,priority=50,in_port=1,ct_state=+trk+est,actions=2",
    "table=1,priority=50,in_port=2,ct_state=+trk+est,ct_mark=7,actions=1",
    "table=1,priority=49,in_port=2,ct_state=+trk+est,actions=load:1->NXM_NX_REG3[],output:NXM_NX_REG3[]",
];
/// A gateway: hosts behind port 1 go out under one address, in one zone, and to another host than they say, in another.
const GATEWAY: &[&str] = &[
    "table=0,priority=50,in_port=1,ip,actions=ct(commit,zone=5,nat(src=192.0.2.1),table=1)",
    "table=0,priority=50,in_port=1,ipv6,actions=ct(commit,zone=5,nat(src=[2001:db8::1]:4000),table=1)",
    "table=1,priority=60,ct_state=+inv,actions=drop",
    "table=1,priority=50,ct_state=+snat,ip,actions=ct(commit,zone=6,nat(dst=198.51.100.7:81),table=2)",
    "table=1,priority=50,ct_state=+snat,ipv6,actions=ct(commit,zone=6,nat(dst=2001:db8::7),table=2)",
    "table=2,priority=50,ip,ct_state=+dnat,actions=ct(zone=6,table=3)",
    "table=2,priority=50,ipv6,ct_state=+dnat,actions=ct(zone=6,table=3)",
    "table=3,priority=50,ct_state=+dnat,ct_zone=6,actions=2",
    "table=0,priority=50,in_port=2,ip,actions=ct(zone=6,nat,table=10)",
    "table=0,priority=50,in_port=2,ipv6,actions=ct(zone=6,nat,table=10)",
    "table=10,priority=60,ip,ct_state=+snat,actions=ct(zone=5,nat,table=11)",
    "table=10,priority=60,ipv6,ct_state=+snat,actions=ct(zone=5,nat,table=11)",
    "table=11,priority=60,ct_state=+dnat+rpl,actions=1",
    "table=11,priority=0,actions=3",
];
/// Everything is committed, and a reply begins the connection anew.
const COMMIT: &[&str] =
    &["table=0,ip,actions=ct(commit,force,zone=in_port),2", "table=0,ipv6,actions=ct(commit,force),2"];
/// Every header is changed.
const REWRITE: &[&str] = &[
    "table=0,priority=9,tcp,actions=mod_dl_src:02:00:00:00:00:aa,mod_nw_src:192.0.2.1,mod_nw_dst:198.51.100.2,mod_tp_src:1,mod_tp_dst:65535,mod_nw_tos:184,dec_ttl,2",
    "table=0,priority=9,udp,actions=mod_nw_dst:198.51.100.2,mod_tp_dst:65535,2",
    "table=0,priority=9,icmp,actions=mod_nw_src:192.0.2.1,2",
    "table=0,priority=9,tcp6,actions=set_field:2001:db8::1->ipv6_src,set_field:2001:db8::9->ipv6_dst,mod_tp_dst:7,dec_ttl,2",
    "table=0,priority=9,udp6,actions=set_field:2001:db8::1->ipv6_src,mod_tp_src:9,mod_nw_tos:4,2",
    "table=0,priority=9,icmp6,actions=set_field:2001:db8::9->ipv6_dst,2",
    "table=0,priority=10,icmp6,icmp_type=135,icmp_code=0,actions=set_field:2001:db8::5->nd_target,set_field:02:00:00:00:00:bb->nd_sll,2",
    "table=0,priority=9,arp,actions=set_field:2->arp_op,move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],set_field:10.0.0.9->arp_spa,mod_dl_dst:02:00:00:00:00:cc,2",
    "table=0,priority=0,actions=2",
];
/// Tags come and go.
const TAGS: &[&str] = &[
    "table=0,priority=9,dl_vlan=5,actions=strip_vlan,2",
    "table=0,priority=9,dl_vlan=9,actions=mod_vlan_vid:10,mod_vlan_pcp:6,2",
    "table=0,priority=5,tcp,actions=mod_vlan_vid:5,mod_nw_dst:192.0.2.9,2",
    "table=0,priority=5,udp,actions=push_vlan:0x8100,set_field:4100->vlan_vid,2",
    "table=0,priority=0,actions=normal",
];
/// Tables, copies, and what is refused.
const COPIES: &[&str] = &[
    "table=0,priority=9,tcp,actions=resubmit(,2),resubmit(2,3),dec_ttl,3",
    "table=0,priority=9,udp,actions=clone(mod_nw_dst:1.2.3.4,2),goto_table:3",
    "table=0,priority=9,icmp,actions=in_port",
    "table=0,priority=9,icmp6,actions=resubmit(,0)",
    "table=0,priority=9,sctp,actions=9",
    "table=0,priority=9,arp,actions=1,2",
    "table=0,priority=8,ip,nw_proto=47,actions=flood",
    "table=2,priority=1,tcp,tcp_flags=+syn,actions=mod_tp_dst:81,2",
    "table=3,priority=1,tcp,in_port=2,actions=move:NXM_OF_TCP_SRC[]->NXM_NX_REG0[0..15],load:0xffff->NXM_NX_REG0[16..31]",
    "table=3,priority=1,udp,actions=1",
];

#[test]
fn a_corpus_of_frames_comes_to_the_same_on_the_host() {
    for flows in FLOWS {
        let twins = Twins::new(flows);
        for _ in 0..2 {
            for frame in frames::corpus() {
                twins.send(1, &frame);
                twins.send(2, &frame);
            }
        }
    }
}

#[test]
fn the_corpus_comes_to_the_same_by_tcx() {
    for flows in SINGLE {
        let twins = Twins::new(flows);
        for frame in frames::corpus() {
            twins.passed_by_tcx(1, &frame);
            twins.passed_by_tcx(2, &frame);
        }
    }
}

#[test]
fn damaged_frames_come_to_the_same_on_the_host() {
    let corpus = frames::corpus();
    for flows in FLOWS {
        let twins = Twins::new(flows);
        let frame = (prop::sample::select(corpus.clone()), prop::collection::vec(any::<(u8, u8)>(), 0..4));
        let cut = prop_oneof![3 => Just(usize::MAX), 1 => 14usize..90];
        // No shrinking: counters and connections that have come apart stay so, and every frame would seem to fail.
        let config =
            Config { cases: 400, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new(config);
        runner
            .run(&(1u16..4, frame, cut), |(port, (mut frame, damage), cut)| {
                frame.truncate(cut);
                for (at, byte) in damage {
                    let at = usize::from(at) % frame.len();
                    frame[at] = byte;
                }
                twins.send(port, &frame);
                Ok(())
            })
            .unwrap();
    }
}

/// A frame with all ones for zeros: so a checksum of zero is the same both ways of writing it.
fn zeros(frame: &[u8]) -> Vec<u8> {
    frame.iter().map(|&byte| if byte == 0xff { 0 } else { byte }).collect()
}

/// What went out under other addresses comes back to its sender, by both hooks.
#[test]
fn answers_to_translated_frames_find_their_way_back() {
    for by_tcx in [false, true] {
        let twins = Twins::new(GATEWAY);
        let mut answered = 0;
        for frame in frames::corpus().into_iter().filter(|frame| !is_partial(1, frame)) {
            let run = if by_tcx { Switch::run_tcx } else { Switch::run };
            let (_, outputs) = twins.compare(1, &frame, run);
            let [(2, out)] = outputs.as_slice() else { continue };
            let Some(answer) = frames::answer(out) else { continue };
            let (_, outputs) = twins.compare(2, &answer, run);
            let [(1, back)] = outputs.as_slice() else {
                panic!("{out:02x?} was not answered by {answer:02x?}")
            };
            let expected = frames::answer(&frame).unwrap_or_default();
            assert_eq!(zeros(back), zeros(&expected), "the answer {answer:02x?}");
            answered += 1;
            // An error about it, too, and what it quotes is again what was sent.
            for quoted in [48, 1500] {
                let error = frames::time_exceeded(out, Reporter::Router, quoted);
                let (ran, outputs) = twins.compare(2, &error, run);
                let [(1, back)] = outputs.as_slice() else { panic!("{error:02x?} is not passed on") };
                assert_eq!(&ran.frame, back, "what became of {error:02x?}");
                // As in Linux, nobody but the translated destination shows behind its translation.
                let expected = frames::time_exceeded(&frame, Reporter::Destination, quoted);
                assert_eq!(zeros(back), zeros(&expected), "the error {error:02x?}");
            }
        }
        assert!(answered >= 8, "{answered} frames were answered");
    }
}

/// Extension headers by their numbers, each with what follows the number of the next one.
mod extensions {
    pub type Extension = (u8, &'static [u8]);

    /// Eight bytes that say nothing.
    pub const HOP_BY_HOP: Extension = (0, &[0, 1, 4, 0, 0, 0, 0]);
    /// Sixteen.
    pub const DESTINATION: Extension = (60, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    /// With no segments left.
    pub const ROUTING: Extension = (43, &[0, 4, 0, 0, 0, 0, 0]);
    /// Its length counts in words of four bytes.
    pub const AUTHENTICATION: Extension = (51, &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
    pub const ATOMIC_FRAGMENT: Extension = (44, &[0, 0, 0, 0, 0, 0, 9]);
    pub const NO_NEXT_HEADER: Extension = (59, &[0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn errors_about_packets_with_extension_headers_find_their_connections() {
    use extensions::{ATOMIC_FRAGMENT, AUTHENTICATION, DESTINATION, HOP_BY_HOP, ROUTING};
    let rows: [&[_]; 7] = [
        &[HOP_BY_HOP],
        &[DESTINATION],
        &[ROUTING],
        &[AUTHENTICATION],
        &[ATOMIC_FRAGMENT],
        &[HOP_BY_HOP, DESTINATION, ROUTING, ATOMIC_FRAGMENT, DESTINATION],
        &[HOP_BY_HOP; 8],
    ];
    let payload = [7; 40];
    let sent = [
        frames::tcp(Ip::V6, 0, 4, flags::SYN, 1, 0, &payload),
        frames::udp(Ip::V6, 0, 4, &payload),
        frames::echo(Ip::V6, 0, 77),
    ];
    // Each with the length of its extension headers.
    let first_fragments =
        sent[..2].iter().enumerate().map(|(id, frame)| (frames::fragment(frame, id as u16, 0, 32), 8));
    let mut cases: Vec<_> = first_fragments.collect();
    for row in rows {
        let len = row.iter().map(|(_, body)| body.len() + 1).sum::<usize>();
        cases.extend(sent.iter().map(|frame| (frames::with_extensions(frame, row), len)));
    }
    for by_tcx in [false, true] {
        let run = if by_tcx { Switch::run_tcx } else { Switch::run };
        let twins = Twins::new(GATEWAY);
        for (frame, len) in &cases {
            let (_, outputs) = twins.compare(1, frame, run);
            let [(2, out)] = outputs.as_slice() else { panic!("{frame:02x?} is not passed on") };
            let shortest = 40 + len + 8;
            for quoted in [shortest, 1500] {
                let error = frames::time_exceeded(out, Reporter::Router, quoted);
                let (ran, outputs) = twins.compare(2, &error, run);
                let [(1, back)] = outputs.as_slice() else { panic!("{error:02x?} is not passed on") };
                assert_eq!(&ran.frame, back, "what became of {error:02x?}");
                let expected = frames::time_exceeded(frame, Reporter::Destination, quoted);
                assert_eq!(zeros(back), zeros(&expected), "the error {error:02x?}");
            }
            let cut = frames::time_exceeded(out, Reporter::Router, shortest - 1);
            assert_eq!(twins.compare(2, &cut, run).1, [], "{cut:02x?} quotes too little");
        }
    }
}

#[test]
fn errors_about_packets_without_a_transport_header_find_no_connection() {
    use extensions::{DESTINATION, HOP_BY_HOP, NO_NEXT_HEADER};
    let twins = Twins::new(GATEWAY);
    let frame = frames::udp(Ip::V6, 0, 4, &[7; 40]);
    let (_, outputs) = twins.compare(1, &frame, Switch::run);
    let [(2, out)] = outputs.as_slice() else { panic!("{frame:02x?} is not passed on") };
    let known = frames::with_extensions(out, &[DESTINATION]);
    // Behind the end of a header that claims to be longer than the packet there is none either.
    let mut overlong = known.clone();
    overlong[55] = 255;
    for quoted in [
        frames::fragment(out, 7, 8, 16),
        frames::fragment(&known, 8, 16, 16),
        frames::with_extensions(out, &[HOP_BY_HOP, NO_NEXT_HEADER]),
        frames::with_extensions(out, &[HOP_BY_HOP; 9]),
        overlong,
    ] {
        let error = frames::time_exceeded(&quoted, Reporter::Router, 1500);
        assert_eq!(twins.compare(2, &error, Switch::run).1, [], "{error:02x?}");
    }
    let error = frames::time_exceeded(&known, Reporter::Router, 1500);
    assert_eq!(twins.compare(2, &error, Switch::run).1.len(), 1, "the connection is there");
}

/// A frame of a local sender that leaves the checksum to the hardware holds the pseudo header's sum.
#[test]
fn a_frame_without_its_checksum_is_left_to_tcx_untouched_and_uncounted() {
    let twins = Twins::new(&["table=0,actions=2"]);
    let mut frame = frames::tcp(Ip::V4, 0, 1, flags::SYN, 1, 0, b"");
    let sum = [10u32 << 8, 1, 10 << 8, 2, 6, 20].iter().sum::<u32>() as u16;
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    let ran = twins.switch.run(1, &frame);
    assert_eq!((ran.action, ran.frame), (action::PASS, frame));
    assert_eq!(twins.switch.datapath.tables.stats(twins.rules[0].0).packets, 0);
    assert_eq!(twins.switch.datapath.counters.drops().iter().map(|(_, count)| count).sum::<u64>(), 0);
}

#[test]
fn a_frame_of_a_device_that_is_no_port_is_dropped() {
    let twins = Twins::new(&["table=0,actions=2"]);
    let ran = twins.switch.run_on_device(1, &frames::arp());
    assert_eq!(ran.action, action::DROP);
    let drops = twins.switch.datapath.counters.drops();
    assert!(drops.contains(&(DropReason::NotAPort, 1)), "{drops:?}");
}

/// What the verifier went through when this was written, and 15 % more. It gives up at a million, and other kernels
/// need more.
const CEILINGS: [(&str, u32); 3] = [("switch_xdp", 340_000), ("switch_tcx", 255_000), ("reap", 800)];

#[test]
fn clones_are_nested_so_deep_and_no_deeper() {
    for (depth, ports) in [(16, &[2, 3][..]), (17, &[])] {
        let clone = |table: u8| format!("clone(mod_nw_tos:{},resubmit(,{}))", 4 * table, table + 1);
        let mut flows =
            vec![format!("table=0,ip,actions={},3", clone(0)), format!("table={depth},actions=2")];
        flows.extend((1..depth).map(|table| format!("table={table},ip,actions={}", clone(table))));
        let twins = Twins::new(&flows.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(twins.leaves_by(1, &frames::udp(Ip::V4, 0, 1, b"")), ports, "{depth} deep");
    }
}

/// `ct_state` has 32 bits, of which eight can ever be set.
#[test]
fn bits_that_a_field_never_has_are_moved_as_zeros() {
    let twins = Twins::new(&[
        "ip,actions=load:0xffffffff->NXM_NX_REG0[],move:NXM_NX_CT_STATE[]->NXM_NX_REG0[],load:2->NXM_NX_REG0[0..7],output:NXM_NX_REG0[]",
    ]);
    assert_eq!(twins.leaves_by(1, &frames::udp(Ip::V4, 0, 1, b"")), [2]);
}

/// As in OVS, where the copy recirculates at once.
#[test]
fn the_copy_of_a_ct_comes_before_the_actions_behind_it() {
    let twins = Twins::new(&[
        "table=0,priority=9,ip,actions=resubmit(,1),output:2",
        "table=1,ip,actions=ct(table=2),ct(commit,exec(set_field:1->ct_mark)),output:3",
        "table=2,ip,ct_state=+new,actions=ct(commit,exec(set_field:2->ct_mark),table=3),output:3",
        "table=2,ip,ct_state=+est,actions=output:2",
        "table=3,ip,ct_mark=2,actions=output:2",
    ]);
    let order = twins.leaves_by(1, &frames::udp(Ip::V4, 0, 1, b"first"));
    assert_eq!(
        order,
        [2, 3, 3, 2],
        "the copy of the copy, the copy, the packet's inner list and its outer one"
    );
    let marks: Vec<u32> = twins.connections().iter().map(|record| record.mark).collect();
    assert_eq!(marks, [1], "the packet's own commit is the last");
}

#[test]
fn the_verifier_needs_no_more_steps_than_allowed() {
    let switch = Switch::new(Sizes { flows: 16, connections: 16 }, 0);
    for (name, ceiling) in CEILINGS {
        let (_, steps) = switch.verified.iter().find(|(program, _)| *program == name).unwrap();
        assert!((1..ceiling).contains(steps), "{name}: {steps} steps, {ceiling} allowed");
    }
}
