//! The ports of a range, one after the other.

/// A walk over ports: first the one that should be kept, if any, then those of a range, from a start around to
/// it again, but for the first. Every bit pattern is a legal value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    /// Where the walk has come to.
    pub at: u16,
    min: u16,
    max: u16,
    /// Where the walk over the range begins.
    start: u16,
    /// The port to be kept, if `keeps` is not 0.
    kept: u16,
    keeps: u16,
    /// How many ports there are in all.
    pub total: u32,
    /// How many were left behind.
    passed: u32,
}

impl Walk {
    /// One port.
    #[inline(always)]
    pub fn of(port: u16) -> Self {
        Self { at: port, min: port, max: port, start: port, kept: port, keeps: 1, total: 1, passed: 0 }
    }

    /// The ports of a class, from the present one upward; it comes first even if it is none of the class.
    #[inline(always)]
    pub fn upward(min: u16, max: u16, port: u16) -> Self {
        let inside = min <= port && port <= max;
        let start = if inside { port } else { min };
        let total = size(min, max) + u32::from(!inside);
        Self { at: port, min, max, start, kept: port, keeps: 1, total, passed: 0 }
    }

    /// The ports between two limits, from one that `offset` leads to; before them the present one if it is among
    /// them, unless `mixes`.
    #[inline(always)]
    pub fn range(a: u16, b: u16, port: u16, offset: u32, mixes: bool) -> Self {
        let (min, max) = if a <= b { (a, b) } else { (b, a) };
        let keeps = !mixes && min <= port && port <= max;
        let start = start(min, max, offset);
        Self {
            at: if keeps { port } else { start },
            min,
            max,
            start,
            kept: port,
            keeps: keeps.into(),
            total: size(min, max),
            passed: 0,
        }
    }

    /// Back to the first port.
    #[inline(always)]
    pub fn begin(&mut self) {
        self.at = if self.keeps != 0 { self.kept } else { self.start };
        self.passed = 0;
    }

    /// The next port; false: there is none.
    #[inline(always)]
    pub fn advance(&mut self) -> bool {
        self.passed = self.passed.wrapping_add(1);
        if self.passed >= self.total {
            return false;
        }
        let leaves_kept = self.keeps != 0 && self.passed == 1;
        self.at = if leaves_kept { self.start } else { self.following(self.at) };
        if self.keeps != 0 && self.at == self.kept {
            self.at = self.following(self.at);
        }
        true
    }

    /// Goes on from another place.
    #[inline(always)]
    pub fn leap(&mut self, offset: u32) {
        self.start = start(self.min, self.max, offset);
        self.at = self.start;
        self.passed = 1;
    }

    #[inline(always)]
    fn following(&self, port: u16) -> u16 {
        if port == self.max { self.min } else { port.wrapping_add(1) }
    }
}

/// How many ports lie between two limits, with them.
#[inline(always)]
fn size(min: u16, max: u16) -> u32 {
    u32::from(max.wrapping_sub(min)) + 1
}

#[inline(always)]
fn start(min: u16, max: u16, offset: u32) -> u16 {
    min.wrapping_add((offset % size(min, max)) as u16)
}
