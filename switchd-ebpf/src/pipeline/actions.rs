//! What each action does to the machine.

use conntrack_core::nat::Range;

use super::machine::{copy_key, disguise};
use super::{MAX_DEPTH, MAX_FRAMES, MAX_RESUBMITS, Run, port, stage};
use crate::conntrack::{self, Connections};
use crate::drop_reason::DropReason;
use crate::key::{HEADER_WORDS, WORDS};
use crate::layout::{Op, op};
use crate::normal;
use crate::packet::Packet;
use crate::parse::eth_type;
use crate::tables::Tables;

impl<P: Packet, D: Tables + Connections> Run<'_, P, D> {
    /// Carries out the next action.
    #[inline(always)]
    pub(super) fn next_action(&mut self) {
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
                let machine = &mut *self.machine;
                let Some(kept) = machine.clones.get_mut(machine.n_clones as usize) else {
                    return self.give_up();
                };
                copy_key(kept, &machine.key);
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

    /// Drops the packet as a whole, what was to be sent already too, as OVS does where actions are nested too deeply.
    #[inline(always)]
    fn give_up(&mut self) {
        self.datapath.dropped(DropReason::ResubmitLimit);
        self.machine.effects.n_outputs = 0;
        self.machine.reason = 0;
        self.machine.done = 1;
    }

    #[inline(always)]
    fn resubmit(&mut self, table: u32, port: u32) {
        let machine = &mut *self.machine;
        if (machine.depth - machine.base) as usize >= MAX_DEPTH || machine.resubmits >= MAX_RESUBMITS {
            return self.give_up();
        }
        machine.frames[machine.depth as usize & (MAX_FRAMES - 1)] = machine.pc;
        machine.depth += 1;
        machine.resubmits += 1;
        machine.stage = stage::LOOK_UP;
        machine.table = table;
        if port != op::NO_PORT {
            machine.disguise |= disguise::PORT;
            machine.lookup_port = port;
        }
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
    pub(super) fn output_to_device(&mut self, number: u16) {
        match number {
            _ if number == self.machine.in_port() => self.blame(DropReason::InputPort),
            // No port has such a number; LOCAL has no device.
            port::FIRST_RESERVED.. => self.blame(DropReason::NoSuchPort),
            _ => self.output(number),
        }
    }
}

/// The bits that a MOVE writes, in place, and the mask of where they go.
#[inline(always)]
fn moved(op: &Op, from: u64) -> (u64, u64) {
    let (read, write) = (op.c & 63, op.c >> 8 & 63);
    ((from >> read & op.mask) << write, op.mask << write)
}
