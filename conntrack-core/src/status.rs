//! The status bits of a connection, with the numbers and names that Linux and OVS's printer use.

/// The connection was expected by another one.
pub const EXPECTED: u32 = 1 << 0;
/// A packet was seen in the reply direction.
pub const SEEN_REPLY: u32 = 1 << 1;
/// Never to be dropped early to make room, unless it is closing.
pub const ASSURED: u32 = 1 << 2;
/// The connection was committed to the table.
pub const CONFIRMED: u32 = 1 << 3;
/// The source of original packets is translated.
pub const SRC_NAT: u32 = 1 << 4;
/// The destination of original packets is translated.
pub const DST_NAT: u32 = 1 << 5;
/// TCP sequence numbers are adjusted.
pub const SEQ_ADJUST: u32 = 1 << 6;
/// Source translation was decided upon.
pub const SRC_NAT_DONE: u32 = 1 << 7;
/// Destination translation was decided upon.
pub const DST_NAT_DONE: u32 = 1 << 8;
/// The connection is being removed.
pub const DYING: u32 = 1 << 9;
/// The timer is not to be renewed.
pub const FIXED_TIMEOUT: u32 = 1 << 10;

/// Every bit with the name that `dump-conntrack -m` prints, in the order of printing.
pub const NAMES: [(u32, &str); 11] = [
    (EXPECTED, "EXPECTED"),
    (SEEN_REPLY, "SEEN_REPLY"),
    (ASSURED, "ASSURED"),
    (CONFIRMED, "CONFIRMED"),
    (SRC_NAT, "SRC_NAT"),
    (DST_NAT, "DST_NAT"),
    (SEQ_ADJUST, "SEQ_ADJUST"),
    (SRC_NAT_DONE, "SRC_NAT_DONE"),
    (DST_NAT_DONE, "DST_NAT_DONE"),
    (DYING, "DYING"),
    (FIXED_TIMEOUT, "FIXED_TIMEOUT"),
];
