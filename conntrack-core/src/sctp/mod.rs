//! The SCTP state machine, with Linux's rules (`nf_conntrack_proto_sctp.c`; RFC 9260 for what is named here).
//!
//! A packet is a row of chunks, and each control chunk moves the state by itself, in order. What SCTP has in
//! place of sequence numbers are *verification tags*: each end chooses one, tells it in its INIT or INIT ACK,
//! and finds it in each packet that it gets. A few chunks have rules of their own (8.5.1), and HEARTBEATs open
//! further paths of an association that began elsewhere, whose tags are yet to be learned.
//!
//! Not the tracker's, but the caller's: whether the CRC32c is right.

mod packet;
mod state;

pub use packet::{MAX_CHUNKS, Packet};
pub use state::State;

use core::hint::black_box;

use crate::connection::{Connection, Timer, Verdict};
use crate::timeouts::Timeouts;
use crate::{Direction, forget, status};
use packet::{MAX_CONTROL_CHUNKS, T_BIT, chunk};
use state::{INVALID, transition};

/// Bits of [`Connection::sctp_flags`].
mod flags {
    /// A HEARTBEAT came with a tag that was not expected. If the other end confirms it, the tag has changed.
    pub const UNCONFIRMED_TAG: u8 = 0x01;
    /// That HEARTBEAT went in the reply direction.
    pub const FROM_REPLY: u8 = 0x02;
    /// An INIT was seen in the original direction and is yet to lead to a COOKIE ACK; the next bit is that of
    /// the reply direction.
    pub const INIT: u8 = 0x04;
}

/// The bit of a chunk type in [`Packet::seen`].
const fn bit(kind: u8) -> u16 {
    1 << kind
}

/// Packets of which the whole need not have the expected tag: they have rules of their own, or are the first
/// that are seen with it.
const TAG_RULES_OF_THEIR_OWN: u16 = bit(chunk::INIT)
    | bit(chunk::SHUTDOWN_COMPLETE)
    | bit(chunk::COOKIE_ECHO)
    | bit(chunk::ABORT)
    | bit(chunk::SHUTDOWN_ACK)
    | bit(chunk::HEARTBEAT)
    | bit(chunk::HEARTBEAT_ACK);

/// Chunks that mean nothing without an association (8.4).
const NEVER_FIRST: u16 = bit(chunk::ABORT)
    | bit(chunk::SHUTDOWN_COMPLETE)
    | bit(chunk::COOKIE_ACK)
    | bit(chunk::DATA)
    | bit(chunk::SACK)
    | bit(chunk::ECNE)
    | bit(chunk::CWR)
    | bit(chunk::OTHER);

/// Prepares a fresh connection for its first packet. False: no association begins like that, nor a further path
/// of one.
#[inline(always)]
pub(crate) fn open(connection: &mut Connection, packet: &Packet) -> bool {
    if !packet.is_well_formed() || packet.seen & NEVER_FIRST != 0 {
        return false;
    }
    if packet.seen & bit(chunk::INIT) != 0 {
        connection.set_vtags([0, packet.init_tag]);
        return packet.vtag == 0;
    }
    // A HEARTBEAT tells the tag of its own direction. A SHUTDOWN ACK without association is answered by a SHUTDOWN
    // COMPLETE that repeats its tag (8.4, 5).
    let tag = |kind: u8| if packet.seen & bit(kind) != 0 { packet.vtag } else { 0 };
    connection.set_vtags([tag(chunk::HEARTBEAT), tag(chunk::SHUTDOWN_ACK)]);
    true
}

/// Moves a connection along with one more packet. A function of its own, so that its caller's BPF stack frame has no
/// room for this one's values, where that of the TCP rules comes on top.
#[inline(never)]
pub(crate) fn advance(
    connection: &mut Connection,
    direction: Direction,
    packet: &Packet,
    timeouts: &Timeouts,
    timer: &mut Timer,
) -> Verdict {
    if !packet.is_well_formed() {
        return Verdict::Invalid;
    }
    let way = Way::of(direction);
    if packet.seen & TAG_RULES_OF_THEIR_OWN == 0 && packet.vtag != way.tag(connection) {
        return Verdict::Invalid;
    }
    let mut renews = true;
    for at in 0..MAX_CONTROL_CHUNKS {
        // What one chunk tells of the packet and the connection, the BPF verifier is not to know at the next.
        let (packet, connection) = (forget(packet), black_box(&mut *connection));
        if at >= usize::from(packet.len) {
            break;
        }
        match step(connection, way, packet, forget(packet.chunks[at & (MAX_CONTROL_CHUNKS - 1)]), renews) {
            Effect::Renew => {}
            Effect::Keep => renews = false,
            Effect::Invalid => return Verdict::Invalid,
        }
        renews = forget(renews);
    }
    if renews {
        *timer = Timer::Set(timeouts.sctp(connection.sctp_state));
    }
    Verdict::Accept
}

/// A direction, as a number that shifts what belongs to it: so there is but one way through the rules.
#[derive(Clone, Copy)]
struct Way(u8);

impl Way {
    #[inline(always)]
    fn of(direction: Direction) -> Self {
        Self(forget(direction as u8) & 1)
    }

    #[inline(always)]
    fn reverse(self) -> Self {
        Self(self.0 ^ 1)
    }

    /// The tag of packets in this direction.
    #[inline(always)]
    fn tag(self, connection: &Connection) -> u32 {
        (connection.detail >> self.shift()) as u32
    }

    #[inline(always)]
    fn set_tag(self, connection: &mut Connection, tag: u32) {
        let rest = connection.detail & !(0xffff_ffff << self.shift());
        connection.detail = rest | u64::from(tag) << self.shift();
    }

    /// See [`Connection::vtags`].
    #[inline(always)]
    fn shift(self) -> u32 {
        u32::from(self.0 ^ 1) << 5
    }

    /// The bit of an INIT in this direction.
    #[inline(always)]
    fn init(self) -> u8 {
        flags::INIT << self.0
    }

    /// [`flags::FROM_REPLY`], if that is the direction.
    #[inline(always)]
    fn from(self) -> u8 {
        self.0 << 1
    }
}

const _: () = assert!(flags::FROM_REPLY == 1 << 1);

/// What follows from a chunk, beside the state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// The timer is renewed.
    Renew,
    /// It passes, but does not count as a sign of life.
    Keep,
    /// The packet is invalid.
    Invalid,
}

/// One chunk. `renews` is false if one before it does not count as a sign of life.
#[inline(always)]
fn step(connection: &mut Connection, way: Way, packet: &Packet, chunk: u8, renews: bool) -> Effect {
    let kind = chunk & !T_BIT;
    let tag = way.tag(connection);
    match kind {
        chunk::INIT if packet.vtag != 0 => return Effect::Invalid,
        chunk::ABORT | chunk::SHUTDOWN_COMPLETE => {
            // With the T bit it comes from an end that knows nothing of the association, and repeats the tag of
            // what it answers.
            let of = if chunk & T_BIT != 0 { way.reverse() } else { way };
            if packet.vtag != of.tag(connection) {
                return Effect::Invalid;
            }
        }
        chunk::COOKIE_ECHO if packet.vtag != tag => return Effect::Invalid,
        chunk::COOKIE_ACK => connection.sctp_flags &= !(way.init() | way.reverse().init()),
        chunk::HEARTBEAT | chunk::HEARTBEAT_ACK => {
            let effect = probe(connection, way, packet, kind, renews);
            if effect != Effect::Renew {
                return effect;
            }
        }
        _ => {}
    }

    let old = forget(connection.sctp_state);
    let new = transition(way.0, forget(kind), old);
    if new == INVALID {
        return Effect::Invalid;
    }
    let mut effect = Effect::Renew;
    match kind {
        chunk::INIT => {
            // One that tells nothing new was repeated, or comes late.
            if old == State::NONE || way.reverse().tag(connection) != packet.init_tag {
                let flags = connection.sctp_flags;
                // A third INIT starts over.
                let kept = if flags & way.init() != 0 { flags & !way.reverse().init() } else { flags };
                connection.sctp_flags = kept | way.init();
                way.reverse().set_tag(connection, packet.init_tag);
            }
            // A repeated INIT must not keep an entry alive that nobody answers.
            if new == State::CLOSED && old == State::CLOSED {
                effect = Effect::Keep;
            }
        }
        chunk::INIT_ACK if !acknowledge(connection, way, packet) => return Effect::Invalid,
        _ => {}
    }
    connection.sctp_state = new;
    if old != new && new == State::ESTABLISHED {
        connection.status |= status::ASSURED;
    }
    effect
}

/// Learns the tag from an INIT ACK; false: it does not fit.
#[inline(always)]
fn acknowledge(connection: &mut Connection, way: Way, packet: &Packet) -> bool {
    let known = way.reverse().tag(connection);
    let answers = connection.sctp_flags & way.reverse().init() != 0;
    let collides = answers && connection.sctp_flags & way.init() != 0;
    // It tells the tag of an end that has told one: in answer to an INIT it may be a new one, but not after both
    // ends have sent an INIT (5.2.1, 5.2.2).
    if known != packet.init_tag && (collides || (!answers && known != 0)) {
        return false;
    }
    way.reverse().set_tag(connection, packet.init_tag);
    true
}

/// Learns from the tag of a HEARTBEAT or its answer.
#[inline(always)]
fn probe(connection: &mut Connection, way: Way, packet: &Packet, kind: u8, renews: bool) -> Effect {
    let tag = way.tag(connection);
    if tag == 0 {
        way.set_tag(connection, packet.vtag);
        return Effect::Renew;
    }
    if packet.vtag == tag {
        connection.sctp_flags &= !flags::UNCONFIRMED_TAG;
        return Effect::Renew;
    }
    if packet.seen & bit(chunk::DATA) != 0 || !renews {
        return Effect::Invalid;
    }
    if kind == chunk::HEARTBEAT {
        let rest = connection.sctp_flags & !flags::FROM_REPLY;
        connection.sctp_flags = rest | flags::UNCONFIRMED_TAG | way.from();
        return Effect::Keep;
    }
    let is_unconfirmed = connection.sctp_flags & flags::UNCONFIRMED_TAG != 0;
    if !is_unconfirmed || connection.sctp_flags & flags::FROM_REPLY == way.from() {
        return Effect::Invalid;
    }
    connection.sctp_flags &= !flags::UNCONFIRMED_TAG;
    way.set_tag(connection, packet.vtag);
    way.reverse().set_tag(connection, 0);
    Effect::Renew
}
