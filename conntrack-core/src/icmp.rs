//! ICMP and ICMPv6 queries: which types start a connection, and which type answers which.

const ECHO_REPLY: u8 = 0;
const ECHO: u8 = 8;
const TIMESTAMP: u8 = 13;
const TIMESTAMP_REPLY: u8 = 14;
const INFORMATION: u8 = 15;
const INFORMATION_REPLY: u8 = 16;
const ADDRESS_MASK: u8 = 17;
const ADDRESS_MASK_REPLY: u8 = 18;

const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
const NODE_INFORMATION_QUERY_V6: u8 = 139;
const NODE_INFORMATION_REPLY_V6: u8 = 140;

/// The ICMP type of the reply tuple: the answer to a query, the query of an answer. Types that are neither
/// (errors, redirects, router discovery) belong to no connection of their own.
#[inline]
#[must_use]
pub const fn invert(icmp_type: u8) -> Option<u8> {
    match icmp_type {
        ECHO => Some(ECHO_REPLY),
        ECHO_REPLY => Some(ECHO),
        TIMESTAMP => Some(TIMESTAMP_REPLY),
        TIMESTAMP_REPLY => Some(TIMESTAMP),
        INFORMATION => Some(INFORMATION_REPLY),
        INFORMATION_REPLY => Some(INFORMATION),
        ADDRESS_MASK => Some(ADDRESS_MASK_REPLY),
        ADDRESS_MASK_REPLY => Some(ADDRESS_MASK),
        _ => None,
    }
}

/// As [`invert`], for ICMPv6. Neighbour discovery and multicast listener types have no inverse: they are
/// not tracked.
#[inline]
#[must_use]
pub const fn invert_v6(icmp_type: u8) -> Option<u8> {
    match icmp_type {
        ECHO_REQUEST_V6 => Some(ECHO_REPLY_V6),
        ECHO_REPLY_V6 => Some(ECHO_REQUEST_V6),
        NODE_INFORMATION_QUERY_V6 => Some(NODE_INFORMATION_REPLY_V6),
        NODE_INFORMATION_REPLY_V6 => Some(NODE_INFORMATION_QUERY_V6),
        _ => None,
    }
}

/// Whether an ICMP message of this type can start a connection: the queries.
#[inline]
#[must_use]
pub const fn opens(icmp_type: u8) -> bool {
    matches!(icmp_type, ECHO | TIMESTAMP | INFORMATION | ADDRESS_MASK)
}

/// As [`opens`], for ICMPv6.
#[inline]
#[must_use]
pub const fn opens_v6(icmp_type: u8) -> bool {
    matches!(icmp_type, ECHO_REQUEST_V6 | NODE_INFORMATION_QUERY_V6)
}
