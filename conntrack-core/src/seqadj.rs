//! TCP sequence numbers of a stream in which a translation has replaced text by other text of another length.
//!
//! As Linux's `nf_conntrack_seqadj.c`. Of each direction the place of the last replacement is kept, and by how much
//! numbers differ before and behind it: so segments and acknowledgments are right from the replacement before the
//! last one on. (A control connection sends a command and waits; what lies further back was acknowledged.)

use crate::Direction;
use crate::tcp::after;

/// The differences of one direction's numbers. All zero is a fresh one; every bit pattern is a legal value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// The sequence number of the segment in which text was last replaced, as its sender counts.
    pub position: u32,
    /// What is added to numbers up to this one.
    pub before: i32,
    /// What is added to numbers beyond it.
    pub after: i32,
}

/// The differences of a connection: of what the caller sends, and of what the called one does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shifts(pub [Shift; 2]);

const _: () = assert!(size_of::<Shifts>() == 24);

impl Shift {
    /// Notes that the payload of the segment with this sequence number (as its sender counts) became `by` bytes
    /// longer. Repetitions of the segment change nothing.
    #[inline(always)]
    pub fn replaced(&mut self, seq: u32, by: i32) {
        if by != 0 && (self.before == self.after || after(seq, self.position)) {
            self.position = seq;
            self.before = self.after;
            self.after = self.after.wrapping_add(by);
        }
    }

    /// The sequence number that the receiver counts, for that of the sender.
    #[inline(always)]
    #[must_use]
    pub fn seq(&self, seq: u32) -> u32 {
        let by = if after(seq, self.position) { self.after } else { self.before };
        seq.wrapping_add_signed(by)
    }

    /// The number that the sender counts, for what the receiver acknowledges: the acknowledgment number, or an edge
    /// of a SACK block.
    #[inline(always)]
    #[must_use]
    pub fn ack(&self, ack: u32) -> u32 {
        let by = if after(ack.wrapping_add_signed(self.before.wrapping_neg()), self.position) {
            self.after
        } else {
            self.before
        };
        ack.wrapping_add_signed(by.wrapping_neg())
    }
}

impl Shifts {
    /// The differences of what is sent in a direction.
    #[inline(always)]
    pub fn of(&mut self, direction: Direction) -> &mut Shift {
        let [original, reply] = &mut self.0;
        match direction {
            Direction::Original => original,
            Direction::Reply => reply,
        }
    }

    /// Adjusts sequence and acknowledgment number of a segment in this direction.
    #[inline(always)]
    pub fn adjust(&self, direction: Direction, seq: &mut u32, ack: &mut u32) {
        let [original, reply] = &self.0;
        let (own, other) = match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        };
        *seq = own.seq(*seq);
        *ack = other.ack(*ack);
    }

    /// Adjusts the edges of a SACK block (RFC 2018) in a segment in this direction.
    #[inline(always)]
    pub fn adjust_block(&self, direction: Direction, block: &mut [u32; 2]) {
        let [original, reply] = &self.0;
        let other = match direction {
            Direction::Original => reply,
            Direction::Reply => original,
        };
        block[0] = other.ack(block[0]);
        block[1] = other.ack(block[1]);
    }
}
