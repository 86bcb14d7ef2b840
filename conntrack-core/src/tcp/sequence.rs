//! Comparing sequence numbers, which wrap around.

/// Whether `a` comes before `b`: it does if the shorter way round from it to `b` leads upward.
#[inline(always)]
pub(crate) const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// Whether `a` comes after `b`.
#[inline(always)]
pub(crate) const fn after(a: u32, b: u32) -> bool {
    before(b, a)
}
