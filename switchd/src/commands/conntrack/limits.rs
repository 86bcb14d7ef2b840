//! `dpctl/ct-set-limits`, `ct-get-limits` and `ct-del-limits`: how many connections a zone may have.

use std::fmt::Write as _;
use std::sync::Arc;

use super::super::invalid;
use super::arguments::{without_datapath, words};
use crate::control::{CommandError, Registry};
use crate::datapath::Zones;
use crate::switch::Switch;

pub(super) fn register(registry: &mut Registry, switch: &Arc<Switch>) {
    let setter = Arc::clone(switch);
    let usage = "[dp] [default=L] [zone=N,limit=L]...";
    registry.register("dpctl/ct-set-limits", usage, 1..=usize::MAX, move |args, _| {
        let (default, zones) = parse_limits(without_datapath(&words(args)?))?;
        setter.zones().set_limits(default, &zones);
        Ok(())
    });

    let getter = Arc::clone(switch);
    registry.register("dpctl/ct-get-limits", "[dp] [zone=N1[,N2]...]", 0..=2, move |args, reply| {
        let words = words(args)?;
        let zones = getter.zones();
        let asked = match without_datapath(&words) {
            [] => None,
            [list] => Some(parse_zones(list)?),
            [_, more, ..] => return Err(invalid(&format!("invalid argument {more}"))),
        };
        let default = zones.default_limit();
        writeln!(reply, "default limit={default}")?;
        let mut print = |number, limit, count| writeln!(reply, "zone={number},limit={limit},count={count}");
        match asked {
            Some(asked) => asked.into_iter().try_for_each(|number| {
                let zone = zones.get(number);
                print(number, Zones::own_limit(&zone).unwrap_or(default), zone.connections)
            })?,
            None => zones
                .iter()
                .filter_map(|(number, zone)| Some((number, Zones::own_limit(&zone)?, zone.connections)))
                .try_for_each(|(number, limit, count)| print(number, limit, count))?,
        }
        Ok(())
    });

    let deleter = Arc::clone(switch);
    registry.register("dpctl/ct-del-limits", "[dp] [default] [zone=N1[,N2]...]", 1..=3, move |args, _| {
        let words = words(args)?;
        let (default, rest) = match without_datapath(&words) {
            ["default", rest @ ..] => (Some(0), rest),
            rest => (None, rest),
        };
        let zones = match rest {
            [] => Vec::new(),
            [list] => parse_zones(list)?,
            [_, more, ..] => return Err(invalid(&format!("invalid argument {more}"))),
        };
        if default.is_none() && zones.is_empty() {
            return Err(invalid("no limit to delete"));
        }
        let zones: Vec<_> = zones.into_iter().map(|zone| (zone, None)).collect();
        deleter.zones().set_limits(default, &zones);
        Ok(())
    });
}

/// The default limit, if there is one, and those of zones.
type Limits = (Option<u32>, Vec<(u16, Option<u32>)>);

/// Reads `[default=L] [zone=N,limit=L]...`.
fn parse_limits(mut words: &[&str]) -> Result<Limits, CommandError> {
    let mut default = None;
    if let [first, rest @ ..] = words
        && let Some(limit) = first.strip_prefix("default=")
    {
        default = Some(limit.parse().map_err(|_| invalid("invalid default limit"))?);
        words = rest;
    }
    let zones = words.iter().map(|word| parse_limit(word)).collect::<Result<_, _>>()?;
    Ok((default, zones))
}

/// Reads `zone=N,limit=L`.
fn parse_limit(text: &str) -> Result<(u16, Option<u32>), CommandError> {
    let (mut zone, mut limit) = (None, None);
    for field in text.split(',').filter(|field| !field.is_empty()) {
        match field.split_once('=') {
            Some(("zone", value)) => {
                zone = Some(value.parse().map_err(|_| invalid("failed to parse field zone"))?);
            }
            Some(("limit", value)) => {
                limit = Some(value.parse().map_err(|_| invalid("failed to parse field limit"))?);
            }
            Some((other, _)) => return Err(invalid(&format!("invalid zone limit field: {other}"))),
            None => return Err(invalid(&format!("field {field} missing value"))),
        }
    }
    zone.zip(limit)
        .map(|(zone, limit)| (zone, Some(limit)))
        .ok_or_else(|| invalid("failed to parse zone limit"))
}

/// Reads `zone=N1[,N2]...`.
fn parse_zones(text: &str) -> Result<Vec<u16>, CommandError> {
    let list = text.strip_prefix("zone=").ok_or_else(|| invalid(&format!("invalid argument {text}")))?;
    list.split(',').map(|zone| zone.parse().map_err(|_| invalid("invalid zone"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let parse = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            parse_limits(&words).map_err(|error| error.to_string())
        };
        assert_eq!(
            parse("default=10 zone=5,limit=6 limit=0,zone=65535"),
            Ok((Some(10), vec![(5, Some(6)), (65535, Some(0))]))
        );
        for (line, wanted) in [
            ("zone=5", "failed to parse zone limit"),
            ("limit=3", "failed to parse zone limit"),
            ("zone=x,limit=5", "failed to parse field zone"),
            ("zone=65536,limit=5", "failed to parse field zone"),
            ("zone=5,limit=x", "failed to parse field limit"),
            ("zone=5,limit=5,foo=1", "invalid zone limit field: foo"),
            ("zone=5,limit", "field limit missing value"),
            ("foo", "field foo missing value"),
            ("default=x", "invalid default limit"),
            ("zone=1,limit=1 default=5", "invalid zone limit field: default"),
        ] {
            assert_eq!(parse(line), Err(format!("ovs-vswitchd: {wanted} (Invalid argument)")), "{line}");
        }
    }

    #[test]
    fn zones() {
        let parse = |text: &str| parse_zones(text).map_err(|error| error.to_string());
        assert_eq!(parse("zone=5,0,7"), Ok(vec![5, 0, 7]));
        for (text, wanted) in [
            ("zone=x", "invalid zone"),
            ("zone=1,x", "invalid zone"),
            ("zone=", "invalid zone"),
            ("x", "invalid argument x"),
        ] {
            assert_eq!(parse(text), Err(format!("ovs-vswitchd: {wanted} (Invalid argument)")), "{text}");
        }
    }
}
