//! UDP: an exchange that lasts more than two seconds is a stream.

use crate::connection::{Connection, Timer};
use crate::status;
use crate::timeouts::Timeouts;

/// How long an exchange must have lasted before it counts as a stream, and not as one query with its
/// answer, in nanoseconds.
const STREAM_AGE_NS: u64 = 2_000_000_000;

/// Starts the clock that tells streams from queries.
#[inline(always)]
pub(crate) fn open(connection: &mut Connection, now_ns: u64) {
    connection.detail = now_ns.saturating_add(STREAM_AGE_NS);
}

/// Notes one more datagram. A first reply still gets the short timeout, as in Linux: one answer makes no
/// stream.
#[inline(always)]
pub(crate) fn advance(connection: &mut Connection, now_ns: u64, timeouts: &Timeouts) -> Timer {
    if connection.status & status::SEEN_REPLY == 0 || now_ns <= connection.stream_ns() {
        return Timer::Set(timeouts.udp);
    }
    connection.status |= status::ASSURED;
    Timer::Set(timeouts.udp_stream)
}
