//! Streams in which text was replaced stay consistent for both ends.

use conntrack_core::Direction;
use conntrack_core::seqadj::{Shift, Shifts};
use proptest::prelude::*;

/// A sender's segment: where it begins, how long it was, and how long it became.
#[derive(Clone, Copy, Debug)]
struct Sent {
    seq: u32,
    len: u32,
    new_len: u32,
    /// Where the receiver sees it begin.
    new_seq: u32,
}

/// A stream's segments by their lengths before and after, with what the receiver sees by plain counting.
fn stream(isn: u32, lengths: &[(u32, u32)]) -> Vec<Sent> {
    let (mut seq, mut new_seq) = (isn, isn);
    let segment = |&(len, new_len): &(u32, u32)| {
        let sent = Sent { seq, len, new_len, new_seq };
        seq = seq.wrapping_add(len);
        new_seq = new_seq.wrapping_add(new_len);
        sent
    };
    lengths.iter().map(segment).collect()
}

fn replace(shift: &mut Shift, sent: &Sent) {
    shift.replaced(sent.seq, sent.new_len.wrapping_sub(sent.len).cast_signed());
}

#[test]
fn a_command_that_grows() {
    let mut shifts = Shifts::default();
    shifts.of(Direction::Original).replaced(1000, 5);
    let adjusted = |direction, seq, ack| {
        let (mut seq, mut ack) = (seq, ack);
        shifts.adjust(direction, &mut seq, &mut ack);
        (seq, ack)
    };
    assert_eq!(adjusted(Direction::Original, 1000, 500), (1000, 500));
    assert_eq!(adjusted(Direction::Original, 1024, 500), (1029, 500));
    assert_eq!(adjusted(Direction::Reply, 500, 1000), (500, 1000));
    assert_eq!(adjusted(Direction::Reply, 500, 1029), (500, 1024));
    let mut block = [1029, 1100];
    shifts.adjust_block(Direction::Reply, &mut block);
    assert_eq!(block, [1024, 1095]);
    shifts.adjust_block(Direction::Original, &mut block);
    assert_eq!(block, [1024, 1095]);
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![1u32..60, 1u32..1400]
}

fn isn() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), (u32::MAX - 2000)..=u32::MAX]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is sent again from the last replacement but one on, by either end, is where it was the first time.
    #[test]
    fn both_ends_count_right(
        isn in isn(),
        lengths in prop::collection::vec((length(), prop::option::weighted(0.4, length())), 1..30),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let lengths: Vec<_> = lengths.into_iter().map(|(len, new)| (len, new.unwrap_or(len))).collect();
        let sent = stream(isn, &lengths);
        // The first segment may be at the number where a fresh one's position stands by chance: the handshake comes
        // before any text.
        let mut shift = Shift { position: isn.wrapping_sub(1), ..Shift::default() };
        let (mut last, mut last_but_one) = (0, 0);
        let mut again = again.into_iter();
        for (now, segment) in sent.iter().enumerate() {
            replace(&mut shift, segment);
            if segment.len != segment.new_len {
                (last_but_one, last) = (last, now);
            }
            prop_assert_eq!(shift.seq(segment.seq), segment.new_seq);
            for at in again.by_ref().take(2).map(|at| at.index(now + 1)) {
                let repeated = &sent[at];
                if at < last_but_one || (at == last_but_one && last_but_one != last) {
                    continue;
                }
                let before = shift;
                replace(&mut shift, repeated);
                if at <= last {
                    prop_assert_eq!(shift, before, "a repetition");
                }
                prop_assert_eq!(shift.seq(repeated.seq), repeated.new_seq);
                // All of it is acknowledged, or what came before it.
                let (end, new_end) =
                    (repeated.seq.wrapping_add(repeated.len), repeated.new_seq.wrapping_add(repeated.new_len));
                prop_assert_eq!(shift.ack(new_end), end);
                if at > last_but_one {
                    prop_assert_eq!(shift.ack(repeated.new_seq), repeated.seq);
                }
                let mut shifts = Shifts::default();
                *shifts.of(Direction::Reply) = shift;
                let (mut ack, mut block) = (new_end, [repeated.new_seq, new_end]);
                shifts.adjust(Direction::Original, &mut 7, &mut ack);
                shifts.adjust_block(Direction::Original, &mut block);
                prop_assert_eq!((ack, block[1]), (end, end));
            }
        }
    }

    #[test]
    fn nothing_replaced_is_nothing_changed(seq in any::<u32>(), ack in any::<u32>(), at in any::<u32>()) {
        let mut shifts = Shifts::default();
        shifts.of(Direction::Original).replaced(at, 0);
        prop_assert_eq!(shifts, Shifts::default());
        let (mut new_seq, mut new_ack) = (seq, ack);
        shifts.adjust(Direction::Original, &mut new_seq, &mut new_ack);
        prop_assert_eq!((new_seq, new_ack), (seq, ack));
    }

    #[test]
    fn any_memory_is_a_shift(position in any::<u32>(), before in any::<i32>(), after in any::<i32>(), seq in any::<u32>(), by in any::<i32>()) {
        let mut shift = Shift { position, before, after };
        let offset = shift.seq(seq).wrapping_sub(seq).cast_signed();
        prop_assert!(offset == before || offset == after);
        let offset = seq.wrapping_sub(shift.ack(seq)).cast_signed();
        prop_assert!(offset == before || offset == after);
        shift.replaced(seq, by);
    }
}
