//! The pipeline: from a parsed packet to the list of what leaves where.
//!
//! A [`Machine`] runs one packet. Actions change only its key; the packet's bytes are left alone until an
//! output is carried out, which is the hook's business (see [`crate::rewrite`]). So one run can yield several
//! differing copies, and a run can be replayed on the host.
//!
//! The outer loop is one small step, repeated: the look-up of a table, one action, or a [`stage`] of connection
//! tracking. The verifier checks each once, however long pipelines get, and whatever came before: what passes
//! from step to step lies in the machine, where the verifier knows nothing about it.

use core::ffi::c_void;

use conntrack_core::nat::Range;

use crate::classify;
use crate::conntrack::{self, Connections, Last};
use crate::drop_reason::DropReason;
use crate::key::{HEADER_WORDS, Key, WORDS};
use crate::layout::{Op, Probe, RuleRef, op};
use crate::normal;
use crate::packet::Packet;
use crate::parse::{Layout, eth_type};
use crate::tables::Tables;

/// Nested resubmits, as OVS's MAX_DEPTH.
pub const MAX_DEPTH: usize = 64;
/// Resubmits of one packet, as OVS's MAX_RESUBMITS.
pub const MAX_RESUBMITS: u32 = 4096;
/// Times that a packet may go through `ct(table=N)`, as OVS's MAX_RECIRC_DEPTH.
pub const MAX_RECIRCULATIONS: u32 = 6;
/// Actions and look-ups of one packet.
pub const MAX_STEPS: u32 = 16384;
/// Copies waiting to go on behind a `ct(table=N)`.
pub const MAX_FORKS: usize = 8;
/// Nested clones.
pub const MAX_CLONES: usize = 4;
/// Outputs of one packet.
pub const MAX_OUTPUTS: usize = 64;
/// Differing copies of one packet.
pub const MAX_COPIES: usize = 16;

/// The reserved ports of OpenFlow 1.0 that the datapath knows.
pub mod port {
    /// From here on no port of a device has the number (OFPP_MAX).
    pub const FIRST_RESERVED: u16 = 0xff00;
    /// The port of entry.
    pub const IN_PORT: u16 = 0xfff8;
    /// MAC learning.
    pub const NORMAL: u16 = 0xfffa;
    /// All ports but the port of entry.
    pub const FLOOD: u16 = 0xfffb;
    /// All ports but the port of entry.
    pub const ALL: u16 = 0xfffc;
}

/// What the next step is.
pub mod stage {
    /// The look-up of a table.
    pub const LOOK_UP: u32 = 0;
    /// An action.
    pub const ACT: u32 = 1;
    /// Connection tracking: what the packet says.
    pub const EXAMINE: u32 = 2;
    /// Whether its checksum is right.
    pub const VERIFY: u32 = 3;
    /// The connection that it belongs to.
    pub const CONNECT: u32 = 4;
    /// The connection that it starts.
    pub const START: u32 = 5;
    /// That connection's record.
    pub const COMMIT: u32 = 6;
    /// The end of connection tracking, and the packet's way on.
    pub const TRACKED: u32 = 7;
    /// The checksum of a packet that is not in one piece; between `VERIFY` and `CONNECT`.
    pub const SUM: u32 = 8;
    /// Connection tracking of a packet that has been through the zone before; in the place of `EXAMINE` and `VERIFY`.
    pub const RESUME: u32 = 9;
    /// The tuples of the connection that the packet starts; behind `COMMIT`.
    pub const CLAIM: u32 = 10;
    /// The connection that an ICMP error is related to; in the place of `CONNECT`.
    pub const RELATE: u32 = 11;
    /// The translation of the packet that it quotes; behind `RELATE`.
    pub const QUOTE: u32 = 12;
    /// The packet that an ICMP error quotes; before `RELATE`.
    pub const READ_QUOTE: u32 = 13;
    /// Where a fragment belongs; from `EXAMINE`.
    pub const FRAGMENT: u32 = 14;
    /// Whether it fits the others of its datagram. A first fragment goes on in `EXAMINE`, later ones in `FOLLOW`.
    pub const ASSEMBLE: u32 = 15;
    /// The connection of a later fragment; in the place of `CONNECT`.
    pub const FOLLOW: u32 = 16;
    /// What a first fragment was told, for the others; from `TRACKED` and back.
    pub const CONCLUDE: u32 = 17;
    /// The chunks of an SCTP packet; in the place of `VERIFY`.
    pub const CHUNKS: u32 = 18;
    /// Its checksum; behind `CHUNKS`.
    pub const CRC: u32 = 19;
    /// What the packet's connection is found by; between `EXAMINE` and `VERIFY`.
    pub const TUPLES: u32 = 20;
    /// The numbers of a segment whose connection's text was changed; from `CONNECT` and back.
    pub const ADJUST: u32 = 21;
    /// What a packet of a connection with a helper announces; behind `CONNECT` or `CLAIM`.
    pub const HELP: u32 = 22;
    /// The edges of its SACK blocks; from `HELP` and back.
    pub const ADJUST_SACK: u32 = 23;
    /// What it says; behind `HELP`.
    pub const READ_TEXT: u32 = 24;
    /// The connection that it announces; behind `HELP` or `READ_TEXT`.
    pub const EXPECT: u32 = 25;
    /// What it is to say instead; behind `EXPECT`.
    pub const REPLACE: u32 = 26;
    /// Whether the connection that the packet starts is expected; between `START` and `COMMIT`.
    pub const RECOGNISE: u32 = 27;
    /// What an expected connection shows of its parent; behind `CONNECT` or `CLAIM`.
    pub const INHERIT: u32 = 28;
}

/// The header words of a key.
pub type Headers = [u64; HEADER_WORDS];

/// One output: a port's OpenFlow number ([`port::FLOOD`] and [`port::ALL`] included), and which copy it gets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The port.
    pub port: u16,
    /// Index into [`Effects::copies`].
    pub copy: u16,
}

/// What a run comes to.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Effects {
    /// Outputs that there are.
    pub n_outputs: u32,
    /// Copies that are complete. The next one is the machine's present headers.
    pub n_copies: u32,
    /// The outputs, in order.
    pub outputs: [Output; MAX_OUTPUTS],
    /// The headers of each copy.
    pub copies: [Headers; MAX_COPIES],
}

/// A copy of the packet that goes on behind a `ct(table=N)`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Fork {
    /// Its key.
    pub key: Key,
    /// The table it goes on in.
    pub table: u32,
    /// How often it has been through `ct(table=N)`.
    pub recirculations: u32,
    /// What it knows from its last `ct`.
    pub last: Last,
}

/// What the next `ct` writes to its connection.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct ConnectionWrite {
    /// The mark.
    pub mark: u64,
    /// The bits of it.
    pub mark_mask: u64,
    /// The label, high half first.
    pub label: [u64; 2],
    /// The bits of it.
    pub label_mask: [u64; 2],
}

/// One packet's run. Too large for a BPF stack: it lives in a per-CPU map.
#[repr(C)]
pub struct Machine {
    /// The key as the packet's current branch sees it.
    pub key: Key,
    /// The headers as they are in the packet, once they have changed in the key: see [`Machine::wire`].
    pub wire: Headers,
    /// Where they are.
    pub layout: Layout,
    /// The headers that the packet is to get, while it is rewritten.
    pub target: Headers,
    /// Nanoseconds of the coarse monotonic clock.
    pub now: u64,
    /// The version of the flow tables that this packet sees.
    pub version: u64,
    /// The packet's length.
    pub len: u32,
    /// Its bridge.
    pub bridge: u32,

    /// The next step: one of [`stage`].
    pub stage: u32,
    /// The next action.
    pub pc: u32,
    /// The table to look up.
    pub table: u32,
    /// The port of entry for that look-up alone, or [`op::NO_PORT`].
    pub lookup_port: u32,
    /// Resubmits so far.
    pub resubmits: u32,
    /// How often this branch has been through `ct(table=N)`.
    pub recirculations: u32,
    /// Frames in use.
    pub depth: u32,
    /// Keys kept by clones.
    pub n_clones: u32,
    /// Forks taken, and forks made.
    pub next_fork: u32,
    /// See `next_fork`.
    pub n_forks: u32,
    /// An output refers to the present headers: they must be kept before they change.
    pub headers_used: u32,
    /// Not 0: the headers may have changed since they were parsed.
    pub headers_changed: u32,
    /// The run is over.
    pub done: u32,
    /// Why a packet without output is dropped, plus one.
    pub reason: u32,

    /// The classifier's search: the next node, the next entry, the present subtable's width, what was found, and the
    /// masked key.
    pub node: u32,
    /// See `node`.
    pub entry: u32,
    /// See `node`.
    pub width: u32,
    /// See `node`.
    pub best: RuleRef,
    /// See `node`.
    pub probe: Probe,

    /// What `exec` has gathered.
    pub write: ConnectionWrite,
    /// What `nat` of the next `ct` may translate to.
    pub nat: Range,
    /// Connection tracking's workspace.
    pub track: conntrack::Scratch,
    /// What this branch knows from its last `ct`.
    pub last: Last,

    /// Where resubmits return to.
    pub frames: [u32; MAX_DEPTH],
    /// Keys kept by clones.
    pub clones: [Key; MAX_CLONES],
    /// Copies that wait to go on.
    pub forks: [Fork; MAX_FORKS],
    /// What the run comes to.
    pub effects: Effects,
}

/// The loop body as both the kernel's `bpf_loop` and the host call it: ends the loop by returning 1.
pub type Body = extern "C" fn(u64, *mut c_void) -> i64;

/// A run in its hook.
pub struct Run<'a, P, D> {
    /// The packet.
    pub packet: P,
    /// The maps.
    pub datapath: &'a D,
    /// The state.
    pub machine: &'a mut Machine,
}

impl Machine {
    /// Makes ready for a packet that was parsed into `key` and `layout`, at the start of table 0.
    #[inline(always)]
    pub fn start(&mut self, bridge: u32, len: u32, now: u64, version: u64) {
        self.now = now;
        self.version = version;
        self.len = len;
        self.bridge = bridge;
        self.stage = stage::LOOK_UP;
        self.pc = 0;
        self.table = 0;
        self.lookup_port = op::NO_PORT;
        self.resubmits = 0;
        self.recirculations = 0;
        self.depth = 0;
        self.n_clones = 0;
        self.next_fork = 0;
        self.n_forks = 0;
        self.headers_used = 0;
        self.headers_changed = 0;
        self.done = 0;
        self.reason = 0;
        self.write = ConnectionWrite::default();
        self.last.zone = 0;
        self.effects.n_outputs = 0;
        self.effects.n_copies = 0;
    }

    /// The headers as they are in the packet. Most packets leave with them, and need no copy.
    #[inline(always)]
    #[must_use]
    pub fn wire(&self) -> &Headers {
        if self.headers_changed == 0 { self.key.headers() } else { &self.wire }
    }

    /// To be called before header words change: keeps the present ones for the outputs that refer to them, and the
    /// first ones of all.
    #[inline(always)]
    pub fn before_headers_change(&mut self) {
        if self.headers_changed == 0 {
            self.headers_changed = 1;
            copy_headers(&mut self.wire, self.key.headers());
        }
        if self.headers_used == 0 {
            return;
        }
        self.headers_used = 0;
        let n = self.effects.n_copies as usize;
        let Some(copy) = self.effects.copies.get_mut(n) else { return };
        copy_headers(copy, self.key.headers());
        self.effects.n_copies += 1;
    }

    /// The OpenFlow number of the port of entry, as actions see it.
    #[inline(always)]
    #[must_use]
    pub fn in_port(&self) -> u16 {
        self.key.words[0] as u16
    }

    /// Ends the present list of actions.
    #[inline(always)]
    fn end_list(&mut self) {
        if self.depth > 0 {
            self.depth -= 1;
            self.stage = stage::ACT;
            self.pc = self.frames[(self.depth as usize) & (MAX_DEPTH - 1)];
        } else {
            self.end_branch();
        }
    }

    /// Ends the present branch: the next fork goes on, if there is one.
    #[inline(always)]
    pub fn end_branch(&mut self) {
        if self.next_fork >= self.n_forks {
            self.done = 1;
            return;
        }
        self.before_headers_change();
        let fork = &self.forks[(self.next_fork as usize) & (MAX_FORKS - 1)];
        copy_key(&mut self.key, &fork.key);
        self.stage = stage::LOOK_UP;
        self.table = fork.table;
        self.recirculations = fork.recirculations;
        self.last = fork.last;
        self.depth = 0;
        self.n_clones = 0;
        self.next_fork += 1;
    }
}

/// Copies headers word by word: `memcpy` would go byte by byte on BPF.
#[inline(always)]
pub fn copy_headers(to: &mut Headers, from: &Headers) {
    let mut i = 0;
    while i < HEADER_WORDS {
        to[i] = from[i];
        i += 1;
    }
}

/// Copies a key likewise.
#[inline(always)]
fn copy_key(to: &mut Key, from: &Key) {
    let mut i = 0;
    while i < WORDS {
        to.words[i] = from.words[i];
        i += 1;
    }
}

impl<P: Packet, D: Tables + Connections> Run<'_, P, D> {
    /// Runs the packet to its end. What it comes to is in the machine's `effects`.
    #[inline(always)]
    pub fn run(&mut self) {
        let datapath = self.datapath;
        datapath.repeat(MAX_STEPS, step::<P, D>, core::ptr::from_mut(self).cast());
        let machine = &mut *self.machine;
        if machine.done == 0 {
            self.datapath.dropped(DropReason::ActionLimit);
        } else if machine.effects.n_outputs == 0 {
            self.datapath.dropped_by_number(machine.reason.wrapping_sub(1));
        }
    }

    /// Whether a stage is the next. Read from memory, so that the verifier, which knows nothing of what is there,
    /// need not follow each way through a stage into the next one.
    #[inline(always)]
    fn is_at(&self, stage: u32) -> bool {
        // SAFETY: a reference is valid for reads.
        unsafe { core::ptr::read_volatile(&raw const self.machine.stage) == stage }
    }

    /// Notes why the packet will have been dropped, if nothing else comes of it.
    #[inline(always)]
    pub fn blame(&mut self, reason: DropReason) {
        self.machine.reason = reason as u32 + 1;
    }

    /// Adds an output of the present headers.
    #[inline(always)]
    pub fn output(&mut self, port: u16) {
        let machine = &mut *self.machine;
        let n = machine.effects.n_outputs as usize;
        let copy = machine.effects.n_copies;
        match machine.effects.outputs.get_mut(n) {
            Some(slot) if (copy as usize) < MAX_COPIES => {
                *slot = Output { port, copy: copy as u16 };
                machine.effects.n_outputs += 1;
                machine.headers_used = 1;
            }
            _ => self.datapath.dropped(DropReason::OutputLimit),
        }
    }

    /// An output as an action names it.
    #[inline(always)]
    fn output_to(&mut self, number: u16) {
        match number {
            port::IN_PORT => self.output(self.machine.in_port()),
            port::NORMAL => normal::forward(self),
            port::FLOOD | port::ALL => self.output(number),
            _ => self.output_to_device(number),
        }
    }

    /// An output to a port that stands for itself.
    #[inline(always)]
    fn output_to_device(&mut self, number: u16) {
        match number {
            _ if number == self.machine.in_port() => self.blame(DropReason::InputPort),
            // No port has such a number; LOCAL has no device.
            port::FIRST_RESERVED.. => self.blame(DropReason::NoSuchPort),
            _ => self.output(number),
        }
    }

    /// Looks up the present table.
    #[inline(always)]
    fn look_up(&mut self) {
        let own_port = self.machine.in_port();
        if self.machine.lookup_port != op::NO_PORT {
            self.machine.key.words[0] =
                self.machine.key.words[0] & !0xffff | u64::from(self.machine.lookup_port as u16);
        }
        classify::search(self);
        let machine = &mut *self.machine;
        machine.key.words[0] = machine.key.words[0] & !0xffff | u64::from(own_port);
        machine.lookup_port = op::NO_PORT;
        let hit = machine.best.rank != 0;
        self.datapath.looked_up(machine.bridge, machine.table, hit);
        if hit {
            self.datapath.hit(machine.best.rule, machine.len, machine.now);
            machine.reason = DropReason::Flow as u32 + 1;
            let ops = machine.best.ops;
            if ops & op::DIRECT == 0 {
                machine.stage = stage::ACT;
                machine.pc = ops;
            } else {
                self.output_to_device(ops as u16);
                self.machine.end_list();
            }
        } else {
            machine.reason = DropReason::NoMatch as u32 + 1;
            machine.end_list();
        }
    }

    /// Carries out the next action.
    #[inline(always)]
    fn next_action(&mut self) {
        let datapath = self.datapath;
        match datapath.op(self.machine.pc) {
            Some(op) => {
                self.machine.pc += 1;
                self.act(op);
            }
            None => self.machine.end_list(),
        }
        // The end of a list is no step of its own.
        if self.is_at(stage::ACT) && datapath.op(self.machine.pc).is_none_or(|next| next.code == op::END) {
            self.machine.end_list();
        }
    }

    /// Carries out one action.
    #[inline(always)]
    fn act(&mut self, op: &Op) {
        let a = usize::from(op.a) & (WORDS - 1);
        match op.code {
            op::SET => {
                let kind = (self.machine.key.words[0] >> 16) as u16;
                if op.b != 0 && op.b != kind {
                    return;
                }
                if a < HEADER_WORDS {
                    self.machine.before_headers_change();
                }
                let word = &mut self.machine.key.words[a];
                *word = *word & !op.mask | op.value;
            }
            op::MOVE => {
                let to = usize::from(op.b) & (WORDS - 1);
                if to < HEADER_WORDS {
                    self.machine.before_headers_change();
                }
                let (bits, mask) = moved(op, self.machine.key.words[a]);
                let word = &mut self.machine.key.words[to];
                *word = *word & !mask | bits;
            }
            op::OUTPUT => self.output_to(op.c as u16),
            op::OUTPUT_REG => {
                let number = self.machine.key.words[a] >> (op.b & 63) & op.mask;
                if number <= 0xffff {
                    self.output_to(number as u16);
                } else {
                    self.blame(DropReason::NoSuchPort);
                }
            }
            op::RESUBMIT => self.resubmit(u32::from(op.b), op.c),
            op::GOTO => {
                self.machine.table = u32::from(op.b);
                self.machine.stage = stage::LOOK_UP;
            }
            op::CT => conntrack::begin(self.machine, op),
            op::CT_CLEAR => {
                conntrack::clear(&mut self.machine.key);
                self.machine.last.zone = 0;
            }
            op::CT_SET => self.machine.write.set(op.a, op.value, op.mask),
            op::CT_MOVE => {
                let (bits, mask) = moved(op, self.machine.key.words[a]);
                self.machine.write.set(op.b as u8, bits, mask);
            }
            op::NAT => {
                self.machine.nat = Range {
                    min: [0, op.value],
                    max: [0, op.mask],
                    min_port: (op.c >> 16) as u16,
                    max_port: op.c as u16,
                    flags: u32::from(op.b),
                };
            }
            op::NAT_HIGH => (self.machine.nat.min[0], self.machine.nat.max[0]) = (op.value, op.mask),
            op::DEC_TTL => self.decrement_ttl(),
            op::CLONE => {
                let n = self.machine.n_clones as usize;
                let machine = &mut *self.machine;
                if let Some(kept) = machine.clones.get_mut(n) {
                    copy_key(kept, &machine.key);
                }
                machine.n_clones += 1;
            }
            op::UNCLONE => {
                let machine = &mut *self.machine;
                machine.before_headers_change();
                machine.n_clones = machine.n_clones.wrapping_sub(1);
                machine.last.zone = 0;
                if let Some(kept) = machine.clones.get(machine.n_clones as usize) {
                    copy_key(&mut machine.key, kept);
                }
            }
            op::PUSH_VLAN => {
                if self.machine.key.words[1] >> 48 != 0 {
                    self.blame(DropReason::VlanStack);
                    self.machine.end_branch();
                } else {
                    self.machine.before_headers_change();
                    self.machine.key.words[1] |= 0x1000 << 48;
                }
            }
            _ => self.machine.end_list(),
        }
    }

    #[inline(always)]
    fn resubmit(&mut self, table: u32, port: u32) {
        let machine = &mut *self.machine;
        if machine.depth as usize >= MAX_DEPTH || machine.resubmits >= MAX_RESUBMITS {
            // OVS gives up on the whole packet as well.
            self.datapath.dropped(DropReason::ResubmitLimit);
            machine.effects.n_outputs = 0;
            machine.reason = 0;
            machine.done = 1;
            return;
        }
        machine.frames[(machine.depth as usize) & (MAX_DEPTH - 1)] = machine.pc;
        machine.depth += 1;
        machine.resubmits += 1;
        machine.stage = stage::LOOK_UP;
        machine.table = table;
        machine.lookup_port = port;
    }

    #[inline(always)]
    fn decrement_ttl(&mut self) {
        let kind = (self.machine.key.words[0] >> 16) as u16;
        if kind != eth_type::IPV4 && kind != eth_type::IPV6 {
            // As in OVS, other packets have no hops to count, and go on.
            return;
        }
        if self.machine.key.words[4] >> 24 & 0xff > 1 {
            self.machine.before_headers_change();
            self.machine.key.words[4] -= 1 << 24;
        } else {
            self.blame(DropReason::TtlExpired);
            self.machine.end_list();
        }
    }

    /// The stages that most packets go through, in their order.
    #[inline(always)]
    fn usual_stages(&mut self) {
        if self.is_at(stage::LOOK_UP) {
            self.look_up();
        }
        if self.is_at(stage::ACT) {
            self.next_action();
        }
        if self.is_at(stage::EXAMINE) {
            conntrack::examine(self);
        }
        if self.is_at(stage::TUPLES) {
            conntrack::identify(self);
        }
        if self.is_at(stage::VERIFY) {
            conntrack::verify(self);
        }
        if self.is_at(stage::CONNECT) {
            conntrack::connect(self);
        }
        if self.is_at(stage::TRACKED) {
            self.tracked();
        }
    }

    /// The end of a `ct` action: the packet is translated, and forks if it goes on in a table.
    #[inline(always)]
    fn tracked(&mut self) {
        let machine = &mut *self.machine;
        if machine.track.fragment.leads != 0 {
            machine.stage = stage::CONCLUDE;
            return;
        }
        machine.stage = stage::ACT;
        machine.write = ConnectionWrite::default();
        let goes_on = machine.track.flags & op::CT_TABLE != 0;
        if goes_on && machine.recirculations >= MAX_RECIRCULATIONS {
            self.datapath.dropped(DropReason::RecirculationLimit);
            machine.reason = 0;
            conntrack::clear(&mut machine.key);
            return;
        }
        let last = machine.depth == 0 && self.datapath.op(machine.pc).is_none_or(|next| next.code == op::END);
        if goes_on && !last {
            self.fork();
            conntrack::clear(&mut self.machine.key);
            return;
        }
        if machine.track.translation.bits != 0 {
            machine.before_headers_change();
            conntrack::apply(&machine.track.translation, &mut machine.key);
        }
        if goes_on {
            // Nothing is left to do for the original: it becomes the copy.
            machine.recirculations += 1;
            machine.table = u32::from(machine.track.table);
            machine.stage = stage::LOOK_UP;
        } else {
            conntrack::clear(&mut machine.key);
        }
    }

    /// Makes the copy that goes on in the table of a `ct`. What follows the action sees neither its connection nor its
    /// translation.
    #[inline(always)]
    fn fork(&mut self) {
        let machine = &mut *self.machine;
        let n = machine.n_forks as usize;
        let Some(fork) = machine.forks.get_mut(n) else {
            self.datapath.dropped(DropReason::OutputLimit);
            return;
        };
        copy_key(&mut fork.key, &machine.key);
        if machine.track.translation.bits != 0 {
            conntrack::apply(&machine.track.translation, &mut fork.key);
        }
        fork.table = u32::from(machine.track.table);
        fork.recirculations = machine.recirculations + 1;
        fork.last = machine.last;
        machine.n_forks += 1;
        machine.last.zone = 0;
    }
}

/// The bits that a MOVE writes, in place, and the mask of where they go.
#[inline(always)]
fn moved(op: &Op, from: u64) -> (u64, u64) {
    let (read, write) = (op.c & 63, op.c >> 8 & 63);
    ((from >> read & op.mask) << write, op.mask << write)
}

impl ConnectionWrite {
    #[inline(always)]
    fn set(&mut self, word: u8, value: u64, mask: u64) {
        let (to, of) = match word {
            13 => (&mut self.mark, &mut self.mark_mask),
            14 => (&mut self.label[0], &mut self.label_mask[0]),
            _ => (&mut self.label[1], &mut self.label_mask[1]),
        };
        *to = *to & !mask | value;
        *of |= mask;
    }
}

/// One step. Most packets go from stage to stage of the usual order, for as long as they follow in it; what goes back
/// takes another step. The other stages are steps of their own: fewer packets have them, and the verifier need not
/// follow each of their ways through all that comes behind.
extern "C" fn step<P: Packet, D: Tables + Connections>(_index: u64, run: *mut c_void) -> i64 {
    // SAFETY: `Run::run` passes itself, exclusively borrowed for as long as the loop runs.
    let run = unsafe { &mut *run.cast::<Run<'_, P, D>>() };
    match run.machine.stage {
        stage::RESUME => conntrack::resume(run),
        stage::SUM => conntrack::sum(run),
        stage::START => conntrack::start(run),
        stage::COMMIT => conntrack::commit(run),
        stage::CLAIM => conntrack::claim(run),
        stage::READ_QUOTE => conntrack::read_quote(run),
        stage::RELATE => conntrack::relate(run),
        stage::QUOTE => conntrack::quote(run),
        stage::FRAGMENT => conntrack::fragment(run),
        stage::ASSEMBLE => conntrack::assemble(run),
        stage::FOLLOW => conntrack::follow(run),
        stage::CONCLUDE => conntrack::conclude(run),
        stage::CHUNKS => conntrack::chunks(run),
        stage::CRC => conntrack::crc(run),
        stage::ADJUST => conntrack::adjust(run),
        stage::HELP => conntrack::help(run),
        stage::ADJUST_SACK => conntrack::adjust_sack(run),
        stage::READ_TEXT => conntrack::read_text(run),
        stage::EXPECT => conntrack::expect(run),
        stage::REPLACE => conntrack::replace(run),
        stage::RECOGNISE => conntrack::recognise(run),
        stage::INHERIT => conntrack::inherit(run),
        _ => run.usual_stages(),
    }
    i64::from(run.machine.done != 0)
}
