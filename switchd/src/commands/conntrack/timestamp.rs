//! Times of day.

use std::fmt;
use std::mem::MaybeUninit;

/// Whose midnight counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    /// The system's, as OVS prints times.
    Local,
    /// Greenwich's; such a time ends in `Z`.
    Utc,
}

/// A time of day, in nanoseconds since 1970, printed as ISO 8601 has it with milliseconds.
pub(super) struct Timestamp(pub u64, pub Zone);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0 / 1_000_000;
        let seconds = (milliseconds / 1000) as libc::time_t;
        let mut time = MaybeUninit::<libc::tm>::zeroed();
        // SAFETY: both pointers are valid for the call, and zeros are a valid `tm`, should the call fail.
        let time = unsafe {
            match self.1 {
                Zone::Local => libc::localtime_r(&raw const seconds, time.as_mut_ptr()),
                Zone::Utc => libc::gmtime_r(&raw const seconds, time.as_mut_ptr()),
            };
            time.assume_init()
        };
        let (year, month) = (i64::from(time.tm_year) + 1900, time.tm_mon + 1);
        write!(
            f,
            "{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{:03}",
            time.tm_mday,
            time.tm_hour,
            time.tm_min,
            time.tm_sec,
            milliseconds % 1000
        )?;
        if self.1 == Zone::Utc { f.write_str("Z") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_iso_has_them() {
        let at = 1_709_210_096_007_999_999;
        assert_eq!(Timestamp(at, Zone::Utc).to_string(), "2024-02-29T12:34:56.007Z");
        assert_eq!(Timestamp(0, Zone::Utc).to_string(), "1970-01-01T00:00:00.000Z");
        let local = Timestamp(at, Zone::Local).to_string();
        assert_eq!((local.len(), &local[19..]), (23, ".007"), "{local}");
    }
}
