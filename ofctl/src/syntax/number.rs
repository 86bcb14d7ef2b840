//! Integers as C's `strtoull` with base 0 reads them: `10`, `0xa`, `012`.

/// Reads an unsigned integer that is the whole text.
pub fn integer(text: &str) -> Option<u128> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    // from_str_radix takes a sign, which is not wanted here.
    if digits.starts_with('+') { None } else { u128::from_str_radix(digits, radix).ok() }
}

/// Reads an integer that fits `T`.
pub fn number<T: TryFrom<u128>>(text: &str) -> Option<T> {
    T::try_from(integer(text)?).ok()
}

/// Reads decimal digits.
pub fn decimal(text: &str) -> Option<u32> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// Reads a 64-bit number; `-1` means all ones, as in `cookie=0x12/-1`.
pub fn u64_or_minus_one(text: &str) -> Option<u64> {
    if text == "-1" { Some(u64::MAX) } else { number(text) }
}

/// Whether the text is an integer in form, however large: tells "too large" from "not a number".
pub fn is_integer(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let all = |digits: &str, radix| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => all(hex, 16),
        None => all(text, 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        assert_eq!(integer("10"), Some(10));
        assert_eq!(integer("0xFf"), Some(255));
        assert_eq!(integer("010"), Some(8));
        assert_eq!(integer("0"), Some(0));
        for bad in ["", "-1", "+1", "0x", "0x+1", "1 ", "x", "08"] {
            assert_eq!(integer(bad), None, "{bad}");
        }
        assert_eq!(number::<u16>("65536"), None);
        assert_eq!(u64_or_minus_one("-1"), Some(u64::MAX));
        assert!(is_integer("-1") && is_integer("0x1ffffffffffffffffffffffffffffffffffff"));
        assert!(!is_integer("5x") && !is_integer("") && !is_integer("-"));
    }
}
