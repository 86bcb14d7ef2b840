//! SCTP: any chunks, from an association's first packet on.

use arbitrary::Arbitrary;
use conntrack_core::sctp::{MAX_CHUNKS, Packet, State};
use conntrack_core::{Connection, Direction, Facts, Outcome, Timeouts, Timer, Verdict, ct_state, status};

use crate::{Check, Way};

/// An association's first packet, and those that follow.
#[derive(Arbitrary, Debug)]
pub struct Association {
    first: Chunks,
    rest: Vec<(Way, Chunks)>,
}

/// What a packet brings.
#[derive(Arbitrary, Debug)]
pub struct Chunks {
    tag: Tag,
    chunks: Vec<Chunk>,
}

/// A verification tag, most often one that is known.
#[derive(Arbitrary, Debug)]
enum Tag {
    Zero,
    Own,
    Other,
    Any(u32),
}

#[derive(Arbitrary, Debug)]
struct Chunk {
    kind: u8,
    flags: u8,
    length: u16,
    init_tag: Option<u32>,
}

impl Chunks {
    /// The packet, sent in a direction of a connection.
    pub fn packet(&self, connection: &Connection, direction: Direction) -> Packet {
        let tags = connection.vtags();
        let mut packet = Packet::default();
        packet.start(match self.tag {
            Tag::Zero => 0,
            Tag::Own => tags[direction as usize],
            Tag::Other => tags[direction.reverse() as usize],
            Tag::Any(tag) => tag,
        });
        for (at, chunk) in self.chunks.iter().enumerate() {
            // Half of the types there are mean something.
            let kind = if chunk.kind < 0xf0 { chunk.kind & 15 } else { chunk.kind };
            let goes_on = packet.push(kind, chunk.flags, chunk.length, chunk.init_tag);
            assert!(at < MAX_CHUNKS);
            assert!(!goes_on || chunk.length > 0);
            if !goes_on {
                break;
            }
        }
        packet
    }
}

impl Check for Association {
    fn check(&self) {
        let timeouts = Timeouts::DEFAULT;
        let (mut connection, mut outcome) = (Connection::default(), Outcome::default());
        let first = self.first.packet(&connection, Direction::Original);
        if !connection.open(&Facts::Sctp(&first), 0, &timeouts, &mut outcome) {
            return;
        }
        assert_eq!(outcome.ct_state, ct_state::TRK | ct_state::NEW);
        check_state(&connection, &timeouts, outcome.timer);
        for (way, chunks) in &self.rest {
            let packet = chunks.packet(&connection, Direction::from(*way));
            moves_on(&mut connection, Direction::from(*way), &packet, &timeouts);
        }
    }
}

fn moves_on(connection: &mut Connection, direction: Direction, packet: &Packet, timeouts: &Timeouts) {
    let before = *connection;
    let mut outcome = Outcome::default();
    let verdict = connection.advance(direction, &Facts::Sctp(packet), 0, timeouts, &mut outcome);
    check_state(connection, timeouts, outcome.timer);
    assert_eq!(connection.status & before.status, before.status, "status bits only come");
    assert_eq!(connection.tcp, before.tcp);
    match verdict {
        Verdict::Accept => {
            let answered = connection.status & status::SEEN_REPLY != 0;
            let expected = match direction {
                Direction::Reply => ct_state::EST | ct_state::RPL,
                Direction::Original if answered => ct_state::EST,
                Direction::Original => ct_state::NEW,
            };
            assert_eq!(outcome.ct_state, ct_state::TRK | expected);
        }
        Verdict::Invalid => {
            assert_eq!(outcome.ct_state, ct_state::TRK | ct_state::INV);
            assert_eq!(outcome.timer, Timer::Keep);
        }
        Verdict::Reopen | Verdict::Destroy => panic!("{verdict:?}"),
    }
    if connection.status & !before.status & status::ASSURED != 0 {
        assert_ne!(before.sctp_state, State::ESTABLISHED);
    }
}

fn check_state(connection: &Connection, timeouts: &Timeouts, timer: Timer) {
    let state = connection.sctp_state;
    assert!((1..=8).contains(&state.0), "{state:?}");
    if timer != Timer::Keep {
        assert_eq!(timer, Timer::Set(timeouts.sctp(state)));
    }
}
