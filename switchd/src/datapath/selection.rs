//! Which connections are meant, by their zone, mark, label and tuples.

use std::net::IpAddr;

use ofctl::wire::{CtFlush, CtTuple};
use switchd_ebpf::layout::{Record, Tuple};

/// Which connections are meant.
///
/// A tuple that says all that a tuple has, and stands alone, means the connection that has it in either direction, as
/// in Linux. Any other pair of tuples has to agree with the original and the reply direction, in what they say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection(CtFlush);

impl Selection {
    /// Those that OpenFlow's message means.
    #[must_use]
    pub fn new(flush: CtFlush) -> Self {
        Self(flush)
    }

    /// All of a zone.
    #[must_use]
    pub fn zone(zone: u16) -> Self {
        Self(CtFlush { zone: Some(zone), ..CtFlush::default() })
    }

    /// Whether no more than one connection of a zone can be meant: the tuple is whole. Such a one is meant in zone 0
    /// if no zone is named, as in OVS, where it is looked up; `self` says so from then on.
    pub fn make_exact(&mut self) -> bool {
        let exact = self.is_whole() && self.0.mark.is_none() && self.0.label.is_none();
        if exact {
            self.0.zone.get_or_insert(0);
        }
        exact
    }

    /// Whether there is one tuple, and nothing of it is left open.
    fn is_whole(&self) -> bool {
        let tuple = &self.0.original;
        let ports = tuple.src_port.is_some() && tuple.dst_port.is_some();
        let icmp = tuple.icmp_id.is_some() && tuple.icmp_type.is_some() && tuple.icmp_code.is_some();
        let addresses = tuple.src.is_some() && tuple.dst.is_some();
        self.0.ip_proto != 0 && addresses && (ports || icmp) && self.0.reply == CtTuple::default()
    }

    /// Whether a connection is meant.
    #[must_use]
    pub fn fits(&self, record: &Record) -> bool {
        let flush = &self.0;
        let [original, reply] = &record.tuples;
        let label = u128::from(record.label[0]) << 64 | u128::from(record.label[1]);
        flush.zone.is_none_or(|zone| zone == original.ports.zone)
            && (flush.ip_proto == 0 || flush.ip_proto == original.ports.protocol)
            && flush.mark.is_none_or(|(mark, mask)| (record.mark ^ mark) & mask == 0)
            && flush.label.is_none_or(|(wanted, mask)| (label ^ wanted) & mask == 0)
            && (agrees(&flush.original, original) && agrees(&flush.reply, reply)
                || self.is_whole() && agrees(&flush.original, reply))
    }
}

/// Whether a connection's tuple has what is wanted of it.
fn agrees(wanted: &CtTuple, tuple: &Tuple) -> bool {
    let ports = &tuple.ports;
    let [icmp_type, icmp_code] = ports.dst.to_be_bytes();
    wanted.src.is_none_or(|src| is(src, tuple.src, ports.family))
        && wanted.dst.is_none_or(|dst| is(dst, tuple.dst, ports.family))
        && wanted.src_port.is_none_or(|port| port == ports.src)
        && wanted.dst_port.is_none_or(|port| port == ports.dst)
        && wanted.icmp_id.is_none_or(|id| id == ports.src)
        && wanted.icmp_type.is_none_or(|kind| kind == icmp_type)
        && wanted.icmp_code.is_none_or(|code| code == icmp_code)
}

fn is(wanted: IpAddr, halves: [u64; 2], family: u8) -> bool {
    match wanted {
        IpAddr::V4(address) => family == 4 && halves[1] as u32 == u32::from(address),
        IpAddr::V6(address) => {
            family == 6 && u128::from(halves[0]) << 64 | u128::from(halves[1]) == u128::from(address)
        }
    }
}

#[cfg(test)]
mod tests {
    use ofctl::syntax::parse_ct_flush;
    use switchd_ebpf::layout::Ports;

    use super::*;

    fn record() -> Record {
        let ports = |src, dst| Ports { src, dst, zone: 5, protocol: 17, family: 4 };
        let (a, b) = ([0, 0x0a01_0101], [0, 0x0a01_0102]);
        Record {
            mark: 0x2a,
            label: [1, 0xff],
            // The source is translated.
            tuples: [
                Tuple { src: a, dst: b, ports: ports(5000, 53) },
                Tuple { src: b, dst: [0, 0x0a01_01f0], ports: ports(53, 34567) },
            ],
            ..Record::default()
        }
    }

    fn selection(line: &str) -> Selection {
        let words: Vec<&str> = line.split(' ').map(|word| word.trim_matches('\'')).collect();
        Selection::new(parse_ct_flush(&words).unwrap())
    }

    #[test]
    fn what_is_said_has_to_agree() {
        for (line, wanted) in [
            ("zone=5", true),
            ("zone=0", false),
            ("mark=42", true),
            ("mark=0xfa/0xf", true),
            ("mark=0xfa", false),
            ("labels=0x100000000000000ff", true),
            ("labels=0xff", false),
            ("labels=0xf/0xf", true),
            ("ct_nw_src=10.1.1.1", true),
            ("ct_nw_src=10.1.1.2", false),
            ("'' ct_nw_src=10.1.1.2", true),
            ("'' ct_nw_dst=10.1.1.240,ct_nw_proto=17,ct_tp_dst=34567", true),
            ("ct_nw_proto=6", false),
            ("ct_nw_proto=17,ct_tp_dst=53", true),
            ("ct_nw_proto=17,ct_tp_dst=54", false),
            ("zone=5 ct_nw_src=10.1.1.1 ct_nw_src=10.1.1.2", true),
            ("zone=5 ct_nw_src=10.1.1.1 ct_nw_src=10.1.1.1", false),
            ("ct_ipv6_src=::a01:101", false),
        ] {
            assert_eq!(selection(line).fits(&record()), wanted, "{line}");
        }
    }

    #[test]
    fn a_whole_tuple_means_a_connection_by_either_direction() {
        for (line, fits, exact) in [
            ("ct_nw_src=10.1.1.1,ct_nw_dst=10.1.1.2,ct_nw_proto=17,ct_tp_src=5000,ct_tp_dst=53", true, true),
            (
                "ct_nw_src=10.1.1.2,ct_nw_dst=10.1.1.240,ct_nw_proto=17,ct_tp_src=53,ct_tp_dst=34567",
                true,
                true,
            ),
            ("ct_nw_src=10.1.1.2,ct_nw_dst=10.1.1.1,ct_nw_proto=17,ct_tp_src=53,ct_tp_dst=5000", false, true),
            ("ct_nw_src=10.1.1.2,ct_nw_dst=10.1.1.240,ct_nw_proto=17,ct_tp_src=53", false, false),
            (
                "mark=1 ct_nw_src=10.1.1.1,ct_nw_dst=10.1.1.2,ct_nw_proto=17,ct_tp_src=5000,ct_tp_dst=53",
                false,
                false,
            ),
        ] {
            let mut selection = selection(line);
            assert_eq!(selection.fits(&record()), fits, "{line}");
            assert_eq!(selection.make_exact(), exact, "{line}");
            assert!(!exact || !selection.fits(&record()), "zone 0 is meant: {line}");
        }
    }

    #[test]
    fn icmp_tuples_have_an_identifier_a_type_and_a_code() {
        let mut ping = record();
        ping.tuples[0].ports = Ports { src: 77, dst: 8 << 8, zone: 0, protocol: 1, family: 4 };
        assert!(selection("ct_nw_proto=1,icmp_id=77,icmp_type=8,icmp_code=0").fits(&ping));
        assert!(!selection("ct_nw_proto=1,icmp_type=0").fits(&ping));
    }
}
