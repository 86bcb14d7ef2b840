//! TFTP (RFC 1350): a request to the server's port is answered from another port of the server.
//!
//! So, as in Linux's `nf_conntrack_tftp.c`, a request announces a datagram from any port of the server to the
//! client's port.

/// Read request.
const RRQ: u16 = 1;
/// Write request.
const WRQ: u16 = 2;

/// Whether a datagram with this opcode, its first two bytes, announces another exchange.
#[inline(always)]
#[must_use]
pub const fn announces(opcode: u16) -> bool {
    matches!(opcode, RRQ | WRQ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_alone() {
        assert_eq!((0..=u16::MAX).filter(|&opcode| announces(opcode)).count(), 2);
        assert!(announces(1) && announces(2));
    }
}
