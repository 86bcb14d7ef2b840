//! The choice of a translated tuple.
//!
//! A connection's translation must give its replies a tuple of their own, and only the table of connections
//! knows which are taken: it tells by whether a tuple can be claimed. So the choice is a search of candidates.
//! The caller starts a [`Search`] with a connection's first packet and then, for each candidate, tries to
//! claim its reply tuple, until that succeeds or there are no more.
//!
//! The rules are those of Linux's `nf_nat_core.c` (`get_unique_tuple`, `nf_nat_l4proto_unique_tuple`, the null
//! binding) where OVS's userspace tracker has none of its own; the walk from the original port upward, the
//! start by hash and the way from address to address are OVS's (`nat_get_unique_tuple`).
//!
//! - The **address** is the range's first plus a hash modulo the number of its addresses. The hash is that of
//!   the client's address, and of the called one unless the range is *persistent*.
//! - The **port** stays what it is where that is allowed and free. Else it is looked for from there upward in
//!   its class (1 to 511, 600 to 1023, 1024 to 65535), or in the range's ports from a start by hash or by
//!   chance; either way around the end and up to the start.
//! - Of an ICMP query the identifier is the port, with one class of all numbers. Other protocols than TCP, UDP
//!   and SCTP have none, and only their addresses vary.
//! - Where the **destination** is translated, the source port is moved within its class when all else
//!   collides, as it is by a **null binding**, which translates nothing until there is a collision.
//! - When one address has no port left, the next one is tried.
//!
//! A space of no more than [`MAX_ATTEMPTS`] candidates is searched whole, each of them once, so that "none is
//! left" is exact. Of a larger one only that many are tried: see [`Search::advance`].

mod address;
mod walk;

use crate::protocol;
use address::{add, from_hash, mix, next_within, span};
use walk::Walk;

/// Candidates that one search tries at most. With them the two lower classes of ports, of 511 and 424, are
/// searched whole; and where all collide, a new connection costs a hundred microseconds or so, not the
/// milliseconds of 64,512 tries.
pub const MAX_ATTEMPTS: u16 = 512;

/// Ports of an address that are tried one by one if it has no more; the first stretch if it has.
const LONGEST_RUN: u16 = 128;
/// The later stretches halve until this.
const SHORTEST_RUN: u16 = 16;
/// Addresses that are tried one by one before the search leaps, where there are many.
const ADDRESS_RUN: u32 = 64;

/// Bits of [`Range::flags`].
pub mod flags {
    /// The source is translated.
    pub const SRC: u32 = 1 << 0;
    /// The destination is translated. Without this and [`SRC`] it is a null binding.
    pub const DST: u32 = 1 << 1;
    /// The addresses are IPv6, else IPv4.
    pub const IPV6: u32 = 1 << 2;
    /// There is a range of addresses.
    pub const ADDRESSES: u32 = 1 << 3;
    /// There is a range of ports.
    pub const PORTS: u32 = 1 << 4;
    /// A client always gets the same address, whomever it calls.
    pub const PERSISTENT: u32 = 1 << 5;
    /// Ports are looked for from one that follows from the tuple. It is so without this flag, too.
    pub const HASH: u32 = 1 << 6;
    /// Ports are looked for from one by chance, without trying the original one first.
    pub const RANDOM: u32 = 1 << 7;
}

/// What `nat(...)` asks for. All zero is a null binding; every bit pattern is a legal value.
///
/// Limits that are the wrong way round are taken the other way (as Linux does for ports). An address range from
/// zero to zero (`0.0.0.0`), or of the other family than the packet, keeps the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first address: a 128-bit number, high half first; an IPv4 address in the low 32 bits.
    pub min: [u64; 2],
    /// The last address.
    pub max: [u64; 2],
    /// The first port, or ICMP identifier.
    pub min_port: u16,
    /// The last one.
    pub max_port: u16,
    /// Bits of [`flags`].
    pub flags: u32,
}

/// The tuple of a connection's first packet; numbers in host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// Source address, as [`Range::min`].
    pub src: [u64; 2],
    /// Destination address.
    pub dst: [u64; 2],
    /// Source port; the identifier of an ICMP query.
    pub src_port: u16,
    /// Destination port; what stands there for ICMP stays as it is.
    pub dst_port: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Explicit padding; zero.
    pub reserved: [u8; 2],
}

/// A search for a translated tuple, and the candidate that it has come to. Every bit pattern is a legal value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// The candidate's address in place of the source, or of the destination where that is translated.
    pub address: [u64; 2],
    /// The candidate's source port, or ICMP identifier.
    pub src_port: u16,
    /// The candidate's destination port.
    pub dst_port: u16,
    /// How many candidates there were.
    attempts: u16,
    /// How many more there are in this stretch.
    run_left: u16,
    /// The range of addresses.
    min: [u64; 2],
    max: [u64; 2],
    /// Where numbers by chance come from.
    chance: u64,
    /// How many addresses the range has; `u32::MAX`: more than can be tried.
    addresses: u32,
    /// Addresses that were left behind.
    visited: u32,
    /// How many stretches there were.
    runs: u32,
    /// Bits of [`search_flags`].
    flags: u32,
    source: Walk,
    destination: Walk,
}

/// Bits of [`Search::flags`].
mod search_flags {
    /// All candidates are tried.
    pub const WHOLE: u32 = 1;
    /// Each address has few enough ports to try them all.
    pub const WHOLE_ADDRESS: u32 = 2;
}

const _: () = assert!(size_of::<Range>() == 40 && align_of::<Range>() == 8);
const _: () = assert!(size_of::<Original>() == 40 && align_of::<Original>() == 8);
const _: () = assert!(size_of::<Search>() == 120 && align_of::<Search>() == 8);

impl Search {
    /// Begins a search, over whatever `self` held. The first candidate comes with [`Search::advance`].
    ///
    /// `salt` is the same for all connections of a datapath; what follows from a tuple by hash is the same for
    /// the same salt. `random` is a new one for each search.
    #[inline]
    pub fn start(&mut self, range: &Range, original: &Original, salt: u32, random: u32) {
        self.flags = 0;
        self.attempts = 0;
        self.runs = 0;
        self.visited = 0;
        let client = mix(mix(u64::from(salt) ^ original.src[0]) ^ original.src[1]);
        let both = mix(mix(client ^ original.dst[0]) ^ original.dst[1]);
        let ports = u64::from(original.src_port) << 32 | u64::from(original.dst_port) << 16;
        let tuple = mix(both ^ ports ^ u64::from(original.protocol));
        self.chance = mix(tuple ^ u64::from(random));
        self.start_addresses(
            range,
            original,
            if range.flags & flags::PERSISTENT != 0 { client } else { both },
        );
        self.start_ports(range, original, tuple);
        let ports = u64::from(self.source.total) * u64::from(self.destination.total);
        if ports <= u64::from(LONGEST_RUN) {
            self.flags |= search_flags::WHOLE_ADDRESS;
        }
        let most = u64::from(MAX_ATTEMPTS);
        if ports <= most && ports * u64::from(self.addresses) <= most {
            self.flags |= search_flags::WHOLE;
        }
        self.run_left = LONGEST_RUN;
    }

    #[inline(always)]
    fn start_addresses(&mut self, range: &Range, original: &Original, hash: u64) {
        let family = if range.flags & flags::IPV6 != 0 { 6 } else { 4 };
        let given = range.flags & flags::ADDRESSES != 0
            && range.flags & (flags::SRC | flags::DST) != 0
            && original.family == family
            && (range.min[0] | range.min[1] | range.max[0] | range.max[1]) != 0;
        if !given {
            self.address = if range.flags & flags::DST != 0 { original.dst } else { original.src };
            self.min = self.address;
            self.max = self.address;
            self.addresses = 1;
            return;
        }
        let reversed =
            range.min[0] > range.max[0] || (range.min[0] == range.max[0] && range.min[1] > range.max[1]);
        if reversed {
            self.min = range.max;
            self.max = range.min;
        } else {
            self.min = range.min;
            self.max = range.max;
        }
        let span = span(&self.min, &self.max);
        self.addresses =
            if span[0] != 0 || span[1] >= u64::from(MAX_ATTEMPTS) { u32::MAX } else { span[1] as u32 + 1 };
        self.address = add(&self.min, &from_hash(hash, &span));
    }

    #[inline(always)]
    fn start_ports(&mut self, range: &Range, original: &Original, hash: u64) {
        let Original { src_port, dst_port, .. } = *original;
        self.source = Walk::of(src_port);
        self.destination = Walk::of(dst_port);
        let translates = range.flags & (flags::SRC | flags::DST) != 0;
        let given = translates && range.flags & flags::PORTS != 0;
        let is_random = translates && range.flags & flags::RANDOM != 0;
        let start = (if is_random { self.chance } else { hash }) as u32;
        match original.protocol {
            protocol::ICMP | protocol::ICMPV6 => {
                if given {
                    self.source = Walk::range(range.min_port, range.max_port, src_port, start, is_random);
                } else {
                    self.source = Walk::upward(0, u16::MAX, src_port);
                }
            }
            protocol::TCP | protocol::UDP | protocol::SCTP => {
                let translates_destination = range.flags & flags::DST != 0;
                let (lowest, highest) = class(src_port);
                if given && !translates_destination {
                    self.source = Walk::range(range.min_port, range.max_port, src_port, start, is_random);
                } else if is_random && !translates_destination {
                    self.source = Walk::range(lowest, highest, src_port, start, true);
                } else {
                    self.source = Walk::upward(lowest, highest, src_port);
                }
                if given && translates_destination {
                    self.destination =
                        Walk::range(range.min_port, range.max_port, dst_port, start, is_random);
                }
            }
            _ => {}
        }
    }

    /// Goes on to the next candidate. False: there is none, and `self` does not hold one.
    ///
    /// A space of more than [`MAX_ATTEMPTS`] candidates is tried in stretches, of 128, 64, 32 and from then on
    /// 16 ports, each of which begins somewhere else, by chance, so that no crowded stretch can keep the search
    /// from what is free elsewhere (`nf_nat_l4proto_unique_tuple` does likewise). The first four stay with the
    /// first address, which a client should keep if it can, and each later one takes the next address, where
    /// there is one. But where each address has 128 ports or fewer, they are tried one by one; and there the
    /// search leaps to an address by chance after every 64, where there are more than [`MAX_ATTEMPTS`].
    #[inline]
    pub fn advance(&mut self) -> bool {
        if self.attempts >= MAX_ATTEMPTS {
            return false;
        }
        if self.attempts > 0 && !self.step() {
            self.attempts = MAX_ATTEMPTS;
            return false;
        }
        self.attempts = self.attempts.wrapping_add(1);
        self.src_port = self.source.at;
        self.dst_port = self.destination.at;
        true
    }

    #[inline(always)]
    fn step(&mut self) -> bool {
        if self.flags & (search_flags::WHOLE | search_flags::WHOLE_ADDRESS) == 0 {
            self.run_left = self.run_left.wrapping_sub(1);
            if self.run_left == 0 {
                self.leap();
                return true;
            }
        }
        if self.destination.advance() {
            return true;
        }
        self.destination.begin();
        if self.source.advance() {
            return true;
        }
        self.source.begin();
        self.next_address()
    }

    /// The next address. False: all were tried, and with all their ports.
    #[inline(always)]
    fn next_address(&mut self) -> bool {
        self.visited = self.visited.wrapping_add(1);
        if self.visited >= self.addresses && self.flags & search_flags::WHOLE != 0 {
            return false;
        }
        if self.addresses == u32::MAX && self.visited.is_multiple_of(ADDRESS_RUN) {
            self.chance = mix(self.chance);
            self.address = add(&self.min, &from_hash(self.chance, &span(&self.min, &self.max)));
        } else {
            self.address = next_within(&self.address, &self.min, &self.max);
        }
        true
    }

    /// Begins another stretch of ports.
    #[inline(always)]
    fn leap(&mut self) {
        self.runs = self.runs.wrapping_add(1);
        self.run_left = match self.runs {
            1 => LONGEST_RUN / 2,
            2 => LONGEST_RUN / 4,
            _ => SHORTEST_RUN,
        };
        self.chance = mix(self.chance);
        if self.runs > 3 && self.addresses > 1 {
            self.next_address();
            // An address that is met for the first time may have the original port free.
            if self.visited < self.addresses {
                self.source.begin();
                self.destination.begin();
                return;
            }
        }
        if self.destination.total > 1 {
            self.destination.leap(self.chance as u32);
            if !self.source.advance() {
                self.source.begin();
            }
        } else {
            self.source.leap(self.chance as u32);
        }
    }
}

/// The ports among which one may be moved, so that a privileged one stays so: the lower ones were those of
/// `rlogin` and its kin, of which 512 and up tell who a user is.
#[inline(always)]
const fn class(port: u16) -> (u16, u16) {
    match port {
        0..512 => (1, 511),
        512..1024 => (600, 1023),
        _ => (1024, u16::MAX),
    }
}
