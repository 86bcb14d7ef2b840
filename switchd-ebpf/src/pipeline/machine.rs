//! The state of one packet's run.

use conntrack_core::ct_state;
use conntrack_core::nat::Range;

use super::{MAX_BRANCHES, MAX_CLONES, MAX_COPIES, MAX_FRAMES, MAX_OUTPUTS, stage};
use crate::classify::Position;
use crate::conntrack::{self, Last};
use crate::key::{CT_STATE, HEADER_WORDS, Key, TP_DST, TP_SRC, WORDS};
use crate::layout::{Probe, RuleRef, port_flags};
use crate::parse::Layout;
use crate::rewrite::Due;

/// The header words of a key.
pub type Headers = [u64; HEADER_WORDS];

/// One output: a port's OpenFlow number ([`FLOOD`](super::port::FLOOD) and [`ALL`](super::port::ALL) included), and which copy it gets.
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

/// What a branch of the run goes on with, when the copy that its `ct(table=N)` has made comes to its end.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Branch {
    /// Its key.
    pub key: Key,
    /// Its next action.
    pub pc: u32,
    /// See [`Machine::base`].
    pub base: u32,
    /// See [`Machine::depth`].
    pub depth: u32,
    /// See [`Machine::n_clones`].
    pub n_clones: u32,
    /// See [`Machine::recirculations`].
    pub recirculations: u32,
    /// Zero: fills the word.
    pub pad: u32,
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

/// Bits of [`Machine::disguise`].
pub mod disguise {
    /// The port of entry is [`Machine::lookup_port`](super::Machine::lookup_port).
    pub const PORT: u32 = 1;
    /// The packet is a fragment, and has no ports unless it is tracked.
    pub const FRAGMENT: u32 = 2;
}

/// One packet's run. Too large for a BPF stack: each CPU has one of its own in memory, and shares no cache line of it.
#[repr(C, align(64))]
pub struct Machine {
    /// The key as the packet's current branch sees it.
    pub key: Key,
    /// The headers as they are in the packet, once they have changed in the key: see [`Machine::wire`].
    pub wire: Headers,
    /// Where they are.
    pub layout: Layout,
    /// Workspace of [`rewrite`](crate::rewrite::rewrite).
    pub due: Due,
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
    /// What look-ups are to see otherwise than it is: bits of [`disguise`].
    pub disguise: u32,
    /// With [`disguise::PORT`], the port of entry for the next look-up alone.
    pub lookup_port: u32,
    /// Resubmits so far.
    pub resubmits: u32,
    /// How often this branch has been through `ct(table=N)`.
    pub recirculations: u32,
    /// Frames in use: those below `base` are other branches', which wait.
    pub depth: u32,
    /// See `depth`.
    pub base: u32,
    /// Keys kept by clones.
    pub n_clones: u32,
    /// Branches that wait.
    pub n_branches: u32,
    /// An output refers to the present headers: they must be kept before they change.
    pub headers_used: u32,
    /// Not 0: the headers may have changed since they were parsed.
    pub headers_changed: u32,
    /// The run is over.
    pub done: u32,
    /// Why a packet without output is dropped, plus one.
    pub reason: u32,

    /// The classifier's search: where it stands, the present subtable's width, what was found, and the masked key.
    pub at: Position,
    /// See `at`.
    pub width: u32,
    /// See `at`.
    pub best: RuleRef,
    /// See `at`.
    pub probe: Probe,
    /// What is covered while a look-up sees something else: the first word of the key, and that of the transport ports.
    pub covered: [u64; 2],

    /// What `exec` has gathered.
    pub write: ConnectionWrite,
    /// What `nat` of the next `ct` may translate to.
    pub nat: Range,
    /// Connection tracking's workspace.
    pub track: conntrack::Scratch,
    /// What this branch knows from its last `ct`.
    pub last: Last,

    /// Where resubmits return to.
    pub frames: [u32; MAX_FRAMES],
    /// Keys kept by clones.
    pub clones: [Key; MAX_CLONES],
    /// The branches that wait, the innermost last.
    pub branches: [Branch; MAX_BRANCHES],
    /// What the run comes to.
    pub effects: Effects,
}

impl Machine {
    /// Makes ready for a packet that was parsed into `key` and `layout`, at the start of table 0; `flags` are those of
    /// its port (see [`port_flags`]).
    #[inline(always)]
    pub fn start(&mut self, bridge: u32, flags: u32, len: u32, now: u64, version: u64) {
        self.now = now;
        self.version = version;
        self.len = len;
        self.bridge = bridge;
        self.stage = stage::LOOK_UP;
        self.pc = 0;
        self.table = 0;
        let hidden = self.layout.fragment != 0 && flags & port_flags::HIDES_FRAGMENTS != 0;
        self.disguise = if hidden { disguise::FRAGMENT } else { 0 };
        self.resubmits = 0;
        self.recirculations = 0;
        self.depth = 0;
        self.base = 0;
        self.n_clones = 0;
        self.n_branches = 0;
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

    /// Covers what the next look-up is not to see.
    #[inline(always)]
    pub(super) fn put_on_disguise(&mut self) {
        let words = &mut self.key.words;
        self.covered = [words[0], words[4]];
        if self.disguise & disguise::PORT != 0 {
            words[0] = words[0] & !0xffff | u64::from(self.lookup_port as u16);
        }
        let tracked = words[0] >> CT_STATE.shift & u64::from(ct_state::TRK) != 0;
        if self.disguise & disguise::FRAGMENT != 0 && !tracked {
            const { assert!(TP_SRC.word == 4 && TP_DST.word == 4) };
            words[4] &= !(TP_SRC.low_mask() << TP_SRC.shift | TP_DST.low_mask() << TP_DST.shift);
        }
    }

    /// Uncovers it again.
    #[inline(always)]
    pub(super) fn take_off_disguise(&mut self) {
        [self.key.words[0], self.key.words[4]] = self.covered;
        self.disguise &= !disguise::PORT;
    }

    /// The OpenFlow number of the port of entry, as actions see it.
    #[inline(always)]
    #[must_use]
    pub fn in_port(&self) -> u16 {
        self.key.words[0] as u16
    }

    /// Ends the present list of actions.
    #[inline(always)]
    pub(super) fn end_list(&mut self) {
        if self.depth > self.base {
            self.depth -= 1;
            self.stage = stage::ACT;
            self.pc = self.frames[self.depth as usize & (MAX_FRAMES - 1)];
        } else {
            self.end_branch();
        }
    }

    /// Has the present branch wait, and begins another one with the same key, which goes on in a table.
    #[inline(always)]
    pub(super) fn begin_branch(&mut self, table: u32) {
        let branch = &mut self.branches[self.n_branches as usize & (MAX_BRANCHES - 1)];
        copy_key(&mut branch.key, &self.key);
        branch.pc = self.pc;
        branch.base = self.base;
        branch.depth = self.depth;
        branch.n_clones = self.n_clones;
        branch.recirculations = self.recirculations;
        self.n_branches += 1;
        self.base = self.depth;
        self.recirculate(table);
    }

    /// Has the present branch go on in a table, behind `ct`.
    #[inline(always)]
    pub(super) fn recirculate(&mut self, table: u32) {
        self.recirculations += 1;
        self.table = table;
        self.stage = stage::LOOK_UP;
    }

    /// Ends the present branch: the one that waits for it goes on, untracked.
    #[inline(always)]
    pub fn end_branch(&mut self) {
        if self.n_branches == 0 {
            self.done = 1;
            return;
        }
        self.before_headers_change();
        self.n_branches -= 1;
        let branch = &self.branches[self.n_branches as usize & (MAX_BRANCHES - 1)];
        copy_key(&mut self.key, &branch.key);
        conntrack::clear(&mut self.key);
        self.stage = stage::ACT;
        self.pc = branch.pc;
        self.base = branch.base;
        self.depth = branch.depth;
        self.n_clones = branch.n_clones;
        self.recirculations = branch.recirculations;
        self.last.zone = 0;
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
pub(super) fn copy_key(to: &mut Key, from: &Key) {
    let mut i = 0;
    while i < WORDS {
        to.words[i] = from.words[i];
        i += 1;
    }
}

impl ConnectionWrite {
    #[inline(always)]
    pub(super) fn set(&mut self, word: u8, value: u64, mask: u64) {
        let (to, of) = match word {
            13 => (&mut self.mark, &mut self.mark_mask),
            14 => (&mut self.label[0], &mut self.label_mask[0]),
            _ => (&mut self.label[1], &mut self.label_mask[1]),
        };
        *to = *to & !mask | value;
        *of |= mask;
    }
}
