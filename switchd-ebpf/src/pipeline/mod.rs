//! The pipeline: from a parsed packet to the list of what leaves where.
//!
//! A [`Machine`] runs one packet. Actions change only its key; the packet's bytes are left alone until an
//! output is carried out, which is the hook's business (see [`crate::rewrite`]). So one run can yield several
//! differing copies, and a run can be replayed on the host.
//!
//! The outer loop is one small step, repeated: the look-up of a table, one action, or a [`stage`] of connection
//! tracking. The verifier checks each once, however long pipelines get, and whatever came before: what passes
//! from step to step lies in the machine, where the verifier knows nothing about it.

mod actions;
mod machine;

use core::ffi::c_void;

use crate::classify;
use crate::conntrack::{self, Connections};
use crate::drop_reason::DropReason;
use crate::layout::op;
use crate::packet::Packet;
use crate::tables::Tables;

pub use machine::{Branch, ConnectionWrite, Effects, Headers, Machine, Output, copy_headers};

/// Nested resubmits, as OVS's MAX_DEPTH.
pub const MAX_DEPTH: usize = 64;
/// Resubmits of one packet, as OVS's MAX_RESUBMITS.
pub const MAX_RESUBMITS: u32 = 4096;
/// Times that a packet may go through `ct(table=N)`, as OVS's MAX_RECIRC_DEPTH.
pub const MAX_RECIRCULATIONS: u32 = 6;
/// Actions and look-ups of one packet.
pub const MAX_STEPS: u32 = 16384;
/// Branches of a packet that wait for one another, of which each is a recirculation behind the last. A power of two.
const MAX_BRANCHES: usize = 8;
/// Where the resubmits of all of them return to. A power of two.
const MAX_FRAMES: usize = 512;
const _: () = assert!(MAX_RECIRCULATIONS as usize <= MAX_BRANCHES);
const _: () = assert!((MAX_RECIRCULATIONS as usize + 1) * MAX_DEPTH <= MAX_FRAMES);
/// Nested clones, over all branches.
pub const MAX_CLONES: usize = 16;
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

    /// Looks up the present table.
    #[inline(always)]
    fn look_up(&mut self) {
        if self.machine.disguise != 0 {
            self.machine.put_on_disguise();
        }
        classify::search(self);
        let machine = &mut *self.machine;
        if machine.disguise != 0 {
            machine.take_off_disguise();
        }
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
        let last = machine.depth == machine.base && machine.track.flags & op::CT_LAST != 0;
        if goes_on && !last {
            machine.begin_branch(u32::from(machine.track.table));
        } else if goes_on {
            // Nothing is left to do for the original: it becomes the copy.
            machine.recirculate(u32::from(machine.track.table));
        }
        if machine.track.translation.bits != 0 {
            machine.before_headers_change();
            conntrack::apply(&machine.track.translation, &mut machine.key);
        }
        if !goes_on {
            conntrack::clear(&mut machine.key);
        }
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
