//! The items of a flow text that say what it matches.

use super::error::{ParseError, SubfieldError, ValueError};
use super::items::{Item, Items};
use super::number::{integer, is_integer};
use super::value;
use crate::field::{Field, Format, ones};
use crate::flow::{Match, MissingPrerequisite, check_named};
use crate::port::PortNames;

/// `tcp` and its kind: the Ethernet type and, for some, the IP protocol that they stand for.
const PROTOCOLS: [(&str, u16, Option<u8>); 18] = [
    ("ip", 0x0800, None),
    ("ipv4", 0x0800, None),
    ("ip4", 0x0800, None),
    ("icmp", 0x0800, Some(1)),
    ("tcp", 0x0800, Some(6)),
    ("udp", 0x0800, Some(17)),
    ("sctp", 0x0800, Some(132)),
    ("arp", 0x0806, None),
    ("rarp", 0x8035, None),
    ("mpls", 0x8847, None),
    ("mplsm", 0x8848, None),
    ("ipv6", 0x86dd, None),
    ("ip6", 0x86dd, None),
    ("icmp6", 0x86dd, Some(58)),
    ("tcp6", 0x86dd, Some(6)),
    ("udp6", 0x86dd, Some(17)),
    ("sctp6", 0x86dd, Some(132)),
    // What the datapath carries is Ethernet anyway.
    ("eth", 0, None),
];

/// A match while its items are read. Prerequisites are checked at the end: they may stand in any order.
#[derive(Default)]
pub struct MatchBuilder<'a> {
    matching: Match,
    named: Vec<(&'a str, Field)>,
}

impl<'a> MatchBuilder<'a> {
    /// Takes an item if it is a protocol or a field; `items` is where the flags that continue it are taken from.
    /// Returns whether it was one.
    pub fn take(
        &mut self,
        item: Item<'a>,
        items: &mut Items<'a>,
        ports: &dyn PortNames,
    ) -> Result<bool, ParseError> {
        if let Some(&(_, eth_type, protocol)) = PROTOCOLS.iter().find(|(name, ..)| *name == item.key) {
            if let Some(value) = item.value {
                return Err(ParseError::NeedlessValue { key: item.key.into(), value: value.into() });
            }
            self.protocol(eth_type, protocol);
        } else if item.key.contains('[') {
            self.bits(item)?;
        } else if let Some(field) = Field::by_name(item.key) {
            self.field(field, item, items, ports)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// The match, if every field has its prerequisite.
    pub fn finish(self) -> Result<Match, MissingPrerequisite> {
        // A field given as `field=` or `field=*` demands nothing, and needs nothing.
        let demanding = self.named.iter().filter(|(_, field)| self.matching.get(*field).1 != 0);
        for (name, field) in demanding {
            check_named(name, *field, &self.matching)?;
        }
        Ok(self.matching)
    }

    fn protocol(&mut self, eth_type: u16, protocol: Option<u8>) {
        if eth_type != 0 {
            self.matching.set(Field::EthType, eth_type.into(), 0xffff);
        }
        if let Some(protocol) = protocol {
            self.matching.set(Field::IpProto, protocol.into(), 0xff);
        }
    }

    fn field(
        &mut self,
        field: Field,
        item: Item<'a>,
        items: &mut Items<'a>,
        ports: &dyn PortNames,
    ) -> Result<(), ParseError> {
        let Some(text) = item.value else {
            return Err(ParseError::MissingValue(item.key.into()));
        };
        let masked = if matches!(field.info().format, Format::CtState | Format::TcpFlags) && !text.is_empty()
        {
            let mut flags = text.to_owned();
            while let Some(flag) = items.continued_flag() {
                flags.push_str(flag);
            }
            value::masked(field, &flags, ports)?
        } else {
            value::masked(field, text, ports)?
        };
        self.matching.set(field, masked.value, masked.mask);
        self.named.push((item.key, field));
        Ok(())
    }

    /// `reg0[0..7]=5`: adds to what is demanded of the field already.
    fn bits(&mut self, item: Item<'a>) -> Result<(), ParseError> {
        let (text, digits) = (item.key, item.argument());
        let bits = value::subfield(text)?;
        let value = match integer(digits) {
            Some(value) if value <= ones(bits.n_bits) => value,
            None if !is_integer(digits) => {
                return Err(SubfieldError::NotAnInteger { text: text.into(), value: digits.into() }.into());
            }
            _ => {
                let (text, value) = (text.into(), digits.into());
                return Err(SubfieldError::DoesNotFit { text, value, bits: bits.n_bits }.into());
            }
        };
        let info = bits.field.info();
        let mask = ones(bits.n_bits) << bits.ofs;
        if !info.maskable && bits.n_bits != info.bits {
            return Err(ValueError::InvalidMask { text: text.into(), field: info.name }.into());
        }
        let (old_value, old_mask) = self.matching.get(bits.field);
        self.matching.set(bits.field, old_value & !mask | value << bits.ofs, old_mask | mask);
        self.named.push((info.name, bits.field));
        Ok(())
    }
}
