//! Which connections are meant: `zone=5 mark=1/0xff ct_nw_proto=6,ct_tp_dst=80`, as `ct-flush` and the commands of
//! the daemon about connections take it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::number::number;
use crate::wire::{CtFlush, CtTuple};

/// IP protocols whose tuples have an identifier, a type and a code in the place of ports.
const ICMP: [u8; 2] = [1, 58];

/// What is wrong with a tuple. The texts are OVS's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum CtTupleError {
    #[error("field {0} missing value")]
    NoValue(String),
    #[error("failed to parse field {0}")]
    Value(&'static str),
    #[error("invalid conntrack tuple field: {0}")]
    UnknownField(String),
    #[error("{0} is set multiple times")]
    Twice(&'static str),
    #[error("the L3 protocol does not match {0}")]
    Family(String),
    #[error("port is set without protocol")]
    NoProtocol,
    #[error("invalid L4 fields")]
    Layer4,
    #[error("the tuples' protocols differ")]
    Protocols,
    #[error("the tuples' address families differ")]
    Families,
    #[error("more than two tuples")]
    TooMany,
}

/// What is wrong with what says which connections are meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum CtFlushError {
    #[error("failed to parse zone")]
    Zone,
    #[error("failed to parse mark")]
    Mark,
    #[error("failed to parse labels")]
    Labels,
    #[error(transparent)]
    Tuple(#[from] CtTupleError),
}

/// Reads which connections are meant. The words are, in any order, `zone=N`, `mark=X[/M]` and `labels=X[/M]`, each at
/// most once, and one or two tuples: of the original direction, and of the reply direction. An empty word is a tuple
/// in which nothing has to agree.
///
/// # Errors
/// Says what is wrong, in OVS's words.
pub fn parse_ct_flush<S: AsRef<str>>(words: &[S]) -> Result<CtFlush, CtFlushError> {
    let mut flush = CtFlush::default();
    let mut tuples = Vec::new();
    for word in words.iter().map(AsRef::as_ref) {
        match word.split_once('=') {
            Some(("zone", zone)) if flush.zone.is_none() => {
                flush.zone = Some(number(zone).ok_or(CtFlushError::Zone)?);
            }
            Some(("mark", mark)) if flush.mark.is_none() => {
                flush.mark = Some(masked(mark, u32::MAX).ok_or(CtFlushError::Mark)?);
            }
            Some(("labels", label)) if flush.label.is_none() => {
                flush.label = Some(masked(label, u128::MAX).ok_or(CtFlushError::Labels)?);
            }
            _ => tuples.push(parse_tuple(word)?),
        }
    }
    let mut tuples = tuples.into_iter();
    let (original, reply) = (tuples.next().unwrap_or_default(), tuples.next().unwrap_or_default());
    if tuples.next().is_some() {
        return Err(CtTupleError::TooMany.into());
    }
    if original.0 != 0 && reply.0 != 0 && original.0 != reply.0 {
        return Err(CtTupleError::Protocols.into());
    }
    flush.ip_proto = original.0.max(reply.0);
    (flush.original, flush.reply) = (original.1, reply.1);
    let family = |tuple: &CtTuple| tuple.src.or(tuple.dst).map(|address| address.is_ipv4());
    if let (Some(original), Some(reply)) = (family(&flush.original), family(&flush.reply))
        && original != reply
    {
        return Err(CtTupleError::Families.into());
    }
    Ok(flush)
}

/// `X` or `X/M`.
fn masked<T: TryFrom<u128>>(text: &str, all: T) -> Option<(T, T)> {
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, all)),
    }
}

/// A tuple and its protocol, 0 for any.
fn parse_tuple(text: &str) -> Result<(u8, CtTuple), CtTupleError> {
    let mut tuple = CtTuple::default();
    let mut protocol = None;
    for item in text.split([',', ' ']).filter(|item| !item.is_empty()) {
        let (key, value) = item.split_once('=').ok_or_else(|| CtTupleError::NoValue(item.to_owned()))?;
        match key {
            "ct_nw_src" => set(&mut tuple.src, "ct_nw_src", ipv4(value))?,
            "ct_nw_dst" => set(&mut tuple.dst, "ct_nw_dst", ipv4(value))?,
            "ct_ipv6_src" => set(&mut tuple.src, "ct_ipv6_src", ipv6(value))?,
            "ct_ipv6_dst" => set(&mut tuple.dst, "ct_ipv6_dst", ipv6(value))?,
            "ct_nw_proto" => set(&mut protocol, "ct_nw_proto", number(value))?,
            "ct_tp_src" => set(&mut tuple.src_port, "ct_tp_src", number(value))?,
            "ct_tp_dst" => set(&mut tuple.dst_port, "ct_tp_dst", number(value))?,
            "icmp_id" => set(&mut tuple.icmp_id, "icmp_id", number(value))?,
            "icmp_type" => set(&mut tuple.icmp_type, "icmp_type", number(value))?,
            "icmp_code" => set(&mut tuple.icmp_code, "icmp_code", number(value))?,
            other => return Err(CtTupleError::UnknownField(other.to_owned())),
        }
        if let (Some(src), Some(dst)) = (tuple.src, tuple.dst)
            && src.is_ipv4() != dst.is_ipv4()
        {
            return Err(CtTupleError::Family(value.to_owned()));
        }
    }
    let ports = tuple.src_port.is_some() || tuple.dst_port.is_some();
    let icmp = tuple.icmp_id.is_some() || tuple.icmp_type.is_some() || tuple.icmp_code.is_some();
    let is_icmp = protocol.is_some_and(|protocol| ICMP.contains(&protocol));
    match protocol {
        None if ports => Err(CtTupleError::NoProtocol),
        _ if icmp && !is_icmp || ports && is_icmp => Err(CtTupleError::Layer4),
        _ => Ok((protocol.unwrap_or(0), tuple)),
    }
}

fn set<T>(field: &mut Option<T>, name: &'static str, value: Option<T>) -> Result<(), CtTupleError> {
    if field.is_some() {
        return Err(CtTupleError::Twice(name));
    }
    *field = Some(value.ok_or(CtTupleError::Value(name))?);
    Ok(())
}

fn ipv4(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

fn ipv6(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<&str> {
        line.split(' ').map(|word| if word == "''" { "" } else { word }).filter(|word| *word != "-").collect()
    }

    #[test]
    fn what_can_be_said() {
        assert_eq!(parse_ct_flush::<&str>(&[]), Ok(CtFlush::default()));
        let flush = parse_ct_flush(&words(
            "zone=5 mark=0x10/0xf0 labels=0xff ct_nw_src=10.0.0.1,ct_nw_proto=17,ct_tp_src=53 \
             ct_nw_dst=10.0.0.9,ct_tp_dst=7,ct_nw_proto=17",
        ))
        .unwrap();
        let original =
            CtTuple { src: Some("10.0.0.1".parse().unwrap()), src_port: Some(53), ..CtTuple::default() };
        let reply =
            CtTuple { dst: Some("10.0.0.9".parse().unwrap()), dst_port: Some(7), ..CtTuple::default() };
        let wanted = CtFlush {
            zone: Some(5),
            ip_proto: 17,
            original,
            reply,
            mark: Some((0x10, 0xf0)),
            label: Some((0xff, u128::MAX)),
        };
        assert_eq!(flush, wanted);

        let flush =
            parse_ct_flush(&words("'' ct_ipv6_src=fd00::1,ct_nw_proto=58,icmp_type=0,icmp_id=7")).unwrap();
        assert_eq!(flush.original, CtTuple::default());
        assert_eq!((flush.ip_proto, flush.reply.icmp_type, flush.reply.icmp_id), (58, Some(0), Some(7)));
    }

    #[test]
    fn errors_in_the_words_of_ovs() {
        for (line, wanted) in [
            ("zone=x", "failed to parse zone"),
            ("zone=65536", "failed to parse zone"),
            ("mark=x", "failed to parse mark"),
            ("mark=1/", "failed to parse mark"),
            ("mark=0x100000000", "failed to parse mark"),
            ("labels=1/x", "failed to parse labels"),
            ("foo", "field foo missing value"),
            ("zone=5 foo", "field foo missing value"),
            ("zone=5 zone=6", "invalid conntrack tuple field: zone"),
            ("foo=1", "invalid conntrack tuple field: foo"),
            ("ct_nw_src", "field ct_nw_src missing value"),
            ("ct_nw_src=x", "failed to parse field ct_nw_src"),
            ("ct_nw_src=1.2.3.4,ct_nw_dst=::1", "failed to parse field ct_nw_dst"),
            ("ct_ipv6_src=1.2.3.4", "failed to parse field ct_ipv6_src"),
            ("ct_nw_src=1.2.3.4,ct_ipv6_dst=::1", "the L3 protocol does not match ::1"),
            ("ct_ipv6_src=::1,ct_nw_dst=1.2.3.4", "the L3 protocol does not match 1.2.3.4"),
            ("ct_nw_src=1.2.3.4,ct_nw_src=::1", "ct_nw_src is set multiple times"),
            ("ct_tp_src=5", "port is set without protocol"),
            ("ct_nw_proto=6,ct_tp_src=x", "failed to parse field ct_tp_src"),
            ("ct_nw_proto=17,ct_tp_dst=70000", "failed to parse field ct_tp_dst"),
            ("ct_nw_proto=256", "failed to parse field ct_nw_proto"),
            ("ct_nw_proto=1,icmp_type=300", "failed to parse field icmp_type"),
            ("ct_nw_proto=6,icmp_id=5", "invalid L4 fields"),
            ("icmp_id=3", "invalid L4 fields"),
            ("ct_nw_proto=1,ct_tp_src=5", "invalid L4 fields"),
            ("ct_nw_proto=6 ct_nw_proto=17", "the tuples' protocols differ"),
            ("ct_nw_src=1.2.3.4 ct_ipv6_src=::1", "the tuples' address families differ"),
            ("ct_nw_proto=6 ct_nw_proto=6 ct_nw_proto=6", "more than two tuples"),
        ] {
            assert_eq!(
                parse_ct_flush(&words(line)).map_err(|error| error.to_string()),
                Err(wanted.to_owned()),
                "{line}"
            );
        }
    }
}
