//! Sequence numbers of a stream in which text was replaced: adjusting, and undoing it.

use arbitrary::Arbitrary;
use conntrack_core::Direction;
use conntrack_core::seqadj::{Shift, Shifts};

use crate::{Check, Way};

/// What one end sends, a segment after the other.
#[derive(Arbitrary, Debug)]
pub struct Stream {
    way: Way,
    first: u32,
    segments: Vec<Segment>,
    /// Any memory.
    memory: [(u32, i32, i32); 2],
    numbers: [u32; 2],
    by: i32,
}

/// Lengths of the payload less one, before and after a replacement.
#[derive(Arbitrary, Debug)]
struct Segment {
    len: u8,
    replaced: Option<u8>,
}

/// Where a byte lies, by its sender's count and by its receiver's.
#[derive(Clone, Copy)]
struct Place {
    sent: u32,
    received: u32,
}

impl Place {
    fn on(self, len: u32, received_len: u32) -> Self {
        Self { sent: self.sent.wrapping_add(len), received: self.received.wrapping_add(received_len) }
    }
}

impl Check for Stream {
    fn check(&self) {
        self.both_ends_count_right();
        self.any_memory_is_a_difference();
    }
}

impl Stream {
    /// From the replacement before the last one on, everything is where plain counting puts it.
    fn both_ends_count_right(&self) {
        let direction = Direction::from(self.way);
        let mut shifts = Shifts::default();
        // The handshake comes before any text.
        shifts.of(direction).position = self.first.wrapping_sub(1);
        let mut at = Place { sent: self.first, received: self.first };
        // Ends of the segments since the last replacement but one, and the last replacement.
        let (mut ends, mut last) = (vec![at], None);
        for segment in &self.segments {
            let len = u32::from(segment.len) + 1;
            let new_len = segment.replaced.map_or(len, |len| u32::from(len) + 1);
            let by = new_len.wrapping_sub(len).cast_signed();
            shifts.of(direction).replaced(at.sent, by);
            if by != 0 {
                ends.retain(|end| last.is_none_or(|(last, _): (Place, i32)| is_beyond(*end, last)));
                last = Some((at, by));
            }
            check_beginning(&shifts, direction, at);
            at = at.on(len, new_len);
            ends.push(at);
            if let Some((last, by)) = last {
                let before = shifts;
                shifts.of(direction).replaced(last.sent, by);
                assert_eq!(shifts, before, "a repetition changes nothing");
            }
            for &end in &ends {
                check_end(&shifts, direction, end);
            }
        }
    }

    /// Any bits are a difference; what is added is what is taken away again, if the number is not at an edge.
    fn any_memory_is_a_difference(&self) {
        let shift = |(position, before, after)| Shift { position, before, after };
        let mut shifts = Shifts(self.memory.map(shift));
        let [number, other] = self.numbers;
        for direction in [Direction::Original, Direction::Reply] {
            let own = *shifts.of(direction);
            let (mut seq, mut ack) = (number, other);
            shifts.adjust(direction, &mut seq, &mut ack);
            let added = seq.wrapping_sub(number).cast_signed();
            assert!(added == own.before || added == own.after);
            let distance = i64::from(number.wrapping_sub(own.position).cast_signed());
            let step = i64::from(own.after) - i64::from(own.before);
            if distance.unsigned_abs() > step.unsigned_abs()
                && distance.unsigned_abs() + step.unsigned_abs() < 1 << 31
            {
                let mut block = [seq, seq];
                shifts.adjust_block(direction.reverse(), &mut block);
                assert_eq!(block, [number; 2]);
            }
        }
        let mut changed = shifts.0[0];
        changed.replaced(number, self.by);
        if changed != shifts.0[0] {
            assert_eq!((changed.position, changed.before), (number, shifts.0[0].after));
        }
    }
}

/// Whether a place is behind another one; none is farther away than the count goes round.
fn is_beyond(place: Place, other: Place) -> bool {
    place.sent.wrapping_sub(other.sent).cast_signed() > 0
}

fn check_beginning(shifts: &Shifts, direction: Direction, at: Place) {
    let (mut seq, mut ack) = (at.sent, 7);
    shifts.adjust(direction, &mut seq, &mut ack);
    assert_eq!((seq, ack), (at.received, 7), "nothing was replaced the other way");
}

/// The receiver acknowledges what came before this place.
fn check_end(shifts: &Shifts, direction: Direction, at: Place) {
    let (mut seq, mut ack, mut block) = (7, at.received, [at.received; 2]);
    shifts.adjust(direction.reverse(), &mut seq, &mut ack);
    shifts.adjust_block(direction.reverse(), &mut block);
    assert_eq!((seq, ack, block), (7, at.sent, [at.sent; 2]));
}
