//! Connections that others have announced: they are related, and take over what their parents have.

use conntrack_core::nat::{Range, flags};
use conntrack_core::{ct_state, status};

use super::commit::proceed;
use super::{Connections, describe_tuple, set_state, table};
use crate::layout::{Expectation, Record, Tuple, op};
use crate::packet::Packet;
use crate::pipeline::{Machine, Run, stage};
use crate::tables::Tables;

/// What an expected connection takes over.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Heritage {
    /// The [`owner`](crate::layout::life::owner) of the parent's record.
    pub parent: u64,
    /// The parent's original tuple.
    pub original: Tuple,
    /// Its label.
    pub label: [u64; 2],
    /// Its mark.
    pub mark: u32,
    /// Not 0: the packet begins an expected connection, and the fields above are valid.
    pub expected: u32,
    /// The key of the expectation.
    pub key: Tuple,
}

/// Stage [`stage::RECOGNISE`]: whether the connection that the packet begins is expected.
#[inline(always)]
pub fn recognise<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let datapath = run.datapath;
    let machine = &mut *run.machine;
    let key = &mut machine.track.heritage.key;
    *key = machine.last.tuples[0];
    key.ports.src = 0;
    if let Some(expectation) = datapath.expectation(key)
        && expectation.expires >= machine.now
        && let Some(pointer) = datapath.record(expectation.parent as u32)
        && let Some(word) = table::lock(datapath, pointer, expectation.parent)
    {
        // SAFETY: the lock is held: nobody else writes to the record, and the daemon only reads it.
        let parent = unsafe { &mut *pointer.as_ptr() };
        adopt(machine, &expectation, parent);
        table::unlock(parent, word);
    }
    proceed(machine);
}

#[inline(always)]
fn adopt(machine: &mut Machine, expectation: &Expectation, parent: &Record) {
    let heritage = &mut machine.track.heritage;
    heritage.parent = expectation.parent;
    heritage.original = parent.tuples[0];
    heritage.label = parent.label;
    heritage.mark = parent.mark;
    heritage.expected = 1;
    machine.track.outcome.ct_state |= ct_state::REL;
    let translated = parent.connection.status & (status::SRC_NAT | status::DST_NAT) != 0;
    if machine.track.flags & op::CT_NAT != 0 && translated {
        // It goes the way of its parent (`nf_nat_follow_master`): to the port that was announced, and from where
        // who announced it has its partner.
        let announcer = &parent.tuples[usize::from(expectation.direction & 1)];
        let reply = &mut machine.last.tuples[1];
        reply.src = announcer.src;
        reply.ports.src = expectation.port;
        let family = if announcer.ports.family == 6 { flags::IPV6 } else { 0 };
        machine.nat = Range {
            min: announcer.dst,
            max: announcer.dst,
            min_port: 0,
            max_port: 0,
            flags: flags::SRC | flags::ADDRESSES | family,
        };
    }
}

/// Stage [`stage::INHERIT`]: what a packet of an expected connection shows of the parent.
#[inline(always)]
pub fn inherit<P: Packet, D: Tables + Connections>(run: &mut Run<'_, P, D>) {
    let machine = &mut *run.machine;
    machine.stage = stage::TRACKED;
    machine.last.state |= ct_state::REL;
    set_state(&mut machine.key, machine.last.state);
    let owner = machine.track.heritage.parent;
    let Some(parent) = run.datapath.record(owner as u32) else { return };
    // Tuples do not change while a connection lives: it needs no lock to read them, if it lives afterwards.
    // SAFETY: the record is valid while the program runs, and what is read of it is valid for any bits.
    machine.track.heritage.original = unsafe { (&raw const (*parent.as_ptr()).tuples[0]).read_volatile() };
    if table::lives(parent, owner) {
        describe_tuple(&machine.track.heritage.original, &mut machine.key);
    }
}

/// Notes in a new record what it takes over.
#[inline(always)]
pub(super) fn endow(record: &mut Record, heritage: &Heritage) {
    if heritage.expected == 0 {
        return;
    }
    record.parent = heritage.parent;
    record.label = heritage.label;
    record.mark = heritage.mark;
    record.connection.status |= status::EXPECTED;
}
