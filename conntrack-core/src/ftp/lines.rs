//! Where lines begin in a stream, by TCP sequence numbers.

use crate::tcp::after;

/// The places in one direction's stream where segments began a line. As in `nf_conntrack_ftp.c` the last two are
/// kept: a segment that comes again begins at the one before the last. So that a command is read again however late
/// it comes again, the place of the last one is kept as well. All zero is a fresh one; every bit pattern is a legal
/// value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// The sequence numbers, the later one first.
    begins: [u32; 2],
    /// That of the segment with the last command.
    command: u32,
    /// Which of the three are known, from bit 0 on.
    known: u32,
}

impl Lines {
    /// Whether a segment with this sequence number begins a line. The first one of all does.
    #[inline(always)]
    #[must_use]
    pub const fn begins_at(&self, seq: u32) -> bool {
        let [last, before] = self.begins;
        self.known == 0
            || self.known & 1 != 0 && last == seq
            || self.known & 2 != 0 && before == seq
            || self.known & 4 != 0 && self.command == seq
    }

    /// A segment that starts at `seq` and ends at `end` was seen; `closed`: its last byte ends a line.
    #[inline(always)]
    pub const fn saw(&mut self, seq: u32, end: u32, closed: bool) {
        if self.known & 1 == 0 {
            self.begins[0] = seq;
            self.known |= 1;
        }
        if closed && after(end, self.begins[0]) {
            self.begins = [end, self.begins[0]];
            self.known |= 2;
        }
    }

    /// There was a command in the segment with this sequence number.
    #[inline(always)]
    pub const fn found(&mut self, seq: u32) {
        self.command = seq;
        self.known |= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_behind_those_that_ended() {
        let mut lines = Lines::default();
        assert!(lines.begins_at(100));
        lines.saw(100, 110, false);
        assert!(lines.begins_at(100), "the first segment, again");
        assert!(!lines.begins_at(110), "amid a line");
        lines.saw(110, 120, true);
        assert!(lines.begins_at(120));
        lines.saw(120, 130, true);
        assert!(lines.begins_at(130));
        assert!(lines.begins_at(120), "the last segment, again");
        assert!(!lines.begins_at(100), "too long ago");
        lines.saw(120, 130, true);
        assert!(lines.begins_at(120) && lines.begins_at(130), "it came again, and changed nothing");
        lines.found(120);
        lines.saw(130, 140, true);
        lines.saw(140, 150, true);
        assert!(lines.begins_at(120), "a command, again");
        assert!(!lines.begins_at(130), "too long ago, and none");
    }

    #[test]
    fn numbers_wrap_around() {
        let mut lines = Lines::default();
        lines.saw(u32::MAX - 4, 5, true);
        assert!(lines.begins_at(5));
        lines.saw(5, 9, true);
        assert!(lines.begins_at(9) && lines.begins_at(5) && !lines.begins_at(u32::MAX - 4));
    }
}
